-- name: GetImportedLine :one
SELECT line, source FROM imported_schedules WHERE schedule_id = @schedule_id FOR UPDATE;

-- name: SetImportedLine :exec
INSERT INTO imported_schedules (schedule_id, source, line)
VALUES (@schedule_id, @source, @line)
ON CONFLICT ON CONSTRAINT imported_schedules_pkey DO UPDATE
SET line = excluded.line, imported_at = excluded.imported_at;

-- name: GetCut :one
SELECT cut_at, cut_xid, cut_over_at FROM imported_schedules WHERE schedule_id = @schedule_id FOR UPDATE;

-- name: BeginCut :exec
UPDATE imported_schedules
SET cut_at = @cut_at, cut_xid = @cut_xid
WHERE schedule_id = ANY(@schedule_ids::uuid[]) AND cut_over_at IS NULL;

-- name: EndCut :exec
UPDATE imported_schedules SET cut_over_at = statement_timestamp() WHERE schedule_id = @schedule_id;
