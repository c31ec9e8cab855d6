package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTaskDefinitions(t *testing.T) {
	t.Parallel()

	c := setup(t)
	r := c.do("POST", definitions, `{"task_name": "a/b c.d+%ü", "category": "x", "description": "says",
		"parameter_schema": {"type": "object", "properties": {"z": {"default": 1.50}, "a": {"pattern": "<&>"}}},
		"executor": {"name": "echo"}, "queue": "slow", "priority": 2, "max_attempts": 5,
		"retry": {"backoff": 0.25, "max_backoff": "2h"}, "timeout": "90s", "max_concurrency": 4}`)
	require.Equal(t, http.StatusCreated, r.StatusCode, "%s", r.body)
	made := r.object()
	golden(t, "definition_full", r.body, scheduleNames(made))
	require.Contains(t, string(r.body), `{"z":{"default":1.50},"a":{"pattern":"<&>"}}`, "order and digits are kept")

	at := r.Header.Get("Location")
	require.Equal(t, definitions+"/a%2Fb%20c.d+%25%C3%BC", at)
	require.Equal(t, made, c.ask(http.StatusOK, "GET", at, ""))
	require.Equal(t, made, c.ask(http.StatusOK, "PATCH", at, `{}`), "nothing changed, so nothing is written")

	patched := c.do("PATCH", at, `{"category": null, "executor": {"name": null}, "retry": {"backoff": null}, "timeout": null, "priority": null,
		"parameter_schema": {"properties": {"a": {"type": "string"}}}}`)
	require.Equal(t, http.StatusOK, patched.StatusCode, "%s", patched.body)
	golden(t, "definition_patched", patched.body, scheduleNames(patched.object()))
	require.Contains(t, string(patched.body), `{"z":{"default":1.50},"a":{"pattern":"<&>","type":"string"}}`)

	require.Equal(t, http.StatusNoContent, c.do("DELETE", at, "").StatusCode)
	c.ask(http.StatusNotFound, "GET", at, "")
}

func TestExecutorsOfDefinitions(t *testing.T) {
	t.Parallel()

	c := setup(t)
	const schema = `"parameter_schema": {"properties": {"day": {"type": "string"}, "key": {"type": "string", "writeOnly": true}}}`
	for name, executor := range map[string]string{
		"go":      `{"kind": "go", "name": null}`,
		"http":    `{"kind": "http", "url": {"$secret": "url"}, "method": "POST", "headers": {"X-A": "b"}, "success_codes": null, "retry_codes": [404], "signing_secret": null}`,
		"sql":     `{"kind": "sql", "database": {"$secret": "db"}, "statement": "SELECT @day", "lock_timeout": "5s"}`,
		"command": `{"kind": "command", "name": "report", "arguments": ["-x", {"$param": "day"}]}`,
	} {
		made := c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "`+name+`", `+schema+`, "executor": `+executor+`}`)
		shown, err := json.Marshal(made["executor"])
		require.NoError(t, err)
		require.JSONEq(t, executor, string(shown))
		if name != "go" {
			require.Equal(t, "5m", made["timeout"])
		}
		require.Equal(t, made, c.ask(http.StatusOK, "PUT", definitions+"/"+name, `{`+schema+`, "executor": `+executor+`}`), "nothing changed")
		require.Equal(t, made, c.ask(http.StatusOK, "PATCH", definitions+"/"+name, `{"executor": {}}`))
	}
	at := definitions + "/http"
	patched := c.ask(http.StatusOK, "PATCH", at, `{"executor": {"url": "https://example.com", "headers": {"X-A": null, "X-B": "c"}, "retry_codes": null}}`)
	require.Equal(t, map[string]any{
		"kind": "http", "url": "https://example.com", "method": "POST", "headers": map[string]any{"X-B": "c"},
		"success_codes": nil, "retry_codes": nil, "signing_secret": nil,
	}, patched["executor"])
	for body, pointer := range map[string]string{
		`{"executor": {"kind": "sql", "database": {"$secret": "db"}, "statement": "SELECT 1"}}`: "/executor/url", // what the old kind had
		`{"executor": {"url": "not a url"}}`:                                                    "/executor/url",
		`{"executor": {"headers": {"Authorization": "Bearer abc"}}}`:                            "/executor/headers/Authorization",
		`{"executor": {"headers": {"X-A": {"$secret": "a b"}}}}`:                                "/executor/headers/X-A",
		`{"executor": {"signing_secret": "whsec_abcdefgh"}}`:                                    "/executor/signing_secret",
		`{"executor": {"shell": "true"}}`:                                                       "/executor/shell",
		`{"executor": 7}`:                                                                       "/executor",
		`{"timeout": "0s"}`:                                                                     "/timeout",
		`{"max_concurrency": 0}`:                                                                "/max_concurrency",
	} {
		r := c.do("PATCH", at, body)
		require.Equal(t, http.StatusUnprocessableEntity, r.StatusCode, "%s %s", body, r.body)
		require.Contains(t, string(r.body), `"pointer":"`+pointer+`"`, body)
	}
	c.ask(http.StatusOK, "PUT", at, `{"executor": {"kind": "sql", "database": {"$secret": "db"}, "statement": "SELECT 1"}}`)

	wrong := c.do("POST", schedules, `{"task_name": "command", "cron_expression": "@daily", "task_params": {"key": "in the clear"}}`)
	require.Equal(t, http.StatusUnprocessableEntity, wrong.StatusCode)
	require.Contains(t, string(wrong.body), "/task_params/key")
	require.NotContains(t, string(wrong.body), "in the clear")
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "command", "cron_expression": "@daily", "task_params": {"key": {"$secret": "k"}}}`)
	require.Equal(t, map[string]any{"key": map[string]any{"$secret": "k"}}, made["task_params"])
}

func TestPutTaskDefinition(t *testing.T) {
	t.Parallel()

	c := setup(t)
	r := c.do("PUT", definitions+"/new%2Ftask", `{"max_attempts": 7}`)
	require.Equal(t, http.StatusCreated, r.StatusCode, "%s", r.body)
	require.Equal(t, definitions+"/new%2Ftask", r.Header.Get("Location"))
	made := r.object()
	require.Equal(t, "new/task", made["task_name"])

	put := c.do("PUT", definitions+"/new%2Ftask", `{"task_name": "new/task"}`)
	require.Equal(t, http.StatusOK, put.StatusCode)
	require.Empty(t, put.Header.Get("Location"))
	golden(t, "definition_least", put.body, scheduleNames(put.object()))
	require.Equal(t, made["id"], put.object()["id"])
	require.EqualValues(t, 2, put.object()["version"])
	require.Equal(t, put.object(), c.ask(http.StatusOK, "PUT", definitions+"/new%2Ftask", `{"executor": null, "retry": {"backoff": null}}`))

	long := c.ask(http.StatusOK, "PUT", definitions+"/new%2Ftask", `{"retry": {"backoff": "10m"}}`)
	require.Equal(t, map[string]any{"backoff": "10m", "max_backoff": "10m"}, long["retry"])
}

func TestForceMarksSchedules(t *testing.T) {
	t.Parallel()

	c := setup(t)
	g := give(c)
	const stricter = `{"parameter_schema": {"properties": {"text": {"maxLength": 4}}}}`
	c.ask(http.StatusConflict, "PATCH", definitions+"/greet", stricter)
	require.Nil(t, c.ask(http.StatusOK, "GET", schedules+"/"+g.schedule, "")["last_error"])
	c.ask(http.StatusOK, "PATCH", definitions+"/greet?force=true", stricter)
	require.Contains(t, c.ask(http.StatusOK, "GET", schedules+"/"+g.schedule, "")["last_error"], "must have at most 4 characters")
	c.ask(http.StatusConflict, "PUT", definitions+"/greet", `{"parameter_schema": {"required": ["more"]}}`)
	c.ask(http.StatusOK, "PUT", definitions+"/greet?force=true", `{"parameter_schema": {"required": ["more"]}}`)

	c.ask(http.StatusConflict, "POST", definitions, `{"task_name": "echo", "parameter_schema": {"required": ["more"]}}`)
	c.ask(http.StatusNotFound, "GET", definitions+"/echo", "")
	c.ask(http.StatusCreated, "POST", definitions+"?force=true", `{"task_name": "echo", "parameter_schema": {"required": ["more"]}}`)
}

func TestListTaskDefinitions(t *testing.T) {
	t.Parallel()

	c := setup(t)
	for _, name := range []string{"b", "a", "d", "c"} {
		category := "odd"
		if strings.Contains("bd", name) {
			category = "even"
		}
		c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "`+name+`", "category": "`+category+`"}`)
	}
	page := c.ask(http.StatusOK, "GET", definitions, "")
	require.Equal(t, []any{"a", "b", "c", "d"}, field(page, "task_name"))
	require.Nil(t, page["next_page_token"])
	page = c.ask(http.StatusOK, "GET", definitions+"?category=even&page_size=1", "")
	require.Equal(t, []any{"b"}, field(page, "task_name"))
	token := url.QueryEscape(page["next_page_token"].(string))
	page = c.ask(http.StatusOK, "GET", definitions+"?category=even&page_size=1&page_token="+token, "")
	require.Equal(t, []any{"d"}, field(page, "task_name"))
	require.Nil(t, page["next_page_token"])
	c.ask(http.StatusUnprocessableEntity, "GET", definitions+"?category=odd&page_token="+token, "")
}

// A schema that was refused, or tried out, is not remembered for the next one of its
// version.
func TestARefusedSchemaIsForgotten(t *testing.T) {
	t.Parallel()
	c := setup(t)
	c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "greet"}`)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "greet", "cron_expression": "@daily", "task_params": {"n": 1}}`)
	const strict = `{"parameter_schema": {"type": "object", "properties": {"n": {"type": "string"}}}}`
	c.ask(http.StatusConflict, "PATCH", definitions+"/greet", strict)
	c.ask(http.StatusOK, "PATCH", definitions+"/greet?dry_run=true&force=true", strict)
	c.ask(http.StatusOK, "PATCH", definitions+"/greet", `{"parameter_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}`)
	run := c.ask(http.StatusCreated, "POST", schedules+"/"+made["id"].(string)+"/run", "")
	require.Equal(t, "queued", run["state"])
}

func TestABuiltInTaskDefinition(t *testing.T) {
	t.Parallel()

	c := setup(t)
	at := definitions + "/fetch"
	made := c.ask(http.StatusCreated, "PUT", at, `{"parameter_schema": {"type": "object"}}`)
	require.Equal(t, false, made["built_in"])
	c.exec("UPDATE task_definitions SET built_in = true")

	refused := c.ask(http.StatusUnprocessableEntity, "PATCH", at, `{"parameter_schema": {"type": "object", "required": ["day"]}}`)
	require.Equal(t, "task_definition_built_in", refused["code"])
	require.Equal(t, "/parameter_schema", refused["errors"].([]any)[0].(map[string]any)["pointer"])
	c.ask(http.StatusUnprocessableEntity, "PUT", at, `{"executor": {"kind": "go", "name": "echo"}}`)
	changed := c.ask(http.StatusOK, "PATCH", at, `{"category": "ours", "max_attempts": 9}`)
	require.Equal(t, true, changed["built_in"])
	require.Equal(t, "ours", changed["category"])
	require.Equal(t, made["parameter_schema"], c.ask(http.StatusOK, "PUT", at, `{"queue": "slow"}`)["parameter_schema"])

	c.exec("UPDATE task_definitions SET parameter_schema = '{}'")
	taken := c.ask(http.StatusCreated, "PUT", at, `{"parameter_schema": {"type": "object", "required": ["day"]}}`)
	require.Equal(t, false, taken["built_in"], "it took any object: it stands in nobody's way")
	require.Equal(t, made["id"], taken["id"])
}
