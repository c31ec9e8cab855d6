package access_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/access"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is an access on a database of its own, with a clock for its limits.
type bundle struct {
	*pgtest.Database
	*access.Access
	clock time.Time
}

func setup(t *testing.T, options ...func(*access.Config)) *bundle {
	t.Helper()
	b := &bundle{Database: pgtest.DB(t), clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	cfg := access.Config{DB: b.DB, Now: func() time.Time { return b.clock }}
	for _, option := range options {
		option(&cfg)
	}
	b.Access = access.New(cfg)
	return b
}

func (b *bundle) key(t *testing.T, role riverbeat.Role) (id, text string) {
	t.Helper()
	k, text, err := b.CreateKey(pgtest.As(t.Context(), "ada"), &riverbeat.APIKey{Name: "key of a " + string(role), Role: role})
	require.NoError(t, err)
	return k.ID, text
}

func (b *bundle) show(t *testing.T, key string) (riverbeat.Actor, error) {
	t.Helper()
	return b.from(t, key, "192.0.2.1")
}

func (b *bundle) from(t *testing.T, key, address string) (riverbeat.Actor, error) {
	t.Helper()
	return b.Authenticate(t.Context(), access.Credentials{Key: key, Address: netip.MustParseAddr(address), RequestID: "r"})
}

func (b *bundle) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := b.Pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func TestAKeyTellsWhoItIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, text := b.key(t, riverbeat.Editor)
	actor, err := b.show(t, text)
	require.NoError(t, err)
	require.Equal(t, riverbeat.Actor{
		Name: "key of a editor", KeyID: id, Role: riverbeat.Editor, Address: "192.0.2.1", RequestID: "r",
	}, actor)
	kept, err := b.Key(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "ada", kept.CreatedBy)
	require.NotNil(t, kept.LastUsedAt)

	// Used again at once, it is not written again.
	var before, after string
	const version = "SELECT xmin::text FROM api_keys WHERE id = $1"
	require.NoError(t, b.Pool.QueryRow(t.Context(), version, id).Scan(&before))
	_, err = b.show(t, text)
	require.NoError(t, err)
	require.NoError(t, b.Pool.QueryRow(t.Context(), version, id).Scan(&after))
	require.Equal(t, before, after)
	b.exec(t, "UPDATE api_keys SET last_used_at = last_used_at - interval '61 seconds'")
	_, err = b.show(t, text)
	require.NoError(t, err)
	again, err := b.Key(t.Context(), id)
	require.NoError(t, err)
	require.WithinDuration(t, *kept.LastUsedAt, *again.LastUsedAt, 30*time.Second)

	// The secret is nowhere.
	var kepts int
	secret := strings.Split(text, "_")[2]
	require.NoError(t, b.Pool.QueryRow(t.Context(), `
SELECT count(*) FROM api_keys, audit_log
WHERE strpos(to_jsonb(api_keys)::text || to_jsonb(audit_log)::text, $1) > 0
    OR audit_log.after ? 'digest'`, secret).Scan(&kepts))
	require.Zero(t, kepts)
}

func TestWhatIsNoKeyIsToldNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	expired := riverbeat.NewKeyText("aaaaaaaaaaaa", strings.Repeat("A", 26))
	b.exec(t, "INSERT INTO api_keys (id, name, role, digest, expires_at) VALUES ('aaaaaaaaaaaa', 'x', 'admin', $1, now())", riverbeat.KeyDigest(expired))
	_, valid := b.key(t, riverbeat.Admin)
	id, revoked := b.key(t, riverbeat.Viewer)
	_, err := b.RevokeKey(t.Context(), id)
	require.NoError(t, err)
	for _, text := range []string{
		"", "-", "rb_", expired, revoked,
		riverbeat.NewKeyText("bbbbbbbbbbbb", strings.Repeat("A", 26)), // no such id
		riverbeat.NewKeyText(id, strings.Repeat("A", 26)),             // another secret
		valid[:len(valid)-1], valid + "0", strings.ToUpper(valid), " " + valid,
	} {
		_, err := b.show(t, text)
		require.Equal(t, riverbeat.Errorf(riverbeat.Unauthenticated, "unauthenticated", "A valid API key is needed, as in: Authorization: Bearer rb_…"), err, text)
	}
	_, err = b.show(t, valid)
	require.NoError(t, err)
}

func TestATypoIsNotAskedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, text := b.key(t, riverbeat.Viewer)
	b.Pool.Close()
	last := "0"
	if strings.HasSuffix(text, last) {
		last = "1"
	}
	_, err := b.show(t, text[:len(text)-1]+last)
	require.Equal(t, riverbeat.Unauthenticated, riverbeat.KindOf(err))
	_, err = b.show(t, text)
	require.Error(t, err)
	require.NotEqual(t, riverbeat.Unauthenticated, riverbeat.KindOf(err), "it cannot be told without the database")
}

func TestFailuresAreLimitedByAddressAndLockNobodyOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, valid := b.key(t, riverbeat.Viewer)
	for range 100 {
		_, err := b.show(t, "")
		require.Equal(t, riverbeat.Unauthenticated, riverbeat.KindOf(err), "no key is no failed attempt")
	}
	for range 10 {
		_, err := b.from(t, "wrong", "2001:db8::1")
		require.Equal(t, riverbeat.Unauthenticated, riverbeat.KindOf(err))
	}
	_, err := b.from(t, "wrong", "2001:db8::2:3")
	require.Equal(t, riverbeat.TooMany, riverbeat.KindOf(err), "the same network")
	require.InDelta(t, 6*time.Second, err.(*riverbeat.Error).RetryAfter, float64(time.Second)) //nolint:errorlint,forcetypeassert // asked above
	_, err = b.from(t, valid, "2001:db8::1")
	require.NoError(t, err)
	_, err = b.from(t, "wrong", "2001:db9::1")
	require.Equal(t, riverbeat.Unauthenticated, riverbeat.KindOf(err), "another one")
	b.clock = b.clock.Add(7 * time.Second)
	_, err = b.from(t, "wrong", "2001:db8::1")
	require.Equal(t, riverbeat.Unauthenticated, riverbeat.KindOf(err))
}

func TestRequestsAreLimitedByKey(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *access.Config) { c.RequestsPerSecond = 2 })
	_, one := b.key(t, riverbeat.Viewer)
	_, other := b.key(t, riverbeat.Viewer)
	for range 4 {
		_, err := b.show(t, one)
		require.NoError(t, err)
	}
	_, err := b.show(t, one)
	require.Equal(t, riverbeat.TooMany, riverbeat.KindOf(err))
	_, err = b.show(t, other)
	require.NoError(t, err)
	b.clock = b.clock.Add(time.Second)
	for range 2 {
		_, err := b.show(t, one)
		require.NoError(t, err)
	}
	_, err = b.show(t, one)
	require.Equal(t, riverbeat.TooMany, riverbeat.KindOf(err))
}

func TestAnAddressThatIsForgottenBeginsAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 10_100 { // more than are remembered
		address := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		_, err := b.Authenticate(t.Context(), access.Credentials{Key: "wrong", Address: address})
		require.Equal(t, riverbeat.Unauthenticated, riverbeat.KindOf(err))
	}
}

func TestOpenness(t *testing.T) {
	t.Parallel()
	closed, open := setup(t), setup(t, func(c *access.Config) { c.Open = access.Open })
	until := setup(t, func(c *access.Config) { c.Open = access.OpenUntilAKey })
	withKey := setup(t, func(c *access.Config) { c.Open, c.AdminKey = access.OpenUntilAKey, "the key of the settings" })
	let := func(b *bundle) bool {
		t.Helper()
		actor, err := b.show(t, "")
		if err != nil {
			require.Equal(t, riverbeat.Unauthenticated, riverbeat.KindOf(err))
			return false
		}
		require.Equal(t, "anonymous", actor.Name)
		return actor.Role == riverbeat.Admin
	}
	onlyLoopback := func(b *bundle) bool {
		t.Helper()
		only, err := b.OnlyLoopback(t.Context())
		require.NoError(t, err)
		return only
	}
	require.False(t, let(closed))
	require.True(t, let(open))
	require.False(t, onlyLoopback(open))
	require.False(t, let(withKey))
	require.True(t, let(until))
	require.True(t, onlyLoopback(until))
	_, err := until.show(t, "wrong")
	require.Equal(t, riverbeat.Unauthenticated, riverbeat.KindOf(err), "who shows a key means it")

	// By whatever program the first key is made, and whatever becomes of it.
	id, _ := (&bundle{Database: until.Database, Access: access.New(access.Config{DB: until.DB, Now: time.Now})}).key(t, riverbeat.Viewer)
	require.False(t, let(until))
	require.False(t, onlyLoopback(until))
	_, err = until.RevokeKey(t.Context(), id)
	require.NoError(t, err)
	require.False(t, let(until))

	actor, err := withKey.show(t, "the key of the settings")
	require.NoError(t, err)
	require.Equal(t, riverbeat.SettingsKey, actor.Name)
	require.Equal(t, riverbeat.Admin, actor.Role)
}

func TestTheFirstKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var group sync.WaitGroup
	texts := make(chan string, 8)
	for range cap(texts) {
		group.Go(func() {
			text, err := b.EnsureKey(t.Context())
			if err == nil {
				texts <- text
			}
		})
	}
	group.Wait()
	require.Len(t, texts, cap(texts))
	first := ""
	for range cap(texts) {
		if text := <-texts; text != "" {
			require.Empty(t, first)
			first = text
		}
	}
	actor, err := b.show(t, first)
	require.NoError(t, err)
	require.Equal(t, riverbeat.Admin, actor.Role)

	b.exec(t, "UPDATE api_keys SET expires_at = now()")
	_, err = b.EnsureKey(t.Context())
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err), "nobody can come in, and nobody is let in by itself")
	text, err := access.New(access.Config{DB: b.DB, AdminKey: "the key of the settings", Now: time.Now}).EnsureKey(t.Context())
	require.NoError(t, err)
	require.Empty(t, text)
}

func TestKeysAreRotatedWithOverlap(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, old := b.key(t, riverbeat.Admin)
	k, text, err := b.RotateKey(t.Context(), id, time.Hour)
	require.NoError(t, err)
	require.Equal(t, id, k.RotatedFrom)
	require.Equal(t, riverbeat.Admin, k.Role)
	for _, key := range []string{old, text} {
		_, err := b.show(t, key)
		require.NoError(t, err)
	}
	before, err := b.Key(t.Context(), id)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), *before.ExpiresAt, time.Minute)

	last, text2, err := b.RotateKey(t.Context(), k.ID, 0)
	require.NoError(t, err)
	_, err = b.show(t, text)
	require.Equal(t, riverbeat.Unauthenticated, riverbeat.KindOf(err))
	_, err = b.show(t, text2)
	require.NoError(t, err)
	_, _, err = b.RotateKey(t.Context(), k.ID, 0)
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err), "it has ended")
	_, _, err = b.RotateKey(t.Context(), "none", 0)
	require.Equal(t, riverbeat.NotFound, riverbeat.KindOf(err))
	for _, overlap := range []time.Duration{-1, 31 * 24 * time.Hour} {
		_, _, err = b.RotateKey(t.Context(), last.ID, overlap)
		require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err))
	}
}

func TestTheLastAdminIsNotRevoked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, _ := b.key(t, riverbeat.Admin)
	other, _ := b.key(t, riverbeat.Admin)
	b.key(t, riverbeat.Editor)
	// Whoever comes second is refused.
	errs := make(chan error, 2)
	for _, id := range []string{one, other} {
		go func() {
			_, err := b.RevokeKey(context.Background(), id)
			errs <- err
		}()
	}
	kinds := map[bool]int{}
	for range 2 {
		err := <-errs
		if err != nil {
			require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
		}
		kinds[err == nil]++
	}
	require.Equal(t, map[bool]int{true: 1, false: 1}, kinds)
}

func TestKeysKeepTheRules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	past := time.Now().Add(-time.Second)
	for pointer, k := range map[string]riverbeat.APIKey{
		"/name":       {Name: " ", Role: riverbeat.Viewer},
		"/role":       {Name: "x", Role: "root"},
		"/expires_at": {Name: "x", Role: riverbeat.Viewer, ExpiresAt: &past},
	} {
		_, _, err := b.CreateKey(t.Context(), &k)
		require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err), pointer)
		require.Contains(t, err.Error(), pointer)
	}
	_, _, err := b.CreateKey(t.Context(), &riverbeat.APIKey{Name: "a\nb" + strings.Repeat("x", 200), Role: riverbeat.Viewer})
	require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err))
}

func TestTheAuditTrailTellsWho(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := postgres.WithActor(t.Context(), riverbeat.Actor{Name: "ada", KeyID: "k", Address: "192.0.2.1", RequestID: "r-1"})
	k, _, err := b.CreateKey(ctx, &riverbeat.APIKey{Name: "new", Role: riverbeat.Viewer})
	require.NoError(t, err)
	_, err = b.RevokeKey(ctx, k.ID)
	require.NoError(t, err)
	b.exec(t, "UPDATE api_keys SET last_used_at = now()")
	b.exec(t, "UPDATE api_keys SET name = 'by hand'")
	b.exec(t, "UPDATE api_keys SET name = 'by hand'")

	keys := "api_key" // where a test's database is at home is written down, too
	page, next, err := b.Audit(t.Context(), &postgres.AuditFilter{ObjectType: &keys, Limit: 2})
	require.NoError(t, err)
	require.Len(t, page, 2)
	require.Equal(t, "api_key.change", page[0].Action)
	require.Regexp(t, "^role:", page[0].Actor.Name)
	require.JSONEq(t, `"by hand"`, part(t, page[0].After, "name"))
	require.JSONEq(t, `"new"`, part(t, page[0].Before, "name"))
	require.Equal(t, "api_key.revoke", page[1].Action)
	require.Equal(t, riverbeat.Actor{Name: "ada", KeyID: "k", Address: "192.0.2.1", RequestID: "r-1"}, page[1].Actor)
	require.Equal(t, riverbeat.AuditObject{Type: "api_key", ID: k.ID}, page[1].Object)

	rest, last, err := b.Audit(t.Context(), &postgres.AuditFilter{ObjectType: &keys, Limit: 2, Before: next})
	require.NoError(t, err)
	require.Nil(t, last)
	require.Len(t, rest, 1)
	require.Equal(t, "api_key.create", rest[0].Action)
	require.Nil(t, rest[0].Before)

	b.exec(t, "TRUNCATE task_definitions")
	truncated := "task_definition.truncate"
	page, _, err = b.Audit(t.Context(), &postgres.AuditFilter{Action: &truncated, Limit: 2})
	require.NoError(t, err)
	require.Len(t, page, 1)
	for _, statement := range []string{"UPDATE audit_log SET actor = 'bob'", "DELETE FROM audit_log", "TRUNCATE audit_log"} {
		_, err := b.Pool.Exec(t.Context(), statement)
		require.ErrorContains(t, err, "append-only", "also for the owner")
	}
}

func part(t *testing.T, object []byte, name string) string {
	t.Helper()
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(object, &members))
	return string(members[name])
}
