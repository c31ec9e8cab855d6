package tick_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// ticksOf has expressions, each with the seconds at which it ticks, said
// without the product's help.
var ticksOf = map[string]func(unix int64) bool{
	"* * * * * *":      func(int64) bool { return true },
	"*/2 * * * * *":    func(unix int64) bool { return unix%60%2 == 0 },
	"1-59/2 * * * * *": func(unix int64) bool { return unix%60%2 == 1 },
	"*/7 * * * * *":    func(unix int64) bool { return unix%60%7 == 0 },
	"@every 3s":        func(unix int64) bool { return unix%3 == 0 },
}

// version is a schedule as it was from a mark on.
type version struct {
	Version          int
	Cron             string
	Enabled          bool
	StartsAt, EndsAt *time.Time
	From             time.Time // its mark: no tick at or before it is of this version
}

// ticks are the nominal times of the version in (From, until].
func (v *version) ticks(until time.Time) (unix []int64) {
	if !v.Enabled {
		return nil
	}
	for at := v.From.Unix(); at <= until.Unix(); at++ {
		moment := time.Unix(at, 0)
		if moment.After(v.From) && !moment.After(until) && ticksOf[v.Cron](at) &&
			(v.StartsAt == nil || !moment.Before(*v.StartsAt)) && (v.EndsAt == nil || !moment.After(*v.EndsAt)) {
			unix = append(unix, at)
		}
	}
	return unix
}

// logVersions writes down each version of each schedule, with the mark that the
// transaction leaves that writes it, and each end of a schedule.
func (b *bundle) logVersions(t *testing.T) {
	t.Helper()
	b.exec(t, `
CREATE TABLE test_versions (
    change xid8, schedule_id uuid, version int, cron text, enabled boolean, starts_at timestamptz, ends_at timestamptz
);
CREATE TABLE test_marks (place bigserial, change xid8, schedule_id uuid, mark timestamptz);
CREATE TABLE test_deletes (schedule_id uuid, began timestamptz, deleted timestamptz);
CREATE FUNCTION test_version() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO test_deletes VALUES (OLD.id, transaction_timestamp(), clock_timestamp());
    ELSIF TG_OP = 'INSERT' OR OLD.version <> NEW.version THEN
        INSERT INTO test_versions VALUES (pg_current_xact_id(), NEW.id, NEW.version, NEW.cron_expression, NEW.enabled, NEW.starts_at, NEW.ends_at);
    END IF;
    RETURN NULL;
END
$$;
CREATE FUNCTION test_mark() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO test_marks (change, schedule_id, mark) VALUES (pg_current_xact_id(), NEW.schedule_id, NEW.last_scheduled_for);
    RETURN NULL;
END
$$;
CREATE TRIGGER test_version AFTER INSERT OR UPDATE OR DELETE ON schedules FOR EACH ROW EXECUTE FUNCTION test_version();
CREATE TRIGGER test_mark AFTER INSERT OR UPDATE ON schedule_clocks FOR EACH ROW EXECUTE FUNCTION test_mark()`)
}

// versions reads the versions of a schedule, oldest first.
func (b *bundle) versions(t *testing.T, id uuid.UUID) []version {
	t.Helper()
	rows, err := b.Pool.Query(t.Context(), `
SELECT DISTINCT ON (v.version) v.version, v.cron, v.enabled, v.starts_at, v.ends_at, m.mark AS from
FROM test_versions AS v
JOIN test_marks AS m ON m.change = v.change AND m.schedule_id = v.schedule_id
WHERE v.schedule_id = $1
ORDER BY v.version, m.place DESC`, id)
	require.NoError(t, err)
	versions, err := pgx.CollectRows(rows, pgx.RowToStructByName[version])
	require.NoError(t, err)
	for i, v := range versions {
		require.Equal(t, i+1, v.Version, "each version has its mark")
		require.False(t, i > 0 && v.From.Before(versions[i-1].From), "the mark goes forward")
	}
	return versions
}

// requireAccounted holds that each nominal tick of the schedule was decided
// once, under the version that was in force, and nothing else was.
func (b *bundle) requireAccounted(t *testing.T, id uuid.UUID) (edits, gaps int) {
	t.Helper()
	versions := b.versions(t, id)
	// Until when: what is due now is decided; of a deleted one, what was due
	// when that began, and perhaps what came until it was done.
	var until, perhaps time.Time
	var next *time.Time
	err := b.Pool.QueryRow(t.Context(), "SELECT began, deleted FROM test_deletes WHERE schedule_id = $1", id).Scan(&until, &perhaps)
	if deleted := err == nil; !deleted {
		require.ErrorIs(t, err, pgx.ErrNoRows)
		require.NoError(t, b.Pool.QueryRow(t.Context(),
			"SELECT last_scheduled_for, next_run_at FROM schedule_clocks WHERE schedule_id = $1", id).Scan(&until, &next))
		perhaps = until
		last := versions[len(versions)-1]
		var want *time.Time
		if soon := last.ticks(until.Add(90 * time.Second)); last.Enabled {
			for _, at := range soon {
				if moment := time.Unix(at, 0).UTC(); moment.After(until) {
					want = &moment
					break
				}
			}
		}
		if want != nil || next != nil && next.Sub(until) < 90*time.Second {
			require.NotNil(t, next, "it has ticks, and its clock stands")
			require.Equal(t, want, new(next.UTC()), "the clock goes to the next tick")
		}
	}
	nominal := map[int64]int{} // by tick, the version in force
	var maybe []int64
	for i, v := range versions {
		end := perhaps
		if i+1 < len(versions) {
			end = versions[i+1].From
		}
		for _, at := range v.ticks(end) {
			nominal[at] = v.Version
			if time.Unix(at, 0).After(until) {
				maybe = append(maybe, at)
			}
		}
	}

	decided := map[int64]int{} // by tick, how often
	decide := func(at int64, run *riverbeat.Run) {
		require.Equal(t, nominal[at], run.ScheduleVersion, "%s of schedule %s was decided under another version", time.Unix(at, 0).UTC(), id)
		decided[at]++
	}
	for _, run := range b.runs(t, id) {
		switch {
		case run.Trigger == riverbeat.TriggerManual:
		case run.State != riverbeat.Missed:
			decide(run.ScheduledFor.Unix(), run)
		default:
			gaps++
			n := 0
			for at := range nominal {
				if at >= run.MissedFrom.Unix() && at <= run.MissedUntil.Unix() {
					decide(at, run)
					n++
				}
			}
			require.Equal(t, n, *run.MissedCount)
		}
	}
	for _, at := range maybe {
		if decided[at] == 0 {
			delete(nominal, at)
		}
	}
	for at, times := range decided {
		require.Equal(t, 1, times, "%s of schedule %s was decided %d times", time.Unix(at, 0).UTC(), id, times)
	}
	want, got := slices.Sorted(maps.Keys(nominal)), slices.Sorted(maps.Keys(decided))
	require.Equal(t, want, got, "schedule %s, versions %+v", id, versions)
	return len(versions) - 1, gaps
}

// Edits race with the claims of three nodes, on schedules of every second or so,
// some of which have something to catch up with.
func TestEditsReplayAndLoseNothing(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(newSeed(t), 0))
	b := setup(t)
	b.logVersions(t)
	nodes := []*node{b.newNode(t), b.newNode(t), b.newNode(t)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var ticking sync.WaitGroup
	for _, n := range nodes {
		ticking.Go(func() { n.ticker.Run(ctx) })
	}

	crons := slices.Sorted(maps.Keys(ticksOf))
	var all sync.Mutex // guards schedules and made
	var schedules, made []uuid.UUID
	create := func(n *node, random *rand.Rand) {
		id := b.scheduleToEdit(t, n, random, crons[random.IntN(len(crons))])
		all.Lock()
		defer all.Unlock()
		schedules, made = append(schedules, id), append(made, id)
	}
	pick := func(random *rand.Rand, remove bool) uuid.UUID {
		all.Lock()
		defer all.Unlock()
		i := random.IntN(len(schedules))
		id := schedules[i]
		if remove {
			schedules = slices.Delete(schedules, i, i+1)
		}
		return id
	}
	for range 8 {
		create(nodes[0], random)
	}
	failed := make(chan error, 100)
	var editing sync.WaitGroup
	end := time.Now().Add(6 * time.Second)
	for i := range 2 * len(nodes) {
		n, random := nodes[i%len(nodes)], rand.New(rand.NewPCG(random.Uint64(), 0))
		editing.Go(func() {
			for time.Now().Before(end) {
				var err error
				switch random.IntN(20) {
				case 0:
					create(n, random)
					err = n.catalog.DeleteSchedule(t.Context(), pick(random, true), riverbeat.Expected{})
				case 1:
					_, err = n.history.RunNow(t.Context(), pick(random, false), history.Overrides{})
				default:
					_, err = n.catalog.ChangeSchedule(t.Context(), pick(random, false), edit(random, crons))
				}
				// Another goroutine may have deleted it.
				if err != nil && riverbeat.KindOf(err) != riverbeat.NotFound {
					failed <- err
					return
				}
				n.ticker.Wake()
			}
		})
	}
	editing.Wait()
	select {
	case err := <-failed:
		require.NoError(t, err)
	default:
	}
	// What is due is decided, by all of them.
	require.Eventually(t, func() bool {
		return b.count(t, "SELECT count(*) FROM schedule_clocks WHERE next_run_at <= statement_timestamp() - interval '100 milliseconds'") == 0
	}, 20*time.Second, 10*time.Millisecond)
	stop()
	ticking.Wait()

	require.Zero(t, b.count(t, "SELECT count(*) FROM schedules WHERE last_error <> ''"))
	edits, gaps := 0, 0
	for _, id := range made {
		e, g := b.requireAccounted(t, id)
		edits, gaps = edits+e, gaps+g
	}
	t.Logf("%d schedules, %d edits, %d runs, %d gaps", len(made), edits, b.count(t, "SELECT count(*) FROM runs"), gaps)
	require.NotZero(t, edits)
	require.NotZero(t, gaps)
}

// scheduleToEdit writes a schedule that has slept for some minutes or is new.
func (b *bundle) scheduleToEdit(t *testing.T, n *node, random *rand.Rand, cron string) uuid.UUID {
	t.Helper()
	modes := []riverbeat.CatchUp{riverbeat.CatchUpLatest, riverbeat.CatchUpAll, riverbeat.CatchUpNone}
	policies := []riverbeat.Policy{riverbeat.Allow, riverbeat.Skip, riverbeat.Queue}
	s := &riverbeat.Schedule{
		Name: "edited", TaskName: fmt.Sprint("task-", random.IntN(3)), CronExpression: cron, Timezone: "UTC", Enabled: true,
		Args: []byte("[]"), TaskParams: []byte("{}"), ExecutionPolicy: policies[random.IntN(len(policies))],
		CatchUp: modes[random.IntN(len(modes))], CatchUpWindow: time.Duration(random.IntN(240)) * time.Second, MaxWaiting: 100,
	}
	slept := time.Duration(random.IntN(2)*random.IntN(300_000)) * time.Millisecond
	r, err := riverbeat.ParseRecurrence(s.CronExpression, s.Timezone)
	require.NoError(t, err)
	var id uuid.UUID
	require.NoError(t, n.db.InTx(t.Context(), func(tx *postgres.Tx) error {
		now, err := tx.Now(t.Context())
		if err != nil {
			return err
		}
		mark := now.Add(-slept)
		s.NextRunAt = s.NextTick(r, mark)
		made, err := tx.InsertSchedule(t.Context(), s, mark)
		if err == nil {
			id = made.ID
		}
		return err
	}))
	return id
}

// edit changes something of a schedule, at random.
func edit(random *rand.Rand, crons []string) func(*riverbeat.Schedule) error {
	about := func() *time.Time {
		at := time.Now().UTC().Truncate(time.Millisecond).Add(time.Duration(random.IntN(6_000)-3_000) * time.Millisecond)
		return &at
	}
	return func(s *riverbeat.Schedule) error {
		switch random.IntN(8) {
		case 0, 1:
			s.CronExpression = crons[random.IntN(len(crons))]
		case 2:
			s.Timezone = []string{"UTC", "Asia/Kolkata", "America/St_Johns"}[random.IntN(3)]
		case 3:
			s.StartsAt, s.EndsAt = about(), nil
		case 4:
			s.StartsAt, s.EndsAt = nil, about()
		case 5:
			s.StartsAt, s.EndsAt = nil, nil
		case 6:
			s.Enabled = !s.Enabled
		default:
			s.Description = fmt.Sprint(random.Int())
		}
		return nil
	}
}

// Manifests are applied, two at a time, while three nodes claim: what they create, change and
// prune loses no tick and has none twice.
func TestAppliesReplayAndLoseNothing(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(newSeed(t), 0))
	b := setup(t)
	b.logVersions(t)
	nodes := []*node{b.newNode(t), b.newNode(t), b.newNode(t)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var ticking, applying sync.WaitGroup
	for _, n := range nodes {
		ticking.Go(func() { n.ticker.Run(ctx) })
	}
	crons := slices.Sorted(maps.Keys(ticksOf))
	end := time.Now().Add(6 * time.Second)
	errs := make(chan error, len(nodes))
	done := map[catalog.Action]int{}
	var counting sync.Mutex
	for i, n := range nodes[:2] {
		random := rand.New(rand.NewPCG(random.Uint64(), uint64(i)))
		applying.Go(func() {
			for time.Now().Before(end) {
				m := &catalog.Manifest{ManagedBy: "shop", Prune: true, MaxPrune: new(100)}
				for i := range 8 {
					cron, policy := crons[random.IntN(len(crons))], []riverbeat.Policy{riverbeat.Allow, riverbeat.Skip, riverbeat.Queue}[random.IntN(3)]
					enabled := random.IntN(5) > 0
					if random.IntN(20) == 0 {
						continue
					}
					m.Schedules = append(m.Schedules, catalog.ManifestSchedule{Apply: func(s *riverbeat.Schedule) {
						s.Name, s.TaskName, s.Args, s.TaskParams, s.Timezone = fmt.Sprint("n", i), fmt.Sprint("task-", i%3), []byte("[]"), []byte("{}"), "UTC"
						s.CatchUp, s.CatchUpWindow, s.MaxWaiting = riverbeat.CatchUpAll, time.Hour, 100
						s.CronExpression, s.ExecutionPolicy, s.Enabled = cron, policy, enabled
					}})
				}
				plan, err := n.catalog.Apply(t.Context(), m)
				if err != nil {
					errs <- err
					return
				}
				counting.Lock()
				for _, s := range plan.Schedules {
					done[s.Action]++
				}
				counting.Unlock()
				n.ticker.Wake()
			}
		})
	}
	applying.Wait()
	close(errs)
	require.NoError(t, <-errs)
	require.Eventually(t, func() bool {
		return b.count(t, "SELECT count(*) FROM schedule_clocks WHERE next_run_at <= statement_timestamp() - interval '100 milliseconds'") == 0
	}, 20*time.Second, 10*time.Millisecond)
	stop()
	ticking.Wait()

	require.Zero(t, b.count(t, "SELECT count(*) FROM schedules WHERE last_error <> ''"))
	rows, err := b.Pool.Query(t.Context(), "SELECT DISTINCT schedule_id FROM test_versions")
	require.NoError(t, err)
	made, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	require.NoError(t, err)
	for _, id := range made {
		b.requireAccounted(t, id)
	}
	t.Logf("%d schedules, %v, %d runs", len(made), done, b.count(t, "SELECT count(*) FROM runs"))
	for _, action := range []catalog.Action{catalog.ActionCreate, catalog.ActionChange, catalog.ActionPrune} {
		require.NotZero(t, done[action])
	}
}
