package worker_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/history"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/worker"
	"riverbeat/task"
)

// elsewhere makes the installation look as if its database were a copy.
var elsewhere = map[string]string{
	"another environment": "UPDATE installation SET environment = 'production'",
	"another cluster":     "UPDATE installation SET system_identifier = system_identifier + 1",
	"another database":    "UPDATE installation SET database_oid = database_oid + 1",
}

func (b *bundle) moveHere(t *testing.T) {
	t.Helper()
	require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error { return tx.MoveHere(t.Context()) }))
}

func TestANodeOnACopyDoesNothingUntilItMay(t *testing.T) {
	t.Parallel()
	for what, sql := range elsewhere {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.schedule(t, func(s *riverbeat.Schedule) { s.CronExpression = "@every 1s" })
			queued := b.runNow(t, s)
			b.exec(t, sql)
			b.start()
			_, err := b.history.RunNow(t.Context(), s.ID, history.Overrides{})
			require.True(t, postgres.IsOnHold(err), "%v", err)
			// Enough for a dozen claims and fetches.
			require.Never(t, func() bool {
				var done int
				require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM runs WHERE execution > 0 OR trigger <> 'manual'").Scan(&done))
				return done > 0
			}, 2*time.Second, 20*time.Millisecond)
			b.moveHere(t)
			b.until(t, queued.ID, in(riverbeat.Succeeded))
		})
	}
}

// The database behind the address becomes a copy while the node works.
func TestAWorkingNodeGoesOnHoldAndComesBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := newGate(b)
	b.start()
	s := b.schedule(t, gated(riverbeat.Queue))
	run := b.runNow(t, s)
	b.until(t, run.ID, in(riverbeat.Running))
	b.exec(t, elsewhere["another cluster"])
	require.ErrorContains(t, <-g.stopped, "another one may have this run")
	b.until(t, run.ID, in(riverbeat.Queued))
	require.Eventually(t, func() bool {
		var nodes int
		require.NoError(t, b.Pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'riverbeat session %'`).Scan(&nodes))
		return nodes == 0
	}, 10*time.Second, 10*time.Millisecond)
	close(g.open)
	b.moveHere(t)
	require.Equal(t, 1, b.until(t, run.ID, in(riverbeat.Succeeded)).Attempt)
	b.until(t, b.runNow(t, s).ID, in(riverbeat.Succeeded))
}

// River's client starts only when it has stopped, and an attempt that does not
// obey keeps it from that.
func TestANodeComesBackWhenAnAttemptThatDoesNotObeyHasEnded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	open, begun := make(chan struct{}), make(chan struct{}, 10)
	b.register("stubborn", func(context.Context, *task.Run) (any, error) {
		begun <- struct{}{}
		<-open
		return nil, nil
	})
	b.start(func(c *worker.Config) { c.Grace = 0 })
	let := sync.OnceFunc(func() { close(open) })
	t.Cleanup(let) // before the node is stopped
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "stubborn" })
	b.runNow(t, s)
	<-begun
	b.exec(t, elsewhere["another cluster"])
	b.said.await(t, "River did not stop in time", 1)
	b.moveHere(t)
	b.said.await(t, "does not obey", 1)
	let()
	b.until(t, b.runNow(t, s).ID, in(riverbeat.Succeeded))
}
