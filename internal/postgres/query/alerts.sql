-- name: TakeRunEnds :many
DELETE FROM run_ends
WHERE id IN (SELECT id FROM run_ends ORDER BY id LIMIT @max_items)
RETURNING *;

-- name: DueAlertStates :many
SELECT schedule_id
FROM alert_states
WHERE due_at <= statement_timestamp()
ORDER BY due_at
LIMIT @max_items;

-- name: LockAlertStates :many
SELECT *
FROM alert_states
WHERE schedule_id = ANY(@schedule_ids::uuid[])
ORDER BY schedule_id
FOR UPDATE;

-- Of the last pause: null while it lasts.
-- name: LastResumedAt :one
SELECT resumed_at FROM pauses ORDER BY id DESC LIMIT 1;
