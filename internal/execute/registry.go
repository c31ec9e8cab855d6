package execute

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"riverbeat/internal/riverbeat"
)

// Run is what a task's code is handed: the whole run, one attempt of it.
// RunID and Execution together are a fencing token: a later start of the same
// run has a higher Execution.
type Run struct {
	*riverbeat.Run
	// Deadline is when the attempt's context ends; zero: never.
	Deadline time.Time
	// Logger keeps its lines with the run, up to a limit. Never nil.
	Logger *slog.Logger
}

// Decode reads the parameters into a struct.
func (r *Run) Decode(params any) error {
	return json.Unmarshal(r.TaskParams, params)
}

// Task is code that is run. Its result is kept with the run as JSON. It must
// obey its context. It may be run again for the same run: a crash after its
// work and before the commit of its end repeats it.
type Task func(ctx context.Context, run *Run) (result any, err error)

// Registry has the tasks of this binary by name. It is filled before the node
// starts, and only read after that.
type Registry struct {
	tasks map[string]Task
}

// NewRegistry makes an empty Registry.
func NewRegistry() *Registry { return &Registry{tasks: map[string]Task{}} }

// Register adds a task. It panics if the name is empty or taken: that is a
// fault of the program.
func (r *Registry) Register(name string, task Task) {
	if name == "" || task == nil {
		panic("execute: a task needs a name and code")
	}
	if _, ok := r.tasks[name]; ok {
		panic("execute: task " + name + " is registered twice")
	}
	r.tasks[name] = task
}

// Names are the registered names, sorted.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.tasks)) }

// lookup finds the code of a run: what its definition's executor names, else
// the task's own name; nil if nobody has registered it.
func (r *Registry) lookup(taskName string, d *riverbeat.TaskDefinition) Task {
	if d != nil && d.Executor.Name != "" {
		taskName = d.Executor.Name
	}
	return r.tasks[taskName]
}

// Final marks an error after which the run has failed without another attempt.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return &finalError{err}
}

type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

func isFinal(err error) bool {
	_, ok := errors.AsType[*finalError](err)
	return ok
}
