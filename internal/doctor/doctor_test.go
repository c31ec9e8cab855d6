package doctor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/doctor"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is an installation that can be broken: a database of its own, on
// which one node seems to live.
type bundle struct {
	*pgtest.Database
	t       *testing.T
	doctor  *doctor.Doctor
	catalog *catalog.Catalog
	ticker  *tick.Ticker
}

func setup(t *testing.T) *bundle {
	t.Helper()
	d := pgtest.DB(t)
	q, err := queue.New(d.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := ledger.New(q)
	b := &bundle{
		Database: d, t: t, catalog: catalog.New(d.DB, l),
		doctor: doctor.New(doctor.Config{DB: d.DB, Ledger: l, Queue: q, Environment: "default"}),
		ticker: tick.New(d.DB, l, slog.New(slog.DiscardHandler)),
	}
	b.doctor.Hasten()
	// A clone of a database is a copy, which is what this must not be.
	b.exec("UPDATE installation SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())")
	b.exec(`INSERT INTO nodes (id, host, version, tzdata_version, tasks, queues, last_seen_at)
VALUES (gen_random_uuid(), 'alpha', '1.0', '2026a', '["echo"]', '{"default": 10}', now() + interval '1 hour')`)
	return b
}

// exec does what no part of Riverbeat would do.
func (b *bundle) exec(statement string, args ...any) {
	b.t.Helper()
	_, err := b.Pool.Exec(b.t.Context(), statement, args...)
	require.NoError(b.t, err, statement)
}

// open leaves a transaction open, until the test ends it or has ended.
func (b *bundle) open(statement string) pgx.Tx {
	b.t.Helper()
	tx, err := b.Pool.Begin(b.t.Context())
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	_, err = tx.Exec(b.t.Context(), statement)
	require.NoError(b.t, err)
	return tx
}

// value reads one value.
func value[T any](b *bundle, query string, args ...any) T {
	b.t.Helper()
	var v T
	require.NoError(b.t, b.Pool.QueryRow(b.t.Context(), query, args...).Scan(&v), query)
	return v
}

// hourly ticks half an hour away from now, so that no test meets a tick.
func hourly() string { return fmt.Sprintf("%d * * * *", (time.Now().Minute()+30)%60) }

// schedule makes a schedule of the task echo, as it would be if it had been
// due since six hours: six ticks, of which the newest will run, by default.
func (b *bundle) schedule(policy riverbeat.Policy, change ...func(*riverbeat.Schedule)) uuid.UUID {
	b.t.Helper()
	given := &riverbeat.Schedule{
		Name: "nightly", TaskName: "echo", CronExpression: hourly(), Timezone: "UTC", Enabled: true,
		Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"), ExecutionPolicy: policy,
		CatchUp: riverbeat.CatchUpLatest, CatchUpWindow: 24 * time.Hour, MaxWaiting: 100,
	}
	for _, c := range change {
		c(given)
	}
	s, err := b.catalog.CreateSchedule(b.t.Context(), given)
	require.NoError(b.t, err)
	b.exec("UPDATE schedules SET created_at = now() - interval '6 hours', updated_at = now() - interval '6 hours' WHERE id = $1", s.ID)
	if s.NextRunAt != nil {
		b.exec("UPDATE schedule_clocks SET last_scheduled_for = now() - interval '6 hours', next_run_at = next_run_at - interval '6 hours' WHERE schedule_id = $1", s.ID)
	}
	return s.ID
}

// ticked is a schedule whose ticks are decided.
func (b *bundle) ticked(policy riverbeat.Policy, change ...func(*riverbeat.Schedule)) uuid.UUID {
	b.t.Helper()
	id := b.schedule(policy, change...)
	b.sweep()
	return id
}

func (b *bundle) sweep() {
	b.t.Helper()
	_, err := b.ticker.Sweep(b.t.Context())
	require.NoError(b.t, err)
}

// lined is a keyed schedule of which one run has a job and others wait.
func (b *bundle) lined() {
	b.t.Helper()
	b.ticked(riverbeat.Queue, func(s *riverbeat.Schedule) { s.CatchUp = riverbeat.CatchUpAll })
	require.Positive(b.t, value[int](b, "SELECT count(*) FROM runs WHERE state = 'waiting'"))
}

// behindTheTrigger changes jobs without the history following.
func (b *bundle) behindTheTrigger(statement string) {
	b.t.Helper()
	b.exec("ALTER TABLE river_job DISABLE TRIGGER USER")
	b.exec(statement)
	b.exec("ALTER TABLE river_job ENABLE TRIGGER USER")
}

func (b *bundle) check(o ...doctor.Options) *doctor.Report {
	b.t.Helper()
	var options doctor.Options
	if len(o) > 0 {
		options = o[0]
	}
	report, err := b.doctor.Check(b.t.Context(), options)
	require.NoError(b.t, err)
	return report
}

func (b *bundle) repair() *doctor.Report {
	b.t.Helper()
	report, err := b.doctor.Repair(b.t.Context(), doctor.Options{})
	require.NoError(b.t, err)
	return report
}

// of is the finding of one check.
func of(t *testing.T, r *doctor.Report, check string) doctor.Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check == check {
			return f
		}
	}
	require.Fail(t, "no such check", check)
	return doctor.Finding{}
}

// sound demands that nothing is wrong, but for the checks named.
func sound(t *testing.T, r *doctor.Report, but ...string) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Status != doctor.OK {
			require.Contains(t, but, f.Check, "%+v", f)
		}
	}
}

func TestAHealthyInstallation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ticked(riverbeat.Allow)
	b.ticked(riverbeat.Skip)
	b.ticked(riverbeat.Allow, func(s *riverbeat.Schedule) { s.CatchUp = riverbeat.CatchUpNone })
	b.lined()
	b.ticked(riverbeat.Allow, func(s *riverbeat.Schedule) { s.Enabled = false })
	// It ends before it would tick, so it may be idle.
	b.ticked(riverbeat.Allow, func(s *riverbeat.Schedule) {
		ends := time.Now().Add(time.Minute)
		s.CronExpression, s.EndsAt = "0 0 1 1 *", &ends
	})

	report := b.check()
	sound(t, report)
	require.Equal(t, doctor.OK, report.Status)
	var names []string
	for _, f := range report.Findings {
		names = append(names, f.Check)
		require.NotEmpty(t, f.Detail)
		require.Zero(t, f.Count)
		require.Empty(t, f.Examples)
		require.Empty(t, f.Advice+f.Repair+f.Repaired)
	}
	require.Equal(t, []string{
		"schema", "installation", "nodes", "history_trigger", "partitions", "old_partitions", "indexes", "long_transactions",
		"overdue_clocks", "stopped_clocks", "idle_clocks", "unaccounted_ticks", "doubled_ticks",
		"runs_without_job", "jobs_without_run", "runs_without_line", "stalled_lines", "lost_jobs",
		"unserved_queues", "unregistered_tasks", "untold_alerts",
	}, names)
	require.Contains(t, of(t, report, "unaccounted_ticks").Detail, "of 5 schedules in the last 24h")
	require.NotContains(t, of(t, report, "unaccounted_ticks").Detail, "Looked at 0")

	before := b.dump()
	report = b.repair()
	sound(t, report)
	for _, f := range report.Findings {
		require.Empty(t, f.Repaired, f.Check)
	}
	require.Equal(t, before, b.dump(), "what is well is left alone")
}

// dump is all that a repair might change.
func (b *bundle) dump() string {
	b.t.Helper()
	return value[string](b, `SELECT concat(
	(SELECT jsonb_agg(to_jsonb(r) ORDER BY r.id) FROM runs AS r),
	(SELECT jsonb_agg(to_jsonb(j) ORDER BY j.id) FROM river_job AS j),
	(SELECT jsonb_agg(to_jsonb(l) ORDER BY l.lock_key, l.run_id) FROM lines AS l),
	(SELECT jsonb_agg(to_jsonb(c) ORDER BY c.schedule_id) FROM schedule_clocks AS c))`)
}

// Each check is seen to fail, and those that can be repaired to be well again.
func TestChecks(t *testing.T) {
	t.Parallel()
	const thisWeek, nextWeek = "now()", "now() + interval '7 days'"
	dropPartition := func(b *bundle, at string) {
		b.exec("DO $$ BEGIN EXECUTE format('DROP TABLE %I', 'runs_p' || to_char(runs_week(" + at + ") AT TIME ZONE 'UTC', 'YYYYMMDD')); END $$")
	}
	for _, test := range []struct {
		name  string
		check string
		harm  func(*bundle)

		status doctor.Status
		count  int
		detail string   // is part of the sentence
		shows  string   // is part of the examples; "" is not looked at
		also   []string // checks that may find something, too

		repaired string        // what Repair says it did; "" if it cannot do anything
		then     func(*bundle) // looks at what was repaired
		after    doctor.Status // of the check, once repaired; "" is ok
		left     []string      // checks that still find something after the repair
	}{
		{
			name: "paused", check: "installation",
			harm: func(b *bundle) {
				b.exec("UPDATE installation SET paused_at = '2026-01-02 03:04:05Z', paused_by = 'ann', pause_reason = 'the move'")
			},
			status: doctor.Warn, count: 1, detail: "Paused since 2026-01-02T03:04:05Z by ann: the move.",
		},
		{
			name: "no node ever", check: "nodes",
			harm:   func(b *bundle) { b.exec("DELETE FROM nodes") },
			status: doctor.Fail, count: 1, detail: "No node has ever worked here.", also: []string{"unserved_queues", "unregistered_tasks"},
		},
		{
			name: "no node now", check: "nodes",
			harm:   func(b *bundle) { b.exec("UPDATE nodes SET last_seen_at = now() - interval '60 hours'") },
			status: doctor.Fail, count: 1, detail: "No node lives. The last, on alpha, was seen 2 days ago.",
		},
		{
			name: "different tzdata", check: "nodes",
			harm: func(b *bundle) {
				b.exec("INSERT INTO nodes (id, host, version, tzdata_version, last_seen_at) VALUES (gen_random_uuid(), 'beta', '1.0', '2025c', now() + interval '1 hour')")
			},
			status: doctor.Warn, count: 2, detail: "2 nodes live, with different tzdata", shows: "beta: tzdata 2025c",
		},
		{
			name: "trigger disabled", check: "history_trigger",
			harm:   func(b *bundle) { b.exec("ALTER TABLE river_job DISABLE TRIGGER riverbeat_record_update") },
			status: doctor.Fail, count: 1, detail: "is not written into their runs", shows: "riverbeat_record_update on river_job: disabled",
			repaired: "Enabled 1 trigger.",
		},
		{
			name: "trigger for replicas only", check: "history_trigger",
			harm:   func(b *bundle) { b.exec("ALTER TABLE river_job ENABLE REPLICA TRIGGER riverbeat_record_delete") },
			status: doctor.Fail, count: 1, detail: "is not written into their runs", shows: "riverbeat_record_delete on river_job: disabled",
			repaired: "Enabled 1 trigger.",
		},
		{
			name: "trigger of lines disabled", check: "history_trigger",
			harm:   func(b *bundle) { b.exec("ALTER TABLE runs DISABLE TRIGGER riverbeat_record_line_update") },
			status: doctor.Fail, count: 1, detail: "is not written into their runs", shows: "riverbeat_record_line_update on runs: disabled",
			repaired: "Enabled 1 trigger.",
		},
		{
			name: "trigger of lines disabled in one partition", check: "history_trigger",
			harm: func(b *bundle) {
				b.exec("DO $$ BEGIN EXECUTE format('ALTER TABLE %I DISABLE TRIGGER USER', 'runs_p' || to_char(runs_week(now()) AT TIME ZONE 'UTC', 'YYYYMMDD')); END $$")
			},
			status: doctor.Fail, count: 4, detail: "is not written into their runs", shows: "riverbeat_note_failed on runs_p",
			repaired: "Enabled 4 triggers.",
		},
		{
			name: "trigger gone", check: "history_trigger",
			harm:   func(b *bundle) { b.exec("DROP TRIGGER riverbeat_record_delete ON river_job") },
			status: doctor.Fail, count: 1, detail: "is not written into their runs", shows: "riverbeat_record_delete on river_job: gone",
			after: doctor.Fail,
		},
		{
			name: "no partition next week", check: "partitions",
			harm:   func(b *bundle) { dropPartition(b, nextWeek) },
			status: doctor.Warn, count: 1, detail: "1 partition of runs is missing.",
			repaired: "Made 1 partition.",
		},
		{
			name: "no partition now", check: "partitions",
			harm:   func(b *bundle) { dropPartition(b, thisWeek) },
			status: doctor.Fail, count: 1, detail: "1 partition of runs is missing.",
			repaired: "Made 1 partition.",
		},
		{
			name: "old runs", check: "old_partitions",
			harm: func(b *bundle) {
				b.exec("UPDATE nodes SET runs_kept_s = 90 * 86400")
				for _, week := range []string{"2025-12-29 00:00Z", "2026-01-05 00:00Z", "2026-01-12 00:00Z", "2026-01-19 00:00Z"} {
					b.exec("SELECT create_runs_partition('" + week + "')")
					b.exec(`INSERT INTO runs (id, scheduled_for, schedule_name, task_name, execution_policy, trigger, slot, state, finished_at, created_at)
VALUES (gen_random_uuid(), '` + week + `', 'nightly', 'echo', 'allow', 'manual', gen_random_uuid(), 'succeeded', '` + week + `', '` + week + `')`)
				}
				b.exec("ALTER TABLE runs DETACH PARTITION runs_p20251229")                              // somebody's own
				b.exec("UPDATE runs SET finished_at = now() WHERE scheduled_for = '2026-01-05 00:00Z'") // of a backfill
			},
			status: doctor.Warn, count: 1, detail: "The runs of the week of 2026-01-12 are still there, and perhaps those of later ones: they are kept for 90d.",
			after: doctor.Warn,
		},
		{
			name: "index missing", check: "indexes",
			harm:   func(b *bundle) { b.exec("DROP INDEX schedule_clocks_retry_at_idx") },
			status: doctor.Warn, count: 1, detail: "1 index is missing or invalid.", shows: "schedule_clocks_retry_at_idx: missing",
		},
		{
			name: "index invalid", check: "indexes",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.ticked(riverbeat.Allow)
				_, err := b.Pool.Exec(b.t.Context(), "CREATE UNIQUE INDEX CONCURRENTLY failed_ccnew ON schedules (task_name)")
				require.Error(b.t, err, "an index that could not be built is left behind")
			},
			status: doctor.Warn, count: 1, detail: "1 index is missing or invalid.", shows: "failed_ccnew: invalid",
		},
		{
			name: "overdue", check: "overdue_clocks",
			harm:   func(b *bundle) { b.schedule(riverbeat.Allow) },
			status: doctor.Fail, count: 1, detail: "1 schedule is due and not decided, the oldest for 5h3", shows: "nightly (",
			after: doctor.Fail,
		},
		{
			name: "overdue for another try", check: "overdue_clocks",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.exec("UPDATE schedule_clocks SET next_run_at = NULL, retry_at = now() - interval '60 hours'")
			},
			status: doctor.Fail, count: 1, detail: "1 schedule is due and not decided, the oldest for 2 days.",
			after: doctor.Fail,
		},
		{
			name: "stopped", check: "stopped_clocks",
			harm: func(b *bundle) {
				b.schedule(riverbeat.Allow)
				b.exec("UPDATE schedules SET timezone = 'Mars/Olympus'")
				b.sweep()
			},
			status: doctor.Fail, count: 1, detail: "1 schedule cannot be planned and is set aside; its ticks become gaps.", shows: "Mars/Olympus",
			repaired: "Asked for another try of 1 schedule.",
			then: func(b *bundle) {
				require.True(b.t, value[bool](b, "SELECT retry_at <= now() FROM schedule_clocks"))
				b.exec("UPDATE schedules SET timezone = 'UTC'")
				b.sweep()
				require.True(b.t, value[bool](b, "SELECT next_run_at > now() FROM schedule_clocks"), "it ticks again")
			},
		},
		{
			name: "enabled behind the clock's back", check: "idle_clocks",
			harm: func(b *bundle) {
				id := b.ticked(riverbeat.Allow)
				_, err := b.catalog.ChangeSchedule(b.t.Context(), id, func(s *riverbeat.Schedule) error { s.Enabled = false; return nil })
				require.NoError(b.t, err)
				b.exec("UPDATE schedule_clocks SET last_scheduled_for = now() - interval '3 hours'")
				b.exec("UPDATE schedules SET enabled = true, updated_at = now() - interval '3 hours'")
				b.exec("DELETE FROM runs WHERE scheduled_for > now() - interval '3 hours' OR state = 'missed'")
				b.exec("DELETE FROM river_job")
			},
			status: doctor.Fail, count: 1, detail: "1 schedule is enabled and never ticks.", shows: "nightly",
			repaired: "Started the clock of 1 schedule.",
			then: func(b *bundle) {
				require.Equal(b.t, 3, value[int](b, "SELECT missed_count FROM runs WHERE state = 'missed' AND reason = 'outside_window'"))
				b.sweep()
				require.Equal(b.t, 1, value[int](b, "SELECT count(*) FROM runs"), "nothing is made up for")
				require.True(b.t, value[bool](b, "SELECT next_run_at > now() FROM schedule_clocks"))
			},
		},
		{
			name: "no clock", check: "idle_clocks",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.exec("DELETE FROM schedule_clocks")
			},
			status: doctor.Fail, count: 1, detail: "1 schedule is enabled and never ticks.",
			repaired: "Started the clock of 1 schedule.",
		},
		{
			name: "a run deleted", check: "unaccounted_ticks",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.exec("DELETE FROM river_job")
				b.exec("DELETE FROM runs WHERE state <> 'missed' AND scheduled_for = (SELECT max(scheduled_for) FROM runs)")
			},
			status: doctor.Fail, count: 1, detail: "1 tick is neither a run nor in a gap. Looked at 6 ticks of 1 schedule in the last 24h.", shows: "nightly",
			after: doctor.Fail,
		},
		{
			name: "a gap deleted", check: "unaccounted_ticks",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow, func(s *riverbeat.Schedule) { s.CatchUp = riverbeat.CatchUpNone })
				b.exec("DELETE FROM runs WHERE state = 'missed'")
			},
			status: doctor.Fail, count: 6, detail: "6 ticks are neither a run nor in a gap.",
			after: doctor.Fail,
		},
		{
			name: "no unique index", check: "doubled_ticks",
			harm:   func(b *bundle) { b.exec("DROP INDEX runs_tick_key") },
			status: doctor.Fail, count: 3, detail: "Nothing keeps ticks from being decided twice in 3 partitions of runs.", shows: "no valid unique index",
			after: doctor.Fail,
		},
		{
			name: "a doubled tick", check: "doubled_ticks",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.exec("DELETE FROM river_job")
				b.exec("DROP INDEX runs_tick_key")
				b.exec(`INSERT INTO runs (id, scheduled_for, schedule_id, schedule_name, task_name, execution_policy, trigger, slot, state)
SELECT gen_random_uuid(), scheduled_for, schedule_id, schedule_name, task_name, execution_policy, trigger, slot, state
FROM runs ORDER BY scheduled_for DESC LIMIT 1`)
			},
			status: doctor.Fail, count: 1, detail: "1 tick of the last 24h was decided more than once.", shows: ": 2 runs",
			after: doctor.Fail,
		},
		{
			name: "jobs deleted without the trigger", check: "runs_without_job",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.ticked(riverbeat.Allow)
				b.behindTheTrigger("DELETE FROM river_job")
			},
			status: doctor.Fail, count: 2, detail: "2 runs of the last 24h have not the state of their job.", shows: "queued, but its job is gone",
			repaired: "Set 2 runs straight.",
			then: func(b *bundle) {
				require.Equal(b.t, 2, value[int](b, "SELECT count(*) FROM runs WHERE state = 'cancelled' AND reason = 'job_deleted' AND finished_at IS NOT NULL"))
			},
		},
		{
			name: "jobs ended without the trigger", check: "runs_without_job",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.ticked(riverbeat.Allow)
				b.behindTheTrigger(`UPDATE river_job SET state = 'completed', attempt = 1, attempted_at = '2026-01-01 00:00Z', attempted_by = '{alpha}',
finalized_at = '2026-01-02 00:00Z', metadata = '{"output": {"ok": 1}, "river:log": [{"attempt": 1, "log": "said"}]}' WHERE id = (SELECT min(id) FROM river_job)`)
				b.behindTheTrigger(`UPDATE river_job SET state = 'discarded', attempt = 3, finalized_at = '2026-01-03 00:00Z',
errors = ARRAY['{"error": "first"}', '{"error": "broken"}']::jsonb[] WHERE id = (SELECT max(id) FROM river_job)`)
			},
			status: doctor.Fail, count: 2, detail: "2 runs of the last 24h have not the state of their job.", shows: "is completed",
			repaired: "Set 2 runs straight.",
			then: func(b *bundle) {
				require.JSONEq(b.t, `{"result": {"ok": 1}, "attempt": 1, "node": "alpha", "started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-02T00:00:00+00:00", "said": "said", "error": null}`,
					value[string](b, `SELECT json_build_object('result', result, 'attempt', attempt, 'node', node, 'started_at', started_at,
'finished_at', finished_at, 'said', logs -> 0 -> 'log', 'error', error)::text FROM runs WHERE state = 'succeeded'`))
				require.Equal(b.t, "broken", value[string](b, "SELECT error FROM runs WHERE state = 'failed' AND attempt = 3 AND finished_at = '2026-01-03 00:00Z'"))
			},
		},
		{
			name: "a run changed by hand", check: "runs_without_job",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.ticked(riverbeat.Allow)
				b.exec("UPDATE runs SET state = 'running' WHERE state = 'queued'")
			},
			status: doctor.Fail, count: 2, detail: "2 runs of the last 24h have not the state of their job.", shows: "running, but its job",
			repaired: "Set 2 runs straight.",
			then: func(b *bundle) {
				require.Equal(b.t, 2, value[int](b, "SELECT count(*) FROM runs WHERE state = 'queued' AND finished_at IS NULL"))
			},
		},
		{
			name: "a run deleted under its job", check: "jobs_without_run",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Skip)
				b.exec("DELETE FROM runs WHERE state = 'queued'")
			},
			status: doctor.Fail, count: 1, detail: "1 live job belongs to no unfinished run.", shows: "its run is gone", also: []string{"unaccounted_ticks"},
			repaired: "Cancelled 1 job.", left: []string{"unaccounted_ticks"},
			then: func(b *bundle) {
				require.Equal(b.t, "cancelled", value[string](b, "SELECT state::text FROM river_job"))
			},
		},
		{
			name: "a job whose run nobody can name", check: "jobs_without_run",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Skip)
				b.exec(`INSERT INTO river_job (args, kind, max_attempts) VALUES ('{"run_id": "nonsense"}', 'run', 1)`)
			},
			status: doctor.Fail, count: 1, detail: "1 live job belongs", shows: "(nonsense)",
			repaired: "Cancelled 1 job.",
		},
		{
			name: "an earlier life is live", check: "jobs_without_run",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.ticked(riverbeat.Allow)
				b.exec(`INSERT INTO river_job (args, kind, max_attempts, state, attempt, attempted_at, attempted_by)
SELECT args, kind, max_attempts, 'running', 1, now(), ARRAY[(SELECT id FROM nodes)::text] FROM river_job LIMIT 1`)
			},
			status: doctor.Fail, count: 1, detail: "1 live job belongs", shows: "its run has another job",
			repaired: "Cancelled 1 job.",
			// Its node is asked to stop it, and then it ends; here there is none.
			after: doctor.Fail,
			then: func(b *bundle) {
				require.Equal(b.t, 1, value[int](b, "SELECT count(*) FROM river_job WHERE state = 'running' AND metadata ? 'cancel_attempted_at'"))
				require.Equal(b.t, 2, value[int](b, "SELECT count(*) FROM runs WHERE state = 'queued'"))
			},
		},
		{
			name: "a run ended by hand", check: "jobs_without_run",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.ticked(riverbeat.Allow)
				b.exec("UPDATE runs SET state = 'succeeded', finished_at = now() WHERE state = 'queued'")
			},
			status: doctor.Fail, count: 2, detail: "2 live jobs belong to no unfinished run.", shows: "its run is succeeded",
			repaired: "Let 2 runs follow their jobs.",
			then: func(b *bundle) {
				require.Equal(b.t, 2, value[int](b, "SELECT count(*) FROM runs WHERE state = 'queued' AND finished_at IS NULL"))
				require.Equal(b.t, 2, value[int](b, "SELECT count(*) FROM river_job WHERE state = 'available'"))
			},
		},
		{
			name: "a line behind nothing", check: "stalled_lines",
			harm: func(b *bundle) {
				b.lined()
				b.exec("DELETE FROM river_job") // its run follows; nobody listens
			},
			status: doctor.Fail, count: 1, detail: "1 line of 5 runs waits behind nothing.", shows: "nightly",
			repaired: "Moved up 1 line.",
			then: func(b *bundle) {
				require.Equal(b.t, 1, value[int](b, "SELECT count(*) FROM runs JOIN river_job AS j ON j.id = job_id WHERE runs.state = 'queued' AND j.state = 'available'"))
				require.Equal(b.t, 4, value[int](b, "SELECT count(*) FROM runs WHERE state = 'waiting'"))
			},
		},
		{
			name: "runs that came to wait without the trigger", check: "runs_without_line",
			harm: func(b *bundle) {
				b.exec("ALTER TABLE runs DISABLE TRIGGER riverbeat_record_line_insert")
				b.lined()
				b.exec("ALTER TABLE runs ENABLE TRIGGER riverbeat_record_line_insert")
			},
			status: doctor.Fail, count: 5, detail: "5 runs wait and are in no line: nobody promotes them.", shows: "nightly (",
			repaired: "Put 5 runs in line.",
			then: func(b *bundle) {
				require.Equal(b.t, 5, value[int](b, "SELECT count(*) FROM runs JOIN lines ON run_id = id WHERE state = 'waiting'"))
			},
		},
		{
			name: "a job left on a node that is gone", check: "lost_jobs",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.ticked(riverbeat.Allow)
				b.exec("INSERT INTO nodes (id, host, version, last_seen_at) VALUES ('11111111-1111-4111-8111-111111111111', 'beta', '1', now() - interval '60 hours')")
				b.exec("UPDATE river_job SET state = 'running', attempt = 1, attempted_at = now() - interval '1 hour', attempted_by = '{11111111-1111-4111-8111-111111111111}'")
			},
			status: doctor.Fail, count: 2, detail: "2 runs are left on nodes that are gone.", shows: "on beta, last seen 2 days ago",
			after: doctor.Fail,
		},
		{
			name: "a queue of a definition", check: "unserved_queues",
			harm: func(b *bundle) {
				b.exec("INSERT INTO task_definitions (task_name, queue) VALUES ('echo', 'reports')")
			},
			status: doctor.Warn, count: 1, detail: "1 queue is served by no live node.", shows: "reports: 0 jobs waiting, named by 1 definition",
			after: doctor.Warn,
		},
		{
			name: "a queue of jobs", check: "unserved_queues",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow)
				b.ticked(riverbeat.Allow)
				b.exec("UPDATE nodes SET queues = '{\"other\": 1}'")
			},
			status: doctor.Fail, count: 1, detail: "1 queue is served by no live node, and 2 jobs wait there.", shows: "default: 2 jobs waiting, named by 0 definitions",
			after: doctor.Fail,
		},
		{
			name: "a task without code", check: "unregistered_tasks",
			harm: func(b *bundle) {
				b.ticked(riverbeat.Allow, func(s *riverbeat.Schedule) { s.TaskName = "unknown" })
				b.ticked(riverbeat.Allow, func(s *riverbeat.Schedule) { s.TaskName = "alias" })
				b.ticked(riverbeat.Allow, func(s *riverbeat.Schedule) { s.TaskName = "disabled"; s.Enabled = false })
				b.exec(`INSERT INTO task_definitions (task_name, executor) VALUES ('alias', '{"kind": "go", "name": "echo"}')`)
			},
			status: doctor.Fail, count: 1, detail: "1 task of enabled schedules is registered by no live node", shows: "unknown",
			after: doctor.Fail,
		},
		{
			name: "a task whose code is gone", check: "unregistered_tasks",
			harm: func(b *bundle) {
				b.exec(`INSERT INTO task_definitions (task_name, executor) VALUES ('echo', '{"kind": "go", "name": "echo_v2"}')`)
				b.ticked(riverbeat.Allow)
			},
			status: doctor.Fail, count: 1, detail: "1 task", shows: "echo, which is the code echo_v2",
			after: doctor.Fail,
		},
		{
			name: "an alert that failed", check: "untold_alerts",
			harm: func(b *bundle) {
				b.exec(`INSERT INTO runs (id, scheduled_for, schedule_name, task_name, execution_policy, trigger, slot, state, error)
					SELECT id, now() - age, 'nightly', 'riverbeat_alert', 'allow', 'alert', id, 'failed', 'POST answered 404 Not Found'
					FROM (VALUES (gen_random_uuid(), interval '0'), (gen_random_uuid(), interval '25 hours')) AS failed (id, age)`)
			},
			status: doctor.Warn, count: 1, detail: "1 alert of the last 24h could not be posted", shows: ": POST answered 404 Not Found",
			after: doctor.Warn,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			test.harm(b)
			report := b.check()
			sound(t, report, append(test.also, test.check)...)
			f := of(t, report, test.check)
			require.Equal(t, test.status, f.Status, f)
			require.Equal(t, test.status, report.Status)
			require.Equal(t, test.count, f.Count, f)
			require.Contains(t, f.Detail, test.detail)
			require.NotEmpty(t, f.Advice)
			require.LessOrEqual(t, len(f.Examples), 5)
			if test.shows != "" {
				require.NotEmpty(t, f.Examples)
				require.Contains(t, f.Examples[0], test.shows)
			}
			require.Empty(t, f.Repaired)
			require.Equal(t, f.Examples, of(t, b.check(), test.check).Examples, "a check changes nothing")
			if test.repaired != "" {
				require.NotEmpty(t, f.Repair)
			}

			report = b.repair()
			f = of(t, report, test.check)
			require.Equal(t, test.repaired, f.Repaired)
			if test.repaired != "" && test.after == "" {
				sound(t, report, test.left...)
			}
			if test.after != "" {
				require.Equal(t, test.after, f.Status)
			}
			if test.then != nil {
				test.then(b)
			}
			if test.repaired != "" && test.after == "" {
				require.Empty(t, of(t, b.repair(), test.check).Repaired, "again there is nothing to do")
			}
		})
	}
}

func TestASchemaThatIsBehindIsAllThatIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("UPDATE schema_version SET version = version - 1")
	report := b.check()
	require.Len(t, report.Findings, 1)
	f := of(t, report, "schema")
	require.Equal(t, doctor.Fail, f.Status)
	require.Contains(t, f.Advice, "riverbeat migrate up")
	_, err := b.doctor.Repair(t.Context(), doctor.Options{})
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))

	b.exec("UPDATE schema_version SET version = version + 2")
	report = b.check()
	sound(t, report, "schema")
	require.Equal(t, doctor.Warn, report.Status, "newer, which may do")
	require.Contains(t, of(t, report, "schema").Detail, "newer than this program")
	_, err = b.doctor.Repair(t.Context(), doctor.Options{})
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))

	b.exec("UPDATE schema_version SET oldest_node = version")
	f = of(t, b.check(), "schema")
	require.Equal(t, doctor.Fail, f.Status)
	require.Contains(t, f.Detail, "too new for this program")

	empty := pgtest.Empty(t)
	d := doctor.New(doctor.Config{DB: empty.DB, Environment: "default"})
	report, err = d.Check(t.Context(), doctor.Options{})
	require.NoError(t, err)
	require.Len(t, report.Findings, 1)
	require.Contains(t, report.Findings[0].Detail, "Riverbeat is at 0 of ")
}

func TestNothingIsRepairedOnACopy(t *testing.T) {
	t.Parallel()
	for name, copied := range map[string]string{
		"another cluster":     "UPDATE installation SET system_identifier = 1",
		"another database":    "UPDATE installation SET database_oid = 1",
		"another environment": "UPDATE installation SET environment = 'production'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.lined()
			b.exec("DELETE FROM river_job")
			b.exec(copied)
			f := of(t, b.check(), "installation")
			require.NotEqual(t, doctor.OK, f.Status)
			require.Contains(t, f.Advice, "on hold")
			before := b.dump()
			_, err := b.doctor.Repair(t.Context(), doctor.Options{})
			require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
			require.ErrorContains(t, err, "Nothing is repaired here")
			require.Equal(t, before, b.dump())
		})
	}
}

func TestAPauseHoldsWhatIsDue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.schedule(riverbeat.Allow)
	b.exec("UPDATE installation SET paused_at = now()")
	report := b.check()
	sound(t, report, "installation")
	require.Equal(t, "1 schedule is due, and held by the pause.", of(t, report, "overdue_clocks").Detail)
	require.Equal(t, doctor.Warn, report.Status)
}

func TestATransactionThatStaysOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tx := b.open("SET LOCAL application_name = 'forgotten'")
	f := of(t, b.check(), "long_transactions")
	require.Equal(t, doctor.Warn, f.Status)
	require.Equal(t, 1, f.Count)
	require.Contains(t, f.Examples[0], "forgotten: idle in transaction, for ")
	require.NoError(t, tx.Rollback(t.Context()))
	sound(t, b.check())
}

func TestALineThatMovesIsNotStalled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	patient := doctor.New(b.doctor.Config)
	b.lined()
	b.exec("DELETE FROM river_job")
	done := make(chan *doctor.Report)
	go func() {
		report, err := patient.Check(context.WithoutCancel(t.Context()), doctor.Options{})
		if err != nil {
			report = nil
		}
		done <- report
	}()
	// Between its two looks it leaves its transaction idle.
	require.Eventually(t, func() bool {
		return value[int](b, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' AND query LIKE '%line_rank IS NOT NULL%'") > 0
	}, 10*time.Second, 10*time.Millisecond)
	b.sweep()
	report := <-done
	require.NotNil(t, report)
	sound(t, report)
}

func TestAJobThatWasJustFetchedContradictsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ticked(riverbeat.Allow)
	b.behindTheTrigger("UPDATE river_job SET state = 'running', attempt = 1, attempted_at = now(), attempted_by = ARRAY[(SELECT id FROM nodes)::text]")
	before := b.dump()
	sound(t, b.check())
	sound(t, b.repair())
	require.Equal(t, before, b.dump())
}

func TestTicksAreThoseOfTheScheduleAsItIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.ticked(riverbeat.Allow)
	// Other ticks than those that were decided, but it changes only now.
	_, err := b.catalog.ChangeSchedule(t.Context(), id, func(s *riverbeat.Schedule) error {
		s.CronExpression = "*/7 * * * * *"
		return nil
	})
	require.NoError(t, err)
	report := b.check()
	sound(t, report)
	require.Contains(t, of(t, report, "unaccounted_ticks").Detail, "Looked at 0 ticks of 1 schedule")

	// Ticks outside of starts_at and ends_at are none.
	r, err := riverbeat.ParseRecurrence(hourly(), "UTC")
	require.NoError(t, err)
	last, _ := r.Prev(time.Now())
	b.exec("UPDATE schedules SET cron_expression = $1, updated_at = $2::timestamptz - interval '1 day', starts_at = $2::timestamptz - interval '4 hours', ends_at = $2::timestamptz - interval '2 hours'",
		hourly(), last)
	f := of(t, b.check(), "unaccounted_ticks")
	require.Equal(t, doctor.OK, f.Status, f)
	require.Contains(t, f.Detail, "Looked at 3 ticks of 1 schedule")
}

func TestTheLedgerIsSampled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 7 {
		b.schedule(riverbeat.Allow)
	}
	b.sweep()
	require.Contains(t, of(t, b.check(), "unaccounted_ticks").Detail, "Looked at 42 ticks of 7 schedules in")
	require.Contains(t, of(t, b.check(doctor.Options{Schedules: 3}), "unaccounted_ticks").Detail, "Looked at 18 ticks of 3 schedules, a sample")

	// However small the sample, in the end each has its turn.
	b.exec("DELETE FROM river_job")
	b.exec("DELETE FROM runs WHERE schedule_id = (SELECT max(id::text)::uuid FROM schedules)")
	require.Eventually(t, func() bool {
		return of(t, b.check(doctor.Options{Schedules: 1}), "unaccounted_ticks").Status == doctor.Fail
	}, 2*time.Minute, time.Millisecond)
}

func TestSinceBoundsWhatIsLookedAt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ticked(riverbeat.Allow)
	b.behindTheTrigger("DELETE FROM river_job")
	b.exec("DELETE FROM runs WHERE state = 'missed'")
	report := b.check(doctor.Options{Since: time.Second})
	sound(t, report)
	report = b.check()
	require.Equal(t, doctor.Fail, of(t, report, "runs_without_job").Status)
	require.Equal(t, doctor.Fail, of(t, report, "unaccounted_ticks").Status)
}

func TestWhatCannotBeCheckedIsAFinding(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("ALTER TABLE nodes RENAME TO former_nodes")
	f := of(t, b.check(), "nodes")
	require.Equal(t, doctor.Fail, f.Status)
	require.Contains(t, f.Detail, "It could not be checked: ")

	b.exec("ALTER TABLE former_nodes RENAME TO nodes")
	tx := b.open("LOCK TABLE nodes")
	f = of(t, b.check(doctor.Options{Timeout: 200 * time.Millisecond}), "nodes")
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, doctor.Fail, f.Status)
	require.Contains(t, f.Detail, "It could not be checked within 200ms.")
	sound(t, b.check())
}

func TestARunThatGotAnotherJobMeanwhileIsLeft(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ticked(riverbeat.Allow)
	b.ticked(riverbeat.Allow)
	b.behindTheTrigger("DELETE FROM river_job")
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		runs, err := tx.RunsWithoutJob(t.Context(), time.Now().Add(-time.Hour), 10)
		if err != nil {
			return err
		}
		require.Len(t, runs, 2)
		if _, err := tx.Exec(t.Context(), "UPDATE runs SET job_id = job_id + 1000"); err != nil {
			return err
		}
		n, err := tx.SetRunsStraight(t.Context(), runs)
		require.Zero(t, n)
		return err
	}))
	require.Equal(t, 2, value[int](b, "SELECT count(*) FROM runs WHERE state = 'queued'"))
}
