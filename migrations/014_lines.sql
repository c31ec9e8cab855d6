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

-- Who waits and is in no line, because triggers were off or a partition was away
-- for a while: nobody promotes him.
CREATE VIEW runs_without_line AS
SELECT r.id, r.scheduled_for, r.schedule_name, r.lock_key, r.line_rank, r.trigger
FROM runs AS r
WHERE r.line_rank IS NOT NULL
    AND r.lock_key IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM lines AS l
        WHERE l.lock_key = r.lock_key
            AND l.line_rank = r.line_rank
            AND l.scheduled_for = r.scheduled_for
            AND l.run_id = r.id
    );

-- Whoever makes a run wait or ends its waiting has it written down here. A row
-- may be there already, left behind when nobody wrote.
CREATE FUNCTION record_line() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM lines;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM lines
        WHERE lock_key = OLD.lock_key
            AND line_rank = OLD.line_rank
            AND scheduled_for = OLD.scheduled_for
            AND run_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.line_rank IS NOT NULL AND NEW.lock_key IS NOT NULL THEN
        INSERT INTO lines (lock_key, line_rank, scheduled_for, run_id, trigger)
        VALUES (NEW.lock_key, NEW.line_rank, NEW.scheduled_for, NEW.id, NEW.trigger)
        ON CONFLICT ON CONSTRAINT lines_pkey DO UPDATE SET trigger = excluded.trigger;
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
CREATE TRIGGER riverbeat_record_line_truncate
    AFTER TRUNCATE ON runs
    FOR EACH STATEMENT
    EXECUTE FUNCTION record_line();

---- create above / drop below ----

DROP TRIGGER riverbeat_record_line_truncate ON runs;
DROP TRIGGER riverbeat_record_line_delete ON runs;
DROP TRIGGER riverbeat_record_line_update ON runs;
DROP TRIGGER riverbeat_record_line_insert ON runs;
DROP FUNCTION record_line();
DROP VIEW runs_without_line;
DROP TABLE lines;
