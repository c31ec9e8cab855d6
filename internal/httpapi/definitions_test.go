package httpapi_test

import (
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
		"retry": {"backoff": 0.25, "max_backoff": "2h"}, "timeout": "90s"}`)
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
