-- The versions in force of the schedules that are older than their triggers: in
-- a migration of its own, so that no lock of theirs is held meanwhile. What was
-- in force before the last change nobody knows. Those that were changed since
-- the triggers are there have their versions already.

INSERT INTO schedule_versions (
    schedule_id, valid_from, version,
    name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
    category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
    max_waiting, starts_at, ends_at, managed_by
)
SELECT
    id, updated_at, version,
    name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
    category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
    max_waiting, starts_at, ends_at, managed_by
FROM schedules
WHERE NOT EXISTS (
    SELECT FROM schedule_versions WHERE schedule_versions.schedule_id = schedules.id
)
ON CONFLICT ON CONSTRAINT schedule_versions_pkey DO NOTHING;

---- create above / drop below ----

-- They are dropped with the table.
SELECT;
