package httpapi

import (
	"encoding/json"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"riverbeat/internal/catalog"
	"riverbeat/internal/riverbeat"
)

// jsonObject and jsonArray are JSON that is passed on as it is. That it is an
// object or an array is for riverbeat to check.
type (
	jsonObject struct{ json.RawMessage }
	jsonArray  struct{ json.RawMessage }
	jsonAny    struct{ json.RawMessage }
)

// Schema describes the type in the OpenAPI document.
func (jsonObject) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

// Schema describes the type in the OpenAPI document.
func (jsonArray) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{}}
}

// Schema describes the type in the OpenAPI document.
func (jsonAny) Schema(huma.Registry) *huma.Schema { return &huma.Schema{} }

// duration is a length of time: read as "1h30m", "7d" or a number of seconds,
// written as "1h30m".
type duration time.Duration

// Schema describes the type in the OpenAPI document.
func (duration) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Extensions: map[string]any{"type": []string{"string", "number"}},
		Examples:   []any{"1h30m", 90},
	}
}

// MarshalJSON writes the duration as people do: "1h", not "1h0m0s".
func (d duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

func (d duration) String() string { return riverbeat.FormatDuration(time.Duration(d)) }

func (d *duration) read(raw json.RawMessage) (problem string) {
	parsed, problem := riverbeat.ReadDuration(raw)
	*d = duration(parsed)
	return problem
}

func durationOr(d *duration, missing time.Duration) time.Duration {
	if d == nil {
		return missing
	}
	return time.Duration(*d)
}

// The texts that are one of a few.
type (
	executionPolicy string
	catchUp         string
	runState        string
	runTrigger      string
	scheduleSort    string
	role            string
	backfillState   string
	bulkAction      string
	bulkOutcome     string
	verdict         string
	alertEvent      string
	planAction      string
)

func (executionPolicy) choices() []string {
	return texts(riverbeat.Allow, riverbeat.Skip, riverbeat.Queue)
}

func (catchUp) choices() []string {
	return texts(riverbeat.CatchUpLatest, riverbeat.CatchUpAll, riverbeat.CatchUpNone)
}

func (runState) choices() []string {
	return texts(riverbeat.Waiting, riverbeat.Queued, riverbeat.Running, riverbeat.Retrying, riverbeat.Succeeded,
		riverbeat.Failed, riverbeat.Cancelled, riverbeat.Skipped, riverbeat.Missed)
}

func (runTrigger) choices() []string {
	return texts(riverbeat.TriggerSchedule, riverbeat.TriggerCatchUp, riverbeat.TriggerManual, riverbeat.TriggerBackfill,
		riverbeat.TriggerAlert)
}

func (scheduleSort) choices() []string {
	return []string{"-created_at", "created_at", "name", "-name", "next_run_at", "-next_run_at"}
}

func (role) choices() []string { return texts(riverbeat.Roles...) }

// What is done to many schedules at once, and what becomes of each.
const (
	bulkEnable  bulkAction = "enable"
	bulkDisable bulkAction = "disable"
	bulkDelete  bulkAction = "delete"
	bulkTag     bulkAction = "tag"
	bulkUntag   bulkAction = "untag"
	bulkRunNow  bulkAction = "run"

	bulkDone      bulkOutcome = "done"
	bulkUnchanged bulkOutcome = "unchanged"
	bulkFailed    bulkOutcome = "failed"
)

func (backfillState) choices() []string {
	return texts(riverbeat.BackfillRunning, riverbeat.BackfillFinished, riverbeat.BackfillCancelled)
}

func (bulkAction) choices() []string {
	return texts(bulkEnable, bulkDisable, bulkDelete, bulkTag, bulkUntag, bulkRunNow)
}

func (bulkOutcome) choices() []string { return texts(bulkDone, bulkUnchanged, bulkFailed) }

func (verdict) choices() []string { return texts(riverbeat.Verdicts()...) }

func (alertEvent) choices() []string {
	return texts(riverbeat.AlertFailing, riverbeat.AlertOverdue, riverbeat.AlertRecovered)
}

func (planAction) choices() []string {
	return texts(catalog.ActionCreate, catalog.ActionChange, catalog.ActionUnchanged, catalog.ActionPrune, catalog.ActionConflict)
}

// Schema describes the type in the OpenAPI document.
func (c executionPolicy) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c catchUp) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c runState) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c runTrigger) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c scheduleSort) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c role) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c backfillState) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c bulkAction) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c bulkOutcome) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c verdict) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c alertEvent) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

// Schema describes the type in the OpenAPI document.
func (c planAction) Schema(huma.Registry) *huma.Schema { return choiceSchema(c) }

func choiceSchema(c choice) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, text := range c.choices() {
		s.Enum = append(s.Enum, text)
	}
	return s
}

func texts[T ~string](values ...T) []string {
	list := make([]string, len(values))
	for i, value := range values {
		list[i] = string(value)
	}
	return list
}

// valueOr is the value of an optional field, or what stands for a missing one.
func valueOr[T any](p *T, missing T) T {
	if p == nil {
		return missing
	}
	return *p
}

// orNull is an optional text of an answer: null when it is empty.
func orNull[T ~string](text T) *string {
	if text == "" {
		return nil
	}
	t := string(text)
	return &t
}

// orMissing is an optional value of an answer: null when it is zero.
func orMissing[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

// rawOr is raw JSON of an answer, or what stands for a missing one.
func rawOr(raw json.RawMessage, missing string) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage(missing)
	}
	return raw
}
