// Package builtin has the tasks that come with the binary for demonstration:
// echo, sleep and fail.
package builtin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"riverbeat/internal/execute"
)

// tasks are the tasks by name. The fault suite's build adds one.
var tasks = map[string]execute.Task{"echo": echo, "sleep": sleep, "fail": fail}

// Register adds the tasks to r.
func Register(r *execute.Registry) {
	for name, task := range tasks {
		r.Register(name, task)
	}
}

// echo returns its parameters.
func echo(ctx context.Context, run *execute.Run) (any, error) {
	run.Logger.InfoContext(ctx, "echo", "task_params", string(run.TaskParams))
	return run.TaskParams, nil
}

// maxSleep keeps a typo from holding a worker for years.
const maxSleep = 24 * time.Hour

// sleep waits for "seconds", which may be a fraction, or until its context
// ends. It returns how long it slept.
func sleep(ctx context.Context, run *execute.Run) (any, error) {
	var params struct {
		Seconds float64 `json:"seconds"`
	}
	if err := run.Decode(&params); err != nil {
		return nil, execute.Final(fmt.Errorf("seconds must be a number: %w", err))
	}
	if params.Seconds < 0 || params.Seconds > maxSleep.Seconds() {
		return nil, execute.Final(fmt.Errorf("seconds must lie between 0 and %.0f", maxSleep.Seconds()))
	}
	pause := time.Duration(params.Seconds * float64(time.Second))
	run.Logger.InfoContext(ctx, "sleeping", "seconds", params.Seconds)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return map[string]any{"slept_seconds": params.Seconds}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fail fails with "message" in the first "times" attempts; without "times" in
// each.
func fail(ctx context.Context, run *execute.Run) (any, error) {
	params := struct {
		Message string `json:"message"`
		Times   *int   `json:"times"`
	}{Message: "this task always fails"}
	if err := run.Decode(&params); err != nil {
		return nil, execute.Final(fmt.Errorf("message must be a text and times a whole number: %w", err))
	}
	if params.Times != nil && run.Attempt > *params.Times {
		return map[string]any{"attempts": run.Attempt}, nil
	}
	run.Logger.WarnContext(ctx, "failing", "attempt", run.Attempt)
	return nil, errors.New(params.Message)
}
