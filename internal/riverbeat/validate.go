package riverbeat

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a task definition that its retry and queue are held to.
const (
	MaxRetryBackoff    = MaxTimeout
	MaxQueueNameLength = 64       // River's own
	MaxParamsSize      = 64 << 10 // bytes of args, and of parameters
)

// queueName is River's rule for names of queues (validateQueueName there), so
// that a definition is refused when it is written and not when it first runs.
var queueName = regexp.MustCompile(`^[a-z0-9]+(?:[_|\-]?[a-z0-9]+)*$`)

// Validate checks every rule about a schedule that needs nothing but the
// schedule, and reports all that are broken at once, in an *Error of kind
// Invalid with code "invalid_schedule". The pointers are those of the API.
// Whether TaskParams fit the task's schema is ParameterSchema.Effective's to
// say.
func (s *Schedule) Validate() error {
	var broken fields
	broken.name("/name", s.Name)
	broken.taskName("/task_name", s.TaskName)
	if s.TaskName == AlertTask {
		broken.addf("/task_name", "is not for schedules: say under alerts whom to tell")
	}
	broken.add(recurrenceErrors(s.CronExpression, s.Timezone)...)
	broken.json("/args", s.Args, "array")
	broken.json("/task_params", s.TaskParams, "object")
	broken.text("/description", s.Description, MaxDescriptionLength)
	broken.line("/category", s.Category, MaxCategoryLength)
	broken.tags("/tags", s.Tags)
	broken.oneOf("/execution_policy", string(s.ExecutionPolicy), string(Allow), string(Skip), string(Queue))
	broken.oneOf("/catch_up", string(s.CatchUp), string(CatchUpLatest), string(CatchUpAll), string(CatchUpNone))
	broken.duration("/catch_up_window", s.CatchUpWindow, MaxCatchUpWindow)
	if s.CatchUpWindow%time.Second != 0 {
		broken.addf("/catch_up_window", "must be whole seconds")
	}
	broken.between("/max_waiting", s.MaxWaiting, 1, MaxWaitingLimit)
	broken.moment("/starts_at", s.StartsAt)
	broken.moment("/ends_at", s.EndsAt)
	if s.StartsAt != nil && s.EndsAt != nil && !s.StartsAt.Before(*s.EndsAt) {
		broken.addf("/ends_at", "must be after starts_at")
	}
	broken.line("/managed_by", s.ManagedBy, MaxNameLength)
	if s.Limits.MaxAttempts != 0 {
		broken.between("/max_attempts", s.Limits.MaxAttempts, 1, MaxMaxAttempts)
	}
	broken.duration("/timeout", s.Limits.Timeout, MaxTimeout)
	broken.retry("/retry", s.Limits.Retry)
	broken.alerts("/alerts", &s.Alerts)
	return broken.err("invalid_schedule", "The schedule breaks a rule.")
}

// Validate checks every rule about a task definition and reports all that are
// broken at once, in an *Error of kind Invalid with code
// "invalid_task_definition".
func (d *TaskDefinition) Validate() error {
	var broken fields
	broken.taskName("/task_name", d.TaskName)
	broken.line("/category", d.Category, MaxCategoryLength)
	broken.text("/description", d.Description, MaxDescriptionLength)
	var schema *ParameterSchema
	if _, isObject := Members(d.ParameterSchema); !isObject && len(d.ParameterSchema) > 0 {
		broken.addf("/parameter_schema", "must be an object")
	} else if compiled, err := CompileParameterSchema(d.ParameterSchema); err != nil {
		broken.add(fieldsOf(err, "/parameter_schema")...)
	} else {
		schema = compiled
	}
	broken.executor("/executor", &d.Executor, schema)
	if len(d.Queue) > MaxQueueNameLength || !queueName.MatchString(d.Queue) {
		broken.addf("/queue", "must be lower-case letters and digits, with single - or _ between them, at most %d characters", MaxQueueNameLength)
	}
	broken.between("/priority", d.Priority, 1, 4)
	broken.between("/max_attempts", d.MaxAttempts, 1, MaxMaxAttempts)
	broken.between("/max_concurrency", d.MaxConcurrency, 0, MaxMaxConcurrency)
	broken.duration("/timeout", d.Timeout, MaxTimeout)
	if d.Timeout == 0 && DefaultTimeout(d.Executor.Kind) > 0 {
		broken.addf("/timeout", "must not be 0: what is executed outside of the worker must come to an end")
	}
	broken.retry("/retry", d.Retry)
	broken.alerts("/alerts", &d.Alerts)
	if !d.Alerts.IsZero() && d.Alerts.URL.IsZero() {
		broken.addf("/alerts/url", "is required")
	}
	return broken.err("invalid_task_definition", "The task definition breaks a rule.")
}

// ValidateManagedBy checks the name of who manages schedules.
func ValidateManagedBy(name string) error {
	var broken fields
	broken.name("/managed_by", name)
	return broken.err("invalid_manifest", "The manifest breaks a rule.")
}

// fields collects the broken rules of one request.
type fields []FieldError

func (f *fields) addf(pointer, format string, args ...any) {
	*f = append(*f, FieldError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
}

func (f *fields) add(more ...FieldError) { *f = append(*f, more...) }

// err is nil when no rule is broken.
func (f *fields) err(code, detail string) error {
	if len(*f) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Code: code, Detail: detail, Fields: *f}
}

// name checks a name that people give.
func (f *fields) name(pointer, name string) {
	if utf8.ValidString(name) && strings.TrimSpace(name) == "" {
		f.addf(pointer, "must not be empty")
		return
	}
	f.line(pointer, name, MaxNameLength)
}

// taskName checks a name that code gives. It may have any printable
// characters, but is compared byte by byte: what cannot be seen is refused.
func (f *fields) taskName(pointer, name string) {
	switch {
	case name == "":
		f.addf(pointer, "is required")
	case !utf8.ValidString(name):
		f.addf(pointer, "is not valid UTF-8")
	case utf8.RuneCountInString(name) > MaxNameLength:
		f.addf(pointer, "must have at most %d characters", MaxNameLength)
	case strings.TrimSpace(name) != name:
		f.addf(pointer, "must not begin or end with a space")
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		f.addf(pointer, "must have printable characters only")
	}
}

// line checks a text of one line.
func (f *fields) line(pointer, text string, length int) {
	if strings.ContainsFunc(text, unicode.IsControl) {
		f.addf(pointer, "must not contain control characters")
		return
	}
	f.text(pointer, text, length)
}

// text checks a text that may have line breaks and tabs.
func (f *fields) text(pointer, text string, length int) {
	control := func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\n\r\t", r) }
	switch {
	case !utf8.ValidString(text):
		f.addf(pointer, "is not valid UTF-8")
	case strings.ContainsFunc(text, control):
		f.addf(pointer, "must not contain control characters")
	case utf8.RuneCountInString(text) > length:
		f.addf(pointer, "must have at most %d characters", length)
	}
}

func (f *fields) tags(pointer string, tags []string) {
	if len(tags) > MaxTags {
		f.addf(pointer, "must have at most %d tags", MaxTags)
		return
	}
	for i, tag := range tags {
		at := fmt.Sprintf("%s/%d", pointer, i)
		switch {
		case tag == "":
			f.addf(at, "must not be empty")
		case slices.Contains(tags[:i], tag):
			f.addf(at, "is the same tag as an earlier one")
		default:
			f.line(at, tag, MaxTagLength)
		}
	}
}

// json checks a value of a jsonb column. A missing one stands for an empty one.
func (f *fields) json(pointer string, raw json.RawMessage, kind string) {
	if isMissing(raw) {
		return
	}
	value, wrong := decodeJSON(raw)
	_, isArray := value.([]any)
	_, isObject := value.(map[string]any)
	switch {
	case len(raw) > MaxParamsSize:
		f.addf(pointer, "must be at most %d bytes; it goes into each run and each job", MaxParamsSize)
	case wrong != nil:
		f.addf(pointer+wrong.Pointer, "%s", wrong.Detail)
	case kind == "array" && !isArray, kind == "object" && !isObject:
		f.addf(pointer, "must be a JSON %s", kind)
	default:
		f.checkSecrets(pointer, value)
	}
}

func (f *fields) oneOf(pointer, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		f.addf(pointer, "must be one of: %s", strings.Join(allowed, ", "))
	}
}

func (f *fields) retry(pointer string, r Retry) {
	f.duration(pointer+"/backoff", r.Backoff, MaxRetryBackoff)
	f.duration(pointer+"/max_backoff", r.MaxBackoff, MaxRetryBackoff)
	if r.MaxBackoff < r.Backoff {
		f.addf(pointer+"/max_backoff", "must not be less than backoff")
	}
}

func (f *fields) between(pointer string, n, least, most int) {
	if n < least || n > most {
		f.addf(pointer, "must be between %d and %d", least, most)
	}
}

func (f *fields) duration(pointer string, d, most time.Duration) {
	if d < 0 || d > most {
		f.addf(pointer, "must be between 0 and %d seconds", int64(most/time.Second))
	}
}

// moment checks that a time can be the nominal time of a run: the id of a run
// counts milliseconds from 1970 (NewRunID), RFC 3339 ends with the year 9999.
func (f *fields) moment(pointer string, t *time.Time) {
	if t != nil && (t.UTC().Year() < 1970 || t.UTC().Year() > 9999) {
		f.addf(pointer, "must lie in the years 1970 to 9999")
	}
}

// recurrenceErrors looks at expression and zone each by itself, so that both
// are reported.
func recurrenceErrors(expression, timezone string) []FieldError {
	var wrong []FieldError
	if _, err := ParseRecurrence(expression, "UTC"); err != nil {
		wrong = append(wrong, fieldsOf(err, "/cron_expression")...)
	}
	if _, err := ParseRecurrence("@daily", timezone); err != nil {
		wrong = append(wrong, fieldsOf(err, "/timezone")...)
	}
	return wrong
}

// fieldsOf are the fields of err; an error without any becomes one at pointer.
func fieldsOf(err error, pointer string) []FieldError {
	if e, ok := errors.AsType[*Error](err); ok {
		if len(e.Fields) > 0 {
			return e.Fields
		}
		return []FieldError{{Pointer: pointer, Detail: e.Detail}}
	}
	return []FieldError{{Pointer: pointer, Detail: err.Error()}}
}
