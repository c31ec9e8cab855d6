package history

import (
	"context"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// maxRunsAt bounds the runs of one nominal time that are read: its tick's, and
// those of backfills.
const maxRunsAt = 100

// Explain says why there was, or was not, a run of a schedule at a time, in the
// past or to come; NotFound if nothing is known of the schedule. One that was
// deleted is known by its history.
func (h *History) Explain(ctx context.Context, scheduleID uuid.UUID, at time.Time) (*riverbeat.Explanation, error) {
	q := &riverbeat.Question{At: at}
	// One moment: a tick decided between two reads would be in neither.
	err := h.db.Snapshot(ctx, func(tx *postgres.Tx) error {
		if err := askSchedule(ctx, tx, scheduleID, q); err != nil {
			return err
		}
		if err := askRuns(ctx, tx, scheduleID, q); err != nil {
			return err
		}
		if q.Version == nil && q.Clock == nil && len(q.Runs) == 0 && q.Gap == nil {
			return riverbeat.Errorf(riverbeat.NotFound, "schedule_not_found", "There is no schedule %s.", scheduleID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return q.Explain(), nil
}

// askSchedule reads what was in force at the time, and what holds now.
func askSchedule(ctx context.Context, tx *postgres.Tx, scheduleID uuid.UUID, q *riverbeat.Question) (err error) {
	if q.Clock, q.Now, err = tx.ClockState(ctx, scheduleID); err != nil {
		return err
	}
	if q.Version, err = tx.VersionAt(ctx, scheduleID, q.At); err != nil {
		return err
	}
	pauses, err := tx.PausesAt(ctx, q.Now, q.TickAt())
	if err != nil {
		return err
	}
	q.Paused, q.Pause = pauses[0], pauses[1]
	return nil
}

// askRuns reads what is recorded of the tick.
func askRuns(ctx context.Context, tx *postgres.Tx, scheduleID uuid.UUID, q *riverbeat.Question) error {
	tick := q.TickAt()
	found, err := tx.RunsAt(ctx, scheduleID, tick, maxRunsAt)
	if err != nil {
		return err
	}
	for _, r := range found {
		if r.State == riverbeat.Missed {
			q.Gap = r
		} else {
			q.Runs = append(q.Runs, r)
		}
	}
	if q.Gap == nil && !tick.After(q.Now) {
		if q.Gap, err = tx.GapAround(ctx, scheduleID, tick, q.Now); err != nil {
			return err
		}
	}
	if len(q.Runs) > 0 {
		return askBlocker(ctx, tx, q)
	}
	if q.Gap == nil {
		kept, err := tx.KeepsRuns(ctx, tick)
		if err != nil {
			return err
		}
		q.Forgotten = !kept
	}
	return nil
}

// askBlocker reads what is in the way of the first run, or was.
func askBlocker(ctx context.Context, tx *postgres.Tx, q *riverbeat.Question) error {
	r := q.Runs[0]
	blocker := r.BlockedBy
	switch r.State {
	case riverbeat.Skipped:
	case riverbeat.Waiting:
		// Not the one that was in the way at first: that one may have ended.
		busy, err := tx.Busy(ctx, []string{r.LockKey})
		if err != nil {
			return err
		}
		blocker = nil
		if b := busy[r.LockKey]; b != nil {
			blocker = b.Job
		}
		if q.Ahead, err = tx.WaitingAhead(ctx, r); err != nil {
			return err
		}
	default:
		return nil
	}
	if blocker == nil {
		return nil
	}
	var err error
	q.BlockedBy, err = tx.Run(ctx, *blocker)
	if riverbeat.KindOf(err) == riverbeat.NotFound {
		return nil // it is kept no more
	}
	return err
}
