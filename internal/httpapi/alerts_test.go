package httpapi_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAlertsOfASchedule(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily",
		"alerts": {"url": {"$secret": "hook"}, "signing_secret": {"$secret": "whsec"}, "after_failures": 3, "no_success_for": "26h", "on": ["failing", "overdue"]}}`)
	require.Equal(t, map[string]any{
		"url": map[string]any{"$secret": "hook"}, "signing_secret": map[string]any{"$secret": "whsec"},
		"after_failures": 3., "no_success_for": "26h", "on": []any{"failing", "overdue"},
	}, made["alerts"])
	at := schedules + "/" + made["id"].(string)
	require.Equal(t, made, c.ask(http.StatusOK, "GET", at, ""))
	require.Equal(t, made, c.ask(http.StatusOK, "PATCH", at, `{"alerts": {}}`), "nothing changed, so nothing is written")
	patched := c.ask(http.StatusOK, "PATCH", at, `{"alerts": {"url": "https://example.com/hook", "signing_secret": null, "after_failures": null, "no_success_for": 90}}`)
	require.Equal(t, map[string]any{
		"url": "https://example.com/hook", "signing_secret": nil, "after_failures": nil, "no_success_for": "1m30s", "on": []any{"failing", "overdue"},
	}, patched["alerts"])
	require.Equal(t, []any{}, c.ask(http.StatusOK, "PATCH", at, `{"alerts": {"on": []}}`)["alerts"].(map[string]any)["on"])
	require.Equal(t, patched["alerts"], c.ask(http.StatusOK, "PATCH", at, `{"alerts": {"on": ["failing", "overdue"]}}`)["alerts"])
	require.Nil(t, c.ask(http.StatusOK, "PATCH", at, `{"alerts": null}`)["alerts"])
	require.Nil(t, c.ask(http.StatusOK, "PATCH", at, `{"alerts": {}}`)["alerts"])

	for body, pointer := range map[string]string{
		`{"alerts": 7}`:                                                    "/alerts",
		`{"alerts": {"on": []}, "enabled": 1}`:                             "/enabled",
		`{"alerts": {"after_failures": 2}}`:                                "/alerts/url",
		`{"alerts": {"webhook": "x"}}`:                                     "/alerts/webhook",
		`{"alerts": {"url": "example.com"}}`:                               "/alerts/url",
		`{"alerts": {"url": 1}}`:                                           "/alerts/url",
		`{"alerts": {"url": {"$secret": ""}}}`:                             "/alerts/url",
		`{"alerts": {"url": "https://a:b@c"}}`:                             "/alerts/url",
		`{"alerts": {"url": "https://c", "signing_secret": "whsec_open"}}`: "/alerts/signing_secret",
		`{"alerts": {"signing_secret": {"$secret": "x"}}}`:                 "/alerts/signing_secret",
		`{"alerts": {"url": "https://c", "after_failures": 0}}`:            "/alerts/after_failures",
		`{"alerts": {"url": "https://c", "after_failures": 1.5}}`:          "/alerts/after_failures",
		`{"alerts": {"url": "https://c", "no_success_for": "-1s"}}`:        "/alerts/no_success_for",
		`{"alerts": {"url": "https://c", "no_success_for": "soon"}}`:       "/alerts/no_success_for",
		`{"alerts": {"url": "https://c", "on": ["failed"]}}`:               "/alerts/on/0",
		`{"alerts": {"url": "https://c", "on": ["failing", "failing"]}}`:   "/alerts/on/1",
		`{"alerts": {"url": "https://c", "on": "failing"}}`:                "/alerts/on",
	} {
		r := c.do("PATCH", at, body)
		require.Equal(t, http.StatusUnprocessableEntity, r.StatusCode, "%s %s", body, r.body)
		require.Contains(t, string(r.body), `"pointer":"`+pointer+`"`, body)
		require.NotContains(t, string(r.body), "whsec_open")
	}
}

func TestAlertsOfADefinition(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "load", "alerts": {"url": "https://example.com/hook"}}`)
	require.Equal(t, map[string]any{
		"url": "https://example.com/hook", "signing_secret": nil, "after_failures": nil, "no_success_for": nil, "on": nil,
	}, made["alerts"])
	own := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "load", "cron_expression": "@daily", "alerts": {"no_success_for": "26h"}}`)
	require.Equal(t, map[string]any{
		"url": nil, "signing_secret": nil, "after_failures": nil, "no_success_for": "26h", "on": nil,
	}, own["alerts"], "what is its own; the rest is as its task has it")
	at := definitions + "/load"
	require.Equal(t, made, c.ask(http.StatusOK, "PUT", at, `{"alerts": {"url": "https://example.com/hook", "on": null, "no_success_for": "0s"}}`), "nothing changed")
	r := c.do("PATCH", at, `{"alerts": {"url": null, "after_failures": 2}}`)
	require.Equal(t, http.StatusUnprocessableEntity, r.StatusCode, "%s", r.body)
	require.Contains(t, string(r.body), `"pointer":"/alerts/url"`)
	require.Nil(t, c.ask(http.StatusOK, "PUT", at, `{}`)["alerts"])
}
