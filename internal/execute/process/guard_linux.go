package process

import (
	"bytes"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// self is the binary of this process, though it may have been replaced meanwhile
// (proc(5)).
func self() (string, error) { return "/proc/self/exe", nil }

// endsWithParent lets a process end when the thread that starts it does
// (PR_SET_PDEATHSIG).
func endsWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	attr.Pdeathsig = syscall.SIGKILL
	return attr
}

// adoptOrphans makes this process the parent of all descendants whose parents have ended,
// those that have left the process group included (PR_SET_CHILD_SUBREAPER).
func adoptOrphans() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// killOrphans kills all descendants that have lost their parents, of whatever group.
func killOrphans(int) {
	for _, child := range children() {
		_ = syscall.Kill(child, syscall.SIGKILL) // it may be gone
	}
}

// children are the processes whose parent this is, by the fourth field of proc_pid_stat(5).
func children() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue
		}
		// The second field is a name in parentheses, which may contain anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 1 && string(fields[1]) == strconv.Itoa(os.Getpid()) {
			list = append(list, pid)
		}
	}
	return list
}
