package celery

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Crontab is a crontab schedule as Celery has it (celery.schedules.crontab): the texts of
// its fields, and the zone in which they are meant.
type Crontab struct {
	Minute, Hour, DayOfMonth, MonthOfYear, DayOfWeek string
	Zone                                             string // an IANA name
}

// field is one of the five: its name, and the numbers that it may have.
type field struct {
	name      string
	low, high int
}

var (
	minutes = field{"minute", 0, 59}
	hours   = field{"hour", 0, 23}
	days    = field{"day of month", 1, 31}
	months  = field{"month", 1, 12}
	weekday = field{"day of week", 0, 6}
)

// set has bit n for each number n.
type set uint64

func (s set) has(n int) bool { return s>>n&1 == 1 }

func (f field) all() set { return set(1)<<(f.high+1) - set(1)<<f.low }

// calendar is a Crontab whose fields were read.
type calendar struct {
	minute, hour, day, month, weekday set
	zone                              *time.Location
}

// parse reads the fields by the rules of Celery's crontab_parser. The error says which of
// them it would refuse, and why.
func (c *Crontab) parse() (*calendar, error) {
	zone, err := time.LoadLocation(c.Zone)
	if err != nil || c.Zone == "" || c.Zone == "Local" {
		return nil, fmt.Errorf("there is no time zone %q", c.Zone)
	}
	read := calendar{zone: zone}
	for _, part := range []struct {
		field field
		text  string
		to    *set
	}{
		{minutes, c.Minute, &read.minute},
		{hours, c.Hour, &read.hour},
		{days, c.DayOfMonth, &read.day},
		{months, c.MonthOfYear, &read.month},
		{weekday, c.DayOfWeek, &read.weekday},
	} {
		if *part.to, err = part.field.parse(part.text); err != nil {
			return nil, fmt.Errorf("%s %q: %w", part.field.name, part.text, err)
		}
	}
	return &read, nil
}

// parse reads one field: parts with commas between them, each *, a number or a range, all
// of them with or without a step. A range may go beyond the end and on at the beginning.
func (f field) parse(text string) (all set, err error) {
	for part := range strings.SplitSeq(strings.ReplaceAll(text, " ", ""), ",") {
		numbers, err := f.parsePart(part)
		if err != nil {
			return 0, err
		}
		for _, n := range numbers {
			all |= 1 << n
		}
	}
	return all, nil
}

func (f field) parsePart(part string) (numbers []int, err error) {
	span, step, stepped := strings.Cut(part, "/")
	from, to, ranged := strings.Cut(span, "-")
	switch {
	case span == "*":
		numbers = f.span(f.low, f.high)
	case ranged:
		first, err := f.number(from)
		if err != nil {
			return nil, err
		}
		last, err := f.number(to)
		if err != nil {
			return nil, err
		}
		numbers = f.span(first, last)
	default:
		n, err := f.number(span)
		if err != nil {
			return nil, err
		}
		if stepped {
			return nil, fmt.Errorf("%q has a step, and is neither * nor a range", part)
		}
		return []int{n}, nil
	}
	if !stepped {
		return numbers, nil
	}
	n, err := strconv.Atoi(step)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("%q is no step", step)
	}
	every := numbers[:0]
	for i := 0; i < len(numbers); i += n {
		every = append(every, numbers[i])
	}
	return every, nil
}

// span has the numbers from first to last, over the end of the field if last is less.
func (f field) span(first, last int) (numbers []int) {
	for n := first; ; n++ {
		if n > f.high {
			n = f.low
		}
		if numbers = append(numbers, n); n == last {
			return numbers
		}
	}
}

// names are those that fields may have in place of numbers; Celery goes by the first three
// letters.
var names = map[string][]string{
	weekday.name: {"sun", "mon", "tue", "wed", "thu", "fri", "sat"},
	months.name:  {"", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"},
}

func (f field) number(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		for i, name := range names[f.name] {
			if name != "" && len(text) >= len(name) && strings.EqualFold(text[:len(name)], name) {
				return i, nil
			}
		}
		return 0, fmt.Errorf("%q is no number", text)
	}
	if n < f.low || n > f.high {
		return 0, fmt.Errorf("%d is not between %d and %d", n, f.low, f.high)
	}
	return n, nil
}

// bothDays tells whether day of month and day of week are both restricted: Celery wants
// both to match then.
func (c *calendar) bothDays() bool { return c.day != days.all() && c.weekday != weekday.all() }

// expression writes the fields as a cron expression of ours. A text that reads the same
// here stays as it is.
func (c *Crontab) expression(read *calendar) string {
	return strings.Join([]string{
		minutes.write(c.Minute, read.minute), hours.write(c.Hour, read.hour),
		days.write(c.DayOfMonth, read.day), months.write(c.MonthOfYear, read.month), weekday.write(c.DayOfWeek, read.weekday),
	}, " ")
}

// write is the text of a field as we have it: * for all, the text as it is if it has only
// what both read in the same way, else its numbers.
func (f field) write(text string, numbers set) string {
	text = strings.ReplaceAll(text, " ", "")
	if numbers == f.all() {
		return "*"
	}
	same := true
	for part := range strings.SplitSeq(text, ",") {
		span, _, _ := strings.Cut(part, "/")
		from, to, ranged := strings.Cut(span, "-")
		first, err := strconv.Atoi(from)
		last, lastErr := strconv.Atoi(to)
		switch {
		case span == "*":
		case ranged:
			same = same && err == nil && lastErr == nil && first <= last
		default:
			same = same && err == nil
		}
	}
	if same {
		return text
	}
	var list []string
	for n := f.low; n <= f.high; n++ {
		if !numbers.has(n) {
			continue
		}
		last := n
		for last < f.high && numbers.has(last+1) {
			last++
		}
		if last > n+1 {
			list = append(list, fmt.Sprintf("%d-%d", n, last))
			n = last
		} else {
			list = append(list, strconv.Itoa(n))
		}
	}
	return strings.Join(list, ",")
}

// next is when Celery would fire after a time: at the first wall time that matches all
// fields; false if there is none within eight years. Where clocks change it may be off by
// that change, as Celery is.
func (c *calendar) next(after time.Time) (time.Time, bool) {
	wall := after.In(c.zone).Truncate(time.Minute).Add(time.Minute)
	for day := time.Date(wall.Year(), wall.Month(), wall.Day(), 0, 0, 0, 0, time.UTC); day.Year() <= wall.Year()+8; day = day.AddDate(0, 0, 1) {
		if !c.month.has(int(day.Month())) || !c.day.has(day.Day()) || !c.weekday.has(int(day.Weekday())) {
			continue
		}
		for hours := c.hour; hours != 0; hours &= hours - 1 {
			for minutes := c.minute; minutes != 0; minutes &= minutes - 1 {
				at := time.Date(day.Year(), day.Month(), day.Day(), bits.TrailingZeros64(uint64(hours)), bits.TrailingZeros64(uint64(minutes)), 0, 0, c.zone)
				if at.After(after) {
					return at.UTC(), true
				}
			}
		}
	}
	return time.Time{}, false
}

// String is the calendar as a cron expression of ours that has numbers only.
func (c *calendar) String() string {
	return strings.Join([]string{
		minutes.write("x", c.minute), hours.write("x", c.hour),
		days.write("x", c.day), months.write("x", c.month), weekday.write("x", c.weekday),
	}, " ")
}
