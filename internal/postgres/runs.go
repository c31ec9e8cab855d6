package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// MaxKeysPerTx bounds the lock keys of one transaction: Postgres's lock table
// is finite.
const MaxKeysPerTx = 1_000

// The class of advisory locks under which keyed runs are admitted.
const admitClass = "admit"

// LockKeys holds the admission of the given lock keys until the transaction
// ends, always in the same order.
func (tx *Tx) LockKeys(ctx context.Context, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	locks := advisoryLocks(tx.schema, admitClass, keys)
	slices.Sort(locks)
	return tx.q.LockKeys(ctx, tx.Tx, slices.Compact(locks))
}

// advisoryLocks are the numbers of keys in a class of advisory locks.
func advisoryLocks(schema, class string, keys []string) []int64 {
	locks := make([]int64, len(keys))
	for i, key := range keys {
		locks[i] = riverbeat.AdvisoryKey(schema, class, key)
	}
	return locks
}

// Busy tells what stands in the way of each of the lock keys; keys that are
// free are left out. The caller holds them by LockKeys, so it stays true.
func (tx *Tx) Busy(ctx context.Context, keys []string) (map[string]*riverbeat.Busy, error) {
	busy := map[string]*riverbeat.Busy{}
	if len(keys) == 0 {
		return busy, nil
	}
	of := func(key string) *riverbeat.Busy {
		if busy[key] == nil {
			busy[key] = &riverbeat.Busy{}
		}
		return busy[key]
	}
	jobs, err := tx.q.LiveJobs(ctx, tx.Tx, keys)
	if err != nil {
		return nil, err
	}
	for _, job := range jobs {
		b := of(job.LockKey)
		// A job whose run id nobody can read is in the way all the same.
		id, _ := uuid.Parse(job.RunID)
		b.Job, b.JobState = &id, riverbeat.State(job.RunState)
	}
	lines, err := tx.q.Lines(ctx, tx.Tx, &dbq.LinesParams{Keys: keys, Most: riverbeat.MaxWaitingLimit})
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		b := of(line.LockKey)
		b.First, b.Waiting = &line.FirstID, int(line.Waiting)
	}
	return busy, nil
}

// HasLiveJob tells whether a job of the lock key is live. It does not look at
// the line, which may be long.
func (tx *Tx) HasLiveJob(ctx context.Context, key string) (bool, error) {
	jobs, err := tx.q.LiveJobs(ctx, tx.Tx, []string{key})
	return len(jobs) > 0, err
}

var runColumns = []string{
	"id", "scheduled_for", "schedule_id", "schedule_name", "schedule_version", "definition_version",
	"task_name", "category", "tags", "args", "task_params", "lock_key", "execution_policy", "trigger",
	"backfill_id", "slot", "state", "reason", "blocked_by", "line_rank", "job_id", "max_attempts",
	"enqueued_at", "finished_at", "error", "missed_from", "missed_until", "missed_count", "requested_by",
	"limits",
}

// InsertRuns writes new runs. Their partitions must exist (EnsurePartitions).
func (tx *Tx) InsertRuns(ctx context.Context, runs []*riverbeat.Run) error {
	if len(runs) == 0 {
		return nil
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"runs"}, runColumns, pgx.CopyFromSlice(len(runs), func(i int) ([]any, error) {
		r := runs[i]
		return []any{
			r.ID, r.ScheduledFor, r.ScheduleID, r.ScheduleName, r.ScheduleVersion, r.DefinitionVersion,
			r.TaskName, orNull(r.Category), tagsJSON(r.Tags), r.Args, r.TaskParams, orNull(r.LockKey), string(r.ExecutionPolicy), string(r.Trigger),
			r.BackfillID, slot(r), string(r.State), orNull(r.Reason), r.BlockedBy, lineRank(r), r.JobID, r.MaxAttempts,
			r.EnqueuedAt, r.FinishedAt, orNull(r.Error), r.MissedFrom, r.MissedUntil, r.MissedCount, orNull(r.RequestedBy),
			limitsJSON(r.Limits),
		}, nil
	}))
	return translate(err)
}

// slot is what there may be one of per schedule and time.
func slot(r *riverbeat.Run) uuid.UUID {
	switch {
	case r.Trigger.OfTick():
		return uuid.Nil
	case r.BackfillID != nil:
		return *r.BackfillID
	default:
		return r.ID
	}
}

// lineRank is the place of a waiting run in its line before its time: ticks
// and requests go before backfills.
func lineRank(r *riverbeat.Run) *int16 {
	if r.State != riverbeat.Waiting {
		return nil
	}
	var rank int16
	if r.Trigger == riverbeat.TriggerBackfill {
		rank = 1
	}
	return &rank
}

// FirstWaiting locks the head of the line of a key; nil if nobody waits. Only who
// has locked the key may ask.
func (tx *Tx) FirstWaiting(ctx context.Context, key string) (*riverbeat.Run, error) {
	for {
		head, err := tx.q.HeadOfLine(ctx, tx.Tx, key)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil //nolint:nilnil // says its comment
		}
		if err != nil {
			return nil, err
		}
		first, err := orNone(tx.q.LockWaiting(ctx, tx.Tx, &dbq.LockWaitingParams{
			ScheduledFor: head.ScheduledFor, ID: head.RunID, LockKey: key, LineRank: head.LineRank,
		}))
		if err != nil || first != nil {
			return first, err
		}
		// It was cancelled meanwhile, or its end was not written down here.
		if err := tx.q.ForgetStaleLine(ctx, tx.Tx, key); err != nil {
			return nil, err
		}
	}
}

// RestoreLines puts in line who waits and is in none, because triggers were off
// or a partition was away for a while, and says how many.
func (tx *Tx) RestoreLines(ctx context.Context) (int, error) {
	n, err := tx.q.RestoreLines(ctx, tx.Tx)
	return int(n), err
}

// Promote takes a waiting run out of its line: r.JobID is its job now.
func (tx *Tx) Promote(ctx context.Context, r *riverbeat.Run) error {
	return tx.q.Promote(ctx, tx.Tx, &dbq.PromoteParams{ID: r.ID, ScheduledFor: r.ScheduledFor, JobID: *r.JobID})
}

// Promoting says that this transaction frees the key and promotes its line
// itself, so that the history trigger need not ask for it.
func (tx *Tx) Promoting(ctx context.Context, key string) error {
	_, err := tx.Exec(ctx, "SELECT set_config('riverbeat.promotes', $1, true)", key)
	return err
}

// StalledKeys reads at most limit lock keys whose line waits behind nothing.
func (tx *Tx) StalledKeys(ctx context.Context, limit int) ([]string, error) {
	return tx.q.StalledKeys(ctx, tx.Tx, int32(limit)) //nolint:gosec // a batch
}

// CancelRun cancels r, whose job is not live any more, or notes that the actor
// of ctx has asked for it while an attempt is running. It is nil when r has
// ended, or has got another job, since it was read.
func (tx *Tx) CancelRun(ctx context.Context, r *riverbeat.Run, running bool) (*riverbeat.Run, error) {
	return orNone(tx.q.CancelRun(ctx, tx.Tx, &dbq.CancelRunParams{
		ScheduledFor: r.ScheduledFor, ID: r.ID, JobID: r.JobID, Running: running, RequestedBy: orNull(nameOf(ctx)),
	}))
}

// Requeue begins the ended run r anew, with the job and the most attempts that
// it has now. It is nil when oldJob is not the run's any more, or it has not
// ended.
func (tx *Tx) Requeue(ctx context.Context, r *riverbeat.Run, oldJob *int64) (*riverbeat.Run, error) {
	return orNone(tx.q.Requeue(ctx, tx.Tx, &dbq.RequeueParams{
		ScheduledFor: r.ScheduledFor, ID: r.ID, OldJobID: oldJob,
		JobID: *r.JobID, MaxAttempts: int16(min(r.MaxAttempts, math.MaxInt16)), //nolint:gosec // bounded right here
	}))
}

// orNone is the run of a row; nil if there was no row, where that is no error.
func orNone(row dbq.Run, err error) (*riverbeat.Run, error) {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // says its comment
	}
	if err != nil {
		return nil, err
	}
	return run(row)
}

// CancelLine cancels the waiting runs of a schedule.
func (tx *Tx) CancelLine(ctx context.Context, scheduleID uuid.UUID, reason riverbeat.Reason) error {
	_, err := tx.q.CancelLine(ctx, tx.Tx, &dbq.CancelLineParams{ScheduleID: scheduleID, Reason: orNull(reason)})
	return err
}

// Start is the attempt of a job that was fetched.
type Start struct {
	RunID        uuid.UUID
	ScheduledFor time.Time
	JobID        int64
}

// StartRuns starts the runs whose jobs were fetched on the node, and answers
// them by job id, each with its next execution. A job that is missing from the
// answer is not its run's any more, or was ended meanwhile, and must not start.
func (tx *Tx) StartRuns(ctx context.Context, node string, starts []Start) (map[int64]*riverbeat.Run, error) {
	started := make(map[int64]*riverbeat.Run, len(starts))
	byWeek := map[int64][]Start{}
	for _, s := range starts {
		n := weekNumber(s.ScheduledFor)
		byWeek[n] = append(byWeek[n], s)
	}
	// Each week by itself: between the run of a backfill and one of now lie all
	// partitions, and they would be planned for.
	for _, n := range slices.Sorted(maps.Keys(byWeek)) {
		if err := tx.startRuns(ctx, node, byWeek[n], started); err != nil {
			return nil, err
		}
	}
	return started, nil
}

func (tx *Tx) startRuns(ctx context.Context, node string, starts []Start, started map[int64]*riverbeat.Run) error {
	params := &dbq.StartRunsParams{Node: node}
	for _, s := range starts {
		params.Ids = append(params.Ids, s.RunID)
		params.ScheduledFors = append(params.ScheduledFors, s.ScheduledFor)
		params.JobIds = append(params.JobIds, s.JobID)
	}
	params.Since = slices.MinFunc(params.ScheduledFors, time.Time.Compare)
	params.Until = slices.MaxFunc(params.ScheduledFors, time.Time.Compare).Add(week)
	rows, err := tx.q.StartRuns(ctx, tx.Tx, params)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if started[*row.JobID], err = run(row); err != nil {
			return err
		}
	}
	return nil
}

// Run reads a run; NotFound if there is none.
func (tx *Tx) Run(ctx context.Context, id uuid.UUID) (*riverbeat.Run, error) {
	notFound := riverbeat.Errorf(riverbeat.NotFound, "run_not_found", "There is no run %s.", id)
	at, ok := riverbeat.RunTime(id)
	if !ok {
		return nil, notFound
	}
	row, err := tx.q.GetRun(ctx, tx.Tx, &dbq.GetRunParams{ScheduledFor: at, ID: id})
	if errors.Is(err, pgx.ErrNoRows) {
		kept, err := tx.KeepsRuns(ctx, at)
		if err != nil {
			return nil, err
		}
		if !kept {
			notFound.Detail = fmt.Sprintf("There is no run %s: no runs of its time are kept.", id)
		}
		return nil, notFound
	}
	if err != nil {
		return nil, err
	}
	return run(row)
}

// RunsAt reads at most limit runs of a schedule of one nominal time, that of its
// tick first.
func (tx *Tx) RunsAt(ctx context.Context, scheduleID uuid.UUID, at time.Time, limit int) ([]*riverbeat.Run, error) {
	rows, err := tx.q.RunsAt(ctx, tx.Tx, &dbq.RunsAtParams{
		ScheduleID: scheduleID, ScheduledFor: at, MaxItems: int32(limit), //nolint:gosec // a page
	})
	if err != nil {
		return nil, err
	}
	return runs(rows)
}

// GapAround reads the gap of a schedule's ticks that a time lies in; nil if there
// is none. Gaps that end after until are not looked for.
func (tx *Tx) GapAround(ctx context.Context, scheduleID uuid.UUID, at, until time.Time) (*riverbeat.Run, error) {
	row, err := tx.q.FirstTickFrom(ctx, tx.Tx, &dbq.FirstTickFromParams{ScheduleID: scheduleID, Since: at, Until: until})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no gap is no error
	}
	if err != nil {
		return nil, err
	}
	if riverbeat.State(row.State) != riverbeat.Missed || row.MissedFrom == nil || row.MissedFrom.After(at) {
		return nil, nil //nolint:nilnil // no gap is no error
	}
	return run(row)
}

// WaitingAhead counts the runs that wait in the line before a waiting run.
func (tx *Tx) WaitingAhead(ctx context.Context, r *riverbeat.Run) (int, error) {
	n, err := tx.q.WaitingAhead(ctx, tx.Tx, &dbq.WaitingAheadParams{LockKey: r.LockKey, ScheduledFor: r.ScheduledFor, RunID: r.ID})
	return int(n), err
}

// Attempts reads the attempts of a run that River knows of: those of its job, as
// long as that is kept.
func (tx *Tx) Attempts(ctx context.Context, r *riverbeat.Run) ([]riverbeat.Attempt, error) {
	if r.JobID == nil || r.Attempt == 0 {
		return nil, nil
	}
	row, err := tx.q.JobErrors(ctx, tx.Tx, *r.JobID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var failed []struct {
		Attempt int
		At      time.Time
		Error   string
	}
	if err := json.Unmarshal(row.Errors, &failed); err != nil {
		return nil, fmt.Errorf("read the errors of job %d: %w", *r.JobID, err)
	}
	before := r.Attempt - int(row.Attempt) // those of other lives
	var attempts []riverbeat.Attempt
	for _, f := range failed {
		at := f.At.UTC()
		attempts = append(attempts, riverbeat.Attempt{Number: before + f.Attempt, EndedAt: &at, Error: f.Error})
	}
	if n := len(attempts); n == 0 || attempts[n-1].Number < r.Attempt {
		attempts = append(attempts, riverbeat.Attempt{Number: r.Attempt, EndedAt: r.FinishedAt})
	}
	return attempts, nil
}

// blockedAmong is how many runs of a task are looked at for those that one of them
// blocked.
const blockedAmong = 5_000

// BlockedRuns reads at most limit runs that a run is or was in the way of.
func (tx *Tx) BlockedRuns(ctx context.Context, r *riverbeat.Run, limit int) ([]riverbeat.BlockedRun, error) {
	if r.LockKey == "" || r.State == riverbeat.Skipped || r.State == riverbeat.Missed {
		return nil, nil
	}
	now, err := tx.Now(ctx)
	if err != nil {
		return nil, err
	}
	until := now
	if r.FinishedAt != nil {
		until = *r.FinishedAt
	}
	rows, err := tx.q.BlockedRuns(ctx, tx.Tx, &dbq.BlockedRunsParams{
		TaskName: r.TaskName, ID: r.ID, Since: r.ScheduledFor.Add(-time.Hour), Until: until.Add(time.Minute),
		LookedThrough: blockedAmong, MaxItems: int32(limit), //nolint:gosec // a page
	})
	if err != nil {
		return nil, err
	}
	blocked := make([]riverbeat.BlockedRun, len(rows))
	for i, row := range rows {
		blocked[i] = riverbeat.BlockedRun{
			ID: row.ID, ScheduleID: row.ScheduleID, ScheduleName: row.ScheduleName, ScheduledFor: row.ScheduledFor.UTC(),
			State: riverbeat.State(row.State), Reason: riverbeat.Reason(deref(row.Reason)),
		}
	}
	return blocked, nil
}

// RunFilter picks a page of runs, newest nominal time first. A nil or zero
// field picks all.
type RunFilter struct {
	ScheduleID *uuid.UUID
	TaskName   *string
	State      []riverbeat.State
	Trigger    []riverbeat.Trigger
	Category   *string    // "" picks those without
	Tags       []string   // all of them
	From       *time.Time // scheduled_for at or after it
	To         *time.Time // scheduled_for before it
	After      *uuid.UUID // the run that the page before ended with
	Limit      int        // items, at least 1
}

// lookedThrough is how many runs are looked at for a page at most. No index has states,
// which change all the time, nor what else is rarely asked for: a rare one among ten
// million runs would be searched for in all of them.
const lookedThrough = 1_000

// SearchRuns reads a page of runs. With State, Trigger, Category or Tags, or with a
// TaskName among those of a schedule, it looks at no more than so many runs, and the
// page may be short, or empty, where there are more behind it: lookedTo is the last one
// that it has looked at; nil if that were all, or the page is full.
//
// Most pages are of the weeks before where they begin. With those it tries first:
// each partition that cannot be left out is planned for, and of years of them that
// takes longer than all else. Those of a schedule may lie in any weeks, and take no
// planning.
func (tx *Tx) SearchRuns(ctx context.Context, f *RunFilter) (page []*riverbeat.Run, lookedTo *uuid.UUID, err error) {
	if f.ScheduleID != nil {
		return tx.searchRuns(ctx, f)
	}
	before, _, err := f.before()
	if err != nil {
		return nil, nil, err
	}
	newest := time.Now() //nolint:forbidigo // where to look first; with a wrong clock the same is found, later
	if before != nil && before.Before(newest) {
		newest = *before
	}
	for _, back := range []time.Duration{2 * week, 14 * week} {
		some := *f
		since := newest.Add(-back)
		if f.From != nil && !f.From.Before(since) {
			break
		}
		some.From = &since
		if page, lookedTo, err = tx.searchRuns(ctx, &some); err != nil || lookedTo != nil || len(page) == f.Limit {
			return page, lookedTo, err
		}
	}
	return tx.searchRuns(ctx, f)
}

func (tx *Tx) searchRuns(ctx context.Context, f *RunFilter) (page []*riverbeat.Run, lookedTo *uuid.UUID, err error) {
	among, sieve, args, err := f.parts()
	if err != nil {
		return nil, nil, err
	}
	// With the runs that fit comes the last one that is looked at, be it one of them
	// or not. The scan ends as soon as there are enough, but for the runs of a schedule:
	// a function's are all read.
	const sift = `
SELECT %[1]s, looked.fits, looked.last
FROM (
    SELECT
        *,
        %[3]s AS fits,
        row_number() OVER (ORDER BY scheduled_for DESC, id DESC) = @looked_through AS last
    FROM %[2]s
    ORDER BY scheduled_for DESC, id DESC
    LIMIT @looked_through
) AS looked
WHERE fits OR last
LIMIT @limit`
	args["limit"], args["looked_through"] = f.Limit, f.Limit
	if sieve != everything {
		args["looked_through"] = max(lookedThrough, f.Limit)
	}
	rows, err := tx.Query(ctx, fmt.Sprintf(sift, columnsOf[dbq.Run]("looked"), among, sieve), args)
	if err != nil {
		return nil, nil, err
	}
	type looked struct {
		dbq.Run
		Fits bool
		Last bool
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[looked])
	if err != nil {
		return nil, nil, err
	}
	fitting := make([]dbq.Run, 0, len(found))
	for _, r := range found {
		if r.Fits {
			fitting = append(fitting, r.Run)
		}
		if r.Last {
			lookedTo = &r.ID
		}
	}
	if len(fitting) == f.Limit {
		lookedTo = nil
	}
	page, err = runs(fitting)
	return page, lookedTo, err
}

// before is the place, a time and an id, that all runs of the page come before in the
// order of time; nil for none.
func (f *RunFilter) before() (at *time.Time, id uuid.UUID, err error) {
	if f.After == nil {
		return f.To, uuid.Nil, nil
	}
	after, ok := riverbeat.RunTime(*f.After)
	if !ok {
		return nil, uuid.Nil, riverbeat.InvalidField("invalid_page_token", "page_token", "is not one that this list gave")
	}
	if f.To != nil && !after.Before(*f.To) {
		return f.To, uuid.Nil, nil
	}
	return &after, *f.After, nil
}

// everything is the sieve that asks nothing.
const everything = "true"

// parts are those of a list's SQL: where the runs come from, which an index and the
// partitions answer, and what is asked of each of them.
func (f *RunFilter) parts() (among, sieve string, args pgx.NamedArgs, err error) {
	end, beforeID, err := f.before()
	if err != nil {
		return "", "", nil, err
	}
	since := pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	if f.From != nil {
		since = pgtype.Timestamptz{Time: *f.From, Valid: true}
	}
	before := pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	if end != nil {
		before = pgtype.Timestamptz{Time: *end, Valid: true}
	}
	args = pgx.NamedArgs{"since": since, "before": before, "before_id": beforeID}
	asked := []string{everything}
	ask := func(condition, name string, value any) {
		asked = append(asked, condition)
		args[name] = value
	}
	// The second condition leaves partitions out, the third alone would not.
	among = `runs
    WHERE scheduled_for >= @since
        AND scheduled_for <= @before
        AND (scheduled_for, id) < (@before, @before_id)`
	switch {
	case f.ScheduleID != nil:
		among = "schedule_runs(@schedule_id, @since, @before, @before_id, @looked_through)"
		args["schedule_id"] = *f.ScheduleID
		if f.TaskName != nil {
			ask("task_name = @task_name", "task_name", *f.TaskName)
		}
	case f.TaskName != nil:
		among += "\n        AND task_name = @task_name"
		args["task_name"] = *f.TaskName
	}
	if len(f.State) > 0 {
		ask("state = ANY(@state)", "state", f.State)
	}
	if len(f.Trigger) > 0 {
		ask("trigger = ANY(@trigger)", "trigger", f.Trigger)
	}
	if f.Category != nil {
		ask("coalesce(category, '') = @category", "category", *f.Category)
	}
	if len(f.Tags) > 0 {
		ask("tags @> @tags", "tags", tagsJSON(f.Tags))
	}
	return among, strings.Join(asked, " AND "), args, nil
}

func runs(rows []dbq.Run) ([]*riverbeat.Run, error) {
	list := make([]*riverbeat.Run, 0, len(rows))
	for _, row := range rows {
		r, err := run(row)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

func run(row dbq.Run) (*riverbeat.Run, error) {
	tags, err := parseTags(row.Tags)
	if err != nil {
		return nil, err
	}
	lost, err := parseLostLives(row.LostLives)
	if err != nil {
		return nil, err
	}
	limits, err := parseLimits(row.Limits)
	if err != nil {
		return nil, err
	}
	r := &riverbeat.Run{
		ID:                row.ID,
		ScheduleID:        row.ScheduleID,
		ScheduleName:      row.ScheduleName,
		ScheduleVersion:   int(row.ScheduleVersion),
		DefinitionVersion: int(row.DefinitionVersion),
		TaskName:          row.TaskName,
		Category:          deref(row.Category),
		Tags:              tags,
		Args:              row.Args,
		TaskParams:        row.TaskParams,
		LockKey:           deref(row.LockKey),
		ExecutionPolicy:   riverbeat.Policy(row.ExecutionPolicy),
		Trigger:           riverbeat.Trigger(row.Trigger),
		BackfillID:        row.BackfillID,
		ScheduledFor:      row.ScheduledFor.UTC(),
		State:             riverbeat.State(row.State),
		Reason:            riverbeat.Reason(deref(row.Reason)),
		BlockedBy:         row.BlockedBy,
		JobID:             row.JobID,
		Lives:             int(row.Lives),
		LostLives:         lost,
		Execution:         int(row.Execution),
		Attempt:           int(row.Attempt),
		MaxAttempts:       int(row.MaxAttempts),
		Limits:            limits,
		EnqueuedAt:        utc(row.EnqueuedAt),
		StartedAt:         utc(row.StartedAt),
		FinishedAt:        utc(row.FinishedAt),
		CancelRequestedAt: utc(row.CancelRequestedAt),
		CancelRequestedBy: deref(row.CancelRequestedBy),
		Node:              deref(row.Node),
		Result:            row.Result,
		Error:             deref(row.Error),
		Logs:              row.Logs,
		MissedFrom:        utc(row.MissedFrom),
		MissedUntil:       utc(row.MissedUntil),
		RequestedBy:       deref(row.RequestedBy),
	}
	if row.MissedCount != nil {
		n := int(*row.MissedCount)
		r.MissedCount = &n
	}
	return r, nil
}

func parseLostLives(raw json.RawMessage) ([]riverbeat.LostLife, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var lost []riverbeat.LostLife
	if err := json.Unmarshal(raw, &lost); err != nil {
		return nil, fmt.Errorf("read lost lives: %w", err)
	}
	for i := range lost {
		lost[i].LostAt = lost[i].LostAt.UTC()
	}
	return lost, nil
}
