package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// backfill is a backfill, as it is answered.
type backfill struct {
	ID              uuid.UUID        `json:"id" format:"uuid"`
	ScheduleID      uuid.UUID        `json:"schedule_id" format:"uuid" doc:"Kept when the schedule is gone."`
	ScheduleName    string           `json:"schedule_name"`
	From            time.Time        `json:"from"`
	To              time.Time        `json:"to"`
	ExecutionPolicy *executionPolicy `json:"execution_policy" doc:"Null: the schedule's, but queue where that is skip."`
	OnlyMissing     bool             `json:"only_missing"`
	State           backfillState    `json:"state" doc:"running until all ticks are decided and their runs have ended, then finished; or cancelled."`
	Reason          *string          `json:"reason" doc:"Why it was cancelled."`
	Total           int              `json:"total" doc:"Ticks in the range."`
	Decided         int              `json:"decided" doc:"Of them, those that have become runs so far."`
	LeftOut         int              `json:"left_out" doc:"Of them, those that were left out so far, because they had run (only_missing)."`
	LastError       *string          `json:"last_error" doc:"Why it does not go on."`
	Runs            *backfillRuns    `json:"runs,omitempty" doc:"Its runs by their states. Left out in lists."`
	RequestedBy     *string          `json:"requested_by"`
	CreatedAt       time.Time        `json:"created_at"`
	FinishedAt      *time.Time       `json:"finished_at"`
}

type backfillRuns struct {
	Waiting   int `json:"waiting"`
	Queued    int `json:"queued"`
	Running   int `json:"running"`
	Retrying  int `json:"retrying"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Cancelled int `json:"cancelled"`
	Skipped   int `json:"skipped"`
}

func backfillOf(b *riverbeat.Backfill) *backfill {
	shown := &backfill{
		ID: b.ID, ScheduleID: b.ScheduleID, ScheduleName: b.ScheduleName, From: b.From, To: b.To,
		OnlyMissing: b.OnlyMissing, State: backfillState(b.State), Reason: orNull(b.Reason), Total: b.Total, Decided: b.Decided,
		LeftOut: b.LeftOut, LastError: orNull(b.LastError), RequestedBy: orNull(b.RequestedBy), CreatedAt: b.CreatedAt, FinishedAt: b.FinishedAt,
	}
	if b.ExecutionPolicy != nil {
		policy := executionPolicy(*b.ExecutionPolicy)
		shown.ExecutionPolicy = &policy
	}
	if b.Runs != nil {
		shown.Runs = &backfillRuns{
			b.Runs[riverbeat.Waiting], b.Runs[riverbeat.Queued], b.Runs[riverbeat.Running], b.Runs[riverbeat.Retrying],
			b.Runs[riverbeat.Succeeded], b.Runs[riverbeat.Failed], b.Runs[riverbeat.Cancelled], b.Runs[riverbeat.Skipped],
		}
	}
	return shown
}

type backfillInput struct {
	From            *time.Time       `json:"from" required:"true" doc:"Ticks at it or after. At most 366 days before to."`
	To              *time.Time       `json:"to" required:"true" doc:"Ticks before it. Not in the future."`
	ExecutionPolicy *executionPolicy `json:"execution_policy" doc:"Defaults to the schedule's, but to queue where that is skip: all run, one after another. With skip, a tick is skipped while the one before it runs."`
	OnlyMissing     *bool            `json:"only_missing" def:"false" doc:"Leave out ticks that have a run which ran, or will: run those that were missed, skipped, or cancelled before they began."`
	DryRun          *bool            `json:"dry_run" def:"false" doc:"As dry_run in the query: say how many ticks there are."`
}

func (in *backfillInput) backfill() riverbeat.Backfill {
	b := riverbeat.Backfill{From: valueOr(in.From, time.Time{}), To: valueOr(in.To, time.Time{}), OnlyMissing: valueOr(in.OnlyMissing, false)}
	if in.ExecutionPolicy != nil {
		policy := riverbeat.Policy(*in.ExecutionPolicy)
		b.ExecutionPolicy = &policy
	}
	return b
}

type backfillScheduleRequest struct {
	scheduleRequest
	Body backfillInput
}

func (a *api) backfillSchedule(ctx context.Context, req *backfillScheduleRequest) (*answer[*backfill], error) {
	var b *riverbeat.Backfill
	dry, err := a.maybeDry(ctx, req.Body.DryRun, func(ctx context.Context) (err error) {
		b, err = a.History.Backfill(ctx, req.ID, req.Body.backfill())
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case dry:
		return ok(backfillOf(b)), nil
	default:
		return created(backfillOf(b), backfillsPath+"/"+b.ID.String()), nil
	}
}

// maybeDry does something, as a dry run if the body says so.
func (a *api) maybeDry(ctx context.Context, inBody *bool, do func(ctx context.Context) error) (dry bool, err error) {
	if valueOr(inBody, false) {
		return true, a.Access.DryRun(ctx, do)
	}
	return false, do(ctx)
}

type backfillRequest struct {
	ID uuid.UUID `path:"id" of:"backfill" format:"uuid" doc:"The id of the backfill."`
}

func (a *api) getBackfill(ctx context.Context, req *backfillRequest) (*answer[*backfill], error) {
	return backfillAnswer(a.History.ReadBackfill(ctx, req.ID))
}

func (a *api) cancelBackfill(ctx context.Context, req *backfillRequest) (*answer[*backfill], error) {
	return backfillAnswer(a.History.CancelBackfill(ctx, req.ID))
}

func backfillAnswer(b *riverbeat.Backfill, err error) (*answer[*backfill], error) {
	if err != nil {
		return nil, err
	}
	return ok(backfillOf(b)), nil
}

type listBackfillsRequest struct {
	ScheduleID *uuid.UUID     `query:"schedule_id" format:"uuid" doc:"Of this schedule."`
	State      *backfillState `query:"state" doc:"In this state."`
	pageParams
}

func (a *api) listBackfills(ctx context.Context, req *listBackfillsRequest) (*answer[list[*backfill]], error) {
	f := postgres.BackfillFilter{ScheduleID: req.ScheduleID}
	if req.State != nil {
		state := riverbeat.BackfillState(*req.State)
		f.State = &state
	}
	asked := f
	after, err := readToken[postgres.BackfillCursor](asked, req.PageToken)
	if err != nil {
		return nil, err
	}
	f.After, f.Limit = after, req.PageSize
	page, next, err := a.History.Backfills(ctx, &f)
	if err != nil {
		return nil, err
	}
	return pageOf(asked, page, backfillOf, next)
}
