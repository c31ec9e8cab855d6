package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/worker"
	"riverbeat/task"
)

// gate is a task whose attempts wait to be let through, or to be stopped.
type gate struct {
	open    chan struct{}
	stopped chan error // the cause of each context that has ended
	begun   atomic.Int32
	inside  atomic.Int32
	most    atomic.Int32 // inside at once
}

func newGate(b *bundle) *gate {
	g := &gate{open: make(chan struct{}), stopped: make(chan error, 10)}
	b.register("gate", func(ctx context.Context, _ *task.Run) (any, error) {
		g.begun.Add(1)
		g.most.Store(max(g.most.Load(), g.inside.Add(1)))
		defer g.inside.Add(-1)
		select {
		case <-g.open:
			return "through", nil
		case <-ctx.Done():
			g.stopped <- context.Cause(ctx)
			return nil, ctx.Err()
		}
	})
	return g
}

func (b *bundle) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := b.Pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// hold keeps what sql locks until it is let go.
func (b *bundle) hold(t *testing.T, sql string, args ...any) (letGo func()) {
	t.Helper()
	tx, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	_, err = tx.Exec(t.Context(), "SET LOCAL idle_in_transaction_session_timeout = 0")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
	return func() { require.NoError(t, tx.Rollback(t.Context())) }
}

func gated(policy riverbeat.Policy) func(*riverbeat.Schedule) {
	return func(s *riverbeat.Schedule) { s.TaskName, s.ExecutionPolicy = "gate", policy }
}

// fetched makes a run look as if the node had started it and died.
func (b *bundle) fetched(t *testing.T, run *riverbeat.Run, node uuid.UUID) {
	t.Helper()
	b.exec(t, `UPDATE river_job SET state = 'running', attempt = attempt + 1, attempted_at = now(),
attempted_by = array_append(attempted_by, $2) WHERE id = $1`, *run.JobID, node.String())
	b.exec(t, `UPDATE runs SET state = 'running', attempt = attempt + 1, execution = execution + 1, started_at = now(), node = $2
WHERE id = $1`, run.ID, node.String())
}

func TestTheRunOfALostNodeGoesOnUnderANewJob(t *testing.T) {
	t.Parallel()
	b := setup(t)
	lost := uuid.New()
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.ExecutionPolicy = riverbeat.Queue })
	run := b.runNow(t, s)
	next := b.runNow(t, s)
	require.Equal(t, riverbeat.Waiting, next.State)
	b.fetched(t, run, lost)
	b.start()

	ended := b.until(t, run.ID, in(riverbeat.Succeeded))
	require.NotEqual(t, *run.JobID, *ended.JobID)
	require.Equal(t, 1, ended.Lives)
	require.Equal(t, 2, ended.Execution)
	require.Equal(t, 1, ended.Attempt, "the lost attempt is not used up")
	b.until(t, next.ID, in(riverbeat.Succeeded))

	var state, node string
	require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT state FROM river_job WHERE id = $1", *run.JobID).Scan(&state))
	require.Equal(t, "cancelled", state, "the first job is never worked again")
	require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT lost_lives -> 0 ->> 'node' FROM runs WHERE id = $1", run.ID).Scan(&node))
	require.Equal(t, lost.String(), node)
}

func TestTheRunOfALostNodeThatHadOnlyFetchedItsJobKeepsItsAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	run := b.runNow(t, b.schedule(t, func(*riverbeat.Schedule) {}))
	b.exec(t, `UPDATE river_job SET state = 'running', attempt = attempt + 1, attempted_at = now(),
attempted_by = array_append(attempted_by, $2) WHERE id = $1`, *run.JobID, uuid.NewString())
	b.start()
	ended := b.until(t, run.ID, in(riverbeat.Succeeded))
	require.Equal(t, 1, ended.Attempt)
	require.Equal(t, 1, ended.Execution)
}

func TestARunThatLosesThreeLivesHasFailed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.ExecutionPolicy = riverbeat.Queue })
	run := b.runNow(t, s)
	next := b.runNow(t, s)
	b.fetched(t, run, uuid.New())
	b.exec(t, "UPDATE runs SET lives = 2 WHERE id = $1", run.ID)
	b.start()
	ended := b.until(t, run.ID, in(riverbeat.Failed))
	require.Equal(t, riverbeat.WorkerLost, ended.Reason)
	require.Equal(t, riverbeat.MaxLives, ended.Lives)
	require.Contains(t, ended.Error, "lost")
	b.until(t, next.ID, in(riverbeat.Succeeded))
}

func TestALostRunThatSomeoneCancelledIsCancelled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	run := b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.ExecutionPolicy = riverbeat.Skip }))
	b.fetched(t, run, uuid.New())
	b.exec(t, `UPDATE river_job SET metadata = metadata || '{"cancel_attempted_at": "2026-01-01T00:00:00Z"}' WHERE id = $1`, *run.JobID)
	b.start()
	ended := b.until(t, run.ID, in(riverbeat.Cancelled))
	require.Equal(t, riverbeat.CancelledByUser, ended.Reason)
	require.Equal(t, 1, ended.Execution)
}

func TestAJobThatANodeFetchedWithoutHearingOfItGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var me uuid.UUID
	run := b.runNow(t, b.schedule(t, func(*riverbeat.Schedule) {}))
	b.exec(t, "UPDATE river_job SET scheduled_at = now() + interval '1 hour', state = 'scheduled'")
	b.start(func(c *worker.Config) { me = c.Executor.Node().ID })
	b.fetched(t, run, me)
	ended := b.until(t, run.ID, in(riverbeat.Succeeded))
	require.Zero(t, ended.Lives, "its node lives")
	require.Equal(t, 1, ended.Attempt)
}

func TestABrokenSessionStopsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate(b)
	b.start()
	run := b.runNow(t, b.schedule(t, gated(riverbeat.Queue)))
	b.until(t, run.ID, in(riverbeat.Running))
	locks := func() (n int) {
		require.NoError(t, b.Pool.QueryRow(t.Context(), `
SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
    AND a.application_name LIKE 'riverbeat session %'`).Scan(&n))
		return n
	}
	require.Equal(t, 2, locks(), "of the node and of the key, in one session")
	b.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'riverbeat session %'`)
	require.Eventually(t, func() bool { return locks() == 2 }, 10*time.Second, 10*time.Millisecond, "they are taken again")
	close(g.open)
	ended := b.until(t, run.ID, in(riverbeat.Succeeded))
	require.Equal(t, 1, ended.Execution)
	require.Empty(t, g.stopped)
	require.Eventually(t, func() bool { return locks() == 1 }, 10*time.Second, 10*time.Millisecond, "the key is given back")
}

// A node whose session cannot be had gives its runs up, and they go on when it
// can.
func TestANodeThatCannotBeatGivesItsRunsUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate(b)
	b.start()
	run := b.runNow(t, b.schedule(t, gated(riverbeat.Skip)))
	b.until(t, run.ID, in(riverbeat.Running))
	b.exec(t, "ALTER TABLE nodes RENAME TO away")
	require.ErrorContains(t, <-g.stopped, "could not reach the database")
	b.exec(t, "ALTER TABLE away RENAME TO nodes")
	close(g.open)
	ended := b.until(t, run.ID, in(riverbeat.Succeeded))
	require.Greater(t, ended.Execution, 1)
	require.Equal(t, 1, ended.Attempt, "no attempt is used up")
	require.Zero(t, ended.Lives)
}

func TestARunningJobThatIsTakenAwayIsStopped(t *testing.T) {
	t.Parallel()
	for what, sql := range map[string]string{
		"deleted":   "DELETE FROM river_job WHERE id = $1",
		"cancelled": "UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE id = $1",
		// As River's own cancellation, whose notification was lost.
		"asked to stop": `UPDATE river_job SET metadata = metadata || '{"cancel_attempted_at": "2026-01-01T00:00:00Z"}' WHERE id = $1`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			g := newGate(b)
			b.start()
			s := b.schedule(t, gated(riverbeat.Queue))
			run := b.runNow(t, s)
			b.until(t, run.ID, in(riverbeat.Running))
			next := b.runNow(t, s)
			b.exec(t, sql, *run.JobID)
			require.Error(t, <-g.stopped)
			b.until(t, run.ID, in(riverbeat.Cancelled))
			close(g.open)
			b.until(t, next.ID, in(riverbeat.Succeeded))
			require.EqualValues(t, 1, g.most.Load())
		})
	}
}

func TestCancellingARunEndsTheContextOfItsTask(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate(b)
	b.start()
	run := b.runNow(t, b.schedule(t, gated(riverbeat.Queue)))
	b.until(t, run.ID, in(riverbeat.Running))
	_, err := b.history.Cancel(pgtest.As(t.Context(), "me"), run.ID)
	require.NoError(t, err)
	require.ErrorIs(t, <-g.stopped, rivertype.ErrJobCancelledRemotely)
	require.Equal(t, riverbeat.CancelledByUser, b.until(t, run.ID, in(riverbeat.Cancelled)).Reason)
}

// Someone deletes the job of an attempt that does not obey its context: its key
// is free for admission, but nobody executes beside it, on any node.
func TestNobodyExecutesBesideAnAttemptWhoseJobIsGone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	open, begun := make(chan struct{}), make(chan uuid.UUID, 10)
	b.register("stubborn", func(_ context.Context, r *task.Run) (any, error) {
		begun <- r.ID
		<-open
		return nil, nil
	})
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName, s.ExecutionPolicy = "stubborn", riverbeat.Skip })
	b.start()
	run := b.runNow(t, s)
	require.Equal(t, run.ID, <-begun)
	b.start()
	b.exec(t, "DELETE FROM river_job WHERE id = $1", *run.JobID)
	b.until(t, run.ID, in(riverbeat.Cancelled))
	second := b.runNow(t, s)
	require.Equal(t, riverbeat.Queued, second.State)
	held := b.until(t, second.ID, func(r *riverbeat.Run) bool { return r.Reason == riverbeat.AlreadyRunning })
	require.Nil(t, held.StartedAt)
	require.Empty(t, begun)
	close(open)
	ended := b.until(t, second.ID, in(riverbeat.Succeeded))
	require.Equal(t, 1, ended.Attempt)
	require.Equal(t, second.ID, <-begun)
}

// Belt and braces: without River's unique index the lock of the session alone
// keeps a key apart, on one node and on several.
func TestWithoutTheUniqueIndexAKeyStillRunsAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate(b)
	b.start()
	b.start()
	s := b.schedule(t, gated(riverbeat.Queue))
	run := b.runNow(t, s)
	b.until(t, run.ID, in(riverbeat.Running))
	b.exec(t, "DROP INDEX river_job_unique_idx")
	// Six jobs of runs of the same key, behind the back of admission.
	for range 6 {
		waits := b.runNow(t, s)
		require.Equal(t, riverbeat.Waiting, waits.State)
		b.exec(t, `WITH job AS (
    INSERT INTO river_job (args, kind, max_attempts, queue, priority, state, scheduled_at, metadata, tags)
    SELECT args || jsonb_build_object('run_id', $2::text, 'scheduled_for', $3::timestamptz), kind, max_attempts, queue, priority, 'available', now(), '{}', tags
    FROM river_job WHERE id = $1
    RETURNING id
)
UPDATE runs SET state = 'queued', line_rank = NULL, job_id = job.id FROM job WHERE runs.id = $2::text::uuid`, *run.JobID, waits.ID, waits.ScheduledFor)
	}
	require.Eventually(t, func() bool {
		var held int
		require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM runs WHERE reason = 'already_running'").Scan(&held))
		return held > 0
	}, 20*time.Second, 10*time.Millisecond)
	close(g.open)
	require.Eventually(t, func() bool {
		var left int
		require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM runs WHERE state <> 'succeeded'").Scan(&left))
		return left == 0
	}, 30*time.Second, 20*time.Millisecond)
	require.EqualValues(t, 1, g.most.Load())
	require.EqualValues(t, 7, g.begun.Load())
}

// Jobs that nobody can take over, or read, keep no other from going on.
func TestAJobThatCannotBeTakenOverIsAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	lost := uuid.New()
	odd := b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskParams = json.RawMessage(`{"n": 3}`) }))
	b.exec(t, "UPDATE river_job SET state = 'running', attempted_by = NULL WHERE id = $1", *odd.JobID)
	held := b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskParams = json.RawMessage(`{"n": 4}`) }))
	b.fetched(t, held, lost)
	var runs []*riverbeat.Run
	for range 5 {
		run := b.runNow(t, b.schedule(t, func(*riverbeat.Schedule) {}))
		b.fetched(t, run, lost)
		runs = append(runs, run)
	}
	letGo := b.hold(t, "SELECT FROM river_job WHERE id = $1 FOR UPDATE", *held.JobID)
	b.start()
	for _, run := range runs {
		b.until(t, run.ID, in(riverbeat.Succeeded))
	}
	b.until(t, odd.ID, in(riverbeat.Succeeded))
	letGo()
	b.until(t, held.ID, in(riverbeat.Succeeded))
}

// The database does not answer whether an attempt may begin; the node gives up,
// and the answer is yes. By then it may have its session again, or not.
func TestARunWhoseStartWasNotHeardOfRunsOnce(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"before its session": false, "after its session": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			g := newGate(b)
			run := b.runNow(t, b.schedule(t, gated(riverbeat.Allow)))
			letGo := b.hold(t, "SELECT FROM runs WHERE id = $1 FOR UPDATE", run.ID)
			b.start()
			other := b.runNow(t, b.schedule(t, gated(riverbeat.Allow)))
			require.Eventually(t, func() bool {
				var running int
				require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM river_job WHERE state = 'running'").Scan(&running))
				return running == 2
			}, 10*time.Second, 10*time.Millisecond)
			// The first question is under way, the second one waits behind it.
			b.exec(t, "ALTER TABLE nodes RENAME TO away")
			b.said.await(t, "gives its runs up", 1)
			if !again {
				letGo()
			}
			b.exec(t, "ALTER TABLE away RENAME TO nodes")
			if again {
				b.said.await(t, "has a session with the database again", 1)
				letGo()
			}
			close(g.open)
			for _, id := range []uuid.UUID{run.ID, other.ID} {
				ended := b.until(t, id, in(riverbeat.Succeeded))
				require.Equal(t, 1, ended.Attempt)
			}
			require.EqualValues(t, 2, g.begun.Load())
		})
	}
}

// River reports again and again what the database has refused to hear, and in
// between nobody takes the job for one that was never worked.
func TestAFailureThatIsReportedLateIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var begun atomic.Int32
	b.register("fails", func(context.Context, *task.Run) (any, error) {
		begun.Add(1)
		return nil, task.Final(errors.New("no"))
	})
	b.exec(t, `CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'away'; END $$`)
	b.exec(t, `CREATE TRIGGER away BEFORE UPDATE ON river_job FOR EACH ROW
WHEN (OLD.state = 'running' AND NEW.state <> 'running') EXECUTE FUNCTION away()`)
	b.start()
	run := b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "fails" }))
	// River pauses for 1, 2 and 4 seconds; a stray job is left alone for 3.
	b.said.await(t, "Completer error", 3)
	b.exec(t, "DROP TRIGGER away ON river_job")
	ended := b.until(t, run.ID, in(riverbeat.Failed))
	require.Equal(t, *run.JobID, *ended.JobID)
	require.EqualValues(t, 1, begun.Load())
}

// A grace of zero tells running attempts at once to stop.
func TestWithoutGraceRunsAreHandedBackAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate(b)
	w := b.start(func(c *worker.Config) { c.Grace = 0 })
	run := b.runNow(t, b.schedule(t, gated(riverbeat.Queue)))
	b.until(t, run.ID, in(riverbeat.Running))
	w.Stop()
	require.Error(t, <-g.stopped)
	handed, err := b.history.Run(t.Context(), run.ID)
	require.NoError(t, err)
	require.Contains(t, []riverbeat.State{riverbeat.Queued, riverbeat.Retrying}, handed.State)
	require.Zero(t, handed.Lives)
}

// The attempt before has failed on the same node just now, and the fetch for the
// next one was not heard of.
func TestAnAttemptThatWasNotHeardOfIsNoFailureOfTheLast(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var begun atomic.Int32
	var me uuid.UUID
	b.register("fails once", func(context.Context, *task.Run) (any, error) {
		if begun.Add(1) == 1 {
			return nil, errors.New("not yet")
		}
		return nil, nil
	})
	// The report of the failure, and in the same moment the fetch.
	b.exec(t, `CREATE FUNCTION refetch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.state := 'running';
    NEW.attempt := NEW.attempt + 1;
    NEW.attempted_at := clock_timestamp();
    NEW.attempted_by := array_append(OLD.attempted_by, OLD.attempted_by[1]);
    RETURN NEW;
END $$`)
	b.exec(t, `CREATE TRIGGER refetch BEFORE UPDATE ON river_job FOR EACH ROW
WHEN (OLD.state = 'running' AND NEW.state IN ('available', 'retryable')) EXECUTE FUNCTION refetch()`)
	b.start(func(c *worker.Config) { me = c.Executor.Node().ID })
	run := b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "fails once" }))
	ended := b.until(t, run.ID, in(riverbeat.Succeeded)) // in less than a minute
	require.NotEqual(t, *run.JobID, *ended.JobID)
	require.EqualValues(t, 2, begun.Load())
	require.Equal(t, me.String(), ended.Node)
}
