package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// The bounds that are judged by.
const (
	// waitLimit is how long anything may wait for what it could have.
	waitLimit = 15 * time.Second
	// decideLimit is how late a tick may be decided while a node is unharmed.
	decideLimit = 5 * time.Second
	// sessionLimit is when a frozen node may have lost its session: it ends 5 s
	// after the last beat, and beats come once a second.
	sessionLimit = 3500 * time.Millisecond
	// wakeLimit is how long a node that wakes up may need to stop its runs.
	wakeLimit = 3 * time.Second
	// clockLimit is how far the log of executions and the ledger may be apart.
	clockLimit = 50 * time.Millisecond
	// commitLimit is how long after its statements a transaction may commit.
	commitLimit = time.Second
	// startLimit is how long a process may need to start.
	startLimit = 5 * time.Second
	// onTime is how old a tick must be before it may be missed.
	onTime = 60 * time.Second
	// maxLives is how many times a run may be lost with its process.
	maxLives = 3
	// aftermath is how long a fault may be the cause of something.
	aftermath = 15 * time.Second
)

// Violation is a broken promise.
type Violation struct {
	Check string
	Text  string
	At    time.Time
	// Whom it concerns, for the timeline.
	Key, ScheduleID, RunID string
}

// The checks.
const (
	CheckLedger   = "ledger"   // each tick is accounted for exactly once
	CheckVersion  = "version"  // by the schedule as it was at that time
	CheckLate     = "late"     // and in time
	CheckSkip     = "skip"     // who was skipped or missed had to be
	CheckExecuted = "executed" // succeeded means executed; once, if nothing interfered
	CheckEnd      = "end"      // a run ends as it should
	CheckOverlap  = "overlap"  // no two executions of a key or run at a time
	CheckKey      = "key"      // a key is held by one run at a time, from its queueing to its end
	CheckOrder    = "order"    // nobody in line is overtaken
	CheckWait     = "wait"     // nobody waits for what is free
	CheckAgree    = "agree"    // runs and river_job agree
)

// Verdict is what the oracle says.
type Verdict struct {
	Violations []Violation
	Excused    []string        // overlaps of zombies whose results were refused
	Recoveries []time.Duration // from kill -9 to the new start, whatever else went wrong
	Ticks      int
}

// Judge holds the evidence against the promises.
func Judge(ev *Evidence) (*Verdict, error) {
	ticks, err := nominal(ev)
	if err != nil {
		return nil, err
	}
	j := &judge{ev: ev, ticks: ticks, verdict: &Verdict{Ticks: len(ticks)}}
	j.index()
	j.ledger()
	j.skips()
	j.executed()
	j.ends()
	j.overlaps()
	j.keys()
	j.order()
	j.waits()
	j.agreement()
	slices.SortStableFunc(j.verdict.Violations, func(a, b Violation) int { return a.At.Compare(b.At) })
	return j.verdict, nil
}

type judge struct {
	ev      *Evidence
	ticks   map[tick]*expectation
	verdict *Verdict

	runs       map[string]*Run
	moves      map[string][]Move // of a run
	executions map[string][]*Execution
	byKey      map[string][]*Execution
	processes  map[int]*Process
}

func (j *judge) index() {
	j.runs, j.moves = map[string]*Run{}, map[string][]Move{}
	j.executions, j.byKey = map[string][]*Execution{}, map[string][]*Execution{}
	j.processes = map[int]*Process{}
	for i := range j.ev.Runs {
		j.runs[j.ev.Runs[i].ID] = &j.ev.Runs[i]
	}
	for _, m := range j.ev.Moves {
		j.moves[m.RunID] = append(j.moves[m.RunID], m)
	}
	for i := range j.ev.Processes {
		j.processes[j.ev.Processes[i].PID] = &j.ev.Processes[i]
	}
	for i := range j.ev.Executions {
		e := &j.ev.Executions[i]
		j.executions[e.RunID] = append(j.executions[e.RunID], e)
		if e.Key != "" {
			j.byKey[e.Key] = append(j.byKey[e.Key], e)
		}
	}
}

func (j *judge) find(check string, at time.Time, r *Run, format string, args ...any) {
	v := Violation{Check: check, At: at, Text: fmt.Sprintf(format, args...)}
	if r != nil {
		v.Key, v.ScheduleID, v.RunID = r.Key, r.ScheduleID, r.ID
	}
	j.verdict.Violations = append(j.verdict.Violations, v)
}

// ledger: each nominal tick is in runs exactly once, and nothing else is.
func (j *judge) ledger() {
	accounted := map[tick][]string{}
	for i := range j.ev.Runs {
		r := &j.ev.Runs[i]
		if r.Trigger != "schedule" && r.Trigger != "catch_up" {
			continue
		}
		if r.State == "missed" {
			n := 0
			for at := r.MissedFrom.Unix(); at <= r.MissedUntil.Unix(); at++ {
				if t := (tick{r.ScheduleID, at}); j.ticks[t] != nil {
					n++
					accounted[t] = append(accounted[t], "gap "+r.ID)
				}
			}
			if r.MissedCount == nil || *r.MissedCount != n {
				j.find(CheckLedger, r.ScheduledFor, r, "a gap says it has %v ticks; there are %d", r.MissedCount, n)
			}
			continue
		}
		t := tick{r.ScheduleID, r.ScheduledFor.Unix()}
		e := j.ticks[t]
		if e == nil || r.ScheduledFor.Nanosecond() != 0 {
			j.find(CheckLedger, r.ScheduledFor, r, "run %s stands for %s, which is no tick of %s", r.ID, clock(r.ScheduledFor), r.ScheduleName)
			continue
		}
		accounted[t] = append(accounted[t], r.ID)
		if !slices.Contains(e.versions, r.ScheduleVersion) {
			j.find(CheckVersion, r.ScheduledFor, r, "the tick of %s was decided by version %d of %s; versions then: %v",
				clock(r.ScheduledFor), r.ScheduleVersion, r.ScheduleName, e.versions)
		} else if v := j.version(r.ScheduleID, r.ScheduleVersion); v.Params != r.Params || v.Policy != r.Policy {
			j.find(CheckVersion, r.ScheduledFor, r, "run %s has other parameters or another policy than version %d of %s", r.ID, v.Number, r.ScheduleName)
		}
		j.late(r)
	}
	for t, e := range j.ticks {
		at := time.Unix(t.at, 0)
		switch ids := accounted[t]; {
		case len(ids) == 0 && e.must:
			v := Violation{Check: CheckLedger, At: at, ScheduleID: t.schedule}
			v.Text = fmt.Sprintf("the tick of %s of schedule %s is lost", clock(at), t.schedule)
			j.verdict.Violations = append(j.verdict.Violations, v)
		case len(ids) > 1:
			j.find(CheckLedger, at, j.runs[ids[0]], "the tick of %s is there %d times: %v", clock(at), len(ids), ids)
		}
	}
	for _, id := range j.ev.Requested {
		if j.runs[id] == nil {
			j.find(CheckLedger, j.ev.Judged, nil, "run %s was promised on request, and is not there", id)
		}
	}
}

func (j *judge) version(schedule string, number int) Version {
	for _, v := range j.ev.Versions {
		if v.ScheduleID == schedule && v.Number == number {
			return v
		}
	}
	return Version{}
}

// late: while one node was unharmed, and nobody could hold the clock, a tick is
// decided within seconds.
func (j *judge) late(r *Run) {
	moves := j.moves[r.ID]
	if len(moves) == 0 {
		return
	}
	from, until := r.ScheduledFor.Add(-aftermath), r.ScheduledFor.Add(decideLimit)
	if moves[0].At.Before(until) {
		return
	}
	if j.hampered(from, until) {
		return
	}
	// Whoever was told nonsense tries again.
	there := slices.ContainsFunc(j.ev.Processes, func(p Process) bool {
		return p.From.Before(r.ScheduledFor.Add(-startLimit)) && (p.To.IsZero() || p.To.After(until)) &&
			!slices.ContainsFunc(j.ev.Faults, func(f Fault) bool { return f.PID == p.PID && f.Kind == Stop && during(f, from, until) })
	})
	if there {
		j.find(CheckLate, r.ScheduledFor, r, "the tick of %s was decided %s late, and a node was there to do it",
			clock(r.ScheduledFor), moves[0].At.Sub(r.ScheduledFor).Round(time.Millisecond))
	}
}

// hampered tells whether somebody may have held locks for long in a time, or
// been late with a commit.
func (j *judge) hampered(from, until time.Time) bool {
	return slices.ContainsFunc(j.ev.Faults, func(f Fault) bool {
		return during(f, from, until) && (f.Kind == Database || f.Kind == Freeze || f.Kind == CutOff || f.Kind == Slow)
	})
}

// unharmed tells whether a process lived through all of a time, and nothing was
// done to it.
func (j *judge) unharmed(from, until time.Time) bool {
	return slices.ContainsFunc(j.ev.Processes, func(p Process) bool {
		return p.From.Before(from) && (p.To.IsZero() || p.To.After(until)) && !j.befell(p.PID, from, until)
	})
}

// befell tells whether a process may have been hampered in a time.
func (j *judge) befell(pid int, from, until time.Time) bool {
	return slices.ContainsFunc(j.ev.Faults, func(f Fault) bool {
		return (f.PID == pid || f.Kind == Database) && f.Kind != Deaf && f.Kind != Touch && f.Kind != Edit && during(f, from, until)
	})
}

func during(f Fault, from, until time.Time) bool {
	return !f.From.After(until) && !f.To.Before(from)
}

// skips: who did not run had to stand back.
func (j *judge) skips() {
	for i := range j.ev.Runs {
		r := &j.ev.Runs[i]
		moves := j.moves[r.ID]
		if len(moves) == 0 {
			j.find(CheckLedger, r.ScheduledFor, r, "run %s was never seen to be written", r.ID)
			continue
		}
		first := moves[0]
		switch r.State {
		case "missed":
			if age := first.At.Sub(r.MissedUntil); age < onTime {
				j.find(CheckSkip, r.ScheduledFor, r, "a tick was missed that was %s old", age.Round(time.Millisecond))
			}
		case "skipped":
			blocker := j.runs[r.BlockedBy]
			switch {
			case r.Policy == "allow":
				j.find(CheckSkip, r.ScheduledFor, r, "run %s may overlap, and was skipped", r.ID)
			case r.Policy == "queue" && r.Reason != "queue_full":
				j.find(CheckSkip, r.ScheduledFor, r, "run %s may wait, and was skipped as %s", r.ID, r.Reason)
			case blocker == nil || blocker.Key != r.Key:
				j.find(CheckSkip, r.ScheduledFor, r, "run %s was skipped behind %q, which is no run of its key", r.ID, r.BlockedBy)
			case j.ended(blocker.ID).Add(commitLimit).Before(first.Began) && !j.hampered(j.ended(blocker.ID), first.Began),
				j.moves[blocker.ID][0].At.After(first.At):
				j.find(CheckSkip, first.At, r, "run %s was skipped behind %s, which was over or not there yet", r.ID, blocker.ID)
			}
		}
	}
}

// ended is when a run came to its end: far away, if it has not.
func (j *judge) ended(id string) time.Time {
	moves := j.moves[id]
	if last := moves[len(moves)-1]; isEnd(last.State) {
		return last.At
	}
	return j.ev.Judged.AddDate(1, 0, 0)
}

func isEnd(state string) bool {
	switch state {
	case "waiting", "queued", "running", "retrying":
		return false
	}
	return true
}

// executed: what has succeeded was executed, and its result is of an execution
// that came to its end. An execution was repeated only for a reason.
func (j *judge) executed() {
	for id, all := range j.executions {
		r := j.runs[id]
		if r == nil {
			j.find(CheckExecuted, all[0].Start, nil, "run %s was executed, and is not in the ledger", id)
			continue
		}
		if r.Key != all[0].Key {
			j.find(CheckExecuted, all[0].Start, r, "run %s was executed with other arguments than it has", id)
		}
		for _, e := range all {
			if e.Attempt < 1 || e.Attempt > r.MaxAttempts {
				j.find(CheckExecuted, e.Start, r, "execution %d of run %s was attempt %d of %d", e.Number, id, e.Attempt, r.MaxAttempts)
			}
			started := slices.ContainsFunc(j.moves[id], func(m Move) bool { return m.State == "running" && !m.At.After(e.Start.Add(clockLimit)) })
			if !started {
				j.find(CheckExecuted, e.Start, r, "execution %d of run %s began, and the ledger did not say that it runs", e.Number, id)
			}
		}
		for i, e := range all[1:] {
			if before := all[i]; before.Outcome != Failed && !j.disturbed(before, e.Start) {
				j.find(CheckExecuted, e.Start, r, "run %s was started again (execution %d) although nothing had happened to execution %d, which said %q",
					id, e.Number, before.Number, before.Outcome)
			}
			if e.Number <= all[i].Number {
				j.find(CheckExecuted, e.Start, r, "execution %d of run %s was started after execution %d: no fencing token", e.Number, id, all[i].Number)
			}
		}
	}
	for i := range j.ev.Runs {
		r := &j.ev.Runs[i]
		if r.State != "succeeded" {
			continue
		}
		stands := slices.ContainsFunc(j.executions[r.ID], func(e *Execution) bool { return e.Number == r.Accepted && e.Outcome == Done })
		if !stands {
			j.find(CheckExecuted, r.ScheduledFor, r, "run %s has succeeded by execution %d, which did not end well", r.ID, r.Accepted)
		}
		if r.Accepted != r.Execution {
			j.find(CheckExecuted, r.ScheduledFor, r, "run %s took the result of execution %d; its last one is %d", r.ID, r.Accepted, r.Execution)
		}
	}
}

// disturbed tells whether something kept an execution, or the news of its end,
// from the database.
func (j *judge) disturbed(e *Execution, until time.Time) bool {
	return j.befell(e.PID, e.Start.Add(-aftermath), until) || j.touched(e.RunID, until)
}

func (j *judge) touched(run string, until time.Time) bool {
	return slices.ContainsFunc(j.ev.Faults, func(f Fault) bool {
		return f.Kind == Touch && f.RunID == run && f.From.Before(until)
	})
}

// ends: nobody is cancelled but by somebody, nobody fails but by his own fault.
func (j *judge) ends() {
	for i := range j.ev.Runs {
		r := &j.ev.Runs[i]
		switch r.State {
		case "cancelled":
			byEdit := r.Reason == "schedule_disabled" || r.Reason == "schedule_deleted"
			if !byEdit && !j.touched(r.ID, j.ev.Judged) {
				j.find(CheckEnd, j.ended(r.ID), r, "run %s was cancelled (%s) by nobody", r.ID, r.Reason)
			}
		case "failed":
			failures := 0
			for _, e := range j.executions[r.ID] {
				if e.Outcome == Failed {
					failures++
				}
			}
			lost := j.lives(r)
			if failures < r.MaxAttempts && (r.Reason != "worker_lost" || lost < maxLives) {
				j.find(CheckEnd, j.ended(r.ID), r, "run %s has failed after %d of %d attempts and %d lives (%s): %s",
					r.ID, failures, r.MaxAttempts, lost, cmp.Or(r.Reason, "no reason"), r.Error)
			}
		}
	}
}

// lives is how many times a run may have been lost with its process, be it before
// the task's code had begun.
func (j *judge) lives(r *Run) int {
	lost := 0
	moves := j.moves[r.ID]
	for i, m := range moves {
		if m.Reason != "worker_lost" || m.JobID == 0 || m.State == "running" || i == 0 {
			continue
		}
		if slices.ContainsFunc(j.ev.Processes, func(p Process) bool { return j.befell(p.PID, moves[i-1].At.Add(-aftermath), m.At) }) {
			lost++
		}
	}
	return lost
}

// over is when an execution was over: at the latest, when its process was.
func (j *judge) over(e *Execution) time.Time {
	if !e.End.IsZero() {
		return e.End
	}
	if p := j.processes[e.PID]; p != nil && !p.To.IsZero() {
		return p.To
	}
	return j.ev.Judged
}

// overlaps: no two executions of a key, and none of one run, at a time, but
// for a zombie's that is refused.
func (j *judge) overlaps() {
	sets := [][]*Execution{}
	for _, set := range j.byKey {
		sets = append(sets, set)
	}
	for _, set := range j.executions {
		if set[0].Key == "" { // else it is among those of its key
			sets = append(sets, set)
		}
	}
	for _, set := range sets {
		for i, a := range set {
			for _, b := range set[i+1:] {
				if !b.Start.Before(j.over(a)) {
					continue
				}
				text := fmt.Sprintf("execution %d of run %s on %s (%d) ran from %s to %s; execution %d of run %s on %s (%d) began at %s",
					a.Number, a.RunID, a.Node, a.PID, clock(a.Start), clock(j.over(a)), b.Number, b.RunID, b.Node, b.PID, clock(b.Start))
				why, refused := j.zombie(a, b), j.refused(a)
				if why == "" {
					why = j.disowned(a, b)
				}
				if why != "" && refused {
					j.verdict.Excused = append(j.verdict.Excused, text+": "+why)
					continue
				}
				if why != "" {
					text += "; it was a zombie, and its result was taken"
				}
				j.find(CheckOverlap, b.Start, j.runs[b.RunID], "%s", text)
			}
		}
	}
}

// zombie says why a, when b began, was one that had lost its session; "" if it
// was not. Who wakes up is told so at once; only a stubborn task goes on.
func (j *judge) zombie(a, b *Execution) string {
	for _, f := range j.ev.Faults {
		lost := j.sessionLost(f, a.PID)
		if f.PID != a.PID && f.Kind != Database || b.Start.Before(lost) || !during(f, a.Start, b.Start) {
			continue
		}
		switch f.Kind {
		case Freeze:
			if f.To.After(lost) && (a.Stubborn || !j.over(a).After(f.To.Add(wakeLimit))) {
				return fmt.Sprintf("%s was frozen from %s to %s", a.Node, clock(f.From), clock(f.To))
			}
		default: // only what kept it from beating
			if f.Kind != CutOff && f.Kind != Database && f.Kind != Slow {
				continue
			}
			if a.Stubborn && (a.Context != "" || a.End.IsZero()) {
				return fmt.Sprintf("%s was %s from %s to %s, and the task ignores its context", a.Node, f.Kind, clock(f.From), clock(f.To))
			}
		}
	}
	return ""
}

// disowned says why a was beside b because somebody ended its job by hand in the
// very seconds in which its node's session was broken and the key's lock free; ""
// if that was not so. It is told to stop when the session is back; only a
// stubborn task goes on.
func (j *judge) disowned(a, b *Execution) string {
	ended := slices.ContainsFunc(j.ev.Faults, func(f Fault) bool {
		return f.Kind == Touch && f.RunID == a.RunID && during(f, a.Start, b.Start)
	})
	if !ended || !a.Stubborn && j.over(a).After(b.Start.Add(wakeLimit)) {
		return ""
	}
	for _, f := range j.ev.Faults {
		breaks := f.PID == a.PID && (f.Kind == CutOff || f.Kind == Lie) || f.Kind == Database
		if breaks && during(f, b.Start.Add(-sessionLimit), b.Start) {
			return fmt.Sprintf("its job was ended by hand while the session of %s was broken (%s from %s)", a.Node, f.Kind, clock(f.From))
		}
	}
	return ""
}

// sessionLost is when, at the latest, a process has no session any more that a
// fault keeps from beating. A frozen one does not open it again.
func (j *judge) sessionLost(f Fault, pid int) time.Time {
	lost := f.From.Add(sessionLimit)
	if f.Kind != Freeze {
		return lost
	}
	for _, g := range j.ev.Faults {
		ends := g.Kind == CutOff && g.PID == pid || g.Kind == Database
		if ends && g.From.After(f.From) && g.From.Before(lost) {
			lost = g.From
		}
	}
	return lost
}

// refused tells whether nothing that an execution said was taken.
func (j *judge) refused(e *Execution) bool {
	r := j.runs[e.RunID]
	return r != nil && r.Accepted != e.Number
}

// keys: a key is held by one run at a time, from the queueing of its first job
// to its end.
func (j *judge) keys() {
	type holder struct {
		span
		r *Run
	}
	holders := map[string][]holder{}
	for i := range j.ev.Runs {
		r := &j.ev.Runs[i]
		for _, m := range j.moves[r.ID] {
			if m.State == "queued" && r.Key != "" {
				holders[r.Key] = append(holders[r.Key], holder{span{m.At, j.ended(r.ID)}, r})
				break
			}
		}
	}
	for _, all := range holders {
		slices.SortFunc(all, func(a, b holder) int { return a.from.Compare(b.from) })
		for i, h := range all[min(1, len(all)):] {
			if before := all[i]; h.from.Before(before.until) {
				j.find(CheckKey, h.from, h.r, "run %s was queued while run %s held the key, until %s", h.r.ID, before.r.ID, clock(before.until))
			}
		}
	}
}

// order: who stood in line when another of his key got its turn, and came
// before him, had his turn before him. That both are written under the lock of
// the key makes the times comparable.
func (j *judge) order() {
	type place struct {
		r          *Run
		came, turn time.Time
	}
	lines := map[string][]place{}
	for i := range j.ev.Runs {
		r := &j.ev.Runs[i]
		if r.Policy != "queue" || r.Key == "" || len(j.moves[r.ID]) == 0 {
			continue
		}
		p := place{r: r, came: j.moves[r.ID][0].At}
		for _, m := range j.moves[r.ID] {
			if m.State == "queued" && p.turn.IsZero() {
				p.turn = m.At
			}
		}
		if p.turn.IsZero() && isEnd(r.State) {
			continue // skipped, or cancelled while it waited
		}
		lines[r.Key] = append(lines[r.Key], p)
	}
	for _, line := range lines {
		for _, x := range line {
			for _, y := range line {
				if y.turn.IsZero() || !before(x.r, y.r) || !x.came.Before(y.turn) {
					continue
				}
				xs, ys := j.executions[x.r.ID], j.executions[y.r.ID]
				overtaken := x.turn.IsZero() || y.turn.Before(x.turn)
				if len(xs) > 0 && len(ys) > 0 {
					overtaken = overtaken || ys[0].Start.Before(xs[0].Start)
				}
				if overtaken {
					j.find(CheckOrder, y.turn, y.r, "run %s (tick of %s) overtook run %s (%s), which was in line since %s",
						y.r.ID, clock(y.r.ScheduledFor), x.r.ID, clock(x.r.ScheduledFor), clock(x.came))
				}
			}
		}
	}
}

// before is the order of a line: ticks before backfills, then by time, then by
// id.
func before(a, b *Run) bool {
	rank := func(r *Run) int {
		if r.Trigger == "backfill" {
			return 1
		}
		return 0
	}
	return cmp.Or(rank(a)-rank(b), a.ScheduledFor.Compare(b.ScheduledFor), cmp.Compare(a.ID, b.ID)) < 0
}

// waits: once the faults are over, nobody is in one state for longer than it
// takes, and nobody waits behind nothing. How long runs of killed processes
// take to start again is written down.
func (j *judge) waits() {
	busy := map[string][]span{}
	type waiting struct {
		span
		r *Run
	}
	waits := map[string][]waiting{}
	for i := range j.ev.Runs {
		r := &j.ev.Runs[i]
		moves := j.moves[r.ID]
		for n, m := range moves {
			s := span{m.At, j.ev.Judged}
			if n+1 < len(moves) {
				s.until = moves[n+1].At
			}
			switch m.State {
			case "waiting":
				waits[r.Key] = append(waits[r.Key], waiting{s, r})
				continue
			case "queued", "running", "retrying":
			default:
				continue
			}
			busy[r.Key] = append(busy[r.Key], s)
			from := later(s.from, j.ev.Calm)
			if took := s.until.Sub(from); took > waitLimit {
				j.find(CheckWait, from.Add(waitLimit), r, "run %s was %s for %s with no fault left", r.ID, m.State, took.Round(time.Millisecond))
			}
		}
	}
	for key, line := range waits {
		for _, free := range gaps(busy[key], j.ev.Judged) {
			for _, w := range line {
				from := later(later(w.from, free.from), j.ev.Calm)
				if took := earlier(w.until, free.until).Sub(from); took > waitLimit {
					j.find(CheckWait, from.Add(waitLimit), w.r, "run %s waited %s for a key that was free", w.r.ID, took.Round(time.Millisecond))
				}
			}
		}
	}
	for id, all := range j.executions {
		for _, e := range all {
			p := j.processes[e.PID]
			if p == nil || p.How != string(Kill) || !e.End.IsZero() || j.touched(id, j.ev.Judged) {
				continue
			}
			again := slices.IndexFunc(all, func(n *Execution) bool { return n.Start.After(p.To) })
			if again < 0 {
				if r := j.runs[id]; r != nil && r.State == "succeeded" {
					j.find(CheckExecuted, p.To, r, "run %s has succeeded, and its process was killed", id)
				}
				continue
			}
			took := all[again].Start.Sub(p.To)
			j.verdict.Recoveries = append(j.verdict.Recoveries, took)
			if took > waitLimit && j.unharmed(p.To.Add(-decideLimit), all[again].Start) {
				j.find(CheckWait, p.To.Add(waitLimit), j.runs[id], "run %s started again %s after its process was killed", id, took.Round(time.Millisecond))
			}
		}
	}
}

type span struct{ from, until time.Time }

// gaps are the times between spans, the last one until the end.
func gaps(spans []span, end time.Time) []span {
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var free []span
	var reached time.Time
	for _, s := range spans {
		if s.from.After(reached) {
			free = append(free, span{reached, s.from})
		}
		reached = later(reached, s.until)
	}
	return append(free, span{reached, end})
}

// agreement: runs and river_job never disagree, not for a moment.
func (j *judge) agreement() {
	for _, d := range j.ev.Disagreed {
		j.find(CheckAgree, d.At, nil, "%s", d.Text)
	}
	byLockKey := map[string]string{}
	for i := range j.ev.Runs {
		r := &j.ev.Runs[i]
		if r.LockKey == "" || r.Policy == "allow" {
			continue
		}
		if key, ok := byLockKey[r.LockKey]; ok && key != r.Key {
			j.find(CheckAgree, r.ScheduledFor, r, "one lock key stands for %s and %s", key, r.Key)
		}
		byLockKey[r.LockKey] = r.Key
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func clock(at time.Time) string { return at.UTC().Format("15:04:05.000") }
