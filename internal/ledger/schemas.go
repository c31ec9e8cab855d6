package ledger

import (
	"encoding/json"
	"sync"

	"github.com/google/uuid"

	"riverbeat/internal/riverbeat"
)

// maxSchemas bounds the memory of compiled schemas.
const maxSchemas = 10_000

// Schemas remembers compiled parameter schemas by the id and version of their
// definition. Everyone reads the definition in his own transaction, so what is
// remembered can never be stale, on no node. It is safe for concurrent use.
type Schemas struct {
	mu       sync.Mutex
	compiled map[schemaKey]*riverbeat.ParameterSchema
}

type schemaKey struct {
	definition uuid.UUID
	version    int
}

// NewSchemas makes an empty memory.
func NewSchemas() *Schemas {
	return &Schemas{compiled: map[schemaKey]*riverbeat.ParameterSchema{}}
}

// anyObject is the schema of a task without a definition.
var anyObject = &riverbeat.TaskDefinition{ParameterSchema: json.RawMessage("{}")}

// Of is the compiled schema of a stored definition. With d nil, for a task
// without a definition, it takes any object.
func (s *Schemas) Of(d *riverbeat.TaskDefinition) (*riverbeat.ParameterSchema, error) {
	if d == nil {
		d = anyObject
	}
	key := schemaKey{d.ID, d.Version}
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
