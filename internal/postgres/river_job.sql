-- What of River's schema (river_job, River v0.51) our migrations and queries
-- name. For sqlc only; River's own migrations make the real table.
CREATE TYPE river_job_state AS ENUM (
    'available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled'
);
CREATE TABLE river_job (
    id bigserial PRIMARY KEY,
    args jsonb NOT NULL,
    attempt smallint NOT NULL,
    attempted_at timestamptz,
    attempted_by text[],
    created_at timestamptz NOT NULL,
    errors jsonb[],
    finalized_at timestamptz,
    kind text NOT NULL,
    max_attempts smallint NOT NULL,
    metadata jsonb NOT NULL,
    priority smallint NOT NULL,
    queue text NOT NULL,
    state river_job_state NOT NULL,
    scheduled_at timestamptz NOT NULL,
    tags varchar(255)[] NOT NULL,
    unique_key bytea,
    unique_states bit(8)
);
CREATE INDEX river_job_args_index ON river_job USING gin (args);
CREATE INDEX river_job_metadata_index ON river_job USING gin (metadata);
