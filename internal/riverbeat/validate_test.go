package riverbeat

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func validSchedule() *Schedule {
	return &Schedule{
		Name: "nightly", TaskName: "echo", CronExpression: "0 0 * * *", Timezone: "Asia/Tokyo",
		Args: json.RawMessage(`[]`), TaskParams: json.RawMessage(`{}`),
		ExecutionPolicy: DefaultPolicy, CatchUp: DefaultCatchUp, CatchUpWindow: DefaultCatchUpWindow, MaxWaiting: DefaultMaxWaiting,
	}
}

func TestScheduleValidate(t *testing.T) {
	t.Parallel()
	at := func(year int) *time.Time {
		moment := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		return &moment
	}

	for _, test := range []struct {
		name    string
		change  func(s *Schedule)
		pointer string // "" is valid
	}{
		{"Plain", func(*Schedule) {}, ""},
		{"EverythingGiven", func(s *Schedule) {
			s.Name, s.Category, s.Tags = "夜間 バッチ", "市場", []string{"a", "b"}
			s.Description = "two\nlines"
			s.StartsAt, s.EndsAt = at(2024), at(2025)
		}, ""},
		{"LongestName", func(s *Schedule) { s.Name = strings.Repeat("名", MaxNameLength) }, ""},
		{"NameTooLong", func(s *Schedule) { s.Name = strings.Repeat("a", MaxNameLength+1) }, "/name"},
		{"NameEmpty", func(s *Schedule) { s.Name = "" }, "/name"},
		{"NameBlank", func(s *Schedule) { s.Name = " \t" }, "/name"},
		{"NameWithNUL", func(s *Schedule) { s.Name = "a\x00" }, "/name"},
		{"NameWithLineBreak", func(s *Schedule) { s.Name = "a\nb" }, "/name"},
		{"NameNotUTF8", func(s *Schedule) { s.Name = "a\xff" }, "/name"},
		{"TaskNameMissing", func(s *Schedule) { s.TaskName = "" }, "/task_name"},
		{"TaskNameWithSpaceInside", func(s *Schedule) { s.TaskName = "a b" }, ""},
		{"TaskNameWithSpaceAtEnd", func(s *Schedule) { s.TaskName = "echo " }, "/task_name"},
		{"TaskNameInvisible", func(s *Schedule) { s.TaskName = "ec\u200bho" }, "/task_name"},
		{"TaskNameTooLong", func(s *Schedule) { s.TaskName = strings.Repeat("a", MaxNameLength+1) }, "/task_name"},
		{"CronMissing", func(s *Schedule) { s.CronExpression = "" }, "/cron_expression"},
		{"ArgsMissing", func(s *Schedule) { s.Args = nil }, ""},
		{"ArgsAnObject", func(s *Schedule) { s.Args = json.RawMessage(`{}`) }, "/args"},
		{"ArgsUnreadable", func(s *Schedule) { s.Args = json.RawMessage(`[`) }, "/args"},
		{"ArgsWithNUL", func(s *Schedule) { s.Args = json.RawMessage(`["a\u0000"]`) }, "/args/0"},
		{"ParamsAnArray", func(s *Schedule) { s.TaskParams = json.RawMessage(`[]`) }, "/task_params"},
		{"ParamsWithKeyTwice", func(s *Schedule) { s.TaskParams = json.RawMessage(`{"a":{"b":1,"b":1}}`) }, "/task_params/a/b"},
		{"DescriptionTooLong", func(s *Schedule) { s.Description = strings.Repeat("x", MaxDescriptionLength+1) }, "/description"},
		{"DescriptionWithNUL", func(s *Schedule) { s.Description = "\x00" }, "/description"},
		{"CategoryTooLong", func(s *Schedule) { s.Category = strings.Repeat("x", MaxCategoryLength+1) }, "/category"},
		{"CategoryWithLineBreak", func(s *Schedule) { s.Category = "a\nb" }, "/category"},
		{"TagEmpty", func(s *Schedule) { s.Tags = []string{"a", ""} }, "/tags/1"},
		{"TagTwice", func(s *Schedule) { s.Tags = []string{"a", "b", "c", "b"} }, "/tags/3"},
		{"TagTooLong", func(s *Schedule) { s.Tags = []string{strings.Repeat("x", MaxTagLength+1)} }, "/tags/0"},
		{"TooManyTags", func(s *Schedule) {
			for i := range MaxTags + 1 {
				s.Tags = append(s.Tags, fmt.Sprint(i))
			}
		}, "/tags"},
		{"PolicyUnknown", func(s *Schedule) { s.ExecutionPolicy = "forbid" }, "/execution_policy"},
		{"PolicyMissing", func(s *Schedule) { s.ExecutionPolicy = "" }, "/execution_policy"},
		{"CatchUpUnknown", func(s *Schedule) { s.CatchUp = "some" }, "/catch_up"},
		{"NoWindow", func(s *Schedule) { s.CatchUpWindow = 0 }, ""},
		{"WindowNegative", func(s *Schedule) { s.CatchUpWindow = -time.Second }, "/catch_up_window"},
		{"WindowTooLong", func(s *Schedule) { s.CatchUpWindow = MaxCatchUpWindow + time.Second }, "/catch_up_window"},
		{"WindowWithFraction", func(s *Schedule) { s.CatchUpWindow = 1500 * time.Millisecond }, "/catch_up_window"},
		{"NobodyMayWait", func(s *Schedule) { s.MaxWaiting = 0 }, "/max_waiting"},
		{"TooManyMayWait", func(s *Schedule) { s.MaxWaiting = MaxWaitingLimit + 1 }, "/max_waiting"},
		{"EndsWhenItStarts", func(s *Schedule) { s.StartsAt, s.EndsAt = at(2024), at(2024) }, "/ends_at"},
		{"StartsBefore1970", func(s *Schedule) { s.StartsAt = at(1969) }, "/starts_at"},
		{"EndsAfter9999", func(s *Schedule) { s.EndsAt = at(10000) }, "/ends_at"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := validSchedule()
			test.change(s)
			requireBroken(t, s.Validate(), "invalid_schedule", test.pointer)
		})
	}

	t.Run("AllAtOnce", func(t *testing.T) {
		t.Parallel()
		e := requireInvalid(t, (&Schedule{Timezone: "UTC"}).Validate(), "invalid_schedule")
		var pointers []string
		for _, field := range e.Fields {
			pointers = append(pointers, field.Pointer)
		}
		require.Equal(t, []string{"/name", "/task_name", "/cron_expression", "/execution_policy", "/catch_up", "/max_waiting"}, pointers)
	})
}

func TestTaskDefinitionValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		change  func(d *TaskDefinition)
		pointer string
	}{
		{"Plain", func(*TaskDefinition) {}, ""},
		{"NoRetryIsTheDefault", func(d *TaskDefinition) { d.Retry = Retry{} }, ""},
		{"NoSchema", func(d *TaskDefinition) { d.ParameterSchema = nil }, ""},
		{"TaskNameMissing", func(d *TaskDefinition) { d.TaskName = "" }, "/task_name"},
		{"CategoryTooLong", func(d *TaskDefinition) { d.Category = strings.Repeat("x", MaxCategoryLength+1) }, "/category"},
		{"DescriptionNotUTF8", func(d *TaskDefinition) { d.Description = "\xff" }, "/description"},
		{"SchemaWrong", func(d *TaskDefinition) { d.ParameterSchema = json.RawMessage(`{"type":"strin"}`) }, "/parameter_schema/type"},
		{"ExecutorUnknown", func(d *TaskDefinition) { d.Executor.Kind = "shell" }, "/executor/kind"},
		{"ExecutorName", func(d *TaskDefinition) { d.Executor.Name = "shared_code" }, ""},
		{"ExecutorNameWithSpace", func(d *TaskDefinition) { d.Executor.Name = " x" }, "/executor/name"},
		{"QueueOfParts", func(d *TaskDefinition) { d.Queue = "low-priority_2" }, ""},
		{"QueueMissing", func(d *TaskDefinition) { d.Queue = "" }, "/queue"},
		{"QueueUpperCase", func(d *TaskDefinition) { d.Queue = "Low" }, "/queue"},
		{"QueueTooLong", func(d *TaskDefinition) { d.Queue = strings.Repeat("q", MaxQueueNameLength+1) }, "/queue"},
		{"QueueTwoDashes", func(d *TaskDefinition) { d.Queue = "a--b" }, "/queue"},
		{"PriorityZero", func(d *TaskDefinition) { d.Priority = 0 }, "/priority"},
		{"PriorityFive", func(d *TaskDefinition) { d.Priority = 5 }, "/priority"},
		{"NoAttempts", func(d *TaskDefinition) { d.MaxAttempts = 0 }, "/max_attempts"},
		{"TooManyAttempts", func(d *TaskDefinition) { d.MaxAttempts = MaxMaxAttempts + 1 }, "/max_attempts"},
		{"TimeoutNegative", func(d *TaskDefinition) { d.Timeout = -1 }, "/timeout"},
		{"TimeoutTooLong", func(d *TaskDefinition) { d.Timeout = MaxTimeout + 1 }, "/timeout"},
		{"BackoffNegative", func(d *TaskDefinition) { d.Retry = Retry{Backoff: -1} }, "/retry/backoff"},
		{"BackoffAboveItsMaximum", func(d *TaskDefinition) { d.Retry = Retry{Backoff: time.Minute, MaxBackoff: time.Second} }, "/retry/max_backoff"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := &TaskDefinition{
				TaskName: "echo", ParameterSchema: json.RawMessage(`{}`), Executor: Executor{Kind: "go"}, Queue: DefaultQueue,
				Priority: DefaultPriority, MaxAttempts: DefaultMaxAttempts, Retry: DefaultRetry,
			}
			test.change(d)
			requireBroken(t, d.Validate(), "invalid_task_definition", test.pointer)
		})
	}
}

// requireBroken wants exactly one broken rule, at pointer; "" wants none.
func requireBroken(t *testing.T, err error, code, pointer string) {
	t.Helper()
	if pointer == "" {
		require.NoError(t, err)
		return
	}
	e := requireInvalid(t, err, code)
	require.Len(t, e.Fields, 1)
	require.Equal(t, pointer, e.Fields[0].Pointer)
}
