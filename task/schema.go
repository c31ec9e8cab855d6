package task

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/invopop/jsonschema"
)

// schemaOf makes the JSON Schema of a struct of parameters.
func schemaOf[P any]() json.RawMessage {
	t := reflect.TypeFor[P]()
	switch t.Kind() {
	case reflect.Map, reflect.Slice: // json.RawMessage is a slice
		return json.RawMessage("{}")
	case reflect.Struct:
	default:
		panic(fmt.Sprintf("task: parameters must be a struct, a map or a json.RawMessage, and %s is none", t))
	}
	reflector := jsonschema.Reflector{Anonymous: true, DoNotReference: true}
	schema := reflector.ReflectFromType(t)
	schema.Version = ""
	raw, err := json.Marshal(schema)
	if err != nil {
		panic(fmt.Sprintf("task: no schema can be made of %s: %v", t, err))
	}
	return raw
}
