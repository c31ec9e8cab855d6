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

-- Domains, not CHECKs: a CHECK of the table is read anew for each statement
-- that updates it, and the history trigger is one statement per run.
CREATE DOMAIN run_state AS varchar(20) CONSTRAINT run_state_known CHECK (VALUE IN (
    'waiting', 'queued', 'running', 'retrying',
    'succeeded', 'failed', 'cancelled', 'skipped', 'missed'
));
CREATE DOMAIN run_trigger AS varchar(20) CONSTRAINT run_trigger_known
    CHECK (VALUE IN ('schedule', 'catch_up', 'manual', 'backfill'));
CREATE DOMAIN run_policy AS varchar(20) CONSTRAINT run_policy_known
    CHECK (VALUE IN ('allow', 'skip', 'queue'));

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
    execution_policy run_policy NOT NULL,
    trigger run_trigger NOT NULL,
    backfill_id uuid,
    -- Of what there may be one per schedule and time: nil for ticks, the
    -- backfill for its runs, the run itself for requests. Not generated, as
    -- that is computed at each update.
    slot uuid NOT NULL,
    state run_state NOT NULL,
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
    CONSTRAINT runs_line_is_waiting CHECK ((line_rank IS NOT NULL) = (state = 'waiting'))
) PARTITION BY RANGE (scheduled_for);

-- Ticks are unique, and so are those of a backfill; the same index has the
-- runs of a schedule, newest first. Then those of a task, and the line of a
-- key. A change of state touches no index, so it is a HOT update.
CREATE UNIQUE INDEX runs_tick_key ON runs (schedule_id, scheduled_for, slot);
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

DROP TABLE runs;
DROP TABLE backfills;
DROP FUNCTION create_runs_partition(timestamptz);
DROP FUNCTION runs_week(timestamptz);
DROP DOMAIN run_state;
DROP DOMAIN run_trigger;
DROP DOMAIN run_policy;
