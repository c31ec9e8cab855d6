package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

// missing are the lines that a scrape has not.
func (b *bundle) missing(t *testing.T, lines ...string) []string {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(b.metrics)
	families, err := registry.Gather()
	require.NoError(t, err)
	var scrape strings.Builder
	for _, f := range families {
		_, err := expfmt.MetricFamilyToText(&scrape, f)
		require.NoError(t, err)
	}
	return slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(scrape.String(), "\n"+line+"\n") })
}

// counted waits until a scrape has all the lines.
func (b *bundle) counted(t *testing.T, lines ...string) {
	t.Helper()
	var missing []string
	require.Eventually(t, func() bool {
		missing = b.missing(t, slices.Clone(lines)...)
		return len(missing) == 0
	}, 20*time.Second, 10*time.Millisecond, "%q", &missing)
}

func TestWhatANodeCounts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := make(chan struct{})
	b.register("final", func(context.Context, *task.Run) (any, error) { return nil, task.Final(errors.New("never again")) })
	b.register("later", func(_ context.Context, run *task.Run) (any, error) {
		if run.Execution == 1 {
			return nil, task.Snooze(time.Millisecond, errors.New("too early"))
		}
		return nil, nil
	})
	b.register("long", func(ctx context.Context, run *task.Run) (any, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	b.register("flaky", func(_ context.Context, run *task.Run) (any, error) {
		if run.Attempt == 1 {
			return nil, errors.New("not yet")
		}
		return nil, nil
	})
	w := b.start()
	_, err := b.catalog.CreateTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
		TaskName: "flaky", ParameterSchema: json.RawMessage("{}"), Executor: riverbeat.Executor{Kind: "go"},
		Queue: "default", Priority: 1, MaxAttempts: 3, Retry: riverbeat.Retry{Backoff: time.Millisecond, MaxBackoff: time.Millisecond},
	}, false)
	require.NoError(t, err)
	for _, task := range []string{"final", "later", "flaky"} {
		b.until(t, b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = task })).ID, func(r *riverbeat.Run) bool { return r.State.Ended() })
	}
	once := b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName, s.ExecutionPolicy = "long", riverbeat.Skip })
	cancelled := b.runNow(t, once)
	<-began
	require.Equal(t, riverbeat.Skipped, b.runNow(t, once).State)
	_, err = b.history.Cancel(t.Context(), cancelled.ID)
	require.NoError(t, err)
	b.until(t, cancelled.ID, in(riverbeat.Cancelled))
	lost := b.runNow(t, once)
	<-began
	_, err = b.Pool.Exec(t.Context(), "DELETE FROM river_job WHERE id = (SELECT job_id FROM runs WHERE id = $1)", lost.ID)
	require.NoError(t, err)
	// Two ticks, so that their number is met however late anybody looks.
	first := time.Now().Add(5 * time.Second).Truncate(time.Second)
	last := first.Add(time.Second)
	ticking := b.schedule(t, func(s *riverbeat.Schedule) { s.CronExpression, s.StartsAt, s.EndsAt = "@every 1s", &first, &last })
	b.counted(t,
		`riverbeat_attempts_total{outcome="failed",task="final",trigger="manual"} 1`,
		`riverbeat_attempts_total{outcome="snoozed",task="later",trigger="manual"} 1`,
		`riverbeat_attempts_total{outcome="succeeded",task="later",trigger="manual"} 1`,
		`riverbeat_attempts_total{outcome="retried",task="flaky",trigger="manual"} 1`,
		`riverbeat_attempts_total{outcome="succeeded",task="flaky",trigger="manual"} 1`,
		`riverbeat_attempts_total{outcome="cancelled",task="long",trigger="manual"} 1`,
		`riverbeat_attempts_total{outcome="lost",task="long",trigger="manual"} 1`,
		`riverbeat_runs_recorded_total{reason="",state="queued",trigger="manual"} 5`,
		`riverbeat_runs_recorded_total{reason="already_running",state="skipped",trigger="manual"} 1`,
		`riverbeat_river_jobs_total{kind="failed",queue="default"} 1`,
		`riverbeat_river_jobs_total{kind="snoozed",queue="default"} 1`,
		`riverbeat_river_jobs_total{kind="cancelled",queue="default"} 2`,
		`riverbeat_alarms 2`,
		`riverbeat_session_up 1`,
		`riverbeat_sessions_lost_total 0`,
	)
	b.counted(t, `riverbeat_attempts_total{outcome="succeeded",task="echo",trigger="schedule"} 2`)
	none := []string{
		`riverbeat_alarms_fired_total 0`, `riverbeat_claimed_schedules_total 0`,
		`riverbeat_start_lateness_seconds_bucket{trigger="schedule",le="60"} 0`,
		`riverbeat_enqueue_lateness_seconds_bucket{trigger="schedule",le="60"} 0`,
	}
	require.Equal(t, none, b.missing(t, slices.Clone(none)...), "ticks are decided, and are not late")
	require.NoError(t, b.catalog.DeleteSchedule(t.Context(), ticking.ID, riverbeat.Expected{}))

	// A session that breaks, and a node that stops while it works.
	_, err = b.Pool.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	require.NoError(t, err)
	b.Pool.Reset() // those of the test are gone, too
	b.counted(t, `riverbeat_sessions_lost_total 1`, `riverbeat_session_up 1`, `riverbeat_fenced_total 0`)
	b.runNow(t, once)
	<-began
	require.Empty(t, b.missing(t, `riverbeat_attempts_under_way 1`))
	w.Stop()
	require.Empty(t, b.missing(t,
		`riverbeat_attempts_total{outcome="interrupted",task="long",trigger="manual"} 1`,
		`riverbeat_attempts_under_way 0`, `riverbeat_session_up 0`, `riverbeat_sessions_lost_total 1`))
}
