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
	said := *d
	if d.AliasOf != "" {
		switch task, err := tx.TaskDefinition(ctx, d.AliasOf, postgres.ForShare); {
		case err == nil:
			follow(&said, task)
		case riverbeat.KindOf(err) != riverbeat.NotFound:
			return err
		}
	}
	stored, err := tx.TaskDefinition(ctx, d.TaskName, postgres.ForUpdate)
	if riverbeat.KindOf(err) == riverbeat.NotFound {
		made, err := tx.InsertTaskDefinition(ctx, &said)
		if err != nil {
			return err
		}
		return c.recheck(ctx, tx, made, true, nil)
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
	now := *stored
	now.ParameterSchema, now.Executor, now.AliasOf = d.ParameterSchema, d.Executor, d.AliasOf
	if d.AliasOf != "" {
		follow(&now, &said)
	}
	if sameDefinition(stored, &now) {
		return nil
	}
	changed, err := tx.UpdateTaskDefinition(ctx, &now)
	if err != nil || sameJSON(stored.ParameterSchema, now.ParameterSchema) {
		return err
	}
	return c.recheck(ctx, tx, changed, true, nil)
}

// follow gives an alias what people say of its task. Schema and executor are the code's.
func follow(alias, task *riverbeat.TaskDefinition) {
	alias.Category, alias.Description = task.Category, task.Description
	alias.Queue, alias.Priority = task.Queue, task.Priority
	alias.MaxAttempts, alias.Retry, alias.Timeout = task.MaxAttempts, task.Retry, task.Timeout
	alias.MaxConcurrency, alias.Alerts = task.MaxConcurrency, task.Alerts
}

// tellAliases gives the other names of a task what people have said of it now.
func (c *Catalog) tellAliases(ctx context.Context, tx *postgres.Tx, task *riverbeat.TaskDefinition) error {
	aliases, err := tx.AliasesOf(ctx, task.TaskName)
	if err != nil {
		return err
	}
	for _, alias := range aliases {
		now := *alias
		if follow(&now, task); sameDefinition(alias, &now) {
			continue
		}
		if _, err := tx.UpdateTaskDefinition(ctx, &now); err != nil {
			return err
		}
	}
	return nil
}

// yields tells whether a built-in definition takes any object: who defines the task
// himself takes it over.
func yields(d *riverbeat.TaskDefinition) bool {
	return d.BuiltIn && d.AliasOf == "" && sameJSON(d.ParameterSchema, anyObject)
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
	if !old.Executor.Equal(&d.Executor) {
		return riverbeat.InvalidField(code, "/executor", "cannot be changed: the task is built in")
	}
	d.ParameterSchema = old.ParameterSchema // as the code spells it
	return nil
}
