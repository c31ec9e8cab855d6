package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/riverbeat"
)

// What the doctor asks. Each question is one statement, so that runs and jobs
// are seen at one moment, and each reads at most `most` faults.

// OnlyRead makes the rest of the transaction read only, each statement of it
// ending after most, on this one connection: no parallel workers.
func (tx *Tx) OnlyRead(ctx context.Context, most time.Duration) error {
	const onlyRead = `
SELECT
    set_config('transaction_read_only', 'on', true),
    set_config('statement_timeout', $1, true),
    set_config('lock_timeout', '1s', true),
    set_config('max_parallel_workers_per_gather', '0', true)`
	_, err := tx.Exec(ctx, onlyRead, fmt.Sprintf("%dms", most.Milliseconds()))
	return err
}

// faults reads all rows of a question.
func faults[T any](ctx context.Context, tx *Tx, question string, args pgx.StrictNamedArgs) ([]T, error) {
	rows, err := tx.Query(ctx, question, args)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// InstallationState is the row of the installation, and what is true of it here.
type InstallationState struct {
	Environment string
	PausedAt    *time.Time
	PausedBy    string
	PauseReason string
	// Here tells whether the recorded cluster and database are the ones we are
	// connected to; else this is a clone.
	Here bool
}

// InstallationState reads what the installation is; nil if no node has started
// yet.
func (tx *Tx) InstallationState(ctx context.Context) (*InstallationState, error) {
	const read = `
SELECT
    i.environment,
    i.paused_at,
    coalesce(i.paused_by, '') AS paused_by,
    coalesce(i.pause_reason, '') AS pause_reason,
    i.system_identifier = c.system_identifier AND i.database_oid = d.oid::bigint AS here
FROM installation AS i, pg_control_system() AS c, pg_database AS d
WHERE d.datname = current_database()`
	rows, err := faults[InstallationState](ctx, tx, read, nil)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return &rows[0], nil
}

// LiveNode is a node as it was last seen.
type LiveNode struct {
	Host          string
	Version       string
	TZDataVersion string
	Silent        time.Duration // since it was last seen
	Live          bool
}

// Nodes reads the nodes that were seen within lives, or the last one that was
// seen if there is none; the latest first.
func (tx *Tx) Nodes(ctx context.Context, lives time.Duration, most int) ([]LiveNode, error) {
	const nodes = `
SELECT
    host,
    version,
    tzdata_version,
    greatest(statement_timestamp() - last_seen_at, '0')::interval AS silent,
    last_seen_at >= statement_timestamp() - @lives::interval AS live
FROM nodes
WHERE last_seen_at >= least(statement_timestamp() - @lives::interval, (SELECT max(last_seen_at) FROM nodes))
ORDER BY last_seen_at DESC
LIMIT @most`
	return faults[LiveNode](ctx, tx, nodes, pgx.StrictNamedArgs{"lives": lives, "most": most})
}

// MissingTrigger is a trigger that should write history, or keep others from
// doing so, and does not.
type MissingTrigger struct {
	Name   string
	Table  string
	Exists bool // but is disabled
}

// MissingTriggers reads which triggers of the history, and of the ends of runs, are disabled
// or gone.
func (tx *Tx) MissingTriggers(ctx context.Context) ([]MissingTrigger, error) {
	const missing = `
WITH wanted AS (
    SELECT name, 'river_job'::regclass AS "table"
    FROM unnest('{riverbeat_record_update, riverbeat_record_delete, riverbeat_record_truncate, riverbeat_refuse_report}'::text[]) AS name
    UNION ALL
    SELECT name, "table"
    FROM unnest('{riverbeat_record_line_insert, riverbeat_record_line_update, riverbeat_record_line_delete, riverbeat_note_failed}'::text[]) AS name
    CROSS JOIN (
        SELECT 'runs'::regclass
        UNION ALL
        SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'runs'::regclass
    ) AS tables ("table")
    UNION ALL
    SELECT 'riverbeat_record_line_truncate', 'runs'::regclass
    UNION ALL
    SELECT name, 'schedules'::regclass
    FROM unnest('{schedules_watch_insert, schedules_watch_update, schedules_watch_delete}'::text[]) AS name
    UNION ALL
    SELECT 'task_definitions_watch', 'task_definitions'::regclass
),
missing AS (
    SELECT wanted.name, wanted.table, t.tgname IS NOT NULL AS exists
    FROM wanted
    LEFT JOIN pg_trigger AS t ON t.tgname = wanted.name AND t.tgrelid = wanted.table
    WHERE t.tgenabled IS NULL OR t.tgenabled NOT IN ('O', 'A')
)
SELECT name, "table"::text AS "table", exists
FROM missing
WHERE "table" = 'runs'::regclass
    OR NOT EXISTS ( -- a partition follows runs
        SELECT FROM missing AS m WHERE m.name = missing.name AND m.table = 'runs'::regclass
    )
ORDER BY 2, 1`
	return faults[MissingTrigger](ctx, tx, missing, nil)
}

// EnableTrigger enables a trigger of the history. It needs the owner of its
// table, and waits two seconds at most for those who write there.
func (tx *Tx) EnableTrigger(ctx context.Context, t MissingTrigger) error {
	if err := tx.WaitAtMost(ctx, 2*time.Second); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "ALTER TABLE "+pgx.Identifier{t.Table}.Sanitize()+" ENABLE TRIGGER "+pgx.Identifier{t.Name}.Sanitize())
	return err
}

// MissingPartitions reads, of this week and of weeks after it, the Mondays for
// which runs has no partition.
func (tx *Tx) MissingPartitions(ctx context.Context, weeks int) ([]time.Time, error) {
	const missing = `
SELECT wanted.week
FROM (
    SELECT runs_week(statement_timestamp() + interval '7 days' * n) AS week
    FROM generate_series(0, $1::int) AS n
) AS wanted
WHERE NOT EXISTS (
    SELECT FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'runs'::regclass
        AND NOT i.inhdetachpending
        AND c.relname = 'runs_p' || to_char(wanted.week AT TIME ZONE 'UTC', 'YYYYMMDD')
)
ORDER BY wanted.week`
	rows, err := tx.Query(ctx, missing, weeks)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[time.Time])
}

// BadIndex is an index that is not there or cannot be used.
type BadIndex struct {
	Name  string
	Fault string // "missing" or "invalid"
}

// BadIndexes reads the indexes of the schema that are invalid, and those that
// are missing though ticks, lines or lists would crawl without them.
func (tx *Tx) BadIndexes(ctx context.Context, most int) ([]BadIndex, error) {
	const bad = `
SELECT c.relname::text AS name, 'invalid' AS fault
FROM pg_index AS x
JOIN pg_class AS c ON c.oid = x.indexrelid
WHERE c.relnamespace = current_schema()::regnamespace AND NOT (x.indisvalid AND x.indisready)
UNION ALL
SELECT wanted.name, 'missing'
FROM unnest(@wanted::text[]) AS wanted (name)
WHERE to_regclass(wanted.name) IS NULL
ORDER BY name
LIMIT @most`
	return faults[BadIndex](ctx, tx, bad, pgx.StrictNamedArgs{"most": most, "wanted": []string{
		"river_job_lock_key_idx", "river_job_prioritized_fetching_index", "river_job_unique_idx",
		"lines_pkey", "runs_line_idx", "runs_task_idx",
		"schedule_clocks_due_idx", "schedule_clocks_retry_at_idx",
		"schedules_recurrence_idx", "schedules_task_name_idx",
	}})
}

// PartitionsWithoutTickKey reads the partitions of runs in which nothing keeps
// a tick from being decided twice.
func (tx *Tx) PartitionsWithoutTickKey(ctx context.Context) ([]string, error) {
	const without = `
SELECT c.relname::text
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'runs'::regclass
    AND NOT EXISTS (
        SELECT FROM pg_index AS x
        WHERE x.indrelid = c.oid
            AND x.indisunique AND x.indisvalid AND x.indisready
            AND pg_get_indexdef(x.indexrelid) LIKE '% USING btree (schedule_id, scheduled_for, slot)'
    )
ORDER BY c.relname`
	rows, err := tx.Query(ctx, without)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// DoubledTick is a tick with more than one run.
type DoubledTick struct {
	ScheduleID   uuid.UUID
	ScheduledFor time.Time
	Runs         int
}

// DoubledTicks reads the ticks since a time that were decided more than once.
func (tx *Tx) DoubledTicks(ctx context.Context, since time.Time, most int) ([]DoubledTick, error) {
	const doubled = `
SELECT schedule_id, scheduled_for, count(*)::int AS runs
FROM runs
WHERE slot = '00000000-0000-0000-0000-000000000000' AND schedule_id IS NOT NULL AND scheduled_for >= @since
GROUP BY schedule_id, scheduled_for
HAVING count(*) > 1
LIMIT @most`
	return faults[DoubledTick](ctx, tx, doubled, pgx.StrictNamedArgs{"since": since, "most": most})
}

// OpenTransaction is one that has been open for long.
type OpenTransaction struct {
	Name  string // whose it is
	State string // active, idle in transaction, prepared …
	Age   time.Duration
}

// OpenTransactions reads the transactions of this database that have been open
// for longer than age, the oldest first: as long as they are, nothing that was
// updated since can be vacuumed.
func (tx *Tx) OpenTransactions(ctx context.Context, age time.Duration, most int) ([]OpenTransaction, error) {
	const open = `
SELECT
    concat_ws(' ', 'pid ' || pid, usename, nullif(application_name, '')) AS name,
    state,
    statement_timestamp() - xact_start AS age
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
    AND xact_start < statement_timestamp() - @age::interval
    AND pid <> pg_backend_pid()
UNION ALL
SELECT gid || ' ' || owner, 'prepared', statement_timestamp() - prepared
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < statement_timestamp() - @age::interval
ORDER BY age DESC
LIMIT @most`
	return faults[OpenTransaction](ctx, tx, open, pgx.StrictNamedArgs{"age": age, "most": most})
}

// ScheduleClock is a schedule whose clock does not do what it should.
type ScheduleClock struct {
	ScheduleID   uuid.UUID
	ScheduleName string
	At           time.Time // when it was, or is, to be decided
	LastError    string
}

// OverdueClocks reads the clocks that have been due, or to be tried again, for
// longer than grace, the oldest first.
func (tx *Tx) OverdueClocks(ctx context.Context, grace time.Duration, most int) ([]ScheduleClock, error) {
	const overdue = `
SELECT s.id AS schedule_id, s.name AS schedule_name, late.at, s.last_error
FROM (
    (SELECT schedule_id, due_at AS at
    FROM schedule_clocks
    WHERE due_at < statement_timestamp() - @grace::interval
    ORDER BY due_at
    LIMIT @most)
    UNION ALL
    (SELECT schedule_id, retry_at
    FROM schedule_clocks
    WHERE retry_at < statement_timestamp() - @grace::interval
    ORDER BY retry_at
    LIMIT @most)
) AS late
JOIN schedules AS s ON s.id = late.schedule_id
ORDER BY late.at
LIMIT @most`
	return faults[ScheduleClock](ctx, tx, overdue, pgx.StrictNamedArgs{"grace": grace, "most": most})
}

// StoppedClocks reads the clocks of enabled schedules that could not be
// planned and wait to be tried again.
func (tx *Tx) StoppedClocks(ctx context.Context, most int) ([]ScheduleClock, error) {
	const stopped = `
SELECT s.id AS schedule_id, s.name AS schedule_name, c.retry_at AS at, s.last_error
FROM schedule_clocks AS c
JOIN schedules AS s ON s.id = c.schedule_id
WHERE c.retry_at > statement_timestamp() AND s.enabled
ORDER BY c.retry_at
LIMIT @most`
	return faults[ScheduleClock](ctx, tx, stopped, pgx.StrictNamedArgs{"most": most})
}

// RetryClocksNow lets stopped clocks be tried again at once, and says how many
// it were. Those that somebody holds are left: they are just being tried.
func (tx *Tx) RetryClocksNow(ctx context.Context, most int) (int, error) {
	const retry = `
UPDATE schedule_clocks
SET retry_at = statement_timestamp()
WHERE schedule_id IN (
    SELECT c.schedule_id
    FROM schedule_clocks AS c
    JOIN schedules AS s ON s.id = c.schedule_id
    WHERE c.retry_at > statement_timestamp() AND s.enabled
    ORDER BY c.retry_at
    LIMIT $1
    FOR UPDATE OF c SKIP LOCKED
)`
	tag, err := tx.Exec(ctx, retry, most)
	return int(tag.RowsAffected()), err
}

// IdleClocks reads the enabled schedules whose clock is missing, or neither
// ticks nor waits to be tried again. Among them are those that have no tick
// left before they end, which is right.
func (tx *Tx) IdleClocks(ctx context.Context, most int) ([]*riverbeat.Schedule, error) {
	const idle = `
SELECT s.id
FROM schedules AS s
LEFT JOIN schedule_clocks AS c ON c.schedule_id = s.id
WHERE s.enabled
    AND c.next_run_at IS NULL AND c.retry_at IS NULL
    AND (s.ends_at IS NULL OR s.ends_at > statement_timestamp())
LIMIT $1`
	rows, err := tx.Query(ctx, idle, most)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	byID, err := tx.Schedules(ctx, ids)
	list := make([]*riverbeat.Schedule, 0, len(byID))
	for _, id := range ids {
		if s := byID[id]; s != nil {
			list = append(list, s)
		}
	}
	return list, err
}

// MakeMissingClock gives a schedule that has no clock one that does not tick.
// Its mark is the schedule's newest tick, or its last change if that is later.
func (tx *Tx) MakeMissingClock(ctx context.Context, scheduleID uuid.UUID) error {
	const insert = `
INSERT INTO schedule_clocks (schedule_id, last_scheduled_for)
SELECT s.id, greatest(s.updated_at, (
    SELECT max(scheduled_for)
    FROM runs
    WHERE schedule_id = s.id AND slot = '00000000-0000-0000-0000-000000000000'
))
FROM schedules AS s
WHERE s.id = $1
ON CONFLICT (schedule_id) DO NOTHING`
	_, err := tx.Exec(ctx, insert, scheduleID)
	return err
}

// DecidedUntil is an enabled schedule, and up to when its ticks are decided.
type DecidedUntil struct {
	Schedule *riverbeat.Schedule
	Mark     time.Time
}

// EnabledAfter reads at most limit enabled schedules by id, those after
// afterID, each with its mark at the same moment.
func (tx *Tx) EnabledAfter(ctx context.Context, afterID uuid.UUID, limit int) ([]DecidedUntil, error) {
	const page = `
SELECT c.schedule_id, c.last_scheduled_for
FROM schedules AS s
JOIN schedule_clocks AS c ON c.schedule_id = s.id
WHERE s.enabled AND s.id > $1 AND c.schedule_id > $1
ORDER BY s.id
LIMIT $2`
	rows, err := tx.Query(ctx, page, afterID, limit)
	if err != nil {
		return nil, err
	}
	type mark struct {
		ID uuid.UUID
		At time.Time
	}
	marks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[mark])
	if err != nil {
		return nil, err
	}
	ids := make([]uuid.UUID, len(marks))
	for i, m := range marks {
		ids[i] = m.ID
	}
	// Read after the marks: a change in between moves updated_at past them.
	byID, err := tx.Schedules(ctx, ids)
	if err != nil {
		return nil, err
	}
	list := make([]DecidedUntil, 0, len(marks))
	for _, m := range marks {
		if s := byID[m.ID]; s != nil {
			list = append(list, DecidedUntil{Schedule: s, Mark: m.At.UTC()})
		}
	}
	return list, nil
}

// TickRange asks for the ticks of a schedule in (After, Until].
type TickRange struct {
	ScheduleID   uuid.UUID
	After, Until time.Time
}

// Decided is what the ledger has for ticks of a schedule: a run, or a gap from
// From to Until.
type Decided struct {
	Place       int // of its range among those that were asked for, from 1
	From, Until time.Time
}

// DecidedTicks reads what became of the ticks in the ranges.
func (tx *Tx) DecidedTicks(ctx context.Context, ranges []TickRange) ([]Decided, error) {
	const decided = `
SELECT
    asked.place::int AS place,
    coalesce(tick.missed_from, tick.scheduled_for) AS "from",
    coalesce(tick.missed_until, tick.scheduled_for) AS until
FROM unnest(@ids::uuid[], @afters::timestamptz[], @untils::timestamptz[])
    WITH ORDINALITY AS asked (schedule_id, after, until, place)
CROSS JOIN LATERAL (
    SELECT scheduled_for, missed_from, missed_until
    FROM runs
    WHERE schedule_id = asked.schedule_id
        AND scheduled_for > asked.after AND scheduled_for <= asked.until
        AND slot = '00000000-0000-0000-0000-000000000000'
    OFFSET 0
) AS tick`
	ids := make([]uuid.UUID, len(ranges))
	afters, untils := make([]time.Time, len(ranges)), make([]time.Time, len(ranges))
	for i, r := range ranges {
		ids[i], afters[i], untils[i] = r.ScheduleID, r.After, r.Until
	}
	return faults[Decided](ctx, tx, decided, pgx.StrictNamedArgs{"ids": ids, "afters": afters, "untils": untils})
}

// FirstRunsWeek is the beginning of the oldest partition of runs from which on there is
// one for each week; what lies before it nobody can account for any more. Those of a
// backfill of long ago stand alone.
func (tx *Tx) FirstRunsWeek(ctx context.Context) (time.Time, error) {
	const first = `
WITH weeks AS (
    SELECT to_date(substr(c.relname, 7), 'YYYYMMDD') AS monday
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'runs'::regclass AND NOT i.inhdetachpending AND c.relname ~ '^runs_p\d{8}$'
)
SELECT coalesce(max(monday)::timestamp AT TIME ZONE 'UTC', statement_timestamp())
FROM weeks
WHERE monday::timestamp AT TIME ZONE 'UTC' <= statement_timestamp()
    AND NOT EXISTS (SELECT FROM weeks AS before WHERE before.monday = weeks.monday - 7)`
	var at time.Time
	err := tx.QueryRow(ctx, first).Scan(&at)
	return at.UTC(), err
}

// RunWithoutLine is a run that waits and that nobody will promote.
type RunWithoutLine struct {
	RunID        uuid.UUID
	ScheduleName string
	ScheduledFor time.Time
}

// RunsWithoutLine reads the runs that wait and are in no line.
func (tx *Tx) RunsWithoutLine(ctx context.Context, most int) ([]RunWithoutLine, error) {
	const without = `
SELECT id AS run_id, schedule_name, scheduled_for
FROM runs_without_line
ORDER BY scheduled_for, id
LIMIT @most`
	return faults[RunWithoutLine](ctx, tx, without, pgx.StrictNamedArgs{"most": most})
}

// StalledLine is a line that waits behind nothing, by its first run.
type StalledLine struct {
	LockKey      string
	FirstID      uuid.UUID
	ScheduleName string
	ScheduledFor time.Time
	Waiting      int
}

// StalledLines reads the lines whose key has no live job. Between the end of a
// job and the promotion of the next, a healthy line is one of them for a
// moment.
func (tx *Tx) StalledLines(ctx context.Context, most int) ([]StalledLine, error) {
	const stalled = `
SELECT
    lock_key,
    (array_agg(id ORDER BY line_rank, scheduled_for, id))[1] AS first_id,
    (array_agg(schedule_name ORDER BY line_rank, scheduled_for, id))[1] AS schedule_name,
    min(scheduled_for) AS scheduled_for,
    count(*)::int AS waiting
FROM runs
WHERE line_rank IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM river_job
        WHERE river_job.args ->> 'lock_key' = runs.lock_key AND finalized_at IS NULL
    )
GROUP BY lock_key
LIMIT @most`
	return faults[StalledLine](ctx, tx, stalled, pgx.StrictNamedArgs{"most": most})
}

// RunAndJob is a run and its job that contradict each other.
type RunAndJob struct {
	RunID        uuid.UUID
	ScheduledFor time.Time
	ScheduleName string
	LockKey      string // "" for policy allow
	State        riverbeat.State
	JobID        *int64  // of the run
	JobState     *string // nil: there is no such job
}

// RunsWithoutJob reads the runs since a time that are queued, running or
// retrying, and whose job is gone, has ended, or is in a state that is not
// theirs.
func (tx *Tx) RunsWithoutJob(ctx context.Context, since time.Time, most int) ([]RunAndJob, error) {
	const without = `
SELECT
    r.id AS run_id,
    r.scheduled_for,
    r.schedule_name,
    coalesce(r.lock_key, '') AS lock_key,
    r.state,
    r.job_id,
    j.state::text AS job_state
FROM runs AS r
LEFT JOIN river_job AS j ON j.id = r.job_id
WHERE r.scheduled_for >= @since
    AND r.state IN ('queued', 'running', 'retrying')
    AND (
        j.id IS NULL
        OR j.finalized_at IS NOT NULL
        OR NOT CASE j.state
            WHEN 'running' THEN true -- fetched, and the attempt has begun or is about to
            WHEN 'retryable' THEN r.state = 'retrying'
            ELSE r.state IN ('queued', 'retrying')
        END
    )
LIMIT @most`
	return faults[RunAndJob](ctx, tx, without, pgx.StrictNamedArgs{"since": since, "most": most})
}

// JobAndRun is a live job that is not its run's.
type JobAndRun struct {
	JobID    int64
	JobState string
	LockKey  string // "" for policy allow
	RunID    string // as the job has it
	// Of the run; nil if there is none.
	ScheduledFor *time.Time
	RunState     *string
	RunJobID     *int64
}

// Run is the run of the job, if it is still its run and has ended all the same.
func (j JobAndRun) Run() (RunAndJob, bool) {
	if j.RunState == nil || j.RunJobID == nil || *j.RunJobID != j.JobID {
		return RunAndJob{}, false
	}
	id, err := uuid.Parse(j.RunID)
	return RunAndJob{RunID: id, ScheduledFor: *j.ScheduledFor, LockKey: j.LockKey, JobID: &j.JobID}, err == nil
}

// JobsWithoutRun looks through at most jobs of the live jobs, or those given by
// ids, and reads those whose run is gone, has ended, or has another job.
func (tx *Tx) JobsWithoutRun(ctx context.Context, ids []int64, jobs, most int) ([]JobAndRun, error) {
	// The LIMIT of one run keeps the planner from reading all runs once, which
	// it takes for cheaper than looking up those of many jobs; the OFFSET lets
	// what is in a run's id be read once, and not for each partition.
	const without = `
SELECT
    j.id AS job_id,
    j.state AS job_state,
    j.lock_key,
    j.run_id,
    r.scheduled_for,
    r.state AS run_state,
    r.job_id AS run_job_id
FROM (
    SELECT
        live.*,
        CASE WHEN readable THEN run_id::uuid END AS id_of_run,
        CASE WHEN readable THEN timestamptz 'epoch' + interval '1 millisecond' *
            ('x' || substr(run_id, 1, 8) || substr(run_id, 10, 4))::bit(48)::bigint
        END AS time_of_run
    FROM (
        SELECT
            id,
            state::text AS state,
            coalesce(args ->> 'lock_key', '') AS lock_key,
            coalesce(args ->> 'run_id', '') AS run_id,
            coalesce(args ->> 'run_id' ~
                '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$', false) AS readable
        FROM river_job
        WHERE state IN ('available', 'pending', 'retryable', 'running', 'scheduled') AND kind = 'run'
            AND (@ids::bigint[] IS NULL OR id = ANY(@ids))
        LIMIT @jobs
    ) AS live
    OFFSET 0
) AS j
LEFT JOIN LATERAL (
    SELECT scheduled_for, state::text AS state, job_id
    FROM runs
    WHERE scheduled_for = j.time_of_run AND id = j.id_of_run
    LIMIT 1
) AS r ON true
WHERE r.job_id IS DISTINCT FROM j.id OR r.state NOT IN ('queued', 'running', 'retrying')
LIMIT @most`
	return faults[JobAndRun](ctx, tx, without, pgx.StrictNamedArgs{"ids": ids, "jobs": jobs, "most": most})
}

// LockJobs locks those of the jobs that exist, in the order of their ids.
func (tx *Tx) LockJobs(ctx context.Context, ids []int64) error {
	_, err := tx.Exec(ctx, "SELECT id FROM river_job WHERE id = ANY($1) ORDER BY id FOR UPDATE", ids)
	return err
}

// SetRunsStraight gives runs the state of their jobs, as the history trigger
// would have done, and says how many it were. A run whose job is gone is
// cancelled. Runs that have another job by now are left. The caller has locked
// keys and jobs.
func (tx *Tx) SetRunsStraight(ctx context.Context, runs []RunAndJob) (int, error) {
	const straighten = `
UPDATE runs
SET state = job.run_state,
    reason = CASE job.run_state
        WHEN 'cancelled' THEN CASE
            WHEN job.id IS NULL THEN 'job_deleted'
            ELSE coalesce(left(job.metadata -> 'riverbeat' ->> 'reason', 30), 'cancelled_by_user')
        END
    END,
    attempt = greatest(runs.attempt, job.attempt),
    started_at = coalesce(started_at, job.attempted_at),
    finished_at = CASE
        WHEN job.id IS NULL THEN coalesce(finished_at, clock_timestamp())
        WHEN job.finalized_at IS NOT NULL THEN coalesce(finished_at, job.finalized_at)
    END,
    node = coalesce(job.attempted_by[cardinality(job.attempted_by)], node),
    result = coalesce(job.metadata -> 'output', result),
    logs = coalesce(job.metadata -> 'river:log', logs),
    error = CASE
        WHEN job.run_state = 'succeeded' THEN NULL
        ELSE coalesce(left(job.errors[cardinality(job.errors)] ->> 'error', 16384), error)
    END
FROM (
    SELECT
        given.run_id,
        given.scheduled_for,
        given.job_id,
        j.*,
        CASE
            WHEN j.id IS NULL THEN 'cancelled'
            WHEN j.state = 'running' THEN 'running'
            WHEN j.state = 'retryable' THEN 'retrying'
            WHEN j.state = 'completed' THEN 'succeeded'
            WHEN j.state = 'discarded' THEN 'failed'
            WHEN j.state = 'cancelled' AND j.metadata -> 'riverbeat' ->> 'state' = 'failed' THEN 'failed'
            WHEN j.state = 'cancelled' THEN 'cancelled'
            WHEN j.attempt > 0 THEN 'retrying'
            ELSE 'queued'
        END AS run_state
    FROM unnest(@ids::uuid[], @times::timestamptz[], @job_ids::bigint[]) AS given (run_id, scheduled_for, job_id)
    LEFT JOIN river_job AS j ON j.id = given.job_id
) AS job
WHERE runs.scheduled_for = job.scheduled_for AND runs.id = job.run_id
    AND runs.job_id IS NOT DISTINCT FROM job.job_id
    AND runs.state NOT IN ('waiting', 'skipped', 'missed')
    AND runs.state <> job.run_state
    -- It was fetched, and its attempt begins only from these states.
    AND NOT (job.run_state = 'running' AND runs.state IN ('queued', 'retrying'))`
	ids := make([]uuid.UUID, len(runs))
	times := make([]time.Time, len(runs))
	jobIDs := make([]*int64, len(runs))
	for i, r := range runs {
		ids[i], times[i], jobIDs[i] = r.RunID, r.ScheduledFor, r.JobID
	}
	tag, err := tx.Exec(ctx, straighten, pgx.StrictNamedArgs{"ids": ids, "times": times, "job_ids": jobIDs})
	return int(tag.RowsAffected()), err
}

// SilentJob is a running job whose node does not say that it lives.
type SilentJob struct {
	JobID        int64
	ScheduleName string
	Node         string
	Silent       *time.Duration // since the node was last seen; nil: it is unknown
}

// SilentJobs reads the running jobs whose node was not seen for longer than
// silence.
func (tx *Tx) SilentJobs(ctx context.Context, silence time.Duration, most int) ([]SilentJob, error) {
	const lost = `
SELECT
    j.id AS job_id,
    coalesce(j.args ->> 'schedule_name', '') AS schedule_name,
    coalesce(nullif(n.host, ''), j.node, '') AS node,
    statement_timestamp() - n.last_seen_at AS silent
FROM (
    SELECT id, args, attempted_by[cardinality(attempted_by)] AS node
    FROM river_job
    WHERE state = 'running' AND kind = 'run' AND attempted_at < statement_timestamp() - @silence::interval
) AS j
LEFT JOIN nodes AS n ON n.id::text = j.node
WHERE n.id IS NULL OR n.last_seen_at < statement_timestamp() - @silence::interval
LIMIT @most`
	return faults[SilentJob](ctx, tx, lost, pgx.StrictNamedArgs{"silence": silence, "most": most})
}

// UnservedQueue is a queue that no live node takes jobs from.
type UnservedQueue struct {
	Queue string
	Jobs  int // that wait there
	Tasks int // whose definition names it
}

// UnservedQueues reads the queues in which jobs wait, or which definitions
// name, and that no node serves of those seen within lives.
func (tx *Tx) UnservedQueues(ctx context.Context, lives time.Duration, most int) ([]UnservedQueue, error) {
	const unserved = `
SELECT queue, sum(jobs)::int AS jobs, sum(tasks)::int AS tasks
FROM (
    SELECT queue, count(*) AS jobs, 0 AS tasks
    FROM river_job
    WHERE state IN ('available', 'pending', 'retryable', 'scheduled') AND kind = 'run'
    GROUP BY queue
    UNION ALL
    SELECT queue, 0, count(*) FROM task_definitions GROUP BY queue
) AS used
WHERE NOT EXISTS (
    SELECT FROM nodes
    WHERE last_seen_at >= statement_timestamp() - @lives::interval AND queues ? used.queue
)
GROUP BY queue
ORDER BY jobs DESC, queue
LIMIT @most`
	return faults[UnservedQueue](ctx, tx, unserved, pgx.StrictNamedArgs{"lives": lives, "most": most})
}

// UnregisteredTask is a task of enabled schedules whose code, or command, no live node
// has.
type UnregisteredTask struct {
	TaskName string
	Kind     string // of its executor: go or command
	Code     string // the name under which a node would have to register or configure it
}

// UnregisteredTasks reads the tasks of enabled schedules whose code or command no node has
// of those seen within lives. The names are walked along their index, so this
// takes as long as there are tasks, however many schedules they have.
func (tx *Tx) UnregisteredTasks(ctx context.Context, lives time.Duration, most int) ([]UnregisteredTask, error) {
	const unregistered = `
WITH RECURSIVE tasks AS (
    (SELECT task_name FROM schedules ORDER BY task_name LIMIT 1)
    UNION ALL
    SELECT (SELECT s.task_name FROM schedules AS s WHERE s.task_name > t.task_name ORDER BY s.task_name LIMIT 1)
    FROM tasks AS t
    WHERE t.task_name IS NOT NULL
),
wanted AS (
    SELECT
        t.task_name,
        coalesce(d.executor ->> 'kind', 'go') AS kind,
        coalesce(nullif(d.executor ->> 'name', ''), t.task_name) AS code
    FROM tasks AS t
    LEFT JOIN task_definitions AS d ON d.task_name = t.task_name
    WHERE t.task_name IS NOT NULL AND coalesce(d.executor ->> 'kind', 'go') IN ('go', 'command')
)
SELECT task_name, kind, code
FROM wanted
WHERE NOT EXISTS (
        SELECT FROM nodes
        WHERE last_seen_at >= statement_timestamp() - @lives::interval
            AND CASE wanted.kind WHEN 'command' THEN commands ? wanted.code ELSE tasks ? wanted.code END
    )
    AND EXISTS (SELECT FROM schedules AS s WHERE s.task_name = wanted.task_name AND s.enabled)
ORDER BY task_name
LIMIT @most`
	return faults[UnregisteredTask](ctx, tx, unregistered, pgx.StrictNamedArgs{"lives": lives, "most": most})
}

// Load is how much is under way now.
type Load struct {
	Waiting, Queued, Running, Retrying int // runs
	LiveNodes                          int
	Paused                             bool
	Behind                             time.Duration // since the oldest undecided tick was due
}

// Load counts the runs that have not ended, by the line and the live jobs,
// which are few however long the history is.
func (tx *Tx) Load(ctx context.Context, lives time.Duration) (Load, error) {
	const count = `
SELECT
    (SELECT count(*)::int FROM lines) AS waiting,
    jobs.queued,
    jobs.running,
    jobs.retrying,
    (SELECT count(*)::int FROM nodes WHERE last_seen_at >= statement_timestamp() - @lives::interval) AS live_nodes,
    EXISTS (SELECT FROM installation WHERE paused_at IS NOT NULL) AS paused,
    greatest(statement_timestamp() - (
        SELECT min(due_at) FROM schedule_clocks WHERE due_at <= statement_timestamp()
    ), '0')::interval AS behind
FROM (
    SELECT
        count(*) FILTER (WHERE state <> 'running' AND state <> 'retryable' AND attempt = 0)::int AS queued,
        count(*) FILTER (WHERE state = 'running')::int AS running,
        count(*) FILTER (WHERE state = 'retryable' OR state <> 'running' AND attempt > 0)::int AS retrying
    FROM river_job
    WHERE state IN ('available', 'pending', 'retryable', 'running', 'scheduled') AND kind = 'run'
) AS jobs`
	rows, err := faults[Load](ctx, tx, count, pgx.StrictNamedArgs{"lives": lives})
	if err != nil {
		return Load{}, err
	}
	return rows[0], nil
}

// UntoldAlert is a run that was to tell people of a schedule, and has failed.
type UntoldAlert struct {
	ID           uuid.UUID
	ScheduleName string
	Error        string
}

// UntoldAlerts reads the alerts since a time that nobody was told of, the newest first.
func (tx *Tx) UntoldAlerts(ctx context.Context, since time.Time, most int) ([]UntoldAlert, error) {
	const untold = `
SELECT id, schedule_name, coalesce(error, '') AS error
FROM runs
WHERE task_name = @task_name AND scheduled_for >= @since AND trigger = 'alert' AND state = 'failed'
ORDER BY scheduled_for DESC, id DESC
LIMIT @most`
	return faults[UntoldAlert](ctx, tx, untold, pgx.StrictNamedArgs{"task_name": riverbeat.AlertTask, "since": since, "most": most})
}
