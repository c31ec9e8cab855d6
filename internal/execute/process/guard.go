package process

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// guardName is the first argument by which a binary of Riverbeat is a guard.
const guardName = "guard"

// The file descriptors of a guard beside the usual three, which are the command's.
const (
	lifelineFile = 3 // from the node: beats and orders
	reportFile   = 4 // to the node: how the command has ended
)

// What a node writes to the lifeline.
const (
	beat      = 'b' // the node lives
	terminate = 't' // SIGTERM, and after the grace SIGKILL
	kill      = 'k' // SIGKILL
)

const (
	beatEvery = 500 * time.Millisecond
	// silence is how long a guard hears nothing before it takes the node for lost, or
	// frozen: soon enough that nothing of the run is left when another node takes it over
	// (execute's lostAfter, 5 s).
	silence = 3 * time.Second
)

// report is how a command has ended.
type report struct {
	ExitCode *int   `json:"exit_code,omitempty"`
	Signal   string `json:"signal,omitempty"` // that has ended it
	Failure  string `json:"failure,omitempty"`
}

// IsGuard tells whether the arguments of this process, the program's name left out, make
// it a guard; then main calls Guard and nothing else.
func IsGuard(args []string) bool { return len(args) > 2 && args[0] == guardName }

// Guard is the process between a node and a command. It starts the command in a process
// group of its own, and sees to it that nothing of it is left when it ends, when the node
// says so, and when the node is gone or frozen: whatever a run has started would else meet
// the next execution of the run. It answers the exit code of this process.
//
// args are guardName, the grace, and the command line.
func Guard(args []string) int {
	// The command is to end with the thread that starts it (PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	syscall.CloseOnExec(lifelineFile)
	syscall.CloseOnExec(reportFile)
	told := func(r report) int {
		if json.NewEncoder(os.NewFile(reportFile, "report")).Encode(r) != nil {
			return 1
		}
		return 0
	}
	grace, err := time.ParseDuration(args[1])
	if err != nil {
		return told(report{Failure: err.Error()})
	}
	if err := adoptOrphans(); err != nil {
		return told(report{Failure: err.Error()})
	}
	command := &exec.Cmd{
		Path: args[2], Args: args[2:], // the environment is the guard's
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: endsWithParent(&syscall.SysProcAttr{Setpgid: true}),
	}
	if err := command.Start(); err != nil {
		return told(report{Failure: err.Error()})
	}
	orders := make(chan byte)
	go readOrders(os.NewFile(lifelineFile, "lifeline"), orders)
	ended := make(chan struct{})
	go func() {
		_ = command.Wait() // ProcessState says it
		close(ended)
	}()
	obey(command.Process, grace, orders, ended)
	endOrphans(command.Process.Pid) // what it has left behind

	status, _ := command.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return told(report{Signal: strings.TrimPrefix(fmt.Sprint(status.Signal()), "signal ")})
	}
	code := status.ExitStatus()
	return told(report{ExitCode: &code})
}

// obey returns when the command has ended.
func obey(command *os.Process, grace time.Duration, orders <-chan byte, ended <-chan struct{}) {
	silent := time.NewTimer(silence)
	var killAt <-chan time.Time
	for {
		select {
		case <-ended:
			return
		case order, ok := <-orders:
			silent.Reset(silence)
			switch {
			case !ok:
				orders = nil
				signalGroup(command, syscall.SIGKILL)
			case order == kill:
				signalGroup(command, syscall.SIGKILL)
			case order == terminate && killAt == nil:
				signalGroup(command, syscall.SIGTERM)
				killAt = time.After(grace)
			}
		case <-killAt:
			signalGroup(command, syscall.SIGKILL)
		case <-silent.C:
			signalGroup(command, syscall.SIGKILL)
		}
	}
}

// signalGroup signals the group of a command, or the command alone if it has left that.
func signalGroup(command *os.Process, signal syscall.Signal) {
	if syscall.Kill(-command.Pid, signal) != nil {
		_ = command.Signal(signal) // it may be gone
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
