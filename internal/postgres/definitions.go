package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// Lock says what a read row is held against until the transaction ends.
type Lock int

// The locks.
const (
	NoLock    Lock = iota
	ForShare       // others may read it so, too; nobody may change it
	ForUpdate      // nobody else may change it or hold it ForShare
)

// InsertTaskDefinition writes a new definition; Conflict if the task has one.
func (tx *Tx) InsertTaskDefinition(ctx context.Context, d *riverbeat.TaskDefinition) (*riverbeat.TaskDefinition, error) {
	row, err := tx.q.InsertTaskDefinition(ctx, tx.Tx, &dbq.InsertTaskDefinitionParams{
		TaskName:        d.TaskName,
		Category:        orNull(d.Category),
		Description:     d.Description,
		ParameterSchema: d.ParameterSchema,
		Executor:        d.Executor.JSON(),
		Queue:           d.Queue,
		Priority:        int16(d.Priority),    //nolint:gosec // 1 to 4
		MaxAttempts:     int16(d.MaxAttempts), //nolint:gosec // at most MaxMaxAttempts
		Retry:           mustJSON(retryOf(d.Retry)),
		TimeoutMs:       d.Timeout.Milliseconds(),
		MaxConcurrency:  positive(d.MaxConcurrency),
		Alerts:          alertsJSON(&d.Alerts),
		BuiltIn:         d.BuiltIn,
		AliasOf:         orNull(d.AliasOf),
	})
	if err != nil {
		return nil, translate(err)
	}
	return definition(row)
}

// UpdateTaskDefinition writes d over the definition of its task, one version
// up. The caller holds it ForUpdate.
func (tx *Tx) UpdateTaskDefinition(ctx context.Context, d *riverbeat.TaskDefinition) (*riverbeat.TaskDefinition, error) {
	row, err := tx.q.UpdateTaskDefinition(ctx, tx.Tx, &dbq.UpdateTaskDefinitionParams{
		TaskName:        d.TaskName,
		Category:        orNull(d.Category),
		Description:     d.Description,
		ParameterSchema: d.ParameterSchema,
		Executor:        d.Executor.JSON(),
		Queue:           d.Queue,
		Priority:        int16(d.Priority),    //nolint:gosec // 1 to 4
		MaxAttempts:     int16(d.MaxAttempts), //nolint:gosec // at most MaxMaxAttempts
		Retry:           mustJSON(retryOf(d.Retry)),
		TimeoutMs:       d.Timeout.Milliseconds(),
		MaxConcurrency:  positive(d.MaxConcurrency),
		Alerts:          alertsJSON(&d.Alerts),
		BuiltIn:         d.BuiltIn,
		AliasOf:         orNull(d.AliasOf),
	})
	if err != nil {
		return nil, translate(err)
	}
	return definition(row)
}

// LockTaskName holds, until the transaction ends, that a task has a definition
// or has none: ForShare while schedules are checked against it, ForUpdate to
// give it one.
func (tx *Tx) LockTaskName(ctx context.Context, taskName string, lock Lock) error {
	statement := "SELECT pg_advisory_xact_lock_shared($1)"
	if lock == ForUpdate {
		statement = "SELECT pg_advisory_xact_lock($1)"
	}
	_, err := tx.Exec(ctx, statement, riverbeat.AdvisoryKey(tx.schema, "task", taskName))
	return err
}

// TaskDefinition reads the definition of a task; NotFound if it has none.
func (tx *Tx) TaskDefinition(ctx context.Context, taskName string, lock Lock) (*riverbeat.TaskDefinition, error) {
	get := map[Lock]func(context.Context, dbq.DBTX, string) (dbq.TaskDefinition, error){
		NoLock:    tx.q.GetTaskDefinition,
		ForShare:  tx.q.GetTaskDefinitionForShare,
		ForUpdate: tx.q.GetTaskDefinitionForUpdate,
	}[lock]
	row, err := get(ctx, tx.Tx, taskName)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, riverbeat.Errorf(riverbeat.NotFound, "task_definition_not_found", "There is no definition of task %q.", taskName)
	}
	if err != nil {
		return nil, err
	}
	return definition(row)
}

// TaskDefinitions reads the definitions of the named tasks that have one.
func (tx *Tx) TaskDefinitions(ctx context.Context, taskNames []string) (map[string]*riverbeat.TaskDefinition, error) {
	rows, err := tx.q.TaskDefinitionsByName(ctx, tx.Tx, taskNames)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*riverbeat.TaskDefinition, len(rows))
	for _, row := range rows {
		if byName[row.TaskName], err = definition(row); err != nil {
			return nil, err
		}
	}
	return byName, nil
}

// SchedulesWithDefinitions reads those of the given schedules that exist, without next and
// last run, and those definitions of their tasks that exist, by their names.
func (tx *Tx) SchedulesWithDefinitions(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]*riverbeat.Schedule, map[string]*riverbeat.TaskDefinition, error) {
	schedules, err := tx.Schedules(ctx, ids)
	if err != nil {
		return nil, nil, fmt.Errorf("read schedules: %w", err)
	}
	names := map[string]bool{}
	for _, s := range schedules {
		names[s.TaskName] = true
	}
	definitions, err := tx.TaskDefinitions(ctx, slices.Collect(maps.Keys(names)))
	if err != nil {
		return nil, nil, fmt.Errorf("read definitions: %w", err)
	}
	return schedules, definitions, nil
}

// ListTaskDefinitions reads at most limit definitions by name, those after
// afterName, of one category if it is given.
func (tx *Tx) ListTaskDefinitions(ctx context.Context, category *string, afterName string, limit int) ([]*riverbeat.TaskDefinition, error) {
	rows, err := tx.q.ListTaskDefinitions(ctx, tx.Tx, &dbq.ListTaskDefinitionsParams{
		Category: category, AfterName: afterName, MaxItems: int32(limit), //nolint:gosec // a page
	})
	if err != nil {
		return nil, err
	}
	return definitions(rows)
}

// DeleteTaskDefinition deletes the definition of a task.
func (tx *Tx) DeleteTaskDefinition(ctx context.Context, taskName string) error {
	_, err := tx.q.DeleteTaskDefinition(ctx, tx.Tx, taskName)
	return err
}

// AliasesOf reads the definitions of the other names of a task, held ForUpdate.
func (tx *Tx) AliasesOf(ctx context.Context, taskName string) ([]*riverbeat.TaskDefinition, error) {
	rows, err := tx.q.AliasesOf(ctx, tx.Tx, taskName)
	if err != nil {
		return nil, err
	}
	return definitions(rows)
}

// TaskIsRegistered tells whether a node that lives has the code of a task.
func (tx *Tx) TaskIsRegistered(ctx context.Context, taskName string) (bool, error) {
	return tx.q.TaskIsRegistered(ctx, tx.Tx, &dbq.TaskIsRegisteredParams{
		TaskName: taskName, LivesSeconds: SessionLife.Seconds(),
	})
}

func definitions(rows []dbq.TaskDefinition) ([]*riverbeat.TaskDefinition, error) {
	list := make([]*riverbeat.TaskDefinition, 0, len(rows))
	for _, row := range rows {
		d, err := definition(row)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

func definition(row dbq.TaskDefinition) (*riverbeat.TaskDefinition, error) {
	executor, err := riverbeat.ParseExecutor(row.Executor)
	if err != nil {
		return nil, fmt.Errorf("read the executor of task %s: %w", row.TaskName, err)
	}
	retry, err := parseRetry(row.Retry)
	if err != nil {
		return nil, err
	}
	alerts, err := parseAlerts(row.Alerts)
	if err != nil {
		return nil, err
	}
	return &riverbeat.TaskDefinition{
		ID:              row.ID,
		TaskName:        row.TaskName,
		Category:        deref(row.Category),
		Description:     row.Description,
		ParameterSchema: row.ParameterSchema,
		Executor:        executor,
		Queue:           row.Queue,
		Priority:        int(row.Priority),
		MaxAttempts:     int(row.MaxAttempts),
		Retry:           retry,
		Timeout:         time.Duration(row.TimeoutMs) * time.Millisecond,
		MaxConcurrency:  int(deref(row.MaxConcurrency)),
		Alerts:          alerts,
		BuiltIn:         row.BuiltIn,
		AliasOf:         deref(row.AliasOf),
		Version:         int(row.Version),
		CreatedAt:       row.CreatedAt.UTC(),
		UpdatedAt:       row.UpdatedAt.UTC(),
	}, nil
}

// retryColumn is the stored form of a retry.
type retryColumn struct {
	BackoffMS    int64 `json:"backoff_ms,omitempty"`
	MaxBackoffMS int64 `json:"max_backoff_ms,omitempty"`
}

func retryOf(r riverbeat.Retry) retryColumn {
	return retryColumn{BackoffMS: r.Backoff.Milliseconds(), MaxBackoffMS: r.MaxBackoff.Milliseconds()}
}

func (c retryColumn) retry() riverbeat.Retry {
	return riverbeat.Retry{
		Backoff:    time.Duration(c.BackoffMS) * time.Millisecond,
		MaxBackoff: time.Duration(c.MaxBackoffMS) * time.Millisecond,
	}
}

func parseRetry(raw json.RawMessage) (riverbeat.Retry, error) {
	var c retryColumn
	if err := json.Unmarshal(raw, &c); err != nil {
		return riverbeat.Retry{}, fmt.Errorf("read a retry: %w", err)
	}
	return c.retry(), nil
}

// mustJSON encodes what cannot fail: strings, numbers and lists of them.
func mustJSON(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// orNull is the column of an optional text, "" being none.
func orNull[T ~string](s T) *string {
	if s == "" {
		return nil
	}
	text := string(s)
	return &text
}

// positive is the column of an optional number, 0 being none.
func positive(n int) *int32 {
	if n == 0 {
		return nil
	}
	column := int32(n) //nolint:gosec // bounded by the rules of what has it
	return &column
}

// nonzero is the column of an optional value, zero being none.
func nonzero[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
