package ledger

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/trace"
)

// Retry begins an ended run anew: the same run, with as many attempts as its
// schedule had given it, or its task has now. It gets a new job, so that whatever still reports for the old
// one meets a job that has ended. It does not wait and overtakes nobody: while
// its key is taken, or others wait for it, it is refused.
func (l *Ledger) Retry(ctx context.Context, tx *postgres.Tx, id uuid.UUID) (*riverbeat.Run, error) {
	run, err := hold(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	if err := mayRetry(run); err != nil {
		return nil, err
	}
	if run.LockKey != "" {
		busy, err := tx.Busy(ctx, []string{run.LockKey})
		if err != nil {
			return nil, fmt.Errorf("read who is busy: %w", err)
		}
		if b := busy[run.LockKey]; b != nil {
			return nil, keyTaken(riverbeat.Admit(riverbeat.Skip, run.Trigger, 0, *b).BlockedBy)
		}
	}
	d, err := definitionOf(ctx, tx, run)
	if err != nil {
		return nil, err
	}
	again := *run
	again.MaxAttempts = riverbeat.LimitsOf(d, run.Limits).MaxAttempts
	if d != nil {
		if err := riverbeat.ValidateQueue(d.Queue); err != nil {
			return nil, err
		}
	}
	// The job before the run: whoever retries the old job with River meanwhile
	// takes them in this order, too.
	next := job(&again, d)
	next.Trace = trace.Carry(ctx)
	inTheWay, err := l.enqueue(ctx, tx, next)
	if err != nil {
		return nil, err
	}
	if inTheWay != nil {
		return nil, keyTaken(&inTheWay.BlockedBy)
	}
	again.MaxAttempts += run.Attempt // the run counts those of all its jobs
	queued, err := tx.Requeue(ctx, &again, run.JobID)
	if err == nil && queued == nil {
		err = riverbeat.Errorf(riverbeat.Conflict, "run_not_ended", "Someone else has just begun the run anew.")
	}
	return queued, err
}

// mayRetry tells whether a run is one that ran, or could have.
func mayRetry(run *riverbeat.Run) error {
	switch {
	case !run.State.Ended():
		return riverbeat.Errorf(riverbeat.Conflict, "run_not_ended", "The run has not ended yet (%s).", run.State)
	case run.State == riverbeat.Missed:
		return riverbeat.Errorf(riverbeat.Conflict, "run_never_ran",
			"This stands for ticks that were missed; there is nothing to try again. Run the schedule now instead.")
	case run.State == riverbeat.Skipped, run.Reason == riverbeat.InvalidParams:
		return riverbeat.Errorf(riverbeat.Conflict, "run_never_ran",
			"The run never ran (%s); there is nothing to try again. Run its schedule now instead.", run.Reason)
	}
	return nil
}

func keyTaken(by *uuid.UUID) error {
	return &riverbeat.Error{
		Kind: riverbeat.Conflict, Code: "lock_key_taken", BlockedBy: by,
		Detail: fmt.Sprintf("The run %s has the same lock key and is in the way. Try again when it has ended.", by),
	}
}
