package faults

import (
	"fmt"
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

// script draws the faults of a scenario.
func (l *lab) script(rng *rand.Rand, length time.Duration) []step {
	var steps []step
	seconds := func(from, until float64) time.Duration {
		return time.Duration((from + rng.Float64()*(until-from)) * float64(time.Second)).Round(time.Millisecond)
	}
	add := func(at time.Duration, do func(), format string, args ...any) {
		steps = append(steps, step{at, fmt.Sprintf(format, args...), do})
	}

	// What breaks things.
	for at := seconds(0, 1); at < length; at += seconds(0.8, 3.2) {
		n := l.nodes[rng.IntN(len(l.nodes))]
		switch rng.IntN(16) {
		case 0, 1, 2:
			down := seconds(0.1, 4)
			add(at, func() { n.kill(down) }, "kill %s, start it again after %s", n.name, down)
		case 3:
			d := seconds(0.5, 3)
			add(at, func() { n.freeze(d) }, "freeze %s for %s", n.name, d)
		case 4, 5:
			d := seconds(8, 12)
			add(at, func() { n.freeze(d) }, "freeze %s for %s", n.name, d)
		case 6, 7:
			add(at, n.roll, "roll %s", n.name)
		case 8:
			add(at, func() { n.terminate(0) }, "terminate the session of %s", n.name)
		case 9:
			which := rng.IntN(10) + 1
			add(at, func() { n.terminate(which) }, "terminate a connection of %s", n.name)
		case 10:
			immediate := rng.IntN(2) == 0
			add(at, func() { l.restart(immediate) }, "restart Postgres, immediate %t", immediate)
		case 11:
			add(at, func() { n.disconnect(oracle.CutOff, "cut", 0, (*proxy).cut) }, "cut the connections of %s", n.name)
		case 12:
			d := seconds(0.5, 6)
			add(at, func() { n.disconnect(oracle.CutOff, "refuse", d, (*proxy).refuse) }, "refuse connections of %s for %s", n.name, d)
		case 13:
			d := seconds(1, 8)
			add(at, func() { n.disconnect(oracle.CutOff, "hold", d, (*proxy).hold) }, "hold the connections of %s for %s", n.name, d)
		case 14:
			d, latency := seconds(1, 4), seconds(0.01, 0.15)
			slow := func(p *proxy) { p.slow(latency) }
			add(at, func() { n.disconnect(oracle.Slow, "slow", d, slow) }, "slow the connections of %s by %s for %s", n.name, latency, d)
		case 15:
			add(at, func() { n.disconnect(oracle.Deaf, "deaf", 4*time.Second, (*proxy).dropNotifications) }, "%s hears no notifications for 4s", n.name)
		}
	}
	// Errors after a commit cost little.
	for at := seconds(0, 3); at < length; at += seconds(1, 4) {
		n, commits := l.nodes[rng.IntN(len(l.nodes))], rng.IntN(3)+1
		lie := func(p *proxy) { p.lie(commits) }
		add(at, func() { n.disconnect(oracle.Lie, "lie", time.Second, lie) }, "lie to %s about %d commits", n.name, commits)
	}

	// What people do meanwhile.
	crons := []string{"* * * * * *", "*/2 * * * * *", "@every 2s", "@every 3s", "*/3 0-29 * * * *", "1,4,5-9,30-50 * * * * *"}
	zones := []string{"UTC", "Asia/Kathmandu", "Asia/Tokyo", "Australia/Eucla"}
	for at := seconds(0, 1); at < length; at += seconds(0.05, 1) {
		n, which := l.nodes[rng.IntN(len(l.nodes))], rng.IntN(1000)
		patch := func(field string, value any) {
			body := map[string]any{field: value}
			add(at, func() { l.edit(which, n, "edit "+field, http.MethodPatch, "", body) }, "edit %v", body)
		}
		switch rng.IntN(14) {
		case 0, 1:
			patch("cron_expression", crons[rng.IntN(len(crons))])
		case 2:
			patch("timezone", zones[rng.IntN(len(zones))])
		case 3, 4, 5:
			patch("task_params", map[string]any{"mark": rng.IntN(3)})
		case 6:
			patch("execution_policy", []string{"allow", "skip", "queue"}[rng.IntN(3)])
		case 7:
			again := seconds(0.05, 2)
			add(at, func() { l.edit(which, n, "disable", http.MethodPost, "/disable", nil) }, "disable one")
			add(at+again, func() { l.edit(which, n, "enable", http.MethodPost, "/enable", nil) }, "enable it")
		case 8:
			s := schedules()[rng.IntN(len(schedules()))]
			if rng.IntN(2) == 0 {
				add(at, func() { l.replace(which, n, s) }, "delete one, make another %s", s.Name)
			}
		case 9, 10, 11:
			add(at, func() { l.edit(which, n, "run now", http.MethodPost, "/run", map[string]any{}) }, "run one now")
		case 12:
			state := []string{"running", "queued", "retrying"}[rng.IntN(3)]
			add(at, func() { l.touch(which, state, "cancel in psql", cancelJob) }, "cancel a %s job in psql", state)
		case 13:
			state := []string{"running", "queued", "retrying"}[rng.IntN(3)]
			add(at, func() { l.touch(which, state, "delete in psql", deleteJob) }, "delete a %s job in psql", state)
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
