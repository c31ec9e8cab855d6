-- name: InsertSchedule :one
INSERT INTO schedules (
    id, created_at, name, task_name, cron_expression, timezone, enabled, args, kwargs,
    description, category, tags, execution_policy, auto_generated_name,
    catch_up, catch_up_window_s, max_waiting, starts_at, ends_at, managed_by, limits, alerts, shadow
) VALUES (
    coalesce(sqlc.narg('id')::uuid, gen_random_uuid()),
    coalesce(sqlc.narg('created_at')::timestamptz, statement_timestamp()),
    @name, @task_name, @cron_expression, @timezone, @enabled, @args, @kwargs,
    @description, @category, @tags, @execution_policy, @auto_generated_name,
    @catch_up, @catch_up_window_s, @max_waiting, @starts_at, @ends_at, @managed_by, @limits, @alerts, @shadow
)
RETURNING *;

-- name: InsertClock :exec
INSERT INTO schedule_clocks (schedule_id, next_run_at, last_scheduled_for)
VALUES (@schedule_id, @next_run_at, @mark);

-- name: LockSchedule :one
SELECT id FROM schedules WHERE id = @id FOR UPDATE;

-- name: LockSchedules :exec
SELECT FROM schedules WHERE id = ANY(@ids::uuid[]) ORDER BY id FOR UPDATE;

-- name: SchedulesByID :many
SELECT * FROM schedules WHERE id = ANY(@ids::uuid[]);

-- The schedules that somebody keeps.
-- name: SchedulesManagedBy :many
SELECT *
FROM schedules
WHERE managed_by = @managed_by AND managed_by <> ''
ORDER BY created_at, id;

-- Other schedules that have one of the names than those that somebody keeps.
-- name: NamesakesOfOthers :many
SELECT id, name
FROM schedules
WHERE name = ANY(@names::text[]) AND managed_by <> @managed_by
ORDER BY name, id
LIMIT @max_items;

-- name: UpdateSchedule :one
UPDATE schedules
SET name = @name,
    task_name = @task_name,
    cron_expression = @cron_expression,
    timezone = @timezone,
    enabled = @enabled,
    args = @args,
    kwargs = @kwargs,
    description = @description,
    category = @category,
    tags = @tags,
    execution_policy = @execution_policy,
    auto_generated_name = @auto_generated_name,
    catch_up = @catch_up,
    catch_up_window_s = @catch_up_window_s,
    max_waiting = @max_waiting,
    starts_at = @starts_at,
    ends_at = @ends_at,
    managed_by = @managed_by,
    limits = @limits,
    alerts = @alerts,
    shadow = @shadow,
    last_error = '',
    version = version + 1,
    updated_at = statement_timestamp()
WHERE id = @id
RETURNING *;

-- name: DeleteSchedule :exec
DELETE FROM schedules WHERE id = @id;

-- name: CountSchedulesOfTask :one
SELECT count(*) FROM (
    SELECT FROM schedules WHERE task_name = @task_name LIMIT @max_count
) AS of_task;

-- A page of the schedules of a task, by id.
-- name: SchedulesOfTask :many
SELECT *
FROM schedules
WHERE task_name = @task_name AND id > @after_id
ORDER BY id
LIMIT @max_items;

-- name: SetScheduleError :exec
UPDATE schedules SET last_error = @last_error WHERE id = @id;

-- A schedule whose clock is stopped keeps its error until it is planned again.
-- name: SetScheduleWarning :exec
UPDATE schedules
SET last_error = @last_error
WHERE id = @id
    AND NOT EXISTS (
        SELECT FROM schedule_clocks WHERE schedule_id = schedules.id AND retry_at IS NOT NULL
    );

-- It goes from recurrence to recurrence: a million schedules that share one are a
-- single step.
-- name: Recurrences :many
WITH RECURSIVE recurrences AS (
    (
        SELECT cron_expression, timezone
        FROM schedules
        WHERE enabled
        ORDER BY cron_expression, timezone
        LIMIT 1
    )
    UNION ALL
    SELECT following.cron_expression, following.timezone
    FROM recurrences AS r
    CROSS JOIN LATERAL (
        SELECT s.cron_expression, s.timezone
        FROM schedules AS s
        WHERE s.enabled AND (s.cron_expression, s.timezone) > (r.cron_expression, r.timezone)
        ORDER BY s.cron_expression, s.timezone
        LIMIT 1
    ) AS following
)
SELECT cron_expression, timezone
FROM recurrences
LIMIT @max_items;

-- The version that was in force for a tick at the time, or the last one before
-- it if the schedule was deleted; or else the first one.
-- name: VersionAt :one
SELECT *
FROM schedule_versions AS v
WHERE v.schedule_id = @schedule_id
    AND v.valid_from = coalesce(
        (SELECT max(b.valid_from) FROM schedule_versions AS b WHERE b.schedule_id = @schedule_id AND b.valid_from < @at),
        (SELECT min(f.valid_from) FROM schedule_versions AS f WHERE f.schedule_id = @schedule_id)
    );

-- The recurrences of schedules that run, each with how many have it. Where a
-- schedule begins or ends matters only within the time that is asked for.
-- name: LoadSources :many
SELECT
    s.cron_expression,
    s.timezone,
    greatest(s.starts_at, @since::timestamptz)::timestamptz AS starts_at,
    least(s.ends_at, @until::timestamptz)::timestamptz AS ends_at,
    count(*)::int AS schedules
FROM schedules AS s
WHERE s.enabled
    AND NOT s.shadow
    AND (s.starts_at IS NULL OR s.starts_at < @until::timestamptz)
    AND (s.ends_at IS NULL OR s.ends_at >= @since::timestamptz)
GROUP BY 1, 2, 3, 4;

-- Some of the schedules of a recurrence that run.
-- name: SchedulesOfRecurrence :many
SELECT id, name, task_name
FROM schedules
WHERE enabled AND NOT shadow AND cron_expression = @cron_expression AND timezone = @timezone
LIMIT @max_items;

-- The zone of a schedule at a version, which may be gone.
-- name: ZoneOfVersion :one
SELECT timezone
FROM schedule_versions
WHERE schedule_id = @schedule_id AND version = @version
ORDER BY valid_from DESC
LIMIT 1;
