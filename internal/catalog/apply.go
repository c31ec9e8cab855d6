package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// MaxManaged is how many schedules one name may manage.
const MaxManaged = 5_000

// Manifest is all that is wanted of the schedules that are managed by a name.
type Manifest struct {
	ManagedBy string
	Schedules []ManifestSchedule
	// Definitions are those that tasks are to have. No name manages them: those that are
	// not here stay.
	Definitions []*riverbeat.TaskDefinition
	// Prune deletes the schedules that are managed by the name and are not here: no more
	// than MaxPrune, nil being a fifth of those that the name manages.
	Prune    bool
	MaxPrune *int
	// Adopt takes over schedules that are managed by nobody, where one is named by its ID.
	Adopt bool
	// MayDefine says why no definition may be changed; nil: all may.
	MayDefine func() error
}

// ManifestSchedule is one schedule of a Manifest.
type ManifestSchedule struct {
	// ID is the id of the schedule. It is made with it if there is none such. uuid.Nil: it
	// is the one that is managed by the manifest's name and has the name that Apply gives.
	ID uuid.UUID
	// Apply writes over a schedule what is wanted of it, its name and its task among it. It
	// is called with an enabled one if there is none, and may be called more than once.
	Apply func(to *riverbeat.Schedule)
	// OwnCategory tells that Apply gives the category that is wanted, even if it is none.
	// Else the schedule has that of its task's definition.
	OwnCategory bool
}

// Action is what becomes of one thing by a Manifest.
type Action string

// The actions.
const (
	ActionCreate    Action = "create"
	ActionChange    Action = "change"
	ActionUnchanged Action = "unchanged"
	ActionPrune     Action = "prune"
	ActionConflict  Action = "conflict" // it stands in the way of all
)

// Plan is what becomes of each thing by a Manifest.
type Plan struct {
	Definitions []PlannedDefinition // in the order of the manifest
	Schedules   []PlannedSchedule   // in the order of the manifest, and then those that are pruned
	// Left are the schedules that are managed by the name, are not in the manifest, and
	// stay.
	Left int
	// Refused is why nothing of it may be done; nil: it was, or, of a dry run, would be.
	Refused *riverbeat.Error
}

// PlannedDefinition is what becomes of a definition. Before is nil if there is none.
type PlannedDefinition struct {
	Action        Action
	Before, After *riverbeat.TaskDefinition
}

// PlannedSchedule is what becomes of a schedule. Before is nil if there is none, After if
// there will be none. Of a dry run, one that would be created has no id of its own.
type PlannedSchedule struct {
	Action        Action
	Before, After *riverbeat.Schedule
	// Namesakes are other schedules of this name that the manifest's name does not manage.
	// One that is created would stand beside them.
	Namesakes []uuid.UUID
}

// Apply makes the schedules that are managed by a name those of a manifest, and gives tasks
// its definitions, in one transaction: all of it, or nothing. What another name manages, or
// nobody, is never touched. What is as it should be is not written, and its clock not
// locked. Of a postgres.DryRun it is the plan, with Refused; else that is the error.
//
// Invalid, with pointers into the manifest, if anything in it breaks a rule.
func (c *Catalog) Apply(ctx context.Context, m *Manifest) (*Plan, error) {
	if err := riverbeat.ValidateManagedBy(m.ManagedBy); err != nil {
		return nil, err
	}
	var plan *Plan
	err := c.partitions.InTx(ctx, func(tx *postgres.Tx) error {
		p := &planner{Catalog: c, tx: tx, manifest: m, plan: &Plan{}}
		plan = p.plan
		if err := p.make(ctx); err != nil {
			return err
		}
		switch {
		case postgres.IsDry(ctx):
			p.forgetIDs()
			return nil
		case plan.Refused != nil:
			return plan.Refused
		}
		return p.carryOut(ctx)
	})
	if err != nil {
		return nil, err
	}
	return plan, nil
}

// Export reads what a manifest would have to say: the schedules that a filter picks, by their
// names, and the definitions of their tasks that have one, as they are at one moment. Of the
// filter, Sort, After and Limit are not read. Invalid if it picks more than MaxManaged.
func (c *Catalog) Export(ctx context.Context, which postgres.ScheduleFilter) (list []*riverbeat.Schedule, definitions map[string]*riverbeat.TaskDefinition, err error) {
	which.Sort, which.Reverse, which.After, which.Limit = postgres.SortName, false, nil, MaxManaged+1
	err = c.db.Snapshot(ctx, func(tx *postgres.Tx) error {
		if list, err = tx.ListSchedules(ctx, &which); err != nil {
			return err
		}
		if len(list) > MaxManaged {
			return riverbeat.Errorf(riverbeat.Invalid, "too_many_schedules",
				"There are more than %d such schedules, which is as many as one name can manage; narrow it down.", MaxManaged)
		}
		names := map[string]bool{}
		for _, s := range list {
			names[s.TaskName] = true
		}
		definitions, err = tx.TaskDefinitions(ctx, slices.Collect(maps.Keys(names)))
		return err
	})
	return list, definitions, err
}

// forgetIDs takes back the ids that were drawn for what is not made.
func (p *planner) forgetIDs() {
	for i, item := range p.manifest.Schedules {
		if s := &p.plan.Schedules[i]; s.Action == ActionCreate {
			s.After.ID = item.ID
		}
	}
}

// planner makes a plan of a manifest in a transaction, and carries it out.
type planner struct {
	*Catalog
	tx       *postgres.Tx
	manifest *Manifest
	held     *held
	plan     *Plan

	stored      []*riverbeat.Schedule // that the name manages
	definitions map[string]*riverbeat.TaskDefinition
	redefined   []*riverbeat.TaskDefinition // those that were written with another schema than before
	wrong       []riverbeat.FieldError
	conflicts   []riverbeat.FieldError
	settled     time.Time // what settleFrom has said last
}

// make makes the plan. Definitions are written by then, if they may be: schedules are checked
// against them.
func (p *planner) make(ctx context.Context) error {
	if err := p.tx.LockManager(ctx, p.manifest.ManagedBy); err != nil {
		return err
	}
	var err error
	if p.held, err = hold(ctx, p.tx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{p.define, p.match, p.recheckOthers, p.findNamesakes} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if len(p.wrong) > 0 {
		return &riverbeat.Error{
			Kind: riverbeat.Invalid, Code: "invalid_manifest", Detail: "The manifest breaks a rule. Nothing was done.",
			Fields: p.wrong[:min(len(p.wrong), maxInvalidShown)],
		}
	}
	p.refuse()
	return nil
}

// define writes the definitions that are not as they should be.
func (p *planner) define(ctx context.Context) (err error) {
	names := map[string]bool{}
	for _, d := range p.manifest.Definitions {
		names[d.TaskName] = true
	}
	for _, item := range p.manifest.Schedules {
		names[item.said().TaskName] = true
	}
	if p.definitions, err = p.tx.TaskDefinitions(ctx, slices.Collect(maps.Keys(names))); err != nil {
		return err
	}
	twice := map[string]bool{}
	for i, d := range p.manifest.Definitions {
		at := fmt.Sprintf("/task_definitions/%d", i)
		if twice[d.TaskName] {
			p.wrongf(at+"/task_name", "stands twice")
			continue
		}
		twice[d.TaskName] = true
		planned := PlannedDefinition{Action: ActionConflict, Before: p.definitions[d.TaskName], After: d}
		after, wrong := p.put(ctx, planned.Before, d)
		if err := p.sort(at, wrong); err != nil {
			return err
		}
		if wrong == nil {
			planned.After, p.definitions[d.TaskName] = after, after
			isNew := planned.Before == nil
			planned.Action = action(isNew, !isNew && after.Version == planned.Before.Version)
			if p.plan.Refused == nil && (isNew || !bytes.Equal(planned.Before.ParameterSchema, after.ParameterSchema)) {
				p.redefined = append(p.redefined, after)
			}
		}
		p.plan.Definitions = append(p.plan.Definitions, planned)
	}
	return nil
}

// put gives a task its definition. One that is as it should be is not written, nor locked;
// if none may be changed, no other is either: then it is what would be written.
func (p *planner) put(ctx context.Context, stored, d *riverbeat.TaskDefinition) (*riverbeat.TaskDefinition, error) {
	change := func(stored *riverbeat.TaskDefinition) error {
		replace(stored, d)
		return nil
	}
	after, err := wouldBe(stored, d, change)
	if err != nil || after == stored {
		return after, err
	}
	if !p.mayDefine() {
		return after, nil
	}
	_, after, err = p.changeDefinition(ctx, p.tx, d.TaskName, change)
	if riverbeat.KindOf(err) == riverbeat.NotFound {
		return p.createDefinition(ctx, p.tx, d)
	}
	return after, err
}

// mayDefine tells whether definitions may be changed; the plan has why not.
func (p *planner) mayDefine() bool {
	if p.manifest.MayDefine != nil && p.plan.Refused == nil {
		p.plan.Refused, _ = errors.AsType[*riverbeat.Error](p.manifest.MayDefine())
	}
	return p.plan.Refused == nil
}

// wouldBe is a definition after a change, or a new one, as it would be written.
func wouldBe(stored, d *riverbeat.TaskDefinition, change func(*riverbeat.TaskDefinition) error) (*riverbeat.TaskDefinition, error) {
	if stored == nil {
		made, err := newDefinition(d)
		if err == nil {
			made.Version = 1
		}
		return made, err
	}
	after, err := changedDefinition(stored, change)
	if err == nil && after != stored {
		after.Version++
	}
	return after, err
}

// match finds for each schedule of the manifest which one it is, and what becomes of it.
func (p *planner) match(ctx context.Context) (err error) {
	if p.stored, err = p.tx.SchedulesManagedBy(ctx, p.manifest.ManagedBy); err != nil {
		return err
	}
	byID := map[uuid.UUID]*riverbeat.Schedule{}
	for _, s := range p.stored {
		byID[s.ID] = s
	}
	var foreign []uuid.UUID
	named := map[string]int{} // how many there are of a name
	byItsID := map[uuid.UUID]bool{}
	for i, item := range p.manifest.Schedules {
		named[item.said().Name]++
		switch {
		case item.ID == uuid.Nil:
			continue
		case byItsID[item.ID]:
			p.wrongf(fmt.Sprintf("/schedules/%d/id", i), "stands twice")
		case byID[item.ID] == nil:
			foreign = append(foreign, item.ID)
		}
		byItsID[item.ID] = true
	}
	others, err := p.tx.Schedules(ctx, foreign)
	if err != nil {
		return err
	}
	maps.Copy(byID, others)
	byName := map[string][]*riverbeat.Schedule{}
	for _, s := range p.stored {
		if !byItsID[s.ID] {
			byName[s.Name] = append(byName[s.Name], s)
		}
	}

	kept := map[uuid.UUID]bool{}
	for i, item := range p.manifest.Schedules {
		at, said := fmt.Sprintf("/schedules/%d", i), item.said()
		found := byName[said.Name]
		if item.ID != uuid.Nil {
			found = nil
			if s := byID[item.ID]; s != nil {
				found = []*riverbeat.Schedule{s}
			}
		} else if named[said.Name] > 1 && said.Name != "" {
			p.wrongf(at+"/name", "stands more than once: each of them needs an id then")
		}
		for _, s := range found {
			kept[s.ID] = true
		}
		planned, wrong := p.planOne(&item, found)
		if err := p.sort(at, wrong); err != nil {
			return err
		}
		p.plan.Schedules = append(p.plan.Schedules, planned)
	}
	for _, s := range p.stored {
		switch {
		case kept[s.ID]:
		case p.manifest.Prune:
			p.plan.Schedules = append(p.plan.Schedules, PlannedSchedule{Action: ActionPrune, Before: s})
		default:
			p.plan.Left++
		}
	}
	return nil
}

// planOne is what becomes of the schedule that an item has found.
func (p *planner) planOne(item *ManifestSchedule, found []*riverbeat.Schedule) (PlannedSchedule, error) {
	planned := PlannedSchedule{Action: ActionConflict, After: item.said()}
	if len(found) > 1 {
		ids := make([]string, len(found))
		for i, s := range found {
			ids[i] = s.ID.String()
		}
		return planned, riverbeat.Errorf(riverbeat.Conflict, "name_ambiguous",
			"%q manages %d schedules of this name; say by its id which one it is: %s.", p.manifest.ManagedBy, len(found), strings.Join(ids, ", "))
	}
	if len(found) == 0 {
		made := &riverbeat.Schedule{ID: item.ID, Enabled: true}
		if made.ID == uuid.Nil {
			made.ID = uuid.New() // features go by it
		}
		p.apply(item, made)
		_, _, err := p.checkNew(p.held, made, p.definitions[made.TaskName])
		if err == nil {
			planned.Action, planned.After = ActionCreate, made
		}
		return planned, err
	}
	planned.Before = found[0]
	if err := p.manages(planned.Before, p.manifest.Adopt); err != nil {
		return planned, err
	}
	changed := *planned.Before
	p.apply(item, &changed)
	_, warning, err := p.checkChange(p.held, planned.Before, &changed, p.definitions[changed.TaskName])
	if err == nil {
		planned.Action, planned.After = action(false, unchanged(planned.Before, &changed, warning)), &changed
		changed.LastError = "" // it is planned anew
	}
	return planned, err
}

// manages fails (Conflict) unless the manifest's name manages a schedule, or nobody does and
// it is to be adopted.
func (p *planner) manages(s *riverbeat.Schedule, adopt bool) error {
	switch by := s.ManagedBy; {
	case by == p.manifest.ManagedBy, by == "" && adopt:
		return nil
	case by == "":
		return riverbeat.Errorf(riverbeat.Conflict, "schedule_not_managed",
			"The schedule %s is managed by nobody; it is taken over only if that is said (adopt).", s.ID)
	default:
		return riverbeat.Errorf(riverbeat.Conflict, "schedule_managed_by_another",
			"The schedule %s is managed by %q.", s.ID, by)
	}
}

// said is what an item says by itself.
func (item *ManifestSchedule) said() *riverbeat.Schedule {
	var s riverbeat.Schedule
	item.Apply(&s)
	return &s
}

// apply writes over a schedule what the manifest wants of it.
func (p *planner) apply(item *ManifestSchedule, to *riverbeat.Schedule) {
	item.Apply(to)
	to.AutoGeneratedName, to.ManagedBy = false, p.manifest.ManagedBy
	if item.OwnCategory {
		return
	}
	to.Category = ""
	if d := p.definitions[to.TaskName]; d != nil {
		to.Category = d.Category
	}
}

// recheckOthers holds to the new schemas the schedules that do not come with them.
func (p *planner) recheckOthers(ctx context.Context) error {
	checked := map[uuid.UUID]bool{}
	for _, s := range p.plan.Schedules {
		if s.Before != nil {
			checked[s.Before.ID] = true
		}
	}
	for _, d := range p.redefined {
		i := slices.IndexFunc(p.manifest.Definitions, func(given *riverbeat.TaskDefinition) bool { return given.TaskName == d.TaskName })
		if err := p.sort(fmt.Sprintf("/task_definitions/%d", i), p.recheck(ctx, p.tx, d, false, checked)); err != nil {
			return err
		}
	}
	return nil
}

// maxNamesakes bounds how many namesakes are told.
const maxNamesakes = 1_000

func (p *planner) findNamesakes(ctx context.Context) error {
	var names []string
	for _, s := range p.plan.Schedules {
		if s.Action == ActionCreate {
			names = append(names, s.After.Name)
		}
	}
	if names == nil {
		return nil
	}
	found, err := p.tx.NamesakesOfOthers(ctx, names, p.manifest.ManagedBy, maxNamesakes)
	for i := range p.plan.Schedules {
		if s := &p.plan.Schedules[i]; s.Action == ActionCreate {
			s.Namesakes = found[s.After.Name]
		}
	}
	return err
}

// refuse says why the plan may not be carried out, if it may not.
func (p *planner) refuse() {
	n, adopted := map[Action]int{}, 0
	for _, s := range p.plan.Schedules {
		n[s.Action]++
		if s.Action == ActionChange && s.Before.ManagedBy != p.manifest.ManagedBy {
			adopted++
		}
	}
	manages := len(p.stored)
	most := manages / 5
	if p.manifest.MaxPrune != nil {
		most = *p.manifest.MaxPrune
	}
	switch after := manages + n[ActionCreate] + adopted - n[ActionPrune]; {
	case p.plan.Refused != nil:
	case len(p.conflicts) > 0:
		p.plan.Refused = &riverbeat.Error{
			Kind: riverbeat.Conflict, Code: "manifest_conflicts", Detail: "The manifest is in conflict with what there is. Nothing was done.",
			Fields: p.conflicts[:min(len(p.conflicts), maxInvalidShown)],
		}
	case n[ActionPrune] > most:
		p.plan.Refused = riverbeat.Errorf(riverbeat.Conflict, "too_many_to_prune",
			"Of the %d schedules that %q manages, %d are not in the manifest, and at most %d would be pruned unless more is allowed (max_prune). Nothing was done.",
			manages, p.manifest.ManagedBy, n[ActionPrune], most)
	case after > MaxManaged:
		p.plan.Refused = riverbeat.Errorf(riverbeat.Conflict, "too_many_managed",
			"%q would manage %d schedules; one name manages at most %d. Nothing was done.", p.manifest.ManagedBy, after, MaxManaged)
	}
}

// carryOut does what is planned. What changes or goes is locked last, and for no longer than
// it takes.
func (p *planner) carryOut(ctx context.Context) error {
	held := p.held
	var touched []uuid.UUID
	for i := range p.plan.Schedules {
		switch s := &p.plan.Schedules[i]; s.Action {
		case ActionCreate:
			d, err := held.definitionOf(ctx, s.After.TaskName)
			if err != nil {
				return err
			}
			if s.After, err = p.insert(ctx, held, s.After, d); err != nil {
				return meanwhile(err)
			}
		case ActionChange, ActionPrune:
			touched = append(touched, s.Before.ID)
		default:
		}
	}
	if touched == nil {
		return nil
	}
	stored, clocks, err := p.tx.LockSchedules(ctx, touched)
	if err != nil {
		return err
	}
	plans := map[uuid.UUID]riverbeat.Plan{}
	for i := range p.plan.Schedules {
		s := &p.plan.Schedules[i]
		if s.Action != ActionChange && s.Action != ActionPrune {
			continue
		}
		id := s.Before.ID
		if s.Before = stored[id]; s.Before == nil {
			return meanwhile(riverbeat.Errorf(riverbeat.NotFound, "schedule_not_found", "There is no schedule %s.", id))
		}
		// Nobody's is adopted, and never pruned.
		if err := p.manages(s.Before, p.manifest.Adopt && s.Action == ActionChange); err != nil {
			return meanwhile(err)
		}
		if err := p.settleFrom(ctx, clocks[id]); err != nil {
			return err
		}
		if s.Action == ActionPrune {
			if err := p.deleteLocked(ctx, held, s.Before, clocks[id]); err != nil {
				return err
			}
			continue
		}
		changed, plan, err := p.changeLocked(ctx, held, s.Before, clocks[id], func(now *riverbeat.Schedule) error {
			p.apply(&p.manifest.Schedules[i], now)
			return nil
		})
		if err != nil {
			return meanwhile(err)
		}
		if s.After, s.Action = changed, action(false, changed == s.Before); s.Action == ActionChange {
			plans[id] = plan
		}
	}
	return p.tx.SetClocks(ctx, plans)
}

// settleFrom makes what is done next take effect for the ticks that are not settled by a
// clock.
func (p *planner) settleFrom(ctx context.Context, clock postgres.Clock) error {
	at := later(clock.Mark, clock.Now)
	if at.Equal(p.settled) {
		return nil
	}
	p.settled = at
	return p.tx.SettleAt(ctx, at)
}

// meanwhile is the error of what could be done when the plan was made.
func meanwhile(err error) error {
	its := itsOwn(err)
	if its == nil {
		return err
	}
	return &riverbeat.Error{
		Kind: riverbeat.Conflict, Code: "changed_meanwhile", Cause: err,
		Detail: "Something was changed while the manifest was applied. Nothing was done; apply it again. " + its.Error(),
	}
}

func action(isNew, isSame bool) Action {
	switch {
	case isNew:
		return ActionCreate
	case isSame:
		return ActionUnchanged
	default:
		return ActionChange
	}
}

// sort keeps what is wrong with one item of the manifest; any other error is returned.
func (p *planner) sort(at string, err error) error {
	e := itsOwn(err)
	if e == nil {
		return err
	}
	list := &p.conflicts
	if e.Kind == riverbeat.Invalid {
		list = &p.wrong
	}
	for _, f := range e.Fields {
		*list = append(*list, riverbeat.FieldError{Pointer: at + f.Pointer, Detail: f.Detail})
	}
	if len(e.Fields) == 0 {
		*list = append(*list, riverbeat.FieldError{Pointer: at, Detail: e.Detail})
	}
	return nil
}

func (p *planner) wrongf(pointer, format string, args ...any) {
	p.wrong = append(p.wrong, riverbeat.FieldError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
}
