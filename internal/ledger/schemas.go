package ledger

import (
	"crypto/sha256"
	"encoding/json"
	"sync"

	"riverbeat/internal/riverbeat"
)

// maxSchemas bounds the memory of compiled schemas.
const maxSchemas = 10_000

// Schemas remembers compiled parameter schemas by their texts: a version of a
// definition may have been rolled back, and be given to another schema then. It is
// safe for concurrent use.
type Schemas struct {
	mu       sync.Mutex
	compiled map[[sha256.Size]byte]*riverbeat.ParameterSchema
}

// NewSchemas makes an empty memory.
func NewSchemas() *Schemas {
	return &Schemas{compiled: map[[sha256.Size]byte]*riverbeat.ParameterSchema{}}
}

// anyObject is the schema of a task without a definition.
var anyObject = &riverbeat.TaskDefinition{ParameterSchema: json.RawMessage("{}")}

// Of is the compiled schema of a stored definition. With d nil, for a task
// without a definition, it takes any object.
func (s *Schemas) Of(d *riverbeat.TaskDefinition) (*riverbeat.ParameterSchema, error) {
	if d == nil {
		d = anyObject
	}
	key := sha256.Sum256(d.ParameterSchema)
	s.mu.Lock()
	compiled := s.compiled[key]
	s.mu.Unlock()
	if compiled != nil {
		return compiled, nil
	}
	compiled, err := riverbeat.CompileParameterSchema(d.ParameterSchema)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.compiled) >= maxSchemas {
		clear(s.compiled)
	}
	s.compiled[key] = compiled
	return compiled, nil
}

// Effective checks params against the schema of d and fills in its defaults.
// An error with code invalid_params says what is wrong with params.
func (s *Schemas) Effective(d *riverbeat.TaskDefinition, params json.RawMessage) (json.RawMessage, error) {
	schema, err := s.Of(d)
	if err != nil {
		return nil, err
	}
	return schema.Effective(params)
}
