package postgres_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// waits inserts a run that waits behind the key, at the given second of a fixed
// day.
func waits(t *testing.T, d *pgtest.Database, key string, second int) uuid.UUID {
	t.Helper()
	at := time.Date(2026, time.March, 2, 8, 0, second, 0, time.UTC)
	exec(t, d, "SELECT create_runs_partition($1)", at)
	random := uuid.New()
	id := riverbeat.NewRunID(at, random[:])
	exec(t, d, `
INSERT INTO runs (id, scheduled_for, schedule_id, schedule_name, task_name, lock_key, execution_policy, trigger, slot, state, line_rank)
VALUES ($1, $2, $1, 'nightly', 'echo', $3, 'queue', 'manual', $1, 'waiting', 0)`, id, at, key)
	return id
}

// requireLinesAreThoseOfRuns wants as many rows in lines, and the same as runs has.
func requireLinesAreThoseOfRuns(t *testing.T, d *pgtest.Database, want int) {
	t.Helper()
	var lines, wrong int
	require.NoError(t, d.Pool.QueryRow(t.Context(), `
WITH waiting AS (
    SELECT lock_key, line_rank, scheduled_for, id, trigger FROM runs WHERE line_rank IS NOT NULL AND lock_key IS NOT NULL
)
SELECT
    (SELECT count(*) FROM lines),
    (SELECT count(*) FROM (TABLE waiting EXCEPT TABLE lines) AS a) + (SELECT count(*) FROM (TABLE lines EXCEPT TABLE waiting) AS b)`).
		Scan(&lines, &wrong))
	require.Equal(t, want, lines)
	require.Zero(t, wrong)
}

func TestLinesFollowRuns(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	var ids []uuid.UUID
	for i := range 5 {
		ids = append(ids, waits(t, d, "key", i))
	}
	requireLinesAreThoseOfRuns(t, d, 5)
	for _, step := range []struct {
		statement string
		waiting   int
	}{
		{"UPDATE runs SET state = 'queued', line_rank = NULL, job_id = 1 WHERE id = $1", 4},
		{"UPDATE runs SET state = 'running' WHERE id = $1", 4},
		{"UPDATE runs SET state = 'waiting', line_rank = 1 WHERE id = $1", 5},
		{"UPDATE runs SET line_rank = 0, lock_key = 'other' WHERE id = $1", 5},
		{"UPDATE runs SET lock_key = NULL WHERE id = $1", 4},
		{"UPDATE runs SET lock_key = 'key', trigger = 'backfill' WHERE id = $1", 5},
		{"UPDATE runs SET scheduled_for = scheduled_for + interval '7 days' WHERE id = $1", 5},
		{"DELETE FROM runs WHERE id = $1", 4},
	} {
		exec(t, d, "SELECT create_runs_partition('2026-03-09 08:00Z')")
		exec(t, d, step.statement, ids[2])
		requireLinesAreThoseOfRuns(t, d, step.waiting)
	}

	// A week that goes and comes back, by hand.
	exec(t, d, "ALTER TABLE runs DETACH PARTITION runs_p20260302")
	exec(t, d, "ALTER TABLE runs ATTACH PARTITION runs_p20260302 FOR VALUES FROM ('2026-03-02 00:00Z') TO ('2026-03-09 00:00Z')")
	requireLinesAreThoseOfRuns(t, d, 4)
	exec(t, d, "CREATE TABLE kept AS TABLE runs")
	exec(t, d, "TRUNCATE runs_p20260302") // no trigger of runs is called
	exec(t, d, "INSERT INTO runs SELECT * FROM kept")
	requireLinesAreThoseOfRuns(t, d, 4)

	exec(t, d, "TRUNCATE runs, lines")
	requireLinesAreThoseOfRuns(t, d, 0)
	waits(t, d, "key", 1)
	exec(t, d, "TRUNCATE runs")
	requireLinesAreThoseOfRuns(t, d, 0)
}

func TestWhoWaitsInNoLineIsPutInLine(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	ids := []uuid.UUID{waits(t, d, "key", 1), waits(t, d, "key", 2), waits(t, d, "other", 3)}
	exec(t, d, "DELETE FROM lines WHERE run_id <> $1", ids[1])
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		restored, err := tx.RestoreLines(t.Context())
		require.Equal(t, 2, restored)
		return err
	}))
	requireLinesAreThoseOfRuns(t, d, 3)
}

// Whoever is promoted or cancelled at this moment is not put back in line.
func TestWhoLeavesHisLineIsNotPutBack(t *testing.T) {
	t.Parallel()
	for _, listed := range []bool{true, false} {
		d := pgtest.DB(t)
		id := waits(t, d, "key", 1)
		if !listed {
			exec(t, d, "DELETE FROM lines")
		}
		promotes, err := d.Pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = promotes.Rollback(context.Background()) }()
		_, err = promotes.Exec(t.Context(), "UPDATE runs SET state = 'queued', line_rank = NULL, job_id = 1 WHERE id = $1", id)
		require.NoError(t, err)
		done := make(chan int, 1)
		go func() {
			restored := -1
			_ = d.DB.InTx(t.Context(), func(tx *postgres.Tx) (err error) {
				restored, err = tx.RestoreLines(t.Context())
				return err
			})
			done <- restored
		}()
		if listed { // nobody need be waited for
			require.Zero(t, <-done)
			require.NoError(t, promotes.Commit(t.Context()))
		} else {
			requireOneWaitsForALock(t, d)
			require.NoError(t, promotes.Commit(t.Context()))
			require.Zero(t, <-done)
		}
		requireLinesAreThoseOfRuns(t, d, 0)
	}
}

func requireOneWaitsForALock(t *testing.T, d *pgtest.Database) {
	t.Helper()
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, d.Pool.QueryRow(t.Context(),
			"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n))
		return n == 1
	}, 10*time.Second, 5*time.Millisecond)
}

func TestStalledKeysAndLines(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	for key, n := range map[string]int{"busy": 3, "stalled": 4, "also stalled": 1} {
		for second := range n {
			waits(t, d, key, second)
		}
	}
	exec(t, d, `INSERT INTO river_job (args, kind, max_attempts, state) VALUES ('{"lock_key": "busy"}', 'run', 1, 'available')`)
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		keys, err := tx.StalledKeys(t.Context(), 10)
		require.NoError(t, err)
		require.Equal(t, []string{"also stalled", "stalled"}, keys)
		keys, err = tx.StalledKeys(t.Context(), 1)
		require.Len(t, keys, 1)
		return err
	}))
}

func TestRunsThatWaitedBeforeAreInLine(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	require.NoError(t, postgres.MigrateDown(t.Context(), d.Config(), 13, slog.New(slog.DiscardHandler)))
	waits(t, d, "key", 1)
	waits(t, d, "other", 2)
	require.NoError(t, postgres.MigrateUp(t.Context(), d.Config(), slog.New(slog.DiscardHandler)))
	requireLinesAreThoseOfRuns(t, d, 2)
	exec(t, d, "UPDATE runs SET state = 'cancelled', line_rank = NULL WHERE lock_key = 'key'")
	requireLinesAreThoseOfRuns(t, d, 1)
}

func TestTheHeadOfALine(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	first := func() *riverbeat.Run {
		var run *riverbeat.Run
		require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) (err error) {
			run, err = tx.FirstWaiting(t.Context(), "key")
			return err
		}))
		return run
	}
	require.Nil(t, first())
	ids := []uuid.UUID{waits(t, d, "key", 1), waits(t, d, "key", 2), waits(t, d, "key", 3)}
	waits(t, d, "other", 0)
	require.Equal(t, ids[0], first().ID)
	exec(t, d, "UPDATE runs SET line_rank = 1 WHERE id = $1", ids[0])
	require.Equal(t, ids[1], first().ID)

	// Those whose runs nobody finds any more stand in nobody's way.
	exec(t, d, "ALTER TABLE runs DISABLE TRIGGER USER")
	exec(t, d, "DELETE FROM runs WHERE id = $1", ids[1])
	exec(t, d, "UPDATE runs SET state = 'cancelled', line_rank = NULL WHERE id = $1", ids[2])
	exec(t, d, "ALTER TABLE runs ENABLE TRIGGER USER")
	require.Equal(t, ids[0], first().ID)
	requireLinesAreThoseOfRuns(t, d, 2)

	// One that is being cancelled is waited for, and then the next is first.
	next := waits(t, d, "key", 4)
	cancels, err := d.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = cancels.Rollback(context.Background()) }()
	_, err = cancels.Exec(t.Context(), "UPDATE runs SET state = 'cancelled', line_rank = NULL WHERE id = $1", next)
	require.NoError(t, err)
	found := make(chan *riverbeat.Run, 1)
	go func() { found <- first() }()
	requireOneWaitsForALock(t, d)
	require.NoError(t, cancels.Commit(t.Context()))
	require.Equal(t, ids[0], (<-found).ID)
}
