package riverbeat

import "github.com/google/uuid"

// Busy is what stands in the way of a new run of a lock key. The zero value is
// a free key.
type Busy struct {
	// Job is the run whose job is live, and JobState how far it has come.
	Job      *uuid.UUID
	JobState State
	// First is the run at the head of the line, nil when nobody waits.
	First *uuid.UUID
	// Waiting is the length of the line, catch-up and backfill not counted.
	Waiting int
}

// Admission is what becomes of a new run.
type Admission struct {
	State     State // Queued, Waiting or Skipped
	Reason    Reason
	BlockedBy *uuid.UUID
}

// Admit decides a run of policy that meets busy. A run of policy queue goes
// behind whoever waits, even when the key has just become free, so that no
// one is overtaken. maxWaiting bounds the line; catch-up and backfill are
// bounded elsewhere and neither counted nor stopped by it.
func Admit(policy Policy, trigger Trigger, maxWaiting int, busy Busy) Admission {
	blockedBy := busy.Job
	if blockedBy == nil {
		blockedBy = busy.First
	}
	switch {
	case !policy.Keyed(), blockedBy == nil:
		return Admission{State: Queued}
	case policy == Skip:
		return Admission{State: Skipped, Reason: busy.reason(), BlockedBy: blockedBy}
	case bounded(trigger) && busy.Waiting >= maxWaiting:
		return Admission{State: Skipped, Reason: QueueFull, BlockedBy: blockedBy}
	default:
		return Admission{State: Waiting, BlockedBy: blockedBy}
	}
}

// Admitted counts a run that was just admitted, for the next one of its key.
func (b *Busy) Admitted(id uuid.UUID, trigger Trigger, a Admission) {
	switch a.State {
	case Queued:
		b.Job, b.JobState = &id, Queued
	case Waiting:
		if b.First == nil {
			b.First = &id
		}
		if bounded(trigger) {
			b.Waiting++
		}
	default:
	}
}

func (b *Busy) reason() Reason {
	switch {
	case b.Job == nil:
		return AlreadyQueued
	case b.JobState == Running:
		return AlreadyRunning
	case b.JobState == Retrying:
		return RetryPending
	default:
		return AlreadyQueued
	}
}

// bounded tells whether runs of the trigger count against max_waiting.
func bounded(t Trigger) bool { return t == TriggerSchedule || t == TriggerManual }
