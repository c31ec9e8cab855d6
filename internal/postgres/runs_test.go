package postgres_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// However a list is cut into pages, each run that it asks for is on one of them,
// newest first: of one schedule or of all, many at the same time, and in a week or
// over months.
func TestPagesHaveEachRunOnce(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	exec(t, d, "SELECT create_runs_partition(now() - i * interval '1 week') FROM generate_series(0, 60) AS i")
	// Of each schedule a tick and three others at each of the times, seven of which
	// lie in each week of a year; every fifth has failed.
	exec(t, d, `
WITH s AS (
    INSERT INTO schedules (name, task_name, cron_expression, timezone)
    SELECT 'schedule ' || i, 'task ' || i, '* * * * *', 'UTC' FROM generate_series(1, 2) AS i
    RETURNING id, name, task_name
)
INSERT INTO runs (id, scheduled_for, schedule_id, schedule_name, task_name, execution_policy, trigger, slot, state)
SELECT
    id, at, schedule_id, name, task_name, 'allow',
    CASE WHEN k = 0 THEN 'schedule' ELSE 'manual' END,
    CASE WHEN k = 0 THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE id END,
    CASE WHEN (i + k) % 5 = 0 THEN 'failed' ELSE 'succeeded' END
FROM (
    SELECT
        i, k, s.id AS schedule_id, s.name, s.task_name,
        date_trunc('second', now()) - i * interval '1 day' AS at,
        (lpad(to_hex((extract(epoch FROM date_trunc('second', now()) - i * interval '1 day') * 1000)::bigint), 12, '0')
            || '7000a000' || substr(md5(i || ' ' || k || ' ' || s.name), 1, 12))::uuid AS id
    FROM s, generate_series(0, 365) AS i, generate_series(0, 3) AS k
) AS given`)
	db := postgres.New(d.Pool, pgtest.Schema)

	var all []*riverbeat.Run
	require.NoError(t, db.InTx(t.Context(), func(tx *postgres.Tx) error {
		rows, err := tx.Query(t.Context(), "SELECT id FROM runs")
		require.NoError(t, err)
		ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		require.NoError(t, err)
		for _, id := range ids {
			r, err := tx.Run(t.Context(), id)
			require.NoError(t, err)
			all = append(all, r)
		}
		return nil
	}))
	slices.SortFunc(all, func(a, b *riverbeat.Run) int {
		return cmp.Or(b.ScheduledFor.Compare(a.ScheduledFor), cmp.Compare(b.ID.String(), a.ID.String()))
	})
	require.Len(t, all, 2*366*4)

	schedule, task := all[0].ScheduleID, all[0].TaskName
	to, from := all[100].ScheduledFor, all[len(all)-100].ScheduledFor
	failed := []riverbeat.State{riverbeat.Failed}
	for name, f := range map[string]postgres.RunFilter{
		"all":                        {},
		"of a schedule":              {ScheduleID: schedule},
		"of a schedule, failed":      {ScheduleID: schedule, State: failed},
		"of a schedule, some weeks":  {ScheduleID: schedule, From: &from, To: &to},
		"of a schedule, no such":     {ScheduleID: schedule, TaskName: new("no such")},
		"of a schedule and its task": {ScheduleID: schedule, TaskName: &task, Trigger: []riverbeat.Trigger{riverbeat.TriggerSchedule}},
		"of a task":                  {TaskName: &task, To: &to},
		"failed, from a time on":     {State: failed, From: &from},
		"cancelled":                  {State: []riverbeat.State{riverbeat.Cancelled}},
	} {
		for _, limit := range []int{1, 3, 100, 2500} {
			t.Run(fmt.Sprintf("%s, %d", name, limit), func(t *testing.T) {
				t.Parallel()
				f := f
				f.Limit = limit
				var want []uuid.UUID
				for _, r := range all {
					if (f.ScheduleID == nil || *r.ScheduleID == *f.ScheduleID) && (f.TaskName == nil || r.TaskName == *f.TaskName) &&
						(f.State == nil || slices.Contains(f.State, r.State)) && (f.Trigger == nil || slices.Contains(f.Trigger, r.Trigger)) &&
						(f.From == nil || !r.ScheduledFor.Before(*f.From)) && (f.To == nil || r.ScheduledFor.Before(*f.To)) {
						want = append(want, r.ID)
					}
				}
				var got []uuid.UUID
				require.NoError(t, db.Snapshot(t.Context(), func(tx *postgres.Tx) error {
					for {
						page, lookedTo, err := tx.SearchRuns(t.Context(), &f)
						if err != nil {
							return err
						}
						for _, r := range page {
							got = append(got, r.ID)
						}
						switch {
						case lookedTo != nil:
							f.After = lookedTo
						case len(page) == limit:
							f.After = &page[limit-1].ID
						default:
							return nil
						}
					}
				}))
				require.Equal(t, want, got)
			})
		}
	}
}
