//go:build faults

package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"riverbeat/task"
)

// The fault suite (internal/faults) builds the binary with this task, which
// writes down what really ran, apart from what the database says.
func init() {
	tasks = append(tasks, task.New("record", record))
	name := os.Getenv("FAULTS_EXECUTIONS")
	if name == "" {
		return
	}
	var err error
	if executions, err = os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0); err != nil {
		panic(err)
	}
	// A node of the suite ends with the suite, however that ends.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
}

// executions is the log, which all nodes append to.
var executions *os.File

// record writes one line when it starts and one when it ends. In between it
// waits for "seconds", and fails in the first "fail_times" attempts. If it is
// "stubborn" it ignores its context.
func record(ctx context.Context, run *task.Run, raw json.RawMessage) (any, error) {
	var params struct {
		Seconds   float64 `json:"seconds"`
		FailTimes int     `json:"fail_times"`
		Stubborn  bool    `json:"stubborn"`
	}
	if err := json.Unmarshal(raw, &params); err != nil {
		return nil, task.Final(err)
	}
	if err := writeLine(ctx, "start", run); err != nil {
		return nil, err
	}
	done := ctx.Done()
	if params.Stubborn {
		done = nil
	}
	timer := time.NewTimer(time.Duration(params.Seconds * float64(time.Second)))
	defer timer.Stop()
	outcome, err := "ok", error(nil)
	select {
	case <-timer.C:
		if run.Attempt <= params.FailTimes {
			outcome, err = "failed", errors.New("this attempt was to fail")
		}
	case <-done:
		outcome, err = "interrupted", context.Cause(ctx)
	}
	if writeErr := writeLine(ctx, outcome, run); writeErr != nil {
		return nil, writeErr
	}
	return map[string]any{"execution": run.Execution, "pid": os.Getpid()}, err
}

// writeLine appends one line in one write, so that lines of several processes
// do not mix. Its time is the system's monotonic clock, which all processes
// share and no shifted clock touches.
func writeLine(ctx context.Context, event string, run *task.Run) error {
	if executions == nil {
		return fmt.Errorf("the log of executions is not open")
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	cause := ""
	if err := context.Cause(ctx); err != nil {
		cause = err.Error()
	}
	line, err := json.Marshal(map[string]any{
		"event": event, "mono": now.Nano(), "pid": os.Getpid(), "node": os.Getenv("FAULTS_NODE"),
		"run_id": run.ID, "schedule_id": run.ScheduleID, "scheduled_for": run.ScheduledFor,
		"execution": run.Execution, "attempt": run.Attempt, "lock_key": run.LockKey,
		"policy": run.ExecutionPolicy, "task_name": run.TaskName, "args": run.Args, "task_params": run.TaskParams,
		"context": cause,
	})
	if err != nil {
		return err
	}
	_, err = executions.Write(append(line, '\n'))
	return err
}
