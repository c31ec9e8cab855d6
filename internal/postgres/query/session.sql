-- A node's session takes the lock by which the node is known to live.
-- name: TryLock :one
SELECT pg_try_advisory_lock(@key::bigint)::boolean AS locked;

-- name: TryLocks :many
SELECT pg_try_advisory_lock(key)::boolean AS locked
FROM unnest(@keys::bigint[]) WITH ORDINALITY AS given (key, place)
ORDER BY place;

-- The filter takes locks, so it must not be asked once more than needed.
-- name: TrySomeLocks :many
SELECT key::bigint AS key
FROM unnest(@keys::bigint[]) AS given (key)
WHERE pg_try_advisory_lock(key)
LIMIT @most;

-- name: Unlock :exec
SELECT pg_advisory_unlock(key) FROM unnest(@keys::bigint[]) AS given (key);

-- Written, not only read: a primary that is cut off from its synchronous
-- standby still answers reads.
-- name: Beat :one
INSERT INTO nodes (id, host, version, tzdata_version, tasks, commands, queues, runs_kept_s)
VALUES (@id, @host, @version, @tzdata_version, @tasks, @commands, @queues, @runs_kept_s::bigint)
ON CONFLICT (id) DO UPDATE SET last_seen_at = clock_timestamp()
RETURNING last_seen_at;

-- name: DeleteNode :exec
DELETE FROM nodes WHERE id = @id;

-- Nodes that went without a word long ago.
-- name: ForgetNodes :exec
DELETE FROM nodes WHERE last_seen_at < clock_timestamp() - interval '1 day';

-- The longest that a node of the last day wants runs to be kept. One that does not say is of
-- a version that keeps them for ever.
-- name: RunsKept :one
SELECT
    (count(*) > 0)::boolean AS known,
    coalesce(bool_or(coalesce(runs_kept_s, 0) = 0), false)::boolean AS for_ever,
    coalesce(max(runs_kept_s), 0)::bigint AS seconds
FROM nodes;

-- Which jobs of runs are being worked, by whom ('' if somebody made it run in
-- psql), and when that node was last seen.
-- name: RunningJobs :many
SELECT
    j.id,
    coalesce(j.attempted_by[cardinality(j.attempted_by)], '')::text AS node,
    j.attempted_at,
    (j.metadata ? 'cancel_attempted_at')::boolean AS cancel_requested,
    n.last_seen_at
FROM river_job AS j
LEFT JOIN nodes AS n ON n.id::text = j.attempted_by[cardinality(j.attempted_by)]
WHERE j.state = 'running' AND j.kind = 'run';

-- Fails when the node has a session; held, it keeps the node from getting one.
-- name: TryLockNodeShared :one
SELECT pg_try_advisory_xact_lock_shared(@key::bigint)::boolean AS locked;

-- name: JobOfRun :one
SELECT coalesce(args ->> 'run_id', '')::text AS run_id, coalesce(args ->> 'lock_key', '')::text AS lock_key
FROM river_job
WHERE id = @id;

-- name: LockRunningJob :one
SELECT attempt, max_attempts, (metadata ? 'cancel_attempted_at')::boolean AS cancel_requested
FROM river_job
WHERE id = @id
    AND state = 'running'
    AND coalesce(attempted_by[cardinality(attempted_by)], '') = @node::text
FOR UPDATE;

-- name: LockRunOfJob :one
SELECT *
FROM runs
WHERE scheduled_for = @scheduled_for AND id = @id AND job_id = @job_id::bigint
FOR UPDATE;

-- Ends a running job whose attempt nobody will report. The history trigger
-- takes state, reason and error from it, if the job still is its run's.
-- name: FinalizeJob :exec
UPDATE river_job
SET state = @state::river_job_state,
    finalized_at = clock_timestamp(),
    errors = CASE WHEN @error::text = '' THEN errors ELSE array_append(errors, jsonb_build_object(
        'at', clock_timestamp(), 'attempt', attempt, 'error', @error::text, 'trace', ''
    )) END,
    metadata = (metadata - 'riverbeat') || @metadata::jsonb -- what an earlier attempt said is no news
WHERE id = @id AND state = 'running';

-- The run of a lost job stands without one, so that the end of that job is no
-- news of the run.
-- name: DetachJob :exec
UPDATE runs SET job_id = NULL WHERE scheduled_for = @scheduled_for AND id = @id;

-- The attempt that was lost is not used up; a job that was only fetched has
-- begun none.
-- name: StartNextLife :exec
UPDATE runs
SET state = CASE WHEN @attempts_used::int > 0 THEN 'retrying' ELSE 'queued' END,
    reason = @reason,
    job_id = @job_id::bigint,
    attempt = CASE WHEN state = 'running' THEN attempt - 1 ELSE attempt END,
    started_at = NULL,
    enqueued_at = clock_timestamp()
WHERE scheduled_for = @scheduled_for AND id = @id;

-- name: LoseLife :exec
UPDATE runs
SET lives = lives + 1,
    lost_lives = coalesce(lost_lives, '[]') || jsonb_build_object(
        'job_id', job_id, 'node', node, 'execution', execution, 'lost_at', clock_timestamp()
    )
WHERE scheduled_for = @scheduled_for AND id = @id;
