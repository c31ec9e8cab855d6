package faults

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"riverbeat/internal/faults/oracle"
)

// step is one fault of a script.
type step struct {
	at   time.Duration
	text string
	do   func()
}

func (s step) String() string { return fmt.Sprintf("%7.2fs  %s", s.at.Seconds(), s.text) }

// schedules are those of a random scenario: each policy, several that share one
// task and arguments, and runs that are longer than their period.
func schedules() []spec {
	record := func(key string, seconds float64, more ...any) map[string]any {
		params := map[string]any{"key": key, "seconds": seconds}
		for i := 0; i < len(more); i += 2 {
			params[more[i].(string)] = more[i+1]
		}
		return params
	}
	shared := record("shared", 0.9)
	return []spec{
		{Name: "allow", Cron: "* * * * * *", Policy: "allow", Params: record("a", 0.3)},
		{Name: "allow-long", Cron: "@every 2s", Policy: "allow", Params: record("al", 3, "fail_times", 1)},
		{Name: "allow-zoned", Cron: "*/2 0-29 * * * *", Zone: "Asia/Kathmandu", Policy: "allow", Params: record("z", 0.05)},
		{Name: "skip", Cron: "* * * * * *", Policy: "skip", Params: record("s", 1.5)},
		{Name: "skip-too", Cron: "@every 2s", Policy: "skip", Params: record("s", 1.5)},
		{Name: "queue", Cron: "*/2 * * * * *", Policy: "queue", Params: shared},
		{Name: "queue-too", Cron: "@every 3s", Policy: "queue", Params: shared, Most: 5},
		{Name: "skip-queue", Cron: "*/5 * * * * *", Policy: "skip", Params: shared},
		{Name: "queue-fast", Cron: "* * * * * *", Policy: "queue", Params: record("f", 0.05)},
		{Name: "queue-slow", Cron: "@every 4s", Policy: "queue", Params: record("l", 3)},
		{Name: "queue-retry", Cron: "@every 3s", Policy: "queue", Params: record("r", 0.3, "fail_times", 1)},
		{Name: "stubborn", Cron: "*/3 * * * * *", Policy: "skip", Params: record("st", 2.5, "stubborn", true)},
	}
}

// mood is what a scenario leans to. A weight says how often a fault is drawn, in
// proportion to the others; what has none is not drawn.
type mood struct {
	name string
	// breaks, every so many seconds, and what people do meanwhile.
	breaks      map[string]int
	breakEvery  [2]float64
	people      map[string]int
	peopleEvery [2]float64
	// crowd is how many more schedules there are, with a tick each second.
	crowd int
	// brief is how many schedules there are, two to a key, whose keys are taken for
	// a moment now and then; if there are any, those are the ones that people run.
	// They are due in turn: who is claimed holds up requests of his own.
	brief int
}

// moods are drawn by seed: the first has everything, the others bring out what
// is rare in it. (Mutations are tried in the moods that suit them.)
var moods = []mood{
	{
		name: "everything",
		breaks: map[string]int{
			"kill": 3, "blink": 1, "freeze": 2, "roll": 3, "terminate session": 1, "terminate": 2, "restart": 2,
			"cut": 2, "refuse": 1, "hold": 1, "slow": 1, "late commits": 1, "deaf": 1, "lie": 5,
		},
		breakEvery: [2]float64{0.4, 1.6},
		people: map[string]int{
			"cron": 2, "zone": 1, "params": 3, "policy": 1, "disable": 1, "replace": 1, "run": 3, "cancel": 1, "delete": 1,
		},
		peopleEvery: [2]float64{0.05, 1},
	},
	{
		name:        "crashes", // and hardly an edit that wakes somebody
		breaks:      map[string]int{"kill": 6, "roll": 1, "deaf": 1, "lie": 12},
		breakEvery:  [2]float64{0.2, 1.4},
		people:      map[string]int{"run": 3, "params": 1},
		peopleEvery: [2]float64{0.3, 3},
	},
	{
		name:        "freezes",
		breaks:      map[string]int{"freeze": 6, "blink": 2, "hold": 2, "terminate session": 1},
		breakEvery:  [2]float64{1, 3},
		people:      map[string]int{"run": 3, "params": 1},
		peopleEvery: [2]float64{0.5, 2},
	},
	{
		name:        "psql",
		breaks:      map[string]int{"kill": 1, "roll": 1, "blink": 1, "terminate session": 2, "lie": 4},
		breakEvery:  [2]float64{0.8, 3},
		people:      map[string]int{"run": 4, "params": 1, "cancel": 4, "delete": 4},
		peopleEvery: [2]float64{0.05, 0.5},
	},
	{
		name:        "edits", // that are committed when everybody claims
		breaks:      map[string]int{"late commits": 8, "slow": 2, "kill": 1, "lie": 1},
		breakEvery:  [2]float64{0.8, 2},
		people:      map[string]int{"cron": 3, "zone": 1, "params": 8, "policy": 1, "disable": 1, "replace": 1, "run": 8},
		peopleEvery: [2]float64{0.05, 0.35},
		crowd:       30, // a claim takes longer, and an edit can happen in the middle
	},
	{
		name:        "lines", // that form while others come
		breaks:      map[string]int{"late commits": 8, "slow": 2, "kill": 1, "lie": 1},
		breakEvery:  [2]float64{0.3, 1.2},
		people:      map[string]int{"run": 10, "params": 1},
		peopleEvery: [2]float64{0.05, 0.25},
		brief:       4,
	},
}

// schedules are those of a scenario in this mood.
func (m *mood) schedules() []spec {
	var all []spec
	for i := range m.brief {
		cron := "*/2 * * * * *"
		if i%2 == 1 {
			cron = "1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41,43,45,47,49,51,53,55,57,59 * * * * *"
		}
		all = append(all, spec{
			Name: fmt.Sprintf("brief-%d", i), Cron: cron, Policy: "queue", Params: map[string]any{"brief": i / 2, "seconds": 0.1},
		})
	}
	all = append(all, schedules()...)
	for i := range m.crowd {
		all = append(all, spec{
			Name: fmt.Sprintf("crowd-%d", i), Cron: "* * * * * *", Policy: "allow", Params: map[string]any{"crowd": i},
		})
	}
	return all
}

func moodOf(seed uint64) *mood { return &moods[seed%uint64(len(moods))] }

// script draws the faults of a scenario.
func (l *lab) script(rng *rand.Rand, m *mood, length time.Duration) []step {
	var steps []step
	seconds := func(from, until float64) time.Duration {
		return time.Duration((from + rng.Float64()*(until-from)) * float64(time.Second)).Round(time.Millisecond)
	}
	add := func(at time.Duration, do func(), format string, args ...any) {
		steps = append(steps, step{at, fmt.Sprintf(format, args...), do})
	}
	draw := func(weights map[string]int) string {
		total := 0
		names := slices.Sorted(maps.Keys(weights))
		for _, name := range names {
			total += weights[name]
		}
		at := rng.IntN(total)
		for _, name := range names {
			if at -= weights[name]; at < 0 {
				return name
			}
		}
		panic("unreachable")
	}

	for at := seconds(0, 1); at < length; at += seconds(m.breakEvery[0], m.breakEvery[1]) {
		n := l.nodes[rng.IntN(len(l.nodes))]
		switch what := draw(m.breaks); what {
		case "kill":
			down := seconds(0.1, 4)
			add(at, func() { n.kill(down) }, "kill %s, start it again after %s", n.name, down)
		case "blink", "freeze":
			d := seconds(0.5, 3)
			if what == "freeze" {
				d = seconds(7, 11)
			}
			add(at, func() { n.freeze(d) }, "freeze %s for %s", n.name, d)
		case "roll":
			add(at, n.roll, "roll %s", n.name)
		case "terminate session":
			add(at, func() { n.terminate(0) }, "terminate the session of %s", n.name)
		case "terminate":
			which := rng.IntN(10) + 1
			add(at, func() { n.terminate(which) }, "terminate a connection of %s", n.name)
		case "restart":
			immediate := rng.IntN(2) == 0
			add(at, func() { l.restart(immediate) }, "restart Postgres, immediate %t", immediate)
		case "cut":
			add(at, func() { n.disconnect(oracle.CutOff, "cut", 0, (*proxy).cut) }, "cut the connections of %s", n.name)
		case "refuse":
			d := seconds(0.5, 6)
			add(at, func() { n.disconnect(oracle.CutOff, "refuse", d, (*proxy).refuse) }, "refuse connections of %s for %s", n.name, d)
		case "hold":
			d := seconds(1, 8)
			add(at, func() { n.disconnect(oracle.CutOff, "hold", d, (*proxy).hold) }, "hold the connections of %s for %s", n.name, d)
		case "slow":
			d, latency := seconds(1, 4), seconds(0.01, 0.15)
			slow := func(p *proxy) { p.slow(latency) }
			add(at, func() { n.disconnect(oracle.Slow, "slow", d, slow) }, "slow the connections of %s by %s for %s", n.name, latency, d)
		case "late commits":
			d := seconds(2, 4)
			add(at, func() { n.disconnect(oracle.Slow, "late commits", d, (*proxy).delayCommits) }, "commits of %s wait for the next second for %s", n.name, d)
		case "deaf":
			add(at, func() { n.disconnect(oracle.Deaf, "deaf", 4*time.Second, (*proxy).dropNotifications) }, "%s hears no notifications for 4s", n.name)
		case "lie":
			commits := rng.IntN(3) + 1
			lie := func(p *proxy) { p.lie(commits) }
			add(at, func() { n.disconnect(oracle.Lie, "lie", time.Second, lie) }, "lie to %s about %d commits", n.name, commits)
		default:
			panic(what)
		}
	}

	crons := []string{"* * * * * *", "*/2 * * * * *", "@every 2s", "@every 3s", "*/3 0-29 * * * *", "1,4,5-9,30-50 * * * * *"}
	zones := []string{"UTC", "Asia/Kathmandu", "Asia/Tokyo", "Australia/Eucla"}
	for at := seconds(0, 1); at < length; at += seconds(m.peopleEvery[0], m.peopleEvery[1]) {
		n, which := l.nodes[rng.IntN(len(l.nodes))], rng.IntN(1000)
		patch := func(field string, value any) {
			body := map[string]any{field: value}
			add(at, func() { l.edit(which, n, "edit "+field, http.MethodPatch, "", body) }, "edit %v", body)
		}
		switch what := draw(m.people); what {
		case "cron":
			patch("cron_expression", crons[rng.IntN(len(crons))])
		case "zone":
			patch("timezone", zones[rng.IntN(len(zones))])
		case "params":
			takes := []float64{0, 0.3, 1, 1.5}[rng.IntN(4)]
			patch("task_params", map[string]any{"mark": rng.IntN(2), "seconds": takes})
		case "policy":
			patch("execution_policy", []string{"allow", "skip", "queue"}[rng.IntN(3)])
		case "disable":
			again := seconds(0.05, 2)
			add(at, func() { l.edit(which, n, "disable", http.MethodPost, "/disable", nil) }, "disable one")
			add(at+again, func() { l.edit(which, n, "enable", http.MethodPost, "/enable", nil) }, "enable it")
		case "replace":
			s := schedules()[rng.IntN(len(schedules()))]
			add(at, func() { l.replace(which, n, s) }, "delete one, make another %s", s.Name)
		case "run":
			which %= len(schedules()) // not of the crowd
			if m.brief > 0 {
				which %= m.brief
			}
			add(at, func() { l.edit(which, n, "run now", http.MethodPost, "/run", map[string]any{}) }, "run one now")
		case "cancel", "delete":
			state := []string{"running", "running", "queued", "retrying"}[rng.IntN(4)]
			statement := map[string]string{"cancel": cancelJob, "delete": deleteJob}[what]
			add(at, func() { l.touch(which, state, what+" in psql", statement) }, "%s a %s job in psql", what, state)
		default:
			panic(what)
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	return steps
}

func print(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}
