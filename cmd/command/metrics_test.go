package command

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"riverbeat/internal/pgtest"
)

const (
	rulesFile     = "../../deploy/prometheus/riverbeat.rules.yml"
	dashboardFile = "../../deploy/grafana/riverbeat.json"
	operations    = "../../docs/operations.md"
)

// scrape is what a node has told Prometheus.
type scrape map[string]*dto.MetricFamily

// watchedNode is a node that serves its metrics at an address of their own.
type watchedNode struct {
	*pgtest.Database
	t        *testing.T
	api, own string
}

func watchNode(t *testing.T) *watchedNode {
	t.Helper()
	w := &watchedNode{pgtest.DB(t), t, "http://" + freeAddress(t), "http://" + freeAddress(t)}
	start(t, "serve", "--database-url", w.URL, "--insecure-no-auth",
		"--listen", strings.TrimPrefix(w.api, "http://"), "--metrics-listen", strings.TrimPrefix(w.own, "http://"))
	require.Eventually(t, func() bool { return healthy(t, w.own) }, 30*time.Second, 20*time.Millisecond)
	return w
}

// healthy tells whether a node is ready.
func healthy(t *testing.T, base string) bool {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/readyz", http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	require.NoError(t, response.Body.Close())
	return response.StatusCode == http.StatusOK
}

// posted asks an API for something that it makes. Headers are given as "Name: value".
func posted(t *testing.T, url, body string, headers ...string) (id string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	for _, header := range append(headers, "Content-Type: application/json") {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	answered, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusCreated, response.StatusCode, "%s", answered)
	var thing struct {
		ID string `json:"id"`
	}
	require.NoError(t, json.Unmarshal(answered, &thing))
	return thing.ID
}

func (w *watchedNode) post(path, body string) (id string) {
	w.t.Helper()
	return posted(w.t, w.api+"/api/v1"+path, body)
}

// scrape scrapes the node until what it tells is enough.
func (w *watchedNode) scrape(enough func(scrape) bool) scrape {
	w.t.Helper()
	var told scrape
	require.Eventually(w.t, func() bool {
		code, body := get(w.t, w.own+"/metrics")
		require.Equal(w.t, http.StatusOK, code, body)
		parser := expfmt.NewTextParser(model.UTF8Validation)
		var err error
		told, err = parser.TextToMetricFamilies(strings.NewReader(body))
		require.NoError(w.t, err)
		return enough(told)
	}, 90*time.Second, 200*time.Millisecond)
	return told
}

// value is that of a counter or a gauge, of all its series with the label together.
func (s scrape) value(name, label, is string) (sum float64) {
	for _, m := range s[name].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == label && l.GetValue() == is {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// labels are those of a metric; nil if nobody tells it.
func (s scrape) labels(name string) []string {
	family := s[name]
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && s[base].GetType() == dto.MetricType_HISTOGRAM {
			family = s[base]
		}
	}
	if family == nil {
		return nil
	}
	labels := []string{}
	for _, l := range family.GetMetric()[0].GetLabel() {
		labels = append(labels, l.GetName())
	}
	slices.Sort(labels)
	return labels
}

// series are all numbers of ours, by how PromQL writes them.
func (s scrape) series() map[string]float64 {
	all := map[string]float64{}
	for name, family := range s {
		if !strings.HasPrefix(name, "riverbeat_") {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := []string{`instance="node"`}
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			if family.GetType() != dto.MetricType_HISTOGRAM {
				all[fmt.Sprintf("%s{%s}", name, strings.Join(labels, ","))] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
				continue
			}
			for _, b := range m.GetHistogram().GetBucket() {
				le := fmt.Sprintf(`le="%g"`, b.GetUpperBound())
				all[fmt.Sprintf("%s_bucket{%s}", name, strings.Join(append(labels, le), ","))] = float64(b.GetCumulativeCount())
			}
		}
	}
	return all
}

// What a node tells is what docs/operations.md, the rules and the dashboard know of.
func TestWhatANodeTellsPrometheus(t *testing.T) {
	t.Parallel()
	w := watchNode(t)
	w.post("/schedules", `{"task_name": "echo", "cron_expression": "@every 1s"}`)
	sleeping := w.post("/schedules", `{"task_name": "echo", "cron_expression": "@every 1m", "catch_up": "none"}`)
	code, _ := get(t, w.own+"/api/v1/schedules")
	require.Equal(t, http.StatusNotFound, code)
	well := w.scrape(func(s scrape) bool {
		return len(s["riverbeat_check_status"].GetMetric()) == 21 && s.value("riverbeat_river_jobs_total", "kind", "completed") > 0
	})

	t.Run("Page", func(t *testing.T) {
		t.Parallel()
		told := map[string][]string{}
		for name := range well {
			if strings.HasPrefix(name, "riverbeat_") {
				told[name] = well.labels(name)
			}
		}
		described := map[string][]string{}
		for _, row := range regexp.MustCompile("(?m)^\\| `(riverbeat_[a-z_]+)(?:\\{([a-z, ]+)\\})?` \\|").FindAllStringSubmatch(read(t, operations), -1) {
			require.NotContains(t, described, row[1])
			labels := slices.DeleteFunc(strings.Split(row[2], ", "), func(l string) bool { return l == "" })
			slices.Sort(labels)
			described[row[1]] = labels
		}
		require.Equal(t, slices.Sorted(maps.Keys(told)), slices.Sorted(maps.Keys(described)))
		require.Equal(t, told, described)
	})
	t.Run("Rules", func(t *testing.T) {
		t.Parallel()
		page := strings.ToLower(read(t, operations))
		for _, r := range rules(t) {
			askable(t, well, r.Expr)
			require.Contains(t, []string{"page", "ticket"}, r.Labels["severity"], r.Alert)
			require.NotEmpty(t, r.Annotations["summary"], r.Alert)
			require.NotEmpty(t, r.Annotations["description"], r.Alert)
			require.Equal(t, "docs/operations.md#"+strings.ToLower(r.Alert), r.Annotations["runbook"])
			require.Contains(t, page, "\n### "+strings.ToLower(r.Alert)+"\n")
		}
	})
	t.Run("Dashboard", func(t *testing.T) {
		t.Parallel()
		var dashboard struct {
			Panels []struct {
				ID      int    `json:"id"`
				Title   string `json:"title"`
				Type    string `json:"type"`
				Targets []struct {
					Expr       string            `json:"expr"`
					Datasource map[string]string `json:"datasource"`
				} `json:"targets"`
			} `json:"panels"`
			Templating struct {
				List []struct {
					Name string `json:"name"`
				} `json:"list"`
			} `json:"templating"`
		}
		require.NoError(t, json.Unmarshal([]byte(read(t, dashboardFile)), &dashboard))
		var variables []string
		for _, v := range dashboard.Templating.List {
			variables = append(variables, v.Name)
		}
		require.Equal(t, []string{"datasource", "instance"}, variables)
		ids := map[int]bool{}
		for _, p := range dashboard.Panels {
			require.False(t, ids[p.ID], p.Title)
			ids[p.ID] = true
			require.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
			for _, target := range p.Targets {
				require.Equal(t, "${datasource}", target.Datasource["uid"], p.Title)
				askable(t, well, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"))
			}
		}
	})

	// The alerts of a well node, and of one that is ill in three ways.
	w.post("/schedules", `{"task_name": "nobody", "cron_expression": "@daily"}`)
	w.post("/task-definitions", `{"task_name": "broken", "executor": {"kind": "go", "name": "fail"}, "max_attempts": 1}`)
	broken := w.post("/schedules", `{"task_name": "broken", "cron_expression": "0 0 1 1 *"}`)
	for range 6 {
		w.post("/schedules/"+broken+"/run", "{}")
	}
	_, err := w.Pool.Exec(t.Context(), `
UPDATE schedule_clocks SET last_scheduled_for = now() - interval '2 hours', next_run_at = now() - interval '1 hour' WHERE schedule_id = $1`, sleeping)
	require.NoError(t, err)
	ill := w.scrape(func(s scrape) bool {
		return s.value("riverbeat_check_status", "check", "unregistered_tasks") == 2 && s.value("riverbeat_missed_ticks_total", "reason", "outside_window") > 0 &&
			s.value("riverbeat_attempts_total", "task", "broken") == 6
	})
	t.Run("Alerts", func(t *testing.T) {
		t.Parallel()
		promtool, err := exec.LookPath("promtool")
		if err != nil {
			t.Skip("there is no promtool; deploy/install-deps.sh promtool installs it")
		}
		before, after := well.series(), ill.series()
		series := []map[string]string{}
		for name, value := range after {
			was, ok := before[name]
			if !ok && strings.Contains(name, "_total{") {
				was, ok = 0, true // as one sees whose node has told it since it began
			}
			if values := fmt.Sprintf("%gx60 %gx60", was, value); ok && !math.IsNaN(was+value) {
				series = append(series, map[string]string{"series": name, "values": values})
			}
		}
		type sample struct {
			Labels string  `json:"labels"`
			Value  float64 `json:"value"`
		}
		firing := func(at string, alerts ...sample) map[string]any {
			return map[string]any{"expr": `sum by (alertname, check, task, reason) (ALERTS{alertstate="firing"})`, "eval_time": at, "exp_samples": alerts}
		}
		written, err := json.Marshal(map[string]any{
			"rule_files": []string{"riverbeat.rules.yml"}, "evaluation_interval": "1m",
			"tests": []any{map[string]any{"interval": "1m", "input_series": series, "promql_expr_test": []any{
				firing("59m"),
				firing("1h10m",
					sample{`{alertname="RiverbeatCheckFails", check="unregistered_tasks"}`, 1},
					sample{`{alertname="RiverbeatTaskFails", task="broken"}`, 1},
					sample{`{alertname="RiverbeatTicksMissed", reason="outside_window"}`, 1}),
			}}},
		})
		require.NoError(t, err)
		dir := t.TempDir()
		for name, text := range map[string]string{
			"riverbeat.rules.yml": read(t, rulesFile), "riverbeat.rules.test.yml": read(t, "testdata/riverbeat.rules.test.yml"), "nodes.test.yml": string(written),
		} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		check := exec.CommandContext(t.Context(), promtool, "test", "rules", "riverbeat.rules.test.yml", "nodes.test.yml")
		check.Dir = dir
		out, err := check.CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
}

// Each alert has a test that makes it fire.
func TestEveryAlertCanFire(t *testing.T) {
	t.Parallel()
	tested := read(t, "testdata/riverbeat.rules.test.yml")
	for _, r := range rules(t) {
		require.Regexp(t, `alertname: `+r.Alert+`\n +eval_time: \S+\n +exp_alerts:`, tested)
	}
}

// rule is an alerting rule for Prometheus.
type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         model.Duration    `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	decoder := yaml.NewDecoder(strings.NewReader(read(t, rulesFile)))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&file))
	require.Len(t, file.Groups, 1)
	require.NotEmpty(t, file.Groups[0].Rules)
	return file.Groups[0].Rules
}

// askable holds that an expression can be read, and asks for metrics and labels that a node
// tells.
func askable(t *testing.T, told scrape, expression string) {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	require.NoError(t, err, expression)
	known := []string{"instance", "le"}
	var asked []string
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			labels := told.labels(n.Name)
			require.NotNil(t, labels, "nobody tells %s, in: %s", n.Name, expression)
			known = append(known, labels...)
			for _, m := range n.LabelMatchers {
				if m.Name != "__name__" {
					require.Contains(t, append(labels, "instance", "le"), m.Name, expression)
				}
			}
		case *parser.AggregateExpr:
			asked = append(asked, n.Grouping...)
		}
		return nil
	})
	require.Subset(t, known, asked, expression)
	require.Greater(t, len(known), 1)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}
