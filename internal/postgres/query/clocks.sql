-- The clocks that are due; older ones only when none of the last minute is
-- left, so that a backlog never delays what is on time. statement_timestamp()
-- is stable and so an index condition; clock_timestamp() would be none.
-- name: ClaimClocks :many
WITH ticking AS (
    SELECT id FROM installation WHERE paused_at IS NULL
),
fresh AS (
    SELECT schedule_id, last_scheduled_for
    FROM schedule_clocks
    WHERE due_at <= statement_timestamp()
        AND due_at >= statement_timestamp() - interval '60 seconds'
        AND (SELECT id FROM ticking)
    ORDER BY due_at, schedule_id
    LIMIT @max_items
    FOR UPDATE SKIP LOCKED
),
stale AS (
    SELECT schedule_id, last_scheduled_for
    FROM schedule_clocks
    WHERE due_at < statement_timestamp() - interval '60 seconds'
        AND (SELECT id FROM ticking)
        AND NOT EXISTS (SELECT schedule_id FROM fresh)
    ORDER BY due_at, schedule_id
    LIMIT @max_items
    FOR UPDATE SKIP LOCKED
)
SELECT schedule_id, last_scheduled_for, statement_timestamp()::timestamptz AS now FROM fresh
UNION ALL
SELECT schedule_id, last_scheduled_for, statement_timestamp()::timestamptz AS now FROM stale;

-- The clocks that have been due for longest, if for more than a minute: their
-- turn while the last minute's do not end.
-- name: OldestClocks :many
SELECT schedule_id, last_scheduled_for, statement_timestamp()::timestamptz AS now
FROM schedule_clocks
WHERE due_at < statement_timestamp() - interval '60 seconds'
    AND (SELECT paused_at IS NULL FROM installation)
ORDER BY due_at, schedule_id
LIMIT @max_items
FOR UPDATE SKIP LOCKED;

-- Whoever pauses waits for this lock to end before it answers: then nothing
-- fires any more. FOR KEY SHARE does not keep the pause itself from being
-- written; FOR SHARE would, for as long as claims overlap each other.
-- name: Ticking :one
SELECT (
    i.paused_at IS NULL
    AND (@environment::text = '' OR i.environment = @environment)
    AND i.system_identifier = c.system_identifier
    AND i.database_oid = d.oid::bigint
)::boolean AS ticking
FROM installation AS i, pg_control_system() AS c, pg_catalog.pg_database AS d
WHERE d.datname = current_database()
FOR KEY SHARE OF i;

-- Whoever locks a clock settles what is due until now, and what a claim that was
-- waited for has decided beyond: there the version of its schedule ends, if it is
-- changed (record_schedule).
-- name: LockClock :one
SELECT
    schedule_id,
    next_run_at,
    last_scheduled_for,
    retry_at,
    statement_timestamp()::timestamptz AS now,
    set_config(
        'riverbeat.settled_at', greatest(statement_timestamp(), last_scheduled_for)::text, true
    )::text AS settled_at
FROM schedule_clocks
WHERE schedule_id = @schedule_id
FOR UPDATE;

-- name: StopClock :exec
UPDATE schedule_clocks
SET next_run_at = NULL, retry_at = statement_timestamp() + interval '1 hour'
WHERE schedule_id = @schedule_id;

-- Stopped clocks whose next try has come.
-- name: ClocksToRetry :many
SELECT schedule_id, last_scheduled_for, statement_timestamp()::timestamptz AS now
FROM schedule_clocks
WHERE retry_at <= statement_timestamp()
    AND (SELECT paused_at IS NULL FROM installation)
ORDER BY retry_at
LIMIT @max_items
FOR UPDATE SKIP LOCKED;

-- How many milliseconds until the next tick, by the database's clock; a day
-- when there is none within a day.
-- name: UntilNextTick :one
SELECT coalesce(
    extract(epoch FROM min(due_at) - clock_timestamp()) * 1000, 86400000
)::float8 AS milliseconds
FROM schedule_clocks
WHERE due_at > statement_timestamp() AND due_at < statement_timestamp() + interval '1 day';

-- What time it is, and the clock of a schedule, if there is such a one.
-- name: ClockState :one
SELECT statement_timestamp()::timestamptz AS now, c.next_run_at, c.last_scheduled_for, c.retry_at, s.last_error
FROM (VALUES (1)) AS one (row)
LEFT JOIN schedule_clocks AS c ON c.schedule_id = @schedule_id
LEFT JOIN schedules AS s ON s.id = c.schedule_id;

-- Those of many schedules, in the order of their ids.
-- name: LockClocks :exec
SELECT
FROM schedule_clocks
WHERE schedule_id = ANY(@schedule_ids::uuid[])
ORDER BY schedule_id
FOR UPDATE;

-- As LockClocks, and how far they have come; what is done next says itself where versions
-- end.
-- name: LockAndReadClocks :many
SELECT schedule_id, last_scheduled_for, statement_timestamp()::timestamptz AS now
FROM schedule_clocks
WHERE schedule_id = ANY(@schedule_ids::uuid[])
ORDER BY schedule_id
FOR UPDATE;
