// Package localpg finds a Postgres server that is installed on this machine and
// runs a private cluster with it: for `riverbeat dev`, and for tests.
//
// The cluster belongs to the process that started it. It listens on a unix
// socket only, it ends when its process ends, however that ends, and what a
// crash leaves behind is put right by the next Start. Other clusters of the
// machine, such as Debian's, are never touched.
//
// # Who may connect
//
// The socket lies in a directory of mode 0700, and who can reach it is trusted:
// the user the server runs as, and root. Root itself may not run Postgres, so
// that its children run as the owner of the data directory, for a new one as
// the user postgres, or else nobody (see serverUser).
//
// # What holds it together
//
// Two locks that the kernel gives back at any kind of death, and a leash.
// riverbeat.lock is held by the process that called Start. PG_VERSION is locked
// through a file that the server and all its backends inherit, so it is free
// exactly when none of them is left, whatever a pid file says. The leash is a
// pipe: when its writing end, which only our process has, is closed by our
// death, a watchdog tells the server to shut down.
package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	superuser = "riverbeat"
	port      = "5432" // names the socket file; nothing listens on a port

	// pollInterval is how often the pid file and the locks are looked at while
	// something is waited for; neither can be waited for as an event.
	pollInterval = 20 * time.Millisecond
	// hardStop is how long an immediate shutdown may take before SIGKILL.
	hardStop = 5 * time.Second
)

// Config says what to run. Its zero value runs the cluster of this user.
type Config struct {
	// DataDir is Postgres's data directory; it is made if missing. Defaults to
	// DefaultDataDir(), or to a new temporary directory if Ephemeral.
	DataDir string
	// Database is made if it is missing. Defaults to "riverbeat".
	Database string
	// Ephemeral is for tests: nothing is synced to disk, and Stop removes a
	// DataDir that Start has made.
	Ephemeral bool
	// Settings are further settings of postgresql.conf. They win over ours.
	Settings map[string]string
	// Logger is told of starts and stops. Defaults to none.
	Logger *slog.Logger

	// search replaces the directories in which binaries are looked for.
	search []string
}

// DefaultDataDir is /var/lib/riverbeat for root, else riverbeat in the user's
// XDG data home ($XDG_DATA_HOME, ~/.local/share).
func DefaultDataDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/riverbeat", nil
	}
	//nolint:forbidigo // a standard of the desktop, like HOME, and no setting of Riverbeat
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "riverbeat"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no default data directory: %w", err)
	}
	return filepath.Join(home, ".local", "share", "riverbeat"), nil
}

// Server is a running Postgres. Its methods may be called by several goroutines
// at once.
type Server struct {
	cfg    Config
	bin    install
	dir    *dataDir
	socket string // directory of the socket
	log    *slog.Logger

	op      sync.Mutex // held by Restart, Kill and Stop, one at a time
	proc    *process
	stopped bool

	mu   sync.Mutex // guards the rest, and proc.expected
	done chan struct{}
	err  error
}

// Start runs Postgres and returns when it takes connections and the database
// exists. It makes the cluster if there is none. ctx bounds the start only.
//
// Leftovers are no hindrance: the pid file of a dead server, even if its pid
// belongs to another process by now; a cluster whose making was interrupted. A
// server that outlived its riverbeat is shut down and a new one started, not
// adopted: only of a child do we hear that it ended, and only our own has our
// settings, log and leash. What it had committed is there.
//
// A data directory is refused if a live riverbeat uses it, if Riverbeat did not
// make it, or if it was made by a major version that is not installed here.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	s := &Server{
		cfg:  cfg,
		log:  cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		done: make(chan struct{}),
	}
	s.cfg.Database = cmp.Or(cfg.Database, "riverbeat")
	path := cfg.DataDir
	if path == "" && !cfg.Ephemeral {
		if path, err = DefaultDataDir(); err != nil {
			return nil, err
		}
	}

	installs := find(ctx, cfg.search)
	// Refuse before anything is written to a directory that is not ours.
	if path != "" {
		if path, err = filepath.Abs(path); err != nil {
			return nil, fmt.Errorf("data directory %q: %w", path, err)
		}
		if err := inspect(path, installs); err != nil {
			return nil, err
		}
	} else if _, err := installs.newest(); err != nil {
		return nil, err
	}
	if cfg.Ephemeral {
		sweep()
	}
	if s.dir, err = openDataDir(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if s.bin, err = s.dir.prepare(ctx, installs, cfg.Ephemeral); err != nil {
		return nil, err
	}
	s.socket = socketDir(s.dir.path)
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	if err := s.createDatabase(ctx); err != nil {
		s.proc.end(syscall.SIGQUIT)
		return nil, err
	}
	return s, nil
}

// URL is the address of the database, in a form that psql and pgx both take.
func (s *Server) URL() string { return s.url(s.cfg.Database) }

// DataDir is where the cluster and its log, postgres.log, lie.
func (s *Server) DataDir() string { return s.dir.path }

func (s *Server) url(database string) string {
	// libpq does not read + as a space. The port is said because PGPORT might
	// say another.
	escape := strings.NewReplacer("+", "%20", "%2F", "/")
	return fmt.Sprintf("postgres://%s@/%s?host=%s&port=%s", superuser,
		url.PathEscape(database), escape.Replace(url.QueryEscape(s.socket)), port)
}

// Done is closed when the server has ended: by itself, by Kill, by Stop, or
// because Restart failed. A Restart that succeeds goes unnoticed; one that
// revives an ended server begins a new Done.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// Err says why the server ended; nil while it runs, and after Stop.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Restart shuts the server down, closing its connections, and starts it again
// on the same socket. It also starts one that has ended, unless by Stop.
func (s *Server) Restart(ctx context.Context) error {
	s.op.Lock()
	defer s.op.Unlock()
	if s.stopped {
		return errors.New("postgres has been stopped for good")
	}
	s.mu.Lock()
	s.proc.expected = true
	if isClosed(s.done) {
		s.done, s.err = make(chan struct{}), nil
	}
	s.mu.Unlock()
	err := s.proc.signalAndWait(ctx, syscall.SIGINT)
	if err != nil {
		s.proc.end(syscall.SIGQUIT)
		err = fmt.Errorf("stopping Postgres to restart it: %w", err)
	} else {
		err = s.launch(ctx)
	}
	if err != nil {
		s.mu.Lock()
		s.ended(err)
		s.mu.Unlock()
	}
	return err
}

// Kill ends the server as a crash would, by SIGKILL, and returns when it is
// dead. Its backends may take a moment longer. Restart revives it.
func (s *Server) Kill() error {
	s.op.Lock()
	defer s.op.Unlock()
	if s.stopped {
		return errors.New("postgres has been stopped for good")
	}
	s.proc.end(syscall.SIGKILL)
	s.report(s.proc)
	return nil
}

// Stop shuts the server down, closing its connections, and gives the data
// directory back. When ctx ends before that, the server is stopped the hard
// way; nothing committed is lost by that, and an error tells of it. A second
// Stop does nothing.
func (s *Server) Stop(ctx context.Context) error {
	s.op.Lock()
	defer s.op.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	s.mu.Lock()
	s.proc.expected = true
	s.mu.Unlock()
	err := s.proc.signalAndWait(ctx, syscall.SIGINT)
	if err != nil {
		s.proc.end(syscall.SIGQUIT)
		err = fmt.Errorf("stopping Postgres in time: %w", err)
	}
	s.mu.Lock()
	s.ended(nil)
	s.mu.Unlock()
	s.log.Info("Postgres stopped", "data_dir", s.dir.path)
	return errors.Join(err, s.release())
}

// report makes the end of p known, unless it is expected.
func (s *Server) report(p *process) {
	<-p.exited
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.expected {
		s.ended(fmt.Errorf("postgres ended unexpectedly: %w", cmp.Or(p.err, errors.New("somebody shut it down"))))
	}
}

// ended makes err known, unless an earlier end is. It is called under mu.
func (s *Server) ended(err error) {
	if !isClosed(s.done) {
		s.err = err
		close(s.done)
	}
}

// release gives back what Start took.
func (s *Server) release() error {
	var err error
	if s.socket != "" && s.socket != s.dir.path {
		err = os.RemoveAll(s.socket)
	}
	return errors.Join(err, s.dir.close(s.cfg.Ephemeral && s.dir.made))
}

// launch starts the server and returns when it takes connections.
func (s *Server) launch(ctx context.Context) error {
	lock, err := s.dir.awaitQuiet(ctx, s.bin)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // only read from
	if err := s.dir.clearSocket(s.socket); err != nil {
		return err
	}
	log, err := s.dir.openLog()
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the server writes it, not we
	start, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("log of Postgres: %w", err)
	}

	deathSignal := "INT"
	if s.cfg.Ephemeral {
		deathSignal = "QUIT"
	}
	stale, _ := s.dir.pidFile()
	p, err := startProcess(ctx, s.dir, processConfig{
		deathSignal: deathSignal, stalePID: stale, lock: lock, log: log,
		argv: append([]string{s.bin.path("postgres"), "-D", s.dir.path}, s.settings()...),
	})
	if err != nil {
		return err
	}
	if err := s.awaitReady(ctx, p); err != nil {
		p.end(syscall.SIGQUIT)
		return fmt.Errorf("starting Postgres %s in %s: %w\n%s", s.bin.version, s.dir.path, err, s.dir.logTail(start))
	}
	s.proc = p
	s.log.Info("Postgres started", "version", s.bin.version, "data_dir", s.dir.path, "pid", p.cmd.Process.Pid)
	go s.report(p)
	return nil
}

func (s *Server) awaitReady(ctx context.Context, p *process) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if pid, ready := s.dir.pidFile(); ready && pid == p.cmd.Process.Pid {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("it ended at once: %w", cmp.Or(p.err, errors.New("without an error")))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// settings are the server's arguments; of two that set the same, the later wins.
func (s *Server) settings() []string {
	args := []string{
		"listen_addresses=",
		"port=" + port,
		// A list, hence the quotes.
		`unix_socket_directories="` + strings.ReplaceAll(s.socket, `"`, `""`) + `"`,
		"unix_socket_permissions=0700",
		"cluster_name=riverbeat",
		"max_connections=200",
		"shared_buffers=128MB",
	}
	if s.cfg.Ephemeral {
		args = append(args, "fsync=off", "full_page_writes=off", "synchronous_commit=off")
	}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Settings)) {
		args = append(args, name+"="+s.cfg.Settings[name])
	}
	var flags []string
	for _, arg := range args {
		flags = append(flags, "-c", arg)
	}
	return flags
}

func (s *Server) createDatabase(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to the new server: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`,
		s.cfg.Database).Scan(&exists); err != nil {
		return fmt.Errorf("looking for database %q: %w", s.cfg.Database, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{s.cfg.Database}.Sanitize()); err != nil {
		return fmt.Errorf("making database %q: %w", s.cfg.Database, err)
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
