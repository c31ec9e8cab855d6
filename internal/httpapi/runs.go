package httpapi

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/history"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// run is a run as it is answered.
type run struct {
	ID                uuid.UUID       `json:"id" format:"uuid" doc:"A UUIDv7 whose time is scheduled_for."`
	ScheduleID        *uuid.UUID      `json:"schedule_id" format:"uuid" doc:"Kept when the schedule is gone."`
	ScheduleName      string          `json:"schedule_name"`
	ScheduleVersion   int             `json:"schedule_version"`
	DefinitionVersion *int            `json:"definition_version" doc:"Null if the task had no definition."`
	TaskName          string          `json:"task_name"`
	Category          *string         `json:"category"`
	Tags              []string        `json:"tags" nullable:"false"`
	Args              jsonArray       `json:"args"`
	TaskParams        jsonObject      `json:"task_params" doc:"The effective parameters: with the defaults of the task's schema."`
	LockKey           *string         `json:"lock_key" doc:"Runs with the same key do not run at the same time. Null for policy allow."`
	ExecutionPolicy   executionPolicy `json:"execution_policy"`
	Trigger           runTrigger      `json:"trigger" doc:"What asked for it: a tick on time, a tick caught up with, a person, or a backfill."`
	BackfillID        *uuid.UUID      `json:"backfill_id" format:"uuid"`
	ScheduledFor      time.Time       `json:"scheduled_for" doc:"Its nominal time."`
	State             runState        `json:"state" doc:"waiting in line, queued, running, retrying; or ended: succeeded, failed, cancelled, skipped, missed."`
	Reason            *string         `json:"reason" doc:"Why it is in its state, where the state does not say it all."`
	BlockedBy         *uuid.UUID      `json:"blocked_by" format:"uuid" doc:"The run that was in the way."`
	JobID             *int64          `json:"job_id" doc:"River's job."`
	Lives             int             `json:"lives" doc:"Jobs it lost with their process."`
	LostLives         []lostLife      `json:"lost_lives" nullable:"false" doc:"The lives that it lost so, in their order."`
	Execution         int             `json:"execution" doc:"How often it was started: with id, a fencing token."`
	Attempt           int             `json:"attempt" doc:"Tries so far."`
	MaxAttempts       int             `json:"max_attempts"`
	EnqueuedAt        *time.Time      `json:"enqueued_at"`
	StartedAt         *time.Time      `json:"started_at"`
	FinishedAt        *time.Time      `json:"finished_at"`
	CancelRequestedAt *time.Time      `json:"cancel_requested_at" doc:"When someone asked for its end. A running one goes on until its task obeys."`
	CancelRequestedBy *string         `json:"cancel_requested_by"`
	Node              *string         `json:"node" doc:"The process that started it last."`
	Result            jsonAny         `json:"result" doc:"What the task returned; null if nothing."`
	Error             *string         `json:"error" doc:"The text of its last failure."`
	Logs              jsonAny         `json:"logs" doc:"What the task logged: a list of {attempt, log}, or null."`
	MissedFrom        *time.Time      `json:"missed_from" doc:"For state missed: the first tick of the gap."`
	MissedUntil       *time.Time      `json:"missed_until" doc:"For state missed: the last tick of the gap."`
	MissedCount       *int            `json:"missed_count" doc:"For state missed: how many ticks; null if more than 10,000."`
	RequestedBy       *string         `json:"requested_by"`
	Attempts          []attempt       `json:"attempts,omitzero" nullable:"false" doc:"Only where one run is read: its attempts, as long as River keeps their job."`
	Blocks            []blockedRun    `json:"blocks,omitzero" nullable:"false" doc:"Only where one run is read: the runs that it is or was in the way of; the first 100."`
}

type attempt struct {
	Attempt int        `json:"attempt"`
	EndedAt *time.Time `json:"ended_at" doc:"Null: it is under way."`
	Error   *string    `json:"error" doc:"Null: it did not fail."`
}

type blockedRun struct {
	ID           uuid.UUID  `json:"id" format:"uuid"`
	ScheduleID   *uuid.UUID `json:"schedule_id" format:"uuid"`
	ScheduleName string     `json:"schedule_name"`
	ScheduledFor time.Time  `json:"scheduled_for"`
	State        runState   `json:"state" doc:"As it is now."`
	Reason       *string    `json:"reason"`
}

// detailOf is a run with all that there is to say of it.
func detailOf(d *riverbeat.RunDetail) *run {
	shown := runOf(d.Run)
	shown.Attempts, shown.Blocks = []attempt{}, []blockedRun{}
	for _, a := range d.Attempts {
		shown.Attempts = append(shown.Attempts, attempt{a.Number, a.EndedAt, orNull(a.Error)})
	}
	for _, b := range d.Blocks {
		shown.Blocks = append(shown.Blocks, blockedRun{b.ID, b.ScheduleID, b.ScheduleName, b.ScheduledFor, runState(b.State), orNull(b.Reason)})
	}
	return shown
}

type lostLife struct {
	JobID     int64     `json:"job_id" doc:"River's job of that life."`
	Node      string    `json:"node" doc:"The process that was lost."`
	Execution int       `json:"execution" doc:"The execution that was lost."`
	LostAt    time.Time `json:"lost_at" doc:"When that was noticed."`
}

func runOf(r *riverbeat.Run) *run {
	shown := &run{
		ID:                r.ID,
		ScheduleID:        r.ScheduleID,
		ScheduleName:      r.ScheduleName,
		ScheduleVersion:   r.ScheduleVersion,
		TaskName:          r.TaskName,
		Category:          orNull(r.Category),
		Tags:              append([]string{}, r.Tags...),
		Args:              jsonArray{rawOr(r.Args, "[]")},
		TaskParams:        jsonObject{rawOr(r.TaskParams, "{}")},
		LockKey:           orNull(r.LockKey),
		ExecutionPolicy:   executionPolicy(r.ExecutionPolicy),
		Trigger:           runTrigger(r.Trigger),
		BackfillID:        r.BackfillID,
		ScheduledFor:      r.ScheduledFor,
		State:             runState(r.State),
		Reason:            orNull(r.Reason),
		BlockedBy:         r.BlockedBy,
		JobID:             r.JobID,
		Lives:             r.Lives,
		LostLives:         []lostLife{},
		Execution:         r.Execution,
		Attempt:           r.Attempt,
		MaxAttempts:       r.MaxAttempts,
		EnqueuedAt:        r.EnqueuedAt,
		StartedAt:         r.StartedAt,
		FinishedAt:        r.FinishedAt,
		CancelRequestedAt: r.CancelRequestedAt,
		CancelRequestedBy: orNull(r.CancelRequestedBy),
		Node:              orNull(r.Node),
		Result:            jsonAny{r.Result},
		Error:             orNull(r.Error),
		Logs:              jsonAny{r.Logs},
		MissedFrom:        r.MissedFrom,
		MissedUntil:       r.MissedUntil,
		MissedCount:       r.MissedCount,
		RequestedBy:       orNull(r.RequestedBy),
	}
	for _, life := range r.LostLives {
		shown.LostLives = append(shown.LostLives, lostLife(life))
	}
	if r.DefinitionVersion > 0 {
		shown.DefinitionVersion = &r.DefinitionVersion
	}
	return shown
}

type runNowRequest struct {
	scheduleRequest
	Body *runInput
}

// runInput changes one run against its schedule.
type runInput struct {
	TaskParams      *jsonObject      `json:"task_params" doc:"Instead of all of the schedule's."`
	ExecutionPolicy *executionPolicy `json:"execution_policy" doc:"Instead of the schedule's."`
}

func (a *api) runNow(ctx context.Context, req *runNowRequest) (*answer[*run], error) {
	in := valueOr(req.Body, runInput{})
	overrides := history.Overrides{TaskParams: valueOr(in.TaskParams, jsonObject{}).RawMessage}
	if in.ExecutionPolicy != nil {
		policy := riverbeat.Policy(*in.ExecutionPolicy)
		overrides.ExecutionPolicy = &policy
	}
	r, err := a.History.RunNow(ctx, req.ID, overrides)
	if err != nil {
		return nil, err
	}
	return created(runOf(r), runsPath+"/"+r.ID.String()), nil
}

type runRequest struct {
	ID uuid.UUID `path:"id" of:"run" format:"uuid" doc:"The id of the run."`
}

func (a *api) getRun(ctx context.Context, req *runRequest) (*answer[*run], error) {
	d, err := a.History.RunDetail(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	return ok(detailOf(d)), nil
}

func (a *api) cancelRun(ctx context.Context, req *runRequest) (*answer[*run], error) {
	r, err := a.History.Cancel(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	return ok(runOf(r)), nil
}

func (a *api) retryRun(ctx context.Context, req *runRequest) (*answer[*run], error) {
	r, err := a.History.Retry(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	return ok(runOf(r)), nil
}

// runFilter are the query parameters of each list of runs.
type runFilter struct {
	State    []runState   `query:"state" doc:"In this state. May be repeated; one must match."`
	TaskName *string      `query:"task_name" doc:"Of this task."`
	Trigger  []runTrigger `query:"trigger" doc:"Asked for by this. May be repeated; one must match."`
	Category *string      `query:"category" doc:"Of this category; empty: of none."`
	Tags     []string     `query:"tags" doc:"With this tag. May be repeated; all must match."`
	From     *time.Time   `query:"from" doc:"With scheduled_for at it or after."`
	To       *time.Time   `query:"to" doc:"With scheduled_for before it."`
	pageParams
}

type listRunsRequest struct {
	ScheduleID *uuid.UUID `query:"schedule_id" format:"uuid" doc:"Of this schedule."`
	runFilter
}

func (a *api) listRuns(ctx context.Context, req *listRunsRequest) (*answer[list[*run]], error) {
	found, err := a.pageOfRuns(ctx, req.ScheduleID, &req.runFilter)
	if req.ScheduleID != nil && riverbeat.KindOf(err) == riverbeat.NotFound {
		return ok(list[*run]{Items: []*run{}}), nil // a filter that nothing passes
	}
	return found, err
}

type listScheduleRunsRequest struct {
	scheduleRequest
	runFilter
}

func (a *api) listScheduleRuns(ctx context.Context, req *listScheduleRunsRequest) (*answer[list[*run]], error) {
	return a.pageOfRuns(ctx, &req.ID, &req.runFilter)
}

func (a *api) pageOfRuns(ctx context.Context, scheduleID *uuid.UUID, req *runFilter) (*answer[list[*run]], error) {
	f := postgres.RunFilter{
		ScheduleID: scheduleID, TaskName: req.TaskName, Category: req.Category, Tags: slices.Sorted(slices.Values(req.Tags)),
		From: req.From, To: req.To,
	}
	for _, state := range slices.Sorted(slices.Values(req.State)) {
		f.State = append(f.State, riverbeat.State(state))
	}
	for _, trigger := range slices.Sorted(slices.Values(req.Trigger)) {
		f.Trigger = append(f.Trigger, riverbeat.Trigger(trigger))
	}
	asked := f
	after, err := readToken[uuid.UUID](asked, req.PageToken)
	if err != nil {
		return nil, err
	}
	f.After, f.Limit = after, req.PageSize
	page, next, err := a.History.ListRuns(ctx, &f)
	if err != nil {
		return nil, err
	}
	return pageOf(asked, page, runOf, next)
}
