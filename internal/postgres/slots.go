package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// A slot of a task is an execute lock that the session of a node holds: there are as many
// as its MaxConcurrency. Whoever dies, or loses his session, has lost it.

// SlotKeys are the lock keys of the slots of a task.
func SlotKeys(taskName string, slots int) []string {
	keys := make([]string, slots)
	for i := range keys {
		keys[i] = fmt.Sprintf("slot %d of %s", i, taskName)
	}
	return keys
}

// FirstForSlots reads, of the named tasks that have jobs which wait for a slot, the first
// of those jobs.
func (tx *Tx) FirstForSlots(ctx context.Context, tasks []string) (map[string]int64, error) {
	const first = `
SELECT t.name, w.job_id
FROM unnest(@tasks::text[]) AS t (name)
CROSS JOIN LATERAL (
    SELECT w.job_id
    FROM slot_waits AS w
    JOIN river_job AS j ON j.id = w.job_id
    WHERE w.task_name = t.name AND j.state = 'scheduled'
    ORDER BY w.job_id
    LIMIT 1
) AS w`
	rows, err := tx.Query(ctx, first, pgx.StrictNamedArgs{"tasks": tasks})
	if err != nil {
		return nil, err
	}
	jobs := map[string]int64{}
	var task string
	var job int64
	_, err = pgx.ForEachRow(rows, []any{&task, &job}, func() error {
		jobs[task] = job
		return nil
	})
	return jobs, err
}

// WaitForSlots notes that jobs wait for slots of tasks, each at its place.
func (tx *Tx) WaitForSlots(ctx context.Context, tasks []string, jobs []int64) error {
	const wait = `
INSERT INTO slot_waits (task_name, job_id)
SELECT * FROM unnest(@tasks::text[], @jobs::bigint[])
ON CONFLICT ON CONSTRAINT slot_waits_pkey DO NOTHING`
	_, err := tx.Exec(ctx, wait, pgx.StrictNamedArgs{"tasks": tasks, "jobs": jobs})
	return translate(err)
}

// WakeForSlots makes the first most jobs that wait for slots of a task available, and
// tells River so.
func (tx *Tx) WakeForSlots(ctx context.Context, task string, most int) error {
	const wake = `
WITH first AS (
    SELECT j.id
    FROM slot_waits AS w
    JOIN river_job AS j ON j.id = w.job_id
    WHERE w.task_name = @task AND j.state = 'scheduled'
    ORDER BY w.job_id
    LIMIT @most
    FOR UPDATE OF j SKIP LOCKED
),
woken AS (
    UPDATE river_job AS j
    SET state = 'available', scheduled_at = least(j.scheduled_at, statement_timestamp())
    FROM first
    WHERE j.id = first.id
    RETURNING j.id, j.queue
),
taken AS (
    DELETE FROM slot_waits AS w
    USING woken
    WHERE w.task_name = @task AND w.job_id = woken.id
)
SELECT count(pg_notify(@channel, json_build_object('queue', q.queue)::text))
FROM (SELECT DISTINCT queue FROM woken) AS q`
	_, err := tx.Exec(ctx, wake, pgx.StrictNamedArgs{
		"task": task, "most": most, "channel": tx.schema + ".river_insert", // River's own
	})
	return err
}

// SlotTask is a task that has jobs which wait for its slots.
type SlotTask struct {
	TaskName string
	Slots    int // 0: there is no limit any more
}

// SlotTasks reads the tasks that have jobs which wait for slots.
func (tx *Tx) SlotTasks(ctx context.Context) ([]SlotTask, error) {
	const waited = `
SELECT task_name, coalesce(max_concurrency, 0) AS slots
FROM task_definitions AS d
WHERE EXISTS (SELECT FROM slot_waits) AND EXISTS (SELECT FROM slot_waits AS w WHERE w.task_name = d.task_name)`
	rows, err := tx.Query(ctx, waited)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[SlotTask])
}

// FreeSlots counts the slots of a task that nobody holds right now.
func (tx *Tx) FreeSlots(ctx context.Context, task SlotTask) (free int, err error) {
	// The two halves of a key, as pg_locks has them.
	const count = `
SELECT count(*)::int
FROM unnest(@keys::bigint[]) AS slot (key)
WHERE NOT EXISTS (
    SELECT
    FROM pg_locks AS l
    JOIN pg_database AS d ON d.oid = l.database
    WHERE l.locktype = 'advisory'
        AND d.datname = current_database()
        AND l.objsubid = 1
        AND l.classid::bigint = (slot.key >> 32) & 4294967295
        AND l.objid::bigint = slot.key & 4294967295
)`
	err = tx.QueryRow(ctx, count, pgx.StrictNamedArgs{
		"keys": advisoryLocks(tx.schema, executeClass, SlotKeys(task.TaskName, task.Slots)),
	}).Scan(&free)
	return free, err
}

// ForgetSlotWaits deletes what is noted of jobs that wait no more.
func (tx *Tx) ForgetSlotWaits(ctx context.Context) error {
	const forget = `
DELETE FROM slot_waits AS w
WHERE NOT EXISTS (SELECT FROM river_job AS j WHERE j.id = w.job_id AND j.state IN ('running', 'scheduled'))`
	_, err := tx.Exec(ctx, forget)
	return err
}
