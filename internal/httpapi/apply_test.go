package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/httpapi"
)

const apply = "/api/v1/apply"

// planned are the actions of a plan by the names of its schedules.
func planned(plan map[string]any) map[string]string {
	actions := map[string]string{}
	for _, s := range plan["schedules"].([]any) {
		s := s.(map[string]any)
		actions[s["name"].(string)] = s["action"].(string)
	}
	return actions
}

func TestApply(t *testing.T) {
	t.Parallel()
	c := setup(t)
	const a, b = `{"name": "a", "task_name": "echo", "cron_expression": "@daily", "task_params": {"n": 1.0}}`, `{"name": "b", "task_name": "echo", "cron_expression": "@daily"}`
	manifest := func(schedules ...string) string {
		return `{"managed_by": "shop", "schedules": [` + strings.Join(schedules, ", ") + `], "prune": true, "max_prune": 1}`
	}
	dry := c.ask(http.StatusOK, "POST", apply+"?dry_run=true", manifest(a, b))
	require.Equal(t, true, dry["dry_run"])
	require.Equal(t, 0, c.count("schedules"))
	made := c.ask(http.StatusOK, "POST", apply, manifest(a, b))
	require.Equal(t, map[string]string{"a": "create", "b": "create"}, planned(made))
	require.Equal(t, false, made["dry_run"])
	id := made["schedules"].([]any)[0].(map[string]any)["id"].(string)
	s := c.ask(http.StatusOK, "GET", schedules+"/"+id, "")
	require.Equal(t, "shop", s["managed_by"])
	require.Equal(t, "Asia/Tokyo", s["timezone"], "the server's")
	require.Len(t, items(c.ask(http.StatusOK, "GET", schedules+"?managed_by=shop", "")), 2)
	require.Empty(t, items(c.ask(http.StatusOK, "GET", schedules+"?managed_by=", "")))

	// People may change it; the next one puts it right, and says what.
	c.ask(http.StatusOK, "PATCH", schedules+"/"+id, `{"task_params": {"n": 2}, "cron_expression": "@hourly", "tags": ["x"]}`)
	drift := c.ask(http.StatusOK, "POST", apply, `{"managed_by": "shop", "schedules": [`+a+`], "prune": true, "max_prune": 1, "dry_run": true}`)
	require.Equal(t, map[string]string{"a": "change", "b": "prune"}, planned(drift))
	require.Equal(t, []any{
		map[string]any{"field": "cron_expression", "old": "@hourly", "new": "@daily"},
		map[string]any{"field": "task_params", "old": map[string]any{"n": 2.0}, "new": map[string]any{"n": 1.0}},
		map[string]any{"field": "tags", "old": []any{"x"}, "new": []any{}},
	}, drift["schedules"].([]any)[0].(map[string]any)["changes"])
	again := c.ask(http.StatusOK, "POST", apply, manifest(a), "Idempotency-Key: k")
	require.Equal(t, again, c.ask(http.StatusOK, "POST", apply, manifest(a), "Idempotency-Key: k"))
	require.Equal(t, map[string]string{"a": "unchanged"}, planned(c.ask(http.StatusOK, "POST", apply, manifest(a))))
	require.Len(t, items(c.ask(http.StatusOK, "GET", "/api/v1/audit?action=schedule.delete", "")), 1)

	// Refused, and told by a dry run.
	refused := c.ask(http.StatusConflict, "POST", apply, `{"managed_by": "shop", "prune": true}`)
	require.Equal(t, "too_many_to_prune", refused["code"])
	dry = c.ask(http.StatusOK, "POST", apply, `{"managed_by": "shop", "prune": true, "dry_run": true}`)
	require.Equal(t, refused["detail"], dry["refused"].(map[string]any)["detail"])
	require.Equal(t, map[string]string{"a": "prune"}, planned(dry))
}

func TestApplyRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	c := setup(t)
	for body, pointer := range map[string]string{
		`{"schedules": []}`:                    "/managed_by",
		`{"managed_by": "a\nb"}`:               "/managed_by",
		`{"managed_by": "x", "max_prune": -1}`: "/max_prune",
		`{"managed_by": "x", "schedules": [{"name": "a", "task_name": "echo", "cron_expression": "@daily", "tag": []}]}`: "/schedules/0/tag",
		`{"managed_by": "x", "schedules": [null]}`: "/schedules/0",
		`{"managed_by": "x", "schedules": [{"name": "a", "task_name": "echo", "cron_expression": "@daily", "enabled": "on"}]}`: "/schedules/0/enabled",
		`{"managed_by": "x", "schedules": [{"name": "a", "task_name": "echo", "cron_expression": "* *"}]}`:                     "/schedules/0/cron_expression",
		`{"managed_by": "x", "schedules": [{"task_name": "echo", "cron_expression": "@daily"}]}`:                               "/schedules/0/name",
		`{"managed_by": "x", "task_definitions": [{"task_name": "a", "executor": {"kind": "magic"}}]}`:                         "/task_definitions/0/executor/kind",
		`{"managed_by": "x", "task_definitions": [{"task_name": "a", "queue": "A B"}]}`:                                        "/task_definitions/0/queue",
	} {
		wrong := c.ask(http.StatusUnprocessableEntity, "POST", apply, body)["errors"].([]any)
		require.Equal(t, pointer, wrong[0].(map[string]any)["pointer"], body)
	}
}

// A manifest is many things, and may be larger than what is one.
func TestAManifestMayBeLarge(t *testing.T) {
	t.Parallel()
	c := setup(t)
	var list []string
	for i := range 400 {
		list = append(list, fmt.Sprintf(`{"name": "%d", "task_name": "echo", "cron_expression": "@daily", "description": %q}`, i, strings.Repeat("x", 4_000)))
	}
	body := `{"managed_by": "shop", "schedules": [` + strings.Join(list, ",") + `]}`
	require.Greater(t, len(body), httpapi.DefaultBodyLimit)
	require.InDelta(t, 400, c.ask(http.StatusOK, "POST", apply+"?dry_run=true", body)["create"], 0)
	c.ask(http.StatusRequestEntityTooLarge, "POST", schedules, body)
	c.ask(http.StatusRequestEntityTooLarge, "POST", apply, body+strings.Repeat(" ", 16*httpapi.DefaultBodyLimit))
}

// An editor may apply a manifest with definitions, as long as it changes none.
func TestApplyOfDefinitionsTakesAnAdmin(t *testing.T) {
	t.Parallel()
	c, keys := closed(t)
	manifest := func(priority int) string {
		return fmt.Sprintf(`{"managed_by": "shop", "task_definitions": [{"task_name": "report", "priority": %d}]}`, priority)
	}
	editor, admin := "Authorization: "+keys["editor"], "Authorization: "+keys["admin"]
	require.Equal(t, "role_not_sufficient", c.ask(http.StatusForbidden, "POST", apply, manifest(1), editor)["code"])
	dry := c.ask(http.StatusOK, "POST", apply+"?dry_run=true", manifest(1), editor)
	require.Equal(t, "role_not_sufficient", dry["refused"].(map[string]any)["code"])
	c.ask(http.StatusOK, "POST", apply, manifest(1), admin)
	c.ask(http.StatusOK, "POST", apply, manifest(1), editor)
	c.ask(http.StatusForbidden, "POST", apply, manifest(2), editor)
	changed := c.ask(http.StatusOK, "POST", apply, manifest(2), admin)["task_definitions"].([]any)[0].(map[string]any)
	require.Equal(t, "change", changed["action"])
	require.Equal(t, []any{map[string]any{"field": "priority", "old": 1.0, "new": 2.0}}, changed["changes"])
}

// What is exported says all that is not as it would be by itself, and nothing else.
func TestExport(t *testing.T) {
	t.Parallel()
	c := setup(t)
	c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "report", "category": "office", "executor": {"kind": "http", "url": "https://example.com"}}`)
	c.ask(http.StatusOK, "POST", apply, `{"managed_by": "shop", "schedules": [
		{"name": "plain", "task_name": "report", "cron_expression": "@daily"},
		{"name": "full", "task_name": "report", "cron_expression": "@daily", "timezone": "UTC", "enabled": false, "args": [1.0], "task_params": {"a": 1e2}, "description": "x",
		 "category": "", "tags": ["t"], "execution_policy": "skip", "catch_up": "none", "catch_up_window": 90, "max_waiting": 1, "max_attempts": 2, "retry": {"backoff": 1}, "timeout": 5,
		 "alerts": {"url": "https://example.com", "on": []}, "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2026-01-02T00:00:00Z"}]}`)
	exported := c.do("GET", "/api/v1/export?managed_by=shop&task_definitions=true", "")
	require.JSONEq(t, `{"managed_by": "shop",
		"task_definitions": [{"task_name": "report", "category": "office", "executor": {"kind": "http", "url": "https://example.com", "method": "POST"}, "timeout": "5m"}],
		"schedules": [
			{"name": "full", "task_name": "report", "cron_expression": "@daily", "timezone": "UTC", "enabled": false, "args": [1.0], "task_params": {"a": 100}, "description": "x",
			 "category": "", "tags": ["t"], "execution_policy": "skip", "catch_up": "none", "catch_up_window": "1m30s", "max_waiting": 1, "max_attempts": 2,
			 "retry": {"backoff": "1s", "max_backoff": "5m"}, "timeout": "5s", "alerts": {"url": "https://example.com", "on": []}, "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2026-01-02T00:00:00Z"},
			{"name": "plain", "task_name": "report", "category": "office", "cron_expression": "@daily", "timezone": "Asia/Tokyo"}]}`, string(exported.body))
	again := c.ask(http.StatusOK, "POST", apply, string(exported.body))
	require.Equal(t, map[string]string{"full": "unchanged", "plain": "unchanged"}, planned(again))
	require.Equal(t, "unchanged", again["task_definitions"].([]any)[0].(map[string]any)["action"])

	// Where a name is not enough there are ids.
	for range 2 {
		c.ask(http.StatusCreated, "POST", schedules, `{"name": "twin", "task_name": "echo", "cron_expression": "@daily"}`)
	}
	twins := c.ask(http.StatusOK, "GET", "/api/v1/export?q=twin", "")["schedules"].([]any)
	require.Len(t, twins, 2)
	require.NotNil(t, twins[0].(map[string]any)["id"])
	require.NotNil(t, c.ask(http.StatusOK, "GET", "/api/v1/export?ids=true&managed_by=shop", "")["schedules"].([]any)[0].(map[string]any)["id"])
}
