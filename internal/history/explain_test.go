package history_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/installation"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
)

// lived is a schedule of each second with a Ticker at work.
type lived struct {
	*pgtest.Database
	catalog *catalog.Catalog
	history *history.History
	id      uuid.UUID
}

func live(t *testing.T) *lived {
	t.Helper()
	d := pgtest.DB(t)
	q, err := queue.New(d.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := ledger.New(q)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		tick.New(d.DB, l, slog.New(slog.DiscardHandler)).Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-stopped
	})
	life := &lived{Database: d, catalog: catalog.New(d.DB, l), history: history.New(d.DB, l)}
	s, err := life.catalog.CreateSchedule(t.Context(), &riverbeat.Schedule{
		TaskName: "echo", CronExpression: "* * * * * *", Timezone: "Europe/Berlin", Enabled: true,
		Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
		ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpLatest, CatchUpWindow: time.Hour, MaxWaiting: 1,
	})
	require.NoError(t, err)
	life.id = s.ID
	return life
}

func (l *lived) now(t *testing.T) time.Time {
	t.Helper()
	var now time.Time
	require.NoError(t, l.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		var err error
		now, err = tx.Now(t.Context())
		return err
	}))
	return now
}

// pass waits until two whole seconds have begun.
func (l *lived) pass(t *testing.T) {
	t.Helper()
	until := l.now(t).Truncate(time.Second).Add(2 * time.Second)
	require.Eventually(t, func() bool { return !l.now(t).Before(until) }, 30*time.Second, 5*time.Millisecond)
}

func (l *lived) change(t *testing.T, change func(*riverbeat.Schedule)) {
	t.Helper()
	_, err := l.catalog.ChangeSchedule(t.Context(), l.id, func(s *riverbeat.Schedule) error {
		change(s)
		return nil
	})
	require.NoError(t, err)
}

// explain explains each second; none may be due for long.
func (l *lived) explain(t *testing.T, from, until time.Time) []*riverbeat.Explanation {
	t.Helper()
	var list []*riverbeat.Explanation
	for at := from.Truncate(time.Second); !at.After(until); at = at.Add(time.Second) {
		var e *riverbeat.Explanation
		require.Eventually(t, func() bool {
			var err error
			e, err = l.history.Explain(t.Context(), l.id, at)
			require.NoError(t, err)
			return e.Verdict != riverbeat.VerdictDue
		}, 30*time.Second, 5*time.Millisecond)
		list = append(list, e)
	}
	return list
}

// sequence are the verdicts, each once for as long as it stays the same.
func sequence(list []*riverbeat.Explanation) []riverbeat.Verdict {
	var verdicts []riverbeat.Verdict
	for _, e := range list {
		verdicts = append(verdicts, e.Verdict)
	}
	return slices.Compact(verdicts)
}

func TestExplainTellsTheLifeOfASchedule(t *testing.T) {
	t.Parallel()
	l := live(t)
	all := installation.New(l.DB)
	queued := riverbeat.Verdict(riverbeat.Queued)
	born := l.now(t)
	l.pass(t)
	paused, err := all.Pause(pgtest.As(t.Context(), "ada"), "test")
	require.NoError(t, err)
	l.pass(t)
	held, err := l.history.Explain(t.Context(), l.id, l.now(t).Truncate(time.Second))
	require.NoError(t, err)
	require.Equal(t, riverbeat.VerdictPaused, held.Verdict)
	_, err = all.Resume(pgtest.As(t.Context(), "bob"))
	require.NoError(t, err)
	resumed := l.now(t)
	l.pass(t)
	l.change(t, func(s *riverbeat.Schedule) { s.Enabled = false })
	l.pass(t)
	l.change(t, func(s *riverbeat.Schedule) { s.Enabled = true })
	l.pass(t)
	l.change(t, func(s *riverbeat.Schedule) { s.CronExpression = "0 0 1 1 *" })
	l.pass(t)
	require.NoError(t, l.catalog.DeleteSchedule(t.Context(), l.id, riverbeat.Expected{}))
	l.pass(t)

	told := l.explain(t, born.Add(-2*time.Second), l.now(t))
	require.Equal(t, []riverbeat.Verdict{
		riverbeat.VerdictBeforeCreation, queued, riverbeat.VerdictDisabled, queued, riverbeat.VerdictNotATick, riverbeat.VerdictDeleted,
	}, sequence(told))
	for _, e := range told {
		inPause := !e.At.Before(*paused.PausedAt) && e.At.Before(resumed)
		require.Equal(t, inPause, e.Pause != nil, e.At)
		if inPause {
			require.Equal(t, "bob", e.Pause.ResumedBy)
			require.Contains(t, e.Text, "The installation was paused then")
		}
	}
	_, err = l.history.Explain(t.Context(), uuid.New(), born)
	require.Equal(t, riverbeat.NotFound, riverbeat.KindOf(err))
}

// A tick that falls on the very moment of a change belongs to one of the two
// definitions, whichever has decided it.
func TestExplainWhileAScheduleIsChangedAllTheTime(t *testing.T) {
	t.Parallel()
	l := live(t)
	born := l.now(t)
	for enabled := false; l.now(t).Before(born.Add(4 * time.Second)); enabled = !enabled {
		l.change(t, func(s *riverbeat.Schedule) { s.Enabled = enabled })
	}
	for _, e := range l.explain(t, born.Add(time.Second), l.now(t)) {
		require.Contains(t, []riverbeat.Verdict{riverbeat.Verdict(riverbeat.Queued), riverbeat.VerdictDisabled}, e.Verdict, e.Text)
		require.Equal(t, len(e.Runs) > 0, e.Version.Enabled, "%s: %s", e.At, e.Text)
	}
}

func TestExplainALine(t *testing.T) {
	t.Parallel()
	l := live(t)
	l.change(t, func(s *riverbeat.Schedule) {
		s.CronExpression, s.ExecutionPolicy, s.MaxWaiting = "0 0 1 1 *", riverbeat.Queue, 2
	})
	var runs []*riverbeat.Run
	for range 4 {
		run, err := l.history.RunNow(pgtest.As(t.Context(), "ada"), l.id, history.Overrides{})
		require.NoError(t, err)
		runs = append(runs, run)
		require.Eventually(t, func() bool { return l.now(t).After(run.ScheduledFor) }, 10*time.Second, time.Millisecond)
	}
	for i, want := range []struct {
		verdict riverbeat.Verdict
		ahead   int
	}{{"queued", 0}, {"waiting", 0}, {"waiting", 1}, {"queue_full", 0}} {
		e, err := l.history.Explain(t.Context(), l.id, runs[i].ScheduledFor)
		require.NoError(t, err)
		require.Equal(t, want.verdict, e.Verdict)
		require.Equal(t, want.ahead, e.Ahead)
		if i > 0 {
			require.Equal(t, runs[0].ID, e.BlockedBy.ID)
		}
		require.Contains(t, e.Text, "asked for by ada")
	}
}
