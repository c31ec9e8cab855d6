package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const features = "/api/v1/features"

// set sets a feature.
func (c *client) set(name, value string) {
	c.t.Helper()
	require.Equal(c.t, value, c.ask(http.StatusOK, "PUT", features+"/"+name, `{"value": "`+value+`"}`)["value"])
}

func TestFeatures(t *testing.T) {
	t.Parallel()
	c := setup(t)
	golden(t, "features", c.do("GET", features, "").body, strings.NewReplacer())

	c.set("catch_up", "25%")
	c.set("catch_up", "25%") // is no change
	c.set("execution_policy", "off")
	var values []string
	for _, item := range c.ask(http.StatusOK, "GET", features, "")["items"].([]any) {
		values = append(values, item.(map[string]any)["value"].(string))
	}
	require.Equal(t, []string{"on", "off", "on", "25%"}, values)
	require.NotNil(t, c.ask(http.StatusOK, "GET", features, "")["items"].([]any)[3].(map[string]any)["updated_by"])

	changes := c.ask(http.StatusOK, "GET", "/api/v1/audit?object_type=feature_flag", "")["items"].([]any)
	require.Len(t, changes, 2)
	require.Equal(t, "catch_up", changes[1].(map[string]any)["object_id"])
	require.EqualValues(t, 25, changes[1].(map[string]any)["after"].(map[string]any)["percent"])

	require.Equal(t, "on", c.ask(http.StatusOK, "PUT", features+"/execution_policy?dry_run=true", `{"value": "on"}`)["value"])
	require.Equal(t, "off", c.ask(http.StatusOK, "GET", features, "")["items"].([]any)[1].(map[string]any)["value"])

	require.Equal(t, "feature_not_found", c.ask(http.StatusNotFound, "PUT", features+"/telepathy", `{"value": "on"}`)["code"])
	for _, body := range []string{`{"value": "maybe"}`, `{"value": "101%"}`, `{"value": ""}`, `{}`, `{"value": null}`, `{"value": 25}`} {
		c.ask(http.StatusUnprocessableEntity, "PUT", features+"/catch_up", body)
	}
}

func TestWithoutParameterValidation(t *testing.T) {
	t.Parallel()
	c := setup(t)
	c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "load", "parameter_schema": {"type": "object", "properties": {"day": {"type": "integer"}, "dry": {"type": "boolean", "default": true}}, "required": ["day"]}}`)
	const broken = `{"task_name": "load", "cron_expression": "@daily", "task_params": {"day": "monday"}}`
	c.ask(http.StatusUnprocessableEntity, "POST", schedules, broken)

	c.set("parameter_validation", "off")
	made := c.ask(http.StatusCreated, "POST", schedules, broken)
	require.Contains(t, made["last_error"], "Passed on unchecked (parameter_validation is off)")
	require.NotContains(t, made["last_error"], "monday", "it may be a secret")
	one := schedules + "/" + made["id"].(string)
	run := c.ask(http.StatusCreated, "POST", one+"/run", "")
	require.Equal(t, "queued", run["state"])
	require.Equal(t, map[string]any{"day": "monday", "dry": true}, run["task_params"], "defaults are filled in all the same")
	c.ask(http.StatusOK, "PATCH", definitions+"/load", `{"parameter_schema": {"type": "object", "required": ["week"]}}`)
	require.Contains(t, c.ask(http.StatusOK, "GET", one, "")["last_error"], "week")
	c.ask(http.StatusUnprocessableEntity, "POST", schedules, `{"task_name": "load", "cron_expression": "@daily", "task_params": {"$secret": "x"}}`)

	require.Equal(t, made["version"], c.ask(http.StatusOK, "PATCH", one, `{"enabled": true}`)["version"], "that changes nothing")
	c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "secretive", "parameter_schema": {"properties": {"token": {"type": "string", "writeOnly": true}}}}`)
	c.ask(http.StatusUnprocessableEntity, "POST", schedules, `{"task_name": "secretive", "cron_expression": "@daily", "task_params": {"token": "hunter2"}}`)

	c.set("parameter_validation", "on")
	c.ask(http.StatusUnprocessableEntity, "POST", one+"/run", "")
	require.Equal(t, "monday", c.ask(http.StatusOK, "POST", one+"/disable", "")["task_params"].(map[string]any)["day"], "it can still be disabled")
}

func TestWithoutExecutionPolicy(t *testing.T) {
	t.Parallel()
	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily", "execution_policy": "skip"}`)
	run := schedules + "/" + made["id"].(string) + "/run"
	require.Equal(t, "queued", c.ask(http.StatusCreated, "POST", run, "")["state"])
	require.Equal(t, "skipped", c.ask(http.StatusCreated, "POST", run, "")["state"])

	c.set("execution_policy", "off")
	for range 2 {
		r := c.ask(http.StatusCreated, "POST", run, "")
		require.Equal(t, "queued", r["state"])
		require.Equal(t, "allow", r["execution_policy"], "as it was decided")
		require.Nil(t, r["lock_key"])
	}
	require.Equal(t, "skip", c.ask(http.StatusOK, "GET", schedules+"/"+made["id"].(string), "")["execution_policy"])

	c.set("execution_policy", "on")
	require.Equal(t, "skipped", c.ask(http.StatusCreated, "POST", run, "")["state"], "behind the first one, which has the key")
}

func TestWithoutAutoNaming(t *testing.T) {
	t.Parallel()
	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`)
	one := schedules + "/" + made["id"].(string)
	c.set("auto_naming", "off")
	p := c.ask(http.StatusUnprocessableEntity, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`)
	require.Equal(t, "/name", p["errors"].([]any)[0].(map[string]any)["pointer"])
	c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily", "name": "given"}`)

	changed := c.ask(http.StatusOK, "PATCH", one, `{"cron_expression": "0 * * * *"}`)
	require.Equal(t, made["name"], changed["name"], "a name that was made stays as it is")
	require.Equal(t, true, changed["auto_generated_name"])
	require.Equal(t, false, c.ask(http.StatusOK, "PATCH", one, `{"name": "mine"}`)["auto_generated_name"])
	c.ask(http.StatusUnprocessableEntity, "PATCH", one, `{"name": null}`)

	c.set("auto_naming", "on")
	require.Equal(t, "echo_hourly", c.ask(http.StatusOK, "PATCH", one, `{"name": null}`)["name"])
}
