package riverbeat

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"sync"
	"time"

	"github.com/robfig/cron/v3"
)

// MaxExpressionLength is the longest cron expression, in bytes.
const MaxExpressionLength = 255

// MaxEvery is the longest interval of "@every".
const MaxEvery = 10 * 366 * 24 * time.Hour

// Recurrence is a parsed cron expression in a zone: an infinite set of ticks.
// It is immutable. DESIGN.md says why it ticks as it does when clocks change.
type Recurrence struct {
	expression string
	timezone   string
	location   *time.Location

	every    int64 // seconds from tick to tick of "@every"; 0: calendar counts
	calendar calendar
	// fixed: the expression names times of the day, each of which ticks once a
	// day. Otherwise it follows elapsed time, and ticks whenever clocks match.
	fixed bool
}

// Ticks lie in the years 1 to 9999, which is what RFC 3339 and Postgres can
// write. Next and Prev look no further than the horizon; every expression ticks
// within eight years (29 February around 1900 or 2100).
const (
	minTick       = -62_135_596_800 // 0001-01-01T00:00:00Z
	maxTick       = 253_402_300_799 // 9999-12-31T23:59:59Z
	daySeconds    = 24 * 60 * 60
	searchYears   = 10
	searchHorizon = searchYears * 366 * daySeconds
)

// Next is the first tick after the given time, in UTC; false: there is none
// within ten years.
func (r *Recurrence) Next(after time.Time) (time.Time, bool) {
	from := max(min(after.Unix(), maxTick)+1, minTick)
	if r.every > 0 {
		return tickAt(-floorDiv(-from, r.every) * r.every)
	}
	for last := min(from+searchHorizon, maxTick); from <= last; {
		p := r.periodAt(from)
		if from < p.start+maxClockShift { // else the clocks last changed too long ago to matter
			fresh, moved := r.enter(p)
			if moved && from == p.start {
				return tickAt(from)
			}
			from = max(from, fresh)
		}
		if wall, ok := r.calendar.next(from + p.offset); ok && wall-p.offset < p.end {
			return tickAt(wall - p.offset)
		}
		from = p.end
	}
	return time.Time{}, false
}

// Prev is the latest tick at or before the given time, in UTC; false: there is
// none within ten years.
func (r *Recurrence) Prev(at time.Time) (time.Time, bool) {
	from := min(at.Unix(), maxTick)
	if r.every > 0 {
		return tickAt(floorDiv(from, r.every) * r.every)
	}
	for first := max(from-searchHorizon, minTick); from >= first; {
		p := r.periodAt(from)
		wall, ok := r.calendar.prev(from + p.offset)
		if ok && wall-p.offset >= p.start+maxClockShift {
			return tickAt(wall - p.offset)
		}
		fresh, moved := r.enter(p)
		if ok && wall-p.offset >= fresh {
			return tickAt(wall - p.offset)
		}
		if moved {
			return tickAt(p.start)
		}
		from = p.start - 1
	}
	return time.Time{}, false
}

func tickAt(at int64) (time.Time, bool) {
	if at < minTick || at > maxTick {
		return time.Time{}, false
	}
	return time.Unix(at, 0).UTC(), true
}

// Count is how many ticks lie in (after, until], but at most most; more tells
// whether there are more than that. It reckons by days and does not walk the
// ticks.
func (r *Recurrence) Count(after, until time.Time, most int) (n int, more bool) {
	most = max(most, 0)
	from := max(min(after.Unix(), maxTick)+1, minTick)
	end := min(until.Unix(), maxTick) + 1
	if from >= end {
		return 0, false
	}
	if r.every > 0 {
		ticks := floorDiv(end-1, r.every) - floorDiv(from-1, r.every)
		return int(min(ticks, int64(most))), ticks > int64(most)
	}
	for from < end && n <= most {
		p := r.periodAt(from)
		fresh, moved := r.enter(p)
		if moved && from == p.start && !r.calendar.matches(p.start+p.offset) {
			n++ // a tick at the start that the calendar does not count
		}
		stop := min(p.end, end)
		if from = max(from, fresh); from < stop {
			n += r.calendar.count(from+p.offset, stop+p.offset, most-n)
		}
		from = stop
	}
	return min(n, most), n > most
}

// Remark says what is odd about a tick, in a short sentence: that its time
// does not exist on that day, or exists twice. "" for an ordinary tick.
func (r *Recurrence) Remark(tick time.Time) string {
	at := tick.Unix()
	if at < minTick || at > maxTick {
		return ""
	}
	p := r.periodAt(at)
	if _, moved := r.enter(p); moved && at == p.start {
		return r.remarkMoved(p)
	}
	return r.remarkRepeated(at, at+p.offset)
}

// remarkRepeated tells how often clocks show the wall time around an instant
// that shows it, and which of them that is.
func (r *Recurrence) remarkRepeated(at, wall int64) string {
	which, all := 0, 0
	for near := max(at-maxClockShift, minTick); near <= min(at+maxClockShift, maxTick); {
		p := r.periodAt(near)
		if same := wall - p.offset; p.start <= same && same < p.end {
			all++
			if same <= at {
				which++
			}
		}
		near = p.end
	}
	if all < 2 {
		return ""
	}
	return fmt.Sprintf("%s of %s %s", ordinals[min(which, 4)], numerals[min(all, 4)], showWall(wall))
}

var (
	ordinals = [...]string{"", "first", "second", "third", "fourth"}
	numerals = [...]string{"", "one", "two", "three", "four"}
)

// remarkMoved tells which ticks happen at the start of p for want of a time of
// their own.
func (r *Recurrence) remarkMoved(p zonePeriod) string {
	skipped, shown := r.seenBefore(p), p.start+p.offset
	first, _ := r.calendar.next(skipped)
	last, _ := r.calendar.prev(shown - 1)
	times, verb := showWall(first), "does"
	if first != last {
		between := " to "
		if r.calendar.count(first, last, 1) == 1 {
			between = " and "
		}
		times, verb = times+between+showWall(last), "do"
	}
	on := "this day"
	if floorDiv(first, daySeconds) != floorDiv(shown, daySeconds) {
		on = time.Unix(first, 0).UTC().Format(time.DateOnly)
	}
	moved := "moved to"
	if r.calendar.matches(shown) {
		moved = "joined with"
	}
	return fmt.Sprintf("%s %s not exist on %s in %s; %s %s", times, verb, on, r.timezone, moved, showWall(shown))
}

// Expression is the cron expression as it was given.
func (r *Recurrence) Expression() string { return r.expression }

// Timezone is the IANA name of the zone.
func (r *Recurrence) Timezone() string { return r.timezone }

// Location is the zone.
func (r *Recurrence) Location() *time.Location { return r.location }

// String is the expression and the zone, for people.
func (r *Recurrence) String() string { return r.expression + " (" + r.timezone + ")" }

// A wall time is what the clocks of a zone show, in seconds: the Unix time at
// which a clock in UTC shows the same. An instant plus its offset is its wall
// time.

// zonePeriod is a stretch [start, end) of instants with one offset from UTC.
// Two neighbours may have the same offset.
type zonePeriod struct{ start, end, offset int64 }

// maxClockShift is longer than any clock was ever put forward or back: a day,
// where a zone crossed the date line.
const maxClockShift = 2 * daySeconds

// maxMovedGap is the longest gap whose ticks are moved to its end. Longer ones
// are days that a zone left out.
const maxMovedGap = 3 * 60 * 60

// periodAt is the period that holds the instant.
func (r *Recurrence) periodAt(at int64) zonePeriod {
	p := r.zoneBounds(at)
	// Where rules for all years to come follow the last change that is listed,
	// ZoneBounds may answer with the rules' start of the period, before that
	// change (America/Ciudad_Juarez, December 2022). Then something else ends
	// between there and here.
	for p.start > minTick {
		listed := r.zoneBounds(p.start).end
		if listed > at {
			break
		}
		p.start = listed
	}
	return p
}

// zoneBounds is time.ZoneBounds with an end that lies after the instant: on 31
// December of a leap year it may lie before, because it takes each year of the
// rules for 365 days.
func (r *Recurrence) zoneBounds(at int64) zonePeriod {
	local := time.Unix(at, 0).In(r.location)
	_, offset := local.Zone()
	start, end := local.ZoneBounds()
	p := zonePeriod{start: minTick, end: maxTick + 1, offset: int64(offset)}
	if !start.IsZero() {
		p.start = max(start.Unix(), minTick)
	}
	if !end.IsZero() {
		p.end = end.Unix()
	}
	if p.end <= at {
		p.end = (floorDiv(at, daySeconds) + 1) * daySeconds
	}
	return p
}

// enter tells how a fixed time of the day meets the start of p: fresh is the
// first instant at which clocks show a time that they had not shown before;
// moved tells whether they skip a tick at the start of p, which then happens
// there. To elapsed time every instant is fresh and none is skipped.
func (r *Recurrence) enter(p zonePeriod) (fresh int64, moved bool) {
	if !r.fixed || p.start <= minTick {
		return p.start, false
	}
	seen, shown := r.seenBefore(p), p.start+p.offset
	if gap := shown - seen; 0 < gap && gap <= maxMovedGap {
		skipped, ok := r.calendar.next(seen)
		moved = ok && skipped < shown
	}
	return max(p.start, seen-p.offset), moved
}

// seenBefore is the first wall time that no clock had shown before p began: how
// far the hand had come, if it is never put back.
func (r *Recurrence) seenBefore(p zonePeriod) int64 {
	seen := int64(math.MinInt64)
	for start := p.start; start > max(p.start-maxClockShift, minTick); {
		before := r.periodAt(start - 1)
		seen = max(seen, start+before.offset)
		start = before.start
	}
	return seen
}

// calendar is the set of wall times that match the fields of an expression. It
// knows no zones: its days all have 24 hours. Bit n of a set stands for n.
type calendar struct {
	second, minute, hour, dom, month, dow uint64
	// eitherDay: dom and dow are both restricted, and one of them is enough.
	eitherDay bool
	// days are the matching days of a month, by the weekday of its first day.
	days [7]uint64
}

// makeCalendar takes over the fields that robfig parsed.
func makeCalendar(s *cron.SpecSchedule) calendar {
	const star = 1 << 63 // robfig's mark of a field that is * or ?
	c := calendar{
		second: s.Second &^ star, minute: s.Minute &^ star, hour: s.Hour &^ star,
		dom: s.Dom &^ star, month: s.Month &^ star, dow: s.Dow &^ star,
		eitherDay: (s.Dom|s.Dow)&star == 0,
	}
	for first := range c.days {
		for d := 1; d <= 31; d++ {
			dom, dow := hasBit(c.dom, d), hasBit(c.dow, (first+d-1)%7)
			if dom && dow || c.eitherDay && (dom || dow) {
				c.days[first] |= 1 << d
			}
		}
	}
	return c
}

// possible tells whether there is any day that matches: 30 February is none.
func (c *calendar) possible() bool {
	for month := time.January; month <= time.December; month++ {
		for first := range 7 {
			if hasBit(c.month, int(month)) && c.days[first]&daysOf(2000, month) != 0 { // a leap year
				return true
			}
		}
	}
	return false
}

func (c *calendar) matches(wall int64) bool {
	next, ok := c.next(wall)
	return ok && next == wall
}

// next is the first matching wall time at or after the given one; false: there
// is none within the horizon.
func (c *calendar) next(wall int64) (int64, bool) {
	from := time.Unix(wall, 0).UTC()
	year, month, d := from.Date()
	first, days := c.monthOf(year, month)
	if hasBit(days, d) {
		if second, ok := c.nextSecond(from.Clock()); ok {
			return first + int64(d-1)*daySeconds + second, true
		}
	}
	d = lowestBit(days, d+1)
	for last := year + searchYears; d > 31; d = lowestBit(days, 1) {
		if month = time.Month(lowestBit(c.month, int(month)+1)); month > 12 {
			month = time.Month(lowestBit(c.month, 1))
			if year++; year > last {
				return 0, false
			}
		}
		first, days = c.monthOf(year, month)
	}
	second, _ := c.nextSecond(0, 0, 0)
	return first + int64(d-1)*daySeconds + second, true
}

// prev is the last matching wall time at or before the given one; false: there
// is none within the horizon.
func (c *calendar) prev(wall int64) (int64, bool) {
	from := time.Unix(wall, 0).UTC()
	year, month, d := from.Date()
	first, days := c.monthOf(year, month)
	if hasBit(days, d) {
		if second, ok := c.prevSecond(from.Clock()); ok {
			return first + int64(d-1)*daySeconds + second, true
		}
	}
	d = highestBit(days, d-1)
	for last := year - searchYears; d < 1; d = highestBit(days, 31) {
		if month = time.Month(highestBit(c.month, int(month)-1)); month < 1 {
			month = time.Month(highestBit(c.month, 12))
			if year--; year < last {
				return 0, false
			}
		}
		first, days = c.monthOf(year, month)
	}
	second, _ := c.prevSecond(23, 59, 59)
	return first + int64(d-1)*daySeconds + second, true
}

// count is the number of matching wall times in [from, until). Once there are
// more than most it may stop.
func (c *calendar) count(from, until int64, most int) int {
	perDay := bits.OnesCount64(c.hour) * bits.OnesCount64(c.minute) * bits.OnesCount64(c.second)
	a, b := time.Unix(from, 0).UTC(), time.Unix(until, 0).UTC()
	n := c.earlierThatDay(b) - c.earlierThatDay(a) // and the days from a's to the one before b's
	year, month, d := a.Date()
	lastYear, lastMonth, end := b.Date()
	for n <= most {
		_, days := c.monthOf(year, month)
		days = days >> d << d
		if year == lastYear && month == lastMonth {
			n += perDay * bits.OnesCount64(days&(1<<end-1))
			break
		}
		n += perDay * bits.OnesCount64(days)
		year, month = nextMonth(year, month)
		d = 1
	}
	return n
}

func nextMonth(year int, month time.Month) (int, time.Month) {
	if month == time.December {
		return year + 1, time.January
	}
	return year, month + 1
}

// monthOf is the wall time at which the month begins, and its matching days.
func (c *calendar) monthOf(year int, month time.Month) (first int64, days uint64) {
	begin := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	if hasBit(c.month, int(month)) {
		days = c.days[begin.Weekday()] & daysOf(year, month)
	}
	return begin.Unix(), days
}

// daysOf is the set of the days that the month has.
func daysOf(year int, month time.Month) uint64 {
	n := 31
	switch month {
	case time.April, time.June, time.September, time.November:
		n = 30
	case time.February:
		n = 28
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			n = 29
		}
	default:
	}
	return 1<<(n+1) - 2
}

// nextSecond is the first matching second of a day at or after the given time.
func (c *calendar) nextSecond(h, m, s int) (int64, bool) {
	if !hasBit(c.hour, h) {
		h, m, s = lowestBit(c.hour, h+1), 0, 0
	}
	if !hasBit(c.minute, m) {
		m, s = lowestBit(c.minute, m+1), 0
	}
	if s = lowestBit(c.second, s); s > 59 {
		m, s = lowestBit(c.minute, m+1), lowestBit(c.second, 0)
	}
	if m > 59 {
		h, m, s = lowestBit(c.hour, h+1), lowestBit(c.minute, 0), lowestBit(c.second, 0)
	}
	return int64(h*3600 + m*60 + s), h < 24
}

// prevSecond is the last matching second of a day at or before the given time.
func (c *calendar) prevSecond(h, m, s int) (int64, bool) {
	if !hasBit(c.hour, h) {
		h, m, s = highestBit(c.hour, h-1), 59, 59
	}
	if !hasBit(c.minute, m) {
		m, s = highestBit(c.minute, m-1), 59
	}
	if s = highestBit(c.second, s); s < 0 {
		m, s = highestBit(c.minute, m-1), highestBit(c.second, 59)
	}
	if m < 0 {
		h, m, s = highestBit(c.hour, h-1), highestBit(c.minute, 59), highestBit(c.second, 59)
	}
	return int64(h*3600 + m*60 + s), h >= 0
}

// earlierThatDay is how many matching times the day has before the given one.
func (c *calendar) earlierThatDay(wall time.Time) int {
	_, days := c.monthOf(wall.Year(), wall.Month())
	if !hasBit(days, wall.Day()) {
		return 0
	}
	h, m, s := wall.Clock()
	below := func(set uint64, n int) int { return bits.OnesCount64(set & (1<<n - 1)) }
	seconds := bits.OnesCount64(c.second)
	n := below(c.hour, h) * bits.OnesCount64(c.minute) * seconds
	if hasBit(c.hour, h) {
		n += below(c.minute, m) * seconds
		if hasBit(c.minute, m) {
			n += below(c.second, s)
		}
	}
	return n
}

func hasBit(set uint64, n int) bool { return set>>n&1 == 1 }

// lowestBit is the least element of set that is at least n; 64 if there is none.
func lowestBit(set uint64, n int) int { return bits.TrailingZeros64(set >> n << n) }

// highestBit is the greatest element of set that is at most n; -1 if there is
// none.
func highestBit(set uint64, n int) int { return bits.Len64(set<<(63-n)>>(63-n)) - 1 }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// showWall writes a wall time as clocks show it.
func showWall(wall int64) string {
	if wall%60 != 0 {
		return time.Unix(wall, 0).UTC().Format("15:04:05")
	}
	return time.Unix(wall, 0).UTC().Format("15:04")
}

// ParseRecurrence reads a cron expression: five fields, or six with the second
// first; names of months and days; "@hourly" and its like; "@every 90s".
// timezone is an IANA name. The error is an *Error of kind Invalid.
func ParseRecurrence(expression, timezone string) (*Recurrence, error) {
	r := &Recurrence{expression: expression, timezone: timezone}
	if err := r.parseExpression(); err != nil {
		return nil, err
	}
	location, err := loadZone(timezone)
	if err != nil {
		return nil, err
	}
	r.location = location
	return r, nil
}

// cronDescriptors are the words for whole expressions. (@reboot is none of ours:
// a schedule outlives every process.)
var cronDescriptors = map[string]string{
	"@yearly":   "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
	"@monthly":  "0 0 1 * *",
	"@weekly":   "0 0 * * 0",
	"@daily":    "0 0 * * *",
	"@midnight": "0 0 * * *",
	"@hourly":   "0 * * * *",
}

// The places of the fields, and what may stand there.
const (
	fieldSecond = iota
	fieldMinute
	fieldHour
	fieldDom
	fieldMonth
	fieldDow
)

var cronFields = [...]struct{ name, values string }{
	fieldSecond: {"second", "0 to 59"},
	fieldMinute: {"minute", "0 to 59"},
	fieldHour:   {"hour", "0 to 23"},
	fieldDom:    {"day of month", "1 to 31"},
	fieldMonth:  {"month", "1 to 12 or jan to dec"},
	fieldDow:    {"day of week", "0 to 6 or sun to sat (Sunday is 0, not 7)"},
}

var cronParser = cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

func (r *Recurrence) parseExpression() error {
	text := strings.TrimSpace(r.expression)
	switch {
	case text == "":
		return invalidCron("It is empty; a cron expression has five fields, such as \"0 9 * * mon-fri\".")
	case len(r.expression) > MaxExpressionLength:
		return invalidCron("It is longer than %d characters.", MaxExpressionLength)
	case strings.HasPrefix(text, "TZ=") || strings.HasPrefix(text, "CRON_TZ="):
		return invalidCron("Name the zone in the field timezone, not in the expression.")
	}
	fields := strings.Fields(text)
	if fields[0] == "@every" {
		return r.parseEvery(fields[1:])
	}
	if strings.HasPrefix(text, "@") {
		meaning, ok := cronDescriptors[text]
		if !ok {
			return invalidCron("%q is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @every.", text)
		}
		fields = strings.Fields(meaning)
	}
	if len(fields) == 5 {
		fields = append([]string{"0"}, fields...)
	}
	if len(fields) != 6 {
		return invalidCron("It has %d fields; there must be five (minute, hour, day of month, month, day of week), or six with the second first.", len(fields))
	}
	return r.parseFields(fields)
}

func (r *Recurrence) parseFields(fields []string) error {
	for i, field := range fields {
		if err := checkCronField(i, field); err != nil {
			return err
		}
	}
	parsed, err := cronParser.Parse(strings.Join(fields, " "))
	if err != nil {
		return findInvalidField(fields)
	}
	r.calendar = makeCalendar(parsed.(*cron.SpecSchedule))
	if !r.calendar.possible() {
		return invalidCron("It never ticks: no year has such a day.")
	}
	r.fixed = !beginsWithStar(fields[fieldMinute]) && !beginsWithStar(fields[fieldHour])
	return nil
}

// beginsWithStar tells whether a field begins with * or ? in its text, as Vixie cron
// asks; robfig's own mark is lost when there is a step (*/15).
func beginsWithStar(field string) bool { return field[0] == '*' || field[0] == '?' }

// checkCronField refuses what robfig reads without a murmur and not as it looks:
// empty elements of a list (a "," is never), "*-5", "+5".
func checkCronField(i int, field string) error {
	for element := range strings.SplitSeq(field, ",") {
		span, _, _ := strings.Cut(element, "/")
		if element == "" || len(span) > 1 && beginsWithStar(span) || strings.Contains(field, "+") {
			return invalidCronField(i, field)
		}
	}
	return nil
}

// findInvalidField finds the field that cannot be read, and says what may stand there.
func findInvalidField(fields []string) error {
	for i, field := range fields {
		one := []string{"*", "*", "*", "*", "*", "*"}
		one[i] = field
		if _, err := cronParser.Parse(strings.Join(one, " ")); err != nil {
			return invalidCronField(i, field)
		}
	}
	return invalidCron("It cannot be read.")
}

func invalidCronField(i int, field string) *Error {
	rule := cronFields[i]
	return invalidCron("The %s field %q cannot be read; it takes %s, alone or in lists (1,3), upward ranges (1-5) and steps (*/2), or *.", rule.name, field, rule.values)
}

// parseEvery reads what follows "@every".
func (r *Recurrence) parseEvery(words []string) error {
	if len(words) != 1 {
		return invalidCron("@every takes one duration, such as \"@every 90s\" or \"@every 1h30m\".")
	}
	d, err := time.ParseDuration(words[0])
	switch {
	case err != nil:
		return invalidCron("%q is no duration; write hours, minutes and seconds, such as 90s, 1h30m or 24h.", words[0])
	case d < time.Second || d%time.Second != 0:
		return invalidCron("@every takes whole seconds, at least one.")
	case d > MaxEvery:
		return invalidCron("@every takes at most ten years.")
	}
	r.every = int64(d / time.Second)
	return nil
}

func invalidCron(format string, args ...any) *Error {
	return InvalidField("invalid_cron_expression", "/cron_expression", format, args...)
}

// loadedZones keeps the zones that were loaded, by name, because loading one
// reads a file. There are some 600 names.
var loadedZones sync.Map

// loadZone loads a zone by its IANA name. Other names that the machine may
// know ("Local", "localtime", files of the zone folder, leap-second variants)
// do not mean the same on every node and are refused.
func loadZone(name string) (*time.Location, error) {
	if loaded, ok := loadedZones.Load(name); ok {
		return loaded.(*time.Location), nil
	}
	if !plausibleZone(name) {
		return nil, invalidZone(name)
	}
	location, err := time.LoadLocation(name)
	if err != nil {
		return nil, invalidZone(name)
	}
	loadedZones.Store(name, location)
	return location, nil
}

func plausibleZone(name string) bool {
	switch strings.ToLower(name) {
	case "", "local", "localtime", "posixrules", "factory":
		return false
	}
	if len(name) > 64 || name[0] == '/' || strings.HasPrefix(name, "posix/") || strings.HasPrefix(name, "right/") {
		return false
	}
	return strings.IndexFunc(name, func(c rune) bool {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		return !letter && (c < '0' || c > '9') && !strings.ContainsRune("/_+-", c)
	}) < 0
}

func invalidZone(name string) *Error {
	if len(name) > 64 {
		return InvalidField("invalid_timezone", "/timezone", "It is longer than any IANA zone name.")
	}
	return InvalidField("invalid_timezone", "/timezone", "%q is no IANA zone name; write one such as UTC, Europe/Berlin or Asia/Tokyo.", name)
}
