-- Admission of keyed runs goes one at a time per key; the keys come sorted.
-- name: LockKeys :exec
SELECT pg_advisory_xact_lock(key)
FROM unnest(@keys::bigint[]) WITH ORDINALITY AS given (key, place)
ORDER BY place;

-- Which of the keys have a live job, and how far its run has come.
-- name: LiveJobs :many
SELECT
    (args ->> 'lock_key')::text AS lock_key,
    (args ->> 'run_id')::text AS run_id,
    (CASE
        WHEN state = 'running' THEN 'running'
        WHEN state = 'retryable' OR attempt > 0 THEN 'retrying'
        ELSE 'queued'
    END)::text AS run_state
FROM river_job
WHERE args ->> 'lock_key' = ANY(@keys::text[]) AND finalized_at IS NULL;

-- The head and the length of the line of each key that has one; catch-up and
-- backfill do not count.
-- name: Lines :many
SELECT
    lock_key::text AS lock_key,
    ((array_agg(id ORDER BY line_rank, scheduled_for, id))[1])::uuid AS first_id,
    count(*) FILTER (WHERE trigger IN ('schedule', 'manual'))::int AS waiting
FROM runs
WHERE lock_key = ANY(@keys::text[]) AND line_rank IS NOT NULL
GROUP BY lock_key;

-- name: FirstWaiting :one
SELECT *
FROM runs
WHERE lock_key = @lock_key::text AND line_rank IS NOT NULL
ORDER BY line_rank, scheduled_for, id
LIMIT 1
FOR UPDATE;

-- Keys whose line waits behind nothing.
-- name: StalledKeys :many
SELECT DISTINCT lock_key::text AS lock_key
FROM runs
WHERE line_rank IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM river_job
        WHERE river_job.args ->> 'lock_key' = runs.lock_key AND finalized_at IS NULL
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
-- row was locked by somebody who ended the job meanwhile.
-- name: StartRuns :many
UPDATE runs AS r
SET state = 'running',
    reason = NULL,
    execution = r.execution + 1,
    attempt = r.attempt + 1,
    started_at = coalesce(r.started_at, clock_timestamp()),
    node = @node::text
FROM (
    SELECT
        unnest(@ids::uuid[]) AS id,
        unnest(@scheduled_fors::timestamptz[]) AS scheduled_for,
        unnest(@job_ids::bigint[]) AS job_id
) AS given
WHERE r.scheduled_for = given.scheduled_for
    AND r.id = given.id
    AND r.job_id = given.job_id
    AND r.state IN ('queued', 'retrying')
RETURNING r.*;

-- name: GetRun :one
SELECT * FROM runs WHERE scheduled_for = @scheduled_for AND id = @id;

-- name: CreateRunsPartition :one
SELECT create_runs_partition(@at)::boolean AS created;

-- name: Now :one
SELECT statement_timestamp()::timestamptz AS now;
