package riverbeat

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestLockKey(t *testing.T) {
	t.Parallel()
	key := func(task, args, params string) string {
		key, err := LockKey(task, json.RawMessage(args), json.RawMessage(params))
		require.NoError(t, err)
		require.Len(t, key, 32)
		return key
	}
	base := key("echo", `[]`, `{"a":1,"b":"x"}`)

	t.Run("SpellingDoesNotMatter", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, base, key("echo", ` [ ] `, `{"b":"\u0078", "a":1.0}`))
		require.Equal(t, base, key("echo", ``, `{"a":1,"b":"x"}`), "no args are []")
		require.Equal(t, key("echo", `[]`, `{}`), key("echo", `null`, ``), "no parameters are {}")
	})

	t.Run("EachPartMatters", func(t *testing.T) {
		t.Parallel()
		require.NotEqual(t, base, key("echo2", `[]`, `{"a":1,"b":"x"}`))
		require.NotEqual(t, base, key("echo", `[1]`, `{"a":1,"b":"x"}`))
		require.NotEqual(t, base, key("echo", `[]`, `{"a":2,"b":"x"}`))
	})

	t.Run("PartsDoNotRunTogether", func(t *testing.T) {
		t.Parallel()
		require.NotEqual(t, digest("lock", "ab", "c"), digest("lock", "a", "bc"))
		require.NotEqual(t, digest("lock", "a", ""), digest("lock", "", "a"))
		require.NotEqual(t, digest("lock", "a"), digest("lock", "a", ""))
	})

	t.Run("SaysWhichPartIsWrong", func(t *testing.T) {
		t.Parallel()
		_, err := LockKey("echo", json.RawMessage(`[`), nil)
		require.ErrorContains(t, err, "args")
		_, err = LockKey("echo", nil, json.RawMessage(`{"a":"\u0000"}`))
		require.ErrorContains(t, err, "task_params")
		require.Equal(t, Invalid, KindOf(err))
	})

	// Keys are stored with runs and jobs: another one after an upgrade would let
	// two runs overlap.
	t.Run("StaysTheSameBetweenVersions", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, "8cff1b4423ed4e5567e8e7221f8fbdb4", base)
		require.Equal(t, "b2547974c264ac55d1f58d2c6d9fb65c", ChainKey(uuid.UUID{1, 2, 3}))
		require.Equal(t, int64(-8314091338022079914), AdvisoryKey("riverbeat", "admit", base))
	})
}

func TestChainKey(t *testing.T) {
	t.Parallel()
	one, other := uuid.UUID{1}, uuid.UUID{2}
	require.Len(t, ChainKey(one), 32)
	require.NotEqual(t, ChainKey(one), ChainKey(other))
	require.NotEqual(t, digest("chain", "x"), digest("lock", "x"), "no chain key is a lock key")
}

func TestAdvisoryKey(t *testing.T) {
	t.Parallel()
	key := AdvisoryKey("riverbeat", "admit", "k")
	require.Equal(t, key, AdvisoryKey("riverbeat", "admit", "k"))
	require.NotEqual(t, key, AdvisoryKey("other", "admit", "k"), "two installations in one database")
	require.NotEqual(t, key, AdvisoryKey("riverbeat", "execute", "k"), "two uses of one key")
	require.NotEqual(t, key, AdvisoryKey("riverbeat", "admit", "l"))
}
