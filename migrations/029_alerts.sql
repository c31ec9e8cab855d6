-- Whom to tell when the runs of a schedule fail, recover, or have not succeeded for a time.
-- What a schedule says goes before what the definition of its task says.
ALTER TABLE task_definitions
    ADD COLUMN alerts jsonb,
    ADD CONSTRAINT task_definitions_alerts_is_object CHECK (jsonb_typeof(alerts) = 'object');
ALTER TABLE schedules
    ADD COLUMN alerts jsonb,
    ADD CONSTRAINT schedules_alerts_is_object CHECK (jsonb_typeof(alerts) = 'object');
ALTER TABLE schedule_versions ADD COLUMN alerts jsonb;

-- A message is a run. NOT VALID: all that was allowed before is allowed now.
ALTER DOMAIN run_trigger DROP CONSTRAINT run_trigger_known;
ALTER DOMAIN run_trigger ADD CONSTRAINT run_trigger_known
    CHECK (VALUE IN ('schedule', 'catch_up', 'manual', 'backfill', 'alert')) NOT VALID;

-- What is known of the schedules that are watched: those that have alerts, or whose task
-- has. No foreign key: it would lock schedules that others are changing. Who looks deletes
-- the states of those that are gone.
CREATE TABLE alert_states (
    schedule_id uuid NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    failed_run uuid,
    failing boolean NOT NULL DEFAULT false,
    overdue boolean NOT NULL DEFAULT false,
    told boolean NOT NULL DEFAULT false,
    last_success_at timestamptz,
    since timestamptz NOT NULL DEFAULT statement_timestamp(),
    due_at timestamptz DEFAULT statement_timestamp(),
    success_seen bigint NOT NULL DEFAULT 0,
    failure_seen bigint NOT NULL DEFAULT 0,
    CONSTRAINT alert_states_pkey PRIMARY KEY (schedule_id)
) WITH (fillfactor = 70);
CREATE INDEX alert_states_due_at_idx ON alert_states (due_at);
COMMENT ON COLUMN alert_states.failures IS 'Runs that have failed in a row.';
COMMENT ON COLUMN alert_states.told IS 'Whether people have to be told of its recovery.';
COMMENT ON COLUMN alert_states.since IS
    'When the time without a success began: with the last one, or when it was first watched or enabled.';
COMMENT ON COLUMN alert_states.due_at IS 'When it has to be looked at, at the latest; null: never.';

-- Tasks whose definition has other alerts than before: whose schedules, those after the
-- given place, are to be watched, or no more. A task may have a million of them, which is
-- nothing to do while its definition is locked.
CREATE TABLE alert_tasks (
    task_name varchar(255) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT '0001-01-01 00:00Z',
    schedule_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    CONSTRAINT alert_tasks_pkey PRIMARY KEY (task_name)
);

-- The ends of runs of watched schedules, until they are taken in.
CREATE TABLE run_ends (
    id bigint GENERATED ALWAYS AS IDENTITY,
    schedule_id uuid NOT NULL,
    task_name varchar(255) NOT NULL,
    run_id uuid NOT NULL,
    succeeded boolean NOT NULL,
    ended_at timestamptz NOT NULL,
    CONSTRAINT run_ends_pkey PRIMARY KEY (id)
);

-- Where the end of a job is carried into its run, which is how all runs end that had one
-- (011): that of a watched schedule is noted.
CREATE OR REPLACE FUNCTION record_jobs() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET jit = off
AS $$
DECLARE
    freed text[];
BEGIN
    -- The fetch of jobs is no news, and most statements are.
    IF NOT EXISTS (SELECT FROM new_jobs WHERE state <> 'running')
        AND NOT EXISTS (SELECT FROM old_jobs WHERE state = 'running')
    THEN
        RETURN NULL;
    END IF;

    WITH jobs AS MATERIALIZED (
        SELECT
            n.*,
            run_id_of(n.args) AS run_id,
            o.state AS old_state,
            o.attempt AS old_attempt,
            o.max_attempts AS old_max_attempts,
            o.finalized_at AS old_finalized_at,
            o.errors AS old_errors,
            o.metadata AS old_metadata
        FROM old_jobs AS o
        FULL JOIN new_jobs AS n ON n.id = o.id
    ),
    changes AS MATERIALIZED (
        SELECT
            id,
            run_id,
            run_time_of(run_id) AS run_time,
            args ->> 'lock_key' AS lock_key,
            state,
            attempt - old_attempt AS more_attempts,
            max_attempts - old_max_attempts AS more_max_attempts,
            attempt > 0 AND old_finalized_at IS NULL AS tried,
            finalized_at IS NOT NULL AS ended,
            old_finalized_at IS NULL AND finalized_at IS NOT NULL AS freed,
            finalized_at,
            old_finalized_at IS NOT NULL AND finalized_at IS NULL AS again, -- River's retry of a job that has ended
            state = 'running' AND metadata ? 'cancel_attempted_at' AS cancelling,
            -- What the attempt reported counts only while the job was running: a
            -- zombie's late report changes nothing.
            CASE WHEN old_state = 'running' THEN metadata END AS reported,
            CASE
                WHEN old_state = 'running' AND cardinality(errors) > coalesce(cardinality(old_errors), 0)
                THEN left(errors[cardinality(errors)] ->> 'error', 16384)
            END AS failure
        FROM jobs
        WHERE kind = 'run'
            AND run_id IS NOT NULL
            AND (state <> 'running' OR old_state = 'running')
            AND (
                state <> old_state
                OR attempt <> old_attempt
                OR (old_state = 'running' AND metadata <> old_metadata)
            )
    ),
    outcomes AS (
        SELECT
            *,
            CASE state
                WHEN 'running' THEN 'running'
                WHEN 'completed' THEN 'succeeded'
                WHEN 'discarded' THEN 'failed'
                WHEN 'cancelled' THEN
                    CASE WHEN reported -> 'riverbeat' ->> 'state' = 'failed' THEN 'failed' ELSE 'cancelled' END
                WHEN 'retryable' THEN 'retrying'
                ELSE CASE WHEN tried THEN 'retrying' ELSE 'queued' END
            END AS run_state,
            CASE
                WHEN state <> 'running' -- else it is what the attempt before said
                THEN left(reported -> 'riverbeat' ->> 'reason', 30)
            END AS reason
        FROM changes
    ),
    recorded AS (
        UPDATE runs
        SET state = o.run_state,
            reason = CASE WHEN o.run_state = 'cancelled' THEN coalesce(o.reason, 'cancelled_by_user') ELSE o.reason END,
            -- A snooze takes the attempt back, if it had begun.
            attempt = CASE WHEN runs.state = 'running' THEN runs.attempt + o.more_attempts ELSE runs.attempt END,
            max_attempts = runs.max_attempts + o.more_max_attempts,
            started_at = CASE WHEN o.again THEN NULL ELSE runs.started_at END,
            finished_at = CASE WHEN o.ended THEN coalesce(runs.finished_at, clock_timestamp()) END,
            lives = CASE WHEN o.again THEN 0 ELSE runs.lives END,
            cancel_requested_at = CASE
                WHEN o.again THEN NULL
                WHEN o.cancelling THEN coalesce(runs.cancel_requested_at, clock_timestamp())
                ELSE runs.cancel_requested_at
            END,
            result = coalesce(o.reported -> 'output', runs.result),
            logs = coalesce(o.reported -> 'river:log', runs.logs),
            error = CASE WHEN o.state = 'completed' THEN NULL ELSE coalesce(o.failure, runs.error) END
        FROM outcomes AS o
        WHERE runs.scheduled_for = o.run_time AND runs.id = o.run_id AND runs.job_id = o.id
        RETURNING
            runs.id, runs.schedule_id, runs.task_name, runs.trigger, runs.state, runs.finished_at,
            o.freed, o.finalized_at
    ),
    noted AS (
        INSERT INTO run_ends (schedule_id, task_name, run_id, succeeded, ended_at)
        SELECT r.schedule_id, r.task_name, r.id, r.state = 'succeeded', r.finished_at
        FROM recorded AS r
        JOIN alert_states AS a ON a.schedule_id = r.schedule_id
        -- The runs of a backfill are of other days: they tell nothing of how it fares.
        WHERE r.freed AND r.state IN ('succeeded', 'failed') AND r.trigger IN ('schedule', 'catch_up', 'manual')
        ORDER BY r.finalized_at, r.finished_at
    )
    SELECT array_agg(DISTINCT lock_key) INTO freed
    FROM changes
    WHERE changes.freed AND lock_key IS NOT NULL;

    IF freed IS NOT NULL THEN
        PERFORM announce_freed(freed);
    END IF;
    RETURN NULL;
END
$$;

-- A run that has failed never had a job: its parameters were invalid.
CREATE FUNCTION note_run_end() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
BEGIN
    INSERT INTO run_ends (schedule_id, task_name, run_id, succeeded, ended_at)
    SELECT schedule_id, NEW.task_name, NEW.id, false, coalesce(NEW.finished_at, clock_timestamp())
    FROM alert_states
    WHERE schedule_id = NEW.schedule_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER riverbeat_note_failed
    AFTER INSERT ON runs
    FOR EACH ROW
    WHEN (NEW.state = 'failed' AND NEW.trigger IN ('schedule', 'catch_up', 'manual'))
    EXECUTE FUNCTION note_run_end();

-- What is watched follows what schedules and definitions say. When a state must be looked
-- at is worked out by who looks; that he has to is said here.
CREATE FUNCTION watch_new_schedules() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO alert_states (schedule_id)
    SELECT s.id
    FROM inserted AS s
    LEFT JOIN task_definitions AS d ON d.task_name = s.task_name AND d.alerts IS NOT NULL
    WHERE s.alerts IS NOT NULL OR d.alerts IS NOT NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER schedules_watch_insert
    AFTER INSERT ON schedules
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION watch_new_schedules();

CREATE FUNCTION watch_schedule() RETURNS trigger LANGUAGE plpgsql
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
CREATE TRIGGER schedules_watch_update
    AFTER UPDATE OF task_name, enabled, starts_at, ends_at, alerts ON schedules
    FOR EACH ROW
    WHEN (
        (OLD.task_name, OLD.enabled, OLD.starts_at, OLD.ends_at, OLD.alerts)
        IS DISTINCT FROM
        (NEW.task_name, NEW.enabled, NEW.starts_at, NEW.ends_at, NEW.alerts)
    )
    EXECUTE FUNCTION watch_schedule();

CREATE FUNCTION watch_schedule_no_more() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    DELETE FROM alert_states WHERE schedule_id = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER schedules_watch_delete
    AFTER DELETE ON schedules
    FOR EACH ROW EXECUTE FUNCTION watch_schedule_no_more();

CREATE FUNCTION watch_task() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    IF OLD.alerts IS DISTINCT FROM NEW.alerts THEN
        INSERT INTO alert_tasks (task_name)
        VALUES (coalesce(NEW.task_name, OLD.task_name))
        ON CONFLICT ON CONSTRAINT alert_tasks_pkey DO UPDATE
        SET created_at = excluded.created_at, schedule_id = excluded.schedule_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER task_definitions_watch
    AFTER INSERT OR UPDATE OF alerts OR DELETE ON task_definitions
    FOR EACH ROW EXECUTE FUNCTION watch_task();

CREATE VIEW report_alerts AS
SELECT
    a.schedule_id,
    s.name AS schedule_name,
    s.task_name,
    s.category,
    s.tags,
    s.enabled,
    a.failing,
    a.failures,
    a.overdue,
    a.last_success_at
FROM alert_states AS a
JOIN schedules AS s ON s.id = a.schedule_id;
COMMENT ON VIEW report_alerts IS
    'The schedules that have alerts, and how they fare.';

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
    alerts
FROM schedule_versions;

---- create above / drop below ----

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
    limits
FROM schedule_versions;

DROP VIEW report_alerts;
DROP TRIGGER task_definitions_watch ON task_definitions;
DROP FUNCTION watch_task();
DROP TRIGGER schedules_watch_delete ON schedules;
DROP FUNCTION watch_schedule_no_more();
DROP TRIGGER schedules_watch_update ON schedules;
DROP FUNCTION watch_schedule();
DROP TRIGGER schedules_watch_insert ON schedules;
DROP FUNCTION watch_new_schedules();
DROP TRIGGER riverbeat_note_failed ON runs;
DROP FUNCTION note_run_end();

CREATE OR REPLACE FUNCTION record_jobs() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET jit = off
AS $$
DECLARE
    freed text[];
BEGIN
    -- The fetch of jobs is no news, and most statements are.
    IF NOT EXISTS (SELECT FROM new_jobs WHERE state <> 'running')
        AND NOT EXISTS (SELECT FROM old_jobs WHERE state = 'running')
    THEN
        RETURN NULL;
    END IF;

    WITH jobs AS MATERIALIZED (
        SELECT
            n.*,
            run_id_of(n.args) AS run_id,
            o.state AS old_state,
            o.attempt AS old_attempt,
            o.max_attempts AS old_max_attempts,
            o.finalized_at AS old_finalized_at,
            o.errors AS old_errors,
            o.metadata AS old_metadata
        FROM old_jobs AS o
        FULL JOIN new_jobs AS n ON n.id = o.id
    ),
    changes AS MATERIALIZED (
        SELECT
            id,
            run_id,
            run_time_of(run_id) AS run_time,
            args ->> 'lock_key' AS lock_key,
            state,
            attempt - old_attempt AS more_attempts,
            max_attempts - old_max_attempts AS more_max_attempts,
            attempt > 0 AND old_finalized_at IS NULL AS tried,
            finalized_at IS NOT NULL AS ended,
            old_finalized_at IS NULL AND finalized_at IS NOT NULL AS freed,
            old_finalized_at IS NOT NULL AND finalized_at IS NULL AS again, -- River's retry of a job that has ended
            state = 'running' AND metadata ? 'cancel_attempted_at' AS cancelling,
            -- What the attempt reported counts only while the job was running: a
            -- zombie's late report changes nothing.
            CASE WHEN old_state = 'running' THEN metadata END AS reported,
            CASE
                WHEN old_state = 'running' AND cardinality(errors) > coalesce(cardinality(old_errors), 0)
                THEN left(errors[cardinality(errors)] ->> 'error', 16384)
            END AS failure
        FROM jobs
        WHERE kind = 'run'
            AND run_id IS NOT NULL
            AND (state <> 'running' OR old_state = 'running')
            AND (
                state <> old_state
                OR attempt <> old_attempt
                OR (old_state = 'running' AND metadata <> old_metadata)
            )
    ),
    outcomes AS (
        SELECT
            *,
            CASE state
                WHEN 'running' THEN 'running'
                WHEN 'completed' THEN 'succeeded'
                WHEN 'discarded' THEN 'failed'
                WHEN 'cancelled' THEN
                    CASE WHEN reported -> 'riverbeat' ->> 'state' = 'failed' THEN 'failed' ELSE 'cancelled' END
                WHEN 'retryable' THEN 'retrying'
                ELSE CASE WHEN tried THEN 'retrying' ELSE 'queued' END
            END AS run_state,
            CASE
                WHEN state <> 'running' -- else it is what the attempt before said
                THEN left(reported -> 'riverbeat' ->> 'reason', 30)
            END AS reason
        FROM changes
    ),
    recorded AS (
        UPDATE runs
        SET state = o.run_state,
            reason = CASE WHEN o.run_state = 'cancelled' THEN coalesce(o.reason, 'cancelled_by_user') ELSE o.reason END,
            -- A snooze takes the attempt back, if it had begun.
            attempt = CASE WHEN runs.state = 'running' THEN runs.attempt + o.more_attempts ELSE runs.attempt END,
            max_attempts = runs.max_attempts + o.more_max_attempts,
            started_at = CASE WHEN o.again THEN NULL ELSE runs.started_at END,
            finished_at = CASE WHEN o.ended THEN coalesce(runs.finished_at, clock_timestamp()) END,
            lives = CASE WHEN o.again THEN 0 ELSE runs.lives END,
            cancel_requested_at = CASE
                WHEN o.again THEN NULL
                WHEN o.cancelling THEN coalesce(runs.cancel_requested_at, clock_timestamp())
                ELSE runs.cancel_requested_at
            END,
            result = coalesce(o.reported -> 'output', runs.result),
            logs = coalesce(o.reported -> 'river:log', runs.logs),
            error = CASE WHEN o.state = 'completed' THEN NULL ELSE coalesce(o.failure, runs.error) END
        FROM outcomes AS o
        WHERE runs.scheduled_for = o.run_time AND runs.id = o.run_id AND runs.job_id = o.id
    )
    SELECT array_agg(DISTINCT lock_key) INTO freed
    FROM changes
    WHERE changes.freed AND lock_key IS NOT NULL;

    IF freed IS NOT NULL THEN
        PERFORM announce_freed(freed);
    END IF;
    RETURN NULL;
END
$$;

DROP TABLE run_ends;
DROP TABLE alert_tasks;
DROP TABLE alert_states;

UPDATE runs SET trigger = 'manual' WHERE trigger = 'alert';
ALTER DOMAIN run_trigger DROP CONSTRAINT run_trigger_known;
ALTER DOMAIN run_trigger ADD CONSTRAINT run_trigger_known
    CHECK (VALUE IN ('schedule', 'catch_up', 'manual', 'backfill')) NOT VALID;

ALTER TABLE schedule_versions DROP COLUMN alerts;
ALTER TABLE schedules DROP COLUMN alerts;
ALTER TABLE task_definitions DROP COLUMN alerts;
