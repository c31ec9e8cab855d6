package postgres_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// A report names neither attempt nor owner, and is said again when its answer
// was lost. By then the job may be worked by somebody else.
func TestOnlyTheReportOfTheAttemptUnderWayEndsIt(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	pool := func(node string) *pgxpool.Pool {
		cfg := d.Config()
		cfg.Node, cfg.MaxConns = node, 2
		p, err := postgres.NewPool(t.Context(), cfg)
		require.NoError(t, err)
		t.Cleanup(p.Close)
		return p
	}
	const (
		fetched = `
INSERT INTO river_job (args, attempt, attempted_by, kind, max_attempts, state)
VALUES ('{}', 2, '{first, second}', 'run', 3, 'running')
RETURNING id`
		completes = "UPDATE river_job SET state = 'completed', finalized_at = now() WHERE id = $1"
		snoozes   = "UPDATE river_job SET state = 'available', attempt = attempt - 1 WHERE id = $1"
		asks      = `UPDATE river_job SET metadata = '{"cancel_attempted_at": 1}' WHERE id = $1`
		fails     = `
UPDATE river_job
SET state = 'retryable', errors = array_append(errors, '{"attempt": 2, "error": "x"}')
WHERE id = $1`
		failedBefore = `
UPDATE river_job
SET state = 'retryable', errors = array_append(errors, '{"attempt": 1, "error": "x"}')
WHERE id = $1`
	)
	for _, c := range []struct {
		who, says string
		counts    bool
	}{
		{"second", completes, true},
		{"second", snoozes, true},
		{"second", fails, true},
		{"second", failedBefore, false},
		{"first", completes, false},
		{"first", snoozes, false},
		{"first", fails, false},
		{"first", failedBefore, false},
		{"first", asks, true},
		{"", completes, true}, // as psql
		{"", snoozes, true},
		{"", failedBefore, true},
	} {
		var id int64
		require.NoError(t, d.Pool.QueryRow(t.Context(), fetched).Scan(&id))
		tag, err := pool(c.who).Exec(t.Context(), c.says, id)
		require.NoError(t, err)
		require.Equal(t, c.counts, tag.RowsAffected() == 1, "%q: %s", c.who, c.says)
	}
}

// Thousands of jobs may change in one statement, also if few did when it was
// planned; those that are of no run pass.
func TestHistoryFollowsManyJobsAtOnce(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	const jobs = 20_000
	_, err := d.Pool.Exec(t.Context(), `
WITH given AS (
    SELECT i, (lpad(to_hex((extract(epoch FROM date_trunc('second', now())) * 1000)::bigint), 12, '0')
        || '7000a000' || lpad(to_hex(i), 12, '0'))::uuid AS id
    FROM generate_series(1, $1::int) AS i
), job AS (
    INSERT INTO river_job (id, args, attempt, attempted_by, kind, max_attempts, state)
    SELECT 1000000 + i, jsonb_build_object('run_id', id), 1, '{node}', 'run', 3, 'running' FROM given
)
INSERT INTO runs (id, scheduled_for, schedule_name, task_name, execution_policy, trigger, slot, state, job_id)
SELECT id, date_trunc('second', now()), 'x', 'x', 'allow', 'manual', gen_random_uuid(), 'running', 1000000 + i
FROM given`, jobs)
	require.NoError(t, err)
	_, err = d.Pool.Exec(t.Context(), "UPDATE river_job SET state = 'retryable' WHERE id = 1000001")
	require.NoError(t, err)
	_, err = d.Pool.Exec(t.Context(), `
INSERT INTO river_job (args, attempt, kind, max_attempts, state)
VALUES ('{"run_id": "no uuid"}', 1, 'run', 3, 'running'),
    ('{"run_id": "01939c3e-8800-7000-8000-00000000000é"}', 1, 'run', 3, 'running'),
    ('{"run_id": "01939c3e-8800-7000-8000-0000000000-1"}', 1, 'run', 3, 'running'),
    ('{"run_id": "ffffffff-ffff-7000-8000-000000000001"}', 1, 'run', 3, 'running'),
    ('{"run_id": ["01939c3e-8800-7000-8000-000000000001"]}', 1, 'run', 3, 'running'),
    ('{}', 1, 'run', 3, 'running'), ('{}', 1, 'other', 3, 'running')`)
	require.NoError(t, err)
	// Pairs of old and new rows are four hundred million.
	_, err = d.Pool.Exec(t.Context(), "SET statement_timeout = '30s'; UPDATE river_job SET state = 'completed', finalized_at = now()")
	require.NoError(t, err)
	var succeeded int
	require.NoError(t, d.Pool.QueryRow(t.Context(), "SELECT count(*) FROM runs WHERE state = 'succeeded' AND finished_at IS NOT NULL").Scan(&succeeded))
	require.Equal(t, jobs, succeeded)
}

// In SQL a run's id is what riverbeat.RunTime takes for one, and of the same time.
func TestRunIDsInSQL(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	const known = "01939c3e-8800-7000-8000-000000000001"
	for _, given := range []string{
		known, "01939c3e-8800-7000-bfff-ffffffffffff", "07ffffff-ffff-7000-8000-000000000001",
		"01939c3e-8800-7000-7000-000000000001", "01939c3e-8800-7000-c000-000000000001", "01939c3e-8800-4000-8000-000000000001",
	} {
		var id *uuid.UUID
		var at *time.Time
		err := d.Pool.QueryRow(t.Context(), "SELECT run_id_of(jsonb_build_object('run_id', $1::text)), run_time_of(run_id_of(jsonb_build_object('run_id', $1::text)))", given).Scan(&id, &at)
		require.NoError(t, err)
		want, ok := riverbeat.RunTime(uuid.MustParse(given))
		require.Equal(t, ok, id != nil, given)
		if ok {
			require.Equal(t, given, id.String())
			require.Equal(t, want, at.UTC())
		}
	}
	for _, given := range []string{
		"", "{" + known[1:], known[:35], known + "0", known + "\n", strings.ToUpper(known), known[:35] + "é", known[:34] + "-1",
		strings.Replace(known, "-", "0", 1), "01939c3-e8800-7000-8000-000000000001", "-1939c3e-8800-7000-8000-000000000001",
	} {
		var id *uuid.UUID
		require.NoError(t, d.Pool.QueryRow(t.Context(), "SELECT run_id_of(jsonb_build_object('run_id', $1::text))", given).Scan(&id))
		require.Nil(t, id, given)
	}
}
