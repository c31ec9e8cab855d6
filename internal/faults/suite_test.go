package faults

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/faults/oracle"
)

var (
	seeds     = flag.Int("seeds", 1, "how many random scenarios")
	firstSeed = flag.Uint64("seed", 6, "the seed of the first one; the others follow; 0: drawn")
	length    = flag.Duration("length", 20*time.Second, "how long faults are injected in each")
	keep      = flag.String("keep", "", "a directory for the timeline of each scenario")
)

func TestMain(m *testing.M) {
	flag.Parse()
	parallel := false
	flag.Visit(func(f *flag.Flag) { parallel = parallel || f.Name == "test.parallel" })
	if !parallel { // not one for each processor: scenarios mostly wait
		if err := flag.Set("test.parallel", "4"); err != nil {
			panic(err)
		}
	}
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
	began, all := time.Now(), &tally{}
	t.Run("Seeds", func(t *testing.T) {
		for i := range *seeds {
			seed := first + uint64(i)
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				s := runScenario(t, binary, seed, *length)
				s.report(t)
				one := &tally{}
				one.add(s)
				t.Logf("seed %d (%s): %s", seed, s.mood.name, one)
				all.add(s)
			})
		}
	})
	t.Logf("%d seeds from %d in %s: %s", *seeds, first, time.Since(began).Round(time.Second), all)
}

// scenario is what became of a seed.
type scenario struct {
	seed    uint64
	mood    *mood
	ev      *oracle.Evidence
	verdict *oracle.Verdict
	counts  map[string]int
}

// runScenario runs the random scenario of a seed and has it judged. prepare may
// change the installation before its nodes start.
func runScenario(t *testing.T, binary string, seed uint64, length time.Duration, prepare ...func(*lab)) *scenario {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 4))
	l := newLab(t, binary)
	for _, p := range prepare {
		p(l)
	}
	shifts := []time.Duration{0, 0, 0}
	shifts[rng.IntN(3)] = time.Duration(rng.IntN(23)-11) * 30 * time.Minute
	for _, shift := range shifts {
		l.addNode(shift, newProxy(t, l.server))
	}
	l.start()
	l.define()
	m := moodOf(seed)
	for _, s := range m.schedules() {
		l.schedules = append(l.schedules, l.create(s))
	}
	steps := l.script(rng, m, length)
	t.Logf("seed %d: %s; clocks are shifted by %v; the faults:\n%s", seed, m.name, shifts, print(steps))

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
		n.heal()
		for _, p := range n.proxies {
			lied, waited := p.done()
			l.counts["(commit answered by a broken connection)"] += lied
			l.counts["(commit that waited for the second)"] += waited
		}
		n.start()
		n.awaitReady()
	}
	calm := time.Now().Round(0)
	l.watch(3 * time.Second)
	l.finish()
	s := &scenario{seed: seed, mood: m, ev: l.evidence(calm), counts: l.counts}
	s.ev.Began = began
	var err error
	s.verdict, err = oracle.Judge(s.ev)
	require.NoError(t, err)
	if *keep != "" {
		name := filepath.Join(*keep, fmt.Sprintf("seed-%d.txt", seed))
		require.NoError(t, os.WriteFile(name, []byte(s.ev.Timeline(oracle.Violation{})), 0o600))
	}
	return s
}

// report fails the test if a promise was broken.
func (s *scenario) report(t *testing.T) {
	t.Helper()
	if len(s.verdict.Violations) > 0 {
		t.Errorf("seed %d: %s\nrun it again: make faults SEED=%d\n", s.seed, story(s.ev, s.verdict), s.seed)
	}
}

// story tells which promises were broken, with the timelines of the first few.
func story(ev *oracle.Evidence, verdict *oracle.Verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d promises were broken\n", len(verdict.Violations))
	for i, v := range verdict.Violations {
		if i == 20 {
			b.WriteString("  and so on\n")
			break
		}
		fmt.Fprintf(&b, "  %s  %-8s  %s\n", v.At.UTC().Format("15:04:05.000"), v.Check, v.Text)
	}
	told := map[string]bool{}
	for _, v := range verdict.Violations {
		if told[v.Check] || len(told) == 4 {
			continue
		}
		told[v.Check] = true
		fmt.Fprintf(&b, "\nthe timeline of: %s\n%s", v.Text, ev.Timeline(v))
	}
	return b.String()
}

// tally is what was injected how often, and what came of it.
type tally struct {
	mu                                       sync.Mutex
	ticks, runs, executions, excused, broken int
	states, counts                           map[string]int
	recoveries                               []time.Duration
}

func (a *tally) add(s *scenario) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.states == nil {
		a.states, a.counts = map[string]int{}, map[string]int{}
	}
	a.ticks += s.verdict.Ticks
	a.runs += len(s.ev.Runs)
	a.executions += len(s.ev.Executions)
	a.excused += len(s.verdict.Excused)
	a.broken += len(s.verdict.Violations)
	a.recoveries = append(a.recoveries, s.verdict.Recoveries...)
	for i := range s.ev.Runs {
		a.states[s.ev.Runs[i].State]++
	}
	for what, n := range s.counts {
		a.counts[what] += n
	}
}

func (a *tally) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d promises broken; %d ticks, %d runs, %d executions, %d overlaps of zombies excused\n",
		a.broken, a.ticks, a.runs, a.executions, a.excused)
	for _, state := range slices.Sorted(maps.Keys(a.states)) {
		fmt.Fprintf(&b, "  %5d runs %s\n", a.states[state], state)
	}
	for _, what := range slices.Sorted(maps.Keys(a.counts)) {
		fmt.Fprintf(&b, "  %5d × %s\n", a.counts[what], what)
	}
	if r := slices.Sorted(slices.Values(a.recoveries)); len(r) > 0 {
		fmt.Fprintf(&b, "  %5d runs of killed processes started again: median %s, longest %s\n", len(r),
			r[len(r)/2].Round(time.Millisecond), r[len(r)-1].Round(time.Millisecond))
	}
	return b.String()
}
