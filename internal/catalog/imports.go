package catalog

import (
	"context"
	"encoding/json"

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
	// Enable says that it is to be as Schedule.Enabled has it; else it comes disabled, and
	// if it has come before it stays as it is.
	Enable bool
}

// Imported is what became of an Import.
type Imported string

// What becomes of imports.
const (
	ImportCreated   Imported = "created"
	ImportChanged   Imported = "changed"   // it has changed there, and so it has here
	ImportUnchanged Imported = "unchanged" // nothing was written
	ImportDeleted   Imported = "deleted"   // somebody has deleted it here: nothing was written
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
	s.Enabled = s.Enabled && in.Enable
	line, err := tx.ImportedLine(ctx, s.ID)
	if err != nil {
		return "", err
	}
	_, err = tx.Schedule(ctx, s.ID)
	exists := err == nil
	switch {
	case err != nil && riverbeat.KindOf(err) != riverbeat.NotFound:
		return "", err
	case exists && line == nil:
		return "", riverbeat.Errorf(riverbeat.Conflict, "schedule_not_imported",
			"There is a schedule %s already, and it was not imported.", s.ID)
	case !exists && line != nil:
		return ImportDeleted, nil
	case !exists:
		if _, err := c.create(ctx, tx, &s); err != nil {
			return "", err
		}
		return ImportCreated, tx.SetImportedLine(ctx, s.ID, in.Source, in.Line)
	case sameJSON(line, in.Line):
		return ImportUnchanged, nil
	}
	_, err = c.change(ctx, tx, s.ID, func(now *riverbeat.Schedule) error {
		was := *now
		*now = s
		now.Version, now.LastError, now.CreatedAt, now.UpdatedAt = was.Version, was.LastError, was.CreatedAt, was.UpdatedAt
		now.Limits, now.Alerts, now.ManagedBy = was.Limits, was.Alerts, was.ManagedBy // which are not there
		if !in.Enable {
			now.Enabled = was.Enabled
		}
		if now.Category == "" {
			now.Category = was.Category
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return ImportChanged, tx.SetImportedLine(ctx, s.ID, in.Source, in.Line)
}
