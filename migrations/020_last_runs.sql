-- The newest nominal time of each schedule that became a run. A function, for its
-- plan is made once per session: with a partition for each week of years, planning
-- takes several times as long as looking. Without statistics of today that plan must
-- not read whole partitions.

CREATE FUNCTION last_runs(ids uuid[]) RETURNS TABLE (schedule_id uuid, scheduled_for timestamptz)
    LANGUAGE plpgsql STABLE
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    SET enable_bitmapscan = off
AS $$
BEGIN
    RETURN QUERY
    SELECT asked.id, newest.at
    FROM unnest(ids) AS asked (id)
    CROSS JOIN LATERAL (
        SELECT r.scheduled_for AS at
        FROM runs AS r
        WHERE r.schedule_id = asked.id AND r.state NOT IN ('missed', 'skipped')
        ORDER BY r.scheduled_for DESC
        LIMIT 1
    ) AS newest;
END
$$;

---- create above / drop below ----

DROP FUNCTION last_runs(uuid[]);
