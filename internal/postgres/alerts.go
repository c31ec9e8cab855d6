package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// TryWatch takes, until the transaction ends, what one node at a time may do: to take ends
// of runs in and to change the states of alerts. It tells whether it is free.
func (tx *Tx) TryWatch(ctx context.Context) (bool, error) {
	return tx.q.TryLockTx(ctx, tx.Tx, riverbeat.AdvisoryKey(tx.schema, "watch", ""))
}

// RunEnds reads at most limit ends of runs that nobody has taken in, in their order.
func (tx *Tx) RunEnds(ctx context.Context, limit int) ([]riverbeat.RunEnd, error) {
	rows, err := tx.q.RunEnds(ctx, tx.Tx, int32(limit)) //nolint:gosec // a batch
	if err != nil {
		return nil, err
	}
	return column(rows, func(r dbq.RunEnd) riverbeat.RunEnd {
		return riverbeat.RunEnd{
			ID: r.ID, ScheduleID: r.ScheduleID, TaskName: r.TaskName, RunID: r.RunID, Succeeded: r.Succeeded, At: r.EndedAt.UTC(),
		}
	}), nil
}

// DeleteRunEnds deletes ends that were taken in.
func (tx *Tx) DeleteRunEnds(ctx context.Context, ids []int64) error {
	return tx.q.DeleteRunEnds(ctx, tx.Tx, ids)
}

// DueAlertStates reads of which schedules the state has to be looked at: at most limit that
// are due, and as many whose time is farther ahead than a right clock can have set it.
func (tx *Tx) DueAlertStates(ctx context.Context, limit int) ([]uuid.UUID, error) {
	return tx.q.DueAlertStates(ctx, tx.Tx, &dbq.DueAlertStatesParams{
		MaxItems: int32(limit), TooFarSeconds: (riverbeat.MaxUnwatched + time.Hour).Seconds(), //nolint:gosec // a batch
	})
}

// WatchNextSchedules goes on with a task whose definition has other alerts than before: the
// next of its schedules, at most limit, get a state if they are to be watched. It reads
// which they were; there may be more unless they are none.
func (tx *Tx) WatchNextSchedules(ctx context.Context, limit int) ([]uuid.UUID, error) {
	t, err := tx.q.LockAlertTask(ctx, tx.Tx)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rows, err := tx.q.WatchSchedulesOf(ctx, tx.Tx, &dbq.WatchSchedulesOfParams{
		TaskName: t.TaskName, AfterCreatedAt: t.CreatedAt, AfterID: t.ScheduleID, MaxItems: int32(limit), //nolint:gosec // a batch
	})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, tx.q.DeleteAlertTask(ctx, tx.Tx, t.TaskName)
	}
	ids := make([]uuid.UUID, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	last := rows[len(rows)-1]
	return ids, tx.q.MoveAlertTask(ctx, tx.Tx, &dbq.MoveAlertTaskParams{
		TaskName: t.TaskName, CreatedAt: last.CreatedAt, ScheduleID: last.ID,
	})
}

// LockAlertStates reads, for a change, the states of those of the schedules that are
// watched. held are those that somebody else is changing, who is not waited for.
func (tx *Tx) LockAlertStates(ctx context.Context, schedules []uuid.UUID) (states []*riverbeat.AlertState, held map[uuid.UUID]bool, err error) {
	watched, err := tx.q.WatchedOf(ctx, tx.Tx, schedules)
	if err != nil {
		return nil, nil, err
	}
	rows, err := tx.q.LockAlertStates(ctx, tx.Tx, schedules)
	if err != nil {
		return nil, nil, err
	}
	held = make(map[uuid.UUID]bool, len(watched))
	for _, id := range watched {
		held[id] = true
	}
	states = make([]*riverbeat.AlertState, len(rows))
	for i, r := range rows {
		delete(held, r.ScheduleID)
		states[i] = &riverbeat.AlertState{
			ScheduleID: r.ScheduleID, Failures: int(r.Failures), FailedRun: r.FailedRun,
			Failing: r.Failing, Overdue: r.Overdue, Told: r.Told,
			LastSuccessAt: utc(r.LastSuccessAt), Since: r.Since.UTC(), DueAt: utc(r.DueAt),
			SuccessSeen: r.SuccessSeen, FailureSeen: r.FailureSeen,
		}
	}
	return states, held, nil
}

// SetAlertStates writes states that were locked.
func (tx *Tx) SetAlertStates(ctx context.Context, states []*riverbeat.AlertState) error {
	const set = `
UPDATE alert_states AS a
SET failures = given.failures,
    failed_run = given.failed_run,
    failing = given.failing,
    overdue = given.overdue,
    told = given.told,
    last_success_at = given.last_success_at,
    since = given.since,
    due_at = given.due_at,
    success_seen = given.success_seen,
    failure_seen = given.failure_seen
FROM unnest(
    @ids::uuid[], @failures::integer[], @failed_runs::uuid[],
    @failing::boolean[], @overdue::boolean[], @told::boolean[],
    @last_success_at::timestamptz[], @since::timestamptz[], @due_at::timestamptz[],
    @success_seen::bigint[], @failure_seen::bigint[]
) AS given (
    schedule_id, failures, failed_run,
    failing, overdue, told,
    last_success_at, since, due_at,
    success_seen, failure_seen
)
WHERE a.schedule_id = given.schedule_id`
	_, err := tx.Exec(ctx, set, pgx.StrictNamedArgs{
		"ids":             column(states, func(s *riverbeat.AlertState) uuid.UUID { return s.ScheduleID }),
		"failures":        column(states, func(s *riverbeat.AlertState) int { return s.Failures }),
		"failed_runs":     column(states, func(s *riverbeat.AlertState) *uuid.UUID { return s.FailedRun }),
		"failing":         column(states, func(s *riverbeat.AlertState) bool { return s.Failing }),
		"overdue":         column(states, func(s *riverbeat.AlertState) bool { return s.Overdue }),
		"told":            column(states, func(s *riverbeat.AlertState) bool { return s.Told }),
		"last_success_at": column(states, func(s *riverbeat.AlertState) *time.Time { return s.LastSuccessAt }),
		"since":           column(states, func(s *riverbeat.AlertState) time.Time { return s.Since }),
		"due_at":          column(states, func(s *riverbeat.AlertState) *time.Time { return s.DueAt }),
		"success_seen":    column(states, func(s *riverbeat.AlertState) int64 { return s.SuccessSeen }),
		"failure_seen":    column(states, func(s *riverbeat.AlertState) int64 { return s.FailureSeen }),
	})
	return err
}

// column is one value of each item.
func column[T, V any](items []T, value func(T) V) []V {
	values := make([]V, len(items))
	for i, item := range items {
		values[i] = value(item)
	}
	return values
}

// DeleteAlertStates deletes the states of schedules that nobody is told of.
func (tx *Tx) DeleteAlertStates(ctx context.Context, schedules []uuid.UUID) error {
	return tx.q.DeleteAlertStates(ctx, tx.Tx, schedules)
}

// PausesSince reads the pauses of the installation that lasted at a time or began after it,
// in their order.
func (tx *Tx) PausesSince(ctx context.Context, since time.Time) ([]*riverbeat.Pause, error) {
	rows, err := tx.q.PausesSince(ctx, tx.Tx, &since)
	if err != nil {
		return nil, err
	}
	return column(rows, func(row dbq.Pause) *riverbeat.Pause {
		return &riverbeat.Pause{
			PausedAt: row.PausedAt.UTC(), PausedBy: deref(row.PausedBy), Reason: deref(row.Reason),
			ResumedAt: utc(row.ResumedAt), ResumedBy: deref(row.ResumedBy),
		}
	}), nil
}

// alertsColumn is the stored form of alerts; NULL is none.
type alertsColumn struct {
	URL            riverbeat.Text         `json:"url,omitzero"`
	SigningSecret  riverbeat.Text         `json:"signing_secret,omitzero"`
	AfterFailures  int                    `json:"after_failures,omitzero"`
	NoSuccessForMS int64                  `json:"no_success_for_ms,omitzero"`
	On             []riverbeat.AlertEvent `json:"on,omitzero"`
}

func alertsJSON(a *riverbeat.Alerts) json.RawMessage {
	if a.IsZero() {
		return nil
	}
	return mustJSON(alertsColumn{a.URL, a.SigningSecret, a.AfterFailures, a.NoSuccessFor.Milliseconds(), a.On})
}

func parseAlerts(raw json.RawMessage) (riverbeat.Alerts, error) {
	var c alertsColumn
	if len(raw) == 0 {
		return riverbeat.Alerts{}, nil
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return riverbeat.Alerts{}, fmt.Errorf("read alerts: %w", err)
	}
	return riverbeat.Alerts{
		URL: c.URL, SigningSecret: c.SigningSecret, AfterFailures: c.AfterFailures,
		NoSuccessFor: time.Duration(c.NoSuccessForMS) * time.Millisecond, On: c.On,
	}, nil
}
