// Package secret has the values to which parameters and executors only refer, and keeps
// them out of everything that a run leaves behind.
package secret

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// Bounds of a secret, in bytes. What is shorter cannot be told from ordinary text, and so
// cannot be kept out of it.
const (
	MinLength = 4
	MaxLength = 64 << 10
)

// Source reads the value of a secret. It is asked at each use.
type Source func() (string, error)

// Store has the secrets of a node. The nil Store has none.
type Store struct{ sources map[string]Source }

// New makes a Store of the sources, by the names of their secrets.
func New(sources map[string]Source) *Store { return &Store{sources} }

// Value is that of the named secret. No error contains it.
func (s *Store) Value(name string) (string, error) {
	if s == nil || s.sources[name] == nil {
		return "", fmt.Errorf("this node has no secret %q; the operator names them by RIVERBEAT_SECRETS", name)
	}
	value, err := s.sources[name]()
	switch {
	case err != nil:
		return "", fmt.Errorf("read the secret %q: %w", name, err)
	case len(value) < MinLength || len(value) > MaxLength:
		return "", fmt.Errorf("the secret %q must have %d to %d bytes", name, MinLength, MaxLength)
	case !utf8.ValidString(value) || slices.Contains([]byte(value), 0):
		return "", fmt.Errorf("the secret %q is not text", name)
	}
	return value, nil
}

// Check reads every secret once. The error tells of all that cannot be used.
func (s *Store) Check() error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(s.sources)) {
		_, err := s.Value(name)
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

type key struct{}

// With is a context of code that is to redact by itself what it cuts.
func With(ctx context.Context, r *Redactor) context.Context { return context.WithValue(ctx, key{}, r) }

// From is the Redactor of a context, nil if it has none.
func From(ctx context.Context) *Redactor {
	r, _ := ctx.Value(key{}).(*Redactor)
	return r
}
