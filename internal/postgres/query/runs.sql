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

-- name: HaveLines :many
SELECT DISTINCT lock_key::text AS lock_key
FROM runs
WHERE lock_key = ANY(@keys::text[]) AND line_rank IS NOT NULL;

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

-- name: CancelLine :many
UPDATE runs
SET state = 'cancelled', reason = @reason, line_rank = NULL, finished_at = clock_timestamp()
WHERE schedule_id = @schedule_id::uuid AND line_rank IS NOT NULL
RETURNING id;

-- The runs whose given jobs were fetched, if each job still is its run's. The
-- fetch has raised the execution. The definition comes along, as it is now.
-- name: StartedRuns :many
SELECT
    sqlc.embed(r),
    d.id AS definition_id,
    coalesce(d.version, 0)::int AS definition_version,
    d.executor,
    coalesce(d.timeout_ms, 0)::bigint AS timeout_ms,
    d.retry
FROM (
    SELECT
        unnest(@ids::uuid[]) AS id,
        unnest(@scheduled_fors::timestamptz[]) AS scheduled_for,
        unnest(@job_ids::bigint[]) AS job_id
) AS given
JOIN runs AS r
    ON r.scheduled_for = given.scheduled_for AND r.id = given.id AND r.job_id = given.job_id
LEFT JOIN task_definitions AS d ON d.task_name = r.task_name
WHERE r.state = 'running';

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
FROM runs
WHERE lock_key = @lock_key::text
    AND line_rank IS NOT NULL
    AND (line_rank, scheduled_for, id) < (
        SELECT r.line_rank, r.scheduled_for, r.id
        FROM runs AS r
        WHERE r.scheduled_for = @scheduled_for AND r.id = @id
    );

-- name: HasRunsPartition :one
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_inherits
    WHERE inhparent = 'runs'::regclass
        AND inhrelid = to_regclass('runs_p' || to_char(runs_week(@at) AT TIME ZONE 'UTC', 'YYYYMMDD'))
) AS has;

-- name: CreateRunsPartition :one
SELECT create_runs_partition(@at)::boolean AS created;

-- name: RegisterNode :exec
INSERT INTO nodes (id, host, version, tzdata_version, tasks, queues)
VALUES (@id, @host, @version, @tzdata_version, @tasks, @queues)
ON CONFLICT (id) DO UPDATE SET last_seen_at = clock_timestamp();

-- name: Now :one
SELECT statement_timestamp()::timestamptz AS now;
