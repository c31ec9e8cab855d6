package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/httpapi"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/riverbeat"
)

const nobody = "11111111-2222-7333-8444-555555555555"

// given are the things that the requests below are about.
type given struct {
	schedule, otherPage  string
	live, ended, skipped string // runs of one key
	names                *strings.Replacer
}

func give(c *client) given {
	c.t.Helper()
	c.ask(http.StatusCreated, "POST", "/api/v1/task-definitions", `{
		"task_name": "greet", "executor": {"name": "echo"},
		"parameter_schema": {"type": "object", "required": ["text"], "additionalProperties": false,
			"properties": {"text": {"type": "string", "maxLength": 5}, "times": {"type": "integer"}}}}`)
	first := c.ask(http.StatusCreated, "POST", "/api/v1/schedules",
		`{"name": "given", "task_name": "greet", "cron_expression": "0 9 * * *", "task_params": {"text": "hello"}}`)
	c.ask(http.StatusCreated, "POST", "/api/v1/schedules",
		`{"name": "other", "task_name": "echo", "cron_expression": "0 9 * * *"}`)
	page := c.ask(http.StatusOK, "GET", "/api/v1/schedules?page_size=1", "")
	id := first["id"].(string)
	g := given{schedule: id, otherPage: page["next_page_token"].(string)}
	for _, to := range []*string{&g.ended, &g.live, &g.skipped} {
		*to = c.ask(http.StatusCreated, "POST", "/api/v1/schedules/"+id+"/run", `{"execution_policy": "skip"}`)["id"].(string)
		if to == &g.ended {
			c.exec("UPDATE river_job SET state = 'completed', finalized_at = now()")
		}
	}
	g.names = strings.NewReplacer(id, "{schedule}", g.live, "{live}", g.ended, "{ended}", g.skipped, "{skipped}")
	return g
}

// Every way to be refused, each with its document in testdata/problems.
func TestProblems(t *testing.T) {
	t.Parallel()

	const schedules, definitions = "/api/v1/schedules", "/api/v1/task-definitions"
	create := func(more string) string {
		return `{"task_name": "echo", "cron_expression": "0 9 * * *"` + more + `}`
	}
	for _, tt := range []struct {
		name                 string
		status               int
		method, target, body string
		headers              []string
	}{
		// 400: it cannot be read.
		{"pause without body", 400, "POST", "/api/v1/pause", ``, nil},
		{"body empty", 400, "POST", schedules, ``, nil},
		{"body cut off", 400, "POST", schedules, "{\n  \"name\": \"ü\",\n  \"task_na", nil},
		{"body no json", 400, "POST", schedules, "{\n  name: 1\n}", nil},
		{"body two values", 400, "POST", schedules, create("") + ` {}`, nil},
		{"body array", 400, "POST", schedules, `[]`, nil},
		{"body null", 400, "POST", schedules, `null`, nil},
		{"body not utf8", 400, "POST", schedules, create(`, "name": "` + "\xff" + `"`), nil},
		{"body key twice", 400, "POST", schedules, create(`, "task_params": {"a/b": [{"x": 1, "x": 2}]}`), nil},
		{"query escape", 400, "GET", schedules + "?q=%zz", ``, nil},
		{"query semicolon", 400, "GET", schedules + "?q=a;b", ``, nil},
		{"path not utf8", 400, "GET", definitions + "/%ff", ``, nil},

		// 404, 405: there is no such thing.
		{"path unknown", 404, "GET", "/api/v1/nothing", ``, nil},
		{"path with slash", 404, "GET", schedules + "/", ``, nil},
		{"schedule unknown", 404, "GET", schedules + "/" + nobody, ``, nil},
		{"schedule no uuid", 404, "GET", schedules + "/abc", ``, nil},
		{"schedule uuid in braces", 404, "GET", schedules + "/%7B" + nobody + "%7D", ``, nil},
		{"schedule put unknown", 404, "PUT", schedules + "/" + nobody, create(""), nil},
		{"schedule patch unknown", 404, "PATCH", schedules + "/" + nobody, `{}`, nil},
		{"schedule delete unknown", 404, "DELETE", schedules + "/" + nobody, ``, nil},
		{"schedule enable unknown", 404, "POST", schedules + "/" + nobody + "/enable", ``, nil},
		{"schedule disable unknown", 404, "POST", schedules + "/" + nobody + "/disable", ``, nil},
		{"schedule run unknown", 404, "POST", schedules + "/" + nobody + "/run", ``, nil},
		{"schedule runs unknown", 404, "GET", schedules + "/" + nobody + "/runs", ``, nil},
		{"schedule explain unknown", 404, "GET", schedules + "/" + nobody + "/explain?at=2026-03-02T08:00:00Z", ``, nil},
		{"schedule next unknown", 404, "GET", schedules + "/" + nobody + "/next", ``, nil},
		{"run unknown", 404, "GET", "/api/v1/runs/" + nobody, ``, nil},
		{"run cancel unknown", 404, "POST", "/api/v1/runs/" + nobody + "/cancel", ``, nil},
		{"run retry unknown", 404, "POST", "/api/v1/runs/" + nobody + "/retry", ``, nil},
		{"run not time ordered", 404, "GET", "/api/v1/runs/11111111-2222-4333-8444-555555555555", ``, nil},
		{"definition unknown", 404, "GET", definitions + "/no%2Fone", ``, nil},
		{"definition patch unknown", 404, "PATCH", definitions + "/none", `{}`, nil},
		{"definition delete unknown", 404, "DELETE", definitions + "/none", ``, nil},
		{"method of schedules", 405, "PATCH", schedules, `{}`, nil},
		{"method of pause", 405, "GET", "/api/v1/pause", ``, nil},
		{"method of runs", 405, "POST", "/api/v1/runs", `{}`, nil},

		// 409: the state of things does not allow it.
		{"definition exists", 409, "POST", definitions, `{"task_name": "greet"}`, nil},
		{"definition in use", 409, "DELETE", definitions + "/greet", ``, nil},
		{"run cancel ended", 409, "POST", "/api/v1/runs/{ended}/cancel", ``, nil},
		{"run retry not ended", 409, "POST", "/api/v1/runs/{live}/retry", ``, nil},
		{"run retry blocked", 409, "POST", "/api/v1/runs/{ended}/retry", ``, nil},
		{"run retry skipped", 409, "POST", "/api/v1/runs/{skipped}/retry", ``, nil},
		{"definition would break schedules", 409, "PATCH", definitions + "/greet", `{"parameter_schema": {"properties": {"text": {"maxLength": 4}}}}`, nil},

		// 413, 415: it is not read.
		{"body too large", 413, "POST", schedules, create(`, "description": "` + strings.Repeat("x", 5_000) + `"`), nil},
		{"body without type", 415, "POST", schedules, create(""), []string{"Content-Type"}},
		{"body of a form", 415, "POST", schedules, create(""), []string{"Content-Type: application/x-www-form-urlencoded"}},
		{"body latin1", 415, "POST", schedules, create(""), []string{"Content-Type: application/json; charset=latin1"}},
		{"body compressed", 415, "POST", schedules, create(""), []string{"Content-Encoding: gzip"}},
		{"body merge patch for put", 415, "PUT", schedules + "/{schedule}", create(""), []string{"Content-Type: application/merge-patch+json"}},
		{"body json patch for patch", 415, "PATCH", schedules + "/{schedule}", `{}`, []string{"Content-Type: application/json-patch+json"}},

		// 422: it breaks a rule.
		{"schedule without anything", 422, "POST", schedules, `{}`, nil},
		{"schedule unknown fields", 422, "POST", schedules, create(`, "timezon": "UTC", "kwargs": {}, "Name": "x", "id": "x", "a/b~c": 1`), nil},
		{"schedule wrong types", 422, "POST", schedules, `{"name": 1, "task_name": [], "cron_expression": {}, "timezone": false, "enabled": "yes", "args": {}, "task_params": [], "description": 1, "category": 1, "tags": ["a", 1, null], "execution_policy": 1, "catch_up": null, "catch_up_window": true, "max_waiting": 1.5, "starts_at": 1, "ends_at": "tomorrow"}`, nil},
		{"schedule one wrong tags", 422, "POST", schedules, create(`, "tags": "a"`), nil},
		{"schedule wrong type and rules", 422, "POST", schedules, `{"task_name": "echo", "enabled": 1, "cron_expression": "61 * * * *", "timezone": "Mars/Olympus", "tags": ["a", "a"]}`, nil},
		{"schedule rules", 422, "POST", schedules, create(`, "timezone": "CET/Nowhere", "max_waiting": 0, "catch_up_window": "400d", "category": "` + strings.Repeat("c", 51) + `", "starts_at": "2026-01-02T00:00:00Z", "ends_at": "2026-01-01T00:00:00Z", "tags": ["", "b"]`), nil},
		{"schedule enums", 422, "POST", schedules, create(`, "execution_policy": "Skip", "catch_up": "some"`), nil},
		{"schedule cron", 422, "POST", schedules, `{"task_name": "echo", "cron_expression": "* * *"}`, nil},
		{"schedule cron zone", 422, "POST", schedules, `{"task_name": "echo", "cron_expression": "TZ=UTC * * * * *"}`, nil},
		{"schedule duration text", 422, "POST", schedules, create(`, "catch_up_window": "1 hour"`), nil},
		{"schedule duration negative", 422, "POST", schedules, create(`, "catch_up_window": -1`), nil},
		{"schedule duration fine", 422, "POST", schedules, create(`, "catch_up_window": 0.0001`), nil},
		{"schedule nul", 422, "POST", schedules, create(`, "task_params": {"a": ["\u0000"]}`), nil},
		{"schedule surrogate", 422, "POST", schedules, create(`, "name": "\ud800"`), nil},
		{"schedule number", 422, "POST", schedules, create(`, "task_params": {"n": 1e999}`), nil},
		{"schedule name blank", 422, "POST", schedules, create(`, "name": "  "`), nil},
		{"schedule params", 422, "POST", schedules, `{"task_name": "greet", "cron_expression": "0 9 * * *", "task_params": {"text": "secret", "times": "x", "more": 1}}`, nil},
		{"schedule params missing and cron", 422, "POST", schedules, `{"task_name": "greet", "cron_expression": "x"}`, nil},
		{"schedule put without task", 422, "PUT", schedules + "/{schedule}", `{"cron_expression": "0 9 * * *"}`, nil},
		{"schedule patch unknown fields", 422, "PATCH", schedules + "/{schedule}", `{"cron": "x", "next_run_at": null}`, nil},
		{"schedule patch wrong types", 422, "PATCH", schedules + "/{schedule}", `{"enabled": 0, "tags": {}}`, nil},
		{"schedule patch required", 422, "PATCH", schedules + "/{schedule}", `{"task_name": null, "cron_expression": null}`, nil},
		{"schedule patch params", 422, "PATCH", schedules + "/{schedule}", `{"task_params": {"text": null, "times": 1}}`, nil},
		{"run now wrong", 422, "POST", schedules + "/{schedule}/run", `{"task_params": {"text": 1}, "execution_policy": "never", "at": 1}`, nil},
		{"enable with fields", 422, "POST", schedules + "/{schedule}/enable", `{"execution_policy": "skip"}`, nil},
		{"run retry with fields", 422, "POST", "/api/v1/runs/{ended}/retry", `{"task_params": {}}`, nil},
		{"run now params", 422, "POST", schedules + "/{schedule}/run", `{"task_params": {"text": 1}}`, nil},
		{"preview nothing", 422, "POST", schedules + "/preview", `{}`, nil},
		{"preview wrong", 422, "POST", schedules + "/preview", `{"cron_expression": "0 0 30 2 *", "timezone": "Nowhere", "count": 101, "after": "2026-03-28"}`, nil},
		{"next wrong", 422, "GET", schedules + "/{schedule}/next?count=0&after=now", ``, nil},
		{"explain without at", 422, "GET", schedules + "/{schedule}/explain", ``, nil},
		{"explain no time", 422, "GET", schedules + "/{schedule}/explain?at=yesterday", ``, nil},
		{"explain local time", 422, "GET", schedules + "/{schedule}/explain?at=2026-03-02T08:00:00", ``, nil},
		{"explain bare plus", 422, "GET", schedules + "/{schedule}/explain?at=2026-03-02T09:00:00+01:00", ``, nil},
		{"explain too early", 422, "GET", schedules + "/{schedule}/explain?at=1969-12-31T23:59:59Z", ``, nil},
		{"explain unknown parameter", 422, "GET", schedules + "/{schedule}/explain?att=2026-03-02T08:00:00Z&zone=UTC", ``, nil},
		{"query unknown", 422, "GET", schedules + "?tag=a&limit=5", ``, nil},
		{"query unknown where none is taken", 422, "GET", schedules + "/{schedule}?verbose=true", ``, nil},
		{"query twice", 422, "GET", schedules + "?category=a&category=b", ``, nil},
		{"query wrong", 422, "GET", schedules + "?enabled=1&sort=created&page_size=ten", ``, nil},
		{"query not utf8", 422, "GET", schedules + "?q=%ff&task_name=%00", ``, nil},
		{"query long", 422, "GET", schedules + "?q=" + strings.Repeat("a+", 128), ``, nil},
		{"page size 0", 422, "GET", schedules + "?page_size=0", ``, nil},
		{"page size 1001", 422, "GET", schedules + "?page_size=1001", ``, nil},
		{"page token garbage", 422, "GET", schedules + "?page_token=abc", ``, nil},
		{"page token of another order", 422, "GET", schedules + "?sort=name&page_token={otherPage}", ``, nil},
		{"page token of another filter", 422, "GET", schedules + "?enabled=true&page_token={otherPage}", ``, nil},
		{"page token of another list", 422, "GET", "/api/v1/runs?page_token={otherPage}", ``, nil},
		{"runs query wrong", 422, "GET", "/api/v1/runs?state=done&state=failed&trigger=cron&schedule_id=1&from=x&to=2026-01-01", ``, nil},
		{"runs of a schedule by schedule", 422, "GET", schedules + "/{schedule}/runs?schedule_id=" + nobody, ``, nil},
		{"definition without anything", 422, "POST", definitions, `{}`, nil},
		{"definition unknown fields", 422, "POST", definitions, `{"task_name": "x", "executor": {"kind": "go", "url": "x"}, "retry": {"back_off": 1}, "max_attempt": 1}`, nil},
		{"definition wrong types", 422, "POST", definitions, `{"task_name": "x", "executor": "go", "retry": {"backoff": "soon"}, "timeout": [], "priority": "1", "parameter_schema": 5}`, nil},
		{"definition rules", 422, "POST", definitions, `{"task_name": " x", "executor": {"kind": "http"}, "queue": "No Queue", "priority": 5, "max_attempts": 0, "retry": {"backoff": "2m", "max_backoff": "1m"}, "timeout": "8d", "parameter_schema": {"type": "string", "properties": {"a": 1}}}`, nil},
		{"definition put another name", 422, "PUT", definitions + "/greet", `{"task_name": "other"}`, nil},
		{"definition patch another name", 422, "PATCH", definitions + "/greet", `{"task_name": "other"}`, nil},
		{"pause without reason", 422, "POST", "/api/v1/pause", `{}`, nil},
		{"pause blank reason", 422, "POST", "/api/v1/pause", `{"reason": " "}`, nil},
		{"pause long reason", 422, "POST", "/api/v1/pause", `{"reason": "` + strings.Repeat("x", 501) + `"}`, nil},
		{"pause wrong", 422, "POST", "/api/v1/pause", `{"reason": 1, "until": "tomorrow"}`, nil},
		{"resume with fields", 422, "POST", "/api/v1/resume", `{"reason": "done"}`, nil},
		{"installation query", 422, "GET", "/api/v1/installation?verbose=true", ``, nil},
		{"definition force", 422, "PUT", definitions + "/greet?force=yes", `{}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := setup(t, func(cfg *httpapi.Config) { cfg.BodyLimit = 4_096 })
			g := give(c)
			target := strings.NewReplacer("{schedule}", g.schedule, "{otherPage}", g.otherPage,
				"{live}", g.live, "{ended}", g.ended, "{skipped}", g.skipped).Replace(tt.target)
			r := c.do(tt.method, target, tt.body, append([]string{"X-Request-Id: the-request"}, tt.headers...)...)
			require.Equal(t, tt.status, r.StatusCode, "%s", r.body)
			require.Equal(t, "application/problem+json", r.Header.Get("Content-Type"))
			require.Equal(t, "the-request", r.Header.Get("X-Request-Id"))
			require.Equal(t, "nosniff", r.Header.Get("X-Content-Type-Options"))
			require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
			require.NotContains(t, string(r.body), `"secret"`)
			require.Empty(t, c.log.String(), "a person's mistake is no error of ours")
			golden(t, "problems/"+strings.ReplaceAll(tt.name, " ", "_"), r.body, g.names)
		})
	}
}

func TestBrokenScheduleHasNoTicks(t *testing.T) {
	t.Parallel()

	c := setup(t)
	g := give(c)
	c.exec("UPDATE schedules SET timezone = 'Atlantis/Center' WHERE id = $1", g.schedule)
	r := c.do("GET", "/api/v1/schedules/"+g.schedule+"/next", "", "X-Request-Id: the-request")
	require.Equal(t, http.StatusConflict, r.StatusCode)
	golden(t, "problems/schedule_broken", r.body, g.names)
}

func TestMethodNotAllowedNamesTheOthers(t *testing.T) {
	t.Parallel()

	c := setup(t)
	require.Equal(t, "GET, HEAD, POST", c.do("DELETE", "/api/v1/schedules", "").Header.Get("Allow"))
	require.Equal(t, "DELETE, GET, HEAD, PATCH, PUT", c.do("POST", "/api/v1/schedules/"+nobody, "").Header.Get("Allow"))
	require.Equal(t, "GET, HEAD", c.do("POST", "/healthz", "").Header.Get("Allow"))
}

// A fault of ours shows nothing of itself, and is logged once.
func TestFaultsAreNotShown(t *testing.T) {
	t.Parallel()

	d := pgtest.DB(t)
	c := serve(t, d.DB)
	d.Pool.Close()
	for _, target := range []string{"/api/v1/schedules", "/api/v1/runs", "/api/v1/task-definitions/x", "/api/v1/schedules/" + nobody} {
		c.log.Reset()
		r := c.do("GET", target, "", "X-Request-Id: the-request")
		require.Equal(t, http.StatusInternalServerError, r.StatusCode)
		golden(t, "problems/internal", r.body, strings.NewReplacer())
		require.Contains(t, c.log.String(), "closed pool")
		require.Contains(t, c.log.String(), "request_id=the-request")
		require.Equal(t, 1, strings.Count(c.log.String(), "\n"))
	}

	c = setup(t)
	c.exec("ALTER TABLE schedules RENAME COLUMN description TO nothing")
	r := c.do("POST", "/api/v1/schedules", `{"task_name": "echo", "cron_expression": "@daily"}`, "X-Request-Id: the-request")
	require.Equal(t, http.StatusInternalServerError, r.StatusCode)
	golden(t, "problems/internal", r.body, strings.NewReplacer())
	require.Contains(t, c.log.String(), "SQLSTATE 42703")
}

func TestDatabaseAway(t *testing.T) {
	t.Parallel()

	d := pgtest.DB(t)
	c := serve(t, d.DB)
	other := pgtest.Pool(t)
	name := d.Pool.Config().ConnConfig.Database
	_, err := other.Exec(t.Context(), "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false")
	require.NoError(t, err)
	d.Pool.Reset()
	_, err = other.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
	require.NoError(t, err)

	r := c.do("GET", "/api/v1/schedules", "", "X-Request-Id: the-request")
	require.Equal(t, http.StatusServiceUnavailable, r.StatusCode, "%s", r.body)
	require.Equal(t, "1", r.Header.Get("Retry-After"))
	golden(t, "problems/database_unavailable", r.body, strings.NewReplacer())
	require.Contains(t, c.log.String(), "level=WARN")
}

func TestReady(t *testing.T) {
	t.Parallel()

	c := setup(t, ready(nil))
	require.Equal(t, "ok", c.ask(http.StatusOK, "GET", "/readyz", "")["status"])

	c = setup(t, ready(errors.New("password authentication failed")))
	r := c.do("GET", "/readyz", "", "X-Request-Id: the-request")
	require.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
	require.Equal(t, "1", r.Header.Get("Retry-After"))
	golden(t, "problems/not_ready", r.body, strings.NewReplacer())
	require.Contains(t, c.log.String(), "password")

	c = setup(t, ready(&riverbeat.Error{
		Kind: riverbeat.Unavailable, Code: "database_unavailable", Detail: "The database does not answer.", Cause: errors.New("password authentication failed"),
	}))
	why := c.ask(http.StatusServiceUnavailable, "GET", "/readyz", "")
	require.Equal(t, "not_ready", why["code"])
	require.Equal(t, "This process cannot serve now. The database does not answer.", why["detail"])

	require.Equal(t, "ok", c.ask(http.StatusOK, "GET", "/healthz", "")["status"])
}

func TestPanic(t *testing.T) {
	t.Parallel()

	c := setup(t, func(cfg *httpapi.Config) {
		cfg.Mounts = map[string]http.Handler{
			"GET /riverui/{page...}":       http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a secret") }),
			"POST /riverui/api/jobs/retry": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "half"); panic("late") }),
		}
	})
	r := c.do("GET", "/riverui/bad", "", "X-Request-Id: the-request")
	require.Equal(t, http.StatusInternalServerError, r.StatusCode)
	golden(t, "problems/internal", r.body, strings.NewReplacer())
	require.Contains(t, c.log.String(), "a secret")

	require.PanicsWithValue(t, http.ErrAbortHandler, func() { c.do("POST", "/riverui/api/jobs/retry", "{}") })
}

func TestClientGoneIsNoError(t *testing.T) {
	t.Parallel()

	d := pgtest.DB(t)
	c := serve(t, d.DB)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := c.send(ctx, "GET", "/api/v1/schedules", "")
	require.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
	require.Equal(t, "request_ended", r.object()["code"])
	require.Empty(t, c.log.String())
}

// A request that waits for long is ended, and has done nothing.
func TestRequestsTakeNoLongerThanTheyMay(t *testing.T) {
	t.Parallel()
	c := setup(t, func(cfg *httpapi.Config) { cfg.RequestTimeout = 200 * time.Millisecond })
	at := c.do("POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`).Header.Get("Location")
	tx, err := c.db.Pool().Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // it only holds
	_, err = tx.Exec(t.Context(), "SELECT FROM schedule_clocks FOR UPDATE")
	require.NoError(t, err)
	for _, method := range []string{"PATCH", "DELETE"} {
		body := ""
		if method == "PATCH" {
			body = `{"name": "x"}`
		}
		r := c.do(method, at, body)
		require.Equal(t, http.StatusServiceUnavailable, r.StatusCode, "%s", r.body)
		require.Equal(t, "request_ended", r.object()["code"])
		require.NotEmpty(t, r.Header.Get("Retry-After"))
	}
	require.InDelta(t, 1, c.ask(http.StatusOK, "GET", at, "")["version"], 0)
	require.Empty(t, c.log.String())
}

func TestRequestID(t *testing.T) {
	t.Parallel()

	c := setup(t)
	for _, id := range []string{"a", "01HZX-9.~", strings.Repeat("x", 64)} {
		require.Equal(t, id, c.do("GET", "/healthz", "", "X-Request-Id: "+id).Header.Get("X-Request-Id"))
	}
	var made []string
	for _, id := range []string{"", strings.Repeat("x", 65), "two words", "tab\there", "ümlaut"} {
		got := c.do("GET", "/healthz", "", "X-Request-Id: "+id).Header.Get("X-Request-Id")
		require.Regexp(t, idPattern, got)
		made = append(made, got)
	}
	slices.Sort(made)
	require.Len(t, slices.Compact(made), 5)
}

func TestMounts(t *testing.T) {
	t.Parallel()

	say := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, name, " ", r.Method, " ", r.URL.Path)
		})
	}
	c := setup(t, func(cfg *httpapi.Config) {
		cfg.Mounts = map[string]http.Handler{"GET /riverui/{page...}": say("reads"), "POST /riverui/api/jobs/cancel": say("writes")}
	})
	for request, want := range map[string]string{
		"GET /riverui/":                     "reads GET /riverui/",
		"GET /riverui/a/b":                  "reads GET /riverui/a/b",
		"GET /riverui/api/jobs/cancel":      "reads GET /riverui/api/jobs/cancel",
		"POST /riverui/api/jobs/cancel":     "writes POST /riverui/api/jobs/cancel",
		"POST /riverui/api/jobs/%63%61ncel": "writes POST /riverui/api/jobs/cancel",
	} {
		method, target, _ := strings.Cut(request, " ")
		r := c.do(method, target, "")
		require.Equal(t, http.StatusOK, r.StatusCode, target)
		require.Equal(t, want, string(r.body))
		require.Empty(t, r.Header.Get("Cache-Control"))
	}
	require.Equal(t, "/riverui/", c.do("GET", "/riverui", "").Header.Get("Location"))
	r := c.do("POST", "/riverui/api/jobs/delete", "{}")
	require.Equal(t, http.StatusMethodNotAllowed, r.StatusCode, "what nobody has mounted")
	require.Equal(t, "GET", r.Header.Get("Allow"))
	r = c.do("PUT", "/riverui/api/jobs/cancel", "{}")
	require.Equal(t, "GET, POST", r.Header.Get("Allow"))
	for _, target := range []string{"/riveruix", "/api/v2", "/api", "/somewhere"} {
		require.Equal(t, http.StatusNotFound, c.do("GET", target, "").StatusCode, target)
	}
}

func TestHeadIsGetWithoutBody(t *testing.T) {
	t.Parallel()

	c := setup(t)
	g := give(c)
	for _, target := range []string{"/api/v1/schedules", "/api/v1/schedules/" + g.schedule, "/api/v1/schedules/" + nobody, "/healthz", "/openapi.json", "/docs"} {
		got, head := c.do("GET", target, ""), c.do("HEAD", target, "")
		require.Equal(t, got.StatusCode, head.StatusCode, target)
		require.Equal(t, got.Header.Get("Content-Type"), head.Header.Get("Content-Type"), target)
		require.Equal(t, got.Header.Get("Content-Length"), head.Header.Get("Content-Length"), target)
		if target != "/docs" { // its handler leaves that to the server
			require.Empty(t, head.body, target)
		}
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()

	c := setup(t)
	c.do("GET", "/api/v1/schedules?q=x", "")
	require.Empty(t, c.log.String(), "below debug")

	var logged bytes.Buffer
	c = setup(t, func(cfg *httpapi.Config) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		cfg.Now = func() time.Time { now = now.Add(time.Millisecond); return now }
		cfg.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	c.do("GET", "/api/v1/schedules/abc?x=y", "", "X-Request-Id: the-request")
	require.Contains(t, logged.String(),
		"level=DEBUG msg=request method=GET path=/api/v1/schedules/abc status=404 bytes=184 took=1ms request_id=the-request\n")
}
