-- Admission of keyed runs goes one at a time per key; the keys come sorted.
-- name: LockKeys :exec
SELECT pg_advisory_xact_lock(key)
FROM unnest(@keys::bigint[]) WITH ORDINALITY AS given (key, place)
ORDER BY place;

-- Which of the keys have a live job, and how far its run has come.
-- name: LiveJobs :many
SELECT
    (args ->> 'lock_key')::text AS lock_key,
    coalesce(args ->> 'run_id', '')::text AS run_id,
    (CASE
        WHEN state = 'running' THEN 'running'
        WHEN state = 'retryable' OR attempt > 0 THEN 'retrying'
        ELSE 'queued'
    END)::text AS run_state
FROM river_job
WHERE args ->> 'lock_key' = ANY(@keys::text[]) AND finalized_at IS NULL;

-- The head and the length of the line of each key that has one. Catch-up and
-- backfill do not count, nor does anybody beyond the longest line allowed.
-- name: Lines :many
SELECT
    head.lock_key,
    head.run_id AS first_id,
    (
        SELECT count(*)
        FROM (
            SELECT
            FROM lines
            WHERE lines.lock_key = head.lock_key AND trigger IN ('schedule', 'manual')
            LIMIT @most
        ) AS counted
    )::int AS waiting
FROM unnest(@keys::text[]) AS key
CROSS JOIN LATERAL (
    SELECT lock_key, run_id
    FROM lines
    WHERE lock_key = key
    ORDER BY line_rank, scheduled_for, run_id
    LIMIT 1
) AS head;

-- name: HeadOfLine :one
SELECT line_rank, scheduled_for, run_id
FROM lines
WHERE lock_key = @lock_key
ORDER BY line_rank, scheduled_for, run_id
LIMIT 1;

-- name: LockWaiting :one
SELECT *
FROM runs
WHERE scheduled_for = @scheduled_for
    AND id = @id
    AND lock_key = @lock_key::text
    AND line_rank = @line_rank::smallint
FOR UPDATE;

-- Forgets who is in the line of a key and does not wait.
-- name: ForgetStaleLine :exec
DELETE FROM lines AS l
WHERE l.lock_key = @lock_key
    AND NOT EXISTS (
        SELECT FROM runs AS r
        WHERE r.lock_key = l.lock_key
            AND r.line_rank IS NOT NULL -- else all of runs would be read
            AND r.line_rank = l.line_rank
            AND r.scheduled_for = l.scheduled_for
            AND r.id = l.run_id
    );

-- Puts in line who waits and is in none. The lock is for whoever leaves his line
-- at this moment: he is looked at again, and not put back.
-- name: RestoreLines :execrows
INSERT INTO lines (lock_key, line_rank, scheduled_for, run_id, trigger)
SELECT lock_key, line_rank, scheduled_for, id, trigger
FROM runs_without_line
FOR SHARE
ON CONFLICT ON CONSTRAINT lines_pkey DO NOTHING;

-- Keys whose line waits behind nothing. It goes from key to key: a line of a
-- million is one step.
-- name: StalledKeys :many
WITH RECURSIVE keys AS (
    SELECT min(lock_key) AS lock_key FROM lines
    UNION ALL
    SELECT (SELECT min(lines.lock_key) FROM lines WHERE lines.lock_key > keys.lock_key)
    FROM keys
    WHERE keys.lock_key IS NOT NULL
)
SELECT lock_key::text AS lock_key
FROM keys
WHERE lock_key IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM river_job
        WHERE river_job.args ->> 'lock_key' = keys.lock_key AND finalized_at IS NULL
    )
LIMIT @max_items;

-- name: Promote :exec
UPDATE runs
SET state = 'queued', line_rank = NULL, job_id = @job_id::bigint, enqueued_at = clock_timestamp()
WHERE scheduled_for = @scheduled_for AND id = @id;

-- Cancels a run, or notes that someone asked for it while an attempt is under
-- way. The history trigger may have cancelled it just now. No row: it has ended
-- otherwise, or has got another job, since it was read.
-- name: CancelRun :one
UPDATE runs
SET state = CASE WHEN @running::boolean THEN state ELSE 'cancelled' END,
    reason = CASE WHEN @running OR state = 'cancelled' THEN reason ELSE 'cancelled_by_user' END,
    line_rank = NULL,
    finished_at = CASE WHEN @running THEN finished_at ELSE coalesce(finished_at, clock_timestamp()) END,
    cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
    cancel_requested_by = coalesce(cancel_requested_by, sqlc.narg('requested_by'))
WHERE scheduled_for = @scheduled_for
    AND id = @id
    AND job_id IS NOT DISTINCT FROM sqlc.narg('job_id')
    AND state IN ('waiting', 'queued', 'running', 'retrying', 'cancelled')
RETURNING *;

-- Begins an ended run anew under another job. No row: it has been begun anew
-- since it was read.
-- name: Requeue :one
UPDATE runs
SET state = 'queued',
    reason = NULL,
    job_id = @job_id::bigint,
    lives = 0,
    max_attempts = @max_attempts,
    enqueued_at = clock_timestamp(),
    started_at = NULL,
    finished_at = NULL,
    cancel_requested_at = NULL,
    cancel_requested_by = NULL,
    result = NULL
WHERE scheduled_for = @scheduled_for
    AND id = @id
    AND job_id IS NOT DISTINCT FROM sqlc.narg('old_job_id')
    AND state IN ('succeeded', 'failed', 'cancelled')
RETURNING *;

-- name: CancelLine :many
UPDATE runs
SET state = 'cancelled', reason = @reason, line_rank = NULL, finished_at = clock_timestamp()
WHERE schedule_id = @schedule_id::uuid AND line_rank IS NOT NULL
RETURNING id;

-- Starts the runs whose jobs were fetched, if each job still is its run's. The
-- states are those of a run whose attempt may begin: looked at again when the
-- row was locked by somebody who ended the job meanwhile. One that runs already
-- was started by a statement whose answer was lost, and nobody works it. Why the
-- first three conditions, which are always true: DESIGN.md, "Starts".
-- name: StartRuns :many
UPDATE runs AS r
SET state = 'running',
    reason = NULL,
    execution = r.execution + 1,
    attempt = CASE WHEN r.state = 'running' THEN r.attempt ELSE r.attempt + 1 END,
    started_at = coalesce(r.started_at, clock_timestamp()),
    node = @node::text
FROM (
    SELECT
        unnest(@ids::uuid[]) AS id,
        unnest(@scheduled_fors::timestamptz[]) AS scheduled_for,
        unnest(@job_ids::bigint[]) AS job_id
) AS given
WHERE given.job_id % 1 = 0
    AND r.scheduled_for >= runs_week(@since::timestamptz)
    AND r.scheduled_for < runs_week(@until::timestamptz)
    AND r.scheduled_for = given.scheduled_for
    AND r.id = given.id
    AND r.job_id = given.job_id
    AND r.state IN ('queued', 'retrying', 'running')
RETURNING r.*;

-- name: GetRun :one
SELECT * FROM runs WHERE scheduled_for = @scheduled_for AND id = @id;

-- What there is at a nominal time of a schedule, its tick first (slot is nil).
-- name: RunsAt :many
SELECT *
FROM runs
WHERE schedule_id = @schedule_id::uuid AND scheduled_for = @scheduled_for
ORDER BY slot
LIMIT @max_items;

-- The first tick or gap from a time on. If a gap covers the time, it is this row,
-- whose nominal time is the gap's end. The partitions are looked into in their
-- order, and no further than to the first row.
-- name: FirstTickFrom :one
SELECT *
FROM runs
WHERE schedule_id = @schedule_id::uuid
    AND slot = '00000000-0000-0000-0000-000000000000'
    AND scheduled_for >= @since
    AND scheduled_for <= @until
ORDER BY scheduled_for
LIMIT 1;

-- How many runs wait in the line of a key before a run.
-- name: WaitingAhead :one
SELECT count(*)::int AS ahead
FROM lines AS l
JOIN lines AS own ON own.lock_key = l.lock_key
WHERE own.lock_key = @lock_key
    AND own.scheduled_for = @scheduled_for
    AND own.run_id = @run_id
    AND (l.line_rank, l.scheduled_for, l.run_id) < (own.line_rank, own.scheduled_for, own.run_id);

-- name: HasRunsPartition :one
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_inherits
    WHERE inhparent = 'runs'::regclass
        AND inhrelid = to_regclass('runs_p' || to_char(runs_week(@at) AT TIME ZONE 'UTC', 'YYYYMMDD'))
        AND NOT inhdetachpending
) AS has;

-- name: CreateRunsPartition :one
SELECT create_runs_partition(@at)::boolean AS created;

-- name: Now :one
SELECT statement_timestamp()::timestamptz AS now;

-- What River knows of a job's attempts.
-- name: JobErrors :one
SELECT attempt, coalesce(to_jsonb(errors), '[]')::jsonb AS errors FROM river_job WHERE id = @id;

-- The runs that a run is or was in the way of, in the order of their times: of its
-- task, from a while before it until it had ended. It looks at no more than so many.
-- name: BlockedRuns :many
SELECT id, scheduled_for, schedule_id, schedule_name, state, reason
FROM (
    SELECT id, scheduled_for, schedule_id, schedule_name, state, reason, blocked_by
    FROM runs
    WHERE task_name = @task_name AND scheduled_for >= @since AND scheduled_for <= @until
    ORDER BY scheduled_for
    LIMIT @looked_through
) AS looked
WHERE blocked_by = @id::uuid
ORDER BY scheduled_for, id
LIMIT @max_items;
