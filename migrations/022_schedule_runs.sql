-- A page of the runs of one schedule, which may lie in any weeks. A function, as
-- last_runs (020), for its plan is made once per session: planning for a partition of
-- each week of a year takes five times as long as reading the page. It has the first max
-- runs in the order of the list, newest first, of a time from since on and before a place
-- in that order; and those of the same time as the last. They are read by slots, in which
-- only the index that begins with the schedule has them: by ids or by the time alone the
-- primary key has them as well, and a plan of a moment in which there were few runs, or
-- those of one schedule only, would read the runs of all.

CREATE FUNCTION schedule_runs(of_schedule uuid, since timestamptz, before_time timestamptz, before_id uuid, max int)
    RETURNS SETOF runs
    LANGUAGE plpgsql STABLE
    SET search_path FROM CURRENT
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off
    SET enable_bitmapscan = off
    SET enable_sort = off
    SET enable_incremental_sort = off
    SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT ordered.*
    FROM (
        SELECT r.*
        FROM runs AS r
        WHERE r.schedule_id = of_schedule
            AND r.scheduled_for >= since
            AND r.scheduled_for <= before_time
            AND NOT (r.scheduled_for = before_time AND r.id >= before_id)
        ORDER BY r.scheduled_for DESC, r.slot DESC
    ) AS ordered
    ORDER BY ordered.scheduled_for DESC
    FETCH FIRST max ROWS WITH TIES;
END
$$;

---- create above / drop below ----

DROP FUNCTION schedule_runs(uuid, timestamptz, timestamptz, uuid, int);
