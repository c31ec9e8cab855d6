-- name: RunEnds :many
SELECT * FROM run_ends ORDER BY id LIMIT @max_items;

-- name: DeleteRunEnds :exec
DELETE FROM run_ends WHERE id = ANY(@ids::bigint[]);

-- Also those that a clock which was ahead has put off.
-- name: DueAlertStates :many
(
    SELECT schedule_id
    FROM alert_states AS a
    WHERE a.due_at <= statement_timestamp()
    ORDER BY a.due_at
    LIMIT @max_items
)
UNION ALL
(
    SELECT schedule_id
    FROM alert_states AS b
    WHERE b.due_at > statement_timestamp() + make_interval(secs => @too_far_seconds::float8)
    ORDER BY b.due_at
    LIMIT @max_items
);

-- name: WatchedOf :many
SELECT schedule_id FROM alert_states WHERE schedule_id = ANY(@schedule_ids::uuid[]);

-- name: LockAlertStates :many
SELECT *
FROM alert_states
WHERE schedule_id = ANY(@schedule_ids::uuid[])
ORDER BY schedule_id
FOR UPDATE SKIP LOCKED;

-- name: DeleteAlertStates :exec
DELETE FROM alert_states WHERE schedule_id = ANY(@schedule_ids::uuid[]);

-- name: LockAlertTask :one
SELECT * FROM alert_tasks ORDER BY task_name LIMIT 1 FOR UPDATE;

-- name: MoveAlertTask :exec
UPDATE alert_tasks SET created_at = @created_at, schedule_id = @schedule_id WHERE task_name = @task_name;

-- name: DeleteAlertTask :exec
DELETE FROM alert_tasks WHERE task_name = @task_name;

-- The next schedules of a task. Those that are to be watched are from now on; who looks at
-- them finds out which are to be no more, for their states may be changing just now.
-- name: WatchSchedulesOf :many
WITH page AS (
    SELECT
        s.id,
        s.created_at,
        s.alerts IS NOT NULL OR EXISTS (
            SELECT FROM task_definitions AS d WHERE d.task_name = @task_name AND d.alerts IS NOT NULL
        ) AS watched
    FROM schedules AS s
    WHERE s.task_name = @task_name AND (s.created_at, s.id) > (@after_created_at::timestamptz, @after_id::uuid)
    ORDER BY s.created_at, s.id
    LIMIT @max_items
),
watched AS (
    INSERT INTO alert_states (schedule_id)
    SELECT id FROM page WHERE watched ORDER BY id
    ON CONFLICT ON CONSTRAINT alert_states_pkey DO NOTHING
)
SELECT id, created_at FROM page ORDER BY created_at, id;

-- name: PausesSince :many
SELECT * FROM pauses WHERE resumed_at IS NULL OR resumed_at > @since ORDER BY id;
