package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"sync"

	"github.com/google/uuid"

	"riverbeat/internal/riverbeat"
)

// maxSchemas bounds the memory of compiled schemas.
const maxSchemas = 10_000

// Schemas remembers compiled parameter schemas by their definitions, with their
// texts: a version that was rolled back is given to another text then. It is safe
// for concurrent use.
type Schemas struct {
	mu       sync.Mutex
	compiled map[uuid.UUID]remembered
}

type remembered struct {
	text   json.RawMessage
	schema *riverbeat.ParameterSchema
}

// NewSchemas makes an empty memory.
func NewSchemas() *Schemas {
	return &Schemas{compiled: map[uuid.UUID]remembered{}}
}

// anyObject is the schema of a task without a definition.
var anyObject = &riverbeat.TaskDefinition{ParameterSchema: json.RawMessage("{}")}

// Of is the compiled schema of a stored definition. With d nil, for a task
// without a definition, it takes any object.
func (s *Schemas) Of(d *riverbeat.TaskDefinition) (*riverbeat.ParameterSchema, error) {
	if d == nil {
		d = anyObject
	}
	s.mu.Lock()
	known := s.compiled[d.ID]
	s.mu.Unlock()
	if known.schema != nil && bytes.Equal(known.text, d.ParameterSchema) {
		return known.schema, nil
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
	s.compiled[d.ID] = remembered{d.ParameterSchema, compiled}
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

// EffectiveOf is Effective for the parameters of a schedule. Where they need not fit the
// schema, what is wrong with them is no error but a warning; "": nothing is.
func (s *Schemas) EffectiveOf(of *riverbeat.Schedule, d *riverbeat.TaskDefinition, features riverbeat.Features) (effective json.RawMessage, warning string, err error) {
	effective, err = s.Effective(d, of.TaskParams)
	wrong, isInvalid := errors.AsType[*riverbeat.Error](err)
	if !isInvalid || wrong.Code != "invalid_params" || features.Validates(of) {
		return effective, "", err
	}
	schema, err := s.Of(d)
	if err != nil {
		return nil, "", err
	}
	effective, err = schema.Unchecked(of.TaskParams)
	return effective, "Passed on unchecked (parameter_validation is off): " + wrong.Error(), err
}
