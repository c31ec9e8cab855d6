package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/riverbeat"
	"riverbeat/internal/worker"
	"riverbeat/task"
)

// turnstile is a task that says in which order its runs have begun, and holds them until
// they are let go.
type turnstile struct {
	mu     sync.Mutex
	order  []string
	inside int
	most   int
	let    chan struct{}
}

// newTurnstile registers one as the task "narrow".
func newTurnstile(b *bundle) *turnstile {
	g := &turnstile{let: make(chan struct{})}
	b.register("narrow", func(ctx context.Context, run *task.Run) (any, error) {
		g.mu.Lock()
		g.order = append(g.order, run.ScheduleName)
		g.inside++
		g.most = max(g.most, g.inside)
		g.mu.Unlock()
		defer func() {
			g.mu.Lock()
			g.inside--
			g.mu.Unlock()
		}()
		select {
		case <-g.let:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	return g
}

func (g *turnstile) now() (inside, begun, most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside, len(g.order), g.most
}

func (g *turnstile) await(t *testing.T, inside int) {
	t.Helper()
	require.Eventually(t, func() bool { n, _, _ := g.now(); return n == inside }, 20*time.Second, 5*time.Millisecond)
}

// queue makes runs of a task, one of a schedule each, in order.
func (b *bundle) queueUp(t *testing.T, taskName string, from, n int) []*riverbeat.Run {
	t.Helper()
	runs := make([]*riverbeat.Run, n)
	for i := range n {
		s := b.schedule(t, func(s *riverbeat.Schedule) { s.Name, s.TaskName = fmt.Sprintf("%03d", from+i), taskName })
		runs[i] = b.runNow(t, s)
	}
	return runs
}

func noSlot(r *riverbeat.Run) bool {
	return r.State == riverbeat.Queued && r.Reason == riverbeat.NoSlot
}

func TestNoMoreRunsOfATaskAtOnceThanItsDefinitionSays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newTurnstile(b)
	b.define(t, "narrow", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxConcurrency = 2 })
	b.start() // two nodes
	b.start()
	runs := b.queueUp(t, "narrow", 0, 2)
	g.await(t, 2)
	runs = append(runs, b.queueUp(t, "narrow", 2, 10)...)
	for _, run := range runs[2:] {
		waiting := b.until(t, run.ID, noSlot)
		require.Zero(t, waiting.Execution)
	}
	var order []string
	require.NoError(t, b.Pool.QueryRow(t.Context(), `SELECT array['', ''] || array_agg(r.schedule_name ORDER BY w.since, w.job_id)
FROM slot_waits AS w JOIN runs AS r ON r.job_id = w.job_id`).Scan(&order))
	other := b.until(t, b.runNow(t, b.schedule(t, func(*riverbeat.Schedule) {})).ID, in(riverbeat.Succeeded))
	require.Equal(t, "echo", other.TaskName, "others are not in the way")
	for i := range runs {
		g.let <- struct{}{}
		if i < len(runs)-2 { // the next one comes in
			require.Eventually(t, func() bool { _, begun, _ := g.now(); return begun == i+3 }, 20*time.Second, time.Millisecond)
		}
	}
	for _, run := range runs {
		b.until(t, run.ID, in(riverbeat.Succeeded))
	}
	_, begun, most := g.now()
	require.Equal(t, 12, begun)
	require.Equal(t, 2, most)
	g.mu.Lock()
	defer g.mu.Unlock()
	require.Equal(t, order[2:], g.order[2:])
}

func TestASlotOfALostNodeIsFree(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newTurnstile(b)
	b.define(t, "narrow", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxConcurrency = 1 })
	// Somebody else's session has the slot, and ends.
	b.hold(t, "SELECT pg_advisory_lock($1)", riverbeat.AdvisoryKey("riverbeat", "execute", "slot 0 of narrow"))
	b.start()
	run := b.queueUp(t, "narrow", 0, 1)[0]
	b.until(t, run.ID, noSlot)
	require.Never(t, func() bool { _, begun, _ := g.now(); return begun > 0 }, 3*time.Second, 20*time.Millisecond)
	_, err := b.Pool.Exec(t.Context(), `SELECT pg_terminate_backend(l.pid) FROM pg_locks AS l
WHERE l.locktype = 'advisory' AND l.pid IN (SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database())`)
	require.NoError(t, err)
	g.await(t, 1)
	g.let <- struct{}{}
	b.until(t, run.ID, in(riverbeat.Succeeded))
}

func TestALimitThatIsRaisedLetsOthersIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newTurnstile(b)
	b.define(t, "narrow", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxConcurrency = 1 })
	b.start()
	runs := b.queueUp(t, "narrow", 0, 5)
	g.await(t, 1)
	for _, run := range runs[1:] {
		b.until(t, run.ID, noSlot)
	}
	limit := func(n int) {
		_, err := b.catalog.ChangeTaskDefinition(t.Context(), "narrow", false, func(d *riverbeat.TaskDefinition) error {
			d.MaxConcurrency = n
			return nil
		})
		require.NoError(t, err)
	}
	limit(3)
	g.await(t, 3)
	limit(0)
	g.await(t, 5)
	for range runs {
		g.let <- struct{}{}
	}
	for _, run := range runs {
		b.until(t, run.ID, in(riverbeat.Succeeded))
	}
}

func TestWhoWaitsForASlotMayBeCancelled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newTurnstile(b)
	b.define(t, "narrow", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxConcurrency = 1 })
	b.start()
	runs := b.queueUp(t, "narrow", 0, 4)
	g.await(t, 1)
	for _, run := range runs[1:] {
		b.until(t, run.ID, noSlot)
	}
	_, err := b.history.Cancel(t.Context(), runs[1].ID)
	require.NoError(t, err)
	b.until(t, runs[1].ID, in(riverbeat.Cancelled))
	b.exec(t, "DELETE FROM river_job WHERE id = $1", *b.until(t, runs[2].ID, noSlot).JobID)
	g.let <- struct{}{}
	b.until(t, runs[0].ID, in(riverbeat.Succeeded))
	g.await(t, 1)
	g.let <- struct{}{}
	b.until(t, runs[3].ID, in(riverbeat.Succeeded))
}

// A slot is given back whatever becomes of the attempt.
func TestASlotIsGivenBackByWhoFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.register("breaks", func(context.Context, *task.Run) (any, error) { panic("no") })
	b.define(t, "breaks", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxConcurrency, d.MaxAttempts = 1, 2 })
	var me uuid.UUID
	b.start(func(c *worker.Config) { me = c.Executor.Node().ID })
	for _, run := range b.queueUp(t, "breaks", 0, 6) {
		ended := b.until(t, run.ID, in(riverbeat.Failed))
		require.Equal(t, 2, ended.Attempt)
		require.Equal(t, me.String(), ended.Node)
	}
	require.Eventually(t, func() bool {
		var held int
		require.NoError(t, b.Pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = ($1::bigint >> 32) & 4294967295
AND objid::bigint = $1 & 4294967295`, riverbeat.AdvisoryKey("riverbeat", "execute", "slot 0 of breaks")).Scan(&held))
		return held == 0
	}, 10*time.Second, 10*time.Millisecond)
}

func TestAliasesShareTheirSlots(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := &turnstile{let: make(chan struct{})}
	t1 := task.New("work", func(ctx context.Context, _ *task.Run, _ json.RawMessage) (any, error) {
		g.mu.Lock()
		g.inside++
		g.most = max(g.most, g.inside)
		g.mu.Unlock()
		<-g.let
		g.mu.Lock()
		g.inside--
		g.mu.Unlock()
		return nil, ctx.Err()
	})
	t1.Aliases = []string{"work_task"}
	b.registry.Register(t1)
	require.NoError(t, b.catalog.Declare(t.Context(), b.registry.Definitions(), b.logger))
	_, err := b.catalog.ChangeTaskDefinition(t.Context(), "work", false, func(d *riverbeat.TaskDefinition) error {
		d.MaxConcurrency = 1
		return nil
	})
	require.NoError(t, err)
	b.start()
	first := b.queueUp(t, "work", 0, 1)[0]
	g.await(t, 1)
	second := b.queueUp(t, "work_task", 1, 1)[0]
	b.until(t, second.ID, noSlot)
	g.let <- struct{}{}
	b.until(t, first.ID, in(riverbeat.Succeeded))
	g.let <- struct{}{}
	b.until(t, second.ID, in(riverbeat.Succeeded))
	require.Equal(t, 1, g.most)
}

// Slots are as good as one another: who loses his in a break takes another.
func TestABreakOfTheSessionCostsNoSlotWhileThereIsAnother(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newTurnstile(b)
	b.define(t, "narrow", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxConcurrency = 2 })
	b.start()
	run := b.queueUp(t, "narrow", 0, 1)[0]
	g.await(t, 1)
	slot := riverbeat.AdvisoryKey("riverbeat", "execute", "slot 0 of narrow")
	taken := make(chan error, 1)
	conn, err := b.Pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	go func() { // it stands in line for the lock, and so gets it before anyone else
		_, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock($1)", slot)
		taken <- err
	}()
	require.Eventually(t, func() bool {
		var waiting int
		require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = $1", conn.Conn().PgConn().PID()).Scan(&waiting))
		return waiting == 1
	}, 10*time.Second, 5*time.Millisecond)
	b.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'riverbeat session %'")
	require.NoError(t, <-taken)
	b.said.await(t, "the node has a session with the database again", 1)
	second := b.queueUp(t, "narrow", 1, 1)[0]
	b.until(t, second.ID, noSlot) // both are taken
	g.let <- struct{}{}
	require.Equal(t, 1, b.until(t, run.ID, in(riverbeat.Succeeded)).Execution)
	g.await(t, 1)
	g.let <- struct{}{}
	b.until(t, second.ID, in(riverbeat.Succeeded))
	_, err = conn.Exec(t.Context(), "SELECT pg_advisory_unlock($1)", slot)
	require.NoError(t, err)
}

func TestWhoSnoozesDoesNotWaitForASlot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.register("naps", func(_ context.Context, run *task.Run) (any, error) {
		if run.ScheduleName == "001" {
			return nil, task.Snooze(time.Hour, nil)
		}
		return nil, nil
	})
	b.define(t, "naps", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxConcurrency = 1 })
	b.hold(t, "SELECT pg_advisory_lock($1)", riverbeat.AdvisoryKey("riverbeat", "execute", "slot 0 of naps"))
	b.start()
	runs := b.queueUp(t, "naps", 0, 3)
	for _, run := range runs {
		b.until(t, run.ID, noSlot)
	}
	b.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()`)
	b.until(t, runs[0].ID, in(riverbeat.Succeeded))
	b.until(t, runs[2].ID, in(riverbeat.Succeeded))
	naps := b.until(t, runs[1].ID, func(r *riverbeat.Run) bool { return r.State == riverbeat.Queued })
	require.Equal(t, 1, naps.Execution)
	require.Empty(t, naps.Reason)
	later := b.until(t, b.queueUp(t, "naps", 4, 1)[0].ID, in(riverbeat.Succeeded))
	require.Equal(t, "004", later.ScheduleName, "nobody is before it")
	require.Equal(t, 1, b.until(t, runs[1].ID, func(*riverbeat.Run) bool { return true }).Execution)
}
