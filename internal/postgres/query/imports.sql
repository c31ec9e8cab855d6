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

-- The last tick of a schedule that was decided after a time, whatever became of it.
-- name: LastTick :one
SELECT greatest(max(scheduled_for), @after)::timestamptz AS at
FROM runs
WHERE schedule_id = @schedule_id::uuid
    AND scheduled_for > @after::timestamptz
    AND trigger IN ('schedule', 'catch_up');

-- name: ForgetCut :exec
UPDATE imported_schedules
SET cut_at = NULL, cut_xid = NULL
WHERE schedule_id = @schedule_id AND cut_xid = @cut_xid AND cut_over_at IS NULL;

-- When schedules ticked in shadow, the last time first, as far as their ticks are decided.
-- Versions that follow upon one another are one time.
-- name: ShadowTimes :many
SELECT
    v.schedule_id,
    v.valid_from AS shadow_from,
    CASE
        WHEN v.valid_until IS NOT NULL THEN v.valid_until
        WHEN c.retry_at IS NOT NULL THEN c.last_scheduled_for
        ELSE least(statement_timestamp(), c.next_run_at - interval '1 millisecond')
    END::timestamptz AS shadow_until
FROM schedule_versions AS v
JOIN schedule_clocks AS c ON c.schedule_id = v.schedule_id
WHERE v.schedule_id = ANY(@schedule_ids::uuid[])
    AND v.enabled
    AND v.shadow
    AND (v.valid_until IS NULL OR v.valid_until > @since::timestamptz)
ORDER BY v.schedule_id, v.valid_from DESC;

-- What was recorded of the ticks of schedules: those in shadow, and gaps.
-- name: ShadowTicks :many
SELECT
    schedule_id::uuid AS schedule_id,
    scheduled_for,
    missed_from
FROM runs
WHERE scheduled_for > @since::timestamptz
    AND scheduled_for <= @until::timestamptz
    AND schedule_id = ANY(@schedule_ids::uuid[])
    AND (reason = 'shadow' OR state = 'missed')
ORDER BY schedule_id, scheduled_for;
