-- What was in force when: the history of the definitions of schedules.

CREATE TABLE schedule_versions (
    schedule_id uuid NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_until timestamptz,
    version integer NOT NULL,
    changed_by text,
    name varchar(255) NOT NULL,
    task_name varchar(255) NOT NULL,
    cron_expression text NOT NULL,
    timezone text NOT NULL,
    enabled boolean NOT NULL,
    args jsonb NOT NULL,
    kwargs jsonb NOT NULL,
    description text NOT NULL,
    category varchar(50),
    tags jsonb NOT NULL,
    execution_policy varchar(20) NOT NULL,
    auto_generated_name boolean NOT NULL,
    catch_up varchar(20) NOT NULL,
    catch_up_window_s integer NOT NULL,
    max_waiting integer NOT NULL,
    starts_at timestamptz,
    ends_at timestamptz,
    managed_by text NOT NULL,
    CONSTRAINT schedule_versions_pkey PRIMARY KEY (schedule_id, valid_from),
    CONSTRAINT schedule_versions_end_after_start CHECK (valid_from < valid_until)
);
COMMENT ON TABLE schedule_versions IS
    'Each definition that a schedule has had, kept by triggers; kept when the schedule is gone.';
COMMENT ON COLUMN schedule_versions.valid_from IS
    'In force for ticks after it, up to valid_until; null: in force, if the schedule exists.';
COMMENT ON COLUMN schedule_versions.version IS
    'As in schedules. A change made in psql may leave it as it is.';

-- New ones come by the million: one statement for all of them.
CREATE FUNCTION record_new_schedules() RETURNS trigger LANGUAGE plpgsql
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

-- Closes the version of OLD, and opens that of NEW.
--
-- A version ends where its ticks were settled: LockClock has said when
-- (riverbeat.settled_at). In psql nobody settles, and it ends now. No two
-- versions of a schedule begin at the same time, whatever clocks do.
--
-- A schedule that is older than this table has no version to close until the
-- migration after this one has run; then it is written here, closed, and that
-- migration passes it over.
CREATE FUNCTION record_schedule() RETURNS trigger LANGUAGE plpgsql
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

CREATE TRIGGER schedules_record_insert
    AFTER INSERT ON schedules
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION record_new_schedules();
-- Not for last_error, which is no part of the definition and changes by ticks.
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
CREATE TRIGGER schedules_record_delete
    AFTER DELETE ON schedules
    FOR EACH ROW EXECUTE FUNCTION record_schedule();

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

---- create above / drop below ----

DROP VIEW report_schedule_versions;
DROP TRIGGER schedules_record_delete ON schedules;
DROP TRIGGER schedules_record_update ON schedules;
DROP TRIGGER schedules_record_insert ON schedules;
DROP FUNCTION record_schedule();
DROP FUNCTION record_new_schedules();
DROP TABLE schedule_versions;
