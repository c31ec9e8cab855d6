package riverbeat

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// taken is what becomes of ends in their order: + has succeeded, - has failed.
func taken(a Alerts, s *AlertState, ends string) string {
	told := ""
	for _, end := range ends {
		event := s.Ended(a, RunEnd{ID: s.Seen + 1, Succeeded: end == '+', At: time.Unix(s.Seen, 0)})
		told += string(end) + map[AlertEvent]string{AlertFailing: "f", AlertRecovered: "r"}[event]
	}
	return told
}

func TestPeopleAreToldOfChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		after int
		told  string
	}{
		{0, "+++-f--+r+-f+r"}, // as 1
		{1, "-f-----+r"},
		{3, "--+--+---f---+r--+"},
		{2, "-+-+-+--f+r-+"},
	} {
		a := AlertsOf(nil, Alerts{AfterFailures: c.after})
		ends := strings.NewReplacer("f", "", "r", "").Replace(c.told)
		require.Equal(t, c.told, taken(a, &AlertState{}, ends))
	}
}

func TestAnEndThatIsKnownLateChangesNothing(t *testing.T) {
	t.Parallel()
	a := AlertsOf(nil, Alerts{})
	s := &AlertState{Seen: 7, Failures: 2, Failing: true}
	was := *s
	require.Empty(t, s.Ended(a, RunEnd{ID: 6, Succeeded: true, At: time.Unix(9, 0)}))
	require.Empty(t, s.Ended(a, RunEnd{ID: 7}))
	require.Equal(t, was, *s)
}

func TestOneSuccessEndsBothStates(t *testing.T) {
	t.Parallel()
	s := &AlertState{Failing: true, Failures: 4, Overdue: true}
	require.Equal(t, AlertRecovered, s.Ended(AlertsOf(nil, Alerts{}), RunEnd{ID: 1, Succeeded: true, At: time.Unix(5, 0)}))
	at := time.Unix(5, 0)
	require.Equal(t, &AlertState{Seen: 1, LastSuccessAt: &at, Since: at}, s)
}

func TestNoSuccessForATime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) *time.Time { at := now.Add(d); return &at }
	for name, c := range map[string]struct {
		change func(*Watching, *AlertState)
		due    *time.Time
		event  AlertEvent
	}{
		"not yet":         {func(_ *Watching, s *AlertState) { s.Since = now.Add(-time.Hour + 1) }, in(1), ""},
		"just now":        {func(_ *Watching, s *AlertState) { s.Since = now.Add(-time.Hour) }, nil, AlertOverdue},
		"told":            {func(_ *Watching, s *AlertState) { s.Overdue = true }, nil, ""},
		"any time":        {func(w *Watching, _ *AlertState) { w.Alerts.NoSuccessFor = 0 }, nil, ""},
		"disabled":        {func(w *Watching, _ *AlertState) { w.Schedule.Enabled = false }, nil, ""},
		"paused":          {func(w *Watching, _ *AlertState) { w.Paused = true }, in(time.Hour), ""},
		"resumed":         {func(w *Watching, _ *AlertState) { w.ResumedAt = now.Add(-time.Minute) }, in(59 * time.Minute), ""},
		"long since":      {func(w *Watching, _ *AlertState) { w.ResumedAt = now.Add(-time.Hour) }, nil, AlertOverdue},
		"will start":      {func(w *Watching, _ *AlertState) { w.Schedule.StartsAt = in(time.Minute) }, in(61 * time.Minute), ""},
		"has ended":       {func(w *Watching, _ *AlertState) { w.Schedule.EndsAt = in(-23*time.Hour - time.Minute) }, nil, ""},
		"ended later":     {func(w *Watching, _ *AlertState) { w.Schedule.EndsAt = in(-time.Hour) }, nil, AlertOverdue},
		"clock was ahead": {func(_ *Watching, s *AlertState) { s.Since = now.Add(99 * time.Hour) }, in(time.Hour), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := Watching{Schedule: &Schedule{Enabled: true}, Alerts: Alerts{NoSuccessFor: time.Hour}, Now: now}
			s := &AlertState{Since: now.Add(-24 * time.Hour), DueAt: in(0)}
			c.change(&w, s)
			require.Equal(t, c.event, s.Look(w))
			require.Equal(t, c.due, s.DueAt)
			require.Equal(t, c.event == AlertOverdue || name == "told", s.Overdue)
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
