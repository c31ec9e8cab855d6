-- A backfill knows which ticks it is about, whatever becomes of the schedule, and
-- why it ended.

ALTER TABLE backfills
    ADD COLUMN cron_expression text NOT NULL DEFAULT '',
    ADD COLUMN timezone text NOT NULL DEFAULT '',
    ADD COLUMN left_out integer NOT NULL DEFAULT 0,
    ADD COLUMN ended_until timestamptz,
    ADD COLUMN reason text,
    ADD COLUMN last_error text NOT NULL DEFAULT '';
COMMENT ON COLUMN backfills.from_time IS 'Ticks at it or after.';
COMMENT ON COLUMN backfills.until_time IS 'Ticks before it.';
COMMENT ON COLUMN backfills.decided_until IS 'The mark: no tick at or before it is decided again.';
COMMENT ON COLUMN backfills.ended_until IS
    'All its runs at or before it have ended; so that not all of them are looked at again and again.';
COMMENT ON COLUMN backfills.decided IS 'Ticks that have become runs.';
COMMENT ON COLUMN backfills.left_out IS 'Ticks that had run already, of those with only_missing.';
CREATE INDEX backfills_created_at_idx ON backfills (created_at, id);

---- create above / drop below ----

DROP INDEX backfills_created_at_idx;
ALTER TABLE backfills
    DROP COLUMN cron_expression,
    DROP COLUMN timezone,
    DROP COLUMN left_out,
    DROP COLUMN ended_until,
    DROP COLUMN reason,
    DROP COLUMN last_error;
