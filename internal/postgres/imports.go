package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
)

// ImportedLine reads, for a change, what a schedule was elsewhere when it was last imported,
// and where; nil: it was not.
func (tx *Tx) ImportedLine(ctx context.Context, schedule uuid.UUID) (line json.RawMessage, source string, err error) {
	row, err := tx.q.GetImportedLine(ctx, tx.Tx, schedule)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, "", nil
	}
	return row.Line, row.Source, err
}

// SetImportedLine writes what a schedule was, and where.
func (tx *Tx) SetImportedLine(ctx context.Context, schedule uuid.UUID, source string, line json.RawMessage) error {
	return tx.q.SetImportedLine(ctx, tx.Tx, &dbq.SetImportedLineParams{ScheduleID: schedule, Source: source, Line: line})
}

// Cut is how far the handover of a schedule has come.
type Cut struct {
	At *time.Time // the ticks after it are ours; nil: it has not begun
	// XID is the transaction that disables it there: if it has not committed, nothing has
	// begun.
	XID  string
	Over bool // it is done
}

// Cut reads, for a change, how far the handover of a schedule has come; nil if it was not
// imported.
func (tx *Tx) Cut(ctx context.Context, schedule uuid.UUID) (*Cut, error) {
	row, err := tx.q.GetCut(ctx, tx.Tx, schedule)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // says its comment
	}
	return &Cut{At: utc(row.CutAt), XID: deref(row.CutXid), Over: row.CutOverAt != nil}, err
}

// BeginCut writes that the ticks of schedules after a time are ours if a transaction there
// commits, unless they are ours already.
func (tx *Tx) BeginCut(ctx context.Context, schedules []uuid.UUID, at time.Time, xid string) error {
	return tx.q.BeginCut(ctx, tx.Tx, &dbq.BeginCutParams{ScheduleIds: schedules, CutAt: &at, CutXid: &xid})
}

// EndCut writes that the handover of a schedule is done.
func (tx *Tx) EndCut(ctx context.Context, schedule uuid.UUID) error {
	return tx.q.EndCut(ctx, tx.Tx, schedule)
}

// SettleAt makes the change of a schedule, which is locked, take effect for the ticks after
// a time, which may be past: those before it were not ours to decide.
func (tx *Tx) SettleAt(ctx context.Context, at time.Time) error {
	_, err := tx.Exec(ctx, "SELECT set_config('riverbeat.settled_at', $1, true)", at.UTC().Format(time.RFC3339Nano))
	return err
}
