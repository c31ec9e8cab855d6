-- The lines of the lock keys, a row for each run that waits. They can be found
-- in runs, too, but only by looking into each of its partitions, since those who
-- wait may be of any time: with a year of history that took longer than all else
-- of a run's end, and again for each key of a claim (postgres/DESIGN.md).
CREATE TABLE lines (
    lock_key text NOT NULL,
    line_rank smallint NOT NULL,
    scheduled_for timestamptz NOT NULL,
    run_id uuid NOT NULL,
    trigger run_trigger NOT NULL,
    CONSTRAINT lines_pkey PRIMARY KEY (lock_key, line_rank, scheduled_for, run_id)
);

-- Whoever makes a run wait or ends its waiting has it written down here.
CREATE FUNCTION record_line() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM lines
        WHERE lock_key = OLD.lock_key
            AND line_rank = OLD.line_rank
            AND scheduled_for = OLD.scheduled_for
            AND run_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.line_rank IS NOT NULL AND NEW.lock_key IS NOT NULL THEN
        INSERT INTO lines (lock_key, line_rank, scheduled_for, run_id, trigger)
        VALUES (NEW.lock_key, NEW.line_rank, NEW.scheduled_for, NEW.id, NEW.trigger);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER riverbeat_record_line_insert
    AFTER INSERT ON runs
    FOR EACH ROW
    WHEN (NEW.line_rank IS NOT NULL)
    EXECUTE FUNCTION record_line();
-- A list of columns: the start and the end of a run name none of them.
CREATE TRIGGER riverbeat_record_line_update
    AFTER UPDATE OF line_rank, lock_key, scheduled_for, id, trigger ON runs
    FOR EACH ROW
    WHEN (OLD.line_rank IS NOT NULL OR NEW.line_rank IS NOT NULL)
    EXECUTE FUNCTION record_line();
CREATE TRIGGER riverbeat_record_line_delete
    AFTER DELETE ON runs
    FOR EACH ROW
    WHEN (OLD.line_rank IS NOT NULL)
    EXECUTE FUNCTION record_line();

CREATE FUNCTION forget_lines() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    TRUNCATE lines;
    RETURN NULL;
END
$$;
CREATE TRIGGER riverbeat_record_line_truncate
    AFTER TRUNCATE ON runs
    FOR EACH STATEMENT
    EXECUTE FUNCTION forget_lines();

-- The triggers keep everyone else out until this transaction ends.
INSERT INTO lines (lock_key, line_rank, scheduled_for, run_id, trigger)
SELECT lock_key, line_rank, scheduled_for, id, trigger
FROM runs
WHERE line_rank IS NOT NULL AND lock_key IS NOT NULL;

CREATE OR REPLACE FUNCTION announce_freed(keys text[]) RETURNS void LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET jit = off
AS $$
BEGIN
    PERFORM pg_notify(current_schema() || '.lines', key)
    FROM unnest(keys) AS key
    WHERE key IS DISTINCT FROM current_setting('riverbeat.promotes', true)
        AND EXISTS (SELECT FROM lines WHERE lock_key = key);
END
$$;

---- create above / drop below ----

CREATE OR REPLACE FUNCTION announce_freed(keys text[]) RETURNS void LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
AS $$
BEGIN
    PERFORM pg_notify(current_schema() || '.lines', key)
    FROM unnest(keys) AS key
    WHERE key IS DISTINCT FROM current_setting('riverbeat.promotes', true)
        AND EXISTS (SELECT FROM runs WHERE lock_key = key AND line_rank IS NOT NULL);
END
$$;
DROP TRIGGER riverbeat_record_line_truncate ON runs;
DROP TRIGGER riverbeat_record_line_delete ON runs;
DROP TRIGGER riverbeat_record_line_update ON runs;
DROP TRIGGER riverbeat_record_line_insert ON runs;
DROP FUNCTION forget_lines();
DROP FUNCTION record_line();
DROP TABLE lines;
