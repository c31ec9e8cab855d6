package httpapi_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBackfill(t *testing.T) {
	t.Parallel()
	c := setup(t)
	at := c.do("POST", schedules, `{"task_name": "echo", "cron_expression": "0 12 * * *", "enabled": false}`).Header.Get("Location")
	const week = `"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"`
	for range 2 {
		dry := c.ask(http.StatusOK, "POST", at+"/backfill", `{`+week+`, "dry_run": true}`)
		require.InDelta(t, 7, dry["total"], 0)
		dry = c.ask(http.StatusOK, "POST", at+"/backfill?dry_run=true", `{`+week+`}`)
		require.InDelta(t, 7, dry["total"], 0)
	}
	require.Equal(t, 0, c.count("backfills"))
	r := c.do("POST", at+"/backfill", `{`+week+`, "execution_policy": "queue", "only_missing": true}`, "Idempotency-Key: k")
	require.Equal(t, http.StatusCreated, r.StatusCode, "%s", r.body)
	made := r.object()
	require.Equal(t, r.Header.Get("Location"), "/api/v1/backfills/"+made["id"].(string))
	for name, want := range map[string]any{
		"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z", "execution_policy": "queue", "only_missing": true, "state": "running",
		"reason": nil, "total": 7.0, "decided": 0.0, "left_out": 0.0, "last_error": nil, "requested_by": "anonymous", "finished_at": nil,
	} {
		require.Equal(t, want, made[name], name)
	}
	require.Equal(t, made, c.ask(http.StatusCreated, "POST", at+"/backfill", `{`+week+`, "execution_policy": "queue", "only_missing": true}`, "Idempotency-Key: k"))
	require.Equal(t, 1, c.count("backfills"))

	read := c.ask(http.StatusOK, "GET", r.Header.Get("Location"), "")
	require.Equal(t, made, read)
	require.Equal(t, map[string]any{
		"waiting": 0.0, "queued": 0.0, "running": 0.0, "retrying": 0.0, "succeeded": 0.0, "failed": 0.0, "cancelled": 0.0, "skipped": 0.0,
	}, read["runs"])
	second := c.ask(http.StatusCreated, "POST", at+"/backfill", `{`+week+`}`)
	page := c.ask(http.StatusOK, "GET", "/api/v1/backfills?page_size=1", "")
	require.Equal(t, []any{second["id"]}, field(page, "id"))
	require.NotContains(t, items(page)[0], "runs")
	page = c.ask(http.StatusOK, "GET", "/api/v1/backfills?page_token="+page["next_page_token"].(string), "")
	require.Equal(t, []any{made["id"]}, field(page, "id"))
	cancelled := c.ask(http.StatusOK, "POST", r.Header.Get("Location")+"/cancel", "")
	require.Equal(t, "cancelled", cancelled["state"])
	require.Equal(t, "cancelled_by_user", cancelled["reason"])
	require.Equal(t, "backfill_ended", c.ask(http.StatusConflict, "POST", r.Header.Get("Location")+"/cancel", "")["code"])
	for query, want := range map[string]int{
		"state=running": 1, "state=cancelled": 1, "state=finished": 0, "schedule_id=" + nobody: 0, "schedule_id=" + made["schedule_id"].(string): 2,
	} {
		require.Len(t, items(c.ask(http.StatusOK, "GET", "/api/v1/backfills?"+query, "")), want, query)
	}
	trail := field(c.ask(http.StatusOK, "GET", "/api/v1/audit?object_type=backfill", ""), "action")
	require.Equal(t, []any{"backfill.cancel", "backfill.create", "backfill.create"}, trail)

	for body, pointer := range map[string]string{
		`{"from": "2026-03-01T00:00:00Z"}`:                               "/to",
		`{"to": "2026-03-01T00:00:00Z"}`:                                 "/from",
		`{"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}`: "/to",
		`{"from": "2026-03-01T00:00:00Z", "to": "2199-03-01T00:00:00Z"}`: "/to",
		`{"from": "yesterday", "to": "2026-03-01T00:00:00Z"}`:            "/from",
		`{` + week + `, "execution_policy": "perhaps"}`:                  "/execution_policy",
		`{` + week + `, "only_missing": "yes"}`:                          "/only_missing",
		`{` + week + `, "cron_expression": "@daily"}`:                    "/cron_expression",
	} {
		wrong := c.ask(http.StatusUnprocessableEntity, "POST", at+"/backfill", body)["errors"].([]any)
		require.Equal(t, pointer, wrong[0].(map[string]any)["pointer"], body)
	}
	c.ask(http.StatusNotFound, "POST", schedules+"/"+nobody+"/backfill", `{`+week+`}`)
	c.ask(http.StatusNotFound, "GET", "/api/v1/backfills/"+nobody, "")
	c.ask(http.StatusNotFound, "POST", "/api/v1/backfills/x/cancel", "")
}
