package watch_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/watch"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is what a test works with: a database of its own, without anything that works.
type bundle struct {
	*pgtest.Database
	ledger  *ledger.Ledger
	catalog *catalog.Catalog
	history *history.History
}

func setup(t *testing.T) *bundle {
	t.Helper()
	d := pgtest.DB(t)
	q, err := queue.New(d.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := ledger.New(q)
	return &bundle{Database: d, ledger: l, catalog: catalog.New(d.DB, l), history: history.New(d.DB, l)}
}

func (b *bundle) watcher() *watch.Watcher {
	return watch.New(b.DB, b.ledger, slog.New(slog.DiscardHandler))
}

var hook = riverbeat.Text{Literal: "https://example.com/hook"}

// schedule makes a schedule that people are told of.
func (b *bundle) schedule(t *testing.T, change func(*riverbeat.Schedule)) *riverbeat.Schedule {
	t.Helper()
	s := &riverbeat.Schedule{
		Name: "nightly", TaskName: "load", CronExpression: "0 0 1 1 *", Timezone: "UTC", Enabled: true,
		Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"), Tags: []string{"a"},
		ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpLatest, CatchUpWindow: time.Hour, MaxWaiting: 100,
		Alerts: riverbeat.Alerts{URL: hook},
	}
	if change != nil {
		change(s)
	}
	made, err := b.catalog.CreateSchedule(t.Context(), s)
	require.NoError(t, err)
	return made
}

func (b *bundle) change(t *testing.T, s *riverbeat.Schedule, change func(*riverbeat.Schedule)) {
	t.Helper()
	_, err := b.catalog.ChangeSchedule(t.Context(), s.ID, func(s *riverbeat.Schedule) error { change(s); return nil })
	require.NoError(t, err)
}

// define gives the task load a definition that has alerts.
func (b *bundle) define(t *testing.T, a riverbeat.Alerts) {
	t.Helper()
	_, _, err := b.catalog.PutTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
		TaskName: "load", Executor: riverbeat.Executor{Kind: "go"}, Queue: "default", Priority: 1, MaxAttempts: 1, Alerts: a,
	}, false, riverbeat.Expected{})
	require.NoError(t, err)
}

func (b *bundle) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	_, err := b.Pool.Exec(t.Context(), statement, args...)
	require.NoError(t, err)
}

func (b *bundle) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, b.Pool.QueryRow(t.Context(), query, args...).Scan(&n))
	return n
}

func (b *bundle) runNow(t *testing.T, s *riverbeat.Schedule) *riverbeat.Run {
	t.Helper()
	run, err := b.history.RunNow(t.Context(), s.ID, history.Overrides{})
	require.NoError(t, err)
	return run
}

// end ends the job of a run in one of River's states.
func (b *bundle) end(t *testing.T, run *riverbeat.Run, state string) {
	t.Helper()
	b.exec(t, "UPDATE river_job SET state = 'running', attempt = 1 WHERE id = $1", run.JobID)
	b.exec(t, `UPDATE river_job SET state = $2::text::river_job_state, finalized_at = now(),
		errors = CASE WHEN $2::text = 'discarded' THEN ARRAY['{"error": "no such table", "attempt": 1}'::jsonb] END
		WHERE id = $1`, run.JobID, state)
}

// runs makes runs that end: + succeeds, - fails, x is cancelled.
func (b *bundle) runs(t *testing.T, s *riverbeat.Schedule, ends string) {
	t.Helper()
	for _, end := range ends {
		b.end(t, b.runNow(t, s), map[rune]string{'+': "completed", '-': "discarded", 'x': "cancelled"}[end])
	}
}

func (b *bundle) look(t *testing.T) {
	t.Helper()
	_, err := b.watcher().Look(t.Context())
	require.NoError(t, err)
}

// told are the runs that tell people, the oldest first.
func (b *bundle) told(t *testing.T) []*riverbeat.Run {
	t.Helper()
	var runs []*riverbeat.Run
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		name := riverbeat.AlertTask
		page, _, err := tx.SearchRuns(t.Context(), &postgres.RunFilter{TaskName: &name, Limit: 1000})
		for i := len(page) - 1; i >= 0; i-- {
			runs = append(runs, page[i])
		}
		return err
	}))
	return runs
}

// events are what people were told of, with the names of the schedules.
func (b *bundle) events(t *testing.T) (events []string) {
	t.Helper()
	for _, run := range b.told(t) {
		events = append(events, run.ScheduleName+" "+message(t, run).Type)
	}
	return events
}

func message(t *testing.T, run *riverbeat.Run) *riverbeat.AlertMessage {
	t.Helper()
	var params riverbeat.AlertParams
	require.NoError(t, json.Unmarshal(run.TaskParams, &params))
	return params.Message
}

func TestOneMessageAChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.Alerts.AfterFailures, s.Alerts.SigningSecret = 2, riverbeat.Text{Secret: "shared"}
	})
	b.runs(t, s, "+-x")
	b.look(t)
	require.Empty(t, b.events(t), "a cancelled run is none that has failed")
	b.runs(t, s, "-")
	b.look(t)
	b.runs(t, s, "---")
	b.look(t)
	b.look(t)
	require.Equal(t, []string{"nightly schedule.failing"}, b.events(t))
	b.runs(t, s, "+")
	b.look(t)
	b.runs(t, s, "+-+")
	b.look(t)
	require.Equal(t, []string{"nightly schedule.failing", "nightly schedule.recovered"}, b.events(t))

	run := b.told(t)[0]
	require.Equal(t, riverbeat.TriggerAlert, run.Trigger)
	require.Nil(t, run.ScheduleID)
	require.Equal(t, riverbeat.Queued, run.State)
	require.Equal(t, []string{"a"}, run.Tags)
	var params map[string]any
	require.NoError(t, json.Unmarshal(run.TaskParams, &params))
	require.Equal(t, hook.Literal, params["url"])
	require.Equal(t, map[string]any{"$secret": "shared"}, params["signing_secret"])
	m := message(t, run)
	require.Equal(t, "Schedule nightly (task load) is failing: 2 runs in a row have failed. Last error: no such table", m.Text)
	require.Equal(t, s.ID, m.Data.ScheduleID)
	require.Equal(t, riverbeat.Failed, m.Data.Run.State)
	require.Equal(t, "no such table", *m.Data.Run.Error)
	require.NotNil(t, m.Data.LastSuccessAt)
	require.Zero(t, b.count(t, "SELECT count(*) FROM run_ends"))
}

func TestEveryWayInWhichARunFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, nil)
	d := &riverbeat.TaskDefinition{
		TaskName: "load", ParameterSchema: json.RawMessage(`{"required": ["day"]}`), MaxAttempts: 1, Queue: "default",
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	broken, err := b.ledger.Entry(ledger.Request{Schedule: s, Definition: d, Trigger: riverbeat.TriggerSchedule, At: now}, now)
	require.NoError(t, err)
	require.Equal(t, riverbeat.InvalidParams, broken.Run.Reason, "it fails without a job")
	partitions := postgres.NewPartitions(b.DB)
	require.NoError(t, partitions.InTx(t.Context(), func(tx *postgres.Tx) error {
		if err := partitions.Need(tx, now); err != nil {
			return err
		}
		return b.ledger.Record(t.Context(), tx, now, []*ledger.Entry{broken})
	}))
	b.look(t)
	require.Equal(t, []string{"nightly schedule.failing"}, b.events(t))
	require.Equal(t, broken.Run.ID, message(t, b.told(t)[0]).Data.Run.ID)

	run := b.runNow(t, s)
	b.end(t, run, "discarded")
	_, err = b.history.Retry(t.Context(), run.ID)
	require.NoError(t, err)
	again, err := b.history.Run(t.Context(), run.ID)
	require.NoError(t, err)
	b.end(t, again, "completed")
	b.look(t)
	require.Len(t, b.events(t), 2, "a run that somebody has tried again has succeeded")
}

func TestWhatDoesNotCount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	quiet := b.schedule(t, func(s *riverbeat.Schedule) { s.Name, s.Alerts = "quiet", riverbeat.Alerts{} })
	b.runs(t, quiet, "-")
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.CronExpression = "@hourly" })
	_, err := b.history.Backfill(t.Context(), s.ID, riverbeat.Backfill{
		From: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 3, 1, 1, 0, 0, 0, time.UTC),
	})
	require.NoError(t, err)
	run := b.runNow(t, s)
	b.exec(t, "UPDATE runs SET trigger = 'backfill' WHERE id = $1", run.ID)
	b.end(t, run, "discarded")
	require.Zero(t, b.count(t, "SELECT count(*) FROM run_ends"))
	b.look(t)
	require.Empty(t, b.events(t))
}

func TestAlertsOfATask(t *testing.T) {
	t.Parallel()
	b := setup(t)
	before := b.schedule(t, func(s *riverbeat.Schedule) { s.Name, s.Alerts = "before", riverbeat.Alerts{} })
	silent := b.schedule(t, func(s *riverbeat.Schedule) {
		s.Name, s.Alerts = "silent", riverbeat.Alerts{On: []riverbeat.AlertEvent{}}
	})
	b.look(t)
	b.define(t, riverbeat.Alerts{URL: hook})
	b.look(t)
	after := b.schedule(t, func(s *riverbeat.Schedule) { s.Name, s.Alerts = "after", riverbeat.Alerts{AfterFailures: 2} })
	other := b.schedule(t, func(s *riverbeat.Schedule) { s.Name, s.TaskName, s.Alerts = "other", "else", riverbeat.Alerts{} })
	for _, s := range []*riverbeat.Schedule{before, silent, after, other} {
		b.runs(t, s, "-")
	}
	b.look(t)
	require.Equal(t, []string{"before schedule.failing"}, b.events(t))
	b.runs(t, after, "-")
	b.look(t)
	require.Equal(t, []string{"before schedule.failing", "after schedule.failing"}, b.events(t))

	// Another task's definition has none, and so it has none any more; back, it begins anew.
	b.change(t, before, func(s *riverbeat.Schedule) { s.TaskName = "else" })
	b.change(t, before, func(s *riverbeat.Schedule) { s.TaskName = "load" })
	b.runs(t, before, "-")
	b.look(t)
	require.Len(t, b.events(t), 3)

	b.define(t, riverbeat.Alerts{})
	b.look(t)
	require.Equal(t, 2, b.count(t, "SELECT count(*) FROM alert_states"), "those that say something themselves")
	b.runs(t, before, "+")
	b.runs(t, after, "+")
	b.look(t)
	require.Len(t, b.events(t), 3, "there is nobody to be told")
}

func TestNoSuccessForATime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.Alerts.NoSuccessFor = time.Hour })
	// passes makes it so much later.
	passes := func(d time.Duration) {
		b.exec(t, "UPDATE alert_states SET since = since - $1::interval, due_at = due_at - $1::interval, last_success_at = last_success_at - $1::interval", d)
		b.exec(t, "UPDATE pauses SET resumed_at = resumed_at - $1::interval, paused_at = paused_at - $1::interval", d)
		b.look(t)
	}
	b.look(t)
	passes(59 * time.Minute)
	b.runs(t, s, "-")
	b.look(t)
	require.Equal(t, []string{"nightly schedule.failing"}, b.events(t))
	passes(time.Minute)
	passes(time.Minute)
	overdue := []string{"nightly schedule.failing", "nightly schedule.overdue"}
	require.Equal(t, overdue, b.events(t), "once")
	b.runs(t, s, "+")
	b.look(t)
	require.Equal(t, append(overdue, "nightly schedule.recovered"), b.events(t), "one success ends both")

	passes(30 * time.Minute)
	b.runs(t, s, "+")
	b.look(t)
	passes(45 * time.Minute)
	require.Len(t, b.events(t), 3, "counted from the last success")

	b.change(t, s, func(s *riverbeat.Schedule) { s.Enabled = false })
	passes(24 * time.Hour)
	b.change(t, s, func(s *riverbeat.Schedule) { s.Enabled = true })
	passes(59 * time.Minute)
	require.Len(t, b.events(t), 3, "counted from when it was enabled")

	b.exec(t, "UPDATE installation SET paused_at = now()")
	passes(24 * time.Hour)
	require.Len(t, b.events(t), 3)
	b.exec(t, "UPDATE installation SET paused_at = NULL")
	passes(0)
	require.Len(t, b.events(t), 3, "a pause does not count")
	passes(time.Minute)
	require.Len(t, b.events(t), 4, "the time before it does")
	require.Contains(t, message(t, b.told(t)[3]).Text, "Schedule nightly (task load) is overdue: no run has succeeded for 1h. The last success was at ")

	// A longer time is over when a shorter one is said.
	late := b.schedule(t, func(s *riverbeat.Schedule) { s.Name, s.Alerts.NoSuccessFor = "late", 24*time.Hour })
	b.look(t)
	passes(2 * time.Hour)
	require.Len(t, b.events(t), 4)
	b.change(t, late, func(s *riverbeat.Schedule) { s.Alerts.NoSuccessFor = time.Hour })
	b.look(t)
	require.Equal(t, "late schedule.overdue", b.events(t)[4])
}

func TestDisabledAndEnabledItBeginsAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, nil)
	b.runs(t, s, "-")
	b.look(t)
	b.change(t, s, func(s *riverbeat.Schedule) { s.Enabled = false })
	b.change(t, s, func(s *riverbeat.Schedule) { s.Enabled = true })
	b.runs(t, s, "-")
	b.look(t)
	require.Equal(t, []string{"nightly schedule.failing", "nightly schedule.failing"}, b.events(t), "what was done about it has not helped")
	b.change(t, s, func(s *riverbeat.Schedule) { s.Enabled = false })
	b.change(t, s, func(s *riverbeat.Schedule) { s.Enabled = true })
	b.runs(t, s, "+")
	b.look(t)
	require.Len(t, b.events(t), 3, "who was told that it fails is told that it does no more")
}

func TestWhatWasNotToldIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.Alerts.On = []riverbeat.AlertEvent{} })
	b.runs(t, s, "--")
	b.look(t)
	require.Empty(t, b.events(t))
	b.change(t, s, func(s *riverbeat.Schedule) { s.Alerts.On = nil })
	b.look(t)
	require.Equal(t, []string{"nightly schedule.failing"}, b.events(t))
	require.Equal(t, "no such table", *message(t, b.told(t)[0]).Data.Run.Error)
}

func TestADefinitionThatHasNoAlertsAnyMore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.define(t, riverbeat.Alerts{URL: hook})
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.Alerts = riverbeat.Alerts{NoSuccessFor: time.Hour} })
	b.define(t, riverbeat.Alerts{})
	b.change(t, s, func(s *riverbeat.Schedule) { s.Enabled = false })
	b.change(t, s, func(s *riverbeat.Schedule) { s.Enabled, s.Description = true, "it can be changed all the same" })
	_, err := b.catalog.ChangeSchedule(t.Context(), s.ID, func(s *riverbeat.Schedule) error {
		s.Alerts.NoSuccessFor = 2 * time.Hour
		return nil
	})
	require.ErrorContains(t, err, "/alerts/url: is required")
}

func TestTheTaskOfAlertsIsNotForSchedules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.catalog.CreateSchedule(t.Context(), &riverbeat.Schedule{
		TaskName: riverbeat.AlertTask, CronExpression: "@daily", Timezone: "UTC", MaxWaiting: 1,
		ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpLatest,
		TaskParams: json.RawMessage(`{"url": "https://example.com", "message": {"stolen": {"$secret": "database"}}}`),
	})
	require.ErrorContains(t, err, "/task_name: is not for schedules")
}

func TestASuccessThatWaitsToBeTakenIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := b.schedule(t, func(s *riverbeat.Schedule) { s.Name, s.Alerts.AfterFailures = "other", 1000 })
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.Alerts.NoSuccessFor = time.Hour })
	b.look(t)
	b.exec(t, "INSERT INTO run_ends (schedule_id, task_name, run_id, succeeded, ended_at) SELECT $1, 'load', gen_random_uuid(), false, now() FROM generate_series(1, 1000)", other.ID)
	b.runs(t, s, "+")
	b.exec(t, "UPDATE alert_states SET since = since - interval '1 hour', due_at = due_at - interval '1 hour' WHERE schedule_id = $1", s.ID)
	b.look(t)
	b.look(t)
	require.Equal(t, []string{"other schedule.failing"}, b.events(t))
}

func TestAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.schedule(t, func(s *riverbeat.Schedule) { s.Alerts.NoSuccessFor = time.Hour })
	b.look(t)
	b.exec(t, "UPDATE alert_states SET since = since + interval '30 days', due_at = due_at + interval '30 days'")
	b.look(t)
	require.Equal(t, 1, b.count(t, "SELECT count(*) FROM alert_states WHERE due_at < now() + interval '61 minutes' AND since <= now()"))
}

func TestATaskWithManySchedules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `INSERT INTO schedules (name, task_name, cron_expression, timezone, enabled, description)
		SELECT 's' || i, 'load', '0 0 1 1 *', 'UTC', true, '' FROM generate_series(1, 2500) AS i`)
	own := b.schedule(t, nil)
	define := func(a riverbeat.Alerts) {
		b.define(t, a)
		for more := true; more; {
			var err error
			more, err = b.watcher().Look(t.Context())
			require.NoError(t, err)
		}
		require.Zero(t, b.count(t, "SELECT count(*) FROM alert_tasks"))
	}
	define(riverbeat.Alerts{URL: hook})
	require.Equal(t, 2501, b.count(t, "SELECT count(*) FROM alert_states WHERE due_at IS NULL"))
	define(riverbeat.Alerts{URL: hook, NoSuccessFor: time.Hour})
	require.Equal(t, 2501, b.count(t, "SELECT count(*) FROM alert_states WHERE due_at > now() + interval '50 minutes'"))
	b.exec(t, "UPDATE alert_states SET since = since - interval '1 hour'")
	define(riverbeat.Alerts{URL: hook, NoSuccessFor: time.Minute})
	require.Equal(t, 2501, b.count(t, "SELECT count(*) FROM runs WHERE trigger = 'alert'"))
	define(riverbeat.Alerts{})
	require.Equal(t, 1, b.count(t, "SELECT count(*) FROM alert_states"))
	require.Equal(t, 1, b.count(t, "SELECT count(*) FROM alert_states WHERE schedule_id = $1", own.ID))
}

// An edit of a definition and looks must not be in each other's way.
func TestEditsWhileItLooks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 30 {
		b.schedule(t, func(s *riverbeat.Schedule) { s.Name = fmt.Sprint(i) })
	}
	before := b.count(t, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
	done := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := b.watcher().Look(t.Context()); err != nil {
				t.Errorf("look: %v", err)
				return
			}
		}
	})
	for i := range 20 {
		b.define(t, riverbeat.Alerts{URL: hook, AfterFailures: i})
		page, _, err := b.catalog.ListSchedules(t.Context(), &postgres.ScheduleFilter{Sort: "name", Limit: 5})
		require.NoError(t, err)
		for _, s := range page {
			b.change(t, s, func(s *riverbeat.Schedule) { s.Enabled = !s.Enabled })
		}
	}
	close(done)
	looking.Wait()
	require.Equal(t, before, b.count(t, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))
}

// Whoever changes a schedule for long holds up nobody else's alerts, and keeps his.
func TestAnEditThatTakesLong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.define(t, riverbeat.Alerts{URL: hook})
	slow := b.schedule(t, func(s *riverbeat.Schedule) { s.Name, s.Alerts = "slow", riverbeat.Alerts{} })
	other := b.schedule(t, func(s *riverbeat.Schedule) { s.Name = "other" })
	b.look(t)
	b.runs(t, slow, "-")
	b.runs(t, other, "-")
	b.define(t, riverbeat.Alerts{})
	tx, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `UPDATE schedules SET alerts = '{"url": "https://example.com/mine"}' WHERE id = $1`, slow.ID)
	require.NoError(t, err)
	b.look(t)
	require.Equal(t, []string{"other schedule.failing"}, b.events(t))
	require.NoError(t, tx.Commit(t.Context()))
	b.look(t)
	require.Equal(t, []string{"other schedule.failing", "slow schedule.failing"}, b.events(t))
}

func TestRunsOfTheTaskOfBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, nil)
	run := b.runNow(t, s)
	b.change(t, s, func(s *riverbeat.Schedule) { s.TaskName = "else" })
	b.end(t, run, "discarded")
	b.look(t)
	require.Empty(t, b.events(t))
	require.Zero(t, b.count(t, "SELECT count(*) FROM run_ends"))
}

func TestTimeOutsideOfItsEndsDoesNotCount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ends, starts := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for name, change := range map[string]func(s *riverbeat.Schedule){
		"ended": func(s *riverbeat.Schedule) { s.EndsAt = &ends }, "starts": func(s *riverbeat.Schedule) { s.StartsAt = &starts },
	} {
		s := b.schedule(t, func(s *riverbeat.Schedule) { s.Name, s.Alerts.NoSuccessFor = name, time.Minute; change(s) })
		b.exec(t, "UPDATE alert_states SET since = since - interval '2 hours' WHERE schedule_id = $1", s.ID)
		b.look(t)
		b.change(t, s, func(s *riverbeat.Schedule) { s.StartsAt, s.EndsAt = nil, nil })
	}
	b.look(t)
	require.Empty(t, b.events(t))
	require.Equal(t, 2, b.count(t, "SELECT count(*) FROM alert_states WHERE due_at > now()"))
}

func TestADeletedScheduleIsForgotten(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, nil)
	b.runs(t, s, "-")
	require.NoError(t, b.catalog.DeleteSchedule(t.Context(), s.ID, riverbeat.Expected{}))
	b.look(t)
	require.Empty(t, b.events(t))
	require.Zero(t, b.count(t, "SELECT (SELECT count(*) FROM run_ends) + (SELECT count(*) FROM alert_states)"))
}

func TestWhoSeesToItDiesInBetween(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, nil)
	b.runs(t, s, "-")
	// It dies with its transaction, at the last statement of it that writes.
	b.exec(t, `CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$`)
	b.exec(t, "CREATE TRIGGER die AFTER INSERT ON runs FOR EACH ROW WHEN (NEW.trigger = 'alert') EXECUTE FUNCTION die()")
	_, err := b.watcher().Look(t.Context())
	require.Error(t, err)
	require.Empty(t, b.events(t))
	b.exec(t, "DROP TRIGGER die ON runs")
	b.look(t)
	b.look(t)
	require.Equal(t, []string{"nightly schedule.failing"}, b.events(t))
	require.Equal(t, 1, b.count(t, "SELECT count(*) FROM river_job WHERE args->>'task_name' = $1", riverbeat.AlertTask))
}

func TestManyNodesTellOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var schedules []*riverbeat.Schedule
	for i := range 20 {
		schedules = append(schedules, b.schedule(t, func(s *riverbeat.Schedule) {
			s.Name, s.Alerts.AfterFailures = fmt.Sprint(i), 3
		}))
	}
	done := make(chan struct{})
	var looking sync.WaitGroup
	for range 4 {
		w := b.watcher()
		looking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, err := w.Look(t.Context())
				if err != nil {
					t.Errorf("look: %v", err)
					return
				}
			}
		})
	}
	var ending sync.WaitGroup
	for _, s := range schedules {
		runs := make([]*riverbeat.Run, 0, 7)
		for range 7 {
			runs = append(runs, b.runNow(t, s))
		}
		ending.Go(func() {
			for i, run := range runs {
				state := "discarded"
				if i == 5 {
					state = "completed"
				}
				if _, err := b.Pool.Exec(t.Context(), "UPDATE river_job SET state = $2::text::river_job_state, finalized_at = now() WHERE id = $1", run.JobID, state); err != nil {
					t.Errorf("end: %v", err)
				}
			}
		})
	}
	ending.Wait()
	require.Eventually(t, func() bool { return b.count(t, "SELECT count(*) FROM run_ends") == 0 }, 20*time.Second, 5*time.Millisecond)
	close(done)
	looking.Wait()
	told := map[string][]string{}
	for _, run := range b.told(t) {
		told[run.ScheduleName] = append(told[run.ScheduleName], message(t, run).Type)
	}
	require.Len(t, told, len(schedules))
	for name, events := range told {
		require.ElementsMatch(t, []string{"schedule.failing", "schedule.recovered"}, events, name)
	}
}

func TestACopyTellsNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.runs(t, b.schedule(t, nil), "-")
	b.exec(t, "UPDATE installation SET system_identifier = system_identifier - 1")
	b.look(t)
	require.Empty(t, b.events(t))
	require.Equal(t, 1, b.count(t, "SELECT count(*) FROM run_ends"), "it is kept for when it is at home")
	b.exec(t, "UPDATE installation SET system_identifier = system_identifier + 1")
	b.look(t)
	require.Len(t, b.events(t), 1)
}

func TestThousandsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.Alerts.AfterFailures = 1000 })
	b.exec(t, "INSERT INTO run_ends (schedule_id, task_name, run_id, succeeded, ended_at) SELECT $1, 'load', gen_random_uuid(), false, now() FROM generate_series(1, 2500)", s.ID)
	looks := 0
	for more := true; more; looks++ {
		var err error
		more, err = b.watcher().Look(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, 3, looks)
	require.Equal(t, []string{"nightly schedule.failing"}, b.events(t), "its run is gone, and it is told all the same")
	require.Nil(t, message(t, b.told(t)[0]).Data.Run)
	require.Equal(t, 2500, b.count(t, "SELECT failures FROM report_alerts"))
}
