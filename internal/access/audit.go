package access

import (
	"context"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Audit reads a page of the audit trail, newest first; next is nil on the last
// one.
func (a *Access) Audit(ctx context.Context, f *postgres.AuditFilter) (page []*riverbeat.AuditEntry, next *int64, err error) {
	more := *f
	more.Limit++
	err = a.db.Read(ctx, func(tx *postgres.Tx) error {
		page, err = tx.ListAudit(ctx, &more)
		return err
	})
	if len(page) > f.Limit {
		page = page[:f.Limit]
		next = &page[f.Limit-1].ID
	}
	return page, next, err
}

// Do runs a change that somebody else makes, such as River UI, in a transaction
// that writes down what the actor of ctx made of each of the jobs or queues by it.
// If the change fails nothing is written.
func (a *Access) Do(ctx context.Context, action string, objects []riverbeat.AuditObject, change func(*postgres.Tx) error) error {
	return a.db.InTx(ctx, func(tx *postgres.Tx) error {
		before, err := tx.ShowObjects(ctx, objects)
		if err != nil {
			return err
		}
		if err := change(tx); err != nil {
			return err
		}
		after, err := tx.ShowObjects(ctx, objects)
		if err != nil {
			return err
		}
		for i, object := range objects {
			if err := tx.Audit(ctx, action, object, before[i], after[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
