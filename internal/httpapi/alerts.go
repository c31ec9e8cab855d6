package httpapi

import (
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"riverbeat/internal/riverbeat"
)

// alerts are alerts as they are answered: null is what is not said.
type alerts struct {
	URL           *textOrSecret `json:"url"`
	SigningSecret *onlySecret   `json:"signing_secret"`
	AfterFailures *int          `json:"after_failures"`
	NoSuccessFor  *duration     `json:"no_success_for"`
	On            []alertEvent  `json:"on"`
}

// alertsInput is what people say of alerts.
type alertsInput struct {
	URL           *textOrSecret `json:"url" doc:"Where messages are posted. A definition must have one."`
	SigningSecret *onlySecret   `json:"signing_secret" doc:"What messages are signed with, by Standard Webhooks. It goes with the url beside it."`
	AfterFailures *int          `json:"after_failures" minimum:"1" maximum:"1000" doc:"How many runs must fail in a row before people are told. Defaults to 1."`
	NoSuccessFor  *duration     `json:"no_success_for" doc:"For how long no run may succeed, before people are told; at most 366 days. Defaults to any time, as does 0s."`
	On            []alertEvent  `json:"on" doc:"What people are told of; an empty list is nothing. Defaults to all."`
}

// alertsOf is nil for those that say nothing.
func alertsOf(a *riverbeat.Alerts) *alerts {
	if a.IsZero() {
		return nil
	}
	shown := &alerts{
		URL: orMissing(textOrSecret{reference{a.URL}}), SigningSecret: orMissing(onlySecret{reference{a.SigningSecret}}),
		AfterFailures: orMissing(a.AfterFailures), NoSuccessFor: orMissing(duration(a.NoSuccessFor)),
	}
	if a.On != nil {
		shown.On = make([]alertEvent, len(a.On))
	}
	for i, event := range a.On {
		shown.On[i] = alertEvent(event)
	}
	return shown
}

func (in *alertsInput) alerts() (a riverbeat.Alerts) {
	if in == nil {
		return a
	}
	a.URL, a.SigningSecret = valueOr(in.URL, textOrSecret{}).Text, valueOr(in.SigningSecret, onlySecret{}).Text
	a.AfterFailures, a.NoSuccessFor = valueOr(in.AfterFailures, 0), durationOr(in.NoSuccessFor, 0)
	if in.On != nil {
		a.On = make([]riverbeat.AlertEvent, len(in.On))
	}
	for i, event := range in.On {
		a.On[i] = riverbeat.AlertEvent(event)
	}
	return a
}

// textOrSecret is a text, or a reference to a secret; onlySecret may only be one, which is
// for riverbeat to check.
type (
	textOrSecret struct{ reference }
	onlySecret   struct{ reference }
	reference    struct{ riverbeat.Text }
)

func (r *reference) read(raw json.RawMessage) (problem string) {
	if err := r.UnmarshalJSON(raw); err != nil {
		return err.Error()
	}
	return ""
}

// Schema describes the type in the OpenAPI document.
func (textOrSecret) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{AnyOf: []*huma.Schema{{Type: huma.TypeString}, secretSchema(), {Type: "null"}}}
}

// Schema describes the type in the OpenAPI document.
func (onlySecret) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{AnyOf: []*huma.Schema{secretSchema(), {Type: "null"}}}
}

func secretSchema() *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeObject, AdditionalProperties: false, Required: []string{"$secret"},
		Properties: map[string]*huma.Schema{"$secret": {Type: huma.TypeString, Pattern: riverbeat.SecretName.String()}},
	}
}
