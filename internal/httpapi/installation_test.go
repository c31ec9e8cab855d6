package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPauseAndResume(t *testing.T) {
	t.Parallel()

	c := setup(t)
	const installation, pause, resume = "/api/v1/installation", "/api/v1/pause", "/api/v1/resume"
	running := c.do("GET", installation, "")
	require.Equal(t, http.StatusOK, running.StatusCode)
	golden(t, "installation", running.body, strings.NewReplacer())
	require.Equal(t, running.object(), c.ask(http.StatusOK, "POST", resume, ""), "it runs already")

	r := c.do("POST", pause, `{"reason": "The warehouse is being migrated\nby Ada"}`)
	require.Equal(t, http.StatusOK, r.StatusCode, "%s", r.body)
	paused := r.object()
	golden(t, "installation_paused", r.body, strings.NewReplacer(paused["paused_at"].(string), "{paused_at}"))
	require.Equal(t, paused, c.ask(http.StatusOK, "GET", installation, ""))
	require.Equal(t, paused, c.ask(http.StatusOK, "POST", pause, `{"reason": "another"}`), "the pause that there is stands")

	require.Equal(t, running.object(), c.ask(http.StatusOK, "POST", resume, "{}"))
	require.Equal(t, running.object(), c.ask(http.StatusOK, "GET", installation, ""))
}

func TestRunNowIsNotHeldByAPause(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`)
	c.ask(http.StatusOK, "POST", "/api/v1/pause", `{"reason": "test"}`)
	require.Equal(t, "queued", c.ask(http.StatusCreated, "POST", schedules+"/"+made["id"].(string)+"/run", "")["state"])
}

// A copy of the database says so, and what it would do.
func TestAnInstallationOnHold(t *testing.T) {
	t.Parallel()
	c := setup(t)
	s := c.ask(http.StatusCreated, "POST", "/api/v1/schedules", `{"task_name": "echo", "cron_expression": "@daily", "name": "nightly"}`)
	c.ask(http.StatusCreated, "POST", "/api/v1/schedules/"+s["id"].(string)+"/run", "{}")
	c.exec("UPDATE installation SET system_identifier = system_identifier + 1")
	hold := c.ask(http.StatusOK, "GET", "/api/v1/installation", "")["hold"].(map[string]any)
	require.Contains(t, hold["why"], "is a copy")
	would := hold["would_run"].(map[string]any)
	require.EqualValues(t, 1, would["jobs"])
	require.Equal(t, "nightly", would["next"].([]any)[0].(map[string]any)["schedule_name"])
	require.Equal(t, "on_hold", c.ask(http.StatusServiceUnavailable, "POST", "/api/v1/schedules/"+s["id"].(string)+"/run", "{}")["code"])
}
