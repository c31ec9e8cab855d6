package httpapi_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBulk(t *testing.T) {
	t.Parallel()
	c := setup(t)
	const bulk = schedules + "/bulk"
	var ids []string
	for i := range 4 {
		made := c.ask(http.StatusCreated, "POST", schedules, fmt.Sprintf(
			`{"name": "number %d", "task_name": "echo", "cron_expression": "@daily", "category": "x", "tags": ["t%d"], "execution_policy": "skip"}`, i, i))
		ids = append(ids, made["id"].(string))
	}
	other := c.ask(http.StatusCreated, "POST", schedules, `{"name": "other", "task_name": "echo", "cron_expression": "@daily"}`)["id"].(string)
	do := func(body string) (answer map[string]any, outcomes map[string]string) {
		t.Helper()
		answer = c.ask(http.StatusOK, "POST", bulk, body)
		outcomes = map[string]string{}
		counts := map[string]float64{"done": 0, "unchanged": 0, "failed": 0}
		for _, item := range items(answer) {
			outcomes[item["id"].(string)] = item["outcome"].(string)
			counts[item["outcome"].(string)]++
			require.Equal(t, item["outcome"] == "failed", item["error"] != nil)
		}
		for name, n := range counts {
			require.InDelta(t, n, answer[name], 0)
		}
		require.Len(t, items(answer), int(answer["matched"].(float64)))
		return answer, outcomes
	}
	all := func(outcome string) map[string]string {
		m := map[string]string{}
		for _, id := range ids {
			m[id] = outcome
		}
		return m
	}

	dry, outcomes := do(`{"filter": {"category": "x"}, "action": "disable", "dry_run": true}`)
	require.Equal(t, true, dry["dry_run"])
	require.Equal(t, all("done"), outcomes)
	_, outcomes = do(`{"filter": {"category": "x"}, "action": "disable"}`)
	require.Equal(t, all("done"), outcomes, "the dry run has left nothing")
	_, outcomes = do(`{"filter": {"category": "x"}, "action": "disable"}`)
	require.Equal(t, all("unchanged"), outcomes)
	require.Equal(t, true, c.ask(http.StatusOK, "GET", schedules+"/"+other, "")["enabled"])
	do(`{"filter": {"q": "number", "enabled": false}, "action": "enable"}`)

	_, outcomes = do(`{"filter": {"category": "x"}, "action": "tag", "tags": ["t1", "new"]}`)
	require.Equal(t, all("done"), outcomes)
	require.Equal(t, []any{"t0", "t1", "new"}, c.ask(http.StatusOK, "GET", schedules+"/"+ids[0], "")["tags"])
	require.Equal(t, []any{"t1", "new"}, c.ask(http.StatusOK, "GET", schedules+"/"+ids[1], "")["tags"])
	_, outcomes = do(`{"filter": {"tags": ["new", "t2"]}, "action": "untag", "tags": ["t2", "t3"]}`)
	require.Equal(t, map[string]string{ids[2]: "done"}, outcomes)

	// An item that cannot be done keeps no other from it.
	answer, outcomes := do(`{"ids": ["` + ids[0] + `", "` + nobody + `", "` + other + `"], "action": "run"}`)
	require.Equal(t, map[string]string{ids[0]: "done", nobody: "failed", other: "done"}, outcomes)
	for _, item := range items(answer) {
		if item["outcome"] == "failed" {
			require.Equal(t, "schedule_not_found", item["error"].(map[string]any)["code"])
			require.Nil(t, item["name"])
			continue
		}
		require.Equal(t, "queued", item["run"].(map[string]any)["state"])
	}
	answer, _ = do(`{"ids": ["` + ids[1] + `"], "action": "run"}`)
	require.Equal(t, "skipped", items(answer)[0]["run"].(map[string]any)["state"], "it has the key of the first")
	require.Equal(t, 3, c.count("runs"))
	c.exec("UPDATE schedules SET timezone = 'Atlantis/Capital' WHERE id = $1", ids[3])
	answer, outcomes = do(`{"filter": {"category": "x"}, "action": "tag", "tags": ["late"]}`)
	require.Equal(t, "failed", outcomes[ids[3]])
	require.InDelta(t, 3, answer["done"], 0)

	// Who did it is in the trail, for each.
	trail := items(c.ask(http.StatusOK, "GET", "/api/v1/audit?action=schedule.disable", ""))
	require.Len(t, trail, 4)

	_, outcomes = do(`{"filter": {}, "action": "delete"}`)
	require.Len(t, outcomes, 5)
	require.Equal(t, 0, c.count("schedules"))
	empty, _ := do(`{"filter": {}, "action": "delete"}`)
	require.InDelta(t, 0, empty["matched"], 0)
}

func TestBulkIsBounded(t *testing.T) {
	t.Parallel()
	c := setup(t)
	c.exec(`INSERT INTO schedules (name, task_name, cron_expression, timezone) SELECT 'n' || i, 'echo', '@daily', 'UTC' FROM generate_series(1, 501) AS i`)
	c.exec(`INSERT INTO schedule_clocks (schedule_id, last_scheduled_for, next_run_at) SELECT id, now(), now() + interval '1 day' FROM schedules`)
	refused := c.ask(http.StatusUnprocessableEntity, "POST", schedules+"/bulk", `{"filter": {}, "action": "disable"}`)
	require.Equal(t, "too_many_schedules", refused["code"])
	c.exec(`DELETE FROM schedules WHERE name = 'n7'`)
	require.InDelta(t, 500, c.ask(http.StatusOK, "POST", schedules+"/bulk", `{"filter": {}, "action": "disable"}`, "Idempotency-Key: k")["done"], 0)
	require.InDelta(t, 500, c.ask(http.StatusOK, "POST", schedules+"/bulk", `{"filter": {}, "action": "disable"}`, "Idempotency-Key: k")["done"], 0, "a replay")
}

func TestBulkRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	c := setup(t)
	id := `"` + nobody + `"`
	for body, pointer := range map[string]string{
		`{"action": "disable"}`:                                    "/ids",
		`{"ids": [], "action": "disable"}`:                         "/ids",
		`{"ids": [` + id + `], "filter": {}, "action": "disable"}`: "/ids",
		`{"ids": [` + id + `, ` + id + `], "action": "disable"}`:   "/ids/1",
		`{"ids": ["x"], "action": "disable"}`:                      "/ids/0",
		`{"ids": [null], "action": "disable"}`:                     "/ids/0",
		`{"ids": [` + id + `]}`:                                    "/action",
		`{"ids": [` + id + `], "action": "explode"}`:               "/action",
		`{"ids": [` + id + `], "action": "tag"}`:                   "/tags",
		`{"ids": [` + id + `], "action": "tag", "tags": []}`:       "/tags",
		`{"ids": [` + id + `], "action": "run", "tags": ["x"]}`:    "/tags",
		`{"filter": {"catgory": "x"}, "action": "run"}`:            "/filter/catgory",
		`{"filter": {"enabled": "yes"}, "action": "run"}`:          "/filter/enabled",
		`{"filter": [], "action": "run"}`:                          "/filter",
	} {
		wrong := c.ask(http.StatusUnprocessableEntity, "POST", schedules+"/bulk", body)["errors"].([]any)
		require.Equal(t, pointer, wrong[0].(map[string]any)["pointer"], body)
	}
}
