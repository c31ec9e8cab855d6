package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// guardName is the first argument by which a binary of Riverbeat is a guard.
const guardName = "guard"

// The file descriptors of a guard beside the usual three, which are the command's.
const (
	lifelineFile = 3 // from the node: orders
	reportFile   = 4 // to the node: a report of the start, and one of the end
)

// What a node writes to the lifeline. Any other byte is a beat: so many tenths of a second
// the next one may take.
const (
	terminate = 0xfe // SIGTERM, and after the grace SIGKILL
	kill      = 0xff // SIGKILL
)

const (
	beatEvery = 500 * time.Millisecond
	// silence is how long a guard hears nothing before it takes the node for lost, or
	// frozen: soon enough that nothing of the run is left when another node takes it over
	// (execute's lostAfter, 5 s).
	silence = 3 * time.Second
	// buryWithin is how long what was killed may take to be gone.
	buryWithin = time.Second
)

// report is what a guard says of its command.
type report struct {
	PID      int    `json:"pid,omitempty"` // it has begun, with a process group of this number
	ExitCode *int   `json:"exit_code,omitempty"`
	Signal   string `json:"signal,omitempty"` // that has ended it
	// Why it was killed, if the node has not said so.
	Why     string `json:"why,omitempty"`
	Failure string `json:"failure,omitempty"` // it has not begun
}

// IsGuard tells whether the arguments of this process, the program's name left out, make
// it a guard; then main calls Guard and nothing else.
func IsGuard(args []string) bool { return len(args) > 3 && args[0] == guardName }

// Guard is the process between a node and a command. It starts the command in a process
// group of its own, and sees to it that nothing of it is left when it ends, when the node
// says so, and when the node is gone or frozen: whatever a run has started would else meet
// the next execution of the run. It answers the exit code of this process.
//
// args are guardName, the grace, a directory that is removed at the end ("": none), and
// the command line.
func Guard(args []string) int {
	// The command is to end with the thread that starts it (PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	syscall.CloseOnExec(lifelineFile)
	syscall.CloseOnExec(reportFile)
	reports := json.NewEncoder(os.NewFile(reportFile, "reports"))
	r := guard(args[1], args[3:], func(pid int) error { return reports.Encode(report{PID: pid}) })
	if args[2] != "" {
		remove(args[2])
	}
	if reports.Encode(r) != nil {
		return 1
	}
	return 0
}

func guard(grace string, argv []string, begun func(pid int) error) report {
	g := warden{orders: make(chan byte), ended: make(chan syscall.WaitStatus, 1), gone: make(chan struct{})}
	var err error
	if g.grace, err = time.ParseDuration(grace); err == nil {
		err = adoptOrphans()
	}
	if err != nil {
		return report{Failure: err.Error()}
	}
	// Who ends a whole unit signals its guards, too, and that is the node's to judge. Not
	// ignored, which the command would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	command := &exec.Cmd{
		Path: argv[0], Args: argv, // the environment is the guard's
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: endsWithParent(&syscall.SysProcAttr{Setpgid: true}),
	}
	if err := command.Start(); err != nil {
		return report{Failure: err.Error()}
	}
	g.command = command.Process
	if begun(g.command.Pid) != nil {
		g.signal(syscall.SIGKILL) // there is no node any more
	}
	go readOrders(os.NewFile(lifelineFile, "lifeline"), g.orders)
	go g.reap()
	status := g.watch()
	if status.Signaled() {
		return report{Signal: fmt.Sprint(status.Signal()), Why: g.why}
	}
	code := status.ExitStatus()
	return report{ExitCode: &code, Why: g.why}
}

// warden watches one command.
type warden struct {
	command *os.Process
	grace   time.Duration
	orders  chan byte
	ended   chan syscall.WaitStatus // of the command
	gone    chan struct{}           // no descendant is left
	why     string
}

// reap waits for the command and for the orphans that it leaves: as their new parent, this
// process has to.
func (g *warden) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // there are no children
			close(g.gone)
			return
		case pid == g.command.Pid:
			g.ended <- status
		}
	}
}

// watch returns when nothing is left of the command, or what is left cannot be killed.
func (g *warden) watch() (status syscall.WaitStatus) {
	silent := time.NewTimer(silence)
	var over <-chan time.Time // the grace
	var bury *time.Ticker
	var buried, burials <-chan time.Time
	// From the first SIGKILL on, everything is killed until nothing is left.
	ended := g.ended
	end := func() {
		if ended != nil {
			g.signal(syscall.SIGKILL)
		}
		if bury == nil {
			bury = time.NewTicker(10 * time.Millisecond)
			burials = bury.C
		}
	}
	for {
		select {
		case status = <-ended:
			ended, buried = nil, time.After(g.grace+buryWithin)
			if over == nil { // nobody has given its children time
				end()
				buried = time.After(buryWithin)
			}
		case <-g.gone:
			if ended != nil {
				status = <-ended // told before that
			}
			return status
		case <-burials:
			if ended == nil {
				killOrphans(g.command.Pid)
			}
		case <-buried:
			return status
		case order, ok := <-g.orders:
			switch {
			case !ok:
				g.orders, g.why = nil, "its node has ended"
				end()
			case order == kill:
				silent.Stop()
				end()
			case order == terminate && over == nil:
				over = time.After(g.grace)
				g.signal(syscall.SIGTERM)
			case order < terminate:
				silent.Reset(min(silence, time.Duration(order)*100*time.Millisecond))
			}
		case <-over:
			end()
		case <-silent.C:
			g.why = "its node was silent"
			end()
		}
	}
}

// signal signals the group of the command, or the command alone if it has left that.
func (g *warden) signal(s syscall.Signal) {
	if syscall.Kill(-g.command.Pid, s) != nil {
		_ = g.command.Signal(s) // it may be gone
	}
}

// readOrders reads the lifeline until its other end is gone.
func readOrders(lifeline *os.File, orders chan<- byte) {
	defer close(orders)
	for {
		var order [1]byte
		if n, err := lifeline.Read(order[:]); n == 0 || err != nil {
			return
		}
		orders <- order[0]
	}
}

// remove removes a directory, with what its owner may not write.
func remove(directory string) {
	if os.RemoveAll(directory) == nil {
		return
	}
	_ = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = os.Chmod(path, 0o700) //nolint:gosec // a directory that is removed
		}
		return err
	})
	_ = os.RemoveAll(directory) // nothing more can be done here
}
