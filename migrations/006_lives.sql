-- Runs outlive their processes.

ALTER TABLE runs ADD COLUMN lost_lives jsonb;
COMMENT ON COLUMN runs.lost_lives IS
    'The lives that were lost with their node: [{job_id, node, execution, lost_at}].';

-- As it was (003), but for:
-- * The fetch of a job is no news. Whoever works it starts the run, many at a
--   time, if the job still is its run's and the key can be had (StartRuns). An
--   attempt that was handed back before that has changed nothing.
-- * More attempts, which River grants with a retry, are more of the run.
-- * A job that River makes live again starts the run anew.
CREATE OR REPLACE FUNCTION record_job() RETURNS trigger LANGUAGE plpgsql
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

DROP TRIGGER riverbeat_record_update ON river_job;
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

---- create above / drop below ----

-- record_job as it was is in 003; going down further drops it.
ALTER TABLE runs DROP COLUMN lost_lives;
