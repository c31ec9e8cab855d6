package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// prefix begins the name of each metric of ours.
const prefix = "riverbeat_"

const (
	// maxTasks is how many tasks have a label of their own: those that this process has
	// executed first. What others do is counted under otherTasks, for each label costs the
	// one who scrapes a series, and people may make tasks without end.
	maxTasks   = 100
	otherTasks = "(other)"
)

// names bounds the names of tasks.
type names struct {
	mu   sync.Mutex
	seen map[string]bool
}

// bounded is the name under which a task is counted.
func (n *names) bounded(task string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen[task] {
		return task
	}
	if len(n.seen) == maxTasks {
		return otherTasks
	}
	if n.seen == nil {
		n.seen = map[string]bool{}
	}
	n.seen[task] = true
	return task
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors {
		c.Collect(ch)
	}
}

func (m *Metrics) add(c prometheus.Collector) { m.collectors = append(m.collectors, c) }

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	m.add(c)
	return c
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	return m.counters(name, help).WithLabelValues()
}

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	m.add(g)
	return g
}

func (m *Metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: buckets}, labels)
	m.add(h)
	return h
}

func (m *Metrics) histogram(name, help string, buckets []float64) prometheus.Observer {
	return m.histograms(name, help, buckets).WithLabelValues()
}

// Pool is what is read of a pool of connections: pgxpool.Stat has it.
type Pool interface {
	MaxConns() int32
	AcquiredConns() int32
	IdleConns() int32
	ConstructingConns() int32
	AcquireCount() int64
	CanceledAcquireCount() int64
	EmptyAcquireCount() int64
	EmptyAcquireWaitTime() time.Duration
}

// Share is what is read of a share of a pool: postgres.Share has it.
type Share interface {
	Most() int
	Open() int
	Waiting() int
}

// WatchPool adds the numbers of the process's pool. It is called before anybody scrapes.
func (m *Metrics) WatchPool(pool func() Pool) {
	m.add(&reader[Pool]{pool, []reading[Pool]{
		{describe("pool_max_connections", "The most connections that the pool may have."), prometheus.GaugeValue, func(p Pool) float64 { return float64(p.MaxConns()) }},
		{describe("pool_connections_in_use", "Connections that somebody has."), prometheus.GaugeValue, func(p Pool) float64 { return float64(p.AcquiredConns()) }},
		{describe("pool_connections_idle", "Connections that nobody has."), prometheus.GaugeValue, func(p Pool) float64 { return float64(p.IdleConns()) }},
		{describe("pool_connections_opening", "Connections that are being opened."), prometheus.GaugeValue, func(p Pool) float64 { return float64(p.ConstructingConns()) }},
		{describe("pool_acquires_total", "How often somebody got a connection."), prometheus.CounterValue, func(p Pool) float64 { return float64(p.AcquireCount()) }},
		{describe("pool_acquires_given_up_total", "How often somebody who wanted a connection gave up."), prometheus.CounterValue, func(p Pool) float64 { return float64(p.CanceledAcquireCount()) }},
		{describe("pool_waits_total", "How often somebody had to wait for a connection."), prometheus.CounterValue, func(p Pool) float64 { return float64(p.EmptyAcquireCount()) }},
		{describe("pool_wait_seconds_total", "How long these waits were, together."), prometheus.CounterValue, func(p Pool) float64 { return p.EmptyAcquireWaitTime().Seconds() }},
	}})
}

// WatchShare adds the numbers of the share that requests have of the pool, where they have
// not all of it. It is called before anybody scrapes.
func (m *Metrics) WatchShare(share Share) {
	m.add(&reader[Share]{func() Share { return share }, []reading[Share]{
		{describe("request_transactions_max", "The most transactions that requests may have open at once."), prometheus.GaugeValue, func(s Share) float64 { return float64(s.Most()) }},
		{describe("request_transactions_open", "Transactions that requests have open."), prometheus.GaugeValue, func(s Share) float64 { return float64(s.Open()) }},
		{describe("request_transactions_waiting", "Requests that wait until they may open one."), prometheus.GaugeValue, func(s Share) float64 { return float64(s.Waiting()) }},
	}})
}

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, nil, nil)
}

// reading is one number that is read of something.
type reading[From any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(From) float64
}

// reader reads numbers at each scrape, all of them of one moment.
type reader[From any] struct {
	now      func() From
	readings []reading[From]
}

func (r *reader[From]) Describe(ch chan<- *prometheus.Desc) {
	for _, n := range r.readings {
		ch <- n.desc
	}
}

func (r *reader[From]) Collect(ch chan<- prometheus.Metric) {
	now := r.now()
	for _, n := range r.readings {
		ch <- prometheus.MustNewConstMetric(n.desc, n.kind, n.read(now))
	}
}
