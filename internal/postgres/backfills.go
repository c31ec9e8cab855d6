package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// InsertBackfill writes a new backfill.
func (tx *Tx) InsertBackfill(ctx context.Context, b *riverbeat.Backfill) (*riverbeat.Backfill, error) {
	var policy *string
	if b.ExecutionPolicy != nil {
		policy = orNull(*b.ExecutionPolicy)
	}
	row, err := tx.q.InsertBackfill(ctx, tx.Tx, &dbq.InsertBackfillParams{
		ScheduleID: &b.ScheduleID, ScheduleName: b.ScheduleName, FromTime: b.From, UntilTime: b.To, ExecutionPolicy: policy,
		OnlyMissing: b.OnlyMissing, State: string(b.State), Total: int32(b.Total), //nolint:gosec // bounded
		RequestedBy: nameOf(ctx), CronExpression: b.CronExpression, Timezone: b.Timezone,
	})
	made := backfill(row)
	made.Runs = map[riverbeat.State]int{}
	return made, err
}

// Backfill reads a backfill with its runs; NotFound if there is none.
func (tx *Tx) Backfill(ctx context.Context, id uuid.UUID) (*riverbeat.Backfill, error) {
	return tx.withBackfillRuns(ctx)(tx.q.GetBackfill(ctx, tx.Tx, id))
}

// LockBackfill is Backfill, and holds it until the transaction ends.
func (tx *Tx) LockBackfill(ctx context.Context, id uuid.UUID) (*riverbeat.Backfill, error) {
	return tx.withBackfillRuns(ctx)(tx.q.LockBackfill(ctx, tx.Tx, id))
}

// RunningBackfills reads at most limit backfills that are not over, the oldest
// first.
func (tx *Tx) RunningBackfills(ctx context.Context, limit int) ([]uuid.UUID, error) {
	return tx.q.RunningBackfills(ctx, tx.Tx, int32(limit)) //nolint:gosec // a batch
}

// ClaimBackfill reads a backfill that is not over, without its runs, and holds it;
// nil if it is, or somebody else is at it, or goes on with another one: whoever has
// claimed one is the only one.
func (tx *Tx) ClaimBackfill(ctx context.Context, id uuid.UUID) (*riverbeat.Backfill, error) {
	locked, err := tx.q.TryLockTx(ctx, tx.Tx, riverbeat.AdvisoryKey(tx.schema, "backfills", ""))
	if err != nil || !locked {
		return nil, err
	}
	row, err := tx.q.ClaimBackfill(ctx, tx.Tx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // says its comment
	}
	return backfill(row), err
}

// LiveBackfillRuns counts the runs of a backfill that have not ended, and moves its
// EndedUntil up to just before the first of them.
func (tx *Tx) LiveBackfillRuns(ctx context.Context, b *riverbeat.Backfill) (int, error) {
	if b.DecidedUntil == nil {
		return 0, nil
	}
	row, err := tx.q.LiveBackfillRuns(ctx, tx.Tx, &dbq.LiveBackfillRunsParams{
		ScheduleID: b.ScheduleID, BackfillID: b.ID, Since: b.EndedTo(), Until: *b.DecidedUntil,
	})
	if err != nil {
		return 0, err
	}
	ended := row.First.UTC()
	if row.Live > 0 {
		ended = ended.Add(-time.Microsecond)
	}
	b.EndedUntil = &ended
	return int(row.Live), nil
}

func (tx *Tx) withBackfillRuns(ctx context.Context) func(dbq.Backfill, error) (*riverbeat.Backfill, error) {
	return func(row dbq.Backfill, err error) (*riverbeat.Backfill, error) {
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, riverbeat.Errorf(riverbeat.NotFound, "backfill_not_found", "There is no such backfill.")
		}
		if err != nil {
			return nil, err
		}
		b := backfill(row)
		counts, err := tx.q.BackfillRuns(ctx, tx.Tx, &dbq.BackfillRunsParams{
			ScheduleID: b.ScheduleID, BackfillID: b.ID, Since: b.From, Until: b.To,
		})
		b.Runs = map[riverbeat.State]int{}
		for _, c := range counts {
			b.Runs[riverbeat.State(c.State)] = int(c.Runs)
		}
		return b, err
	}
}

// BackfillFilter picks a page of backfills, newest first. A nil field picks all.
type BackfillFilter struct {
	ScheduleID *uuid.UUID
	State      *riverbeat.BackfillState
	After      *BackfillCursor
	Limit      int // items, at least 1
}

// BackfillCursor is a place in the list of backfills.
type BackfillCursor struct {
	CreatedAt time.Time `json:"t"`
	ID        uuid.UUID `json:"i"`
}

// ListBackfills reads a page of backfills, without their runs.
func (tx *Tx) ListBackfills(ctx context.Context, f *BackfillFilter) ([]*riverbeat.Backfill, error) {
	params := &dbq.ListBackfillsParams{ScheduleID: f.ScheduleID, MaxItems: int32(f.Limit)} //nolint:gosec // a page
	if f.State != nil {
		params.State = orNull(*f.State)
	}
	if f.After != nil {
		params.BeforeTime, params.BeforeID = &f.After.CreatedAt, f.After.ID
	}
	rows, err := tx.q.ListBackfills(ctx, tx.Tx, params)
	if err != nil {
		return nil, err
	}
	list := make([]*riverbeat.Backfill, len(rows))
	for i, row := range rows {
		list[i] = backfill(row)
	}
	return list, nil
}

// MoveBackfill writes how far a backfill has come: DecidedUntil, EndedUntil, Decided,
// LeftOut, and LastError.
func (tx *Tx) MoveBackfill(ctx context.Context, b *riverbeat.Backfill) error {
	return tx.q.MoveBackfill(ctx, tx.Tx, &dbq.MoveBackfillParams{
		ID: b.ID, DecidedUntil: b.DecidedUntil, EndedUntil: b.EndedUntil, LastError: b.LastError,
		Decided: int32(b.Decided), LeftOut: int32(b.LeftOut), //nolint:gosec // bounded
	})
}

// EndBackfill ends a backfill as b.State, for b.Reason.
func (tx *Tx) EndBackfill(ctx context.Context, b *riverbeat.Backfill) (*riverbeat.Backfill, error) {
	return tx.withBackfillRuns(ctx)(tx.q.EndBackfill(ctx, tx.Tx, &dbq.EndBackfillParams{
		ID: b.ID, State: string(b.State), Reason: orNull(b.Reason),
	}))
}

// CancelBackfills cancels what runs of the backfills of a schedule: no more of its
// ticks are decided. It comes after the schedule's clock and before any lock key.
func (tx *Tx) CancelBackfills(ctx context.Context, scheduleID uuid.UUID, reason riverbeat.Reason) error {
	return tx.q.CancelBackfills(ctx, tx.Tx, &dbq.CancelBackfillsParams{ScheduleID: scheduleID, Reason: orNull(reason)})
}

// IdleBackfillRuns reads the runs of a backfill that have not ended, and of which no
// attempt is under way; the newest first.
func (tx *Tx) IdleBackfillRuns(ctx context.Context, b *riverbeat.Backfill) ([]uuid.UUID, error) {
	return tx.q.IdleBackfillRuns(ctx, tx.Tx, &dbq.IdleBackfillRunsParams{
		ScheduleID: b.ScheduleID, BackfillID: b.ID, Since: b.From, Until: b.To,
	})
}

// TicksThatRan tells which of the times, in their order, have a run of the schedule
// that ran, or will.
func (tx *Tx) TicksThatRan(ctx context.Context, scheduleID uuid.UUID, times []time.Time) (map[int64]bool, error) {
	ran := map[int64]bool{}
	if len(times) == 0 {
		return ran, nil
	}
	found, err := tx.q.TicksThatRan(ctx, tx.Tx, &dbq.TicksThatRanParams{
		ScheduleID: scheduleID, Times: times, Since: times[0], Until: times[len(times)-1],
	})
	for _, at := range found {
		ran[at.UnixMilli()] = true
	}
	return ran, err
}

// BackfillRoom is how many runs of a queue the live nodes execute at once, and how
// many jobs of backfills are live in it.
func (tx *Tx) BackfillRoom(ctx context.Context, queue string) (capacity, live int, err error) {
	row, err := tx.q.QueueRoom(ctx, tx.Tx, &dbq.QueueRoomParams{
		Queue: queue, LivesSeconds: SessionLife.Seconds(), Priority: riverbeat.BackfillPriority,
	})
	return int(row.Capacity), int(row.Live), err
}

func backfill(row dbq.Backfill) *riverbeat.Backfill {
	b := &riverbeat.Backfill{
		ID: row.ID, ScheduleName: row.ScheduleName, CronExpression: row.CronExpression, Timezone: row.Timezone,
		From: row.FromTime.UTC(), To: row.UntilTime.UTC(), OnlyMissing: row.OnlyMissing,
		State: riverbeat.BackfillState(row.State), Reason: riverbeat.Reason(deref(row.Reason)), LastError: row.LastError,
		Total: int(row.Total), Decided: int(row.Decided), LeftOut: int(row.LeftOut), DecidedUntil: utc(row.DecidedUntil), EndedUntil: utc(row.EndedUntil),
		RequestedBy: row.RequestedBy, CreatedAt: row.CreatedAt.UTC(), FinishedAt: utc(row.FinishedAt),
	}
	if row.ScheduleID != nil {
		b.ScheduleID = *row.ScheduleID
	}
	if row.ExecutionPolicy != nil {
		policy := riverbeat.Policy(*row.ExecutionPolicy)
		b.ExecutionPolicy = &policy
	}
	return b
}
