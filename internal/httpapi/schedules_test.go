package httpapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/httpapi"
)

const (
	schedules   = "/api/v1/schedules"
	definitions = "/api/v1/task-definitions"
	runs        = "/api/v1/runs"
)

func TestCreateSchedule(t *testing.T) {
	t.Parallel()

	c := setup(t)
	r := c.do("POST", schedules, `{
		"name": "Morgengruß 日 <&>", "task_name": "say/hello.v1", "cron_expression": "0 9 * * mon-fri", "timezone": "Europe/Berlin",
		"enabled": false, "args": [1, "two", {"x": 9007199254740993}], "task_params": {"b": 1.50, "a": "<&>"}, "description": "two\nlines",
		"category": "office", "tags": ["b", "a"], "execution_policy": "queue", "catch_up": "all", "catch_up_window": "1d12h",
		"max_waiting": 5, "starts_at": "2026-01-01T00:00:00.123456+09:00", "ends_at": "2031-01-01T00:00:00Z",
		"max_attempts": 7, "retry": {"backoff": "2s"}, "timeout": "90s"}`)
	require.Equal(t, http.StatusCreated, r.StatusCode, "%s", r.body)
	require.Equal(t, "application/json", r.Header.Get("Content-Type"))
	require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
	made := r.object()
	require.Regexp(t, idPattern, made["id"])
	require.Equal(t, schedules+"/"+made["id"].(string), r.Header.Get("Location"))
	golden(t, "schedule_full", r.body, scheduleNames(made))

	require.Contains(t, string(r.body), `"args":[1,"two",{"x":9007199254740993}]`, "digits and order are kept")
	require.Equal(t, made, c.ask(http.StatusOK, "GET", schedules+"/"+made["id"].(string), ""))
}

func TestCreateScheduleWithDefaults(t *testing.T) {
	t.Parallel()

	c := setup(t)
	const least = `"task_name": "clean_up_task", "cron_expression": "0 * * * *"`
	absent := c.do("POST", schedules, `{`+least+`}`)
	require.Equal(t, http.StatusCreated, absent.StatusCode, "%s", absent.body)
	golden(t, "schedule_least", absent.body, scheduleNames(absent.object()))

	null := c.ask(http.StatusCreated, "POST", schedules, `{`+least+`, "name": null, "timezone": null, "enabled": null,
		"args": null, "task_params": null, "description": null, "category": null, "tags": null, "execution_policy": null,
		"catch_up": null, "catch_up_window": null, "max_waiting": null, "max_attempts": null, "retry": null, "timeout": null,
		"alerts": null, "starts_at": null, "ends_at": null}`)
	require.Equal(t, without(absent.object(), "id", "created_at", "updated_at"), without(null, "id", "created_at", "updated_at"))
}

func scheduleNames(made map[string]any) *strings.Replacer {
	names := []string{
		made["id"].(string), "{id}",
		made["created_at"].(string), "{created_at}", made["updated_at"].(string), "{updated_at}",
	}
	if next, ok := made["next_run_at"].(string); ok {
		names = append(names, next, "{next_run_at}")
	}
	return strings.NewReplacer(names...)
}

func without(object map[string]any, names ...string) map[string]any {
	rest := map[string]any{}
	for name, value := range object {
		if !slices.Contains(names, name) {
			rest[name] = value
		}
	}
	return rest
}

func TestLimitsOfASchedule(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily", "retry": {}, "timeout": "0s"}`)
	require.Equal(t, map[string]any{"backoff": "1s", "max_backoff": "5m"}, made["retry"])
	require.Nil(t, made["timeout"], "as its task has it")
	at := schedules + "/" + made["id"].(string)
	patched := c.ask(http.StatusOK, "PATCH", at, `{"max_attempts": 2, "retry": {"backoff": "10m", "max_backoff": "20m"}, "timeout": 1.5}`)
	require.InDelta(t, 2, patched["max_attempts"], 0)
	require.Equal(t, map[string]any{"backoff": "10m", "max_backoff": "10m"}, c.ask(http.StatusOK, "PATCH", at, `{"retry": {"max_backoff": null}}`)["retry"])
	require.Equal(t, "1.5s", patched["timeout"])
	patched = c.ask(http.StatusOK, "PATCH", at, `{"max_attempts": null, "retry": null, "timeout": null}`)
	require.Nil(t, patched["max_attempts"])
	require.Nil(t, patched["retry"])
	require.Nil(t, patched["timeout"])
	for _, wrong := range []string{`{"max_attempts": 0}`, `{"max_attempts": 101}`, `{"timeout": "8d"}`, `{"timeout": -1}`, `{"retry": {"backoff": "2h", "max_backoff": "1h"}}`} {
		c.ask(http.StatusUnprocessableEntity, "PATCH", at, wrong)
	}
}

func TestCategoryIsCopiedAtCreationOnly(t *testing.T) {
	t.Parallel()

	c := setup(t)
	c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "report", "category": "finance"}`)
	for _, category := range []string{``, `, "category": null`, `, "category": ""`} {
		made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "report", "cron_expression": "@daily"`+category+`}`)
		require.Equal(t, "finance", made["category"], category)
		at := schedules + "/" + made["id"].(string)
		require.Equal(t, "finance", c.ask(http.StatusOK, "PATCH", at, `{"description": "x"}`)["category"])
		require.Nil(t, c.ask(http.StatusOK, "PUT", at, `{"task_name": "report", "cron_expression": "@daily"`+category+`}`)["category"])
	}
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "report", "cron_expression": "@daily", "category": "mine"}`)
	require.Equal(t, "mine", made["category"])
	require.Nil(t, c.ask(http.StatusOK, "PATCH", schedules+"/"+made["id"].(string), `{"category": ""}`)["category"])
}

func TestPutScheduleReplacesAll(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{
		"name": "first", "task_name": "echo", "cron_expression": "0 9 * * *", "timezone": "UTC", "enabled": false, "args": [1],
		"task_params": {"a": 1}, "description": "d", "category": "c", "tags": ["t"], "execution_policy": "skip", "catch_up": "none",
		"catch_up_window": 0, "max_waiting": 1, "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2031-01-01T00:00:00Z"}`)
	require.Equal(t, "0s", made["catch_up_window"])
	at := schedules + "/" + made["id"].(string)
	put := c.ask(http.StatusOK, "PUT", at, `{"task_name": "echo", "cron_expression": "0 9 * * *"}`)
	fresh := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "0 9 * * *"}`)
	require.Equal(t, without(fresh, "id", "version", "created_at", "updated_at"), without(put, "id", "version", "created_at", "updated_at"))
	require.Equal(t, made["id"], put["id"])
	require.Equal(t, made["created_at"], put["created_at"])
	require.EqualValues(t, 2, put["version"])

	again := c.ask(http.StatusOK, "PUT", at, `{"cron_expression": "0 9 * * *", "task_name": "echo"}`)
	require.Equal(t, put, again, "nothing changed, so nothing is written")
}

func TestPatchSchedule(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{
		"name": "first", "task_name": "echo", "cron_expression": "0 9 * * *", "task_params": {"keep": {"x": 1, "y": 2}, "drop": 1, "n": 1.0},
		"tags": ["a", "b"], "timezone": "UTC", "description": "d", "enabled": false, "starts_at": "2026-01-01T00:00:00Z"}`)
	at := schedules + "/" + made["id"].(string)
	patched := c.ask(http.StatusOK, "PATCH", at, `{
		"task_params": {"keep": {"y": null, "z": {"deep": true, "gone": null}}, "drop": null, "list": [null]},
		"tags": ["c"], "timezone": null, "description": null, "enabled": true, "starts_at": null, "catch_up_window": 5400}`,
		"Content-Type: application/merge-patch+json")
	require.Equal(t, map[string]any{
		"keep": map[string]any{"x": 1.0, "z": map[string]any{"deep": true}}, "n": 1.0, "list": []any{nil},
	}, patched["task_params"])
	for name, want := range map[string]any{
		"name": "first", "auto_generated_name": false, "tags": []any{"c"}, "timezone": "Asia/Tokyo", "description": nil,
		"enabled": true, "starts_at": nil, "catch_up_window": "1h30m", "cron_expression": "0 9 * * *", "version": 2.0,
	} {
		require.Equal(t, want, patched[name], name)
	}
	require.NotNil(t, patched["next_run_at"])
	require.Equal(t, patched, c.ask(http.StatusOK, "PATCH", at, `{}`), "nothing changed, so nothing is written")
	require.Equal(t, patched, c.ask(http.StatusOK, "GET", at, ""))
}

func TestNames(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{
		"task_name": "fetch_listed_info_task_asyncpg", "cron_expression": "0 * * * *", "task_params": {"period_type": "daily"}}`)
	at := schedules + "/" + made["id"].(string)
	step := func(method, body, name string, auto bool) {
		t.Helper()
		got := c.ask(http.StatusOK, method, at, body)
		require.Equal(t, name, got["name"])
		require.Equal(t, auto, got["auto_generated_name"])
	}
	step("PATCH", `{}`, "fetch_listed_info_daily_hourly", true)
	step("PATCH", `{"cron_expression": "0 0 * * 0"}`, "fetch_listed_info_daily_weekly", true)
	step("PATCH", `{"name": "fetch_listed_info_daily_weekly"}`, "fetch_listed_info_daily_weekly", false)
	step("PATCH", `{"cron_expression": "0 0 1 * *"}`, "fetch_listed_info_daily_weekly", false)
	step("PATCH", `{"name": null}`, "fetch_listed_info_daily_monthly", true)
	step("PATCH", `{"name": "mine"}`, "mine", false)
	step("PATCH", `{"name": ""}`, "fetch_listed_info_daily_monthly", true)
	step("PUT", `{"name": "mine", "task_name": "fetch_listed_info", "cron_expression": "* * * * *"}`, "mine", false)
	step("PUT", `{"task_name": "fetch_listed_info", "cron_expression": "* * * * *"}`, "fetch_listed_info_every_minute", true)
}

func TestEnableAndDisable(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "0 9 * * *"}`)
	at := schedules + "/" + made["id"].(string)
	off := c.ask(http.StatusOK, "POST", at+"/disable", "")
	require.Equal(t, false, off["enabled"])
	require.Nil(t, off["next_run_at"])
	require.EqualValues(t, 2, off["version"])
	require.Equal(t, off, c.ask(http.StatusOK, "POST", at+"/disable", ""))
	on := c.ask(http.StatusOK, "POST", at+"/enable", "{}")
	require.Equal(t, true, on["enabled"])
	require.Equal(t, made["next_run_at"], on["next_run_at"])
}

func TestDeleteSchedule(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "0 9 * * *"}`)
	at := schedules + "/" + made["id"].(string)
	run := c.ask(http.StatusCreated, "POST", at+"/run", "")
	r := c.do("DELETE", at, "")
	require.Equal(t, http.StatusNoContent, r.StatusCode)
	require.Empty(t, r.body)
	c.ask(http.StatusNotFound, "GET", at, "")
	c.ask(http.StatusNotFound, "DELETE", at, "")
	require.Equal(t, []any{run["id"]}, field(c.ask(http.StatusOK, "GET", at+"/runs", ""), "id"), "its history stays")
}

func TestListSchedules(t *testing.T) {
	t.Parallel()

	c := setup(t)
	for _, body := range []string{
		`{"name": "alpha one", "task_name": "a", "cron_expression": "0 1 1 1 *", "category": "x", "tags": ["red", "big"]}`,
		`{"name": "beta two", "task_name": "b", "cron_expression": "0 2 1 1 *", "category": "x", "tags": ["red"], "enabled": false}`,
		`{"name": "gamma one", "task_name": "a", "cron_expression": "0 3 1 1 *", "tags": ["big"]}`,
		`{"name": "delta", "task_name": "c", "cron_expression": "0 4 1 1 *"}`,
	} {
		c.ask(http.StatusCreated, "POST", schedules, body)
	}
	for query, want := range map[string][]any{
		"":                         {"delta", "gamma one", "beta two", "alpha one"},
		"sort=-created_at":         {"delta", "gamma one", "beta two", "alpha one"},
		"sort=created_at":          {"alpha one", "beta two", "gamma one", "delta"},
		"sort=name":                {"alpha one", "beta two", "delta", "gamma one"},
		"sort=-name":               {"gamma one", "delta", "beta two", "alpha one"},
		"sort=next_run_at":         {"alpha one", "gamma one", "delta", "beta two"},
		"sort=-next_run_at":        {"beta two", "delta", "gamma one", "alpha one"},
		"category=x&sort=name":     {"alpha one", "beta two"},
		"category=&sort=name":      {"delta", "gamma one"},
		"tags=red&sort=name":       {"alpha one", "beta two"},
		"tags=red&tags=big":        {"alpha one"},
		"tags=red&tags=none":       {},
		"task_name=a&sort=name":    {"alpha one", "gamma one"},
		"enabled=false":            {"beta two"},
		"enabled=true&sort=name":   {"alpha one", "delta", "gamma one"},
		"name=alpha+one":           {"alpha one"},
		"name=alpha":               {},
		"q=one&sort=name":          {"alpha one", "gamma one"},
		"q=ONE+gam":                {"gamma one"},
		"q=%21":                    {},
		"q=&page_token=&sort=name": {"alpha one", "beta two", "delta", "gamma one"},
	} {
		page := c.ask(http.StatusOK, "GET", schedules+"?"+query, "")
		require.Equal(t, want, field(page, "name"), query)
		require.Nil(t, page["next_page_token"])
		require.Len(t, page, 2)

		// The same, one by one.
		got, token := []any{}, ""
		for {
			page := c.ask(http.StatusOK, "GET", schedules+"?page_size=1&"+strings.Replace(query, "page_token=", "", 1)+"&page_token="+token, "")
			got = append(got, field(page, "name")...)
			next, more := page["next_page_token"].(string)
			if !more {
				break
			}
			token = url.QueryEscape(next)
		}
		require.Equal(t, want, got, query)
	}
	first := c.ask(http.StatusOK, "GET", schedules+"?tags=big&tags=red&page_size=1&task_name=a", "")
	require.Nil(t, first["next_page_token"])
	first = c.ask(http.StatusOK, "GET", schedules+"?sort=-created_at&page_size=1", "")
	rest := c.ask(http.StatusOK, "GET", schedules+"?page_size=1000&page_token="+first["next_page_token"].(string), "")
	require.Len(t, items(rest), 3, "the same list, said otherwise; and another page size")
}

func TestNextTicks(t *testing.T) {
	t.Parallel()

	c := setup(t, func(cfg *httpapi.Config) {
		cfg.Now = func() time.Time { return time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC) }
	})
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "30 2 * * *", "timezone": "Europe/Berlin",
		"enabled": false, "starts_at": "2026-03-29T00:00:00Z", "ends_at": "2026-04-01T00:30:00Z"}`)
	at := schedules + "/" + made["id"].(string) + "/next"
	r := c.do("GET", at, "")
	require.Equal(t, http.StatusOK, r.StatusCode)
	golden(t, "next", r.body, strings.NewReplacer())

	got := c.ask(http.StatusOK, "GET", at+"?count=1&after=2026-03-29T01:00:00Z", "")
	require.Equal(t, []any{map[string]any{"at": "2026-03-30T00:30:00Z", "local": "2026-03-30T02:30:00+02:00"}}, got["ticks"])
	got = c.ask(http.StatusOK, "GET", at+"?after=2026-05-01T00:00:00%2B02:00", "")
	require.Equal(t, []any{}, got["ticks"])
}

func TestPreview(t *testing.T) {
	t.Parallel()

	c := setup(t, func(cfg *httpapi.Config) {
		cfg.Now = func() time.Time { return time.Date(2026, 10, 24, 12, 0, 0, 0, time.UTC) }
	})
	r := c.do("POST", schedules+"/preview", `{"cron_expression": "*/30 2 * * *", "timezone": "Europe/Berlin"}`)
	require.Equal(t, http.StatusOK, r.StatusCode, "%s", r.body)
	golden(t, "preview", r.body, strings.NewReplacer())

	for zone, n := range map[string]int{"UTC": 10, "Asia/Tokyo": 1, "America/New_York": 10} {
		last := c.ask(http.StatusOK, "POST", schedules+"/preview",
			`{"cron_expression": "@hourly", "count": 100, "after": "9999-12-31T13:00:00Z", "timezone": "`+zone+`"}`)
		require.Len(t, last["ticks"], n, zone)
	}
	require.Equal(t, "2026-10-25T00:00:00+09:00",
		c.ask(http.StatusOK, "POST", schedules+"/preview", `{"cron_expression": "@daily", "count": 1.0}`)["ticks"].([]any)[0].(map[string]any)["local"])
	for _, count := range []int{0, 101} {
		c.ask(http.StatusUnprocessableEntity, "POST", schedules+"/preview", fmt.Sprintf(`{"cron_expression": "@daily", "count": %d}`, count))
	}
}
