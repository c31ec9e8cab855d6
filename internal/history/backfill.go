package history

import (
	"context"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Backfill begins a backfill of the ticks of a schedule, enabled or not; of given,
// From, To, ExecutionPolicy and OnlyMissing are read. The nodes go on with it, at
// their own pace. One without ticks is finished at once. It is a Conflict (runs_sealed)
// while a week of them is on its way out.
func (h *History) Backfill(ctx context.Context, scheduleID uuid.UUID, given riverbeat.Backfill) (*riverbeat.Backfill, error) {
	var made *riverbeat.Backfill
	err := h.db.InTx(ctx, func(tx *postgres.Tx) error {
		if err := tx.AtHome(ctx); err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if err := given.Validate(now); err != nil {
			return err
		}
		s, err := tx.Schedule(ctx, scheduleID)
		if err != nil {
			return err
		}
		r, err := s.Recurrence()
		if err != nil {
			return err
		}
		b := given
		b.Of(s)
		b.Total = len(b.NextTicks(r, riverbeat.MaxBackfillTicks+1))
		if b.Total > riverbeat.MaxBackfillTicks {
			return riverbeat.InvalidField("too_many_ticks", "/to", "there are more than %d ticks; go in parts", riverbeat.MaxBackfillTicks)
		}
		if b.State = riverbeat.BackfillRunning; b.Total == 0 {
			b.State = riverbeat.BackfillFinished
		} else if err := takesRuns(ctx, tx, b.From, b.To); err != nil {
			return err
		}
		if made, err = tx.InsertBackfill(ctx, &b); err != nil {
			return err
		}
		return tx.Audit(ctx, "backfill.create", backfillObject(made), nil, auditedBackfillOf(made))
	})
	return made, err
}

// takesRuns is a Conflict if a week between two times is on its way out: a run of then could
// not begin before it is gone, and nobody could say any more which ran.
func takesRuns(ctx context.Context, tx *postgres.Tx, from, to time.Time) error {
	weeks, err := tx.Weeks(ctx)
	if err != nil {
		return err
	}
	for _, w := range weeks {
		if w.State != postgres.WeekOpen && w.From.Before(to) && from.Before(w.Until) {
			return riverbeat.Errorf(riverbeat.Conflict, "runs_sealed",
				"The runs of %s are about to be dropped, or are detached: none can begin there. Leave that week out, or try again when it is gone.", w)
		}
	}
	return nil
}

// ReadBackfill reads a backfill; NotFound if there is none.
func (h *History) ReadBackfill(ctx context.Context, id uuid.UUID) (b *riverbeat.Backfill, err error) {
	err = h.db.Read(ctx, func(tx *postgres.Tx) error {
		b, err = tx.Backfill(ctx, id)
		return err
	})
	return b, err
}

// Backfills reads a page of backfills, newest first, without their runs; next is nil
// on the last one.
func (h *History) Backfills(ctx context.Context, f *postgres.BackfillFilter) (page []*riverbeat.Backfill, next *postgres.BackfillCursor, err error) {
	more := *f
	more.Limit++
	err = h.db.Read(ctx, func(tx *postgres.Tx) error {
		page, err = tx.ListBackfills(ctx, &more)
		return err
	})
	if len(page) > f.Limit {
		page = page[:f.Limit]
		last := page[f.Limit-1]
		next = &postgres.BackfillCursor{CreatedAt: last.CreatedAt, ID: last.ID}
	}
	return page, next, err
}

// CancelBackfill ends a backfill: no more of its ticks are decided, and its runs
// that have not begun are cancelled; what runs goes on. It is a Conflict if it is
// over.
func (h *History) CancelBackfill(ctx context.Context, id uuid.UUID) (*riverbeat.Backfill, error) {
	var cancelled *riverbeat.Backfill
	err := h.db.InTx(ctx, func(tx *postgres.Tx) error {
		b, err := tx.LockBackfill(ctx, id)
		if err != nil {
			return err
		}
		if b.State != riverbeat.BackfillRunning {
			return riverbeat.Errorf(riverbeat.Conflict, "backfill_ended", "The backfill is over already (%s).", b.State)
		}
		idle, err := tx.IdleBackfillRuns(ctx, b)
		if err != nil {
			return err
		}
		for _, run := range idle {
			_, err := h.ledger.Cancel(ctx, tx, run)
			if kind := riverbeat.KindOf(err); err != nil && kind != riverbeat.Conflict && kind != riverbeat.NotFound {
				return err // else it has ended meanwhile
			}
		}
		before := auditedBackfillOf(b)
		b.State, b.Reason = riverbeat.BackfillCancelled, riverbeat.CancelledByUser
		if cancelled, err = tx.EndBackfill(ctx, b); err != nil {
			return err
		}
		return tx.Audit(ctx, "backfill.cancel", backfillObject(b), before, auditedBackfillOf(cancelled))
	})
	return cancelled, err
}
