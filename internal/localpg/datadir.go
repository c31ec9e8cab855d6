package localpg

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	versionFile = "PG_VERSION" // Postgres's; its lock is the server's
	lockFile    = "riverbeat.lock"
	logFile     = "postgres.log"
	partial     = "initdb.partial-" // begins the name of a cluster in the making
	tempPrefix  = "riverbeat-pg-"   // of the directories of ephemeral clusters

	// maxSocketPath is the shortest limit there is on the path of a socket
	// (macOS; Linux has 107).
	maxSocketPath = 103
	maxLog        = 16 << 20 // a longer log is put aside at the next start
)

// dataDir is a data directory that this process alone may use.
//
// If we are root it belongs to a lesser user, who must not lead us out of it by
// a symbolic link: hence os.Root.
type dataDir struct {
	path  string
	root  *os.Root
	lock  *os.File
	made  bool  // it was not there before
	owner owner // as whom the server runs
}

// inspect refuses what Start must not even take the lock of.
func inspect(path string, all installs) error {
	major, err := clusterVersion(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		_, err := all.newest()
		return err
	}
	if err != nil {
		return fmt.Errorf("reading the data directory: %w (choose another with --data-dir)", err)
	}
	if _, err := all.forCluster(path, major); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(path, lockFile)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the data directory %s holds a Postgres cluster that Riverbeat did not make; choose another with --data-dir, or let its own server run and set DATABASE_URL", path)
	}
	return nil
}

func clusterVersion(path string) (int, error) {
	text, err := os.ReadFile(filepath.Join(path, versionFile)) //nolint:gosec // the operator's own directory
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("the data directory %s has a %s that cannot be read: %q", path, versionFile, text)
	}
	return major, nil
}

// openDataDir makes the directory if it is missing ("" is a new temporary one)
// and locks it for this process.
func openDataDir(path string) (_ *dataDir, err error) {
	d := &dataDir{path: path}
	if path == "" {
		d.made = true
		if d.path, err = os.MkdirTemp("", tempPrefix); err != nil {
			return nil, err
		}
	} else if d.made, err = makeDir(path); err != nil {
		return nil, fmt.Errorf("making the data directory: %w (choose another with --data-dir)", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close(path == ""))
		}
	}()
	if d.root, err = os.OpenRoot(d.path); err != nil {
		return nil, fmt.Errorf("opening the data directory: %w (choose another with --data-dir)", err)
	}
	d.lock, err = d.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("writing to the data directory %s: %w (choose another with --data-dir)", d.path, err)
	}
	if err := tryLock(d.lock); errors.Is(err, errLocked) {
		pid, _ := io.ReadAll(io.LimitReader(d.lock, 20))
		return nil, fmt.Errorf("the data directory %s is in use by another riverbeat (process %s); stop that one, or choose another directory with --data-dir",
			d.path, cmp.Or(strings.TrimSpace(string(pid)), "unknown"))
	} else if err != nil {
		return nil, fmt.Errorf("locking the data directory %s: %w", d.path, err)
	}
	pid := fmt.Appendln(nil, os.Getpid())
	_, err = d.lock.WriteAt(pid, 0)
	if err := errors.Join(err, d.lock.Truncate(int64(len(pid)))); err != nil {
		return nil, fmt.Errorf("writing to the data directory %s: %w", d.path, err)
	}
	return d, nil
}

// makeDir reports whether the directory had to be made.
func makeDir(path string) (bool, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // root's server user must pass
		return false, err
	}
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// close gives the directory back, or removes it.
func (d *dataDir) close(remove bool) error {
	var errs []error
	if remove {
		errs = append(errs, os.RemoveAll(d.path)) // still under the lock
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	if d.root != nil {
		errs = append(errs, d.root.Close())
	}
	return errors.Join(errs...)
}

// prepare makes the cluster if there is none, and tells which installation and
// user are to run it.
func (d *dataDir) prepare(ctx context.Context, all installs, ephemeral bool) (install, error) {
	major, err := clusterVersion(d.path)
	if err == nil {
		bin, err := all.forCluster(d.path, major)
		if err != nil {
			return bin, err
		}
		if d.owner, err = ownerOf(d.path); err != nil {
			return bin, err
		}
		return bin, d.checkReach(ctx)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return install{}, err
	}
	bin, err := all.newest()
	if err != nil {
		return bin, err
	}
	if err := d.clearPartial(); err != nil {
		return bin, err
	}
	if d.owner, err = serverUser(); err != nil {
		return bin, err
	}
	if err := errors.Join(d.owner.take(d.lock), d.owner.takeDir(d.root)); err != nil {
		return bin, fmt.Errorf("preparing the data directory: %w", err)
	}
	if err := d.checkReach(ctx); err != nil {
		return bin, err
	}
	return bin, d.create(ctx, bin, ephemeral)
}

// checkReach finds out whether the server's user can get to the directory.
func (d *dataDir) checkReach(ctx context.Context) error {
	err := d.command(ctx, "/bin/sh", "-c", ":").Run()
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the data directory %s cannot be reached by %s, as whom the server runs, since a directory above it is closed; choose another with --data-dir, or open that one with chmod o+x",
			d.path, d.owner)
	}
	return err
}

// clearPartial removes what an interrupted create has left, and refuses a
// directory with anything else in it.
func (d *dataDir) clearPartial() error {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("reading the data directory %s: %w", d.path, err)
	}
	isMark := func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), partial) }
	interrupted := slices.ContainsFunc(entries, isMark)
	var marks []string
	for _, entry := range entries {
		switch {
		case entry.Name() == lockFile, entry.Name() == "lost+found":
		case isMark(entry):
			marks = append(marks, entry.Name())
		case !interrupted:
			return fmt.Errorf("the data directory %s is neither empty nor a Postgres cluster (it has %s); choose another with --data-dir", d.path, entry.Name())
		default:
			if err := d.removeAll(entry.Name()); err != nil {
				return err
			}
		}
	}
	for _, mark := range marks { // last, in case that we are interrupted too
		if err := d.removeAll(mark); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes what a killed riverbeat left, against an initdb of its that
// may still be writing there: without its files that ends by itself, soon.
func (d *dataDir) removeAll(name string) error {
	timeout := time.After(hardStop)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := d.root.RemoveAll(name)
		if !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
		select {
		case <-timeout:
			return err
		case <-tick.C:
		}
	}
}

// create makes the cluster in a directory of its own and moves it up, the
// version last: a directory with a version is complete, and one with a partial
// cluster but no version may be cleared. The name is new each time, because the
// initdb of a killed process may still be at work.
func (d *dataDir) create(ctx context.Context, bin install, ephemeral bool) error {
	dir := partial + rand.Text()
	locale := "C.UTF-8" // code points sort, all letters have cases
	if runtime.GOOS != "linux" {
		locale = "C"
	}
	args := []string{
		"-D", filepath.Join(d.path, dir), "-U", superuser, "-E", "UTF8", "--locale=" + locale,
		"--auth-local=trust", "--auth-host=reject", "--no-instructions",
	}
	if ephemeral {
		args = append(args, "--no-sync")
	}
	if out, err := d.command(ctx, bin.path("initdb"), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("making a Postgres cluster in %s: %w\n%s", d.path, err, out)
	}
	entries, err := fs.ReadDir(d.root.FS(), dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != versionFile {
			if err := d.root.Rename(filepath.Join(dir, entry.Name()), entry.Name()); err != nil {
				return err
			}
		}
	}
	if err := d.sync(); err != nil {
		return err
	}
	if err := d.root.Rename(filepath.Join(dir, versionFile), versionFile); err != nil {
		return err
	}
	return errors.Join(d.root.Remove(dir), d.sync())
}

func (d *dataDir) sync() error {
	dir, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// awaitQuiet returns the server's lock, for the server to inherit, when no
// process of an earlier server is left. An orphan is first given the time to
// follow its leash, then told to stop.
func (d *dataDir) awaitQuiet(ctx context.Context, bin install) (*os.File, error) {
	lock, err := d.root.OpenFile(versionFile, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s of %s: %w", versionFile, d.path, err)
	}
	for _, mode := range []string{"", "fast", "immediate"} {
		if mode != "" {
			// Whether it did anything, the lock will tell.
			_ = d.command(ctx, bin.path("pg_ctl"), "stop", "-D", d.path, "-m", mode, "-t", "30").Run()
		}
		err = awaitLock(ctx, lock, 2*time.Second)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, errLocked) {
			break
		}
	}
	if errors.Is(err, errLocked) {
		err = errors.New("processes of an earlier server do not end")
	}
	return nil, errors.Join(fmt.Errorf("taking over the data directory %s: %w", d.path, err), lock.Close())
}

// pidFile reads postmaster.pid: whose it is, 0 if there is none, and whether
// that server takes connections (those of a standby may read).
func (d *dataDir) pidFile() (pid int, ready bool) {
	text, err := d.root.ReadFile("postmaster.pid")
	if err != nil {
		return 0, false
	}
	lines := strings.Split(string(text), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return 0, false
	}
	if len(lines) <= 7 {
		return pid, false
	}
	state := strings.TrimSpace(lines[7])
	return pid, state == "ready" || state == "standby"
}

// socketDir is the data directory itself, or, if the path of that is too long
// for a socket, or has a comma, which ends a host in a URL, a directory for
// temporary files named after it.
func socketDir(path string) string {
	fits := func(dir string) bool {
		return len(filepath.Join(dir, ".s.PGSQL."+port)) <= maxSocketPath && !strings.Contains(dir, ",")
	}
	if fits(path) {
		return path
	}
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(path)) // never fails
	name := fmt.Sprintf("riverbeat-%x", hash.Sum64())
	if dir := filepath.Join(os.TempDir(), name); fits(dir) {
		return dir
	}
	return filepath.Join("/tmp", name)
}

// clearSocket makes a place for the server's socket.
func (d *dataDir) clearSocket(dir string) error {
	if dir == d.path {
		return nil // Postgres replaces its own
	}
	// Anyone may have put something under this name, so only a directory that
	// we have just made is taken.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("making a directory for the socket: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making a directory for the socket: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("making a directory for the socket: %w", err)
	}
	return errors.Join(d.owner.takeDir(root), root.Close())
}

func (d *dataDir) openLog() (*os.File, error) {
	if info, err := d.root.Stat(logFile); err == nil && info.Size() > maxLog {
		if err := d.root.Rename(logFile, logFile+".1"); err != nil {
			return nil, fmt.Errorf("putting the log of Postgres aside: %w", err)
		}
	}
	log, err := d.root.OpenFile(logFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of Postgres: %w", err)
	}
	if err := d.owner.take(log); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the log of Postgres: %w", err), log.Close())
	}
	return log, nil
}

// logTail is the end of what was logged since the log had size start.
func (d *dataDir) logTail(start int64) string {
	log, err := d.root.Open(logFile)
	if err != nil {
		return err.Error()
	}
	defer log.Close() //nolint:errcheck // only read from
	if info, err := log.Stat(); err == nil {
		start = max(start, info.Size()-4096)
	}
	text, err := io.ReadAll(io.NewSectionReader(log, start, 4096))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// sweep removes the directories of ephemeral clusters whose process was killed.
// It is a courtesy: what it cannot remove stays.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+"*")) // only the pattern can be wrong
	for _, path := range dirs {
		sweepDir(path)
	}
}

func sweepDir(path string) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return
	}
	defer root.Close() //nolint:errcheck // only looked at
	for _, name := range []string{lockFile, versionFile} {
		f, err := root.OpenFile(name, os.O_RDWR, 0)
		if name == versionFile && errors.Is(err, fs.ErrNotExist) {
			continue // killed while it was made
		}
		if err != nil {
			return
		}
		defer f.Close() //nolint:errcheck,gocritic // both locks are held until the end
		// A younger one may be about to take its lock.
		if info, err := f.Stat(); err != nil || time.Since(info.ModTime()) < time.Minute || tryLock(f) != nil {
			return
		}
	}
	_ = os.RemoveAll(path)
}
