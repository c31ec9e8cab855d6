package tick_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/history"
	"riverbeat/internal/installation"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is what a test of the Ticker works with: a database of its own,
// without anything that works.
type bundle struct {
	*pgtest.Database
	ledger *ledger.Ledger
	ticker *tick.Ticker
}

func setup(t testing.TB) *bundle {
	t.Helper()
	d := pgtest.DB(t)
	q, err := queue.New(d.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	b := &bundle{Database: d, ledger: ledger.New(q)}
	b.ticker = b.newTicker()
	return b
}

func (b *bundle) newTicker() *tick.Ticker {
	return tick.New(b.DB, b.ledger, slog.New(slog.DiscardHandler))
}

// schedule writes a schedule whose mark lies ago in the past. Unless change says
// otherwise it ticks once a minute, now half a minute ago, so that a slow test
// meets no other tick.
func (b *bundle) schedule(t testing.TB, ago time.Duration, change func(*riverbeat.Schedule)) *riverbeat.Schedule {
	t.Helper()
	s := &riverbeat.Schedule{
		Name: "nightly", TaskName: "echo", Timezone: "UTC", Enabled: true,
		Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
		ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpLatest,
		CatchUpWindow: time.Hour, MaxWaiting: 100,
	}
	var made *riverbeat.Schedule
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		now, err := tx.Now(t.Context())
		require.NoError(t, err)
		s.CronExpression = fmt.Sprintf("%d * * * * *", now.Add(-30*time.Second).Second())
		if change != nil {
			change(s)
		}
		mark := now.Add(-ago)
		next := mark.Add(time.Millisecond)
		if r, err := riverbeat.ParseRecurrence(s.CronExpression, s.Timezone); err == nil {
			s.NextRunAt = s.NextTick(r, mark)
		} else {
			s.NextRunAt = &next
		}
		made, err = tx.InsertSchedule(t.Context(), s, mark)
		return err
	}))
	return made
}

func (b *bundle) sweep(t *testing.T) {
	t.Helper()
	_, err := b.ticker.Sweep(t.Context())
	require.NoError(t, err)
}

// runs reads the runs of a schedule, oldest first.
func (b *bundle) runs(t *testing.T, id uuid.UUID) []*riverbeat.Run {
	t.Helper()
	var list []*riverbeat.Run
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		page, _, err := tx.SearchRuns(t.Context(), &postgres.RunFilter{ScheduleID: &id, Limit: 5000})
		for i := len(page) - 1; i >= 0; i-- {
			list = append(list, page[i])
		}
		return err
	}))
	return list
}

func (b *bundle) read(t *testing.T, id uuid.UUID) *riverbeat.Schedule {
	t.Helper()
	var s *riverbeat.Schedule
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		var err error
		s, err = tx.Schedule(t.Context(), id)
		return err
	}))
	return s
}

func (b *bundle) count(t *testing.T, query string, args ...any) int {
	t.Helper()
	var n int
	require.NoError(t, b.Pool.QueryRow(t.Context(), query, args...).Scan(&n))
	return n
}

func (b *bundle) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	_, err := b.Pool.Exec(t.Context(), statement, args...)
	require.NoError(t, err)
}

// define gives a task a definition that takes all parameters.
func (b *bundle) define(t *testing.T, task string) {
	t.Helper()
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		_, err := tx.InsertTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
			TaskName: task, ParameterSchema: json.RawMessage("{}"),
			Executor: riverbeat.Executor{Kind: "go"}, Queue: "default", Priority: 1, MaxAttempts: 3,
		})
		return err
	}))
}

func TestADueTickBecomesARunWithAJob(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, time.Minute, nil)
	b.sweep(t)

	runs := b.runs(t, s.ID)
	require.Len(t, runs, 1)
	run := runs[0]
	require.Equal(t, riverbeat.Queued, run.State)
	require.Equal(t, riverbeat.TriggerSchedule, run.Trigger)
	require.Zero(t, run.ScheduledFor.Nanosecond())
	at, ok := riverbeat.RunTime(run.ID)
	require.True(t, ok)
	require.Equal(t, run.ScheduledFor, at, "the id tells the time")
	require.NotNil(t, run.JobID)
	require.Equal(t, 1, b.count(t, "SELECT count(*) FROM river_job WHERE id = $1 AND args ->> 'run_id' = $2", *run.JobID, run.ID.String()))

	next := b.read(t, s.ID).NextRunAt
	require.NotNil(t, next)
	require.Equal(t, run.ScheduledFor.Add(time.Minute), *next)
	b.sweep(t)
	require.Len(t, b.runs(t, s.ID), 1, "a sweep with nothing due does nothing")
}

func TestTwoTickersDecideEachTickOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const schedules = 1000
	for i := range schedules {
		b.schedule(t, 2*time.Minute, func(s *riverbeat.Schedule) { s.Name = fmt.Sprint(i) })
	}
	done := make(chan error, 3)
	for range cap(done) {
		ticker := b.newTicker()
		go func() {
			_, err := ticker.Sweep(t.Context())
			done <- err
		}()
	}
	for range cap(done) {
		require.NoError(t, <-done)
	}
	b.sweep(t)
	require.Equal(t, schedules, b.count(t, "SELECT count(DISTINCT schedule_id) FROM runs"))
	require.Zero(t, b.count(t, "SELECT count(*) - count(DISTINCT (schedule_id, scheduled_for)) FROM runs"))
	require.Zero(t, b.count(t, `
SELECT count(*)
FROM runs
FULL JOIN river_job AS j ON j.id = runs.job_id
WHERE runs.job_id IS NULL OR j.id IS NULL`), "each run has its job, each job its run")
	require.Zero(t, b.count(t, "SELECT count(*) FROM schedule_clocks WHERE next_run_at <= statement_timestamp()"))
}

func TestAnUnplannableScheduleStopsAloneAndSaysWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := b.schedule(t, time.Minute, func(s *riverbeat.Schedule) { s.Timezone = "Atlantis/Capital" })
	good := b.schedule(t, time.Minute, nil)
	b.sweep(t)

	require.Len(t, b.runs(t, good.ID), 1)
	require.Empty(t, b.runs(t, bad.ID))
	stopped := b.read(t, bad.ID)
	require.Contains(t, stopped.LastError, "Atlantis/Capital")
	require.Nil(t, stopped.NextRunAt)

	// The zone comes back, and an hour passes.
	_, err := b.Pool.Exec(t.Context(), "UPDATE schedules SET timezone = 'UTC' WHERE id = $1", bad.ID)
	require.NoError(t, err)
	_, err = b.Pool.Exec(t.Context(), "UPDATE schedule_clocks SET retry_at = statement_timestamp() WHERE schedule_id = $1", bad.ID)
	require.NoError(t, err)
	b.sweep(t)
	require.Empty(t, b.read(t, bad.ID).LastError)
	require.NotEmpty(t, b.runs(t, bad.ID))
	require.NotNil(t, b.read(t, bad.ID).NextRunAt)
}

func TestAScheduleWhoseRowsAreRefusedStopsAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.Pool.Exec(t.Context(), "ALTER TABLE runs ADD CONSTRAINT test_refuses CHECK (schedule_name <> 'culprit')")
	require.NoError(t, err)
	var good []*riverbeat.Schedule
	var bad *riverbeat.Schedule
	for i := range 21 {
		s := b.schedule(t, time.Minute, func(s *riverbeat.Schedule) {
			s.ExecutionPolicy = riverbeat.Queue
			if i == 13 {
				s.Name = "culprit"
			}
		})
		if i == 13 {
			bad = s
		} else {
			good = append(good, s)
		}
	}
	b.sweep(t)
	for _, s := range good {
		require.Len(t, b.runs(t, s.ID), 1)
	}
	require.Empty(t, b.runs(t, bad.ID))
	stopped := b.read(t, bad.ID)
	require.NotEmpty(t, stopped.LastError)
	require.NotContains(t, stopped.LastError, "test_refuses", "no driver's text")
	require.Equal(t, 1, b.count(t, "SELECT count(*) FROM river_job"), "one job for the key, the others wait")
}

// A schedule that was stopped owes a gap in a week that is on its way out. Only it waits
// for the week.
func TestAScheduleOfAWeekThatGoesStopsAlone(t *testing.T) {
	t.Parallel()
	for _, state := range []postgres.WeekState{postgres.WeekSealed, postgres.WeekLeaving, postgres.WeekDetached} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			const ago = 140 * 24 * time.Hour
			at := time.Now().UTC().Add(-ago)
			rare := b.schedule(t, ago+24*time.Hour, func(s *riverbeat.Schedule) {
				s.CronExpression = fmt.Sprintf("0 12 %d %d *", at.Day(), at.Month())
			})
			// Its clock stood with another one, of a week that is missing and can be made.
			other := b.schedule(t, ago, func(s *riverbeat.Schedule) {
				s.CronExpression = fmt.Sprintf("0 12 %d %d *", at.AddDate(0, 0, 14).Day(), at.AddDate(0, 0, 14).Month())
			})
			good := b.schedule(t, time.Minute, nil)
			retry := func() {
				b.exec(t, "UPDATE schedule_clocks SET next_run_at = NULL, retry_at = now() WHERE schedule_id <> $1", good.ID)
			}
			retry()
			drop := b.TakeOut(t, at, state)
			b.sweep(t)
			require.Len(t, b.runs(t, good.ID), 1)
			require.Len(t, b.runs(t, other.ID), 1)
			require.Empty(t, b.runs(t, rare.ID))
			stopped := b.read(t, rare.ID)
			require.Contains(t, stopped.LastError, "about to be dropped")
			require.Nil(t, stopped.NextRunAt)

			// The week is gone, and an hour passes.
			drop()
			retry()
			b.sweep(t)
			runs := b.runs(t, rare.ID)
			require.Len(t, runs, 1)
			require.Equal(t, riverbeat.Missed, runs[0].State)
			require.Empty(t, b.read(t, rare.ID).LastError)
			require.NotNil(t, b.read(t, rare.ID).NextRunAt)
		})
	}
}

func TestAMissingPartitionIsMadeAndStopsNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 60*24*time.Hour, func(s *riverbeat.Schedule) {
		s.CronExpression, s.CatchUpWindow = "0 0 1 * *", 100*24*time.Hour
	})
	b.sweep(t)
	runs := b.runs(t, s.ID)
	require.NotEmpty(t, runs)
	require.Equal(t, riverbeat.TriggerCatchUp, runs[len(runs)-1].Trigger)
	require.Empty(t, b.read(t, s.ID).LastError)
}

func TestAPausedInstallationClaimsNothingAndLosesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, time.Minute, nil)
	_, err := b.Pool.Exec(t.Context(), "UPDATE installation SET paused_at = statement_timestamp()")
	require.NoError(t, err)
	b.sweep(t)
	require.Empty(t, b.runs(t, s.ID))
	_, err = b.Pool.Exec(t.Context(), "UPDATE installation SET paused_at = NULL")
	require.NoError(t, err)
	b.sweep(t)
	require.Len(t, b.runs(t, s.ID), 1)
}

func TestCatchUp(t *testing.T) {
	t.Parallel()
	const slept = 10 * time.Minute
	perMinute := func(state riverbeat.State, trigger riverbeat.Trigger) func([]*riverbeat.Run) int {
		return func(runs []*riverbeat.Run) int {
			n := 0
			for _, r := range runs {
				if r.State == state && r.Trigger == trigger {
					n++
				}
			}
			return n
		}
	}
	for _, test := range []struct {
		name                        string
		catchUp                     riverbeat.CatchUp
		window                      time.Duration
		caughtUp, waiting, gapCount int
	}{
		{"latest runs the newest and records the rest as one gap", riverbeat.CatchUpLatest, time.Hour, 1, 0, 8},
		{"none records all as one gap", riverbeat.CatchUpNone, time.Hour, 0, 0, 9},
		{"all runs each, one after another", riverbeat.CatchUpAll, time.Hour, 1, 8, 0},
		{"all within a window leaves a gap before it", riverbeat.CatchUpAll, slept / 2, 1, 3, 5},
		{"latest outside its window records all", riverbeat.CatchUpLatest, time.Second, 0, 0, 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.schedule(t, slept, func(s *riverbeat.Schedule) {
				s.CatchUp, s.CatchUpWindow = test.catchUp, test.window
			})
			b.sweep(t)
			runs := b.runs(t, s.ID)
			require.Equal(t, 1, perMinute(riverbeat.Queued, riverbeat.TriggerSchedule)(runs), "the newest tick is on time")
			require.Equal(t, test.caughtUp, perMinute(riverbeat.Queued, riverbeat.TriggerCatchUp)(runs))
			require.Equal(t, test.waiting, perMinute(riverbeat.Waiting, riverbeat.TriggerCatchUp)(runs))
			gaps := 0
			for _, r := range runs {
				if r.State == riverbeat.Missed {
					gaps++
					require.NotNil(t, r.MissedCount)
					require.Equal(t, test.gapCount, *r.MissedCount)
					require.Equal(t, *r.MissedUntil, r.ScheduledFor)
					require.Equal(t, time.Duration(test.gapCount-1)*time.Minute, r.MissedUntil.Sub(*r.MissedFrom))
				}
			}
			require.Equal(t, test.gapCount > 0, gaps == 1)
		})
	}
}

func TestAScheduleThatSleptAWeekOfSecondsLeavesOneGap(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 7*24*time.Hour, func(s *riverbeat.Schedule) { s.CronExpression = "* * * * * *" })
	b.sweep(t)
	runs := b.runs(t, s.ID)
	require.Less(t, len(runs), 80)
	require.Equal(t, riverbeat.Missed, runs[0].State)
	require.Nil(t, runs[0].MissedCount, "more than are counted")
	for i := 2; i < len(runs); i++ {
		require.Equal(t, time.Second, runs[i].ScheduledFor.Sub(runs[i-1].ScheduledFor))
	}
}

func TestInvalidParametersFailTheRunAndNotTheSchedule(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		_, err := tx.InsertTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
			TaskName: "echo", ParameterSchema: json.RawMessage(`{"type":"object","required":["day"]}`),
			Executor: riverbeat.Executor{Kind: "go"}, Queue: "default", Priority: 1, MaxAttempts: 3,
		})
		return err
	}))
	s := b.schedule(t, time.Minute, nil)
	b.sweep(t)
	runs := b.runs(t, s.ID)
	require.Len(t, runs, 1)
	require.Equal(t, riverbeat.Failed, runs[0].State)
	require.Equal(t, riverbeat.InvalidParams, runs[0].Reason)
	require.Contains(t, runs[0].Error, "day")
	require.Nil(t, runs[0].JobID)
	require.NotNil(t, b.read(t, s.ID).NextRunAt)
}

func TestRunRunsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, time.Minute, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.ticker.Run(ctx)
	}()
	require.Eventually(t, func() bool { return len(b.runs(t, s.ID)) == 1 }, 10*time.Second, 10*time.Millisecond)
	cancel()
	<-done
}

func TestAPausedInstallationTriesNoStoppedScheduleAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, time.Minute, nil)
	b.exec(t, "UPDATE schedule_clocks SET next_run_at = NULL, retry_at = statement_timestamp()")
	b.exec(t, "UPDATE installation SET paused_at = statement_timestamp()")
	b.sweep(t)
	require.Empty(t, b.runs(t, s.ID))
	b.exec(t, "UPDATE installation SET paused_at = NULL")
	b.sweep(t)
	require.Len(t, b.runs(t, s.ID), 1)
}

func TestAScheduleDisabledInPsqlRests(t *testing.T) {
	t.Parallel()
	b := setup(t)
	disabled := b.schedule(t, time.Minute, nil)
	good := b.schedule(t, time.Minute, nil)
	b.exec(t, "UPDATE schedules SET enabled = false WHERE id = $1", disabled.ID)
	b.sweep(t) // and comes to an end
	require.Empty(t, b.runs(t, disabled.ID))
	require.Nil(t, b.read(t, disabled.ID).NextRunAt)
	require.Len(t, b.runs(t, good.ID), 1)

	b.exec(t, "UPDATE schedules SET enabled = true WHERE id = $1", disabled.ID)
	b.exec(t, "UPDATE schedule_clocks SET retry_at = statement_timestamp() WHERE schedule_id = $1", disabled.ID)
	b.sweep(t)
	require.NotNil(t, b.read(t, disabled.ID).NextRunAt)
}

func TestALineThatCannotMoveStopsNoOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, task := range []string{"a", "b", "c"} {
		b.define(t, task)
		b.schedule(t, time.Minute, func(s *riverbeat.Schedule) {
			s.TaskName, s.CronExpression, s.ExecutionPolicy = task, "@every 30s", riverbeat.Queue
		})
	}
	b.sweep(t)
	waiting := b.count(t, "SELECT count(*) FROM runs WHERE state = 'waiting'")
	require.GreaterOrEqual(t, waiting, 3)
	// Lines behind nothing, and a queue that River refuses.
	b.exec(t, "UPDATE task_definitions SET queue = 'no queue' WHERE task_name = 'b'")
	b.exec(t, "UPDATE river_job SET state = 'completed', finalized_at = statement_timestamp()")
	b.exec(t, "UPDATE schedule_clocks SET next_run_at = clock_timestamp() + interval '500 milliseconds'")
	next, err := b.ticker.Sweep(t.Context())
	require.ErrorContains(t, err, "no queue")
	require.Less(t, next, tick.SweepEvery, "the next tick is waited for all the same")
	for task, jobs := range map[string]int{"a": 1, "b": 0, "c": 1} {
		require.Equal(t, jobs, b.count(t, "SELECT count(*) FROM runs WHERE task_name = $1 AND state = 'queued'", task), task)
	}
}

func TestInvalidParametersShowAtTheScheduleUntilTheyAreValid(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.define(t, "echo")
	s := b.schedule(t, time.Minute, nil)
	b.exec(t, `UPDATE task_definitions SET parameter_schema = '{"required": ["day"]}', version = version + 1`)
	b.sweep(t)
	broken := b.read(t, s.ID)
	require.Contains(t, broken.LastError, "day")
	require.NotNil(t, broken.NextRunAt, "it goes on ticking")
	b.exec(t, `UPDATE task_definitions SET parameter_schema = '{}', version = version + 1`)
	// As if that tick were still to come.
	b.exec(t, "DELETE FROM runs")
	b.exec(t, `
UPDATE schedule_clocks
SET last_scheduled_for = last_scheduled_for - interval '1 minute', next_run_at = last_scheduled_for`)
	b.sweep(t)
	require.Empty(t, b.read(t, s.ID).LastError)
}

func TestABacklogLargerThanABatchIsDecidedInTurn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const schedules, slept = 4, 900 * time.Second
	for i := range schedules {
		b.schedule(t, slept, func(s *riverbeat.Schedule) {
			s.Name, s.CronExpression, s.CatchUp = fmt.Sprint(i), "* * * * * *", riverbeat.CatchUpAll
			if i%2 == 1 {
				s.ExecutionPolicy = riverbeat.Queue
			}
		})
	}
	b.sweep(t)
	// No tick is missing, none is there twice, none is a gap.
	require.Zero(t, b.count(t, `
SELECT count(*)
FROM (
    SELECT scheduled_for - lag(scheduled_for) OVER (PARTITION BY schedule_id ORDER BY scheduled_for) AS step
    FROM runs
) AS steps
WHERE step <> interval '1 second'`))
	require.Zero(t, b.count(t, "SELECT count(*) FROM runs WHERE state = 'missed'"))
	require.GreaterOrEqual(t, b.count(t, "SELECT count(*) FROM runs"), schedules*int(slept/time.Second))
	require.Equal(t, 2, b.count(t, "SELECT count(DISTINCT lock_key) FROM runs WHERE trigger = 'catch_up' AND execution_policy = 'allow'"), "a chain each")
	require.Equal(t, 1, b.count(t, "SELECT count(DISTINCT lock_key) FROM runs WHERE execution_policy = 'queue'"), "the same arguments, the same line")
	require.Equal(t, 3, b.count(t, "SELECT count(*) FROM river_job WHERE args ->> 'lock_key' IS NOT NULL"), "one job per chain and key")
}

func TestOneConnectionIsEnough(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 30*24*time.Hour, func(s *riverbeat.Schedule) { s.CronExpression, s.CatchUpWindow = "0 0 */5 * *", 40*24*time.Hour })
	cfg := b.Config()
	cfg.MaxConns = 1
	pool, err := postgres.NewPool(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	ticker := tick.New(postgres.New(pool, pgtest.Schema), b.ledger, slog.New(slog.DiscardHandler))
	_, err = ticker.Sweep(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, b.runs(t, s.ID))
}

func TestAPartitionThatWasDroppedIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.schedule(t, time.Minute, nil)
	b.sweep(t)
	b.exec(t, `
DO $$
BEGIN
    EXECUTE (SELECT string_agg(format('DROP TABLE %s', inhrelid::regclass), ';') FROM pg_inherits WHERE inhparent = 'runs'::regclass);
END
$$`)
	s := b.schedule(t, time.Minute, nil)
	b.sweep(t)
	require.Len(t, b.runs(t, s.ID), 1)
}

// A schedule in shadow has all its ticks in the ledger, and nothing of them in River; what a
// person asks for runs.
func TestAScheduleInShadowTicksAndRunsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, policy := range []riverbeat.Policy{riverbeat.Allow, riverbeat.Skip, riverbeat.Queue} {
		s := b.schedule(t, 5*time.Minute, func(s *riverbeat.Schedule) {
			s.Shadow, s.ExecutionPolicy, s.CatchUp = true, policy, riverbeat.CatchUpAll
			s.TaskParams = json.RawMessage(`{"policy": "` + string(policy) + `"}`)
		})
		b.sweep(t)
		runs := b.runs(t, s.ID)
		require.Len(t, runs, 5)
		for _, r := range runs {
			require.Equal(t, riverbeat.Skipped, r.State)
			require.Equal(t, riverbeat.InShadow, r.Reason)
			require.Nil(t, r.JobID)
			require.NotNil(t, r.FinishedAt)
		}
		asked, err := history.New(b.DB, b.ledger).RunNow(t.Context(), s.ID, history.Overrides{})
		require.NoError(t, err)
		require.Equal(t, riverbeat.Queued, asked.State)
	}
	require.Equal(t, 3, b.count(t, "SELECT count(*) FROM river_job"))
}

func (b *bundle) set(t *testing.T, feature riverbeat.Feature, rollout riverbeat.Rollout) {
	t.Helper()
	_, err := installation.New(b.DB).SetFeature(t.Context(), feature, rollout)
	require.NoError(t, err)
}

func TestTicksGoByTheFeatures(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, riverbeat.FeatureCatchUp, riverbeat.Off)
	s := b.schedule(t, 5*time.Minute, func(s *riverbeat.Schedule) { s.CatchUp = riverbeat.CatchUpAll })
	b.sweep(t)
	runs := b.runs(t, s.ID)
	require.Len(t, runs, 2, "a gap, and the tick that is on time")
	require.Equal(t, riverbeat.Missed, runs[0].State)
	require.Equal(t, riverbeat.Queued, runs[1].State)

	// Half of the lock keys, and always the same ones.
	b.set(t, riverbeat.FeatureExecutionPolicy, 50)
	var schedules []*riverbeat.Schedule
	for i := range 40 {
		schedules = append(schedules, b.schedule(t, 70*time.Second, func(s *riverbeat.Schedule) {
			s.ExecutionPolicy, s.TaskParams = riverbeat.Skip, json.RawMessage(fmt.Sprintf(`{"n": %d}`, i))
		}))
	}
	b.sweep(t)
	keyed := 0
	for _, s := range schedules {
		runs := b.runs(t, s.ID)
		again, err := history.New(b.DB, b.ledger).RunNow(t.Context(), s.ID, history.Overrides{})
		require.NoError(t, err)
		last := runs[len(runs)-1]
		require.Equal(t, last.LockKey, again.LockKey)
		if last.LockKey == "" {
			require.Equal(t, riverbeat.Queued, again.State)
			continue
		}
		keyed++
		require.Equal(t, riverbeat.Skipped, again.State)
	}
	require.InDelta(t, 20, keyed, 12)
}
