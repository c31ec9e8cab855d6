package riverbeat

import (
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

	for _, test := range []struct {
		name      string
		cron      string
		change    func(*Schedule)
		mark, now string
		limit     int // 0: 500
		ticks     []Tick
		gap       *Gap
		newMark   string
		next      string // "": none
	}{
		{
			"NothingDue", "*/10 * * * *", nil, "12:00:00", "12:09:59", 0,
			nil, nil, "12:00:00", "12:10:00",
		},
		{
			"OneOnTime", "*/10 * * * *", nil, "12:00:00", "12:10:00", 0,
			[]Tick{{at("12:10:00"), onTime}},
			nil, "12:10:00", "12:20:00",
		},
		{
			"AMinuteOldIsOnTime", "*/10 * * * *", nil, "12:00:00", "12:11:00", 0,
			[]Tick{{at("12:10:00"), onTime}},
			nil, "12:10:00", "12:20:00",
		},
		{
			"OlderIsCatchUp", "*/10 * * * *", nil, "12:00:00", "12:11:01", 0,
			[]Tick{{at("12:10:00"), late}},
			nil, "12:10:00", "12:20:00",
		},
		{
			"LatestRunsTheNewestOfTheLate", "*/10 * * * *", nil, "12:00:00", "12:40:30", 0,
			[]Tick{{at("12:30:00"), late}, {at("12:40:00"), onTime}},
			&Gap{From: at("12:10:00"), Until: at("12:20:00"), Count: count(2), Reason: Superseded}, "12:40:00", "12:50:00",
		},
		{
			"LatestBeforeItsWindow", "0 * * * *", func(s *Schedule) { s.CatchUpWindow = time.Minute }, "09:30:00", "12:30:00", 0,
			nil, &Gap{From: at("10:00:00"), Until: noon, Count: count(3), Reason: OutsideWindow}, "12:00:00", "13:00:00",
		},
		{
			"NoneMissesAllThatAreLate", "*/10 * * * *", func(s *Schedule) { s.CatchUp = CatchUpNone }, "12:00:00", "12:40:30", 0,
			[]Tick{{at("12:40:00"), onTime}},
			&Gap{From: at("12:10:00"), Until: at("12:30:00"), Count: count(3), Reason: OutsideWindow}, "12:40:00", "12:50:00",
		},
		{
			"AllWithinTheWindow", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.CatchUpWindow = CatchUpAll, 25*time.Minute }, "12:00:00", "12:45:00", 0,
			[]Tick{{at("12:20:00"), late}, {at("12:30:00"), late}, {at("12:40:00"), late}},
			&Gap{From: at("12:10:00"), Until: at("12:10:00"), Count: count(1), Reason: OutsideWindow}, "12:40:00", "12:50:00",
		},
		{
			"CutByItsLimitIsDueAgain", "*/10 * * * *", func(s *Schedule) { s.CatchUp = CatchUpAll }, "12:00:00", "12:45:00", 2,
			[]Tick{{at("12:10:00"), late}, {at("12:20:00"), late}},
			nil, "12:20:00", "12:30:00",
		},
		{
			"NotBeforeItsStart", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.StartsAt = CatchUpAll, pointer("12:20:00") }, "12:00:00", "12:20:30", 0,
			[]Tick{{at("12:20:00"), onTime}},
			nil, "12:20:00", "12:30:00",
		},
		{
			"NotYetStarted", "*/10 * * * *", func(s *Schedule) { s.StartsAt = pointer("15:05:00") }, "12:00:00", "12:30:00", 0,
			nil, nil, "12:00:00", "15:10:00",
		},
		{
			"NotAfterItsEnd", "*/10 * * * *", func(s *Schedule) { s.CatchUp, s.EndsAt = CatchUpAll, pointer("12:20:00") }, "12:00:00", "12:45:00", 0,
			[]Tick{{at("12:10:00"), late}, {at("12:20:00"), late}},
			nil, "12:20:00", "",
		},
		{
			"EndedBeforeItsMark", "*/10 * * * *", func(s *Schedule) { s.EndsAt = pointer("11:00:00") }, "12:00:00", "12:45:00", 0,
			nil, nil, "12:00:00", "",
		},
		{
			"TheClockWasPutBack", "*/10 * * * *", nil, "12:40:00", "12:15:00", 0,
			nil, nil, "12:40:00", "12:50:00",
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
			limit := test.limit
			if limit == 0 {
				limit = 500
			}
			plan := s.Plan(r, at(test.mark), at(test.now), limit)
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

func TestPlan_CatchesUpWithAThousandAtMost(t *testing.T) {
	t.Parallel()
	s := validSchedule()
	s.CatchUp, s.CatchUpWindow = CatchUpAll, 24*time.Hour
	r, err := ParseRecurrence("@every 10s", "UTC")
	require.NoError(t, err)
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	plan := s.Plan(r, now.Add(-12*time.Hour), now, 5_000)
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
	plan := s.Plan(r, now.AddDate(-5, 0, 0), now, 100)
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
	limit     int
}

// drawPlanned draws no more ticks than a limit lets through in a few dozen
// plans.
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
	p := planned{r: r, schedule: validSchedule(), limit: rapid.SampledFrom([]int{1, 2, 10, 500, 5_000}).Draw(t, "limit")}
	p.mark = time.UnixMilli(rapid.Int64Range(1.5e12, 2e12).Draw(t, "mark")).UTC()
	p.now = p.mark
	for range rapid.IntRange(0, min(30*p.limit, 2_500)).Draw(t, "ticks") {
		if p.now, _ = r.Next(p.now); p.now.Sub(p.mark) > 20*366*24*time.Hour {
			break
		}
	}
	p.now = p.now.Add(time.Duration(rapid.Int64Range(0, 100_000).Draw(t, "and ms")) * time.Millisecond)

	s := p.schedule
	s.CatchUp = rapid.SampledFrom([]CatchUp{CatchUpLatest, CatchUpAll, CatchUpNone}).Draw(t, "catch up")
	slept := p.now.Sub(p.mark)
	within := func(label string) time.Duration {
		return time.Duration(rapid.Int64Range(int64(-slept/4), int64(slept+slept/4)).Draw(t, label))
	}
	s.CatchUpWindow = max(within("window"), 0).Truncate(time.Second)
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

func TestPlan_AccountsForEachTickOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlanned(t)
		mark, now := p.mark, p.now
		moves := rapid.SliceOfN(rapid.Int64Range(0, 90_000), 0, 10).Draw(t, "time moves by ms")
		var plans []Plan
		for next := &now; next != nil && !next.After(now); {
			plan := p.schedule.Plan(p.r, mark, now, p.limit)
			if plan.Mark.Before(mark) || plan.Mark.Equal(mark) && (plan.Gap != nil || len(plan.Ticks) > 0) {
				t.Fatalf("the mark went from %s to %s", mark, plan.Mark)
			}
			if plan.Next != nil && !plan.Next.After(plan.Mark) {
				t.Fatalf("next is %s, the mark %s", plan.Next, plan.Mark)
			}
			if len(plan.Ticks) > p.limit {
				t.Fatalf("%d ticks in a plan of %d", len(plan.Ticks), p.limit)
			}
			caughtUp := 0
			for _, tick := range plan.Ticks {
				if late := now.Sub(tick.At) > OnTime; late != (tick.Trigger == TriggerCatchUp) {
					t.Fatalf("%s has trigger %s at %s", tick.At, tick.Trigger, now)
				} else if late {
					caughtUp++
					if now.Sub(tick.At) > p.schedule.CatchUpWindow {
						t.Fatalf("%s lies before the window at %s", tick.At, now)
					}
				}
			}
			if most := map[CatchUp]int{CatchUpNone: 0, CatchUpLatest: 1, CatchUpAll: MaxCatchUpRuns}[p.schedule.CatchUp]; caughtUp > most {
				t.Fatalf("%d are caught up with", caughtUp)
			}
			plans, mark, next = append(plans, plan), plan.Mark, plan.Next
			if len(moves) > 0 {
				now, moves = now.Add(time.Duration(moves[0])*time.Millisecond), moves[1:]
			}
			if len(plans) > 10_000 {
				t.Fatal("planning does not end")
			}
		}
		// What became due after the last plan is not decided, and next.
		undecided := p.nominal(now)
		for _, plan := range plans {
			undecided = account(t, undecided, plan)
		}
		if len(undecided) > 0 && (plans[len(plans)-1].Next == nil || !plans[len(plans)-1].Next.Equal(undecided[0])) {
			t.Fatalf("nobody decided %s", undecided[0])
		}
		if len(undecided) > 0 && !undecided[0].After(p.now) {
			t.Fatalf("%s was due from the beginning", undecided[0])
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
