// Package execute does: it keeps the node's session, runs the attempt of a job
// through its task's executor and reports its end, and takes over the runs of
// nodes that were lost; see DESIGN.md.
//
// A run's history is written by the trigger on River's table. This package
// asks before each attempt whether the job still is its run's, keeps result,
// reason and log lines in the job's metadata, and ends keyed runs in one
// transaction with the promotion of their line.
package execute

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverlog"
	"github.com/riverqueue/river/rivertype"

	"riverbeat/internal/execute/secret"
	"riverbeat/internal/ledger"
	"riverbeat/internal/metrics"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/trace"
	"riverbeat/task"
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
	// keyPause is how long a job waits whose lock key runs elsewhere.
	keyPause = time.Second
)

// Executor works the jobs of runs on one node. Open it and let it Run before
// River's client starts, until after that has stopped.
type Executor struct {
	river.WorkerDefaults[queue.RunArgs]

	db       *postgres.DB
	ledger   *ledger.Ledger
	registry *Registry
	secrets  *secret.Store
	node     postgres.Node
	logger   *slog.Logger
	metrics  *metrics.Metrics
	tracer   *trace.Tracer

	session  *session
	opened   *postgres.Session // by Open, for Run
	onHold   chan error        // to OnHold; what it holds when Open is called is of the time before
	attempts attempts
	starts   *batcher[start, *started]
	slots    *slotKeeper

	// retries has, by job id, what lies between a failed attempt and the next,
	// from Work to NextRetry.
	retries sync.Map
}

// Config is what an Executor needs.
type Config struct {
	DB       *postgres.DB // of a pool
	Ledger   *ledger.Ledger
	Registry *Registry
	Secrets  *secret.Store // nil: there are none
	Node     postgres.Node // its ID is new for each Executor, and River's client has it, too
	Logger   *slog.Logger
	Metrics  *metrics.Metrics // nil: nothing is counted
	Tracer   *trace.Tracer    // nil: nothing is traced
}

// New makes an Executor.
func New(cfg Config) *Executor {
	e := &Executor{
		db: cfg.DB, ledger: cfg.Ledger, registry: cfg.Registry, secrets: cfg.Secrets, node: cfg.Node, logger: cfg.Logger,
		metrics: cfg.Metrics, tracer: cfg.Tracer, onHold: make(chan error, 1),
		attempts: attempts{underWay: map[int64]context.CancelCauseFunc{}, reported: map[int64]outcome{}},
	}
	e.session = newSession(func(ctx context.Context) (*postgres.Session, error) {
		return e.db.OpenSession(ctx, &e.node)
	}, cfg.Logger)
	e.session.metrics = cfg.Metrics
	e.session.fence = func() { e.attempts.cancelAll(errFenced) }
	e.session.recheck = e.recheck
	e.session.onHold = func(cause error) {
		select {
		case e.onHold <- cause:
		default:
		}
	}
	e.starts = newBatcher(e.startRuns)
	e.slots = newSlotKeeper(cfg.DB)
	return e
}

// Ours is for how long from now nobody else can have the run whose attempt has the context:
// 0 if somebody may have it. What the attempt has started outside must end before that,
// whatever else it was told before.
func Ours(ctx context.Context) time.Duration {
	ours, _ := ctx.Value(oursKey{}).(func() time.Duration)
	if ours == nil {
		return 0
	}
	return ours()
}

type oursKey struct{}

// Open opens the node's session. It fails as postgres.Tx.AtHome does when the
// node is on hold.
func (e *Executor) Open(ctx context.Context) (err error) {
	for len(e.onHold) > 0 {
		<-e.onHold //nolint:errcheck // read by nobody: it is of the time before
	}
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	e.opened, err = e.session.open(ctx)
	return err
}

// Run keeps the session that Open has opened, serves the node's attempts and
// looks after the jobs of lost nodes until ctx ends. The session is given back
// then, unless an attempt that does not obey its context still is under way: its
// lock stands until the server ends the session, which says nothing any more.
func (e *Executor) Run(ctx context.Context) {
	var serving sync.WaitGroup
	serving.Go(func() { e.starts.run(ctx) })
	serving.Go(func() { e.slots.run(ctx) })
	serving.Go(func() { (&reaper{e: e}).run(ctx) })
	last := e.session.run(ctx, e.opened)
	serving.Wait()
	if last == nil || !e.attempts.idle() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	if err := last.Leave(ctx); err != nil {
		e.logger.WarnContext(ctx, "the node is still on the list of nodes", "error", err)
	}
}

// OnHold has the reason when the node has to go on hold. Its attempts are told
// to stop by then, and no other begins.
func (e *Executor) OnHold() <-chan error { return e.onHold }

// Node is the node that it works for.
func (e *Executor) Node() postgres.Node { return e.node }

// Now is the database's time, as far as this machine can tell; River stamps
// retries and snoozes by it.
func (e *Executor) Now() time.Time { return e.session.now() }

// start asks whether the attempt of a job may begin.
type start struct {
	postgres.Start
	taskName string
	lose     func() // the slot, to somebody else
}

// started answers it.
type started struct {
	code       task.Code                 // nil: this node cannot do it, and nothing was started
	run        *riverbeat.Run            // nil: the job is not its run's any more
	definition *riverbeat.TaskDefinition // as it is now; nil: the task has none
	slot       *hold                     // of its task; nil: it has none
	waits      bool                      // for a slot
	err        error                     // that of its slot
}

func (s *started) limits() riverbeat.Limits { return riverbeat.LimitsOf(s.definition, s.run.Limits) }

// startRuns starts the runs of tasks that are registered here.
func (e *Executor) startRuns(ctx context.Context, starts []start) ([]*started, error) {
	answers := make([]*started, len(starts))
	var limited []int // by their index
	err := e.db.InTx(ctx, func(tx *postgres.Tx) error {
		names := map[string]bool{}
		for _, s := range starts {
			names[s.taskName] = true
		}
		definitions, err := tx.TaskDefinitions(ctx, slices.Collect(maps.Keys(names)))
		if err != nil {
			return err
		}
		var known []postgres.Start
		limited = nil
		for i, s := range starts {
			d := definitions[s.taskName]
			answers[i] = &started{code: e.registry.lookup(s.taskName, d), definition: d}
			switch {
			case answers[i].code == nil:
			case slotTask(d) != "":
				limited = append(limited, i)
			default:
				known = append(known, s.Start)
			}
		}
		runs, err := tx.StartRuns(ctx, e.node.ID.String(), known)
		for i, s := range starts {
			answers[i].run = runs[s.JobID]
		}
		return err
	})
	if err == nil && len(limited) > 0 {
		e.startLimited(ctx, starts, answers, limited)
	}
	return answers, err
}

// Timeout leaves the deadline of an attempt to Work, which knows the
// definition.
func (e *Executor) Timeout(*river.Job[queue.RunArgs]) time.Duration { return -1 }

// NextRetry is when the next attempt of a failed job is due.
func (e *Executor) NextRetry(job *river.Job[queue.RunArgs]) time.Time {
	after, ok := e.retries.LoadAndDelete(job.ID)
	if !ok {
		return time.Time{}
	}
	return e.Now().Add(after.(time.Duration)) //nolint:forcetypeassert // only failed stores there
}

// ending is what Work tells the middleware around it.
type ending struct {
	key string // the lock key of a run that came out of a line and has succeeded
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

// complete ends a run that came out of a line in one transaction with the
// promotion of the next: others wait behind it, as likely as not. All other
// runs are left to River, which ends them in batches; if a line has formed, the
// history trigger asks for its promotion.
func (e *Executor) complete(ctx context.Context, row *rivertype.JobRow, work func(context.Context) error) error {
	var end ending
	if err := work(context.WithValue(ctx, endingKey{}, &end)); err != nil || end.key == "" {
		return err
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
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var lost atomic.Bool // whatever it was told first, it may be somebody else's now
	cancel := func(cause error) {
		if isFenced(cause) {
			lost.Store(true)
		}
		stop(cause)
	}
	ctx = context.WithValue(ctx, oursKey{}, func() time.Duration {
		if lost.Load() {
			return 0
		}
		return e.session.left()
	})
	if !e.attempts.begin(job.ID, cancel) {
		return e.handBack(ctx, riverbeat.AlreadyRunning, keyPause) // handed on by psql while it runs here
	}
	defer e.attempts.end(job.ID, *job.AttemptedAt)
	if err := e.session.ready(ctx); err != nil {
		return e.notStarted(ctx, err)
	}
	if key := job.Args.LockKey; key != "" {
		locked, err := e.session.lock(ctx, key, func() { cancel(errTaken) })
		if err != nil {
			return e.notStarted(ctx, err)
		}
		if !locked {
			// An attempt whose job somebody ended goes on somewhere.
			return e.handBack(ctx, riverbeat.AlreadyRunning, keyPause)
		}
		// Given back before the end is written: who is promoted may start at once.
		defer e.session.unlock(key)
	}
	started, err := e.starts.ask(ctx, start{
		Start:    postgres.Start{RunID: job.Args.RunID, ScheduledFor: job.Args.ScheduledFor, JobID: job.ID},
		taskName: job.Args.TaskName,
		lose:     func() { cancel(errTaken) },
	})
	if err == nil {
		err = started.err
	}
	if err == nil && started.slot != nil {
		defer e.releaseSlot(started)
	}
	switch {
	case err != nil:
		return e.notStarted(ctx, err)
	case started.code == nil:
		return e.handBack(ctx, riverbeat.NoWorker, noWorkerPause)
	case started.waits:
		return e.handBack(ctx, riverbeat.NoSlot, slotPause)
	case started.run == nil:
		return endForGood(errors.New("this job is not its run's any more; the run goes on under another job, or is gone"))
	case !e.session.alive():
		return e.notStarted(ctx, errNoSession)
	case ctx.Err() != nil: // told to stop while it asked; the node may have a session again
		return e.notStarted(ctx, context.Cause(ctx))
	}
	return e.observed(ctx, job, started)
}

// observed is the attempt, counted and traced.
func (e *Executor) observed(ctx context.Context, job *river.Job[queue.RunArgs], started *started) error {
	run := started.run
	ended := e.metrics.Attempt(run)
	within, span := e.tracer.Attempt(ctx, ledger.TraceOf(run), queue.Trace(job.JobRow))
	span.Set("riverbeat.schedule", run.ScheduleName)
	span.SetNumber("riverbeat.execution", run.Execution)
	span.SetNumber("riverbeat.attempt", run.Attempt)
	defer span.End()
	err := e.attempt(within, job, started)
	outcome := e.outcome(ctx, job, err)
	ended(outcome)
	span.Set("riverbeat.outcome", string(outcome))
	if outcome == metrics.Failed || outcome == metrics.Retried || outcome == metrics.Lost {
		span.Fail()
	}
	return err
}

// outcome tells how an attempt has ended, by the error that River is told.
func (e *Executor) outcome(ctx context.Context, job *river.Job[queue.RunArgs], err error) metrics.Outcome {
	switch {
	case err == nil:
		return metrics.Succeeded
	case e.givenUp(ctx) != nil:
		return metrics.Lost
	case errors.Is(context.Cause(ctx), rivertype.ErrJobCancelledRemotely):
		return metrics.Cancelled
	case ctx.Err() != nil:
		return metrics.Interrupted
	case errors.As(err, new(*river.JobSnoozeError)):
		return metrics.Snoozed
	case errors.As(err, new(*river.JobCancelError)), job.Attempt >= job.MaxAttempts:
		return metrics.Failed
	default:
		return metrics.Retried
	}
}

// attempt calls the task and says how it ended.
func (e *Executor) attempt(ctx context.Context, job *river.Job[queue.RunArgs], started *started) error {
	run := e.taskRun(started.run, riverlog.Logger(ctx))
	redact, err := e.resolve(started, run)
	if err != nil {
		return e.failed(ctx, job, started, redact.Error(err))
	}
	attemptCtx := secret.With(ctx, redact)
	if timeout := started.limits().Timeout; timeout > 0 {
		var cancel context.CancelFunc
		cause := fmt.Errorf("the attempt took longer than its timeout of %s", timeout)
		attemptCtx, cancel = context.WithTimeoutCause(attemptCtx, timeout, cause)
		defer cancel()
		run.Deadline, _ = attemptCtx.Deadline()
	}
	result, err := call(attemptCtx, started.code, run, redact)
	if given := e.givenUp(ctx); given != nil {
		// Whatever the task made of it: somebody else may have done it meanwhile.
		riverlog.Logger(ctx).WarnContext(ctx, "stopped, and nothing of it counts", "cause", given)
		return report(ctx, "", riverbeat.Fenced, river.JobSnooze(0))
	}
	if result == nil && bytes.Contains(job.Metadata, []byte(`"output"`)) {
		result = json.RawMessage("null") // in place of what an earlier attempt has left
	}
	if result != nil {
		if recorded := river.RecordOutput(ctx, result); recorded != nil && err == nil {
			err = task.Final(recorded)
		}
	}
	if err != nil {
		if attemptCtx.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", context.Cause(attemptCtx), err)
		}
		return e.failed(ctx, job, started, err)
	}
	// Metadata is indexed, so nothing is said where there is nothing to say.
	if bytes.Contains(job.Metadata, []byte(queue.MetadataKey)) {
		if err := report(ctx, "", "", nil); err != nil {
			return err
		}
	}
	e.attempts.succeed(job.ID, *job.AttemptedAt, result)
	if end, ok := ctx.Value(endingKey{}).(*ending); ok && started.run.BlockedBy != nil {
		end.key = started.run.LockKey
	}
	return nil
}

// resolve puts the values of secrets in the place of references to them, in the run that
// the code is handed and in the settings of its executor. The Redactor, which is nil if
// there are none, is to keep them out of what the attempt leaves; the run's logger does
// that already.
func (e *Executor) resolve(started *started, run *task.Run) (*secret.Redactor, error) {
	values := map[string]string{}
	value := func(name string) (value string, err error) {
		values[name], err = e.secrets.Value(name)
		return values[name], err
	}
	var err error
	if run.TaskParams, err = riverbeat.ReplaceSecrets(run.TaskParams, value); err != nil {
		return nil, fmt.Errorf("resolve the parameters: %w", err)
	}
	if run.Args, err = riverbeat.ReplaceSecrets(run.Args, value); err != nil {
		return nil, fmt.Errorf("resolve the arguments: %w", err)
	}
	if d := started.definition; d != nil && d.Executor.Kind != riverbeat.ExecutorGo {
		settings, err := riverbeat.ReplaceSecrets(d.Executor.JSON(), value)
		if err != nil {
			return nil, fmt.Errorf("resolve the executor: %w", err)
		}
		resolved := *d
		if resolved.Executor, err = riverbeat.ParseExecutor(settings); err != nil {
			return nil, fmt.Errorf("read the executor: %w", err)
		}
		started.code = e.registry.lookup(run.TaskName, &resolved)
	}
	redact := secret.NewRedactor(values)
	run.Logger = slog.New(redact.Handler(run.Logger.Handler()))
	return redact, nil
}

// taskRun is a run as its task's code sees it.
func (e *Executor) taskRun(r *riverbeat.Run, logger *slog.Logger) *task.Run {
	run := &task.Run{
		ID:              r.ID,
		Execution:       r.Execution,
		Attempt:         r.Attempt,
		MaxAttempts:     r.MaxAttempts,
		TaskName:        r.TaskName,
		ScheduleName:    r.ScheduleName,
		ExecutionPolicy: string(r.ExecutionPolicy),
		LockKey:         r.LockKey,
		Trigger:         string(r.Trigger),
		ScheduledFor:    r.ScheduledFor,
		Args:            r.Args,
		TaskParams:      r.TaskParams,
		Logger:          logger,
	}
	if r.ScheduleID != nil {
		run.ScheduleID = *r.ScheduleID
	}
	run.Zone = func(ctx context.Context) (zone *time.Location, err error) {
		err = e.db.Read(ctx, func(tx *postgres.Tx) error {
			name, err := tx.ZoneOfVersion(ctx, run.ScheduleID, r.ScheduleVersion)
			if err != nil {
				return fmt.Errorf("read the schedule's zone: %w", err)
			}
			zone, err = time.LoadLocation(name)
			return err
		})
		return zone, err
	}
	return run
}

// givenUp says why nothing that an attempt reports counts; nil if it does.
func (e *Executor) givenUp(ctx context.Context) error {
	cause := context.Cause(ctx)
	switch {
	case isFenced(cause):
		return cause
	case Ours(ctx) == 0: // a frozen process wakes here before anyone could tell it
		return errFenced
	}
	return nil
}

// isFenced tells by the cause of a context whether the run may be somebody else's.
func isFenced(cause error) bool { return errors.Is(cause, errFenced) || errors.Is(cause, errTaken) }

// notStarted hands a job back when the database did not say that it may start.
func (e *Executor) notStarted(ctx context.Context, cause error) error {
	if errors.Is(context.Cause(ctx), rivertype.ErrJobCancelledRemotely) {
		return cancelled(ctx)
	}
	riverlog.Logger(ctx).WarnContext(ctx, "not started; trying again", "error", cause)
	return e.handBack(ctx, "", startPause)
}

// cancelled ends a run that somebody wanted cancelled.
func cancelled(ctx context.Context) error {
	return report(ctx, "", "", endForGood(rivertype.ErrJobCancelledRemotely))
}

// endForGood is the error of an attempt after which River makes no other. Its text is that
// of the cause alone.
func endForGood(cause error) error { return &endedForGood{cause, river.JobCancel(cause)} }

type endedForGood struct {
	error
	cancel error
}

func (e *endedForGood) Unwrap() error { return e.cancel }

// handBack gives a job back whose attempt has not begun: no attempt is used up.
func (e *Executor) handBack(ctx context.Context, reason riverbeat.Reason, pause time.Duration) error {
	e.metrics.HandedBack(reason)
	return report(ctx, "", reason, river.JobSnooze(pause))
}

// call calls the task's code, that of its result included, and turns a panic
// into an error. Neither result nor error has a secret.
func call(ctx context.Context, code task.Code, run *task.Run, redact *secret.Redactor) (result json.RawMessage, err error) {
	defer func() {
		if r := recover(); r != nil {
			run.Logger.ErrorContext(ctx, "panic", "value", r, "stack", string(debug.Stack()))
			result, err = nil, redact.Error(fmt.Errorf("panic: %v", r))
		}
	}()
	returned, err := code(ctx, run)
	result, unkept := encode(returned, redact)
	if err == nil {
		err = task.Final(unkept)
	}
	return result, redact.Error(err)
}

// failed says how a failed attempt ends: with another one, or with the run.
func (e *Executor) failed(ctx context.Context, job *river.Job[queue.RunArgs], started *started, cause error) error {
	if errors.Is(context.Cause(ctx), rivertype.ErrJobCancelledRemotely) {
		return cancelled(ctx)
	}
	if ctx.Err() != nil {
		// The node stops: River knows what to do by the cause, whatever the task
		// made of it.
		return report(ctx, "", "", context.Cause(ctx))
	}
	if after, ok := task.Snoozed(cause); ok {
		riverlog.Logger(ctx).WarnContext(ctx, "going on later", "after", after.String(), "why", printable(cause))
		return report(ctx, "", "", river.JobSnooze(after))
	}
	if task.IsFinal(cause) {
		return report(ctx, riverbeat.Failed, "", endForGood(printable(cause)))
	}
	if job.Attempt < job.MaxAttempts {
		retry := started.limits().Retry
		// What has failed together does not come back together.
		wait := max(retry.After(job.Attempt), min(task.RetriedAfter(cause), riverbeat.MaxRetryBackoff))
		e.retries.Store(job.ID, wait+rand.N(wait/10+1)) //nolint:gosec // jitter
	}
	return report(ctx, "", "", printable(cause))
}

// report keeps what the history trigger cannot see of an attempt's end in the
// job's metadata, in place of what the attempt before said. It returns outcome,
// by which River knows how the attempt has ended.
func report(ctx context.Context, state riverbeat.State, reason riverbeat.Reason, outcome error) error {
	said := map[string]string{}
	if state != "" {
		said["state"] = string(state)
	}
	if reason != "" {
		said["reason"] = string(reason)
	}
	if err := river.MetadataSet(ctx, queue.MetadataKey, said); err != nil {
		return err
	}
	return outcome
}

// encode makes of a result what is kept of it; nil for none.
func encode(result any, redact *secret.Redactor) (json.RawMessage, error) {
	if result == nil {
		return nil, nil
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return nil, fmt.Errorf("the result is not JSON: %w", err)
	}
	if raw, err = redact.JSON(raw); err != nil {
		return nil, fmt.Errorf("the result is not JSON: %w", err)
	}
	if raw, err = riverbeat.CanonicalJSON(raw); err != nil {
		return nil, fmt.Errorf("the result cannot be kept: %w", err)
	}
	if len(raw) > MaxResultBytes {
		return json.Marshal(map[string]any{
			"truncated": true, "bytes": len(raw),
			"detail": fmt.Sprintf("The result was larger than the %d bytes that are kept.", MaxResultBytes),
		})
	}
	return raw, nil
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
