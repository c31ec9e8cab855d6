-- name: InsertBackfill :one
INSERT INTO backfills (
    schedule_id, schedule_name, from_time, until_time, execution_policy, only_missing,
    state, total, requested_by, cron_expression, timezone, finished_at
) VALUES (
    @schedule_id, @schedule_name, @from_time, @until_time, sqlc.narg('execution_policy'), @only_missing,
    @state, @total, @requested_by, @cron_expression, @timezone,
    CASE WHEN @state = 'running' THEN NULL ELSE statement_timestamp() END
)
RETURNING *;

-- name: GetBackfill :one
SELECT * FROM backfills WHERE id = @id;

-- name: LockBackfill :one
SELECT * FROM backfills WHERE id = @id FOR UPDATE;

-- name: RunningBackfills :many
SELECT id FROM backfills WHERE state = 'running' ORDER BY created_at, id LIMIT @max_items;

-- One that another node is at is left to it.
-- name: ClaimBackfill :one
SELECT * FROM backfills WHERE id = @id AND state = 'running' FOR UPDATE SKIP LOCKED;

-- Newest first.
-- name: ListBackfills :many
SELECT *
FROM backfills
WHERE (sqlc.narg('schedule_id')::uuid IS NULL OR schedule_id = sqlc.narg('schedule_id')::uuid)
    AND (sqlc.narg('state')::text IS NULL OR state = sqlc.narg('state')::text)
    AND (
        sqlc.narg('before_time')::timestamptz IS NULL
        OR (created_at, id) < (sqlc.narg('before_time')::timestamptz, @before_id::uuid)
    )
ORDER BY created_at DESC, id DESC
LIMIT @max_items;

-- name: MoveBackfill :exec
UPDATE backfills
SET decided_until = @decided_until,
    ended_until = @ended_until,
    decided = @decided,
    left_out = @left_out,
    last_error = @last_error
WHERE id = @id;

-- name: EndBackfill :one
UPDATE backfills
SET state = @state, reason = sqlc.narg('reason'), finished_at = statement_timestamp()
WHERE id = @id
RETURNING *;

-- name: CancelBackfills :exec
UPDATE backfills
SET state = 'cancelled', reason = @reason, finished_at = statement_timestamp()
WHERE schedule_id = @schedule_id::uuid AND state = 'running';

-- The runs of a backfill that have not ended, and the first of them.
-- name: LiveBackfillRuns :one
SELECT count(*)::int AS live, coalesce(min(scheduled_for), @until)::timestamptz AS first
FROM runs
WHERE schedule_id = @schedule_id::uuid
    AND slot = @backfill_id::uuid
    AND scheduled_for > @since
    AND scheduled_for <= @until::timestamptz
    AND state IN ('waiting', 'queued', 'running', 'retrying');

-- What became of the ticks of a backfill so far.
-- name: BackfillRuns :many
SELECT state::text AS state, count(*)::int AS runs
FROM runs
WHERE schedule_id = @schedule_id::uuid
    AND slot = @backfill_id::uuid
    AND scheduled_for >= @since
    AND scheduled_for < @until
GROUP BY state;

-- Those runs of a backfill that an attempt is not under way of.
-- name: IdleBackfillRuns :many
SELECT id
FROM runs
WHERE schedule_id = @schedule_id::uuid
    AND slot = @backfill_id::uuid
    AND scheduled_for >= @since
    AND scheduled_for < @until
    AND state IN ('waiting', 'queued', 'retrying')
ORDER BY scheduled_for DESC;

-- Which of the times have a run of the schedule that ran, or will.
-- name: TicksThatRan :many
SELECT DISTINCT scheduled_for
FROM runs
WHERE schedule_id = @schedule_id::uuid
    AND scheduled_for >= @since
    AND scheduled_for <= @until
    AND scheduled_for = ANY(@times::timestamptz[])
    AND (
        state IN ('waiting', 'queued', 'running', 'retrying', 'succeeded', 'failed')
        OR started_at IS NOT NULL
        OR reason = 'shadow' -- it ran elsewhere
    );

-- How many runs of a queue the live nodes execute at once, and how many jobs of the
-- given priority are live in it.
-- name: QueueRoom :one
SELECT
    (
        SELECT coalesce(sum((queues ->> @queue::text)::int), 0)
        FROM nodes
        WHERE last_seen_at >= statement_timestamp() - make_interval(secs => @lives_seconds::float8)
    )::int AS capacity,
    (
        SELECT count(*)
        FROM river_job
        WHERE queue = @queue::text
            AND priority = @priority::smallint
            AND state IN ('available', 'pending', 'retryable', 'running', 'scheduled')
    )::int AS live;
