package riverbeat

import (
	"time"

	"github.com/google/uuid"
)

// BackfillState says how far a backfill has come.
type BackfillState string

// The states of a backfill.
const (
	BackfillRunning   BackfillState = "running"   // there are ticks to decide, or runs that have not ended
	BackfillFinished  BackfillState = "finished"  // all its ticks are decided, and their runs have ended
	BackfillCancelled BackfillState = "cancelled" // someone has ended it
)

// Limits of a backfill.
const (
	MaxBackfillTicks = 10_000
	MaxBackfillRange = 366 * 24 * time.Hour
	MaxBackfillAge   = 10 * MaxBackfillRange
)

// BackfillPriority is the priority of the jobs of backfills: River's last, so that
// ticks come first.
const BackfillPriority = 4

// Backfill runs the ticks of a schedule in a range of the past. Which ticks those
// are is settled when it begins; what runs is the schedule as it is then.
type Backfill struct {
	ID              uuid.UUID
	ScheduleID      uuid.UUID
	ScheduleName    string
	CronExpression  string
	Timezone        string
	From            time.Time // ticks at it or after
	To              time.Time // ticks before it
	ExecutionPolicy *Policy   // nil: see PolicyFor
	OnlyMissing     bool      // leave out ticks that ran, or will
	State           BackfillState
	Reason          Reason     // why it was cancelled
	Total           int        // ticks in the range
	Decided         int        // of them, those that have become runs
	LeftOut         int        // of them, those that had run already
	DecidedUntil    *time.Time // the mark: no tick at or before it is decided again
	EndedUntil      *time.Time // all its runs at or before it have ended
	LastError       string     // why it does not go on; "": it does
	RequestedBy     string
	CreatedAt       time.Time
	FinishedAt      *time.Time

	// Runs counts its runs by their state; nil: nobody has counted.
	Runs map[State]int
}

// PolicyFor is the policy of a backfill's runs where the schedule has the given one:
// what was asked for, else the schedule's, but Queue for Skip. Its ticks have the same
// arguments and come all at once: each would be skipped for the sake of the first.
func (b *Backfill) PolicyFor(schedules Policy) Policy {
	switch {
	case b.ExecutionPolicy != nil:
		return *b.ExecutionPolicy
	case schedules == Skip:
		return Queue
	}
	return schedules
}

// Validate checks the rules of a new backfill at a time.
func (b *Backfill) Validate(now time.Time) error {
	var broken fields
	switch {
	case b.From.IsZero():
		broken.addf("/from", "is required")
	case b.From.Before(now.Add(-MaxBackfillAge)):
		broken.addf("/from", "must lie within the last ten years")
	}
	switch {
	case b.To.IsZero():
		broken.addf("/to", "is required")
	case b.To.After(now):
		broken.addf("/to", "must not lie in the future")
	case !b.From.IsZero() && !b.From.Before(b.To):
		broken.addf("/to", "must be after from")
	case !b.From.IsZero() && b.To.Sub(b.From) > MaxBackfillRange:
		broken.addf("/to", "must be within 366 days of from; go in parts")
	}
	return broken.err("invalid_backfill", "The backfill breaks a rule.")
}

// Of makes it a backfill of s: its range is cut to where s has ticks.
func (b *Backfill) Of(s *Schedule) {
	b.ScheduleID, b.ScheduleName, b.CronExpression, b.Timezone = s.ID, s.Name, s.CronExpression, s.Timezone
	if s.StartsAt != nil && s.StartsAt.After(b.From) {
		b.From = *s.StartsAt
	}
	if s.EndsAt != nil && s.EndsAt.Before(b.To) {
		b.To = s.EndsAt.Add(time.Millisecond) // that is the last tick there may be
	}
	if b.To.Before(b.From) {
		b.To = b.From
	}
}

// Decided ticks lie at or before it.
func (b *Backfill) mark() time.Time {
	if b.DecidedUntil != nil {
		return *b.DecidedUntil
	}
	return b.From.Add(-time.Microsecond) // what Postgres can tell from it
}

// EndedTo is the time up to which all its runs are known to have ended.
func (b *Backfill) EndedTo() time.Time {
	if b.EndedUntil != nil {
		return *b.EndedUntil
	}
	return b.From.Add(-time.Microsecond)
}

// NextTicks are at most limit ticks of the backfill that are not decided, in their
// order.
func (b *Backfill) NextTicks(r *Recurrence, limit int) []time.Time {
	var ticks []time.Time
	for at, ok := r.Next(b.mark()); ok && at.Before(b.To) && len(ticks) < limit; at, ok = r.Next(at) {
		ticks = append(ticks, at)
	}
	return ticks
}
