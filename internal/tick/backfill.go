package tick

import (
	"context"
	"fmt"
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
	maxBackfills = 100
)

// RunBackfills goes on with the backfills of the installation until ctx ends, a
// batch of each at a time. A failure is logged and tried again.
//
// It has a goroutine of its own, for no tick shall wait for a backfill.
func (t *Ticker) RunBackfills(ctx context.Context) {
	timer := time.NewTicker(backfillEvery)
	defer timer.Stop()
	fault := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		text := ""
		if err := t.Backfill(ctx); err != nil && ctx.Err() == nil {
			text = riverbeat.Explain(err)
		}
		if text != "" && text != fault {
			t.logger.ErrorContext(ctx, "backfills do not go on", "error", text)
		}
		fault = text
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
	for _, id := range running {
		if err := t.goOn(ctx, id); err != nil {
			return fmt.Errorf("go on with backfill %s: %w", id, err)
		}
	}
	return nil
}

// goOn decides the next batch of a backfill, in one transaction with its mark.
func (t *Ticker) goOn(ctx context.Context, id uuid.UUID) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return t.partitions.InTx(ctx, func(tx *postgres.Tx) error {
		if ticking, err := tx.Ticking(ctx); err != nil || !ticking {
			return err
		}
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
		fault := b.LastError
		b.LastError = ""
		moved, err := t.decideBackfill(ctx, tx, b, s)
		if e := riverbeat.KindOf(err); e == riverbeat.Invalid || postgres.IsRowFault(err) {
			moved, b.LastError, err = false, riverbeat.Explain(err), nil
		}
		if err != nil {
			return err
		}
		if moved || b.LastError != fault {
			return tx.MoveBackfill(ctx, b)
		}
		return nil
	})
}

// decideBackfill decides as many ticks as there is room for, and tells whether the
// backfill has moved. When there are none left and all its runs have ended, it is
// over.
func (t *Ticker) decideBackfill(ctx context.Context, tx *postgres.Tx, b *riverbeat.Backfill, s *riverbeat.Schedule) (moved bool, err error) {
	r, err := riverbeat.ParseRecurrence(b.CronExpression, b.Timezone)
	if err != nil {
		return false, err
	}
	definitions, err := tx.TaskDefinitions(ctx, []string{s.TaskName})
	if err != nil {
		return false, err
	}
	d := definitions[s.TaskName]
	room, err := backfillRoom(ctx, tx, d)
	if err != nil {
		return false, err
	}
	room -= b.Live()
	ticks := b.NextTicks(s, r, max(room, 1))
	if len(ticks) == 0 {
		if b.Live() == 0 {
			b.State = riverbeat.BackfillFinished
			_, err = tx.EndBackfill(ctx, b)
		}
		return false, err
	}
	if room <= 0 {
		return false, nil
	}
	if err := t.partitions.Need(ticks...); err != nil {
		return false, err
	}
	ran := map[int64]bool{}
	if b.OnlyMissing {
		if ran, err = tx.TicksThatRan(ctx, s.ID, ticks); err != nil {
			return false, err
		}
	}
	if b.ExecutionPolicy != nil {
		s.ExecutionPolicy = *b.ExecutionPolicy
	}
	now, err := tx.Now(ctx)
	if err != nil {
		return false, err
	}
	var entries []*ledger.Entry
	for _, at := range ticks {
		if ran[at.UnixMilli()] {
			continue
		}
		e, err := t.ledger.Entry(ledger.Request{
			Schedule: s, Definition: d, Trigger: riverbeat.TriggerBackfill, At: at, BackfillID: &b.ID, RequestedBy: b.RequestedBy,
		}, now)
		if err != nil {
			return false, err
		}
		entries = append(entries, e)
	}
	err = tx.Savepoint(ctx, func(tx *postgres.Tx) error { return t.ledger.Record(ctx, tx, now, entries) })
	if err != nil {
		return false, err
	}
	b.DecidedUntil = &ticks[len(ticks)-1]
	b.Decided += len(entries)
	b.LeftOut += len(ticks) - len(entries)
	return true, nil
}

// backfillRoom is how many runs of a backfill may be under way: no more than half of
// what the live nodes can execute at once, so that there always is room for ticks.
func backfillRoom(ctx context.Context, tx *postgres.Tx, d *riverbeat.TaskDefinition) (int, error) {
	queue := riverbeat.DefaultQueue
	if d != nil {
		queue = d.Queue
	}
	capacity, err := tx.QueueCapacity(ctx, queue)
	return min(max(capacity/2, 1), backfillAtOnce), err
}
