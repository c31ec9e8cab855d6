package tick

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/ledger"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const (
	// backfillEvery is how often backfills are looked at.
	backfillEvery = time.Second
	// backfillAtOnce bounds the runs of one backfill that have not ended, and so
	// what one of its transactions decides.
	backfillAtOnce = 100
	// maxBackfills bounds how many go on at once; others wait for their turn.
	maxBackfills = 1_000
	// forgetEvery is how often answers to requests are forgotten that are kept no
	// longer, and maxForgotten how many in one transaction.
	forgetEvery  = time.Minute
	maxForgotten = 1_000
)

// RunBackfills goes on with the backfills of the installation until ctx ends, a
// batch of each at a time. A failure is logged and tried again.
//
// It has a goroutine of its own, for no tick shall wait for a backfill.
func (t *Ticker) RunBackfills(ctx context.Context) {
	timer := time.NewTicker(backfillEvery)
	defer timer.Stop()
	var fault fault
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		fault.log(ctx, t.logger, "backfills do not go on", t.Backfill(ctx))
	}
}

// Backfill decides the next ticks of each backfill that has room for them. A
// backfill that cannot go on says so in its LastError and stops no other.
func (t *Ticker) Backfill(ctx context.Context) error {
	var running []uuid.UUID
	err := t.inTx(ctx, func(ctx context.Context, tx *postgres.Tx) (err error) {
		running, err = tx.RunningBackfills(ctx, maxBackfills)
		return err
	})
	if err != nil {
		return fmt.Errorf("read backfills: %w", err)
	}
	var failed []error
	for _, id := range running {
		if err := t.goOn(ctx, id); err != nil {
			failed = append(failed, fmt.Errorf("go on with backfill %s: %w", id, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// goOn decides the next batch of a backfill, in one transaction with its mark.
func (t *Ticker) goOn(ctx context.Context, id uuid.UUID) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return t.partitions.InTx(ctx, func(tx *postgres.Tx) error {
		b, err := tx.ClaimBackfill(ctx, id)
		if err != nil || b == nil {
			return err
		}
		s, err := tx.Schedule(ctx, b.ScheduleID)
		if riverbeat.KindOf(err) == riverbeat.NotFound {
			// It was deleted in psql, or by a node that knew nothing of backfills.
			b.State, b.Reason = riverbeat.BackfillCancelled, riverbeat.ScheduleDeleted
			_, err = tx.EndBackfill(ctx, b)
			return err
		}
		if err != nil {
			return err
		}
		before := *b
		b.LastError = ""
		err = tx.Savepoint(ctx, func(tx *postgres.Tx) error { return t.decideBackfill(ctx, tx, b, s) })
		if riverbeat.KindOf(err) == riverbeat.Invalid || postgres.IsRowFault(err) {
			fault := riverbeat.Explain(err)
			*b, err = before, nil
			b.LastError = fault
		}
		if err != nil || b.State != riverbeat.BackfillRunning || reflect.DeepEqual(*b, before) {
			return err
		}
		return tx.MoveBackfill(ctx, b)
	})
}

// decideBackfill decides as many ticks as there is room for, and moves the marks of
// the backfill. When no ticks are left and all its runs have ended, it is over.
func (t *Ticker) decideBackfill(ctx context.Context, tx *postgres.Tx, b *riverbeat.Backfill, s *riverbeat.Schedule) error {
	r, err := riverbeat.ParseRecurrence(b.CronExpression, b.Timezone)
	if err != nil {
		return err
	}
	live, err := tx.LiveBackfillRuns(ctx, b)
	if err != nil {
		return err
	}
	definitions, err := tx.TaskDefinitions(ctx, []string{s.TaskName})
	if err != nil {
		return err
	}
	d := definitions[s.TaskName]
	features, err := tx.Features(ctx)
	if err != nil {
		return err
	}
	room, err := backfillRoom(ctx, tx, d, live)
	if err != nil {
		return err
	}
	ticks := b.NextTicks(r, max(room, 1))
	switch {
	case len(ticks) == 0 && live == 0:
		b.State = riverbeat.BackfillFinished
		_, err = tx.EndBackfill(ctx, b)
		return err
	case len(ticks) == 0 || room <= 0:
		return nil
	}
	if ticking, err := tx.Ticking(ctx); err != nil || !ticking {
		return err
	}
	ran := map[int64]bool{}
	if b.OnlyMissing {
		if ticks, ran, err = missing(ctx, tx, s, ticks); err != nil || len(ticks) == 0 {
			return err
		}
	}
	if err := t.partitions.Need(tx, ticks...); err != nil {
		return err
	}
	s.ExecutionPolicy = b.PolicyFor(s.ExecutionPolicy)
	now, err := tx.Now(ctx)
	if err != nil {
		return err
	}
	var entries []*ledger.Entry
	for _, at := range ticks {
		if ran[at.UnixMilli()] {
			continue
		}
		e, err := t.ledger.Entry(ledger.Request{
			Schedule: s, Definition: d, Features: features, Trigger: riverbeat.TriggerBackfill, At: at, BackfillID: &b.ID, RequestedBy: b.RequestedBy,
		}, now)
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	if err := t.ledger.Record(ctx, tx, now, entries); err != nil {
		return err
	}
	b.DecidedUntil = &ticks[len(ticks)-1]
	b.Decided += len(entries)
	b.LeftOut += len(ticks) - len(entries)
	return nil
}

// missing tells which of the ticks ran, or will, and leaves out those from the first
// on that the schedule has not decided itself yet: they may be about to run. The mark
// is read before the runs, and commits with them.
func missing(ctx context.Context, tx *postgres.Tx, s *riverbeat.Schedule, ticks []time.Time) (decided []time.Time, ran map[int64]bool, err error) {
	clock, _, err := tx.ClockState(ctx, s.ID)
	if err != nil {
		return nil, nil, err
	}
	if clock != nil && clock.NextRunAt != nil {
		n := slices.IndexFunc(ticks, func(at time.Time) bool { return !at.Before(*clock.NextRunAt) })
		if n >= 0 {
			ticks = ticks[:n]
		}
	}
	ran, err = tx.TicksThatRan(ctx, s.ID, ticks)
	return ticks, ran, err
}

// backfillRoom is how many more runs a backfill may have of which so many have not
// ended: no more jobs of backfills than half of what the live nodes can execute at
// once in a queue, so that there always is room for ticks.
func backfillRoom(ctx context.Context, tx *postgres.Tx, d *riverbeat.TaskDefinition, live int) (int, error) {
	queue := riverbeat.DefaultQueue
	if d != nil {
		queue = d.Queue
	}
	capacity, jobs, err := tx.BackfillRoom(ctx, queue)
	return min(max(capacity/2, 1)-jobs, backfillAtOnce-live), err
}

// RunForgetting forgets the answers to requests that are kept no longer, until ctx
// ends. A failure is logged and tried again.
func (t *Ticker) RunForgetting(ctx context.Context) {
	timer := time.NewTicker(forgetEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		for n := maxForgotten; n == maxForgotten; {
			err := t.inTx(ctx, func(ctx context.Context, tx *postgres.Tx) (err error) {
				n, err = tx.ForgetAnswers(ctx, maxForgotten)
				return err
			})
			if err != nil {
				n = 0
				t.logger.WarnContext(ctx, "answers to requests are kept for too long", "error", riverbeat.Explain(err))
			}
		}
	}
}
