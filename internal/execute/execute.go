// Package execute does: it runs the attempt of a job through its task's
// executor and reports its end. A run's history is written by the trigger on
// River's table; this package asks before each attempt whether the job still is
// its run's, keeps result, reason and log lines in the job's metadata, and ends keyed runs in one
// transaction with the promotion of their line.
package execute

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverlog"
	"github.com/riverqueue/river/rivertype"

	"riverbeat/internal/ledger"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
)

const (
	// MaxResultBytes bounds the result that is kept with a run.
	MaxResultBytes = 64 << 10
	maxErrorBytes  = 16 << 10
	// noWorkerPause is how long a job waits that no task of this node can do.
	noWorkerPause = 5 * time.Second
	// startPause is how long a job waits when the database did not answer
	// whether it may start.
	startPause = time.Second
)

// Executor works the jobs of runs on one node. Start it before River's client,
// and stop it after.
type Executor struct {
	river.WorkerDefaults[queue.RunArgs]

	db       *postgres.DB
	ledger   *ledger.Ledger
	registry *Registry
	now      func() time.Time

	starts *batcher[postgres.Start, *postgres.Started] // nil: must not start
	lines  *batcher[string, bool]                      // does anyone wait behind the key?

	// retries has, by job id, what lies between a failed attempt and the next,
	// from Work to NextRetry.
	retries sync.Map
}

// Config is what an Executor needs.
type Config struct {
	DB       *postgres.DB
	Ledger   *ledger.Ledger
	Registry *Registry
	Now      func() time.Time // for River, which stamps retries by it
}

// New makes an Executor.
func New(cfg Config) *Executor {
	e := &Executor{db: cfg.DB, ledger: cfg.Ledger, registry: cfg.Registry, now: cfg.Now}
	e.starts, e.lines = newBatcher(e.startedRuns), newBatcher(e.haveLines)
	return e
}

// Run serves the node's attempts until ctx ends.
func (e *Executor) Run(ctx context.Context) {
	var serving sync.WaitGroup
	serving.Go(func() { e.starts.run(ctx) })
	serving.Go(func() { e.lines.run(ctx) })
	serving.Wait()
}

func (e *Executor) startedRuns(ctx context.Context, starts []postgres.Start) ([]*postgres.Started, error) {
	runs := make([]*postgres.Started, len(starts))
	err := e.db.InTx(ctx, func(tx *postgres.Tx) error {
		byJob, err := tx.StartedRuns(ctx, starts)
		for i, s := range starts {
			runs[i] = byJob[s.JobID]
		}
		return err
	})
	return runs, err
}

func (e *Executor) haveLines(ctx context.Context, keys []string) ([]bool, error) {
	have := make([]bool, len(keys))
	err := e.db.InTx(ctx, func(tx *postgres.Tx) error {
		lines, err := tx.HaveLines(ctx, keys)
		for i, key := range keys {
			have[i] = lines[key]
		}
		return err
	})
	return have, err
}

// Timeout leaves the deadline of an attempt to Work, which knows the
// definition.
func (e *Executor) Timeout(*river.Job[queue.RunArgs]) time.Duration { return -1 }

// NextRetry is when the next attempt of a failed job is due.
func (e *Executor) NextRetry(job *river.Job[queue.RunArgs]) time.Time {
	retry, ok := e.retries.LoadAndDelete(job.ID)
	if !ok {
		return time.Time{}
	}
	return e.now().Add(retry.(riverbeat.Retry).After(job.Attempt)) //nolint:forcetypeassert // only Work stores there
}

// ending is what Work tells the middleware around it.
type ending struct {
	key string // the lock key, of a keyed run that has succeeded
}

type endingKey struct{}

// Middleware ends keyed runs, around the one that keeps log lines: a job's
// completion takes the metadata with it, so the lines must be there by then.
func (e *Executor) Middleware(*rivertype.JobRow) []rivertype.WorkerMiddleware {
	return []rivertype.WorkerMiddleware{
		river.WorkerMiddlewareFunc(e.complete),
		riverlog.NewMiddleware(newLineHandler, &riverlog.MiddlewareConfig{
			MaxSizeBytes: maxLogBytes, MaxTotalBytes: maxTotalLogBytes,
		}),
	}
}

// complete ends a run behind whose key others wait in one transaction with the
// promotion of the next. All others are left to River, which ends them in
// batches; if a line forms at that very moment, the history trigger asks for
// its promotion.
func (e *Executor) complete(ctx context.Context, row *rivertype.JobRow, work func(context.Context) error) error {
	var end ending
	if err := work(context.WithValue(ctx, endingKey{}, &end)); err != nil || end.key == "" {
		return err
	}
	line, err := e.lines.ask(ctx, end.key)
	if err != nil || !line {
		return nil // the run has succeeded; whoever waits all the same is found by the trigger
	}
	// The end is written down even if the attempt was told to stop just now.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	job := &river.Job[queue.RunArgs]{JobRow: row}
	// Whatever goes wrong here, the run has succeeded: River ends it then, as it
	// ends all others, and an end that somebody wrote meanwhile holds.
	_ = e.db.InTx(ctx, func(tx *postgres.Tx) error {
		if err := tx.Promoting(ctx, end.key); err != nil {
			return err
		}
		if err := tx.LockKeys(ctx, []string{end.key}); err != nil {
			return err
		}
		completed, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx.Tx, job)
		if err != nil {
			return err
		}
		if completed.State != rivertype.JobStateCompleted {
			return errNoLongerOurs
		}
		return e.ledger.Promote(ctx, tx, end.key)
	})
	return nil
}

var errNoLongerOurs = errors.New("the job is not running any more")

// Work runs one attempt.
func (e *Executor) Work(ctx context.Context, job *river.Job[queue.RunArgs]) error {
	started, err := e.starts.ask(ctx, postgres.Start{
		RunID: job.Args.RunID, ScheduledFor: job.Args.ScheduledFor, JobID: job.ID,
	})
	if err != nil {
		err = fmt.Errorf("start the attempt: %w", err)
		if ctx.Err() != nil {
			return err
		}
		riverlog.Logger(ctx).WarnContext(ctx, "not started; trying again", "error", err)
		return river.JobSnooze(startPause) // nothing was done, so no attempt is used up
	}
	if started == nil {
		return river.JobCancel(errors.New("this job is not its run's any more; the run goes on under another job, or is gone"))
	}
	task, ok := e.registry.lookup(started.Run.TaskName, started.Definition)
	if !ok {
		if err := report(ctx, "", riverbeat.NoWorker); err != nil {
			return err
		}
		return river.JobSnooze(noWorkerPause)
	}

	run := &Run{Run: started.Run, Logger: riverlog.Logger(ctx)}
	attemptCtx := ctx
	if d := started.Definition; d != nil && d.Timeout > 0 {
		var cancel context.CancelFunc
		cause := fmt.Errorf("the attempt took longer than its timeout of %s", d.Timeout)
		attemptCtx, cancel = context.WithTimeoutCause(ctx, d.Timeout, cause)
		defer cancel()
		run.Deadline, _ = attemptCtx.Deadline()
	}
	result, err := call(attemptCtx, task, run)
	if err != nil {
		if attemptCtx.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", context.Cause(attemptCtx), err)
		}
		return e.failed(ctx, job, started.Definition, err)
	}
	if err := record(ctx, result); err != nil {
		return e.failed(ctx, job, started.Definition, Final(err))
	}
	// Metadata is indexed, so nothing is said where there is nothing to say.
	if bytes.Contains(job.Metadata, []byte(metadataKey)) {
		if err := report(ctx, "", ""); err != nil {
			return err
		}
	}
	if end, ok := ctx.Value(endingKey{}).(*ending); ok {
		end.key = started.Run.LockKey
	}
	return nil
}

// call calls the task's code and turns a panic into an error.
func call(ctx context.Context, task Task, run *Run) (result any, err error) {
	defer func() {
		if r := recover(); r != nil {
			run.Logger.ErrorContext(ctx, "panic", "value", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return task(ctx, run)
}

// failed says how a failed attempt ends: with another one, or with the run.
func (e *Executor) failed(ctx context.Context, job *river.Job[queue.RunArgs], d *riverbeat.TaskDefinition, cause error) error {
	if ctx.Err() != nil {
		// Cancelled by a person, or the node stops: River knows what to do by
		// the cause, whatever the task made of it.
		return report(ctx, "", "", context.Cause(ctx))
	}
	if isFinal(cause) {
		if err := report(ctx, riverbeat.Failed, ""); err != nil {
			return err
		}
		return river.JobCancel(printable(cause))
	}
	if job.Attempt < job.MaxAttempts {
		retry := riverbeat.DefaultRetry
		if d != nil && d.Retry != (riverbeat.Retry{}) {
			retry = d.Retry
		}
		e.retries.Store(job.ID, retry)
	}
	return report(ctx, "", "", printable(cause))
}

// report keeps what the history trigger cannot see of an attempt's end in the
// job's metadata, in place of what the attempt before said. It returns cause.
func report(ctx context.Context, state riverbeat.State, reason riverbeat.Reason, cause ...error) error {
	said := map[string]string{}
	if state != "" {
		said["state"] = string(state)
	}
	if reason != "" {
		said["reason"] = string(reason)
	}
	if err := river.MetadataSet(ctx, metadataKey, said); err != nil {
		return err
	}
	return errors.Join(cause...)
}

// metadataKey is where the history trigger looks for what report said.
const metadataKey = "riverbeat"

// record keeps the result with the job, from where the trigger takes it.
func record(ctx context.Context, result any) error {
	if result == nil {
		return nil
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("the result is not JSON: %w", err)
	}
	if len(raw) > MaxResultBytes {
		raw, _ = json.Marshal(map[string]any{
			"truncated": true, "bytes": len(raw),
			"detail": fmt.Sprintf("The result was larger than the %d bytes that are kept.", MaxResultBytes),
		})
	}
	if raw, err = riverbeat.CanonicalJSON(raw); err != nil {
		return fmt.Errorf("the result cannot be kept: %w", err)
	}
	return river.RecordOutput(ctx, json.RawMessage(raw))
}

// printable makes an error that Postgres can keep: without NUL, which jsonb
// refuses, and of bounded length. River would try to write it for ever.
func printable(err error) error {
	text := err.Error()
	if len(text) <= maxErrorBytes && !strings.ContainsRune(text, 0) {
		return err
	}
	text = strings.ReplaceAll(text, "\x00", "\\0")
	if len(text) > maxErrorBytes {
		text = strings.ToValidUTF8(text[:maxErrorBytes], "") + " …"
	}
	return errors.New(text)
}
