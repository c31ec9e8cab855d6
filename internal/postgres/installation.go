package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// EnsureInstallation writes down which cluster and database this is, once.
func (tx *Tx) EnsureInstallation(ctx context.Context, environment string) error {
	return tx.q.EnsureInstallation(ctx, tx.Tx, environment)
}

// Installation reads the installation.
func (tx *Tx) Installation(ctx context.Context) (*riverbeat.Installation, error) {
	row, err := tx.q.GetInstallation(ctx, tx.Tx)
	if err != nil {
		return nil, err
	}
	return &riverbeat.Installation{
		Environment: row.Environment,
		PausedAt:    utc(row.PausedAt),
		PausedBy:    deref(row.PausedBy),
		PauseReason: deref(row.PauseReason),
	}, nil
}

// Pause pauses the installation, unless it is paused. Claims that are under way
// may still commit: see AwaitClaims.
func (tx *Tx) Pause(ctx context.Context, reason, by string) error {
	return tx.q.Pause(ctx, tx.Tx, &dbq.PauseParams{PauseReason: orNull(reason), PausedBy: orNull(by)})
}

// Resume ends the pause, if there is one.
func (tx *Tx) Resume(ctx context.Context) error {
	return tx.q.Resume(ctx, tx.Tx)
}

// AwaitClaims waits until every transaction that has been told NotPaused has
// ended.
func (tx *Tx) AwaitClaims(ctx context.Context) error {
	return tx.q.AwaitClaims(ctx, tx.Tx)
}

// PauseAt reads the pause that covers a time; nil if there was none.
func (tx *Tx) PauseAt(ctx context.Context, at time.Time) (*riverbeat.Pause, error) {
	row, err := tx.q.PauseBefore(ctx, tx.Tx, at)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no pause is no error
	}
	if err != nil {
		return nil, err
	}
	p := &riverbeat.Pause{
		PausedAt: row.PausedAt.UTC(), PausedBy: deref(row.PausedBy), Reason: deref(row.Reason),
		ResumedAt: utc(row.ResumedAt), ResumedBy: deref(row.ResumedBy),
	}
	if !p.Covers(at) {
		return nil, nil //nolint:nilnil // no pause is no error
	}
	return p, nil
}

// ActAs says who makes the changes of this transaction, for the history that
// triggers keep. "" is nobody known.
func (tx *Tx) ActAs(ctx context.Context, actor string) error {
	if actor == "" {
		return nil
	}
	_, err := tx.Exec(ctx, "SELECT set_config('riverbeat.actor', $1, true)", actor)
	return err
}
