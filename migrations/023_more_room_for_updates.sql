-- The end of a run with a result and log lines is a longer row, so the room for one new
-- version of every row of a page (012) was too small for what is due at once: a quarter to
-- a third of the updates wrote all indexes again. With room for two versions of each, one
-- in fifteen does, and after a burst the table is smaller, too (postgres/DESIGN.md).
CREATE OR REPLACE FUNCTION create_runs_partition(at timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    week timestamptz := runs_week(at);
    child text := 'runs_p' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.create_runs_partition', 0));
    IF EXISTS (
        SELECT FROM pg_inherits
        WHERE inhparent = 'runs'::regclass AND inhrelid = to_regclass(child)
    ) THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I (
            LIKE runs INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS,
            CONSTRAINT %I PRIMARY KEY (scheduled_for, id)
        ) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0.05,
            autovacuum_analyze_scale_factor = 0.02)',
        child, child || '_pkey');
    EXECUTE format(
        'CREATE UNIQUE INDEX %I ON %I (schedule_id, scheduled_for, slot)', child || '_tick_key', child);
    EXECUTE format(
        'CREATE INDEX %I ON %I (task_name, scheduled_for, id)', child || '_task_idx', child);
    EXECUTE format(
        'CREATE INDEX %I ON %I (lock_key, line_rank, scheduled_for, id)
            WHERE line_rank IS NOT NULL',
        child || '_line_idx', child);
    EXECUTE format(
        'ALTER TABLE runs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        child, week, runs_week(week + interval '8 days'));
    RETURN true;
END
$$;

DO $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'runs'::regclass LOOP
        EXECUTE format('ALTER TABLE %s SET (fillfactor = 30)', partition);
    END LOOP;
END
$$;

---- create above / drop below ----

-- The room is left as it is: a setting of storage, no change of data.
SELECT;
