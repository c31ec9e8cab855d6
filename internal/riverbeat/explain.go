package riverbeat

import (
	"fmt"
	"strings"
	"time"
)

// Verdict is the stable name of why there was, or was not, a run of a schedule
// at a time. Where there was one, it is how far the run has come: the name of
// its state, or QueueFull and InvalidParams.
type Verdict string

// The verdicts beside the states of runs.
const (
	VerdictQueueFull     Verdict = "queue_full"     // skipped: the line was full
	VerdictInvalidParams Verdict = "invalid_params" // failed before it began

	VerdictMissed Verdict = "missed" // in a gap of ticks that were not run

	VerdictUpcoming Verdict = "upcoming" // it will run then
	VerdictDue      Verdict = "due"      // about to be decided
	VerdictPaused   Verdict = "paused"   // due, and held by a pause
	VerdictStopped  Verdict = "stopped"  // the schedule's clock does not tick

	VerdictNotATick   Verdict = "not_a_tick"   // the expression does not tick then
	VerdictMoved      Verdict = "moved"        // clocks skipped that time; the tick is elsewhere
	VerdictSecondPass Verdict = "second_pass"  // clocks showed that time before; the tick was then
	VerdictNoSuchTime Verdict = "no_such_time" // clocks skipped that time; there is no tick for it

	VerdictBeforeCreation Verdict = "before_creation"
	VerdictDeleted        Verdict = "deleted"
	VerdictDisabled       Verdict = "disabled"
	VerdictBeforeStart    Verdict = "before_start"
	VerdictAfterEnd       Verdict = "after_end"

	VerdictForgotten   Verdict = "forgotten"   // what was recorded of that time is gone
	VerdictUnknown     Verdict = "unknown"     // nobody knows what was in force, or can read it
	VerdictUnaccounted Verdict = "unaccounted" // a tick without a record, which must not be
)

// Verdicts are all of them.
func Verdicts() []Verdict {
	return []Verdict{
		Verdict(Waiting), Verdict(Queued), Verdict(Running), Verdict(Retrying),
		Verdict(Succeeded), Verdict(Failed), Verdict(Cancelled), Verdict(Skipped),
		VerdictQueueFull, VerdictInvalidParams, VerdictMissed,
		VerdictUpcoming, VerdictDue, VerdictPaused, VerdictStopped,
		VerdictNotATick, VerdictMoved, VerdictSecondPass, VerdictNoSuchTime,
		VerdictBeforeCreation, VerdictDeleted, VerdictDisabled, VerdictBeforeStart, VerdictAfterEnd,
		VerdictForgotten, VerdictUnknown, VerdictUnaccounted,
	}
}

// Question is a time of a schedule, and all that is known about it.
type Question struct {
	At, Now time.Time

	// Version is what was in force at At; if nothing was, the last one before
	// it, or else the first one. Nil: none is known.
	Version *ScheduleVersion
	// Clock is the schedule's; nil: there is no such schedule any more.
	Clock *ClockState
	// Paused is the pause that lasts now; nil: none does.
	Paused *Pause

	// What follows is known of TickAt().

	Runs []*Run // of that nominal time, that of its tick first; no gap
	Gap  *Run   // the gap around it, or that ends there; nil: none
	// BlockedBy is the run that the first of Runs was skipped behind, or waits
	// behind; Ahead is how many wait in the line before it.
	BlockedBy *Run
	Ahead     int
	Pause     *Pause // that covers it; nil: none
	Forgotten bool   // what was recorded of that time is kept no more
}

// ClockState is how far the clock of a schedule has come.
type ClockState struct {
	Mark      time.Time  // no tick at or before it is ever decided again
	NextRunAt *time.Time // nil: it does not tick
	RetryAt   *time.Time // when a stopped one is tried again; nil: it is not stopped
	LastError string     // why it is stopped
}

// upcomingTicks is how many ticks after an upcoming one are told.
const upcomingTicks = 3

// Explanation answers a Question.
type Explanation struct {
	*Question
	Verdict Verdict
	Text    string // for people, a sentence or more; times are in the zone of the schedule

	// Recurrence is the one in force at At; nil: there was none, or it cannot be
	// read any more.
	Recurrence *Recurrence
	// Nominal: the recurrence ticks at At. Whether the schedule was enabled, and
	// its StartsAt and EndsAt, are another matter.
	Nominal bool
	// Tick is At, or the tick that stands for it when clocks changed.
	Tick time.Time
	// Before and After are the ticks nearest to At, by what was in force then;
	// nil: there is none.
	Before, After *time.Time
	Next          []time.Time    // some ticks after an upcoming one
	Lateness      *time.Duration // from the nominal time of the first run to its start; nil for a backfill

	location *time.Location
	shift    *Shift
}

// TickAt is the time at which runs and gaps are looked for: At, or the tick that
// stands for it when clocks changed.
func (q *Question) TickAt() time.Time {
	if r := q.recurrence(); r != nil {
		if shift, ok := r.Shifted(q.At); ok && shift.Tick != nil {
			return *shift.Tick
		}
	}
	return q.At
}

func (q *Question) recurrence() *Recurrence {
	if q.Version == nil {
		return nil
	}
	r, err := ParseRecurrence(q.Version.CronExpression, q.Version.Timezone)
	if err != nil {
		return nil
	}
	return r
}

// Explain says why there was, or was not, a run.
func (q *Question) Explain() *Explanation {
	e := &Explanation{Question: q, Tick: q.At, Recurrence: q.recurrence(), location: time.UTC}
	if v := q.Version; v != nil {
		if location, err := loadZone(v.Timezone); err == nil {
			e.location = location
		}
	}
	if r := e.Recurrence; r != nil {
		e.Nominal = r.IsTick(q.At)
		if shift, ok := r.Shifted(q.At); ok {
			e.shift = &shift
			if shift.Tick != nil {
				e.Tick = *shift.Tick
			}
		}
		e.Before, e.After = e.nearest(r)
	}
	if len(q.Runs) > 0 && q.Runs[0].StartedAt != nil && q.Runs[0].Trigger != TriggerBackfill {
		late := q.Runs[0].StartedAt.Sub(q.Runs[0].ScheduledFor)
		e.Lateness = &late
	}
	e.Verdict, e.Text = e.judge()
	return e
}

// nearest are the ticks before and after At, if they lie where the version was
// not yet gone, or not yet there.
func (e *Explanation) nearest(r *Recurrence) (before, after *time.Time) {
	v := e.Version
	if e.exists() == "" {
		last, ok := r.Prev(v.until(e.At.Add(-1)))
		if ok && (v.StartsAt == nil || !last.Before(*v.StartsAt)) {
			before = &last
		}
		return before, v.NextTick(r, e.At)
	}
	if v.ValidUntil != nil && e.At.After(*v.ValidUntil) {
		last, ok := r.Prev(v.until(*v.ValidUntil))
		if ok && last.After(v.after(v.ValidFrom)) {
			before = &last
		}
		return before, nil
	}
	return nil, v.NextTick(r, v.ValidFrom)
}

// judge goes from what is recorded to what would have had to be.
func (e *Explanation) judge() (Verdict, string) {
	// Of a recurrence that cannot be read, a gap is all that is known.
	ticks := e.Nominal || !e.Tick.Equal(e.At) || e.Recurrence == nil
	switch {
	case len(e.Runs) > 0:
		return e.shifted(e.ofRun(e.Runs[0]))
	case e.Gap != nil && ticks:
		return e.shifted(VerdictMissed, join("It was not run.", e.ofGap(), e.ofPause()))
	}
	if verdict := e.exists(); verdict != "" {
		return verdict, e.ofAbsence(verdict)
	}
	if verdict, text := e.ofDefinition(); verdict != "" {
		return verdict, text
	}
	switch {
	case e.Tick.After(e.Now):
		return e.shifted(e.ofFuture())
	case e.Clock != nil && e.Tick.After(e.Clock.Mark):
		return e.shifted(e.ofUndecided())
	case e.Forgotten:
		return VerdictForgotten, "What was recorded of that time is kept no more."
	default:
		return VerdictUnaccounted, "Nothing is recorded of this tick, which must not be: 'riverbeat doctor' looks into it. " +
			"A change in the database that went past the API may be the cause."
	}
}

// exists is "" if the schedule had a definition at At that is known.
func (e *Explanation) exists() Verdict {
	v := e.Version
	switch {
	case v == nil:
		return VerdictUnknown
	case v.ValidUntil != nil && e.At.After(*v.ValidUntil):
		return VerdictDeleted
	case !e.At.After(v.ValidFrom) && v.Version > 1:
		return VerdictUnknown
	case !e.At.After(v.ValidFrom):
		return VerdictBeforeCreation
	default:
		return ""
	}
}

func (e *Explanation) ofAbsence(verdict Verdict) string {
	switch verdict {
	case VerdictDeleted:
		return fmt.Sprintf("The schedule was deleted at %s.", e.show(*e.Version.ValidUntil))
	case VerdictBeforeCreation:
		return fmt.Sprintf("The schedule did not exist then; it was created at %s.", e.show(e.Version.ValidFrom))
	default:
		if e.Version == nil {
			return "Nobody knows how the schedule was defined then."
		}
		return fmt.Sprintf("Nobody knows how the schedule was defined then: its history begins with version %d, at %s.",
			e.Version.Version, e.show(e.Version.ValidFrom))
	}
}

// ofDefinition says why, by the definition in force, there is no tick at all;
// "" if there is one.
func (e *Explanation) ofDefinition() (Verdict, string) {
	v := e.Version
	switch {
	case !v.Enabled:
		until := "since"
		if v.ValidUntil != nil {
			until = "from " + e.show(v.ValidFrom) + " to " + e.show(*v.ValidUntil)
		} else {
			until += " " + e.show(v.ValidFrom)
		}
		return VerdictDisabled, fmt.Sprintf("The schedule %s disabled at that time: version %d, in force %s.", e.was(), v.Version, until)
	case v.StartsAt != nil && e.At.Before(*v.StartsAt):
		return VerdictBeforeStart, fmt.Sprintf("The schedule has no ticks before its starts_at, %s.", e.show(*v.StartsAt))
	case v.EndsAt != nil && e.At.After(*v.EndsAt):
		return VerdictAfterEnd, fmt.Sprintf("The schedule has no ticks after its ends_at, %s.", e.show(*v.EndsAt))
	case e.Recurrence == nil && e.Clock != nil && e.Clock.NextRunAt == nil && e.At.After(e.Clock.Mark):
		return e.ofStopped()
	case e.Recurrence == nil:
		return VerdictUnknown, fmt.Sprintf("Nobody knows whether the schedule ticks then: %q in %q cannot be read any more.", v.CronExpression, v.Timezone)
	case e.shift != nil && e.shift.Tick == nil:
		return VerdictNoSuchTime, fmt.Sprintf("%s does not exist in %s, where clocks were put forward, and %q has no tick in its stead: %s.",
			e.shift.Wall, v.Timezone, v.CronExpression, e.whyNotMoved())
	case !e.Nominal && e.shift == nil:
		return VerdictNotATick, fmt.Sprintf("%q in %s does not tick at %s. %s", v.CronExpression, v.Timezone, e.show(e.At), e.ofNearest())
	default:
		return "", ""
	}
}

func (e *Explanation) whyNotMoved() string {
	if e.Recurrence.fixed {
		return "the whole day was left out"
	}
	return "its minute or hour begins with *, so it follows elapsed time"
}

func (e *Explanation) ofNearest() string {
	switch {
	case e.Before != nil && e.After != nil:
		return fmt.Sprintf("The ticks nearest to it are %s and %s.", e.show(*e.Before), e.show(*e.After))
	case e.Before != nil:
		return fmt.Sprintf("Its last tick is %s.", e.show(*e.Before))
	case e.After != nil:
		return fmt.Sprintf("Its first tick is %s.", e.show(*e.After))
	default:
		return "It has no tick at all."
	}
}

// shifted puts in front that clocks changed, if the tick is elsewhere for that.
func (e *Explanation) shifted(verdict Verdict, text string) (Verdict, string) {
	if e.shift == nil || e.shift.Tick == nil {
		return verdict, text
	}
	if e.shift.Repeated {
		return VerdictSecondPass, join(fmt.Sprintf(
			"Clocks in %s show %s twice; a fixed time ticks in the first pass only, at %s.",
			e.Version.Timezone, e.shift.Wall, e.show(e.Tick)), text)
	}
	return VerdictMoved, join(fmt.Sprintf(
		"%s does not exist in %s, where clocks were put forward; its tick is moved to %s.",
		e.shift.Wall, e.Version.Timezone, e.show(e.Tick)), text)
}

func (e *Explanation) ofFuture() (Verdict, string) {
	if e.Clock == nil || e.Clock.NextRunAt == nil {
		return e.ofStopped()
	}
	at := e.Tick
	for range upcomingTicks {
		next := e.Version.NextTick(e.Recurrence, at)
		if next == nil {
			break
		}
		e.Next, at = append(e.Next, *next), *next
	}
	text := fmt.Sprintf("It will run at %s, %s, if nothing is changed until then.", e.show(e.Tick), policyWords[e.Version.ExecutionPolicy])
	if e.Version.Shadow {
		text = fmt.Sprintf("It will be recorded at %s and not run: the schedule is in shadow.", e.show(e.Tick))
	}
	if e.Paused != nil {
		text = join(text, e.ofPaused(), "It must be resumed by then.")
	}
	return VerdictUpcoming, text
}

var policyWords = map[Policy]string{
	Allow: "whatever else runs (policy allow)",
	Skip:  "unless a run of the same task and arguments is unfinished then (policy skip)",
	Queue: "behind what is unfinished of the same task and arguments (policy queue)",
}

// ofUndecided is about a tick that is due, and that no claim has come to.
func (e *Explanation) ofUndecided() (Verdict, string) {
	c := e.Clock
	switch {
	case e.Paused != nil:
		return VerdictPaused, join("It is due and held.", e.ofPaused(), fmt.Sprintf(
			"On resuming it runs if it is at most %s old; if it is older, %s.", span(OnTime), e.catchUpWords()))
	case c.NextRunAt == nil:
		return e.ofStopped()
	case c.NextRunAt.After(e.Now):
		return VerdictDue, fmt.Sprintf("It is due, and will be decided with the tick at %s.", e.show(*c.NextRunAt))
	default:
		return VerdictDue, fmt.Sprintf("It has been due for %s and is about to be decided; that takes longer than a second only if no node works.",
			span(e.Now.Sub(e.Tick)))
	}
}

func (e *Explanation) ofStopped() (Verdict, string) {
	c := e.Clock
	switch {
	case c == nil || c.RetryAt == nil:
		return VerdictStopped, "The schedule's clock does not tick. Change the schedule, or disable and enable it, to start it."
	case c.LastError == "":
		return VerdictStopped, fmt.Sprintf("The schedule's clock is stopped. It is tried again at %s and at each change of the schedule.", e.show(*c.RetryAt))
	default:
		return VerdictStopped, fmt.Sprintf("The schedule is stopped: %s It is tried again at %s and at each change; what it misses until then is caught up with or recorded as a gap.",
			sentence(c.LastError), e.show(*c.RetryAt))
	}
}

// ofRun says what became of a run.
func (e *Explanation) ofRun(r *Run) (Verdict, string) {
	verdict := Verdict(r.State)
	switch {
	case r.State == Skipped && r.Reason == QueueFull:
		verdict = VerdictQueueFull
	case r.State == Failed && r.Reason == InvalidParams:
		verdict = VerdictInvalidParams
	}
	text := join(e.ofTrigger(r), e.ofState(r), e.ofLostLives(r))
	if len(e.Runs) > 1 {
		text = join(text, fmt.Sprintf("It is one of %d runs of this time.", len(e.Runs)))
	}
	if e.Gap != nil {
		text = join(text, "The tick itself was missed.", e.ofGap())
	}
	return verdict, text
}

// ofTrigger says what asked for a run that is no tick on time.
func (e *Explanation) ofTrigger(r *Run) string {
	by := ""
	if r.RequestedBy != "" {
		by = " by " + r.RequestedBy
	}
	switch r.Trigger {
	case TriggerManual:
		return fmt.Sprintf("This run was asked for%s.", by)
	case TriggerBackfill:
		return fmt.Sprintf("This run was asked for%s, as part of a backfill.", by)
	case TriggerCatchUp:
		return join("The tick was decided late, and caught up with.", e.ofPause())
	default:
		return e.ofPause()
	}
}

func (e *Explanation) ofState(r *Run) string {
	switch r.State {
	case Waiting:
		return e.ofWaiting(r)
	case Queued:
		if r.Reason == NoWorker {
			return fmt.Sprintf("It is queued: no node that lives knows the task %s.", r.TaskName)
		}
		if r.Reason == NoSlot {
			return fmt.Sprintf("It is queued%s: as many runs of %s execute as may at once (max_concurrency), and it is not its turn yet.", e.since(r.EnqueuedAt), r.TaskName)
		}
		return fmt.Sprintf("It is queued%s and waits for a worker.", e.since(r.EnqueuedAt))
	case Running:
		text := fmt.Sprintf("It runs: %s, attempt %d of %d.", e.started(r), r.Attempt, r.MaxAttempts)
		if r.CancelRequestedAt != nil {
			text = join(text, fmt.Sprintf("It was asked to stop at %s.", e.show(*r.CancelRequestedAt)))
		}
		return text
	case Retrying:
		return fmt.Sprintf("It %s; attempt %d of %d ended without success, and another one follows.", e.started(r), r.Attempt, r.MaxAttempts)
	case Succeeded:
		return fmt.Sprintf("It ran: %s, and succeeded%s.", e.started(r), e.took(r))
	case Failed:
		return e.ofFailed(r)
	case Cancelled:
		return e.ofCancelled(r)
	case Skipped:
		return e.ofSkipped(r)
	case Missed:
	}
	return ""
}

func (e *Explanation) ofWaiting(r *Run) string {
	text := "It waits in line"
	switch {
	case e.BlockedBy != nil && e.Ahead > 0:
		text += fmt.Sprintf(" behind %s, which %s, and %d more", e.name(e.BlockedBy), e.fate(e.BlockedBy), e.Ahead)
	case e.BlockedBy != nil:
		text += fmt.Sprintf(" behind %s, which %s", e.name(e.BlockedBy), e.fate(e.BlockedBy))
	case e.Ahead > 0:
		text += fmt.Sprintf(" behind %d more", e.Ahead)
	default:
		return text + ", and is next."
	}
	if r.Trigger == TriggerCatchUp && !r.ExecutionPolicy.Keyed() {
		return text + ": what is caught up with runs one after another."
	}
	return text + ": they have the same task and arguments (policy queue)."
}

func (e *Explanation) ofSkipped(r *Run) string {
	behind := "a run of the same task and arguments"
	switch {
	case e.BlockedBy != nil:
		behind = fmt.Sprintf("%s, which %s", e.name(e.BlockedBy), e.fate(e.BlockedBy))
	case r.BlockedBy != nil:
		behind = fmt.Sprintf("run %s, of which no record is kept", r.BlockedBy)
	}
	switch r.Reason {
	case InShadow:
		return "It was recorded and not run: the schedule was in shadow."
	case QueueFull:
		return fmt.Sprintf("It was skipped, because its line was full (max_waiting), behind %s.", behind)
	case AlreadyRunning:
		return fmt.Sprintf("It was skipped, because another was running (policy skip): %s.", behind)
	case RetryPending:
		return fmt.Sprintf("It was skipped, because another was between two attempts (policy skip): %s.", behind)
	default:
		return fmt.Sprintf("It was skipped, because another was queued (policy skip): %s.", behind)
	}
}

func (e *Explanation) ofFailed(r *Run) string {
	switch {
	case r.Reason == InvalidParams:
		return fmt.Sprintf("It failed without being started: its parameters break the schema that the task %s had.", r.TaskName)
	case r.Reason == WorkerLost:
		return fmt.Sprintf("It failed%s, because it lost its node too often.", e.on(r.FinishedAt))
	case r.StartedAt == nil:
		return fmt.Sprintf("It failed%s without being started.", e.on(r.FinishedAt))
	}
	return fmt.Sprintf("It ran and failed: %s, and failed%s at attempt %d of %d.", e.started(r), e.took(r), r.Attempt, r.MaxAttempts)
}

func (e *Explanation) ofCancelled(r *Run) string {
	text := fmt.Sprintf("It was cancelled%s", e.on(r.FinishedAt))
	if r.StartedAt != nil {
		text = fmt.Sprintf("It %s, and was cancelled%s", e.started(r), e.took(r))
	}
	switch r.Reason {
	case ScheduleDisabled:
		return text + ", in line, when the schedule was disabled."
	case ScheduleDeleted:
		return text + ", in line, when the schedule was deleted."
	case JobDeleted:
		return text + ": its job was deleted in River."
	case CancelledByUser:
		return text + " on request."
	default:
		return text + "."
	}
}

func (e *Explanation) ofLostLives(r *Run) string {
	if r.Lives == 0 && len(r.LostLives) == 0 {
		return ""
	}
	var texts []string
	for _, life := range r.LostLives {
		texts = append(texts, fmt.Sprintf("It lost its node %s at %s.", life.Node, e.show(life.LostAt)))
	}
	if len(texts) == 0 {
		texts = append(texts, fmt.Sprintf("It lost its node %s.", howOften(r.Lives)))
	}
	if r.Node != "" && r.Reason != WorkerLost && (len(r.LostLives) == 0 || r.LostLives[len(r.LostLives)-1].Node != r.Node) {
		texts = append(texts, fmt.Sprintf("It went on at node %s.", r.Node))
	}
	return join(texts...)
}

// ofGap says how large the gap is, and why it is one.
func (e *Explanation) ofGap() string {
	gap := e.Gap
	text, subject := "It lies in a gap of ", "they were"
	switch n := gap.MissedCount; {
	case n == nil && e.Recurrence == nil:
		text += "ticks that nobody can count"
	case n == nil:
		text += fmt.Sprintf("more than %d ticks", MaxGapCount)
	case *n == 1:
		text, subject = "It is a gap by itself", "it was"
	default:
		text += fmt.Sprintf("%d ticks", *n)
	}
	if subject != "it was" && gap.MissedFrom != nil && gap.MissedUntil != nil {
		text += fmt.Sprintf(", from %s to %s", e.show(*gap.MissedFrom), e.show(*gap.MissedUntil))
	}
	if gap.FinishedAt != nil {
		text += fmt.Sprintf(", recorded at %s", e.show(*gap.FinishedAt))
	}
	switch gap.Reason {
	case Superseded:
		return text + fmt.Sprintf(": %s passed over for newer ones.", subject)
	case Paused:
		return text + ": the schedule was changed during a pause, in which nothing may run."
	default:
		return text + fmt.Sprintf(": %s decided too late to be caught up with%s.", subject, e.catchUp())
	}
}

// catchUp says how the schedule caught up.
func (e *Explanation) catchUp() string {
	if e.exists() != "" {
		return ""
	}
	v := e.Version
	if v.CatchUp == CatchUpNone {
		return " (catch_up none)"
	}
	return fmt.Sprintf(" (catch_up %s within %s)", v.CatchUp, span(v.CatchUpWindow))
}

// catchUpWords say what becomes of ticks that are too old to be on time.
func (e *Explanation) catchUpWords() string {
	v := e.Version
	switch v.CatchUp {
	case CatchUpNone:
		return "it is recorded as missed (catch_up none)"
	case CatchUpAll:
		return fmt.Sprintf("it is caught up with within %s (catch_up all)", span(v.CatchUpWindow))
	default:
		return fmt.Sprintf("only the newest within %s is caught up with (catch_up latest)", span(v.CatchUpWindow))
	}
}

// ofPause says that the tick fell into a pause.
func (e *Explanation) ofPause() string {
	p := e.Pause
	switch {
	case p == nil:
		return ""
	case p.ResumedAt == nil:
		return e.ofPaused()
	default:
		return fmt.Sprintf("The installation was paused then, from %s to %s%s%s", e.show(p.PausedAt), e.show(*p.ResumedAt), byWhom(p.PausedBy), because(p.Reason))
	}
}

// ofPaused says that there is a pause now.
func (e *Explanation) ofPaused() string {
	p := e.Paused
	if p == nil {
		p = e.Pause
	}
	return fmt.Sprintf("The installation is paused since %s%s%s", e.show(p.PausedAt), byWhom(p.PausedBy), because(p.Reason))
}

// name tells a run from others.
func (e *Explanation) name(r *Run) string {
	text := "the run of " + e.show(r.ScheduledFor)
	if v := e.Version; r.ScheduleID != nil && v != nil && *r.ScheduleID != v.ID {
		text += fmt.Sprintf(" of the schedule %q", r.ScheduleName)
	}
	return text
}

// fate continues "the run, which".
func (e *Explanation) fate(r *Run) string {
	switch r.State {
	case Waiting:
		return "waits in line"
	case Queued:
		return "is queued"
	case Running:
		return "is running" + e.since(r.StartedAt)
	case Retrying:
		return "waits for its next attempt"
	case Succeeded, Failed, Cancelled:
		if r.StartedAt == nil {
			return string(r.State) + e.on(r.FinishedAt)
		}
		verb := map[State]string{Succeeded: "succeeded", Failed: "failed", Cancelled: "was cancelled"}[r.State]
		return fmt.Sprintf("started at %s and %s%s", e.show(*r.StartedAt), verb, e.on(r.FinishedAt))
	default:
		return "is " + string(r.State)
	}
}

// started continues "It".
func (e *Explanation) started(r *Run) string {
	if r.StartedAt == nil {
		return "was not started"
	}
	text := "started at " + e.show(*r.StartedAt)
	if late := r.StartedAt.Sub(r.ScheduledFor); r.Trigger != TriggerBackfill && late >= 0 {
		text += fmt.Sprintf(", %s after its time", span(late))
	}
	return text
}

func (e *Explanation) took(r *Run) string {
	if r.StartedAt == nil || r.FinishedAt == nil {
		return e.on(r.FinishedAt)
	}
	return " after " + span(r.FinishedAt.Sub(*r.StartedAt))
}

func (e *Explanation) since(t *time.Time) string {
	if t == nil {
		return ""
	}
	return " since " + e.show(*t)
}

func (e *Explanation) on(t *time.Time) string {
	if t == nil {
		return ""
	}
	return " at " + e.show(*t)
}

func (e *Explanation) was() string {
	if e.At.After(e.Now) {
		return "is"
	}
	return "was"
}

// show writes a time as clocks show it in the zone of the schedule, with the
// offset, which tells the passes of a repeated hour apart.
func (e *Explanation) show(t time.Time) string {
	layout := "2006-01-02 15:04 -07:00"
	switch {
	case t.Nanosecond() >= int(time.Millisecond):
		layout = "2006-01-02 15:04:05.000 -07:00"
	case t.Second() != 0:
		layout = "2006-01-02 15:04:05 -07:00"
	}
	return t.In(e.location).Format(layout)
}

// span writes a duration as precisely as people want it.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		d = d.Round(time.Millisecond)
	default:
		d = d.Round(time.Second)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func howOften(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func byWhom(who string) string {
	if who == "" {
		return ""
	}
	return " by " + who
}

// because ends a sentence with a reason that somebody gave.
func because(reason string) string {
	if reason == "" {
		return "."
	}
	return ": " + sentence(reason)
}

// sentence is a text on one line that ends like a sentence.
func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" || strings.ContainsAny(text[len(text)-1:], ".!?") {
		return text
	}
	return text + "."
}

// join joins sentences.
func join(sentences ...string) string {
	var given []string
	for _, s := range sentences {
		if s != "" {
			given = append(given, s)
		}
	}
	return strings.Join(given, " ")
}
