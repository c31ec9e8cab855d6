-- Whoever touches the job: who asked for a cancellation, and TRUNCATE.

ALTER TABLE runs ADD COLUMN cancel_requested_by text;
COMMENT ON COLUMN runs.cancel_requested_at IS
    'A fact of its own: a running run goes on until its task obeys.';

-- Row triggers do not fire at TRUNCATE. So what is unfinished is deleted first,
-- row by row, and what a deletion does to runs and lines is said in one place.
CREATE FUNCTION delete_live_jobs() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    DELETE FROM river_job WHERE kind = 'run' AND finalized_at IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER riverbeat_record_truncate
    BEFORE TRUNCATE ON river_job
    FOR EACH STATEMENT EXECUTE FUNCTION delete_live_jobs();

-- Columns are only added, at the end.
CREATE OR REPLACE VIEW report_runs AS
SELECT
    id,
    scheduled_for,
    schedule_id,
    schedule_name,
    schedule_version,
    definition_version,
    task_name,
    category,
    tags,
    args,
    task_params,
    execution_policy,
    lock_key,
    trigger,
    backfill_id,
    state,
    reason,
    blocked_by,
    job_id,
    lives,
    execution,
    attempt,
    max_attempts,
    enqueued_at,
    started_at,
    finished_at,
    extract(epoch FROM started_at - scheduled_for) AS lateness_seconds,
    extract(epoch FROM finished_at - started_at) AS duration_seconds,
    node,
    result,
    error,
    logs,
    missed_from,
    missed_until,
    missed_count,
    requested_by,
    cancel_requested_at,
    cancel_requested_by,
    lost_lives
FROM runs;

---- create above / drop below ----

-- A view that loses columns is made anew.
DROP VIEW report_runs;
CREATE VIEW report_runs AS
SELECT
    id,
    scheduled_for,
    schedule_id,
    schedule_name,
    schedule_version,
    definition_version,
    task_name,
    category,
    tags,
    args,
    task_params,
    execution_policy,
    lock_key,
    trigger,
    backfill_id,
    state,
    reason,
    blocked_by,
    job_id,
    lives,
    execution,
    attempt,
    max_attempts,
    enqueued_at,
    started_at,
    finished_at,
    extract(epoch FROM started_at - scheduled_for) AS lateness_seconds,
    extract(epoch FROM finished_at - started_at) AS duration_seconds,
    node,
    result,
    error,
    logs,
    missed_from,
    missed_until,
    missed_count,
    requested_by
FROM runs;
DROP TRIGGER riverbeat_record_truncate ON river_job;
DROP FUNCTION delete_live_jobs();
ALTER TABLE runs DROP COLUMN cancel_requested_by;
