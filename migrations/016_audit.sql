-- The audit trail: who changed what. What is kept in a table is written down by
-- the table, so that a change in psql is in it as well; what people do to runs and
-- jobs is written by those who do it.

ALTER TABLE audit_log ADD COLUMN key_id text NOT NULL DEFAULT '';
COMMENT ON TABLE audit_log IS
    'Each change by people, written in its transaction; nobody changes or deletes a row.';
COMMENT ON COLUMN audit_log.actor IS
    'The name of the key that was shown, or role: and the database role where none was.';
COMMENT ON COLUMN audit_log.key_id IS 'The id of the key that was shown; empty: none was.';

-- Who acts, as the transaction was told (riverbeat.actor), or by whose login.
CREATE FUNCTION acting() RETURNS text LANGUAGE sql STABLE
    RETURN coalesce(nullif(current_setting('riverbeat.actor', true), ''), 'role:' || session_user);

-- Writes an entry for the transaction's actor. What changed nothing is no change.
CREATE FUNCTION audit(action text, object_type text, object_id text, before jsonb, after jsonb)
    RETURNS void LANGUAGE sql
    SET search_path FROM CURRENT
AS $$
    INSERT INTO audit_log (actor, key_id, address, request_id, action, object_type, object_id, before, after)
    SELECT
        acting(),
        coalesce(current_setting('riverbeat.key_id', true), ''),
        coalesce(current_setting('riverbeat.address', true), ''),
        coalesce(current_setting('riverbeat.request_id', true), ''),
        action, object_type, object_id, before, after
    WHERE before IS DISTINCT FROM after;
$$;

-- What is shown of a row: no digests of keys, and nothing that is computed from
-- the rest.
CREATE FUNCTION audited(line jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
    RETURN line - '{digest, words, tag_names, last_error, last_used_at, last_sweep_at}'::text[];

CREATE FUNCTION audit_new_schedules() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM audit('schedule.create', 'schedule', inserted.id::text, NULL, audited(to_jsonb(inserted)))
    FROM inserted;
    RETURN NULL;
END
$$;
CREATE TRIGGER schedules_audit_insert
    AFTER INSERT ON schedules
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION audit_new_schedules();

-- Its arguments: the type of object, and the column that names one.
CREATE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
DECLARE
    before jsonb := audited(to_jsonb(OLD));
    after jsonb := audited(to_jsonb(NEW));
    verb text := CASE TG_OP WHEN 'INSERT' THEN 'create' WHEN 'DELETE' THEN 'delete' ELSE 'change' END;
    told text[] := '{enabled, version, updated_at, expires_at, revoked_at, paused_at, paused_by, pause_reason}';
BEGIN
    IF TG_OP = 'UPDATE' AND before - told = after - told THEN
        verb := CASE
            WHEN before -> 'enabled' <> after -> 'enabled' THEN
                CASE WHEN (after ->> 'enabled')::boolean THEN 'enable' ELSE 'disable' END
            WHEN before -> 'revoked_at' <> after -> 'revoked_at' THEN 'revoke'
            WHEN before -> 'paused_at' <> after -> 'paused_at' THEN
                CASE WHEN after ->> 'paused_at' IS NULL THEN 'resume' ELSE 'pause' END
            ELSE verb
        END;
    END IF;
    PERFORM audit(
        TG_ARGV[0] || '.' || verb, TG_ARGV[0], coalesce(after, before) ->> TG_ARGV[1], before, after
    );
    RETURN NULL;
END
$$;
-- Not for last_error, which changes by ticks.
CREATE TRIGGER schedules_audit_update
    AFTER UPDATE OF
        name, task_name, cron_expression, timezone, enabled, args, kwargs, description,
        category, tags, execution_policy, auto_generated_name, catch_up, catch_up_window_s,
        max_waiting, starts_at, ends_at, managed_by
    ON schedules
    FOR EACH ROW EXECUTE FUNCTION audit_row('schedule', 'id');
CREATE TRIGGER schedules_audit_delete
    AFTER DELETE ON schedules
    FOR EACH ROW EXECUTE FUNCTION audit_row('schedule', 'id');
CREATE TRIGGER task_definitions_audit
    AFTER INSERT OR UPDATE OR DELETE ON task_definitions
    FOR EACH ROW EXECUTE FUNCTION audit_row('task_definition', 'task_name');
CREATE TRIGGER installation_audit
    AFTER UPDATE OF environment, system_identifier, database_oid, paused_at, pause_reason ON installation
    FOR EACH ROW EXECUTE FUNCTION audit_row('installation', 'environment');
CREATE TRIGGER api_keys_audit
    AFTER INSERT OR UPDATE OF name, role, digest, expires_at, revoked_at OR DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION audit_row('api_key', 'id');
CREATE TRIGGER feature_flags_audit
    AFTER INSERT OR UPDATE OR DELETE ON feature_flags
    FOR EACH ROW EXECUTE FUNCTION audit_row('feature_flag', 'name');

-- All of them are gone, and none is named.
CREATE FUNCTION audit_truncate() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM audit(TG_ARGV[0] || '.truncate', TG_ARGV[0], '*', '{}', NULL);
    RETURN NULL;
END
$$;
CREATE TRIGGER schedules_audit_truncate AFTER TRUNCATE ON schedules
    FOR EACH STATEMENT EXECUTE FUNCTION audit_truncate('schedule');
CREATE TRIGGER task_definitions_audit_truncate AFTER TRUNCATE ON task_definitions
    FOR EACH STATEMENT EXECUTE FUNCTION audit_truncate('task_definition');
CREATE TRIGGER api_keys_audit_truncate AFTER TRUNCATE ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION audit_truncate('api_key');
CREATE TRIGGER feature_flags_audit_truncate AFTER TRUNCATE ON feature_flags
    FOR EACH STATEMENT EXECUTE FUNCTION audit_truncate('feature_flag');

-- Also for those who own the table: it is append-only.
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_log_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

CREATE INDEX audit_log_action_idx ON audit_log (action, id);
CREATE INDEX audit_log_key_id_idx ON audit_log (key_id, id) WHERE key_id <> '';
CREATE INDEX api_keys_created_at_idx ON api_keys (created_at, id);

---- create above / drop below ----

DROP INDEX api_keys_created_at_idx;
DROP TRIGGER audit_log_append_only ON audit_log;
DROP FUNCTION refuse_audit_change();
DROP TRIGGER feature_flags_audit_truncate ON feature_flags;
DROP TRIGGER api_keys_audit_truncate ON api_keys;
DROP TRIGGER task_definitions_audit_truncate ON task_definitions;
DROP TRIGGER schedules_audit_truncate ON schedules;
DROP FUNCTION audit_truncate();
DROP TRIGGER feature_flags_audit ON feature_flags;
DROP TRIGGER api_keys_audit ON api_keys;
DROP TRIGGER installation_audit ON installation;
DROP TRIGGER task_definitions_audit ON task_definitions;
DROP TRIGGER schedules_audit_delete ON schedules;
DROP TRIGGER schedules_audit_update ON schedules;
DROP TRIGGER schedules_audit_insert ON schedules;
DROP FUNCTION audit_row();
DROP FUNCTION audit_new_schedules();
DROP FUNCTION audited(jsonb);
DROP FUNCTION audit(text, text, text, jsonb, jsonb);
DROP FUNCTION acting();
DROP INDEX audit_log_key_id_idx;
DROP INDEX audit_log_action_idx;
ALTER TABLE audit_log DROP COLUMN key_id;
