package riverbeat

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Limits of a forecast of load.
const (
	MaxLoadRange = 7 * 24 * time.Hour
	maxLoadTicks = 3_000_000 // of distinct recurrences, that are walked
	loadPeaks    = 10
	peakCauses   = 5
)

// LoadSource is a recurrence with the number of enabled schedules that have it.
type LoadSource struct {
	CronExpression string
	Timezone       string
	StartsAt       time.Time // no tick before it
	EndsAt         time.Time // no tick after it
	Schedules      int
}

// ticks calls visit for each tick at or after from and before to, until that says
// that it is enough. A recurrence that cannot be read has none.
func (l *LoadSource) ticks(from, to time.Time, visit func(at time.Time) (more bool)) {
	r, err := ParseRecurrence(l.CronExpression, l.Timezone)
	if err != nil {
		return
	}
	s := Schedule{StartsAt: &l.StartsAt, EndsAt: &l.EndsAt}
	for at := s.NextTick(r, from.Add(-1)); at != nil && at.Before(to); at = s.NextTick(r, *at) {
		if !visit(*at) {
			return
		}
	}
}

// Load is how many ticks fall in each minute of a time to come.
type Load struct {
	From, To time.Time
	Total    int
	Minutes  []LoadMinute // those with ticks, in their order
	Peaks    []LoadPeak   // the fullest minutes, the fullest first
}

// LoadMinute is one minute, of the instant at which it begins.
type LoadMinute struct {
	At    time.Time
	Ticks int
}

// LoadPeak is one of the fullest minutes, and what makes it so.
type LoadPeak struct {
	LoadMinute
	Causes []LoadCause // those with the most ticks
}

// LoadCause is a recurrence in a minute.
type LoadCause struct {
	*LoadSource
	Ticks    int
	Examples []NamedSchedule // some of its schedules; filled in by whoever asks
}

// NamedSchedule names a schedule.
type NamedSchedule struct {
	ID             uuid.UUID
	Name, TaskName string
}

// Forecast counts the ticks at or after from and before to. It is Invalid if there
// are too many to be walked.
func Forecast(sources []LoadSource, from, to time.Time) (*Load, error) {
	counts := map[int64]int{}
	walked := 0
	for i := range sources {
		sources[i].ticks(from, to, func(at time.Time) bool {
			counts[at.Unix()/60] += sources[i].Schedules
			walked++
			return walked <= maxLoadTicks
		})
	}
	if walked > maxLoadTicks {
		return nil, InvalidField("too_many_ticks", "to", "there are too many ticks until then; ask for less time")
	}
	load := &Load{From: from, To: to}
	for _, minute := range slices.Sorted(maps.Keys(counts)) {
		load.Total += counts[minute]
		load.Minutes = append(load.Minutes, LoadMinute{time.Unix(minute*60, 0).UTC(), counts[minute]})
	}
	fullest := slices.Clone(load.Minutes)
	slices.SortStableFunc(fullest, func(a, b LoadMinute) int { return cmp.Compare(b.Ticks, a.Ticks) })
	for _, minute := range fullest[:min(len(fullest), loadPeaks)] {
		load.Peaks = append(load.Peaks, LoadPeak{minute, causes(sources, minute.At)})
	}
	return load, nil
}

// causes are the recurrences with the most ticks in a minute.
func causes(sources []LoadSource, minute time.Time) []LoadCause {
	var found []LoadCause
	for i := range sources {
		n := 0
		sources[i].ticks(minute, minute.Add(time.Minute), func(time.Time) bool {
			n += sources[i].Schedules
			return true
		})
		if n > 0 {
			found = append(found, LoadCause{LoadSource: &sources[i], Ticks: n})
		}
	}
	slices.SortStableFunc(found, func(a, b LoadCause) int {
		return cmp.Or(cmp.Compare(b.Ticks, a.Ticks), cmp.Compare(a.CronExpression, b.CronExpression))
	})
	return found[:min(len(found), peakCauses)]
}
