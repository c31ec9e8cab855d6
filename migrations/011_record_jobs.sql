-- History follows River once per statement instead of once per job: nine parts
-- of ten of what a job's end cost were spent on beginning an update of one row.
-- What becomes of a run is as it was (006).

-- The run that a job's arguments name; null for what is no UUIDv7, whose time
-- tells the partition.
CREATE FUNCTION run_id_of(args jsonb) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN args ->> 'run_id' ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
        THEN (args ->> 'run_id')::uuid
    END;

-- The nominal time in a run's id. Stable, since that is what Postgres takes a
-- sum with an interval for; a function that claims more is not inlined.
CREATE FUNCTION run_time_of(run_id uuid) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
    RETURN timestamptz 'epoch' + interval '1 millisecond' *
        ('x' || substr(run_id::text, 1, 8) || substr(run_id::text, 10, 4))::bit(48)::bigint;

-- The keys are free: whoever waits behind them can move up. Who promotes a line
-- in this very transaction says so, and needs no notification.
CREATE FUNCTION announce_freed(keys text[]) RETURNS void LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
BEGIN
    PERFORM pg_notify(current_schema() || '.lines', key)
    FROM unnest(keys) AS key
    WHERE key IS DISTINCT FROM current_setting('riverbeat.promotes', true)
        AND EXISTS (SELECT FROM runs WHERE lock_key = key AND line_rank IS NOT NULL);
END
$$;

-- Carries changes of jobs into the runs whose job_id they are.
--
-- River's own statements run through it, so it is total: it raises nothing of
-- its own, and arguments that name no run are passed over. It opens no
-- subtransaction (a batch of thousands would overflow the snapshot), hence the
-- check by pattern. The plan is made once; whatever the tables were like then,
-- runs are found one by one by their key, hence no sequential scan and only
-- nested loops. Only old and new rows must not meet in one: the pairs of
-- thousands are millions. A full join cannot be one; what it is costs so much on
-- paper that it would be compiled each time.
CREATE FUNCTION record_jobs() RETURNS trigger LANGUAGE plpgsql
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

-- The job cleaner deletes finished jobs, which is no news.
CREATE FUNCTION record_deletion() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
DECLARE
    run_id uuid := run_id_of(OLD.args);
BEGIN
    UPDATE runs
    SET state = 'cancelled',
        reason = 'job_deleted',
        finished_at = clock_timestamp()
    WHERE scheduled_for = run_time_of(run_id) AND id = run_id AND job_id = OLD.id;
    PERFORM announce_freed(ARRAY[OLD.args ->> 'lock_key']);
    RETURN NULL;
END
$$;

DROP TRIGGER riverbeat_record_update ON river_job;
DROP TRIGGER riverbeat_record_delete ON river_job;
DROP FUNCTION record_job();
CREATE TRIGGER riverbeat_record_update
    AFTER UPDATE ON river_job
    REFERENCING OLD TABLE AS old_jobs NEW TABLE AS new_jobs
    FOR EACH STATEMENT
    EXECUTE FUNCTION record_jobs();
CREATE TRIGGER riverbeat_record_delete
    AFTER DELETE ON river_job
    FOR EACH ROW
    WHEN (OLD.kind = 'run' AND OLD.finalized_at IS NULL)
    EXECUTE FUNCTION record_deletion();

---- create above / drop below ----

DROP TRIGGER riverbeat_record_delete ON river_job;
DROP TRIGGER riverbeat_record_update ON river_job;
DROP FUNCTION record_deletion();
DROP FUNCTION record_jobs();
DROP FUNCTION announce_freed(text[]);
DROP FUNCTION run_time_of(uuid);
DROP FUNCTION run_id_of(jsonb);
CREATE FUNCTION record_job() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
DECLARE
    run_id text := OLD.args ->> 'run_id';
    key text := OLD.args ->> 'lock_key';
    run_time timestamptz;
    reported jsonb;
    next_state text;
    next_reason text;
    failure text;
    again boolean; -- River's retry of a job that has ended
BEGIN
    -- Only a UUIDv7, whose time tells the partition.
    IF run_id IS NULL OR run_id !~
        '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' THEN
        RETURN NULL;
    END IF;
    run_time := timestamptz 'epoch' + interval '1 millisecond' *
        ('x' || substr(run_id, 1, 8) || substr(run_id, 10, 4))::bit(48)::bigint;

    IF TG_OP = 'DELETE' THEN
        -- The job cleaner deletes finished jobs: no news.
        IF OLD.finalized_at IS NOT NULL THEN
            RETURN NULL;
        END IF;
        UPDATE runs
        SET state = 'cancelled',
            reason = 'job_deleted',
            finished_at = clock_timestamp()
        WHERE scheduled_for = run_time AND id = run_id::uuid AND job_id = OLD.id;
    ELSE
        again := OLD.finalized_at IS NOT NULL AND NEW.finalized_at IS NULL;
        -- What the attempt reported counts only while the job was running: a
        -- zombie's late report changes nothing.
        IF OLD.state = 'running' THEN
            reported := NEW.metadata;
            IF NEW.state <> 'running' THEN -- else it is what the attempt before said
                next_reason := left(reported -> 'riverbeat' ->> 'reason', 30);
            END IF;
            IF cardinality(NEW.errors) > coalesce(cardinality(OLD.errors), 0) THEN
                failure := left(NEW.errors[cardinality(NEW.errors)] ->> 'error', 16384);
            END IF;
        END IF;
        next_state := CASE NEW.state
            WHEN 'running' THEN 'running'
            WHEN 'completed' THEN 'succeeded'
            WHEN 'discarded' THEN 'failed'
            WHEN 'cancelled' THEN
                CASE WHEN reported -> 'riverbeat' ->> 'state' = 'failed' THEN 'failed' ELSE 'cancelled' END
            WHEN 'retryable' THEN 'retrying'
            ELSE CASE
                WHEN NEW.attempt > 0 AND OLD.finalized_at IS NULL THEN 'retrying'
                ELSE 'queued'
            END
        END;
        IF next_state = 'cancelled' THEN
            next_reason := coalesce(next_reason, 'cancelled_by_user');
        END IF;
        UPDATE runs
        SET state = next_state,
            reason = next_reason,
            -- A snooze takes the attempt back, if it had begun.
            attempt = CASE
                WHEN runs.state = 'running' THEN runs.attempt + (NEW.attempt - OLD.attempt)
                ELSE runs.attempt
            END,
            max_attempts = runs.max_attempts + (NEW.max_attempts - OLD.max_attempts),
            started_at = CASE WHEN again THEN NULL ELSE started_at END,
            finished_at = CASE
                WHEN NEW.finalized_at IS NULL THEN NULL
                ELSE coalesce(finished_at, clock_timestamp())
            END,
            lives = CASE WHEN again THEN 0 ELSE lives END,
            cancel_requested_at = CASE
                WHEN again THEN NULL
                WHEN NEW.metadata ? 'cancel_attempted_at' AND NEW.state = 'running'
                THEN coalesce(cancel_requested_at, clock_timestamp())
                ELSE cancel_requested_at
            END,
            result = coalesce(reported -> 'output', result),
            logs = coalesce(reported -> 'river:log', logs),
            error = CASE WHEN NEW.state = 'completed' THEN NULL ELSE coalesce(failure, error) END
        WHERE scheduled_for = run_time AND id = run_id::uuid AND job_id = NEW.id;
        IF NEW.finalized_at IS NULL OR OLD.finalized_at IS NOT NULL THEN
            RETURN NULL;
        END IF;
    END IF;

    -- The key is free. Who promotes its line in this very transaction says so,
    -- and needs no notification.
    IF key IS NOT NULL AND current_setting('riverbeat.promotes', true) IS DISTINCT FROM key AND EXISTS (
        SELECT FROM runs WHERE lock_key = key AND line_rank IS NOT NULL
    ) THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '.lines', key);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER riverbeat_record_update
    AFTER UPDATE ON river_job
    FOR EACH ROW
    WHEN (
        NEW.kind = 'run'
        AND (NEW.state <> 'running' OR OLD.state = 'running')
        AND (
            OLD.state IS DISTINCT FROM NEW.state
            OR OLD.attempt IS DISTINCT FROM NEW.attempt
            OR (OLD.state = 'running' AND OLD.metadata IS DISTINCT FROM NEW.metadata)
        )
    )
    EXECUTE FUNCTION record_job();
CREATE TRIGGER riverbeat_record_delete
    AFTER DELETE ON river_job
    FOR EACH ROW
    WHEN (OLD.kind = 'run')
    EXECUTE FUNCTION record_job();
