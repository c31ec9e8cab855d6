package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/execute"
	"riverbeat/internal/execute/builtin"
	"riverbeat/internal/execute/process"
	"riverbeat/internal/execute/secret"
	"riverbeat/internal/history"
	"riverbeat/internal/ledger"
	"riverbeat/internal/metrics"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
	"riverbeat/internal/worker"
	"riverbeat/task"
)

func TestMain(m *testing.M) {
	if process.IsGuard(os.Args[1:]) { // of a command that a test's node executes
		os.Exit(process.Guard(os.Args[1:]))
	}
	pgtest.Main(m)
}

// bundle is a database with one working node.
type bundle struct {
	*pgtest.Database
	catalog  *catalog.Catalog
	history  *history.History
	registry *execute.Registry
	secrets  *secret.Store
	metrics  *metrics.Metrics
	said     *journal // by the nodes
	logger   *slog.Logger
	start    func(...func(*worker.Config)) *worker.Worker
}

func setup(t *testing.T) *bundle {
	t.Helper()
	d := pgtest.DB(t)
	said := &journal{}
	logger := slog.New(slog.NewTextHandler(said, nil))
	q, err := queue.New(d.Pool, pgtest.Schema, logger)
	require.NoError(t, err)
	counts := metrics.New(time.Now, true)
	l := ledger.New(q).Counting(counts)
	b := &bundle{
		Database: d, metrics: counts, catalog: catalog.New(d.DB, l), history: history.New(d.DB, l), registry: execute.NewRegistry(), said: said, logger: logger,
	}
	b.registry.Register(builtin.Tasks()...)
	b.start = func(change ...func(*worker.Config)) *worker.Worker {
		node := postgres.Node{
			ID: uuid.New(), Version: "test", Tasks: b.registry.Names(), Queues: map[string]int{"default": 50, riverbeat.AlertQueue: 5},
		}
		cfg := worker.Config{
			DB: d.DB, Logger: logger, Metrics: counts, Grace: 5 * time.Second,
			Ticker: tick.New(d.DB, l, logger).Counting(counts),
			Executor: execute.New(execute.Config{
				DB: d.DB, Ledger: l, Registry: b.registry, Secrets: b.secrets, Node: node, Logger: logger, Metrics: counts,
			}),
		}
		for _, c := range change {
			c(&cfg)
		}
		w, err := worker.New(cfg)
		require.NoError(t, err)
		t.Cleanup(w.Stop)
		require.NoError(t, w.Start(context.Background()))
		return w
	}
	return b
}

// register adds a task that takes any object.
func (b *bundle) register(name string, code task.Code) {
	b.registry.Register(task.New(name, func(ctx context.Context, run *task.Run, _ json.RawMessage) (any, error) {
		return code(ctx, run)
	}))
}

func (b *bundle) schedule(t *testing.T, change func(*riverbeat.Schedule)) *riverbeat.Schedule {
	t.Helper()
	s := &riverbeat.Schedule{
		TaskName: "echo", CronExpression: "0 0 1 1 *", Timezone: "UTC", Enabled: true,
		Args: json.RawMessage("[]"), TaskParams: json.RawMessage(`{"n": 1}`),
		ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpLatest,
		CatchUpWindow: time.Hour, MaxWaiting: 100,
	}
	change(s)
	made, err := b.catalog.CreateSchedule(t.Context(), s)
	require.NoError(t, err)
	return made
}

func (b *bundle) runNow(t *testing.T, s *riverbeat.Schedule) *riverbeat.Run {
	t.Helper()
	run, err := b.history.RunNow(t.Context(), s.ID, history.Overrides{})
	require.NoError(t, err)
	return run
}

// until waits for a run to be as it should.
func (b *bundle) until(t *testing.T, id uuid.UUID, ok func(*riverbeat.Run) bool) *riverbeat.Run {
	t.Helper()
	var run *riverbeat.Run
	require.Eventually(t, func() bool {
		var err error
		run, err = b.history.Run(t.Context(), id)
		require.NoError(t, err)
		return ok(run)
	}, 20*time.Second, 10*time.Millisecond, "run %s", id)
	return run
}

// journal is what a worker has logged.
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

// await waits until something was logged so many times.
func (j *journal) await(t *testing.T, what string, times int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return strings.Count(j.String(), what) >= times
	}, 30*time.Second, 10*time.Millisecond, what)
}

func in(state riverbeat.State) func(*riverbeat.Run) bool {
	return func(r *riverbeat.Run) bool { return r.State == state }
}

func TestASucceededRunKeepsResultTimesAndLines(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	for _, policy := range []riverbeat.Policy{riverbeat.Allow, riverbeat.Skip, riverbeat.Queue} {
		s := b.schedule(t, func(s *riverbeat.Schedule) { s.ExecutionPolicy = policy })
		run := b.until(t, b.runNow(t, s).ID, in(riverbeat.Succeeded))
		require.JSONEq(t, `{"n": 1}`, string(run.Result), policy)
		require.Equal(t, 1, run.Execution)
		require.Equal(t, 1, run.Attempt)
		require.NotEmpty(t, run.Node)
		require.False(t, run.StartedAt.Before(*run.EnqueuedAt))
		require.False(t, run.FinishedAt.Before(*run.StartedAt))
		require.Contains(t, string(run.Logs), "echo", policy)
		require.Empty(t, run.Error)
	}
}

func TestAScheduleOfEverySecondTicksByItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.CronExpression = "@every 1s" })
	require.Eventually(t, func() bool {
		runs, _, err := b.history.ListRuns(t.Context(), &postgres.RunFilter{ScheduleID: &s.ID, State: []riverbeat.State{riverbeat.Succeeded}, Limit: 10})
		require.NoError(t, err)
		return len(runs) >= 3
	}, 20*time.Second, 50*time.Millisecond)
}

func TestAFailingRunIsTriedAgainAndThenFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	_, err := b.catalog.CreateTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
		TaskName: "flaky", ParameterSchema: json.RawMessage("{}"), Executor: riverbeat.Executor{Kind: "go", Name: "fail"},
		Queue: "default", Priority: 1, MaxAttempts: 3, Retry: riverbeat.Retry{Backoff: time.Millisecond, MaxBackoff: time.Millisecond},
	}, false)
	require.NoError(t, err)

	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName, s.TaskParams = "flaky", json.RawMessage(`{"message": "no luck"}`)
	})
	run := b.until(t, b.runNow(t, s).ID, in(riverbeat.Failed))
	require.Equal(t, 3, run.Attempt)
	require.Equal(t, 3, run.Execution)
	require.Equal(t, "no luck", run.Error)
	require.Equal(t, 3, strings.Count(string(run.Logs), "failing"), "the lines of all attempts")

	s = b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName, s.TaskParams = "flaky", json.RawMessage(`{"times": 1}`)
	})
	run = b.until(t, b.runNow(t, s).ID, in(riverbeat.Succeeded))
	require.Equal(t, 2, run.Attempt)
	require.Empty(t, run.Error, "it came right in the end")
}

func TestAFinalErrorAndAPanicAndATimeout(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.register("final", func(context.Context, *task.Run) (any, error) {
		return nil, task.Final(errors.New("never again"))
	})
	b.register("panic", func(context.Context, *task.Run) (any, error) { panic("ouch \x00") })
	b.register("nul", func(context.Context, *task.Run) (any, error) { return map[string]string{"a": "\x00"}, nil })
	b.register("large", func(context.Context, *task.Run) (any, error) { return strings.Repeat("x", 1<<20), nil })
	b.start()
	for _, task := range []string{"final", "panic", "sleep", "nul", "large"} {
		_, err := b.catalog.CreateTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
			TaskName: task, ParameterSchema: json.RawMessage("{}"), Executor: riverbeat.Executor{Kind: "go"},
			Queue: "default", Priority: 1, MaxAttempts: 2, Timeout: time.Second,
			Retry: riverbeat.Retry{Backoff: time.Millisecond, MaxBackoff: time.Millisecond},
		}, false)
		require.NoError(t, err)
	}
	run := func(task, params string) *riverbeat.Run {
		s := b.schedule(t, func(s *riverbeat.Schedule) {
			s.TaskName, s.TaskParams, s.ExecutionPolicy = task, json.RawMessage(params), riverbeat.Queue
		})
		return b.until(t, b.runNow(t, s).ID, func(r *riverbeat.Run) bool { return r.State.Ended() })
	}

	final := run("final", "{}")
	require.Equal(t, riverbeat.Failed, final.State)
	require.Equal(t, 1, final.Attempt)
	require.Contains(t, final.Error, "never again")

	panicked := run("panic", "{}")
	require.Equal(t, riverbeat.Failed, panicked.State)
	require.Equal(t, 2, panicked.Attempt)
	require.Contains(t, panicked.Error, "ouch")
	require.Contains(t, string(panicked.Logs), "worker_test.go", "the stack")

	late := run("sleep", `{"seconds": 60}`)
	require.Equal(t, riverbeat.Failed, late.State)
	require.Contains(t, late.Error, "timeout of 1s")

	require.Equal(t, riverbeat.Failed, run("nul", "{}").State)
	large := run("large", "{}")
	require.Equal(t, riverbeat.Succeeded, large.State)
	require.Contains(t, string(large.Result), `"truncated"`)
}

func TestQueuedRunsOfOneKeyGoOneByOneInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName, s.TaskParams, s.ExecutionPolicy = "sleep", json.RawMessage(`{"seconds": 0.05}`), riverbeat.Queue
	})
	var runs []*riverbeat.Run
	for range 6 {
		runs = append(runs, b.runNow(t, s))
	}
	require.Equal(t, riverbeat.Waiting, runs[5].State)
	require.NotNil(t, runs[5].BlockedBy)
	var before *riverbeat.Run
	for _, r := range runs {
		run := b.until(t, r.ID, in(riverbeat.Succeeded))
		if before != nil {
			require.False(t, run.StartedAt.Before(*before.FinishedAt), "no overlap, no overtaking")
		}
		before = run
	}
}

func TestSkipSaysWhoWasInTheWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName, s.TaskParams, s.ExecutionPolicy = "sleep", json.RawMessage(`{"seconds": 30}`), riverbeat.Skip
	})
	first := b.runNow(t, s)
	b.until(t, first.ID, in(riverbeat.Running))
	second := b.runNow(t, s)
	require.Equal(t, riverbeat.Skipped, second.State)
	require.Equal(t, riverbeat.AlreadyRunning, second.Reason)
	require.Equal(t, first.ID, *second.BlockedBy)

	// The same task with other parameters is another key; so is the same with
	// its parameters in another spelling not.
	other := b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName, s.TaskParams, s.ExecutionPolicy = "sleep", json.RawMessage(`{ "seconds" : 3.0e1 }`), riverbeat.Skip
	})
	require.Equal(t, riverbeat.Skipped, b.runNow(t, other).State)
}

func TestALineMovesUpWhenTheRunInItsWayFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	b.register("gate", func(ctx context.Context, run *task.Run) (any, error) {
		select {
		case <-release:
			return nil, task.Final(errors.New("told to"))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName, s.ExecutionPolicy = "gate", riverbeat.Queue })
	first := b.runNow(t, s)
	b.until(t, first.ID, in(riverbeat.Running))
	second := b.runNow(t, s)
	require.Equal(t, riverbeat.Waiting, second.State)
	close(release)
	b.until(t, first.ID, in(riverbeat.Failed))
	b.until(t, second.ID, in(riverbeat.Failed))
}

func TestDisablingCancelsTheLineAndLeavesWhatRuns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName, s.TaskParams, s.ExecutionPolicy = "sleep", json.RawMessage(`{"seconds": 1}`), riverbeat.Queue
	})
	first := b.runNow(t, s)
	b.until(t, first.ID, in(riverbeat.Running))
	second := b.runNow(t, s)
	_, err := b.catalog.ChangeSchedule(t.Context(), s.ID, func(s *riverbeat.Schedule) error {
		s.Enabled = false
		return nil
	})
	require.NoError(t, err)
	cancelled := b.until(t, second.ID, in(riverbeat.Cancelled))
	require.Equal(t, riverbeat.ScheduleDisabled, cancelled.Reason)
	b.until(t, first.ID, in(riverbeat.Succeeded))
}

func TestWhoeverTouchesTheJobTheRunFollows(t *testing.T) {
	t.Parallel()
	b := setup(t) // nothing works here
	job := func() *riverbeat.Run { return b.runNow(t, b.schedule(t, func(*riverbeat.Schedule) {})) }
	exec := func(sql string, args ...any) {
		_, err := b.Pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	deleted := job()
	exec("DELETE FROM river_job WHERE id = $1", *deleted.JobID)
	require.Equal(t, riverbeat.JobDeleted, b.until(t, deleted.ID, in(riverbeat.Cancelled)).Reason)

	cancelled := job()
	exec("UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE id = $1", *cancelled.JobID)
	run := b.until(t, cancelled.ID, in(riverbeat.Cancelled))
	require.Equal(t, riverbeat.CancelledByUser, run.Reason)
	require.NotNil(t, run.FinishedAt)
	exec("UPDATE river_job SET state = 'available', finalized_at = NULL WHERE id = $1", *cancelled.JobID)
	run = b.until(t, cancelled.ID, in(riverbeat.Queued))
	require.Nil(t, run.FinishedAt)
	require.Empty(t, run.Reason)

	finished := job()
	exec("UPDATE river_job SET state = 'completed', finalized_at = now() WHERE id = $1", *finished.JobID)
	exec("DELETE FROM river_job WHERE id = $1", *finished.JobID)
	b.until(t, finished.ID, in(riverbeat.Succeeded))

	exec("INSERT INTO river_job (args, kind, max_attempts, metadata, queue, tags) VALUES ('{\"run_id\": \"no uuid\"}', 'run', 3, '{}', 'default', '{}')")
	exec("UPDATE river_job SET state = 'completed', finalized_at = now() WHERE args ->> 'run_id' = 'no uuid'")
	exec("DELETE FROM river_job")
}

func TestATaskThatNobodyRegistersWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "of_the_next_version" })
	run := b.runNow(t, s)
	waiting := b.until(t, run.ID, func(r *riverbeat.Run) bool { return r.Reason == riverbeat.NoWorker })
	require.Equal(t, riverbeat.Queued, waiting.State)
	require.Zero(t, waiting.Attempt, "no attempt is used up")
}

func TestStopGivesRunningAttemptsBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.start(func(c *worker.Config) { c.Grace = 100 * time.Millisecond })
	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName, s.TaskParams, s.ExecutionPolicy = "sleep", json.RawMessage(`{"seconds": 60}`), riverbeat.Queue
	})
	run := b.runNow(t, s)
	b.until(t, run.ID, in(riverbeat.Running))
	w.Stop()
	given := b.until(t, run.ID, in(riverbeat.Queued))
	require.Zero(t, given.Attempt, "the attempt is not used up")
	require.Equal(t, 1, given.Execution)
}

func TestALineThatCannotMoveCostsNoSuccess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	b.register("gate", func(ctx context.Context, _ *task.Run) (any, error) {
		select {
		case <-release:
			return "through", nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	_, err := b.catalog.CreateTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
		TaskName: "gate", ParameterSchema: json.RawMessage("{}"), Executor: riverbeat.Executor{Kind: "go"},
		Queue: "default", Priority: 1, MaxAttempts: 3,
	}, false)
	require.NoError(t, err)
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName, s.ExecutionPolicy = "gate", riverbeat.Queue })
	first := b.runNow(t, s)
	b.until(t, first.ID, in(riverbeat.Running))
	second := b.runNow(t, s)
	_, err = b.Pool.Exec(t.Context(), "UPDATE task_definitions SET queue = 'no queue'")
	require.NoError(t, err)
	close(release)
	run := b.until(t, first.ID, in(riverbeat.Succeeded))
	require.Equal(t, 1, run.Execution, "it is not run again")
	require.JSONEq(t, `"through"`, string(run.Result))

	_, err = b.Pool.Exec(t.Context(), "UPDATE task_definitions SET queue = 'default'")
	require.NoError(t, err)
	b.until(t, second.ID, in(riverbeat.Succeeded))
}

func TestADatabaseThatDoesNotAnswerCostsNoAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	s := b.schedule(t, func(*riverbeat.Schedule) {})
	run := b.runNow(t, s)
	b.until(t, run.ID, in(riverbeat.Succeeded))
	// What a run is started with cannot be read.
	_, err := b.Pool.Exec(t.Context(), "ALTER TABLE task_definitions RENAME COLUMN executor TO elsewhere")
	require.NoError(t, err)
	q, err := queue.New(b.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := ledger.New(q)
	var waits *riverbeat.Run
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		now, err := tx.Now(t.Context())
		require.NoError(t, err)
		entry, err := l.Entry(ledger.Request{Schedule: s, Trigger: riverbeat.TriggerManual, At: now}, now)
		require.NoError(t, err)
		waits = entry.Run
		return l.Record(t.Context(), tx, now, []*ledger.Entry{entry})
	}))
	handedBack := b.until(t, waits.ID, func(r *riverbeat.Run) bool { return strings.Contains(string(r.Logs), "not started") })
	require.Equal(t, riverbeat.Queued, handedBack.State)
	require.Nil(t, handedBack.StartedAt)
	_, err = b.Pool.Exec(t.Context(), "ALTER TABLE task_definitions RENAME COLUMN elsewhere TO executor")
	require.NoError(t, err)
	ended := b.until(t, waits.ID, in(riverbeat.Succeeded))
	require.Equal(t, 1, ended.Attempt)
	require.Equal(t, 1, ended.Execution)
}

func TestLinesMoveWhileManySchedulesChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	for range 200 {
		b.schedule(t, func(s *riverbeat.Schedule) { s.Enabled = false })
	}
	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName, s.TaskParams, s.ExecutionPolicy = "sleep", json.RawMessage(`{"seconds": 0.01}`), riverbeat.Queue
	})
	var last *riverbeat.Run
	for range 5 {
		last = b.runNow(t, s)
	}
	b.until(t, last.ID, in(riverbeat.Succeeded))
}

// Nodes come and go and people edit, while every tick of every schedule is
// decided once.
func TestNoTickIsLostOrDoubledByTwoNodesAndEdits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var schedules []*riverbeat.Schedule
	for i := range 30 {
		schedules = append(schedules, b.schedule(t, func(s *riverbeat.Schedule) {
			s.CronExpression, s.CatchUp = "@every 1s", riverbeat.CatchUpAll
			s.ExecutionPolicy = []riverbeat.Policy{riverbeat.Allow, riverbeat.Skip, riverbeat.Queue}[i%3]
			s.TaskName, s.TaskParams = "sleep", json.RawMessage([]string{`{"seconds": 0.2}`, `{"seconds": 0}`}[i%2])
		}))
	}
	// ticks is how many ticks of one schedule are recorded.
	ticks := func(id uuid.UUID) (n int) {
		require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM runs WHERE schedule_id = $1", id).Scan(&n))
		return n
	}
	b.start()
	for i := 0; ticks(schedules[0].ID) < 4; i++ {
		short := b.start()
		for _, s := range schedules {
			_, err := b.catalog.ChangeSchedule(t.Context(), s.ID, func(s *riverbeat.Schedule) error {
				s.Description = strings.Repeat("x", i)
				return nil
			})
			require.NoError(t, err)
		}
		short.Stop()
	}
	for _, s := range schedules {
		require.NoError(t, b.catalog.DeleteSchedule(t.Context(), s.ID, riverbeat.Expected{}))
	}
	var holes, doubled, recorded int
	require.NoError(t, b.Pool.QueryRow(t.Context(), `
SELECT
    count(*) FILTER (WHERE step > interval '1 second'),
    count(*) FILTER (WHERE step < interval '1 second'),
    count(*)
FROM (
    SELECT scheduled_for - lag(scheduled_for, 1, scheduled_for - interval '1 second')
        OVER (PARTITION BY schedule_id ORDER BY scheduled_for) AS step
    FROM runs
    WHERE state <> 'missed'
) AS steps`).Scan(&holes, &doubled, &recorded))
	require.Zero(t, holes, "ticks are lost")
	require.Zero(t, doubled, "ticks are doubled")
	require.GreaterOrEqual(t, recorded, 4*len(schedules)-len(schedules))
	// Nobody waits behind nothing.
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM runs WHERE state IN ('waiting', 'queued', 'running', 'retrying')").Scan(&n))
		return n == 0
	}, 20*time.Second, 20*time.Millisecond)
}

// A snoozed run goes on without having used up an attempt, and keeps its key meanwhile.
func TestASnoozedRunGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	snoozed := make(chan struct{})
	b.register("rests", func(_ context.Context, run *task.Run) (any, error) {
		if run.Execution == 1 {
			defer close(snoozed)
			return nil, task.Snooze(2*time.Second, errors.New("too many requests"))
		}
		return run.Attempt, nil
	})
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName, s.ExecutionPolicy = "rests", riverbeat.Skip })
	run := b.runNow(t, s)
	<-snoozed
	other := b.runNow(t, s)
	require.Equal(t, riverbeat.Skipped, other.State)
	require.Equal(t, run.ID, *other.BlockedBy)
	ended := b.until(t, run.ID, func(r *riverbeat.Run) bool { return r.State == riverbeat.Succeeded })
	require.Equal(t, 1, ended.Attempt)
	require.Equal(t, 2, ended.Execution)
	require.JSONEq(t, "1", string(ended.Result))
	require.Empty(t, ended.Error)
}

// Whoever holds a definition holds up nobody's work.
func TestANodeWorksThoughItsTasksAreNotDefined(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(func(cfg *worker.Config) {
		cfg.Declare = func(context.Context) error { return errors.New("somebody holds a definition") }
	})
	run := b.runNow(t, b.schedule(t, func(*riverbeat.Schedule) {}))
	b.until(t, run.ID, func(r *riverbeat.Run) bool { return r.State == riverbeat.Succeeded })
	b.said.await(t, "somebody holds a definition", 1)
}
