package prune_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/history"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/prune"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const day = 24 * time.Hour

// bundle is a database with months of runs, and nobody who works.
type bundle struct {
	*pgtest.Database
	t       *testing.T
	now     time.Time
	history *history.History
	ledger  *ledger.Ledger
	queue   *queue.Queue
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{Database: pgtest.DB(t), t: t}
	var err error
	b.queue, err = queue.New(b.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	b.ledger = ledger.New(b.queue)
	b.history = history.New(b.DB, b.ledger)
	b.now = value[time.Time](b, "SELECT now()")
	return b
}

func (b *bundle) exec(statement string, args ...any) {
	b.t.Helper()
	_, err := b.Pool.Exec(b.t.Context(), statement, args...)
	require.NoError(b.t, err, statement)
}

func value[T any](b *bundle, query string, args ...any) (v T) {
	b.t.Helper()
	require.NoError(b.t, b.Pool.QueryRow(b.t.Context(), query, args...).Scan(&v), query)
	return v
}

// monday is that of the week so many weeks ago.
func (b *bundle) monday(ago int) time.Time {
	b.t.Helper()
	return value[time.Time](b, "SELECT runs_week(now() - $1 * interval '1 week')", ago).UTC()
}

func table(monday time.Time) string { return "runs_p" + monday.Format("20060102") }

// fill makes the week so many weeks ago with so many runs, all of which ended in it, in
// every way in which a run may end.
func (b *bundle) fill(ago, runs int) time.Time {
	b.t.Helper()
	monday := b.monday(ago)
	b.exec("SELECT create_runs_partition($1)", monday)
	b.exec("ALTER TABLE " + table(monday) + " SET (autovacuum_enabled = off)") // somebody who is at it
	b.exec(`
INSERT INTO runs (id, scheduled_for, schedule_name, task_name, execution_policy, trigger, slot, state, finished_at, created_at)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
        || '8' || substr(md5(random()::text), 1, 15))::uuid,
    at, 'nightly', 'echo', 'allow', 'schedule', gen_random_uuid(),
    ('{succeeded, failed, cancelled, skipped, missed}'::text[])[1 + n % 5],
    CASE WHEN n % 5 < 3 THEN at + interval '1 second' END, at
FROM generate_series(1, $2::int) AS n
CROSS JOIN LATERAL (SELECT date_trunc('milliseconds', $1::timestamptz + n * interval '6 days' / $2)) AS moment (at)`, monday, runs)
	return monday
}

// one is the id of a run of a week, in a state.
func (b *bundle) one(monday time.Time, state riverbeat.State) uuid.UUID {
	b.t.Helper()
	return value[uuid.UUID](b, "SELECT id FROM "+table(monday)+" WHERE state = $1 ORDER BY id LIMIT 1", string(state))
}

func (b *bundle) set(id uuid.UUID, set string, args ...any) {
	b.t.Helper()
	at, ok := riverbeat.RunTime(id)
	require.True(b.t, ok)
	b.exec("UPDATE runs SET "+set+" WHERE scheduled_for = $1 AND id = $2", append([]any{at, id}, args...)...)
}

func (b *bundle) pruner(change ...func(*prune.Config)) *prune.Pruner {
	cfg := prune.Config{DB: b.DB, Keep: 90 * day, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	return prune.New(cfg)
}

func (b *bundle) prune(o prune.Options) *prune.Report {
	b.t.Helper()
	report, err := b.pruner().Prune(b.t.Context(), o)
	require.NoError(b.t, err)
	return report
}

// outcomes are those of the weeks older than the first of the given ones is not.
func outcomes(r *prune.Report, outcome prune.Outcome) []string {
	var weeks []string
	for _, w := range r.Weeks {
		if w.Outcome == outcome {
			weeks = append(weeks, w.Table)
		}
	}
	return weeks
}

func of(t *testing.T, r *prune.Report, monday time.Time) prune.Week {
	t.Helper()
	for _, w := range r.Weeks {
		if w.Table == table(monday) {
			return w
		}
	}
	require.Fail(t, "no week", "%s in %+v", monday, r.Weeks)
	return prune.Week{}
}

// exists is whether there is a table of the week, and whether it is a part of runs.
func (b *bundle) exists(monday time.Time) (exists, attached bool) {
	b.t.Helper()
	require.NoError(b.t, b.Pool.QueryRow(b.t.Context(), `
SELECT to_regclass($1) IS NOT NULL,
    EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'runs'::regclass AND inhrelid = to_regclass($1) AND NOT inhdetachpending)`,
		table(monday)).Scan(&exists, &attached))
	return exists, attached
}

// Half a year, with thousands of runs, some of them going on.
func TestOldWeeksAreDroppedWhenAllTheirRunsHaveEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var old []time.Time // the youngest first; all older than 90 days
	for ago := 2; ago <= 30; ago++ {
		monday := b.fill(ago, 250)
		if b.now.Sub(monday.AddDate(0, 0, 7)) >= 90*day {
			old = append(old, monday)
		}
	}
	require.GreaterOrEqual(t, len(old), 14)

	// What keeps a week.
	kept := map[time.Time]string{}
	going := map[time.Time]uuid.UUID{}
	for i, state := range []riverbeat.State{riverbeat.Waiting, riverbeat.Queued, riverbeat.Running, riverbeat.Retrying} {
		week := old[2*i]
		going[week] = b.one(week, riverbeat.Succeeded)
		rank := "NULL"
		if state == riverbeat.Waiting {
			rank = "0"
		}
		b.set(going[week], "state = $3, finished_at = NULL, line_rank = "+rank, string(state))
		kept[week] = "1 run has not ended"
	}
	ended, written := old[8], old[9]
	b.set(b.one(ended, riverbeat.Failed), "finished_at = now() - interval '89 days'")
	kept[ended] = "a run was written down or ended on " + b.now.Add(-89*day).UTC().Format(time.DateOnly)
	b.set(b.one(written, riverbeat.Skipped), "created_at = now() - interval '1 hour'")
	kept[written] = "a run was written down or ended on " + b.now.Add(-time.Hour).UTC().Format(time.DateOnly)
	filled := old[10]
	backfill := value[uuid.UUID](b, `
INSERT INTO backfills (schedule_name, from_time, until_time, total) VALUES ('nightly', $1, $2, 5) RETURNING id`,
		filled.AddDate(0, 0, 6), filled.AddDate(0, 0, 7))
	kept[filled] = fmt.Sprintf("the backfill %s has ticks of then to decide", backfill)
	var want []string
	for _, monday := range old {
		if kept[monday] == "" {
			want = append([]string{table(monday)}, want...)
		}
	}
	// Thousands go on, in all that is younger, and in one old week.
	long := old[12]
	b.exec(`
UPDATE runs
SET state = ('{queued, running, retrying}'::text[])[1 + abs(hashtext(id::text) % 3)], finished_at = NULL
WHERE scheduled_for >= now() - interval '83 days' OR runs_week(scheduled_for) = $1`, long)
	kept[long] = "250 runs have not ended"
	want = slices.DeleteFunc(want, func(week string) bool { return week == table(long) })
	const inFlight = "SELECT count(*) FROM runs WHERE state IN ('waiting', 'queued', 'running', 'retrying')"
	live := value[int](b, inFlight)
	require.Greater(t, live, 2000)
	total := value[int](b, "SELECT count(*) FROM runs")
	require.Greater(t, total, 7000)

	dry := b.prune(prune.Options{DryRun: true})
	require.Equal(t, 90*day, dry.Keep)
	require.Equal(t, want, outcomes(dry, prune.Due))
	require.Equal(t, total, value[int](b, "SELECT count(*) FROM runs"), "nothing is changed")
	for monday, why := range kept {
		w := of(t, dry, monday)
		require.Equal(t, prune.Kept, w.Outcome)
		require.Equal(t, why, w.Why)
		require.EqualValues(t, 250, w.Looked.Runs)
	}
	require.Zero(t, value[int](b, "SELECT count(*) FROM pg_trigger WHERE tgname = 'riverbeat_sealed'"))

	report := b.prune(prune.Options{})
	require.Equal(t, want, outcomes(report, prune.Dropped))
	require.Empty(t, append(outcomes(report, prune.Leaving), outcomes(report, prune.Later)...))
	require.Equal(t, total-250*len(want), value[int](b, "SELECT count(*) FROM runs"))
	require.Equal(t, live, value[int](b, inFlight))
	for _, monday := range old {
		exists, attached := b.exists(monday)
		require.Equal(t, kept[monday] != "", exists)
		require.Equal(t, kept[monday] != "", attached)
	}
	// What is kept takes runs as ever.
	for _, id := range going {
		b.set(id, "state = 'succeeded', line_rank = NULL, finished_at = now() - interval '91 days'")
	}
	b.exec("UPDATE backfills SET state = 'finished'")
	require.Len(t, outcomes(b.prune(prune.Options{}), prune.Dropped), 5)

	// Of what is gone it is said that it is gone.
	_, err := b.history.Run(t.Context(), riverbeat.NewRunID(old[1], make([]byte, 10)))
	require.Equal(t, riverbeat.NotFound, riverbeat.KindOf(err))
	require.ErrorContains(t, err, "no runs of its time are kept")
	require.False(t, b.keeps(old[1]))
}

// keeps is what an explanation of a tick goes by.
func (b *bundle) keeps(at time.Time) (keeps bool) {
	b.t.Helper()
	require.NoError(b.t, b.DB.Read(b.t.Context(), func(tx *postgres.Tx) (err error) {
		keeps, err = tx.KeepsRuns(b.t.Context(), at)
		return err
	}))
	return keeps
}

// A week is kept for as long as a schedule has not decided what it owes of it.
func TestAWeekIsKeptForTicksThatAreNotDecided(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		clock, catchUp string
		window         time.Duration
		kept           bool
	}{
		"due then":                          {"next_run_at = $1::timestamptz, last_scheduled_for = $1::timestamptz - interval '1 hour'", "none", 0, true},
		"due later":                         {"next_run_at = $1::timestamptz + interval '7 days'", "none", 0, false},
		"stopped, and catches up":           {"next_run_at = NULL, retry_at = now()", "all", 366 * day, true},
		"stopped, and catches up with less": {"next_run_at = NULL, retry_at = now()", "all", 30 * day, true},
		"stopped, and runs the last":        {"next_run_at = NULL, retry_at = now()", "latest", time.Hour, true},
		"stopped, and runs none":            {"next_run_at = NULL, retry_at = now()", "none", 0, true},
		"stopped later":                     {"next_run_at = NULL, retry_at = now(), last_scheduled_for = $1::timestamptz + interval '1 day'", "all", 366 * day, false},
		"disabled":                          {"next_run_at = NULL", "all", 366 * day, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			monday := b.fill(20, 10)
			id := value[uuid.UUID](b, `
INSERT INTO schedules (name, task_name, cron_expression, timezone, catch_up, catch_up_window_s)
VALUES ('nightly', 'echo', '@daily', 'UTC', $1, $2) RETURNING id`, test.catchUp, int(test.window/time.Second))
			b.exec("INSERT INTO schedule_clocks (schedule_id, last_scheduled_for) VALUES ($1, $2)", id, monday)
			b.exec("UPDATE schedule_clocks SET "+test.clock+" WHERE $1::timestamptz IS NOT NULL", monday.AddDate(0, 0, 6))
			w := of(t, b.prune(prune.Options{}), monday)
			if test.kept {
				require.Equal(t, prune.Kept, w.Outcome)
				require.Equal(t, "the schedule "+id.String()+" has ticks of then to decide", w.Why)
			} else {
				require.Equal(t, prune.Dropped, w.Outcome)
			}
		})
	}
}

// waits waits until the session of who prunes waits for a lock, and answers its process.
func (b *bundle) waits() (pid int) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		err := b.Pool.QueryRow(b.t.Context(), `
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'riverbeat prune' AND wait_event_type = 'Lock'`).Scan(&pid)
		return err == nil
	}, 20*time.Second, time.Millisecond)
	return pid
}

// begin prunes beside the test.
func (b *bundle) begin(o prune.Options) (report func() *prune.Report) {
	type result struct {
		*prune.Report
		error
	}
	done := make(chan result, 1)
	go func() {
		r, err := b.pruner().Prune(b.t.Context(), o)
		done <- result{r, err}
	}()
	return func() *prune.Report {
		b.t.Helper()
		r := <-done
		require.NoError(b.t, r.error)
		return r.Report
	}
}

// A report goes on, and neither it nor the week that waits for it holds up anybody.
func TestAWeekWaitsForAReportAndNobodyForTheWeek(t *testing.T) {
	t.Parallel()
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead} {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			monday, next := b.fill(20, 1000), b.fill(19, 0)
			b.fill(0, 1000)
			report, err := b.Pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: level})
			require.NoError(t, err)
			defer func() { _ = report.Rollback(context.Background()) }()
			read := func() (n int) {
				require.NoError(t, report.QueryRow(t.Context(), "SELECT count(*) FROM report_runs WHERE schedule_name = 'nightly'").Scan(&n))
				return n
			}
			before := read()
			require.Equal(t, 2000, before)

			// First it waits with the week on its way, then to finish that.
			for n, holds := range []bool{false, true} {
				pruned := b.begin(prune.Options{})
				pid := b.waits()
				locks := value[int](b, "SELECT count(*) FROM pg_locks WHERE pid = $1 AND granted AND relation = 'runs'::regclass", pid)
				require.Equal(t, holds, locks > 0, "only the end of a week holds a lock on runs, which new partitions wait for")
				b.works()
				if !holds {
					b.exec("SELECT create_runs_partition(now() + $1 * interval '1 week')", 10+n)
				}
				r := pruned()
				require.Equal(t, prune.Leaving, of(t, r, monday).Outcome)
				require.Equal(t, prune.Later, of(t, r, next).Outcome, "one leaves at a time")
				exists, attached := b.exists(monday)
				require.True(t, exists)
				require.False(t, attached)
				require.False(t, b.keeps(monday))
				b.works()
				seen := read()
				if level == pgx.RepeatableRead {
					require.Equal(t, before, seen, "the report sees what it saw")
				} else {
					require.Contains(t, []int{before, before - 1000}, seen)
				}
			}
			require.NoError(t, report.Commit(t.Context()))
			require.Equal(t, prune.Dropped, of(t, b.prune(prune.Options{}), monday).Outcome)
			exists, _ := b.exists(monday)
			require.False(t, exists)
		})
	}
}

// works does what nodes do all the time: it claims ticks, and starts and ends runs, whose
// history trigger reaches for every partition there is. Nothing may wait for a lock for
// longer than a moment.
func (b *bundle) works() {
	b.t.Helper()
	ctx := b.t.Context()
	cfg := b.Config()
	cfg.URL += "&lock_timeout=150"
	pool, err := postgres.NewPool(ctx, cfg)
	require.NoError(b.t, err)
	defer pool.Close()
	b.exec(`
WITH made AS (
    INSERT INTO schedules (name, task_name, cron_expression, timezone) SELECT 'now', 'echo', '@hourly', 'UTC' FROM generate_series(1, 20)
    RETURNING id
)
INSERT INTO schedule_clocks (schedule_id, last_scheduled_for, next_run_at) SELECT id, now() - interval '1 hour', now() - interval '1 s' FROM made`)
	node := tick.New(postgres.New(pool, pgtest.Schema), b.ledger, slog.New(slog.DiscardHandler))
	_, err = node.Sweep(ctx)
	require.NoError(b.t, err)
	require.Equal(b.t, 20, value[int](b, "SELECT count(*) FROM runs WHERE schedule_name = 'now' AND state = 'queued'"))
	for _, state := range []string{"running", "completed"} {
		_, err = pool.Exec(ctx, `
UPDATE river_job
SET state = $1::river_job_state, attempt = 1, attempted_by = '{x}', finalized_at = CASE WHEN $1 = 'completed' THEN now() END
WHERE args ->> 'schedule_name' = 'now' AND finalized_at IS NULL`, state)
		require.NoError(b.t, err)
	}
	require.Zero(b.t, value[int](b, "SELECT count(*) FROM runs WHERE schedule_name = 'now' AND state <> 'succeeded'"))
	b.exec("DELETE FROM schedules")
}

// Whoever prunes may die between any two steps. The next one goes on where he was.
func TestWhatWasBegunIsFinished(t *testing.T) {
	t.Parallel()
	for _, state := range []postgres.WeekState{postgres.WeekSealed, postgres.WeekLeaving, postgres.WeekDetached} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			older, monday, younger := b.fill(22, 10), b.fill(21, 10), b.fill(20, 10)
			ctx := t.Context()
			w := of(t, b.prune(prune.Options{DryRun: true}), monday).Week
			session, err := b.DB.OpenPruning(ctx)
			require.NoError(t, err)
			step := func(do func(context.Context, postgres.Week) (bool, error)) {
				done, err := do(ctx, w)
				require.NoError(t, err)
				require.True(t, done)
			}
			step(session.Seal)
			if state == postgres.WeekLeaving {
				report, err := b.Pool.Begin(ctx)
				require.NoError(t, err)
				_, err = report.Exec(ctx, "SELECT count(*) FROM runs")
				require.NoError(t, err)
				died := make(chan error, 1)
				go func() {
					_, err := session.Detach(ctx, w)
					died <- err
				}()
				b.exec("SELECT pg_terminate_backend($1)", b.waits())
				require.Error(t, <-died)
				require.NoError(t, report.Rollback(ctx))
			}
			if state == postgres.WeekDetached {
				step(session.Detach)
			}
			session.Close(ctx)
			if state == postgres.WeekDetached { // nothing is dropped unseen
				live := func(state string) {
					b.exec("ALTER TABLE " + w.Table + " DISABLE TRIGGER riverbeat_sealed")
					b.exec("UPDATE "+w.Table+" SET state = $1 WHERE id = (SELECT id FROM "+w.Table+" ORDER BY id LIMIT 1)", state)
				}
				live("queued")
				kept := of(t, b.prune(prune.Options{DryRun: true}), monday)
				require.Equal(t, prune.Kept, kept.Outcome)
				require.Equal(t, "1 run has not ended; attach it again", kept.Why)
				live("succeeded")
			}

			dry := b.prune(prune.Options{DryRun: true})
			require.Equal(t, state, of(t, dry, monday).State)
			require.Equal(t, []string{table(older), table(monday), table(younger)}, outcomes(dry, prune.Due))
			// It counts for none that is begun.
			report := b.prune(prune.Options{Most: 1})
			require.Equal(t, []string{table(older), table(monday)}, outcomes(report, prune.Dropped))
			require.Contains(t, outcomes(report, prune.Later), table(younger))
			exists, _ := b.exists(monday)
			require.False(t, exists)

			// Its time may come again.
			b.fill(21, 10)
			require.Equal(t, 20, value[int](b, "SELECT count(*) FROM runs"))
		})
	}
}

// Only one week can leave at a time. One that somebody else has begun to detach, or that was
// ours before the schema went back and forth, is out of the way then, and is his.
func TestAWeekThatSomebodyDetachesIsOutOfTheWayAndKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	older, his, younger := b.fill(22, 10), b.fill(21, 10), b.fill(20, 10)
	report, err := b.Pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = report.Rollback(context.Background()) }()
	_, err = report.Exec(ctx, "SELECT count(*) FROM runs")
	require.NoError(t, err)
	conn, err := b.Pool.Acquire(ctx)
	require.NoError(t, err)
	_, err = conn.Exec(ctx, "SET lock_timeout = '50ms'")
	require.NoError(t, err)
	_, err = conn.Exec(ctx, "ALTER TABLE runs DETACH PARTITION "+table(his)+" CONCURRENTLY")
	require.True(t, postgres.IsTimeout(err), err)
	require.NoError(t, conn.Conn().Close(ctx))
	conn.Release()

	dry := of(t, b.prune(prune.Options{DryRun: true}), his)
	require.Equal(t, postgres.WeekLeaving, dry.State)
	require.Equal(t, prune.Kept, dry.Outcome)
	held := b.prune(prune.Options{})
	require.Equal(t, prune.Leaving, of(t, held, his).Outcome)
	require.Equal(t, prune.Later, of(t, held, older).Outcome)
	require.NoError(t, report.Rollback(ctx))
	for range 2 {
		r := b.prune(prune.Options{})
		require.Equal(t, prune.Kept, of(t, r, his).Outcome)
		require.Equal(t, "somebody else detached it: it is his", of(t, r, his).Why)
		require.Equal(t, 10, value[int](b, "SELECT count(*) FROM "+table(his)))
		_, attached := b.exists(his)
		require.False(t, attached)
	}
	for _, monday := range []time.Time{older, younger} {
		exists, _ := b.exists(monday)
		require.False(t, exists)
	}
	b.exec(fmt.Sprintf("ALTER TABLE runs ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')", table(his), his.Format(time.RFC3339), his.AddDate(0, 0, 7).Format(time.RFC3339)))
	require.Equal(t, []string{table(his)}, outcomes(b.prune(prune.Options{}), prune.Dropped))
}

// A run that begins anew while its week is about to go keeps it, and goes on to its end;
// one that comes later is refused.
func TestNoLiveRunIsDropped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	monday := b.fill(20, 100)
	id, other, third := b.one(monday, riverbeat.Failed), b.one(monday, riverbeat.Succeeded), b.one(monday, riverbeat.Cancelled)

	// It is begun anew in a transaction that is not seen when the week is looked at.
	held, err := b.Pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = held.Rollback(context.Background()) }()
	run, err := history.New(postgres.New(held, pgtest.Schema), b.ledger).Retry(ctx, id)
	require.NoError(t, err)
	require.Equal(t, riverbeat.Queued, run.State)
	pruned := b.begin(prune.Options{})
	b.waits()
	b.works()
	require.NoError(t, held.Commit(ctx))
	w := of(t, pruned(), monday)
	require.Equal(t, prune.Kept, w.Outcome)
	require.Equal(t, postgres.WeekSealed, w.State)
	require.Equal(t, "1 run has not ended", w.Why)
	require.Equal(t, prune.Kept, of(t, b.prune(prune.Options{}), monday).Outcome)

	// Nothing else begins there.
	_, err = b.history.Retry(ctx, other)
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
	require.ErrorContains(t, err, "about to be dropped")
	_, err = b.Pool.Exec(ctx, "INSERT INTO runs SELECT (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid(), 'slot', gen_random_uuid()))).* FROM runs AS r WHERE id = $1", other)
	require.ErrorContains(t, err, "nothing begins in")
	job := value[int64](b, `
INSERT INTO river_job (kind, args, max_attempts, state, attempt, finalized_at)
VALUES ('run', jsonb_build_object('run_id', $1::text), 1, 'discarded', 1, now()) RETURNING id`, third)
	b.set(third, "job_id = $3", job)
	_, err = b.queue.Client().JobRetry(ctx, job)
	require.ErrorContains(t, err, "nothing begins in")
	require.Equal(t, "discarded", value[string](b, "SELECT state::text FROM river_job WHERE id = $1", job))
	require.Equal(t, 1, value[int](b, "SELECT count(*) FROM river_job WHERE finalized_at IS NULL"))

	// What began goes on: it starts, fails, is tried again, ends.
	for _, state := range []string{"running", "retryable", "running", "completed"} {
		b.exec("UPDATE river_job SET state = $1::river_job_state, finalized_at = CASE WHEN $1 = 'completed' THEN now() END WHERE finalized_at IS NULL", state)
		if state == "running" { // as a worker starts it
			b.set(id, "state = 'running', started_at = now()")
		}
	}
	run, err = b.history.Run(ctx, id)
	require.NoError(t, err)
	require.Equal(t, riverbeat.Succeeded, run.State)
	require.Equal(t, prune.Dropped, of(t, b.prune(prune.Options{}), monday).Outcome)

	// A backfill of then begins in a new partition.
	b.exec("SELECT create_runs_partition($1)", monday)
}

// A week that is on its way out, or that somebody has detached, is not made anew.
func TestAWeekThatLeavesIsNotMade(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	monday, his := b.fill(21, 10), b.fill(20, 10)
	b.exec("ALTER TABLE runs DETACH PARTITION " + table(his))
	report, err := b.Pool.Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = report.Rollback(context.Background()) }()
	_, err = report.Exec(ctx, "SELECT count(*) FROM runs")
	require.NoError(t, err)
	require.Equal(t, prune.Leaving, of(t, b.prune(prune.Options{}), monday).Outcome)
	p := postgres.NewPartitions(b.DB)
	for _, week := range []time.Time{monday, his} {
		err := p.Ensure(ctx, week)
		require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
	}
	require.NoError(t, report.Rollback(ctx))
	require.Equal(t, []string{table(monday)}, outcomes(b.prune(prune.Options{}), prune.Dropped))
	exists, _ := b.exists(his)
	require.True(t, exists, "what somebody has detached is his")
	require.NoError(t, p.Ensure(ctx, monday))
}

// Nodes prune together; one at a time does.
func TestTwoNodesDropEachWeekOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for ago := 20; ago < 40; ago++ {
		b.fill(ago, 20)
	}
	said := &journal{}
	ctx, cancel := context.WithCancel(t.Context())
	var nodes sync.WaitGroup
	for range 3 {
		p := b.pruner(func(c *prune.Config) {
			c.Every, c.Logger = time.Millisecond, slog.New(slog.NewTextHandler(said, nil))
		})
		nodes.Go(func() { p.Run(ctx) })
	}
	require.Eventually(t, func() bool { return strings.Count(said.String(), "dropped old runs") >= 20 }, 60*time.Second, 20*time.Millisecond)
	cancel()
	nodes.Wait()
	require.Equal(t, 20, strings.Count(said.String(), "dropped old runs"), said)
	require.Zero(t, value[int](b, "SELECT count(*) FROM runs"))
	require.NotContains(t, said.String(), "not dropped")

	session, err := b.DB.OpenPruning(t.Context())
	require.NoError(t, err)
	_, err = b.pruner().Prune(t.Context(), prune.Options{})
	require.True(t, postgres.IsPruning(err), err)
	b.prune(prune.Options{DryRun: true}) // it disturbs nobody
	session.Close(t.Context())
	b.prune(prune.Options{})
}

func TestACopyDropsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(20, 10)
	b.exec("UPDATE installation SET system_identifier = 1")
	_, err := b.pruner().Prune(t.Context(), prune.Options{})
	require.True(t, postgres.IsOnHold(err), err)
	elsewhere := b.pruner(func(c *prune.Config) { c.DB = b.DB.In("staging") })
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error { return tx.MoveHere(t.Context()) }))
	_, err = elsewhere.Prune(t.Context(), prune.Options{})
	require.True(t, postgres.IsOnHold(err), err)
	require.Equal(t, 10, value[int](b, "SELECT count(*) FROM runs"))
}

// The database's clock decides, and nobody's while it and that of the node are far apart.
func TestAWrongClockDropsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old, young := b.fill(20, 10), b.fill(10, 10)
	for _, off := range []time.Duration{366 * day, 25 * time.Hour, -25 * time.Hour, -366 * day} {
		p := b.pruner(func(c *prune.Config) { c.Now = func() time.Time { return time.Now().Add(off) } })
		_, err := p.Prune(t.Context(), prune.Options{})
		require.ErrorContains(t, err, "nobody knows how old runs are")
	}
	require.Equal(t, 20, value[int](b, "SELECT count(*) FROM runs"))
	p := b.pruner(func(c *prune.Config) { c.Now = func() time.Time { return time.Now().Add(23 * time.Hour) } })
	report, err := p.Prune(t.Context(), prune.Options{})
	require.NoError(t, err)
	require.Equal(t, []string{table(old)}, outcomes(report, prune.Dropped))
	exists, _ := b.exists(young)
	require.True(t, exists)
}

// The longest that anybody wants runs to be kept counts.
func TestTheLongestRetentionCounts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	monday := b.fill(20, 10) // 133 days or more
	node := func(kept any) {
		b.exec("INSERT INTO nodes (id, host, version, runs_kept_s) VALUES (gen_random_uuid(), 'alpha', '1', $1)", kept)
	}
	keep := func() time.Duration { return b.prune(prune.Options{DryRun: true}).Keep }
	require.Equal(t, 90*day, keep())
	node(nil) // of the version before, which drops none
	require.Zero(t, keep(), "for ever")
	node(int64(30 * day / time.Second))
	require.Zero(t, keep())
	require.Empty(t, outcomes(b.prune(prune.Options{}), prune.Dropped))
	b.exec("DELETE FROM nodes WHERE runs_kept_s IS NULL")
	require.Equal(t, 90*day, keep())
	node(int64(400 * day / time.Second))
	require.Equal(t, 400*day, keep())
	node(int64(0))
	require.Zero(t, keep(), "for ever")
	require.Empty(t, outcomes(b.prune(prune.Options{}), prune.Dropped))
	b.exec("DELETE FROM nodes")
	forEver := b.pruner(func(c *prune.Config) { c.Keep = 0 })
	report, err := forEver.Prune(t.Context(), prune.Options{})
	require.NoError(t, err)
	require.Equal(t, prune.Kept, of(t, report, monday).Outcome)
	// Who says it himself is obeyed.
	report, err = forEver.Prune(t.Context(), prune.Options{OlderThan: 30 * day})
	require.NoError(t, err)
	require.Equal(t, prune.Dropped, of(t, report, monday).Outcome)
}

// A node drops one week at a time, says once what keeps it from that, and goes on.
func TestANodePrunesNowAndThen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(20, 10)
	said := &journal{}
	login := "no_owner_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	b.exec("CREATE ROLE " + login + " LOGIN")
	b.exec("GRANT USAGE ON SCHEMA riverbeat TO " + login + "; GRANT SELECT ON ALL TABLES IN SCHEMA riverbeat TO " + login)
	cfg := b.Config()
	at, err := url.Parse(cfg.URL)
	require.NoError(t, err)
	at.User = url.User(login)
	cfg.URL = at.String()
	pool, err := postgres.NewPool(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	run := func(db *postgres.DB, until func() bool) {
		ctx, cancel := context.WithCancel(t.Context())
		p := b.pruner(func(c *prune.Config) {
			c.DB, c.Every, c.Logger = db, time.Millisecond, slog.New(slog.NewTextHandler(said, nil))
		})
		done := make(chan struct{})
		go func() { defer close(done); p.Run(ctx) }()
		require.Eventually(t, until, 30*time.Second, time.Millisecond)
		cancel()
		<-done
	}
	const sessions = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
	begun := 0 // sessions, when it was said
	run(postgres.New(pool, pgtest.Schema), func() bool {
		if begun == 0 && strings.Contains(said.String(), "old runs are not dropped") {
			begun = value[int](b, sessions)
		}
		return begun > 0 && value[int](b, sessions) > begun+5
	})
	require.Equal(t, 1, strings.Count(said.String(), "old runs are not dropped"), said)
	require.Contains(t, said.String(), "riverbeat runs prune")
	require.NotContains(t, said.String(), "permission denied")
	require.Equal(t, 10, value[int](b, "SELECT count(*) FROM runs"))
	run(b.DB, func() bool { return value[int](b, "SELECT count(*) FROM runs") == 0 })
}

// Two schemas of a database do not meet: the one is pruned while somebody prunes the other.
func TestOtherSchemas(t *testing.T) {
	t.Parallel()
	d := pgtest.Empty(t)
	for _, schema := range []string{"_1", "_11"} {
		cfg := postgres.Config{URL: d.URL, Schema: schema}
		require.NoError(t, postgres.MigrateUp(t.Context(), cfg, slog.New(slog.DiscardHandler)))
		pool, err := postgres.NewPool(t.Context(), cfg)
		require.NoError(t, err)
		defer pool.Close()
		db := postgres.New(pool, schema).In("default")
		require.NoError(t, db.InTx(t.Context(), func(tx *postgres.Tx) error { return tx.EnsureInstallation(t.Context()) }))
		b := &bundle{Database: &pgtest.Database{URL: d.URL, Pool: pool, DB: db}, t: t}
		monday := b.fill(20, 10)
		require.Equal(t, []string{table(monday)}, outcomes(b.prune(prune.Options{}), prune.Dropped))
		session, err := db.OpenPruning(t.Context())
		require.NoError(t, err)
		defer session.Close(context.Background())
	}
}

// journal is what was logged.
type journal struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.String()
}
