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

	"riverbeat/internal/execute"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/tick"
)

const (
	// fetchCooldown is how soon after a fetch the next one may follow: bursts
	// are handed out in batches of at most the free workers of a queue.
	fetchCooldown = 5 * time.Millisecond
	// rescueAfter puts River's own rescue of stuck jobs out of reach: it goes by
	// the nodes' clocks and starts the same job again. Package execute takes the
	// runs of lost nodes over.
	rescueAfter = 10 * 365 * 24 * time.Hour
)

// Config is what a Worker needs.
type Config struct {
	DB       *postgres.DB // of a pool
	Executor *execute.Executor
	Ticker   *tick.Ticker
	Logger   *slog.Logger
	Node     postgres.Node // its id is River's client id, too
	Grace    time.Duration // how long runs may go on after Stop was asked for
}

// Worker is the working part of a node.
type Worker struct {
	cfg    Config
	client *river.Client[pgx.Tx]
	alarms *alarms
	stop   []func() // what was started, in order
}

// New makes a Worker. It does nothing before Start.
func New(cfg Config) (*Worker, error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely[queue.RunArgs](workers, cfg.Executor); err != nil {
		return nil, err
	}
	queues := make(map[string]river.QueueConfig, len(cfg.Node.Queues))
	for name, most := range cfg.Node.Queues {
		queues[name] = river.QueueConfig{MaxWorkers: most}
	}
	client, err := river.NewClient(riverpgxv5.New(cfg.DB.Pool()), &river.Config{
		ID:                   cfg.Node.ID.String(),
		Schema:               cfg.DB.Schema(),
		Logger:               slog.New(quiet{cfg.Logger.Handler()}),
		Queues:               queues,
		Workers:              workers,
		FetchCooldown:        fetchCooldown,
		FetchOnlyKnownKinds:  true,
		JobTimeout:           -1, // an attempt's deadline is its definition's
		RescueStuckJobsAfter: rescueAfter,
		Test:                 river.TestConfig{Time: databaseTime{cfg.Executor.Now}},
		SoftStopTimeout:      cfg.Grace,
	})
	if err != nil {
		return nil, fmt.Errorf("make the River client: %w", err)
	}
	return &Worker{
		cfg: cfg, client: client,
		alarms: newAlarms(cfg.DB, client.PeriodicJobs(), cfg.Ticker.Wake),
	}, nil
}

// Start begins to claim and to work. Stop must be called after it, also when
// it fails.
func (w *Worker) Start(ctx context.Context) error {
	if err := w.cfg.Executor.Open(ctx); err != nil {
		return fmt.Errorf("open the node's session: %w", err)
	}
	// What the client's jobs need outlives the client, what feeds it does not.
	w.background(ctx, w.cfg.Executor.Run)
	if err := w.client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	w.stop = append(w.stop, func() {
		// The grace is the client's SoftStopTimeout; a task that ignores its
		// context even then is left to the end of the process.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Grace+10*time.Second)
		defer cancel()
		if err := w.client.Stop(ctx); err != nil {
			w.cfg.Logger.ErrorContext(ctx, "River did not stop in time", "error", err)
		}
	})
	w.background(ctx, w.cfg.Ticker.Run)
	w.background(ctx, w.listen)
	return nil
}

// background runs fn until Stop.
func (w *Worker) background(ctx context.Context, fn func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { fn(ctx) })
	w.stop = append(w.stop, func() { cancel(); done.Wait() })
}

// Stop ends the node's work: no more claims, then no more jobs, then, after
// the grace, running attempts are told to stop and handed back.
func (w *Worker) Stop() {
	for i := len(w.stop) - 1; i >= 0; i-- {
		w.stop[i]()
	}
	w.stop = nil
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
	for _, channel := range []string{postgres.ChannelSchedules, postgres.ChannelLines} {
		if _, err := raw.Exec(ctx, "LISTEN "+pgx.Identifier{prefix + channel}.Sanitize()); err != nil {
			return err
		}
	}
	for {
		if err := w.alarms.sync(ctx); err != nil {
			return err
		}
		// A new schedule may be due before the next sweep.
		w.cfg.Ticker.Wake()
		if err := w.untilSchedulesChange(ctx, raw, prefix); err != nil {
			return err
		}
	}
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
