package riverbeat

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// executors are one of each kind with all its settings.
var executors = map[string]string{
	ExecutorGo: `{"kind": "go", "name": "echo"}`,
	ExecutorHTTP: `{"kind": "http", "url": "https://example.com/hook?a=b", "method": "PUT", "headers": {"X-A": "b", "Authorization": {"$secret": "token"}},
		"success_codes": [200, 404], "retry_codes": [409], "signing_secret": {"$secret": "whsec"}}`,
	ExecutorSQL:     `{"kind": "sql", "database": {"$secret": "db"}, "statement": "SELECT @day", "lock_timeout": "2s"}`,
	ExecutorCommand: `{"kind": "command", "name": "nightly", "arguments": ["--day", {"$param": "day"}]}`,
}

func TestExecutorsAreWhatTheirJSONSays(t *testing.T) {
	t.Parallel()
	for kind, text := range executors {
		e, err := ParseExecutor(json.RawMessage(text))
		require.NoError(t, err, kind)
		require.JSONEq(t, text, string(e.JSON()))
		require.JSONEq(t, text, string(e.Shown()), "all is set")
		again, err := ParseExecutor(e.Shown())
		require.NoError(t, err)
		require.True(t, again.Equal(&e))
		require.Equal(t, e, again)
	}
	e, err := ParseExecutor(json.RawMessage(`{"kind": null, "name": null}`))
	require.NoError(t, err)
	require.Equal(t, Executor{Kind: ExecutorGo}, e)
	require.JSONEq(t, `{"kind": "go"}`, string(e.JSON()))
	require.JSONEq(t, `{"kind": "go", "name": null}`, string(e.Shown()))
	e, err = ParseExecutor(json.RawMessage(`{"kind": "http", "url": {"$secret": "u"}, "headers": {"A": null}, "success_codes": []}`))
	require.NoError(t, err)
	require.Equal(t, Executor{Kind: ExecutorHTTP, URL: Text{Secret: "u"}, Method: "POST"}, e)
	e, err = ParseExecutor(json.RawMessage(`{"kind": "sql"}`))
	require.NoError(t, err)
	require.Equal(t, DefaultLockTimeout, e.LockTimeout)
}

func TestExecutorsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]FieldError{
		`[]`:                                                          {"", "must be an object"},
		`{"kind": 1}`:                                                 {"/kind", "must be a string"},
		`{"other": 1}`:                                                {"/other", "is not known"},
		`{"url": "https://example.com"}`:                              {"/url", "is not a setting of the kind go"},
		`{"kind": "http", "name": "x"}`:                               {"/name", "is not a setting of the kind http"},
		`{"kind": "http", "url": 1}`:                                  {"/url", `must be a string or {"$secret": "name"}`},
		`{"kind": "http", "url": {}}`:                                 {"/url", badSecret},
		`{"kind": "http", "headers": []}`:                             {"/headers", "must be an object"},
		`{"kind": "http", "headers": {"A/b": 1}}`:                     {"/headers/A~1b", `must be a string or {"$secret": "name"}`},
		`{"kind": "http", "success_codes": 200}`:                      {"/success_codes", "must be an array"},
		`{"kind": "http", "retry_codes": [200, "x"]}`:                 {"/retry_codes/1", "must be a whole number"},
		`{"kind": "http", "retry_codes": [1.5]}`:                      {"/retry_codes/0", "must be a whole number"},
		`{"kind": "http", "retry_codes": [null]}`:                     {"/retry_codes/0", "must be a whole number"},
		`{"kind": "sql", "lock_timeout": "soon"}`:                     {"/lock_timeout", badDuration},
		`{"kind": "sql", "database": {"$secret": "a b"}}`:             {"/database", badSecret},
		`{"kind": "sql", "database": {"$secret": "a", "x": 1}}`:       {"/database", badSecret},
		`{"kind": "command", "arguments": [1]}`:                       {"/arguments/0", `must be a string or {"$param": "name"}`},
		`{"kind": "command", "arguments": [{"$param": ""}]}`:          {"/arguments/0", `must be a string or {"$param": "name"}`},
		`{"kind": "command", "arguments": [{"$secret": "password"}]}`: {"/arguments/0", "must not be a secret: every user of the machine can read command lines"},
	} {
		_, err := ParseExecutor(json.RawMessage(text))
		e := requireInvalid(t, err, "invalid_task_definition")
		require.Equal(t, []FieldError{want}, e.Fields, text)
	}
}

func TestRulesOfExecutors(t *testing.T) {
	t.Parallel()
	definition := func(executor string) *TaskDefinition {
		e, err := ParseExecutor(json.RawMessage(executor))
		require.NoError(t, err, executor)
		return &TaskDefinition{
			TaskName: "t", ParameterSchema: json.RawMessage(`{"properties": {"day": {}}}`), Executor: e,
			Queue: DefaultQueue, Priority: 1, MaxAttempts: 1, Timeout: max(time.Second, DefaultTimeout(e.Kind)),
		}
	}
	for kind, text := range executors {
		require.NoError(t, definition(text).Validate(), kind)
	}
	for text, want := range map[string]FieldError{
		`{"kind": "shell"}`:                                                                     {"/executor/kind", "must be one of: go, http, sql, command"},
		`{"kind": "http"}`:                                                                      {"/executor/url", "is required"},
		`{"kind": "http", "url": "example.com"}`:                                                {"/executor/url", "must be a URL such as https://example.com/hook"},
		`{"kind": "http", "url": "ftp://a.b/c"}`:                                                {"/executor/url", "must be a URL such as https://example.com/hook"},
		`{"kind": "http", "url": "http:///x"}`:                                                  {"/executor/url", "must be a URL such as https://example.com/hook"},
		`{"kind": "http", "url": "http://:80/x"}`:                                               {"/executor/url", "must be a URL such as https://example.com/hook"},
		"{\"kind\": \"http\", \"url\": \"http://a.b/\\n\"}":                                     {"/executor/url", "must be a URL such as https://example.com/hook"},
		`{"kind": "http", "url": "https://me:pw@a.b"}`:                                          {"/executor/url", `must have no user and password; put them into the header Authorization, by {"$secret": "name"}`},
		`{"kind": "http", "url": "https://a.b#c"}`:                                              {"/executor/url", "must have no fragment: it would not be sent"},
		`{"kind": "http", "url": "https://a.b/` + strings.Repeat("x", MaxURLLength) + `"}`:      {"/executor/url", "must have at most 2048 characters"},
		`{"kind": "http", "url": "https://a.b", "method": "TRACE"}`:                             {"/executor/method", "must be one of: POST, PUT, PATCH, GET, DELETE"},
		`{"kind": "http", "url": "https://a.b", "headers": {"A B": "c"}}`:                       {"/executor/headers/A B", "is not the name of a header"},
		`{"kind": "http", "url": "https://a.b", "headers": {"": "c"}}`:                          {"/executor/headers/", "is not the name of a header"},
		`{"kind": "http", "url": "https://a.b", "headers": {"A": "b\r\nC: d"}}`:                 {"/executor/headers/A", "must not contain control characters"},
		`{"kind": "http", "url": "https://a.b", "headers": {"host": "c"}}`:                      {"/executor/headers/host", "is set by Riverbeat"},
		`{"kind": "http", "url": "https://a.b", "headers": {"Idempotency-Key": "c"}}`:           {"/executor/headers/Idempotency-Key", "is set by Riverbeat"},
		`{"kind": "http", "url": "https://a.b", "headers": {"Webhook-Id": "c"}}`:                {"/executor/headers/Webhook-Id", "is set by Riverbeat"},
		`{"kind": "http", "url": "https://a.b", "headers": {"X-A": "b", "x-a": "c"}}`:           {"/executor/headers/x-a", "is the same header as another"},
		`{"kind": "http", "url": "https://a.b", "headers": {"authorization": "Bearer abc"}}`:    {"/executor/headers/authorization", onlySecret},
		`{"kind": "http", "url": "https://a.b", "signing_secret": "whsec_abc"}`:                 {"/executor/signing_secret", onlySecret},
		`{"kind": "http", "url": "https://a.b", "success_codes": [199]}`:                        {"/executor/success_codes/0", "must be between 200 and 599"},
		`{"kind": "http", "url": "https://a.b", "success_codes": [404], "retry_codes": [404]}`:  {"/executor/retry_codes/0", "is a success code as well"},
		`{"kind": "sql", "statement": "SELECT 1"}`:                                              {"/executor/database", "is required"},
		`{"kind": "sql", "statement": "SELECT 1", "database": "postgres://me:pw@h/d"}`:          {"/executor/database", onlySecret},
		`{"kind": "sql", "database": {"$secret": "db"}}`:                                        {"/executor/statement", "is required"},
		`{"kind": "sql", "database": {"$secret": "db"}, "statement": "SELECT 'a"}`:              {"/executor/statement", "has a text that is not closed"},
		`{"kind": "sql", "database": {"$secret": "db"}, "statement": "SELECT @dya"}`:            {"/executor/statement", "names the parameter dya, of which parameter_schema has no property"},
		`{"kind": "sql", "database": {"$secret": "db"}, "statement": "SELECT $1"}`:              {"/executor/statement", "has the numbered parameter $1; parameters have names, as in @day"},
		`{"kind": "sql", "database": {"$secret": "d"}, "statement": "S", "lock_timeout": "0s"}`: {"/executor/lock_timeout", "must be between 1 and 604800000"},
		`{"kind": "command"}`: {"/executor/name", "is required"},
		`{"kind": "command", "name": "a", "arguments": [{"$param": "dya"}]}`:                                  {"/executor/arguments/0", "names the parameter dya, of which parameter_schema has no property"},
		`{"kind": "command", "name": "a", "arguments": ["` + strings.Repeat("x", MaxArgumentLength+1) + `"]}`: {"/executor/arguments/0", "must have at most 4096 characters"},
	} {
		err := definition(text).Validate()
		e := requireInvalid(t, err, "invalid_task_definition")
		require.Equal(t, []FieldError{want}, e.Fields, text)
	}
	require.NoError(t, definition(`{"kind": "sql", "database": {"$secret": "db"}, "statement": "SELECT @riverbeat_run_id, @day"}`).Validate())

	d := definition(executors[ExecutorHTTP])
	d.Timeout = 0
	require.Equal(t, "/timeout", requireInvalid(t, d.Validate(), "invalid_task_definition").Fields[0].Pointer)
	require.Equal(t, time.Duration(0), DefaultTimeout(ExecutorGo))
	require.Equal(t, 5*time.Minute, DefaultTimeout(ExecutorSQL))
}

func TestSecretsInParameters(t *testing.T) {
	t.Parallel()
	schema := compiled(t, `{
		"properties": {
			"key":   {"type": "string", "minLength": 8, "writeOnly": true},
			"limit": {"type": "integer", "not": {"type": "object"}},
			"list":  {"items": {"enum": ["a"]}},
			"inner": {"properties": {"deep": {"default": 1}}}
		},
		"additionalProperties": false
	}`)
	for _, params := range []string{
		`{"key": {"$secret": "api.key-1_x"}}`, `{"limit": {"$secret": "a"}}`, `{"list": ["a", {"$secret": "a"}]}`, `{"inner": {"$secret": "a"}}`, `{"key": null, "inner": null}`,
	} {
		_, err := schema.Effective(json.RawMessage(params))
		if strings.Contains(params, "null") {
			require.Error(t, err) // null is no string
			continue
		}
		require.NoError(t, err, params)
	}
	effective, err := schema.Effective(json.RawMessage(`{"inner": {"$secret": "a"}}`))
	require.NoError(t, err)
	require.JSONEq(t, `{"inner": {"$secret": "a"}}`, string(effective), "no default is filled into it")

	_, err = schema.Effective(json.RawMessage(`{"key": "a literal value"}`))
	e := requireInvalid(t, err, "invalid_params")
	require.Equal(t, []FieldError{{"/task_params/key", onlySecret}}, e.Fields)
	_, err = schema.Effective(json.RawMessage(`{"$secret": "all"}`))
	require.Equal(t, "/task_params", requireInvalid(t, err, "invalid_params").Fields[0].Pointer)
	_, err = CompileParameterSchema(json.RawMessage(`{"properties": {"key": {"writeOnly": true, "default": "abc"}}}`))
	require.Contains(t, requireInvalid(t, err, "invalid_parameter_schema").Fields[0].Detail, "must be a reference to a secret")

	s := &Schedule{
		Name: "n", TaskName: "t", CronExpression: "@daily", Timezone: "UTC", ExecutionPolicy: Allow, CatchUp: CatchUpNone, MaxWaiting: 1,
		Args: json.RawMessage(`[1, {"$secret": "a b"}]`), TaskParams: json.RawMessage(`{"a/b": {"c": {"$secret": "x", "more": 1}}, "d": {"$secret": 1}}`),
	}
	e = requireInvalid(t, s.Validate(), "invalid_schedule")
	require.Equal(t, []FieldError{{"/args/1", badSecret}, {"/task_params/a~1b/c", badSecret}, {"/task_params/d", badSecret}}, e.Fields)
}

func TestReplaceSecrets(t *testing.T) {
	t.Parallel()
	value := func(name string) (string, error) { return "<" + name + `"`, nil }
	for raw, want := range map[string]string{
		`{"a": 1.50}`:                           `{"a": 1.50}`,
		`[{"$secret": "a"}, 1]`:                 `["<a\"", 1]`,
		`{"x": {"\u0024secret": "a"}, "y": []}`: `{"x": "<a\"", "y": []}`,
		`{"n": 9007199254740993, "$x": 1}`:      `{"n": 9007199254740993, "$x": 1}`,
		``:                                      ``,
	} {
		got, err := ReplaceSecrets(json.RawMessage(raw), value)
		require.NoError(t, err, raw)
		if want == "" {
			require.Empty(t, got)
			continue
		}
		require.JSONEq(t, want, string(got))
	}
	got, err := ReplaceSecrets(json.RawMessage(`{"n":9007199254740993,"s":{"$secret":"a"}}`), value)
	require.NoError(t, err)
	require.Contains(t, string(got), "9007199254740993")
	_, err = ReplaceSecrets(json.RawMessage(`{"a": {"$secret": 1}}`), value)
	require.ErrorContains(t, err, "a reference to a secret must be")
}
