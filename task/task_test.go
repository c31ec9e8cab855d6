package task_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/task"
)

type params struct {
	Period string   `json:"period,omitempty" jsonschema:"enum=day,enum=week,default=day" jsonschema_extras:"x-name=true"`
	Codes  []string `json:"codes,omitempty" jsonschema:"maxItems=3"`
	Limit  int      `json:"limit" jsonschema:"minimum=1"`
	Inner  struct {
		Name string `json:"name"`
	} `json:"inner,omitzero"`
}

func TestASchemaIsMadeOfTheStruct(t *testing.T) {
	t.Parallel()
	of := task.New("t", func(context.Context, *task.Run, params) (any, error) { return nil, nil })
	require.JSONEq(t, `{"properties":{`+
		`"period":{"type":"string","enum":["day","week"],"default":"day","x-name":true},`+
		`"codes":{"items":{"type":"string"},"type":"array","maxItems":3},`+
		`"limit":{"type":"integer","minimum":1},`+
		`"inner":{"properties":{"name":{"type":"string"}},"additionalProperties":false,"type":"object","required":["name"]}},`+
		`"additionalProperties":false,"type":"object","required":["limit"]}`, string(of.Schema()))
	require.Regexp(t, "period.*codes.*limit.*inner", string(of.Schema()), "in the order of the struct, which names follow")

	for _, anything := range []task.Task{
		task.New("t", func(context.Context, *task.Run, map[string]any) (any, error) { return nil, nil }),
		task.New("t", func(context.Context, *task.Run, json.RawMessage) (any, error) { return nil, nil }),
	} {
		require.Equal(t, "{}", string(anything.Schema()))
	}
	require.Panics(t, func() {
		task.New("t", func(context.Context, *task.Run, int) (any, error) { return nil, nil })
	})
}

func TestParametersAreDecoded(t *testing.T) {
	t.Parallel()
	of := task.New("t", func(_ context.Context, run *task.Run, p params) (any, error) {
		return []any{run.Attempt, p.Period, p.Codes, p.Limit, p.Inner.Name}, nil
	})
	result, err := of.Run(t.Context(), &task.Run{
		Attempt: 2, TaskParams: json.RawMessage(`{"period": "week", "codes": ["130A"], "limit": 3, "inner": {"name": "n"}}`),
	})
	require.NoError(t, err)
	require.Equal(t, []any{2, "week", []string{"130A"}, 3, "n"}, result)

	_, err = of.Run(t.Context(), &task.Run{TaskParams: json.RawMessage(`{"limit": "three"}`)})
	require.ErrorContains(t, err, "limit")
	require.True(t, task.IsFinal(err), "another attempt would read the same")
}

func TestFinal(t *testing.T) {
	t.Parallel()
	require.NoError(t, task.Final(nil))
	require.False(t, task.IsFinal(nil))
	require.False(t, task.IsFinal(io.EOF))
	err := task.Final(io.EOF)
	require.ErrorIs(t, err, io.EOF)
	require.True(t, task.IsFinal(errors.Join(errors.New("while reading"), err)))
}

func TestSnooze(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("ask: %w", task.Snooze(time.Minute, io.EOF))
	after, ok := task.Snoozed(err)
	require.True(t, ok)
	require.Equal(t, time.Minute, after)
	require.ErrorIs(t, err, io.EOF)
	require.False(t, task.IsFinal(err))
	after, ok = task.Snoozed(task.Snooze(-time.Minute, nil))
	require.True(t, ok)
	require.Zero(t, after)
	_, ok = task.Snoozed(io.EOF)
	require.False(t, ok)
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	require.NoError(t, task.RetryAfter(time.Minute, nil))
	err := fmt.Errorf("ask: %w", task.RetryAfter(time.Minute, io.EOF))
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, time.Minute, task.RetriedAfter(err))
	require.False(t, task.IsFinal(err))
	require.Zero(t, task.RetriedAfter(task.RetryAfter(-time.Minute, io.EOF)))
	require.Zero(t, task.RetriedAfter(io.EOF))
}

func TestARunAsOtherProgramsAreToldOfIt(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(&task.Run{TaskName: "t", ScheduledFor: time.Date(2026, 3, 1, 9, 0, 0, 0, time.FixedZone("", 3600))})
	require.NoError(t, err)
	require.JSONEq(t, `{"run_id": "00000000-0000-0000-0000-000000000000", "execution": 0, "attempt": 0, "max_attempts": 0, "task_name": "t",
		"schedule_id": null, "schedule_name": "", "execution_policy": "", "trigger": "", "scheduled_for": "2026-03-01T08:00:00Z",
		"lock_key": null, "args": [], "task_params": {}, "deadline": null}`, string(raw))
	raw, err = json.Marshal(&task.Run{
		ScheduleID: uuid.Max, LockKey: "k", Args: json.RawMessage("[1]"), TaskParams: json.RawMessage(`{"a": 1}`),
		Deadline: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC),
	})
	require.NoError(t, err)
	for _, part := range []string{`"schedule_id":"ffff`, `"lock_key":"k"`, `"args":[1]`, `"task_params":{"a":1}`, `"deadline":"2026-03-01T09:00:00Z"`} {
		require.Contains(t, string(raw), part)
	}
}
