package oracle

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Timeline tells what happened around a violation, one event a line: faults,
// edits of its schedule, and what its runs and those of its key went through.
// The zero Violation gives everything.
func (ev *Evidence) Timeline(v Violation) string {
	all := v == Violation{}
	from, until := v.At.Add(-20*time.Second), v.At.Add(10*time.Second)
	names := map[string]string{} // of runs that matter
	concerned := func(run, schedule, key string) bool {
		return all || run == v.RunID || v.Key != "" && key == v.Key || v.Key == "" && schedule == v.ScheduleID
	}
	for i := range ev.Runs {
		if r := &ev.Runs[i]; concerned(r.ID, r.ScheduleID, r.Key) {
			names[r.ID] = fmt.Sprintf("%-12s %s %s", r.ScheduleName, r.ScheduledFor.UTC().Format("05.000"), r.ID)
		}
	}

	type event struct {
		at   time.Time
		text string
	}
	var events []event
	add := func(at time.Time, format string, args ...any) {
		if all || at.After(from) && at.Before(until) {
			events = append(events, event{at, fmt.Sprintf(format, args...)})
		}
	}
	for _, f := range ev.Faults {
		what := strings.TrimSpace(fmt.Sprintf("%s %s", f.Kind, f.Detail))
		who := f.Node
		if f.PID != 0 {
			who = fmt.Sprintf("%s (%d)", f.Node, f.PID)
		}
		switch {
		case f.Kind == Touch && names[f.RunID] == "", f.Kind == Edit && !all:
			continue // not ours; edits are told of by the versions
		case f.To.Sub(f.From) > 100*time.Millisecond:
			add(f.To, "fault     %s: %s is over", who, what)
		}
		add(f.From, "fault     %s: %s", who, what)
	}
	for _, p := range ev.Processes {
		add(p.From, "process   %s (%d) starts", p.Node, p.PID)
		if !p.To.IsZero() {
			add(p.To, "process   %s (%d) is gone: %s", p.Node, p.PID, p.How)
		}
	}
	add(ev.Calm, "fault     none from here on")
	for _, version := range ev.Versions {
		if !all && version.ScheduleID != v.ScheduleID {
			continue
		}
		add(version.Latest, "schedule  %s is version %d: %q %s %s enabled=%t deleted=%t %s", version.Name, version.Number,
			version.Cron, version.Zone, version.Policy, version.Enabled, version.Deleted, version.Params)
	}
	for _, m := range ev.Moves {
		if name := names[m.RunID]; name != "" {
			add(m.At, "run       %s: %s %s job %d execution %d", name, m.State, m.Reason, m.JobID, m.Execution)
		}
	}
	for _, e := range ev.Executions {
		name := names[e.RunID]
		if name == "" && !concerned(e.RunID, e.ScheduleID, e.Key) {
			continue
		}
		add(e.Start, "execution %s: %d starts on %s (%d)", name, e.Number, e.Node, e.PID)
		if !e.End.IsZero() {
			add(e.End, "execution %s: %d ends on %s (%d): %s %s", name, e.Number, e.Node, e.PID, e.Outcome, e.Context)
		}
	}
	for _, d := range ev.Disagreed {
		add(d.At, "disagree  %s", d.Text)
	}

	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%s  %s\n", clock(e.at), strings.TrimSpace(e.text))
	}
	return b.String()
}
