package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// check is one question to the database.
type check struct {
	name string
	// slow ones grow with the schedules or with the runs of a day; the others
	// only with what is under way.
	slow bool
	look func(*Doctor, context.Context, *postgres.Tx, Options) (Finding, error)

	// repair repairs what look finds, if that can be done without harm, and
	// says what it did; "" if there was nothing to do. repairs says it before.
	repair  func(*Doctor, context.Context, Options) (string, error)
	repairs string
}

const (
	schemaCheck       = "schema"
	installationCheck = "installation"
)

// checks are all of them, in the order in which they are looked at and
// repaired: what others rest upon comes first.
var checks = []check{
	{name: schemaCheck, look: (*Doctor).schema},
	{name: installationCheck, look: (*Doctor).installation},
	{name: "nodes", look: (*Doctor).nodes},
	{
		name: "history_trigger", look: (*Doctor).historyTrigger,
		repair: (*Doctor).enableTriggers, repairs: "enables the triggers that are disabled",
	},
	{
		name: "partitions", look: (*Doctor).missingPartitions,
		repair: (*Doctor).makePartitions, repairs: "makes the partitions",
	},
	{name: "old_partitions", slow: true, look: (*Doctor).oldPartitions},
	{name: "indexes", look: (*Doctor).indexes},
	{name: "long_transactions", look: (*Doctor).longTransactions},

	{name: "overdue_clocks", look: (*Doctor).overdueClocks},
	{
		name: "stopped_clocks", look: (*Doctor).stoppedClocks,
		repair: (*Doctor).retryClocks, repairs: "lets them be tried again at once",
	},
	{
		name: "idle_clocks", slow: true, look: (*Doctor).idleClocks,
		repair: (*Doctor).startClocks, repairs: "lets them tick from now on, and records what they have not decided as a gap",
	},
	{name: "unaccounted_ticks", slow: true, look: (*Doctor).unaccountedTicks},
	{name: "doubled_ticks", slow: true, look: (*Doctor).doubledTicks},

	{
		name: "runs_without_job", slow: true, look: (*Doctor).runsWithoutJob,
		repair: (*Doctor).setRunsStraight, repairs: "gives each run the state of its job; without one it is cancelled (job_deleted)",
	},
	{
		name: "jobs_without_run", slow: true, look: (*Doctor).jobsWithoutRun,
		repair: (*Doctor).cancelJobs, repairs: "cancels the jobs; a run that has ended before its job follows the job",
	},
	{
		name: "runs_without_line", look: (*Doctor).runsWithoutLine,
		repair: (*Doctor).restoreLines, repairs: "puts them in line",
	},
	{
		name: "stalled_lines", look: (*Doctor).stalledLines,
		repair: (*Doctor).moveLinesUp, repairs: "gives the first run of each line its job",
	},
	{name: "lost_jobs", look: (*Doctor).lostJobs},

	{name: "unserved_queues", look: (*Doctor).unservedQueues},
	{name: "unregistered_tasks", look: (*Doctor).unregisteredTasks},
	{name: "untold_alerts", look: (*Doctor).untoldAlerts},
}

func named(name string) check {
	return checks[slices.IndexFunc(checks, func(c check) bool { return c.name == name })]
}

const (
	// nodeLives is how long after it was last seen a node counts as live.
	nodeLives = 5 * time.Second
	// nodeLost is how long after that its jobs should have gone on elsewhere.
	nodeLost = 15 * time.Second
	// overdue is how late a clock is when nobody can be deciding it any more.
	overdue = 10 * time.Second
	// weeksAhead is for how many weeks after this one there must be partitions.
	weeksAhead = 1
	// pruned is how long after their time runs should be gone.
	pruned = 2 * 24 * time.Hour
)

func (d *Doctor) schema(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	s, err := tx.MigrationStatus(ctx)
	is := fmt.Sprintf("Riverbeat is at %d of %d, River at %d of %d.", s.Version, s.Latest, s.RiverVersion, s.RiverLatest)
	switch {
	case s.Behind():
		f = Finding{
			Status: Fail, Count: 1, forbids: true, Detail: "The schema is behind this program. " + is,
			Advice: "Run 'riverbeat migrate up'. Nothing else was looked at.",
		}
	case !s.Current():
		f = Finding{
			Status: Warn, Count: 1, forbids: true, Detail: "The schema is newer than this program. " + is,
			Advice: "Use the program of the nodes that migrated it.",
		}
		if s.TooNew() {
			f.Status = Fail
			f.Detail = fmt.Sprintf("The schema is too new for this program: it needs one that knows %d. ", s.OldestNode) + is
		}
	default:
		f = healthy("%s", is)
	}
	return f, err
}

func (d *Doctor) installation(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	i, err := tx.InstallationState(ctx)
	if err != nil {
		return f, err
	}
	switch {
	case i == nil:
		f = healthy("No node has started here yet.")
	case !i.Here:
		f = Finding{
			Status: Fail, Count: 1, forbids: true,
			Detail: "This is a copy: it was recorded on another cluster or database.",
			Advice: "Nodes come up on hold here, so that a copy does not fire another's jobs. If this is the only one, say 'riverbeat resume --here'.",
		}
	case i.Environment != d.Environment:
		f = Finding{
			Status: Warn, Count: 1, forbids: true,
			Detail: sentence("This is the environment %q, and this process is configured for %q.", i.Environment, d.Environment),
			Advice: "A node that is configured so comes up on hold. Say --environment, or set RIVERBEAT_ENVIRONMENT, if you mean this one.",
		}
	case i.PausedAt != nil:
		f = Finding{
			Status: Warn, Count: 1,
			Detail: sentence("Paused since %s%s%s. Ticks are held, none is lost.", stamp(*i.PausedAt), after(" by ", i.PausedBy), after(": ", i.PauseReason)),
			Advice: "Resume it when the reason is gone.",
		}
	default:
		f = healthy("This is the environment %q, and not paused.", i.Environment)
	}
	return f, nil
}

// after puts a word before a text, if there is one.
func after(word, text string) string {
	if text == "" {
		return ""
	}
	return word + text
}

func (d *Doctor) nodes(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	nodes, err := tx.Nodes(ctx, nodeLives, Most+1)
	if err != nil {
		return f, err
	}
	const start = "Start one with 'riverbeat serve'. Until then nothing ticks and nothing runs; then what is due is caught up with."
	switch {
	case len(nodes) == 0:
		f = Finding{Status: Fail, Count: 1, Detail: "No node has ever worked here.", Advice: start}
		return f, nil
	case !nodes[0].Live:
		f = Finding{
			Status: Fail, Count: 1, Advice: start,
			Detail: sentence("No node lives. The last, on %s, was seen %s ago.", nodes[0].Host, long(nodes[0].Silent)),
		}
		return f, nil
	}
	versions, zones := map[string]bool{}, map[string]bool{}
	for _, n := range nodes {
		versions[n.Version], zones[n.TZDataVersion] = true, true
	}
	f = healthy("%s %s.", many(len(nodes), "node"), be(len(nodes), "lives", "live"))
	if len(zones) > 1 {
		f = Finding{
			Status: Warn, Count: len(zones),
			Detail:   sentence("%s live, with different tzdata: they may disagree about when a schedule ticks.", many(len(nodes), "node")),
			Examples: examples(nodes, func(n postgres.LiveNode) string { return fmt.Sprintf("%s: tzdata %s", n.Host, n.TZDataVersion) }),
			Advice:   "Give all nodes the same tzdata.",
		}
	} else if len(versions) > 1 {
		f.Detail += sentence(" They are of %d versions.", len(versions))
	}
	return f, nil
}

func (d *Doctor) historyTrigger(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	missing, err := tx.MissingTriggers(ctx)
	if len(missing) == 0 {
		f = healthy("What becomes of jobs is written into their runs, and who waits is in line.")
		return f, err
	}
	f = Finding{
		Status: Fail, Count: len(missing),
		Detail: "What becomes of jobs is not written into their runs as it should be, or who waits is not put in line, or nobody is told of runs that fail.",
		Examples: examples(missing, func(t postgres.MissingTrigger) string {
			if t.Exists {
				return t.Name + " on " + t.Table + ": disabled"
			}
			return t.Name + " on " + t.Table + ": gone"
		}),
		Advice: "Put it back at once: meanwhile each job that starts or ends leaves its run wrong, or runs that wait are forgotten.",
	}
	if slices.ContainsFunc(missing, func(t postgres.MissingTrigger) bool { return !t.Exists }) {
		f.Advice += " What is gone stands in migrations/; then use --repair."
	}
	return f, err
}

func (d *Doctor) missingPartitions(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	missing, err := tx.MissingPartitions(ctx, weeksAhead)
	if err != nil {
		return f, err
	}
	now, err := tx.Now(ctx)
	if err != nil || len(missing) == 0 {
		f = healthy("There are partitions for this week and the next.")
		return f, err
	}
	f = Finding{
		Status: Warn, Count: len(missing),
		Detail:   sentence("%s of runs %s missing.", many(len(missing), "partition"), be(len(missing), "is", "are")),
		Examples: examples(missing, func(week time.Time) string { return "the week of " + week.UTC().Format(time.DateOnly) }),
		Advice:   "Nodes make them two weeks ahead. If none lives that is why; else look for 'partition upkeep failed' in their logs.",
	}
	if !missing[0].After(now) {
		f.Status = Fail
	}
	return f, nil
}

// oldPartitions looks for a week of runs that should be gone, of which nothing has
// happened since. It stops at the first.
func (d *Doctor) oldPartitions(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	keep, known, err := tx.RunsKept(ctx)
	if err != nil {
		return f, err
	}
	if !known || keep == 0 {
		return healthy("Nobody wants runs to be dropped."), nil
	}
	now, err := tx.Now(ctx)
	if err != nil {
		return f, err
	}
	weeks, err := tx.Weeks(ctx)
	if err != nil {
		return f, err
	}
	before := now.Add(-keep - pruned)
	for _, w := range weeks {
		if !w.Until.Before(before) {
			break
		}
		if w.State == postgres.WeekDetached && !w.Sealed {
			continue // somebody's own
		}
		changed, err := tx.WeekChangedSince(ctx, w, before)
		if err != nil {
			return f, err
		}
		if !changed {
			return Finding{
				Status: Warn, Count: 1,
				Detail: sentence("The runs of %s are still there, and perhaps those of later ones: they are kept for %s.", w, riverbeat.FormatRetention(keep)),
				Advice: "'riverbeat runs prune --dry-run' says why. If nothing keeps them, nodes cannot drop them: look for 'old runs are not dropped' in their logs. " +
					"A login that is not the owner's may not; then say 'riverbeat runs prune' as the owner, once a day.",
			}, nil
		}
	}
	return healthy("None is kept for longer than %s.", riverbeat.FormatRetention(keep)), nil
}

func (d *Doctor) indexes(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	bad, err := tx.BadIndexes(ctx, Most+1)
	if len(bad) == 0 {
		f = healthy("None is invalid, and those that matter are there.")
		return f, err
	}
	f = Finding{
		Status: Warn, Count: len(bad),
		Detail:   sentence("%s %s missing or invalid.", many(len(bad), "index"), be(len(bad), "is", "are")),
		Examples: examples(bad, func(x postgres.BadIndex) string { return x.Name + ": " + x.Fault }),
		Advice: "Of one that is invalid: DROP INDEX CONCURRENTLY, if its name ends in _ccnew or _ccold, " +
			"else REINDEX INDEX CONCURRENTLY. One that is missing stands in migrations/.",
	}
	return f, err
}

func (d *Doctor) longTransactions(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	open, err := tx.OpenTransactions(ctx, d.openFor, Most+1)
	if len(open) == 0 {
		f = healthy("None has been open for longer than %s.", long(d.openFor))
		return f, err
	}
	f = Finding{
		Status: Warn, Count: len(open),
		Detail: sentence("%s %s been open for longer than %s; vacuum cannot clean up behind %s, and claims slow down.",
			many(len(open), "transaction"), be(len(open), "has", "have"), long(d.openFor), be(len(open), "it", "them")),
		Examples: examples(open, func(t postgres.OpenTransaction) string {
			return fmt.Sprintf("%s: %s, for %s", t.Name, t.State, long(t.Age))
		}),
		Advice: "A backup may be one. End what was forgotten: SELECT pg_terminate_backend(PID), or ROLLBACK PREPARED.",
	}
	return f, err
}

func (d *Doctor) overdueClocks(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	late, err := tx.OverdueClocks(ctx, overdue, Most+1)
	if err != nil {
		return f, err
	}
	now, err := tx.Now(ctx)
	if err != nil || len(late) == 0 {
		f = healthy("No schedule has been due for longer than %s.", long(overdue))
		return f, err
	}
	i, err := tx.InstallationState(ctx)
	if err != nil {
		return f, err
	}
	if i != nil && i.PausedAt != nil {
		f = healthy("%s %s due, and held by the pause.", many(len(late), "schedule"), be(len(late), "is", "are"))
		return f, nil
	}
	f = Finding{
		Status: Fail, Count: len(late),
		Detail: sentence("%s %s due and not decided, the oldest for %s.",
			many(len(late), "schedule"), be(len(late), "is", "are"), long(now.Sub(late[0].At))),
		Examples: examples(late, func(c postgres.ScheduleClock) string {
			return fmt.Sprintf("%s: due %s", name(c.ScheduleName, c.ScheduleID), stamp(c.At))
		}),
		Advice: "Nodes are catching up, or none lives, or their sweeps fail: look for 'sweep failed' in their logs. No tick is lost.",
	}
	return f, nil
}

// name is a thing by the name that people gave it and the id that finds it.
func name(name string, id any) string { return fmt.Sprintf("%s (%v)", name, id) }

func (d *Doctor) stoppedClocks(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	stopped, err := tx.StoppedClocks(ctx, Most+1)
	if len(stopped) == 0 {
		f = healthy("No schedule is set aside.")
		return f, err
	}
	f = Finding{
		Status: Fail, Count: len(stopped),
		Detail: sentence("%s cannot be planned and %s set aside; %s ticks become gaps.",
			many(len(stopped), "schedule"), be(len(stopped), "is", "are"), be(len(stopped), "its", "their")),
		Examples: examples(stopped, func(c postgres.ScheduleClock) string {
			return name(c.ScheduleName, c.ScheduleID) + after(": ", c.LastError)
		}),
		Advice: "Mend the schedule, by PATCH /api/v1/schedules/{id}: that tries it again. Else it is tried hourly.",
	}
	return f, err
}

func (d *Doctor) idleClocks(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	idle, err := tx.IdleClocks(ctx, Most+1)
	if err != nil {
		return f, err
	}
	now, err := tx.Now(ctx)
	if err != nil {
		return f, err
	}
	idle = slices.DeleteFunc(idle, func(s *riverbeat.Schedule) bool { return !shouldTick(s, now) })
	if len(idle) == 0 {
		f = healthy("Every enabled schedule that has a tick to come waits for it.")
		return f, nil
	}
	f = Finding{
		Status: Fail, Count: len(idle),
		Detail: sentence("%s %s.", many(len(idle), "schedule"), be(len(idle), "is enabled and never ticks", "are enabled and never tick")),
		Examples: examples(idle, func(s *riverbeat.Schedule) string {
			return name(s.Name, s.ID) + ": " + s.CronExpression + " in " + s.Timezone
		}),
		Advice: "Most likely someone enabled or made them with psql. Change schedules through the API.",
	}
	return f, nil
}

// shouldTick tells whether a schedule has a tick after now. One that cannot be
// read might.
func shouldTick(s *riverbeat.Schedule, now time.Time) bool {
	r, err := riverbeat.ParseRecurrence(s.CronExpression, s.Timezone)
	return err != nil || s.NextTick(r, now) != nil
}

func (d *Doctor) doubledTicks(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	since, err := sinceOf(ctx, tx, o)
	if err != nil {
		return f, err
	}
	without, err := tx.PartitionsWithoutTickKey(ctx)
	if err != nil {
		return f, err
	}
	doubled, err := tx.DoubledTicks(ctx, since, Most+1)
	if err != nil {
		return f, err
	}
	shown := examples(doubled, func(t postgres.DoubledTick) string {
		return fmt.Sprintf("the schedule %s at %s: %d runs", t.ScheduleID, stamp(t.ScheduledFor), t.Runs)
	})
	for _, p := range without {
		shown = append(shown, p+": no valid unique index on (schedule_id, scheduled_for, slot)")
	}
	switch {
	case len(doubled) > 0:
		f = Finding{
			Status: Fail, Count: len(doubled), Examples: shown,
			Detail: sentence("%s of the last %s %s decided more than once.", many(len(doubled), "tick"), long(o.Since), be(len(doubled), "was", "were")),
			Advice: "The unique index is gone or damaged. Make it anew as migrations/002_runs.sql has it, when you have deleted the doubles.",
		}
	case len(without) > 0:
		f = Finding{
			Status: Fail, Count: len(without), Examples: shown[:min(len(shown), maxExamples)],
			Detail: sentence("Nothing keeps ticks from being decided twice in %s of runs.", many(len(without), "partition")),
			Advice: "Make the index as migrations/002_runs.sql has it.",
		}
	default:
		f = healthy("No tick of the last %s was decided twice, nor could it be.", long(o.Since))
	}
	return f, nil
}

func sinceOf(ctx context.Context, tx *postgres.Tx, o Options) (time.Time, error) {
	now, err := tx.Now(ctx)
	return now.Add(-o.Since), err
}

func (d *Doctor) runsWithoutJob(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	since, err := sinceOf(ctx, tx, o)
	if err != nil {
		return f, err
	}
	runs, err := tx.RunsWithoutJob(ctx, since, Most+1)
	if err != nil || len(runs) == 0 {
		f = healthy("Every unfinished run of the last %s has its job.", long(o.Since))
		return f, err
	}
	f = Finding{
		Status: Fail, Count: len(runs),
		Detail: sentence("%s of the last %s %s the state of %s job.",
			many(len(runs), "run"), long(o.Since), be(len(runs), "has not", "have not"), be(len(runs), "its", "their")),
		Examples: examples(runs, func(r postgres.RunAndJob) string {
			job := "its job is gone"
			if r.JobID == nil {
				job = "it has no job"
			} else if r.JobState != nil {
				job = fmt.Sprintf("its job %d is %s", *r.JobID, *r.JobState)
			}
			return fmt.Sprintf("%s: %s, but %s", name(r.ScheduleName, r.RunID), r.State, job)
		}),
		Advice: "Someone changed runs by hand, or jobs while the history trigger was off. Look at history_trigger first.",
	}
	return f, nil
}

func (d *Doctor) jobsWithoutRun(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	jobs, err := tx.JobsWithoutRun(ctx, nil, o.maxJobs, Most+1)
	if len(jobs) == 0 {
		f = healthy("Every live job belongs to an unfinished run.")
		return f, err
	}
	f = Finding{
		Status: Fail, Count: len(jobs),
		Detail: sentence("%s %s to no unfinished run.", many(len(jobs), "live job"), be(len(jobs), "belongs", "belong")),
		Examples: examples(jobs, func(j postgres.JobAndRun) string {
			run := "its run is gone"
			if _, own := j.Run(); own {
				run = "its run is " + *j.RunState
			} else if j.RunState != nil {
				run = "its run has another job"
			}
			return fmt.Sprintf("the job %d: %s, but %s (%s)", j.JobID, j.JobState, run, j.RunID)
		}),
		Advice: "Someone changed or deleted runs by hand. Such a job holds its key, and others wait behind it.",
	}
	return f, err
}

func (d *Doctor) runsWithoutLine(ctx context.Context, tx *postgres.Tx, _ Options) (Finding, error) {
	without, err := tx.RunsWithoutLine(ctx, Most+1)
	if len(without) == 0 {
		return healthy("Every run that waits is in line."), err
	}
	return Finding{
		Status: Fail, Count: len(without),
		Detail: sentence("%s %s and %s in no line: nobody promotes %s.", many(len(without), "run"),
			be(len(without), "waits", "wait"), be(len(without), "is", "are"), be(len(without), "it", "them")),
		Examples: examples(without, func(r postgres.RunWithoutLine) string {
			return fmt.Sprintf("%s: since %s", name(r.ScheduleName, r.RunID), stamp(r.ScheduledFor))
		}),
		Advice: "Triggers were off, or a partition was away for a while. Nodes look for such runs when they start, and once an hour.",
	}, nil
}

func (d *Doctor) stalledLines(ctx context.Context, tx *postgres.Tx, _ Options) (Finding, error) {
	lines, err := d.stalled(ctx, tx)
	if len(lines) == 0 {
		return healthy("No line waits behind nothing."), err
	}
	waiting := 0
	for _, l := range lines {
		waiting += l.Waiting
	}
	return Finding{
		Status: Fail, Count: len(lines),
		Detail: sentence("%s of %s %s behind nothing.", many(len(lines), "line"), count(waiting, "run"), be(len(lines), "waits", "wait")),
		Examples: examples(lines, func(l postgres.StalledLine) string {
			return fmt.Sprintf("%s: %s, since %s", name(l.ScheduleName, l.FirstID), count(l.Waiting, "run"), stamp(l.ScheduledFor))
		}),
		Advice: "Each node moves such lines up once a second: none lives, or their sweeps fail. Look for 'promote the line' in their logs.",
	}, nil
}

// stalled finds the lines that were stalled at two looks, a sweep apart, with
// the same run at their head: for a moment every line that moves up is.
func (d *Doctor) stalled(ctx context.Context, tx *postgres.Tx) ([]postgres.StalledLine, error) {
	lines, err := tx.StalledLines(ctx, Most+1)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	first := map[uuid.UUID]bool{}
	for _, l := range lines {
		first[l.FirstID] = true
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(d.patience):
	}
	lines, err = tx.StalledLines(ctx, Most+1)
	return slices.DeleteFunc(lines, func(l postgres.StalledLine) bool { return !first[l.FirstID] }), err
}

func (d *Doctor) lostJobs(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	lost, err := tx.SilentJobs(ctx, nodeLost, Most+1)
	if len(lost) == 0 {
		f = healthy("No run is left on a node that is gone.")
		return f, err
	}
	f = Finding{
		Status: Fail, Count: len(lost),
		Detail: sentence("%s %s left on nodes that are gone.", many(len(lost), "run"), be(len(lost), "is", "are")),
		Examples: examples(lost, func(j postgres.SilentJob) string {
			gone := "which is unknown"
			if j.Silent != nil {
				gone = "last seen " + long(*j.Silent) + " ago"
			}
			return fmt.Sprintf("%s, on %s, %s", name(j.ScheduleName, fmt.Sprintf("job %d", j.JobID)), j.Node, gone)
		}),
		Advice: "Live nodes let them go on elsewhere within ten seconds: none lives, or their logs say why not.",
	}
	return f, err
}

func (d *Doctor) unservedQueues(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	queues, err := tx.UnservedQueues(ctx, nodeLives, Most+1)
	if len(queues) == 0 {
		f = healthy("Every queue in use has a live node.")
		return f, err
	}
	jobs := 0
	names := make([]string, 0, len(queues))
	for _, q := range queues {
		jobs += q.Jobs
		names = append(names, q.Queue)
	}
	f = Finding{
		Status: Warn, Count: len(queues),
		Detail: sentence("%s %s served by no live node.", many(len(queues), "queue"), be(len(queues), "is", "are")),
		Examples: examples(queues, func(q postgres.UnservedQueue) string {
			return fmt.Sprintf("%s: %s waiting, named by %s", q.Queue, count(q.Jobs, "job"), count(q.Tasks, "definition"))
		}),
		Advice: sentence("Let a node serve them: --queues %s.", strings.Join(withWorkers(names), ",")),
	}
	if jobs > 0 {
		f.Status = Fail
		f.Detail = sentence("%s %s served by no live node, and %s %s there.",
			many(len(queues), "queue"), be(len(queues), "is", "are"), count(jobs, "job"), be(jobs, "waits", "wait"))
	}
	return f, err
}

// withWorkers are queues as the setting names them.
func withWorkers(queues []string) []string {
	list := examples(queues, func(q string) string { return q + "=10" })
	if len(queues) > len(list) {
		list = append(list, "…")
	}
	return list
}

func (d *Doctor) unregisteredTasks(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	tasks, err := tx.UnregisteredTasks(ctx, nodeLives, Most+1)
	if len(tasks) == 0 {
		f = healthy("Every task of an enabled schedule is registered by a live node.")
		return f, err
	}
	f = Finding{
		Status: Fail, Count: len(tasks),
		Detail: sentence("%s of enabled schedules %s registered by no live node; %s runs wait (no_worker).",
			many(len(tasks), "task"), be(len(tasks), "is", "are"), be(len(tasks), "its", "their")),
		Examples: examples(tasks, func(t postgres.UnregisteredTask) string {
			switch {
			case t.Kind == riverbeat.ExecutorCommand:
				return t.TaskName + ", which is the command " + t.Code
			case t.Code == t.TaskName:
				return t.TaskName
			}
			return t.TaskName + ", which is the code " + t.Code
		}),
		Advice: "Deploy a node that registers them, or disable their schedules.",
	}
	return f, err
}

func (d *Doctor) untoldAlerts(ctx context.Context, tx *postgres.Tx, o Options) (f Finding, err error) {
	since, err := sinceOf(ctx, tx, o)
	if err != nil {
		return f, err
	}
	untold, err := tx.UntoldAlerts(ctx, since, Most+1)
	if len(untold) == 0 {
		f = healthy("No alert of the last %s has failed to be posted.", long(o.Since))
		return f, err
	}
	f = Finding{
		Status: Warn, Count: len(untold),
		Detail: sentence("%s of the last %s could not be posted: nobody was told.", many(len(untold), "alert"), long(o.Since)),
		Examples: examples(untold, func(a postgres.UntoldAlert) string {
			return name(a.ScheduleName, a.ID) + after(": ", a.Error)
		}),
		Advice: "Mend what the error says; then POST /api/v1/runs/{id}/retry posts it again.",
	}
	return f, err
}
