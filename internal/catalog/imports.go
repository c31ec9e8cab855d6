package catalog

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Import is a schedule that comes from another scheduler.
type Import struct {
	Schedule *riverbeat.Schedule // its ID is that by which it is known when it comes again
	Source   string              // where it stood
	// Line is what it was there: a JSON object. It is written again only when that has
	// changed.
	Line json.RawMessage
	// Apply writes over a schedule that has come before what it has there; what it has no
	// word for there stays.
	Apply func(to *riverbeat.Schedule)
	// Enable says that it is to be enabled if Schedule.Enabled has it so, and Shadow that it
	// is to tick in shadow then, if it does not run already. With neither it comes disabled,
	// and if it has come before it stays as it is.
	Enable, Shadow bool
}

// Imported is what became of an Import.
type Imported string

// What becomes of imports.
const (
	ImportCreated   Imported = "created"
	ImportChanged   Imported = "changed"   // it has changed there, and so it has here
	ImportUnchanged Imported = "unchanged" // nothing was written
	ImportDeleted   Imported = "deleted"   // somebody has deleted it here: nothing was written
	ImportOurs      Imported = "ours"      // it was handed over: nothing was written
)

// Import takes over a schedule from elsewhere, in one transaction. What people have changed
// here stays until it changes there.
func (c *Catalog) Import(ctx context.Context, in Import) (became Imported, err error) {
	err = c.partitions.InTx(ctx, func(tx *postgres.Tx) error {
		became, err = c.importIn(ctx, tx, &in)
		return err
	})
	return became, err
}

func (c *Catalog) importIn(ctx context.Context, tx *postgres.Tx, in *Import) (Imported, error) {
	s := *in.Schedule
	s.Enabled = s.Enabled && (in.Enable || in.Shadow)
	s.Shadow = s.Enabled && in.Shadow
	line, source, err := tx.ImportedLine(ctx, s.ID)
	if err != nil {
		return "", err
	}
	stored, err := tx.Schedule(ctx, s.ID)
	exists := err == nil
	switch {
	case err != nil && riverbeat.KindOf(err) != riverbeat.NotFound:
		return "", err
	case exists && line == nil:
		return "", riverbeat.Errorf(riverbeat.Conflict, "schedule_not_imported",
			"There is a schedule %s already, and it was not imported.", s.ID)
	case line != nil && source != in.Source:
		return "", riverbeat.Errorf(riverbeat.Conflict, "schedule_from_elsewhere",
			"The schedule %s was imported from %s, where it has the same id.", s.ID, source)
	case !exists && line != nil:
		return ImportDeleted, nil
	case !exists:
		if _, err := c.create(ctx, tx, &s); err != nil {
			return "", err
		}
		return ImportCreated, tx.SetImportedLine(ctx, s.ID, in.Source, in.Line)
	}
	cut, err := tx.Cut(ctx, s.ID)
	if err != nil || cut.Over {
		return ImportOurs, err
	}
	changed := !sameJSON(line, in.Line)
	start := s.Enabled && (!stored.Enabled || stored.Shadow && !s.Shadow)
	if s.Shadow && cut.At != nil {
		start = false // what has begun to be handed over must not be ticked away in shadow
	}
	if !changed && !start {
		return ImportUnchanged, nil
	}
	_, err = c.change(ctx, tx, s.ID, func(now *riverbeat.Schedule) error {
		if changed {
			in.Apply(now)
		}
		if start {
			now.Enabled, now.Shadow = true, s.Shadow
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return ImportChanged, tx.SetImportedLine(ctx, s.ID, in.Source, in.Line)
}

// Cut reads how far the handover of an imported schedule has come; nil if it was not
// imported.
func (c *Catalog) Cut(ctx context.Context, id uuid.UUID) (cut *postgres.Cut, err error) {
	err = c.db.InTx(ctx, func(tx *postgres.Tx) error {
		cut, err = tx.Cut(ctx, id)
		return err
	})
	return cut, err
}

// BeginCut notes that schedules are about to be handed over: the ticks after at are ours if
// the transaction xid of the other scheduler's database commits. It may be noted again.
// Those in shadow are disabled, for no tick after at may be decided there; what people have
// asked of them goes on.
func (c *Catalog) BeginCut(ctx context.Context, ids []uuid.UUID, at time.Time, xid string) error {
	return c.partitions.InTx(ctx, func(tx *postgres.Tx) error {
		found, err := tx.Schedules(ctx, ids)
		if err != nil {
			return err
		}
		shadows := slices.DeleteFunc(slices.Collect(maps.Keys(found)), func(id uuid.UUID) bool { return !found[id].Shadow })
		if err := c.endShadows(ctx, tx, shadows, at); err != nil {
			return err
		}
		return tx.BeginCut(ctx, ids, at, xid)
	})
}

// endShadows disables those of the schedules that are in shadow. Their ticks up to at are
// decided.
func (c *Catalog) endShadows(ctx context.Context, tx *postgres.Tx, ids []uuid.UUID, at time.Time) error {
	held, err := hold(ctx, tx)
	if err != nil {
		return err
	}
	stored, clocks, err := tx.LockSchedules(ctx, ids)
	if err != nil {
		return err
	}
	if err := tx.SettleAt(ctx, at); err != nil {
		return err
	}
	plans := map[uuid.UUID]riverbeat.Plan{}
	for id, s := range stored {
		if !s.Shadow {
			continue
		}
		clock := clocks[id]
		clock.Now = at
		if err := c.settle(ctx, held, s, clock); err != nil {
			return err
		}
		disabled := *s
		disabled.Enabled, disabled.Shadow = false, false
		if _, err := tx.UpdateSchedule(ctx, &disabled); err != nil {
			return err
		}
		plans[id] = riverbeat.Plan{Mark: later(clock.Mark, at)}
	}
	return tx.SetClocks(ctx, plans)
}

// ForgetCut takes back what BeginCut has noted, for a transaction that was undone. What is
// handed over stays so.
func (c *Catalog) ForgetCut(ctx context.Context, id uuid.UUID, xid string) error {
	return c.db.InTx(ctx, func(tx *postgres.Tx) error { return tx.ForgetCut(ctx, id, xid) })
}

// CutOver enables an imported schedule from the time on that BeginCut has noted: the ticks
// after it are decided here, also those that are past by now. What is handed over already
// stays as it is.
func (c *Catalog) CutOver(ctx context.Context, id uuid.UUID) error {
	return c.partitions.InTx(ctx, func(tx *postgres.Tx) error {
		// The clock first, as everybody.
		s, _, err := tx.LockSchedule(ctx, id)
		if err != nil {
			return err
		}
		cut, err := tx.Cut(ctx, id)
		switch {
		case err != nil:
			return err
		case cut == nil || cut.At == nil:
			return riverbeat.Errorf(riverbeat.Conflict, "cut_not_begun", "The schedule %s is not being handed over.", id)
		case cut.Over:
			return nil
		}
		// It may have ticked here since, in shadow or for somebody who has enabled it.
		mark, err := tx.LastTick(ctx, id, *cut.At)
		if err != nil {
			return err
		}
		if !s.Runs() {
			if err := c.enableFrom(ctx, tx, s, mark); err != nil {
				return err
			}
		}
		return tx.EndCut(ctx, id)
	})
}

// enableFrom enables a schedule, which is locked, for the ticks after mark.
func (c *Catalog) enableFrom(ctx context.Context, tx *postgres.Tx, s *riverbeat.Schedule, mark time.Time) error {
	if err := tx.SettleAt(ctx, mark); err != nil {
		return err
	}
	held, err := hold(ctx, tx)
	if err != nil {
		return err
	}
	definition, err := held.definitionOf(ctx, s.TaskName)
	if err != nil {
		return err
	}
	s.Enabled, s.Shadow = true, false
	recurrence, warning, err := c.check(held, s, definition)
	if err != nil {
		return err
	}
	changed, err := tx.UpdateSchedule(ctx, s)
	if err != nil {
		return err
	}
	if err := c.warn(ctx, tx, changed, warning); err != nil {
		return err
	}
	return tx.SetClocks(ctx, map[uuid.UUID]riverbeat.Plan{s.ID: {Mark: mark, Next: s.NextTick(recurrence, mark)}})
}
