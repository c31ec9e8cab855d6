package catalog_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is a catalog on a database of its own, without anything that ticks.
type bundle struct {
	*pgtest.Database
	ledger  *ledger.Ledger
	catalog *catalog.Catalog
}

func setup(t *testing.T) *bundle {
	t.Helper()
	d := pgtest.DB(t)
	q, err := queue.New(d.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := ledger.New(q)
	return &bundle{Database: d, ledger: l, catalog: catalog.New(d.DB, l)}
}

// slept makes a schedule of every minute whose ticks of the last ten minutes
// nobody has decided.
func (b *bundle) slept(t *testing.T, change func(*riverbeat.Schedule)) *riverbeat.Schedule {
	t.Helper()
	s := &riverbeat.Schedule{
		TaskName: "echo", CronExpression: "* * * * *", Timezone: "UTC", Enabled: true,
		Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
		ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpAll, CatchUpWindow: time.Hour, MaxWaiting: 100,
	}
	if change != nil {
		change(s)
	}
	made, err := b.catalog.CreateSchedule(t.Context(), s)
	require.NoError(t, err)
	b.exec(t, `
UPDATE schedule_clocks
SET last_scheduled_for = date_trunc('minute', statement_timestamp()) - interval '10 minutes',
    next_run_at = date_trunc('minute', statement_timestamp()) - interval '9 minutes'
WHERE schedule_id = $1`, made.ID)
	return made
}

func (b *bundle) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	_, err := b.Pool.Exec(t.Context(), statement, args...)
	require.NoError(t, err)
}

func (b *bundle) runs(t *testing.T, id uuid.UUID) []*riverbeat.Run {
	t.Helper()
	var runs []*riverbeat.Run
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		var err error
		runs, _, err = tx.SearchRuns(t.Context(), &postgres.RunFilter{ScheduleID: &id, Limit: 100})
		return err
	}))
	return runs
}

func describe(text string) func(*riverbeat.Schedule) error {
	return func(s *riverbeat.Schedule) error {
		s.Description = text
		return nil
	}
}

func disable(s *riverbeat.Schedule) error {
	s.Enabled = false
	return nil
}

// requireOneGap is a schedule whose ticks are all accounted for as missed.
func (b *bundle) requireOneGap(t *testing.T, id uuid.UUID, reason riverbeat.Reason) {
	t.Helper()
	runs := b.runs(t, id)
	require.Len(t, runs, 1)
	require.Equal(t, riverbeat.Missed, runs[0].State)
	require.Equal(t, reason, runs[0].Reason)
	require.NotNil(t, runs[0].MissedCount)
	require.GreaterOrEqual(t, *runs[0].MissedCount, 10)
}

func TestAChangeSettlesWhatIsDueAsItWas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.slept(t, nil)
	changed, err := b.catalog.ChangeSchedule(t.Context(), s.ID, func(s *riverbeat.Schedule) error {
		s.Name, s.CronExpression, s.TaskParams = "changed", "@every 1s", json.RawMessage(`{"changed": true}`)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, changed.Version)
	runs := b.runs(t, s.ID)
	require.GreaterOrEqual(t, len(runs), 10)
	for _, run := range runs {
		require.Equal(t, s.Name, run.ScheduleName)
		require.Equal(t, 1, run.ScheduleVersion)
		require.JSONEq(t, "{}", string(run.TaskParams))
	}
	require.True(t, changed.NextRunAt.After(runs[0].ScheduledFor))

	_, err = b.catalog.ChangeSchedule(t.Context(), s.ID, describe(""))
	require.NoError(t, err)
	require.Len(t, b.runs(t, s.ID), len(runs), "what changes nothing settles nothing")
}

func TestADeletedScheduleLeavesItsHistory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.slept(t, func(s *riverbeat.Schedule) { s.ExecutionPolicy = riverbeat.Queue })
	require.NoError(t, b.catalog.DeleteSchedule(t.Context(), s.ID, riverbeat.Expected{}))
	runs := b.runs(t, s.ID)
	require.GreaterOrEqual(t, len(runs), 10)
	for _, run := range runs[:len(runs)-1] {
		require.Equal(t, riverbeat.Cancelled, run.State)
		require.Equal(t, riverbeat.ScheduleDeleted, run.Reason)
	}
	require.Equal(t, riverbeat.Queued, runs[len(runs)-1].State, "what has its job goes on")
	_, err := b.catalog.Schedule(t.Context(), s.ID)
	require.Equal(t, riverbeat.NotFound, riverbeat.KindOf(err))
}

func TestAStoppedScheduleCanBeChangedDisabledAndDeleted(t *testing.T) {
	t.Parallel()
	for _, why := range []struct {
		name string
		stop func(*testing.T, *bundle)
	}{
		{"a queue that River refuses", func(t *testing.T, b *bundle) {
			t.Helper()
			b.exec(t, "UPDATE task_definitions SET queue = 'no queue'")
		}},
		{"rows that the database refuses", func(t *testing.T, b *bundle) {
			t.Helper()
			b.exec(t, "ALTER TABLE runs ADD CONSTRAINT test_refuses CHECK (state = 'missed')")
		}},
	} {
		for _, what := range []struct {
			name string
			do   func(*testing.T, *bundle, uuid.UUID) error
		}{
			{"change", func(t *testing.T, b *bundle, id uuid.UUID) error {
				t.Helper()
				changed, err := b.catalog.ChangeSchedule(t.Context(), id, describe("put right"))
				if err == nil {
					require.Empty(t, changed.LastError)
					require.NotNil(t, changed.NextRunAt)
				}
				return err
			}},
			{"disable", func(t *testing.T, b *bundle, id uuid.UUID) error {
				t.Helper()
				_, err := b.catalog.ChangeSchedule(t.Context(), id, disable)
				return err
			}},
			{"delete", func(t *testing.T, b *bundle, id uuid.UUID) error {
				t.Helper()
				return b.catalog.DeleteSchedule(t.Context(), id, riverbeat.Expected{})
			}},
		} {
			t.Run(why.name+", "+what.name, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				_, err := b.catalog.CreateTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
					TaskName: "echo", ParameterSchema: json.RawMessage("{}"), Executor: riverbeat.Executor{Kind: "go"},
					Queue: "default", Priority: 1, MaxAttempts: 1,
				}, false)
				require.NoError(t, err)
				s := b.slept(t, nil)
				why.stop(t, b)
				b.exec(t, "UPDATE schedule_clocks SET next_run_at = NULL, retry_at = statement_timestamp() + interval '1 hour'")
				b.exec(t, "UPDATE schedules SET last_error = 'stopped'")
				require.NoError(t, what.do(t, b, s.ID))
				b.requireOneGap(t, s.ID, riverbeat.OutsideWindow)
			})
		}
	}
}

// Where no run is kept any more, no gap is. It keeps nobody from anything.
func TestAScheduleOfAWeekThatGoesCanBeChangedDisabledAndDeleted(t *testing.T) {
	t.Parallel()
	for _, state := range []postgres.WeekState{postgres.WeekSealed, postgres.WeekLeaving, postgres.WeekDetached} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			at := time.Now().UTC().AddDate(0, 0, -140)
			var stopped []*riverbeat.Schedule
			for range 4 {
				stopped = append(stopped, b.slept(t, func(s *riverbeat.Schedule) {
					s.CronExpression = fmt.Sprintf("0 12 %d %d *", at.Day(), at.Month())
				}))
			}
			b.exec(t, "UPDATE schedule_clocks SET next_run_at = NULL, retry_at = now(), last_scheduled_for = $1", at.AddDate(0, 0, -1))
			b.exec(t, "UPDATE schedules SET last_error = 'stopped'")
			b.TakeOut(t, at, state)

			changed, err := b.catalog.ChangeSchedule(t.Context(), stopped[0].ID, describe("another"))
			require.NoError(t, err)
			require.True(t, changed.NextRunAt.After(time.Now()))
			_, err = b.catalog.ChangeSchedule(t.Context(), stopped[1].ID, disable)
			require.NoError(t, err)
			require.NoError(t, b.catalog.DeleteSchedule(t.Context(), stopped[2].ID, riverbeat.Expected{}))
			b.exec(t, "UPDATE installation SET paused_at = now()")
			require.NoError(t, b.catalog.DeleteSchedule(t.Context(), stopped[3].ID, riverbeat.Expected{}))
			for _, s := range stopped {
				require.Empty(t, b.runs(t, s.ID))
			}
		})
	}
}

func TestAScheduleThatBreaksTheRulesCanBeDisabled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	lost := b.slept(t, nil)
	b.exec(t, "UPDATE schedules SET timezone = 'Atlantis/Capital' WHERE id = $1", lost.ID)
	_, err := b.catalog.ChangeSchedule(t.Context(), lost.ID, describe("what is wrong stays wrong"))
	require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err))
	changed, err := b.catalog.ChangeSchedule(t.Context(), lost.ID, disable)
	require.NoError(t, err)
	require.False(t, changed.Enabled)
	require.Nil(t, changed.NextRunAt)
	runs := b.runs(t, lost.ID)
	require.Len(t, runs, 1)
	require.Equal(t, riverbeat.Missed, runs[0].State)
	require.Nil(t, runs[0].MissedCount, "nobody can count them")
	_, err = b.catalog.ChangeSchedule(t.Context(), lost.ID, func(s *riverbeat.Schedule) error {
		s.Enabled = true
		return nil
	})
	require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err))
}

func TestAChangeDuringAPauseRunsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.slept(t, nil)
	b.exec(t, "UPDATE installation SET paused_at = statement_timestamp()")
	_, err := b.catalog.ChangeSchedule(t.Context(), s.ID, describe("meanwhile"))
	require.NoError(t, err)
	b.requireOneGap(t, s.ID, riverbeat.Paused)
}

func TestOneConnectionIsEnough(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.slept(t, nil)
	b.exec(t, "UPDATE schedule_clocks SET last_scheduled_for = last_scheduled_for - interval '60 days'")
	b.exec(t, "UPDATE schedules SET cron_expression = '0 0 */5 * *', catch_up_window_s = 50 * 24 * 3600")
	cfg := b.Config()
	cfg.MaxConns = 1
	pool, err := postgres.NewPool(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	narrow := catalog.New(postgres.New(pool, pgtest.Schema), b.ledger)
	_, err = narrow.ChangeSchedule(t.Context(), s.ID, describe("partitions are made for what is settled"))
	require.NoError(t, err)
	require.NotEmpty(t, b.runs(t, s.ID))
}
