package riverbeat

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

var anywhere = Text{Literal: "https://example.com/hook"}

// taken is what becomes of ends in their order: + has succeeded, - has failed.
func taken(a Alerts, s *AlertState, ends string) string {
	told := ""
	for _, end := range ends {
		e := RunEnd{ID: max(s.SuccessSeen, s.FailureSeen) + 1, RunID: uuid.New(), Succeeded: end == '+', At: time.Unix(s.SuccessSeen, 0)}
		told += string(end) + map[AlertEvent]string{AlertFailing: "f", AlertRecovered: "r"}[s.Ended(a, e)]
	}
	return told
}

func TestPeopleAreToldOfChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		after int
		on    []AlertEvent
		told  string
	}{
		{0, nil, "+++-f--+r+-f+r"}, // as 1
		{1, nil, "-f-----+r"},
		{3, nil, "--+--+---f---+r--+"},
		{2, nil, "-+-+-+--f+r-+"},
		{1, []AlertEvent{AlertFailing}, "-f-+-f+"},
		{1, []AlertEvent{AlertRecovered, AlertOverdue}, "-+--+"}, // nobody knows that it was ill
		{1, []AlertEvent{}, "-+--+"},
	} {
		a := AlertsOf(nil, Alerts{URL: anywhere, AfterFailures: c.after, On: c.on})
		ends := strings.NewReplacer("f", "", "r", "").Replace(c.told)
		require.Equal(t, c.told, taken(a, &AlertState{}, ends))
	}
}

func TestEndsThatAreKnownLate(t *testing.T) {
	t.Parallel()
	a := AlertsOf(nil, Alerts{URL: anywhere, AfterFailures: 3})
	fail := func(s *AlertState, id int64) AlertEvent { return s.Ended(a, RunEnd{ID: id, RunID: uuid.New()}) }
	succeed := func(s *AlertState, id int64) AlertEvent {
		return s.Ended(a, RunEnd{ID: id, RunID: uuid.New(), Succeeded: true, At: time.Unix(id, 0)})
	}
	s := &AlertState{}
	fail(s, 3)
	fail(s, 2)
	require.Equal(t, AlertFailing, fail(s, 1), "each failure counts")
	require.Equal(t, AlertRecovered, succeed(s, 9))
	fail(s, 8)
	require.Zero(t, s.Failures, "it has succeeded since")
	fail(s, 12)
	s.Overdue = true
	succeed(s, 11)
	require.Equal(t, 1, s.Failures, "it has failed since")
	require.Equal(t, time.Unix(11, 0), s.Since)
	require.Equal(t, time.Unix(11, 0), *s.LastSuccessAt)
	require.False(t, s.Overdue)
	succeed(s, 10)
	require.Equal(t, time.Unix(11, 0), *s.LastSuccessAt, "not the last")
}

func TestARunThatFailsAgainIsOneFailure(t *testing.T) {
	t.Parallel()
	a, s, run := AlertsOf(nil, Alerts{URL: anywhere, AfterFailures: 2}), &AlertState{}, uuid.New()
	for id := range int64(3) {
		require.Empty(t, s.Ended(a, RunEnd{ID: id + 1, RunID: run}))
	}
	require.Equal(t, 1, s.Failures)
	require.Equal(t, AlertFailing, s.Ended(a, RunEnd{ID: 4, RunID: uuid.New()}))
}

func TestOneSuccessEndsBothStates(t *testing.T) {
	t.Parallel()
	s := &AlertState{Failing: true, Failures: 4, Overdue: true, Told: true}
	require.Equal(t, AlertRecovered, s.Ended(AlertsOf(nil, Alerts{URL: anywhere}), RunEnd{ID: 1, Succeeded: true, At: time.Unix(5, 0)}))
	at := time.Unix(5, 0)
	require.Equal(t, &AlertState{SuccessSeen: 1, LastSuccessAt: &at, Since: at}, s)
}

func TestWhatIsFoundOnlyByALook(t *testing.T) {
	t.Parallel()
	w := Watching{Schedule: &Schedule{Enabled: true}, Now: time.Unix(1, 0)}
	s := &AlertState{}
	require.Equal(t, "-----", taken(AlertsOf(nil, Alerts{URL: anywhere, AfterFailures: 9}), s, "-----"))
	w.Alerts = AlertsOf(nil, Alerts{URL: anywhere, AfterFailures: 6})
	require.Empty(t, s.Look(w))
	w.Alerts.AfterFailures = 5
	require.Equal(t, []AlertEvent{AlertFailing}, s.Look(w), "there are enough of them now")
	require.Empty(t, s.Look(w))
}

func TestNoSuccessForATime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) *time.Time { at := now.Add(d); return &at }
	pause := func(from, until time.Duration) *Pause { return &Pause{PausedAt: now.Add(from), ResumedAt: in(until)} }
	for name, c := range map[string]struct {
		change func(*Watching, *AlertState)
		due    *time.Time
		event  AlertEvent
	}{
		"not yet":      {func(_ *Watching, s *AlertState) { s.Since = now.Add(-time.Hour + 1) }, in(1), ""},
		"just now":     {func(_ *Watching, s *AlertState) { s.Since = now.Add(-time.Hour) }, nil, AlertOverdue},
		"told":         {func(_ *Watching, s *AlertState) { s.Overdue = true }, nil, ""},
		"any time":     {func(w *Watching, _ *AlertState) { w.Alerts.NoSuccessFor = 0 }, nil, ""},
		"not told":     {func(w *Watching, _ *AlertState) { w.Alerts.On = []AlertEvent{AlertFailing} }, nil, ""},
		"disabled":     {func(w *Watching, _ *AlertState) { w.Schedule.Enabled = false }, nil, ""},
		"paused since": {func(w *Watching, _ *AlertState) { w.Pauses = []*Pause{{PausedAt: now.Add(-24 * time.Hour)}} }, in(time.Hour), ""},
		"paused late": {func(w *Watching, _ *AlertState) {
			w.Pauses = []*Pause{{PausedAt: now.Add(-23*time.Hour - 10*time.Minute)}}
		}, in(10 * time.Minute), ""},
		"short pauses": {func(w *Watching, _ *AlertState) {
			w.Pauses = []*Pause{pause(-24*time.Hour, -23*time.Hour), pause(-time.Hour, -time.Minute)}
		}, nil, AlertOverdue},
		"long pauses": {func(w *Watching, _ *AlertState) {
			w.Pauses = []*Pause{pause(-30*time.Hour, -2*time.Hour), pause(-90*time.Minute, -time.Minute)}
		}, in(29 * time.Minute), ""},
		"pause to come":   {func(w *Watching, _ *AlertState) { w.Pauses = []*Pause{pause(time.Hour, 9000*time.Hour)} }, nil, AlertOverdue},
		"will start":      {func(w *Watching, _ *AlertState) { w.Schedule.StartsAt = in(time.Minute) }, in(61 * time.Minute), ""},
		"has ended":       {func(w *Watching, _ *AlertState) { w.Schedule.EndsAt = in(0) }, nil, ""},
		"will end":        {func(w *Watching, s *AlertState) { w.Schedule.EndsAt, s.Since = in(time.Minute), now }, in(time.Hour), ""},
		"ends later":      {func(w *Watching, _ *AlertState) { w.Schedule.EndsAt = in(time.Minute) }, nil, AlertOverdue},
		"paused just now": {func(w *Watching, s *AlertState) { w.Pauses, s.Since = []*Pause{{PausedAt: now}}, now.Add(-time.Hour+1) }, in(time.Minute), ""},
		"never looked at": {func(w *Watching, s *AlertState) { w.Behind, s.DueAt = true, nil }, in(0), ""},
		"clock was ahead": {func(_ *Watching, s *AlertState) { s.Since, s.DueAt = now.Add(99*time.Hour), in(100*time.Hour) }, in(time.Hour), ""},
		"early enough":    {func(_ *Watching, s *AlertState) { s.Since, s.DueAt = now, in(time.Minute) }, in(time.Minute), ""},
		"too late":        {func(_ *Watching, s *AlertState) { s.Since, s.DueAt = now, in(2*time.Hour) }, in(time.Hour), ""},
		"far away":        {func(w *Watching, s *AlertState) { w.Alerts.NoSuccessFor = 300 * time.Hour }, in(MaxUnwatched), ""},
		"ends to come":    {func(w *Watching, s *AlertState) { w.Behind = true }, in(0), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := Watching{Schedule: &Schedule{Enabled: true}, Alerts: Alerts{URL: anywhere, AfterFailures: 1, NoSuccessFor: time.Hour}, Now: now}
			s := &AlertState{Since: now.Add(-24 * time.Hour), DueAt: in(0)}
			c.change(&w, s)
			events := s.Look(w)
			require.Equal(t, c.event != "", len(events) == 1)
			require.Equal(t, c.due, s.DueAt)
			require.Equal(t, c.event == AlertOverdue || name == "told", s.Overdue)
			require.Equal(t, c.event == AlertOverdue, s.Told)
		})
	}
}

func TestAlertsOfAScheduleGoBeforeThoseOfItsTask(t *testing.T) {
	t.Parallel()
	d := &TaskDefinition{Alerts: Alerts{
		URL: Text{Literal: "https://example.com/all"}, SigningSecret: Text{Secret: "shared"},
		AfterFailures: 3, NoSuccessFor: time.Hour, On: []AlertEvent{AlertFailing},
	}}
	require.Equal(t, d.Alerts, AlertsOf(d, Alerts{}))
	a := AlertsOf(d, Alerts{URL: Text{Secret: "mine"}, NoSuccessFor: time.Minute, On: []AlertEvent{}})
	require.Equal(t, Alerts{URL: Text{Secret: "mine"}, AfterFailures: 3, NoSuccessFor: time.Minute, On: []AlertEvent{}}, a,
		"what is signed for one is not for another")
	require.False(t, a.Tells(AlertFailing))
	none := AlertsOf(nil, Alerts{})
	require.False(t, none.Tells(AlertFailing), "there is nobody")
	require.Equal(t, 1, none.AfterFailures)
}

func TestRulesOfAlerts(t *testing.T) {
	t.Parallel()
	valid := func() *Schedule {
		return &Schedule{
			Name: "n", TaskName: "echo", CronExpression: "@hourly", Timezone: "UTC",
			ExecutionPolicy: Allow, CatchUp: CatchUpLatest, MaxWaiting: 1,
		}
	}
	for pointer, a := range map[string]Alerts{
		"/alerts/url":            {URL: Text{Literal: "ftp://example.com"}},
		"/alerts/signing_secret": {URL: Text{Secret: "hook"}, SigningSecret: Text{Literal: "whsec_open"}},
		"/alerts/after_failures": {AfterFailures: 1001},
		"/alerts/no_success_for": {NoSuccessFor: 367 * 24 * time.Hour},
		"/alerts/on/0":           {On: []AlertEvent{"late"}},
		"/alerts/on/1":           {On: []AlertEvent{AlertFailing, AlertFailing}},
		"/alerts/on":             {On: make([]AlertEvent, 100_000)},
	} {
		s := valid()
		s.Alerts = a
		err := s.Validate()
		require.Equal(t, Invalid, KindOf(err), pointer)
		require.Equal(t, pointer, fieldsOf(err, "")[0].Pointer)
	}
	s := valid()
	s.Alerts = Alerts{SigningSecret: Text{Secret: "shared"}}
	require.ErrorContains(t, s.Validate(), "breaks a rule")
	s.Alerts = Alerts{AfterFailures: 2}
	require.NoError(t, s.Validate())
	require.ErrorContains(t, s.ValidateAlerts(nil), "breaks a rule")
	require.NoError(t, s.ValidateAlerts(&TaskDefinition{Alerts: Alerts{URL: Text{Secret: "hook"}}}))
	s.Alerts = Alerts{On: []AlertEvent{}}
	require.NoError(t, s.ValidateAlerts(nil), "nothing is told, so nobody is needed")
	s.TaskName = AlertTask
	require.ErrorContains(t, s.Validate(), "/task_name: is not for schedules")
}

func TestChatToolsFindNothingInAText(t *testing.T) {
	t.Parallel()
	w := Watching{Schedule: &Schedule{Name: "<!channel> @all", TaskName: "<https://evil|x>"}}
	m := NewAlertMessage(AlertFailing, w, &AlertState{Failures: 1}, &Run{State: Failed, Error: "see <@U1>"})
	require.NotContains(t, m.Text, "<")
	require.NotContains(t, m.Text, "@all")
	require.Equal(t, "see <@U1>", *m.Data.Run.Error, "data has it as it is")
}

func TestTextOfAMessage(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w := Watching{Schedule: &Schedule{ID: uuid.New(), Name: "nightly", TaskName: "load"}, Alerts: Alerts{NoSuccessFor: 26 * time.Hour}, Now: now}
	failed := &Run{State: Failed, Error: "no such table\nstack …" + strings.Repeat("é", 9_000)}
	for text, m := range map[string]*AlertMessage{
		"Schedule nightly (task load) is failing: a run has failed. Last error: no such table":                                 NewAlertMessage(AlertFailing, w, &AlertState{Failures: 1}, failed),
		"Schedule nightly (task load) is failing: 3 runs in a row have failed. Last error: no such table":                      NewAlertMessage(AlertFailing, w, &AlertState{Failures: 3}, failed),
		"Schedule nightly (task load) is failing: 3 runs in a row have failed.":                                                NewAlertMessage(AlertFailing, w, &AlertState{Failures: 3}, nil),
		"Schedule nightly (task load) has recovered: a run has succeeded.":                                                     NewAlertMessage(AlertRecovered, w, &AlertState{}, &Run{State: Succeeded}),
		"Schedule nightly (task load) is overdue: no run has succeeded for 26h.":                                               NewAlertMessage(AlertOverdue, w, &AlertState{}, nil),
		"Schedule nightly (task load) is overdue: no run has succeeded for 26h. The last success was at 2026-03-01T12:00:00Z.": NewAlertMessage(AlertOverdue, w, &AlertState{LastSuccessAt: &now}, nil),
	} {
		require.Equal(t, text, m.Text)
		if m.Data.Run != nil && m.Data.Run.Error != nil {
			require.LessOrEqual(t, len(*m.Data.Run.Error), maxAlertError+len(" …"))
		}
	}
}
