package ledger

import (
	"time"

	"riverbeat/internal/riverbeat"
)

// Entries makes the entries of a plan: its gap first, then its ticks.
func (l *Ledger) Entries(s *riverbeat.Schedule, d *riverbeat.TaskDefinition, features riverbeat.Features, plan riverbeat.Plan, now time.Time) ([]*Entry, error) {
	entries := make([]*Entry, 0, len(plan.Ticks)+1)
	if plan.Gap != nil {
		entries = append(entries, Gap(s, plan.Gap, now))
	}
	for _, tick := range plan.Ticks {
		entry, err := l.Entry(Request{Schedule: s, Definition: d, Features: features, Trigger: tick.Trigger, At: tick.At}, now)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// Times are the nominal times of entries, which their partitions go by.
func Times(entries []*Entry) []time.Time {
	times := make([]time.Time, len(entries))
	for i, e := range entries {
		times[i] = e.Run.ScheduledFor
	}
	return times
}
