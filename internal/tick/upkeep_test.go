package tick_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Partitions are made ahead beside the sweep: neither waits for the other.
func TestUpkeepHasALoopOfItsOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const ahead = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'runs'::regclass AND inhrelid = to_regclass('runs_p' || to_char(runs_week(now() + interval '14 days') AT TIME ZONE 'UTC', 'YYYYMMDD'))"
	require.Zero(t, b.count(t, ahead))

	// The sweep hangs.
	held, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = held.Exec(t.Context(), "LOCK TABLE schedule_clocks IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	swept, kept := make(chan struct{}), make(chan struct{})
	go func() { defer close(swept); b.ticker.Run(ctx) }()
	go func() { defer close(kept); b.ticker.RunUpkeep(ctx) }()
	require.Eventually(t, func() bool { return b.count(t, ahead) == 1 }, 10*time.Second, 5*time.Millisecond)
	cancel()
	<-swept
	<-kept
	require.NoError(t, held.Rollback(t.Context()))
}

// What fails keeps nothing else from being done.
func TestUpkeepGoesOnWithWhatCanBeDone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, "INSERT INTO nodes (id, host, version, last_seen_at) VALUES (gen_random_uuid(), 'gone', '1', now() - interval '2 days')")
	b.exec(t, "ALTER FUNCTION create_runs_partition(timestamptz) RENAME TO gone")
	require.ErrorContains(t, b.ticker.Upkeep(t.Context()), "make partitions")
	require.Zero(t, b.count(t, "SELECT count(*) FROM nodes"))
}
