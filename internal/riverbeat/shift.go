package riverbeat

import "time"

// Shift is what a change of clocks did to a time that an expression names and
// that is no tick.
type Shift struct {
	// Tick is the one that stands for the time; nil: none does.
	Tick *time.Time
	// Repeated: clocks showed the time twice, and Tick is its first pass.
	// Otherwise they skipped it.
	Repeated bool
	// Wall is the time that was named, as clocks show it: "2026-03-29 02:30".
	Wall string
}

// Shifted tells whether a time is no tick because of a change of clocks. A time
// that clocks skipped may be meant by their offset before the change or by that
// after it.
func (r *Recurrence) Shifted(at time.Time) (Shift, bool) {
	s := at.Unix()
	if r.every > 0 || at.Nanosecond() != 0 || s < minTick || s > maxTick || r.IsTick(at) {
		return Shift{}, false
	}
	p := r.periodAt(s)
	if first, ok := r.firstPass(s, s+p.offset); ok {
		return Shift{Tick: &first, Repeated: true, Wall: showDay(s + p.offset)}, true
	}
	for _, start := range [...]int64{p.start, p.end} {
		if start <= minTick || start > maxTick {
			continue
		}
		if shift, ok := r.skippedAt(r.periodAt(start), s); ok {
			return shift, true
		}
	}
	return Shift{}, false
}

// IsTick tells whether the recurrence ticks at a time.
func (r *Recurrence) IsTick(at time.Time) bool {
	tick, ok := r.Prev(at)
	return ok && tick.Equal(at)
}

// firstPass is the tick for which an instant that shows the wall time comes too
// late; false: there is none.
func (r *Recurrence) firstPass(at, wall int64) (time.Time, bool) {
	if !r.fixed || !r.calendar.matches(wall) {
		return time.Time{}, false
	}
	for near := max(at-maxClockShift, minTick); near < at; {
		p := r.periodAt(near)
		if same := wall - p.offset; p.start <= same && same < p.end && same < at {
			if first, ok := tickAt(same); ok && r.IsTick(first) {
				return first, true
			}
		}
		near = p.end
	}
	return time.Time{}, false
}

// skippedAt tells whether an instant would show, by the offset before p or by
// that of p, a time that the expression names and that clocks skip at the start
// of p.
func (r *Recurrence) skippedAt(p zonePeriod, at int64) (Shift, bool) {
	seen, shown := r.seenBefore(p), p.start+p.offset
	for _, offset := range [...]int64{r.periodAt(p.start - 1).offset, p.offset} {
		wall := at + offset
		if wall < seen || wall >= shown || !r.calendar.matches(wall) {
			continue
		}
		shift := Shift{Wall: showDay(wall)}
		if _, moved := r.enter(p); moved {
			if tick, ok := tickAt(p.start); ok {
				shift.Tick = &tick
			}
		}
		return shift, true
	}
	return Shift{}, false
}

// showDay writes a wall time with its date.
func showDay(wall int64) string {
	return time.Unix(wall, 0).UTC().Format(time.DateOnly) + " " + showWall(wall)
}
