// Package metrics counts what this process does, and how long it takes, for
// Prometheus: the runs that it records, the attempts that it executes, its sweeps, its
// session, its pool, and what River tells of itself. What is true of the whole
// installation is no count of a process: package doctor looks for it.
//
// The labels are few, whatever people name their tasks: see maxTasks.
package metrics

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"riverbeat/internal/riverbeat"
)

// Outcome is how an attempt ended.
type Outcome string

// The outcomes. With the first three the run has ended.
const (
	Succeeded   Outcome = "succeeded"
	Failed      Outcome = "failed"
	Cancelled   Outcome = "cancelled"
	Retried     Outcome = "retried"     // it failed, and another attempt follows
	Snoozed     Outcome = "snoozed"     // the task wanted to go on later
	Interrupted Outcome = "interrupted" // the node stopped, and handed it back
	Lost        Outcome = "lost"        // somebody else may have the run, so nothing of it counts
)

// Metrics are the counts of one process. Nil counts nothing, so that who counts need not
// ask. They are safe for concurrent use, and a count costs some hundred nanoseconds.
type Metrics struct {
	now        func() time.Time
	collectors []prometheus.Collector
	tasks      names

	recorded       *prometheus.CounterVec
	missed         *prometheus.CounterVec
	enqueuedLate   *prometheus.HistogramVec
	startedLate    *prometheus.HistogramVec
	attempts       *prometheus.CounterVec
	attemptsTook   *prometheus.HistogramVec
	underWay       prometheus.Gauge
	handedBack     *prometheus.CounterVec
	takenOver      *prometheus.CounterVec
	sweeps         *prometheus.HistogramVec
	claims         *prometheus.HistogramVec
	claimed        prometheus.Counter
	alarms         prometheus.Gauge
	alarmsFired    prometheus.Counter
	sessionUp      prometheus.Gauge // nil: there is none to have
	sessionsLost   prometheus.Counter
	fenced         prometheus.Counter
	beats          prometheus.Observer
	clockOffset    prometheus.Gauge
	fetches        *prometheus.HistogramVec
	fetched        *prometheus.CounterVec
	jobs           *prometheus.CounterVec
	jobsWaited     prometheus.Observer
	jobsCompleted  prometheus.Observer
	requests       *prometheus.CounterVec
	requestsTook   *prometheus.HistogramVec
	requestsOpened prometheus.Gauge

	mu    sync.Mutex
	swept time.Time // the last time; at first when the process began
}

var (
	// brief are the buckets, in seconds, of what waits for the database.
	brief = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30}
	// late are those of what shall not be late: the budgets of the design among them.
	late = []float64{.01, .025, .05, .1, .15, .25, .5, 1, 1.5, 2.5, 5, 10, 60, 600, 3600}
	// long are those of attempts.
	long = []float64{.005, .025, .1, .5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600}
)

// New makes Metrics. now is this machine's clock, which measures how long things take.
// works is whether the process decides ticks and executes runs: one that does not has no
// session, and no last sweep.
func New(now func() time.Time, works bool) *Metrics {
	m := &Metrics{now: now, swept: now()}
	m.recorded = m.counters("runs_recorded_total", "Runs written by this node, by the state that they began in.", "trigger", "state", "reason")
	m.missed = m.counters("missed_ticks_total", "Ticks that this node has recorded as missed; more than 10000 of one gap count as 10001.", "reason")
	m.enqueuedLate = m.histograms("enqueue_lateness_seconds", "From the nominal time of a tick to its job, of ticks that did not wait in a line.", late, "trigger")
	m.startedLate = m.histograms("start_lateness_seconds", "From the nominal time of a tick to the start of its first attempt, of ticks that did not wait in a line.", late, "trigger")
	m.attempts = m.counters("attempts_total", "Attempts that have ended on this node.", "task", "trigger", "outcome")
	m.attemptsTook = m.histograms("attempt_duration_seconds", "How long attempts took.", long, "task")
	m.underWay = m.gauge("attempts_under_way", "Attempts that go on right now.")
	m.handedBack = m.counters("jobs_handed_back_total", "Jobs that were fetched and could not be begun.", "reason")
	m.takenOver = m.counters("jobs_taken_over_total", "Jobs that this node has ended because nobody worked them any more: of a node that was lost, or strays of its own.", "of")
	m.sweeps = m.histograms("sweep_duration_seconds", "How long it took to decide all that was due.", brief, "outcome")
	m.claims = m.histograms("claim_duration_seconds", "How long it took to decide one batch.", brief, "outcome")
	m.claimed = m.counter("claimed_schedules_total", "Schedules in these batches.")
	m.alarms = m.gauge("alarms", "Recurrences for which this node keeps an alarm.")
	m.alarmsFired = m.counter("alarms_fired_total", "Alarms that have fired; they do on one node, River's leader.")
	m.sessionsLost = m.counter("sessions_lost_total", "Sessions that have broken.")
	m.fenced = m.counter("fenced_total", "How often the node gave up all its runs, because it could not say that it lives or had to go on hold.")
	m.beats = m.histogram("beat_duration_seconds", "How long it took to say that the node lives.", brief)
	m.clockOffset = m.gauge("clock_offset_seconds", "How far the database's clock is ahead of this machine's.")
	m.fetches = m.histograms("river_fetch_duration_seconds", "How long River's fetches of jobs took.", brief, "queue")
	m.fetched = m.counters("river_jobs_fetched_total", "Jobs that River has fetched.", "queue")
	m.jobs = m.counters("river_jobs_total", "Jobs whose attempt River has written down.", "queue", "kind")
	m.jobsWaited = m.histogram("river_queue_wait_seconds", "From when a job was due to when River has fetched it.", late)
	m.jobsCompleted = m.histogram("river_complete_duration_seconds", "How long it took River to write down the end of an attempt.", brief)
	m.requests = m.counters("http_requests_total", "Requests that were answered.", "route", "code")
	m.requestsTook = m.histograms("http_request_duration_seconds", "How long the answers took.", brief, "route")
	m.requestsOpened = m.gauge("http_requests_under_way", "Requests that are being answered.")
	if works {
		m.sessionUp = m.gauge("session_up", "1 while the node has its session with the database, else 0.")
		m.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "last_sweep_age_seconds", Help: "How long ago the last sweep of this node succeeded.",
		}, func() float64 { return m.SinceSweep().Seconds() }))
	}
	m.begin()
	return m
}

// begin makes what is rare begin at 0, or its first time would be no increase.
func (m *Metrics) begin() {
	for _, outcome := range []string{"ok", "failed"} {
		m.sweeps.WithLabelValues(outcome)
	}
	for _, outcome := range []string{"ok", "empty", "failed"} {
		m.claims.WithLabelValues(outcome)
	}
	for _, reason := range []riverbeat.Reason{
		riverbeat.Paused, riverbeat.OutsideWindow, riverbeat.Superseded, riverbeat.ScheduleDisabled, riverbeat.ScheduleDeleted,
	} {
		m.missed.WithLabelValues(string(reason))
	}
	for _, of := range []string{"lost_node", "this_node"} {
		m.takenOver.WithLabelValues(of)
	}
	for _, reason := range []riverbeat.Reason{notReady, riverbeat.NoWorker, riverbeat.NoSlot, riverbeat.AlreadyRunning} {
		m.handedBack.WithLabelValues(string(reason))
	}
	for _, trigger := range []riverbeat.Trigger{riverbeat.TriggerSchedule, riverbeat.TriggerCatchUp} {
		m.recorded.WithLabelValues(string(trigger), string(riverbeat.Queued), "")
		m.enqueuedLate.WithLabelValues(string(trigger))
		m.startedLate.WithLabelValues(string(trigger))
	}
}

// Recorded counts runs that are written.
func (m *Metrics) Recorded(runs []*riverbeat.Run) {
	if m == nil {
		return
	}
	for _, r := range runs {
		m.recorded.WithLabelValues(string(r.Trigger), string(r.State), string(r.Reason)).Inc()
		if r.State == riverbeat.Missed {
			count := riverbeat.MaxGapCount + 1
			if r.MissedCount != nil {
				count = *r.MissedCount
			}
			m.missed.WithLabelValues(string(r.Reason)).Add(float64(count))
		}
		if isTick(r) && r.EnqueuedAt != nil {
			m.enqueuedLate.WithLabelValues(string(r.Trigger)).Observe(r.EnqueuedAt.Sub(r.ScheduledFor).Seconds())
		}
	}
}

// Attempt counts an attempt that begins; the answered function counts its end.
func (m *Metrics) Attempt(r *riverbeat.Run) (end func(Outcome)) {
	if m == nil {
		return func(Outcome) {}
	}
	if isTick(r) && r.Execution == 1 && r.BlockedBy == nil && r.StartedAt != nil {
		m.startedLate.WithLabelValues(string(r.Trigger)).Observe(r.StartedAt.Sub(r.ScheduledFor).Seconds())
	}
	began := m.now()
	m.underWay.Inc()
	return func(outcome Outcome) {
		task := m.tasks.bounded(r.TaskName)
		m.underWay.Dec()
		m.attempts.WithLabelValues(task, string(r.Trigger), string(outcome)).Inc()
		m.attemptsTook.WithLabelValues(task).Observe(m.now().Sub(began).Seconds())
	}
}

func isTick(r *riverbeat.Run) bool {
	return r.Trigger == riverbeat.TriggerSchedule || r.Trigger == riverbeat.TriggerCatchUp
}

// notReady stands for the reason of a job that has none.
const notReady riverbeat.Reason = "not_ready"

// HandedBack counts a job that could not be begun; without a reason because the node or
// the database was not ready.
func (m *Metrics) HandedBack(reason riverbeat.Reason) {
	if m == nil {
		return
	}
	if reason == "" {
		reason = notReady
	}
	m.handedBack.WithLabelValues(string(reason)).Inc()
}

// TookOver counts a job of a lost node, or of this one, that was ended because nobody
// worked it.
func (m *Metrics) TookOver(mine bool) {
	if m == nil {
		return
	}
	of := "lost_node"
	if mine {
		of = "this_node"
	}
	m.takenOver.WithLabelValues(of).Inc()
}

// Sweep counts a sweep that begins; the answered function counts its end.
func (m *Metrics) Sweep() (end func(error)) {
	if m == nil {
		return func(error) {}
	}
	began := m.now()
	return func(err error) {
		now, outcome := m.now(), "failed"
		if err == nil {
			outcome = "ok"
			m.mu.Lock()
			m.swept = now
			m.mu.Unlock()
		}
		m.sweeps.WithLabelValues(outcome).Observe(now.Sub(began).Seconds())
	}
}

// SinceSweep is how long ago the last sweep succeeded, or, before the first, the process
// began.
func (m *Metrics) SinceSweep() time.Duration {
	if m == nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now().Sub(m.swept)
}

// Claim counts a batch that begins to be decided; the answered function counts its end,
// and the schedules in it.
func (m *Metrics) Claim() (end func(schedules int, err error)) {
	if m == nil {
		return func(int, error) {}
	}
	began := m.now()
	return func(schedules int, err error) {
		outcome := "ok"
		switch {
		case err != nil:
			outcome = "failed"
		case schedules == 0:
			outcome = "empty"
		default:
			m.claimed.Add(float64(schedules))
		}
		m.claims.WithLabelValues(outcome).Observe(m.now().Sub(began).Seconds())
	}
}

// Alarms tells how many alarms the node keeps.
func (m *Metrics) Alarms(n int) {
	if m != nil {
		m.alarms.Set(float64(n))
	}
}

// AlarmFired counts an alarm that fires.
func (m *Metrics) AlarmFired() {
	if m != nil {
		m.alarmsFired.Inc()
	}
}

// SessionUp tells whether the node has its session now.
func (m *Metrics) SessionUp(up bool) {
	if m == nil || m.sessionUp == nil {
		return
	}
	m.sessionUp.Set(0)
	if up {
		m.sessionUp.Set(1)
	}
}

// SessionLost counts a session that has broken.
func (m *Metrics) SessionLost() {
	if m != nil {
		m.sessionsLost.Inc()
	}
}

// Fenced counts that the node gave all its runs up.
func (m *Metrics) Fenced() {
	if m != nil {
		m.fenced.Inc()
	}
}

// Beat counts a beat that took so long. offset is how far the database's clock is ahead.
func (m *Metrics) Beat(took, offset time.Duration) {
	if m == nil {
		return
	}
	m.beats.Observe(took.Seconds())
	m.clockOffset.Set(offset.Seconds())
}

// Fetch counts a fetch of River's.
func (m *Metrics) Fetch(queue string, took time.Duration) {
	if m != nil {
		m.fetches.WithLabelValues(queue).Observe(took.Seconds())
	}
}

// Fetched counts jobs that River has fetched.
func (m *Metrics) Fetched(queue string, jobs int) {
	if m != nil {
		m.fetched.WithLabelValues(queue).Add(float64(jobs))
	}
}

// Job counts an attempt that River has written down as being of the kind: how long its
// job was not fetched, and how long it took to write.
func (m *Metrics) Job(queue, kind string, waited, completed time.Duration) {
	if m == nil {
		return
	}
	m.jobs.WithLabelValues(queue, kind).Inc()
	m.jobsWaited.Observe(waited.Seconds())
	m.jobsCompleted.Observe(completed.Seconds())
}

// Request counts a request that comes in; the answered function counts its answer. The
// route is one of a table, never what was asked for.
func (m *Metrics) Request() (end func(route string, code int)) {
	if m == nil {
		return func(string, int) {}
	}
	began := m.now()
	m.requestsOpened.Inc()
	return func(route string, code int) {
		m.requestsOpened.Dec()
		m.requests.WithLabelValues(route, strconv.Itoa(code)).Inc()
		m.requestsTook.WithLabelValues(route).Observe(m.now().Sub(began).Seconds())
	}
}
