package worker

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
)

func TestAlarmsAreThoseOfTheEnabledSchedules(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	ctx := t.Context()
	quiet := slog.New(slog.DiscardHandler)
	q, err := queue.New(d.Pool, pgtest.Schema, quiet)
	require.NoError(t, err)
	c := catalog.New(d.DB, ledger.New(q))
	add := func(cron, zone string) *riverbeat.Schedule {
		s, err := c.CreateSchedule(ctx, &riverbeat.Schedule{
			TaskName: "echo", CronExpression: cron, Timezone: zone, Enabled: true,
			Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"), ExecutionPolicy: riverbeat.Allow,
			CatchUp: riverbeat.CatchUpNone, MaxWaiting: 1,
		})
		require.NoError(t, err)
		return s
	}
	works := river.NewWorkers()
	river.AddWorker(works, river.WorkFunc(func(context.Context, *river.Job[queue.RunArgs]) error { return nil }))
	client, err := river.NewClient(riverpgxv5.New(d.Pool), &river.Config{
		Schema: pgtest.Schema, Logger: quiet, Workers: works, TestOnly: true,
		Queues: map[string]river.QueueConfig{"elsewhere": {MaxWorkers: 1}},
	})
	require.NoError(t, err)
	woken := make(chan struct{}, 100)
	a := newAlarms(d.DB, client.PeriodicJobs(), func() { woken <- struct{}{} }, nil)

	daily := add("@daily", "UTC")
	add("@daily", "UTC")
	add("@daily", "Asia/Tokyo")
	require.NoError(t, a.sync(ctx))
	require.Len(t, a.handles, 2, "one for each distinct recurrence")

	_, err = d.Pool.Exec(ctx, "UPDATE schedules SET timezone = 'Nowhere/Land' WHERE id = $1", daily.ID)
	require.NoError(t, err)
	require.NoError(t, a.sync(ctx), "what cannot be planned is no hindrance")
	require.Len(t, a.handles, 2)

	_, err = d.Pool.Exec(ctx, "UPDATE schedules SET enabled = false")
	require.NoError(t, err)
	require.NoError(t, a.sync(ctx))
	require.Empty(t, a.handles)

	add("@every 1s", "UTC")
	require.NoError(t, a.sync(ctx))
	require.NoError(t, client.Start(ctx))
	defer func() { require.NoError(t, client.Stop(ctx)) }()
	for range 2 {
		select {
		case <-woken:
		case <-time.After(30 * time.Second):
			require.Fail(t, "the alarm did not fire")
		}
	}
	var jobs int
	require.NoError(t, d.Pool.QueryRow(ctx, "SELECT count(*) FROM river_job").Scan(&jobs))
	require.Zero(t, jobs, "an alarm makes no job")
}
