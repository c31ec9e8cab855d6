package command

import (
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
)

// scraped starts a node that has done something of everything, and answers what it tells
// Prometheus, once it tells everything.
func scraped(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	d := pgtest.DB(t)
	address, own := freeAddress(t), freeAddress(t)
	start(t, "serve", "--database-url", d.URL, "--insecure-no-auth", "--listen", address, "--metrics-listen", own)
	require.Eventually(t, func() bool { return reachable(t, own) }, 30*time.Second, 20*time.Millisecond)
	code, body := ask(t, http.MethodPost, "http://"+address+"/api/v1/schedules", `{"task_name": "echo", "cron_expression": "@every 1s"}`)
	require.Equal(t, http.StatusCreated, code, body)
	code, _ = get(t, "http://"+own+"/api/v1/schedules")
	require.Equal(t, http.StatusNotFound, code)
	var families map[string]*dto.MetricFamily
	require.Eventually(t, func() bool {
		code, body := get(t, "http://"+own+"/metrics")
		require.Equal(t, http.StatusOK, code, body)
		parser := expfmt.NewTextParser(model.UTF8Validation)
		var err error
		families, err = parser.TextToMetricFamilies(strings.NewReader(body))
		require.NoError(t, err)
		return len(families["riverbeat_check_status"].GetMetric()) == 20 && len(families["riverbeat_river_jobs_total"].GetMetric()) > 0
	}, 60*time.Second, 100*time.Millisecond)
	return families
}

func reachable(t *testing.T, address string) bool {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/healthz", http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	require.NoError(t, response.Body.Close())
	return response.StatusCode == http.StatusOK
}

// docs/operations.md has each metric that a node tells, with its labels, and no other.
func TestThePageHasEveryMetric(t *testing.T) {
	t.Parallel()
	told := map[string]string{}
	for name, family := range scraped(t) {
		if !strings.HasPrefix(name, "riverbeat_") {
			continue
		}
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		told[name] = strings.Join(labels, ", ")
	}
	page, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	described := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(riverbeat_[a-z_]+)(?:\\{([a-z, ]+)\\})?` \\|").FindAllStringSubmatch(string(page), -1) {
		labels := strings.Split(row[2], ", ")
		slices.Sort(labels)
		require.NotContains(t, described, row[1])
		described[row[1]] = strings.Join(labels, ", ")
	}
	require.Equal(t, slices.Sorted(maps.Keys(told)), slices.Sorted(maps.Keys(described)))
	require.Equal(t, told, described)
}
