package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The document that clients are made from is in the repository, and is what is
// served. -update writes it.
func TestCommittedOpenAPI(t *testing.T) {
	t.Parallel()
	c := setup(t)
	var document map[string]any
	require.NoError(t, json.Unmarshal(c.do("GET", "/openapi.json", "").body, &document))
	document["info"].(map[string]any)["version"] = "0"
	raw, err := json.MarshalIndent(document, "", "  ")
	require.NoError(t, err)
	file := filepath.Join("..", "..", "docs", "openapi.json")
	if *update {
		require.NoError(t, os.WriteFile(file, append(raw, '\n'), 0o644))
	}
	committed, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, strings.Split(string(committed), "\n"), append(strings.Split(string(raw), "\n"), ""), "run the test with -update")
}

// target fills in the path of an operation with things that are there.
func (c *client) target(path string) string {
	c.t.Helper()
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "0 9 * * *"}`)
	id := made["id"].(string)
	switch {
	case strings.Contains(path, "runs/"):
		id = c.ask(http.StatusCreated, "POST", schedules+"/"+id+"/run", "")["id"].(string)
	case strings.Contains(path, "api-keys/"):
		id = c.ask(http.StatusCreated, "POST", "/api/v1/api-keys", `{"name": "x", "role": "viewer"}`)["id"].(string)
	case strings.Contains(path, "backfills/"):
		id = c.ask(http.StatusCreated, "POST", schedules+"/"+id+"/backfill", `{"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"}`)["id"].(string)
	}
	return strings.NewReplacer("{id}", id, "{task_name}", "echo").Replace(path)
}

// Whatever is sent as a body, it is refused clearly or taken; nothing is our fault.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	// What no route takes, as the whole body.
	never := []string{
		"null", "[]", `""`, "0", "true", "{", "{}}", `{"a":1,}`, "\xef\xbb\xbf{}", "{\"\xff\": 1}", `{"a": NaN}`, `{"a": 01}`, "\x00", "{}\x00",
		strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), `{"a":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "}",
		deep(10_000), `{"x": "` + strings.Repeat("x", 1<<20) + `"}`, `{"__proto__": {}, "__proto__": {}}`, `{"constructor": 1}`,
	}
	// What may stand in the place of a field's value.
	values := []string{
		"null", "[]", "{}", `""`, "0", "-1", "1e999", "1e-999", "9223372036854775808", "1.5", "true", `"\u0000"`, `"\ud800"`, `"a\u0000b"`,
		`"` + strings.Repeat("x", 100_000) + `"`, `"` + strings.Repeat("🙂", 300) + `"`, `"<script>alert(1)</script>"`, `"'; DROP TABLE runs; --"`,
		`"%s%n{{.}}${jndi:ldap://x}"`, `"line\nbreak\r\u001b[31mred"`, `"../../etc/passwd"`, `[null]`, `["\u0000"]`, `[[[[1]]]]`, `{"\u0000": 1}`,
		`{"a": {"b": {"c": "\ud800"}}}`, deep(2_000), `{"$ref": "#"}`, `{"$ref": "http://169.254.169.254/"}`, `{"allOf": [{"$ref": "#"}]}`,
		`{"type": "string", "pattern": "(a+)+$"}`, `{"pattern": "["}`, `{"properties": 1}`, `"2026-02-30T00:00:00Z"`, `"0000-01-01T00:00:00Z"`,
		`"9999-12-31T23:59:59+00:01"`, `"-5s"`, `"1000000000h"`, `"* * * * * * *"`, `"@every 1ns"`, `"TZ=UTC * * * * *"`, `"0 0 30 2 *"`,
	}
	d := setup(t).contract()
	for path, operations := range d.Paths {
		for method, op := range operations {
			if op.RequestBody == nil {
				continue
			}
			t.Run(op.OperationID, func(t *testing.T) {
				t.Parallel()
				c := setup(t)
				target := c.target(path)
				method := strings.ToUpper(method)
				refused := func(body string) {
					t.Helper()
					r := c.do(method, target, body)
					require.GreaterOrEqual(t, r.StatusCode, 400, "%.60s", body)
					require.Less(t, r.StatusCode, 500, "%.60s: %s", body, r.body)
					require.NotEmpty(t, r.object()["code"])
				}
				for _, body := range never {
					refused(body)
				}
				content := op.RequestBody.Content["application/json"]
				var example map[string]json.RawMessage
				require.NoError(t, json.Unmarshal(content.Example, &example))
				for _, field := range d.fieldsOf(t, content.Schema) {
					for _, value := range values {
						body := map[string]json.RawMessage{}
						for name, given := range example {
							body[name] = given
						}
						body[field] = json.RawMessage(value)
						var text []string
						for name, given := range body { // json.Marshal would mend half a surrogate pair
							text = append(text, fmt.Sprintf("%q: %s", name, given))
						}
						r := c.do(method, target, "{"+strings.Join(text, ", ")+"}")
						require.Less(t, r.StatusCode, 500, "%s: %.60s: %s", field, value, r.body)
						if r.StatusCode == http.StatusConflict && op.OperationID == "create-task-definition" {
							c.exec("DELETE FROM task_definitions")
						}
						if r.StatusCode == http.StatusNotFound || r.StatusCode == http.StatusConflict {
							target = c.target(path) // it was changed away
						}
					}
				}
				require.NotContains(t, c.log.String(), "level=ERROR")
			})
		}
	}
}

// fieldsOf are the names of the members of a body.
func (d *contract) fieldsOf(t *testing.T, schema json.RawMessage) []string {
	t.Helper()
	var ref struct {
		Ref string `json:"$ref"`
	}
	require.NoError(t, json.Unmarshal(schema, &ref))
	var object struct{ Properties map[string]json.RawMessage }
	require.NoError(t, json.Unmarshal(d.Components.Schemas[strings.TrimPrefix(ref.Ref, "#/components/schemas/")], &object))
	var names []string
	for name := range object.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	require.NotEmpty(t, names)
	return names
}

// Nor is anything that is sent in a path, a query or a header.
func TestHostileAddresses(t *testing.T) {
	t.Parallel()
	c := setup(t)
	d := c.contract()
	texts := []string{
		"", " ", "\x00", "\xff\xfe", "é", "🙂", "<script>", "'", "%", "%00", "..", "a/b", "*", "-1", "0", "99999999999999999999", "1e9", "true", "null",
		"2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "infinity", "+", "\n", strings.Repeat("x", 10_000),
		"eyJkIjoiQUFBQUFBQUFBQUFBIiwiYyI6bnVsbH0", "eyJkIjoiIiwiYyI6eyJ0IjoiLWluZmluaXR5IiwiaSI6IlxcdTAwMDAifX0", nobody,
	}
	for path, operations := range d.Paths {
		for method, op := range operations {
			method := strings.ToUpper(method)
			fill := strings.NewReplacer("{id}", nobody, "{task_name}", "none")
			for _, text := range texts {
				check := func(target string, headers ...string) {
					t.Helper()
					r := c.do(method, target, "", headers...)
					require.NotEqual(t, http.StatusInternalServerError, r.StatusCode, "%s %.80s %.80q: %s", method, target, headers, r.body)
				}
				if escaped := url.PathEscape(text); text != "" && path != fill.Replace(path) {
					check(strings.NewReplacer("{id}", escaped, "{task_name}", escaped).Replace(path))
				}
				for _, p := range op.Parameters {
					if p.In == "query" {
						check(fill.Replace(path) + "?" + p.Name + "=" + url.QueryEscape(text))
					}
				}
			}
		}
	}
	for _, text := range texts {
		for _, name := range []string{"X-Request-Id", "If-Match", "Idempotency-Key", "Authorization", "Content-Type", "X-Forwarded-For", "Origin", "Accept"} {
			r := c.request(t.Context(), "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`)
			r.Header[name] = []string{text}
			answer := c.serve(r)
			require.NotEqual(t, http.StatusInternalServerError, answer.StatusCode, "%s %q: %s", name, text, answer.body)
		}
	}
	require.NotContains(t, c.log.String(), "level=ERROR")
}
