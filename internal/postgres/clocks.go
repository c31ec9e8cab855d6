package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// Clock is the clock of a schedule, locked by this transaction.
type Clock struct {
	ScheduleID uuid.UUID
	Mark       time.Time // no tick at or before it is ever decided again
	Now        time.Time // the database's time when it was locked
}

// ClaimClocks locks at most limit clocks that are due and that nobody else
// holds; none while the installation is paused.
func (tx *Tx) ClaimClocks(ctx context.Context, limit int) ([]Clock, error) {
	rows, err := tx.q.ClaimClocks(ctx, tx.Tx, int32(limit)) //nolint:gosec // a batch
	if err != nil {
		return nil, err
	}
	clocks := make([]Clock, len(rows))
	for i, row := range rows {
		clocks[i] = clock(row)
	}
	return tx.ifTicking(ctx, clocks)
}

// OldestClocks locks at most limit clocks that nobody else holds, of those that
// have been due for more than a minute, the oldest first; none while the
// installation is paused.
func (tx *Tx) OldestClocks(ctx context.Context, limit int) ([]Clock, error) {
	rows, err := tx.q.OldestClocks(ctx, tx.Tx, int32(limit)) //nolint:gosec // a batch
	if err != nil {
		return nil, err
	}
	clocks := make([]Clock, len(rows))
	for i, row := range rows {
		clocks[i] = clock(dbq.ClaimClocksRow(row))
	}
	return tx.ifTicking(ctx, clocks)
}

// ClocksToRetry locks at most limit clocks that StopClock stopped an hour ago
// or earlier; none while the installation is paused.
func (tx *Tx) ClocksToRetry(ctx context.Context, limit int) ([]Clock, error) {
	rows, err := tx.q.ClocksToRetry(ctx, tx.Tx, int32(limit)) //nolint:gosec // a batch
	if err != nil {
		return nil, err
	}
	clocks := make([]Clock, len(rows))
	for i, row := range rows {
		clocks[i] = clock(dbq.ClaimClocksRow(row))
	}
	return tx.ifTicking(ctx, clocks)
}

func clock(row dbq.ClaimClocksRow) Clock {
	return Clock{ScheduleID: row.ScheduleID, Mark: row.LastScheduledFor.UTC(), Now: millis(row.Now)}
}

// ifTicking reads again whether there is a pause, in a statement after the
// claim, and whether this is the installation's own database.
func (tx *Tx) ifTicking(ctx context.Context, clocks []Clock) ([]Clock, error) {
	if len(clocks) == 0 {
		return nil, nil
	}
	if ok, err := tx.Ticking(ctx); err != nil || !ok {
		return nil, err
	}
	return clocks, nil
}

// Ticking tells whether the installation ticks: it is neither paused nor
// elsewhere (see AtHome). A pause that comes from now on is answered when this
// transaction has ended (AwaitClaims).
func (tx *Tx) Ticking(ctx context.Context) (bool, error) {
	return tx.q.Ticking(ctx, tx.Tx, tx.environment)
}

// ClockState reads how far the clock of a schedule has come, and what time it is; the
// clock is nil if there is no such schedule.
func (tx *Tx) ClockState(ctx context.Context, id uuid.UUID) (clock *riverbeat.ClockState, now time.Time, err error) {
	row, err := tx.q.ClockState(ctx, tx.Tx, id)
	if err != nil {
		return nil, time.Time{}, err
	}
	now = millis(row.Now)
	if row.LastScheduledFor == nil {
		return nil, now, nil
	}
	return &riverbeat.ClockState{
		Mark: row.LastScheduledFor.UTC(), NextRunAt: utc(row.NextRunAt), RetryAt: utc(row.RetryAt), LastError: deref(row.LastError),
	}, now, nil
}

// SetClocks moves locked clocks to the mark and next tick of their plans.
func (tx *Tx) SetClocks(ctx context.Context, plans map[uuid.UUID]riverbeat.Plan) error {
	const setClocks = `
UPDATE schedule_clocks AS c
SET next_run_at = given.next_run_at,
    last_scheduled_for = given.mark,
    retry_at = NULL
FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS given (schedule_id, next_run_at, mark)
WHERE c.schedule_id = given.schedule_id`
	ids := make([]uuid.UUID, 0, len(plans))
	nexts := make([]*time.Time, 0, len(plans))
	marks := make([]time.Time, 0, len(plans))
	for id, plan := range plans {
		ids, nexts, marks = append(ids, id), append(nexts, plan.Next), append(marks, plan.Mark)
	}
	_, err := tx.Exec(ctx, setClocks, ids, nexts, marks)
	return err
}

// StopClock stops the clock of a schedule for an hour, after which it is
// tried again; its mark stays.
func (tx *Tx) StopClock(ctx context.Context, id uuid.UUID) error {
	return tx.q.StopClock(ctx, tx.Tx, id)
}

// UntilNextTick is how long it is until the next tick, by the database's
// clock; a day if there is none within a day.
func (tx *Tx) UntilNextTick(ctx context.Context) (time.Duration, error) {
	ms, err := tx.q.UntilNextTick(ctx, tx.Tx)
	return time.Duration(ms * float64(time.Millisecond)), err
}

// LockClocks locks the clocks of many schedules, always in the same order.
func (tx *Tx) LockClocks(ctx context.Context, ids []uuid.UUID) error {
	return tx.q.LockClocks(ctx, tx.Tx, ids)
}
