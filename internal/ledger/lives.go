package ledger

import (
	"context"
	"encoding/json"
	"fmt"

	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
)

// TakeOver ends a running job that nobody will report the end of, and gives
// its run a new one with the attempts that remain. The attempt that was lost is
// not used up. The job itself is never worked again: a late report of its old
// process would else end the attempt of the new one, since River compares
// neither attempt nor owner.
//
// withNode says that the node is gone for good. That costs the run a life, and
// with the last one it has failed. A run that someone wanted to cancel is
// cancelled.
func (l *Ledger) TakeOver(ctx context.Context, tx *postgres.Tx, lost *postgres.LostJob, withNode bool) error {
	run := lost.Run
	withNode = withNode && run != nil && !lost.CancelRequested
	if withNode {
		if err := tx.LoseLife(ctx, run); err != nil {
			return err
		}
	}
	switch {
	case run == nil:
		return l.end(ctx, tx, lost, "cancelled", "The job is not its run's any more.", nil)
	case lost.CancelRequested:
		return l.end(ctx, tx, lost, "cancelled", "Cancelled; the process that worked it was lost.", nil)
	case withNode && run.Lives+1 >= riverbeat.MaxLives:
		cause := fmt.Sprintf("The process that worked the run was lost, for the %dth time.", riverbeat.MaxLives)
		return l.end(ctx, tx, lost, "discarded", cause, said(riverbeat.Failed, riverbeat.WorkerLost))
	default:
		var reason riverbeat.Reason
		if withNode {
			reason = riverbeat.WorkerLost
		}
		return l.nextLife(ctx, tx, lost, reason)
	}
}

// Complete ends the job of a run that has succeeded, when River could not.
func (l *Ledger) Complete(ctx context.Context, tx *postgres.Tx, lost *postgres.LostJob, result json.RawMessage) error {
	var output map[string]any
	if result != nil {
		output = map[string]any{"output": result}
	}
	return l.end(ctx, tx, lost, "completed", "", output)
}

// end ends a job in one of River's final states and moves up its line.
func (l *Ledger) end(ctx context.Context, tx *postgres.Tx, lost *postgres.LostJob, state, cause string, metadata map[string]any) error {
	if lost.Key == "" {
		return tx.FinalizeJob(ctx, lost.ID, state, cause, metadata)
	}
	if err := tx.Promoting(ctx, lost.Key); err != nil {
		return err
	}
	if err := tx.FinalizeJob(ctx, lost.ID, state, cause, metadata); err != nil {
		return err
	}
	return l.Promote(ctx, tx, lost.Key)
}

func (l *Ledger) nextLife(ctx context.Context, tx *postgres.Tx, lost *postgres.LostJob, reason riverbeat.Reason) error {
	run := lost.Run
	if err := tx.DetachJob(ctx, run); err != nil {
		return err
	}
	if err := tx.Promoting(ctx, run.LockKey); err != nil {
		return err
	}
	const cause = "The process that worked it was lost; the run goes on under another job."
	if err := tx.FinalizeJob(ctx, lost.ID, "cancelled", cause, nil); err != nil {
		return err
	}
	next := *run
	next.MaxAttempts = lost.MaxAttempts - (lost.Attempt - 1)
	definition, err := definitionOf(ctx, tx, run)
	if err != nil {
		return err
	}
	inTheWay, err := l.enqueue(ctx, tx, job(&next, definition))
	if err != nil {
		return err
	}
	if inTheWay != nil {
		return fmt.Errorf("the key of run %s was taken while it was held", run.ID)
	}
	return tx.StartNextLife(ctx, &next, lost, reason)
}

// said is how a job's metadata tells the history trigger what it cannot see.
func said(state riverbeat.State, reason riverbeat.Reason) map[string]any {
	return map[string]any{queue.MetadataKey: map[string]string{"state": string(state), "reason": string(reason)}}
}
