package postgres

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
)

// ImportedLine reads, for a change, what a schedule was elsewhere when it was last imported;
// nil: it was not.
func (tx *Tx) ImportedLine(ctx context.Context, schedule uuid.UUID) (json.RawMessage, error) {
	line, err := tx.q.GetImportedLine(ctx, tx.Tx, schedule)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return line, err
}

// SetImportedLine writes what a schedule was, and where.
func (tx *Tx) SetImportedLine(ctx context.Context, schedule uuid.UUID, source string, line json.RawMessage) error {
	return tx.q.SetImportedLine(ctx, tx.Tx, &dbq.SetImportedLineParams{ScheduleID: schedule, Source: source, Line: line})
}
