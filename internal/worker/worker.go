// Package worker is River taking jobs out: the working client, the alarms
// (periodic jobs that wake the Ticker), and the notifications a node listens
// to. What it starts it stops, in order.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"riverbeat/internal/execute"
	"riverbeat/internal/metrics"
	"riverbeat/internal/postgres"
	"riverbeat/internal/prune"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
	"riverbeat/internal/watch"
)

const (
	// fetchCooldown is how soon after a fetch the next one may follow: bursts
	// are handed out in batches of at most the free workers of a queue.
	fetchCooldown = 5 * time.Millisecond
	// rescueAfter puts River's own rescue of stuck jobs out of reach: it goes by
	// the nodes' clocks and starts the same job again. Package execute takes the
	// runs of lost nodes over.
	rescueAfter = 10 * 365 * 24 * time.Hour
	// jobsKept is how long River keeps jobs that have ended, for River UI, and failedKept
	// those that failed for good: the attempts of a run are read from its job. Runs are
	// kept for longer (riverbeat.LeastRetention), so that no job outlives its run.
	jobsKept   = 24 * time.Hour
	failedKept = 7 * 24 * time.Hour
)

// Config is what a Worker needs.
type Config struct {
	DB       *postgres.DB // of a pool
	Executor *execute.Executor
	Ticker   *tick.Ticker
	Watcher  *watch.Watcher // nil: nobody is told of anything
	Pruner   *prune.Pruner  // nil: nothing is dropped
	// Declare defines the tasks of the registry. It is called before anything is
	// worked, at home only, and until it has succeeded; nil: they are defined already.
	Declare func(context.Context) error
	Logger  *slog.Logger
	Metrics *metrics.Metrics // nil: nothing is counted
	Grace   time.Duration    // how long runs may go on after Stop was asked for
	// Ending is how long they may take to end after that, when they are told to; less than
	// ten seconds are ten.
	Ending time.Duration
}

// Worker is the working part of a node.
type Worker struct {
	cfg    Config
	client *river.Client[pgx.Tx]
	alarms *alarms
	parts  []func() // how to stop what was started, in order
	stop   func()   // what Start has started; nil: nothing
}

// New makes a Worker. It does nothing before Start.
func New(cfg Config) (*Worker, error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely[queue.RunArgs](workers, cfg.Executor); err != nil {
		return nil, err
	}
	node := cfg.Executor.Node()
	queues := make(map[string]river.QueueConfig, len(node.Queues))
	for name, most := range node.Queues {
		queues[name] = river.QueueConfig{MaxWorkers: most}
	}
	client, err := river.NewClient(riverpgxv5.New(cfg.DB.Pool()), &river.Config{
		ID:                   node.ID.String(),
		Schema:               cfg.DB.Schema(),
		Logger:               slog.New(quiet{cfg.Logger.Handler()}),
		Queues:               queues,
		Workers:              workers,
		Plugins:              []rivertype.Plugin{river.HookMetricEmitFunc(fetches(cfg.Metrics))},
		FetchCooldown:        fetchCooldown,
		FetchOnlyKnownKinds:  true,
		JobTimeout:           -1, // an attempt's deadline is its definition's
		RescueStuckJobsAfter: rescueAfter,

		CompletedJobRetentionPeriod: jobsKept,
		CancelledJobRetentionPeriod: jobsKept,
		DiscardedJobRetentionPeriod: failedKept,
		SoftStopTimeout:             max(cfg.Grace, time.Millisecond), // zero is for ever to River
		Test:                        river.TestConfig{Time: databaseTime{cfg.Executor.Now}},
	})
	if err != nil {
		return nil, fmt.Errorf("make the River client: %w", err)
	}
	return &Worker{
		cfg: cfg, client: client,
		alarms: newAlarms(cfg.DB, client.PeriodicJobs(), cfg.Ticker.Wake, cfg.Metrics),
	}, nil
}

const (
	// holdLook is how often a node on hold looks whether it may work.
	holdLook = time.Second
	// declareWithin is how long a node waits for the definitions of its tasks before
	// it works without, and declareAgain how long until it tries again.
	declareWithin = 5 * time.Second
	declareAgain  = 30 * time.Second
	// stoppedAlready is how long a client that has stopped needs to say so.
	stoppedAlready = 100 * time.Millisecond
)

// Start begins to claim and to work. A node on hold (postgres.Tx.AtHome) does
// nothing until it is at home, and one that has to go on hold stops. Stop must
// be called after Start has succeeded.
func (w *Worker) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	err := w.begin(ctx)
	if err != nil && !postgres.IsOnHold(err) {
		w.rest()
		cancel()
		return err
	}
	var watching sync.WaitGroup
	watching.Go(func() { w.watch(ctx, err) })
	w.stop = func() { cancel(); watching.Wait() }
	return nil
}

// Stop ends the node's work: no more claims, then no more jobs, then, after
// the grace, running attempts are told to stop and handed back.
func (w *Worker) Stop() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// watch goes on hold and comes back until ctx ends, then stops the work. hold
// is why there is none yet; nil: there is.
func (w *Worker) watch(ctx context.Context, hold error) {
	defer w.rest()
	for {
		if hold != nil {
			w.cfg.Logger.ErrorContext(ctx, "the node is on hold: no ticks, no runs", "why", riverbeat.Explain(hold))
			if !w.comeBack(ctx) {
				return
			}
			w.cfg.Logger.InfoContext(ctx, "the node is on hold no more")
		}
		select {
		case <-ctx.Done():
			return
		case hold = <-w.cfg.Executor.OnHold():
			w.rest()
		}
	}
}

// comeBack begins to work as soon as the node may; false if ctx has ended.
func (w *Worker) comeBack(ctx context.Context) bool {
	fault := ""
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(holdLook):
		}
		err := w.begin(ctx)
		if err == nil {
			return true
		}
		w.rest()
		if text := riverbeat.Explain(err); !postgres.IsOnHold(err) && text != fault {
			fault = text
			w.cfg.Logger.WarnContext(ctx, "could not begin to work; trying again", "error", text)
		}
	}
}

// begin starts all parts. After a failure, rest stops those that it has
// started.
func (w *Worker) begin(ctx context.Context) error {
	// A client that still stops would start, say so, and do nothing.
	if err := w.stopClient(ctx, stoppedAlready); err != nil {
		return fmt.Errorf("an attempt of before goes on and does not obey: %w", err)
	}
	if err := w.cfg.Executor.Open(ctx); err != nil {
		return fmt.Errorf("open the node's session: %w", err)
	}
	// What the client's jobs need outlives the client, what feeds it does not.
	w.background(ctx, w.cfg.Executor.Run)
	w.countJobs(ctx)
	if w.cfg.Declare != nil && !w.declared(ctx) {
		w.background(ctx, w.declare)
	}
	if err := w.client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	w.parts = append(w.parts, func() {
		// The grace is the client's SoftStopTimeout; a task that ignores its
		// context even then is left to the end of the process.
		if err := w.stopClient(context.WithoutCancel(ctx), w.cfg.Grace+max(w.cfg.Ending, 10*time.Second)); err != nil {
			w.cfg.Logger.ErrorContext(ctx, "River did not stop in time", "error", err)
		}
	})
	w.background(ctx, w.cfg.Ticker.Run)
	w.background(ctx, w.cfg.Ticker.RunUpkeep)
	w.background(ctx, w.cfg.Ticker.RunBackfills)
	w.background(ctx, w.cfg.Ticker.RunForgetting)
	if w.cfg.Watcher != nil {
		w.background(ctx, w.cfg.Watcher.Run)
	}
	if w.cfg.Pruner != nil {
		w.background(ctx, w.cfg.Pruner.Run)
	}
	w.background(ctx, w.listen)
	return nil
}

// fetches counts what River tells of its fetches.
func fetches(m *metrics.Metrics) func(context.Context, *rivertype.HookMetricEmitParams) {
	return func(_ context.Context, p *rivertype.HookMetricEmitParams) {
		switch told := p.Metric.(type) {
		case *rivertype.JobGetAvailableDurationMetric:
			m.Fetch(told.Queue, told.Duration)
		case *rivertype.JobGetAvailableCountMetric:
			m.Fetched(told.Queue, told.Count)
		}
	}
}

// jobEvents is how many of River's events wait to be counted: it writes the ends of up to
// 5,000 attempts at once, and drops what is more.
const jobEvents = 10_000

// countJobs counts the attempts that River has written down, until rest.
func (w *Worker) countJobs(ctx context.Context) {
	events, unsubscribe := w.client.SubscribeConfig(&river.SubscribeConfig{ChanSize: jobEvents, Kinds: []river.EventKind{
		river.EventKindJobCompleted, river.EventKindJobFailed, river.EventKindJobCancelled,
		river.EventKindJobSnoozed, river.EventKindJobInterrupted,
	}})
	w.background(ctx, func(ctx context.Context) {
		defer unsubscribe()
		for {
			select {
			case <-ctx.Done():
				return
			case event, ok := <-events:
				if !ok {
					return // the client has stopped
				}
				kind := strings.TrimPrefix(string(event.Kind), "job_")
				w.cfg.Metrics.Job(event.Job.Queue, kind, event.JobStats.QueueWaitDuration, event.JobStats.CompleteDuration)
			}
		}
	})
}

// declared tells whether the tasks are defined now. Somebody may hold a definition, or
// have it held for all its schedules: no node waits for that with its work.
func (w *Worker) declared(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, declareWithin)
	defer cancel()
	err := w.cfg.Declare(ctx)
	if err != nil {
		w.cfg.Logger.WarnContext(ctx, "the tasks of this node are not all defined; trying again", "error", err)
	}
	return err == nil
}

// declare defines the tasks, as soon as that can be.
func (w *Worker) declare(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(declareAgain):
		}
		if w.declared(ctx) {
			return
		}
	}
}

// stopClient stops River's client, or has waited most for it.
func (w *Worker) stopClient(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return w.client.Stop(ctx)
}

// background runs fn until rest.
func (w *Worker) background(ctx context.Context, fn func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { fn(ctx) })
	w.parts = append(w.parts, func() { cancel(); done.Wait() })
}

// rest stops all parts, the last one first.
func (w *Worker) rest() {
	for i := len(w.parts) - 1; i >= 0; i-- {
		w.parts[i]()
	}
	w.parts = nil
}

// databaseTime is the time by which River stamps what a node's clock would
// else: retries and snoozes.
type databaseTime struct{ now func() time.Time }

func (t databaseTime) Now() time.Time { return t.now() }

// NowOrNil leaves the time of statements to the database.
func (databaseTime) NowOrNil() *time.Time { return nil }

const (
	relisten    = time.Second
	resyncEvery = time.Minute
	// resyncWithin bounds one look at all schedules.
	resyncWithin = 30 * time.Second
	// changesSettle is how long one change of schedules waits for others: an
	// import is thousands, and one look at the schedules serves them all.
	changesSettle = 100 * time.Millisecond
)

// listen hears of changes until ctx ends. A lost connection is made again, and
// what was missed meanwhile is looked up.
func (w *Worker) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		w.cfg.Logger.WarnContext(ctx, "lost the connection that listens for changes", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(relisten):
		}
	}
}

func (w *Worker) listenOnce(ctx context.Context) error {
	conn, err := w.cfg.DB.Pool().Acquire(ctx)
	if err != nil {
		return err
	}
	// Closed, not released: it listens.
	raw := conn.Hijack()
	defer func() { _ = raw.Close(context.WithoutCancel(ctx)) }()
	prefix := w.cfg.DB.Schema() + "."
	listen := ""
	for _, channel := range []string{postgres.ChannelSchedules, postgres.ChannelLines} {
		listen += "LISTEN " + pgx.Identifier{prefix + channel}.Sanitize() + ";"
	}
	for {
		if err := w.resync(ctx, raw, listen); err != nil {
			return err
		}
		// A new schedule may be due before the next sweep.
		w.cfg.Ticker.Wake()
		if err := w.untilSchedulesChange(ctx, raw, prefix); err != nil {
			return err
		}
	}
}

// resync sees to it that conn hears, which it may not for long without anybody
// noticing, and looks which schedules there are.
func (w *Worker) resync(ctx context.Context, conn *pgx.Conn, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, resyncWithin)
	defer cancel()
	if _, err := conn.Exec(ctx, listen); err != nil {
		return err
	}
	return w.alarms.sync(ctx)
}

// untilSchedulesChange moves lines up until the recurrences of schedules have
// changed, and a moment more, or a while has passed.
func (w *Worker) untilSchedulesChange(ctx context.Context, conn *pgx.Conn, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, resyncEvery)
	defer cancel()
	changed := false
	for {
		n, err := conn.WaitForNotification(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		switch strings.TrimPrefix(n.Channel, prefix) {
		case postgres.ChannelSchedules:
			if !changed {
				changed = true
				ctx, cancel = context.WithTimeout(ctx, changesSettle)
				defer cancel()
			}
		case postgres.ChannelLines:
			if err := w.cfg.Ticker.Promote(ctx, n.Payload); err != nil {
				w.cfg.Logger.ErrorContext(ctx, "promotion failed; the next sweep tries again", "error", err)
			}
		}
	}
}

// quiet passes on what River logs, but for the lines that it writes each time
// an alarm fires, and every few seconds while there is work.
type quiet struct{ slog.Handler }

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasSuffix(r.Message, "nil returned from periodic job constructor, skipping") ||
		strings.HasSuffix(r.Message, "Producer job counts") {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }
