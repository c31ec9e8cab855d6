package catalog_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/riverbeat"
)

func withSchema(schema string) func(*riverbeat.TaskDefinition) error {
	return func(d *riverbeat.TaskDefinition) error {
		d.ParameterSchema = json.RawMessage(schema)
		return nil
	}
}

// definition makes one of task echo that takes everything.
func (b *bundle) definition(t *testing.T) {
	t.Helper()
	_, err := b.catalog.CreateTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
		TaskName: "echo", ParameterSchema: json.RawMessage("{}"), Executor: riverbeat.Executor{Kind: "go"},
		Queue: "default", Priority: 1, MaxAttempts: 3,
	}, false)
	require.NoError(t, err)
}

func TestASchemaThatBreaksSchedulesIsForcedAndRepaired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.definition(t)
	s := b.slept(t, nil)
	stopped := b.slept(t, nil)
	b.exec(t, "UPDATE schedules SET last_error = 'no such zone' WHERE id = $1", stopped.ID)
	b.exec(t, "UPDATE schedule_clocks SET next_run_at = NULL, retry_at = now() + interval '1 hour' WHERE schedule_id = $1", stopped.ID)
	lastError := func(of *riverbeat.Schedule) string {
		read, err := b.catalog.Schedule(t.Context(), of.ID)
		require.NoError(t, err)
		return read.LastError
	}
	const strict = `{"required": ["day"]}`

	_, err := b.catalog.ChangeTaskDefinition(t.Context(), "echo", false, withSchema(strict))
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
	require.Empty(t, lastError(s), "a refused change leaves no mark")

	_, err = b.catalog.ChangeTaskDefinition(t.Context(), "echo", true, withSchema(strict))
	require.NoError(t, err)
	require.Contains(t, lastError(s), "day")

	b.exec(t, "UPDATE schedules SET last_error = 'no such zone' WHERE id = $1", stopped.ID)
	_, err = b.catalog.ChangeTaskDefinition(t.Context(), "echo", false, withSchema("{}"))
	require.NoError(t, err)
	require.Empty(t, lastError(s), "repaired, and the mark is gone at once")
	require.Equal(t, "no such zone", lastError(stopped), "what has stopped for another reason stays so")
}

// Both look for the other before they write, so each must wait for the other.
func TestADefinitionMadeBesideAScheduleChecksIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 20 {
		b.exec(t, "DELETE FROM schedules")
		b.exec(t, "DELETE FROM task_definitions")
		done := make(chan error, 2)
		go func() {
			_, err := b.catalog.CreateSchedule(t.Context(), &riverbeat.Schedule{
				TaskName: "echo", CronExpression: "@daily", Timezone: "UTC", Enabled: true,
				Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
				ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpNone, CatchUpWindow: time.Hour, MaxWaiting: 1,
			})
			done <- err
		}()
		go func() {
			_, err := b.catalog.CreateTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
				TaskName: "echo", ParameterSchema: json.RawMessage(`{"required": ["day"]}`),
				Executor: riverbeat.Executor{Kind: "go"}, Queue: "default", Priority: 1, MaxAttempts: 3,
			}, false)
			done <- err
		}()
		refused := 0
		for range 2 {
			if err := <-done; err != nil {
				require.Contains(t, []riverbeat.Kind{riverbeat.Invalid, riverbeat.Conflict}, riverbeat.KindOf(err), err)
				refused++
			}
		}
		require.Equal(t, 1, refused, "exactly one of them")
	}
}
