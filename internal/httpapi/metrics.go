package httpapi

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"riverbeat/internal/doctor"
	"riverbeat/internal/riverbeat"
)

// metricsPath tells numbers, and no names but those of tasks that the process has
// executed. docs/operations.md says what they mean.
const metricsPath = "/metrics"

// scrapes is how many may be answered at once; the rest is told to come again.
const scrapes = 10

// serveMetrics serves what the doctor finds, what the process has counted, and the numbers
// of Go and of the system, in Prometheus's format.
func (a *api) serveMetrics(engine *gin.Engine) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&vitals{monitor: a.Monitor, version: a.Version},
	)
	if a.Metrics != nil {
		registry.MustRegister(a.Metrics)
	}
	serve := gin.WrapH(promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapes,
		EnableOpenMetrics:   true,
	}))
	engine.Handle(http.MethodGet, metricsPath, serve)
	engine.Handle(http.MethodHead, metricsPath, serve)
}

// vitals makes metrics of the doctor's last readings. Their labels are the
// names of checks and states, which are few.
type vitals struct {
	monitor *doctor.Monitor // nil: nobody looks
	version string
}

var (
	buildInfo     = describe("build_info", "The version of this process.", "version")
	databaseUp    = describe("database_up", "1 if the database answers, else 0.")
	paused        = describe("paused", "1 while the installation is paused, else 0.")
	liveNodes     = describe("nodes", "Nodes that live.")
	behindSeconds = describe("behind_seconds", "How long the oldest tick that is due has waited to be decided; it grows while the installation is paused.")
	liveRuns      = describe("runs", "Runs that have not ended.", "state")
	checkStatus   = describe("check_status", "What a check of 'riverbeat doctor' has found: 0 ok, 1 warn, 2 fail.", "check")
	checkFaults   = describe("check_faults", "How many faults a check has found; 10001 stands for more than 10000.", "check")
	checkAge      = describe("check_age_seconds", "How old the finding of a check is.", "check")
	checkErrors   = describe("check_errors_total", "How often a check could not be made.", "check")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("riverbeat_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (*vitals) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, databaseUp, paused, liveNodes, behindSeconds, liveRuns,
		checkStatus, checkFaults, checkAge, checkErrors,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. It waits for no more than the
// monitor's patience.
func (v *vitals) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(buildInfo, 1, v.version)
	if v.monitor == nil {
		return
	}
	now := v.monitor.Vitals()
	gauge(databaseUp, bit(now.Up))
	if load := now.Load; load != nil {
		gauge(paused, bit(load.Paused))
		gauge(liveNodes, float64(load.LiveNodes))
		gauge(behindSeconds, load.Behind.Seconds())
		gauge(liveRuns, float64(load.Waiting), string(riverbeat.Waiting))
		gauge(liveRuns, float64(load.Queued), string(riverbeat.Queued))
		gauge(liveRuns, float64(load.Running), string(riverbeat.Running))
		gauge(liveRuns, float64(load.Retrying), string(riverbeat.Retrying))
	}
	for _, r := range now.Readings {
		ch <- prometheus.MustNewConstMetric(checkErrors, prometheus.CounterValue, float64(r.Errors), r.Check)
		if f := r.Finding; f != nil {
			gauge(checkStatus, severity[f.Status], r.Check)
			gauge(checkFaults, float64(f.Count), r.Check)
			gauge(checkAge, r.Age.Seconds(), r.Check)
		}
	}
}

var severity = map[doctor.Status]float64{doctor.OK: 0, doctor.Warn: 1, doctor.Fail: 2}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
