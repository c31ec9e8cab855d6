package tick_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/history"
	"riverbeat/internal/ledger"
	"riverbeat/internal/localpg"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
)

// jumpingClock starts a Postgres of its own whose clock the test sets: the
// server runs under libfaketime, which reads its offset from a file.
func jumpingClock(t *testing.T) (b *bundle, jump func(offset time.Duration)) {
	t.Helper()
	var library string
	for _, pattern := range []string{"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			library = found[0]
			break
		}
	}
	if library == "" {
		t.Skip("libfaketime is not installed: deploy/install-deps.sh faketime")
	}
	// Not t.TempDir, which is closed to the server's user.
	dir, err := os.MkdirTemp("", "riverbeat-clock-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	file := filepath.Join(dir, "offset")
	set := func(offset time.Duration) {
		text := strconv.Itoa(int(offset / time.Second))
		if offset >= 0 {
			text = "+" + text
		}
		// The server may read at any moment.
		require.NoError(t, os.WriteFile(file+".new", []byte(text+"\n"), 0o644))
		require.NoError(t, os.Rename(file+".new", file))
	}
	set(0)
	for name, value := range map[string]string{
		"LD_PRELOAD":                   library,
		"FAKETIME_TIMESTAMP_FILE":      file,
		"FAKETIME_NO_CACHE":            "1",
		"FAKETIME_DONT_FAKE_MONOTONIC": "1",
	} {
		t.Setenv(name, value)
	}
	server, err := localpg.Start(t.Context(), localpg.Config{Ephemeral: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.WithoutCancel(t.Context()))) })

	cfg := postgres.Config{URL: server.URL(), Schema: pgtest.Schema}
	require.NoError(t, postgres.MigrateUp(t.Context(), cfg, slog.New(slog.DiscardHandler)))
	pool, err := postgres.NewPool(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	q, err := queue.New(pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	db := postgres.New(pool, pgtest.Schema)
	require.NoError(t, db.InTx(t.Context(), func(tx *postgres.Tx) error { return tx.EnsureInstallation(t.Context(), "default") }))
	b = &bundle{Database: &pgtest.Database{URL: server.URL(), Pool: pool, DB: db, Server: server}, ledger: ledger.New(q)}
	b.ticker = b.newTicker()
	return b, func(offset time.Duration) {
		set(offset)
		now := b.now(t)
		require.WithinDuration(t, time.Now().Add(offset), now, 10*time.Second)
	}
}

func (b *bundle) now(t *testing.T) time.Time {
	t.Helper()
	var now time.Time
	require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT statement_timestamp()").Scan(&now))
	return now
}

// sweepFor sweeps while the database's clock goes on by the given time.
func (b *bundle) sweepFor(t *testing.T, passes time.Duration) {
	t.Helper()
	began := b.now(t)
	require.Eventually(t, func() bool {
		b.sweep(t)
		return b.now(t).Sub(began) >= passes
	}, 20*time.Second, 50*time.Millisecond)
}

// decided is how many ticks of a schedule of every second were decided, those
// in gaps included. It holds that they follow each other without a hole.
func (b *bundle) decided(t *testing.T, id uuid.UUID) int {
	t.Helper()
	var first, last int64
	n := 0
	for _, run := range b.runs(t, id) {
		if run.Trigger == riverbeat.TriggerManual {
			continue
		}
		from, until := run.ScheduledFor.Unix(), run.ScheduledFor.Unix()
		if run.State == riverbeat.Missed {
			from, until = run.MissedFrom.Unix(), run.MissedUntil.Unix()
		}
		if n == 0 {
			first = from
		} else {
			require.Equal(t, last+1, from, "after %s", time.Unix(last, 0).UTC())
		}
		last = until
		n = int(last - first + 1)
	}
	return n
}

// The database's clock jumps back, forth and back again. No tick fires twice,
// none is lost, and what is changed meanwhile makes no difference.
func TestTheClockOfTheDatabaseJumps(t *testing.T) { //nolint:paralleltest // it sets the environment
	b, jump := jumpingClock(t)
	n := b.newNode(t)
	steady, edited, stopped := b.schedule(t, 3*time.Second, perSecond(riverbeat.CatchUpLatest)),
		b.schedule(t, 3*time.Second, perSecond(riverbeat.CatchUpAll)), b.schedule(t, 3*time.Second, perSecond(riverbeat.CatchUpAll))
	all := []*riverbeat.Schedule{steady, edited, stopped}
	b.sweepFor(t, 2*time.Second)
	var before []int
	for _, s := range all {
		before = append(before, b.decided(t, s.ID))
		require.GreaterOrEqual(t, before[len(before)-1], 4)
	}
	fired := func(id uuid.UUID) int {
		return b.count(t, "SELECT count(*) FROM runs WHERE schedule_id = $1 AND trigger <> 'manual'", id)
	}
	change := func(id uuid.UUID, how func(*riverbeat.Schedule)) {
		_, err := n.catalog.ChangeSchedule(t.Context(), id, func(s *riverbeat.Schedule) error {
			how(s)
			return nil
		})
		require.NoError(t, err)
	}

	jump(-time.Hour)
	var counts []int
	for _, s := range all {
		counts = append(counts, fired(s.ID))
	}
	b.sweepFor(t, time.Second)
	change(edited.ID, func(s *riverbeat.Schedule) { s.Description = "edited in the past" })
	change(stopped.ID, func(s *riverbeat.Schedule) { s.Enabled = false })
	b.sweepFor(t, time.Second)
	change(stopped.ID, func(s *riverbeat.Schedule) { s.Enabled = true })
	asked, err := n.history.RunNow(t.Context(), steady.ID, history.Overrides{})
	require.NoError(t, err)
	require.Equal(t, riverbeat.Queued, asked.State)
	young := b.schedule(t, 0, perSecond(riverbeat.CatchUpLatest))
	b.sweepFor(t, 2*time.Second)
	for i, s := range all {
		require.Equal(t, counts[i], fired(s.ID), "what was decided is not decided again")
		require.True(t, b.read(t, s.ID).NextRunAt.After(b.now(t).Add(50*time.Minute)), "the next tick is the one after the last")
	}
	require.GreaterOrEqual(t, b.decided(t, young.ID), 2, "what is new ticks by the clock that there is")

	jump(0)
	b.sweepFor(t, 2*time.Second)
	for i, s := range all {
		require.Greater(t, b.decided(t, s.ID), before[i], "and it goes on where it was")
	}
	require.Greater(t, b.decided(t, young.ID), 3500)
	require.Equal(t, 1, b.count(t, "SELECT count(*) FROM runs WHERE schedule_id = $1 AND state = 'missed'", young.ID), "an hour, as the clock has it")

	jump(2 * time.Hour)
	b.sweepFor(t, time.Second)
	jump(0)
	all = append(all, young)
	counts = nil
	for _, s := range all {
		require.Greater(t, b.decided(t, s.ID), 7_000)
		counts = append(counts, fired(s.ID))
	}
	b.sweepFor(t, 2*time.Second)
	for i, s := range all {
		require.Equal(t, counts[i], fired(s.ID))
		require.Empty(t, b.read(t, s.ID).LastError)
	}
	require.Zero(t, b.count(t, `
SELECT count(*) FROM (SELECT args ->> 'run_id' FROM river_job GROUP BY 1 HAVING count(*) > 1) AS twice`))
}
