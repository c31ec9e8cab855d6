package history_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/history"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// watchJobs keeps a line for each job of the key that comes to life or ends, in
// the order in which it happens.
const watchJobs = `
CREATE TABLE watched (id bigserial, job bigint, step int);
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was int := CASE WHEN TG_OP <> 'INSERT' AND OLD.finalized_at IS NULL THEN 1 ELSE 0 END;
    is_now int := CASE WHEN TG_OP <> 'DELETE' AND NEW.finalized_at IS NULL THEN 1 ELSE 0 END;
BEGIN
    IF was <> is_now THEN
        INSERT INTO watched (job, step) VALUES (coalesce(NEW.id, OLD.id), is_now - was);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON river_job FOR EACH ROW EXECUTE FUNCTION watch();`

// dropUniqueness takes River's unique index out of the game.
const dropUniqueness = `
CREATE FUNCTION drop_uniqueness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.unique_key := NULL;
    RETURN NEW;
END
$$;
CREATE TRIGGER drop_uniqueness BEFORE INSERT ON river_job FOR EACH ROW EXECUTE FUNCTION drop_uniqueness();`

// People, nodes, River UI and psql are at the runs of one key, all at once. The
// key never has two live jobs, nobody is stuck in the end, and nobody
// ever sees a deadlock.
func TestEverybodyAtOneKey(t *testing.T) {
	t.Parallel()
	t.Run("with River's unique index", func(t *testing.T) {
		t.Parallel()
		everybodyAtOneKey(t, true)
	})
	t.Run("by the admission lock alone", func(t *testing.T) {
		t.Parallel()
		everybodyAtOneKey(t, false)
	})
}

func everybodyAtOneKey(t *testing.T, unique bool) {
	t.Helper()
	b := setup(t)
	b.psql(t, watchJobs)
	if !unique {
		b.psql(t, dropUniqueness)
	}
	s := b.schedule(t, riverbeat.Queue)
	key := b.runNow(t, s).LockKey
	ctx := t.Context()

	pickRun := func(states string) (id uuid.UUID, err error) {
		err = b.Pool.QueryRow(ctx, "SELECT id FROM runs WHERE state IN ("+states+") ORDER BY random() LIMIT 1").Scan(&id)
		return id, err
	}
	onJob := func(where string, act func(id int64) error) func() error {
		return func() error {
			var id int64
			err := b.Pool.QueryRow(ctx, "SELECT id FROM river_job WHERE "+where+" ORDER BY random() LIMIT 1").Scan(&id)
			if err != nil {
				return err
			}
			return act(id)
		}
	}
	const live = "finalized_at IS NULL"
	actors := map[string]func() error{
		// With a short line, so that the key is free at times.
		"asks": func() error {
			var waiting int
			err := b.Pool.QueryRow(ctx, "SELECT count(*) FROM runs WHERE state = 'waiting'").Scan(&waiting)
			if err == nil && waiting > 3 {
				return pgx.ErrNoRows
			}
			if err == nil {
				_, err = b.history.RunNow(ctx, s.ID, history.Overrides{})
			}
			return err
		},
		"cancels": func() error {
			id, err := pickRun("'waiting', 'queued', 'running', 'retrying'")
			if err == nil {
				_, err = b.history.Cancel(ctx, id)
			}
			return err
		},
		"retries": func() error {
			id, err := pickRun("'succeeded', 'failed', 'cancelled'")
			if err == nil {
				_, err = b.history.Retry(ctx, id)
			}
			return err
		},
		"fetches": onJob("state = 'available'", func(id int64) error {
			_, err := b.Pool.Exec(ctx, strings.Replace(fetchJob, "<> 'running'", "= 'available'", 1), id)
			return err
		}),
		// As a node ends a run behind which others wait.
		"completes and promotes": onJob("state = 'running'", func(id int64) error {
			return b.DB.InTx(ctx, func(tx *postgres.Tx) error {
				if err := tx.Promoting(ctx, key); err != nil {
					return err
				}
				if err := tx.LockKeys(ctx, []string{key}); err != nil {
					return err
				}
				if _, err := tx.Exec(ctx, completeJob+" AND state = 'running'", id); err != nil {
					return err
				}
				return b.ledger.Promote(ctx, tx, key)
			})
		}),
		// As River ends it.
		"ends": onJob("state = 'running'", func(id int64) error {
			_, err := b.Pool.Exec(ctx, []string{completeJob, discardJob, retryLater}[rand.IntN(3)]+" AND state = 'running'", id)
			return err
		}),
		"makes due": func() error {
			_, err := b.Pool.Exec(ctx, "UPDATE river_job SET state = 'available', scheduled_at = now() WHERE state = 'retryable'")
			return err
		},
		"sweeps": func() error {
			_, err := b.ticker.Sweep(ctx)
			return err
		},
		"promotes": func() error { return b.ticker.Promote(ctx, key) },
		"River cancels": onJob(live, func(id int64) error {
			_, err := b.river.JobCancel(ctx, id)
			return err
		}),
		"River deletes": onJob(live, func(id int64) error {
			_, err := b.river.JobDelete(ctx, id)
			return err
		}),
		"psql deletes": onJob(live, func(id int64) error {
			_, err := b.Pool.Exec(ctx, "DELETE FROM river_job WHERE id = $1", id)
			return err
		}),
		"psql truncates": func() error {
			if rand.IntN(10) > 0 {
				return pgx.ErrNoRows // else there is nothing left for the others
			}
			_, err := b.Pool.Exec(ctx, "TRUNCATE river_job")
			return err
		},
	}
	if unique { // a retry of River's has nothing else to go by
		actors["River retries"] = onJob("true", func(id int64) error {
			_, err := b.river.JobRetry(ctx, id)
			return err
		})
	}
	names := slices.Sorted(maps.Keys(actors))
	const hands, share = 8, 20
	var working sync.WaitGroup
	var mu sync.Mutex
	times := map[string]int{}
	for range hands {
		working.Go(func() {
			for range share * len(names) {
				name := names[rand.IntN(len(names))]
				err := actors[name]()
				if err != nil && !expected(err) {
					t.Errorf("%s: %v", name, err)
					return
				}
				if err == nil {
					mu.Lock()
					times[name]++
					mu.Unlock()
				}
			}
		})
	}
	working.Wait()
	t.Logf("came to something: %v", times)
	require.Len(t, times, len(names))

	// Whatever is left drains by the sweep alone.
	require.Eventually(t, func() bool {
		_, err := b.ticker.Sweep(ctx)
		require.NoError(t, err)
		_, err = b.Pool.Exec(ctx, "UPDATE river_job SET state = 'completed', finalized_at = now() WHERE "+live)
		require.NoError(t, err)
		var left int
		require.NoError(t, b.Pool.QueryRow(ctx, "SELECT count(*) FROM runs WHERE state IN ('waiting', 'queued', 'running', 'retrying')").Scan(&left))
		return left == 0
	}, 60*time.Second, time.Millisecond)
	var least, most, total int
	require.NoError(t, b.Pool.QueryRow(ctx, `
SELECT min(alive), max(alive), count(*)
FROM (SELECT sum(step) OVER (ORDER BY id) AS alive FROM watched) AS steps`).Scan(&least, &most, &total))
	require.Equal(t, []int{0, 1}, []int{least, most}, "live jobs of the key")
	require.Greater(t, total, hands*share)
}

// expected tells whether err says no more than that someone else was first.
func expected(err error) bool {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.ConstraintName == "river_job_unique_idx" {
		return true
	}
	return riverbeat.KindOf(err) == riverbeat.Conflict ||
		errors.Is(err, pgx.ErrNoRows) || errors.Is(err, rivertype.ErrNotFound) || errors.Is(err, rivertype.ErrJobRunning)
}

// The same run, asked for at once: one of each wins.
func TestTwoAtOneRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.schedule(t, riverbeat.Allow)
	const tries = 20
	for range tries {
		run := b.runNow(t, s)
		b.psql(t, fetchJob, *run.JobID)
		b.psql(t, discardJob, *run.JobID)
		wins := b.atOnce(t, func(ctx context.Context, n int) error {
			if n%2 == 0 {
				_, err := b.river.JobRetry(ctx, *run.JobID)
				return err
			}
			_, err := b.history.Retry(ctx, run.ID)
			return err
		})
		again := b.read(t, run.ID)
		require.Equal(t, riverbeat.Queued, again.State)
		ours := 0
		for n, err := range wins {
			if n%2 == 0 {
				require.NoError(t, err)
			} else if err == nil {
				ours++
			} else {
				require.Equal(t, "run_not_ended", codeOf(err))
			}
		}
		require.Equal(t, *again.JobID != *run.JobID, ours == 1, "%d of ours", ours)
		require.LessOrEqual(t, ours, 1)

		// A cancellation meets a new life of the run, not its old job.
		job := *again.JobID
		for _, err := range b.atOnce(t, func(ctx context.Context, n int) error {
			if n > 0 {
				return nil
			}
			_, err := b.history.Cancel(ctx, run.ID)
			return err
		}) {
			require.NoError(t, err)
		}
		require.Equal(t, riverbeat.Cancelled, b.read(t, run.ID).State)
		row, err := b.river.JobGet(t.Context(), job)
		require.NoError(t, err)
		require.Equal(t, rivertype.JobStateCancelled, row.State)
	}
}

// atOnce calls fn four times at once, and has their errors.
func (b *bundle) atOnce(t *testing.T, fn func(ctx context.Context, n int) error) []error {
	t.Helper()
	errs := make([]error, 4)
	var done sync.WaitGroup
	for n := range errs {
		done.Go(func() { errs[n] = fn(t.Context(), n) })
	}
	done.Wait()
	return errs
}

// While somebody cancels, the run gets another job, as from the reaper.
func TestCancel_MeetsTheJobThatTheRunHas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, policy := range []riverbeat.Policy{riverbeat.Allow, riverbeat.Queue} {
		run := b.runNow(t, b.schedule(t, policy))
		b.psql(t, fetchJob, *run.JobID)
		tx, err := b.Pool.Begin(t.Context())
		require.NoError(t, err)
		exec := func(statement string, args ...any) {
			_, err := tx.Exec(t.Context(), statement, args...)
			require.NoError(t, err)
		}
		exec("SELECT FROM river_job WHERE id = $1 FOR UPDATE", *run.JobID)
		done := make(chan error, 1)
		go func() {
			_, err := b.history.Cancel(pgtest.As(t.Context(), "me"), run.ID)
			done <- err
		}()
		// It waits for the job.
		require.Eventually(t, func() bool {
			var waiting int
			require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting))
			return waiting == 1
		}, 20*time.Second, time.Millisecond)
		exec("UPDATE runs SET job_id = NULL WHERE id = $1", run.ID)
		exec("UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE id = $1", *run.JobID)
		var next int64
		require.NoError(t, tx.QueryRow(t.Context(), `
INSERT INTO river_job (args, kind, max_attempts, metadata, queue, tags)
SELECT args, kind, max_attempts, metadata, queue, tags FROM river_job WHERE id = $1
RETURNING id`, *run.JobID).Scan(&next))
		exec("UPDATE runs SET job_id = $2, state = 'queued' WHERE id = $1", run.ID, next)
		require.NoError(t, tx.Commit(t.Context()))
		require.NoError(t, <-done)
		cancelled := b.read(t, run.ID)
		require.Equal(t, riverbeat.Cancelled, cancelled.State, fmt.Sprint(policy))
		require.Equal(t, next, *cancelled.JobID)
		job, err := b.river.JobGet(t.Context(), next)
		require.NoError(t, err)
		require.Equal(t, rivertype.JobStateCancelled, job.State)
	}
}
