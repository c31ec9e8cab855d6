package history_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
)

// bundle is a database on which no node works: jobs get on as a test says, in
// River's own words or in those of psql.
type bundle struct {
	*pgtest.Database
	catalog *catalog.Catalog
	history *history.History
	ledger  *ledger.Ledger
	ticker  *tick.Ticker
	river   *river.Client[pgx.Tx] // as River UI has it
}

func setup(t *testing.T) *bundle {
	t.Helper()
	d := pgtest.DB(t)
	quiet := slog.New(slog.DiscardHandler)
	q, err := queue.New(d.Pool, pgtest.Schema, quiet)
	require.NoError(t, err)
	l := ledger.New(q)
	return &bundle{
		Database: d, catalog: catalog.New(d.DB, l), history: history.New(d.DB, l), ledger: l,
		ticker: tick.New(d.DB, l, quiet), river: q.Client(),
	}
}

func (b *bundle) schedule(t *testing.T, policy riverbeat.Policy) *riverbeat.Schedule {
	t.Helper()
	s, err := b.catalog.CreateSchedule(t.Context(), &riverbeat.Schedule{
		TaskName: "echo", CronExpression: "0 0 1 1 *", Timezone: "UTC", Enabled: true,
		Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
		ExecutionPolicy: policy, CatchUp: riverbeat.CatchUpLatest, MaxWaiting: 10_000,
	})
	require.NoError(t, err)
	return s
}

func (b *bundle) runNow(t *testing.T, s *riverbeat.Schedule) *riverbeat.Run {
	t.Helper()
	run, err := b.history.RunNow(t.Context(), s.ID, history.Overrides{})
	require.NoError(t, err)
	return run
}

func (b *bundle) read(t *testing.T, id uuid.UUID) *riverbeat.Run {
	t.Helper()
	run, err := b.history.Run(t.Context(), id)
	require.NoError(t, err)
	return run
}

func (b *bundle) psql(t *testing.T, statement string, args ...any) {
	t.Helper()
	_, err := b.Pool.Exec(t.Context(), statement, args...)
	require.NoError(t, err)
}

const (
	// fetchJob is how River fetches a job, and how a node starts its run.
	fetchJob = `
WITH job AS (
    UPDATE river_job
    SET state = 'running', attempt = attempt + 1, attempted_at = now(), attempted_by = array_append(attempted_by, 'a node')
    WHERE id = $1 AND state <> 'running'
    RETURNING id
)
UPDATE runs
SET state = 'running', reason = NULL, execution = execution + 1, attempt = attempt + 1,
    started_at = coalesce(started_at, clock_timestamp()), node = 'a node'
FROM job
WHERE runs.job_id = job.id`
	// completeJob, discardJob and retryLater are its ends.
	completeJob = `UPDATE river_job SET state = 'completed', finalized_at = now(), metadata = metadata || '{"output": "done"}' WHERE id = $1`
	discardJob  = `UPDATE river_job SET state = 'discarded', finalized_at = now(), errors = array_append(errors, '{"error": "no luck"}') WHERE id = $1`
	retryLater  = `UPDATE river_job SET state = 'retryable', scheduled_at = now() + interval '1 hour', errors = array_append(errors, '{"error": "no luck"}') WHERE id = $1`
)

// lines hears of the lines that may move, from now on.
func (b *bundle) lines(t *testing.T) func() (key string, heard bool) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.URL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), `LISTEN "`+pgtest.Schema+"."+postgres.ChannelLines+`"`)
	require.NoError(t, err)
	return func() (string, bool) {
		t.Helper()
		// What was notified before this statement has come when it is answered.
		_, err := conn.Exec(t.Context(), "SELECT")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			return "", false
		}
		return n.Payload, true
	}
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*riverbeat.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy riverbeat.Policy
		before []string // what has become of its job
		state  riverbeat.State
	}{
		"queued":            {riverbeat.Queue, nil, riverbeat.Cancelled},
		"retrying":          {riverbeat.Queue, []string{fetchJob, retryLater}, riverbeat.Cancelled},
		"running":           {riverbeat.Queue, []string{fetchJob}, riverbeat.Running},
		"queued, no key":    {riverbeat.Allow, nil, riverbeat.Cancelled},
		"running, no key":   {riverbeat.Allow, []string{fetchJob}, riverbeat.Running},
		"its job is gone":   {riverbeat.Queue, []string{"SET session_replication_role = replica", "DELETE FROM river_job WHERE id = $1"}, riverbeat.Cancelled},
		"its job has ended": {riverbeat.Queue, []string{"SET session_replication_role = replica", completeJob}, riverbeat.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.schedule(t, tt.policy)
			first, next := b.runNow(t, s), b.runNow(t, s)
			conn, err := b.Pool.Acquire(t.Context())
			require.NoError(t, err)
			for _, statement := range tt.before {
				if statement[:3] == "SET" {
					_, err = conn.Exec(t.Context(), statement)
				} else {
					_, err = conn.Exec(t.Context(), statement, *first.JobID)
				}
				require.NoError(t, err)
			}
			_, err = conn.Exec(t.Context(), "RESET ALL")
			require.NoError(t, err)
			conn.Release()

			cancelled, err := b.history.Cancel(pgtest.As(t.Context(), "me"), first.ID)
			require.NoError(t, err)
			require.Equal(t, b.read(t, first.ID), cancelled, "as it is stored")
			require.Equal(t, tt.state, cancelled.State)
			require.NotNil(t, cancelled.CancelRequestedAt)
			require.Equal(t, "me", cancelled.CancelRequestedBy)
			waits := b.read(t, next.ID)
			if tt.state == riverbeat.Running {
				require.Empty(t, cancelled.Reason)
				require.Nil(t, cancelled.FinishedAt)
				again, err := b.history.Cancel(pgtest.As(t.Context(), "another"), first.ID)
				require.NoError(t, err)
				require.Equal(t, cancelled, again, "asked for once is asked for")
				require.Equal(t, next, waits, "the key is held as long as it runs")

				b.psql(t, completeJob, *first.JobID)
				ignored := b.read(t, first.ID)
				require.Equal(t, riverbeat.Succeeded, ignored.State, "the task did not obey")
				require.Equal(t, cancelled.CancelRequestedAt, ignored.CancelRequestedAt)
			} else {
				require.Equal(t, riverbeat.CancelledByUser, cancelled.Reason)
				require.NotNil(t, cancelled.FinishedAt)
				require.Equal(t, riverbeat.Queued, waits.State, "the line has moved up in the same transaction")
			}
			_, err = b.history.Cancel(pgtest.As(t.Context(), "me"), first.ID)
			require.Equal(t, "run_ended", codeOf(err))
			require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
		})
	}
}

func TestCancel_LeavesTheLine(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, riverbeat.Queue)
	first, second, third := b.runNow(t, s), b.runNow(t, s), b.runNow(t, s)
	cancelled, err := b.history.Cancel(t.Context(), second.ID)
	require.NoError(t, err)
	require.Equal(t, b.read(t, second.ID), cancelled)
	require.Equal(t, riverbeat.Cancelled, cancelled.State)
	require.Equal(t, riverbeat.CancelledByUser, cancelled.Reason)
	require.NotNil(t, cancelled.FinishedAt)
	require.NotNil(t, cancelled.CancelRequestedAt)
	require.Equal(t, first, b.read(t, first.ID))
	require.Equal(t, third, b.read(t, third.ID))
	_, err = b.history.Cancel(t.Context(), first.ID)
	require.NoError(t, err)
	require.Equal(t, riverbeat.Queued, b.read(t, third.ID).State)

	_, err = b.history.Cancel(t.Context(), uuid.New())
	require.Equal(t, riverbeat.NotFound, riverbeat.KindOf(err))
}

func TestCancel_DoesNotNeedTheLineToMove(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.catalog.CreateTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
		TaskName: "echo", ParameterSchema: json.RawMessage("{}"), Executor: riverbeat.Executor{Kind: "go"},
		Queue: "default", Priority: 1, MaxAttempts: 3,
	}, false)
	require.NoError(t, err)
	s := b.schedule(t, riverbeat.Queue)
	first, next := b.runNow(t, s), b.runNow(t, s)
	b.psql(t, "UPDATE task_definitions SET queue = 'no queue'")
	heard := b.lines(t)
	cancelled, err := b.history.Cancel(t.Context(), first.ID)
	require.NoError(t, err)
	require.Equal(t, riverbeat.Cancelled, cancelled.State)
	require.Equal(t, riverbeat.Waiting, b.read(t, next.ID).State)
	key, ok := heard()
	require.True(t, ok, "the nodes hear that the line cannot move")
	require.Equal(t, first.LockKey, key)
}

func TestRetry(t *testing.T) {
	t.Parallel()
	for name, end := range map[string][]string{
		"succeeded":     {fetchJob, completeJob},
		"failed":        {fetchJob, discardJob},
		"cancelled":     {fetchJob, "UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE id = $1"},
		"never started": {"DELETE FROM river_job WHERE id = $1"},
		"cleaned":       {fetchJob, discardJob, "DELETE FROM river_job WHERE id = $1"},
	} {
		for _, policy := range []riverbeat.Policy{riverbeat.Allow, riverbeat.Skip, riverbeat.Queue} {
			t.Run(name+" "+string(policy), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				s := b.schedule(t, policy)
				run := b.runNow(t, s)
				for _, statement := range end {
					b.psql(t, statement, *run.JobID)
				}
				ended := b.read(t, run.ID)
				require.True(t, ended.State.Ended())
				require.NoError(t, b.catalog.DeleteSchedule(t.Context(), s.ID, riverbeat.Expected{}), "it does not need its schedule")

				again, err := b.history.Retry(t.Context(), run.ID)
				require.NoError(t, err)
				require.Equal(t, b.read(t, run.ID), again, "as it is stored")
				want := *ended
				want.State, want.Reason, want.FinishedAt, want.StartedAt, want.Result = riverbeat.Queued, "", nil, nil, nil
				want.JobID, want.EnqueuedAt = again.JobID, again.EnqueuedAt
				want.MaxAttempts = ended.Attempt + riverbeat.DefaultMaxAttempts
				require.Equal(t, &want, again, "the error is kept until it succeeds")
				require.NotEqual(t, ended.JobID, again.JobID, "always a new job")
				require.True(t, again.EnqueuedAt.After(*ended.EnqueuedAt))
				job, err := b.river.JobGet(t.Context(), *again.JobID)
				require.NoError(t, err)
				require.Equal(t, rivertype.JobStateAvailable, job.State)
				require.Equal(t, riverbeat.DefaultMaxAttempts, job.MaxAttempts)
				require.Zero(t, job.Attempt)

				_, err = b.history.Retry(t.Context(), run.ID)
				require.Equal(t, "run_not_ended", codeOf(err))

				// A late report of its first life.
				b.psql(t, `UPDATE river_job SET metadata = '{"output": "late"}', errors = array_append(errors, '{"error": "late"}') WHERE id = $1`, *ended.JobID)
				require.Equal(t, again, b.read(t, run.ID))

				b.psql(t, fetchJob, *again.JobID)
				require.Equal(t, ended.Execution+1, b.read(t, run.ID).Execution, "it goes on counting")
				b.psql(t, completeJob, *again.JobID)
				done := b.read(t, run.ID)
				require.Equal(t, riverbeat.Succeeded, done.State)
				require.Equal(t, ended.Attempt+1, done.Attempt)
				require.Empty(t, done.Error)
				require.JSONEq(t, `"done"`, string(done.Result))
			})
		}
	}
}

func TestRetry_TakesTheDefinitionAsItIsNow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	run := b.runNow(t, b.schedule(t, riverbeat.Allow))
	b.psql(t, fetchJob, *run.JobID)
	b.psql(t, retryLater, *run.JobID)
	b.psql(t, fetchJob, *run.JobID)
	b.psql(t, discardJob, *run.JobID)
	b.psql(t, "UPDATE runs SET lives = 2, cancel_requested_at = now(), cancel_requested_by = 'me'")
	_, err := b.catalog.CreateTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
		TaskName: "echo", ParameterSchema: json.RawMessage(`{}`), Executor: riverbeat.Executor{Kind: "go"},
		Queue: "other", Priority: 2, MaxAttempts: 5,
	}, false)
	require.NoError(t, err)
	again, err := b.history.Retry(t.Context(), run.ID)
	require.NoError(t, err)
	require.Equal(t, 2, again.Attempt)
	require.Equal(t, 7, again.MaxAttempts)
	require.Zero(t, again.Lives)
	require.Nil(t, again.CancelRequestedAt)
	require.Empty(t, again.CancelRequestedBy)
	require.Equal(t, "no luck", again.Error)
	job, err := b.river.JobGet(t.Context(), *again.JobID)
	require.NoError(t, err)
	require.Equal(t, "other", job.Queue)
	require.Equal(t, 2, job.Priority)
	require.Equal(t, 5, job.MaxAttempts)

	b.psql(t, completeJob, *again.JobID)
	b.psql(t, "UPDATE task_definitions SET queue = 'no queue'")
	_, err = b.history.Retry(t.Context(), run.ID)
	require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err))
}

func TestRetry_OvertakesNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, riverbeat.Queue)
	first, second, third := b.runNow(t, s), b.runNow(t, s), b.runNow(t, s)
	refused := func(by uuid.UUID) {
		t.Helper()
		before := b.read(t, first.ID)
		_, err := b.history.Retry(t.Context(), first.ID)
		e, ok := errors.AsType[*riverbeat.Error](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, riverbeat.Conflict, e.Kind)
		require.Equal(t, "lock_key_taken", e.Code)
		require.Equal(t, by, *e.BlockedBy)
		require.Contains(t, e.Detail, by.String())
		require.Equal(t, before, b.read(t, first.ID))
	}
	b.psql(t, completeJob, *first.JobID)
	refused(second.ID) // it waits, and nobody has promoted it yet
	_, err := b.ticker.Sweep(t.Context())
	require.NoError(t, err)
	refused(second.ID) // it is queued
	second = b.read(t, second.ID)
	b.psql(t, fetchJob, *second.JobID)
	refused(second.ID)
	b.psql(t, retryLater, *second.JobID)
	refused(second.ID)
	b.psql(t, completeJob, *second.JobID)
	refused(third.ID)
	_, err = b.history.Cancel(t.Context(), third.ID)
	require.NoError(t, err)
	again, err := b.history.Retry(t.Context(), first.ID)
	require.NoError(t, err)
	require.Equal(t, riverbeat.Queued, again.State)
	require.Equal(t, riverbeat.Waiting, b.runNow(t, s).State, "and is not overtaken itself")

	// One that was cancelled before it had a job may be begun, too.
	third, err = b.history.Retry(t.Context(), third.ID)
	require.Equal(t, "lock_key_taken", codeOf(err))
	require.Nil(t, third)
	b.psql(t, "DELETE FROM river_job")
	b.psql(t, "DELETE FROM runs WHERE state = 'waiting'")
	third, err = b.history.Retry(t.Context(), b.ids(t)[2])
	require.NoError(t, err)
	require.Equal(t, riverbeat.Queued, third.State)
}

// ids are the runs in the order in which they were asked for.
func (b *bundle) ids(t *testing.T) []uuid.UUID {
	t.Helper()
	rows, err := b.Pool.Query(t.Context(), "SELECT id FROM runs ORDER BY created_at")
	require.NoError(t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	require.NoError(t, err)
	return ids
}

func TestRetry_OfWhatNeverRan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, riverbeat.Skip)
	live, skipped := b.runNow(t, s), b.runNow(t, s)
	require.Equal(t, riverbeat.Skipped, skipped.State)
	b.psql(t, "INSERT INTO runs SELECT (r).* FROM (SELECT jsonb_populate_record(r, jsonb_build_object('id', $2::uuid, 'slot', $2::uuid, 'state', 'missed')) AS r FROM runs AS r WHERE id = $1) AS gap",
		skipped.ID, riverbeat.NewRunID(skipped.ScheduledFor, make([]byte, 10)))
	b.psql(t, "INSERT INTO runs SELECT (r).* FROM (SELECT jsonb_populate_record(r, jsonb_build_object('id', $2::uuid, 'slot', $2::uuid, 'state', 'failed', 'reason', 'invalid_params')) AS r FROM runs AS r WHERE id = $1) AS broken",
		skipped.ID, riverbeat.NewRunID(skipped.ScheduledFor, []byte("0123456789")))
	b.psql(t, completeJob, *live.JobID)
	codes := map[riverbeat.State]string{}
	for _, id := range b.ids(t) {
		run := b.read(t, id)
		if run.ID == live.ID {
			continue
		}
		_, err := b.history.Retry(t.Context(), id)
		require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
		require.ErrorContains(t, err, "schedule now")
		codes[run.State] = codeOf(err)
	}
	require.Equal(t, map[riverbeat.State]string{
		riverbeat.Skipped: "run_never_ran", riverbeat.Missed: "run_never_ran", riverbeat.Failed: "run_never_ran",
	}, codes)
	_, err := b.history.Retry(t.Context(), uuid.New())
	require.Equal(t, riverbeat.NotFound, riverbeat.KindOf(err))
}

// Whoever touches the job of a run that has not ended: the run follows, and the
// line behind it moves when, and only when, the key is free.
func TestWhoeverTouchesTheJob(t *testing.T) {
	t.Parallel()
	type outcome struct {
		state  riverbeat.State
		reason riverbeat.Reason
		asked  bool // for its end
	}
	var (
		deleted   = outcome{state: riverbeat.Cancelled, reason: riverbeat.JobDeleted}
		cancelled = outcome{state: riverbeat.Cancelled, reason: riverbeat.CancelledByUser}
	)
	for _, state := range []struct {
		name     string
		before   []string
		outcomes map[string]outcome
	}{
		{"queued", nil, map[string]outcome{
			"River cancels": cancelled, "River retries": {state: riverbeat.Queued}, "River deletes": deleted,
			"psql cancels": cancelled, "psql deletes": deleted, "psql truncates": deleted,
		}},
		{"running", []string{fetchJob}, map[string]outcome{
			"River cancels": {state: riverbeat.Running, asked: true}, "River retries": {state: riverbeat.Running}, "River deletes": {state: riverbeat.Running},
			"psql cancels": cancelled, "psql deletes": deleted, "psql truncates": deleted,
		}},
		{"retrying", []string{fetchJob, retryLater}, map[string]outcome{
			"River cancels": cancelled, "River retries": {state: riverbeat.Retrying}, "River deletes": deleted,
			"psql cancels": cancelled, "psql deletes": deleted, "psql truncates": deleted,
		}},
	} {
		for name, touch := range map[string]func(context.Context, *bundle, int64) error{
			"River cancels": func(ctx context.Context, b *bundle, id int64) error {
				_, err := b.river.JobCancel(ctx, id)
				return err
			},
			"River retries": func(ctx context.Context, b *bundle, id int64) error {
				_, err := b.river.JobRetry(ctx, id)
				return err
			},
			"River deletes": func(ctx context.Context, b *bundle, id int64) error {
				_, err := b.river.JobDelete(ctx, id)
				if errors.Is(err, rivertype.ErrJobRunning) {
					return nil
				}
				return err
			},
			"psql cancels": func(ctx context.Context, b *bundle, id int64) error {
				_, err := b.Pool.Exec(ctx, "UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE id = $1", id)
				return err
			},
			"psql deletes": func(ctx context.Context, b *bundle, id int64) error {
				_, err := b.Pool.Exec(ctx, "DELETE FROM river_job WHERE id = $1", id)
				return err
			},
			"psql truncates": func(ctx context.Context, b *bundle, _ int64) error {
				_, err := b.Pool.Exec(ctx, "TRUNCATE river_job")
				return err
			},
		} {
			t.Run(state.name+", "+name, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				s := b.schedule(t, riverbeat.Queue)
				first, next := b.runNow(t, s), b.runNow(t, s)
				for _, statement := range state.before {
					b.psql(t, statement, *first.JobID)
				}
				heard := b.lines(t)
				require.NoError(t, touch(t.Context(), b, *first.JobID))

				want, got := state.outcomes[name], b.read(t, first.ID)
				require.Equal(t, want, outcome{got.State, got.Reason, got.CancelRequestedAt != nil})
				require.Equal(t, got.State.Ended(), got.FinishedAt != nil)
				key, told := heard()
				require.Equal(t, got.State.Ended(), told, "the nodes are told when the key is free")
				if told {
					require.Equal(t, first.LockKey, key)
				}
				require.Equal(t, riverbeat.Waiting, b.read(t, next.ID).State)
				_, err := b.ticker.Sweep(t.Context())
				require.NoError(t, err)
				moved := b.read(t, next.ID).State
				require.Equal(t, got.State.Ended(), moved == riverbeat.Queued, "the sweep finds it without the notification, too")
			})
		}
	}
}

func TestWhoeverTouchesTheJobOfAnEndedRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, riverbeat.Queue)
	first := b.runNow(t, s)
	b.psql(t, fetchJob, *first.JobID)
	b.psql(t, discardJob, *first.JobID)
	failed := b.read(t, first.ID)
	require.Equal(t, riverbeat.Failed, failed.State)

	_, err := b.river.JobCancel(t.Context(), *first.JobID)
	require.NoError(t, err)
	require.Equal(t, failed, b.read(t, first.ID))

	// A retry in River UI is one of the same job.
	_, err = b.river.JobRetry(t.Context(), *first.JobID)
	require.NoError(t, err)
	queued := b.read(t, first.ID)
	require.Equal(t, riverbeat.Queued, queued.State)
	require.Empty(t, queued.Reason)
	require.Nil(t, queued.FinishedAt)
	require.Equal(t, failed.JobID, queued.JobID)
	require.Equal(t, riverbeat.Waiting, b.runNow(t, s).State, "it holds its key again")
	b.psql(t, fetchJob, *first.JobID)
	b.psql(t, completeJob, *first.JobID)
	_, err = b.ticker.Sweep(t.Context())
	require.NoError(t, err)
	done := b.read(t, first.ID)
	require.Equal(t, riverbeat.Succeeded, done.State)

	// Its key is taken now.
	_, err = b.river.JobRetry(t.Context(), *first.JobID)
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, "23505", pgErr.Code)
	require.Equal(t, done, b.read(t, first.ID))

	// What River's cleaner does after the retention.
	for _, clean := range []func() error{
		func() error {
			_, err := b.river.JobDeleteMany(t.Context(), river.NewJobDeleteManyParams().States(rivertype.JobStateCompleted))
			return err
		},
		func() error {
			_, err := b.Pool.Exec(t.Context(), "TRUNCATE river_job")
			return err
		},
	} {
		require.NoError(t, clean())
		require.Equal(t, done, b.read(t, first.ID), "no news")
	}
}

func TestWhoeverTouchesTheJobOfAnEarlierLife(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, riverbeat.Queue)
	run := b.runNow(t, s)
	old := *run.JobID
	b.psql(t, fetchJob, old)
	b.psql(t, discardJob, old)
	again, err := b.history.Retry(t.Context(), run.ID)
	require.NoError(t, err)
	_, err = b.river.JobRetry(t.Context(), old)
	require.ErrorContains(t, err, "23505", "there cannot be two")
	b.psql(t, fetchJob, *again.JobID)
	b.psql(t, completeJob, *again.JobID)
	done := b.read(t, run.ID)
	require.Equal(t, riverbeat.Succeeded, done.State)

	// The earlier life takes the key again, and nothing else, until a node sees
	// that it is not its run's any more.
	_, err = b.river.JobRetry(t.Context(), old)
	require.NoError(t, err)
	require.Equal(t, done, b.read(t, run.ID))
	waits := b.runNow(t, s)
	require.Equal(t, riverbeat.Waiting, waits.State)
	_, err = b.history.Retry(t.Context(), run.ID)
	require.Equal(t, "lock_key_taken", codeOf(err))
	heard := b.lines(t)
	b.psql(t, fetchJob, old)
	require.Equal(t, done, b.read(t, run.ID))
	_, err = b.river.JobCancel(t.Context(), old)
	require.NoError(t, err)
	b.psql(t, "UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE id = $1", old)
	require.Equal(t, done, b.read(t, run.ID))
	key, _ := heard()
	require.Equal(t, run.LockKey, key)
	_, err = b.ticker.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, riverbeat.Queued, b.read(t, waits.ID).State)
}

func TestTruncateOfAllJobs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type key struct {
		first, next *riverbeat.Run
	}
	var keys []key
	for range 3 {
		s := b.schedule(t, riverbeat.Queue)
		s, err := b.catalog.ChangeSchedule(t.Context(), s.ID, func(s *riverbeat.Schedule) error {
			s.TaskParams = json.RawMessage(`{"key": "` + s.ID.String() + `"}`)
			return nil
		})
		require.NoError(t, err)
		keys = append(keys, key{b.runNow(t, s), b.runNow(t, s)})
	}
	alone := b.runNow(t, b.schedule(t, riverbeat.Allow))
	ended := b.runNow(t, b.schedule(t, riverbeat.Allow))
	b.psql(t, completeJob, *ended.JobID)
	ended = b.read(t, ended.ID)
	b.psql(t, "INSERT INTO river_job (args, kind, max_attempts, metadata, queue, tags) VALUES ('{\"run_id\": \"no uuid\"}', 'run', 3, '{}', 'default', '{}'), ('{}', 'another', 3, '{}', 'default', '{}')")
	heard := b.lines(t)

	tx, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "TRUNCATE river_job RESTART IDENTITY CASCADE")
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, riverbeat.Queued, b.read(t, alone.ID).State, "undone")

	b.psql(t, "TRUNCATE river_job")
	var left int
	require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM river_job").Scan(&left))
	require.Zero(t, left)
	told := map[string]bool{}
	for k, ok := heard(); ok; k, ok = heard() {
		told[k] = true
	}
	for _, k := range append(keys, key{first: alone}) {
		run := b.read(t, k.first.ID)
		require.Equal(t, riverbeat.Cancelled, run.State)
		require.Equal(t, riverbeat.JobDeleted, run.Reason)
		require.NotNil(t, run.FinishedAt)
		if k.next != nil {
			require.Equal(t, k.next, b.read(t, k.next.ID), "who has no job is left alone")
			require.True(t, told[run.LockKey])
		}
	}
	require.Equal(t, ended, b.read(t, ended.ID))
	_, err = b.ticker.Sweep(t.Context())
	require.NoError(t, err)
	for _, k := range keys {
		require.Equal(t, riverbeat.Queued, b.read(t, k.next.ID).State)
	}
}

func TestJobsWhoseRunsAreDeleted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, riverbeat.Queue)
	for _, statements := range [][]string{
		{fetchJob, retryLater, fetchJob, completeJob, "DELETE FROM river_job WHERE id = $1"},
		{fetchJob, "UPDATE river_job SET metadata = '{\"cancel_attempted_at\": 1}' WHERE id = $1", discardJob},
		{"DELETE FROM river_job WHERE id = $1"},
	} {
		run := b.runNow(t, s)
		require.Equal(t, riverbeat.Queued, run.State)
		b.psql(t, "DELETE FROM runs")
		waits := b.runNow(t, s)
		require.Equal(t, riverbeat.Waiting, waits.State, "the job holds its key all the same")
		for _, statement := range statements {
			b.psql(t, statement, *run.JobID)
		}
		_, err := b.ticker.Sweep(t.Context())
		require.NoError(t, err)
		waits = b.read(t, waits.ID)
		require.Equal(t, riverbeat.Queued, waits.State)
		_, err = b.history.Cancel(t.Context(), waits.ID)
		require.NoError(t, err)
	}
}
