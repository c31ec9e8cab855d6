package httpapi_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/access"
	"riverbeat/internal/httpapi"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/riverbeat"
)

// closed makes an API that asks for keys, and says what a key of each kind is.
func closed(t *testing.T, options ...func(*httpapi.Config)) (*client, map[string]string) {
	t.Helper()
	d := pgtest.DB(t)
	a := access.New(access.Config{DB: d.DB, Now: time.Now})
	c := serve(t, d.DB, append([]func(*httpapi.Config){func(cfg *httpapi.Config) {
		cfg.Access = a
		cfg.Mounts = map[string]http.Handler{}
		for _, r := range access.Routes {
			if strings.Contains(r.Pattern, " /riverui/") {
				cfg.Mounts[r.Pattern] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
			}
		}
	}}, options...)...)
	keys := map[string]string{"no key": "", "no token": "Bearer", "broken": "Bearer rb_broken", "another scheme": "Digest x"}
	make := func(name string, role riverbeat.Role) {
		_, text, err := a.CreateKey(t.Context(), &riverbeat.APIKey{Name: name, Role: role})
		require.NoError(t, err)
		keys[name] = "Bearer " + text
	}
	for _, role := range riverbeat.Roles {
		make(string(role), role)
	}
	make("expired", riverbeat.Admin)
	make("revoked", riverbeat.Admin)
	c.exec("UPDATE api_keys SET expires_at = now() WHERE name = 'expired'")
	c.exec("UPDATE api_keys SET revoked_at = now() WHERE name = 'revoked'")
	return c, keys
}

// Every route, with every kind of key.
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	c, keys := closed(t)
	fill := strings.NewReplacer("{id}", nobody, "{task_name}", "none", "{name}", "default", "{page...}", "jobs", "{file...}", "none", "{$}", "")
	address := 0
	for _, route := range access.Routes {
		method, path, _ := strings.Cut(route.Pattern, " ")
		methods := []string{method}
		if method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		for _, method := range methods {
			refusals := map[string]bool{}
			for name, key := range keys {
				address++
				var headers []string
				if key != "" {
					headers = append(headers, "Authorization: "+key)
				}
				r := c.sendFrom(fmt.Sprintf("10.0.%d.%d:1", address/256, address%256), method, fill.Replace(path), "", headers...)
				what := method + " " + path + " with " + name
				role := riverbeat.Role(name)
				switch {
				case route.Role == access.Anyone, role.Includes(route.Role):
					require.NotContains(t, []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed}, r.StatusCode, what)
					if r.StatusCode == http.StatusNotFound && method != http.MethodHead && !strings.HasPrefix(path, "/docs") {
						require.NotContains(t, string(r.body), "no_such_path", what)
					}
				case slices.Contains(riverbeat.Roles, role):
					require.Equal(t, http.StatusForbidden, r.StatusCode, what)
				default:
					require.Equal(t, http.StatusUnauthorized, r.StatusCode, what)
					require.Contains(t, r.Header.Values("WWW-Authenticate"), `Bearer realm="Riverbeat"`)
					require.Equal(t, strings.HasPrefix(path, "/api/"), len(r.Header.Values("WWW-Authenticate")) == 1, what)
					refusals[requestID.ReplaceAllString(string(r.body), "")] = true
				}
			}
			require.LessOrEqual(t, len(refusals), 1, "one answer for all failures: %v", refusals)
		}
	}
}

var requestID = regexp.MustCompile(`"request_id":"[^"]*"`)

// A route without a role keeps the program from starting.
func TestARouteWithoutARole(t *testing.T) {
	t.Parallel()
	c := setup(t)
	for _, pattern := range []string{"POST /riverui/api/jobs/explode", "GET /elsewhere"} {
		cfg := c.config
		cfg.Mounts = map[string]http.Handler{pattern: http.NotFoundHandler()}
		_, err := httpapi.New(cfg)
		require.ErrorContains(t, err, pattern)
	}
}

// What River UI's own routes would do with a path, they do with its role.
func TestMountsAreNotReachedByOtherSpellings(t *testing.T) {
	t.Parallel()
	c, keys := closed(t)
	viewer := "Authorization: " + keys["viewer"]
	for _, target := range []string{
		"/riverui/api/jobs/delete", "/riverui/api/jobs/%64elete", "/riverui//api/jobs/delete", "/riverui/x/../api/jobs/delete",
		"/riverui/./api/jobs/delete", "//riverui/api/jobs/delete", "/riverui/api/jobs/delete/", "/RiverUI/api/jobs/delete",
	} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "BREW", "CONNECT"} {
			r := c.do(method, target, "{}", viewer)
			require.GreaterOrEqual(t, r.StatusCode, 300, "%s %s", method, target)
		}
	}
	require.Equal(t, http.StatusForbidden, c.do("POST", "/riverui/api/jobs/delete", "{}", viewer, "X-HTTP-Method-Override: GET").StatusCode)
}

func TestKeysAreShownInOneHeader(t *testing.T) {
	t.Parallel()
	c, keys := closed(t)
	_, token, _ := strings.Cut(keys["viewer"], " ")
	status := func(values ...string) int {
		t.Helper()
		r := c.request(t.Context(), "GET", schedules, "")
		r.Header["Authorization"] = values
		return c.serve(r).StatusCode
	}
	require.Equal(t, http.StatusOK, status("Bearer "+token))
	require.Equal(t, http.StatusOK, status("bearer  "+token))
	basic := c.request(t.Context(), "GET", schedules, "")
	basic.SetBasicAuth("anyone", token)
	require.Equal(t, http.StatusOK, c.serve(basic).StatusCode)
	for _, values := range [][]string{
		{"Bearer " + token, "Bearer " + token}, {token}, {"Bearer " + token + ", Bearer x"}, {"Bearer x " + token}, {""}, {"Basic " + token},
	} {
		require.Equal(t, http.StatusUnauthorized, status(values...), values)
	}
	require.Equal(t, http.StatusUnauthorized, c.do("GET", schedules+"?access_token="+token, "").StatusCode, "not in an address, which is logged")
}

func TestAPagesOfOthersMayNotChangeThings(t *testing.T) {
	t.Parallel()
	c := setup(t)
	for _, headers := range [][]string{{"Origin: https://evil.example"}, {"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}, {"Origin: null"}} {
		r := c.do("POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`, headers...)
		require.Equal(t, http.StatusForbidden, r.StatusCode)
		require.Equal(t, "cross_origin", r.object()["code"])
		require.Equal(t, http.StatusOK, c.do("GET", schedules, "", headers...).StatusCode)
	}
	c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`, "Sec-Fetch-Site: none")
}

func TestTooManyFailures(t *testing.T) {
	t.Parallel()
	c, keys := closed(t)
	for range 10 {
		require.Equal(t, http.StatusUnauthorized, c.do("GET", schedules, "", "Authorization: Bearer x").StatusCode)
	}
	r := c.do("GET", schedules, "", "Authorization: Bearer x")
	require.Equal(t, http.StatusTooManyRequests, r.StatusCode)
	require.Regexp(t, "^[1-7]$", r.Header.Get("Retry-After"))
	require.Equal(t, "too_many_failures", r.object()["code"])
	require.Equal(t, http.StatusUnauthorized, c.do("GET", schedules, "").StatusCode)
	c.ask(http.StatusOK, "GET", schedules, "", "Authorization: "+keys["viewer"])
}

// The life of a key, over the API.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	c, keys := closed(t)
	admin := "Authorization: " + keys["admin"]
	const apiKeys = "/api/v1/api-keys"
	r := c.do("POST", apiKeys, `{"name": "deploy", "role": "editor", "expires_at": "2199-01-01T00:00:00Z"}`, admin)
	require.Equal(t, http.StatusCreated, r.StatusCode, "%s", r.body)
	made := r.object()
	at := apiKeys + "/" + made["id"].(string)
	require.Equal(t, at, r.Header.Get("Location"))
	require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
	require.Equal(t, "admin", made["created_by"])
	mine := "Authorization: Bearer " + made["key"].(string)
	c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`, mine)

	kept := c.ask(http.StatusOK, "GET", at, "", admin)
	require.NotContains(t, kept, "key")
	require.NotNil(t, kept["last_used_at"])
	list := c.ask(http.StatusOK, "GET", apiKeys+"?page_size=2", "", admin)
	require.Equal(t, "deploy", items(list)[0]["name"])
	rest := c.ask(http.StatusOK, "GET", apiKeys+"?page_token="+list["next_page_token"].(string), "", admin)
	require.Len(t, items(rest), 5)
	require.Nil(t, rest["next_page_token"])

	rotated := c.ask(http.StatusCreated, "POST", at+"/rotate", `{"overlap": 60}`, admin)
	require.Equal(t, made["id"], rotated["rotated_from"])
	require.Equal(t, made["expires_at"], rotated["expires_at"])
	c.ask(http.StatusOK, "GET", schedules, "", mine)
	require.Equal(t, http.StatusNoContent, c.do("DELETE", at, "", admin).StatusCode)
	require.Equal(t, http.StatusNoContent, c.do("DELETE", at, "", admin).StatusCode)
	c.ask(http.StatusUnauthorized, "GET", schedules, "", mine)
	c.ask(http.StatusOK, "GET", schedules, "", "Authorization: Bearer "+rotated["key"].(string))
	require.Equal(t, "api_key_ended", c.ask(http.StatusConflict, "POST", at+"/rotate", "", admin)["code"])
	c.ask(http.StatusNotFound, "GET", apiKeys+"/none", "", admin)
	for body, pointer := range map[string]string{
		`{"role": "viewer"}`:                          "/name",
		`{"name": "x", "role": "root"}`:               "/role",
		`{"name": "", "role": "viewer"}`:              "/name",
		`{"name": "a\u0007", "role": "viewer"}`:       "/name",
		`{"name": "x"}`:                               "/role",
		`{"name": "role:postgres", "role": "viewer"}`: "/name",
		`{"name": "anonymous", "role": "viewer"}`:     "/name",
		`{"name": "x", "role": "viewer", "expires_at": "9999-12-31T23:59:59-01:00"}`: "/expires_at",
		`{"name": "x", "role": "viewer", "key": "mine"}`:                             "/key",
		`{"name": "x", "role": "viewer", "expires_at": "2001-01-01T00:00:00Z"}`:      "/expires_at",
	} {
		wrong := c.ask(http.StatusUnprocessableEntity, "POST", apiKeys, body, admin)["errors"].([]any)
		require.Equal(t, pointer, wrong[0].(map[string]any)["pointer"], body)
	}
	admins := c.ask(http.StatusOK, "GET", apiKeys, "", admin)
	for _, k := range items(admins) {
		if k["name"] == "admin" {
			require.Equal(t, "last_admin_key", c.ask(http.StatusConflict, "DELETE", apiKeys+"/"+k["id"].(string), "", admin)["code"])
		}
	}
}

// Who did what, from where, and what was and is.
func TestAudit(t *testing.T) {
	t.Parallel()
	c, keys := closed(t, func(cfg *httpapi.Config) {
		cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("10.0.0.1/32")}
	})
	as := func(role string) []string {
		return []string{"Authorization: " + keys[role], "X-Request-Id: of-" + role, "X-Forwarded-For: 203.0.113.9, 198.51.100.7, 10.0.0.1"}
	}
	c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "greet", "parameter_schema": {"type": "object"}}`, as("admin")...)
	c.ask(http.StatusOK, "PATCH", definitions+"/greet", `{"timeout": 5}`, as("admin")...)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "greet", "cron_expression": "@daily", "name": "<b>morning</b>"}`, as("editor")...)
	id := made["id"].(string)
	at := schedules + "/" + id
	c.ask(http.StatusOK, "PATCH", at, `{"task_params": {"period_type": "7days"}}`, as("editor")...)
	c.ask(http.StatusOK, "PATCH", at, `{"task_params": {"period_type": "7days"}}`, as("editor")...)
	c.ask(http.StatusOK, "POST", at+"/disable", "", as("editor")...)
	run := c.ask(http.StatusCreated, "POST", at+"/run", "", as("operator")...)
	require.Equal(t, "operator", run["requested_by"])
	cancelled := c.ask(http.StatusOK, "POST", "/api/v1/runs/"+run["id"].(string)+"/cancel", "", as("operator")...)
	require.Equal(t, "operator", cancelled["cancel_requested_by"])
	c.ask(http.StatusOK, "POST", "/api/v1/runs/"+run["id"].(string)+"/retry", "", as("operator")...)
	c.ask(http.StatusOK, "POST", "/api/v1/pause", `{"reason": "x"}`, as("operator")...)
	c.ask(http.StatusOK, "POST", "/api/v1/resume", "", as("operator")...)
	c.ask(http.StatusUnprocessableEntity, "PATCH", at, `{"cron_expression": "x"}`, as("editor")...)
	require.Equal(t, http.StatusNoContent, c.do("DELETE", at, "", as("editor")...).StatusCode)
	c.exec("UPDATE task_definitions SET description = 'by hand'")

	list := c.ask(http.StatusOK, "GET", "/api/v1/audit?page_size=1000", "", as("viewer")...)
	var got []string
	for _, e := range slices.Backward(items(list)) {
		if e["object_type"] == "api_key" || e["action"] == "installation.change" {
			continue // of the set-up
		}
		got = append(got, fmt.Sprint(e["actor"], " ", e["action"], " ", e["object_id"]))
		if e["actor"] != "role:riverbeat" {
			require.Equal(t, "198.51.100.7", e["address"], "the first that is not a proxy of ours")
			require.Equal(t, "of-"+e["actor"].(string), e["request_id"])
			require.Contains(t, keys[e["actor"].(string)], "rb_"+e["key_id"].(string))
		}
	}
	require.Equal(t, []string{
		"admin task_definition.create greet",
		"admin task_definition.change greet",
		"editor schedule.create " + id,
		"editor schedule.change " + id,
		"editor schedule.disable " + id,
		"operator run.create " + run["id"].(string),
		"operator run.cancel " + run["id"].(string),
		"operator run.retry " + run["id"].(string),
		"operator installation.pause default",
		"operator installation.resume default",
		"editor schedule.delete " + id,
		"role:riverbeat task_definition.change greet",
	}, got)

	const ofKeys = "/api/v1/audit?object_type=api_key"
	require.Empty(t, items(c.ask(http.StatusOK, "GET", ofKeys, "", as("editor")...)), "keys are the admins'")
	require.NotEmpty(t, items(c.ask(http.StatusOK, "GET", ofKeys, "", as("admin")...)))
	changed := items(c.ask(http.StatusOK, "GET", "/api/v1/audit?action=schedule.change&object_id="+id, "", as("viewer")...))
	require.Len(t, changed, 1)
	require.Equal(t, map[string]any{}, changed[0]["before"].(map[string]any)["kwargs"])
	require.Equal(t, map[string]any{"period_type": "7days"}, changed[0]["after"].(map[string]any)["kwargs"])
	for query, want := range map[string]int{
		"actor=editor": 4, "actor=nobody": 0, "object_type=run": 3, "action=run.cancel": 1, "from=2199-01-01T00:00:00Z": 0,
		"to=2001-01-01T00:00:00Z": 0, "object_type=schedule&actor=operator": 0, "key_id=" + changed[0]["key_id"].(string): 4,
	} {
		require.Len(t, items(c.ask(http.StatusOK, "GET", "/api/v1/audit?"+query, "", as("viewer")...)), want, query)
	}
	page := c.ask(http.StatusOK, "GET", "/api/v1/audit?actor=editor&page_size=3", "", as("viewer")...)
	rest := c.ask(http.StatusOK, "GET", "/api/v1/audit?actor=editor&page_token="+page["next_page_token"].(string), "", as("viewer")...)
	require.Len(t, items(rest), 1)
	require.Equal(t, "schedule.create", items(rest)[0]["action"])
	c.ask(http.StatusUnprocessableEntity, "GET", "/api/v1/audit?actor=admin&page_token="+page["next_page_token"].(string), "", as("viewer")...)
}
