package riverbeat

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// AlertEvent is a change of a schedule that people are told of.
type AlertEvent string

// The events.
const (
	AlertFailing   AlertEvent = "failing"   // as many runs in a row have failed as they want to hear of
	AlertOverdue   AlertEvent = "overdue"   // no run has succeeded for as long
	AlertRecovered AlertEvent = "recovered" // a run has succeeded, after one of the others
)

// Limits of alerts.
const (
	DefaultAfterFailures = 1
	MaxAfterFailures     = 1_000
	MinNoSuccessFor      = time.Second
	MaxNoSuccessFor      = 366 * 24 * time.Hour
	maxAlertEvents       = 3
)

// Alerts say whom to tell of what. Those of a schedule go before those of its task's
// definition, one by one: see AlertsOf. The zero value says nothing.
type Alerts struct {
	// URL is where messages are posted; and SigningSecret, which goes with it, what they
	// are signed with by Standard Webhooks: empty, they are not.
	URL           Text
	SigningSecret Text
	AfterFailures int           // in a row; 0: one
	NoSuccessFor  time.Duration // 0: for as long as it may be
	On            []AlertEvent  // what is told; nil: all of it, empty: nothing
}

// IsZero tells whether nothing is said.
func (a *Alerts) IsZero() bool {
	return a.URL.IsZero() && a.SigningSecret.IsZero() && a.AfterFailures == 0 && a.NoSuccessFor == 0 && a.On == nil
}

// Equal tells whether two say the same.
func (a *Alerts) Equal(b *Alerts) bool {
	return a.URL == b.URL && a.SigningSecret == b.SigningSecret && a.AfterFailures == b.AfterFailures &&
		a.NoSuccessFor == b.NoSuccessFor && (a.On == nil) == (b.On == nil) && slices.Equal(a.On, b.On)
}

// AlertsOf are the alerts of a schedule: what it has set, and what the definition of its
// task has for the rest; nil is a task without one.
func AlertsOf(d *TaskDefinition, set Alerts) Alerts {
	if d == nil {
		d = &TaskDefinition{}
	}
	if set.URL.IsZero() {
		set.URL, set.SigningSecret = d.Alerts.URL, d.Alerts.SigningSecret
	}
	if set.On == nil {
		set.On = d.Alerts.On
	}
	set.AfterFailures = cmp.Or(set.AfterFailures, d.Alerts.AfterFailures, DefaultAfterFailures)
	set.NoSuccessFor = cmp.Or(set.NoSuccessFor, d.Alerts.NoSuccessFor)
	return set
}

// Tells says whether people are told of an event.
func (a *Alerts) Tells(event AlertEvent) bool {
	return !a.URL.IsZero() && (a.On == nil || slices.Contains(a.On, event))
}

// ValidateAlerts checks what needs a schedule and its task's definition, nil for none: that
// there is somebody to tell. The error is as that of Validate.
func (s *Schedule) ValidateAlerts(d *TaskDefinition) error {
	var broken fields
	if a := AlertsOf(d, s.Alerts); !s.Alerts.IsZero() && a.URL.IsZero() && (a.On == nil || len(a.On) > 0) {
		broken.addf("/alerts/url", "is required: the definition of the task has none")
	}
	return broken.err("invalid_schedule", "The schedule breaks a rule.")
}

// alerts checks every rule about alerts by themselves.
func (f *fields) alerts(at string, a *Alerts) {
	if a.URL.Secret == "" && a.URL.Literal != "" {
		if problem := CheckRequestURL(a.URL.Literal); problem != "" {
			f.addf(at+"/url", "%s", problem)
		}
	}
	f.secret(at+"/signing_secret", a.SigningSecret, false)
	if a.URL.IsZero() && !a.SigningSecret.IsZero() {
		f.addf(at+"/signing_secret", "goes with a url")
	}
	f.between(at+"/after_failures", a.AfterFailures, 0, MaxAfterFailures)
	f.duration(at+"/no_success_for", a.NoSuccessFor, MaxNoSuccessFor)
	if a.NoSuccessFor > 0 && a.NoSuccessFor < MinNoSuccessFor {
		f.addf(at+"/no_success_for", "must be at least %s", FormatDuration(MinNoSuccessFor))
	}
	if len(a.On) > maxAlertEvents {
		f.addf(at+"/on", "must have at most %d events", maxAlertEvents)
		return
	}
	for i, event := range a.On {
		pointer := indexed(at+"/on", i)
		if slices.Contains(a.On[:i], event) {
			f.addf(pointer, "is the same as an earlier one")
		}
		f.oneOf(pointer, string(event), string(AlertFailing), string(AlertOverdue), string(AlertRecovered))
	}
}

// AlertState is what is known of a schedule that is watched.
type AlertState struct {
	ScheduleID uuid.UUID
	Failures   int        // runs that have failed in a row
	FailedRun  *uuid.UUID // the last of them; nil: none
	// Failing and Overdue are what people were told that it is.
	Failing bool
	Overdue bool
	// Told is whether they have to be told of its recovery.
	Told bool
	// LastSuccessAt is when a run has last succeeded; nil: none since it is watched.
	LastSuccessAt *time.Time
	// Since is when the time without a success began: with the last one, or when it was
	// first watched, or enabled.
	Since time.Time
	// DueAt is when it has to be looked at again; nil: never. It may be too early.
	DueAt *time.Time
	// SuccessSeen and FailureSeen are the last RunEnds that it knows of.
	SuccessSeen, FailureSeen int64
}

// RunEnd is the end of a run: it has succeeded, or failed for good.
type RunEnd struct {
	ID         int64 // higher for later ends
	ScheduleID uuid.UUID
	TaskName   string // that of the run: its schedule may have another one now
	RunID      uuid.UUID
	Succeeded  bool
	At         time.Time
}

// Ended takes the end of a run in, each only once, and says what people are to be told now;
// "" is nothing. An end may be known later than one after it, because its transaction took
// longer: then the later one has the last word on whether the schedule fails.
func (s *AlertState) Ended(a Alerts, end RunEnd) AlertEvent {
	if end.Succeeded {
		return s.succeeded(a, end)
	}
	if end.ID < s.SuccessSeen {
		return ""
	}
	s.FailureSeen = max(s.FailureSeen, end.ID)
	if s.FailedRun != nil && *s.FailedRun == end.RunID {
		return "" // somebody has tried it again
	}
	s.Failures, s.FailedRun = s.Failures+1, &end.RunID
	return s.fails(a)
}

func (s *AlertState) succeeded(a Alerts, end RunEnd) AlertEvent {
	if end.ID > s.SuccessSeen {
		s.SuccessSeen, s.LastSuccessAt = end.ID, &end.At
	}
	if end.At.After(s.Since) {
		s.Since = end.At
	}
	s.Overdue = false
	if end.ID < s.FailureSeen {
		return ""
	}
	told := s.Told
	s.Failures, s.FailedRun, s.Failing, s.Told = 0, nil, false, false
	if told && a.Tells(AlertRecovered) {
		return AlertRecovered
	}
	return ""
}

// fails says AlertFailing if people are to be told so, and were not.
func (s *AlertState) fails(a Alerts) AlertEvent {
	if s.Failing || s.Failures < a.AfterFailures || !a.Tells(AlertFailing) {
		return ""
	}
	s.Failing, s.Told = true, true
	return AlertFailing
}

// MaxUnwatched is how long a DueAt lies ahead at most: longer than that, it was set by a
// clock that was wrong.
const MaxUnwatched = 24 * time.Hour

// lookInPause is how often a schedule is looked at while the installation is paused.
const lookInPause = time.Minute

// Watching is what a look at a schedule needs to know beside its state.
type Watching struct {
	Schedule    *Schedule
	Alerts      Alerts // those of AlertsOf
	Environment string // the installation's label
	Now         time.Time
	Pauses      []*Pause // of the installation, those since AlertState.Since
	// Behind is whether there are ends of runs that were not taken in: then nobody can
	// tell whether it is overdue.
	Behind bool
}

func (w *Watching) paused() bool {
	return len(w.Pauses) > 0 && w.Pauses[len(w.Pauses)-1].ResumedAt == nil
}

// Look says what people are to be told by what is so now, and sets DueAt. Neither a pause,
// nor the time before StartsAt or after EndsAt, nor a schedule that is disabled or in shadow counts as a time
// without a success.
func (s *AlertState) Look(w Watching) (events []AlertEvent) {
	if event := s.fails(w.Alerts); event != "" {
		events = append(events, event)
	}
	if w.Behind {
		if s.DueAt == nil {
			s.DueAt = &w.Now
		}
		return events
	}
	if s.Since.After(w.Now) { // the clock was ahead
		s.Since = w.Now
	}
	due := s.due(w)
	if !due.IsZero() && !due.After(w.Now) {
		s.DueAt, s.Overdue, s.Told = nil, true, true
		return append(events, AlertOverdue)
	}
	latest := w.Now.Add(MaxUnwatched)
	if soon := w.Now.Add(lookInPause); w.paused() && due.Before(soon) && !due.IsZero() {
		due = soon // it moves on, as long as the pause lasts
	}
	switch {
	case due.IsZero():
		s.DueAt = nil
	case s.DueAt != nil && s.DueAt.After(w.Now) && !s.DueAt.After(due) && !s.DueAt.After(latest):
		// Early enough, and so its index need not be written.
	case due.After(latest):
		s.DueAt = &latest
	default:
		s.DueAt = &due
	}
	return events
}

// due is when the schedule will be overdue, or has become so; zero: never.
func (s *AlertState) due(w Watching) time.Time {
	schedule, wait := w.Schedule, w.Alerts.NoSuccessFor
	if s.Overdue || wait == 0 || !schedule.Runs() || !w.Alerts.Tells(AlertOverdue) {
		return time.Time{}
	}
	if schedule.EndsAt != nil && !schedule.EndsAt.After(w.Now) {
		return time.Time{} // it is not asked to succeed any more
	}
	begun := s.Since
	if schedule.StartsAt != nil && schedule.StartsAt.After(begun) {
		begun = *schedule.StartsAt
	}
	due := begun.Add(wait)
	for _, p := range w.Pauses {
		from, until := p.PausedAt, w.Now
		if p.ResumedAt != nil && p.ResumedAt.Before(until) {
			until = *p.ResumedAt
		}
		if from.Before(begun) {
			from = begun
		}
		if until.After(from) {
			due = due.Add(until.Sub(from))
		}
	}
	return due
}

// AlertTask is the task of the runs that tell people: it posts the message. It is no task
// for schedules: who may write those may not choose where a secret is sent. Its jobs go to
// AlertQueue, for they must not wait for what they tell of, nor the other way round.
const (
	AlertTask  = "riverbeat_alert"
	AlertQueue = "riverbeat_alert"
)

// AlertParams are the parameters of AlertTask.
type AlertParams struct {
	URL           Text          `json:"url"`
	SigningSecret Text          `json:"signing_secret,omitzero"`
	Message       *AlertMessage `json:"message"`
}

// AlertMessage is what people are told: the JSON that is posted. Its shape is that of
// Standard Webhooks.
type AlertMessage struct {
	Type      string    `json:"type"` // schedule.failing and so on
	Timestamp time.Time `json:"timestamp"`
	// Text says it all in a sentence or two. Chat tools show a member of this name.
	Text string    `json:"text"`
	Data AlertData `json:"data"`
}

// AlertData is what there is to know about an event.
type AlertData struct {
	Environment   string     `json:"environment"` // the installation's label
	ScheduleID    uuid.UUID  `json:"schedule_id"`
	ScheduleName  string     `json:"schedule_name"`
	TaskName      string     `json:"task_name"`
	Category      *string    `json:"category"`
	Tags          []string   `json:"tags"`
	Failures      int        `json:"failures"`        // in a row
	LastSuccessAt *time.Time `json:"last_success_at"` // null: none since it is watched
	Run           *AlertRun  `json:"run"`             // the one by which it has changed; null if it was none
}

// AlertRun is the run of an alert.
type AlertRun struct {
	ID           uuid.UUID  `json:"id"`
	Trigger      Trigger    `json:"trigger"`
	ScheduledFor time.Time  `json:"scheduled_for"`
	StartedAt    *time.Time `json:"started_at"`
	FinishedAt   *time.Time `json:"finished_at"`
	State        State      `json:"state"`
	Reason       *string    `json:"reason"`
	Error        *string    `json:"error"`
}

// maxAlertError is how much of an error is told, in bytes, and maxAlertLine how much of it
// stands in the text.
const (
	maxAlertError = 4 << 10
	maxAlertLine  = 300
)

// NewAlertMessage makes the message of an event. run is nil for AlertOverdue.
func NewAlertMessage(event AlertEvent, w Watching, state *AlertState, run *Run) *AlertMessage {
	s := w.Schedule
	m := &AlertMessage{
		Type: "schedule." + string(event), Timestamp: w.Now.UTC(),
		Data: AlertData{
			Environment: w.Environment, ScheduleID: s.ID, ScheduleName: s.Name, TaskName: s.TaskName,
			Category: orNil(s.Category), Tags: append([]string{}, s.Tags...),
			Failures: state.Failures, LastSuccessAt: state.LastSuccessAt,
		},
	}
	if run != nil {
		m.Data.Run = &AlertRun{
			ID: run.ID, Trigger: run.Trigger, ScheduledFor: run.ScheduledFor,
			StartedAt: run.StartedAt, FinishedAt: run.FinishedAt,
			State: run.State, Reason: orNil(string(run.Reason)), Error: orNil(shortened(run.Error, maxAlertError)),
		}
	}
	m.Text = m.text(event, w)
	return m
}

func (m *AlertMessage) text(event AlertEvent, w Watching) string {
	text := fmt.Sprintf("Schedule %s (task %s)", plain(m.Data.ScheduleName), plain(m.Data.TaskName))
	switch event {
	case AlertRecovered:
		return text + " has recovered: a run has succeeded."
	case AlertOverdue:
		text += fmt.Sprintf(" is overdue: no run has succeeded for %s.", FormatDuration(w.Alerts.NoSuccessFor))
		if m.Data.LastSuccessAt != nil {
			text += " The last success was at " + m.Data.LastSuccessAt.UTC().Format(time.RFC3339) + "."
		}
		return text
	case AlertFailing:
	}
	if m.Data.Failures == 1 {
		text += " is failing: a run has failed."
	} else {
		text += fmt.Sprintf(" is failing: %d runs in a row have failed.", m.Data.Failures)
	}
	if m.Data.Run != nil && m.Data.Run.Error != nil {
		line, _, _ := strings.Cut(*m.Data.Run.Error, "\n")
		text += " Last error: " + plain(shortened(strings.TrimSpace(line), maxAlertLine))
	}
	return text
}

// plain is a text in which chat tools find no markup and nobody to call: names and errors
// may have anything.
func plain(text string) string {
	return strings.NewReplacer("<", "‹", ">", "›", "@", "@\u200b").Replace(text)
}

// shortened is the beginning of a text, at most so many bytes and a mark that there is more.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " …"
}

func orNil(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
