-- What can be run, and when.

CREATE TABLE installation (
    id boolean NOT NULL DEFAULT true,
    environment text NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid bigint NOT NULL,
    paused_at timestamptz,
    paused_by text,
    pause_reason text,
    last_sweep_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT installation_pkey PRIMARY KEY (id),
    CONSTRAINT installation_one_row CHECK (id)
);
COMMENT ON TABLE installation IS
    'One row: which cluster and database this is, and whether it is paused.';

CREATE TABLE task_definitions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    task_name varchar(255) NOT NULL,
    category varchar(50),
    description text NOT NULL DEFAULT '',
    -- json, not jsonb: the order of the properties is the author's, and names
    -- of schedules and forms follow it.
    parameter_schema json NOT NULL DEFAULT '{}',
    executor jsonb NOT NULL DEFAULT '{"kind": "go"}',
    queue varchar(64) NOT NULL DEFAULT 'default',
    priority smallint NOT NULL DEFAULT 1,
    max_attempts smallint NOT NULL DEFAULT 3,
    retry jsonb NOT NULL DEFAULT '{}',
    timeout_ms bigint NOT NULL DEFAULT 0,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT task_definitions_pkey PRIMARY KEY (id),
    CONSTRAINT task_definitions_task_name_key UNIQUE (task_name),
    CONSTRAINT task_definitions_task_name_given CHECK (task_name <> ''),
    CONSTRAINT task_definitions_priority_in_range CHECK (priority BETWEEN 1 AND 4),
    CONSTRAINT task_definitions_max_attempts_positive CHECK (max_attempts > 0),
    CONSTRAINT task_definitions_timeout_not_negative CHECK (timeout_ms >= 0),
    -- A row that nobody can read would stop every claim that meets it.
    CONSTRAINT task_definitions_executor_readable CHECK (
        jsonb_typeof(executor) = 'object'
        AND jsonb_typeof(executor -> 'kind') = 'string'
        AND coalesce(jsonb_typeof(executor -> 'name'), 'string') = 'string'
    ),
    CONSTRAINT task_definitions_retry_readable CHECK (
        jsonb_typeof(retry) = 'object'
        AND coalesce(retry ->> 'backoff_ms', '0') ~ '^[0-9]{1,12}$'
        AND coalesce(retry ->> 'max_backoff_ms', '0') ~ '^[0-9]{1,12}$'
    )
);
CREATE INDEX task_definitions_category_idx ON task_definitions (category);

-- The words of a name, for search by the beginnings of words.
CREATE FUNCTION schedule_words(name text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN to_tsvector('simple'::regconfig, regexp_replace(name, '[^[:alnum:]]+', ' ', 'g'));

-- Tags as an array: Postgres knows how frequent its elements are, and nothing
-- of the elements of jsonb.
CREATE FUNCTION schedule_tag_names(tags jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT coalesce(array_agg(tag), '{}') FROM jsonb_array_elements_text(tags) AS tag);

CREATE TABLE schedules (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name varchar(255) NOT NULL,
    task_name varchar(255) NOT NULL,
    cron_expression text NOT NULL,
    timezone text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    args jsonb NOT NULL DEFAULT '[]',
    kwargs jsonb NOT NULL DEFAULT '{}',
    description text NOT NULL DEFAULT '',
    category varchar(50),
    tags jsonb NOT NULL DEFAULT '[]',
    execution_policy varchar(20) NOT NULL DEFAULT 'allow',
    auto_generated_name boolean NOT NULL DEFAULT false,
    catch_up varchar(20) NOT NULL DEFAULT 'latest',
    catch_up_window_s integer NOT NULL DEFAULT 3600,
    max_waiting integer NOT NULL DEFAULT 100,
    starts_at timestamptz,
    ends_at timestamptz,
    managed_by text NOT NULL DEFAULT '',
    version integer NOT NULL DEFAULT 1,
    last_error text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    words tsvector NOT NULL GENERATED ALWAYS AS (schedule_words(name)) STORED,
    tag_names text[] NOT NULL GENERATED ALWAYS AS (schedule_tag_names(tags)) STORED,
    CONSTRAINT schedules_pkey PRIMARY KEY (id),
    CONSTRAINT schedules_name_given CHECK (name <> ''),
    CONSTRAINT schedules_task_name_given CHECK (task_name <> ''),
    CONSTRAINT schedules_args_is_array CHECK (jsonb_typeof(args) = 'array'),
    CONSTRAINT schedules_kwargs_is_object CHECK (jsonb_typeof(kwargs) = 'object'),
    CONSTRAINT schedules_tags_is_array CHECK (jsonb_typeof(tags) = 'array'),
    CONSTRAINT schedules_tags_are_strings CHECK (
        NOT jsonb_path_exists(tags, 'strict $[*] ? (@.type() != "string")')
    ),
    CONSTRAINT schedules_execution_policy_known CHECK (execution_policy IN ('allow', 'skip', 'queue')),
    CONSTRAINT schedules_catch_up_known CHECK (catch_up IN ('latest', 'all', 'none')),
    CONSTRAINT schedules_catch_up_window_not_negative CHECK (catch_up_window_s >= 0),
    CONSTRAINT schedules_max_waiting_positive CHECK (max_waiting > 0),
    CONSTRAINT schedules_starts_before_ends CHECK (starts_at < ends_at)
);
-- Each list order ends in id, so that pages have one order; each filter comes
-- with the default order.
CREATE INDEX schedules_created_at_idx ON schedules (created_at, id);
CREATE INDEX schedules_name_idx ON schedules (name, id);
CREATE INDEX schedules_task_name_idx ON schedules (task_name, created_at, id);
CREATE INDEX schedules_enabled_idx ON schedules (enabled, created_at, id);
CREATE INDEX schedules_category_idx ON schedules (category, created_at, id);
CREATE INDEX schedules_tags_idx ON schedules USING gin (tag_names);
CREATE INDEX schedules_words_idx ON schedules USING gin (words);
CREATE INDEX schedules_last_error_idx ON schedules (id) WHERE last_error <> '';
CREATE INDEX schedules_recurrence_idx ON schedules (cron_expression, timezone) WHERE enabled;

-- The only table that a tick updates, so it is narrow and has one index on
-- what changes.
CREATE TABLE schedule_clocks (
    schedule_id uuid NOT NULL,
    next_run_at timestamptz,
    last_scheduled_for timestamptz NOT NULL,
    retry_at timestamptz,
    due_at timestamptz NOT NULL GENERATED ALWAYS AS (coalesce(next_run_at, 'infinity')) STORED,
    CONSTRAINT schedule_clocks_pkey PRIMARY KEY (schedule_id),
    CONSTRAINT schedule_clocks_schedule_id_fkey FOREIGN KEY (schedule_id)
        REFERENCES schedules (id) ON DELETE CASCADE,
    CONSTRAINT schedule_clocks_after_mark CHECK (next_run_at > last_scheduled_for),
    CONSTRAINT schedule_clocks_stopped CHECK (next_run_at IS NULL OR retry_at IS NULL)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX schedule_clocks_due_idx ON schedule_clocks (due_at, schedule_id);
CREATE INDEX schedule_clocks_retry_at_idx ON schedule_clocks (retry_at)
    WHERE retry_at IS NOT NULL;
COMMENT ON COLUMN schedule_clocks.next_run_at IS 'The next tick; null: not ticking.';
COMMENT ON COLUMN schedule_clocks.due_at IS
    'next_run_at without null, so that one index serves the claim and the list by next run.';
COMMENT ON COLUMN schedule_clocks.last_scheduled_for IS
    'The mark: no tick at or before it is ever decided again.';
COMMENT ON COLUMN schedule_clocks.retry_at IS
    'When a schedule that could not be planned is tried again.';

-- Nodes keep their alarms in step with the recurrences of enabled schedules.
CREATE FUNCTION announce_schedules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '.schedules', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER schedules_announce
    AFTER INSERT OR DELETE OR UPDATE OF cron_expression, timezone, enabled ON schedules
    FOR EACH STATEMENT EXECUTE FUNCTION announce_schedules();

---- create above / drop below ----

DROP TABLE schedule_clocks;
DROP TABLE schedules;
DROP FUNCTION schedule_words(text);
DROP FUNCTION schedule_tag_names(jsonb);
DROP TABLE task_definitions;
DROP TABLE installation;
DROP FUNCTION announce_schedules();
