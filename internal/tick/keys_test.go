package tick_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
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

var seed = flag.Uint64("tick.seed", 0, "seed of the random tests; 0 draws one")

// newSeed is the seed of a random test, and is printed.
func newSeed(t *testing.T) uint64 {
	t.Helper()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-tick.seed %d", s)
	return s
}

// node is what a process has, on a pool of its own.
type node struct {
	db      *postgres.DB
	ledger  *ledger.Ledger
	ticker  *tick.Ticker
	history *history.History
	catalog *catalog.Catalog
}

func (b *bundle) newNode(t *testing.T) *node {
	t.Helper()
	cfg := b.Config()
	cfg.MaxConns = 6
	pool, err := postgres.NewPool(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	q, err := queue.New(pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	db, l := postgres.New(pool, pgtest.Schema), ledger.New(q)
	return &node{
		db: db, ledger: l, ticker: tick.New(db, l, slog.New(slog.DiscardHandler)),
		history: history.New(db, l), catalog: catalog.New(db, l),
	}
}

// listen promotes the lines that it is told of until ctx ends.
func (n *node) listen(ctx context.Context, listening chan<- struct{}) error {
	conn, err := n.db.Pool().Acquire(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Hijack().Close(context.WithoutCancel(ctx)) }()
	channel := pgx.Identifier{n.db.Schema() + "." + postgres.ChannelLines}.Sanitize()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	close(listening)
	for {
		told, err := conn.Conn().WaitForNotification(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := n.ticker.Promote(ctx, told.Payload); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// work fetches a job as River does and ends it in one of the ways in which jobs
// end. It tells whether there was one.
func (n *node) work(ctx context.Context, random *rand.Rand) (bool, error) {
	const fetch = `
UPDATE river_job
SET state = 'running', attempt = attempt + 1, attempted_at = now(), attempted_by = array_append(attempted_by, 'node')
WHERE id = (SELECT id FROM river_job WHERE state IN ('available', 'retryable') ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, coalesce(args ->> 'lock_key', '')`
	var id int64
	var key string
	err := n.db.Pool().QueryRow(ctx, fetch).Scan(&id, &key)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	end := func(how string) error {
		_, err := n.db.Pool().Exec(ctx, how+" WHERE id = $1", id)
		return err
	}
	const complete = "UPDATE river_job SET state = 'completed', finalized_at = now()"
	switch way := random.IntN(10); {
	case way < 2:
		return true, end("UPDATE river_job SET state = 'retryable'")
	case way < 3:
		return true, end("DELETE FROM river_job")
	case way < 4:
		return true, end("UPDATE river_job SET state = 'discarded', finalized_at = now()")
	case way < 7 || key == "":
		return true, end(complete)
	}
	// As the executor ends a run behind whose key others wait.
	return true, n.db.InTx(ctx, func(tx *postgres.Tx) error {
		if err := tx.Promoting(ctx, key); err != nil {
			return err
		}
		if err := tx.LockKeys(ctx, []string{key}); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, complete+" WHERE id = $1", id); err != nil {
			return err
		}
		return n.ledger.Promote(ctx, tx, key)
	})
}

// watchKeys counts, apart from the product, each job that becomes live while
// another of its key is: overlaps is a sequence, which no rollback undoes.
func (b *bundle) watchKeys(t *testing.T) {
	t.Helper()
	b.exec(t, `
CREATE TABLE test_live (key text CONSTRAINT test_live_pkey PRIMARY KEY, job bigint NOT NULL);
CREATE SEQUENCE test_overlaps;
CREATE FUNCTION test_watch() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    is_live boolean := TG_OP <> 'DELETE' AND NEW.finalized_at IS NULL;
    was_live boolean := TG_OP <> 'INSERT' AND OLD.finalized_at IS NULL;
BEGIN
    IF was_live AND NOT is_live THEN
        DELETE FROM test_live WHERE job = OLD.id;
    ELSIF is_live AND NOT was_live AND NEW.args ->> 'lock_key' IS NOT NULL THEN
        BEGIN
            INSERT INTO test_live VALUES (NEW.args ->> 'lock_key', NEW.id);
        EXCEPTION WHEN unique_violation THEN
            PERFORM nextval('test_overlaps');
        END;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER test_watch AFTER INSERT OR UPDATE OR DELETE ON river_job FOR EACH ROW EXECUTE FUNCTION test_watch()`)
}

func (b *bundle) requireNoOverlaps(t *testing.T) {
	t.Helper()
	require.Zero(t, b.count(t, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM test_overlaps"),
		"two live jobs of one key")
}

// withoutUniqueIndex takes the power of River's unique index: it finds no two
// keys alike. (It cannot be dropped, since River's INSERT … ON CONFLICT names
// it.)
func (b *bundle) withoutUniqueIndex(t *testing.T) {
	t.Helper()
	b.exec(t, `
CREATE FUNCTION test_never_alike() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.unique_key := NEW.unique_key || decode(md5(random()::text), 'hex');
    RETURN NEW;
END
$$;
CREATE TRIGGER test_never_alike BEFORE INSERT ON river_job FOR EACH ROW EXECUTE FUNCTION test_never_alike()`)
}

// requireOrder holds that nobody was overtaken: a run that got its job before
// one that goes before it in the line got it before that one was there.
func (b *bundle) requireOrder(t *testing.T) {
	t.Helper()
	type placed struct {
		Key              string
		ID               uuid.UUID
		Backfill         bool
		At               time.Time
		Made, Job        time.Time
		FoundTheKeyEmpty bool
	}
	// Both times are of statements that hold the key's admission.
	rows, err := b.Pool.Query(t.Context(), `
SELECT lock_key AS key, id, trigger = 'backfill' AS backfill, scheduled_for AS at, created_at AS made,
    CASE WHEN blocked_by IS NULL THEN created_at ELSE enqueued_at END AS job, blocked_by IS NULL AS found_the_key_empty
FROM runs
WHERE lock_key IS NOT NULL AND job_id IS NOT NULL`)
	require.NoError(t, err)
	runs, err := pgx.CollectRows(rows, pgx.RowToStructByName[placed])
	require.NoError(t, err)
	before := func(a, b *placed) bool {
		switch {
		case a.Backfill != b.Backfill:
			return b.Backfill
		case !a.At.Equal(b.At):
			return a.At.Before(b.At)
		}
		return a.ID.String() < b.ID.String()
	}
	compared := 0
	for i := range runs {
		for j := range runs {
			first, later := &runs[i], &runs[j]
			if first.Key != later.Key || !before(first, later) || !later.Job.Before(first.Job) && !later.Job.Equal(first.Job) {
				continue
			}
			compared++
			require.True(t, first.Made.After(later.Job), "%v overtook %v", later, first)
		}
	}
	t.Logf("%d keyed runs had a job; %d pairs came out of turn because they came late", len(runs), compared)
}

// requireDrained waits until all runs have ended, for as long as some do: a
// busy machine may be slow, but a line that stands still is an error.
func (b *bundle) requireDrained(t *testing.T, failed <-chan error) {
	t.Helper()
	const patience = 30 * time.Second
	before, deadline := 0, time.After(patience)
	for {
		if b.count(t, "SELECT count(*) FROM runs WHERE state IN ('waiting', 'queued', 'running', 'retrying')") == 0 {
			return
		}
		if starts := b.count(t, "SELECT coalesce(sum(execution), 0) FROM runs"); starts > before {
			before, deadline = starts, time.After(patience)
		}
		select {
		case err := <-failed:
			require.NoError(t, err)
		case <-deadline:
			var states string
			require.NoError(t, b.Pool.QueryRow(t.Context(), `
SELECT string_agg(format('%s %s', n, state), ', ') FROM (SELECT state, count(*) AS n FROM runs GROUP BY state) AS runs`).Scan(&states))
			require.Fail(t, "runs wait behind nothing", states)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// crowd runs goroutines until it is told to stop; the first error of any of
// them is in failed.
type crowd struct {
	ctx    context.Context //nolint:containedctx // of the goroutines
	stop   func()
	failed chan error
	wait   sync.WaitGroup
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{failed: make(chan error, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	c.ctx = ctx
	c.stop = func() {
		cancel()
		c.wait.Wait()
	}
	t.Cleanup(c.stop)
	return c
}

func (c *crowd) add(fn func(context.Context) error) {
	c.wait.Go(func() {
		if err := fn(c.ctx); err != nil && c.ctx.Err() == nil {
			select {
			case c.failed <- err:
			default:
			}
		}
	})
}

// workers end jobs until the crowd stops.
func (c *crowd) workers(nodes []*node, each int, from *rand.Rand) {
	for i := range each * len(nodes) {
		n, random := nodes[i%len(nodes)], rand.New(rand.NewPCG(from.Uint64(), 0))
		c.add(func(ctx context.Context) error {
			for ctx.Err() == nil {
				worked, err := n.work(ctx, random)
				if err != nil {
					return err
				}
				if !worked {
					select {
					case <-ctx.Done():
					case <-time.After(5 * time.Millisecond):
					}
				}
			}
			return nil
		})
	}
}

// Three nodes decide ticks, requests and promotions of the same few keys, and
// end their jobs, all at once.
func TestAKeyHasOneLiveJobAndOneOrder(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		uniqueIndex bool
	}{
		{"with River's unique index", true},
		{"by the admit lock alone", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(newSeed(t), 0))
			b := setup(t)
			if !test.uniqueIndex {
				b.withoutUniqueIndex(t)
			}
			b.watchKeys(t)
			nodes := []*node{b.newNode(t), b.newNode(t), b.newNode(t)}
			c := newCrowd(t)
			for _, n := range nodes {
				listening := make(chan struct{})
				c.add(func(ctx context.Context) error { return n.listen(ctx, listening) })
				<-listening
			}
			c.workers(nodes, 2, random)
			for _, n := range nodes {
				c.add(func(ctx context.Context) error {
					for ctx.Err() == nil {
						next, err := n.ticker.Sweep(ctx)
						if err != nil {
							return err
						}
						select {
						case <-ctx.Done():
						case <-time.After(min(next, 20*time.Millisecond)):
						}
					}
					return nil
				})
			}

			const keys, producers, deeds, ticksEach = 3, 4, 25, 12
			var ticks atomic.Int64
			var produce sync.WaitGroup
			for p := range producers {
				n, random := nodes[p%len(nodes)], rand.New(rand.NewPCG(random.Uint64(), 0))
				produce.Go(func() {
					for range deeds {
						if err := b.deed(t, n, random, keys, ticksEach); err != nil {
							c.failed <- err
							return
						}
						ticks.Add(ticksEach)
					}
				})
			}
			produce.Wait()
			require.Eventually(t, func() bool {
				return b.count(t, "SELECT count(*) FROM schedule_clocks WHERE next_run_at IS NOT NULL") == 0
			}, 5*time.Minute, 20*time.Millisecond)
			b.requireDrained(t, c.failed)
			c.stop()

			b.requireNoOverlaps(t)
			b.requireOrder(t)
			require.Zero(t, b.count(t, "SELECT count(*) FROM schedules WHERE last_error <> ''"))
			require.Equal(t, int(ticks.Load()), b.count(t, "SELECT count(*) FROM runs WHERE trigger IN ('schedule', 'catch_up')"))
			require.Zero(t, b.count(t, "SELECT count(*) FROM runs WHERE state = 'missed'"))
			require.Zero(t, b.count(t, `
SELECT count(*)
FROM runs AS r
WHERE state = 'skipped' AND NOT EXISTS (SELECT FROM runs AS way WHERE way.id = r.blocked_by AND way.lock_key = r.lock_key)`))
			for _, state := range []riverbeat.State{riverbeat.Skipped, riverbeat.Succeeded, riverbeat.Failed, riverbeat.Cancelled} {
				require.NotZero(t, b.count(t, "SELECT count(*) FROM runs WHERE state = $1", string(state)), state)
			}
		})
	}
}

// deed makes a schedule with ticks that are due, and asks for a run of it.
func (b *bundle) deed(t *testing.T, n *node, random *rand.Rand, keys, ticks int) error {
	t.Helper()
	policies := []riverbeat.Policy{riverbeat.Allow, riverbeat.Skip, riverbeat.Queue, riverbeat.Queue}
	late := random.IntN(3) == 0
	var made *riverbeat.Schedule
	err := n.db.InTx(t.Context(), func(tx *postgres.Tx) error {
		now, err := tx.Now(t.Context())
		if err != nil {
			return err
		}
		ends := now.Truncate(time.Second)
		if late {
			ends = ends.Add(-2 * time.Minute)
		}
		mark := ends.Add(-time.Duration(ticks) * time.Second)
		next := mark.Add(time.Second)
		made, err = tx.InsertSchedule(t.Context(), &riverbeat.Schedule{
			Name: "due", TaskName: fmt.Sprint("task-", random.IntN(keys)), CronExpression: "* * * * * *", Timezone: "UTC", Enabled: true,
			Args: []byte("[]"), TaskParams: []byte("{}"), ExecutionPolicy: policies[random.IntN(len(policies))],
			CatchUp: riverbeat.CatchUpAll, CatchUpWindow: time.Hour, MaxWaiting: 1 + random.IntN(100), EndsAt: &ends, NextRunAt: &next,
		}, mark)
		return err
	})
	if err != nil {
		return err
	}
	policy := policies[random.IntN(len(policies))]
	_, err = n.history.RunNow(t.Context(), made.ID, history.Overrides{ExecutionPolicy: &policy})
	return err
}

// An arrival and the end of the run in its way, in each order that there is: no
// run waits behind nothing.
func TestNoOrderOfArrivalAndEndLosesAWakeUp(t *testing.T) {
	t.Parallel()
	const complete = "UPDATE river_job SET state = 'completed', finalized_at = now() WHERE id = $1"
	type order struct {
		*scene
		made *riverbeat.Schedule
		// end ends the job as River does, executorEnds as the executor does, and
		// arrive asks for another run. Each calls then before it commits.
		end, executorEnds, arrive func(then func()) error
		// blocked waits until someone waits for a lock.
		blocked func()
	}
	nothing := func() {}
	for _, test := range []struct {
		name string
		// play ends the first run while another arrives, and tells whether that
		// is moved up without a sweep.
		play func(*testing.T, *order) (told bool)
	}{
		{"the arrival commits, then the end", func(t *testing.T, o *order) bool {
			t.Helper()
			require.NoError(t, o.arrive(nothing))
			require.NoError(t, o.end(nothing))
			return true
		}},
		{"the end commits while the arrival, having met it, does not yet", func(t *testing.T, o *order) bool {
			t.Helper()
			require.NoError(t, o.arrive(func() { require.NoError(t, o.end(nothing)) }))
			return true
		}},
		{"the arrival commits while the end does not yet", func(t *testing.T, o *order) bool {
			t.Helper()
			require.NoError(t, o.end(func() { require.NoError(t, o.arrive(nothing)) }))
			return false
		}},
		{"the executor's end waits for the arrival", func(t *testing.T, o *order) bool {
			t.Helper()
			ended := make(chan error, 1)
			require.NoError(t, o.arrive(func() {
				go func() { ended <- o.executorEnds(nothing) }()
				o.blocked()
			}))
			require.NoError(t, <-ended)
			return true
		}},
		{"the arrival waits for the executor's end", func(t *testing.T, o *order) bool {
			t.Helper()
			arrived := make(chan error, 1)
			require.NoError(t, o.executorEnds(func() {
				go func() { arrived <- o.arrive(nothing) }()
				o.blocked()
			}))
			require.NoError(t, <-arrived)
			return true
		}},
		{"the job is deleted while the arrival does not commit yet", func(t *testing.T, o *order) bool {
			t.Helper()
			require.NoError(t, o.arrive(func() { o.exec(t, "DELETE FROM river_job WHERE id = $1", *o.job.JobID) }))
			return true
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.watchKeys(t)
			n, other := b.newNode(t), b.newNode(t)
			s := newScene(b)
			made := s.newcomer(t, "{}", func(made *riverbeat.Schedule) { made.ExecutionPolicy = riverbeat.Queue })
			s.job = s.runNow(t, made)
			s.setJob(t, s.job, "running")
			c := newCrowd(t)
			listening := make(chan struct{})
			c.add(func(ctx context.Context) error { return n.listen(ctx, listening) })
			<-listening

			var arrived *riverbeat.Run
			told := test.play(t, &order{
				scene: s, made: made,
				end: func(then func()) error {
					return n.db.InTx(t.Context(), func(tx *postgres.Tx) error {
						_, err := tx.Exec(t.Context(), complete, *s.job.JobID)
						then()
						return err
					})
				},
				executorEnds: func(then func()) error {
					return n.db.InTx(t.Context(), func(tx *postgres.Tx) error {
						require.NoError(t, tx.Promoting(t.Context(), s.job.LockKey))
						require.NoError(t, tx.LockKeys(t.Context(), []string{s.job.LockKey}))
						_, err := tx.Exec(t.Context(), complete, *s.job.JobID)
						require.NoError(t, err)
						err = n.ledger.Promote(t.Context(), tx, s.job.LockKey)
						then()
						return err
					})
				},
				arrive: func(then func()) error {
					return other.db.InTx(t.Context(), func(tx *postgres.Tx) error {
						now, err := tx.Now(t.Context())
						require.NoError(t, err)
						entry, err := other.ledger.Entry(ledger.Request{Schedule: made, Trigger: riverbeat.TriggerManual, At: now}, now)
						require.NoError(t, err)
						err = other.ledger.Record(t.Context(), tx, now, []*ledger.Entry{entry})
						arrived = entry.Run
						then()
						return err
					})
				},
				blocked: func() {
					require.Eventually(t, func() bool {
						return b.count(t, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'") > 0
					}, 10*time.Second, 5*time.Millisecond)
				},
			})
			queued := func() bool { return s.run(t, arrived.ID).State == riverbeat.Queued }
			if !told {
				require.Equal(t, riverbeat.Waiting, s.run(t, arrived.ID).State)
				for range 100 { // a sweep leaves out a key that someone is at
					if b.sweep(t); queued() {
						break
					}
				}
				require.True(t, queued())
			}
			require.Eventually(t, queued, 10*time.Second, 5*time.Millisecond)
			c.stop()
			b.requireNoOverlaps(t)
		})
	}
}

// A node that is frozen in the middle of an admission holds its key until the
// server ends its transaction. Nobody else's tick waits for that.
func TestAKeyThatIsHeldDelaysNoTick(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.newNode(t)
	stalled := b.schedule(t, 0, func(s *riverbeat.Schedule) { s.ExecutionPolicy = riverbeat.Queue })
	first, err := n.history.RunNow(t.Context(), stalled.ID, history.Overrides{})
	require.NoError(t, err)
	waiting, err := n.history.RunNow(t.Context(), stalled.ID, history.Overrides{})
	require.NoError(t, err)
	require.Equal(t, riverbeat.Waiting, waiting.State)
	b.exec(t, "UPDATE river_job SET state = 'completed', finalized_at = now() WHERE id = $1", *first.JobID)

	frozen, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = frozen.Rollback(context.Background()) })
	_, err = frozen.Exec(t.Context(), "SET LOCAL idle_in_transaction_session_timeout = 0")
	require.NoError(t, err)
	key := riverbeat.AdvisoryKey(pgtest.Schema, "admit", waiting.LockKey)
	_, err = frozen.Exec(t.Context(), "SELECT pg_advisory_xact_lock($1)", key)
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = n.ticker.Sweep(ctx)
	require.NoError(t, err)
	require.NoError(t, n.ticker.Promote(ctx, waiting.LockKey))
	require.NoError(t, frozen.Rollback(t.Context()))
	_, err = n.ticker.Sweep(t.Context())
	require.NoError(t, err)
	promoted, err := n.history.Run(t.Context(), waiting.ID)
	require.NoError(t, err)
	require.Equal(t, riverbeat.Queued, promoted.State)
}
