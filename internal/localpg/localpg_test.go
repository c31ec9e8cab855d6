package localpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// parentArg, with a data directory after it, makes the test binary a process
// that runs a server there and waits to be killed.
const parentArg = "run-a-server-in"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == parentArg {
		if err := parent(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func parent(dir string) error {
	ctx := context.Background()
	s, err := Start(ctx, Config{DataDir: dir, Ephemeral: dir == ""})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, s.URL(), s.proc.cmd.Process.Pid)
	<-s.Done()
	return s.Err()
}

// newDir is a path for a data directory. t.TempDir is closed to the user as
// whom root runs the server.
func newDir(t *testing.T, elem ...string) string {
	t.Helper()
	base, err := os.MkdirTemp("", "localpg-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(base, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(base)) })
	return filepath.Join(append([]string{base}, elem...)...)
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
}

func query(t *testing.T, databaseURL, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	var result string
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&result))
	return result
}

// commit writes what requireCommitted later looks for.
func commit(t *testing.T, databaseURL string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	_, err = conn.Exec(t.Context(), "CREATE TABLE kept AS SELECT 'yes' AS it")
	require.NoError(t, err)
}

func requireCommitted(t *testing.T, databaseURL string) {
	t.Helper()
	require.Equal(t, "yes", query(t, databaseURL, "SELECT it FROM kept"))
}

// viaPsql runs the query with psql, whose PG* variables lead astray.
func viaPsql(t *testing.T, s *Server, sql string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.bin.path("psql"), s.URL(), "-XAtc", sql)
	cmd.Env = append(cmd.Environ(), "PGPORT=1", "PGHOST=nowhere.invalid", "PGUSER=nobody", "PGDATABASE=none")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return strings.TrimSpace(string(out))
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) },
		20*time.Second, pollInterval, "process %d lives", pid)
}

func TestStart(t *testing.T) {
	t.Parallel()
	for name, elem := range map[string][]string{
		"Fresh":         {"data"},
		"OddCharacters": {"a b+c&d=e", `f%20"g'`, "später"},
		"Comma":         {"one, two"},
		"Long":          {strings.Repeat("long/", 40), "data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{
				DataDir: newDir(t, elem...), Database: "one two", Ephemeral: true,
				Settings: map[string]string{"work_mem": "5MB"},
			})
			require.Equal(t, "one two", query(t, s.URL(), "SELECT current_database()"))
			require.Equal(t, "one two", viaPsql(t, s, "SELECT current_database()"))
			require.Equal(t, "5MB", viaPsql(t, s, "SHOW work_mem"))
			require.Equal(t, "UTF8", viaPsql(t, s, "SHOW server_encoding"))
			require.Empty(t, viaPsql(t, s, "SHOW listen_addresses"))

			info, err := os.Stat(s.socket)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
			u, err := url.Parse(s.URL())
			require.NoError(t, err)
			require.FileExists(t, filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432.lock"))
			require.Equal(t, name == "Long" || name == "Comma", s.socket != s.dir.path)

			stop(t, s)
			require.NoDirExists(t, s.dir.path)
			require.NoDirExists(t, s.socket)
		})
	}
}

func TestStartTwiceInARow(t *testing.T) {
	t.Parallel()
	dir := newDir(t, "data")
	s := start(t, Config{DataDir: dir})
	commit(t, s.URL())
	pid := s.proc.cmd.Process.Pid

	stop(t, s)
	<-s.Done()
	require.NoError(t, s.Err())
	requireGone(t, pid)
	require.NoFileExists(t, filepath.Join(dir, "postmaster.pid"))
	require.NoFileExists(t, filepath.Join(dir, ".s.PGSQL.5432"))
	require.Error(t, s.Restart(t.Context()))
	require.Error(t, s.Kill())

	again := start(t, Config{DataDir: dir})
	require.Equal(t, s.URL(), again.URL())
	requireCommitted(t, again.URL())
}

func TestRestart(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Ephemeral: true})
	before, done := s.URL(), s.Done()
	commit(t, s.URL())
	idle, err := pgx.Connect(t.Context(), s.URL())
	require.NoError(t, err)

	require.NoError(t, s.Restart(t.Context()))
	require.Error(t, idle.Ping(t.Context()), "a connection outlived the server")
	require.Equal(t, before, s.URL())
	requireCommitted(t, s.URL())
	require.False(t, isClosed(done), "a restart was taken for an end")

	require.NoError(t, s.Kill())
	<-done
	require.ErrorContains(t, s.Err(), "killed")

	require.NoError(t, s.Restart(t.Context()))
	require.NoError(t, s.Err())
	require.False(t, isClosed(s.Done()))
	requireCommitted(t, s.URL())
}

// A transaction that a client left open must not hold up Stop.
func TestStopWithOpenTransaction(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Ephemeral: true})
	conn, err := pgx.Connect(t.Context(), s.URL())
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "BEGIN; CREATE TABLE open ()")
	require.NoError(t, err)
	stop(t, s)
	require.Error(t, conn.Ping(t.Context()))
}

func TestStopIsHardWhenOutOfTime(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Ephemeral: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Stop(ctx), context.Canceled)
	requireGone(t, s.proc.cmd.Process.Pid)
	require.NoDirExists(t, s.dir.path)
}

// The pid in the leftover pid file belongs to another process of the same user,
// which Postgres by itself takes for a live server.
func TestStalePIDFile(t *testing.T) {
	t.Parallel()
	dir := newDir(t, "data")
	s := start(t, Config{DataDir: dir})
	commit(t, s.URL())
	require.NoError(t, s.Kill())
	stop(t, s)

	bystander := s.dir.command(t.Context(), "sleep", "600")
	require.NoError(t, bystander.Start())
	defer func() {
		require.NoError(t, bystander.Process.Kill(), "the bystander was killed")
		require.Error(t, bystander.Wait())
	}()
	for _, name := range []string{"postmaster.pid", ".s.PGSQL.5432.lock"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(text), "\n")
		require.NoError(t, os.WriteFile(path, []byte(strconv.Itoa(bystander.Process.Pid)+"\n"+rest), 0o600))
	}

	again := start(t, Config{DataDir: dir})
	requireCommitted(t, again.URL())
	require.NoError(t, syscall.Kill(bystander.Process.Pid, 0))
}

// startParent starts a server from another process.
func startParent(t *testing.T, dir string) (p *exec.Cmd, databaseURL string, postmaster int) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	p = exec.CommandContext(t.Context(), self, parentArg, dir)
	p.Stderr = t.Output()
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "the parent did not start its server")
	_, err = fmt.Sscan(lines.Text(), &databaseURL, &postmaster)
	require.NoError(t, err)
	return p, databaseURL, postmaster
}

func kill(t *testing.T, p *exec.Cmd) {
	t.Helper()
	require.NoError(t, p.Process.Kill())
	require.ErrorContains(t, p.Wait(), "killed")
}

func TestParentKilled(t *testing.T) {
	t.Parallel()
	dir := newDir(t, "data")
	p, databaseURL, postmaster := startParent(t, dir)
	commit(t, databaseURL)

	_, err := Start(t.Context(), Config{DataDir: dir})
	require.ErrorContains(t, err, "in use by another riverbeat (process "+strconv.Itoa(p.Process.Pid)+")")
	requireCommitted(t, databaseURL)

	kill(t, p)
	// At once: the server may be up, or going down.
	s := start(t, Config{DataDir: dir})
	requireGone(t, postmaster)
	requireCommitted(t, s.URL())
}

// Here the server does not notice that its parent is gone.
func TestOrphanIsReplaced(t *testing.T) {
	t.Parallel()
	dir := newDir(t, "data")
	p, databaseURL, postmaster := startParent(t, dir)
	commit(t, databaseURL)
	out, err := exec.CommandContext(t.Context(), "pgrep", "-g", strconv.Itoa(postmaster)).Output()
	if err != nil {
		t.Skip("no pgrep to find the watchdog with")
	}
	for _, pid := range strings.Fields(string(out)) {
		if pid != strconv.Itoa(postmaster) {
			watchdog, err := strconv.Atoi(pid)
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(watchdog, syscall.SIGKILL))
			requireGone(t, watchdog)
		}
	}
	kill(t, p)
	requireCommitted(t, databaseURL)

	s := start(t, Config{DataDir: dir})
	requireGone(t, postmaster)
	requireCommitted(t, s.URL())
}

func TestKilledTestLeavesNothing(t *testing.T) {
	t.Parallel()
	p, databaseURL, postmaster := startParent(t, "")
	u, err := url.Parse(databaseURL)
	require.NoError(t, err)
	dir := u.Query().Get("host")
	kill(t, p)
	requireGone(t, postmaster)

	// The next ephemeral server clears away what is not so young any more.
	sweep()
	require.DirExists(t, dir)
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{lockFile, versionFile} {
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), old, old))
	}
	require.Eventually(t, func() bool {
		sweep()
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	}, 10*time.Second, pollInterval)
}

// The process is killed while initdb is at work, which then goes on without it.
func TestParentKilledDuringCreation(t *testing.T) {
	t.Parallel()
	dir := newDir(t, "data")
	self, err := os.Executable()
	require.NoError(t, err)
	p := exec.CommandContext(t.Context(), self, parentArg, dir)
	require.NoError(t, p.Start())
	require.Eventually(t, func() bool {
		conf, err := filepath.Glob(filepath.Join(dir, partial+"*", "postgresql.conf"))
		return err == nil && len(conf) == 1
	}, 20*time.Second, time.Millisecond)
	kill(t, p)

	s := start(t, Config{DataDir: dir})
	commit(t, s.URL())
	requireCommitted(t, s.URL())
	leftover, err := filepath.Glob(filepath.Join(dir, partial+"*"))
	require.NoError(t, err)
	require.Empty(t, leftover)
}

// It is killed while the new cluster is moved to its place.
func TestInterruptedMove(t *testing.T) {
	t.Parallel()
	dir := newDir(t, "data")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, partial+"X", "base"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "global"), 0o700))
	s := start(t, Config{DataDir: dir})
	commit(t, s.URL())
	requireCommitted(t, s.URL())
	require.NoDirExists(t, filepath.Join(dir, partial+"X"))
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	ours := strconv.Itoa(find(t.Context(), nil)[0].major)
	for _, test := range []struct {
		name       string
		file, text string // in the data directory beforehand
		cfg        Config
		want       []string
	}{
		{
			"NotInstalled", "", "",
			Config{search: []string{"/nonexistent"}},
			[]string{"no Postgres server is installed here; install one: ", "DATABASE_URL"},
		},
		{
			"OldMajor", versionFile, "13\n",
			Config{},
			[]string{"was made by Postgres 13", "needs 15 or newer", "pg_upgrade", "mv '"},
		},
		{
			"MissingMajor", versionFile, "99\n",
			Config{},
			[]string{"was made by Postgres 99, which is not installed here (found: ", "install it: ", "pg_upgrade", "mv '"},
		},
		{
			"UnreadableMajor", versionFile, "?",
			Config{},
			[]string{"cannot be read"},
		},
		{
			"SomebodysCluster", versionFile, ours,
			Config{},
			[]string{"Riverbeat did not make", "--data-dir"},
		},
		{
			"SomebodysFiles", "thesis.tex", "",
			Config{},
			[]string{"neither empty nor a Postgres cluster (it has thesis.tex)", "--data-dir"},
		},
		{
			"WrongSetting", "", "",
			Config{Settings: map[string]string{"work_mem": "much"}, Ephemeral: true},
			[]string{"starting Postgres", `invalid value for parameter "work_mem": "much"`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.cfg.DataDir = newDir(t, "data")
			if test.file != "" {
				require.NoError(t, os.Mkdir(test.cfg.DataDir, 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(test.cfg.DataDir, test.file), []byte(test.text), 0o600))
			}
			_, err := Start(t.Context(), test.cfg)
			require.Error(t, err)
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

func TestUnusableDataDir(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, err := Start(t.Context(), Config{DataDir: filepath.Join(dir, "file", "data")})
	require.ErrorContains(t, err, "not a directory (choose another with --data-dir)")

	closed := filepath.Join(dir, "closed")
	if os.Geteuid() == 0 {
		// Everything is open for root, but not for the server's user.
		require.NoError(t, os.Mkdir(closed, 0o700))
		_, err = Start(t.Context(), Config{DataDir: filepath.Join(closed, "data")})
		require.ErrorContains(t, err, "cannot be reached by the user ")
	} else {
		require.NoError(t, os.Mkdir(closed, 0o500))
		_, err = Start(t.Context(), Config{DataDir: closed})
		require.ErrorContains(t, err, "permission denied (choose another with --data-dir)")
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	dir := newDir(t, "data")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := Start(ctx, Config{DataDir: dir})
	require.Error(t, err)
	start(t, Config{DataDir: dir}) // and nothing is in the way of the next
}

func TestDefaultDataDir(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	if os.Geteuid() == 0 {
		dir, err := DefaultDataDir()
		require.NoError(t, err)
		require.Equal(t, "/var/lib/riverbeat", dir)
		return
	}
	for _, test := range []struct{ xdg, want string }{
		{"/xdg", "/xdg/riverbeat"},
		{"", "/home/me/.local/share/riverbeat"},
		{"relative", "/home/me/.local/share/riverbeat"},
	} {
		t.Setenv("XDG_DATA_HOME", test.xdg)
		dir, err := DefaultDataDir()
		require.NoError(t, err)
		require.Equal(t, test.want, dir)
	}
}
