package command

import (
	"errors"
	"net/http"

	"riverbeat/internal/client"
)

// The codes with which the program exits. Scripts go by them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2 // it was called wrongly, or its settings cannot be read
	exitDifferences = 3 // 'diff' found some
	exitNotFound    = 4 // there is no such thing
	exitDenied      = 5 // the key is missing or not valid, or its role does not allow this
	exitConflict    = 6 // the state of things does not allow this, or it has changed meanwhile
)

// usageError is a fault in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// codedError is an error with an exit code of its own.
type codedError struct {
	error
	code int
}

func (e codedError) Unwrap() error { return e.error }

// exitCode is the code for what a command answered. What a server refuses has its own;
// commands that work on the database themselves know only success, error and usage.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	if coded, ok := errors.AsType[codedError](err); ok {
		return coded.code
	}
	refused, ok := errors.AsType[*client.Error](err)
	if !ok || refused.Code == "" {
		return exitError // an answer that is no problem document may be anybody's
	}
	switch refused.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitDenied
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return exitConflict
	default:
		return exitError
	}
}
