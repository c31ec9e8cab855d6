package ledger

import (
	"context"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Cancel cancels a run that has not ended. One that waits, or whose job does,
// ends at once, and its line moves up; a running one is asked to stop, and ends
// when its task obeys.
func (l *Ledger) Cancel(ctx context.Context, tx *postgres.Tx, id uuid.UUID) (*riverbeat.Run, error) {
	run, err := hold(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	for {
		cancelled, err := l.cancel(ctx, tx, run)
		if err != nil || cancelled != nil {
			return cancelled, err
		}
		if run, err = tx.Run(ctx, id); err != nil {
			return nil, err
		}
	}
}

// cancel cancels run as it was read. It is nil if the run has ended, or has got
// another job, since then.
func (l *Ledger) cancel(ctx context.Context, tx *postgres.Tx, run *riverbeat.Run) (*riverbeat.Run, error) {
	if run.State.Ended() {
		return nil, riverbeat.Errorf(riverbeat.Conflict, "run_ended", "The run has ended already (%s).", run.State)
	}
	running := false
	if run.JobID != nil {
		var err error
		if running, err = l.queue.Cancel(ctx, tx.Tx, *run.JobID); err != nil {
			return nil, err
		}
	}
	cancelled, err := tx.CancelRun(ctx, run, running)
	if err == nil && cancelled != nil && !running && run.LockKey != "" {
		l.tryPromote(ctx, tx, run.LockKey)
	}
	return cancelled, err
}

// tryPromote promotes the line of a key if it can. A line that cannot move
// keeps nobody from cancelling what was in its way; the nodes are told of it by
// the history trigger, too, and say what is wrong.
func (l *Ledger) tryPromote(ctx context.Context, tx *postgres.Tx, key string) {
	_ = tx.Savepoint(ctx, func(tx *postgres.Tx) error { return l.Promote(ctx, tx, key) })
}

// hold reads a run and, if it is keyed, holds the admission of its key: then
// nobody but us queues it, or moves its line, until the transaction ends.
func hold(ctx context.Context, tx *postgres.Tx, id uuid.UUID) (*riverbeat.Run, error) {
	run, err := tx.Run(ctx, id)
	if err != nil || run.LockKey == "" {
		return run, err
	}
	if err := tx.LockKeys(ctx, []string{run.LockKey}); err != nil {
		return nil, err
	}
	return tx.Run(ctx, id) // what it has become meanwhile
}
