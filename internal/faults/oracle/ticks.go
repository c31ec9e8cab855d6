package oracle

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// recurrence is a cron expression as the suite uses them: "@every Ns", or six
// fields of which the last three are "*". It is tried second by second.
type recurrence struct {
	every                 int64
	second, minute, hours func(int) bool
	zone                  *time.Location
}

func parseRecurrence(cron, zone string) (recurrence, error) {
	if text, ok := strings.CutPrefix(cron, "@every "); ok {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second || d%time.Second != 0 {
			return recurrence{}, fmt.Errorf("the oracle cannot read %q", cron)
		}
		return recurrence{every: int64(d / time.Second)}, nil
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return recurrence{}, err
	}
	fields := strings.Fields(cron)
	if len(fields) != 6 || strings.Join(fields[3:], " ") != "* * *" {
		return recurrence{}, fmt.Errorf("the oracle cannot read %q", cron)
	}
	r := recurrence{zone: location}
	for i, matches := range []*func(int) bool{&r.second, &r.minute, &r.hours} {
		if *matches, err = parseField(fields[i]); err != nil {
			return recurrence{}, err
		}
	}
	return r, nil
}

// parseField reads "*", "*/n", "a", "a-b" and lists of the last two.
func parseField(field string) (func(int) bool, error) {
	if field == "*" {
		return func(int) bool { return true }, nil
	}
	if text, ok := strings.CutPrefix(field, "*/"); ok {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("the oracle cannot read the field %q", field)
		}
		return func(v int) bool { return v%n == 0 }, nil
	}
	set := map[int]bool{}
	for part := range strings.SplitSeq(field, ",") {
		low, high, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(low)
		until := from
		if err == nil && isRange {
			until, err = strconv.Atoi(high)
		}
		if err != nil {
			return nil, fmt.Errorf("the oracle cannot read the field %q", field)
		}
		for v := from; v <= until; v++ {
			set[v] = true
		}
	}
	return func(v int) bool { return set[v] }, nil
}

func (r recurrence) ticks(at time.Time) bool {
	if r.every > 0 {
		return at.Unix()%r.every == 0
	}
	local := at.In(r.zone)
	return r.second(local.Second()) && r.minute(local.Minute()) && r.hours(local.Hour())
}

// tick is one nominal time of a schedule.
type tick struct {
	schedule string
	at       int64 // seconds since 1970; the suite's ticks are whole seconds
}

// expectation is what may have become of a tick.
type expectation struct {
	must     bool  // it must be there; else it may be
	versions []int // that may have decided it
}

// undecided is how young a tick may be when everything is read, and not yet
// decided.
const undecided = 15 * time.Second

// covers tells whether a version has ticks at a time, if its recurrence has.
func (v *Version) covers(at time.Time) bool {
	return v.Enabled && (v.StartsAt == nil || !at.Before(*v.StartsAt)) && (v.EndsAt == nil || !at.After(*v.EndsAt))
}

// nominal computes the ticks of all schedules, second by second. Near an edit
// it is not known on which side of it a tick fell: there a tick that both
// versions have must be decided by either, and one that only one has may be
// there or not.
func nominal(ev *Evidence) (map[tick]*expectation, error) {
	bySchedule := map[string][]Version{}
	for _, v := range ev.Versions {
		bySchedule[v.ScheduleID] = append(bySchedule[v.ScheduleID], v)
	}
	ticks := map[tick]*expectation{}
	for id, versions := range bySchedule {
		recurrences := make([]recurrence, len(versions))
		for i, v := range versions {
			var err error
			if recurrences[i], err = parseRecurrence(v.Cron, v.Zone); err != nil {
				return nil, err
			}
		}
		for second := versions[0].Earliest.Unix(); second <= ev.Judged.Unix(); second++ {
			at := time.Unix(second, 0)
			var of []int
			reigning, having := 0, 0
			for i, v := range versions {
				// v reigns over ticks after its own edit, up to that of the next.
				if !at.After(v.Earliest) || i+1 < len(versions) && at.After(versions[i+1].Latest) {
					continue
				}
				reigning++
				if v.covers(at) && recurrences[i].ticks(at) {
					having++
					of = append(of, v.Number)
				}
			}
			if having > 0 {
				before := !at.After(versions[0].Latest) // perhaps it was made later
				young := ev.Judged.Sub(at) < undecided
				ticks[tick{id, second}] = &expectation{must: having == reigning && !before && !young, versions: of}
			}
		}
	}
	return ticks, nil
}
