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
// are is settled by the recurrence that it began with; what runs is the schedule as
// it is then.
type Backfill struct {
	ID              uuid.UUID
	ScheduleID      uuid.UUID
	ScheduleName    string
	CronExpression  string
	Timezone        string
	From            time.Time // ticks at it or after
	To              time.Time // ticks before it
	ExecutionPolicy *Policy   // nil: the schedule's
	OnlyMissing     bool      // leave out ticks that ran, or will
	State           BackfillState
	Reason          Reason // why it was cancelled
	Total           int    // ticks in the range
	Decided         int    // of them, those that have become runs
	LeftOut         int    // of them, those that had run already
	DecidedUntil    *time.Time
	LastError       string // why it does not go on; "": it does
	RequestedBy     string
	CreatedAt       time.Time
	FinishedAt      *time.Time

	// Runs counts its runs by their state.
	Runs map[State]int
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

// NextTicks are at most limit ticks of the backfill that are not decided, in their
// order; s is its schedule, of which it may have no tick before StartsAt or after
// EndsAt.
func (b *Backfill) NextTicks(s *Schedule, r *Recurrence, limit int) []time.Time {
	after := b.From.Add(-1)
	if b.DecidedUntil != nil {
		after = *b.DecidedUntil
	}
	var ticks []time.Time
	for len(ticks) < limit {
		next := s.NextTick(r, after)
		if next == nil || !next.Before(b.To) {
			break
		}
		ticks = append(ticks, *next)
		after = *next
	}
	return ticks
}

// Live counts its runs that have not ended.
func (b *Backfill) Live() int {
	n := 0
	for state, runs := range b.Runs {
		if !state.Ended() {
			n += runs
		}
	}
	return n
}
