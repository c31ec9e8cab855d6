-- What analysts ask beside runs: who changed what, and how backfills went.

CREATE VIEW report_audit AS
SELECT id, at, actor, action, object_type, object_id, before, after
FROM audit_log;

CREATE VIEW report_backfills AS
SELECT
    id AS backfill_id,
    schedule_id,
    schedule_name,
    from_time,
    until_time,
    execution_policy,
    only_missing,
    state,
    reason,
    total,
    decided,
    left_out,
    nullif(requested_by, '') AS requested_by,
    created_at,
    finished_at
FROM backfills;

---- create above / drop below ----

DROP VIEW report_backfills;
DROP VIEW report_audit;
