package doctor_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/doctor"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// clock is a clock that a test moves on.
type clock struct{ passed atomic.Int64 }

func (c *clock) now() time.Time {
	return time.Unix(0, 0).Add(time.Hour + time.Duration(c.passed.Load()))
}
func (c *clock) pass(d time.Duration) { c.passed.Add(int64(d)) }
func all(v doctor.Vitals) map[string]doctor.Reading {
	byName := map[string]doctor.Reading{}
	for _, r := range v.Readings {
		byName[r.Check] = r
	}
	return byName
}

// monitor watches b. It waits long, so that quick readings are there.
func (b *bundle) monitor(wait time.Duration) (*doctor.Monitor, *clock) {
	b.t.Helper()
	c := &clock{}
	m := doctor.NewMonitor(b.t.Context(), b.doctor, c.now, wait)
	b.t.Cleanup(m.Close)
	return m, c
}

// complete waits until all checks have been made.
func complete(t *testing.T, m *doctor.Monitor) doctor.Vitals {
	t.Helper()
	var v doctor.Vitals
	require.Eventually(t, func() bool {
		v = m.Vitals()
		return len(v.Readings) == 21
	}, 30*time.Second, 10*time.Millisecond)
	return v
}

func TestAMonitorTellsTheLoadAndWhatTheChecksFound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.lined()                 // one queued, five waiting
	b.ticked(riverbeat.Allow) // one queued
	b.ticked(riverbeat.Allow) // which will be running
	b.ticked(riverbeat.Allow) // which will be retrying
	b.exec(`UPDATE river_job SET state = 'running', attempt = 1, attempted_at = now(), attempted_by = ARRAY[(SELECT id FROM nodes)::text]
WHERE id = (SELECT max(id) FROM river_job)`)
	b.exec("UPDATE river_job SET state = 'retryable', attempt = 1 WHERE id = (SELECT max(id) - 1 FROM river_job)")
	m, _ := b.monitor(30 * time.Second)
	v := m.Vitals()
	require.True(t, v.Up)
	require.Equal(t, &postgres.Load{Waiting: 5, Queued: 2, Running: 1, Retrying: 1, LiveNodes: 1}, v.Load)
	require.Contains(t, all(v), "overdue_clocks", "quick ones are waited for")
	for name, r := range all(complete(t, m)) {
		require.NotNil(t, r.Finding, name)
		require.Equal(t, doctor.OK, r.Finding.Status, r.Finding)
		require.Zero(t, r.Errors)
		require.Zero(t, r.Age)
	}
}

func TestAMonitorLooksAgainWhenItsReadingsAreOld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, clock := b.monitor(30 * time.Second)
	complete(t, m)
	b.schedule(riverbeat.Allow)
	b.exec("INSERT INTO schedules (name, task_name, cron_expression, timezone) VALUES ('no clock', 'echo', '@daily', 'UTC')")

	clock.pass(14 * time.Second)
	quick := all(m.Vitals())["overdue_clocks"]
	require.Equal(t, doctor.OK, quick.Finding.Status, "it has not looked")
	require.Equal(t, 14*time.Second, quick.Age)

	clock.pass(time.Second)
	v := m.Vitals()
	quick = all(v)["overdue_clocks"]
	require.Equal(t, doctor.Fail, quick.Finding.Status)
	require.Zero(t, quick.Age)
	require.Greater(t, v.Load.Behind, 5*time.Hour)
	require.Equal(t, doctor.OK, all(v)["idle_clocks"].Finding.Status, "slow ones later")

	clock.pass(5 * time.Minute)
	require.Eventually(t, func() bool { return all(m.Vitals())["idle_clocks"].Finding.Status == doctor.Fail }, 30*time.Second, 10*time.Millisecond)
}

func TestAMonitorKeepsWhatItCannotReadAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, clock := b.monitor(30 * time.Second)
	complete(t, m)
	b.exec("ALTER TABLE task_definitions RENAME TO gone")
	clock.pass(time.Minute)
	v := m.Vitals()
	require.True(t, v.Up)
	r := all(v)["unserved_queues"]
	require.Equal(t, 1, r.Errors)
	require.Equal(t, doctor.OK, r.Finding.Status)
	require.Equal(t, time.Minute, r.Age)
	require.Zero(t, all(v)["nodes"].Age, "the others go on")

	b.Pool.Close()
	clock.pass(time.Minute)
	v = m.Vitals()
	require.False(t, v.Up)
	require.Nil(t, v.Load)
	require.Equal(t, time.Minute, all(v)["nodes"].Age)
}

// However many ask, one reading is under way, and nobody waits for long.
func TestAMonitorReadsOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, _ := b.monitor(100 * time.Millisecond)
	tx := b.open("LOCK TABLE schedule_clocks")
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() { m.Vitals() })
	}
	require.Eventually(t, func() bool {
		return value[int](b, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 1
	}, 10*time.Second, time.Millisecond, "one of them waits in the database")
	asking.Wait()
	require.Equal(t, 1, value[int](b, `SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND xact_start IS NOT NULL AND pid NOT IN (pg_backend_pid(), $1)`, tx.Conn().PgConn().PID()))
	require.NoError(t, tx.Rollback(t.Context()))
	complete(t, m)
}

func TestAMonitorThatIsClosedEndsWhatItReads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := &clock{}
	m := doctor.NewMonitor(t.Context(), b.doctor, c.now, time.Millisecond)
	tx := b.open("LOCK TABLE schedule_clocks")
	m.Vitals()
	m.Close()
	require.Eventually(t, func() bool { return b.Pool.Stat().AcquiredConns() == 1 }, 10*time.Second, time.Millisecond,
		"only the one that holds the lock is in use")
	require.NoError(t, tx.Rollback(t.Context()))
	require.Empty(t, m.Vitals().Readings, "and it does not begin again")
}

func TestAMonitorOfADatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	away := doctor.New(doctor.Config{DB: d.DB, Environment: "default"})
	d.Pool.Close()
	c := &clock{}
	m := doctor.NewMonitor(t.Context(), away, c.now, 30*time.Second)
	defer m.Close()
	require.Equal(t, doctor.Vitals{}, m.Vitals())
}
