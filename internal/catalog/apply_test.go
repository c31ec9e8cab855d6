package catalog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// wanted is a schedule of a manifest, with all defaults but for what change says.
func wanted(name string, change func(*riverbeat.Schedule)) catalog.ManifestSchedule {
	return catalog.ManifestSchedule{Apply: func(to *riverbeat.Schedule) {
		*to = riverbeat.Schedule{
			ID: to.ID, Enabled: to.Enabled, LastError: to.LastError, Version: to.Version, CreatedAt: to.CreatedAt, NextRunAt: to.NextRunAt,
			Name: name, TaskName: "echo", CronExpression: "@daily", Timezone: "UTC",
			Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"), ExecutionPolicy: riverbeat.Allow,
			CatchUp: riverbeat.CatchUpLatest, CatchUpWindow: time.Hour, MaxWaiting: 100,
		}
		if change != nil {
			change(to)
		}
	}}
}

func cron(expression string) func(*riverbeat.Schedule) {
	return func(s *riverbeat.Schedule) { s.CronExpression = expression }
}

func many(n int, change func(*riverbeat.Schedule)) []catalog.ManifestSchedule {
	list := make([]catalog.ManifestSchedule, n)
	for i := range list {
		list[i] = wanted(fmt.Sprint("number ", i), change)
	}
	return list
}

func actions(plan *catalog.Plan) map[catalog.Action]int {
	n := map[catalog.Action]int{}
	for _, s := range plan.Schedules {
		n[s.Action]++
	}
	return n
}

// apply applies a manifest of "shop".
func (b *bundle) apply(t *testing.T, m catalog.Manifest) (*catalog.Plan, error) {
	t.Helper()
	m.ManagedBy = "shop"
	return b.catalog.Apply(t.Context(), &m)
}

func (b *bundle) mustApply(t *testing.T, m catalog.Manifest) *catalog.Plan {
	t.Helper()
	plan, err := b.apply(t, m)
	require.NoError(t, err)
	require.Nil(t, plan.Refused)
	return plan
}

// refused is the error of a manifest that does nothing, with the pointers of what is wrong.
func (b *bundle) refused(t *testing.T, code string, m catalog.Manifest) (pointers []string) {
	t.Helper()
	before := b.state(t)
	_, err := b.apply(t, m)
	e, ok := errors.AsType[*riverbeat.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, e.Code, "%v", e)
	require.Equal(t, before, b.state(t), "nothing was done")
	for _, f := range e.Fields {
		pointers = append(pointers, f.Pointer)
	}
	return pointers
}

// state is all that an apply may write.
func (b *bundle) state(t *testing.T) (state []string) {
	t.Helper()
	rows, err := b.Pool.Query(t.Context(), `
SELECT to_jsonb(s)::text FROM schedules AS s
UNION ALL SELECT to_jsonb(c)::text FROM schedule_clocks AS c
UNION ALL SELECT to_jsonb(d)::text FROM task_definitions AS d
UNION ALL SELECT to_jsonb(v)::text FROM schedule_versions AS v
UNION ALL SELECT to_jsonb(r)::text FROM runs AS r
UNION ALL SELECT to_jsonb(a)::text FROM audit_log AS a
ORDER BY 1`)
	require.NoError(t, err)
	state, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return state
}

// managed are the cron expressions of the schedules that "shop" manages, by their names.
func (b *bundle) managed(t *testing.T) map[string]string {
	t.Helper()
	page, _, err := b.catalog.ListSchedules(t.Context(), &postgres.ScheduleFilter{ManagedBy: new("shop"), Limit: 1_000})
	require.NoError(t, err)
	managed := map[string]string{}
	for _, s := range page {
		managed[s.Name] = s.CronExpression
	}
	return managed
}

func TestApply(t *testing.T) {
	t.Parallel()
	b := setup(t)
	mine := b.slept(t, func(s *riverbeat.Schedule) { s.Name = "kept" }) // of people
	plan := b.mustApply(t, catalog.Manifest{Schedules: many(6, nil)})
	require.Equal(t, map[catalog.Action]int{catalog.ActionCreate: 6}, actions(plan))
	require.Len(t, b.managed(t), 6)

	// The same again is nothing.
	before := b.state(t)
	plan = b.mustApply(t, catalog.Manifest{Schedules: many(6, nil), Prune: true})
	require.Equal(t, map[catalog.Action]int{catalog.ActionUnchanged: 6}, actions(plan))
	require.Equal(t, before, b.state(t))

	// One of each.
	next := many(5, nil)
	next[2] = wanted("number 2", cron("@hourly"))
	next = append(next, wanted("kept", nil))
	next = append(next, many(8, nil)[6:]...)
	plan = b.mustApply(t, catalog.Manifest{Schedules: next})
	require.Equal(t, map[catalog.Action]int{catalog.ActionCreate: 3, catalog.ActionChange: 1, catalog.ActionUnchanged: 4}, actions(plan))
	require.Equal(t, 1, plan.Left)
	require.Equal(t, []uuid.UUID{mine.ID}, plan.Schedules[5].Namesakes)
	require.Equal(t, "@daily", plan.Schedules[2].Before.CronExpression)
	require.Equal(t, "@hourly", plan.Schedules[2].After.CronExpression)
	require.Equal(t, 2, plan.Schedules[2].After.Version)
	plan = b.mustApply(t, catalog.Manifest{Schedules: next, Prune: true})
	require.Equal(t, map[catalog.Action]int{catalog.ActionPrune: 1, catalog.ActionUnchanged: 8}, actions(plan))
	require.Equal(t, "number 5", plan.Schedules[8].Before.Name)
	require.NotContains(t, b.managed(t), "number 5")

	kept, err := b.catalog.Schedule(t.Context(), mine.ID)
	require.NoError(t, err)
	require.Equal(t, mine.Version, kept.Version, "what nobody manages is never touched")
	require.Empty(t, b.runs(t, mine.ID))
}

func TestApplySettlesTheTicksOfWhatItTouchesOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	minutely := func(s *riverbeat.Schedule) { s.CronExpression, s.CatchUp = "* * * * *", riverbeat.CatchUpAll }
	plan := b.mustApply(t, catalog.Manifest{Schedules: many(3, minutely)})
	id := func(i int) uuid.UUID { return plan.Schedules[i].After.ID }
	b.exec(t, `
UPDATE schedule_clocks
SET last_scheduled_for = date_trunc('minute', statement_timestamp()) - interval '10 minutes',
    next_run_at = date_trunc('minute', statement_timestamp()) - interval '9 minutes'`)
	next := many(2, minutely)
	next[1] = wanted("number 1", cron("@hourly"))
	changed := b.mustApply(t, catalog.Manifest{Schedules: next, Prune: true, MaxPrune: new(1)})
	require.Equal(t, map[catalog.Action]int{catalog.ActionUnchanged: 1, catalog.ActionChange: 1, catalog.ActionPrune: 1}, actions(changed))
	require.Empty(t, b.runs(t, id(0)))
	for _, i := range []int{1, 2} {
		runs := b.runs(t, id(i))
		require.GreaterOrEqual(t, len(runs), 10)
		for _, run := range runs {
			require.Equal(t, 1, run.ScheduleVersion)
		}
		var ended bool
		require.NoError(t, b.Pool.QueryRow(t.Context(),
			"SELECT valid_until >= $2 FROM schedule_versions WHERE schedule_id = $1 AND version = 1", id(i), runs[0].ScheduledFor).Scan(&ended))
		require.True(t, ended, "its first version was in force for what it has run")
	}
	var sure bool
	require.NoError(t, b.Pool.QueryRow(t.Context(), `
SELECT v.valid_until = c.last_scheduled_for OR v.valid_until - c.last_scheduled_for < interval '1 millisecond'
FROM schedule_versions AS v JOIN schedule_clocks AS c USING (schedule_id)
WHERE v.schedule_id = $1 AND v.version = 1`, id(1)).Scan(&sure))
	require.True(t, sure, "where a version ends is where its ticks were settled")
}

func TestApplyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.mustApply(t, catalog.Manifest{Schedules: many(10, nil)})
	next := many(12, cron("@hourly"))
	next[11] = wanted("number 11", cron("every day"))
	require.Equal(t, []string{"/schedules/11/cron_expression"}, b.refused(t, "invalid_manifest", catalog.Manifest{Schedules: next}))
	next[11] = wanted("number 10", nil)
	require.Equal(t, []string{"/schedules/10/name", "/schedules/11/name"}, b.refused(t, "invalid_manifest", catalog.Manifest{Schedules: next}))
	next[11] = wanted("", nil)
	require.Equal(t, []string{"/schedules/11/name"}, b.refused(t, "invalid_manifest", catalog.Manifest{Schedules: next}))

	// Postgres has the last word, about the last one.
	b.exec(t, `ALTER TABLE schedules ADD CONSTRAINT test_last CHECK (name <> 'number 9' OR cron_expression = '@daily')`)
	before := b.state(t)
	_, err := b.apply(t, catalog.Manifest{Schedules: append(many(10, cron("@hourly")), wanted("new", nil))})
	require.ErrorContains(t, err, "test_last")
	require.Equal(t, before, b.state(t))
}

func TestApplyPrunesNoMoreThanItIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.mustApply(t, catalog.Manifest{Schedules: many(10, nil)})
	b.refused(t, "too_many_to_prune", catalog.Manifest{Prune: true})
	b.refused(t, "too_many_to_prune", catalog.Manifest{Prune: true, Schedules: many(7, nil)})
	b.refused(t, "too_many_to_prune", catalog.Manifest{Prune: true, Schedules: many(9, nil), MaxPrune: new(0)})
	require.Equal(t, 10, b.mustApply(t, catalog.Manifest{}).Left)
	b.mustApply(t, catalog.Manifest{Prune: true, Schedules: many(8, nil)})
	b.refused(t, "too_many_to_prune", catalog.Manifest{Prune: true, Schedules: many(6, nil)})
	b.mustApply(t, catalog.Manifest{Prune: true, Schedules: many(6, nil), MaxPrune: new(2)})
	_, err := b.catalog.Apply(t.Context(), &catalog.Manifest{ManagedBy: "other", Prune: true, MaxPrune: new(100)})
	require.NoError(t, err)
	require.Len(t, b.managed(t), 6)
	b.mustApply(t, catalog.Manifest{Prune: true, MaxPrune: new(6)})
	require.Empty(t, b.managed(t))
}

func TestApplyByID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := uuid.New()
	item := wanted("a", nil)
	item.ID = id
	require.Equal(t, id, b.mustApply(t, catalog.Manifest{Schedules: []catalog.ManifestSchedule{item}}).Schedules[0].After.ID)
	renamed := wanted("b", nil)
	renamed.ID = id
	require.Equal(t, catalog.ActionChange, b.mustApply(t, catalog.Manifest{Schedules: []catalog.ManifestSchedule{renamed}, Prune: true}).Schedules[0].Action)
	require.Equal(t, map[string]string{"b": "@daily"}, b.managed(t))

	// What others manage, and what nobody does, is not taken over by the way.
	mine := b.slept(t, nil)
	foreign := wanted("mine", nil)
	foreign.ID = mine.ID
	require.Equal(t, []string{"/schedules/1"}, b.refused(t, "manifest_conflicts", catalog.Manifest{Schedules: []catalog.ManifestSchedule{renamed, foreign}}))
	adopted := b.mustApply(t, catalog.Manifest{Schedules: []catalog.ManifestSchedule{renamed, foreign}, Adopt: true})
	require.Equal(t, map[catalog.Action]int{catalog.ActionUnchanged: 1, catalog.ActionChange: 1}, actions(adopted))
	require.Equal(t, map[string]string{"b": "@daily", "mine": "@daily"}, b.managed(t))
	_, err := b.catalog.Apply(t.Context(), &catalog.Manifest{ManagedBy: "other", Schedules: []catalog.ManifestSchedule{foreign}, Adopt: true})
	require.ErrorContains(t, err, `managed by "shop"`)

	// Two of one name, which people have made of them: who is meant?
	_, err = b.catalog.ChangeSchedule(t.Context(), mine.ID, func(s *riverbeat.Schedule) error {
		s.Name = "b"
		return nil
	})
	require.NoError(t, err)
	both := []catalog.ManifestSchedule{wanted("b", nil)}
	require.Equal(t, []string{"/schedules/0"}, b.refused(t, "manifest_conflicts", catalog.Manifest{Schedules: both}))
	foreign = wanted("b", nil)
	foreign.ID = mine.ID
	both = []catalog.ManifestSchedule{renamed, foreign}
	require.Equal(t, map[catalog.Action]int{catalog.ActionUnchanged: 2}, actions(b.mustApply(t, catalog.Manifest{Schedules: both})))
	require.Equal(t, []string{"/schedules/1/id"}, b.refused(t, "invalid_manifest", catalog.Manifest{Schedules: []catalog.ManifestSchedule{foreign, foreign}}))
}

// Whether a schedule ticks is left to people unless the manifest says it; a category that is
// left out is that of the definition, whatever it is by now.
func TestWhatAManifestLeavesOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	define := func(category string) {
		t.Helper()
		_, _, err := b.catalog.PutTaskDefinition(t.Context(), &riverbeat.TaskDefinition{
			TaskName: "echo", Category: category, Queue: "default", Priority: 1, MaxAttempts: 1, Executor: riverbeat.Executor{Kind: riverbeat.ExecutorGo},
		}, false, riverbeat.Expected{})
		require.NoError(t, err)
	}
	define("one")
	none := wanted("none", nil)
	none.OwnCategory = true
	m := catalog.Manifest{Schedules: []catalog.ManifestSchedule{wanted("a", nil), none}}
	made := b.mustApply(t, m)
	require.True(t, made.Schedules[0].After.Enabled)
	require.Equal(t, "one", made.Schedules[0].After.Category)
	require.Empty(t, made.Schedules[1].After.Category)
	id := made.Schedules[0].After.ID
	_, err := b.catalog.ChangeSchedule(t.Context(), id, disable)
	require.NoError(t, err)
	require.Equal(t, map[catalog.Action]int{catalog.ActionUnchanged: 2}, actions(b.mustApply(t, m)))
	define("two")
	require.Equal(t, map[catalog.Action]int{catalog.ActionUnchanged: 1, catalog.ActionChange: 1}, actions(b.mustApply(t, m)))
	s, err := b.catalog.Schedule(t.Context(), id)
	require.NoError(t, err)
	require.False(t, s.Enabled)
	require.Equal(t, "two", s.Category)
	m.Schedules[0] = wanted("a", func(s *riverbeat.Schedule) { s.Enabled = true })
	require.Equal(t, catalog.ActionChange, b.mustApply(t, m).Schedules[0].Action)
}

// A new schema comes with the parameters that fit it, in one step.
func TestApplyChangesDefinitions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	definition := func(parameter string) *riverbeat.TaskDefinition {
		return &riverbeat.TaskDefinition{
			TaskName: "report", Queue: "default", Priority: 1, MaxAttempts: 1, Executor: riverbeat.Executor{Kind: riverbeat.ExecutorGo},
			ParameterSchema: json.RawMessage(`{"required":["` + parameter + `"],"type":"object"}`),
		}
	}
	with := func(params string) func(*riverbeat.Schedule) {
		return func(s *riverbeat.Schedule) { s.TaskName, s.TaskParams = "report", json.RawMessage(params) }
	}
	manifest := func(d *riverbeat.TaskDefinition, params string) catalog.Manifest {
		return catalog.Manifest{Definitions: []*riverbeat.TaskDefinition{d}, Schedules: []catalog.ManifestSchedule{wanted("a", with(params))}}
	}
	require.Equal(t, []string{"/schedules/0/task_params/day"}, b.refused(t, "invalid_manifest", manifest(definition("day"), `{}`)))
	made := b.mustApply(t, manifest(definition("day"), `{"day":1}`))
	require.Equal(t, catalog.ActionCreate, made.Definitions[0].Action)
	before := b.state(t)
	require.Equal(t, catalog.ActionUnchanged, b.mustApply(t, manifest(definition("day"), `{"day":1}`)).Definitions[0].Action)
	require.Equal(t, before, b.state(t))

	forbidden := manifest(definition("month"), `{"month":1}`)
	forbidden.MayDefine = func() error { return riverbeat.Errorf(riverbeat.Forbidden, "role_not_sufficient", "no") }
	b.refused(t, "role_not_sufficient", forbidden)
	holder, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = holder.Rollback(context.Background()) }()
	_, err = holder.Exec(t.Context(), "SELECT FROM task_definitions FOR UPDATE")
	require.NoError(t, err)
	another := definition("month")
	another.TaskName = "another"
	forbidden.Definitions = append(forbidden.Definitions, another)
	require.NoError(t, b.DB.DryRun(t.Context(), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		forbidden.ManagedBy = "shop"
		plan, err := b.catalog.Apply(ctx, &forbidden)
		require.NoError(t, err, "it waits for nobody who has the definition")
		require.Equal(t, "role_not_sufficient", plan.Refused.Code)
		require.Equal(t, catalog.ActionChange, plan.Definitions[0].Action)
		require.Equal(t, 2, plan.Definitions[0].After.Version)
		require.Equal(t, catalog.ActionCreate, plan.Definitions[1].Action)
		require.Equal(t, catalog.ActionChange, plan.Schedules[0].Action, "by the schema that it would have")
		return nil
	}))
	require.NoError(t, holder.Rollback(t.Context()))
	allowed := manifest(definition("day"), `{"day":2}`)
	allowed.MayDefine = forbidden.MayDefine
	b.mustApply(t, allowed)

	other := b.slept(t, with(`{"day":1}`))
	require.Equal(t, []string{"/task_definitions/0/parameter_schema"}, b.refused(t, "manifest_conflicts", manifest(definition("month"), `{"month":1}`)))
	require.NoError(t, b.catalog.DeleteSchedule(t.Context(), other.ID, riverbeat.Expected{}))
	plan := b.mustApply(t, manifest(definition("month"), `{"month":1}`))
	require.Equal(t, catalog.ActionChange, plan.Definitions[0].Action)
	require.Equal(t, catalog.ActionChange, plan.Schedules[0].Action)

	b.exec(t, "UPDATE task_definitions SET built_in = true, alias_of = 'echo'")
	require.Equal(t, []string{"/task_definitions/0"}, b.refused(t, "manifest_conflicts", manifest(definition("day"), `{"month":1}`)))
	b.exec(t, "UPDATE task_definitions SET built_in = false, alias_of = NULL")
	broken := definition("month")
	broken.Priority = 9
	require.Equal(t, []string{"/task_definitions/0/priority"}, b.refused(t, "invalid_manifest", manifest(broken, `{"month":1}`)))
}

// A dry run tells also what would be refused, and locks nothing that ticks.
func TestApplyAsADryRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.mustApply(t, catalog.Manifest{Schedules: many(4, nil)})
	before := b.state(t)
	claim, err := b.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = claim.Rollback(t.Context()) }()
	_, err = claim.Exec(t.Context(), "SELECT FROM schedule_clocks FOR UPDATE")
	require.NoError(t, err)
	dry := func(m catalog.Manifest) (plan *catalog.Plan) {
		t.Helper()
		require.NoError(t, b.DB.DryRun(t.Context(), func(ctx context.Context) (err error) {
			m.ManagedBy = "shop"
			plan, err = b.catalog.Apply(ctx, &m)
			return err
		}))
		return plan
	}
	plan := dry(catalog.Manifest{Schedules: many(1, cron("@hourly")), Prune: true})
	require.Equal(t, map[catalog.Action]int{catalog.ActionChange: 1, catalog.ActionPrune: 3}, actions(plan))
	require.Equal(t, "too_many_to_prune", plan.Refused.Code)
	require.Nil(t, dry(catalog.Manifest{Schedules: many(7, cron("@hourly"))}).Refused)
	require.Equal(t, before, b.state(t))
}

// What others do between the plan and its locks is not overlooked.
func TestApplyWhileOthersChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made := b.mustApply(t, catalog.Manifest{Schedules: many(3, nil)})
	meanwhile := func(m catalog.Manifest, statement string) (plan *catalog.Plan, refused error) {
		t.Helper()
		other, err := b.Pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = other.Rollback(t.Context()) }()
		_, err = other.Exec(t.Context(), "SELECT FROM schedule_clocks FOR UPDATE")
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			plan, refused = b.apply(t, m)
		}()
		require.Eventually(t, func() bool {
			var waits bool
			require.NoError(t, b.Pool.QueryRow(t.Context(), `
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%LockAndReadClocks%')`).Scan(&waits))
			return waits
		}, 30*time.Second, time.Millisecond)
		_, err = other.Exec(t.Context(), statement, made.Schedules[1].After.ID)
		require.NoError(t, err)
		require.NoError(t, other.Commit(t.Context()))
		<-done
		return plan, refused
	}
	hourly := catalog.Manifest{Schedules: many(3, cron("@hourly")), Prune: true}
	plan, err := meanwhile(hourly, "UPDATE schedules SET description = 'new', version = version + 1 WHERE id = $1")
	require.NoError(t, err)
	require.Equal(t, "new", plan.Schedules[1].Before.Description)
	require.Equal(t, 3, plan.Schedules[1].After.Version)
	require.Empty(t, plan.Schedules[1].After.Description)

	b.mustApply(t, catalog.Manifest{Schedules: many(3, nil)})
	refused := func(m catalog.Manifest, statement string) {
		t.Helper()
		_, err := meanwhile(m, statement)
		e, ok := errors.AsType[*riverbeat.Error](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, "changed_meanwhile", e.Code)
	}
	// What is another's by then, or nobody's, is neither taken over nor pruned.
	id := made.Schedules[1].After.ID
	manage := func(by string) string { return "UPDATE schedules SET managed_by = '" + by + "' WHERE id = $1" }
	adopting := catalog.Manifest{Schedules: many(3, cron("@hourly")), Adopt: true}
	adopting.Schedules[1].ID = id
	pruning := catalog.Manifest{Adopt: true, Prune: true, MaxPrune: new(3)}
	for _, c := range []struct {
		manifest    catalog.Manifest
		first, then string
	}{
		{hourly, "shop", "other"},
		{hourly, "shop", ""},
		{adopting, "", "other"},
		{pruning, "shop", "other"},
		{pruning, "shop", ""},
	} {
		b.exec(t, manage(c.first), id)
		refused(c.manifest, manage(c.then))
		s, err := b.catalog.Schedule(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, c.then, s.ManagedBy)
	}
	b.exec(t, manage("shop"), id)

	refused(hourly, "DELETE FROM schedules WHERE id = $1")
	require.Equal(t, map[string]string{"number 0": "@daily", "number 2": "@daily"}, b.managed(t))
}

// Applies of one name go one after another, and each leaves what it wants.
func TestAppliesAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var all sync.WaitGroup
	errs := make(chan error, 20)
	for i := range 4 {
		all.Go(func() {
			for range 5 {
				m := catalog.Manifest{ManagedBy: "shop", Schedules: many(10+i, cron(fmt.Sprintf("%d * * * *", i))), Prune: true, MaxPrune: new(100)}
				_, err := b.catalog.Apply(t.Context(), &m)
				errs <- err
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	got := b.managed(t)
	i := len(got) - 10
	for name, expression := range got {
		require.Equal(t, fmt.Sprintf("%d * * * *", i), expression, name)
	}
	require.Len(t, got, 10+i)
}

func TestOneNameManagesSoManyOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `
INSERT INTO schedules (name, task_name, cron_expression, timezone, managed_by)
SELECT 'old ' || i, 'echo', '@daily', 'UTC', 'shop' FROM generate_series(1, $1::int) AS i`, catalog.MaxManaged)
	_, err := b.apply(t, catalog.Manifest{Schedules: many(1, nil)})
	require.ErrorContains(t, err, "at most 5000")
}

func TestWhoManagesHasAName(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, name := range []string{"", " ", "a\nb", strings.Repeat("x", 256)} {
		_, err := b.catalog.Apply(t.Context(), &catalog.Manifest{ManagedBy: name})
		require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err), "%q", name)
	}
}
