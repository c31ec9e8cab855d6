//go:build !linux

package process

import (
	"os"
	"syscall"
)

func self() (string, error) { return os.Executable() }

// endsWithParent does nothing here: a guard that is killed leaves its command.
func endsWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr { return attr }

// adoptOrphans does nothing here: what leaves the process group is not ended.
func adoptOrphans() error { return nil }

func killOrphans(group int) { _ = syscall.Kill(-group, syscall.SIGKILL) }
