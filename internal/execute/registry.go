package execute

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

// Registry has the tasks of this binary, by their names and aliases, and the kinds of
// executors. It is filled before the node starts, and only read after that.
type Registry struct {
	tasks map[string]task.Task
	kinds map[string]Kind
}

// Kind is how the tasks of one kind of executors are executed: the code for an executor's
// settings, secrets resolved; nil if this node cannot do it, so that another one may.
type Kind func(settings riverbeat.Executor) task.Code

// NewRegistry makes a Registry that has no tasks, and no kind of executors but go.
func NewRegistry() *Registry {
	return &Registry{tasks: map[string]task.Task{}, kinds: map[string]Kind{}}
}

// RegisterKind adds a kind of executors.
func (r *Registry) RegisterKind(name string, kind Kind) { r.kinds[name] = kind }

// Register adds tasks. It panics if one cannot be defined, or its name is taken: that
// is a fault of the program.
func (r *Registry) Register(tasks ...task.Task) {
	for _, t := range tasks {
		for _, d := range definitionsOf(t) {
			if err := d.Validate(); err != nil {
				panic(fmt.Sprintf("task %q cannot be registered: %v", d.TaskName, err))
			}
			if _, ok := r.tasks[d.TaskName]; ok {
				panic(fmt.Sprintf("task %q is registered twice", d.TaskName))
			}
			r.tasks[d.TaskName] = t
		}
	}
}

// Names are the registered names and aliases, sorted.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.tasks)) }

// Definitions are what the registered tasks say of themselves, one for each name, an
// alias after what it stands for.
func (r *Registry) Definitions() []*riverbeat.TaskDefinition {
	var definitions []*riverbeat.TaskDefinition
	for _, name := range r.Names() {
		if t := r.tasks[name]; t.Name == name {
			definitions = append(definitions, definitionsOf(t)...)
		}
	}
	return definitions
}

func definitionsOf(t task.Task) []*riverbeat.TaskDefinition {
	own := riverbeat.TaskDefinition{
		TaskName:        t.Name,
		Category:        t.Category,
		Description:     t.Description,
		ParameterSchema: t.Schema(),
		Executor:        riverbeat.Executor{Kind: riverbeat.ExecutorGo},
		Queue:           cmp.Or(t.Queue, riverbeat.DefaultQueue),
		Priority:        riverbeat.DefaultPriority,
		MaxAttempts:     cmp.Or(t.MaxAttempts, riverbeat.DefaultMaxAttempts),
		Retry: riverbeat.Retry{
			Backoff:    cmp.Or(t.Backoff, riverbeat.DefaultRetry.Backoff),
			MaxBackoff: cmp.Or(t.MaxBackoff, max(t.Backoff, riverbeat.DefaultRetry.MaxBackoff)),
		},
		Timeout: t.Timeout,
		BuiltIn: true,
	}
	definitions := []*riverbeat.TaskDefinition{&own}
	for _, name := range t.Aliases {
		alias := own
		alias.TaskName, alias.AliasOf = name, t.Name
		definitions = append(definitions, &alias)
	}
	return definitions
}

// lookup finds the code of a run by its definition, nil if the task has none. Its answer
// is nil if this node cannot do it. Secrets in the executor must be resolved by now, or
// the code is only good for being there.
func (r *Registry) lookup(taskName string, d *riverbeat.TaskDefinition) task.Code {
	if d != nil && d.Executor.Kind != riverbeat.ExecutorGo {
		if kind, ok := r.kinds[d.Executor.Kind]; ok {
			return kind(d.Executor)
		}
		return nil
	}
	if d != nil && d.Executor.Name != "" {
		taskName = d.Executor.Name
	}
	t, ok := r.tasks[taskName]
	if !ok {
		return nil
	}
	return t.Run
}
