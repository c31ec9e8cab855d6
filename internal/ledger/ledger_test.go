package ledger_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/trace"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is a ledger in a transaction that is rolled back.
type bundle struct {
	ledger *ledger.Ledger
	db     *postgres.DB
	now    time.Time
}

func setup(t *testing.T) *bundle {
	t.Helper()
	q, err := queue.New(pgtest.Pool(t), pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	b := &bundle{ledger: ledger.New(q), db: pgtest.Tx(t)}
	b.in(t, func(tx *postgres.Tx) error {
		var err error
		b.now, err = tx.Now(t.Context())
		return err
	})
	b.now = b.now.Truncate(time.Second)
	return b
}

func (b *bundle) in(t *testing.T, fn func(*postgres.Tx) error) {
	t.Helper()
	require.NoError(t, b.db.InTx(t.Context(), fn))
}

func schedule(policy riverbeat.Policy) *riverbeat.Schedule {
	return &riverbeat.Schedule{
		ID: uuid.New(), Name: "nightly", TaskName: "echo", Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
		ExecutionPolicy: policy, CatchUp: riverbeat.CatchUpLatest, MaxWaiting: 100,
	}
}

// entry is the tick of a schedule, ago in the past.
func (b *bundle) entry(t *testing.T, s *riverbeat.Schedule, trigger riverbeat.Trigger, ago time.Duration) *ledger.Entry {
	t.Helper()
	e, err := b.ledger.Entry(ledger.Request{Schedule: s, Trigger: trigger, At: b.now.Add(-ago)}, b.now)
	require.NoError(t, err)
	return e
}

// record records the entries as one batch and reads their runs.
func (b *bundle) record(t *testing.T, entries ...*ledger.Entry) []*riverbeat.Run {
	t.Helper()
	var runs []*riverbeat.Run
	b.in(t, func(tx *postgres.Tx) error {
		if err := b.ledger.Record(t.Context(), tx, b.now, entries); err != nil {
			return err
		}
		for _, e := range entries {
			run, err := tx.Run(t.Context(), e.Run.ID)
			if err != nil {
				return err
			}
			runs = append(runs, run)
		}
		return nil
	})
	return runs
}

func (b *bundle) read(t *testing.T, id uuid.UUID) *riverbeat.Run {
	t.Helper()
	var run *riverbeat.Run
	b.in(t, func(tx *postgres.Tx) error {
		var err error
		run, err = tx.Run(t.Context(), id)
		return err
	})
	return run
}

// end ends the job of a run and moves the line of its key up.
func (b *bundle) end(t *testing.T, r *riverbeat.Run) {
	t.Helper()
	b.in(t, func(tx *postgres.Tx) error {
		if _, err := tx.Exec(t.Context(), "UPDATE river_job SET state = 'completed', finalized_at = statement_timestamp() WHERE id = $1", *r.JobID); err != nil {
			return err
		}
		return b.ledger.Promote(t.Context(), tx, r.LockKey)
	})
}

func TestRecord_AdmitsABatchInItsOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	queues, skips, allows := schedule(riverbeat.Queue), schedule(riverbeat.Skip), schedule(riverbeat.Allow)
	other := schedule(riverbeat.Skip)
	other.TaskParams = json.RawMessage(`{"other": "key"}`)
	runs := b.record(t,
		b.entry(t, queues, riverbeat.TriggerSchedule, 5*time.Second),
		b.entry(t, skips, riverbeat.TriggerSchedule, 4*time.Second),
		b.entry(t, queues, riverbeat.TriggerSchedule, 3*time.Second),
		b.entry(t, allows, riverbeat.TriggerSchedule, 2*time.Second),
		b.entry(t, other, riverbeat.TriggerSchedule, 1*time.Second),
	)
	first, skipped, waiting, beside, alone := runs[0], runs[1], runs[2], runs[3], runs[4]
	require.Equal(t, riverbeat.Queued, first.State)
	require.NotNil(t, first.JobID)
	require.Equal(t, riverbeat.Skipped, skipped.State)
	require.Equal(t, riverbeat.AlreadyQueued, skipped.Reason)
	require.Equal(t, first.ID, *skipped.BlockedBy)
	require.NotNil(t, skipped.FinishedAt)
	require.Equal(t, riverbeat.Waiting, waiting.State)
	require.Equal(t, first.ID, *waiting.BlockedBy)
	require.Nil(t, waiting.JobID)
	require.Equal(t, first.LockKey, waiting.LockKey)
	require.Equal(t, riverbeat.Queued, beside.State)
	require.Empty(t, beside.LockKey)
	require.Equal(t, riverbeat.Queued, alone.State)
	require.NotEqual(t, first.LockKey, alone.LockKey)

	// The next batch meets the same.
	require.Equal(t, riverbeat.Waiting, b.record(t, b.entry(t, queues, riverbeat.TriggerSchedule, 0))[0].State)
}

// A node whose clock is hours ahead must not make jobs that nobody may fetch.
func TestRecord_JobsAreDueByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.now = b.now.Add(-3 * time.Hour)
	run := b.record(t, b.entry(t, schedule(riverbeat.Allow), riverbeat.TriggerSchedule, 0))[0]
	b.in(t, func(tx *postgres.Tx) error {
		var state string
		var scheduledAt, createdAt time.Time
		err := tx.QueryRow(t.Context(), "SELECT state, scheduled_at, created_at FROM river_job WHERE id = $1", *run.JobID).
			Scan(&state, &scheduledAt, &createdAt)
		require.Equal(t, "available", state)
		require.True(t, scheduledAt.Equal(b.now), scheduledAt)
		require.True(t, createdAt.Equal(b.now), createdAt)
		return err
	})
}

// The claim takes schedules by how long they are due; what runs of them may have
// another order.
func TestRecord_AdmitsByNominalTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	queues, skips := schedule(riverbeat.Queue), schedule(riverbeat.Skip)
	runs := b.record(t,
		b.entry(t, queues, riverbeat.TriggerBackfill, time.Hour),
		b.entry(t, queues, riverbeat.TriggerSchedule, 2*time.Minute),
		b.entry(t, skips, riverbeat.TriggerCatchUp, 4*time.Minute),
		b.entry(t, queues, riverbeat.TriggerCatchUp, 3*time.Minute),
		b.entry(t, skips, riverbeat.TriggerSchedule, time.Minute),
	)
	backfill, last, first, second, skipped := runs[0], runs[1], runs[2], runs[3], runs[4]
	require.Equal(t, riverbeat.Queued, first.State)
	for _, run := range []*riverbeat.Run{second, last, backfill} {
		require.Equal(t, riverbeat.Waiting, run.State)
		require.Equal(t, first.ID, *run.BlockedBy)
	}
	require.Equal(t, riverbeat.Skipped, skipped.State)
	for _, next := range []*riverbeat.Run{first, second, last, backfill} {
		next = b.read(t, next.ID)
		require.Equal(t, riverbeat.Queued, next.State)
		b.end(t, next)
	}
}

// A job that River UI or psql makes live again, without our lock, is in the way
// of the whole batch.
func TestRecord_AJobThatComesToLifeMeanwhile(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	q, err := queue.New(d.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	b := &bundle{ledger: ledger.New(q), db: d.DB}
	b.in(t, func(tx *postgres.Tx) error {
		b.now, err = tx.Now(t.Context())
		return err
	})
	queues, skips := schedule(riverbeat.Queue), schedule(riverbeat.Skip)
	queues.MaxWaiting = 1
	ended := b.record(t, b.entry(t, queues, riverbeat.TriggerManual, time.Minute))[0]
	b.end(t, ended)

	retry, err := d.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = retry.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = retry.Exec(t.Context(), "UPDATE river_job SET state = 'available', finalized_at = NULL WHERE id = $1", *ended.JobID)
	require.NoError(t, err)

	entries := []*ledger.Entry{
		b.entry(t, skips, riverbeat.TriggerSchedule, 4*time.Second),
		b.entry(t, queues, riverbeat.TriggerSchedule, 3*time.Second),
		b.entry(t, skips, riverbeat.TriggerSchedule, 2*time.Second),
		b.entry(t, queues, riverbeat.TriggerSchedule, time.Second),
	}
	recorded := make(chan error, 1)
	go func() {
		recorded <- d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
			return b.ledger.Record(t.Context(), tx, b.now, entries)
		})
	}()
	require.Eventually(t, func() bool {
		var blocked bool
		err := d.Pool.QueryRow(t.Context(), `
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&blocked)
		return err == nil && blocked
	}, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, retry.Commit(t.Context()))
	require.NoError(t, <-recorded)

	for i, want := range []struct {
		state  riverbeat.State
		reason riverbeat.Reason
	}{
		{riverbeat.Skipped, riverbeat.AlreadyQueued},
		{riverbeat.Waiting, ""},
		{riverbeat.Skipped, riverbeat.AlreadyQueued},
		{riverbeat.Skipped, riverbeat.QueueFull},
	} {
		run := b.read(t, entries[i].Run.ID)
		require.Equal(t, want.state, run.State, i)
		require.Equal(t, want.reason, run.Reason, i)
		require.Equal(t, ended.ID, *run.BlockedBy, i)
		require.Nil(t, run.JobID, i)
	}
}

func TestRecord_ChainsCatchUp(t *testing.T) {
	t.Parallel()
	for _, policy := range []riverbeat.Policy{riverbeat.Allow, riverbeat.Skip, riverbeat.Queue} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := schedule(policy)
			s.CatchUp, s.MaxWaiting = riverbeat.CatchUpAll, 1
			var batch []*ledger.Entry
			for minutes := 4; minutes > 1; minutes-- {
				batch = append(batch, b.entry(t, s, riverbeat.TriggerCatchUp, time.Duration(minutes)*time.Minute))
			}
			batch = append(batch, b.entry(t, s, riverbeat.TriggerSchedule, 30*time.Second))
			runs := b.record(t, batch...)
			chain, onTime := runs[:3], runs[3]
			require.Equal(t, policy, chain[1].ExecutionPolicy, "history tells the schedule's own")
			require.Equal(t, map[riverbeat.Policy]riverbeat.State{
				riverbeat.Allow: riverbeat.Queued,  // beside the chain
				riverbeat.Skip:  riverbeat.Skipped, // behind something
				riverbeat.Queue: riverbeat.Waiting, // the first that max_waiting counts
			}[policy], onTime.State)
			for i, run := range chain {
				require.Equal(t, riverbeat.Queued, b.read(t, run.ID).State)
				if i+1 < len(chain) {
					require.Equal(t, riverbeat.Waiting, b.read(t, chain[i+1].ID).State, "one after another")
				}
				b.end(t, b.read(t, run.ID))
				require.Equal(t, riverbeat.Succeeded, b.read(t, run.ID).State)
			}
			if policy == riverbeat.Queue {
				require.Equal(t, riverbeat.Queued, b.read(t, onTime.ID).State, "whoever came last goes last")
			}
		})
	}
}

func TestRecord_ChainsOfTwoSchedulesOfPolicyAllowGoSideBySide(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := schedule(riverbeat.Allow), schedule(riverbeat.Allow)
	one.CatchUp, two.CatchUp = riverbeat.CatchUpAll, riverbeat.CatchUpAll
	for _, run := range b.record(t,
		b.entry(t, one, riverbeat.TriggerCatchUp, time.Hour),
		b.entry(t, two, riverbeat.TriggerCatchUp, time.Hour),
	) {
		require.Equal(t, riverbeat.Queued, run.State)
	}
}

func TestRecord_BoundsTheLine(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := schedule(riverbeat.Queue)
	s.MaxWaiting = 2
	var batch []*ledger.Entry
	for seconds := 5; seconds > 0; seconds-- {
		batch = append(batch, b.entry(t, s, riverbeat.TriggerSchedule, time.Duration(seconds)*time.Second))
	}
	runs := b.record(t, batch...)
	for i, state := range []riverbeat.State{riverbeat.Queued, riverbeat.Waiting, riverbeat.Waiting, riverbeat.Skipped, riverbeat.Skipped} {
		require.Equal(t, state, runs[i].State, i)
	}
	require.Equal(t, riverbeat.QueueFull, runs[3].Reason)
	require.Equal(t, runs[0].ID, *runs[3].BlockedBy)

	require.Equal(t, riverbeat.QueueFull, b.record(t, b.entry(t, s, riverbeat.TriggerManual, 0))[0].Reason, "of earlier batches, too")
	require.Equal(t, riverbeat.Waiting, b.record(t, b.entry(t, s, riverbeat.TriggerBackfill, time.Minute))[0].State, "backfill is not counted")
	b.end(t, runs[0])
	require.Equal(t, riverbeat.Queued, b.read(t, runs[1].ID).State, "ticks before backfills, the oldest first")
	s.Name = "a place is free"
	require.Equal(t, riverbeat.Waiting, b.record(t, b.entry(t, s, riverbeat.TriggerManual, 0))[0].State)
}

func TestRecord_TheSameEntriesAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := schedule(riverbeat.Queue)
	entries := []*ledger.Entry{
		b.entry(t, s, riverbeat.TriggerSchedule, 2*time.Second),
		b.entry(t, s, riverbeat.TriggerSchedule, time.Second),
		ledger.Gap(s, &riverbeat.Gap{From: b.now.Add(-time.Hour), Until: b.now.Add(-time.Minute), Reason: riverbeat.Superseded}, b.now),
	}
	b.in(t, func(tx *postgres.Tx) error {
		undone := tx.Savepoint(t.Context(), func(tx *postgres.Tx) error {
			require.NoError(t, b.ledger.Record(t.Context(), tx, b.now, entries))
			_, err := tx.Exec(t.Context(), "SELECT 1/0")
			return err
		})
		require.True(t, postgres.IsRowFault(undone))
		return nil
	})
	runs := b.record(t, entries...)
	require.Equal(t, riverbeat.Queued, runs[0].State)
	require.Equal(t, riverbeat.Waiting, runs[1].State)
	require.Equal(t, runs[0].ID, *runs[1].BlockedBy)
	require.Equal(t, riverbeat.Missed, runs[2].State)
}

func TestPromote_DoesNothingWhereNothingIsToBeDone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := schedule(riverbeat.Queue)
	runs := b.record(t, b.entry(t, s, riverbeat.TriggerSchedule, time.Second), b.entry(t, s, riverbeat.TriggerSchedule, 0))
	for range 2 {
		b.in(t, func(tx *postgres.Tx) error { return b.ledger.Promote(t.Context(), tx, runs[0].LockKey) })
	}
	require.Equal(t, riverbeat.Waiting, b.read(t, runs[1].ID).State, "the key is held")
	b.end(t, runs[0])
	for range 2 {
		b.in(t, func(tx *postgres.Tx) error { return b.ledger.Promote(t.Context(), tx, runs[0].LockKey) })
	}
	require.Equal(t, riverbeat.Queued, b.read(t, runs[1].ID).State)
	b.in(t, func(tx *postgres.Tx) error { return b.ledger.Promote(t.Context(), tx, "nobody's") })
}

// Who makes room in a line has not asked for the run that moves up; who retries one has.
func TestARunBelongsToTheTraceOfWhoAskedForIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tracer, err := trace.New(t.Context(), trace.Config{Endpoint: "http://127.0.0.1:1"}) // of which it tells nothing: a share of 0
	require.NoError(t, err)
	ctx, span := tracer.Request(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody))
	defer span.End()
	carries := func(id uuid.UUID) (carries bool) {
		t.Helper()
		job := *b.read(t, id).JobID
		b.in(t, func(tx *postgres.Tx) error {
			return tx.QueryRow(t.Context(), "SELECT metadata ? $2 FROM river_job WHERE id = $1", job, trace.Member).Scan(&carries)
		})
		return carries
	}
	s := schedule(riverbeat.Queue)
	runs := b.record(t, b.entry(t, s, riverbeat.TriggerSchedule, time.Second), b.entry(t, s, riverbeat.TriggerSchedule, 0))
	b.in(t, func(tx *postgres.Tx) error {
		_, err := b.ledger.Cancel(ctx, tx, runs[0].ID)
		return err
	})
	require.False(t, carries(runs[1].ID))
	b.end(t, b.read(t, runs[1].ID))
	b.in(t, func(tx *postgres.Tx) error {
		_, err := b.ledger.Retry(ctx, tx, runs[0].ID)
		return err
	})
	require.True(t, carries(runs[0].ID))
}

func TestEntry_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := schedule(riverbeat.Queue)
	request := func(d *riverbeat.TaskDefinition) (*ledger.Entry, error) {
		return b.ledger.Entry(ledger.Request{Schedule: s, Definition: d, Trigger: riverbeat.TriggerSchedule, At: b.now}, b.now)
	}
	t.Run("parameters that break the schema fail the run", func(t *testing.T) {
		t.Parallel()
		e, err := request(&riverbeat.TaskDefinition{ID: uuid.New(), ParameterSchema: json.RawMessage(`{"required": ["day"]}`), Queue: "default", MaxAttempts: 1})
		require.NoError(t, err)
		require.Equal(t, riverbeat.Failed, e.Run.State)
		require.Equal(t, riverbeat.InvalidParams, e.Run.Reason)
		require.Contains(t, e.Run.Error, "day")
		require.Empty(t, e.Run.LockKey, "it stands in nobody's way")
	})
	t.Run("a queue that River refuses is the schedule's fault", func(t *testing.T) {
		t.Parallel()
		_, err := request(&riverbeat.TaskDefinition{ID: uuid.New(), ParameterSchema: json.RawMessage("{}"), Queue: "no queue"})
		require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err))
	})
	t.Run("defaults that the schema gives are part of the key", func(t *testing.T) {
		t.Parallel()
		d := &riverbeat.TaskDefinition{
			ID: uuid.New(), ParameterSchema: json.RawMessage(`{"properties": {"n": {"default": 1}}}`), Queue: "default", MaxAttempts: 1,
		}
		implied, err := request(d)
		require.NoError(t, err)
		spelled := schedule(riverbeat.Queue)
		spelled.TaskParams = json.RawMessage(`{"n": 1.0}`)
		e, err := b.ledger.Entry(ledger.Request{Schedule: spelled, Definition: d, Trigger: riverbeat.TriggerSchedule, At: b.now}, b.now)
		require.NoError(t, err)
		require.Equal(t, implied.Run.LockKey, e.Run.LockKey)
	})
}
