package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// A slot of a task is an execute lock that the session of a node holds: there are as many
// as its MaxConcurrency. Whoever dies, or loses his session, has lost it. Who waits for one
// is written down in slot_waits, and its place is by when it began to wait.

// SlotKeys are the lock keys of the slots of a task.
func SlotKeys(taskName string, slots int) []string {
	keys := make([]string, slots)
	for i := range keys {
		keys[i] = fmt.Sprintf("slot %d of %s", i, taskName)
	}
	return keys
}

// putOff tells of a job j, on River's side, that it waits for a slot: it may be scheduled for
// another reason.
const putOff = `j.state = 'scheduled' AND j.metadata -> 'riverbeat' ->> 'reason' = 'no_slot'`

// BehindOthers tells which of the jobs, each of a task, come after one that waits for a slot
// of the same task.
func (tx *Tx) BehindOthers(ctx context.Context, tasks []string, jobs []int64) (map[int64]bool, error) {
	// The line of each task is walked from its head, which is as long as those who were woken
	// and have not begun.
	const behind = `
WITH asked AS (
    SELECT * FROM unnest(@tasks::text[], @jobs::bigint[]) AS asked (task_name, job_id)
),
first AS (
    SELECT t.task_name, f.since, f.job_id
    FROM (SELECT DISTINCT task_name FROM asked) AS t
    CROSS JOIN LATERAL (
        SELECT w.since, w.job_id
        FROM slot_waits AS w
        JOIN river_job AS j ON j.id = w.job_id
        WHERE w.task_name = t.task_name AND ` + putOff + `
        ORDER BY w.since, w.job_id
        LIMIT 1
    ) AS f
)
SELECT asked.job_id
FROM asked
JOIN first ON first.task_name = asked.task_name
LEFT JOIN slot_waits AS own ON own.job_id = asked.job_id
WHERE (first.since, first.job_id) < (coalesce(own.since, 'infinity'), asked.job_id)`
	rows, err := tx.Query(ctx, behind, pgx.StrictNamedArgs{"tasks": tasks, "jobs": jobs})
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	set := make(map[int64]bool, len(found))
	for _, job := range found {
		set[job] = true
	}
	return set, err
}

// WaitForSlots notes that jobs wait for slots of tasks; one that has waited already keeps
// its place.
func (tx *Tx) WaitForSlots(ctx context.Context, tasks []string, jobs []int64) error {
	const wait = `
INSERT INTO slot_waits (task_name, job_id)
SELECT * FROM unnest(@tasks::text[], @jobs::bigint[])
ON CONFLICT ON CONSTRAINT slot_waits_pkey DO NOTHING`
	_, err := tx.Exec(ctx, wait, pgx.StrictNamedArgs{"tasks": tasks, "jobs": jobs})
	return translate(err)
}

// HaveSlots notes that jobs do not wait any more.
func (tx *Tx) HaveSlots(ctx context.Context, jobs []int64) error {
	_, err := tx.Exec(ctx, "DELETE FROM slot_waits WHERE job_id = ANY(@jobs)", pgx.StrictNamedArgs{"jobs": jobs})
	return err
}

// WakeForSlots makes the first most jobs that wait for slots of a task available, before
// those that came to their queue later, and tells River so. It answers how many, and
// whether there are others that will wait in a moment.
func (tx *Tx) WakeForSlots(ctx context.Context, task string, most int) (woken int, more bool, err error) {
	const wake = `
WITH first AS (
    SELECT j.id, w.since
    FROM slot_waits AS w
    JOIN river_job AS j ON j.id = w.job_id
    WHERE w.task_name = @task AND ` + putOff + `
    ORDER BY w.since, w.job_id
    LIMIT @most
    FOR UPDATE OF j SKIP LOCKED
),
woken AS (
    UPDATE river_job AS j
    SET state = 'available', scheduled_at = least(j.scheduled_at, first.since)
    FROM first
    WHERE j.id = first.id
    RETURNING j.id, j.queue
)
SELECT
    (SELECT count(*)::int FROM woken),
    EXISTS (
        SELECT FROM slot_waits AS w JOIN river_job AS j ON j.id = w.job_id
        WHERE w.task_name = @task AND j.state = 'running'
    ),
    (
        SELECT count(pg_notify(@channel, json_build_object('queue', q.queue)::text))
        FROM (SELECT DISTINCT queue FROM woken) AS q
    )`
	err = tx.QueryRow(ctx, wake, pgx.StrictNamedArgs{
		"task": task, "most": most, "channel": tx.schema + ".river_insert", // River's own
	}).Scan(&woken, &more, nil)
	return woken, more, err
}

// SlotTask is a task for whose slots jobs wait.
type SlotTask struct {
	TaskName string
	Slots    int // 0: there is no limit any more
	Woken    int // jobs that were woken, and were not fetched yet
}

// SlotTasks reads the tasks for whose slots jobs wait.
func (tx *Tx) SlotTasks(ctx context.Context) ([]SlotTask, error) {
	// The names are walked along the index, however many wait.
	const waited = `
WITH RECURSIVE tasks AS (
    (SELECT task_name FROM slot_waits ORDER BY task_name LIMIT 1)
    UNION ALL
    SELECT (SELECT w.task_name FROM slot_waits AS w WHERE w.task_name > t.task_name ORDER BY w.task_name LIMIT 1)
    FROM tasks AS t
    WHERE t.task_name IS NOT NULL
)
SELECT
    t.task_name,
    coalesce(d.max_concurrency, 0) AS slots,
    (
        SELECT count(*)::int
        FROM river_job AS j
        JOIN slot_waits AS w ON w.job_id = j.id
        WHERE j.state = 'available' AND w.task_name = t.task_name
    ) AS woken
FROM tasks AS t
LEFT JOIN task_definitions AS d ON d.task_name = t.task_name
WHERE t.task_name IS NOT NULL`
	rows, err := tx.Query(ctx, waited)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[SlotTask])
}

// FreeSlots counts the slots of a task that nobody holds right now.
func (tx *Tx) FreeSlots(ctx context.Context, task SlotTask) (free int, err error) {
	// pg_locks has a key in two halves.
	const count = `
SELECT cardinality(@keys::bigint[]) - count(*)::int
FROM pg_locks AS l
JOIN pg_database AS d ON d.oid = l.database
WHERE l.locktype = 'advisory'
    AND l.granted
    AND d.datname = current_database()
    AND l.objsubid = 1
    AND (l.classid::bigint << 32 | l.objid::bigint) = ANY(@keys::bigint[])`
	err = tx.QueryRow(ctx, count, pgx.StrictNamedArgs{
		"keys": advisoryLocks(tx.schema, executeClass, SlotKeys(task.TaskName, task.Slots)),
	}).Scan(&free)
	return free, err
}

// ForgetSlotWaits deletes what is noted of jobs that have ended, or are gone.
func (tx *Tx) ForgetSlotWaits(ctx context.Context) error {
	const forget = `
DELETE FROM slot_waits AS w
WHERE w.since < clock_timestamp() - @young::interval
    AND NOT EXISTS (SELECT FROM river_job AS j WHERE j.id = w.job_id AND j.finalized_at IS NULL)`
	_, err := tx.Exec(ctx, forget, pgx.StrictNamedArgs{"young": time.Minute})
	return err
}
