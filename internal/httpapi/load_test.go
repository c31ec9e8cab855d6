package httpapi_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	c := setup(t)
	for _, body := range []string{
		`{"name": "noon", "task_name": "a", "cron_expression": "0 12 * * *", "timezone": "UTC"}`,
		`{"name": "noon too", "task_name": "b", "cron_expression": "0 12 * * *", "timezone": "UTC"}`,
		`{"name": "hourly", "task_name": "c", "cron_expression": "@hourly", "timezone": "UTC"}`,
		`{"name": "off", "task_name": "d", "cron_expression": "* * * * *", "timezone": "UTC", "enabled": false}`,
		`{"name": "ended", "task_name": "e", "cron_expression": "* * * * *", "timezone": "UTC", "ends_at": "2099-12-31T00:00:00Z"}`,
	} {
		c.ask(http.StatusCreated, "POST", schedules, body)
	}
	got := c.ask(http.StatusOK, "GET", "/api/v1/load?from=2100-03-01T11:30:00Z&to=2100-03-01T13:00:00Z", "")
	require.Equal(t, []any{map[string]any{"at": "2100-03-01T12:00:00Z", "ticks": 3.0}}, got["minutes"])
	require.InDelta(t, 3, got["total"], 0)
	peak := got["peaks"].([]any)[0].(map[string]any)
	cause := peak["causes"].([]any)[0].(map[string]any)
	require.Equal(t, "0 12 * * *", cause["cron_expression"])
	require.InDelta(t, 2, cause["ticks"], 0)
	require.Len(t, cause["schedules"], 2)
	require.Equal(t, "hourly", peak["causes"].([]any)[1].(map[string]any)["schedules"].([]any)[0].(map[string]any)["name"])

	day := c.ask(http.StatusOK, "GET", "/api/v1/load", "")
	from, err := time.Parse(time.RFC3339, day["from"].(string))
	require.NoError(t, err)
	to, err := time.Parse(time.RFC3339, day["to"].(string))
	require.NoError(t, err)
	require.Equal(t, 24*time.Hour, to.Sub(from))
	require.Len(t, day["peaks"], 10)
	c.ask(http.StatusCreated, "POST", schedules, `{"name": "new", "task_name": "f", "cron_expression": "* * * * *", "timezone": "UTC"}`)
	if again := c.ask(http.StatusOK, "GET", "/api/v1/load", ""); again["from"] == day["from"] {
		require.Equal(t, day, again, "it may be a minute old")
	}
	for query, name := range map[string]string{
		"from=2020-01-01T00:00:00Z": "from", "from=2100-03-01T00:00:00Z&to=2100-03-01T00:00:00Z": "to",
		"from=2100-03-01T00:00:00Z&to=2100-03-09T00:00:00Z": "to", "from=now": "from",
	} {
		wrong := c.ask(http.StatusUnprocessableEntity, "GET", "/api/v1/load?"+query, "")["errors"].([]any)
		require.Equal(t, name, wrong[0].(map[string]any)["pointer"], query)
	}
}
