-- Nodes, keys, sessions, the audit trail and flags.

CREATE TABLE nodes (
    id uuid NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    host text NOT NULL DEFAULT '',
    version text NOT NULL,
    tzdata_version text NOT NULL DEFAULT '',
    tasks jsonb NOT NULL DEFAULT '[]',
    queues jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT nodes_pkey PRIMARY KEY (id)
) WITH (fillfactor = 50);

CREATE TABLE api_keys (
    id text NOT NULL,
    name text NOT NULL,
    role varchar(20) NOT NULL,
    digest bytea NOT NULL,
    created_by text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    rotated_from text,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_digest_key UNIQUE (digest),
    CONSTRAINT api_keys_role_known CHECK (role IN ('viewer', 'operator', 'editor', 'admin')),
    CONSTRAINT api_keys_rotated_from_fkey FOREIGN KEY (rotated_from) REFERENCES api_keys (id)
);

CREATE TABLE sessions (
    digest bytea NOT NULL,
    api_key_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    last_used_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (digest),
    CONSTRAINT sessions_api_key_id_fkey FOREIGN KEY (api_key_id)
        REFERENCES api_keys (id) ON DELETE CASCADE
);
CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    address text NOT NULL DEFAULT '',
    request_id text NOT NULL DEFAULT '',
    action text NOT NULL,
    object_type text NOT NULL,
    object_id text NOT NULL,
    before jsonb,
    after jsonb,
    CONSTRAINT audit_log_pkey PRIMARY KEY (id)
);
CREATE INDEX audit_log_object_idx ON audit_log (object_type, object_id, id);
CREATE INDEX audit_log_actor_idx ON audit_log (actor, id);
CREATE INDEX audit_log_at_idx ON audit_log (at, id);

CREATE TABLE idempotency_keys (
    actor text NOT NULL,
    key text NOT NULL,
    request_digest bytea NOT NULL,
    status smallint,
    response json,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);

CREATE TABLE feature_flags (
    name text NOT NULL,
    percent smallint NOT NULL,
    updated_by text NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT feature_flags_pkey PRIMARY KEY (name),
    CONSTRAINT feature_flags_percent_in_range CHECK (percent BETWEEN 0 AND 100)
);

---- create above / drop below ----

DROP TABLE feature_flags;
DROP TABLE idempotency_keys;
DROP TABLE audit_log;
DROP TABLE sessions;
DROP TABLE api_keys;
DROP TABLE nodes;
