package riverbeat

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

const (
	// maxListedTimes is how many times of the day Describe writes out before it
	// tells hours and minutes apart.
	maxListedTimes = 6
	// maxListedNumbers is how many evenly spaced numbers it writes out before it
	// says "every 2nd minute from 1 to 59".
	maxListedNumbers = 9
)

// Describe says the expression in English words, without the zone. It tells the
// parsed fields, not the text, so that it is right where the text surprises:
// two restricted day fields are joined by "or".
func (r *Recurrence) Describe() string {
	if r.every > 0 {
		return describeEvery(r.every)
	}
	c := &r.calendar
	times, days := c.describeTimes(), c.describeDays()
	if strings.HasPrefix(times, "at ") && c.everyDay() && bits.OnesCount64(c.hour) < 24 {
		times += " every day"
	}
	if days == "" {
		return times
	}
	return times + " " + days
}

func describeEvery(seconds int64) string {
	switch {
	case seconds%3600 == 0:
		return everyUnit(int(seconds/3600), "hour") + ", counted in UTC"
	case seconds%60 == 0:
		return everyUnit(int(seconds/60), "minute")
	default:
		return everyUnit(int(seconds), "second")
	}
}

// describeTimes tells the times of the day.
func (c *calendar) describeTimes() string {
	var (
		hours   = bits.OnesCount64(c.hour)
		minutes = bits.OnesCount64(c.minute)
		few     = hours < 24 && hours*minutes*bits.OnesCount64(c.second) <= maxListedTimes
	)
	switch {
	case c.second == 1: // second 0 only
		return c.describeMinutes(hours, minutes, few)
	case few:
		return c.listTimes()
	}
	seconds := "at " + listOf("second", c.second)
	if step := evenStep(c.second, 60); step > 0 {
		seconds = everyUnit(step, "second")
		if minutes == 60 && hours == 24 {
			return seconds
		}
	}
	switch {
	case minutes < 60:
		return seconds + " of " + listOf("minute", c.minute) + c.ofHours()
	case hours < 24:
		return seconds + " of every minute" + c.ofHours()
	default:
		return seconds + " of every minute"
	}
}

// describeMinutes tells the times of the day when all are whole minutes.
func (c *calendar) describeMinutes(hours, minutes int, few bool) string {
	hourStep, minuteStep := evenStep(c.hour, 24), evenStep(c.minute, 60)
	switch {
	case hours == 24 && minuteStep > 0:
		return everyUnit(minuteStep, "minute")
	case c.minute == 1 && hourStep > 0 && hours > 3:
		return everyUnit(hourStep, "hour")
	case minutes == 1 && 2 < hours && hours < 24 && isRun(c.hour):
		return "every hour" + c.fromFirstToLast()
	case few:
		return c.listTimes()
	case minuteStep > 0 && isRun(c.hour):
		return everyUnit(minuteStep, "minute") + c.fromFirstToLast()
	case minuteStep > 0:
		return everyUnit(minuteStep, "minute") + c.ofHours()
	default:
		return "at " + listOf("minute", c.minute) + c.ofHours()
	}
}

func (c *calendar) ofHours() string {
	if bits.OnesCount64(c.hour) == 24 {
		return " of every hour"
	}
	return " of " + listOf("hour", c.hour)
}

// fromFirstToLast is " from 09:00 to 17:45", the first and the last time of the
// day.
func (c *calendar) fromFirstToLast() string {
	first, _ := c.nextSecond(0, 0, 0)
	last, _ := c.prevSecond(23, 59, 59)
	return " from " + showWall(first) + " to " + showWall(last)
}

// listTimes is "at 09:00 and 17:30": each time of the day.
func (c *calendar) listTimes() string {
	var times []string
	for at, _ := c.nextSecond(0, 0, 0); ; {
		times = append(times, showWall(at))
		later, ok := c.nextSecond(int(at/3600), int(at/60%60), int(at%60)+1)
		if !ok {
			return "at " + joinAnd(times)
		}
		at = later
	}
}

func (c *calendar) everyDay() bool {
	const domFull, dowFull = 1<<32 - 2, 1<<7 - 1
	if c.eitherDay {
		return c.dom == domFull || c.dow == dowFull
	}
	return c.dom == domFull && c.dow == dowFull
}

// describeDays tells the days and months; "" if they are all.
func (c *calendar) describeDays() string {
	inMonths, ofMonths := "", "the month"
	if bits.OnesCount64(c.month) < 12 {
		ofMonths = listNames(c.month, func(n int) string { return time.Month(n).String() })
		inMonths = "in " + ofMonths
	}
	onWeekdays := "on " + listNames(c.dow, func(n int) string { return time.Weekday(n).String() })
	onDays := "on " + listOf("day", c.dom) + " of "
	switch {
	case c.everyDay():
		return inMonths
	case c.eitherDay && inMonths != "":
		return inMonths + ", " + onDays + "the month or " + onWeekdays
	case c.eitherDay:
		return onDays + "the month or " + onWeekdays
	case bits.OnesCount64(c.dow) == 7:
		return onDays + ofMonths
	case inMonths != "":
		return onWeekdays + " " + inMonths
	default:
		return onWeekdays
	}
}

// everyUnit is "every hour", "every 2 hours".
func everyUnit(n int, unit string) string {
	if n == 1 {
		return "every " + unit
	}
	return fmt.Sprintf("every %d %ss", n, unit)
}

// evenStep is n if set holds 0, n, 2n and so on and goes on so after size
// (*/15, but not */7 of 60); 0 if not, or if it holds only 0.
func evenStep(set uint64, size int) int {
	n := lowestBit(set, 1)
	if n >= size || size%n != 0 || bits.OnesCount64(set) != size/n {
		return 0
	}
	for i := 0; i < size; i += n {
		if !hasBit(set, i) {
			return 0
		}
	}
	return n
}

// isRun tells whether set has no holes.
func isRun(set uint64) bool {
	return highestBit(set, 63)-lowestBit(set, 0)+1 == bits.OnesCount64(set)
}

// listOf is "minute 5", "minutes 0 to 4 and 30" or "every 2nd minute from 1 to
// 59".
func listOf(unit string, set uint64) string {
	if bits.OnesCount64(set) == 1 {
		return fmt.Sprintf("%s %d", unit, lowestBit(set, 0))
	}
	first, last := lowestBit(set, 0), highestBit(set, 63)
	step := lowestBit(set, first+1) - first
	if n := bits.OnesCount64(set); step > 1 && n > maxListedNumbers && evenStep(set>>first, n*step) == step {
		return fmt.Sprintf("every %s %s from %d to %d", ordinalNumber(step), unit, first, last)
	}
	return unit + "s " + listNames(set, strconv.Itoa)
}

// ordinalNumber is "2nd", for the steps that listOf meets: 2 to 6.
func ordinalNumber(n int) string {
	switch n {
	case 2:
		return "2nd"
	case 3:
		return "3rd"
	default:
		return strconv.Itoa(n) + "th"
	}
}

// listNames lists the elements of set, three or more in a row as "a to b".
func listNames(set uint64, name func(int) string) string {
	var names []string
	for n := lowestBit(set, 0); n < 64; n = lowestBit(set, n+1) {
		last := n
		for hasBit(set, last+1) {
			last++
		}
		if last-n < 2 {
			names = append(names, name(n))
			continue
		}
		names = append(names, name(n)+" to "+name(last))
		n = last
	}
	return joinAnd(names)
}

func joinAnd(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
