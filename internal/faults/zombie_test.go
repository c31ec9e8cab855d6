package faults

import (
	"bytes"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/faults/oracle"
)

// TestZombie freezes a worker for more than twice the life of its session. It
// finds its result refused, and that of its successor stands.
func TestZombie(t *testing.T) {
	t.Parallel()
	l := runningLab(t, 2)
	// 8 s: over while the zombie is frozen, and not yet so where it went on when
	// the zombie wakes. It does not look at its context then, which has ended.
	id := l.create(spec{Name: "work", Cron: "0 0 0 * * *", Policy: "queue", Params: map[string]any{"seconds": 8, "stubborn": true}})
	var run struct {
		ID string `json:"id"`
	}
	l.must(http.MethodPost, "/api/v1/schedules/"+id+"/run", map[string]any{}, &run)

	var first oracle.Execution
	require.Eventually(t, func() bool {
		all := l.executed()
		if len(all) > 0 {
			first = all[0]
		}
		return len(all) > 0
	}, 30*time.Second, 20*time.Millisecond)
	for _, n := range l.nodes {
		if n.name == first.Node {
			n.freeze(11 * time.Second)
		}
	}
	calm := time.Now().Round(0)
	require.Eventually(t, func() bool {
		all := l.executed()
		return len(all) == 2 && !all[0].End.IsZero() && !all[1].End.IsZero()
	}, 30*time.Second, 50*time.Millisecond)
	l.finish()
	ev := l.evidence(calm)
	verdict, err := oracle.Judge(ev)
	require.NoError(t, err)
	t.Logf("the run as it went:\n%s", ev.Timeline(oracle.Violation{RunID: run.ID, ScheduleID: id, At: calm}))

	require.Empty(t, verdict.Violations)
	require.Len(t, verdict.Excused, 1, "they ran beside each other, since one of them was frozen")
	require.Len(t, ev.Executions, 2)
	zombie, successor := ev.Executions[0], ev.Executions[1]
	require.NotEqual(t, zombie.Node, successor.Node)
	require.Equal(t, oracle.Done, zombie.Outcome, "it believes that it has done it")
	require.True(t, zombie.End.Before(successor.End), "and says so while its successor is at work")
	require.Len(t, ev.Runs, 1)
	require.Equal(t, "succeeded", ev.Runs[0].State)
	require.Equal(t, successor.Number, ev.Runs[0].Accepted)
	var result struct {
		PID int `json:"pid"`
	}
	l.sql(func(conn *pgx.Conn) error {
		return conn.QueryRow(t.Context(), "SELECT result FROM runs WHERE id::text = $1", run.ID).Scan(&result)
	})
	require.Equal(t, successor.PID, result.PID)
	t.Logf("the result that stands is that of execution %d on %s; what execution %d on %s had to say was refused",
		successor.Number, successor.Node, zombie.Number, zombie.Node)
}

// executed is the log of executions as it is now.
func (l *lab) executed() []oracle.Execution {
	l.t.Helper()
	log, err := os.ReadFile(l.executions())
	require.NoError(l.t, err)
	log = log[:bytes.LastIndexByte(log, '\n')+1]
	var ev oracle.Evidence
	require.NoError(l.t, ev.ReadExecutions(log, l.epoch))
	return ev.Executions
}
