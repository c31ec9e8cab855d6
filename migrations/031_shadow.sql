-- A schedule in shadow ticks, and its ticks are recorded as every tick is, but none of them is
-- run: they are skipped, with the reason shadow. So a schedule of another scheduler can be
-- compared with what that has really sent, before it is handed over.
ALTER TABLE schedules ADD COLUMN shadow boolean NOT NULL DEFAULT false;
ALTER TABLE schedule_versions ADD COLUMN shadow boolean NOT NULL DEFAULT false;

CREATE OR REPLACE FUNCTION watch_schedule() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
DECLARE
    anew boolean := NEW.task_name <> OLD.task_name OR (NEW.enabled AND NOT NEW.shadow) AND NOT (OLD.enabled AND NOT OLD.shadow);
BEGIN
    IF NEW.alerts IS NULL AND NOT EXISTS (
        SELECT FROM task_definitions WHERE task_name = NEW.task_name AND alerts IS NOT NULL
    ) THEN
        DELETE FROM alert_states WHERE schedule_id = NEW.id;
        RETURN NULL;
    END IF;
    INSERT INTO alert_states (schedule_id)
    VALUES (NEW.id)
    ON CONFLICT ON CONSTRAINT alert_states_pkey DO UPDATE SET due_at = excluded.due_at;
    IF anew THEN
        -- People who were told are still to be told when a run succeeds.
        UPDATE alert_states
        SET failures = 0, failed_run = NULL, failing = false, overdue = false, since = statement_timestamp()
        WHERE schedule_id = NEW.id;
    ELSIF OLD.starts_at > statement_timestamp() OR OLD.ends_at <= statement_timestamp() THEN
        -- Until now it was not asked to succeed.
        UPDATE alert_states SET since = statement_timestamp() WHERE schedule_id = NEW.id;
    END IF;
    RETURN NULL;
END
$$;
DROP TRIGGER schedules_watch_update ON schedules;
CREATE TRIGGER schedules_watch_update
    AFTER UPDATE OF task_name, enabled, starts_at, ends_at, alerts, shadow ON schedules
    FOR EACH ROW
    WHEN (
        (OLD.task_name, OLD.enabled, OLD.starts_at, OLD.ends_at, OLD.alerts, OLD.shadow)
        IS DISTINCT FROM
        (NEW.task_name, NEW.enabled, NEW.starts_at, NEW.ends_at, NEW.alerts, NEW.shadow)
    )
    EXECUTE FUNCTION watch_schedule();

CREATE OR REPLACE FUNCTION record_new_schedules() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO schedule_versions (
        schedule_id, valid_from, version, changed_by,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts, shadow
    )
    SELECT
        id, statement_timestamp(), version, nullif(current_setting('riverbeat.actor', true), ''),
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts, shadow
    FROM inserted;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION record_schedule() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
DECLARE
    begun timestamptz;
    ended timestamptz := coalesce(
        nullif(current_setting('riverbeat.settled_at', true), '')::timestamptz,
        statement_timestamp()
    );
BEGIN
    SELECT max(valid_from) INTO begun FROM schedule_versions WHERE schedule_id = OLD.id;
    begun := coalesce(begun, OLD.updated_at);
    ended := greatest(ended, begun + interval '1 microsecond');

    INSERT INTO schedule_versions (
        schedule_id, valid_from, valid_until, version,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts, shadow
    ) VALUES (
        OLD.id, begun, ended, OLD.version,
        OLD.name, OLD.task_name, OLD.cron_expression, OLD.timezone, OLD.enabled, OLD.args, OLD.kwargs, OLD.description,
        OLD.category, OLD.tags, OLD.execution_policy, OLD.auto_generated_name, OLD.catch_up, OLD.catch_up_window_s,
        OLD.max_waiting, OLD.starts_at, OLD.ends_at, OLD.managed_by, OLD.limits, OLD.alerts, OLD.shadow
    )
    ON CONFLICT ON CONSTRAINT schedule_versions_pkey DO UPDATE SET valid_until = excluded.valid_until;
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;

    INSERT INTO schedule_versions (
        schedule_id, valid_from, version, changed_by,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts, shadow
    ) VALUES (
        NEW.id, ended, NEW.version, nullif(current_setting('riverbeat.actor', true), ''),
        NEW.name, NEW.task_name, NEW.cron_expression, NEW.timezone, NEW.enabled, NEW.args, NEW.kwargs, NEW.description,
        NEW.category, NEW.tags, NEW.execution_policy, NEW.auto_generated_name, NEW.catch_up, NEW.catch_up_window_s,
        NEW.max_waiting, NEW.starts_at, NEW.ends_at, NEW.managed_by, NEW.limits, NEW.alerts, NEW.shadow
    );
    RETURN NULL;
END
$$;

DROP TRIGGER schedules_record_update ON schedules;
CREATE TRIGGER schedules_record_update
    AFTER UPDATE OF
        version, name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts, shadow
    ON schedules
    FOR EACH ROW
    WHEN (
        (OLD.version, OLD.name, OLD.task_name, OLD.cron_expression, OLD.timezone, OLD.enabled,
            OLD.args, OLD.kwargs, OLD.description, OLD.category, OLD.tags, OLD.execution_policy,
            OLD.auto_generated_name, OLD.catch_up, OLD.catch_up_window_s, OLD.max_waiting,
            OLD.starts_at, OLD.ends_at, OLD.managed_by, OLD.limits, OLD.alerts, OLD.shadow)
        IS DISTINCT FROM
        (NEW.version, NEW.name, NEW.task_name, NEW.cron_expression, NEW.timezone, NEW.enabled,
            NEW.args, NEW.kwargs, NEW.description, NEW.category, NEW.tags, NEW.execution_policy,
            NEW.auto_generated_name, NEW.catch_up, NEW.catch_up_window_s, NEW.max_waiting,
            NEW.starts_at, NEW.ends_at, NEW.managed_by, NEW.limits, NEW.alerts, NEW.shadow)
    )
    EXECUTE FUNCTION record_schedule();

DROP TRIGGER schedules_audit_update ON schedules;
CREATE TRIGGER schedules_audit_update
    AFTER UPDATE OF
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts, shadow
    ON schedules
    FOR EACH ROW EXECUTE FUNCTION audit_row('schedule', 'id');

CREATE OR REPLACE VIEW report_schedule_versions AS
SELECT
    schedule_id,
    version,
    valid_from,
    valid_until,
    changed_by,
    name AS schedule_name,
    task_name,
    cron_expression,
    timezone,
    enabled,
    args,
    kwargs AS task_params,
    description,
    category,
    tags,
    execution_policy,
    catch_up,
    catch_up_window_s AS catch_up_window_seconds,
    max_waiting,
    starts_at,
    ends_at,
    managed_by,
    limits,
    alerts,
    shadow
FROM schedule_versions;

---- create above / drop below ----

CREATE OR REPLACE FUNCTION watch_schedule() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
DECLARE
    anew boolean := NEW.task_name <> OLD.task_name OR NEW.enabled AND NOT OLD.enabled;
BEGIN
    IF NEW.alerts IS NULL AND NOT EXISTS (
        SELECT FROM task_definitions WHERE task_name = NEW.task_name AND alerts IS NOT NULL
    ) THEN
        DELETE FROM alert_states WHERE schedule_id = NEW.id;
        RETURN NULL;
    END IF;
    INSERT INTO alert_states (schedule_id)
    VALUES (NEW.id)
    ON CONFLICT ON CONSTRAINT alert_states_pkey DO UPDATE SET due_at = excluded.due_at;
    IF anew THEN
        -- People who were told are still to be told when a run succeeds.
        UPDATE alert_states
        SET failures = 0, failed_run = NULL, failing = false, overdue = false, since = statement_timestamp()
        WHERE schedule_id = NEW.id;
    ELSIF OLD.starts_at > statement_timestamp() OR OLD.ends_at <= statement_timestamp() THEN
        -- Until now it was not asked to succeed.
        UPDATE alert_states SET since = statement_timestamp() WHERE schedule_id = NEW.id;
    END IF;
    RETURN NULL;
END
$$;
DROP TRIGGER schedules_watch_update ON schedules;
CREATE TRIGGER schedules_watch_update
    AFTER UPDATE OF task_name, enabled, starts_at, ends_at, alerts ON schedules
    FOR EACH ROW
    WHEN (
        (OLD.task_name, OLD.enabled, OLD.starts_at, OLD.ends_at, OLD.alerts)
        IS DISTINCT FROM
        (NEW.task_name, NEW.enabled, NEW.starts_at, NEW.ends_at, NEW.alerts)
    )
    EXECUTE FUNCTION watch_schedule();

DROP VIEW report_schedule_versions;
CREATE VIEW report_schedule_versions AS
SELECT
    schedule_id,
    version,
    valid_from,
    valid_until,
    changed_by,
    name AS schedule_name,
    task_name,
    cron_expression,
    timezone,
    enabled,
    args,
    kwargs AS task_params,
    description,
    category,
    tags,
    execution_policy,
    catch_up,
    catch_up_window_s AS catch_up_window_seconds,
    max_waiting,
    starts_at,
    ends_at,
    managed_by,
    limits,
    alerts
FROM schedule_versions;

CREATE OR REPLACE FUNCTION record_new_schedules() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO schedule_versions (
        schedule_id, valid_from, version, changed_by,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts
    )
    SELECT
        id, statement_timestamp(), version, nullif(current_setting('riverbeat.actor', true), ''),
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts
    FROM inserted;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION record_schedule() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
DECLARE
    begun timestamptz;
    ended timestamptz := coalesce(
        nullif(current_setting('riverbeat.settled_at', true), '')::timestamptz,
        statement_timestamp()
    );
BEGIN
    SELECT max(valid_from) INTO begun FROM schedule_versions WHERE schedule_id = OLD.id;
    begun := coalesce(begun, OLD.updated_at);
    ended := greatest(ended, begun + interval '1 microsecond');

    INSERT INTO schedule_versions (
        schedule_id, valid_from, valid_until, version,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts
    ) VALUES (
        OLD.id, begun, ended, OLD.version,
        OLD.name, OLD.task_name, OLD.cron_expression, OLD.timezone, OLD.enabled, OLD.args, OLD.kwargs, OLD.description,
        OLD.category, OLD.tags, OLD.execution_policy, OLD.auto_generated_name, OLD.catch_up, OLD.catch_up_window_s,
        OLD.max_waiting, OLD.starts_at, OLD.ends_at, OLD.managed_by, OLD.limits, OLD.alerts
    )
    ON CONFLICT ON CONSTRAINT schedule_versions_pkey DO UPDATE SET valid_until = excluded.valid_until;
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;

    INSERT INTO schedule_versions (
        schedule_id, valid_from, version, changed_by,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts
    ) VALUES (
        NEW.id, ended, NEW.version, nullif(current_setting('riverbeat.actor', true), ''),
        NEW.name, NEW.task_name, NEW.cron_expression, NEW.timezone, NEW.enabled, NEW.args, NEW.kwargs, NEW.description,
        NEW.category, NEW.tags, NEW.execution_policy, NEW.auto_generated_name, NEW.catch_up, NEW.catch_up_window_s,
        NEW.max_waiting, NEW.starts_at, NEW.ends_at, NEW.managed_by, NEW.limits, NEW.alerts
    );
    RETURN NULL;
END
$$;

DROP TRIGGER schedules_record_update ON schedules;
CREATE TRIGGER schedules_record_update
    AFTER UPDATE OF
        version, name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts
    ON schedules
    FOR EACH ROW
    WHEN (
        (OLD.version, OLD.name, OLD.task_name, OLD.cron_expression, OLD.timezone, OLD.enabled,
            OLD.args, OLD.kwargs, OLD.description, OLD.category, OLD.tags, OLD.execution_policy,
            OLD.auto_generated_name, OLD.catch_up, OLD.catch_up_window_s, OLD.max_waiting,
            OLD.starts_at, OLD.ends_at, OLD.managed_by, OLD.limits, OLD.alerts)
        IS DISTINCT FROM
        (NEW.version, NEW.name, NEW.task_name, NEW.cron_expression, NEW.timezone, NEW.enabled,
            NEW.args, NEW.kwargs, NEW.description, NEW.category, NEW.tags, NEW.execution_policy,
            NEW.auto_generated_name, NEW.catch_up, NEW.catch_up_window_s, NEW.max_waiting,
            NEW.starts_at, NEW.ends_at, NEW.managed_by, NEW.limits, NEW.alerts)
    )
    EXECUTE FUNCTION record_schedule();

DROP TRIGGER schedules_audit_update ON schedules;
CREATE TRIGGER schedules_audit_update
    AFTER UPDATE OF
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits, alerts
    ON schedules
    FOR EACH ROW EXECUTE FUNCTION audit_row('schedule', 'id');

ALTER TABLE schedule_versions DROP COLUMN shadow;
ALTER TABLE schedules DROP COLUMN shadow;
