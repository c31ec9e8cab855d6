package riverbeat

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// naiveRecurrence is the rules of recurrence in the most naive way: it walks
// each minute (or second) and looks at the clock. It reads the text itself, and
// shares no code with Recurrence. It expects a valid expression.
type naiveRecurrence struct {
	fields   []string // six, in lower case
	every    int64    // seconds
	location *time.Location
}

func newNaiveRecurrence(expression string, location *time.Location) naiveRecurrence {
	if every, ok := strings.CutPrefix(expression, "@every "); ok {
		d, err := time.ParseDuration(every)
		if err != nil {
			panic(err)
		}
		return naiveRecurrence{every: int64(d / time.Second), location: location}
	}
	switch expression {
	case "@yearly", "@annually":
		expression = "0 0 1 1 *"
	case "@monthly":
		expression = "0 0 1 * *"
	case "@weekly":
		expression = "0 0 * * 0"
	case "@daily", "@midnight":
		expression = "0 0 * * *"
	case "@hourly":
		expression = "0 * * * *"
	}
	fields := strings.Fields(strings.ToLower(expression))
	if len(fields) == 5 {
		fields = slices.Insert(fields, 0, "0")
	}
	return naiveRecurrence{fields: fields, location: location}
}

// ticks are those in (from, until]. from and until are whole minutes.
func (n naiveRecurrence) ticks(from, until time.Time) []time.Time {
	var ticks []time.Time
	first := from.Unix() - n.changesBefore(from.Unix())
	step := n.step(first, until.Unix())
	first -= first % step
	hand := n.clock(first - step) // how far clocks have come
	for at := first; at <= until.Unix(); at += step {
		clock := n.clock(at)
		tick := false
		switch {
		case n.every > 0:
			tick = at%n.every == 0
		case n.elapsed():
			tick = n.matches(clock)
		case clock > hand: // a time of the day that is new
			skipped := clock - hand - step
			for missing := hand + step; missing < clock && skipped <= 3*3600; missing += step {
				tick = tick || n.matches(missing)
			}
			tick = tick || n.matches(clock)
		}
		hand = max(hand, clock)
		if tick && at > from.Unix() {
			ticks = append(ticks, time.Unix(at, 0).UTC())
		}
	}
	return ticks
}

// changesBefore is by how many seconds clocks were put forward and back in the
// two days before at. A change of so many seconds can matter for so long.
func (n naiveRecurrence) changesBefore(at int64) int64 {
	const twoDays, quarter = 2 * 24 * 3600, 900
	var changes int64
	for earlier := at - twoDays; earlier < at; earlier += quarter {
		change := n.offset(min(earlier+quarter, at)) - n.offset(earlier)
		changes += max(change, -change)
	}
	if changes > 0 {
		changes += 2 * quarter
	}
	return changes
}

// step is a minute where that is enough: no seconds in the expression, and none
// in the zone's offsets (local mean time has them).
func (n naiveRecurrence) step(from, until int64) int64 {
	if n.every%60 != 0 || n.every == 0 && n.fields[0] != "0" {
		return 1
	}
	for at := from - 3600; at < until+3600; at += 1800 {
		if n.offset(at)%60 != 0 {
			return 1
		}
	}
	return 60
}

func (n naiveRecurrence) offset(at int64) int64 {
	_, offset := time.Unix(at, 0).In(n.location).Zone()
	return int64(offset)
}

func (n naiveRecurrence) clock(at int64) int64 { return at + n.offset(at) }

func (n naiveRecurrence) elapsed() bool {
	return strings.ContainsAny(n.fields[1][:1]+n.fields[2][:1], "*?")
}

func (n naiveRecurrence) matches(clock int64) bool {
	t := time.Unix(clock, 0).UTC()
	months := []string{"", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	weekdays := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	if !naiveField(n.fields[0], t.Second(), 59, nil) || !naiveField(n.fields[1], t.Minute(), 59, nil) ||
		!naiveField(n.fields[2], t.Hour(), 23, nil) || !naiveField(n.fields[4], int(t.Month()), 12, months) {
		return false
	}
	dom := naiveField(n.fields[3], t.Day(), 31, nil)
	dow := naiveField(n.fields[5], int(t.Weekday()), 6, weekdays)
	if naiveUnrestricted(n.fields[3]) || naiveUnrestricted(n.fields[5]) {
		return dom && dow
	}
	return dom || dow
}

func naiveUnrestricted(field string) bool {
	return slices.ContainsFunc(strings.Split(field, ","), func(element string) bool {
		return element == "*" || element == "?" || element == "*/1" || element == "?/1"
	})
}

func naiveField(field string, value, greatest int, names []string) bool {
	number := func(text string) int {
		if i := slices.Index(names, text); i >= 0 {
			return i
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			panic(err)
		}
		return n
	}
	for element := range strings.SplitSeq(field, ",") {
		span, stepText, stepped := strings.Cut(element, "/")
		low, high, ranged := strings.Cut(span, "-")
		first, last, step := 0, greatest, 1
		if span != "*" && span != "?" {
			first = number(low)
			switch {
			case ranged:
				last = number(high)
			case !stepped:
				last = first
			}
		} else if greatest == 31 || greatest == 12 { // days of the month and months count from 1
			first = 1
		}
		if stepped {
			step = number(stepText)
		}
		if first <= value && value <= last && (value-first)%step == 0 {
			return true
		}
	}
	return false
}
