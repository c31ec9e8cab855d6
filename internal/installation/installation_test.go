package installation_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/installation"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is an installation on a database of its own, with a Ticker.
type bundle struct {
	*pgtest.Database
	installation *installation.Installation
	ticker       *tick.Ticker
}

func setup(t *testing.T) *bundle {
	t.Helper()
	d := pgtest.DB(t)
	q, err := queue.New(d.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return &bundle{
		Database: d, installation: installation.New(d.DB),
		ticker: tick.New(d.DB, ledger.New(q), slog.New(slog.DiscardHandler)),
	}
}

// schedule writes a schedule whose mark lies ago in the past.
func (b *bundle) schedule(t *testing.T, cron string, ago time.Duration) uuid.UUID {
	t.Helper()
	r, err := riverbeat.ParseRecurrence(cron, "UTC")
	require.NoError(t, err)
	s := &riverbeat.Schedule{
		Name: "held", TaskName: "echo", CronExpression: cron, Timezone: "UTC", Enabled: true,
		Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
		ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpLatest, CatchUpWindow: time.Hour, MaxWaiting: 100,
	}
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		now, err := tx.Now(t.Context())
		require.NoError(t, err)
		s.NextRunAt = s.NextTick(r, now.Add(-ago))
		s, err = tx.InsertSchedule(t.Context(), s, now.Add(-ago))
		return err
	}))
	return s.ID
}

func (b *bundle) runs(t *testing.T, id uuid.UUID) []*riverbeat.Run {
	t.Helper()
	var runs []*riverbeat.Run
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		var err error
		runs, _, err = tx.SearchRuns(t.Context(), &postgres.RunFilter{ScheduleID: &id, Limit: 1000})
		return err
	}))
	return runs
}

func (b *bundle) now(t *testing.T) time.Time {
	t.Helper()
	var now time.Time
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		var err error
		now, err = tx.Now(t.Context())
		return err
	}))
	return now
}

type pause struct {
	PausedAt         time.Time
	PausedBy, Reason string
	Resumed          bool
	ResumedBy        string
}

func (b *bundle) pauses(t *testing.T) []pause {
	t.Helper()
	rows, err := b.Pool.Query(t.Context(), `
SELECT paused_at, coalesce(paused_by, ''), coalesce(reason, ''), resumed_at IS NOT NULL, coalesce(resumed_by, '')
FROM report_pauses
ORDER BY paused_at`)
	require.NoError(t, err)
	defer rows.Close()
	var list []pause
	for rows.Next() {
		var p pause
		require.NoError(t, rows.Scan(&p.PausedAt, &p.PausedBy, &p.Reason, &p.Resumed, &p.ResumedBy))
		list = append(list, p)
	}
	require.NoError(t, rows.Err())
	return list
}

func TestPauseAndResumeAnswerTheState(t *testing.T) {
	t.Parallel()
	b := setup(t)
	running, err := b.installation.Resume(pgtest.As(t.Context(), "nobody"))
	require.NoError(t, err)
	require.Equal(t, &riverbeat.Installation{Environment: "default"}, running)

	first, err := b.installation.Pause(pgtest.As(t.Context(), "ada"), "database upgrade")
	require.NoError(t, err)
	require.NotNil(t, first.PausedAt)
	require.Equal(t, "ada", first.PausedBy)
	require.Equal(t, "database upgrade", first.PauseReason)
	again, err := b.installation.Pause(pgtest.As(t.Context(), "bob"), "another reason")
	require.NoError(t, err)
	require.Equal(t, first, again, "the pause that there is stands")
	read, err := b.installation.Read(t.Context())
	require.NoError(t, err)
	require.Equal(t, first, read)

	resumed, err := b.installation.Resume(pgtest.As(t.Context(), "bob"))
	require.NoError(t, err)
	require.Equal(t, running, resumed)
	_, err = b.installation.Resume(pgtest.As(t.Context(), "carol"))
	require.NoError(t, err)
	_, err = b.installation.Pause(t.Context(), "once more")
	require.NoError(t, err)

	pauses := b.pauses(t)
	require.Len(t, pauses, 2)
	require.True(t, first.PausedAt.Equal(pauses[0].PausedAt))
	require.Equal(t, pause{PausedAt: pauses[0].PausedAt, PausedBy: "ada", Reason: "database upgrade", Resumed: true, ResumedBy: "bob"}, pauses[0])
	require.Equal(t, pause{PausedAt: pauses[1].PausedAt, Reason: "once more"}, pauses[1])
}

func TestAPauseInPsqlIsInTheHistory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, statement := range []string{
		"UPDATE installation SET paused_at = statement_timestamp() + interval '1 hour'",
		"UPDATE installation SET pause_reason = 'by hand'",
		"UPDATE installation SET environment = 'staging', last_sweep_at = statement_timestamp()",
		"UPDATE installation SET paused_at = NULL", // before it was paused, by this clock
		"UPDATE installation SET pause_reason = 'no pause'",
	} {
		_, err := b.Pool.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	pauses := b.pauses(t)
	require.Len(t, pauses, 1)
	require.Equal(t, "by hand", pauses[0].Reason)
	require.True(t, pauses[0].Resumed)
}

func TestAPauseNeedsAReason(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, reason := range []string{"", " \n", "\xff", "\x00", string(make([]rune, riverbeat.MaxPauseReasonLength+1))} {
		_, err := b.installation.Pause(t.Context(), reason)
		require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err), "%q", reason)
	}
	state, err := b.installation.Read(t.Context())
	require.NoError(t, err)
	require.Nil(t, state.PausedAt)
}

// claim is a transaction that was told that all is ticking. It ends with the function that
// is answered.
func (b *bundle) claim(ctx context.Context) (notPaused bool, end func() error) {
	begun, over, ended := make(chan bool, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- b.DB.InTx(ctx, func(tx *postgres.Tx) error {
			ok, err := tx.Ticking(ctx)
			begun <- ok && err == nil
			select {
			case <-over:
			case <-ctx.Done():
			}
			return err
		})
	}()
	return <-begun, func() error {
		close(over)
		return <-ended
	}
}

func TestAPauseAnswersWhenTheClaimsHaveEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ok, end := b.claim(t.Context())
	require.True(t, ok)
	answered := make(chan error, 1)
	go func() {
		_, err := b.installation.Pause(t.Context(), "test")
		answered <- err
	}()
	// The pause is seen at once, and waits.
	require.Eventually(t, func() bool {
		state, err := b.installation.Read(t.Context())
		return err == nil && state.PausedAt != nil
	}, 10*time.Second, 5*time.Millisecond)
	waits := func() bool {
		var n int
		require.NoError(t, b.Pool.QueryRow(t.Context(),
			"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n))
		return n == 1
	}
	require.Eventually(t, waits, 10*time.Second, 5*time.Millisecond)
	require.Empty(t, answered)
	// One that pauses the paused waits as well: its answer promises the same.
	again := make(chan error, 1)
	go func() {
		_, err := b.installation.Pause(t.Context(), "again")
		again <- err
	}()
	require.NoError(t, end())
	require.NoError(t, <-answered)
	require.NoError(t, <-again)
}

func TestAPauseIsNotHeldOffByClaimsThatOverlapForEver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	answered := make(chan error, 1)
	ok, end := b.claim(ctx)
	require.True(t, ok)
	go func() {
		_, err := b.installation.Pause(ctx, "test")
		answered <- err
	}()
	for ok && ctx.Err() == nil {
		// Each claim ends only when the next one has begun.
		var next func() error
		ok, next = b.claim(ctx)
		require.NoError(t, end())
		end = next
	}
	require.NoError(t, end())
	require.NoError(t, <-answered)
}

func TestNoTickIsLostByAPause(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const slept = 10 * time.Minute
	late := b.schedule(t, "* * * * *", slept)
	created := b.now(t)
	_, err := b.installation.Pause(t.Context(), "test")
	require.NoError(t, err)
	second := b.schedule(t, "* * * * * *", 0)

	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.ticker.Run(ctx)
	}()
	defer func() {
		cancel()
		<-stopped
	}()
	// Ticks pass, and the Ticker looks at them.
	until := created.Add(3 * time.Second)
	require.Eventually(t, func() bool { return b.now(t).After(until) }, 30*time.Second, 10*time.Millisecond)
	b.ticker.Wake()
	require.Empty(t, b.runs(t, second))
	require.Empty(t, b.runs(t, late))

	_, err = b.installation.Resume(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(b.runs(t, second)) >= 4 && len(b.runs(t, late)) >= 3 }, 30*time.Second, 10*time.Millisecond)
	_, err = b.installation.Pause(t.Context(), "so that nothing is added")
	require.NoError(t, err)

	// On time is what is at most a minute old: each ran, one second after the other.
	runs := b.runs(t, second)
	for i, run := range runs {
		require.Equal(t, riverbeat.TriggerSchedule, run.Trigger)
		require.Equal(t, riverbeat.Queued, run.State)
		if i > 0 {
			require.Equal(t, time.Second, runs[i-1].ScheduledFor.Sub(run.ScheduledFor))
		}
	}
	first := runs[len(runs)-1].ScheduledFor
	require.WithinRange(t, first, created.Add(-time.Second), until, "the first tick of the pause ran")
	// What is older is caught up with: the newest runs, the rest is one gap.
	accounted := 0
	for _, run := range b.runs(t, late) {
		accounted++
		switch {
		case run.State == riverbeat.Missed:
			accounted += *run.MissedCount - 1
			require.Equal(t, riverbeat.Superseded, run.Reason)
		case run.Trigger == riverbeat.TriggerCatchUp:
			require.Greater(t, run.EnqueuedAt.Sub(run.ScheduledFor), riverbeat.OnTime)
		}
	}
	require.GreaterOrEqual(t, accounted, int(slept/time.Minute))
}
