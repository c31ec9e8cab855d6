package riverbeat

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// asked is a question about 09:00 in Berlin of a schedule that ticks then. It is
// in force since the first of the month, and decided up to the last.
func asked(change func(*Question)) *Question {
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	next := at.AddDate(0, 1, 0)
	s := validSchedule()
	s.ID = uuid.MustParse("11111111-2222-7333-8444-555555555555")
	s.CronExpression, s.Timezone, s.Enabled, s.Version = "0 9 * * *", "Europe/Berlin", true, 1
	q := &Question{
		At: at, Now: at.AddDate(0, 0, 20),
		Version: &ScheduleVersion{Schedule: *s, ValidFrom: at.AddDate(0, 0, -1)},
		Clock:   &ClockState{Mark: at.AddDate(0, 0, 20), NextRunAt: &next},
	}
	if change != nil {
		change(q)
	}
	return q
}

func (q *Question) run(state State) *Run {
	return &Run{ScheduleID: &q.Version.ID, ScheduledFor: q.At, State: state, Trigger: TriggerSchedule}
}

// gap is one of ticks that nobody has counted.
func (q *Question) gap(reason Reason) *Run {
	from, until := q.At.Add(-time.Hour), q.At.Add(time.Hour)
	gap := q.run(Missed)
	gap.Reason, gap.MissedFrom, gap.MissedUntil = reason, &from, &until
	return gap
}

// The verdicts' documents are held by httpapi; these are the cases between them.
func TestQuestion_Explain(t *testing.T) {
	t.Parallel()
	pointer := func(at time.Time) *time.Time { return &at }
	for _, test := range []struct {
		name    string
		change  func(*Question)
		verdict Verdict
		text    string // is in it
	}{
		{"NothingIsKnownButARun", func(q *Question) {
			q.Runs = []*Run{q.run(Succeeded)}
			q.Version, q.Clock = nil, nil
		}, Verdict(Succeeded), "It ran"},
		{"NothingIsKnownButAGap", func(q *Question) {
			q.Gap = q.gap(Paused)
			q.Version, q.Clock = nil, nil
		}, VerdictMissed, "ticks that nobody can count"},
		{"NothingIsKnown", func(q *Question) { q.Version = nil }, VerdictUnknown, "Nobody knows how"},
		{"TooManyToCount", func(q *Question) { q.Gap = q.gap(Superseded) }, VerdictMissed, "more than 10000 ticks"},
		{"AGapOfOthers", func(q *Question) {
			q.At = q.At.Add(time.Minute)
			q.Gap = q.gap(Superseded)
		}, VerdictNotATick, "nearest to it are 2026-03-02 09:00 +01:00 and 2026-03-03 09:00 +01:00"},
		{"ARunThatNoTickAskedFor", func(q *Question) {
			q.At = q.At.Add(time.Millisecond)
			q.Runs = []*Run{q.run(Queued)}
			q.Runs[0].Trigger, q.Runs[0].RequestedBy = TriggerManual, "ada"
			q.Version.Enabled = false
		}, Verdict(Queued), "asked for by ada"},
		{"ARunGoesBeforeWhatTheDefinitionSays", func(q *Question) {
			q.Runs = []*Run{q.run(Running)}
			q.Version.Enabled = false
		}, Verdict(Running), "It runs"},

		{"ATickAtTheBeginningBelongsToWhatWasBefore", func(q *Question) { q.Version.ValidFrom = q.At }, VerdictBeforeCreation, "it was created at"},
		{"ATickAtTheEndStillBelongsToIt", func(q *Question) { q.Version.ValidUntil = &q.At }, VerdictUnaccounted, ""},
		{"ATickAfterTheEnd", func(q *Question) { q.Version.ValidUntil = pointer(q.At.Add(-1)) }, VerdictDeleted, "was deleted"},
		{"AtItsStart", func(q *Question) { q.Version.StartsAt = &q.At }, VerdictUnaccounted, ""},
		{"AtItsEnd", func(q *Question) { q.Version.EndsAt = &q.At }, VerdictUnaccounted, ""},
		{"DisabledAndNoTickEither", func(q *Question) {
			q.At = q.At.Add(time.Minute)
			q.Version.Enabled = false
		}, VerdictDisabled, "was disabled at that time: version 1, in force since"},
		{"DisabledInTheFuture", func(q *Question) {
			q.At = q.Now.AddDate(1, 0, 0)
			q.Version.Enabled = false
		}, VerdictDisabled, "is disabled"},

		{"Due", func(q *Question) {
			q.Now, q.Clock.Mark, q.Clock.NextRunAt = q.At.Add(1500*time.Millisecond), q.At.Add(-1), &q.At
		}, VerdictDue, "due for 1.5s"},
		{"DueAndStopped", func(q *Question) {
			q.Clock.Mark, q.Clock.NextRunAt, q.Clock.RetryAt = q.At.Add(-1), nil, pointer(q.Now.Add(time.Hour))
		}, VerdictStopped, "tried again at"},
		{"DueAndNotTicking", func(q *Question) {
			q.Clock.Mark, q.Clock.NextRunAt = q.At.Add(-1), nil
		}, VerdictStopped, "does not tick"},
		{"DueStoppedAndPaused", func(q *Question) {
			q.Clock.Mark, q.Clock.NextRunAt = q.At.Add(-1), nil
			q.Paused = &Pause{PausedAt: q.Now, Reason: "move"}
		}, VerdictPaused, "The installation is paused since 2026-03-22 09:00 +01:00: move."},
		{"PausedAndCatchUpNone", func(q *Question) {
			q.Clock.Mark, q.Version.CatchUp = q.At.Add(-1), CatchUpNone
			q.Paused = &Pause{PausedAt: q.Now}
		}, VerdictPaused, "recorded as missed"},
		{"PausedAndCatchUpAll", func(q *Question) {
			q.Clock.Mark, q.Version.CatchUp = q.At.Add(-1), CatchUpAll
			q.Paused = &Pause{PausedAt: q.Now}
		}, VerdictPaused, "caught up with within"},
		{"APauseHoldsNothingThatIsDecided", func(q *Question) { q.Paused = &Pause{PausedAt: q.At} }, VerdictUnaccounted, ""},
		{"UpcomingAndStopped", func(q *Question) {
			q.Now, q.Clock.NextRunAt = q.At.Add(-time.Hour), nil
		}, VerdictStopped, "does not tick"},
		{"ADeletedScheduleHasNoClock", func(q *Question) {
			q.Clock, q.Version.ValidUntil = nil, &q.Now
		}, VerdictUnaccounted, ""},
		{"ForgottenOnlyIfItWasATick", func(q *Question) {
			q.At, q.Forgotten = q.At.Add(time.Second), true
		}, VerdictNotATick, ""},

		{"UnreadableAndTicking", func(q *Question) { q.Version.Timezone = "Atlantis/Capital" }, VerdictUnknown, `"Atlantis/Capital" cannot be read any more`},
		{"UnreadableInAGap", func(q *Question) {
			q.Version.Timezone = "Atlantis/Capital"
			q.Gap = q.gap(OutsideWindow)
		}, VerdictMissed, "in a gap of ticks that nobody can count"},

		{"MovedInTheFuture", func(q *Question) {
			q.Version.CronExpression = "30 2 * * *"
			q.At = time.Date(2026, 3, 29, 1, 30, 0, 0, time.UTC)
		}, VerdictMoved, "is moved to 2026-03-29 03:00 +02:00. It will run at 2026-03-29 03:00 +02:00"},
		{"MovedIntoAGap", func(q *Question) {
			q.Version.CronExpression = "30 2 * * *"
			q.At = time.Date(2026, 3, 29, 1, 30, 0, 0, time.UTC)
			q.Gap = q.gap(Superseded)
		}, VerdictMoved, "It was not run."},
		{"MovedAndDisabled", func(q *Question) {
			q.Version.CronExpression, q.Version.Enabled = "30 2 * * *", false
			q.At = time.Date(2026, 3, 29, 1, 30, 0, 0, time.UTC)
		}, VerdictDisabled, ""},
		{"ADayThatAZoneLeftOut", func(q *Question) {
			q.Version.CronExpression, q.Version.Timezone = "0 9 * * fri", "Pacific/Apia"
			q.Version.ValidFrom = time.Date(2011, 1, 1, 0, 0, 0, 0, time.UTC)
			q.At = time.Date(2011, 12, 30, 19, 0, 0, 0, time.UTC)
		}, VerdictNoSuchTime, "the whole day was left out"},

		{"NextInLine", func(q *Question) { q.Runs = []*Run{q.run(Waiting)} }, Verdict(Waiting), "It waits in line, and is next."},
		{"WaitsInAChain", func(q *Question) {
			q.Runs, q.Ahead = []*Run{q.run(Waiting)}, 2
			q.Runs[0].Trigger, q.Runs[0].ExecutionPolicy = TriggerCatchUp, Allow
		}, Verdict(Waiting), "behind 2 more: what is caught up with runs one after another"},
		{"LostAndUnknownWhere", func(q *Question) {
			q.Runs = []*Run{q.run(Running)}
			q.Runs[0].Lives, q.Runs[0].Node = 2, "b"
		}, Verdict(Running), "It lost its node 2 times. It went on at node b."},
		{"LostAndNotYetBack", func(q *Question) {
			q.Runs = []*Run{q.run(Queued)}
			q.Runs[0].Lives, q.Runs[0].Node = 1, "a"
			q.Runs[0].LostLives = []LostLife{{JobID: 1, Node: "a", Execution: 1, LostAt: q.At}}
		}, Verdict(Queued), "waits for a worker. It lost its node a at 2026-03-02 09:00 +01:00."},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := asked(test.change).Explain()
			require.Equal(t, test.verdict, e.Verdict, e.Text)
			require.Contains(t, e.Text, test.text)
			require.Contains(t, Verdicts(), e.Verdict)
		})
	}
}

func TestQuestion_ExplainNearest(t *testing.T) {
	t.Parallel()
	day := func(d int) *time.Time {
		at := time.Date(2026, 3, d, 8, 0, 0, 0, time.UTC)
		return &at
	}
	for _, test := range []struct {
		name          string
		change        func(*Question)
		before, after *time.Time
	}{
		{"ATick", nil, day(1), day(3)},
		{"Between", func(q *Question) { q.At = q.At.Add(-time.Minute) }, day(1), day(2)},
		{"NotBeforeItsStart", func(q *Question) { q.Version.StartsAt = day(2) }, nil, day(3)},
		{"NotAfterItsEnd", func(q *Question) { q.Version.EndsAt = day(2) }, day(1), nil},
		{"LongAfterItsEnd", func(q *Question) { q.At, q.Version.EndsAt = q.At.AddDate(0, 0, 9), day(4) }, day(4), nil},
		{"BeforeItsCreation", func(q *Question) { q.Version.ValidFrom = day(3).Add(time.Hour) }, nil, day(4)},
		{"AfterItsDeletion", func(q *Question) { q.At, q.Version.ValidUntil = q.At.AddDate(0, 0, 9), day(4) }, day(4), nil},
		{"DeletedBeforeItTicked", func(q *Question) {
			q.At, q.Version.ValidUntil = q.At.AddDate(0, 0, 9), day(2)
			q.Version.ValidFrom = *day(2)
		}, nil, nil},
		{"Unknown", func(q *Question) { q.Version = nil }, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := asked(test.change).Explain()
			require.Equal(t, test.before, e.Before)
			require.Equal(t, test.after, e.After)
		})
	}
}
