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
	every    int64 // seconds; 0: the fields say
	location *time.Location

	// Which numbers each field allows.
	second, minute, hour, dom, month, dow [60]bool
	eitherDay                             bool // dom or dow, not both
	elapsed                               bool // follows elapsed time
	onSeconds                             bool // has a field for seconds
}

func newNaiveRecurrence(expression string, location *time.Location) *naiveRecurrence {
	if every, ok := strings.CutPrefix(expression, "@every "); ok {
		d, err := time.ParseDuration(every)
		if err != nil {
			panic(err)
		}
		every := int64(d / time.Second)
		return &naiveRecurrence{every: every, onSeconds: every%60 != 0, location: location}
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
	months := []string{"", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	weekdays := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	return &naiveRecurrence{
		location: location,
		second:   naiveField(fields[0], 0, 59, nil), minute: naiveField(fields[1], 0, 59, nil), hour: naiveField(fields[2], 0, 23, nil),
		dom: naiveField(fields[3], 1, 31, nil), month: naiveField(fields[4], 1, 12, months), dow: naiveField(fields[5], 0, 6, weekdays),
		eitherDay: !naiveUnrestricted(fields[3]) && !naiveUnrestricted(fields[5]),
		elapsed:   strings.ContainsAny(fields[1][:1]+fields[2][:1], "*?"),
		onSeconds: fields[0] != "0",
	}
}

// ticks are those in (from, until]. from and until are whole minutes.
func (n *naiveRecurrence) ticks(from, until time.Time) []time.Time {
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
		case n.elapsed:
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
// two days before at. A change of so many seconds can matter for so long. No
// zone changes its clocks twice within a quarter of an hour.
func (n *naiveRecurrence) changesBefore(at int64) int64 {
	const twoDays, quarter, hour = 2 * 24 * 3600, 900, 3600
	var changes int64
	before := n.offset(at - twoDays)
	for later := at - twoDays + quarter; later <= at; later += quarter {
		offset := n.offset(later)
		changes += max(offset-before, before-offset)
		before = offset
	}
	if changes > 0 {
		changes += hour
	}
	return changes
}

// step is a minute where that is enough: no seconds in the expression, and none
// in the zone's offsets (local mean time has them).
func (n *naiveRecurrence) step(from, until int64) int64 {
	if n.onSeconds {
		return 1
	}
	for at := from - 3600; at < until+3600; at += 1800 {
		if n.offset(at)%60 != 0 {
			return 1
		}
	}
	return 60
}

func (n *naiveRecurrence) offset(at int64) int64 {
	_, offset := time.Unix(at, 0).In(n.location).Zone()
	return int64(offset)
}

func (n *naiveRecurrence) clock(at int64) int64 { return at + n.offset(at) }

func (n *naiveRecurrence) matches(clock int64) bool {
	t := time.Unix(clock, 0).UTC()
	if !n.second[t.Second()] || !n.minute[t.Minute()] || !n.hour[t.Hour()] || !n.month[t.Month()] {
		return false
	}
	dom, dow := n.dom[t.Day()], n.dow[t.Weekday()]
	if n.eitherDay {
		return dom || dow
	}
	return dom && dow
}

func naiveUnrestricted(field string) bool {
	return slices.ContainsFunc(strings.Split(field, ","), func(element string) bool {
		return element == "*" || element == "?" || element == "*/1" || element == "?/1"
	})
}

func naiveField(field string, least, greatest int, names []string) (allowed [60]bool) {
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
		first, last, step := least, greatest, 1
		if span != "*" && span != "?" {
			first = number(low)
			switch {
			case ranged:
				last = number(high)
			case !stepped:
				last = first
			}
		}
		if stepped {
			step = number(stepText)
		}
		for value := first; value <= last; value += step {
			allowed[value] = true
		}
	}
	return allowed
}
