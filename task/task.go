// Package task is what a Go developer needs to give Riverbeat a task of his own: a
// name, a struct of parameters, and a function. docs/writing-a-task.md shows it; the
// program that runs it is made by riverbeat/cmd/command.
package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// Task is code with a name. Make it with New.
type Task struct {
	// Name is what schedules call it by.
	Name string
	// Aliases are other names of the same task, for schedules that come from
	// elsewhere. Runs under all of them share lock keys and limits.
	Aliases []string
	// Category and Description are those of its definition until somebody gives that
	// others, and so are the queue and the limits below: how many tries a run has, what
	// lies between two of them (doubled each time, up to MaxBackoff), and how long one may
	// take. Zero is the default of definitions: the queue default, three tries, 1 s up to
	// 5 min, as long as it takes.
	Category, Description string
	Queue                 string
	MaxAttempts           int
	Backoff, MaxBackoff   time.Duration
	Timeout               time.Duration

	schema json.RawMessage
	code   Code
}

// Code is what a task does. Its result is kept with the run as JSON, up to 64 KiB; nil
// is none. It must obey its context, which ends at the run's deadline, when the run is
// cancelled and when the node stops.
//
// It may be called again for a run that it has done already: a crash between its end
// and the commit of that repeats it. Run.ID is the same then, and Run.Execution higher.
type Code func(ctx context.Context, run *Run) (result any, err error)

// New makes a task of a function. P is a struct whose fields are the parameters, by
// their json tags: the task's JSON Schema is made of it (see Schema), and what passed
// that is decoded into it. A P that is a map or a json.RawMessage takes any object.
//
// It panics if no schema can be made of P: that is a fault of the program.
func New[P any](name string, do func(ctx context.Context, run *Run, params P) (result any, err error)) Task {
	return Task{
		Name:   name,
		schema: schemaOf[P](),
		code: func(ctx context.Context, run *Run) (any, error) {
			var params P
			if err := json.Unmarshal(run.TaskParams, &params); err != nil {
				return nil, Final(fmt.Errorf("read the parameters: %w", err))
			}
			return do(ctx, run, params)
		},
	}
}

// Schema is the JSON Schema of the task's parameters. Fields without omitempty are
// required, others than the struct's are refused. The tag jsonschema says more:
//
//	Period string `json:"period,omitempty" jsonschema:"enum=day,enum=week,default=day"`
//
// with minLength, maxLength, pattern, minimum, maximum, format, description and the
// like, and jsonschema_extras:"x-name=true" for a parameter that goes into names that
// are made (see github.com/invopop/jsonschema).
func (t Task) Schema() json.RawMessage { return t.schema }

// Run calls the task's code.
func (t Task) Run(ctx context.Context, run *Run) (result any, err error) { return t.code(ctx, run) }

// Run is what a task's code is handed: one attempt of a run. ID and Execution together
// are a fencing token: a later start of the same run has a higher Execution.
type Run struct {
	ID          uuid.UUID
	Execution   int // one more at each start, over attempts, snoozes and lost nodes
	Attempt     int // of all that were made, from 1
	MaxAttempts int

	TaskName        string // as the schedule calls it: the name or an alias
	ScheduleID      uuid.UUID
	ScheduleName    string
	ExecutionPolicy string // allow, skip or queue
	LockKey         string // under which it overlaps no other run; "": it may
	Trigger         string // schedule, catch_up, manual, backfill or alert
	// ScheduledFor is the nominal time, in UTC: the same for each attempt, and in a
	// backfill that of the tick it stands for.
	ScheduledFor time.Time

	Args       json.RawMessage // a JSON array
	TaskParams json.RawMessage // a JSON object, checked, with the schema's defaults

	// Zone is that of the schedule when the run was planned. It asks the database; nil in
	// runs that a test has made.
	Zone func(ctx context.Context) (*time.Location, error)
	// Deadline is when the attempt's context ends; zero: never.
	Deadline time.Time
	// Logger keeps its lines with the run, up to a limit. Never nil.
	Logger *slog.Logger
}

// Final marks an error after which the run has failed without another attempt. Final of
// nil is nil.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return &finalError{err}
}

type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// IsFinal tells whether Final has marked an error.
func IsFinal(err error) bool {
	_, ok := errors.AsType[*finalError](err)
	return ok
}

// Snooze is the error of an attempt that goes on after a while, at once if that is past:
// nothing of it counts as failed, and no attempt is used up. Why is written to the run's
// log; nil is no reason.
func Snooze(after time.Duration, why error) error {
	if why == nil {
		why = errors.New("no reason was given")
	}
	return &snoozed{why, max(after, 0)}
}

type snoozed struct {
	error
	after time.Duration
}

func (e *snoozed) Unwrap() error { return e.error }

// Snoozed tells whether an error is one of Snooze, and after how long the attempt goes
// on.
func Snoozed(err error) (after time.Duration, ok bool) {
	e, ok := errors.AsType[*snoozed](err)
	if !ok {
		return 0, false
	}
	return e.after, true
}

// RetryAfter is the error of a failed attempt after which the next one is to wait at least
// so long: who was asked has said so. It is a failure like any other, and nil for nil.
func RetryAfter(wait time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &retried{err, max(wait, 0)}
}

type retried struct {
	error
	wait time.Duration
}

func (e *retried) Unwrap() error { return e.error }

// RetriedAfter is how long RetryAfter says that the next attempt waits at least; 0 for an
// error that says nothing of it.
func RetriedAfter(err error) time.Duration {
	e, ok := errors.AsType[*retried](err)
	if !ok {
		return 0
	}
	return e.wait
}

// MarshalJSON writes the run as programs outside are told of it: run_id, execution,
// attempt, max_attempts, task_name, schedule_id, schedule_name, execution_policy, trigger,
// scheduled_for (RFC 3339, UTC), lock_key (null: none), args, task_params and deadline
// (null: none).
func (r *Run) MarshalJSON() ([]byte, error) {
	document := struct {
		RunID           uuid.UUID       `json:"run_id"`
		Execution       int             `json:"execution"`
		Attempt         int             `json:"attempt"`
		MaxAttempts     int             `json:"max_attempts"`
		TaskName        string          `json:"task_name"`
		ScheduleID      *uuid.UUID      `json:"schedule_id"`
		ScheduleName    string          `json:"schedule_name"`
		ExecutionPolicy string          `json:"execution_policy"`
		Trigger         string          `json:"trigger"`
		ScheduledFor    time.Time       `json:"scheduled_for"`
		LockKey         *string         `json:"lock_key"`
		Args            json.RawMessage `json:"args"`
		TaskParams      json.RawMessage `json:"task_params"`
		Deadline        *time.Time      `json:"deadline"`
	}{
		RunID: r.ID, Execution: r.Execution, Attempt: r.Attempt, MaxAttempts: r.MaxAttempts,
		TaskName: r.TaskName, ScheduleName: r.ScheduleName, ExecutionPolicy: r.ExecutionPolicy,
		Trigger: r.Trigger, ScheduledFor: r.ScheduledFor.UTC(), Args: r.Args, TaskParams: r.TaskParams,
	}
	if r.ScheduleID != uuid.Nil {
		document.ScheduleID = &r.ScheduleID
	}
	if r.LockKey != "" {
		document.LockKey = &r.LockKey
	}
	if !r.Deadline.IsZero() {
		deadline := r.Deadline.UTC()
		document.Deadline = &deadline
	}
	if len(document.Args) == 0 {
		document.Args = json.RawMessage("[]")
	}
	if len(document.TaskParams) == 0 {
		document.TaskParams = json.RawMessage("{}")
	}
	return json.Marshal(document)
}
