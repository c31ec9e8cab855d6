// Package history asks: what became of ticks and requests, and it asks for
// runs now, for their end, and for another try. Each exported method is one use
// case, in one transaction if it changes something.
package history

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"riverbeat/internal/ledger"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// History is safe for concurrent use.
type History struct {
	db         *postgres.DB
	ledger     *ledger.Ledger
	partitions *postgres.Partitions
	forecasts  forecasts
}

// New makes a History.
func New(db *postgres.DB, l *ledger.Ledger) *History {
	return &History{db: db, ledger: l, partitions: postgres.NewPartitions(db)}
}

// Run reads a run; NotFound if there is none.
func (h *History) Run(ctx context.Context, id uuid.UUID) (*riverbeat.Run, error) {
	var r *riverbeat.Run
	err := h.db.Read(ctx, func(tx *postgres.Tx) error {
		var err error
		r, err = tx.Run(ctx, id)
		return err
	})
	return r, err
}

// RunDetail reads a run with what else there is to say of it; NotFound if there is
// none.
func (h *History) RunDetail(ctx context.Context, id uuid.UUID) (*riverbeat.RunDetail, error) {
	const maxBlocked = 100
	d := &riverbeat.RunDetail{}
	err := h.db.Read(ctx, func(tx *postgres.Tx) (err error) {
		if d.Run, err = tx.Run(ctx, id); err != nil {
			return err
		}
		if d.Attempts, err = tx.Attempts(ctx, d.Run); err != nil {
			return err
		}
		d.Blocks, err = tx.BlockedRuns(ctx, d.Run, maxBlocked)
		return err
	})
	return d, err
}

// ListRuns reads a page of runs, newest nominal time first; next is where the next
// one begins, nil on the last one. A page with a rare state, say, may be short, or
// empty, and not be the last. With a schedule that neither exists nor has runs it
// is NotFound.
func (h *History) ListRuns(ctx context.Context, f *postgres.RunFilter) (page []*riverbeat.Run, next *uuid.UUID, err error) {
	more := *f
	more.Limit++
	err = h.db.Read(ctx, func(tx *postgres.Tx) error {
		page, next, err = tx.SearchRuns(ctx, &more)
		if err == nil && next == nil && len(page) == 0 && f.ScheduleID != nil && f.After == nil {
			_, err = tx.Schedule(ctx, *f.ScheduleID)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if len(page) > f.Limit {
		page = page[:f.Limit]
		next = &page[len(page)-1].ID
	}
	return page, next, nil
}

// Overrides change one run of a schedule against the schedule.
type Overrides struct {
	TaskParams      json.RawMessage   // nil: the schedule's
	ExecutionPolicy *riverbeat.Policy // nil: the schedule's
}

// RunNow runs a schedule now, enabled or not, through the same door as its
// ticks: the answer may be a run that was skipped or waits. On a node on hold
// it is Unavailable. It is the actor of ctx who asks.
func (h *History) RunNow(ctx context.Context, scheduleID uuid.UUID, o Overrides) (*riverbeat.Run, error) {
	var run *riverbeat.Run
	err := h.partitions.InTx(ctx, func(tx *postgres.Tx) error {
		if err := tx.AtHome(ctx); err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if err := h.partitions.Need(tx, now); err != nil {
			return err
		}
		s, err := tx.Schedule(ctx, scheduleID)
		if err != nil {
			return err
		}
		if o.TaskParams != nil {
			s.TaskParams = o.TaskParams
		}
		if o.ExecutionPolicy != nil {
			s.ExecutionPolicy = *o.ExecutionPolicy
		}
		definitions, err := tx.TaskDefinitions(ctx, []string{s.TaskName})
		if err != nil {
			return err
		}
		d := definitions[s.TaskName]
		// A person is told what is wrong; only a tick fails by itself.
		features, err := tx.Features(ctx)
		if err != nil {
			return err
		}
		if _, _, err := h.ledger.Schemas().EffectiveOf(s, d, features); err != nil {
			return err
		}
		actor, _ := postgres.ActorOf(ctx)
		entry, err := h.ledger.Entry(ledger.Request{
			Schedule: s, Definition: d, Features: features, Trigger: riverbeat.TriggerManual, At: now, RequestedBy: actor.Name,
		}, now)
		if err != nil {
			return err
		}
		run = entry.Run
		if err := h.ledger.Record(ctx, tx, now, []*ledger.Entry{entry}); err != nil {
			return err
		}
		return audit(ctx, tx, "run.create", nil, run)
	})
	return run, err
}

// Cancel cancels a run that has not ended; Conflict if it has. A running one is
// asked to stop, and may be asked again; it ends when its task obeys.
func (h *History) Cancel(ctx context.Context, id uuid.UUID) (*riverbeat.Run, error) {
	return h.act(ctx, id, "run.cancel", func(tx *postgres.Tx) (*riverbeat.Run, error) {
		return h.ledger.Cancel(ctx, tx, id)
	})
}

// Retry runs an ended run once more, as the same run. It is a Conflict if the
// run has not ended or never ran, or if others of its key are in the way, and
// Unavailable on a node on hold.
func (h *History) Retry(ctx context.Context, id uuid.UUID) (*riverbeat.Run, error) {
	return h.act(ctx, id, "run.retry", func(tx *postgres.Tx) (*riverbeat.Run, error) {
		if err := tx.AtHome(ctx); err != nil {
			return nil, err
		}
		return h.ledger.Retry(ctx, tx, id)
	})
}

// act does something to a run, and writes down who has done it.
func (h *History) act(ctx context.Context, id uuid.UUID, action string, do func(*postgres.Tx) (*riverbeat.Run, error)) (*riverbeat.Run, error) {
	var after *riverbeat.Run
	err := h.db.InTx(ctx, func(tx *postgres.Tx) error {
		before, err := tx.Run(ctx, id)
		if err != nil {
			return err
		}
		if after, err = do(tx); err != nil {
			return err
		}
		return audit(ctx, tx, action, before, after)
	})
	return after, err
}
