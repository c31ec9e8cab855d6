-- By slots, as schedule_runs (022): a plan of a moment in which a week had the runs of one
-- schedule only would look for those of all others by the primary key, and read them all.
CREATE OR REPLACE FUNCTION last_runs(ids uuid[]) RETURNS TABLE (schedule_id uuid, scheduled_for timestamptz)
    LANGUAGE plpgsql STABLE
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    SET enable_bitmapscan = off
    SET enable_sort = off
    SET enable_incremental_sort = off
AS $$
BEGIN
    RETURN QUERY
    SELECT asked.id, newest.at
    FROM unnest(ids) AS asked (id)
    CROSS JOIN LATERAL (
        SELECT r.scheduled_for AS at
        FROM runs AS r
        WHERE r.schedule_id = asked.id AND r.state NOT IN ('missed', 'skipped')
        ORDER BY r.scheduled_for DESC, r.slot DESC
        LIMIT 1
    ) AS newest;
END
$$;

---- create above / drop below ----

-- The function is left: it answers what it answered before.
SELECT;
