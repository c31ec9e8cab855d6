package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/riverbeat"
)

// taskDefinition is a task definition as it is answered.
type taskDefinition struct {
	ID              uuid.UUID  `json:"id" format:"uuid"`
	TaskName        string     `json:"task_name" doc:"Unique."`
	Category        *string    `json:"category"`
	Description     *string    `json:"description"`
	ParameterSchema jsonObject `json:"parameter_schema" doc:"The JSON Schema of the task's parameters."`
	Executor        executorOf `json:"executor"`
	Queue           string     `json:"queue"`
	Priority        int        `json:"priority"`
	MaxAttempts     int        `json:"max_attempts"`
	Retry           retry      `json:"retry"`
	Timeout         duration   `json:"timeout" doc:"Of one attempt; 0s is none."`
	MaxConcurrency  *int       `json:"max_concurrency" doc:"Runs that execute at once, over all nodes; null: any number."`
	Alerts          *alerts    `json:"alerts" doc:"Whom to tell of what, of its schedules that do not say so themselves; null: nobody."`
	BuiltIn         bool       `json:"built_in" doc:"It is there because a node has the code of the task: schema and executor are the code's, and cannot be changed."`
	AliasOf         *string    `json:"alias_of" doc:"The task that this is another name of: runs under both share lock keys, and its definition is changed by that name."`
	Version         int        `json:"version" doc:"One more at each change."`
	CreatedAt       time.Time  `json:"created_at"`
	UpdatedAt       time.Time  `json:"updated_at"`
}

type retry struct {
	Backoff    duration `json:"backoff"`
	MaxBackoff duration `json:"max_backoff"`
}

func (d *taskDefinition) versionOf() int { return d.Version }

func taskDefinitionOf(d *riverbeat.TaskDefinition) *taskDefinition {
	wait := riverbeat.LimitsOf(d, riverbeat.Limits{}).Retry
	return &taskDefinition{
		ID:              d.ID,
		TaskName:        d.TaskName,
		Category:        orNull(d.Category),
		Description:     orNull(d.Description),
		ParameterSchema: jsonObject{rawOr(d.ParameterSchema, "{}")},
		Executor:        executorOf{d.Executor.Shown()},
		Queue:           d.Queue,
		Priority:        d.Priority,
		MaxAttempts:     d.MaxAttempts,
		Retry:           retry{duration(wait.Backoff), duration(wait.MaxBackoff)},
		Timeout:         duration(d.Timeout),
		MaxConcurrency:  orMissing(d.MaxConcurrency),
		Alerts:          alertsOf(&d.Alerts),
		BuiltIn:         d.BuiltIn,
		AliasOf:         orNull(d.AliasOf),
		Version:         d.Version,
		CreatedAt:       d.CreatedAt,
		UpdatedAt:       d.UpdatedAt,
	}
}

// taskDefinitionInput is what people say of a task definition.
type taskDefinitionInput struct {
	TaskName        *string      `json:"task_name" required:"true" doc:"Unique, at most 255 characters. Cannot be changed." example:"echo"`
	Category        *string      `json:"category" doc:"At most 50 characters. New schedules of the task get it if they name none."`
	Description     *string      `json:"description" doc:"At most 4,000 characters."`
	ParameterSchema *jsonObject  `json:"parameter_schema" def:"{}" doc:"A JSON Schema (draft 2020-12) of the task's parameters; {} takes any object. Its defaults are filled in. Properties marked \"x-name\": true go into names that are made."`
	Executor        *executorOf  `json:"executor" def:"{\"kind\": \"go\"}" doc:"What executes the task."`
	Queue           *string      `json:"queue" def:"\"default\"" doc:"The River queue of its jobs."`
	Priority        *int         `json:"priority" def:"1" doc:"1 (first) to 4."`
	MaxAttempts     *int         `json:"max_attempts" def:"3" doc:"Tries of one run, the first included: 1 to 100."`
	Retry           *retryInput  `json:"retry" def:"{\"backoff\": \"1s\", \"max_backoff\": \"5m\"}" doc:"How long to wait between attempts."`
	Timeout         *duration    `json:"timeout" def:"\"0s\"" doc:"Of one attempt, at most 7 days; 0s is none, which only the kind go may have. Defaults to 5m for all other kinds."`
	MaxConcurrency  *int         `json:"max_concurrency" minimum:"1" maximum:"1000" doc:"How many of its runs, and of those of its aliases, may execute at once, over all nodes. The others wait, and come to their turn in order. Defaults to any number."`
	Alerts          *alertsInput `json:"alerts" doc:"Whom to tell when the runs of a schedule fail, recover, or have not succeeded for a time, for its schedules that do not say so themselves."`
}

type retryInput struct {
	Backoff    *duration `json:"backoff" def:"\"1s\"" doc:"How long to wait before the second attempt; doubled for each further one. Up to a tenth is added by chance."`
	MaxBackoff *duration `json:"max_backoff" def:"\"5m\"" doc:"How long to wait at most; the same as backoff is a fixed delay. Defaults to backoff if that is longer than 5m."`
}

func (in *retryInput) retry() riverbeat.Retry {
	backoff := durationOr(in.Backoff, riverbeat.DefaultRetry.Backoff)
	return riverbeat.Retry{
		Backoff:    backoff,
		MaxBackoff: durationOr(in.MaxBackoff, max(riverbeat.DefaultRetry.MaxBackoff, backoff)),
	}
}

// definition is the definition that the input describes. The error is that of its
// executor; all else can be judged without it.
func (in *taskDefinitionInput) definition() (*riverbeat.TaskDefinition, error) {
	wait := valueOr(in.Retry, retryInput{})
	runBy, err := valueOr(in.Executor, executorOf{json.RawMessage("{}")}).read()
	return &riverbeat.TaskDefinition{
		TaskName:        valueOr(in.TaskName, ""),
		Category:        valueOr(in.Category, ""),
		Description:     valueOr(in.Description, ""),
		ParameterSchema: valueOr(in.ParameterSchema, jsonObject{}).RawMessage,
		Executor:        runBy,
		Queue:           valueOr(in.Queue, riverbeat.DefaultQueue),
		Priority:        valueOr(in.Priority, riverbeat.DefaultPriority),
		MaxAttempts:     valueOr(in.MaxAttempts, riverbeat.DefaultMaxAttempts),
		Retry:           wait.retry(),
		Timeout:         durationOr(in.Timeout, riverbeat.DefaultTimeout(runBy.Kind)),
		MaxConcurrency:  valueOr(in.MaxConcurrency, 0),
		Alerts:          in.Alerts.alerts(),
	}, err
}

func (in *taskDefinitionInput) check() error {
	d, err := in.definition()
	unread, ok := errors.AsType[*riverbeat.Error](err)
	if !ok {
		return d.Validate()
	}
	d.Executor = riverbeat.Executor{Kind: riverbeat.ExecutorGo}
	if rest, ok := errors.AsType[*riverbeat.Error](d.Validate()); ok {
		unread.Fields = append(unread.Fields, rest.Fields...)
	}
	return unread
}

// definitionInputOf is the input that would make d as it is.
func definitionInputOf(d *riverbeat.TaskDefinition) taskDefinitionInput {
	shown := taskDefinitionOf(d)
	return taskDefinitionInput{
		TaskName:        &shown.TaskName,
		Category:        shown.Category,
		Description:     shown.Description,
		ParameterSchema: &shown.ParameterSchema,
		Executor:        &shown.Executor,
		Queue:           &shown.Queue,
		Priority:        &shown.Priority,
		MaxAttempts:     &shown.MaxAttempts,
		Retry:           &retryInput{&shown.Retry.Backoff, &shown.Retry.MaxBackoff},
		Timeout:         &shown.Timeout,
		MaxConcurrency:  shown.MaxConcurrency,
		Alerts:          (*alertsInput)(shown.Alerts),
	}
}

// forceParam is the query parameter of every write of a definition.
type forceParam struct {
	Force bool `query:"force" def:"false" doc:"Make the change even if the parameters of schedules of this task break the new schema; those schedules are marked by last_error."`
}

type createTaskDefinitionRequest struct {
	forceParam
	Body taskDefinitionInput
}

func (a *api) createTaskDefinition(ctx context.Context, req *createTaskDefinitionRequest) (*answer[*taskDefinition], error) {
	d, err := req.Body.definition()
	if err != nil {
		return nil, err
	}
	made, err := a.Catalog.CreateTaskDefinition(ctx, d, req.Force)
	if err != nil {
		return nil, err
	}
	return created(taskDefinitionOf(made), taskDefinitionPath(made)), nil
}

func taskDefinitionPath(d *riverbeat.TaskDefinition) string {
	return taskDefinitionsPath + "/" + url.PathEscape(d.TaskName)
}

type taskDefinitionRequest struct {
	TaskName string `path:"task_name" of:"task_definition" doc:"The name of the task, percent-encoded: a slash in it is %2F."`
}

func (a *api) getTaskDefinition(ctx context.Context, req *taskDefinitionRequest) (*answer[*taskDefinition], error) {
	d, err := a.Catalog.TaskDefinition(ctx, req.TaskName)
	if err != nil {
		return nil, err
	}
	return ok(taskDefinitionOf(d)), nil
}

type putTaskDefinitionRequest struct {
	taskDefinitionRequest
	ifMatch
	forceParam
	Body namedByPath
}

// namedByPath is an input whose task_name may be left to the path.
type namedByPath taskDefinitionInput

func (*namedByPath) variantOf() (whole reflect.Type, suffix string) {
	return reflect.TypeFor[taskDefinitionInput](), "Put"
}

func (in *namedByPath) check() error {
	named, name := taskDefinitionInput(*in), "in the path"
	if named.TaskName == nil {
		named.TaskName = &name
	}
	return named.check()
}

func (a *api) putTaskDefinition(ctx context.Context, req *putTaskDefinitionRequest) (*answer[*taskDefinition], error) {
	in := taskDefinitionInput(req.Body)
	if err := sameTaskName(in.TaskName, req.TaskName); err != nil {
		return nil, err
	}
	in.TaskName = &req.TaskName
	given, err := in.definition()
	if err != nil {
		return nil, err
	}
	d, isNew, err := a.Catalog.PutTaskDefinition(ctx, given, req.Force, req.IfMatch.Expected)
	switch {
	case err != nil:
		return nil, err
	case isNew:
		return created(taskDefinitionOf(d), taskDefinitionPath(d)), nil
	default:
		return ok(taskDefinitionOf(d)), nil
	}
}

// sameTaskName holds a body's task_name, if it has one, to that of the path.
func sameTaskName(inBody *string, inPath string) error {
	if inBody == nil || *inBody == inPath {
		return nil
	}
	return riverbeat.InvalidField("task_name_fixed", "/task_name", "must be the name in the path, %q, or left out", inPath)
}

type patchTaskDefinitionRequest struct {
	taskDefinitionRequest
	ifMatch
	forceParam
	Body patch[taskDefinitionInput]
}

func (a *api) patchTaskDefinition(ctx context.Context, req *patchTaskDefinitionRequest) (*answer[*taskDefinition], error) {
	d, err := a.Catalog.ChangeTaskDefinition(ctx, req.TaskName, req.Force, func(d *riverbeat.TaskDefinition) error {
		if err := req.IfMatch.Check(d.Version); err != nil {
			return err
		}
		in, err := req.Body.apply(definitionInputOf(d))
		if err != nil {
			return err
		}
		if err := sameTaskName(in.TaskName, req.TaskName); err != nil {
			return err
		}
		in.TaskName = &req.TaskName
		changed, err := in.definition()
		if err != nil {
			return err
		}
		changed.ID, changed.Version, changed.CreatedAt, changed.UpdatedAt = d.ID, d.Version, d.CreatedAt, d.UpdatedAt
		changed.BuiltIn, changed.AliasOf = d.BuiltIn, d.AliasOf
		*d = *changed
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ok(taskDefinitionOf(d)), nil
}

type deleteTaskDefinitionRequest struct {
	taskDefinitionRequest
	ifMatch
}

func (a *api) deleteTaskDefinition(ctx context.Context, req *deleteTaskDefinitionRequest) (*answer[nothing], error) {
	if err := a.Catalog.DeleteTaskDefinition(ctx, req.TaskName, req.IfMatch.Expected); err != nil {
		return nil, err
	}
	return noContent(), nil
}

type listTaskDefinitionsRequest struct {
	Category *string `query:"category" doc:"Of this category."`
	pageParams
}

func (a *api) listTaskDefinitions(ctx context.Context, req *listTaskDefinitionsRequest) (*answer[list[*taskDefinition]], error) {
	asked := struct{ Category *string }{req.Category}
	after, err := readToken[string](asked, req.PageToken)
	if err != nil {
		return nil, err
	}
	page, more, err := a.Catalog.ListTaskDefinitions(ctx, req.Category, valueOr(after, ""), req.PageSize)
	if err != nil {
		return nil, err
	}
	var next *string
	if more {
		next = &page[len(page)-1].TaskName
	}
	return pageOf(asked, page, taskDefinitionOf, next)
}
