package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// EnsureInstallation writes down which environment, cluster and database this
// is, once.
func (tx *Tx) EnsureInstallation(ctx context.Context) error {
	return tx.q.EnsureInstallation(ctx, tx.Tx, tx.environment)
}

// codeOnHold is the code of the error of AtHome.
const codeOnHold = "on_hold"

// IsOnHold tells whether err is that of AtHome.
func IsOnHold(err error) bool {
	e, ok := errors.AsType[*riverbeat.Error](err)
	return ok && e.Code == codeOnHold
}

// AtHome fails (Unavailable, IsOnHold) when this node is on hold: it has
// another environment's label than the installation, or the installation was
// copied to another cluster or database than it says of itself. A copy of
// production's database must not do production's work. A standby that is
// promoted keeps the cluster's identifier.
func (tx *Tx) AtHome(ctx context.Context) error {
	return atHome(ctx, tx.q, tx.Tx, tx.environment)
}

func atHome(ctx context.Context, q *dbq.Queries, conn dbq.DBTX, environment string) error {
	h, err := q.Home(ctx, conn)
	if err != nil {
		return fmt.Errorf("read where the installation is: %w", err)
	}
	const hint = "If this is where it shall work from now on, say: riverbeat resume --here"
	hold := func(format string, args ...any) error {
		return riverbeat.Errorf(riverbeat.Unavailable, codeOnHold, "On hold: %s %s", fmt.Sprintf(format, args...), hint)
	}
	switch {
	case environment != "" && h.Environment != environment:
		return hold("the installation in this database is of the environment %q, and this node of %q.", h.Environment, environment)
	case h.SystemIdentifier != h.ActualSystemIdentifier:
		return hold("this database is a copy: the installation is of the Postgres cluster %d, and this is %d.", h.SystemIdentifier, h.ActualSystemIdentifier)
	case h.DatabaseOid != h.ActualDatabaseOid:
		return hold("this database is a copy: the installation is of the database with the oid %d, and this has %d.", h.DatabaseOid, h.ActualDatabaseOid)
	}
	return nil
}

// MoveHere makes this environment, cluster and database the installation's.
func (tx *Tx) MoveHere(ctx context.Context) error {
	return tx.q.MoveHere(ctx, tx.Tx, tx.environment)
}

// Hold tells whether this node is on hold (see AtHome), and what would happen if
// it were not, with at most limit next ticks; nil if it is not.
func (tx *Tx) Hold(ctx context.Context, limit int) (*riverbeat.Hold, error) {
	why := tx.AtHome(ctx)
	if !IsOnHold(why) {
		return nil, why
	}
	counts, err := tx.q.WouldFire(ctx, tx.Tx)
	if err != nil {
		return nil, err
	}
	rows, err := tx.q.NextClocks(ctx, tx.Tx, int32(limit)) //nolint:gosec // a page
	if err != nil {
		return nil, err
	}
	hold := &riverbeat.Hold{
		Why: riverbeat.Explain(why), DueSchedules: int(counts.DueSchedules), Jobs: int(counts.Jobs), WaitingRuns: int(counts.WaitingRuns),
	}
	for _, row := range rows {
		hold.Next = append(hold.Next, riverbeat.NextTick{
			ScheduleID: row.ScheduleID, ScheduleName: row.Name, TaskName: row.TaskName, At: row.NextRunAt.UTC(),
		})
	}
	return hold, nil
}

// Installation reads the installation.
func (tx *Tx) Installation(ctx context.Context) (*riverbeat.Installation, error) {
	const nextTicks = 10
	row, err := tx.q.GetInstallation(ctx, tx.Tx)
	if err != nil {
		return nil, err
	}
	hold, err := tx.Hold(ctx, nextTicks)
	if err != nil {
		return nil, err
	}
	return &riverbeat.Installation{
		Environment: row.Environment,
		PausedAt:    utc(row.PausedAt),
		PausedBy:    deref(row.PausedBy),
		PauseReason: deref(row.PauseReason),
		Hold:        hold,
	}, nil
}

// Pause pauses the installation, unless it is paused. Claims that are under way
// may still commit: see AwaitClaims.
func (tx *Tx) Pause(ctx context.Context, reason string) error {
	return tx.q.Pause(ctx, tx.Tx, &dbq.PauseParams{PauseReason: orNull(reason), PausedBy: orNull(nameOf(ctx))})
}

// Resume ends the pause, if there is one.
func (tx *Tx) Resume(ctx context.Context) error {
	return tx.q.Resume(ctx, tx.Tx)
}

// AwaitClaims waits until every transaction that has been told that it is Ticking has
// ended.
func (tx *Tx) AwaitClaims(ctx context.Context) error {
	return tx.q.AwaitClaims(ctx, tx.Tx)
}

// PausesAt reads the pauses that cover the times, in their order; nil where there was
// none.
func (tx *Tx) PausesAt(ctx context.Context, times ...time.Time) ([]*riverbeat.Pause, error) {
	rows, err := tx.q.PausesBefore(ctx, tx.Tx, times)
	if err != nil {
		return nil, err
	}
	pauses := make([]*riverbeat.Pause, len(times))
	for _, row := range rows {
		p := &riverbeat.Pause{
			PausedAt: row.PausedAt.UTC(), PausedBy: deref(row.PausedBy), Reason: deref(row.Reason),
			ResumedAt: utc(row.ResumedAt), ResumedBy: deref(row.ResumedBy),
		}
		if i := row.Place - 1; p.Covers(times[i]) {
			pauses[i] = p
		}
	}
	return pauses, nil
}

// ListNodes reads at most limit nodes, those seen last first. Alive is who was seen
// within the life of a session.
func (tx *Tx) ListNodes(ctx context.Context, limit int) ([]*riverbeat.Node, error) {
	rows, err := tx.q.ListNodes(ctx, tx.Tx, &dbq.ListNodesParams{LivesSeconds: SessionLife.Seconds(), MaxItems: int32(limit)}) //nolint:gosec // a page
	if err != nil {
		return nil, err
	}
	nodes := make([]*riverbeat.Node, len(rows))
	for i, row := range rows {
		n := &riverbeat.Node{
			ID: row.ID, Host: row.Host, Version: row.Version, TZDataVersion: row.TzdataVersion,
			StartedAt: row.StartedAt.UTC(), LastSeenAt: row.LastSeenAt.UTC(), Alive: row.Alive, Running: int(row.Running),
		}
		if err := errors.Join(json.Unmarshal(row.Tasks, &n.Tasks), json.Unmarshal(row.Commands, &n.Commands), json.Unmarshal(row.Queues, &n.Queues)); err != nil {
			return nil, fmt.Errorf("read the node %s: %w", row.ID, err)
		}
		nodes[i] = n
	}
	return nodes, nil
}
