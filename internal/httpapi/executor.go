package httpapi

import (
	"encoding/json"
	"errors"

	"github.com/danielgtaylor/huma/v2"

	"riverbeat/internal/riverbeat"
)

// executorOf is an executor as riverbeat.Executor reads and writes it: which members it
// has goes by its kind.
type executorOf struct{ json.RawMessage }

// read is the executor, or what is wrong with it.
func (e executorOf) read() (riverbeat.Executor, error) {
	read, err := riverbeat.ParseExecutor(e.RawMessage)
	if invalid, ok := errors.AsType[*riverbeat.Error](err); ok {
		for i := range invalid.Fields {
			invalid.Fields[i].Pointer = "/executor" + invalid.Fields[i].Pointer
		}
	}
	return read, err
}

// Schema describes the type in the OpenAPI document.
func (executorOf) Schema(huma.Registry) *huma.Schema {
	text := func(doc string) *huma.Schema {
		return &huma.Schema{Type: huma.TypeString, Nullable: true, Description: doc}
	}
	kind := func(name, doc string, required []string, settings map[string]*huma.Schema) *huma.Schema {
		settings["kind"] = &huma.Schema{Type: huma.TypeString, Enum: []any{name}, Description: doc}
		return &huma.Schema{
			Type: huma.TypeObject, Title: name, AdditionalProperties: false, Required: append([]string{"kind"}, required...), Properties: settings,
		}
	}
	orSecret := func(doc string) *huma.Schema {
		s := textOrSecret{}.Schema(nil)
		s.Description = doc
		return s
	}
	secret := func(doc string) *huma.Schema {
		s := onlySecret{}.Schema(nil)
		s.Description = doc
		return s
	}
	least, most := 200., 599.
	codes := func(doc string) *huma.Schema {
		return &huma.Schema{
			Type: huma.TypeArray, Nullable: true, Description: doc, Items: &huma.Schema{Type: huma.TypeInteger, Minimum: &least, Maximum: &most},
		}
	}
	code := kind(riverbeat.ExecutorGo, "Code in the worker's binary.", nil, map[string]*huma.Schema{
		"name": text("The registered name of the code. Defaults to the task's own name."),
	})
	code.Required = nil
	methods := text("POST, PUT and PATCH send the run as JSON; GET and DELETE have no body.")
	methods.Default = riverbeat.DefaultRequestMethod
	for _, method := range riverbeat.RequestMethods {
		methods.Enum = append(methods.Enum, method)
	}
	lockTimeout := duration(0).Schema(nil)
	lockTimeout.Extensions = map[string]any{"type": []string{"string", "number", "null"}}
	lockTimeout.Default = riverbeat.FormatDuration(riverbeat.DefaultLockTimeout)
	lockTimeout.Description = "How long the statement may wait for a lock. How long it may take is the definition's timeout."
	return &huma.Schema{OneOf: []*huma.Schema{
		code,
		kind(riverbeat.ExecutorHTTP, "A request to a URL.", []string{"url"}, map[string]*huma.Schema{
			"url":    orSecret("Where the request goes."),
			"method": methods,
			"headers": {
				Type: huma.TypeObject, Nullable: true, AdditionalProperties: orSecret(""),
				Description: "Headers beside those that Riverbeat sets. Authorization and Cookie take a secret only.",
			},
			"success_codes":  codes("The statuses of a success. Defaults to all from 200 to 299."),
			"retry_codes":    codes("The statuses after which another attempt is made. Defaults to 408, 425, 429 and all from 500 to 599. All others end the run."),
			"signing_secret": secret("What the request is signed with, by Standard Webhooks."),
		}),
		kind(riverbeat.ExecutorSQL, "One SQL statement.", []string{"database", "statement"}, map[string]*huma.Schema{
			"database":     secret("The postgres:// URL of the statement's own login."),
			"statement":    {Type: huma.TypeString, Description: "One statement, its parameters by name, as in @day."},
			"lock_timeout": lockTimeout,
		}),
		kind(riverbeat.ExecutorCommand, "A process, of those that the operator has named.", []string{"name"}, map[string]*huma.Schema{
			"name": {Type: huma.TypeString, Description: "The name of the command in the operator's configuration."},
			"arguments": {
				Type: huma.TypeArray, Nullable: true, Description: "Arguments behind those that the operator has given the command.",
				Items: &huma.Schema{AnyOf: []*huma.Schema{{Type: huma.TypeString}, {
					Type: huma.TypeObject, AdditionalProperties: false, Required: []string{"$param"},
					Properties: map[string]*huma.Schema{"$param": {Type: huma.TypeString, Description: "The name of a parameter."}},
				}}},
			},
		}),
	}}
}
