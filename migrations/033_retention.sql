-- Runs are kept for a time, and then dropped by the week; how, and why so, is in
-- postgres/DESIGN.md.

-- How long the node wants runs to be kept; 0 is for ever, null what one of the version
-- before has to say. The longest counts.
ALTER TABLE nodes ADD COLUMN runs_kept_s bigint;

-- The trigger of a week that is sealed, because all its runs have ended and it is about to
-- be dropped: nothing begins there any more. Who goes on there all the same may.
CREATE FUNCTION refuse_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ended CONSTANT text[] := '{succeeded, failed, cancelled, skipped, missed}';
BEGIN
    IF TG_OP = 'INSERT' OR (OLD.state = ANY (ended) AND NEW.state <> ALL (ended)) THEN
        RAISE EXCEPTION 'nothing begins in % any more, which is about to be dropped', TG_TABLE_NAME
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_sealed';
    END IF;
    RETURN NEW;
END
$$;

-- Beside what it was (012): the partition of a week may be on its way out.
CREATE OR REPLACE FUNCTION create_runs_partition(at timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    week timestamptz := runs_week(at);
    child text := 'runs_p' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.create_runs_partition', 0));
    IF EXISTS (
        SELECT FROM pg_inherits
        WHERE inhparent = 'runs'::regclass AND inhrelid = to_regclass(child) AND NOT inhdetachpending
    ) THEN
        RETURN false;
    END IF;
    IF to_regclass(child) IS NOT NULL THEN
        RAISE EXCEPTION '% is detached', child
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_sealed';
    END IF;
    EXECUTE format(
        'CREATE TABLE %I (
            LIKE runs INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS,
            CONSTRAINT %I PRIMARY KEY (scheduled_for, id)
        ) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.05,
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

---- create above / drop below ----

DROP FUNCTION refuse_run() CASCADE; -- of weeks that are sealed, too
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
        ) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.05,
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
ALTER TABLE nodes DROP COLUMN runs_kept_s;
