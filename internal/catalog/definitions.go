package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// anyObject is the schema of a definition that names none.
var anyObject = json.RawMessage("{}")

// maxInvalidShown bounds the list of schedules that a changed schema breaks.
const maxInvalidShown = 100

// CreateTaskDefinition checks and writes a new definition; Conflict if the
// task has one, unless that is built in, takes any object and was never changed: the
// new one is its next version. The task may stand in schedules already; what is said of
// ChangeTaskDefinition holds for those.
func (c *Catalog) CreateTaskDefinition(ctx context.Context, d *riverbeat.TaskDefinition, force bool) (*riverbeat.TaskDefinition, error) {
	var made *riverbeat.TaskDefinition
	err := c.db.InTx(ctx, func(tx *postgres.Tx) (err error) {
		if made, err = c.createDefinition(ctx, tx, d); err != nil {
			return err
		}
		return c.recheck(ctx, tx, made, force, nil)
	})
	return made, err
}

// createDefinition is CreateTaskDefinition without a look at the schedules of the task.
func (c *Catalog) createDefinition(ctx context.Context, tx *postgres.Tx, d *riverbeat.TaskDefinition) (*riverbeat.TaskDefinition, error) {
	given, err := newDefinition(d)
	if err != nil {
		return nil, err
	}
	if err := tx.LockTaskName(ctx, d.TaskName, postgres.ForUpdate); err != nil {
		return nil, err
	}
	stored, err := tx.TaskDefinition(ctx, d.TaskName, postgres.ForUpdate)
	if err != nil && riverbeat.KindOf(err) != riverbeat.NotFound {
		return nil, err
	}
	write := tx.InsertTaskDefinition
	if err == nil && yields(stored) && stored.Version == 1 {
		write = tx.UpdateTaskDefinition
	}
	made, err := write(ctx, given)
	if err != nil {
		return nil, err
	}
	return made, c.tellAliases(ctx, tx, made)
}

// newDefinition is d as a new definition, if it keeps all rules.
func newDefinition(d *riverbeat.TaskDefinition) (*riverbeat.TaskDefinition, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	given := *d
	if len(given.ParameterSchema) == 0 {
		given.ParameterSchema = anyObject
	}
	return &given, nil
}

// TaskDefinition reads the definition of a task; NotFound if it has none.
func (c *Catalog) TaskDefinition(ctx context.Context, taskName string) (*riverbeat.TaskDefinition, error) {
	var d *riverbeat.TaskDefinition
	err := c.db.Read(ctx, func(tx *postgres.Tx) error {
		var err error
		d, err = tx.TaskDefinition(ctx, taskName, postgres.NoLock)
		return err
	})
	return d, err
}

// ListTaskDefinitions reads a page of definitions by name, those after
// afterName; more tells whether others follow.
func (c *Catalog) ListTaskDefinitions(ctx context.Context, category *string, afterName string, limit int) (page []*riverbeat.TaskDefinition, more bool, err error) {
	err = c.db.Read(ctx, func(tx *postgres.Tx) error {
		page, err = tx.ListTaskDefinitions(ctx, category, afterName, limit+1)
		return err
	})
	if len(page) > limit {
		return page[:limit], true, err
	}
	return page, false, err
}

// ChangeTaskDefinition lets change edit a definition, and writes it if it
// keeps all rules. When its schema changes so that parameters of schedules
// break it, the change is refused with their list (Conflict,
// schedules_would_break); with force it is made, and those schedules are
// marked by LastError. Their runs then fail as invalid_params. Of a built-in definition
// neither schema nor executor may change, unless it takes any object and change says
// that it is not BuiltIn any more.
func (c *Catalog) ChangeTaskDefinition(ctx context.Context, taskName string, force bool, change func(*riverbeat.TaskDefinition) error) (*riverbeat.TaskDefinition, error) {
	var changed *riverbeat.TaskDefinition
	err := c.db.InTx(ctx, func(tx *postgres.Tx) (err error) {
		var old *riverbeat.TaskDefinition
		if old, changed, err = c.changeDefinition(ctx, tx, taskName, change); err != nil {
			return err
		}
		if bytes.Equal(old.ParameterSchema, changed.ParameterSchema) {
			return nil
		}
		return c.recheck(ctx, tx, changed, force, nil)
	})
	return changed, err
}

// changeDefinition is ChangeTaskDefinition without a look at the schedules of the task. It
// answers the definition as it was, too; the same if nothing has changed.
func (c *Catalog) changeDefinition(ctx context.Context, tx *postgres.Tx, taskName string, change func(*riverbeat.TaskDefinition) error) (old, changed *riverbeat.TaskDefinition, err error) {
	old, err = tx.TaskDefinition(ctx, taskName, postgres.ForUpdate)
	if err != nil {
		return nil, nil, err
	}
	d, err := changedDefinition(old, change)
	if err != nil || d == old {
		return old, d, err
	}
	if changed, err = tx.UpdateTaskDefinition(ctx, d); err != nil {
		return nil, nil, err
	}
	return old, changed, c.tellAliases(ctx, tx, changed)
}

// changedDefinition is old after a change, if that keeps all rules; old itself if it
// changes nothing.
func changedDefinition(old *riverbeat.TaskDefinition, change func(*riverbeat.TaskDefinition) error) (*riverbeat.TaskDefinition, error) {
	d := *old
	if err := change(&d); err != nil {
		return nil, err
	}
	if len(d.ParameterSchema) == 0 {
		d.ParameterSchema = anyObject
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	if d.TaskName != old.TaskName {
		return nil, riverbeat.InvalidField("task_name_fixed", "/task_name", "cannot be changed; it is %q", old.TaskName)
	}
	if takesOver := yields(old) && !d.BuiltIn; !takesOver {
		d.BuiltIn, d.AliasOf = old.BuiltIn, old.AliasOf
		if err := keepsCode(old, &d); err != nil {
			return nil, err
		}
	}
	if sameDefinition(old, &d) {
		return old, nil
	}
	return &d, nil
}

// PutTaskDefinition replaces the definition of a task, if it has the version that
// is expected, or creates it. That of a built-in task keeps its schema if none is given,
// but one that takes any object is taken over, which counts as created.
func (c *Catalog) PutTaskDefinition(ctx context.Context, d *riverbeat.TaskDefinition, force bool, expected riverbeat.Expected) (put *riverbeat.TaskDefinition, created bool, err error) {
	put, err = c.ChangeTaskDefinition(ctx, d.TaskName, force, func(stored *riverbeat.TaskDefinition) error {
		if err := expected.Check(stored.Version); err != nil {
			return err
		}
		created = yields(stored)
		replace(stored, d)
		return nil
	})
	if riverbeat.KindOf(err) != riverbeat.NotFound {
		return put, created && err == nil, err
	}
	if err := expected.Check(0); err != nil {
		return nil, false, err
	}
	put, err = c.CreateTaskDefinition(ctx, d, force)
	return put, err == nil, err
}

// replace puts a definition in the place of the stored one of its task.
func replace(stored, d *riverbeat.TaskDefinition) {
	was := *stored
	*stored = *d
	stored.ID, stored.Version = was.ID, was.Version
	if was.BuiltIn && !yields(&was) && len(d.ParameterSchema) == 0 {
		stored.ParameterSchema = was.ParameterSchema
	}
}

// DeleteTaskDefinition deletes the definition, of the version that is expected, of
// a task that stands in no schedule; Conflict otherwise.
func (c *Catalog) DeleteTaskDefinition(ctx context.Context, taskName string, expected riverbeat.Expected) error {
	return c.db.InTx(ctx, func(tx *postgres.Tx) error {
		d, err := tx.TaskDefinition(ctx, taskName, postgres.ForUpdate)
		if err != nil {
			return err
		}
		if err := expected.Check(d.Version); err != nil {
			return err
		}
		if err := unregistered(ctx, tx, d); err != nil {
			return err
		}
		const most = 1_000
		n, err := tx.CountSchedulesOfTask(ctx, taskName, most)
		if err != nil {
			return err
		}
		if n > 0 {
			count := fmt.Sprint(n)
			if n == most {
				count += " or more"
			}
			return riverbeat.Errorf(riverbeat.Conflict, "task_definition_in_use",
				"Task %q stands in %s schedules. Delete those first.", taskName, count)
		}
		return tx.DeleteTaskDefinition(ctx, taskName)
	})
}

// unregistered fails while a node has the code of a built-in definition: the next start
// of a node would make it anew.
func unregistered(ctx context.Context, tx *postgres.Tx, d *riverbeat.TaskDefinition) error {
	if !d.BuiltIn {
		return nil
	}
	registered, err := tx.TaskIsRegistered(ctx, d.TaskName)
	if err != nil || !registered {
		return err
	}
	return riverbeat.Errorf(riverbeat.Conflict, "task_definition_built_in",
		"Task %q is built into a node that is running. Its definition goes when no node has it.", d.TaskName)
}

// recheck holds the parameters of all schedules of a task to its new schema, but for those
// that change with it.
func (c *Catalog) recheck(ctx context.Context, tx *postgres.Tx, d *riverbeat.TaskDefinition, force bool, but map[uuid.UUID]bool) error {
	const page = 500
	features, err := tx.Features(ctx)
	if err != nil {
		return err
	}
	var broken []riverbeat.FieldError
	var after uuid.UUID
	for {
		schedules, err := tx.SchedulesOfTask(ctx, d.TaskName, after, page)
		if err != nil {
			return err
		}
		for _, s := range schedules {
			after = s.ID
			if but[s.ID] {
				continue
			}
			_, warning, err := c.ledger.Schemas().EffectiveOf(s, d, features)
			invalid, ok := errors.AsType[*riverbeat.Error](err)
			if err != nil && !ok {
				return err
			}
			switch {
			case err == nil && s.LastError != warning:
				if err := tx.SetScheduleWarning(ctx, s.ID, warning); err != nil {
					return err
				}
			case err != nil:
				text := invalid.Error()
				broken = append(broken, riverbeat.FieldError{
					Pointer: "/parameter_schema", Detail: fmt.Sprintf("schedule %s (%s): %s", s.ID, s.Name, text),
				})
				if !force && len(broken) >= maxInvalidShown {
					return breaks(broken)
				}
				if force {
					if err := tx.SetScheduleError(ctx, s.ID, text); err != nil {
						return err
					}
				}
			}
		}
		if len(schedules) < page {
			break
		}
	}
	if len(broken) > 0 && !force {
		return breaks(broken)
	}
	return nil
}

func breaks(broken []riverbeat.FieldError) error {
	return &riverbeat.Error{
		Kind: riverbeat.Conflict, Code: "schedules_would_break",
		Detail: "The parameters of schedules of this task would break the schema. Change them first, or say force=true to mark them.",
		Fields: broken,
	}
}

func sameDefinition(a, b *riverbeat.TaskDefinition) bool {
	return a.Category == b.Category &&
		a.Description == b.Description &&
		sameText(a.ParameterSchema, b.ParameterSchema) &&
		a.Executor.Equal(&b.Executor) &&
		a.Queue == b.Queue &&
		a.Priority == b.Priority &&
		a.MaxAttempts == b.MaxAttempts &&
		a.Retry == b.Retry &&
		a.Timeout == b.Timeout &&
		a.MaxConcurrency == b.MaxConcurrency &&
		a.Alerts.Equal(&b.Alerts) &&
		a.BuiltIn == b.BuiltIn &&
		a.AliasOf == b.AliasOf
}
