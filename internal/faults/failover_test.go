package faults

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/faults/oracle"
	"riverbeat/internal/localpg"
)

// TestFailover kills a primary and promotes its synchronous standby. The nodes,
// which know both, go on by themselves, and nothing is lost, doubled or
// overlapping.
func TestFailover(t *testing.T) {
	t.Parallel()
	binary, err := program()
	require.NoError(t, err)
	l := newLab(t, binary)
	primary := l.server
	standby := l.startStandby()
	for range 3 {
		l.addNode(0, newProxy(t, primary), newProxy(t, standby))
	}
	l.start()
	l.define()
	for _, s := range schedules() {
		l.schedules = append(l.schedules, l.create(s))
	}
	began := time.Now()
	l.watch(5 * time.Second)

	l.failOver(primary, standby)
	promoted := time.Now().Round(0)
	require.Eventually(t, func() bool {
		all := l.executed()
		return len(all) > 0 && all[len(all)-1].Start.After(promoted)
	}, 30*time.Second, 50*time.Millisecond, "nobody goes on")
	t.Logf("the first run starts %s after the standby was promoted", time.Since(promoted).Round(10*time.Millisecond))
	l.watch(5 * time.Second)
	l.finish()

	ev := l.evidence(promoted)
	ev.Began = began
	verdict, err := oracle.Judge(ev)
	require.NoError(t, err)
	if len(verdict.Violations) > 0 {
		t.Error(story(ev, verdict))
	}
	for _, p := range ev.Processes {
		require.Zero(t, p.To, "%s (%d): %s", p.Node, p.PID, p.How)
	}
	after := 0
	for i := range ev.Runs {
		if ev.Runs[i].CreatedAt.After(promoted) {
			after++
		}
	}
	t.Logf("%d ticks, %d runs, %d of them decided by the new primary; %d executions, %d overlaps of stubborn ones excused",
		verdict.Ticks, len(ev.Runs), after, len(ev.Executions), len(verdict.Excused))
	require.Positive(t, after)
}

// startStandby makes a standby of the server, without which nothing commits
// from then on.
func (l *lab) startStandby() *localpg.Server {
	l.t.Helper()
	primary := l.server.DataDir()
	dir, err := os.MkdirTemp("", "riverbeat-pg-")
	require.NoError(l.t, err)
	l.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var bin string
	l.sql(func(conn *pgx.Conn) error {
		return conn.QueryRow(l.t.Context(), "SELECT setting FROM pg_config WHERE name = 'BINDIR'").Scan(&bin)
	})
	backup := exec.CommandContext(l.t.Context(), filepath.Join(bin, "pg_basebackup"), "--pgdata", dir, "--checkpoint=fast", "--no-sync",
		"--dbname", "host="+primary+" port=5432 user=riverbeat")
	out, err := backup.CombinedOutput()
	require.NoError(l.t, err, string(out))
	require.NoError(l.t, os.Remove(filepath.Join(dir, ".s.PGSQL.5432.lock"))) // of the primary's socket
	// Riverbeat's mark of what it has made, and Postgres's of a standby.
	for _, name := range []string{"riverbeat.lock", "standby.signal"} {
		require.NoError(l.t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	if os.Geteuid() == 0 { // then the server runs as another
		info, err := os.Stat(primary)
		require.NoError(l.t, err)
		owner := info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // it is one on Unix
		require.NoError(l.t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, int(owner.Uid), int(owner.Gid))
		}))
	}
	standby := startServer(l.t, localpg.Config{DataDir: dir, Settings: map[string]string{
		"primary_conninfo": fmt.Sprintf("host=%s port=5432 user=riverbeat application_name=standby", primary),
	}})
	l.sql(func(conn *pgx.Conn) error {
		for _, statement := range []string{
			"ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()",
		} {
			if _, err := conn.Exec(l.t.Context(), statement); err != nil {
				return err
			}
		}
		return nil
	})
	require.Eventually(l.t, func() bool {
		var state string
		l.sql(func(conn *pgx.Conn) error {
			return conn.QueryRow(l.t.Context(), "SELECT coalesce(string_agg(sync_state, ' '), '') FROM pg_stat_replication").Scan(&state)
		})
		return strings.Contains(state, "sync") && !strings.Contains(state, "async")
	}, 20*time.Second, 50*time.Millisecond)
	return standby
}

// failOver kills the primary and, as somebody would who has noticed, promotes
// the standby.
func (l *lab) failOver(primary, standby *localpg.Server) {
	l.t.Helper()
	over := l.note(oracle.Fault{Kind: oracle.Database, Detail: "the primary is killed, its standby promoted"})
	defer over()
	require.NoError(l.t, primary.Kill())
	time.Sleep(2 * time.Second)
	l.sqlMu.Lock()
	if l.conn != nil {
		l.drop()
	}
	l.server = standby
	l.sqlMu.Unlock()
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, standby.URL())
	require.NoError(l.t, err)
	defer conn.Close(ctx) //nolint:errcheck // nothing is lost
	var promoted bool
	require.NoError(l.t, conn.QueryRow(ctx, "SELECT pg_promote()").Scan(&promoted))
	require.True(l.t, promoted)
}
