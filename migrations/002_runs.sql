-- What became of ticks and requests. Partitioned by week of scheduled_for.

CREATE TABLE backfills (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    schedule_id uuid,
    schedule_name text NOT NULL,
    from_time timestamptz NOT NULL,
    until_time timestamptz NOT NULL,
    execution_policy varchar(20),
    only_missing boolean NOT NULL DEFAULT false,
    state text NOT NULL DEFAULT 'running',
    decided_until timestamptz,
    total integer NOT NULL,
    decided integer NOT NULL DEFAULT 0,
    requested_by text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    finished_at timestamptz,
    CONSTRAINT backfills_pkey PRIMARY KEY (id),
    CONSTRAINT backfills_state_known CHECK (state IN ('running', 'finished', 'cancelled')),
    CONSTRAINT backfills_execution_policy_known CHECK (execution_policy IN ('allow', 'skip', 'queue')),
    CONSTRAINT backfills_from_before_until CHECK (from_time <= until_time)
);
CREATE INDEX backfills_schedule_id_idx ON backfills (schedule_id, created_at);
CREATE INDEX backfills_running_idx ON backfills (created_at) WHERE state = 'running';

CREATE TABLE runs (
    id uuid NOT NULL,
    scheduled_for timestamptz NOT NULL,
    schedule_id uuid,
    schedule_name varchar(255) NOT NULL,
    schedule_version integer NOT NULL DEFAULT 0,
    definition_version integer NOT NULL DEFAULT 0,
    task_name varchar(255) NOT NULL,
    category varchar(50),
    tags jsonb NOT NULL DEFAULT '[]',
    args jsonb NOT NULL DEFAULT '[]',
    task_params jsonb NOT NULL DEFAULT '{}',
    lock_key text,
    execution_policy varchar(20) NOT NULL,
    trigger varchar(20) NOT NULL,
    backfill_id uuid,
    state varchar(20) NOT NULL,
    reason varchar(30),
    blocked_by uuid,
    -- Place in the line of the lock key: 0 for ticks and requests, 1 for
    -- backfills; null when not in it. A column of its own, so that the other
    -- changes of a run touch no index.
    line_rank smallint,
    job_id bigint,
    lives smallint NOT NULL DEFAULT 0,
    execution integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL DEFAULT 1,
    enqueued_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    cancel_requested_at timestamptz,
    node text,
    result jsonb,
    error text,
    logs jsonb,
    missed_from timestamptz,
    missed_until timestamptz,
    missed_count integer,
    requested_by text,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT runs_pkey PRIMARY KEY (scheduled_for, id),
    CONSTRAINT runs_state_known CHECK (state IN ('waiting', 'queued', 'running', 'retrying',
        'succeeded', 'failed', 'cancelled', 'skipped', 'missed')),
    CONSTRAINT runs_trigger_known CHECK (trigger IN ('schedule', 'catch_up', 'manual', 'backfill')),
    CONSTRAINT runs_execution_policy_known CHECK (execution_policy IN ('allow', 'skip', 'queue')),
    CONSTRAINT runs_line_is_waiting CHECK ((line_rank IS NOT NULL) = (state = 'waiting')),
    CONSTRAINT runs_scheduled_for_milliseconds CHECK
        (scheduled_for = date_trunc('milliseconds', scheduled_for, 'UTC')),
    CONSTRAINT runs_gap CHECK ((state = 'missed') = (missed_from IS NOT NULL AND missed_until IS NOT NULL))
) PARTITION BY RANGE (scheduled_for);

-- Indexes by column order of their use: unique ticks, unique backfilled ticks,
-- the runs of a schedule and of a task (newest first), the line of a key.
-- A change of state touches none of them, so it is a HOT update.
CREATE UNIQUE INDEX runs_tick_key ON runs (schedule_id, scheduled_for)
    WHERE trigger IN ('schedule', 'catch_up');
CREATE UNIQUE INDEX runs_backfill_key ON runs (backfill_id, schedule_id, scheduled_for)
    WHERE backfill_id IS NOT NULL;
CREATE INDEX runs_schedule_idx ON runs (schedule_id, scheduled_for, id);
CREATE INDEX runs_task_idx ON runs (task_name, scheduled_for, id);
CREATE INDEX runs_line_idx ON runs (lock_key, line_rank, scheduled_for, id)
    WHERE line_rank IS NOT NULL;

COMMENT ON TABLE runs IS
    'What became of each tick and request; a row with state missed stands for a gap of ticks.';
COMMENT ON COLUMN runs.id IS 'UUIDv7; its 48 bits of time are scheduled_for in milliseconds.';
COMMENT ON COLUMN runs.execution IS 'Starts, over attempts, snoozes and lives: a fencing token.';
COMMENT ON COLUMN runs.attempt IS 'Tries, of all lives together.';
COMMENT ON COLUMN runs.lives IS 'Jobs that were lost with their node.';

-- The Monday 00:00 UTC of the week of a time.
CREATE FUNCTION runs_week(at timestamptz) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_trunc('week', at, 'UTC');

-- Makes the partition of a week if there is none. Made beside runs and then
-- attached: CREATE TABLE … PARTITION OF would wait for every open reader.
-- Index names follow a rule, because a violation names the partition's index.
CREATE FUNCTION create_runs_partition(at timestamptz) RETURNS boolean
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
        ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05,
            autovacuum_analyze_scale_factor = 0.02)',
        child, child || '_pkey');
    EXECUTE format(
        'CREATE UNIQUE INDEX %I ON %I (schedule_id, scheduled_for)
            WHERE trigger IN (''schedule'', ''catch_up'')',
        child || '_tick_key', child);
    EXECUTE format(
        'CREATE UNIQUE INDEX %I ON %I (backfill_id, schedule_id, scheduled_for)
            WHERE backfill_id IS NOT NULL',
        child || '_backfill_key', child);
    EXECUTE format(
        'CREATE INDEX %I ON %I (schedule_id, scheduled_for, id)', child || '_schedule_idx', child);
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

DROP TABLE runs;
DROP TABLE backfills;
DROP FUNCTION create_runs_partition(timestamptz);
DROP FUNCTION runs_week(timestamptz);
