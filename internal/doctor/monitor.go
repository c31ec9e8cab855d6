package doctor

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"riverbeat/internal/postgres"
)

const (
	// quickEvery and slowEvery are how old a reading may be when it is asked for.
	quickEvery = 15 * time.Second
	slowEvery  = 5 * time.Minute
	// readTimeout bounds all reading of one kind, and each statement of it.
	readTimeout = 20 * time.Second
)

// small is how much a Monitor looks at: every node of an installation does.
var small = Options{
	Since: 24 * time.Hour, Schedules: 100, Timeout: 10 * time.Second, maxTicks: 20_000, maxJobs: 10_000,
}

// Reading is what a check has found last.
type Reading struct {
	Check   string
	Finding *Finding // nil: it could not be made yet
	Age     time.Duration
	Errors  int // how often it could not be made, since the process has started
}

// Vitals are the last readings of an installation.
type Vitals struct {
	Up   bool           // the database answers
	Load *postgres.Load // nil if it cannot be read
	// Readings are of the checks that have been tried, in their order. A check
	// that cannot be made keeps its last finding, which grows old.
	Readings []Reading
}

// Monitor makes the checks of a Doctor for whoever looks often: at most one
// reading is under way, on one connection, however many ask, and what was just
// read is told again. Without anybody asking it does nothing.
type Monitor struct {
	doctor *Doctor
	now    func() time.Time
	wait   time.Duration

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu        sync.Mutex
	underWay  bool
	quick     chan struct{} // is closed when the quick checks under way are made
	quickRead time.Time     // when they were last tried
	slowRead  time.Time
	up        bool
	load      *postgres.Load
	findings  map[string]Finding
	foundAt   map[string]time.Time
	errors    map[string]int
}

// NewMonitor makes a Monitor. now is this machine's clock, for the ages of
// readings. wait is how long Vitals waits for new readings before it tells the
// last ones.
func NewMonitor(ctx context.Context, d *Doctor, now func() time.Time, wait time.Duration) *Monitor {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &Monitor{
		doctor: d, now: now, wait: wait, ctx: ctx, cancel: cancel,
		findings: map[string]Finding{}, foundAt: map[string]time.Time{}, errors: map[string]int{},
	}
}

// Close ends what is under way, and waits for it.
func (m *Monitor) Close() {
	m.cancel()
	m.ended.Wait()
}

// Vitals tells the last readings. If they are old it waits a moment for new
// quick ones; slow ones are made meanwhile, and told the next time.
func (m *Monitor) Vitals() Vitals {
	if quick := m.refresh(); quick != nil {
		timer := time.NewTimer(m.wait)
		defer timer.Stop()
		select {
		case <-quick:
		case <-timer.C:
		case <-m.ctx.Done():
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v := Vitals{Up: m.up, Load: m.load}
	for _, c := range checks {
		r := Reading{Check: c.name, Errors: m.errors[c.name]}
		if f, ok := m.findings[c.name]; ok {
			r.Finding, r.Age = &f, m.now().Sub(m.foundAt[c.name])
		} else if r.Errors == 0 {
			continue
		}
		v.Readings = append(v.Readings, r)
	}
	return v
}

// refresh begins to read what is old, unless that is under way. It answers the
// channel that is closed when the quick checks are made; nil if they are fresh.
func (m *Monitor) refresh() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	quick, slow := now.Sub(m.quickRead) >= quickEvery, now.Sub(m.slowRead) >= slowEvery
	switch {
	case m.underWay:
		return m.quick
	case !quick && !slow, m.ctx.Err() != nil:
		return nil
	}
	m.underWay, m.quick = true, make(chan struct{})
	m.ended.Go(func() { m.read(slow) })
	return m.quick
}

// read makes the quick checks, then the slow ones if they are due. Whoever sees
// the last of what it has found may begin the next reading.
func (m *Monitor) read(slow bool) {
	quick := m.readAll(false)
	slow = slow && quick.up
	m.mu.Lock()
	m.tell(quick)
	m.up, m.load = quick.up, quick.load
	m.quickRead, m.underWay = m.now(), slow
	close(m.quick)
	m.mu.Unlock()
	if !slow {
		return
	}
	rare := m.readAll(true)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(rare)
	if m.underWay = false; rare.up {
		m.slowRead = m.now()
	}
}

// sight is what one reading of all checks of a kind has found.
type sight struct {
	up       bool           // the database answers
	load     *postgres.Load // nil if it cannot be read
	findings map[string]Finding
	foundAt  map[string]time.Time
	failed   []string // the checks that could not be made
}

// tell keeps what was found. The caller holds mu.
func (m *Monitor) tell(s sight) {
	maps.Copy(m.findings, s.findings)
	maps.Copy(m.foundAt, s.foundAt)
	for _, name := range s.failed {
		m.errors[name]++
	}
}

// readAll makes the slow or the quick checks.
func (m *Monitor) readAll(slow bool) sight {
	ctx, cancel := context.WithTimeout(m.ctx, readTimeout)
	defer cancel()
	s := sight{findings: map[string]Finding{}, foundAt: map[string]time.Time{}}
	var load postgres.Load
	err := m.doctor.read(ctx, small, func(tx *postgres.Tx) error {
		var err error
		load, err = tx.Load(ctx, nodeLives)
		return err
	})
	if err == nil {
		s.load = &load
	}
	if s.up = err == nil || postgres.IsTimeout(err); !s.up {
		return s
	}
	for _, c := range slices.DeleteFunc(slices.Clone(checks), func(c check) bool { return c.slow != slow }) {
		f, err := m.doctor.look(ctx, c, small)
		if m.ctx.Err() != nil {
			break
		}
		if err != nil {
			s.failed = append(s.failed, c.name)
			continue
		}
		s.findings[c.name], s.foundAt[c.name] = f, m.now()
	}
	return s
}
