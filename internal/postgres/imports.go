package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
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

// ForgetCut takes back what BeginCut has written for a transaction there, which was undone.
func (tx *Tx) ForgetCut(ctx context.Context, schedule uuid.UUID, xid string) error {
	return tx.q.ForgetCut(ctx, tx.Tx, &dbq.ForgetCutParams{ScheduleID: schedule, CutXid: &xid})
}

// LastTick reads the time of the last tick of a schedule that was decided after a time; that
// time, if there is none.
func (tx *Tx) LastTick(ctx context.Context, schedule uuid.UUID, after time.Time) (time.Time, error) {
	at, err := tx.q.LastTick(ctx, tx.Tx, &dbq.LastTickParams{ScheduleID: schedule, After: after})
	return at.UTC(), err
}

// EndCut writes that the handover of a schedule is done.
func (tx *Tx) EndCut(ctx context.Context, schedule uuid.UUID) error {
	return tx.q.EndCut(ctx, tx.Tx, schedule)
}

// Shadow is a time in which a schedule ticked in shadow, as far as its ticks are decided, and
// what was recorded of them: those after From, up to Until.
type Shadow struct {
	From, Until time.Time
	Ticks       []time.Time
	Gaps        []riverbeat.Gap // without their counts
}

// Shadows reads, of those of the schedules that ticked in shadow since a time, the last time
// in which they did, by their ids. What was before since is left out.
func (tx *Tx) Shadows(ctx context.Context, schedules []uuid.UUID, since time.Time) (map[uuid.UUID]*Shadow, error) {
	times, err := tx.q.ShadowTimes(ctx, tx.Tx, &dbq.ShadowTimesParams{ScheduleIds: schedules, Since: since})
	if err != nil {
		return nil, fmt.Errorf("read when schedules were in shadow: %w", err)
	}
	shadows := map[uuid.UUID]*Shadow{}
	var latest time.Time
	for _, t := range times {
		from, until := t.ShadowFrom.UTC(), t.ShadowUntil.UTC()
		if from.Before(since) {
			from = since
		}
		switch s := shadows[t.ScheduleID]; {
		case s == nil:
			shadows[t.ScheduleID] = &Shadow{From: from, Until: until}
			if until.After(latest) {
				latest = until
			}
		case s.From.Equal(until): // an edit
			s.From = from
		}
	}
	rows, err := tx.q.ShadowTicks(ctx, tx.Tx, &dbq.ShadowTicksParams{
		ScheduleIds: slices.Collect(maps.Keys(shadows)), Since: since, Until: latest,
	})
	if err != nil {
		return nil, fmt.Errorf("read the ticks in shadow: %w", err)
	}
	for _, row := range rows {
		at := row.ScheduledFor.UTC()
		switch s := shadows[row.ScheduleID]; {
		case !at.After(s.From) || at.After(s.Until):
		case row.MissedFrom != nil:
			s.Gaps = append(s.Gaps, riverbeat.Gap{From: row.MissedFrom.UTC(), Until: at})
		default:
			s.Ticks = append(s.Ticks, at)
		}
	}
	return shadows, nil
}

// SettleAt makes the change of a schedule, which is locked, take effect for the ticks after
// a time, which may be past: those before it were not ours to decide.
func (tx *Tx) SettleAt(ctx context.Context, at time.Time) error {
	_, err := tx.Exec(ctx, "SELECT set_config('riverbeat.settled_at', $1, true)", at.UTC().Format(time.RFC3339Nano))
	return err
}
