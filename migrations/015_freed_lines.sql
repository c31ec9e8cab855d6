-- Those who waited before 014, which holds a strong lock and so does no more
-- than that. Who leaves his line at this moment is looked at again.
INSERT INTO lines (lock_key, line_rank, scheduled_for, run_id, trigger)
SELECT lock_key, line_rank, scheduled_for, id, trigger
FROM runs_without_line
FOR SHARE
ON CONFLICT ON CONSTRAINT lines_pkey DO NOTHING;

-- The look at a key's line is a scalar, so that it stays a look per key. As a
-- join, planned while nobody waited, it might read all of lines.
CREATE OR REPLACE FUNCTION announce_freed(keys text[]) RETURNS void LANGUAGE plpgsql
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    SET enable_bitmapscan = off
    SET jit = off
AS $$
BEGIN
    PERFORM pg_notify(current_schema() || '.lines', key)
    FROM unnest(keys) AS key
    WHERE key IS DISTINCT FROM current_setting('riverbeat.promotes', true)
        AND (SELECT true FROM lines WHERE lock_key = key LIMIT 1);
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
