-- A node that was not answered reports the end of an attempt again, and by then
-- the job may be worked by somebody else, or by the next attempt: River's report
-- names neither (job id and state running are all that it looks at). A node says
-- who it is (riverbeat.node); then only the report of the attempt that is under
-- way ends it. Whoever is no node (psql, River UI of another program) may.

CREATE FUNCTION refuse_report() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL; -- River takes it for a job whose state was changed meanwhile
END
$$;
CREATE TRIGGER riverbeat_refuse_report
    BEFORE UPDATE ON river_job
    FOR EACH ROW
    WHEN (
        OLD.state = 'running'
        AND NEW.state <> 'running'
        AND OLD.kind = 'run'
        AND current_setting('riverbeat.node', true) <> ''
        AND (
            current_setting('riverbeat.node', true) <> OLD.attempted_by[cardinality(OLD.attempted_by)]
            OR (
                cardinality(NEW.errors) > coalesce(cardinality(OLD.errors), 0)
                AND NEW.errors[cardinality(NEW.errors)] ->> 'attempt' <> OLD.attempt::text
            )
        )
    )
    EXECUTE FUNCTION refuse_report();

---- create above / drop below ----

DROP TRIGGER riverbeat_refuse_report ON river_job;
DROP FUNCTION refuse_report();
