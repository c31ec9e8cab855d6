// Package tick decides: it claims the schedules that are due, plans their
// ticks, records what becomes of them, and moves their clocks, all in one
// transaction per batch. It also moves up lines that wait behind nothing.
//
// A Ticker is woken by alarms (package worker) and by itself once a second; a
// lost alarm costs a second, never a tick.
package tick

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"riverbeat/internal/ledger"
	"riverbeat/internal/metrics"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const (
	// SweepEvery is how long a Ticker sleeps when nobody wakes it. A tick that
	// is nearer is waited for exactly.
	SweepEvery = time.Second
	// maxClocks and maxTicks bound one transaction of a claim; but what a
	// schedule has to catch up with is decided at once.
	maxClocks = 500
	maxTicks  = 500
	// maxBatches bounds the claims of one sweep, so that lines and stopped
	// schedules get their turn when there is always something due.
	maxBatches = 10
	// claimers is how many batches of a burst are decided at once: a claim is
	// half the time this process and half the time its one session.
	claimers = 2
	// oldShare is what part of a batch is given to old clocks, as long as those
	// of the last minute do not end.
	oldShare = 10
	// callTimeout bounds one transaction, so that a lost connection cannot
	// stop the sweep.
	callTimeout = 30 * time.Second
	// promoteWait is how long a promotion waits for a lock: a notification may be
	// heard before the locks of whoever sent it are given back.
	promoteWait = 200 * time.Millisecond
)

// Ticker claims and decides. Any number of them may work on one database.
type Ticker struct {
	db         *postgres.DB
	ledger     *ledger.Ledger
	partitions *postgres.Partitions
	logger     *slog.Logger
	metrics    *metrics.Metrics // nil: nothing is counted
	wake       chan struct{}
}

// New makes a Ticker. It does nothing before Run.
func New(db *postgres.DB, l *ledger.Ledger, logger *slog.Logger) *Ticker {
	return &Ticker{
		db: db, ledger: l, partitions: postgres.NewPartitions(db.ByIndex()), logger: logger,
		wake: make(chan struct{}, 1),
	}
}

// Counting has t count its sweeps, and answers it. It is called before Run.
func (t *Ticker) Counting(m *metrics.Metrics) *Ticker {
	t.metrics = m
	return t
}

// Wake makes the Ticker look now. Calls that come while it looks are one.
func (t *Ticker) Wake() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Run sweeps until ctx ends: at each Wake, at each tick that is near, and once
// every SweepEvery. A failed sweep is logged and tried again.
func (t *Ticker) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var fault fault
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-timer.C:
		}
		next, err := t.Sweep(ctx)
		if err == nil && fault != "" {
			t.logger.InfoContext(ctx, "sweeps work again")
		}
		fault.log(ctx, t.logger, "sweep failed", err)
		timer.Reset(next)
	}
}

// fault is why the last try of a loop failed; "": it did not.
type fault string

// log takes the outcome of a try, and logs a failure once for as long as it stays the same:
// a database that is away is asked each second.
func (f *fault) log(ctx context.Context, logger *slog.Logger, what string, err error) {
	var now fault
	if err != nil && ctx.Err() == nil {
		now = fault(riverbeat.Explain(err))
	}
	if now != "" && now != *f {
		logger.ErrorContext(ctx, what, "error", string(now))
	}
	*f = now
}

// Sweep decides what is due, then moves up stalled lines. It says how long it
// is until it should look again, also with an error: SweepEvery at most. A line
// that cannot move is an error and delays no tick.
func (t *Ticker) Sweep(ctx context.Context) (next time.Duration, err error) {
	swept := t.metrics.Sweep()
	next, stalled, err := t.decideAll(ctx)
	swept(err)
	if err != nil {
		return SweepEvery, err
	}
	return next, t.promote(ctx, stalled)
}

// decideAll decides what is due. It says how long it is until it should look again, and
// which lines are stalled.
func (t *Ticker) decideAll(ctx context.Context) (next time.Duration, stalled []string, err error) {
	more, err := t.decideDue(ctx)
	if err != nil {
		return 0, nil, err
	}
	if _, err := t.claim(ctx, (*postgres.Tx).ClocksToRetry, 1); err != nil {
		return 0, nil, err
	}
	err = t.inTx(ctx, func(ctx context.Context, tx *postgres.Tx) error {
		err := tx.AtHome(ctx) // a copy promotes nobody
		if err != nil {
			return err
		}
		if stalled, err = tx.StalledKeys(ctx, maxClocks); err != nil {
			return err
		}
		next, err = tx.UntilNextTick(ctx)
		return err
	})
	if more {
		next = 0
	}
	return min(max(next, 0), SweepEvery), stalled, err
}

// decideDue decides batch after batch until nothing is due, or has decided
// enough for one sweep; then there may be more. Old clocks are claimed when
// none of the last minute is left. If those do not end, the oldest have a small
// batch between two of theirs: then no schedule waits for ever, and what is on
// time waits for no backlog.
func (t *Ticker) decideDue(ctx context.Context) (more bool, err error) {
	n, err := t.claim(ctx, (*postgres.Tx).ClaimClocks, 1)
	if err != nil || n == 0 {
		return false, err
	}
	atOnce := 1
	if n == maxClocks { // a burst
		atOnce = claimers
	}
	var batches atomic.Int32
	var claiming errgroup.Group
	for range atOnce {
		claiming.Go(func() error {
			for batch := batches.Add(1); batch < maxBatches; batch = batches.Add(1) {
				if batch > 1 {
					if _, err := t.claim(ctx, (*postgres.Tx).OldestClocks, oldShare); err != nil {
						return err
					}
				}
				if n, err := t.claim(ctx, (*postgres.Tx).ClaimClocks, 1); err != nil || n == 0 {
					return err
				}
			}
			return nil
		})
	}
	err = claiming.Wait()
	return err == nil && batches.Load() >= maxBatches, err
}

// promote moves up the lines of the keys. One that cannot move does not stop
// the others; a database that does not answer does.
func (t *Ticker) promote(ctx context.Context, keys []string) error {
	var failed []error
	for _, key := range keys {
		err := t.Promote(ctx, key)
		if err == nil {
			continue
		}
		failed = append(failed, fmt.Errorf("promote the line of %s: %w", key, err))
		if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || riverbeat.KindOf(err) == riverbeat.Unavailable {
			break
		}
	}
	return errors.Join(failed...)
}

// Promote moves up the line of a key if nothing stands in its way. Whoever has
// the key for long is not waited for: it may be a node that is frozen, and
// neither ticks nor other lines shall be late for it. The next sweep looks again.
func (t *Ticker) Promote(ctx context.Context, key string) error {
	err := t.inTx(ctx, func(ctx context.Context, tx *postgres.Tx) error {
		if err := tx.WaitAtMost(ctx, promoteWait); err != nil {
			return err
		}
		return t.ledger.Promote(ctx, tx, key)
	})
	if postgres.IsTimeout(err) {
		return nil
	}
	return err
}

func (t *Ticker) inTx(ctx context.Context, fn func(context.Context, *postgres.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return t.db.InTx(ctx, func(tx *postgres.Tx) error { return fn(ctx, tx) })
}

// decision is what becomes of one claimed clock.
type decision struct {
	clock   postgres.Clock
	plan    riverbeat.Plan
	entries []*ledger.Entry
}

// lastError is what is wrong with a schedule that can be planned: its
// parameters, if they break the schema that its task has now.
func (d *decision) lastError() string {
	for _, e := range d.entries {
		switch {
		case e.Run.Reason == riverbeat.InvalidParams:
			return e.Run.Error
		case e.Warning != "":
			return e.Warning
		}
	}
	return ""
}

// claim decides one batch of clocks, or the given part of one, in one
// transaction and says how many there were.
func (t *Ticker) claim(ctx context.Context, clocksOf func(*postgres.Tx, context.Context, int) ([]postgres.Clock, error), part int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	claimed, ticks := 0, 0
	decided := t.metrics.Claim()
	err := t.partitions.InTx(ctx, func(tx *postgres.Tx) error {
		clocks, err := clocksOf(tx, ctx, maxClocks/part)
		if err != nil {
			return fmt.Errorf("claim clocks: %w", err)
		}
		claimed, ticks = len(clocks), 0
		if claimed == 0 {
			return nil
		}
		decisions, err := t.plan(ctx, tx, clocks, maxTicks/part)
		if err != nil {
			return err
		}
		for _, d := range decisions {
			ticks += len(d.entries)
		}
		return t.settle(ctx, tx, decisions)
	})
	decided(claimed, err)
	if err == nil && claimed > 0 {
		t.logger.DebugContext(ctx, "claimed", "schedules", claimed, "runs", ticks)
	}
	return claimed, err
}

// plan reads the schedules of the claimed clocks, in a statement after the
// claim (joined in the first one, a concurrent edit would pair a new clock
// with old parameters), and plans them. Those that cannot be planned are
// stopped. The batch ends with the schedule that would make it larger than room,
// unless that is the first: its ticks are decided together, so it stays due.
func (t *Ticker) plan(ctx context.Context, tx *postgres.Tx, clocks []postgres.Clock, room int) ([]decision, error) {
	ids := make([]uuid.UUID, len(clocks))
	for i, c := range clocks {
		ids[i] = c.ScheduleID
	}
	schedules, definitions, err := tx.SchedulesWithDefinitions(ctx, ids)
	if err != nil {
		return nil, err
	}
	features, err := tx.Features(ctx)
	if err != nil {
		return nil, err
	}
	var decisions []decision
	for _, clock := range clocks {
		s := schedules[clock.ScheduleID]
		if s == nil || !s.Enabled {
			if err := t.rest(ctx, tx, clock); err != nil {
				return nil, err
			}
			continue
		}
		d, err := t.decide(features.Planned(s), definitions[s.TaskName], features, clock)
		if err != nil {
			if err := t.stop(ctx, tx, clock.ScheduleID, err); err != nil {
				return nil, err
			}
			continue
		}
		if len(decisions) > 0 && len(d.entries) > room {
			break
		}
		room -= len(d.entries)
		decisions = append(decisions, d)
		if text := d.lastError(); text != s.LastError {
			if text != "" {
				t.logger.WarnContext(ctx, "the parameters of a schedule break its task's schema", "schedule_id", s.ID, "error", text)
			}
			if err := tx.SetScheduleError(ctx, s.ID, text); err != nil {
				return nil, err
			}
		}
	}
	return decisions, nil
}

// decide plans one schedule. Its errors are the schedule's fault.
func (t *Ticker) decide(s *riverbeat.Schedule, definition *riverbeat.TaskDefinition, features riverbeat.Features, clock postgres.Clock) (decision, error) {
	recurrence, err := riverbeat.ParseRecurrence(s.CronExpression, s.Timezone)
	if err != nil {
		return decision{}, err
	}
	plan := s.Plan(recurrence, clock.Mark, clock.Now)
	entries, err := t.ledger.Entries(s, definition, features, plan, clock.Now)
	return decision{clock, plan, entries}, err
}

// settle records decisions and moves their clocks. When a row's data makes
// that fail, the batch is halved until the culprit is found and stopped, so
// that one schedule never holds up another.
func (t *Ticker) settle(ctx context.Context, tx *postgres.Tx, decisions []decision) error {
	if len(decisions) == 0 {
		return nil
	}
	err := tx.Savepoint(ctx, func(tx *postgres.Tx) error {
		var entries []*ledger.Entry
		plans := make(map[uuid.UUID]riverbeat.Plan, len(decisions))
		for _, d := range decisions {
			entries = append(entries, d.entries...)
			plans[d.clock.ScheduleID] = d.plan
		}
		if err := t.partitions.Need(tx, ledger.Times(entries)...); err != nil {
			return err
		}
		if err := t.ledger.Record(ctx, tx, decisions[0].clock.Now, entries); err != nil {
			return err
		}
		return tx.SetClocks(ctx, plans)
	})
	switch {
	case err == nil || !postgres.IsRowFault(err):
		return err
	case len(decisions) == 1:
		return t.stop(ctx, tx, decisions[0].clock.ScheduleID, err)
	}
	half := len(decisions) / 2
	if err := t.settle(ctx, tx, decisions[:half]); err != nil {
		return err
	}
	return t.settle(ctx, tx, decisions[half:])
}

// stop sets a schedule aside that cannot be planned or recorded: it is tried
// again in an hour and at each edit, and the ticks in between are a gap.
func (t *Ticker) stop(ctx context.Context, tx *postgres.Tx, id uuid.UUID, cause error) error {
	t.logger.ErrorContext(ctx, "schedule stopped", "schedule_id", id, "error", cause)
	if err := tx.StopClock(ctx, id); err != nil {
		return err
	}
	return tx.SetScheduleError(ctx, id, reasonOf(cause))
}

// rest lets the clock of a schedule stand that was disabled in psql: the
// catalog would have done so. Left due, it would be claimed again at once, for
// ever. Whether it is enabled again is looked up in an hour.
func (t *Ticker) rest(ctx context.Context, tx *postgres.Tx, clock postgres.Clock) error {
	mark := clock.Now
	if clock.Mark.After(mark) { // the database's clock has jumped back
		mark = clock.Mark
	}
	plans := map[uuid.UUID]riverbeat.Plan{clock.ScheduleID: {Mark: mark}}
	if err := tx.SetClocks(ctx, plans); err != nil {
		return err
	}
	return tx.StopClock(ctx, clock.ScheduleID)
}

// reasonOf is what people are shown of an error: never a driver's text.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*riverbeat.Error](err); ok {
		return e.Error()
	}
	return "The database refuses the rows of its runs; see the log."
}
