package riverbeat

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the tests run on machines without zones, too

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// recurrenceSeed repeats a run of TestRecurrence_AgreesWithBruteForce.
var recurrenceSeed = flag.Uint64("recurrence.seed", 0, "seed of the random recurrences; 0: a new one")

func mustParseRecurrence(tb testing.TB, expression, timezone string) *Recurrence {
	tb.Helper()
	r, err := ParseRecurrence(expression, timezone)
	require.NoError(tb, err, "%s in %s", expression, timezone)
	return r
}

// utcTime reads "2026-03-08 07:00", optionally with seconds.
func utcTime(tb testing.TB, text string) time.Time {
	tb.Helper()
	layout := time.DateTime[:len(text)]
	at, err := time.Parse(layout, text)
	require.NoError(tb, err)
	return at
}

// nextTicks are the next n ticks, written as utcTime reads them, in UTC.
func nextTicks(r *Recurrence, after time.Time, n int) []string {
	var ticks []string
	for at, ok := r.Next(after); ok && len(ticks) < n; at, ok = r.Next(at) {
		layout := "2006-01-02 15:04"
		if at.Second() != 0 {
			layout = time.DateTime
		}
		ticks = append(ticks, at.Format(layout))
	}
	return ticks
}

// What clocks do there and then, and when it is in UTC, stands above each
// group; the ticks were reckoned from that by hand.
func TestRecurrence_WhenClocksChange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, zone, expression, after string
		want                          []string
	}{
		// New York 2026: 8 March 07:00 UTC 02:00 -> 03:00 (-5 to -4);
		// 1 November 06:00 UTC 02:00 -> 01:00.
		{"fixed time in a gap happens at its end", "America/New_York", "30 2 * * *", "2026-03-07 12:00", []string{"2026-03-08 07:00", "2026-03-09 06:30"}},
		{"gap's first minute", "America/New_York", "0 2 * * *", "2026-03-07 12:00", []string{"2026-03-08 07:00", "2026-03-09 06:00"}},
		{"gap's last minute", "America/New_York", "59 2 * * *", "2026-03-07 12:00", []string{"2026-03-08 07:00", "2026-03-09 06:59"}},
		{"time that ends the gap is its own", "America/New_York", "0 3 * * *", "2026-03-07 12:00", []string{"2026-03-08 07:00", "2026-03-09 07:00"}},
		{"several in a gap happen once", "America/New_York", "*/1,0 2 * * *", "2026-03-09 06:58", []string{"2026-03-09 06:59", "2026-03-10 06:00"}},
		{"list in a gap happens once", "America/New_York", "0,15,30 2 * * *", "2026-03-07 12:00", []string{"2026-03-08 07:00", "2026-03-09 06:00"}},
		{"one moved onto one that stands there", "America/New_York", "0,30 2-3 * * *", "2026-03-07 12:00", []string{"2026-03-08 07:00", "2026-03-08 07:30", "2026-03-09 06:00"}},
		{"moved once though seconds are many", "America/New_York", "*/20 30 2 * * *", "2026-03-07 12:00", []string{"2026-03-08 07:00", "2026-03-09 06:30", "2026-03-09 06:30:20"}},
		{"moved by its own day", "America/New_York", "30 2 8 3 *", "2026-01-01 00:00", []string{"2026-03-08 07:00", "2027-03-08 07:30"}},
		{"weekday in a gap", "America/New_York", "30 2 * * sun", "2026-03-07 12:00", []string{"2026-03-08 07:00", "2026-03-15 06:30"}},
		{"fixed time in a repeated hour is its first pass", "America/New_York", "30 1 * * *", "2026-10-31 12:00", []string{"2026-11-01 05:30", "2026-11-02 06:30"}},
		{"start of the repeated hour", "America/New_York", "0 1 * * *", "2026-10-31 12:00", []string{"2026-11-01 05:00", "2026-11-02 06:00"}},
		{"after the repeated hour", "America/New_York", "0 2 * * *", "2026-10-31 12:00", []string{"2026-11-01 07:00", "2026-11-02 07:00"}},
		{"fixed list across a repeated hour", "America/New_York", "0,30 1,2 * * *", "2026-11-01 04:59", []string{"2026-11-01 05:00", "2026-11-01 05:30", "2026-11-01 07:00"}},
		{"between the passes", "America/New_York", "30 1 * * *", "2026-11-01 06:10", []string{"2026-11-02 06:30"}},
		{"elapsed has both passes", "America/New_York", "*/30 * * * *", "2026-11-01 05:00", []string{"2026-11-01 05:30", "2026-11-01 06:00", "2026-11-01 06:30", "2026-11-01 07:00"}},
		{"starred minute in a named hour has both passes", "America/New_York", "*/30 1 * * *", "2026-11-01 04:59", []string{"2026-11-01 05:00", "2026-11-01 05:30", "2026-11-01 06:00", "2026-11-01 06:30", "2026-11-02 06:00"}},
		{"question mark is a star", "America/New_York", "30 ? * * *", "2026-11-01 05:00", []string{"2026-11-01 05:30", "2026-11-01 06:30", "2026-11-01 07:30"}},
		{"@hourly follows elapsed time", "America/New_York", "@hourly", "2026-11-01 04:30", []string{"2026-11-01 05:00", "2026-11-01 06:00", "2026-11-01 07:00"}},
		{"elapsed over a gap", "America/New_York", "0 * * * *", "2026-03-08 05:30", []string{"2026-03-08 06:00", "2026-03-08 07:00", "2026-03-08 08:00"}},
		{"elapsed has none in a gap", "America/New_York", "*/15 2 * * *", "2026-03-07 07:30", []string{"2026-03-07 07:45", "2026-03-09 06:00"}},
		{"even hours leave the gap out", "America/New_York", "30 */2 * * *", "2026-03-08 05:00", []string{"2026-03-08 05:30", "2026-03-08 08:30"}},
		{"@daily is a fixed time", "America/New_York", "@daily", "2026-10-31 12:00", []string{"2026-11-01 04:00", "2026-11-02 05:00"}},
		{"@every counts seconds, not clocks", "America/New_York", "@every 90m", "2026-03-08 06:00", []string{"2026-03-08 07:30", "2026-03-08 09:00"}},
		// 18 November 1883, 17:00 UTC: 12:03:58 -> 12:00:00, local mean time
		// (-4:56:02) to -5.
		{"local mean time ends", "America/New_York", "0 12 * * *", "1883-11-17 20:00", []string{"1883-11-18 16:56:02", "1883-11-19 17:00"}},
		{"local mean time ends, elapsed", "America/New_York", "*/2 12 * * *", "1883-11-18 16:56", []string{"1883-11-18 16:56:02", "1883-11-18 16:58:02", "1883-11-18 17:00", "1883-11-18 17:02"}},
		// Berlin 2026: 29 March 01:00 UTC 02:00 -> 03:00 (+1 to +2);
		// 25 October 01:00 UTC 03:00 -> 02:00.
		{"spring", "Europe/Berlin", "30 2 * * *", "2026-03-28 12:00", []string{"2026-03-29 01:00", "2026-03-30 00:30"}},
		{"autumn", "Europe/Berlin", "30 2 * * *", "2026-10-24 12:00", []string{"2026-10-25 00:30", "2026-10-26 01:30"}},
		{"range with a step is fixed", "Europe/Berlin", "0-59/30 2 * * *", "2026-10-24 12:00", []string{"2026-10-25 00:00", "2026-10-25 00:30", "2026-10-26 01:00"}},
		// Dublin 2026, where winter is the deviation: 29 March 01:00 UTC
		// 01:00 -> 02:00; 25 October 01:00 UTC 02:00 -> 01:00.
		{"negative summer time, spring", "Europe/Dublin", "30 1 * * *", "2026-03-28 12:00", []string{"2026-03-29 01:00", "2026-03-30 00:30"}},
		{"negative summer time, autumn", "Europe/Dublin", "30 1 * * *", "2026-10-24 12:00", []string{"2026-10-25 00:30", "2026-10-26 01:30"}},
		// Beirut 2026: 28 March 22:00 UTC 00:00 -> 01:00 of the 29th (+2 to +3);
		// 24 October 21:00 UTC 00:00 of the 25th -> 23:00 of the 24th.
		{"no midnight", "Asia/Beirut", "0 0 * * *", "2026-03-28 12:00", []string{"2026-03-28 22:00", "2026-03-29 21:00"}},
		{"no midnight, by the day that lost it", "Asia/Beirut", "0 0 29 3 *", "2026-03-01 00:00", []string{"2026-03-28 22:00", "2027-03-28 21:00"}},
		{"the day before is untouched", "Asia/Beirut", "30 0 28 3 *", "2026-03-01 00:00", []string{"2026-03-27 22:30", "2027-03-27 22:00"}}, // in 2027 it is the 28th
		{"repeated hour of the day before", "Asia/Beirut", "30 23 * * *", "2026-10-24 12:00", []string{"2026-10-24 20:30", "2026-10-25 21:30"}},
		{"midnight after the repeated hour", "Asia/Beirut", "0 0 * * *", "2026-10-24 12:00", []string{"2026-10-24 22:00", "2026-10-25 22:00"}},
		// Asunción 2024: 24 March 03:00 UTC 00:00 -> 23:00 of the 23rd (-3 to -4);
		// 6 October 04:00 UTC 00:00 -> 01:00.
		{"no midnight", "America/Asuncion", "0 0 * * *", "2024-10-05 12:00", []string{"2024-10-06 04:00", "2024-10-07 03:00"}},
		{"repeated hour of the day before", "America/Asuncion", "30 23 * * *", "2024-03-23 12:00", []string{"2024-03-24 02:30", "2024-03-25 03:30"}},
		{"repeated hour, elapsed", "America/Asuncion", "30 * * * *", "2024-03-24 02:00", []string{"2024-03-24 02:30", "2024-03-24 03:30", "2024-03-24 04:30"}},
		{"last of the month repeated", "America/Asuncion", "30 23 23 3 *", "2024-03-01 00:00", []string{"2024-03-24 02:30", "2025-03-24 02:30"}},
		// Santiago 2026: 5 April 03:00 UTC 00:00 -> 23:00 of the 4th (-3 to -4);
		// 6 September 04:00 UTC 00:00 -> 01:00.
		{"no midnight", "America/Santiago", "15 0 * * *", "2026-09-05 12:00", []string{"2026-09-06 04:00", "2026-09-07 03:15"}},
		{"repeated hour of the day before", "America/Santiago", "0 23 * * *", "2026-04-04 12:00", []string{"2026-04-05 02:00", "2026-04-06 03:00"}},
		// Lord Howe 2026: 4 April 15:00 UTC 02:00 of the 5th -> 01:30 (+11 to
		// +10:30); 3 October 15:30 UTC 02:00 of the 4th -> 02:30.
		{"gap of half an hour", "Australia/Lord_Howe", "15 2 * * *", "2026-10-03 12:00", []string{"2026-10-03 15:30", "2026-10-04 15:15"}},
		{"after the gap of half an hour", "Australia/Lord_Howe", "30 2 * * *", "2026-10-03 12:00", []string{"2026-10-03 15:30", "2026-10-04 15:30"}},
		{"repeated half hour", "Australia/Lord_Howe", "45 1 * * *", "2026-04-04 12:00", []string{"2026-04-04 14:45", "2026-04-05 15:15"}},
		{"repeated half hour, elapsed", "Australia/Lord_Howe", "*/15 * * * *", "2026-04-04 14:40", []string{"2026-04-04 14:45", "2026-04-04 15:00", "2026-04-04 15:15", "2026-04-04 15:30"}},
		{"hour that loses its half", "Australia/Lord_Howe", "@hourly", "2026-10-03 14:00", []string{"2026-10-03 14:30", "2026-10-03 16:00", "2026-10-03 17:00"}},
		// Havana 2026: 8 March 05:00 UTC 00:00 -> 01:00 (-5 to -4);
		// 1 November 05:00 UTC 01:00 -> 00:00.
		{"no midnight", "America/Havana", "0 0 * * *", "2026-03-07 12:00", []string{"2026-03-08 05:00", "2026-03-09 04:00"}},
		{"two midnights", "America/Havana", "0 0 * * *", "2026-10-31 12:00", []string{"2026-11-01 04:00", "2026-11-02 05:00"}},
		{"two midnights, elapsed", "America/Havana", "*/30 0 1 11 *", "2026-10-31 12:00", []string{"2026-11-01 04:00", "2026-11-01 04:30", "2026-11-01 05:00", "2026-11-01 05:30", "2027-11-01 04:00"}},
		// Cairo 2026: 23 April 22:00 UTC 00:00 of the 24th -> 01:00 (+2 to +3);
		// 29 October 21:00 UTC 00:00 of the 30th -> 23:00 of the 29th.
		{"no midnight", "Africa/Cairo", "0 0 * * *", "2026-04-23 12:00", []string{"2026-04-23 22:00", "2026-04-24 21:00"}},
		{"repeated hour of the day before", "Africa/Cairo", "45 23 * * thu", "2026-10-29 12:00", []string{"2026-10-29 20:45", "2026-11-05 21:45"}},
		{"last day of a leap year", "Africa/Cairo", "0 18 * * *", "2024-12-31 00:00", []string{"2024-12-31 16:00", "2025-01-01 16:00"}},
		{"last day of a far leap year", "Africa/Cairo", "0 18 * * *", "2044-12-31 00:00", []string{"2044-12-31 16:00", "2045-01-01 16:00"}},
		// Casablanca 2026, back for Ramadan: 15 February 02:00 UTC 03:00 -> 02:00
		// (+1 to 0); 22 March 02:00 UTC 02:00 -> 03:00.
		{"Ramadan begins", "Africa/Casablanca", "30 2 * * *", "2026-02-14 12:00", []string{"2026-02-15 01:30", "2026-02-16 02:30"}},
		{"Ramadan ends", "Africa/Casablanca", "30 2 * * *", "2026-03-21 12:00", []string{"2026-03-22 02:00", "2026-03-23 01:30"}},
		// Apia left out 30 December 2011: at 10:00 UTC it went from the end of the
		// 29th (-10) to the 31st (+14).
		{"day that was left out", "Pacific/Apia", "0 9 * * *", "2011-12-29 12:00", []string{"2011-12-29 19:00", "2011-12-30 19:00"}},
		{"only on the day left out", "Pacific/Apia", "0 9 30 12 *", "2011-01-01 00:00", []string{"2012-12-29 19:00"}},
		{"midnight after the day left out", "Pacific/Apia", "0 0 * * *", "2011-12-29 09:00", []string{"2011-12-29 10:00", "2011-12-30 10:00", "2011-12-31 10:00"}},
		{"the hours around the day left out", "Pacific/Apia", "0 * * * *", "2011-12-30 08:30", []string{"2011-12-30 09:00", "2011-12-30 10:00", "2011-12-30 11:00"}},
		// Troll 2026: 29 March 01:00 UTC 01:00 -> 03:00 (0 to +2).
		{"gap of two hours", "Antarctica/Troll", "10 1,2 * * *", "2026-03-28 12:00", []string{"2026-03-29 01:00", "2026-03-29 23:10", "2026-03-30 00:10"}},
		// São Paulo 2018: 18 February 02:00 UTC 00:00 -> 23:00 of the 17th (-2 to
		// -3); 4 November 03:00 UTC 00:00 -> 01:00.
		{"no midnight", "America/Sao_Paulo", "0 0 * * *", "2018-11-03 12:00", []string{"2018-11-04 03:00", "2018-11-05 02:00"}},
		{"repeated hour of the day before", "America/Sao_Paulo", "0 23 * * *", "2018-02-17 12:00", []string{"2018-02-18 01:00", "2018-02-19 02:00"}},
		{"no midnight on the first Sunday", "America/Sao_Paulo", "0 0 * * sun", "2018-11-03 12:00", []string{"2018-11-04 03:00", "2018-11-11 02:00"}},
		// Kathmandu 1986: 31 December 18:30 UTC 00:00 -> 00:15 (+5:30 to +5:45).
		{"gap of a quarter", "Asia/Kathmandu", "5 0 1 1 *", "1985-06-01 00:00", []string{"1985-12-31 18:30", "1986-12-31 18:20"}},
		// Ciudad Juárez 2022: 30 November 06:00 UTC 00:00 -> 23:00 of the 29th (-6
		// to -7), the last change before those that are told by a rule.
		{"change just before rules without end", "America/Ciudad_Juarez", "30 23 * * *", "2022-11-29 12:00", []string{"2022-11-30 05:30", "2022-12-01 06:30"}},
		{"fixed times in UTC", "UTC", "30 2 * * *", "2026-03-08 00:00", []string{"2026-03-08 02:30", "2026-03-09 02:30"}},
	} {
		t.Run(tt.zone+"/"+tt.name, func(t *testing.T) {
			t.Parallel()
			r := mustParseRecurrence(t, tt.expression, tt.zone)
			require.Equal(t, tt.want, nextTicks(r, utcTime(t, tt.after), len(tt.want)), "%s after %s", r, tt.after)
		})
	}
}

func TestRecurrence_DaysAndMonths(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, expression, after string
		want                    []string
	}{
		// 13 February 2026 is a Friday.
		{"day of month or day of week", "0 0 13 * fri", "2026-02-07 00:00", []string{"2026-02-13 00:00", "2026-02-20 00:00", "2026-02-27 00:00", "2026-03-06 00:00", "2026-03-13 00:00"}},
		{"day of month alone", "0 0 13 * *", "2026-02-01 00:00", []string{"2026-02-13 00:00", "2026-03-13 00:00"}},
		{"day of week alone", "0 0 ? * fri", "2026-02-13 00:00", []string{"2026-02-20 00:00"}},
		{"day of month with a step is restricted", "0 0 */15 * mon", "2026-02-10 00:00", []string{"2026-02-16 00:00", "2026-02-23 00:00", "2026-03-01 00:00"}},
		{"day of month with a step alone", "0 0 */15 * *", "2026-01-02 00:00", []string{"2026-01-16 00:00", "2026-01-31 00:00", "2026-02-01 00:00"}},
		{"short months are left out", "0 0 31 * *", "2026-01-31 00:00", []string{"2026-03-31 00:00", "2026-05-31 00:00"}},
		{"29 February", "0 0 29 2 *", "2096-02-28 12:00", []string{"2096-02-29 00:00", "2104-02-29 00:00"}},
		{"30 February or a Monday", "0 0 30 2 mon", "2026-02-17 00:00", []string{"2026-02-23 00:00", "2027-02-01 00:00"}},
		{"names", "0 0 1 jan,JUL *", "2026-01-01 00:00", []string{"2026-07-01 00:00", "2027-01-01 00:00"}},
		{"seconds first", "15,45 59 23 31 12 *", "2026-12-31 23:59:15", []string{"2026-12-31 23:59:45", "2027-12-31 23:59:15"}},
		{"@weekly", "@weekly", "2026-02-13 00:00", []string{"2026-02-15 00:00", "2026-02-22 00:00"}},
		{"@yearly", "@yearly", "2026-02-13 00:00", []string{"2027-01-01 00:00"}},
		{"@monthly", "@monthly", "2026-02-13 00:00", []string{"2026-03-01 00:00"}},
		{"@every is aligned to the epoch", "@every 7s", "1970-01-01 00:00:00", []string{"1970-01-01 00:00:07", "1970-01-01 00:00:14"}},
		{"@every before the epoch", "@every 7s", "1969-12-31 23:59:50", []string{"1969-12-31 23:59:53", "1970-01-01 00:00"}},
		{"white space", "  0\t0 1  * * ", "2026-02-13 00:00", []string{"2026-03-01 00:00"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := mustParseRecurrence(t, tt.expression, "UTC")
			require.Equal(t, tt.want, nextTicks(r, utcTime(t, tt.after), len(tt.want)))
		})
	}
}

func TestRecurrence_FractionsOfASecond(t *testing.T) {
	t.Parallel()
	r := mustParseRecurrence(t, "* * * * * *", "UTC")
	at := utcTime(t, "2026-01-01 00:00:05")

	next, _ := r.Next(at.Add(-1))
	require.Equal(t, at, next)
	next, _ = r.Next(at.Add(1))
	require.Equal(t, at.Add(time.Second), next)
	prev, _ := r.Prev(at.Add(1))
	require.Equal(t, at, prev)
	prev, _ = r.Prev(at.Add(-1))
	require.Equal(t, at.Add(-time.Second), prev)
	n, more := r.Count(at.Add(-1), at.Add(1), 10)
	require.Equal(t, 1, n)
	require.False(t, more)
	n, _ = r.Count(at.Add(1), at.Add(1), 10)
	require.Zero(t, n)
}

func TestRecurrence_EndsOfTime(t *testing.T) {
	t.Parallel()
	first, last := time.Unix(minTick, 0).UTC(), time.Unix(maxTick, 0).UTC()
	for _, expression := range []string{"* * * * * *", "@every 1s"} {
		r := mustParseRecurrence(t, expression, "UTC")
		next, ok := r.Next(first.AddDate(-3, 0, 0))
		require.True(t, ok)
		require.Equal(t, first, next)
		prev, ok := r.Prev(last.AddDate(3, 0, 0))
		require.True(t, ok)
		require.Equal(t, last, prev)
		_, ok = r.Next(last)
		require.False(t, ok)
		_, ok = r.Prev(first.Add(-1))
		require.False(t, ok)
		n, more := r.Count(first.AddDate(-3, 0, 0), first, 10)
		require.Equal(t, 1, n)
		require.False(t, more)
	}
}

func TestParseRecurrence_Refuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, expression, detail string }{
		{"nothing", "", "empty"},
		{"blanks", "  ", "empty"},
		{"too few fields", "* * * *", "has 4 fields"},
		{"too many fields", "0 0 * * * * 2026", "has 7 fields"},
		{"too long", strings.Repeat("0,", 130) + "0 * * * *", "longer than 255"},
		{"a zone in the text", "TZ=Europe/Berlin 0 0 * * *", "timezone"},
		{"a zone in the text, alone", "CRON_TZ=", "timezone"},
		{"minute 60", "60 * * * *", `minute field "60"`},
		{"hour 24", "0 24 * * *", `hour field "24"`},
		{"day 0", "0 0 0 * *", `day of month field "0"`},
		{"month 13", "0 0 1 13 *", `month field "13"`},
		{"weekday 7", "0 0 * * 7", "Sunday is 0, not 7"},
		{"no name", "0 0 * foo *", `month field "foo"`},
		{"downward range", "0 0 * * fri-mon", `day of week field "fri-mon"`},
		{"step of nothing", "*/0 * * * *", `minute field "*/0"`},
		{"step without a number", "*/ * * * *", `minute field "*/"`},
		{"two steps", "1/2/3 * * * *", `minute field "1/2/3"`},
		{"two hyphens", "1-2-3 * * * *", `minute field "1-2-3"`},
		{"range from a star", "*-5 * * * *", `minute field "*-5"`},
		{"empty list", "0 , * * *", `hour field ","`},
		{"hole in a list", "0 1,,2 * * *", `hour field "1,,2"`},
		{"sign", "+5 * * * *", `minute field "+5"`},
		{"very large number", "0 99999999999999999999 * * *", "hour field"},
		{"last day of the month", "0 0 L * *", `day of month field "L"`},
		{"30 February", "0 0 30 2 *", "never ticks"},
		{"31st of short months", "0 0 31 2,4,6,9,11 *", "never ticks"},
		{"30 February with a starred weekday", "0 0 30 feb ?", "never ticks"},
		{"unknown word", "@fortnightly", `"@fortnightly" is none of`},
		{"@reboot", "@reboot", "is none of"},
		{"@every alone", "@every", "one duration"},
		{"@every of two words", "@every 1h 30m", "one duration"},
		{"@every in days", "@every 1d", "no duration"},
		{"@every without a unit", "@every 5", "no duration"},
		{"@every below a second", "@every 500ms", "whole seconds"},
		{"@every with a fraction", "@every 1.5s", "whole seconds"},
		{"@every zero", "@every 0s", "whole seconds"},
		{"@every backwards", "@every -1m", "whole seconds"},
		{"@every for ages", "@every 100000h", "ten years"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseRecurrence(tt.expression, "UTC")
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, Invalid, e.Kind)
			require.Equal(t, "invalid_cron_expression", e.Code)
			require.Len(t, e.Fields, 1)
			require.Equal(t, "/cron_expression", e.Fields[0].Pointer)
			require.Contains(t, e.Fields[0].Detail, tt.detail)
		})
	}
}

func TestParseRecurrence_RefusesZones(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{
		"", " ", "Local", "local", "localtime", "posixrules", "Factory", "Mars/Olympus", "Europe", "Europe/", "UTC+3", "CEST",
		"../etc/passwd", "Europe/../Europe/Berlin", "/usr/share/zoneinfo/UTC", `Europe\Berlin`, "right/Europe/Berlin",
		"posix/Europe/Berlin", "zone.tab", "Europe/Berlin\x00", " Europe/Berlin", strings.Repeat("a", 5000),
	} {
		_, err := ParseRecurrence("* * * * *", zone)
		var e *Error
		require.ErrorAs(t, err, &e, "zone %q", zone)
		require.Equal(t, Invalid, e.Kind)
		require.Equal(t, "invalid_timezone", e.Code)
		require.Equal(t, "/timezone", e.Fields[0].Pointer)
		require.Less(t, len(e.Fields[0].Detail), 200)
	}
	for _, zone := range []string{"UTC", "Etc/GMT+3", "America/Argentina/Buenos_Aires", "America/Port-au-Prince"} {
		require.Equal(t, zone, mustParseRecurrence(t, "* * * * *", zone).Location().String())
	}
}

func TestRecurrence_Remark(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, zone, expression, tick, want string }{
		{"ordinary", "America/New_York", "30 2 * * *", "2026-03-09 06:30", ""},
		{"moved", "America/New_York", "30 2 * * *", "2026-03-08 07:00", "02:30 does not exist on this day in America/New_York; moved to 03:00"},
		{"two moved", "America/New_York", "0,30 2 * * *", "2026-03-08 07:00", "02:00 and 02:30 do not exist on this day in America/New_York; moved to 03:00"},
		{"many moved", "America/New_York", "0-30/10 2 * * *", "2026-03-08 07:00", "02:00 to 02:30 do not exist on this day in America/New_York; moved to 03:00"},
		{"moved onto another", "America/New_York", "30 2-3 * * *", "2026-03-08 07:30", ""},
		{"joined with another", "America/New_York", "0 2-3 * * *", "2026-03-08 07:00", "02:00 does not exist on this day in America/New_York; joined with 03:00"},
		{"stands at the gap's end", "America/New_York", "0 3 * * *", "2026-03-08 07:00", ""},
		{"elapsed after a gap", "America/New_York", "0 * * * *", "2026-03-08 07:00", ""},
		{"fixed, repeated", "America/New_York", "30 1 * * *", "2026-11-01 05:30", "first of two 01:30"},
		{"elapsed, first pass", "America/New_York", "30 * * * *", "2026-11-01 05:30", "first of two 01:30"},
		{"elapsed, second pass", "America/New_York", "30 * * * *", "2026-11-01 06:30", "second of two 01:30"},
		{"before the repeated hour", "America/New_York", "30 * * * *", "2026-11-01 04:30", ""},
		{"after the repeated hour", "America/New_York", "0 * * * *", "2026-11-01 07:00", ""},
		{"with seconds", "America/New_York", "15 30 * * * *", "2026-11-01 05:30:15", "first of two 01:30:15"},
		{"@every", "America/New_York", "@every 30m", "2026-11-01 06:00", "second of two 01:00"},
		{"no midnight", "Asia/Beirut", "0 0 * * *", "2026-03-28 22:00", "00:00 does not exist on this day in Asia/Beirut; moved to 01:00"},
		// St. John's, 5 April 1987, when clocks changed a minute after midnight:
		// 03:31 UTC, 00:01 -> 01:01 (-3:30 to -2:30).
		{"a minute after midnight", "America/St_Johns", "0 1 * * *", "1987-04-05 03:31", "01:00 does not exist on this day in America/St_Johns; moved to 01:01"},
		// Toronto, 30 March 1919 at 23:30 (-5) to 31 March 00:30 (-4).
		{"the day before", "America/Toronto", "45 23 * * *", "1919-03-31 04:30", "23:45 does not exist on 1919-03-30 in America/Toronto; moved to 00:30"},
		{"after a day left out", "Pacific/Apia", "0 0 * * *", "2011-12-30 10:00", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, tick := mustParseRecurrence(t, tt.expression, tt.zone), utcTime(t, tt.tick)
			at, ok := r.Next(tick.Add(-1))
			require.True(t, ok)
			require.Equal(t, tick, at, "not a tick")
			require.Equal(t, tt.want, r.Remark(tick))
		})
	}
}

// Its last day may be nearer to the beginning of a short month than that
// month's end would be, were it a long one.
func TestRecurrence_CountsOverTheEndOfEachMonth(t *testing.T) {
	t.Parallel()
	r := mustParseRecurrence(t, "30 12 * * *", "UTC")
	for _, year := range []int{2024, 2026} { // a leap year, and none
		for month := time.January; month <= time.December; month++ {
			from := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
			for days := range 70 {
				n, more := r.Count(from, from.AddDate(0, 0, days), 100)
				require.False(t, more)
				require.Equal(t, days, n, "%d days from %s", days, from)
			}
		}
	}
}

func TestRecurrence_CountStopsAtMost(t *testing.T) {
	t.Parallel()
	from := utcTime(t, "2026-01-01 00:00:00")
	for _, tt := range []struct {
		expression string
		until      time.Time
		most, want int
		more       bool
	}{
		{"@every 1s", from.AddDate(0, 0, 7), 10_000, 10_000, true},
		{"* * * * * *", from.AddDate(0, 0, 7), 10_000, 10_000, true},
		{"* * * * * *", from.AddDate(0, 0, 7), 604_800, 604_800, false},
		{"* * * * * *", from.AddDate(0, 0, 7), 604_799, 604_799, true},
		{"0 0 * * *", from.AddDate(1, 0, 0), 10_000, 365, false},
		{"0 0 * * *", from.AddDate(1, 0, 0), 365, 365, false},
		{"0 0 * * *", from.AddDate(1, 0, 0), 364, 364, true},
		{"0 0 29 2 *", from.AddDate(100, 0, 0), 100, 24, false}, // 2028 to 2124, without 2100
		{"0 0 * * *", from, 10, 0, false},
		{"0 0 * * *", from.AddDate(-1, 0, 0), 10, 0, false},
		{"0 0 * * *", from.AddDate(0, 0, 1), 0, 0, true},
		{"0 0 * * *", from.AddDate(0, 0, 1), -1, 0, true},
		{"@every 1h", from.AddDate(0, 0, 1), 24, 24, false},
		{"@every 1h", from.AddDate(0, 0, 1), 23, 23, true},
	} {
		n, more := mustParseRecurrence(t, tt.expression, "UTC").Count(from, tt.until, tt.most)
		require.Equal(t, tt.want, n, "%s until %s, most %d", tt.expression, tt.until, tt.most)
		require.Equal(t, tt.more, more, "%s until %s, most %d", tt.expression, tt.until, tt.most)
	}
}

// recurrenceCase is an expression in a zone and a window of whole minutes. Most windows
// lie at a change of clocks.
type recurrenceCase struct {
	expression, zone string
	from, until      time.Time
}

func (c recurrenceCase) String() string {
	return fmt.Sprintf("%q in %s from %s to %s", c.expression, c.zone, c.from.Format(time.RFC3339), c.until.Format(time.RFC3339))
}

var caseZones = []string{
	"America/New_York", "Europe/Berlin", "Europe/Dublin", "Asia/Beirut", "America/Asuncion", "America/Santiago", "Australia/Lord_Howe",
	"America/Havana", "Africa/Cairo", "Africa/Casablanca", "Pacific/Apia", "America/Sao_Paulo", "America/St_Johns", "Asia/Tehran",
	"Asia/Kathmandu", "Antarctica/Troll", "Antarctica/Casey", "Pacific/Chatham", "Europe/London", "Asia/Gaza", "America/Ciudad_Juarez",
	"America/Nuuk", "Europe/Lisbon", "Africa/Monrovia", "UTC",
}

// oddChanges are changes that a random year seldom meets.
var oddChanges = []struct {
	zone string
	at   time.Time
}{
	{"Pacific/Apia", time.Date(2011, 12, 30, 10, 0, 0, 0, time.UTC)},             // a day left out
	{"Pacific/Kwajalein", time.Date(1993, 8, 21, 12, 0, 0, 0, time.UTC)},         // another
	{"America/Juneau", time.Date(1867, 10, 18, 15, 30, 0, 0, time.UTC)},          // a day twice
	{"Asia/Manila", time.Date(1844, 12, 31, 15, 56, 0, 0, time.UTC)},             // a day left out
	{"America/Ciudad_Juarez", time.Date(2022, 11, 30, 6, 0, 0, 0, time.UTC)},     // hidden from ZoneBounds
	{"Africa/Cairo", time.Date(2024, 12, 31, 12, 0, 0, 0, time.UTC)},             // none, but ZoneBounds errs
	{"America/New_York", time.Date(1883, 11, 18, 17, 0, 0, 0, time.UTC)},         // end of local mean time
	{"Antarctica/Troll", time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC)},           // two hours at once
	{"Europe/London", time.Date(1947, 4, 13, 1, 0, 0, 0, time.UTC)},              // double summer time
	{"America/Argentina/San_Luis", time.Date(2008, 1, 21, 2, 0, 0, 0, time.UTC)}, // zone and summer time change at once
}

// recurrenceDice throws a number below n. Both math/rand and rapid can do it.
type recurrenceDice func(n int) int

func (r recurrenceDice) oneOf(choices ...string) string { return choices[r(len(choices))] }

func (r recurrenceDice) recurrenceCase() recurrenceCase {
	zone := r.oneOf(caseZones...)
	at := time.Date(1900+r(160), time.January, 1+r(366), r(24), r(60), 0, 0, time.UTC)
	if r(10) == 0 {
		odd := oddChanges[r(len(oddChanges))]
		zone, at = odd.zone, odd.at
	} else if _, end := at.In(mustLoadZone(zone)).ZoneBounds(); r(8) > 0 && !end.IsZero() {
		at = end
	}
	local := at.In(mustLoadZone(zone))
	c := recurrenceCase{expression: r.expression(local), zone: zone}
	before, length := r(150), 1+r(300)
	_, offset := local.Add(-time.Second).Zone()
	if offset%60 != 0 || strings.Count(c.expression, " ") == 5 { // brute force by seconds is slow
		before, length = before/10, length/10
	}
	if r(10) == 0 {
		before -= r(48 * 60) // two days after the change, at most
	}
	c.from = at.Truncate(time.Minute).Add(-time.Duration(before) * time.Minute)
	c.until = c.from.Add(time.Duration(length) * time.Minute)
	return c
}

// expression likes what happens around the given time.
func (r recurrenceDice) expression(near time.Time) string {
	number := func(most int) string { return fmt.Sprint(r(most)) }
	switch r(40) {
	case 0:
		return r.oneOf("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
	case 1:
		return r.oneOf("@every 1m", "@every 90m", "@every 7m", "@every 24h", "@every 1h30m", "@every 420s")
	}
	hour := fmt.Sprint(near.Add(time.Duration(r(7)-4) * time.Hour).Hour())
	fields := []string{
		r.oneOf("*", "*/15", "?/20", "*/7", "0", "30", "0,30", "15-45/5", "59", "1", "*,5", "5,*", "?", number(60), number(60), "10/10"),
		r.oneOf("*", "*", "*/2", "?", "0", "0-3", "1,2", "2-4", "22-23", "0-23", "0/1", "23", hour, hour, hour+",12", hour, number(24)),
		r.oneOf("*", "*", "*", "*", "?", "*/2", "1", "28-31", fmt.Sprint(near.Day()), "*/1", "1-31"),
		r.oneOf("*", "*", "*", "*", fmt.Sprint(int(near.Month())), strings.ToLower(near.Month().String()[:3]), "*/3", "1-12"),
		r.oneOf("*", "*", "*", "*", "?", "sun", "MON-fri", "0,6", "*/2", "0-6", fmt.Sprint(int(near.Weekday()))),
	}
	if r(40) == 0 {
		fields = slices.Insert(fields, 0, r.oneOf("*", "*/20", "30", "0,59", "7-9"))
	}
	return strings.Join(fields, " ")
}

func mustLoadZone(name string) *time.Location {
	location, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return location
}

// parse is nil for a day that no year has.
func (c recurrenceCase) parse() *Recurrence {
	r, err := ParseRecurrence(c.expression, c.zone)
	if err != nil {
		return nil
	}
	return r
}

// requireBruteForce holds Next, Prev and Count in (from, until] against brute
// force. what is the format and arguments of what to say if they differ.
func requireBruteForce(t require.TestingT, r *Recurrence, from, until time.Time, what ...any) {
	want := newNaiveRecurrence(r.Expression(), r.Location()).ticks(from, until)

	var got []time.Time
	for at, ok := r.Next(from); ok && !at.After(until); at, ok = r.Next(at) {
		got = append(got, at)
	}
	require.Equal(t, want, got, what...)

	n, more := r.Count(from, until, len(want))
	require.Equal(t, len(want), n, what...)
	require.False(t, more, what...)
	n, more = r.Count(from, until, len(want)-1)
	require.Equal(t, max(len(want)-1, 0), n, what...)
	require.Equal(t, len(want) > 0, more, what...)

	at, ok := r.Prev(until)
	for i := len(want) - 1; i >= 0; i-- {
		require.True(t, ok, what...)
		require.Equal(t, want[i], at, what...)
		_ = r.Remark(at)
		at, ok = r.Prev(at.Add(-1))
	}
	require.True(t, !ok || !at.After(from), what...)
}

func TestRecurrence_AgreesWithBruteForce(t *testing.T) {
	t.Parallel()
	seed := *recurrenceSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -recurrence.seed=%d", seed)
	random := recurrenceDice(rand.New(rand.NewPCG(seed, 0)).IntN)
	cases, tries := 0, 0
	for cases < 10_000 {
		c := random.recurrenceCase()
		tries++
		r := c.parse()
		if r == nil {
			require.Less(t, tries, 20_000, "too many impossible expressions")
			continue
		}
		cases++
		requireBruteForce(t, r, c.from, c.until, "%s", c)
	}
}

// The zones here change their clocks several times within two days, which none
// on earth does, and rapid shrinks what fails.
func TestRecurrence_AgreesWithBruteForceWhereClocksChangeOften(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dice := drawnDice(t)
		noon := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
		zone := clockChanges{{at: noon.AddDate(0, -1, 0), offset: 0}}
		for at := noon; len(zone) < 2+dice(5); {
			zone = append(zone, clockChange{at: at, offset: time.Duration(dice(32)-16) * 15 * time.Minute})
			at = at.Add(time.Duration(1+dice(40)) * 15 * time.Minute)
		}
		location := zone.location(t)
		for range 20 {
			r := recurrenceCase{expression: dice.expression(noon), zone: "UTC"}.parse()
			if r == nil {
				continue
			}
			r.location = location
			from := noon.Add(-6 * time.Hour).Add(time.Duration(dice(48*60)) * time.Minute)
			length := 24 * time.Hour
			if strings.Count(r.Expression(), " ") == 5 {
				length = time.Hour // brute force by seconds is slow
			}
			requireBruteForce(t, r, from, from.Add(length), "%s after %s where %v", r.Expression(), from, zone)
		}
	})
}

// clockChanges is a zone: from at, clocks are offset ahead of UTC.
type (
	clockChanges []clockChange
	clockChange  struct {
		at     time.Time
		offset time.Duration
	}
)

func (c clockChange) String() string {
	return fmt.Sprintf("from %s on UTC%+v", c.at.Format(time.RFC3339), c.offset)
}

// location writes the zone as a file of tzdata (RFC 9636, version 1), and reads
// it.
func (z clockChanges) location(t require.TestingT) *time.Location {
	n := uint32(len(z))
	data := append([]byte("TZif"), make([]byte, 16)...)
	for _, count := range []uint32{0, 0, 0, n, n, 1} { // n changes, n types, 1 byte of names
		data = binary.BigEndian.AppendUint32(data, count)
	}
	for _, change := range z {
		data = binary.BigEndian.AppendUint32(data, uint32(change.at.Unix()))
	}
	for i := range z {
		data = append(data, byte(i))
	}
	for _, change := range z {
		data = binary.BigEndian.AppendUint32(data, uint32(int32(change.offset/time.Second)))
		data = append(data, 0, 0) // not summer time; the first name
	}
	location, err := time.LoadLocationFromTZData("Test/Restless", append(data, 0))
	require.NoError(t, err)
	return location
}

// drawRecurrence draws any recurrence; drawAnyTime any time of the years 1 to
// 9999, half of them since 1874.
func drawRecurrence(t *rapid.T) *Recurrence {
	r := drawnDice(t).recurrenceCase().parse()
	if r == nil {
		t.Skip("no year has such a day")
	}
	return r
}

func drawnDice(t *rapid.T) recurrenceDice {
	return func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
}

func drawAnyTime(t *rapid.T) time.Time {
	if rapid.Bool().Draw(t, "any time") {
		return time.Unix(rapid.Int64Range(minTick, maxTick).Draw(t, "unix"), 0).UTC()
	}
	return time.Unix(rapid.Int64Range(-3e9, 3e9).Draw(t, "unix"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
}

func TestRecurrence_NextAndPrevAreNeighbours(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		requireNeighbours(t, drawRecurrence(t), drawAnyTime(t))
	})
}

// requireNeighbours: nothing lies between Prev(at) and Next(at), whichever side
// it is looked at from.
func requireNeighbours(t require.TestingT, r *Recurrence, at time.Time) {
	next, hasNext := r.Next(at)
	prev, hasPrev := r.Prev(at)
	require.NotEmpty(t, r.Describe())
	if hasNext {
		require.True(t, next.After(at))
		same, _ := r.Prev(next)
		require.Equal(t, next, same)
		_ = r.Remark(next)
	}
	if hasPrev {
		require.False(t, prev.After(at))
		same, ok := r.Next(prev.Add(-1))
		require.True(t, ok)
		require.Equal(t, prev, same)
	}
	if hasNext && hasPrev {
		follows, ok := r.Next(prev)
		require.True(t, ok)
		require.Equal(t, next, follows)
		precedes, ok := r.Prev(next.Add(-1))
		require.True(t, ok)
		require.Equal(t, prev, precedes)
		n, more := r.Count(prev.Add(-1), next, 2)
		require.Equal(t, 2, n)
		require.False(t, more)
	}
}

func TestRecurrence_CountAgreesWithWalking(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r, from := drawRecurrence(t), drawAnyTime(t)
		until := from.Add(time.Duration(rapid.Int64Range(0, int64(3*366*24*time.Hour)).Draw(t, "length")))
		most := rapid.IntRange(0, 1000).Draw(t, "most")
		want := 0
		for at, ok := r.Next(from); ok && !at.After(until) && want <= most; at, ok = r.Next(at) {
			want++
		}
		n, more := r.Count(from, until, most)
		require.Equal(t, min(want, most), n)
		require.Equal(t, want > most, more)
	})
}

func FuzzParseRecurrence(f *testing.F) {
	for _, expression := range []string{
		"* * * * *", "*/15 9-17 * * mon-fri", "0 0 29 2 *", "@every 90s", "@hourly", "TZ=", "*/20 30 2 1,15 * fri", "0 , * * *", "59 23 31 12 6",
	} {
		for i, zone := range caseZones {
			f.Add(expression, zone, int64(i)*100_000_000)
		}
	}
	f.Fuzz(func(t *testing.T, expression, zone string, unix int64) {
		r, err := ParseRecurrence(expression, zone)
		if err != nil {
			require.Equal(t, Invalid, KindOf(err))
			return
		}
		if unix < minTick || unix > maxTick {
			unix %= maxTick
			unix = max(unix, minTick)
		}
		requireNeighbours(t, r, time.Unix(unix, 0))
	})
}

var benchmarkedRecurrences = []struct{ name, expression, zone string }{
	{"minutely UTC", "* * * * *", "UTC"},
	{"quarters Berlin", "*/15 * * * *", "Europe/Berlin"},
	{"daily New York", "30 2 * * *", "America/New_York"},
	{"weekdays Tokyo", "0 9 * * mon-fri", "Asia/Tokyo"},
	{"yearly Berlin", "0 0 1 1 *", "Europe/Berlin"},
	{"leap day Berlin", "0 0 29 2 *", "Europe/Berlin"},
	{"every 5s", "@every 5s", "UTC"},
}

func BenchmarkRecurrence_Next(b *testing.B) {
	for _, bb := range benchmarkedRecurrences {
		b.Run(bb.name, func(b *testing.B) {
			r, at := mustParseRecurrence(b, bb.expression, bb.zone), utcTime(b, "2026-07-01 12:00")
			b.ReportAllocs()
			for b.Loop() {
				r.Next(at)
			}
		})
	}
}

func BenchmarkRecurrence_Prev(b *testing.B) {
	for _, bb := range benchmarkedRecurrences {
		b.Run(bb.name, func(b *testing.B) {
			r, at := mustParseRecurrence(b, bb.expression, bb.zone), utcTime(b, "2026-07-01 12:00")
			b.ReportAllocs()
			for b.Loop() {
				r.Prev(at)
			}
		})
	}
}

func BenchmarkRecurrence_CountWeekOfSeconds(b *testing.B) {
	r, from := mustParseRecurrence(b, "* * * * * *", "Europe/Berlin"), utcTime(b, "2026-03-25 12:00")
	b.ReportAllocs()
	for b.Loop() {
		r.Count(from, from.AddDate(0, 0, 7), 1_000_000)
	}
}

func BenchmarkParseRecurrence(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = ParseRecurrence("*/15 9-17 * * mon-fri", "Europe/Berlin")
	}
}

func ExampleRecurrence_Next() {
	r, err := ParseRecurrence("30 2 * * *", "America/New_York")
	if err != nil {
		panic(err)
	}
	tick := time.Date(2026, time.March, 7, 0, 0, 0, 0, time.UTC)
	for range 3 {
		tick, _ = r.Next(tick)
		fmt.Printf("%s %q\n", tick.In(r.Location()).Format("Mon 15:04"), r.Remark(tick))
	}
	// Output:
	// Sat 02:30 ""
	// Sun 03:00 "02:30 does not exist on this day in America/New_York; moved to 03:00"
	// Mon 02:30 ""
}

func ExampleRecurrence_Describe() {
	r, err := ParseRecurrence("0 9 13 * fri", "UTC")
	if err != nil {
		panic(err)
	}
	fmt.Println(r.Describe())
	// Output: at 09:00 on day 13 of the month or on Friday
}
