package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a running postmaster and the watchdog beside it.
type process struct {
	cmd      *exec.Cmd
	leash    *os.File      // the watchdog waits for its closing
	expected bool          // its end is asked for; guarded by Server.mu
	exited   chan struct{} // closed when it has ended
	err      error         // how it ended; to be read after exited
}

type processConfig struct {
	deathSignal string   // sent to the server when we die
	stalePID    int      // in the pid file, 0 if there is none
	lock        *os.File // the server and all its processes hold it open
	log         *os.File
	argv        []string
}

// leashScript becomes the server and leaves a watchdog behind: on a line from
// the pipe (3) that one goes home, on its end it sends the signal. The watchdog
// is no child of the server, which would take its death for that of a backend,
// and it does not hold the lock (4). All of this is plain POSIX, where the
// alternative, a parent-death signal, is Linux's and belongs to a thread.
const leashScript = `( { read -r line <&3 || kill -s "$0" $$; } </dev/null >/dev/null 2>&1 4<&- & ); exec "$@" 3<&-`

func startProcess(ctx context.Context, d *dataDir, cfg processConfig) (*process, error) {
	held, leash, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the leash of Postgres: %w", err)
	}
	defer held.Close() //nolint:errcheck // the child has its own
	args := append([]string{"-c", leashScript, cfg.deathSignal}, cfg.argv...)
	p := &process{
		cmd:    d.command(context.WithoutCancel(ctx), "/bin/sh", args...),
		leash:  leash,
		exited: make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = cfg.log, cfg.log
	p.cmd.ExtraFiles = []*os.File{held, cfg.lock}
	if cfg.stalePID != 0 {
		// Our lock says that this pid, if it lives, is another process by now.
		// Postgres would not believe it and give up. The variable is how pg_ctl
		// tells it which pid to disregard; it still makes sure by itself that
		// nobody is attached to the cluster's shared memory.
		p.cmd.Env = append(p.cmd.Env, "PG_GRANDPARENT_PID="+strconv.Itoa(cfg.stalePID))
	}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting Postgres: %w", err), leash.Close())
	}
	go func() {
		p.err = p.cmd.Wait()
		// The watchdog may be gone already; then nobody reads this.
		_, _ = p.leash.WriteString("\n")
		_ = p.leash.Close()
		close(p.exited)
	}()
	return p, nil
}

// signalAndWait returns when the process has ended, or with ctx's error.
func (p *process) signalAndWait(ctx context.Context, sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling Postgres: %w", err)
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		if isClosed(p.exited) {
			return nil
		}
		return context.Cause(ctx)
	}
}

// end sends sig, then SIGKILL if that does not help, and returns when the
// process has ended.
func (p *process) end(sig os.Signal) {
	_ = p.cmd.Process.Signal(sig) // fails if it has ended
	select {
	case <-p.exited:
	case <-time.After(hardStop):
		_ = p.cmd.Process.Kill() // the same
		<-p.exited
	}
}

// command runs a program in the data directory as the server's user. It is in a
// process group of its own, so that a Ctrl-C reaches only us, and knows nothing
// of the PG* variables that are meant for other servers.
func (d *dataDir) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // Postgres's own programs, and sh with a constant
	cmd.Dir = d.path
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: d.owner.credential}
	cmd.Env = slices.DeleteFunc(cmd.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	cmd.WaitDelay = hardStop
	return cmd
}

// owner is the user of a cluster; its zero value is the user we are.
type owner struct {
	name       string
	credential *syscall.Credential
}

func (o owner) String() string { return "the user " + o.name }

// serverUser is the user for a new cluster. Postgres refuses root, so root
// needs another: the one that Postgres's packages make, or else nobody, who
// exists everywhere (initdb refuses a user id that has no name). Another
// service that runs as the same user can read the cluster.
func serverUser() (owner, error) {
	if os.Geteuid() != 0 {
		return owner{}, nil
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return owner{}, fmt.Errorf("ids of the user %s: %w", name, err)
		}
		return owner{name, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return owner{}, errors.New("root may not run Postgres, and there is no user to run it as: make one named postgres, or run Riverbeat as another user")
}

// ownerOf is the user for an existing cluster: for root, whoever owns it.
func ownerOf(path string) (owner, error) {
	if os.Geteuid() != 0 {
		return owner{}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return owner{}, err
	}
	stat := info.Sys().(*syscall.Stat_t) // it is one on Unix
	if stat.Uid == 0 {
		return owner{}, fmt.Errorf("the data directory %s belongs to root, whom Postgres refuses; give it to another user: chown -R postgres '%s'", path, path)
	}
	return owner{strconv.Itoa(int(stat.Uid)), &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}}, nil
}

// take makes a file or directory the owner's.
func (o owner) take(f *os.File) error {
	if o.credential == nil {
		return nil
	}
	return f.Chown(int(o.credential.Uid), int(o.credential.Gid))
}

// takeDir makes a directory the owner's, and nobody else's.
func (o owner) takeDir(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Chmod(0o700), o.take(dir), dir.Close())
}

var errLocked = errors.New("locked by another process")

// tryLock locks an open file until its last copy, in whatever process, closes.
func tryLock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errLocked
		default:
			return err
		}
	}
}

// awaitLock is tryLock that tries for as long as limit and ctx allow.
func awaitLock(ctx context.Context, f *os.File, limit time.Duration) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	timeout := time.After(limit)
	for {
		if err := tryLock(f); !errors.Is(err, errLocked) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timeout:
			return errLocked
		case <-tick.C:
		}
	}
}
