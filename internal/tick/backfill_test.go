package tick_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// begin begins a backfill of the ticks of ten days, one a day at 12:00, of which the
// first is on the first of March.
func (b *bundle) begin(t *testing.T, id uuid.UUID, change func(*riverbeat.Backfill)) *riverbeat.Backfill {
	t.Helper()
	given := riverbeat.Backfill{
		From: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), To: time.Date(2026, 3, 11, 12, 0, 0, 0, time.UTC),
	}
	if change != nil {
		change(&given)
	}
	made, err := history.New(b.DB, b.ledger).Backfill(pgtest.As(t.Context(), "ada"), id, given)
	require.NoError(t, err)
	return made
}

func (b *bundle) backfill(t *testing.T, id uuid.UUID) *riverbeat.Backfill {
	t.Helper()
	read, err := history.New(b.DB, b.ledger).ReadBackfill(t.Context(), id)
	require.NoError(t, err)
	return read
}

// serve makes a node that lives and works so many runs at once.
func (b *bundle) serve(t *testing.T, workers int) {
	t.Helper()
	b.exec(t, "DELETE FROM nodes")
	b.exec(t, "INSERT INTO nodes (id, version, queues, last_seen_at) VALUES (gen_random_uuid(), '', jsonb_build_object('default', $1::int), now() + interval '1 hour')", workers)
}

// work ends all jobs that there are.
func (b *bundle) work(t *testing.T) {
	t.Helper()
	b.exec(t, "UPDATE river_job SET state = 'running', attempt = 1 WHERE state = 'available'")
	b.exec(t, "UPDATE river_job SET state = 'completed', finalized_at = now() WHERE state = 'running'")
}

func daily(s *riverbeat.Schedule) { s.CronExpression = "0 12 * * *" }

func TestABackfillRunsEachTickAtItsPace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 0, daily)
	next := b.read(t, s.ID).NextRunAt
	b.serve(t, 8)
	made := b.begin(t, s.ID, nil)
	require.Equal(t, 10, made.Total)
	require.Equal(t, riverbeat.BackfillRunning, made.State)
	require.Equal(t, "ada", made.RequestedBy)
	for step, want := range []int{4, 8, 10} {
		require.NoError(t, b.ticker.Backfill(t.Context()))
		require.NoError(t, b.ticker.Backfill(t.Context()), "there is no room: half of the workers")
		read := b.backfill(t, made.ID)
		require.Equal(t, want, read.Decided)
		require.Len(t, b.runs(t, s.ID), want)
		require.Equal(t, want-4*step, read.Runs[riverbeat.Queued])
		b.work(t)
	}
	require.NoError(t, b.ticker.Backfill(t.Context()))
	done := b.backfill(t, made.ID)
	require.Equal(t, riverbeat.BackfillFinished, done.State)
	require.NotNil(t, done.FinishedAt)
	require.Equal(t, map[riverbeat.State]int{riverbeat.Succeeded: 10}, done.Runs)
	for i, r := range b.runs(t, s.ID) {
		require.Equal(t, time.Date(2026, 3, 1+i, 12, 0, 0, 0, time.UTC), r.ScheduledFor)
		require.Equal(t, riverbeat.TriggerBackfill, r.Trigger)
		require.Equal(t, made.ID, *r.BackfillID)
		require.Equal(t, "ada", r.RequestedBy)
	}
	require.Equal(t, 10, b.count(t, "SELECT count(*) FROM river_job WHERE priority = 4"), "behind all ticks")
	require.Equal(t, next, b.read(t, s.ID).NextRunAt, "it moves no clock")
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.Len(t, b.runs(t, s.ID), 10)
}

// Whoever dies leaves a batch undecided or decided: others go on with the next tick.
func TestABackfillGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 0, daily)
	b.serve(t, 4)
	made := b.begin(t, s.ID, nil)
	// Many at once, each of which may be told that its answer is lost.
	deadline := time.Now().Add(time.Minute)
	for b.backfill(t, made.ID).State == riverbeat.BackfillRunning {
		require.True(t, time.Now().Before(deadline))
		var nodes sync.WaitGroup
		for i := range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+5*i)*time.Millisecond)
			nodes.Go(func() {
				defer cancel()
				_ = b.newTicker().Backfill(ctx)
			})
		}
		nodes.Wait()
		require.LessOrEqual(t, b.count(t, "SELECT count(*) FROM runs WHERE state = 'queued'"), 2)
		b.work(t)
		require.NoError(t, b.newTicker().Backfill(t.Context()))
	}
	runs := b.runs(t, s.ID)
	require.Len(t, runs, 10)
	require.Equal(t, 10, b.backfill(t, made.ID).Decided)
	require.Equal(t, 10, b.count(t, "SELECT count(DISTINCT scheduled_for) FROM runs"))
}

func TestABackfillOfWhatIsMissingLeavesOutTheRest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 0, daily)
	b.serve(t, 200)
	day := func(n int) time.Time { return time.Date(2026, 3, n, 12, 0, 0, 0, time.UTC) }
	at := func(state string, n int, started bool) {
		t.Helper()
		random := uuid.New()
		b.exec(t, "SELECT create_runs_partition($1)", day(n))
		b.exec(t, `INSERT INTO runs (id, scheduled_for, schedule_id, schedule_name, task_name, execution_policy, trigger, slot, state, started_at, line_rank)
			VALUES ($1, $2, $3, 'x', 'echo', 'allow', 'schedule', '00000000-0000-0000-0000-000000000000', $4::text, CASE WHEN $5 THEN now() END,
				CASE WHEN $4::text = 'waiting' THEN 0 END)`,
			riverbeat.NewRunID(day(n), random[:]), day(n), s.ID, state, started)
	}
	at("succeeded", 2, true)
	at("failed", 3, true)
	at("skipped", 4, false)
	at("missed", 5, false)
	at("cancelled", 6, false)
	at("cancelled", 7, true)
	at("queued", 8, false)
	made := b.begin(t, s.ID, func(f *riverbeat.Backfill) { f.OnlyMissing = true })
	require.NoError(t, b.ticker.Backfill(t.Context()))
	read := b.backfill(t, made.ID)
	require.Equal(t, []int{10, 6, 4}, []int{read.Total, read.Decided, read.LeftOut})
	var days []int
	for _, r := range b.runs(t, s.ID) {
		if r.BackfillID != nil {
			days = append(days, r.ScheduledFor.Day())
		}
	}
	require.Equal(t, []int{1, 4, 5, 6, 9, 10}, days)

	// Again, there is nothing left to do.
	b.work(t)
	again := b.begin(t, s.ID, func(f *riverbeat.Backfill) { f.OnlyMissing = true })
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.NoError(t, b.ticker.Backfill(t.Context()))
	read = b.backfill(t, again.ID)
	require.Equal(t, riverbeat.BackfillFinished, read.State)
	require.Equal(t, []int{10, 0, 10}, []int{read.Total, read.Decided, read.LeftOut})
	// Without it, all run once more.
	all := b.begin(t, s.ID, nil)
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.Equal(t, 10, b.backfill(t, all.ID).Decided)
}

func TestABackfillThatQueuesRunsOneAfterAnother(t *testing.T) {
	t.Parallel()
	b := setup(t)
	queue := riverbeat.Queue
	s := b.schedule(t, 0, daily)
	b.serve(t, 8)
	made := b.begin(t, s.ID, func(f *riverbeat.Backfill) { f.ExecutionPolicy = &queue })
	for range 10 {
		require.NoError(t, b.ticker.Backfill(t.Context()))
		require.Equal(t, 1, b.count(t, "SELECT count(*) FROM runs WHERE state = 'queued'"))
		b.work(t)
		b.sweep(t) // moves the line up
	}
	require.NoError(t, b.ticker.Backfill(t.Context()))
	read := b.backfill(t, made.ID)
	require.Equal(t, riverbeat.BackfillFinished, read.State)
	require.Equal(t, map[riverbeat.State]int{riverbeat.Succeeded: 10}, read.Runs)
}

// The ticks of a schedule that skips do not skip one another, unless that is asked for.
func TestABackfillOfWhatSkipsRunsAll(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 0, func(s *riverbeat.Schedule) { daily(s); s.ExecutionPolicy = riverbeat.Skip })
	b.serve(t, 100)
	all := b.begin(t, s.ID, nil)
	of := func(id uuid.UUID, state string) int {
		return b.count(t, "SELECT count(*) FROM runs WHERE backfill_id = $1 AND state = $2", id, state)
	}
	for range 10 {
		require.NoError(t, b.ticker.Backfill(t.Context()))
		b.work(t)
		b.sweep(t)
	}
	require.Equal(t, 10, of(all.ID, "succeeded"))

	skip := riverbeat.Skip
	some := b.begin(t, s.ID, func(f *riverbeat.Backfill) { f.ExecutionPolicy = &skip })
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.Equal(t, 9, of(some.ID, "skipped"))
}

func TestACancelledBackfillStops(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *bundle, *riverbeat.Backfill){
		"by a person": func(t *testing.T, b *bundle, f *riverbeat.Backfill) {
			t.Helper()
			h := history.New(b.DB, b.ledger)
			_, err := h.CancelBackfill(t.Context(), f.ID)
			require.NoError(t, err)
			_, err = h.CancelBackfill(t.Context(), f.ID)
			require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
			require.Equal(t, 3, b.count(t, "SELECT count(*) FROM runs WHERE state = 'cancelled' AND reason = 'cancelled_by_user'"))
			require.Equal(t, 1, b.count(t, "SELECT count(*) FROM runs WHERE state = 'running'"), "it goes on")
		},
		"with its schedule": func(t *testing.T, b *bundle, f *riverbeat.Backfill) {
			t.Helper()
			require.NoError(t, catalog.New(b.DB, b.ledger).DeleteSchedule(t.Context(), f.ScheduleID, riverbeat.Expected{}))
		},
		"when its schedule is disabled": func(t *testing.T, b *bundle, f *riverbeat.Backfill) {
			t.Helper()
			_, err := catalog.New(b.DB, b.ledger).ChangeSchedule(t.Context(), f.ScheduleID, func(s *riverbeat.Schedule) error {
				s.Enabled = false
				return nil
			})
			require.NoError(t, err)
		},
		"in psql": func(t *testing.T, b *bundle, f *riverbeat.Backfill) {
			t.Helper()
			b.exec(t, "DELETE FROM schedules WHERE id = $1", f.ScheduleID)
			require.NoError(t, b.ticker.Backfill(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.schedule(t, 0, daily)
			b.serve(t, 8)
			made := b.begin(t, s.ID, nil)
			require.NoError(t, b.ticker.Backfill(t.Context()))
			b.exec(t, "UPDATE river_job SET state = 'running', attempt = 1 WHERE id = (SELECT min(id) FROM river_job)")
			b.exec(t, "UPDATE runs SET state = 'running' WHERE job_id = (SELECT min(id) FROM river_job)")
			end(t, b, made)
			require.Equal(t, riverbeat.BackfillCancelled, b.backfill(t, made.ID).State)
			b.work(t)
			require.NoError(t, b.ticker.Backfill(t.Context()))
			require.Equal(t, 4, b.count(t, "SELECT count(*) FROM runs"))
		})
	}
}

func TestAPauseHoldsBackfills(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 0, daily)
	made := b.begin(t, s.ID, nil)
	b.exec(t, "UPDATE installation SET paused_at = now()")
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.Zero(t, b.backfill(t, made.ID).Decided)
	b.exec(t, "UPDATE installation SET paused_at = NULL")
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.Equal(t, 1, b.backfill(t, made.ID).Decided, "nobody works, so one at a time")
}

// One that cannot go on says why, and stops no other.
func TestABackfillThatCannotGoOnSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.define(t, "bad")
	bad := b.schedule(t, 0, func(s *riverbeat.Schedule) { daily(s); s.TaskName = "bad" })
	good := b.schedule(t, 0, daily)
	b.serve(t, 200)
	stuck, going := b.begin(t, bad.ID, nil), b.begin(t, good.ID, nil)
	b.exec(t, "UPDATE task_definitions SET queue = 'no queue'")
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.Contains(t, b.backfill(t, stuck.ID).LastError, "no queue")
	require.Equal(t, 10, b.backfill(t, going.ID).Decided)
	b.exec(t, "UPDATE task_definitions SET queue = 'default'")
	require.NoError(t, b.ticker.Backfill(t.Context()))
	read := b.backfill(t, stuck.ID)
	require.Empty(t, read.LastError)
	require.Equal(t, 10, read.Decided)
}

// What all of them take is bounded, not what each takes.
// A backfill that comes to a week which is on its way out says so, and waits for it; one of
// then is not begun.
func TestABackfillOfAWeekThatGoesSaysSo(t *testing.T) {
	t.Parallel()
	for _, state := range []postgres.WeekState{postgres.WeekSealed, postgres.WeekLeaving, postgres.WeekDetached} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.schedule(t, 0, daily)
			b.serve(t, 100)
			made := b.begin(t, s.ID, nil) // 1 to 10 March; Monday is the 2nd, and the 9th
			drop := b.TakeOut(t, time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC), state)

			require.NoError(t, b.ticker.Backfill(t.Context()))
			held := b.backfill(t, made.ID)
			require.Equal(t, riverbeat.BackfillRunning, held.State)
			require.Contains(t, held.LastError, "about to be dropped")
			require.Empty(t, b.runs(t, s.ID))
			backfill := func(from, to time.Time) error {
				_, err := history.New(b.DB, b.ledger).Backfill(t.Context(), s.ID, riverbeat.Backfill{From: from, To: to, OnlyMissing: true})
				return err
			}
			monday := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
			err := backfill(monday.AddDate(0, 0, -1), monday.AddDate(0, 0, 1))
			require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
			require.ErrorContains(t, err, "The runs of the week of 2026-03-02 are about to be dropped, or are detached")
			require.Error(t, backfill(monday.AddDate(0, 0, 6), monday.AddDate(0, 0, 9)))
			require.NoError(t, backfill(monday.AddDate(0, 0, -7), monday))
			require.NoError(t, backfill(monday.AddDate(0, 0, 7), monday.AddDate(0, 0, 9)))
			b.exec(t, "DELETE FROM backfills WHERE id <> $1", made.ID)

			drop()
			require.NoError(t, b.ticker.Backfill(t.Context()))
			going := b.backfill(t, made.ID)
			require.Empty(t, going.LastError)
			require.Equal(t, 10, going.Decided)
		})
	}
}

func TestBackfillsTogetherTakeHalfOfAQueue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve(t, 8)
	for range 3 {
		b.begin(t, b.schedule(t, 0, daily).ID, nil)
	}
	for range 3 {
		var nodes sync.WaitGroup
		for range 3 {
			nodes.Go(func() { _ = b.newTicker().Backfill(t.Context()) })
		}
		nodes.Wait()
		require.LessOrEqual(t, b.count(t, "SELECT count(*) FROM river_job"), 4)
	}
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.Equal(t, 4, b.count(t, "SELECT count(*) FROM river_job"))
}

// A tick that the schedule has yet to decide is not missing: it is about to run.
func TestABackfillOfWhatIsMissingWaitsForTheSchedule(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve(t, 200)
	s := b.schedule(t, 150*time.Second, func(s *riverbeat.Schedule) { s.CatchUp = riverbeat.CatchUpAll }) // undecided ticks, one a minute
	made := b.begin(t, s.ID, func(f *riverbeat.Backfill) {
		f.OnlyMissing = true
		f.From, f.To = s.NextRunAt.Add(-5*time.Minute), s.NextRunAt.Add(time.Minute)
	})
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.Equal(t, 5, b.backfill(t, made.ID).Decided)
	require.NoError(t, b.ticker.Backfill(t.Context()))
	require.Equal(t, 5, b.backfill(t, made.ID).Decided)
	b.sweep(t)
	require.NoError(t, b.ticker.Backfill(t.Context()))
	read := b.backfill(t, made.ID)
	require.Equal(t, []int{6, 5, 1}, []int{read.Total, read.Decided, read.LeftOut})
	require.Equal(t, 1, b.count(t, "SELECT count(*) FROM runs WHERE scheduled_for = $1", *s.NextRunAt))
}

// Where the schedule had no ticks, a backfill has none; and what is changed of that
// later changes no backfill.
func TestABackfillKeepsWithinItsSchedule(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.serve(t, 8)
	starts, ends := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC), time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	s := b.schedule(t, 0, func(s *riverbeat.Schedule) { daily(s); s.StartsAt, s.EndsAt = &starts, &ends })
	made := b.begin(t, s.ID, nil)
	require.Equal(t, 7, made.Total)
	require.True(t, starts.Equal(made.From))
	require.NoError(t, b.ticker.Backfill(t.Context()))
	_, err := catalog.New(b.DB, b.ledger).ChangeSchedule(t.Context(), s.ID, func(s *riverbeat.Schedule) error {
		s.StartsAt, s.EndsAt = nil, nil
		later := time.Now().Add(24 * time.Hour)
		s.StartsAt = &later
		return nil
	})
	require.NoError(t, err)
	for range 4 {
		b.work(t)
		require.NoError(t, b.ticker.Backfill(t.Context()))
	}
	read := b.backfill(t, made.ID)
	require.Equal(t, riverbeat.BackfillFinished, read.State)
	require.Equal(t, 7, read.Decided)
	before := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	none := b.begin(t, s.ID, func(f *riverbeat.Backfill) { f.To = before.Add(24 * time.Hour); f.From = before })
	require.Equal(t, riverbeat.BackfillFinished, none.State)
}

// The recurrence is that of the beginning, and the rest that of now.
func TestABackfillKeepsItsTicksAndRunsTheScheduleAsItIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 0, daily)
	b.serve(t, 2)
	made := b.begin(t, s.ID, nil)
	require.NoError(t, b.ticker.Backfill(t.Context()))
	_, err := catalog.New(b.DB, b.ledger).ChangeSchedule(t.Context(), s.ID, func(s *riverbeat.Schedule) error {
		s.CronExpression, s.TaskName = "@hourly", "other"
		return nil
	})
	require.NoError(t, err)
	b.work(t)
	require.NoError(t, b.ticker.Backfill(t.Context()))
	runs := b.runs(t, s.ID)
	require.Len(t, runs, 2)
	require.Equal(t, "other", runs[1].TaskName)
	require.Equal(t, time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC), runs[1].ScheduledFor)
	require.Equal(t, 10, b.backfill(t, made.ID).Total)
}

func TestBackfillsKeepTheRules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, 0, func(s *riverbeat.Schedule) { s.CronExpression = "* * * * * *" })
	h := history.New(b.DB, b.ledger)
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for name, given := range map[string]riverbeat.Backfill{
		"/from no from":   {To: march},
		"/to no to":       {From: march},
		"/to backwards":   {From: march, To: march},
		"/to too long":    {From: march.AddDate(-2, 0, 0), To: march},
		"/from too early": {From: march.AddDate(-20, 0, 0), To: march.AddDate(-20, 0, 1)},
		"/to the future":  {From: march, To: time.Now().Add(time.Hour)},
		"/to too many":    {From: march, To: march.Add(10_001 * time.Second)},
	} {
		_, err := h.Backfill(t.Context(), s.ID, given)
		require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err), name)
		require.ErrorContains(t, err, name[:3], name)
	}
	most, err := h.Backfill(t.Context(), s.ID, riverbeat.Backfill{From: march, To: march.Add(10_000 * time.Second)})
	require.NoError(t, err)
	require.Equal(t, riverbeat.MaxBackfillTicks, most.Total)
	none, err := h.Backfill(t.Context(), s.ID, riverbeat.Backfill{From: march.Add(time.Millisecond), To: march.Add(2 * time.Millisecond)})
	require.NoError(t, err)
	require.Equal(t, riverbeat.BackfillFinished, none.State)
	_, err = h.Backfill(t.Context(), uuid.New(), riverbeat.Backfill{From: march, To: march.Add(time.Second)})
	require.Equal(t, riverbeat.NotFound, riverbeat.KindOf(err))
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		_, err := tx.Exec(t.Context(), "UPDATE schedules SET timezone = 'Atlantis/Capital'")
		return err
	}))
	_, err = h.Backfill(t.Context(), s.ID, riverbeat.Backfill{From: march, To: march.Add(time.Second)})
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
}
