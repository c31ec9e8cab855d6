package riverbeat

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPlan(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	at := func(clock string) time.Time {
		moment, err := time.ParseInLocation("15:04:05", clock, time.UTC)
		require.NoError(t, err)
		return time.Date(2026, 3, 2, moment.Hour(), moment.Minute(), moment.Second(), 0, time.UTC)
	}
	pointer := func(clock string) *time.Time { moment := at(clock); return &moment }
	const onTime, late = TriggerSchedule, TriggerCatchUp
	count := func(n int) *int { return &n }
	perSecond := func(from, until string) (ticks []Tick) {
		for moment := at(from); !moment.After(at(until)); moment = moment.Add(time.Second) {
			ticks = append(ticks, Tick{moment, onTime})
		}
		return ticks
	}

	for _, test := range []struct {
		name      string
		cron      string
		change    func(*Schedule)
		mark, now string
		ticks     []Tick
		gap       *Gap
		newMark   string
		next      string // "": none
	}{
		{
			"NothingDue", "*/10 * * * *", nil, "12:00:00", "12:09:59",
			nil, nil, "12:00:00", "12:10:00",
		},
		{
			"OneOnTime", "*/10 * * * *", nil, "12:00:00", "12:10:00",
			[]Tick{{at("12:10:00"), onTime}},
			nil, "12:10:00", "12:20:00",
		},
		{
			"AMinuteOldIsOnTime", "*/10 * * * *", nil, "12:00:00", "12:11:00",
			[]Tick{{at("12:10:00"), onTime}},
			nil, "12:10:00", "12:20:00",
		},
		{
			"OlderIsCatchUp", "*/10 * * * *", nil, "12:00:00", "12:11:01",
			[]Tick{{at("12:10:00"), late}},
			nil, "12:10:00", "12:20:00",
		},
		{
			"LatestRunsTheNewestOfTheLate", "*/10 * * * *", nil, "12:00:00", "12:40:30",
			[]Tick{{at("12:30:00"), late}, {at("12:40:00"), onTime}},
			&Gap{From: at("12:10:00"), Until: at("12:20:00"), Count: count(2), Reason: Superseded}, "12:40:00", "12:50:00",
		},
		{
			"LatestBeforeItsWindow", "0 * * * *", func(s *Schedule) { s.CatchUpWindow = time.Minute }, "09:30:00", "12:30:00",
			nil, &Gap{From: at("10:00:00"), Until: noon, Count: count(3), Reason: OutsideWindow}, "12:00:00", "13:00:00",
		},
		{
			"NoneMissesAllThatAreLate", "*/10 * * * *", func(s *Schedule) { s.CatchUp = CatchUpNone }, "12:00:00", "12:40:30",
			[]Tick{{at("12:40:00"), onTime}},
			&Gap{From: at("12:10:00"), Until: at("12:30:00"), Count: count(3), Reason: OutsideWindow}, "12:40:00", "12:50:00",
		},
		{
			"AllWithinTheWindow", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.CatchUpWindow = CatchUpAll, 25*time.Minute }, "12:00:00", "12:45:00",
			[]Tick{{at("12:20:00"), late}, {at("12:30:00"), late}, {at("12:40:00"), late}},
			&Gap{From: at("12:10:00"), Until: at("12:10:00"), Count: count(1), Reason: OutsideWindow}, "12:40:00", "12:50:00",
		},
		{
			"NotBeforeItsStart", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.StartsAt = CatchUpAll, pointer("12:20:00") }, "12:00:00", "12:20:30",
			[]Tick{{at("12:20:00"), onTime}},
			nil, "12:20:00", "12:30:00",
		},
		{
			"NotYetStarted", "*/10 * * * *", func(s *Schedule) { s.StartsAt = pointer("15:05:00") }, "12:00:00", "12:30:00",
			nil, nil, "12:00:00", "15:10:00",
		},
		{
			"NotAfterItsEnd", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.EndsAt = CatchUpAll, pointer("12:20:00") }, "12:00:00", "12:45:00",
			[]Tick{{at("12:10:00"), late}, {at("12:20:00"), late}},
			nil, "12:20:00", "",
		},
		{
			"EndedBeforeItsMark", "*/10 * * * *", func(s *Schedule) { s.EndsAt = pointer("11:00:00") }, "12:00:00", "12:45:00",
			nil, nil, "12:00:00", "",
		},
		{
			"TheClockWasPutBack", "*/10 * * * *", nil, "12:40:00", "12:15:00",
			nil, nil, "12:40:00", "12:50:00",
		},
		{
			"ASecondLessThanAMinuteAtTheEdge", "* * * * * *", nil, "12:00:00", "12:01:02",
			append([]Tick{{at("12:00:01"), late}}, perSecond("12:00:02", "12:01:02")...),
			nil, "12:01:02", "12:01:03",
		},
		{
			"LatestAtTheWindowsEdge", "0 * * * *", func(s *Schedule) { s.CatchUpWindow = 10 * time.Minute }, "11:00:00", "12:10:00",
			[]Tick{{at("12:00:00"), late}},
			nil, "12:00:00", "13:00:00",
		},
		{
			"LatestASecondBeforeItsWindow", "0 * * * *", func(s *Schedule) { s.CatchUpWindow = 10 * time.Minute }, "11:00:00", "12:10:01",
			nil, &Gap{From: at("12:00:00"), Until: at("12:00:00"), Count: count(1), Reason: OutsideWindow}, "12:00:00", "13:00:00",
		},
		{
			"AllFromTheWindowsEdge", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.CatchUpWindow = CatchUpAll, 25*time.Minute }, "12:00:00", "12:45:00",
			[]Tick{{at("12:20:00"), late}, {at("12:30:00"), late}, {at("12:40:00"), late}},
			&Gap{From: at("12:10:00"), Until: at("12:10:00"), Count: count(1), Reason: OutsideWindow}, "12:40:00", "12:50:00",
		},
		{
			"AllASecondPastTheWindowsEdge", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.CatchUpWindow = CatchUpAll, 25*time.Minute }, "12:00:00", "12:45:01",
			[]Tick{{at("12:30:00"), late}, {at("12:40:00"), late}},
			&Gap{From: at("12:10:00"), Until: at("12:20:00"), Count: count(2), Reason: OutsideWindow}, "12:40:00", "12:50:00",
		},
		{
			"AWindowOfNothingIsLikeNone", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.CatchUpWindow = CatchUpAll, 0 }, "12:00:00", "12:41:00",
			[]Tick{{at("12:40:00"), onTime}},
			&Gap{From: at("12:10:00"), Until: at("12:30:00"), Count: count(3), Reason: OutsideWindow}, "12:40:00", "12:50:00",
		},
		{
			"AWindowOfAMinuteIsToo", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.CatchUpWindow = CatchUpAll, time.Minute }, "12:00:00", "12:41:01",
			nil, &Gap{From: at("12:10:00"), Until: at("12:40:00"), Count: count(4), Reason: OutsideWindow}, "12:40:00", "12:50:00",
		},
		{
			"TheNextTickIsToCome", "*/10 * * * *", func(s *Schedule) { s.CatchUp = CatchUpAll }, "12:10:00", "12:19:59",
			nil, nil, "12:10:00", "12:20:00",
		},
		{
			"ItsEndLiesInTheGap", "*/10 * * * *", func(s *Schedule) { s.EndsAt = pointer("12:25:00") }, "12:00:00", "15:00:00",
			nil, &Gap{From: at("12:10:00"), Until: at("12:20:00"), Count: count(2), Reason: OutsideWindow}, "12:20:00", "",
		},
		{
			"ItsEndLiesWithinTheWindow", "*/10 * * * *", func(s *Schedule) { s.EndsAt = pointer("12:25:00") }, "12:00:00", "13:00:00",
			[]Tick{{at("12:20:00"), late}},
			&Gap{From: at("12:10:00"), Until: at("12:10:00"), Count: count(1), Reason: Superseded}, "12:20:00", "",
		},
		{
			"ItEndsWithATick", "*/10 * * * *", func(s *Schedule) { s.EndsAt = pointer("12:20:00") }, "12:00:00", "12:20:30",
			[]Tick{{at("12:10:00"), late}, {at("12:20:00"), onTime}},
			nil, "12:20:00", "",
		},
		{
			"ItsStartLiesInTheGap", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.StartsAt = CatchUpNone, pointer("12:15:00") }, "12:00:00", "12:45:00",
			nil, &Gap{From: at("12:20:00"), Until: at("12:40:00"), Count: count(3), Reason: OutsideWindow}, "12:40:00", "12:50:00",
		},
		{
			"ItsStartIsTheFirstOfAll", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.StartsAt = CatchUpAll, pointer("12:30:00") }, "12:00:00", "12:45:00",
			[]Tick{{at("12:30:00"), late}, {at("12:40:00"), late}},
			nil, "12:40:00", "12:50:00",
		},
		{
			"StartAndEndLeaveNothing", "*/10 * * * *", func(s *Schedule) { s.StartsAt, s.EndsAt = pointer("12:11:00"), pointer("12:19:00") }, "12:00:00", "12:45:00",
			nil, nil, "12:00:00", "",
		},
		{
			"EveryHasItsTicksByTheEpoch", "@every 7m", func(s *Schedule) { s.CatchUp, s.CatchUpWindow = CatchUpAll, 15*time.Minute }, "12:00:00", "12:30:00",
			[]Tick{{at("12:16:00"), late}, {at("12:23:00"), late}, {at("12:30:00"), onTime}},
			&Gap{From: at("12:02:00"), Until: at("12:09:00"), Count: count(2), Reason: OutsideWindow}, "12:30:00", "12:37:00",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := validSchedule()
			if test.change != nil {
				test.change(s)
			}
			r, err := ParseRecurrence(test.cron, "UTC")
			require.NoError(t, err)
			plan := s.Plan(r, at(test.mark), at(test.now))
			require.Equal(t, test.ticks, plan.Ticks)
			require.Equal(t, test.gap, plan.Gap)
			require.Equal(t, at(test.newMark), plan.Mark)
			if test.next == "" {
				require.Nil(t, plan.Next)
				return
			}
			require.NotNil(t, plan.Next)
			require.Equal(t, at(test.next), *plan.Next)
		})
	}
}

func TestPlan_OverAChangeOfClocks(t *testing.T) {
	t.Parallel()
	utc := func(day, hour, minute int, month time.Month) time.Time {
		return time.Date(2026, month, day, hour, minute, 0, 0, time.UTC)
	}
	const late = TriggerCatchUp
	for _, test := range []struct {
		name, cron string
		window     time.Duration
		mark, now  time.Time
		ticks      []Tick
		gap        int // ticks missed before those
	}{
		{ // clocks go from 02:00 to 03:00 on 29 March, at 01:00 UTC
			"ATickThatClocksJumpOverIsOneOfThem", "30 2 * * *", 48 * time.Hour, utc(27, 12, 0, time.March), utc(30, 12, 0, time.March),
			[]Tick{{utc(29, 1, 0, time.March), late}, {utc(30, 0, 30, time.March), late}},
			1,
		},
		{
			"TheWindowIsElapsedTime", "30 2 * * *", 12 * time.Hour, utc(27, 12, 0, time.March), utc(29, 13, 0, time.March),
			[]Tick{{utc(29, 1, 0, time.March), late}},
			1,
		},
		{ // clocks go back from 03:00 to 02:00 on 25 October, at 01:00 UTC
			"ARepeatedHourHasItsFixedTicksOnce", "15,45 2 * * *", 24 * time.Hour, utc(24, 12, 0, time.October), utc(25, 12, 0, time.October),
			[]Tick{{utc(25, 0, 15, time.October), late}, {utc(25, 0, 45, time.October), late}},
			0,
		},
		{
			"AndThoseOfElapsedTimeTwice", "*/30 * * * *", 90 * time.Minute, utc(25, 0, 0, time.October), utc(25, 2, 10, time.October),
			[]Tick{{utc(25, 1, 0, time.October), late}, {utc(25, 1, 30, time.October), late}, {utc(25, 2, 0, time.October), late}},
			1,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := validSchedule()
			s.CatchUp, s.CatchUpWindow = CatchUpAll, test.window
			r, err := ParseRecurrence(test.cron, "Europe/Berlin")
			require.NoError(t, err)
			plan := s.Plan(r, test.mark, test.now)
			require.Equal(t, test.ticks, plan.Ticks)
			if test.gap == 0 {
				require.Nil(t, plan.Gap)
				return
			}
			require.Equal(t, test.gap, *plan.Gap.Count)
			require.True(t, plan.Gap.Until.Before(test.ticks[0].At))
		})
	}
}

func TestPlan_CatchesUpWithAThousandAtMost(t *testing.T) {
	t.Parallel()
	s := validSchedule()
	s.CatchUp, s.CatchUpWindow = CatchUpAll, 24*time.Hour
	r, err := ParseRecurrence("@every 10s", "UTC")
	require.NoError(t, err)
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	plan := s.Plan(r, now.Add(-12*time.Hour), now)
	require.Len(t, plan.Ticks, MaxCatchUpRuns+7, "and what is on time")
	require.Equal(t, Superseded, plan.Gap.Reason)
	require.Equal(t, 12*360-MaxCatchUpRuns-7, *plan.Gap.Count)
	require.Equal(t, 10*time.Second, plan.Ticks[0].At.Sub(plan.Gap.Until))
}

func TestPlan_AGapOfYearsIsNotWalked(t *testing.T) {
	t.Parallel()
	s := validSchedule()
	r, err := ParseRecurrence("* * * * * *", "Europe/Berlin")
	require.NoError(t, err)
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	plan := s.Plan(r, now.AddDate(-5, 0, 0), now)
	require.Nil(t, plan.Gap.Count, "more than are counted")
	require.Equal(t, now.AddDate(-5, 0, 0).Add(time.Second), plan.Gap.From)
	require.Len(t, plan.Ticks, 62, "the newest late one, and those on time")
}

func TestSettle_PutsTheMarkAtNow(t *testing.T) {
	t.Parallel()
	s := validSchedule()
	r, err := ParseRecurrence("*/10 * * * *", "UTC")
	require.NoError(t, err)
	now := time.Date(2026, 3, 2, 12, 5, 0, 123e6, time.UTC)
	plan := s.Settle(r, now.Add(-10*time.Minute), now)
	require.Equal(t, []Tick{{now.Truncate(time.Hour), TriggerCatchUp}}, plan.Ticks)
	require.Equal(t, now, plan.Mark)
	require.Equal(t, now.Truncate(time.Hour).Add(10*time.Minute), *plan.Next)

	mark := now.Add(time.Hour) // the clock was put back
	plan = s.Settle(r, mark, now)
	require.Empty(t, plan.Ticks)
	require.Equal(t, mark, plan.Mark)
}

func TestMiss(t *testing.T) {
	t.Parallel()
	s := validSchedule()
	r, err := ParseRecurrence("*/10 * * * *", "UTC")
	require.NoError(t, err)
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	gap := s.Miss(r, noon, noon.Add(30*time.Minute), Paused)
	require.Equal(t, noon.Add(10*time.Minute), gap.From)
	require.Equal(t, noon.Add(30*time.Minute), gap.Until, "those on time, too")
	require.Equal(t, 3, *gap.Count)
	require.Equal(t, Paused, gap.Reason)
	require.Nil(t, s.Miss(r, noon, noon.Add(9*time.Minute), Paused), "none was due")
	ended := noon.Add(5 * time.Minute)
	s.EndsAt = &ended
	require.Nil(t, s.Miss(r, noon, noon.Add(time.Hour), Paused))
}

// planned is a schedule that slept, as rapid draws it.
type planned struct {
	schedule  *Schedule
	r         *Recurrence
	mark, now time.Time
}

func drawPlanned(t *rapid.T) planned {
	expression := rapid.SampledFrom([]string{
		"* * * * * *", "@every 7s", "*/5 * * * *", "7 * * * *", "30 2 * * *", "15,45 1-3 * * *",
		"0 0 * * mon", "0 0 31 * *", "@every 90m", "*/20 2 * * *",
	}).Draw(t, "expression")
	zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"}).Draw(t, "zone")
	r, err := ParseRecurrence(expression, zone)
	if err != nil {
		t.Fatal(err)
	}
	p := planned{r: r, schedule: validSchedule()}
	p.mark = time.UnixMilli(rapid.Int64Range(1.5e12, 2e12).Draw(t, "mark")).UTC()
	p.now = p.mark
	for range rapid.IntRange(0, 2_500).Draw(t, "ticks") {
		if p.now, _ = r.Next(p.now); p.now.Sub(p.mark) > 20*366*24*time.Hour {
			break
		}
	}
	and := rapid.OneOf(rapid.Int64Range(0, 100_000), rapid.SampledFrom([]int64{0, 59_999, 60_000, 60_001}))
	p.now = p.now.Add(time.Duration(and.Draw(t, "and ms")) * time.Millisecond)

	s := p.schedule
	s.CatchUp = rapid.SampledFrom([]CatchUp{CatchUpLatest, CatchUpAll, CatchUpNone}).Draw(t, "catch up")
	slept := p.now.Sub(p.mark)
	within := func(label string) time.Duration {
		return time.Duration(rapid.Int64Range(int64(-slept/4), int64(slept+slept/4)).Draw(t, label))
	}
	s.CatchUpWindow = max(within("window"), 0).Truncate(time.Second)
	if rapid.Bool().Draw(t, "a tick lies on the window's edge") {
		if at, ok := r.Next(p.now.Add(-s.CatchUpWindow)); ok {
			s.CatchUpWindow = max(p.now.Sub(at), 0)
		}
	}
	if rapid.Bool().Draw(t, "starts") {
		at := p.mark.Add(within("start"))
		s.StartsAt = &at
	}
	if rapid.Bool().Draw(t, "ends") {
		at := p.mark.Add(within("end"))
		s.EndsAt = &at
	}
	return p
}

// nominal walks the ticks of the schedule in (mark, now].
func (p *planned) nominal(now time.Time) []time.Time {
	var ticks []time.Time
	for at, ok := p.r.Next(p.mark); ok && !at.After(now); at, ok = p.r.Next(at) {
		s := p.schedule
		if (s.StartsAt == nil || !at.Before(*s.StartsAt)) && (s.EndsAt == nil || !at.After(*s.EndsAt)) {
			ticks = append(ticks, at)
		}
	}
	return ticks
}

// account takes what a plan decides off the front of the nominal ticks.
func account(t *rapid.T, nominal []time.Time, plan Plan) []time.Time {
	take := func(at time.Time) {
		if len(nominal) == 0 || !nominal[0].Equal(at) {
			t.Fatalf("%s was decided, but the next undecided ticks are %v", at, nominal[:min(len(nominal), 3)])
		}
		nominal = nominal[1:]
	}
	if gap := plan.Gap; gap != nil {
		n := 1
		for take(gap.From); len(nominal) > 0 && !nominal[0].After(gap.Until); n++ {
			take(nominal[0])
		}
		if gap.Count == nil || *gap.Count != n {
			t.Fatalf("a gap of %d ticks says %v", n, gap.Count)
		}
	}
	for _, tick := range plan.Ticks {
		take(tick.At)
	}
	return nominal
}

// expected says the rules of catch-up once more, tick by tick.
func (p *planned) expected() (missed []time.Time, run []Tick) {
	s := p.schedule
	nominal := p.nominal(p.now)
	late := 0
	for _, at := range nominal {
		if p.now.Sub(at) > OnTime {
			late++
		}
	}
	for i, at := range nominal {
		newerLate := late - i - 1
		within := p.now.Sub(at) <= s.CatchUpWindow
		switch {
		case i >= late:
			run = append(run, Tick{at, TriggerSchedule})
		case within && s.CatchUp == CatchUpLatest && newerLate == 0,
			within && s.CatchUp == CatchUpAll && newerLate < MaxCatchUpRuns:
			run = append(run, Tick{at, TriggerCatchUp})
		default:
			missed = append(missed, at)
		}
	}
	return missed, run
}

func TestPlan_DecidesEachTickByItsAge(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlanned(t)
		plan := p.schedule.Plan(p.r, p.mark, p.now)
		missed, run := p.expected()
		if !slices.EqualFunc(plan.Ticks, run, func(a, b Tick) bool { return a.At.Equal(b.At) && a.Trigger == b.Trigger }) {
			t.Fatalf("runs %v, want %v", plan.Ticks, run)
		}
		if (plan.Gap != nil) != (len(missed) > 0) {
			t.Fatalf("gap %v, want %v", plan.Gap, missed)
		}
		if gap := plan.Gap; gap != nil && (!gap.From.Equal(missed[0]) || !gap.Until.Equal(missed[len(missed)-1]) || *gap.Count != len(missed)) {
			t.Fatalf("gap %v, want %v", gap, missed)
		}
		mark := p.mark
		if nominal := p.nominal(p.now); len(nominal) > 0 {
			mark = nominal[len(nominal)-1]
		}
		if !plan.Mark.Equal(mark) {
			t.Fatalf("the mark is %s, want %s", plan.Mark, mark)
		}
		if plan.Next != nil && !plan.Next.After(p.now) {
			t.Fatalf("next is %s, which is due", plan.Next)
		}
	})
}

// However the claims fall, and wherever time stands still between them.
func TestPlan_AccountsForEachTickOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlanned(t)
		var plans []Plan
		mark, now := p.mark, p.mark
		for _, ms := range append(rapid.SliceOfN(rapid.Int64Range(-90_000, 900_000), 0, 10).Draw(t, "time moves by ms"), p.now.Sub(p.mark).Milliseconds()) {
			now = now.Add(time.Duration(ms) * time.Millisecond)
			plan := p.schedule.Plan(p.r, mark, now)
			if plan.Mark.Before(mark) || plan.Mark.Equal(mark) && (plan.Gap != nil || len(plan.Ticks) > 0) {
				t.Fatalf("the mark went from %s to %s", mark, plan.Mark)
			}
			plans, mark = append(plans, plan), plan.Mark
		}
		last := p.mark // time may have gone back
		for _, plan := range plans {
			if plan.Mark.After(last) {
				last = plan.Mark
			}
		}
		undecided := p.nominal(last)
		for _, plan := range plans {
			undecided = account(t, undecided, plan)
		}
		if len(undecided) > 0 {
			t.Fatalf("nobody decided %s", undecided[0])
		}
		if next := plans[len(plans)-1].Next; next != nil && !next.After(last) {
			t.Fatalf("next is %s, the mark %s", next, last)
		}
	})
}

func TestSettle_AccountsForEachTickOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlanned(t)
		plan := p.schedule.Settle(p.r, p.mark, p.now)
		if rest := account(t, p.nominal(p.now), plan); len(rest) > 0 {
			t.Fatalf("nobody decided %s", rest[0])
		}
		if !plan.Mark.Equal(p.now) || plan.Next != nil && !plan.Next.After(p.now) {
			t.Fatalf("the mark is %s, next %v", plan.Mark, plan.Next)
		}
		missed := Plan{Gap: p.schedule.Miss(p.r, p.mark, p.now, Paused)}
		if rest := account(t, p.nominal(p.now), missed); len(rest) > 0 {
			t.Fatalf("nobody missed %s", rest[0])
		}
	})
}

func BenchmarkPlan_WeekOfSeconds(b *testing.B) {
	s := validSchedule()
	r, err := ParseRecurrence("* * * * * *", "Europe/Berlin")
	require.NoError(b, err)
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for b.Loop() {
		s.Plan(r, now.AddDate(0, 0, -7), now)
	}
}
