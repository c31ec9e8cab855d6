package httpapi_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/access"
	"riverbeat/internal/doctor"
	"riverbeat/internal/httpapi"
	"riverbeat/internal/ledger"
	"riverbeat/internal/metrics"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/queue"
)

// monitored makes an API whose metrics are of its own database.
func monitored(t *testing.T, d *pgtest.Database, options ...func(*httpapi.Config)) *client {
	t.Helper()
	return serve(t, d.DB, append(options, func(cfg *httpapi.Config) {
		q, err := queue.New(d.Pool, pgtest.Schema, cfg.Logger)
		require.NoError(t, err)
		doc := doctor.New(doctor.Config{DB: d.DB, Ledger: ledger.New(q), Queue: q, Environment: "default"})
		cfg.Monitor = doctor.NewMonitor(t.Context(), doc, time.Now, 30*time.Second)
		t.Cleanup(cfg.Monitor.Close)
	})...)
}

// scrape reads the metrics as Prometheus does: those of a name by the value of
// their one label, "" without one.
func (c *client) scrape() map[string]map[string]float64 {
	c.t.Helper()
	r := c.send(c.t.Context(), "GET", "/metrics", "")
	require.Equal(c.t, http.StatusOK, r.StatusCode, "%s", r.body)
	require.Equal(c.t, "no-store", r.Header.Get("Cache-Control"))
	format := expfmt.ResponseFormat(r.Header)
	require.Equal(c.t, expfmt.TypeTextPlain, format.FormatType())
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(r.body))
	require.NoError(c.t, err)
	values := map[string]map[string]float64{}
	for name, family := range families {
		values[name] = map[string]float64{}
		for _, m := range family.GetMetric() {
			label := ""
			for _, l := range m.GetLabel() {
				require.Empty(c.t, label, "%s has more than one label", name)
				label = l.GetValue()
			}
			values[name][label] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
		}
	}
	return values
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	c := monitored(t, d)
	c.exec("UPDATE installation SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())")
	c.exec(`INSERT INTO nodes (id, version, tasks, queues, last_seen_at)
VALUES (gen_random_uuid(), '1', '["echo"]', '{"default": 1}', now() + interval '1 hour')`)
	secret := c.ask(http.StatusCreated, "POST", schedules, `{"name": "the secret plan", "task_name": "echo", "cron_expression": "0 0 1 1 *", "execution_policy": "queue"}`)["id"].(string)
	c.ask(http.StatusCreated, "POST", schedules+"/"+secret+"/run", `{}`)
	c.ask(http.StatusCreated, "POST", schedules+"/"+secret+"/run", `{}`)
	for range 3 {
		id := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@yearly"}`)["id"].(string)
		c.exec("UPDATE schedule_clocks SET last_scheduled_for = now() - interval '2 hours', next_run_at = now() - interval '1 hour' WHERE schedule_id = $1", id)
	}
	// Each of these is broken as the tests of package doctor break it.
	c.exec("UPDATE schedule_clocks SET next_run_at = NULL, retry_at = now() + interval '1 hour' WHERE schedule_id = $1", secret)
	c.exec("INSERT INTO task_definitions (task_name, queue) VALUES ('report', 'reports')")
	c.exec("INSERT INTO schedules (name, task_name, cron_expression, timezone) VALUES ('idle', 'nobody', '@daily', 'UTC')")

	var got map[string]map[string]float64
	require.Eventually(t, func() bool {
		got = c.scrape()
		return len(got["riverbeat_check_status"]) == 21
	}, 30*time.Second, 10*time.Millisecond)

	require.Equal(t, map[string]float64{"1.2.3": 1}, got["riverbeat_build_info"])
	require.Equal(t, map[string]float64{"": 1}, got["riverbeat_database_up"])
	require.Equal(t, map[string]float64{"": 0}, got["riverbeat_paused"])
	require.Equal(t, map[string]float64{"": 1}, got["riverbeat_nodes"])
	require.Equal(t, map[string]float64{"waiting": 1, "queued": 1, "running": 0, "retrying": 0}, got["riverbeat_runs"])
	require.InDelta(t, 3600, got["riverbeat_behind_seconds"][""], 60)
	status, faults := map[string]float64{}, map[string]float64{}
	for check, value := range got["riverbeat_check_status"] {
		if value > 0 {
			status[check], faults[check] = value, got["riverbeat_check_faults"][check]
		} else {
			require.Zero(t, got["riverbeat_check_faults"][check], check)
		}
	}
	require.Equal(t, map[string]float64{
		"overdue_clocks": 2, "stopped_clocks": 2, "idle_clocks": 2, "unserved_queues": 1, "unregistered_tasks": 2,
	}, status)
	require.Equal(t, map[string]float64{
		"overdue_clocks": 3, "stopped_clocks": 1, "idle_clocks": 1, "unserved_queues": 1, "unregistered_tasks": 1,
	}, faults)
	require.Len(t, got["riverbeat_check_age_seconds"], 21)
	require.Len(t, got["riverbeat_check_errors_total"], 21)
	require.NotEmpty(t, got["go_goroutines"])
	require.NotEmpty(t, got["process_resident_memory_bytes"])

	// Numbers only, and few of them.
	body := string(c.send(t.Context(), "GET", "/metrics", "").body)
	for _, name := range []string{"secret", secret, "report", "nobody", "idle\""} {
		require.NotContains(t, body, name)
	}
	series := 0
	for name, values := range got {
		if strings.HasPrefix(name, "riverbeat_") {
			series += len(values)
		}
	}
	require.Less(t, series, 100)
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	require.NoError(t, err)
	require.Empty(t, slices.DeleteFunc(problems, func(p promlint.Problem) bool { return !strings.HasPrefix(p.Metric, "riverbeat_") }))
}

func TestMetricsAreOfEveryNodeAndOfTheProcessAtLeast(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	worker := monitored(t, d, func(cfg *httpapi.Config) { cfg.HealthOnly = true })
	require.InDelta(t, 1, worker.scrape()["riverbeat_database_up"][""], 0)
	require.Equal(t, http.StatusOK, worker.send(t.Context(), "HEAD", "/metrics", "").StatusCode)
	require.Equal(t, http.StatusMethodNotAllowed, worker.send(t.Context(), "POST", "/metrics", "").StatusCode)

	away := pgtest.DB(t)
	c := monitored(t, away)
	away.Pool.Close()
	got := c.scrape()
	require.Equal(t, map[string]float64{"": 0}, got["riverbeat_database_up"])
	require.NotContains(t, got, "riverbeat_runs")
	require.NotEmpty(t, got["go_goroutines"])

	got = setup(t).scrape()
	require.NotContains(t, got, "riverbeat_database_up", "nobody looks after it")
	require.NotEmpty(t, got["riverbeat_build_info"])
}

// What is served at an address of its own is open there, and nothing else is there.
func TestMetricsAtAnAddressOfTheirOwn(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	counts := metrics.New(time.Now, true)
	closed := func(cfg *httpapi.Config) {
		cfg.Access = access.New(access.Config{DB: d.DB, AdminKey: "sixteen characters", Now: time.Now})
		cfg.Metrics = counts
	}
	api := monitored(t, d, closed)
	own := monitored(t, d, closed, func(cfg *httpapi.Config) { cfg.HealthOnly, cfg.OpenMetrics = true, true })

	require.Equal(t, http.StatusUnauthorized, api.send(t.Context(), "GET", "/metrics", "").StatusCode)
	require.Equal(t, http.StatusUnauthorized, api.send(t.Context(), "GET", "/api/v1/schedules/a%2Fname", "").StatusCode)
	require.Equal(t, http.StatusNotFound, api.send(t.Context(), "GET", "/made/up", "").StatusCode)
	for path, status := range map[string]int{
		"/metrics": http.StatusOK, "/healthz": http.StatusOK, "/readyz": http.StatusOK,
		"/": http.StatusNotFound, "/docs": http.StatusNotFound, "/openapi.json": http.StatusNotFound,
		"/api/v1/schedules": http.StatusNotFound, "/riverui/": http.StatusNotFound,
	} {
		require.Equal(t, status, own.send(t.Context(), "GET", path, "").StatusCode, path)
	}
	body := string(own.send(t.Context(), "GET", "/metrics", "").body)
	for _, line := range []string{
		`riverbeat_http_requests_total{code="401",route="GET /metrics"} 1`,
		`riverbeat_http_requests_total{code="401",route="GET /api/v1/schedules/{id}"} 1`,
		`riverbeat_http_requests_total{code="200",route="GET /healthz"} 1`,
		`riverbeat_http_requests_total{code="404",route="(none)"} 6`,
		`riverbeat_http_requests_under_way 1`,
	} {
		require.Contains(t, body, line)
	}
}
