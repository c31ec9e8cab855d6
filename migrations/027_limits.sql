-- What a schedule says of the attempts of its runs, in place of its task's definition:
-- max_attempts, backoff_ms, max_backoff_ms, timeout_ms. A run has what its schedule said
-- when it was planned.
ALTER TABLE schedules
    ADD COLUMN limits jsonb,
    ADD CONSTRAINT schedules_limits_is_object CHECK (jsonb_typeof(limits) = 'object');
ALTER TABLE schedule_versions ADD COLUMN limits jsonb;
ALTER TABLE runs ADD COLUMN limits jsonb;

CREATE OR REPLACE FUNCTION record_new_schedules() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO schedule_versions (
        schedule_id, valid_from, version, changed_by,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits
    )
    SELECT
        id, statement_timestamp(), version, nullif(current_setting('riverbeat.actor', true), ''),
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits
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
        max_waiting, starts_at, ends_at, managed_by, limits
    ) VALUES (
        OLD.id, begun, ended, OLD.version,
        OLD.name, OLD.task_name, OLD.cron_expression, OLD.timezone, OLD.enabled, OLD.args, OLD.kwargs, OLD.description,
        OLD.category, OLD.tags, OLD.execution_policy, OLD.auto_generated_name, OLD.catch_up, OLD.catch_up_window_s,
        OLD.max_waiting, OLD.starts_at, OLD.ends_at, OLD.managed_by, OLD.limits
    )
    ON CONFLICT ON CONSTRAINT schedule_versions_pkey DO UPDATE SET valid_until = excluded.valid_until;
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;

    INSERT INTO schedule_versions (
        schedule_id, valid_from, version, changed_by,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits
    ) VALUES (
        NEW.id, ended, NEW.version, nullif(current_setting('riverbeat.actor', true), ''),
        NEW.name, NEW.task_name, NEW.cron_expression, NEW.timezone, NEW.enabled, NEW.args, NEW.kwargs, NEW.description,
        NEW.category, NEW.tags, NEW.execution_policy, NEW.auto_generated_name, NEW.catch_up, NEW.catch_up_window_s,
        NEW.max_waiting, NEW.starts_at, NEW.ends_at, NEW.managed_by, NEW.limits
    );
    RETURN NULL;
END
$$;

DROP TRIGGER schedules_record_update ON schedules;
CREATE TRIGGER schedules_record_update
    AFTER UPDATE OF
        version, name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits
    ON schedules
    FOR EACH ROW
    WHEN (
        (OLD.version, OLD.name, OLD.task_name, OLD.cron_expression, OLD.timezone, OLD.enabled,
            OLD.args, OLD.kwargs, OLD.description, OLD.category, OLD.tags, OLD.execution_policy,
            OLD.auto_generated_name, OLD.catch_up, OLD.catch_up_window_s, OLD.max_waiting,
            OLD.starts_at, OLD.ends_at, OLD.managed_by, OLD.limits)
        IS DISTINCT FROM
        (NEW.version, NEW.name, NEW.task_name, NEW.cron_expression, NEW.timezone, NEW.enabled,
            NEW.args, NEW.kwargs, NEW.description, NEW.category, NEW.tags, NEW.execution_policy,
            NEW.auto_generated_name, NEW.catch_up, NEW.catch_up_window_s, NEW.max_waiting,
            NEW.starts_at, NEW.ends_at, NEW.managed_by, NEW.limits)
    )
    EXECUTE FUNCTION record_schedule();

DROP TRIGGER schedules_audit_update ON schedules;
CREATE TRIGGER schedules_audit_update
    AFTER UPDATE OF
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by, limits
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
    limits
FROM schedule_versions;

---- create above / drop below ----

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
    managed_by
FROM schedule_versions;

DROP TRIGGER schedules_audit_update ON schedules;
CREATE TRIGGER schedules_audit_update
    AFTER UPDATE OF
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by
    ON schedules
    FOR EACH ROW EXECUTE FUNCTION audit_row('schedule', 'id');

DROP TRIGGER schedules_record_update ON schedules;
CREATE TRIGGER schedules_record_update
    AFTER UPDATE OF
        version, name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by
    ON schedules
    FOR EACH ROW
    WHEN (
        (OLD.version, OLD.name, OLD.task_name, OLD.cron_expression, OLD.timezone, OLD.enabled,
            OLD.args, OLD.kwargs, OLD.description, OLD.category, OLD.tags, OLD.execution_policy,
            OLD.auto_generated_name, OLD.catch_up, OLD.catch_up_window_s, OLD.max_waiting,
            OLD.starts_at, OLD.ends_at, OLD.managed_by)
        IS DISTINCT FROM
        (NEW.version, NEW.name, NEW.task_name, NEW.cron_expression, NEW.timezone, NEW.enabled,
            NEW.args, NEW.kwargs, NEW.description, NEW.category, NEW.tags, NEW.execution_policy,
            NEW.auto_generated_name, NEW.catch_up, NEW.catch_up_window_s, NEW.max_waiting,
            NEW.starts_at, NEW.ends_at, NEW.managed_by)
    )
    EXECUTE FUNCTION record_schedule();

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
        max_waiting, starts_at, ends_at, managed_by
    ) VALUES (
        OLD.id, begun, ended, OLD.version,
        OLD.name, OLD.task_name, OLD.cron_expression, OLD.timezone, OLD.enabled, OLD.args, OLD.kwargs, OLD.description,
        OLD.category, OLD.tags, OLD.execution_policy, OLD.auto_generated_name, OLD.catch_up, OLD.catch_up_window_s,
        OLD.max_waiting, OLD.starts_at, OLD.ends_at, OLD.managed_by
    )
    ON CONFLICT ON CONSTRAINT schedule_versions_pkey DO UPDATE SET valid_until = excluded.valid_until;
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;

    INSERT INTO schedule_versions (
        schedule_id, valid_from, version, changed_by,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by
    ) VALUES (
        NEW.id, ended, NEW.version, nullif(current_setting('riverbeat.actor', true), ''),
        NEW.name, NEW.task_name, NEW.cron_expression, NEW.timezone, NEW.enabled, NEW.args, NEW.kwargs, NEW.description,
        NEW.category, NEW.tags, NEW.execution_policy, NEW.auto_generated_name, NEW.catch_up, NEW.catch_up_window_s,
        NEW.max_waiting, NEW.starts_at, NEW.ends_at, NEW.managed_by
    );
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION record_new_schedules() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO schedule_versions (
        schedule_id, valid_from, version, changed_by,
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by
    )
    SELECT
        id, statement_timestamp(), version, nullif(current_setting('riverbeat.actor', true), ''),
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by
    FROM inserted;
    RETURN NULL;
END
$$;

ALTER TABLE runs DROP COLUMN limits;
ALTER TABLE schedule_versions DROP COLUMN limits;
ALTER TABLE schedules DROP COLUMN limits;
