package command

import (
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"riverbeat/internal/pgtest"
)

// collector is told of traces, by OTLP over HTTP.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
	about map[string]string // what it was told of the node
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{about: map[string]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
		}
		raw, err := io.ReadAll(body)
		var told collectorpb.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(raw, &told) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, of := range told.GetResourceSpans() {
			for _, a := range of.GetResource().GetAttributes() {
				c.about[a.GetKey()] = a.GetValue().GetStringValue()
			}
			for _, scope := range of.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// named are the spans with a name, and an attribute if it is not "".
func (c *collector) named(name, attribute, value string) (spans []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.GetName() == name && (attribute == "" || attributes(s)[attribute] == value) {
			spans = append(spans, s)
		}
	}
	return spans
}

func attributes(s *tracepb.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.GetAttributes() {
		if all[a.GetKey()] = a.GetValue().GetStringValue(); all[a.GetKey()] == "" {
			all[a.GetKey()] = fmt.Sprint(a.GetValue().GetIntValue())
		}
	}
	return all
}

func serveTraced(t *testing.T, d *pgtest.Database, settings ...string) (p *program, api string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "settings")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(settings, "\n")), 0o600))
	address := freeAddress(t)
	p = start(t, "serve", "--config", file, "--database-url", d.URL, "--insecure-no-auth", "--listen", address, "--log-format", "json")
	require.Eventually(t, func() bool { return healthy(t, "http://"+address) }, 30*time.Second, 20*time.Millisecond)
	return p, "http://" + address + "/api/v1"
}

// From a request to the request that its run makes it is one trace, and from a tick.
func TestTraces(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 100)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Traceparent")
	}))
	t.Cleanup(target.Close)
	c, d := newCollector(t), pgtest.DB(t)
	p, api := serveTraced(t, d, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "RIVERBEAT_HTTP_NETWORKS=127.0.0.0/8")
	post := func(path, body string, headers ...string) string {
		t.Helper()
		return posted(t, api+path, body, headers...)
	}
	post("/task-definitions", `{"task_name": "call", "executor": {"kind": "http", "url": "`+target.URL+`/secret-path?key=hush"}}`)
	post("/task-definitions", `{"task_name": "broken", "executor": {"kind": "go", "name": "fail"}, "max_attempts": 2, "retry": {"backoff": "1ms", "max_backoff": "1ms"}}`)
	calling := post("/schedules", `{"task_name": "call", "cron_expression": "0 0 1 1 *", "task_params": {"password": "hunter2"}, "execution_policy": "queue"}`)
	breaking := post("/schedules", `{"task_name": "broken", "cron_expression": "0 0 1 1 *"}`)

	const trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	run := post("/schedules/"+calling+"/run", "{}", "Traceparent: 00-"+trace+"-"+caller+"-01", "X-Request-Id: the-request")
	carried := <-asked
	broken := post("/schedules/"+breaking+"/run", "{}")
	post("/schedules", `{"task_name": "call", "cron_expression": "@every 1s"}`)
	ticked := <-asked
	attempts := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool { return len(c.named("attempt broken", "riverbeat.run_id", broken)) == n }, 30*time.Second, 50*time.Millisecond)
	}
	attempts(2)
	code, body := ask(t, http.MethodPost, api+"/runs/"+broken+"/retry", "")
	require.Equal(t, http.StatusOK, code, body)
	attempts(4)
	code, _ = get(t, strings.TrimSuffix(api, "/api/v1")+"/readyz")
	require.Equal(t, http.StatusOK, code)
	require.Zero(t, p.stop(), p.stderr)

	// One trace: the caller, the request, the run, the attempt, and the request that it makes.
	one := func(name, attribute, value string) *tracepb.Span {
		t.Helper()
		spans := c.named(name, attribute, value)
		require.Len(t, spans, 1, name)
		return spans[0]
	}
	server := one("POST /api/v1/schedules/{id}/run", "riverbeat.request_id", "the-request")
	recorded, attempt := one("run call", "riverbeat.run_id", run), one("attempt call", "riverbeat.run_id", run)
	var client *tracepb.Span
	for _, s := range c.named("POST", "", "") {
		if hex.EncodeToString(s.GetTraceId()) == trace {
			client = s
		}
	}
	parent := caller
	for _, s := range []*tracepb.Span{server, recorded, attempt, client} {
		require.Equal(t, trace, hex.EncodeToString(s.GetTraceId()), s.GetName())
		require.Equal(t, parent, hex.EncodeToString(s.GetParentSpanId()), s.GetName())
		parent = hex.EncodeToString(s.GetSpanId())
	}
	require.Equal(t, "00-"+trace+"-"+parent+"-01", carried)
	require.Equal(t, map[string]string{
		"http.route": "/api/v1/schedules/{id}/run", "http.request.method": "POST", "http.response.status_code": "201", "riverbeat.request_id": "the-request",
	}, attributes(server))
	require.Equal(t, "queued", attributes(recorded)["riverbeat.state"])
	require.Equal(t, "succeeded", attributes(attempt)["riverbeat.outcome"])
	require.Equal(t, map[string]string{"http.request.method": "POST", "server.address": "127.0.0.1", "http.response.status_code": "200"}, attributes(client))

	// The trace of a tick is its run, as every attempt of it knows.
	parts := strings.Split(ticked, "-")
	tick, err := uuid.Parse(parts[1])
	require.NoError(t, err)
	recorded, attempt = one("run call", "riverbeat.run_id", tick.String()), one("attempt call", "riverbeat.run_id", tick.String())
	require.Equal(t, tick[:], recorded.GetTraceId())
	require.Empty(t, recorded.GetParentSpanId())
	require.Equal(t, tick[:], attempt.GetTraceId())
	require.Equal(t, recorded.GetSpanId(), attempt.GetParentSpanId())
	require.Equal(t, "schedule", attributes(recorded)["riverbeat.trigger"])
	require.LessOrEqual(t, recorded.GetStartTimeUnixNano(), recorded.GetEndTimeUnixNano(), "from the nominal time on")

	// Attempts that fail, of one run.
	tried := c.named("attempt broken", "riverbeat.run_id", broken)
	require.Equal(t, tried[0].GetParentSpanId(), tried[1].GetParentSpanId())
	again := one("POST /api/v1/runs/{id}/retry", "", "")
	require.Equal(t, again.GetSpanId(), tried[2].GetParentSpanId(), "another request wanted these")
	var outcomes []string
	for _, s := range tried {
		outcomes = append(outcomes, attributes(s)["riverbeat.outcome"])
	}
	require.Equal(t, []string{"retried", "failed", "retried", "failed"}, outcomes)
	for _, s := range tried {
		require.Equal(t, tracepb.Status_STATUS_CODE_ERROR, s.GetStatus().GetCode())
	}

	require.Equal(t, "riverbeat", c.about["service.name"])
	require.Empty(t, c.named("GET /readyz", "", ""), "who looks whether it lives is no trace")
	for _, s := range c.spans {
		for _, hidden := range []string{"hunter2", "hush", "secret-path"} {
			require.NotContains(t, s.String(), hidden)
		}
	}
}

// A collector that is away, or hangs, holds nothing up, and is no flood in the log.
func TestACollectorThatIsAway(t *testing.T) {
	t.Parallel()
	hanging := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hanging:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(hangs.Close)
	t.Cleanup(func() { close(hanging) })
	for name, endpoint := range map[string]string{"Away": "http://" + freeAddress(t), "Hangs": hangs.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgtest.DB(t)
			p, api := serveTraced(t, d, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "RIVERBEAT_SHUTDOWN_GRACE=1s")
			schedule := posted(t, api+"/schedules", `{"task_name": "echo", "cron_expression": "0 0 1 1 *"}`)
			for range 3 {
				run := posted(t, api+"/schedules/"+schedule+"/run", "{}")
				require.Eventually(t, func() bool {
					_, body := get(t, api+"/runs/"+run)
					return strings.Contains(body, `"succeeded"`)
				}, 20*time.Second, 10*time.Millisecond)
			}
			began := time.Now()
			require.Zero(t, p.stop(), p.stderr)
			require.Less(t, time.Since(began), 20*time.Second)
			require.LessOrEqual(t, strings.Count(p.stderr.String(), "collector of traces"), 2, p.stderr)
			require.NotContains(t, p.stderr.String(), `"level":"ERROR"`)
		})
	}
}
