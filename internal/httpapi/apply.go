package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"riverbeat/internal/access"
	"riverbeat/internal/catalog"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// manifest is all that is wanted of the schedules that one name manages.
type manifest struct {
	ManagedBy       *string               `json:"managed_by" required:"true" doc:"Who keeps these schedules: the name by which they are known when they come again. At most 255 characters." example:"shop"`
	Schedules       []manifestSchedule    `json:"schedules" def:"[]" doc:"All that the name is to manage, at most 5,000."`
	TaskDefinitions []taskDefinitionInput `json:"task_definitions" def:"[]" doc:"What these tasks are to be. Where that changes something it takes the role admin. No name manages them: what is not here stays."`
	Prune           *bool                 `json:"prune" def:"false" doc:"Delete the schedules that the name manages and that are not here."`
	MaxPrune        *int                  `json:"max_prune" minimum:"0" maximum:"5000" doc:"How many may be deleted at most; 409 if there are more. Defaults to a fifth of those that the name manages."`
	Adopt           *bool                 `json:"adopt" def:"false" doc:"Take over schedules that nobody manages, where one is named by its id."`
	DryRun          *bool                 `json:"dry_run" def:"false" doc:"As dry_run in the query."`
}

// manifestSchedule is a schedule of a manifest: what people say of one, with its name.
type manifestSchedule struct {
	ID   *uuid.UUID `json:"id" format:"uuid" doc:"Which schedule it is, whatever its name; if there is none such, it is made with this id. Without it, it is the one that the name manages and that is called so."`
	Name *string    `json:"name" required:"true" doc:"At most 255 characters. What has no id must have a name that no other schedule of the manifest has."`
	ScheduleFields
	Enabled  *bool   `json:"enabled" doc:"Whether it ticks. If it is missing, a new one does, and one that is there stays as it is."`
	Shadow   *bool   `json:"shadow" doc:"Whether its ticks are recorded and not run. If it is missing, one that is there stays as it is."`
	Category *string `json:"category" doc:"At most 50 characters. If it is missing, that of the task's definition; empty: none."`
}

// ScheduleFields is scheduleInput where it is embedded: huma passes over what is not exported.
type ScheduleFields = scheduleInput

// apply writes over a schedule all that the manifest says of it.
func (in *manifestSchedule) apply(s *riverbeat.Schedule, defaultTimezone string) {
	enabled, shadow := valueOr(in.Enabled, s.Enabled), valueOr(in.Shadow, s.Shadow)
	said := in.ScheduleFields
	said.Name, said.Category = in.Name, in.Category
	said.apply(s, defaultTimezone)
	s.Enabled, s.Shadow = enabled, shadow
}

// rules are those that are about the whole.
func (in *manifest) rules() error {
	var wrong fields
	if valueOr(in.ManagedBy, "") == "" {
		wrong.addf("/managed_by", "is required")
	}
	if len(in.Schedules) > catalog.MaxManaged {
		wrong.addf("/schedules", "must be at most %d", catalog.MaxManaged)
	}
	return wrong.err()
}

func (in *manifest) check() error {
	errs := []error{in.rules()}
	for i := range in.Schedules {
		var s riverbeat.Schedule
		in.Schedules[i].apply(&s, "UTC")
		errs = append(errs, within("/schedules/"+strconv.Itoa(i), s.Validate()))
	}
	for i := range in.TaskDefinitions {
		errs = append(errs, within("/task_definitions/"+strconv.Itoa(i), in.TaskDefinitions[i].check()))
	}
	return riverbeat.JoinInvalid(errs...)
}

// within moves the pointers of what is wrong to where the thing lies.
func within(at string, err error) error {
	invalid, ok := errors.AsType[*riverbeat.Error](err)
	if !ok {
		return err
	}
	moved := *invalid
	moved.Fields = slices.Clone(invalid.Fields)
	for i := range moved.Fields {
		moved.Fields[i].Pointer = at + moved.Fields[i].Pointer
	}
	return &moved
}

// plan is what becomes of each thing by a manifest.
type plan struct {
	ManagedBy       string              `json:"managed_by"`
	DryRun          bool                `json:"dry_run" doc:"Nothing of this was done."`
	Refused         *itemError          `json:"refused" doc:"Of a dry run: why nothing of this may be done. The pointers lead into the manifest."`
	Create          int                 `json:"create" doc:"Schedules that are made, or would be."`
	Change          int                 `json:"change"`
	Unchanged       int                 `json:"unchanged" doc:"They are as they should be; nothing was written."`
	Prune           int                 `json:"prune"`
	Conflict        int                 `json:"conflict" doc:"Of a dry run: those that stand in the way of all."`
	Left            int                 `json:"left" doc:"Schedules that the name manages, that are not in the manifest, and that stay."`
	Schedules       []plannedSchedule   `json:"schedules" nullable:"false" doc:"In the order of the manifest; then those that are pruned."`
	TaskDefinitions []plannedDefinition `json:"task_definitions" nullable:"false" doc:"In the order of the manifest. The counts are not of them."`
}

type plannedSchedule struct {
	ID        *uuid.UUID   `json:"id" format:"uuid" doc:"Null: it would get one."`
	Name      string       `json:"name"`
	TaskName  string       `json:"task_name"`
	Action    planAction   `json:"action"`
	Changes   []planChange `json:"changes" nullable:"false" doc:"For change: the fields that are others then."`
	Namesakes []uuid.UUID  `json:"namesakes" nullable:"false" doc:"For create: schedules of this name that the manifest's name does not manage, and leaves alone."`
}

type plannedDefinition struct {
	TaskName string       `json:"task_name"`
	Action   planAction   `json:"action"`
	Changes  []planChange `json:"changes" nullable:"false"`
}

type planChange struct {
	Field string  `json:"field" example:"cron_expression"`
	Old   jsonAny `json:"old"`
	New   jsonAny `json:"new"`
}

type applyRequest struct{ Body manifest }

func (a *api) apply(ctx context.Context, req *applyRequest) (*answer[*plan], error) {
	in := &req.Body
	if err := in.rules(); err != nil {
		return nil, err
	}
	m, err := a.manifestOf(ctx, in)
	if err != nil {
		return nil, err
	}
	var made *catalog.Plan
	dry, err := a.maybeDry(ctx, in.DryRun, func(ctx context.Context) (err error) {
		made, err = a.Catalog.Apply(ctx, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	shown, err := planOf(made)
	if err != nil {
		return nil, err
	}
	shown.ManagedBy, shown.DryRun = m.ManagedBy, dry || postgres.IsDry(ctx)
	return ok(shown), nil
}

// manifestOf is what a request wants.
func (a *api) manifestOf(ctx context.Context, in *manifest) (*catalog.Manifest, error) {
	m := &catalog.Manifest{
		ManagedBy: *in.ManagedBy, Prune: valueOr(in.Prune, false), MaxPrune: in.MaxPrune, Adopt: valueOr(in.Adopt, false),
		MayDefine: func() error { return access.Authorize(callerOf(ctx), riverbeat.Admin) },
	}
	for i := range in.Schedules {
		s := &in.Schedules[i]
		m.Schedules = append(m.Schedules, catalog.ManifestSchedule{
			ID: valueOr(s.ID, uuid.Nil), OwnCategory: s.Category != nil,
			Apply: func(to *riverbeat.Schedule) { s.apply(to, a.DefaultTimezone) },
		})
	}
	var errs []error
	for i := range in.TaskDefinitions {
		d, err := in.TaskDefinitions[i].definition()
		errs = append(errs, within("/task_definitions/"+strconv.Itoa(i), err))
		m.Definitions = append(m.Definitions, d)
	}
	return m, riverbeat.JoinInvalid(errs...)
}

func planOf(p *catalog.Plan) (*plan, error) {
	shown := &plan{Refused: itemErrorOf(p.Refused), Left: p.Left, Schedules: []plannedSchedule{}, TaskDefinitions: []plannedDefinition{}}
	counts := map[catalog.Action]*int{
		catalog.ActionCreate: &shown.Create, catalog.ActionChange: &shown.Change, catalog.ActionUnchanged: &shown.Unchanged,
		catalog.ActionPrune: &shown.Prune, catalog.ActionConflict: &shown.Conflict,
	}
	for _, s := range p.Schedules {
		*counts[s.Action]++
		item := plannedSchedule{Action: planAction(s.Action), Changes: []planChange{}, Namesakes: append([]uuid.UUID{}, s.Namesakes...)}
		if known := cmp.Or(s.After, s.Before); known != nil {
			item.ID, item.Name, item.TaskName = orMissing(known.ID), known.Name, known.TaskName
		}
		if s.Action == catalog.ActionChange {
			var err error
			if item.Changes, err = changesOf(scheduleOf(s.Before), scheduleOf(s.After)); err != nil {
				return nil, err
			}
		}
		shown.Schedules = append(shown.Schedules, item)
	}
	for _, d := range p.Definitions {
		item := plannedDefinition{TaskName: d.After.TaskName, Action: planAction(d.Action), Changes: []planChange{}}
		if d.Action == catalog.ActionChange {
			var err error
			if item.Changes, err = changesOf(taskDefinitionOf(d.Before), taskDefinitionOf(d.After)); err != nil {
				return nil, err
			}
		}
		shown.TaskDefinitions = append(shown.TaskDefinitions, item)
	}
	return shown, nil
}

// ownFields are those that nobody writes.
var ownFields = []string{"id", "version", "created_at", "updated_at", "next_run_at", "last_run_at"}

// changesOf are the fields that differ in two answers of one type.
func changesOf[T any](before, after T) ([]planChange, error) {
	old, err := encode(before)
	if err != nil {
		return nil, err
	}
	now, err := encode(after)
	if err != nil {
		return nil, err
	}
	changes := []planChange{}
	was, _ := riverbeat.Members(old)
	is, _ := riverbeat.Members(now)
	for i, m := range is {
		if !slices.Contains(ownFields, m.Name) && !bytes.Equal(was[i].Raw, m.Raw) {
			changes = append(changes, planChange{m.Name, jsonAny{was[i].Raw}, jsonAny{m.Raw}})
		}
	}
	return changes, nil
}

// export is what a manifest has to say to make what there is.
type export struct {
	ManagedBy       *string      `json:"managed_by" doc:"The one that was asked for."`
	Schedules       []jsonObject `json:"schedules" nullable:"false" doc:"By their names. What has its default is left out, and so is the id where the name is enough."`
	TaskDefinitions []jsonObject `json:"task_definitions" nullable:"false" doc:"By their names; those that are built in are left out, for they are there by themselves."`
}

type exportRequest struct {
	scheduleFilter
	IDs             bool `query:"ids" def:"false" doc:"With the ids of all schedules: to take them over by another name (adopt), or to keep them in another database."`
	TaskDefinitions bool `query:"task_definitions" def:"false" doc:"With the definitions of their tasks."`
}

func (a *api) export(ctx context.Context, req *exportRequest) (*answer[*export], error) {
	schedules, definitions, err := a.Catalog.Export(ctx, req.filter())
	if err != nil {
		return nil, err
	}
	shown := &export{ManagedBy: req.ManagedBy, Schedules: []jsonObject{}, TaskDefinitions: []jsonObject{}}
	for i, s := range schedules {
		alone := (i == 0 || schedules[i-1].Name != s.Name) && (i == len(schedules)-1 || schedules[i+1].Name != s.Name)
		in := manifestSchedule{Name: &s.Name, ScheduleFields: inputOf(s), Category: orNull(s.Category)}
		if req.IDs || !alone {
			in.ID = &s.ID
		}
		if !s.Enabled {
			in.Enabled = &s.Enabled
		}
		if s.Shadow {
			in.Shadow = &s.Shadow
		}
		if d := definitions[s.TaskName]; s.Category == "" && d != nil && d.Category != "" {
			in.Category = &s.Category
		}
		item, err := withoutDefaults(reflect.ValueOf(in))
		if err != nil {
			return nil, err
		}
		shown.Schedules = append(shown.Schedules, jsonObject{item})
	}
	for _, name := range slices.Sorted(maps.Keys(definitions)) {
		if d := definitions[name]; req.TaskDefinitions && !d.BuiltIn {
			in := definitionInputOf(d)
			in.Executor = &executorOf{d.Executor.JSON()}
			item, err := withoutDefaults(reflect.ValueOf(in))
			if err != nil {
				return nil, err
			}
			shown.TaskDefinitions = append(shown.TaskDefinitions, jsonObject{item})
		}
	}
	return ok(shown), nil
}

// withoutDefaults writes an input with what is not as it would be without it.
func withoutDefaults(in reflect.Value) (json.RawMessage, error) {
	text := json.RawMessage("{")
	for _, f := range jsonFields(in.Type()) {
		v := in.FieldByIndex(f.Index)
		var raw json.RawMessage
		var err error
		if settings, isInput := v.Interface().(*alertsInput); isInput && settings != nil {
			raw, err = withoutDefaults(v.Elem())
		} else {
			raw, err = encode(v.Interface())
		}
		if err != nil {
			return nil, err
		}
		if isNull(raw) || sameJSON(raw, json.RawMessage(f.Tag.Get("def"))) {
			continue
		}
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(append(strconv.AppendQuote(text, jsonName(f)), ':'), raw...)
	}
	return append(text, '}'), nil
}

func sameJSON(a, b json.RawMessage) bool {
	x, errX := riverbeat.CanonicalJSON(a)
	y, errY := riverbeat.CanonicalJSON(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
