package catalog_test

import (
	"encoding/json"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/riverbeat"
)

// fetch is what a binary says of a task that has another name.
func fetch(schema string) []*riverbeat.TaskDefinition {
	own := riverbeat.TaskDefinition{
		TaskName: "fetch", Category: "given", Description: "Fetches.", ParameterSchema: json.RawMessage(schema),
		Executor: riverbeat.Executor{Kind: "go"}, Queue: "default", Priority: 1, MaxAttempts: 3,
		Retry: riverbeat.DefaultRetry, BuiltIn: true,
	}
	alias := own
	alias.TaskName, alias.AliasOf = "fetch_task", "fetch"
	return []*riverbeat.TaskDefinition{&own, &alias}
}

const daySchema = `{"type": "object", "properties": {"day": {"type": "string"}}}`

func (b *bundle) declare(t *testing.T, tasks []*riverbeat.TaskDefinition) {
	t.Helper()
	require.NoError(t, b.catalog.Declare(t.Context(), tasks, slog.New(slog.DiscardHandler)))
}

func (b *bundle) defined(t *testing.T, name string) *riverbeat.TaskDefinition {
	t.Helper()
	d, err := b.catalog.TaskDefinition(t.Context(), name)
	require.NoError(t, err)
	return d
}

func TestTheTasksOfABinaryAreDefined(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var nodes sync.WaitGroup
	for range 4 { // start at once
		nodes.Go(func() { b.declare(t, fetch(daySchema)) })
	}
	nodes.Wait()
	d := b.defined(t, "fetch")
	require.True(t, d.BuiltIn)
	require.Equal(t, 1, d.Version)
	require.JSONEq(t, daySchema, string(d.ParameterSchema))
	require.Equal(t, "fetch", b.defined(t, "fetch_task").AliasOf)

	changed, err := b.catalog.ChangeTaskDefinition(t.Context(), "fetch", false, func(d *riverbeat.TaskDefinition) error {
		d.Category, d.Description, d.Queue, d.MaxAttempts = "ours", "Fetches for us.", "slow", 7
		d.BuiltIn = false // not for anybody to say of one with a schema
		return nil
	})
	require.NoError(t, err)
	require.True(t, changed.BuiltIn)
	alias := b.defined(t, "fetch_task")
	require.Equal(t, "slow", alias.Queue, "another name of the same")
	require.Equal(t, "ours", alias.Category)
	require.Equal(t, "fetch", alias.AliasOf)

	b.declare(t, fetch(daySchema))
	require.Equal(t, 2, b.defined(t, "fetch").Version, "it is as it should be: nothing is written")
	require.Equal(t, 2, b.defined(t, "fetch_task").Version)
	const spelled = `{"properties": {"day": {"type": "string"}}, "type": "object"}`
	b.declare(t, fetch(spelled))
	require.Equal(t, spelled, string(b.defined(t, "fetch_task").ParameterSchema), "names follow the order of the text") //nolint:testifylint // the text
	require.Equal(t, "Fetches for us.", b.defined(t, "fetch").Description)

	_, _, err = b.catalog.PutTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
		TaskName: "fetch", ParameterSchema: json.RawMessage(daySchema), Executor: riverbeat.Executor{Kind: "go"}, Queue: "slow", Priority: 1, MaxAttempts: 7,
	}, false, riverbeat.Expected{})
	require.NoError(t, err, "the same in another order")
	require.Equal(t, spelled, string(b.defined(t, "fetch").ParameterSchema), "and the code's order stays") //nolint:testifylint // the text

	// An alias that comes later is like its task, whoever has made that.
	later := fetch(spelled)
	alias2 := *later[1]
	alias2.TaskName = "fetch_later"
	b.declare(t, append(later, &alias2))
	require.Equal(t, "slow", b.defined(t, "fetch_later").Queue)
}

func TestWhatIsTheCodesIsNotChanged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare(t, fetch(daySchema))
	for pointer, change := range map[string]func(*riverbeat.TaskDefinition) error{
		"/parameter_schema": withSchema(`{"type": "object"}`),
		"/executor":         func(d *riverbeat.TaskDefinition) error { d.Executor.Name = "echo"; return nil },
	} {
		_, err := b.catalog.ChangeTaskDefinition(t.Context(), "fetch", true, change)
		require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err), pointer)
		require.ErrorContains(t, err, pointer)
	}
	_, err := b.catalog.ChangeTaskDefinition(t.Context(), "fetch_task", true, func(d *riverbeat.TaskDefinition) error { d.Queue = "slow"; return nil })
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))
	require.ErrorContains(t, err, `"fetch"`, "it says where to change it")

	_, created, err := b.catalog.PutTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
		TaskName: "fetch", Executor: riverbeat.Executor{Kind: "go"}, Queue: "slow", Priority: 2, MaxAttempts: 1,
	}, false, riverbeat.Expected{})
	require.NoError(t, err, "it names no schema, so it keeps it")
	require.False(t, created)
	require.JSONEq(t, daySchema, string(b.defined(t, "fetch").ParameterSchema))

	b.exec(t, `INSERT INTO nodes (id, host, version, tzdata_version, tasks, queues) VALUES (gen_random_uuid(), 'h', 'v', 't', '["fetch"]', '{}')`)
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(b.catalog.DeleteTaskDefinition(t.Context(), "fetch", riverbeat.Expected{})))
	b.exec(t, "DELETE FROM nodes")
	require.NoError(t, b.catalog.DeleteTaskDefinition(t.Context(), "fetch", riverbeat.Expected{}), "no node has it any more")
}

func TestANewVersionOfTheCodeChangesItsSchema(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare(t, fetch(daySchema))
	s := b.slept(t, func(s *riverbeat.Schedule) { s.TaskName = "fetch_task" })
	b.declare(t, fetch(`{"type": "object", "required": ["day"]}`))
	require.Contains(t, string(b.defined(t, "fetch_task").ParameterSchema), "required")
	read, err := b.catalog.Schedule(t.Context(), s.ID)
	require.NoError(t, err)
	require.Contains(t, read.LastError, "day")
	b.declare(t, fetch(daySchema))
	read, err = b.catalog.Schedule(t.Context(), s.ID)
	require.NoError(t, err)
	require.Empty(t, read.LastError)
}

// A definition that somebody has made is his, and one that is built in stands in
// nobody's way while it takes any object and nobody has touched it.
func TestPeopleDefineABuiltInTaskThemselves(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.definition(t)
	echo := []*riverbeat.TaskDefinition{{
		TaskName: "echo", ParameterSchema: json.RawMessage(daySchema), Executor: riverbeat.Executor{Kind: "go"},
		Queue: "default", Priority: 1, MaxAttempts: 3, BuiltIn: true,
	}}
	b.declare(t, echo)
	require.False(t, b.defined(t, "echo").BuiltIn)
	require.Equal(t, "{}", string(b.defined(t, "echo").ParameterSchema))

	require.NoError(t, b.catalog.DeleteTaskDefinition(t.Context(), "echo", riverbeat.Expected{}))
	echo[0].ParameterSchema = json.RawMessage("{}")
	b.declare(t, echo)
	require.True(t, b.defined(t, "echo").BuiltIn)
	b.definition(t)
	d := b.defined(t, "echo")
	require.False(t, d.BuiltIn)
	require.Equal(t, 2, d.Version, "no If-Match of before holds")
	_, err := b.catalog.CreateTaskDefinition(t.Context(), d, false)
	require.Equal(t, riverbeat.Conflict, riverbeat.KindOf(err))

	require.NoError(t, b.catalog.DeleteTaskDefinition(t.Context(), "echo", riverbeat.Expected{}))
	b.declare(t, echo)
	d.ParameterSchema = json.RawMessage(daySchema)
	_, created, err := b.catalog.PutTaskDefinition(t.Context(), d, false, riverbeat.Expected{})
	require.NoError(t, err)
	require.True(t, created)
	require.False(t, b.defined(t, "echo").BuiltIn)
}
