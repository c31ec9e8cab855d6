-- name: EnsureInstallation :exec
INSERT INTO installation (environment, system_identifier, database_oid)
SELECT @environment::text, c.system_identifier::bigint, d.oid::bigint
FROM pg_control_system() AS c, pg_catalog.pg_database AS d
WHERE d.datname = current_database()
ON CONFLICT (id) DO NOTHING;

-- What the installation says of where it is, and where it is.
-- name: Home :one
SELECT
    i.environment,
    i.system_identifier,
    i.database_oid,
    c.system_identifier::bigint AS actual_system_identifier,
    d.oid::bigint AS actual_database_oid
FROM installation AS i, pg_control_system() AS c, pg_catalog.pg_database AS d
WHERE d.datname = current_database();

-- name: MoveHere :exec
UPDATE installation AS i
SET environment = @environment::text,
    system_identifier = c.system_identifier,
    database_oid = d.oid::bigint
FROM pg_control_system() AS c, pg_catalog.pg_database AS d
WHERE d.datname = current_database();

-- What happens at once when nodes begin to work.
-- name: WouldFire :one
SELECT
    (SELECT count(*) FROM schedule_clocks WHERE due_at <= statement_timestamp()) AS due_schedules,
    (SELECT count(*) FROM river_job WHERE kind = 'run' AND finalized_at IS NULL) AS jobs,
    (SELECT count(*) FROM lines) AS waiting_runs;

-- name: NextClocks :many
SELECT c.schedule_id, s.name, s.task_name, c.due_at AS next_run_at
FROM schedule_clocks AS c
JOIN schedules AS s ON s.id = c.schedule_id
WHERE c.due_at < 'infinity'
ORDER BY c.due_at, c.schedule_id
LIMIT @max_items;

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

-- Waits for every transaction that was told Ticking and has not ended.
-- name: AwaitClaims :exec
SELECT FROM installation FOR UPDATE;

-- For each of the times the last pause that began then or before it.
-- name: PausesBefore :many
SELECT given.place::int AS place, last.*
FROM unnest(@times::timestamptz[]) WITH ORDINALITY AS given (at, place)
CROSS JOIN LATERAL (
    SELECT *
    FROM pauses AS p
    WHERE p.paused_at <= given.at
    ORDER BY p.paused_at DESC, p.id DESC
    LIMIT 1
) AS last;

-- The nodes of the last day, those that live first.
-- name: ListNodes :many
SELECT
    n.*,
    (n.last_seen_at >= statement_timestamp() - make_interval(secs => @lives_seconds::float8))::boolean AS alive,
    (
        SELECT count(*)
        FROM river_job AS j
        WHERE j.state = 'running' AND j.attempted_by[cardinality(j.attempted_by)] = n.id::text
    )::int AS running
FROM nodes AS n
ORDER BY n.last_seen_at DESC, n.id
LIMIT @max_items;

-- name: FeatureFlags :many
SELECT name, percent, updated_by, updated_at FROM feature_flags;

-- What changes nothing is no change.
-- name: SetFeatureFlag :exec
INSERT INTO feature_flags AS f (name, percent, updated_by)
VALUES (@name, @percent, @updated_by)
ON CONFLICT ON CONSTRAINT feature_flags_pkey DO UPDATE
SET percent = excluded.percent, updated_by = excluded.updated_by, updated_at = excluded.updated_at
WHERE f.percent <> excluded.percent;
