-- The reporting views: a stable API for analysts. Columns are only added.

CREATE VIEW report_runs AS
SELECT
    id,
    scheduled_for,
    schedule_id,
    schedule_name,
    schedule_version,
    definition_version,
    task_name,
    category,
    tags,
    args,
    task_params,
    execution_policy,
    lock_key,
    trigger,
    backfill_id,
    state,
    reason,
    blocked_by,
    job_id,
    lives,
    execution,
    attempt,
    max_attempts,
    enqueued_at,
    started_at,
    finished_at,
    extract(epoch FROM started_at - scheduled_for) AS lateness_seconds,
    extract(epoch FROM finished_at - started_at) AS duration_seconds,
    node,
    result,
    error,
    logs,
    missed_from,
    missed_until,
    missed_count,
    requested_by
FROM runs;

CREATE VIEW report_schedule_health AS
SELECT
    s.id AS schedule_id,
    s.name AS schedule_name,
    s.task_name,
    s.category,
    s.tags,
    s.enabled,
    s.cron_expression,
    s.timezone,
    s.execution_policy,
    nullif(s.last_error, '') AS last_error,
    c.next_run_at,
    newest.scheduled_for AS last_scheduled_for,
    newest.state AS last_state,
    newest.reason AS last_reason,
    newest.error AS last_run_error
FROM schedules AS s
LEFT JOIN schedule_clocks AS c ON c.schedule_id = s.id
LEFT JOIN LATERAL (
    SELECT r.scheduled_for, r.state, r.reason, r.error
    FROM runs AS r
    WHERE r.schedule_id = s.id
    ORDER BY r.scheduled_for DESC, r.id DESC
    LIMIT 1
) AS newest ON true;

CREATE VIEW report_task_daily AS
SELECT
    (scheduled_for AT TIME ZONE 'UTC')::date AS day,
    task_name,
    count(*) FILTER (WHERE state <> 'missed') AS runs,
    count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE state = 'failed') AS failed,
    count(*) FILTER (WHERE state = 'skipped') AS skipped,
    count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE state = 'missed') AS gaps,
    avg(extract(epoch FROM finished_at - started_at)) AS average_duration_seconds,
    max(extract(epoch FROM finished_at - started_at)) AS longest_duration_seconds
FROM runs
GROUP BY 1, 2;

CREATE VIEW report_lateness AS
SELECT
    (scheduled_for AT TIME ZONE 'UTC')::date AS day,
    task_name,
    count(*) AS runs,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - scheduled_for)) AS p50_seconds,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - scheduled_for)) AS p95_seconds,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - scheduled_for)) AS p99_seconds,
    max(extract(epoch FROM started_at - scheduled_for)) AS max_seconds
FROM runs
WHERE started_at IS NOT NULL AND trigger IN ('schedule', 'catch_up')
GROUP BY 1, 2;

CREATE VIEW report_gaps AS
SELECT
    schedule_id,
    schedule_name,
    task_name,
    missed_from,
    missed_until,
    missed_count,
    reason,
    created_at AS recorded_at
FROM runs
WHERE state = 'missed';

---- create above / drop below ----

DROP VIEW report_gaps;
DROP VIEW report_lateness;
DROP VIEW report_task_daily;
DROP VIEW report_schedule_health;
DROP VIEW report_runs;
