package riverbeat

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The kinds of executors.
const (
	ExecutorGo      = "go"      // code in the worker's binary
	ExecutorHTTP    = "http"    // a request to a URL
	ExecutorSQL     = "sql"     // a statement
	ExecutorCommand = "command" // a process, of those that the operator names
)

// Limits of an executor's settings.
const (
	MaxURLLength         = 2_048
	MaxHeaders           = 50
	MaxHeaderLength      = 4 << 10
	MaxStatusCodes       = 50
	MaxStatementSize     = 64 << 10
	MaxArguments         = 100
	MaxArgumentLength    = 4 << 10
	DefaultLockTimeout   = 5 * time.Second
	DefaultRequestMethod = "POST"
)

// Executor names what executes a task, and its settings. Which fields it has goes by its
// Kind, and all others are empty. Its JSON is flat, the same in API and database.
type Executor struct {
	Kind string
	// Name is the registered name of the code, for kind go; "" is the task's own name.
	// For kind command it is the name by which the operator knows the command.
	Name string

	// URL, Method and Headers are the request, for kind http.
	URL     Text
	Method  string
	Headers map[string]Text
	// SuccessCodes are the statuses that are none of a failure; none: 200 to 299.
	SuccessCodes []int
	// RetryCodes are the statuses after which another attempt is made; none: 408, 425, 429
	// and 500 to 599. All others end the run.
	RetryCodes []int
	// SigningSecret is what the request is signed with by Standard Webhooks; empty: it is
	// not signed.
	SigningSecret Text

	// Database is the postgres:// URL, for kind sql: a login of the statement's own.
	Database Text
	// Statement is one statement with parameters such as @day (see ParseStatement).
	Statement string
	// LockTimeout is how long it may wait for a lock.
	LockTimeout time.Duration

	// Arguments are the command line behind what the operator has given the command, for
	// kind command.
	Arguments []Argument
}

// Argument is one argument of a command line, or none, or several: what the parameter
// has.
type Argument struct {
	Literal   string
	Parameter string // {"$param": "name"}; then there is no Literal
}

const paramKey = "$param"

// MarshalJSON writes a string, or a reference.
func (a Argument) MarshalJSON() ([]byte, error) {
	return marshalReference(paramKey, a.Parameter, a.Literal)
}

// UnmarshalJSON reads a string, or a reference.
func (a *Argument) UnmarshalJSON(raw []byte) error {
	value, wrong := decodeJSON(raw)
	if wrong != nil {
		return errors.New(wrong.Detail)
	}
	switch value := value.(type) {
	case string:
		*a = Argument{Literal: value}
		return nil
	case map[string]any:
		if _, secret, _ := secretIn(value); secret {
			return errors.New("must not be a secret: every user of the machine can read command lines")
		}
		if name, _ := value[paramKey].(string); name != "" && len(value) == 1 {
			*a = Argument{Parameter: name}
			return nil
		}
	}
	return errors.New(`must be a string or {"$param": "name"}`)
}

// executorField is one member of an executor's JSON.
type executorField struct {
	name  string
	kinds []string
	// read reads a value that is not null, and tells what is wrong with it.
	read func(e *Executor, raw json.RawMessage) fields
	// show is the value, or nil for none.
	show func(e *Executor) any
}

var executorFields = []executorField{
	{"name", []string{ExecutorGo, ExecutorCommand}, one(func(e *Executor) *string { return &e.Name }), shown(func(e *Executor) any { return e.Name })},
	{"url", []string{ExecutorHTTP}, one(func(e *Executor) *Text { return &e.URL }), shown(func(e *Executor) any { return e.URL })},
	{"method", []string{ExecutorHTTP}, one(func(e *Executor) *string { return &e.Method }), shown(func(e *Executor) any { return e.Method })},
	{"headers", []string{ExecutorHTTP}, readHeaders, shown(func(e *Executor) any { return e.Headers })},
	{"success_codes", []string{ExecutorHTTP}, list(func(e *Executor) *[]int { return &e.SuccessCodes }), shown(func(e *Executor) any { return e.SuccessCodes })},
	{"retry_codes", []string{ExecutorHTTP}, list(func(e *Executor) *[]int { return &e.RetryCodes }), shown(func(e *Executor) any { return e.RetryCodes })},
	{"signing_secret", []string{ExecutorHTTP}, one(func(e *Executor) *Text { return &e.SigningSecret }), shown(func(e *Executor) any { return e.SigningSecret })},
	{"database", []string{ExecutorSQL}, one(func(e *Executor) *Text { return &e.Database }), shown(func(e *Executor) any { return e.Database })},
	{"statement", []string{ExecutorSQL}, one(func(e *Executor) *string { return &e.Statement }), shown(func(e *Executor) any { return e.Statement })},
	{"lock_timeout", []string{ExecutorSQL}, readLockTimeout, shown(func(e *Executor) any { return FormatDuration(e.LockTimeout) })},
	{"arguments", []string{ExecutorCommand}, list(func(e *Executor) *[]Argument { return &e.Arguments }), shown(func(e *Executor) any { return e.Arguments })},
}

func shown(value func(e *Executor) any) func(e *Executor) any {
	return func(e *Executor) any {
		v := value(e)
		if reflect.ValueOf(v).IsZero() {
			return nil
		}
		return v
	}
}

// one reads a value that is no list.
func one[T any](at func(e *Executor) *T) func(e *Executor, raw json.RawMessage) fields {
	return func(e *Executor, raw json.RawMessage) (wrong fields) {
		if problem := unmarshal(raw, at(e)); problem != "" {
			wrong.addf("", "%s", problem)
		}
		return wrong
	}
}

func list[T any](at func(e *Executor) *[]T) func(e *Executor, raw json.RawMessage) fields {
	return func(e *Executor, raw json.RawMessage) (wrong fields) {
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) != nil {
			wrong.addf("", "must be an array")
			return wrong
		}
		if len(items) == 0 {
			return nil
		}
		values := make([]T, len(items))
		for i, item := range items {
			if problem := unmarshal(item, &values[i]); problem != "" {
				wrong.addf(indexed("", i), "%s", problem)
			}
		}
		*at(e) = values
		return wrong
	}
}

func readHeaders(e *Executor, raw json.RawMessage) (wrong fields) {
	members, ok := Members(raw)
	if !ok {
		wrong.addf("", "must be an object")
		return wrong
	}
	headers := map[string]Text{}
	for _, m := range members {
		var value Text
		if string(m.Raw) == "null" { // of a merge patch: it is not there
			continue
		}
		if problem := unmarshal(m.Raw, &value); problem != "" {
			wrong.addf("/"+PointerToken(m.Name), "%s", problem)
		}
		headers[m.Name] = value
	}
	if len(headers) > 0 {
		e.Headers = headers
	}
	return wrong
}

func readLockTimeout(e *Executor, raw json.RawMessage) (wrong fields) {
	var problem string
	if e.LockTimeout, problem = ReadDuration(raw); problem != "" {
		wrong.addf("", "%s", problem)
	}
	return wrong
}

func unmarshal(raw json.RawMessage, to any) (problem string) {
	err := json.Unmarshal(raw, to)
	if err == nil && string(raw) != "null" {
		return ""
	}
	switch to.(type) {
	case *string:
		return "must be a string"
	case *int:
		return "must be a whole number"
	}
	if err == nil {
		return "must not be null"
	}
	return err.Error()
}

// ParseExecutor reads an executor from its JSON, in which null is the same as leaving it
// out. Settings that are not given get their defaults, and kind is go if it is not given.
// The error is an *Error of kind Invalid with code "invalid_task_definition"; its
// pointers lead into raw.
func ParseExecutor(raw json.RawMessage) (Executor, error) {
	var wrong fields
	members, ok := Members(raw)
	if !ok {
		wrong.addf("", "must be an object")
		return Executor{}, wrong.err("invalid_task_definition", "The executor cannot be read.")
	}
	e := Executor{Kind: ExecutorGo}
	for _, m := range members {
		if m.Name != "kind" || string(m.Raw) == "null" {
			continue
		}
		if problem := unmarshal(m.Raw, &e.Kind); problem != "" {
			wrong.addf("/kind", "%s", problem)
		}
	}
	switch e.Kind {
	case ExecutorHTTP:
		e.Method = DefaultRequestMethod
	case ExecutorSQL:
		e.LockTimeout = DefaultLockTimeout
	}
	for _, m := range members {
		if m.Name == "kind" || string(m.Raw) == "null" {
			continue
		}
		at := "/" + PointerToken(m.Name)
		i := slices.IndexFunc(executorFields, func(f executorField) bool { return f.name == m.Name })
		switch {
		case i < 0:
			wrong.addf(at, "is not known")
		case !slices.Contains(executorFields[i].kinds, e.Kind) && slices.Contains(executorKinds, e.Kind):
			wrong.addf(at, "is not a setting of the kind %s", e.Kind)
		default:
			for _, problem := range executorFields[i].read(&e, m.Raw) {
				wrong.addf(at+problem.Pointer, "%s", problem.Detail)
			}
		}
	}
	return e, wrong.err("invalid_task_definition", "The executor cannot be read.")
}

var executorKinds = []string{ExecutorGo, ExecutorHTTP, ExecutorSQL, ExecutorCommand}

// JSON writes the settings that are set.
func (e *Executor) JSON() json.RawMessage { return e.write(false) }

// Shown writes all settings that the kind has, null for what is not set.
func (e *Executor) Shown() json.RawMessage { return e.write(true) }

func (e *Executor) write(nulls bool) json.RawMessage {
	text := []byte(`{"kind":`)
	add := func(value any) {
		raw, err := encodeJSON(value)
		if err != nil {
			panic(err) // texts and numbers
		}
		text = append(text, raw...)
	}
	add(e.Kind)
	for _, f := range executorFields {
		if !slices.Contains(f.kinds, e.Kind) {
			continue
		}
		if value := f.show(e); value != nil || nulls {
			text = append(text, `,"`+f.name+`":`...)
			add(value)
		}
	}
	return append(text, '}')
}

// Equal tells whether two executors are the same.
func (e *Executor) Equal(other *Executor) bool { return string(e.JSON()) == string(other.JSON()) }

// executor checks every rule about an executor of a task whose parameters have the
// schema; nil if that could not be read.
func (f *fields) executor(at string, e *Executor, schema *ParameterSchema) {
	declared := func(pointer, name string) {
		if schema != nil && !schema.HasProperty(name) {
			f.addf(pointer, "names the parameter %s, of which parameter_schema has no property", name)
		}
	}
	switch e.Kind {
	case ExecutorGo:
		if e.Name != "" {
			f.taskName(at+"/name", e.Name)
		}
	case ExecutorHTTP:
		f.httpExecutor(at, e)
	case ExecutorSQL:
		f.secret(at+"/database", e.Database, true)
		f.between(at+"/lock_timeout", int(e.LockTimeout/time.Millisecond), 1, int(MaxTimeout/time.Millisecond))
		s, err := ParseStatement(e.Statement)
		switch {
		case strings.TrimSpace(e.Statement) == "":
			f.addf(at+"/statement", "is required")
		case len(e.Statement) > MaxStatementSize:
			f.addf(at+"/statement", "must have at most %d bytes", MaxStatementSize)
		case err != nil:
			f.addf(at+"/statement", "%s", err)
		}
		for _, name := range s.Parameters {
			if !slices.Contains(RunParameters, name) {
				declared(at+"/statement", name)
			}
		}
	case ExecutorCommand:
		f.taskName(at+"/name", e.Name)
		if len(e.Arguments) > MaxArguments {
			f.addf(at+"/arguments", "must have at most %d arguments", MaxArguments)
		}
		for i, a := range e.Arguments {
			pointer := indexed(at+"/arguments", i)
			if a.Parameter != "" {
				declared(pointer, a.Parameter)
			}
			f.text(pointer, a.Literal, MaxArgumentLength)
		}
	default:
		f.oneOf(at+"/kind", e.Kind, executorKinds...)
	}
}

// RequestMethods are the methods of a request.
var RequestMethods = []string{DefaultRequestMethod, "PUT", "PATCH", "GET", "DELETE"}

var (
	headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, section 5.1
	// ownHeaders are those that Riverbeat or the connection sets.
	ownHeaders = regexp.MustCompile(`(?i)^(host|content-length|content-type|content-encoding|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|proxy-.*|webhook-.*|idempotency-key|traceparent|tracestate)$`)
	// credentials are headers that have nothing but a secret.
	credentials = regexp.MustCompile(`(?i)^(authorization|cookie)$`)
)

func (f *fields) httpExecutor(at string, e *Executor) {
	switch {
	case e.URL.IsZero():
		f.addf(at+"/url", "is required")
	case e.URL.Secret == "":
		if problem := CheckRequestURL(e.URL.Literal); problem != "" {
			f.addf(at+"/url", "%s", problem)
		}
	}
	f.oneOf(at+"/method", e.Method, RequestMethods...)
	if len(e.Headers) > MaxHeaders {
		f.addf(at+"/headers", "must have at most %d headers", MaxHeaders)
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		value, pointer := e.Headers[name], at+"/headers/"+PointerToken(name)
		switch canonical := strings.ToLower(name); {
		case !headerName.MatchString(name) || len(name) > MaxNameLength:
			f.addf(pointer, "is not the name of a header")
		case ownHeaders.MatchString(name):
			f.addf(pointer, "is set by Riverbeat")
		case seen[canonical]:
			f.addf(pointer, "is the same header as another")
		case credentials.MatchString(name):
			f.secret(pointer, value, true)
			seen[canonical] = true
		default:
			seen[canonical] = true
			f.line(pointer, value.Literal, MaxHeaderLength)
		}
	}
	f.statusCodes(at+"/success_codes", e.SuccessCodes, nil)
	f.statusCodes(at+"/retry_codes", e.RetryCodes, e.SuccessCodes)
	f.secret(at+"/signing_secret", e.SigningSecret, false)
}

// CheckRequestURL tells what is wrong with the URL of a request; "" is nothing.
func CheckRequestURL(text string) (problem string) {
	u, err := url.Parse(text)
	switch {
	case len(text) > MaxURLLength:
		return fmt.Sprintf("must have at most %d characters", MaxURLLength)
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "":
		return "must be a URL such as https://example.com/hook"
	case u.User != nil:
		return `must have no user and password; put them into the header Authorization, by {"$secret": "name"}`
	case u.Fragment != "":
		return "must have no fragment: it would not be sent"
	}
	return ""
}

// secret checks a text that must not stand here as it is.
func (f *fields) secret(pointer string, t Text, required bool) {
	switch {
	case t.Literal != "":
		f.addf(pointer, onlySecret)
	case required && t.Secret == "":
		f.addf(pointer, "is required")
	}
}

// statusCodes checks a list of statuses of answers, none of which may stand in others.
func (f *fields) statusCodes(pointer string, codes, others []int) {
	if len(codes) > MaxStatusCodes {
		f.addf(pointer, "must have at most %d codes", MaxStatusCodes)
		return
	}
	for i, code := range codes {
		at := indexed(pointer, i)
		f.between(at, code, 200, 599)
		if slices.Contains(others, code) {
			f.addf(at, "is a success code as well")
		}
	}
}
