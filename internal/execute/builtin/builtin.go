// Package builtin has the tasks that come with the binary. Those for demonstration,
// echo, sleep and fail, take any object, so that people may give them a parameter
// schema of their own.
package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"riverbeat/task"
)

// tasks are the tasks. The fault suite's build adds one.
var tasks = []task.Task{
	describe(task.New("echo", echo), "Returns its parameters."),
	describe(task.New("sleep", sleep), `Waits for "seconds", which may be a fraction.`),
	describe(task.New("fail", fail), `Fails with "message" in the first "times" attempts; without "times" in each.`),
}

// Tasks are the tasks that come with the binary.
func Tasks() []task.Task { return slices.Clone(tasks) }

func describe(t task.Task, description string) task.Task {
	t.Category, t.Description = "demonstration", description
	return t
}

// echo returns its parameters.
func echo(ctx context.Context, run *task.Run, params json.RawMessage) (any, error) {
	run.Logger.InfoContext(ctx, "echo", "task_params", string(params))
	return params, nil
}

// maxSleep keeps a typo from holding a worker for years.
const maxSleep = 24 * time.Hour

// sleep waits for "seconds", which may be a fraction, or until its context
// ends. It returns how long it slept.
func sleep(ctx context.Context, run *task.Run, raw json.RawMessage) (any, error) {
	var params struct {
		Seconds float64 `json:"seconds"`
	}
	if err := json.Unmarshal(raw, &params); err != nil {
		return nil, task.Final(fmt.Errorf("seconds must be a number: %w", err))
	}
	if params.Seconds < 0 || params.Seconds > maxSleep.Seconds() {
		return nil, task.Final(fmt.Errorf("seconds must lie between 0 and %.0f", maxSleep.Seconds()))
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
func fail(ctx context.Context, run *task.Run, raw json.RawMessage) (any, error) {
	params := struct {
		Message string `json:"message"`
		Times   *int   `json:"times"`
	}{Message: "this task always fails"}
	if err := json.Unmarshal(raw, &params); err != nil {
		return nil, task.Final(fmt.Errorf("message must be a text and times a whole number: %w", err))
	}
	if params.Times != nil && run.Attempt > *params.Times {
		return map[string]any{"attempts": run.Attempt}, nil
	}
	run.Logger.WarnContext(ctx, "failing", "attempt", run.Attempt)
	return nil, errors.New(params.Message)
}
