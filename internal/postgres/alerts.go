package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/riverbeat"
)

// TryWatch takes, until the transaction ends, what one node at a time may do: to take ends
// of runs in and to change the states of alerts. It tells whether it is free.
func (tx *Tx) TryWatch(ctx context.Context) (bool, error) {
	return tx.q.TryLockTx(ctx, tx.Tx, riverbeat.AdvisoryKey(tx.schema, "watch", ""))
}

// TakeRunEnds takes at most limit ends of runs that nobody has taken in, in their order.
func (tx *Tx) TakeRunEnds(ctx context.Context, limit int) ([]riverbeat.RunEnd, error) {
	rows, err := tx.q.TakeRunEnds(ctx, tx.Tx, int32(limit)) //nolint:gosec // a batch
	if err != nil {
		return nil, err
	}
	ends := make([]riverbeat.RunEnd, len(rows))
	for i, r := range rows {
		ends[i] = riverbeat.RunEnd{ID: r.ID, ScheduleID: r.ScheduleID, RunID: r.RunID, Succeeded: r.Succeeded, At: r.EndedAt.UTC()}
	}
	slices.SortFunc(ends, func(a, b riverbeat.RunEnd) int { return cmp.Compare(a.ID, b.ID) })
	return ends, nil
}

// DueAlertStates reads of which schedules, at most limit, the state has to be looked at.
func (tx *Tx) DueAlertStates(ctx context.Context, limit int) ([]uuid.UUID, error) {
	return tx.q.DueAlertStates(ctx, tx.Tx, int32(limit)) //nolint:gosec // a batch
}

// LockAlertStates reads, for a change, the states of those of the schedules that are
// watched.
func (tx *Tx) LockAlertStates(ctx context.Context, schedules []uuid.UUID) ([]*riverbeat.AlertState, error) {
	rows, err := tx.q.LockAlertStates(ctx, tx.Tx, schedules)
	if err != nil {
		return nil, err
	}
	states := make([]*riverbeat.AlertState, len(rows))
	for i, r := range rows {
		states[i] = &riverbeat.AlertState{
			ScheduleID: r.ScheduleID, Failures: int(r.Failures), Failing: r.Failing, Overdue: r.Overdue,
			LastSuccessAt: utc(r.LastSuccessAt), Since: r.Since.UTC(), DueAt: utc(r.DueAt), Seen: r.Seen,
		}
	}
	return states, nil
}

// SetAlertStates writes states that were locked.
func (tx *Tx) SetAlertStates(ctx context.Context, states []*riverbeat.AlertState) error {
	const set = `
UPDATE alert_states AS a
SET failures = given.failures,
    failing = given.failing,
    overdue = given.overdue,
    last_success_at = given.last_success_at,
    since = given.since,
    due_at = given.due_at,
    seen = given.seen
FROM unnest(
    @ids::uuid[], @failures::integer[], @failing::boolean[], @overdue::boolean[],
    @last_success_at::timestamptz[], @since::timestamptz[], @due_at::timestamptz[], @seen::bigint[]
) AS given (schedule_id, failures, failing, overdue, last_success_at, since, due_at, seen)
WHERE a.schedule_id = given.schedule_id`
	var ids []uuid.UUID
	var failures []int
	var failing, overdue []bool
	var succeeded, due []*time.Time
	var since []time.Time
	var seen []int64
	for _, s := range states {
		ids, failures, failing, overdue = append(ids, s.ScheduleID), append(failures, s.Failures), append(failing, s.Failing), append(overdue, s.Overdue)
		succeeded, since, due, seen = append(succeeded, s.LastSuccessAt), append(since, s.Since), append(due, s.DueAt), append(seen, s.Seen)
	}
	_, err := tx.Exec(ctx, set, pgx.StrictNamedArgs{
		"ids": ids, "failures": failures, "failing": failing, "overdue": overdue,
		"last_success_at": succeeded, "since": since, "due_at": due, "seen": seen,
	})
	return err
}

// LastResumedAt is when the last pause of the installation has ended; zero: it had none, or
// is paused.
func (tx *Tx) LastResumedAt(ctx context.Context) (time.Time, error) {
	at, err := tx.q.LastResumedAt(ctx, tx.Tx)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return time.Time{}, nil
	case err != nil || at == nil:
		return time.Time{}, err
	}
	return at.UTC(), nil
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
