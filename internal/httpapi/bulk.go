package httpapi

import (
	"context"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// bulkInput says what is done to which schedules.
type bulkInput struct {
	IDs    []uuid.UUID `json:"ids" doc:"These, at most 500; either they or a filter."`
	Filter *bulkFilter `json:"filter" doc:"All that pass it, at most 500. An empty one picks all there are."`
	Action *bulkAction `json:"action" required:"true" doc:"What is done to each." example:"disable"`
	Tags   []string    `json:"tags" doc:"For tag and untag: which."`
	DryRun *bool       `json:"dry_run" def:"false" doc:"As dry_run in the query."`
}

// bulkFilter is what the list of schedules may be filtered by.
type bulkFilter struct {
	Category *string  `json:"category" doc:"Of this category; empty: of none."`
	Tags     []string `json:"tags" doc:"With all of these tags."`
	TaskName *string  `json:"task_name" doc:"Of this task."`
	Enabled  *bool    `json:"enabled" doc:"Enabled ones, or disabled ones."`
	Q        *string  `json:"q" doc:"Words of the name; all must match, the last one may be unfinished."`
}

func (in *bulkInput) check() error {
	var wrong fields
	if (in.IDs == nil) == (in.Filter == nil) {
		wrong.addf("/ids", "is needed, or filter is; one of them")
	}
	if in.IDs != nil && len(in.IDs) == 0 {
		wrong.addf("/ids", "must not be empty")
	}
	seen := map[uuid.UUID]bool{}
	for i, id := range in.IDs {
		if seen[id] {
			wrong.addf("/ids/"+strconv.Itoa(i), "stands twice")
		}
		seen[id] = true
	}
	action := valueOr(in.Action, "")
	if action == "" {
		wrong.addf("/action", "is required")
	}
	switch tags := action == bulkTag || action == bulkUntag; {
	case tags && len(in.Tags) == 0:
		wrong.addf("/tags", "are needed: which?")
	case !tags && action != "" && in.Tags != nil:
		wrong.addf("/tags", "are for tag and untag")
	}
	return wrong.err()
}

// bulkAnswer tells what became of each.
type bulkAnswer struct {
	Action    bulkAction `json:"action"`
	DryRun    bool       `json:"dry_run" doc:"Nothing of this was kept."`
	Matched   int        `json:"matched"`
	Done      int        `json:"done"`
	Unchanged int        `json:"unchanged" doc:"They were so already."`
	Failed    int        `json:"failed"`
	Items     []bulkItem `json:"items" nullable:"false" doc:"In the order of the ids."`
}

type bulkItem struct {
	ID      uuid.UUID   `json:"id" format:"uuid"`
	Name    *string     `json:"name" doc:"Null if there is no such schedule."`
	Outcome bulkOutcome `json:"outcome"`
	Error   *itemError  `json:"error,omitempty" doc:"Why it failed."`
	Run     *madeRun    `json:"run,omitempty" doc:"For run: the run that was made."`
}

type itemError struct {
	Code   string         `json:"code" example:"invalid_params"`
	Detail string         `json:"detail"`
	Errors []problemField `json:"errors" nullable:"false"`
}

// itemErrorOf is nil for nil.
func itemErrorOf(e *riverbeat.Error) *itemError {
	if e == nil {
		return nil
	}
	shown := &itemError{Code: e.Code, Detail: e.Detail, Errors: []problemField{}}
	for _, f := range e.Fields {
		shown.Errors = append(shown.Errors, problemField(f))
	}
	return shown
}

type madeRun struct {
	ID     uuid.UUID `json:"id" format:"uuid"`
	State  runState  `json:"state"`
	Reason *string   `json:"reason"`
}

type bulkRequest struct{ Body bulkInput }

func (a *api) bulk(ctx context.Context, req *bulkRequest) (*answer[*bulkAnswer], error) {
	in := &req.Body
	if err := in.check(); err != nil {
		return nil, err
	}
	which := catalog.Selection{IDs: in.IDs}
	if f := in.Filter; f != nil {
		which.Filter = postgres.ScheduleFilter{
			Category: f.Category, TaskName: f.TaskName, Enabled: f.Enabled, Tags: f.Tags, Query: valueOr(f.Q, ""),
		}
	}
	var items []catalog.BulkItem
	dry, err := a.maybeDry(ctx, in.DryRun, func(ctx context.Context) (err error) {
		items, err = a.Catalog.Bulk(ctx, which, a.bulkStep(in))
		return err
	})
	if err != nil {
		return nil, err
	}
	return ok(bulkAnswerOf(*in.Action, items, dry || postgres.IsDry(ctx))), nil
}

type bulkStep func(ctx context.Context, id uuid.UUID) (catalog.BulkItem, error)

// bulkStep is what is done to each schedule.
func (a *api) bulkStep(in *bulkInput) bulkStep {
	change := func(edit func(*riverbeat.Schedule)) bulkStep {
		return func(ctx context.Context, id uuid.UUID) (catalog.BulkItem, error) {
			before := 0
			changed, err := a.Catalog.ChangeSchedule(ctx, id, func(s *riverbeat.Schedule) error {
				before = s.Version
				edit(s)
				return nil
			})
			return catalog.BulkItem{Done: err == nil && changed.Version != before}, err
		}
	}
	switch *in.Action {
	case bulkEnable:
		return change(func(s *riverbeat.Schedule) { s.Enabled = true })
	case bulkDisable:
		return change(func(s *riverbeat.Schedule) { s.Enabled = false })
	case bulkTag:
		return change(func(s *riverbeat.Schedule) {
			s.Tags = slices.Clone(s.Tags)
			for _, tag := range in.Tags {
				if !slices.Contains(s.Tags, tag) {
					s.Tags = append(s.Tags, tag)
				}
			}
		})
	case bulkUntag:
		return change(func(s *riverbeat.Schedule) {
			s.Tags = slices.DeleteFunc(slices.Clone(s.Tags), func(tag string) bool { return slices.Contains(in.Tags, tag) })
		})
	case bulkDelete:
		return func(ctx context.Context, id uuid.UUID) (catalog.BulkItem, error) {
			err := a.Catalog.DeleteSchedule(ctx, id, riverbeat.Expected{})
			return catalog.BulkItem{Done: err == nil}, err
		}
	default: // bulkRunNow
		return func(ctx context.Context, id uuid.UUID) (catalog.BulkItem, error) {
			r, err := a.History.RunNow(ctx, id, history.Overrides{})
			return catalog.BulkItem{Done: err == nil, Run: r}, err
		}
	}
}

func bulkAnswerOf(action bulkAction, items []catalog.BulkItem, dry bool) *bulkAnswer {
	shown := &bulkAnswer{Action: action, DryRun: dry, Matched: len(items), Items: make([]bulkItem, len(items))}
	for i, item := range items {
		to := &shown.Items[i]
		to.ID, to.Name = item.ID, orNull(item.Name)
		switch {
		case item.Err != nil:
			shown.Failed++
			to.Outcome = bulkFailed
			to.Error = itemErrorOf(item.Err)
		case item.Done:
			shown.Done++
			to.Outcome = bulkDone
		default:
			shown.Unchanged++
			to.Outcome = bulkUnchanged
		}
		if r := item.Run; r != nil {
			to.Run = &madeRun{ID: r.ID, State: runState(r.State), Reason: orNull(r.Reason)}
		}
	}
	return shown
}
