package riverbeat

import (
	"errors"
	"slices"
	"time"
)

// OnTime is how old a tick may be at its claim and still be decided by itself.
// Older ones are caught up with, or missed, by the schedule's CatchUp.
const OnTime = 60 * time.Second

const (
	// MaxCatchUpRuns bounds the runs of catch-up "all"; the newest ones run.
	MaxCatchUpRuns = 1_000
	// MaxGapCount is how far the ticks of a gap are counted.
	MaxGapCount = 10_000
)

// Tick is one nominal time of a schedule that becomes a run.
type Tick struct {
	At      time.Time
	Trigger Trigger // TriggerSchedule or TriggerCatchUp
}

// Gap is a row of ticks that are not run, From the first to Until the last.
type Gap struct {
	From, Until time.Time
	Count       *int // nil: more than MaxGapCount
	Reason      Reason
}

// Plan is what to do about the ticks of a schedule that are due.
type Plan struct {
	Gap   *Gap   // lies before Ticks; nil: nothing is missed
	Ticks []Tick // in order
	// Mark is the new mark: no tick at or before it is decided again.
	Mark time.Time
	// Next is the first tick after Mark; nil: the schedule has ended.
	Next *time.Time
}

// Plan decides the ticks after mark and at or before now, in order and each
// instant once: all of them, so that no part of a backlog waits while its
// window moves on. It walks no more ticks than it returns, however long the
// schedule slept, and those are MaxCatchUpRuns and what is on time at most.
func (s *Schedule) Plan(r *Recurrence, mark, now time.Time) Plan {
	plan := Plan{Mark: mark}
	from, until := s.after(mark), s.until(now)

	onTime := now.Add(-OnTime)
	lastLate, late := r.Prev(earlier(until, onTime.Add(-1)))
	if late = late && lastLate.After(from); late {
		caughtUp := s.catchUp(r, from, lastLate, now)
		missedUntil := lastLate
		if len(caughtUp) > 0 {
			missedUntil, _ = r.Prev(caughtUp[0].Add(-1))
		}
		if missedUntil.After(from) {
			plan.Gap = s.gap(r, from, missedUntil, now)
			plan.Mark = missedUntil
		}
		for _, at := range caughtUp {
			plan.Ticks = append(plan.Ticks, Tick{At: at, Trigger: TriggerCatchUp})
		}
		from = lastLate
	}
	for at, ok := r.Next(from); ok && !at.After(until); at, ok = r.Next(at) {
		plan.Ticks = append(plan.Ticks, Tick{At: at, Trigger: TriggerSchedule})
	}

	if n := len(plan.Ticks); n > 0 {
		plan.Mark = plan.Ticks[n-1].At
	}
	plan.Next = s.NextTick(r, plan.Mark)
	return plan
}

// Settle decides the ticks due at or before now for a schedule that is about
// to change: as Plan does, but with the mark at now, so that the changed
// schedule starts from there.
func (s *Schedule) Settle(r *Recurrence, mark, now time.Time) Plan {
	plan := s.Plan(r, mark, now)
	plan.Mark = later(mark, now)
	plan.Next = s.NextTick(r, plan.Mark)
	return plan
}

// Miss makes one gap of the ticks that are due at or before now, for a schedule
// that can run none of them; nil if there are none.
func (s *Schedule) Miss(r *Recurrence, mark, now time.Time, reason Reason) *Gap {
	from := s.after(mark)
	last, ok := r.Prev(s.until(now))
	if !ok || !last.After(from) {
		return nil
	}
	gap := s.gap(r, from, last, now)
	gap.Reason = reason
	return gap
}

// Recurrence is the recurrence of a schedule that is stored. It could be read when
// it was written, so it is a Conflict if it cannot be any more: whoever asks now is
// not to blame.
func (s *Schedule) Recurrence() (*Recurrence, error) {
	r, err := ParseRecurrence(s.CronExpression, s.Timezone)
	if e, known := errors.AsType[*Error](err); known {
		return nil, &Error{
			Kind: Conflict, Code: "schedule_has_no_ticks",
			Detail: "The schedule cannot be planned any more: " + e.Fields[0].Detail, Cause: err,
		}
	}
	return r, err
}

// NextTick is the first tick after the given time within StartsAt and EndsAt;
// nil: there is none.
func (s *Schedule) NextTick(r *Recurrence, after time.Time) *time.Time {
	next, ok := r.Next(s.after(after))
	if !ok || s.EndsAt != nil && next.After(*s.EndsAt) {
		return nil
	}
	return &next
}

// after moves a mark up to just before StartsAt.
func (s *Schedule) after(mark time.Time) time.Time {
	if s.StartsAt != nil && mark.Before(*s.StartsAt) {
		return s.StartsAt.Add(-1)
	}
	return mark
}

// until moves a time back to EndsAt.
func (s *Schedule) until(now time.Time) time.Time {
	if s.EndsAt != nil {
		return earlier(*s.EndsAt, now)
	}
	return now
}

// catchUp picks, of the late ticks in (from, lastLate], those that run.
func (s *Schedule) catchUp(r *Recurrence, from, lastLate, now time.Time) []time.Time {
	window := now.Add(-s.CatchUpWindow)
	if lastLate.Before(window) {
		return nil
	}
	most := 0
	switch s.CatchUp {
	case CatchUpNone:
	case CatchUpLatest:
		most = 1
	case CatchUpAll:
		most = MaxCatchUpRuns
	}
	var ticks []time.Time
	for at, ok := lastLate, true; ok && at.After(from) && !at.Before(window) && len(ticks) < most; at, ok = r.Prev(at.Add(-1)) {
		ticks = append(ticks, at)
	}
	slices.Reverse(ticks)
	return ticks
}

// gap describes the ticks in (from, until], of which there is at least one.
func (s *Schedule) gap(r *Recurrence, from, until, now time.Time) *Gap {
	first, _ := r.Next(from)
	gap := &Gap{From: first, Until: until, Reason: OutsideWindow}
	if n, more := r.Count(from, until, MaxGapCount); !more {
		gap.Count = &n
	}
	if s.CatchUp != CatchUpNone && !until.Before(now.Add(-s.CatchUpWindow)) {
		gap.Reason = Superseded
	}
	return gap
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
