package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"riverbeat/internal/riverbeat"
)

// problem is a problem document (RFC 9457).
type problem struct {
	Type      string         `json:"type" doc:"The kind of problem." example:"/problems/invalid"`
	Title     string         `json:"title" doc:"The kind of problem, in words." example:"The request breaks a rule"`
	Status    int            `json:"status" doc:"The HTTP status." example:"422"`
	Code      string         `json:"code" doc:"The stable name of the error, for programs." example:"invalid_schedule"`
	Detail    string         `json:"detail" doc:"What is wrong, and if possible what to do." example:"The schedule breaks a rule."`
	Errors    []problemField `json:"errors" nullable:"false" doc:"The parts of the request that are wrong. May be empty."`
	BlockedBy *uuid.UUID     `json:"blocked_by,omitempty" format:"uuid" doc:"For lock_key_taken: the run that is in the way."`
	RequestID string         `json:"request_id" doc:"The id of the request, as in the header X-Request-Id and in the log." example:"6f1c7a52-8b0e-4a55-9d0c-2f6f3a0f6f11"`
}

type problemField struct {
	Pointer string `json:"pointer" doc:"A JSON Pointer (RFC 6901) into the body, or the name of a query parameter." example:"/cron_expression"`
	Detail  string `json:"detail" example:"It has 2 fields; there must be five (minute, hour, day of month, month, day of week), or six with the second first."`
}

// form is what all problems of one kind have in common.
type form struct {
	status     int
	name       string // the end of its type
	title      string
	retryAfter int // seconds; 0: nothing is said
}

// forms say what each kind of error becomes over HTTP. Nothing else does.
var forms = map[riverbeat.Kind]form{
	riverbeat.Internal:           {http.StatusInternalServerError, "internal", "Something went wrong here", 0},
	riverbeat.Malformed:          {http.StatusBadRequest, "malformed", "The request cannot be read", 0},
	riverbeat.Invalid:            {http.StatusUnprocessableEntity, "invalid", "The request breaks a rule", 0},
	riverbeat.Unauthenticated:    {http.StatusUnauthorized, "unauthenticated", "A valid API key is needed", 0},
	riverbeat.Forbidden:          {http.StatusForbidden, "forbidden", "The API key does not allow this", 0},
	riverbeat.NotFound:           {http.StatusNotFound, "not-found", "There is no such thing", 0},
	riverbeat.Conflict:           {http.StatusConflict, "conflict", "The state of things does not allow this", 0},
	riverbeat.PreconditionFailed: {http.StatusPreconditionFailed, "precondition-failed", "It was changed since it was read", 0},
	riverbeat.TooMany:            {http.StatusTooManyRequests, "too-many", "A limit is reached", 1},
	riverbeat.TooLarge:           {http.StatusRequestEntityTooLarge, "too-large", "The request is too large", 0},
	riverbeat.Unavailable:        {http.StatusServiceUnavailable, "unavailable", "Not now", 1},
}

// protocolError is an error that only HTTP has.
type protocolError struct {
	form         form
	code, detail string
}

func (e *protocolError) Error() string { return e.detail }

func methodNotAllowed(format string, args ...any) error {
	return &protocolError{
		form{http.StatusMethodNotAllowed, "method-not-allowed", "The path does not take this method", 0},
		"method_not_allowed", fmt.Sprintf(format, args...),
	}
}

var mediaTypeForm = form{http.StatusUnsupportedMediaType, "unsupported-media-type", "The body is of a type that is not read here", 0}

func unsupportedMediaType(format string, args ...any) error {
	return &protocolError{mediaTypeForm, "unsupported_media_type", fmt.Sprintf(format, args...)}
}

// internalError is all that a caller is told of a fault of ours.
var internalError = riverbeat.Errorf(riverbeat.Internal, "internal_error",
	"This is not your fault. The log knows more, by the request id.")

// fail answers with the problem that err is, and logs what is ours to see: a
// fault, once, with its text; what a caller did wrong is no error of ours.
func (a *api) fail(c *gin.Context, err error) {
	ctx := c.Request.Context()
	log := a.Logger.With("method", c.Request.Method, "path", c.Request.URL.Path,
		"request_id", c.Writer.Header().Get(requestIDHeader), "error", err)
	if protocol, ok := errors.AsType[*protocolError](err); ok {
		a.writeProblem(c, protocol.form, &riverbeat.Error{Code: protocol.code, Detail: protocol.detail})
		return
	}
	known, ok := errors.AsType[*riverbeat.Error](err)
	switch {
	case ok && known.Kind == riverbeat.Unavailable:
		log.WarnContext(ctx, "unavailable", "cause", known.Cause)
	case ok && known.Kind != riverbeat.Internal:
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		// The client went away, or we are stopping.
		log.DebugContext(ctx, "request ended early")
		known = riverbeat.Errorf(riverbeat.Unavailable, "request_ended", "The request was ended before it was done. Try again.")
	default:
		log.ErrorContext(ctx, "request failed")
		known = internalError
	}
	a.writeProblem(c, forms[known.Kind], known)
}

func (a *api) writeProblem(c *gin.Context, f form, e *riverbeat.Error) {
	p := problem{
		Type: "/problems/" + f.name, Title: f.title, Status: f.status,
		Code: e.Code, Detail: e.Detail, Errors: []problemField{},
		BlockedBy: e.BlockedBy, RequestID: c.Writer.Header().Get(requestIDHeader),
	}
	for _, field := range e.Fields {
		p.Errors = append(p.Errors, problemField(field))
	}
	if after := max(f.retryAfter, int(math.Ceil(e.RetryAfter.Seconds()))); after > 0 {
		c.Header("Retry-After", strconv.Itoa(after))
	}
	body, err := encode(p)
	if err != nil {
		panic(err) // strings and numbers
	}
	writeBody(c, f.status, "application/problem+json", body)
}

// encode writes JSON as it is read: raw JSON keeps its characters, so that what
// was stored is what is answered.
func encode(v any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

// writeBody writes a response; to HEAD its headers only.
func writeBody(c *gin.Context, status int, contentType string, body []byte) {
	c.Header("Content-Type", contentType)
	c.Header("Content-Length", strconv.Itoa(len(body)))
	c.Status(status)
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return
	}
	// A client that went away is no error of ours.
	_, _ = c.Writer.Write(body)
}
