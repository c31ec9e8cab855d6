package riverbeat

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Kind sorts errors by what the caller can do about them. Only httpapi knows
// which HTTP status a kind becomes.
type Kind int

// The kinds of errors. The zero value is a fault of ours.
const (
	Internal           Kind = iota // nobody's fault but ours; its text is logged, never shown
	Malformed                      // the request cannot be read
	Invalid                        // it can be read and breaks a rule; Fields say where
	Unauthenticated                // no key, or one that is not valid
	Forbidden                      // a valid key whose role does not allow this
	NotFound                       // there is no such thing
	Conflict                       // the thing is in a state that does not allow this
	PreconditionFailed             // the thing was changed since the caller read it
	TooMany                        // a limit is reached; later it may work
	TooLarge                       // the request is larger than is read
	Unavailable                    // not now: starting, stopping, on hold, or the database is away
)

// Error is an error that a caller may be shown. Any other error is Internal.
type Error struct {
	Kind Kind
	// Code is the stable name of the error in the API, lower_snake_case.
	Code string
	// Detail says in one sentence what is wrong, and if possible what to do.
	Detail string
	// Fields point at the parts of the request that are wrong. May be empty.
	Fields []FieldError
	// BlockedBy is the run that is in the way, of a Conflict that has one.
	BlockedBy *uuid.UUID
	// RetryAfter is when it may work, of a TooMany or an Unavailable that knows; 0:
	// in a moment.
	RetryAfter time.Duration
	// Cause is what lies behind it; logged, never shown. May be nil.
	Cause error
}

// FieldError is one broken rule at one place of a request.
type FieldError struct {
	// Pointer is a JSON Pointer (RFC 6901) into the request's body, or the name
	// of a query parameter.
	Pointer string
	Detail  string
}

func (e *Error) Error() string {
	if len(e.Fields) == 0 {
		return e.Detail
	}
	return fmt.Sprintf("%s (%s: %s)", e.Detail, e.Fields[0].Pointer, e.Fields[0].Detail)
}

func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an Error without fields.
func Errorf(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// InvalidField makes the Error of one broken rule at one field of a request.
func InvalidField(code, pointer, format string, args ...any) *Error {
	detail := fmt.Sprintf(format, args...)
	return &Error{
		Kind: Invalid, Code: code, Detail: "The request breaks a rule.",
		Fields: []FieldError{{Pointer: pointer, Detail: detail}},
	}
}

// Explain is the text of err for a log: with what lies behind an Error, which
// its own text does not show.
func Explain(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*Error](err); ok && e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// KindOf tells the kind of err: that of the first Error in its chain, or
// Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// JoinInvalid reports the broken rules of several checks as one Error of kind
// Invalid, with the code of the first; nil if all are nil. An error of another
// kind is returned as it is.
func JoinInvalid(errs ...error) error {
	var joined *Error
	for _, err := range errs {
		if err == nil {
			continue
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Kind != Invalid {
			return err
		}
		if joined == nil {
			joined = &Error{Kind: Invalid, Code: e.Code, Detail: e.Detail}
		}
		joined.Fields = append(joined.Fields, e.Fields...)
	}
	if joined == nil {
		return nil
	}
	return joined
}
