package httpapi

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"riverbeat/internal/access"
	"riverbeat/internal/riverbeat"
)

// newOpenAPI makes the document without its routes.
func newOpenAPI(version string) *huma.OpenAPI {
	if version == "" {
		version = "dev"
	}
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info:    &huma.Info{Title: "Riverbeat", Version: version, Description: apiDescription},
		Servers: []*huma.Server{{URL: "/"}},
		Tags: []*huma.Tag{
			{Name: tagSchedules, Description: "A task, its arguments, a recurrence and a policy."},
			{Name: tagTaskDefinitions, Description: "What can be run: parameters, executor, retries."},
			{Name: tagRuns, Description: "What became of each tick and request."},
			{Name: tagBackfills, Description: "Ranges of the past that are run."},
			{Name: tagInstallation, Description: "All nodes of one database together."},
			{Name: tagAccess, Description: "Keys, and who changed what."},
			{Name: tagProcess, Description: "Whether this process lives and can serve."},
		},
		Components: &huma.Components{
			Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"key": {Type: "http", Scheme: "bearer", Description: "An API key: Authorization: Bearer rb_…"},
			},
		},
		Security: []map[string][]string{{"key": {}}},
	}
}

const apiDescription = `Task scheduler on one Postgres.

Bodies are JSON objects. Unknown fields and query parameters are refused; null for an optional field is the same as leaving it out. Times are RFC 3339, answered in UTC. Durations are read as "90s", "1h30m", "7d" or a number of seconds, and answered as "1h30m".

PATCH takes a JSON merge patch (RFC 7396): what is left out stays, null is back to its default, objects are merged.

Errors are problem documents (RFC 9457) with a stable code. Each response has the header X-Request-Id; a sane one of yours is taken over.

Lists are read page by page: give next_page_token as page_token until it is null.`

// schemaName names a type in the document: its Go name, listOf of a generic
// list.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	if item, isList := strings.CutPrefix(name, "List"); isList && item != "" {
		return item + "List"
	}
	return name
}

// variant is a body that is described like another type of which nothing is
// required: a patch of it, say.
type variant interface {
	variantOf() (whole reflect.Type, suffix string)
}

// document adds a route to the document.
func (a *api) document(method, path string, op operation, in reader, response reflect.Type) *huma.Operation {
	d := &huma.Operation{
		Method: method, Path: path,
		OperationID: op.id, Summary: op.summary, Description: op.description, Tags: []string{op.tag},
		Responses: map[string]*huma.Response{},
	}
	for _, p := range in.path {
		d.Parameters = append(d.Parameters, a.paramSchema(p, "path"))
	}
	for _, p := range slices.Concat(in.query, in.optionQuery) {
		d.Parameters = append(d.Parameters, a.paramSchema(p, "query"))
	}
	for _, p := range slices.Concat(in.header, in.optionHeader) {
		d.Parameters = append(d.Parameters, a.paramSchema(p, "header"))
	}
	if in.body != nil {
		d.RequestBody = a.requestBody(op, in)
	}
	if len(op.successes) == 0 {
		op.successes = []int{http.StatusOK}
	}
	if len(in.optionQuery) > 0 && !slices.Contains(op.successes, http.StatusNoContent) && !slices.Contains(op.successes, http.StatusOK) {
		op.successes = append([]int{http.StatusOK}, op.successes...) // of a dry run
	}
	for _, status := range op.successes {
		d.Responses[strconv.Itoa(status)] = a.success(status, response)
	}
	if role, err := access.Needed(method + " " + path); err == nil && role == access.Anyone {
		d.Security = []map[string][]string{{}}
	} else {
		op.failures = append([]riverbeat.Kind{riverbeat.Unauthenticated, riverbeat.Forbidden, riverbeat.TooMany}, op.failures...)
		op.description = strings.TrimSpace(op.description + "\n\nTakes the role " + string(role) + ".")
		d.Description = op.description
	}
	for _, f := range failuresOf(op, in) {
		d.Responses[strconv.Itoa(f.status)] = a.failure(f)
	}
	a.openAPI.AddOperation(d)
	return d
}

func (a *api) paramSchema(p param, in string) *huma.Param {
	t := p.field.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	f := p.field
	f.Type = t
	s := huma.SchemaFromField(a.openAPI.Components.Schemas, f, "")
	s.Nullable = false
	s.Default = fromTag(p.field, "def", s)
	described := &huma.Param{Name: p.name, In: in, Description: s.Description, Required: p.required(), Schema: s}
	s.Description = ""
	if t.Kind() == reflect.Slice {
		explode := true
		described.Explode = &explode
	}
	return described
}

// requestBody describes a body. Where a type says nothing else, its fields are
// optional, and may be null.
func (a *api) requestBody(op operation, in reader) *huma.RequestBody {
	t := in.body.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var s *huma.Schema
	if v, ok := reflect.New(t).Interface().(variant); ok {
		whole, suffix := v.variantOf()
		s = a.variantSchema(whole, suffix)
	} else {
		s = a.inputSchema(t)
	}
	content := &huma.MediaType{Schema: s}
	if op.example != "" {
		content.Example = json.RawMessage(op.example)
	}
	body := &huma.RequestBody{
		Required: !in.bodyOptional(),
		Content:  map[string]*huma.MediaType{"application/json": content},
	}
	if in.patches() {
		body.Content["application/merge-patch+json"] = content
	}
	return body
}

// inputSchema is the schema of a type that is read.
func (a *api) inputSchema(t reflect.Type) *huma.Schema {
	registry := a.openAPI.Components.Schemas
	ref := registry.Schema(t, true, "")
	s := registry.SchemaFromRef(ref.Ref)
	s.Required = nil
	for _, f := range jsonFields(t) {
		p := s.Properties[jsonName(f)]
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && p.Items.Ref != "" {
			a.inputSchema(f.Type.Elem())
		}
		if f.Tag.Get("required") == "true" {
			s.Required = append(s.Required, jsonName(f))
			p.Nullable = false
			continue
		}
		if f.Type.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.Struct && p.Ref != "" {
			p = &huma.Schema{
				Description: f.Tag.Get("doc"),
				AnyOf:       []*huma.Schema{a.inputSchema(f.Type.Elem()), {Type: "null"}},
			}
			s.Properties[jsonName(f)] = p
		} else {
			makeNullable(p)
		}
		p.Default = fromTag(f, "def", p)
	}
	return ref
}

// makeNullable lets a property be null, also by its enum and by the list of its
// types.
func makeNullable(p *huma.Schema) {
	if types, several := p.Extensions["type"].([]string); several {
		if !slices.Contains(types, "null") {
			p.Extensions["type"] = append(slices.Clone(types), "null")
		}
		return
	}
	p.Nullable = p.Type != ""
	if len(p.Enum) > 0 && !slices.Contains(p.Enum, nil) {
		p.Enum = append(p.Enum, nil)
	}
}

// variantSchema is the schema of a type of which nothing is required.
func (a *api) variantSchema(whole reflect.Type, suffix string) *huma.Schema {
	registry := a.openAPI.Components.Schemas
	ref := a.inputSchema(whole)
	s := *registry.SchemaFromRef(ref.Ref)
	s.Required = nil
	if suffix == "Patch" {
		s.Properties = allWithoutDefaults(s.Properties)
	}
	name := strings.TrimSuffix(schemaName(whole, ""), "Input") + suffix
	registry.Map()[name] = &s
	return &huma.Schema{Ref: "#/components/schemas/" + name}
}

// allWithoutDefaults are properties that stay as they are when they are left out.
func allWithoutDefaults(properties map[string]*huma.Schema) map[string]*huma.Schema {
	copies := map[string]*huma.Schema{}
	for name, p := range properties {
		c := *p
		c.Default = nil
		copies[name] = &c
	}
	return copies
}

// fromTag is the JSON in a tag of a field, nil if it has none. Where a text is
// meant it need not be quoted.
func fromTag(f reflect.StructField, tag string, s *huma.Schema) any {
	text, given := f.Tag.Lookup(tag)
	if !given {
		return nil
	}
	if s.Type == huma.TypeString && !strings.HasPrefix(text, `"`) {
		return text
	}
	return json.RawMessage(text)
}

func (a *api) success(status int, response reflect.Type) *huma.Response {
	r := &huma.Response{Description: http.StatusText(status)}
	if status == http.StatusNoContent {
		return r
	}
	r.Content = map[string]*huma.MediaType{"application/json": {Schema: a.outputSchema(response)}}
	text := &huma.Schema{Type: huma.TypeString}
	r.Headers = map[string]*huma.Param{}
	if status == http.StatusCreated {
		r.Headers["Location"] = &huma.Param{Description: "The path of what was made.", Schema: text}
	}
	if response.Implements(reflect.TypeFor[versioned]()) {
		r.Headers["ETag"] = &huma.Param{Description: "Its version, for If-Match.", Schema: text}
	}
	return r
}

// outputSchema is the schema of a type that is answered. Fields may be added to
// it one day, so clients must not refuse unknown ones.
func (a *api) outputSchema(t reflect.Type) *huma.Schema {
	registry := a.openAPI.Components.Schemas
	ref := registry.Schema(t, true, "")
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	s := registry.SchemaFromRef(registry.Schema(t, true, "").Ref)
	if s == nil {
		return ref // values, described by themselves
	}
	s.AdditionalProperties = nil
	for _, f := range reflect.VisibleFields(t) {
		a.outputSchema(f.Type)
		p := s.Properties[jsonName(f)]
		isPointer := f.Type.Kind() == reflect.Pointer
		if f.Type == reflect.TypeFor[duration]() || isPointer && f.Type.Elem() == reflect.TypeFor[duration]() {
			p.Type, p.Extensions, p.Examples = huma.TypeString, nil, []any{"1h30m"}
		}
		switch {
		case isPointer && p.Type != "":
			makeNullable(p)
		case isPointer && p.Ref != "" && !strings.Contains(f.Tag.Get("json"), "omit"):
			s.Properties[jsonName(f)] = &huma.Schema{
				Description: p.Description, AnyOf: []*huma.Schema{{Ref: p.Ref}, {Type: "null"}},
			}
		}
	}
	return ref
}

// failuresOf are the forms of the problems that a route may answer with: those
// of its shape, and its own.
func failuresOf(op operation, in reader) []form {
	found := []form{forms[riverbeat.Malformed], forms[riverbeat.Invalid], forms[riverbeat.Internal], forms[riverbeat.Unavailable]}
	if in.hasBody {
		found = append(found, forms[riverbeat.TooLarge], mediaTypeForm)
	}
	if len(in.header) > 0 {
		found = append(found, forms[riverbeat.PreconditionFailed])
	}
	if len(in.optionHeader) > 0 {
		found = append(found, forms[riverbeat.Conflict])
	}
	for _, kind := range op.failures {
		found = append(found, forms[kind])
	}
	return found
}

func (a *api) failure(f form) *huma.Response {
	r := &huma.Response{
		Description: f.title + ".",
		Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: a.outputSchema(reflect.TypeFor[problem]())},
		},
	}
	if f.retryAfter > 0 {
		r.Headers = map[string]*huma.Param{
			"Retry-After": {Description: "Seconds to wait before trying again.", Schema: &huma.Schema{Type: huma.TypeInteger}},
		}
	}
	return r
}
