package catalog

import (
	"context"
	"fmt"
	"log/slog"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Declare sees to it that the tasks of a binary have the definitions that they say of
// themselves. Where a task has a built-in one already, executor and schema become those
// that are given, and all else stays as people have made it; schedules whose parameters
// break a new schema are marked by LastError, as ChangeTaskDefinition does with force.
// A definition that somebody has made for the name stays: it is his, and logger is told.
//
// Each is one transaction. Any number of nodes may declare at once; what is as it
// should be is not written.
func (c *Catalog) Declare(ctx context.Context, tasks []*riverbeat.TaskDefinition, logger *slog.Logger) error {
	for _, d := range tasks {
		err := c.db.InTx(ctx, func(tx *postgres.Tx) error { return c.declare(ctx, tx, d, logger) })
		if err != nil {
			return fmt.Errorf("define task %s: %w", d.TaskName, err)
		}
	}
	return nil
}

func (c *Catalog) declare(ctx context.Context, tx *postgres.Tx, d *riverbeat.TaskDefinition, logger *slog.Logger) error {
	if err := tx.LockTaskName(ctx, d.TaskName, postgres.ForUpdate); err != nil {
		return err
	}
	stored, err := tx.TaskDefinition(ctx, d.TaskName, postgres.ForUpdate)
	if riverbeat.KindOf(err) == riverbeat.NotFound {
		made, err := tx.InsertTaskDefinition(ctx, d)
		if err != nil {
			return err
		}
		return c.recheck(ctx, tx, made, true)
	}
	if err != nil {
		return err
	}
	if !stored.BuiltIn {
		if !sameJSON(stored.ParameterSchema, d.ParameterSchema) {
			logger.InfoContext(ctx, "the definition of a task that this binary has was made by somebody, and stays as it is", "task_name", d.TaskName)
		}
		return nil
	}
	same := sameJSON(stored.ParameterSchema, d.ParameterSchema)
	if same && stored.Executor == d.Executor && stored.AliasOf == d.AliasOf {
		return nil
	}
	now := *stored
	now.ParameterSchema, now.Executor, now.AliasOf = d.ParameterSchema, d.Executor, d.AliasOf
	changed, err := tx.UpdateTaskDefinition(ctx, &now)
	if err != nil || same {
		return err
	}
	return c.recheck(ctx, tx, changed, true)
}

// untouched tells whether a built-in definition is as the binary has made it, and takes
// any object: it stands in the way of nobody who defines the task himself.
func untouched(d *riverbeat.TaskDefinition) bool {
	return d.BuiltIn && d.Version == 1 && d.AliasOf == "" && sameJSON(d.ParameterSchema, anyObject)
}

// keepsCode refuses a change of what a built-in definition has from its code.
func keepsCode(old, d *riverbeat.TaskDefinition) error {
	if !old.BuiltIn {
		return nil
	}
	if old.AliasOf != "" {
		return riverbeat.Errorf(riverbeat.Conflict, "task_definition_is_alias",
			"Task %q is another name of %q. Change the definition of that one.", old.TaskName, old.AliasOf)
	}
	const code = "task_definition_built_in"
	if !sameJSON(old.ParameterSchema, d.ParameterSchema) {
		return riverbeat.InvalidField(code, "/parameter_schema", "is that of the code, and cannot be changed: the task is built in")
	}
	if old.Executor != d.Executor {
		return riverbeat.InvalidField(code, "/executor", "cannot be changed: the task is built in")
	}
	return nil
}

// tellAliases gives the other names of a task what has changed of its definition.
func (c *Catalog) tellAliases(ctx context.Context, tx *postgres.Tx, changed *riverbeat.TaskDefinition) error {
	if !changed.BuiltIn {
		return nil
	}
	aliases, err := tx.AliasesOf(ctx, changed.TaskName)
	if err != nil {
		return err
	}
	for _, alias := range aliases {
		d := *changed
		d.TaskName, d.AliasOf = alias.TaskName, changed.TaskName
		if _, err := tx.UpdateTaskDefinition(ctx, &d); err != nil {
			return err
		}
	}
	return nil
}
