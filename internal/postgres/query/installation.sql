-- name: EnsureInstallation :exec
INSERT INTO installation (environment, system_identifier, database_oid)
SELECT @environment::text, c.system_identifier::bigint, d.oid::bigint
FROM pg_control_system() AS c, pg_catalog.pg_database AS d
WHERE d.datname = current_database()
ON CONFLICT (id) DO NOTHING;

-- name: GetInstallation :one
SELECT environment, paused_at, paused_by, pause_reason FROM installation;

-- The first pause stands. This does not wait for claims that are under way,
-- which hold the row FOR KEY SHARE.
-- name: Pause :exec
UPDATE installation
SET paused_at = statement_timestamp(), paused_by = @paused_by, pause_reason = @pause_reason
WHERE paused_at IS NULL;

-- name: Resume :exec
UPDATE installation
SET paused_at = NULL, paused_by = NULL, pause_reason = NULL
WHERE paused_at IS NOT NULL;

-- Waits for every transaction that has read NotPaused and not ended.
-- name: AwaitClaims :exec
SELECT FROM installation FOR UPDATE;

-- The last pause that began at a time or before it.
-- name: PauseBefore :one
SELECT * FROM pauses WHERE paused_at <= @at ORDER BY paused_at DESC, id DESC LIMIT 1;
