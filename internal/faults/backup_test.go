package faults

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/faults/oracle"
)

// TestRestore dumps the database of nodes that have stopped, and restores it beside the
// original. Nodes on the copy do nothing until they are told that they belong there; then
// they go on where the dump ended, and what was due since is decided once.
func TestRestore(t *testing.T) {
	t.Parallel()
	l := runningLab(t, 2)
	for _, s := range schedules() {
		l.schedules = append(l.schedules, l.create(s))
	}
	began := time.Now()
	l.watch(4 * time.Second)
	over := l.note(oracle.Fault{Kind: oracle.Database, Detail: "dumped and restored, and on hold"})
	for _, n := range l.nodes {
		n.stop()
	}

	var bin string
	l.sql(func(conn *pgx.Conn) error {
		return conn.QueryRow(t.Context(), "SELECT setting FROM pg_config WHERE name = 'BINDIR'").Scan(&bin)
	})
	maintenance := strings.Replace(l.server.URL(), "/riverbeat?", "/postgres?", 1)
	call := func(name string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, name), args...).CombinedOutput()
		require.NoError(t, err, "%s %v: %s", name, args, out)
	}
	dump := filepath.Join(l.dir, "riverbeat.dump")
	call("pg_dump", "--format=custom", "--file", dump, l.server.URL())
	call("createdb", "--maintenance-db", maintenance, "copy")
	call("pg_restore", "--exit-on-error", "--dbname", strings.Replace(l.server.URL(), "/riverbeat?", "/copy?", 1), dump)
	l.sqlMu.Lock()
	l.drop()
	l.sqlMu.Unlock()
	call("psql", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--command", "ALTER DATABASE riverbeat RENAME TO original",
		"--command", "ALTER DATABASE copy RENAME TO riverbeat", maintenance)

	executed, decided := len(l.executed()), l.number("SELECT count(*) FROM runs")
	for _, n := range l.nodes {
		n.start()
	}
	for _, n := range l.nodes {
		require.Eventually(t, func() bool {
			_, err := n.call(http.MethodGet, "/readyz", nil, nil)
			return err != nil && strings.Contains(err.Error(), `"on_hold"`) && strings.Contains(err.Error(), "this database is a copy")
		}, 30*time.Second, 20*time.Millisecond, n.logTail())
	}
	l.watch(4 * time.Second)
	require.Len(t, l.executed(), executed)
	require.Equal(t, decided, l.number("SELECT count(*) FROM runs"))

	resume := func(args ...string) (string, error) {
		args = append([]string{"resume", "--database-url", l.server.URL()}, args...)
		out, err := exec.CommandContext(t.Context(), l.binary, args...).CombinedOutput()
		return string(out), err
	}
	out, err := resume()
	require.Error(t, err, "it only looks")
	require.Contains(t, out, "schedules that are due")
	out, err = resume("--here")
	require.NoError(t, err, out)
	for _, n := range l.nodes {
		n.awaitReady()
	}
	over()
	calm := time.Now().Round(0)
	l.watch(3 * time.Second)
	l.finish()

	ev := l.evidence(calm)
	ev.Began = began
	verdict, err := oracle.Judge(ev)
	require.NoError(t, err)
	if len(verdict.Violations) > 0 {
		t.Error(story(ev, verdict))
	}
	require.Greater(t, len(ev.Executions), executed)
	t.Logf("%d ticks, %d runs, of which %d were dumped; %d executions, of which %d before that", verdict.Ticks, len(ev.Runs), decided, len(ev.Executions), executed)
}
