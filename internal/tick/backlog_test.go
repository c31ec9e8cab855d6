package tick_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
)

const week = 7 * 24 * time.Hour

// perSecond is a schedule of every second.
func perSecond(catchUp riverbeat.CatchUp) func(*riverbeat.Schedule) {
	return func(s *riverbeat.Schedule) { s.CronExpression, s.CatchUp = "* * * * * *", catchUp }
}

// statements counts what a pool sends.
type statements struct{ atomic.Int64 }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.Add(1)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *statements) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	s.Add(1)
	return ctx
}

func (s *statements) TraceCopyFromEnd(context.Context, *pgx.Conn, pgx.TraceCopyFromEndData) {}

// seconds is how many seconds begin after from and up to to.
func seconds(from, to time.Time) int { return int(to.Unix() - from.Unix()) }

// A schedule of every second that slept for a week is decided with as many
// statements as one that slept for two minutes, and leaves one row for what it
// missed.
func TestAWeekOfSecondsCostsNoMoreThanTwoMinutes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		catchUp  riverbeat.CatchUp
		caughtUp int
	}{
		{riverbeat.CatchUpLatest, 1},
		{riverbeat.CatchUpNone, 0},
		{riverbeat.CatchUpAll, riverbeat.MaxCatchUpRuns},
	} {
		t.Run(string(test.catchUp), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var sent statements
			config := b.Pool.Config()
			config.ConnConfig.Tracer = &sent
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			require.NoError(t, err)
			defer pool.Close()
			ticker := tick.New(postgres.New(pool, pgtest.Schema), b.ledger, slog.New(slog.DiscardHandler))
			_, err = ticker.Sweep(t.Context()) // a connection is opened, a partition made
			require.NoError(t, err)

			var least, most int // ticks that are on time
			cost := func(slept time.Duration) int64 {
				var ends time.Time
				s := b.schedule(t, slept, func(s *riverbeat.Schedule) {
					perSecond(test.catchUp)(s)
					ends = time.Now() // so that no tick comes while it is decided
					s.EndsAt = &ends
				})
				before, from := sent.Load(), time.Now()
				_, err := ticker.Sweep(t.Context())
				require.NoError(t, err)
				most = seconds(from.Add(-riverbeat.OnTime), ends)
				least = seconds(time.Now().Add(-riverbeat.OnTime), ends)
				spent := sent.Load() - before
				require.Nil(t, b.read(t, s.ID).NextRunAt)
				return spent
			}
			cost(week) // makes partitions
			short := cost(2 * time.Minute)
			b.exec(t, "TRUNCATE runs, river_job")
			long := cost(week)
			// River tells its clients of new jobs, but not each time.
			require.InDelta(t, short, long, 1)
			require.Less(t, long, int64(60))

			require.Equal(t, 1, b.count(t, "SELECT count(*) FROM runs WHERE state = 'missed' AND missed_count IS NULL"))
			require.Equal(t, test.caughtUp, b.count(t, "SELECT count(*) FROM runs WHERE trigger = 'catch_up' AND state <> 'missed'"))
			onTime := b.count(t, "SELECT count(*) FROM runs WHERE trigger = 'schedule'")
			require.GreaterOrEqual(t, onTime, least)
			require.LessOrEqual(t, onTime, most)
			require.Equal(t, 1+test.caughtUp+onTime, b.count(t, "SELECT count(*) FROM runs"))
		})
	}
}

// What a schedule has to catch up with is decided in one transaction, so that
// the window is the same for all of it.
func TestABacklogIsDecidedAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const schedules, slept = 5, 700 * time.Second
	for range schedules {
		b.schedule(t, slept, perSecond(riverbeat.CatchUpAll))
	}
	b.sweep(t)
	require.Equal(t, schedules, b.count(t, "SELECT count(DISTINCT schedule_id) FROM runs"))
	require.Equal(t, schedules, b.count(t, "SELECT count(DISTINCT (schedule_id, xmin::text)) FROM runs WHERE trigger = 'catch_up'"))
}

// logClaims writes down which clocks were moved together.
func (b *bundle) logClaims(t *testing.T) {
	t.Helper()
	b.exec(t, `
CREATE TABLE test_claims (place bigserial, claim xid8, schedule_id uuid);
CREATE FUNCTION test_log() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO test_claims (claim, schedule_id) VALUES (pg_current_xact_id(), NEW.schedule_id);
    RETURN NEW;
END
$$;
CREATE TRIGGER test_log AFTER UPDATE ON schedule_clocks FOR EACH ROW EXECUTE FUNCTION test_log()`)
}

func TestABacklogDelaysNobodyWhoIsOnTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 1_200 {
		b.schedule(t, week, func(s *riverbeat.Schedule) { s.Name = fmt.Sprint("slept ", i) })
	}
	b.schedule(t, week/2, perSecond(riverbeat.CatchUpAll))
	var onTime []*riverbeat.Schedule
	for range 10 {
		onTime = append(onTime, b.schedule(t, 5*time.Second, perSecond(riverbeat.CatchUpLatest)))
	}
	b.logClaims(t)
	require.Eventually(t, func() bool {
		b.sweep(t)
		return b.count(t, "SELECT count(*) FROM schedule_clocks WHERE next_run_at <= statement_timestamp() - interval '1 minute'") == 0
	}, time.Minute, time.Millisecond)
	ids := make([]string, len(onTime))
	for i, s := range onTime {
		ids[i] = s.ID.String()
	}
	const first = "SELECT count(*) FROM test_claims WHERE claim = (SELECT min(claim) FROM test_claims)"
	require.Equal(t, len(onTime), b.count(t, first))
	require.Equal(t, len(onTime), b.count(t, first+" AND schedule_id = ANY($1::uuid[])", ids))
}

// When there is always something due, nobody waits for ever: not old clocks,
// not stopped ones, not lines.
func TestConstantOverloadStarvesNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const old = 120
	for range old {
		b.schedule(t, week, nil)
	}
	stopped := b.schedule(t, time.Minute, nil)
	b.exec(t, "UPDATE schedule_clocks SET next_run_at = NULL, retry_at = statement_timestamp() WHERE schedule_id = $1", stopped.ID)
	s := newScene(b)
	s.stand(t, "a line, its job just ended")
	// A schedule that is due whenever one looks.
	busy := b.schedule(t, time.Minute, func(s *riverbeat.Schedule) { s.CronExpression = "0 0 29 2 *" })
	b.exec(t, fmt.Sprintf(`
CREATE FUNCTION test_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.last_scheduled_for := statement_timestamp() - interval '2 seconds';
    NEW.next_run_at := statement_timestamp() - interval '1 second';
    RETURN NEW;
END
$$;
CREATE TRIGGER test_due BEFORE UPDATE ON schedule_clocks
    FOR EACH ROW WHEN (NEW.schedule_id = '%s') EXECUTE FUNCTION test_due()`, busy.ID))
	b.exec(t, "UPDATE schedule_clocks SET next_run_at = NULL WHERE schedule_id = $1", busy.ID)
	b.logClaims(t)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	next, err := b.ticker.Sweep(ctx)
	require.NoError(t, err)
	require.Zero(t, next, "there is more")
	require.Equal(t, old, b.count(t, "SELECT count(DISTINCT schedule_id) FROM runs WHERE state = 'missed'"))
	require.NotEmpty(t, b.runs(t, stopped.ID))
	require.Equal(t, riverbeat.Queued, s.run(t, s.head.ID).State)
	// Between two claims of old ones lies one of what is on time.
	require.Zero(t, b.count(t, `
SELECT count(*)
FROM (
    SELECT old, lag(old) OVER (ORDER BY place) AS before
    FROM (SELECT min(place) AS place, bool_or(schedule_id NOT IN ($1, $2)) AS old FROM test_claims GROUP BY claim) AS claims
) AS claims
WHERE old AND before`, busy.ID, stopped.ID))
	require.LessOrEqual(t, b.count(t, "SELECT max(n) FROM (SELECT count(*) AS n FROM test_claims GROUP BY claim) AS claims"), 50)
}

// A sweep that decides a schedule of every second after a week.
//
//	go test ./internal/tick -run - -bench WeekOfSeconds -benchtime 50x
func BenchmarkWeekOfSeconds(bench *testing.B) {
	for _, catchUp := range []riverbeat.CatchUp{riverbeat.CatchUpLatest, riverbeat.CatchUpNone, riverbeat.CatchUpAll} {
		bench.Run(string(catchUp), func(bench *testing.B) {
			b := setup(bench)
			for bench.Loop() {
				bench.StopTimer()
				b.exec(bench, "TRUNCATE schedules, schedule_clocks, runs, river_job")
				b.schedule(bench, week, perSecond(catchUp))
				bench.StartTimer()
				_, err := b.ticker.Sweep(bench.Context())
				require.NoError(bench, err)
			}
		})
	}
}
