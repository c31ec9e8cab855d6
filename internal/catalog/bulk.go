package catalog

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// MaxBulk is how many schedules one Bulk may be about: their ticks wait until it
// has committed, and so do those of others with the same lock keys.
const MaxBulk = 500

// Selection says which schedules a Bulk is about: those with the ids, or, if IDs is
// nil, all that the filter picks. Sort, After and Limit of it are not read.
type Selection struct {
	IDs    []uuid.UUID
	Filter postgres.ScheduleFilter
}

// BulkItem is what became of one schedule of a Bulk.
type BulkItem struct {
	ID   uuid.UUID
	Name string // "" if there is no such schedule
	// Done tells that something was changed, or a run was made.
	Done bool
	Run  *riverbeat.Run   // that was made; nil: none
	Err  *riverbeat.Error // why nothing was done; nil: it was, or there was nothing to do
}

// Bulk does something to each of many schedules in one transaction: do is called
// with a context within it. What breaks a rule or stands in the way of one item is
// undone and told in the item; any other error undoes all. The items come in the
// order of their ids, in which they are locked. More than MaxBulk are Invalid.
func (c *Catalog) Bulk(ctx context.Context, which Selection, do func(ctx context.Context, id uuid.UUID) (BulkItem, error)) (items []BulkItem, err error) {
	err = c.db.InTx(ctx, func(tx *postgres.Tx) error {
		found, err := selected(ctx, tx, which)
		if err != nil {
			return err
		}
		// Clocks come before keys: claims pass them over instead of waiting for a key
		// that one of them has.
		ids := make([]uuid.UUID, len(found))
		for i, s := range found {
			ids[i] = s.ID
		}
		if err := tx.LockClocks(ctx, ids); err != nil {
			return err
		}
		items = make([]BulkItem, len(found))
		for i, s := range found {
			items[i] = s
			if s.Err != nil {
				continue
			}
			err := tx.Savepoint(ctx, func(tx *postgres.Tx) error {
				done, err := do(tx.Within(ctx), s.ID)
				items[i].Done, items[i].Run = done.Done, done.Run
				return err
			})
			if err != nil {
				items[i].Done, items[i].Run = false, nil
				if items[i].Err = itsOwn(err); items[i].Err == nil {
					return err
				}
			}
		}
		return nil
	})
	return items, err
}

// itsOwn is an error that one item has for itself; nil if it concerns all.
func itsOwn(err error) *riverbeat.Error {
	e, ok := errors.AsType[*riverbeat.Error](err)
	if !ok {
		return nil
	}
	switch e.Kind {
	case riverbeat.Invalid, riverbeat.NotFound, riverbeat.Conflict, riverbeat.PreconditionFailed:
		return e
	default:
		return nil
	}
}

// selected finds the schedules, in the order of their ids.
func selected(ctx context.Context, tx *postgres.Tx, which Selection) ([]BulkItem, error) {
	var items []BulkItem
	if which.IDs != nil {
		if len(which.IDs) > MaxBulk {
			return nil, riverbeat.InvalidField("too_many_schedules", "/ids", "must be at most %d", MaxBulk)
		}
		found, err := tx.Schedules(ctx, which.IDs)
		if err != nil {
			return nil, err
		}
		for _, id := range which.IDs {
			item := BulkItem{ID: id}
			if s := found[id]; s != nil {
				item.Name = s.Name
			} else {
				item.Err = riverbeat.Errorf(riverbeat.NotFound, "schedule_not_found", "There is no schedule %s.", id)
			}
			items = append(items, item)
		}
	} else {
		f := which.Filter
		f.Sort, f.Reverse, f.After, f.Limit = postgres.SortCreatedAt, false, nil, MaxBulk+1
		found, err := tx.ListSchedules(ctx, &f)
		if err != nil {
			return nil, err
		}
		if len(found) > MaxBulk {
			return nil, riverbeat.InvalidField("too_many_schedules", "/filter", "picks more than %d schedules; narrow it down, or go in parts", MaxBulk)
		}
		for _, s := range found {
			items = append(items, BulkItem{ID: s.ID, Name: s.Name})
		}
	}
	slices.SortFunc(items, func(a, b BulkItem) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return items, nil
}
