package oracle

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// story is a good one, which tests spoil: schedule s ticks every ten seconds
// with policy queue; the tick of second 10 runs on n1, that of 20 on n2.
func story() *Evidence {
	run := func(second int) Run {
		return Run{
			ID: fmt.Sprintf("r%d", second), ScheduleID: "s", ScheduleName: "s", ScheduleVersion: 1, Key: "k", LockKey: "lk",
			Params: "{}", Policy: "queue", Trigger: "schedule", ScheduledFor: at(float64(second)), State: "succeeded",
			JobID: int64(second), Execution: 1, Accepted: 1, Attempt: 1, MaxAttempts: 3,
		}
	}
	moves := func(id string, from float64) []Move {
		var moves []Move
		for i, state := range []string{"queued", "running", "succeeded"} {
			when := at(from + float64(i))
			moves = append(moves, Move{RunID: id, State: state, Began: when, At: when})
		}
		return moves
	}
	execution := func(id, node string, pid int, from float64) Execution {
		return Execution{RunID: id, ScheduleID: "s", Key: "k", Number: 1, Attempt: 1, Node: node, PID: pid, Start: at(from), End: at(from + 0.9), Outcome: Done}
	}
	return &Evidence{
		Versions:   []Version{{ScheduleID: "s", Name: "s", Number: 1, Cron: "@every 10s", Policy: "queue", Params: "{}", Enabled: true, Earliest: at(5), Latest: at(5.1), EndsAt: new(at(25))}},
		Runs:       []Run{run(10), run(20)},
		Moves:      append(moves("r10", 10), moves("r20", 20)...),
		Executions: []Execution{execution("r10", "n1", 1, 11), execution("r20", "n2", 2, 21)},
		Processes:  []Process{{Node: "n1", PID: 1, From: at(-60)}, {Node: "n2", PID: 2, From: at(-60)}},
		Requested:  nil,
		Calm:       at(0),
		Judged:     at(100),
	}
}

func at(seconds float64) time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// frozen freezes n1 while it executes r10, gives the run to n2, and lets n1
// wake up and end late.
func frozen(ev *Evidence) {
	ev.Faults = []Fault{{Kind: Freeze, Node: "n1", PID: 1, From: at(11.2), To: at(21.2)}}
	ev.Executions = []Execution{
		{RunID: "r10", ScheduleID: "s", Key: "k", Number: 1, Attempt: 1, Node: "n1", PID: 1, Start: at(11), End: at(21.3), Outcome: Interrupted},
		{RunID: "r10", ScheduleID: "s", Key: "k", Number: 2, Attempt: 1, Node: "n2", PID: 2, Start: at(17), End: at(17.9), Outcome: Done},
		ev.Executions[1],
	}
	ev.Executions[2].Start, ev.Executions[2].End = at(22), at(22.9)
	ev.Runs[0].Execution, ev.Runs[0].Accepted = 2, 2
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(ev *Evidence)
		want  string // the check that finds it; "": all is well
	}{
		{"AllIsWell", func(*Evidence) {}, ""},

		{"TickIsLost", func(ev *Evidence) { ev.Runs, ev.Moves = ev.Runs[:1], ev.Moves[:3]; ev.Executions = ev.Executions[:1] }, CheckLedger},
		{"TickIsDoubled", func(ev *Evidence) { double(ev, "r20", "again", 20) }, CheckLedger},
		{"NoTick", func(ev *Evidence) { double(ev, "r20", "other", 23) }, CheckLedger},
		{"NotAWholeSecond", func(ev *Evidence) { ev.Runs[0].ScheduledFor = at(10.5) }, CheckLedger},
		{"AfterTheEnd", func(ev *Evidence) { double(ev, "r20", "other", 30) }, CheckLedger},
		{"DecidedWhileDisabled", func(ev *Evidence) {
			v := ev.Versions[0]
			v.Number, v.Enabled, v.Earliest, v.Latest = 2, false, at(15), at(15.1)
			ev.Versions = append(ev.Versions, v)
		}, CheckLedger},
		{"EitherWayNearAnEdit", func(ev *Evidence) {
			v := ev.Versions[0]
			v.Number, v.Enabled, v.Earliest, v.Latest = 2, false, at(19.9), at(20.1)
			ev.Versions = append(ev.Versions, v)
		}, ""},
		{"ByAnOldVersion", func(ev *Evidence) {
			v := ev.Versions[0]
			v.Number, v.Earliest, v.Latest = 2, at(15), at(15.1)
			ev.Versions = append(ev.Versions, v)
		}, CheckVersion},
		{"WithOldParameters", func(ev *Evidence) { ev.Runs[1].Params = `{"a":1}` }, CheckVersion},
		{"RequestIsLost", func(ev *Evidence) { ev.Requested = []string{"gone"} }, CheckLedger},
		{"Late", func(ev *Evidence) { delay(ev, "r20", 6) }, CheckLate},
		{"LateWhileTheDatabaseWasAway", func(ev *Evidence) {
			delay(ev, "r20", 6)
			ev.Faults = []Fault{{Kind: Database, From: at(19), To: at(25)}}
		}, ""},
		{"LateWhileAllWereDead", func(ev *Evidence) {
			delay(ev, "r20", 6)
			ev.Executions[1].PID = 3
			ev.Processes = []Process{{Node: "n1", PID: 1, From: at(-60), To: at(15)}, {Node: "n1", PID: 3, From: at(24)}}
		}, ""},

		{"GapIsAccounted", func(ev *Evidence) { gap(ev, 90) }, ""},
		{"GapCountsWrong", func(ev *Evidence) { gap(ev, 90); *ev.Runs[0].MissedCount = 3 }, CheckLedger},
		{"GapTooEarly", func(ev *Evidence) { gap(ev, 30) }, CheckSkip},
		{"Skipped", skipped("skip", 20), ""},
		{"SkippedThoughAllowed", skipped("allow", 20), CheckSkip},
		{"SkippedThoughQueued", skipped("queue", 20), CheckSkip},
		{"SkippedBehindOneThatWasOver", skipped("skip", 12), CheckSkip},
		{"SkippedBehindALateCommit", func(ev *Evidence) {
			skipped("skip", 18)(ev)
			ev.Faults = []Fault{{Kind: Slow, Node: "n1", PID: 1, From: at(17), To: at(20)}}
		}, ""},
		{"SkippedBehindOneThatIsJustOver", skipped("skip", 19.5), ""},
		{"SkippedBehindNobody", func(ev *Evidence) { skipped("skip", 20)(ev); ev.Runs[1].BlockedBy = "x" }, CheckSkip},

		{"NeverExecuted", func(ev *Evidence) { ev.Executions = ev.Executions[:1] }, CheckExecuted},
		{"ExecutedUnknown", func(ev *Evidence) { ev.Executions[1].RunID = "x" }, CheckExecuted},
		{"ExecutedTwice", func(ev *Evidence) { again(ev) }, CheckExecuted},
		{"ExecutedTwiceAfterALie", func(ev *Evidence) {
			again(ev)
			ev.Faults = []Fault{{Kind: Lie, PID: 1, From: at(11.9), To: at(12)}}
		}, ""},
		{"ExecutedTwiceAfterAFailure", func(ev *Evidence) { again(ev); ev.Executions[0].Outcome = Failed }, ""},
		{"SameTokenTwice", func(ev *Evidence) {
			again(ev)
			ev.Executions[0].Outcome, ev.Executions[1].Number, ev.Runs[0].Accepted, ev.Runs[0].Execution = Failed, 1, 1, 1
		}, CheckExecuted},
		{"ResultOfAnother", func(ev *Evidence) { ev.Runs[1].Execution = 2 }, CheckExecuted},

		{"CancelledByNobody", func(ev *Evidence) { ends(ev, "cancelled", "cancelled_by_user") }, CheckEnd},
		{"CancelledBySomebody", func(ev *Evidence) {
			ends(ev, "cancelled", "cancelled_by_user")
			ev.Faults = []Fault{{Kind: Touch, RunID: "r20", From: at(21), To: at(21)}}
		}, ""},
		{"ExecutedBeforeItsStart", func(ev *Evidence) { ev.Moves[1].At = at(11.5) }, CheckExecuted},
		{"AttemptZero", func(ev *Evidence) { ev.Executions[0].Attempt = 0 }, CheckExecuted},
		{"LostThreeTimes", func(ev *Evidence) { lost(ev, 3) }, ""},
		{"GivenUpTooEarly", func(ev *Evidence) { lost(ev, 2) }, CheckEnd},
		{"FailedTooEarly", func(ev *Evidence) { ends(ev, "failed", ""); ev.Executions[1].Outcome = Failed }, CheckEnd},

		{"Overlap", func(ev *Evidence) { ev.Executions[1].Start = at(11.5) }, CheckOverlap},
		{"OverlapOfOneRun", func(ev *Evidence) {
			again(ev)
			ev.Executions[0].Key, ev.Executions[1].Key, ev.Executions[1].Start = "", "", at(11.5)
			ev.Runs[0].Key, ev.Runs[0].Policy, ev.Versions[0].Policy = "", "allow", "allow"
			ev.Executions[0].Outcome = Failed
		}, CheckOverlap},
		{"Zombie", frozen, ""},
		{"ZombieIsBelieved", func(ev *Evidence) {
			frozen(ev)
			ev.Executions[0].Outcome, ev.Runs[0].Accepted = Done, 1
		}, CheckOverlap},
		{"ZombieGoesOn", func(ev *Evidence) { frozen(ev); ev.Executions[0].End = at(26) }, CheckOverlap},
		{"FrozenTooBrieflyToBeOne", func(ev *Evidence) { frozen(ev); ev.Faults[0].From = at(16) }, CheckOverlap},
		{"FrozenAndItsSessionEnded", func(ev *Evidence) {
			frozen(ev)
			ev.Faults[0].From = at(16)
			ev.Faults = append(ev.Faults, Fault{Kind: CutOff, Node: "n1", PID: 1, From: at(16.5), To: at(16.5)})
		}, ""},
		{"FrozenAndTheSessionOfAnotherEnded", func(ev *Evidence) {
			frozen(ev)
			ev.Faults[0].From = at(16)
			ev.Faults = append(ev.Faults, Fault{Kind: CutOff, Node: "n2", PID: 2, From: at(16.5), To: at(16.5)})
		}, CheckOverlap},

		{"Overtaken", func(ev *Evidence) {
			ev.Moves = append([]Move{{RunID: "r10", State: "waiting", Began: at(10), At: at(10)}}, ev.Moves...)
			for i := range ev.Moves[1:4] {
				ev.Moves[1+i].At = ev.Moves[1+i].At.Add(13 * time.Second)
			}
			ev.Executions[0].Start, ev.Executions[0].End = at(24), at(24.9)
		}, CheckOrder},

		{"QueuedBesideAnother", func(ev *Evidence) { ev.Moves[3].At = at(10.5) }, CheckKey},
		{"QueuedRightAfterAnother", func(ev *Evidence) { ev.Moves[3].At = ev.Moves[2].At }, ""},

		{"WaitsForNothing", func(ev *Evidence) { waits(ev, 40) }, CheckWait},
		{"WaitsABit", func(ev *Evidence) { waits(ev, 33) }, ""},
		{"RunsForEver", func(ev *Evidence) { ev.Runs[1].State = "running"; ev.Moves = ev.Moves[:5] }, CheckWait},
		{"KilledAndGoesOn", func(ev *Evidence) { killed(ev, 18) }, ""},
		{"KilledAndForgotten", func(ev *Evidence) { killed(ev, 28) }, CheckWait},

		{"Disagree", func(ev *Evidence) { ev.Disagreed = []Disagreement{{At: at(1), Text: "x"}} }, CheckAgree},
		{"OneLockKeyForTwo", func(ev *Evidence) { ev.Runs[1].Key = "other"; ev.Executions[1].Key = "other" }, CheckAgree},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ev := story()
			tt.spoil(ev)
			verdict, err := Judge(ev)
			require.NoError(t, err)
			var checks []string
			for _, v := range verdict.Violations {
				checks = append(checks, v.Check)
			}
			if tt.want == "" {
				require.Empty(t, verdict.Violations)
				return
			}
			require.Contains(t, checks, tt.want, "%v", verdict.Violations)
			if v := verdict.Violations[0]; v.RunID != "" {
				require.NotEmpty(t, ev.Timeline(v))
			}
		})
	}
}

func double(ev *Evidence, of, id string, second float64) {
	for _, r := range ev.Runs {
		if r.ID == of {
			r.ID, r.ScheduledFor, r.State, r.Reason, r.BlockedBy, r.Policy = id, at(second), "skipped", "queue_full", of, "queue"
			ev.Runs = append(ev.Runs, r)
			ev.Moves = append(ev.Moves, Move{RunID: id, State: "skipped", Began: at(21), At: at(21)})
		}
	}
}

func delay(ev *Evidence, id string, seconds float64) {
	for i := range ev.Moves {
		if ev.Moves[i].RunID == id {
			ev.Moves[i].At = ev.Moves[i].At.Add(time.Duration(seconds * float64(time.Second)))
			ev.Moves[i].Began = ev.Moves[i].At
		}
	}
	for i := range ev.Executions {
		if e := &ev.Executions[i]; e.RunID == id {
			e.Start, e.End = e.Start.Add(6*time.Second), e.End.Add(6*time.Second)
		}
	}
}

// gap makes the two ticks one gap, which was recorded at a second.
func gap(ev *Evidence, second float64) {
	count := 2
	r := ev.Runs[1]
	r.State, r.MissedFrom, r.MissedUntil, r.MissedCount, r.Trigger = "missed", at(10), at(20), &count, "catch_up"
	ev.Runs, ev.Executions = []Run{r}, nil
	ev.Moves = []Move{{RunID: r.ID, State: "missed", Began: at(second), At: at(second)}}
}

// skipped skips the second run behind the first, which ends at a second.
func skipped(policy string, blockerEnds float64) func(*Evidence) {
	return func(ev *Evidence) {
		r := &ev.Runs[1]
		r.State, r.Reason, r.BlockedBy, r.Policy = "skipped", "already_running", "r10", policy
		r.Accepted, r.Execution = 0, 0
		first := ev.Versions[0]
		second := first
		second.Number, second.Policy, second.Earliest, second.Latest = 2, policy, at(15), at(15)
		r.ScheduleVersion = 2
		ev.Versions = []Version{first, second}
		ev.Moves[2].At = at(blockerEnds)
		ev.Moves = append(ev.Moves[:3], Move{RunID: "r20", State: "skipped", Began: at(20), At: at(20.1)})
		ev.Executions = ev.Executions[:1]
	}
}

// again executes the first run a second time.
func again(ev *Evidence) {
	e := ev.Executions[0]
	e.Number, e.Start, e.End = 2, at(14), at(15)
	ev.Executions = []Execution{ev.Executions[0], e, ev.Executions[1]}
	ev.Runs[0].Execution, ev.Runs[0].Accepted = 2, 2
}

func ends(ev *Evidence, state, reason string) {
	r := &ev.Runs[1]
	r.State, r.Reason, r.Accepted = state, reason, 0
	ev.Moves[5].State = state
}

// lost gives the second run so many lives, each of which ends with its process.
func lost(ev *Evidence, times int) {
	ends(ev, "failed", "worker_lost")
	last := ev.Moves[5]
	ev.Moves, ev.Executions = ev.Moves[:4], ev.Executions[:1]
	for i := range times {
		second := float64(21 + i)
		ev.Faults = append(ev.Faults, Fault{Kind: Kill, Node: "n2", PID: 2, From: at(second - 0.5), To: at(second - 0.5)})
		m := Move{RunID: "r20", State: "queued", Reason: "worker_lost", JobID: int64(i + 1), Began: at(second), At: at(second)}
		if i+1 == times {
			last.Reason, last.JobID, last.At = m.Reason, m.JobID, m.At
			m = last
		}
		ev.Moves = append(ev.Moves, m)
	}
}

// waits makes the second run wait until a second, though its key is free.
func waits(ev *Evidence, second float64) {
	ev.Moves = append(ev.Moves[:3:3], Move{RunID: "r20", State: "waiting", Began: at(20), At: at(20)})
	for i, state := range []string{"queued", "running", "succeeded"} {
		ev.Moves = append(ev.Moves, Move{RunID: "r20", State: state, At: at(second + float64(i))})
	}
	ev.Executions[1].Start, ev.Executions[1].End = at(second+1), at(second+2)
}

// killed kills n1 in the first run, which n2 starts again at a second.
func killed(ev *Evidence, second float64) {
	ev.Faults = []Fault{{Kind: Kill, Node: "n1", PID: 1, From: at(11.5), To: at(11.5)}}
	ev.Processes[0].To, ev.Processes[0].How = at(11.5), string(Kill)
	ev.Executions[0].End, ev.Executions[0].Outcome = time.Time{}, ""
	e := ev.Executions[1]
	e.RunID, e.Number, e.Start, e.End = "r10", 2, at(second), at(second+0.5)
	ev.Runs[0].Execution, ev.Runs[0].Accepted = 2, 2
	ev.Moves[2].At = at(second + 0.6)
	ev.Executions = []Execution{ev.Executions[0], e, ev.Executions[1]}
	ev.Executions[2].Start, ev.Executions[2].End = at(40), at(40.5)
}

func TestNominal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cron, zone string
		want       []int // seconds from an even hour
	}{
		{"@every 7s", "UTC", []int{6, 13}},
		{"*/5 * * * * *", "UTC", []int{0, 5, 10, 15}},
		{"3,8-10 * * * * *", "Asia/Tokyo", []int{3, 8, 9, 10}},
		{"*/10 0-29 * * * *", "UTC", []int{0, 10}},
		{"*/10 30-59 * * * *", "UTC", nil},
		{"*/10 30-59 * * * *", "Asia/Kathmandu", []int{0, 10}}, // 45 minutes off
	} {
		t.Run(tt.cron+" "+tt.zone, func(t *testing.T) {
			t.Parallel()
			r, err := parseRecurrence(tt.cron, tt.zone)
			require.NoError(t, err)
			var got []int
			for second := range 18 {
				if r.ticks(at(float64(second))) {
					got = append(got, second)
				}
			}
			require.Equal(t, tt.want, got)
		})
	}
	for _, bad := range []string{"* * * * *", "@every 1ms", "a * * * * *", "*/0 * * * * *", "* * * 1 * *"} {
		_, err := parseRecurrence(bad, "UTC")
		require.Error(t, err, bad)
	}
}

func TestTimeline(t *testing.T) {
	t.Parallel()
	ev := story()
	frozen(ev)
	ev.Executions[0].Outcome, ev.Runs[0].Accepted = Done, 1
	verdict, err := Judge(ev)
	require.NoError(t, err)
	i := slices.IndexFunc(verdict.Violations, func(v Violation) bool { return v.Check == CheckOverlap })
	lines := strings.Split(ev.Timeline(verdict.Violations[i]), "\n")
	at := func(text string) int {
		return slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, text) })
	}
	require.Contains(t, lines[at("freeze")], "08:00:11.200  fault     n1 (1): freeze")
	require.Less(t, at("freeze"), at("2 starts on n2 (2)"))
	require.Less(t, at("2 starts on n2 (2)"), at("freeze is over"))
	require.Less(t, at("freeze is over"), at("1 ends on n1 (1)"))
}

// TestImportsNothingOfTheProduct keeps the judge apart from whom it judges.
func TestImportsNothingOfTheProduct(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		parsed, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			require.False(t, strings.HasPrefix(imported, "riverbeat"), "%s imports %s", name, imported)
		}
	}
}

// A job that somebody ends by hand may leave its attempt beside the next one of
// its key for a moment, but only when the session of its node was broken, too.
func TestDisowned(t *testing.T) {
	t.Parallel()
	touched := Fault{Kind: Touch, RunID: "a", From: at(12), To: at(12)}
	broken := Fault{Kind: Lie, PID: 1, From: at(11.5), To: at(12.5)}
	for name, tt := range map[string]struct {
		faults []Fault
		end    float64
		excuse bool
	}{
		"touched while it was broken":  {[]Fault{touched, broken}, 12.3, true},
		"stopped late":                 {[]Fault{touched, broken}, 18, false},
		"not touched":                  {[]Fault{broken}, 12.3, false},
		"not broken":                   {[]Fault{touched}, 12.3, false},
		"another's session":            {[]Fault{touched, {Kind: Lie, PID: 2, From: at(11.5), To: at(12.5)}}, 12.3, false},
		"another's job":                {[]Fault{{Kind: Touch, RunID: "b", From: at(12), To: at(12)}, broken}, 12.3, false},
		"broken long before":           {[]Fault{touched, {Kind: CutOff, PID: 1, From: at(1), To: at(2)}}, 12.3, false},
		"the database was away for it": {[]Fault{touched, {Kind: Database, From: at(11), To: at(12)}}, 12.3, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &judge{ev: &Evidence{Faults: tt.faults}}
			a := &Execution{RunID: "a", Node: "n1", PID: 1, Start: at(10), End: at(tt.end), Outcome: Interrupted}
			b := &Execution{RunID: "b", Node: "n2", PID: 2, Start: at(12.1), End: at(15)}
			require.Equal(t, tt.excuse, j.disowned(a, b) != "")
		})
	}
}
