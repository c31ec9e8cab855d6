-- name: GetImportedLine :one
SELECT line FROM imported_schedules WHERE schedule_id = @schedule_id FOR UPDATE;

-- name: SetImportedLine :exec
INSERT INTO imported_schedules (schedule_id, source, line)
VALUES (@schedule_id, @source, @line)
ON CONFLICT ON CONSTRAINT imported_schedules_pkey DO UPDATE
SET source = excluded.source, line = excluded.line, imported_at = excluded.imported_at;
