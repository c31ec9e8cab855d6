package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Statistics are of some minutes ago, and a plan that is kept on a connection of
// when it was made: the tables may have been empty then, and hold a burst now.
// What runs per tick and per run reads no more rows than it is asked for.
func TestNothingReadsMoreThanItIsAskedFor(t *testing.T) {
	t.Parallel()
	const rows, batch = 5000, 200
	for _, first := range []int{1, 30, 300} {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			t.Parallel()
			d := pgtest.DB(t)
			exec(t, d, "SELECT create_runs_partition(now() - i * interval '1 week') FROM generate_series(0, 120) AS i")
			exec(t, d, "VACUUM ANALYZE")
			cfg := d.Config()
			cfg.MaxConns = 1 // all on one connection
			pool, err := postgres.NewPool(t.Context(), cfg)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			db := postgres.New(pool, pgtest.Schema)

			steps := []struct {
				name  string
				db    *postgres.DB
				table string // whose rows are counted
				do    func(tx *postgres.Tx, from, to int) error
			}{
				{"start runs", db, "^runs_p", func(tx *postgres.Tx, from, to int) error {
					var starts []postgres.Start
					rows, err := tx.Query(t.Context(), "SELECT (args ->> 'run_id')::uuid, id FROM river_job WHERE id > $1 AND id <= $2", from, to)
					if err != nil {
						return err
					}
					for rows.Next() {
						var s postgres.Start
						if err := rows.Scan(&s.RunID, &s.JobID); err != nil {
							return err
						}
						s.ScheduledFor, _ = riverbeat.RunTime(s.RunID)
						starts = append(starts, s)
					}
					started, err := tx.StartRuns(t.Context(), "node", starts)
					require.Len(t, started, to-from)
					if err != nil {
						return err
					}
					var partitions int
					err = tx.QueryRow(t.Context(), "SELECT count(DISTINCT relation) FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text ~ '^runs_p[0-9]+$'").Scan(&partitions)
					require.Equal(t, 1, partitions)
					return err
				}},
				{"end jobs", db, "^runs_p", func(tx *postgres.Tx, from, to int) error {
					_, err := tx.Exec(t.Context(), "UPDATE river_job SET state = 'completed', finalized_at = now() WHERE id > $1 AND id <= $2", from, to)
					return err
				}},
				{"list the runs of a schedule", db, "^runs_p", func(tx *postgres.Tx, from, to int) error {
					for _, id := range scheduleIDs(t, tx, from, to) {
						page, _, err := tx.SearchRuns(t.Context(), &postgres.RunFilter{ScheduleID: &id, State: []riverbeat.State{riverbeat.Succeeded}, Limit: 50})
						if err != nil {
							return err
						}
						require.Len(t, page, 1)
					}
					return nil
				}},
				{"read schedules with their last runs", db, "^runs_p", func(tx *postgres.Tx, from, to int) error {
					for _, id := range scheduleIDs(t, tx, from, to) {
						s, err := tx.Schedule(t.Context(), id)
						if err != nil {
							return err
						}
						require.NotNil(t, s.LastRunAt)
					}
					return nil
				}},
				{"claim", db.ByIndex(), "^schedule_clocks$", func(tx *postgres.Tx, from, to int) error {
					clocks, err := tx.ClaimClocks(t.Context(), to-from)
					require.Len(t, clocks, to-from)
					return err
				}},
				{"move clocks", db.ByIndex(), "^schedule_clocks$", func(tx *postgres.Tx, from, to int) error {
					plans := map[uuid.UUID]riverbeat.Plan{}
					for _, id := range scheduleIDs(t, tx, from, to) {
						plans[id] = riverbeat.Plan{Mark: time.Now()}
					}
					require.Len(t, plans, to-from)
					return tx.SetClocks(t.Context(), plans)
				}},
			}
			due(t, d, 0, first)
			for _, step := range steps {
				require.NoError(t, step.db.InTx(t.Context(), func(tx *postgres.Tx) error { return step.do(tx, 0, first) }), step.name)
			}
			due(t, d, first, rows)
			for _, step := range steps {
				require.NoError(t, step.db.InTx(t.Context(), func(tx *postgres.Tx) error {
					before := readOf(t, tx, step.table)
					err := step.do(tx, first, first+batch)
					read := readOf(t, tx, step.table) - before
					require.GreaterOrEqual(t, read, batch, step.name)
					require.Less(t, read, 2*batch, step.name)
					return err
				}))
			}
		})
	}
}

// A plan that was made when a week had the runs of one schedule only finds those of
// another by their index, too, not by walking along all.
func TestTheRunsOfARareSchedule(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	const frequent = 50_000
	due(t, d, 0, 1)
	exec(t, d, `
INSERT INTO runs (id, scheduled_for, schedule_id, schedule_name, task_name, execution_policy, trigger, slot, state)
SELECT
    ('00000000-0000-7001-a000-' || lpad(to_hex(i), 12, '0'))::uuid, r.scheduled_for + i * interval '1 millisecond', r.schedule_id,
    r.schedule_name, r.task_name, r.execution_policy, 'schedule', '00000000-0000-0000-0000-000000000000', 'succeeded'
FROM runs AS r, generate_series(1, $1::int) AS i`, frequent)
	exec(t, d, "VACUUM ANALYZE runs")
	due(t, d, 1, 2)
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		rare := scheduleIDs(t, tx, 1, 2)[0]
		before := readOf(t, tx, "^runs_p")
		page, _, err := tx.SearchRuns(t.Context(), &postgres.RunFilter{ScheduleID: &rare, Limit: 50})
		require.NoError(t, err)
		require.Len(t, page, 1)
		s, err := tx.Schedule(t.Context(), rare)
		require.NoError(t, err)
		require.NotNil(t, s.LastRunAt)
		require.Less(t, readOf(t, tx, "^runs_p")-before, 10)
		return nil
	}))
}

// scheduleIDs reads those of the schedules that due has made for these jobs.
func scheduleIDs(t *testing.T, tx *postgres.Tx, from, to int) []uuid.UUID {
	t.Helper()
	rows, err := tx.Query(t.Context(), "SELECT id FROM schedules ORDER BY id LIMIT $2 - $1 OFFSET $1", from, to)
	require.NoError(t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	require.NoError(t, err)
	require.Len(t, ids, to-from)
	return ids
}

// A batch may be of several weeks, up to their last millisecond.
func TestRunsOfSeveralWeeksStartTogether(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	var starts []postgres.Start
	for i, at := range []time.Time{
		time.Date(2025, time.December, 28, 23, 59, 59, 999e6, time.UTC), // a Sunday
		time.Date(2025, time.December, 29, 0, 0, 0, 0, time.UTC),
		time.Date(2026, time.January, 4, 23, 59, 59, 999e6, time.UTC),
		time.Date(2026, time.January, 5, 0, 0, 0, 0, time.UTC),
		time.Date(2026, time.November, 26, 12, 0, 0, 0, time.UTC),
	} {
		random := uuid.New()
		s := postgres.Start{RunID: riverbeat.NewRunID(at, random[:]), ScheduledFor: at, JobID: int64(i + 1)}
		exec(t, d, "SELECT create_runs_partition($1)", at)
		exec(t, d, `
INSERT INTO runs (id, scheduled_for, schedule_name, task_name, execution_policy, trigger, slot, state, job_id)
VALUES ($1, $2, 'nightly', 'echo', 'allow', 'manual', $1, 'queued', $3)`, s.RunID, at, s.JobID)
		starts = append(starts, s)
	}
	rand.Shuffle(len(starts), func(i, k int) { starts[i], starts[k] = starts[k], starts[i] })
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		started, err := tx.StartRuns(t.Context(), "node", starts)
		require.Len(t, started, len(starts))
		return err
	}))
}

// readOf is how many rows the connection has read in tables whose names match.
func readOf(t *testing.T, tx *postgres.Tx, tables string) (n int) {
	t.Helper()
	const read = `
SELECT sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0))
FROM pg_stat_xact_user_tables
WHERE relname ~ $1`
	require.NoError(t, tx.QueryRow(t.Context(), read, tables).Scan(&n))
	return n
}

// due makes schedules with a run each, whose job was fetched; of those numbered
// after from, up to to.
func due(t *testing.T, d *pgtest.Database, from, to int) {
	t.Helper()
	exec(t, d, `
WITH given AS (
    SELECT i, (lpad(to_hex((extract(epoch FROM date_trunc('second', now())) * 1000)::bigint), 12, '0')
        || '7000a000' || lpad(to_hex(i), 12, '0'))::uuid AS id
    FROM generate_series($1::int + 1, $2::int) AS i
),
schedule AS (
    INSERT INTO schedules (id, name, task_name, cron_expression, timezone)
    SELECT id, 'nightly ' || i, 'echo', '* * * * *', 'UTC' FROM given
),
clock AS (
    INSERT INTO schedule_clocks (schedule_id, last_scheduled_for, next_run_at)
    SELECT id, now() - interval '1 minute', now() FROM given
),
job AS (
    INSERT INTO river_job (id, args, attempt, attempted_by, kind, max_attempts, state)
    SELECT i, jsonb_build_object('run_id', id), 1, '{node}', 'run', 3, 'running' FROM given
)
INSERT INTO runs (id, scheduled_for, schedule_id, schedule_name, task_name, execution_policy, trigger, slot, state, job_id)
SELECT id, date_trunc('second', now()), id, 'nightly ' || i, 'echo', 'allow', 'manual', id, 'queued', i
FROM given`, from, to)
}
