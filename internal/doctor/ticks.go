package doctor

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const (
	// ticksOfSchedule bounds the newest ticks of one schedule that are compared:
	// a day of one per minute.
	ticksOfSchedule = 1_500
	schedulesOfPage = 200
)

// unaccountedTicks compares nominal ticks, as the recurrences of schedules say
// them, with the ledger: each that is at or before the mark must be a run or
// lie in a gap. A schedule's ticks before its last change were another's, so
// they are not looked at.
func (d *Doctor) unaccountedTicks(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	a := &audit{schedules: o.Schedules, ticks: o.maxTicks}
	since, err := sinceOf(ctx, tx, o)
	if err != nil {
		return f, err
	}
	if a.since, err = tx.FirstRunsWeek(ctx); err != nil {
		return f, err
	}
	if a.since.Before(since) {
		a.since = since
	}
	if err := a.run(ctx, tx); err != nil {
		return f, err
	}
	looked := count(a.lookedAt, "schedule")
	if a.sampled {
		looked += ", a sample,"
	}
	if a.lost == 0 {
		return healthy("Looked at %s of %s in the last %s: all are accounted for.", count(a.compared, "tick"), looked, long(o.Since)), nil
	}
	return Finding{
		Status: Fail, Count: min(a.lost, Most+1),
		Detail: sentence("%s %s neither a run nor in a gap. Looked at %s of %s in the last %s.",
			count(a.lost, "tick"), be(a.lost, "is", "are"), count(a.compared, "tick"), looked, long(o.Since)),
		Examples: a.examples,
		Advice: "Riverbeat does not lose ticks: someone deleted runs, or changed a schedule with psql, or this is a bug, " +
			"and we ask you to report it with the logs of that time. POST /api/v1/schedules/{id}/run makes up for one.",
	}, nil
}

// audit compares ticks with the ledger, within its bounds.
type audit struct {
	since            time.Time
	schedules, ticks int // that may still be looked at

	lookedAt, compared, lost int
	sampled                  bool // there are more schedules, or more ticks
	examples                 []string
}

// run walks the schedules by id from a random one on, and once round, so that
// samples differ. Ids are random themselves.
func (a *audit) run(ctx context.Context, tx *postgres.Tx) error {
	start := uuid.New()
	wrapped := false
	for at := start; ; {
		if a.schedules <= 0 || a.ticks <= 0 {
			a.sampled = true
			return nil
		}
		page, err := tx.EnabledAfter(ctx, at, min(a.schedules, schedulesOfPage))
		if err != nil {
			return err
		}
		for i, s := range page {
			if wrapped && bytes.Compare(s.Schedule.ID[:], start[:]) > 0 {
				return a.compare(ctx, tx, page[:i])
			}
		}
		if err := a.compare(ctx, tx, page); err != nil {
			return err
		}
		switch {
		case len(page) > 0:
			at = page[len(page)-1].Schedule.ID
		case wrapped:
			return nil
		default:
			wrapped, at = true, uuid.Nil
		}
	}
}

// compare looks for the ticks of the schedules in the ledger.
func (a *audit) compare(ctx context.Context, tx *postgres.Tx, page []postgres.DecidedUntil) error {
	var ranges []postgres.TickRange
	var wanted [][]time.Time // newest first, of the range at the same place
	var schedules []*riverbeat.Schedule
	for _, s := range page {
		if a.schedules <= 0 || a.ticks <= 0 {
			break
		}
		a.schedules--
		a.lookedAt++
		ticks, more := nominalTicks(s, a.since, min(a.ticks, ticksOfSchedule))
		a.sampled = a.sampled || more
		if len(ticks) == 0 {
			continue
		}
		a.ticks -= len(ticks)
		a.compared += len(ticks)
		ranges = append(ranges, postgres.TickRange{
			ScheduleID: s.Schedule.ID, After: ticks[len(ticks)-1].Add(-time.Millisecond), Until: s.Mark,
		})
		wanted = append(wanted, ticks)
		schedules = append(schedules, s.Schedule)
	}
	if len(ranges) == 0 {
		return nil
	}
	decided, err := tx.DecidedTicks(ctx, ranges)
	if err != nil {
		return err
	}
	runs := make([]map[int64]bool, len(ranges))
	gaps := make([][]postgres.Decided, len(ranges))
	for i := range runs {
		runs[i] = map[int64]bool{}
	}
	for _, d := range decided {
		if place := d.Place - 1; d.From.Equal(d.Until) {
			runs[place][d.From.UnixMilli()] = true
		} else {
			gaps[place] = append(gaps[place], d)
		}
	}
	for i, ticks := range wanted {
		for _, at := range ticks {
			if runs[i][at.UnixMilli()] || inGap(gaps[i], at) {
				continue
			}
			a.lost++
			if len(a.examples) < maxExamples {
				a.examples = append(a.examples, fmt.Sprintf("%s: %s", name(schedules[i].Name, schedules[i].ID), stamp(at)))
			}
		}
	}
	return nil
}

func inGap(gaps []postgres.Decided, at time.Time) bool {
	for _, g := range gaps {
		if !at.Before(g.From) && !at.After(g.Until) {
			return true
		}
	}
	return false
}

// nominalTicks are the newest ticks of a schedule from since on, and after its
// last change, up to its mark; the newest first. more tells that there are
// more than limit.
func nominalTicks(d postgres.DecidedUntil, since time.Time, limit int) (ticks []time.Time, more bool) {
	s := d.Schedule
	r, err := riverbeat.ParseRecurrence(s.CronExpression, s.Timezone)
	if err != nil {
		return nil, false // stopped_clocks tells
	}
	from, until := since, d.Mark
	if s.StartsAt != nil && s.StartsAt.After(from) {
		from = *s.StartsAt
	}
	if s.EndsAt != nil && s.EndsAt.Before(until) {
		until = *s.EndsAt
	}
	for at, ok := r.Prev(until); ok && !at.Before(from) && at.After(s.UpdatedAt); at, ok = r.Prev(at.Add(-1)) {
		if len(ticks) == limit {
			return ticks, true
		}
		ticks = append(ticks, at)
	}
	return ticks, false
}
