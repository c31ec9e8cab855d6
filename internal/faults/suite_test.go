package faults

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/faults/oracle"
)

var (
	seeds     = flag.Int("seeds", 1, "how many random scenarios")
	firstSeed = flag.Uint64("seed", 0, "the seed of the first one; the others follow; 0: drawn")
	length    = flag.Duration("length", 30*time.Second, "how long faults are injected in each")
	keep      = flag.String("keep", "", "a directory for the timeline of each scenario")
)

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "riverbeat-faults-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// TestRandomFaults runs scenarios of faults that are drawn from printed seeds.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	binary, err := program()
	require.NoError(t, err)
	first := *firstSeed
	if first == 0 {
		first = rand.Uint64N(1_000_000) + 1
	}
	for i := range *seeds {
		seed := first + uint64(i)
		t.Run(fmt.Sprintf("Seed%d", seed), func(t *testing.T) {
			t.Parallel()
			ev, verdict, counts := scenario(t, binary, seed)
			report(t, seed, ev, verdict)
			t.Log(summary(ev, verdict, counts))
		})
	}
}

// scenario runs the random scenario of a seed and has it judged.
func scenario(t *testing.T, binary string, seed uint64) (*oracle.Evidence, *oracle.Verdict, map[string]int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 4))
	shifts := []time.Duration{0, 0, 0}
	shifts[rng.IntN(3)] = time.Duration(rng.IntN(23)-11) * 30 * time.Minute
	l := newLab(t, binary, shifts...)
	l.define()
	for _, s := range schedules() {
		l.schedules = append(l.schedules, l.create(s))
	}
	steps := l.script(rng, *length)
	t.Logf("seed %d: clocks are shifted by %v; the faults:\n%s", seed, shifts, print(steps))

	began := time.Now()
	var playing sync.WaitGroup
	for _, s := range steps {
		playing.Go(func() {
			time.Sleep(time.Until(began.Add(s.at)))
			s.do()
		})
	}
	played := make(chan struct{})
	go func() {
		playing.Wait()
		close(played)
	}()
	for running := true; running; {
		select {
		case <-played:
			running = false
		case <-time.After(500 * time.Millisecond):
			l.sample()
		}
	}
	for _, n := range l.nodes {
		n.proxy.heal()
		n.start()
		n.awaitReady()
	}
	calm := time.Now().Round(0)
	for time.Since(calm) < 4*time.Second {
		l.sample()
		time.Sleep(500 * time.Millisecond)
	}
	l.finish()
	ev := l.evidence(calm)
	ev.Began = began
	verdict, err := oracle.Judge(ev)
	require.NoError(t, err)
	return ev, verdict, l.counts
}

// report fails the test if a promise was broken, with the timelines of the
// first few violations.
func report(t *testing.T, seed uint64, ev *oracle.Evidence, verdict *oracle.Verdict) {
	t.Helper()
	if *keep != "" {
		name := filepath.Join(*keep, fmt.Sprintf("seed-%d.txt", seed))
		require.NoError(t, os.WriteFile(name, []byte(ev.Timeline(oracle.Violation{})), 0o600))
	}
	if len(verdict.Violations) == 0 {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d promises were broken\n", seed, len(verdict.Violations))
	told := map[string]int{}
	for i, v := range verdict.Violations {
		if i == 20 {
			b.WriteString("  and so on\n")
			break
		}
		fmt.Fprintf(&b, "  %s  %-8s  %s\n", v.At.UTC().Format("15:04:05.000"), v.Check, v.Text)
	}
	for _, v := range verdict.Violations {
		if told[v.Check]++; told[v.Check] > 1 || len(told) > 4 {
			continue
		}
		fmt.Fprintf(&b, "\nthe timeline of: %s\n%s", v.Text, ev.Timeline(v))
	}
	fmt.Fprintf(&b, "\nrun it again: make faults SEED=%d\n", seed)
	t.Error(b.String())
}

// summary says what was injected how often, and what came of it.
func summary(ev *oracle.Evidence, verdict *oracle.Verdict, counts map[string]int) string {
	var b strings.Builder
	states := map[string]int{}
	for i := range ev.Runs {
		states[ev.Runs[i].State]++
	}
	fmt.Fprintf(&b, "%d ticks, %d runs (", verdict.Ticks, len(ev.Runs))
	for i, state := range slices.Sorted(maps.Keys(states)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", states[state], state)
	}
	fmt.Fprintf(&b, "), %d executions, %d overlaps excused\n", len(ev.Executions), len(verdict.Excused))
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "  %4d × %s\n", counts[what], what)
	}
	if r := slices.Sorted(slices.Values(verdict.Recoveries)); len(r) > 0 {
		fmt.Fprintf(&b, "  crash recoveries: %d, median %s, longest %s\n", len(r),
			r[len(r)/2].Round(time.Millisecond), r[len(r)-1].Round(time.Millisecond))
	}
	for _, text := range verdict.Excused {
		fmt.Fprintf(&b, "  excused: %s\n", text)
	}
	return b.String()
}
