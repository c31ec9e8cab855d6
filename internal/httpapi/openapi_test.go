package httpapi_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptinlin/jsonschema"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/access"
	"riverbeat/internal/httpapi"
)

// contract is the OpenAPI document as a test reads it. Every answer that a test
// gets is held to it (response.keepsContract).
type contract struct {
	Paths      map[string]map[string]documented
	Components struct{ Schemas map[string]json.RawMessage }

	mu       sync.Mutex
	compiled map[string]*jsonschema.Schema
}

type documented struct {
	OperationID string `json:"operationId"`
	Summary     string
	Tags        []string
	Parameters  []struct {
		Name, In, Description string
		Required              bool
		Schema                struct {
			Type     any
			Examples []any
		}
	}
	RequestBody *struct {
		Required bool
		Content  map[string]media
	}
	Responses map[string]struct {
		Description string
		Content     map[string]media
	}
}

type media struct {
	Schema  json.RawMessage
	Example json.RawMessage
}

var theContract struct {
	sync.Once
	*contract
}

func (c *client) contract() *contract {
	theContract.Do(func() {
		theContract.contract = &contract{compiled: map[string]*jsonschema.Schema{}}
		cfg := c.config
		cfg.Access = access.New(access.Config{DB: c.db, Open: access.Open, Now: time.Now})
		handler, err := httpapi.New(cfg)
		require.NoError(c.t, err)
		open := &client{t: c.t, handler: handler}
		raw := open.send(c.t.Context(), "GET", "/openapi.json", "").body
		require.NoError(c.t, json.Unmarshal(raw, theContract.contract))
		require.NotEmpty(c.t, theContract.Paths)
	})
	return theContract.contract
}

var pathParam = regexp.MustCompile(`\\\{[^}]*\\\}`)

// operation finds what is documented for a request. A literal path goes before
// one with parameters.
func (d *contract) operation(method, path string) (documented, bool) {
	templates := make([]string, 0, len(d.Paths))
	for template := range d.Paths {
		templates = append(templates, template)
	}
	slices.SortFunc(templates, func(a, b string) int { return strings.Count(a, "{") - strings.Count(b, "{") })
	for _, template := range templates {
		pattern := "^" + pathParam.ReplaceAllString(regexp.QuoteMeta(template), "[^/]+") + "$"
		if matched, _ := regexp.MatchString(pattern, path); matched {
			if op, ok := d.Paths[template][strings.ToLower(method)]; ok {
				return op, true
			}
		}
	}
	return documented{}, false
}

// schema compiles a schema of the document.
func (d *contract) schema(t *testing.T, raw json.RawMessage) *jsonschema.Schema {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.compiled[string(raw)]; s != nil {
		return s
	}
	whole := map[string]any{"$defs": d.Components.Schemas}
	require.NoError(t, json.Unmarshal(raw, &whole))
	// The library passes over a $ref that it does not find, and finds $defs; and
	// int64 and double are formats of OpenAPI that it does not know.
	text := []byte(strings.NewReplacer("#/components/schemas/", "#/$defs/", `"format":"int64",`, "", `"format":"double",`, "").Replace(jsonText(whole)))
	compiler := jsonschema.NewCompiler()
	compiler.SetAssertFormat(true)
	s, err := compiler.Compile(text)
	require.NoError(t, err)
	d.compiled[string(raw)] = s
	return s
}

// keeps tells whether a JSON value fits a schema of the document.
func (d *contract) keeps(t *testing.T, schema, value json.RawMessage) {
	t.Helper()
	s := d.schema(t, schema)
	d.mu.Lock() // the library's schemas are not safe for concurrent use
	defer d.mu.Unlock()
	result := s.ValidateJSON(value)
	require.True(t, result.IsValid(), "%s\ndoes not fit\n%s\n%v", value, schema, result.DetailedErrors())
}

func (r *response) keepsContract(c *client, method, target string) {
	c.t.Helper()
	path, _, _ := strings.Cut(target, "?")
	d := c.contract()
	op, ok := d.operation(method, path)
	if !ok {
		return
	}
	answer, ok := op.Responses[jsonText(r.StatusCode)]
	require.True(c.t, ok, "%s may not answer %d: %s", op.OperationID, r.StatusCode, r.body)
	if len(answer.Content) == 0 {
		require.Empty(c.t, r.body)
		return
	}
	content, ok := answer.Content[r.Header.Get("Content-Type")]
	require.True(c.t, ok, "%s answers %d with %s", op.OperationID, r.StatusCode, r.Header.Get("Content-Type"))
	d.keeps(c.t, content.Schema, r.body)
}

func TestOpenAPIHasEveryRoute(t *testing.T) {
	t.Parallel()

	c := setup(t)
	d := c.contract()
	var got []string
	ids := map[string]bool{}
	for path, operations := range d.Paths {
		for method, op := range operations {
			got = append(got, strings.ToUpper(method)+" "+path)
			require.NotEmpty(t, op.Summary, op.OperationID)
			require.NotEmpty(t, op.Tags, op.OperationID)
			require.False(t, ids[op.OperationID])
			ids[op.OperationID] = true
			for _, p := range op.Parameters {
				require.NotEmpty(t, p.Description, "%s %s", op.OperationID, p.Name)
			}
		}
	}
	slices.Sort(got)
	var want []string
	for _, r := range access.Routes {
		if strings.Contains(r.Pattern, " /api/") || r.Role == access.Anyone && !strings.HasSuffix(r.Pattern, "{$}") {
			want = append(want, r.Pattern)
		}
	}
	slices.Sort(want)
	require.Equal(t, want, got, "what has a role is a route, and documented")
}

// Every example is one that the API takes, and that its own schema takes.
func TestOpenAPIExamples(t *testing.T) {
	t.Parallel()

	d := setup(t).contract()
	for path, operations := range d.Paths {
		for method, op := range operations {
			if op.RequestBody == nil {
				continue
			}
			for mediaType, content := range op.RequestBody.Content {
				t.Run(op.OperationID+" "+strings.TrimPrefix(mediaType, "application/"), func(t *testing.T) {
					t.Parallel()

					c := setup(t)
					made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "0 9 * * *"}`)
					c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "echo"}`)
					id := made["id"].(string)
					if strings.Contains(path, "backfills/") {
						id = c.ask(http.StatusCreated, "POST", schedules+"/"+id+"/backfill",
							`{"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"}`)["id"].(string)
					}
					if strings.Contains(path, "api-keys/") {
						id = c.ask(http.StatusCreated, "POST", "/api/v1/api-keys", `{"name": "x", "role": "viewer"}`)["id"].(string)
					}
					target := strings.NewReplacer("{id}", id, "{task_name}", "echo", "{name}", "catch_up").Replace(path)
					require.NotEmpty(t, content.Example)
					d.keeps(t, content.Schema, content.Example)
					r := c.do(strings.ToUpper(method), target, string(content.Example), "Content-Type: "+mediaType)
					require.Less(t, r.StatusCode, 300, "%s", r.body)
				})
			}
		}
	}
}

// Each field's example and default is one that the API takes in its place; and
// a default is what a missing field becomes.
func TestOpenAPIDefaults(t *testing.T) {
	t.Parallel()

	c := setup(t)
	d := c.contract()
	for name, input := range map[string]struct{ target, least string }{
		"ScheduleInput":       {schedules, `{"task_name": "echo", "cron_expression": "0 9 * * *"}`},
		"TaskDefinitionInput": {definitions, `{"task_name": "task of %s"}`},
	} {
		var schema struct {
			Properties map[string]struct {
				Default  any
				Examples []any
			}
		}
		require.NoError(t, json.Unmarshal(d.Components.Schemas[name], &schema))
		n := 0
		body := func(change func(map[string]any)) string {
			n++
			var fields map[string]any
			require.NoError(t, json.Unmarshal([]byte(strings.ReplaceAll(input.least, "%s", jsonText(n))), &fields))
			change(fields)
			return jsonText(fields)
		}
		made := c.ask(http.StatusCreated, "POST", input.target, body(func(map[string]any) {}))
		for field, p := range schema.Properties {
			if p.Default != nil {
				want := p.Default
				if field == "executor" {
					want = map[string]any{"kind": "go", "name": nil}
				}
				require.Equal(t, want, made[field], field)
				p.Examples = append(p.Examples, p.Default)
			}
			for _, example := range p.Examples {
				c.ask(http.StatusCreated, "POST", input.target, body(func(fields map[string]any) { fields[field] = example }))
			}
		}
	}
}

func TestOpenAPIDocument(t *testing.T) {
	t.Parallel()

	c := setup(t)
	r := c.do("GET", "/openapi.json", "")
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.Equal(t, "application/json", r.Header.Get("Content-Type"))
	document := r.object()
	require.Equal(t, "3.1.0", document["openapi"])
	require.Equal(t, "1.2.3", document["info"].(map[string]any)["version"])
	c.ask(http.StatusNotFound, "GET", "/openapi.yaml", "")

	// Whatever is referred to is there.
	for _, found := range regexp.MustCompile(`"\$ref":"#/components/schemas/(\w+)"`).FindAllStringSubmatch(string(r.body), -1) {
		require.Contains(t, c.contract().Components.Schemas, found[1])
	}
}

// The page works without any other host.
func TestDocsPage(t *testing.T) {
	t.Parallel()

	c := setup(t)
	for _, target := range []string{"/docs", "/docs/"} {
		r := c.do("GET", target, "")
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.Contains(t, r.Header.Get("Content-Type"), "text/html")
		require.Contains(t, r.Header.Get("Content-Security-Policy"), "default-src 'self'")
		require.Contains(t, string(r.body), `"swaggerJsonUrl":"/openapi.json"`)
		assets := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(string(r.body), -1)
		require.GreaterOrEqual(t, len(assets), 4)
		for _, asset := range assets {
			require.Regexp(t, `^/docs/`, asset[1])
			got := c.do("GET", asset[1], "")
			require.Equal(t, http.StatusOK, got.StatusCode, asset[1])
			require.NotEmpty(t, got.body)
		}
	}
	require.Equal(t, http.StatusNotFound, c.do("GET", "/docs/nothing.js", "").StatusCode)
	require.Equal(t, "/docs", c.do("GET", "/", "").Header.Get("Location"), "until there are pages")
}
