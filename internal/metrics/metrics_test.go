package metrics_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/metrics"
	"riverbeat/internal/riverbeat"
)

// clock is a clock that a test moves on.
type clock struct{ at time.Time }

func (c *clock) now() time.Time       { return c.at }
func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

// setup makes Metrics, and a function that reads the series of a metric that are not 0: of
// a histogram how much it has seen, and of what sum.
func setup(t *testing.T) (*metrics.Metrics, *clock, func(name string) map[string]string) {
	t.Helper()
	c := &clock{at: time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)}
	m := metrics.New(c.now, true)
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(m))
	return m, c, func(name string) map[string]string {
		families, err := registry.Gather()
		require.NoError(t, err)
		values := map[string]string{}
		for _, f := range families {
			if f.GetName() != "riverbeat_"+name {
				continue
			}
			for _, one := range f.GetMetric() {
				var labels []string
				for _, l := range one.GetLabel() {
					labels = append(labels, l.GetValue())
				}
				value := fmt.Sprint(one.GetCounter().GetValue() + one.GetGauge().GetValue())
				if h := one.GetHistogram(); h != nil {
					value = fmt.Sprintf("%d: %gs", h.GetSampleCount(), h.GetSampleSum())
				}
				if !strings.HasPrefix(value, "0") || strings.HasPrefix(value, "0.") {
					values[strings.Join(labels, " ")] = value
				}
			}
		}
		return values
	}
}

var at = time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)

func after(d time.Duration) *time.Time {
	t := at.Add(d)
	return &t
}

func TestWhatIsRecordedIsCountedByWhatBecameOfIt(t *testing.T) {
	t.Parallel()
	m, _, read := setup(t)
	three := 3
	m.Recorded([]*riverbeat.Run{
		{ScheduledFor: at, Trigger: riverbeat.TriggerSchedule, State: riverbeat.Queued, EnqueuedAt: after(250 * time.Millisecond)},
		{ScheduledFor: at, Trigger: riverbeat.TriggerSchedule, State: riverbeat.Queued, EnqueuedAt: after(750 * time.Millisecond)},
		{ScheduledFor: at, Trigger: riverbeat.TriggerSchedule, State: riverbeat.Waiting},
		{ScheduledFor: at, Trigger: riverbeat.TriggerSchedule, State: riverbeat.Skipped, Reason: riverbeat.AlreadyRunning},
		{ScheduledFor: at, Trigger: riverbeat.TriggerCatchUp, State: riverbeat.Queued, EnqueuedAt: after(time.Hour)},
		{ScheduledFor: at, Trigger: riverbeat.TriggerManual, State: riverbeat.Queued, EnqueuedAt: after(time.Second)},
		{ScheduledFor: at, Trigger: riverbeat.TriggerCatchUp, State: riverbeat.Missed, Reason: riverbeat.Superseded, MissedCount: &three},
		{ScheduledFor: at, Trigger: riverbeat.TriggerCatchUp, State: riverbeat.Missed, Reason: riverbeat.OutsideWindow},
	})
	require.Equal(t, map[string]string{
		" queued schedule": "2", " waiting schedule": "1", "already_running skipped schedule": "1",
		" queued catch_up": "1", " queued manual": "1",
		"superseded missed catch_up": "1", "outside_window missed catch_up": "1",
	}, read("runs_recorded_total"))
	require.Equal(t, map[string]string{"superseded": "3", "outside_window": "10001"}, read("missed_ticks_total"))
	require.Equal(t, map[string]string{"schedule": "2: 1s", "catch_up": "1: 3600s"}, read("enqueue_lateness_seconds"))
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	m, clock, read := setup(t)
	behind := uuid.New()
	tick := riverbeat.Run{TaskName: "report", ScheduledFor: at, Trigger: riverbeat.TriggerSchedule, Execution: 1, StartedAt: after(time.Second)}
	lined, again, asked := tick, tick, tick
	lined.BlockedBy, again.Execution, asked.Trigger = &behind, 2, riverbeat.TriggerManual

	end := m.Attempt(&tick)
	require.Equal(t, map[string]string{"": "1"}, read("attempts_under_way"))
	clock.pass(2 * time.Second)
	end(metrics.Succeeded)
	for _, r := range []*riverbeat.Run{&lined, &again, &asked} {
		m.Attempt(r)(metrics.Retried)
	}
	require.Empty(t, read("attempts_under_way"))
	require.Equal(t, map[string]string{"succeeded report schedule": "1", "retried report schedule": "2", "retried report manual": "1"}, read("attempts_total"))
	require.Equal(t, map[string]string{"report": "4: 2s"}, read("attempt_duration_seconds"))
	require.Equal(t, map[string]string{"schedule": "1: 1s"}, read("start_lateness_seconds"), "first attempts of ticks that did not wait in line")
}

func TestTasksWithoutEndMakeFewSeries(t *testing.T) {
	t.Parallel()
	m, _, read := setup(t)
	for i := range 10_000 {
		m.Attempt(&riverbeat.Run{TaskName: fmt.Sprintf("task %d", i), Trigger: riverbeat.TriggerManual})(metrics.Succeeded)
	}
	m.Attempt(&riverbeat.Run{TaskName: "task 7", Trigger: riverbeat.TriggerManual})(metrics.Succeeded)
	counts := read("attempts_total")
	require.Len(t, counts, 101)
	require.Equal(t, "2", counts["succeeded task 7 manual"])
	require.Equal(t, "9900", counts["succeeded (other) manual"])
	require.Less(t, testutil.CollectAndCount(m), 400)
}

func TestSweepsAndClaims(t *testing.T) {
	t.Parallel()
	m, clock, read := setup(t)
	clock.pass(3 * time.Second)
	require.Equal(t, 3*time.Second, m.SinceSweep(), "before the first it is as old as the process")
	swept := m.Sweep()
	for _, claim := range []struct {
		schedules int
		err       error
	}{{500, nil}, {20, nil}, {0, nil}, {7, errors.New("the database is away")}} {
		claimed := m.Claim()
		clock.pass(time.Second)
		claimed(claim.schedules, claim.err)
	}
	swept(nil)
	require.Zero(t, m.SinceSweep())
	clock.pass(time.Minute)
	m.Sweep()(errors.New("the database is away"))
	require.Equal(t, time.Minute, m.SinceSweep(), "one that failed is none")
	require.Equal(t, map[string]string{"": "60"}, read("last_sweep_age_seconds"))
	require.Equal(t, map[string]string{"ok": "1: 4s", "failed": "1: 0s"}, read("sweep_duration_seconds"))
	require.Equal(t, map[string]string{"ok": "2: 2s", "empty": "1: 1s", "failed": "1: 1s"}, read("claim_duration_seconds"))
	require.Equal(t, map[string]string{"": "520"}, read("claimed_schedules_total"))
}

// Packages that count are tested without, and tools have none.
func TestNobodyNeedsMetrics(t *testing.T) {
	t.Parallel()
	var m *metrics.Metrics
	m.Recorded([]*riverbeat.Run{{}})
	m.Attempt(&riverbeat.Run{})(metrics.Failed)
	m.Sweep()(nil)
	m.Claim()(1, nil)
	m.Request()("GET /", 200)
	m.HandedBack("")
	m.TookOver(true)
	m.Alarms(1)
	m.AlarmFired()
	m.SessionUp(true)
	m.SessionLost()
	m.Fenced()
	m.Beat(1, 1)
	m.Fetch("default", 1)
	m.Fetched("default", 1)
	m.Job("default", "completed", 1, 1)
	require.Zero(t, m.SinceSweep())
}

func TestMetricsAreNamedAsPrometheusWantsThem(t *testing.T) {
	t.Parallel()
	m, _, _ := setup(t)
	problems, err := testutil.CollectAndLint(m)
	require.NoError(t, err)
	require.Empty(t, problems)
}
