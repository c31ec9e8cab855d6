package tick_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/ledger"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// designTable reads a table of DESIGN.md: its head and rows, cell by cell.
func designTable(t *testing.T, first string) (head []string, rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("DESIGN.md")
	require.NoError(t, err)
	cells := func(line string) []string {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		return cells
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "| "+first+" |"):
			head = cells(line)
		case head == nil, strings.HasPrefix(line, "|---"):
		case strings.HasPrefix(line, "|"):
			rows = append(rows, cells(line))
			require.Len(t, rows[len(rows)-1], len(head), line)
		default:
			return head, rows
		}
	}
	require.NotEmpty(t, rows, "DESIGN.md has no table of %q", first)
	return head, rows
}

// scene is one key: a task of its own, what stands there, and who arrives.
type scene struct {
	*bundle
	task string
	// Who may be in the way.
	job, head *riverbeat.Run
}

func newScene(b *bundle) *scene {
	return &scene{bundle: b, task: "task-" + uuid.NewString()}
}

// newcomer is a schedule of the scene's task that is not due.
func (s *scene) newcomer(t *testing.T, params string, change func(*riverbeat.Schedule)) *riverbeat.Schedule {
	t.Helper()
	return s.schedule(t, 0, func(made *riverbeat.Schedule) {
		made.TaskName, made.TaskParams, made.CronExpression = s.task, []byte(params), "0 0 1 1 *"
		if change != nil {
			change(made)
		}
	})
}

// late are the seconds of the ticks that are caught up with.
var late = []int{10, 11, 12}

// makeDue gives the schedule ticks that are due since ago: one that is on time,
// or three that are late.
func (s *scene) makeDue(t *testing.T, made *riverbeat.Schedule, ago time.Duration) {
	t.Helper()
	var now time.Time
	require.NoError(t, s.Pool.QueryRow(t.Context(), "SELECT statement_timestamp()").Scan(&now))
	at := now.UTC().Truncate(time.Second).Add(-ago)
	seconds := strconv.Itoa(at.Second())
	if ago > riverbeat.OnTime {
		at = at.Truncate(time.Minute).Add(time.Duration(late[0]) * time.Second)
		seconds = strings.Trim(strings.ReplaceAll(fmt.Sprint(late), " ", ","), "[]")
	}
	cron := fmt.Sprintf("%s %d %d %d %d *", seconds, at.Minute(), at.Hour(), at.Day(), at.Month())
	s.exec(t, "UPDATE schedules SET cron_expression = $2 WHERE id = $1", made.ID, cron)
	s.exec(t, `
UPDATE schedule_clocks
SET last_scheduled_for = $2::timestamptz - interval '1 second', next_run_at = $2
WHERE schedule_id = $1`, made.ID, at)
}

func (s *scene) runNow(t *testing.T, made *riverbeat.Schedule) *riverbeat.Run {
	t.Helper()
	run, err := history.New(s.DB, s.ledger).RunNow(t.Context(), made.ID, history.Overrides{})
	require.NoError(t, err)
	return s.run(t, run.ID)
}

// record records a run of a time that is past.
func (s *scene) record(t *testing.T, made *riverbeat.Schedule, trigger riverbeat.Trigger, ago time.Duration) *riverbeat.Run {
	t.Helper()
	var run *riverbeat.Run
	request := ledger.Request{Schedule: made, Trigger: trigger}
	if backfill := uuid.New(); trigger == riverbeat.TriggerBackfill {
		request.BackfillID = &backfill
	}
	require.NoError(t, s.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		now, err := tx.Now(t.Context())
		require.NoError(t, err)
		request.At = now.Add(-ago)
		entry, err := s.ledger.Entry(request, now)
		require.NoError(t, err)
		run = entry.Run
		return s.ledger.Record(t.Context(), tx, now, []*ledger.Entry{entry})
	}))
	return s.run(t, run.ID)
}

func (s *scene) run(t *testing.T, id uuid.UUID) *riverbeat.Run {
	t.Helper()
	var run *riverbeat.Run
	require.NoError(t, s.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		var err error
		run, err = tx.Run(t.Context(), id)
		return err
	}))
	return run
}

// ticks sweeps and reads what the schedule's ticks became, gaps left out.
func (s *scene) ticks(t *testing.T, made *riverbeat.Schedule) (runs []*riverbeat.Run, missed int) {
	t.Helper()
	s.sweep(t)
	for _, run := range s.runs(t, made.ID) {
		switch {
		case run.State == riverbeat.Missed:
			missed += *run.MissedCount
		case run.Trigger == riverbeat.TriggerSchedule || run.Trigger == riverbeat.TriggerCatchUp:
			runs = append(runs, run)
		}
	}
	require.Empty(t, s.read(t, made.ID).LastError)
	return runs, missed
}

// arrive lets the schedule's runs arrive; there is more than one for catch-up
// "all", and none for "none".
func (s *scene) arrive(t *testing.T, made *riverbeat.Schedule, as string) []*riverbeat.Run {
	t.Helper()
	onTime := func(ago time.Duration) []*riverbeat.Run {
		s.makeDue(t, made, ago)
		runs, missed := s.ticks(t, made)
		require.Zero(t, missed)
		require.Len(t, runs, 1)
		require.Equal(t, riverbeat.TriggerSchedule, runs[0].Trigger)
		return runs
	}
	switch as {
	case "run-now":
		return []*riverbeat.Run{s.runNow(t, made)}
	case "backfill":
		return []*riverbeat.Run{s.record(t, made, riverbeat.TriggerBackfill, time.Hour)}
	case "tick":
		return onTime(0)
	case "earlier tick":
		return onTime(20 * time.Second)
	}
	mode := riverbeat.CatchUp(strings.TrimPrefix(as, "catch-up "))
	want := map[riverbeat.CatchUp]int{riverbeat.CatchUpNone: 0, riverbeat.CatchUpLatest: 1, riverbeat.CatchUpAll: len(late)}
	require.Contains(t, want, mode)
	s.exec(t, "UPDATE schedules SET catch_up = $2 WHERE id = $1", made.ID, string(mode))
	s.makeDue(t, made, 10*time.Minute)
	runs, missed := s.ticks(t, made)
	require.Len(t, runs, want[mode])
	require.Equal(t, len(late)-want[mode], missed)
	for _, run := range runs {
		require.Equal(t, riverbeat.TriggerCatchUp, run.Trigger)
	}
	return runs
}

func (s *scene) setJob(t *testing.T, run *riverbeat.Run, state string) {
	t.Helper()
	set := map[string]string{
		"running":   "state = 'running', attempt = 1, attempted_at = now(), attempted_by = array_append(attempted_by, 'node')",
		"retryable": "state = 'retryable', scheduled_at = now() + interval '1 hour'",
		"completed": "state = 'completed', finalized_at = now()",
	}[state]
	s.exec(t, "UPDATE river_job SET "+set+" WHERE id = $1", *run.JobID)
}

// stand puts there what a column of the table says, of another schedule.
func (s *scene) stand(t *testing.T, what string) {
	t.Helper()
	if what == "nothing" {
		return
	}
	other := s.newcomer(t, `{"a": 1, "b": 2}`, func(made *riverbeat.Schedule) { made.ExecutionPolicy = riverbeat.Queue })
	s.job = s.runNow(t, other)
	if what == "a queued job" {
		return
	}
	s.setJob(t, s.job, "running")
	switch what {
	case "a running job":
	case "a retry pending":
		s.setJob(t, s.job, "retryable")
	case "a running job and a line":
		s.head = s.runNow(t, other)
	case "a line, its job just ended":
		// Of a time that comes before the newcomer's, so that the end of the
		// sweep promotes it, and not the newcomer.
		s.head = s.record(t, other, riverbeat.TriggerManual, 2*time.Hour)
		s.setJob(t, s.job, "completed")
		s.job = nil
	default:
		require.Fail(t, "the test does not know how to set up: "+what)
	}
}

// outcome says of a run what a cell of the tables says.
func (s *scene) outcome(t *testing.T, run *riverbeat.Run, first *riverbeat.Run) string {
	t.Helper()
	text := string(run.State)
	if run.Reason != "" {
		text += " " + string(run.Reason)
	}
	if run.BlockedBy == nil {
		return text
	}
	for name, other := range map[string]*riverbeat.Run{"job": s.job, "head": s.head, "first": first} {
		if other != nil && other.ID == *run.BlockedBy {
			return text + ": " + name
		}
	}
	return text + ": a run that is not in the way"
}

// requireConsistent holds what is true of each run in its state.
func (s *scene) requireConsistent(t *testing.T, run *riverbeat.Run) {
	t.Helper()
	require.Equal(t, run.State == riverbeat.Queued, run.JobID != nil)
	require.Equal(t, run.State == riverbeat.Skipped, run.FinishedAt != nil)
	require.Equal(t, run.State == riverbeat.Queued, run.EnqueuedAt != nil)
}

// Each cell of the table of policies.
func TestPolicies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	head, rows := designTable(t, "Policy")
	const firstCell = 2
	tried := 0
	for i, row := range rows { //nolint:paralleltest // one database, one Ticker
		policies, as := []riverbeat.Policy{riverbeat.Policy(row[0])}, row[1]
		if row[0] == "any" {
			policies = []riverbeat.Policy{riverbeat.Allow, riverbeat.Skip, riverbeat.Queue}
		}
		if as == "…, the others" {
			continue // tried with the row before
		}
		for column := firstCell; column < len(head); column++ {
			stands, want := head[column], row[column]
			for _, policy := range policies {
				tried++
				t.Run(fmt.Sprintf("%s, %s, meets %s", policy, as, stands), func(t *testing.T) {
					s := newScene(b)
					s.stand(t, stands)
					made := s.newcomer(t, `{ "b": 2.0, "a": 1 }`, func(made *riverbeat.Schedule) { made.ExecutionPolicy = policy })
					runs := s.arrive(t, made, as)
					if want == "missed" {
						require.Empty(t, runs)
						return
					}
					for n, run := range runs {
						s.requireConsistent(t, run)
						require.Equal(t, policy, run.ExecutionPolicy)
						if n == 0 {
							require.Equal(t, want, s.outcome(t, run, runs[0]))
						} else {
							require.Equal(t, "…, the others", rows[i+1][1])
							require.Equal(t, rows[i+1][column], s.outcome(t, run, runs[0]))
						}
					}
				})
			}
		}
	}
	require.Equal(t, 6*(3*5+3), tried)
}

func TestPolicies_ChangedInBetween(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, rows := designTable(t, "Policy was")
	require.Len(t, rows, 9)
	for _, row := range rows { //nolint:paralleltest // one database, one Ticker
		was, is := riverbeat.Policy(row[0]), riverbeat.Policy(row[1])
		t.Run(fmt.Sprintf("from %s to %s", was, is), func(t *testing.T) {
			s := newScene(b)
			made := s.newcomer(t, "{}", func(made *riverbeat.Schedule) { made.ExecutionPolicy = was })
			s.job = s.record(t, made, riverbeat.TriggerManual, 2*time.Hour)
			s.setJob(t, s.job, "running")
			second := s.record(t, made, riverbeat.TriggerManual, time.Hour)
			require.Equal(t, row[2], s.outcome(t, second, nil))

			changed, err := catalog.New(b.DB, b.ledger).ChangeSchedule(t.Context(), made.ID, func(made *riverbeat.Schedule) error {
				made.ExecutionPolicy = is
				return nil
			})
			require.NoError(t, err)
			tick := s.arrive(t, changed, "tick")[0]
			require.Equal(t, row[3], s.outcome(t, tick, nil))
			require.Equal(t, second, s.run(t, second.ID), "what is admitted stays as it is")

			s.setJob(t, s.job, "completed")
			s.sweep(t)
			require.Equal(t, row[4], s.outcome(t, s.run(t, second.ID), nil))
		})
	}
}

func TestPolicies_MaxWaiting(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, rows := designTable(t, "In the line")
	require.NotEmpty(t, rows)
	for _, row := range rows { //nolint:paralleltest // one database, one Ticker
		line, job, as, want := row[0], row[1], row[3], row[4]
		most, err := strconv.Atoi(row[2])
		require.NoError(t, err)
		t.Run(fmt.Sprintf("%s, job %s, max_waiting %d, %s", line, job, most, as), func(t *testing.T) {
			s := newScene(b)
			other := s.newcomer(t, "{}", func(made *riverbeat.Schedule) { made.ExecutionPolicy = riverbeat.Queue })
			s.job = s.runNow(t, other)
			s.setJob(t, s.job, "running")
			var waiting []*riverbeat.Run
			switch line {
			case "nobody":
			case "two ticks of another schedule":
				for range 2 {
					third := s.newcomer(t, "{}", func(made *riverbeat.Schedule) { made.ExecutionPolicy = riverbeat.Queue })
					waiting = append(waiting, s.arrive(t, third, "earlier tick")...)
				}
			case "two requests":
				waiting = append(waiting, s.runNow(t, other), s.runNow(t, other))
			case "two of a catch-up":
				third := s.newcomer(t, "{}", func(made *riverbeat.Schedule) { made.ExecutionPolicy = riverbeat.Skip })
				waiting = s.arrive(t, third, "catch-up all")[:2]
			case "two of a backfill":
				waiting = append(waiting, s.arrive(t, other, "backfill")[0], s.arrive(t, other, "backfill")[0])
			default:
				require.Fail(t, "the test does not know how to set up: "+line)
			}
			for _, run := range waiting {
				require.Equal(t, riverbeat.Waiting, run.State)
			}
			if strings.HasSuffix(job, "ended") {
				s.setJob(t, s.job, "completed")
				s.job = nil
			}
			made := s.newcomer(t, "{}", func(made *riverbeat.Schedule) {
				made.ExecutionPolicy, made.MaxWaiting = riverbeat.Queue, most
			})
			if len(waiting) > 0 {
				s.head = waiting[0]
				for _, run := range waiting {
					if strings.Compare(run.ID.String(), s.head.ID.String()) < 0 {
						s.head = run // ids begin with the time
					}
				}
			}
			require.Equal(t, want, s.outcome(t, s.arrive(t, made, as)[0], nil))
		})
	}
}
