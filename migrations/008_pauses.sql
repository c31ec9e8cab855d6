-- When the installation was paused, and why: a history that explains gaps.

CREATE TABLE pauses (
    id bigint GENERATED ALWAYS AS IDENTITY,
    paused_at timestamptz NOT NULL,
    paused_by text,
    reason text,
    resumed_at timestamptz,
    resumed_by text,
    CONSTRAINT pauses_pkey PRIMARY KEY (id),
    CONSTRAINT pauses_end_after_start CHECK (paused_at <= resumed_at)
);
CREATE INDEX pauses_paused_at_idx ON pauses (paused_at);
-- There is one installation, and it is paused once.
CREATE UNIQUE INDEX pauses_open_key ON pauses ((true)) WHERE resumed_at IS NULL;
COMMENT ON TABLE pauses IS
    'Each pause of the installation, kept by a trigger; resumed_at is null while it lasts.';

-- A trigger, so that a pause made in psql is in the history as well. Who
-- resumes is told by riverbeat.actor; the row does not say it any more.
CREATE FUNCTION record_pause() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT
AS $$
BEGIN
    IF NEW.paused_at IS NULL THEN
        UPDATE pauses
        SET resumed_at = greatest(statement_timestamp(), paused_at),
            resumed_by = nullif(current_setting('riverbeat.actor', true), '')
        WHERE resumed_at IS NULL;
        RETURN NULL;
    END IF;
    UPDATE pauses
    SET paused_at = NEW.paused_at, paused_by = NEW.paused_by, reason = NEW.pause_reason
    WHERE resumed_at IS NULL;
    IF NOT FOUND THEN
        INSERT INTO pauses (paused_at, paused_by, reason)
        VALUES (NEW.paused_at, NEW.paused_by, NEW.pause_reason);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER installation_record_pause
    AFTER UPDATE OF paused_at, paused_by, pause_reason ON installation
    FOR EACH ROW
    WHEN (
        (OLD.paused_at, OLD.paused_by, OLD.pause_reason)
        IS DISTINCT FROM (NEW.paused_at, NEW.paused_by, NEW.pause_reason)
    )
    EXECUTE FUNCTION record_pause();

INSERT INTO pauses (paused_at, paused_by, reason)
SELECT paused_at, paused_by, pause_reason
FROM installation
WHERE paused_at IS NOT NULL;

CREATE VIEW report_pauses AS
SELECT
    paused_at,
    paused_by,
    reason,
    resumed_at,
    resumed_by,
    extract(epoch FROM coalesce(resumed_at, statement_timestamp()) - paused_at) AS duration_seconds
FROM pauses;

---- create above / drop below ----

DROP VIEW report_pauses;
DROP TRIGGER installation_record_pause ON installation;
DROP FUNCTION record_pause();
DROP TABLE pauses;
