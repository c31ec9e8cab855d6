// Package oracle judges what happened while faults were injected: whether each
// tick was accounted for once, no key was executed twice at a time, no line was
// overtaken, nothing waits for ever, and history agrees with River.
//
// It is written apart from the product and imports none of it. What ticks there
// should be it computes itself; what really ran it reads from the log that the
// executions wrote; and of the database it believes only what can be held
// against those two.
package oracle

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Evidence is all that is known of one scenario. All times are those of the
// database's clock.
type Evidence struct {
	Versions   []Version   // of schedules, in their order
	Runs       []Run       // at the end
	Moves      []Move      // of runs, in their order
	Executions []Execution // by start
	Processes  []Process
	Faults     []Fault
	Disagreed  []Disagreement // of runs with river_job, at any time
	Requested  []string       // runs that the API said it made
	Began      time.Time
	Calm       time.Time // when the last fault was over
	Judged     time.Time // when the rest was read
}

// Version is a schedule between two edits.
type Version struct {
	ScheduleID string
	Name       string
	Number     int
	Cron, Zone string
	Policy     string
	Params     string // canonical
	Enabled    bool   // false, too, when it is deleted
	Deleted    bool
	StartsAt   *time.Time
	EndsAt     *time.Time
	// The edit took effect between these two: the beginning of its transaction
	// and that of its statement.
	Earliest, Latest time.Time
}

// Run is a row of runs.
type Run struct {
	ID              string
	ScheduleID      string
	ScheduleName    string
	ScheduleVersion int
	Key             string // of task and arguments, as the oracle reads them; "" if it may overlap
	LockKey         string // as the product says
	Params          string // canonical
	Policy          string
	Trigger         string
	ScheduledFor    time.Time
	State, Reason   string
	BlockedBy       string
	JobID           int64
	Execution       int
	Attempt         int
	MaxAttempts     int
	Accepted        int // the execution whose result stands; 0: none
	MissedFrom      time.Time
	MissedUntil     time.Time
	MissedCount     *int
	CreatedAt       time.Time
	Error           string
}

// Move is a change of a run, as a trigger of the suite's own saw it.
type Move struct {
	RunID     string
	State     string
	Reason    string
	JobID     int64
	Execution int
	Began     time.Time // of its transaction
	At        time.Time
}

// Execution is one start of a task's code, and its end.
type Execution struct {
	RunID        string
	ScheduleID   string
	Key          string
	Number       int // the run's execution
	Attempt      int
	ScheduledFor time.Time
	Node         string
	PID          int
	Stubborn     bool
	Start        time.Time
	End          time.Time // zero: its process did not come to it
	Outcome      string    // Done, Failed or Interrupted
	Context      string    // why its context had ended by then
}

// The outcomes of an execution, as the task itself saw them.
const (
	Done        = "ok"
	Failed      = "failed"
	Interrupted = "interrupted"
)

// Process is the life of a node's process.
type Process struct {
	Node string
	PID  int
	From time.Time
	To   time.Time // zero: it lives
	How  string    // why it ended
}

// Fault is something that was done to the installation.
type Fault struct {
	Kind     Kind
	Node     string // whom it befell; "": everyone
	PID      int    // its process
	RunID    string // of Touch
	From, To time.Time
	Detail   string
}

// Kind is a kind of fault.
type Kind string

// The kinds of faults, by what they excuse.
const (
	Kill     Kind = "kill"     // kill -9
	Freeze   Kind = "freeze"   // SIGSTOP until SIGCONT
	Stop     Kind = "stop"     // SIGTERM
	CutOff   Kind = "cut off"  // connections closed, held up or refused
	Deaf     Kind = "deaf"     // notifications lost
	Lie      Kind = "lie"      // an error after the commit
	Slow     Kind = "slow"     // delays
	Database Kind = "database" // the server restarted, or was failed over
	Touch    Kind = "touch"    // somebody changed a job by hand
	Edit     Kind = "edit"     // a schedule was changed; the versions tell of it
)

// Disagreement is a run and a job that do not fit.
type Disagreement struct {
	At   time.Time
	Text string
}

// Schema is where Watch keeps its notes.
const Schema = "faults"

// Watch makes the database write down each version of a schedule and each move
// of a run. product is the schema that is watched.
func Watch(ctx context.Context, conn *pgx.Conn, product string) error {
	const watch = `
CREATE SCHEMA faults;
CREATE TABLE faults.versions (
    seq bigint GENERATED ALWAYS AS IDENTITY, deleted boolean, row_then jsonb,
    began timestamptz DEFAULT transaction_timestamp(), at timestamptz DEFAULT statement_timestamp()
);
CREATE TABLE faults.moves (
    seq bigint GENERATED ALWAYS AS IDENTITY, run_id uuid, state text, reason text, job_id bigint, execution int,
    began timestamptz DEFAULT transaction_timestamp(), at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION faults.note_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO faults.versions (deleted, row_then) VALUES (true, to_jsonb(OLD));
    ELSIF TG_OP = 'INSERT' OR NEW.version <> OLD.version THEN
        INSERT INTO faults.versions (deleted, row_then) VALUES (false, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION faults.note_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO faults.moves (run_id, state, reason, job_id, execution)
    VALUES (NEW.id, NEW.state, NEW.reason, NEW.job_id, NEW.execution);
    RETURN NULL;
END $$;
CREATE TRIGGER faults_insert AFTER INSERT ON %[1]s.runs
    FOR EACH ROW EXECUTE FUNCTION faults.note_move();
CREATE TRIGGER faults_update AFTER UPDATE ON %[1]s.runs
    FOR EACH ROW WHEN ((OLD.state, OLD.job_id, OLD.execution) IS DISTINCT FROM (NEW.state, NEW.job_id, NEW.execution))
    EXECUTE FUNCTION faults.note_move();
CREATE TRIGGER faults_version AFTER INSERT OR UPDATE OR DELETE ON %[1]s.schedules
    FOR EACH ROW EXECUTE FUNCTION faults.note_version();`
	_, err := conn.Exec(ctx, fmt.Sprintf(watch, product))
	return err
}

// Read adds what the database has to the evidence.
func (ev *Evidence) Read(ctx context.Context, conn *pgx.Conn, product string) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, "SET LOCAL search_path = "+product); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&ev.Judged); err != nil {
		return err
	}

	const versions = `
SELECT v.row_then ->> 'id', v.row_then ->> 'name', (v.row_then ->> 'version')::int,
    v.row_then ->> 'cron_expression', v.row_then ->> 'timezone', v.row_then ->> 'execution_policy',
    v.row_then -> 'kwargs', (v.row_then ->> 'enabled')::bool AND NOT deleted, deleted,
    (v.row_then ->> 'starts_at')::timestamptz, (v.row_then ->> 'ends_at')::timestamptz, began, at
FROM faults.versions AS v ORDER BY seq`
	rows, err := tx.Query(ctx, versions)
	if err != nil {
		return err
	}
	ev.Versions, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (v Version, err error) {
		var params json.RawMessage
		err = row.Scan(&v.ScheduleID, &v.Name, &v.Number, &v.Cron, &v.Zone, &v.Policy, &params, &v.Enabled, &v.Deleted,
			&v.StartsAt, &v.EndsAt, &v.Earliest, &v.Latest)
		v.Params = canonical(params)
		return v, err
	})
	if err != nil {
		return fmt.Errorf("read versions: %w", err)
	}

	const moves = `
SELECT run_id::text, state, coalesce(reason, ''), coalesce(job_id, 0), execution, began, at
FROM faults.moves ORDER BY seq`
	rows, err = tx.Query(ctx, moves)
	if err != nil {
		return err
	}
	ev.Moves, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Move])
	if err != nil {
		return fmt.Errorf("read moves: %w", err)
	}

	const runs = `
SELECT id::text, coalesce(schedule_id::text, ''), schedule_name, schedule_version, task_name, args, task_params,
    coalesce(lock_key, ''), execution_policy, trigger, scheduled_for, state, coalesce(reason, ''),
    coalesce(blocked_by::text, ''), coalesce(job_id, 0), execution, attempt, max_attempts,
    coalesce((result ->> 'execution')::int, 0), coalesce(missed_from, 'epoch'), coalesce(missed_until, 'epoch'),
    missed_count, created_at, coalesce(error, '')
FROM runs ORDER BY scheduled_for, id`
	rows, err = tx.Query(ctx, runs)
	if err != nil {
		return err
	}
	ev.Runs, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Run, err error) {
		var task string
		var args, params json.RawMessage
		err = row.Scan(&r.ID, &r.ScheduleID, &r.ScheduleName, &r.ScheduleVersion, &task, &args, &params,
			&r.LockKey, &r.Policy, &r.Trigger, &r.ScheduledFor, &r.State, &r.Reason,
			&r.BlockedBy, &r.JobID, &r.Execution, &r.Attempt, &r.MaxAttempts,
			&r.Accepted, &r.MissedFrom, &r.MissedUntil, &r.MissedCount, &r.CreatedAt, &r.Error)
		r.Params = canonical(params)
		r.Key = keyOf(r.Policy, task, args, params)
		return r, err
	})
	if err != nil {
		return fmt.Errorf("read runs: %w", err)
	}
	return ev.disagreements(ctx, tx)
}

// Sample looks, in one snapshot, for runs and jobs that do not agree now.
func (ev *Evidence) Sample(ctx context.Context, conn *pgx.Conn, product string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL search_path = "+product); err != nil {
			return err
		}
		return ev.disagreements(ctx, tx)
	})
}

// disagreements reads runs with river_job and with lines, in one statement. A
// state of ours stands for a set of River's.
func (ev *Evidence) disagreements(ctx context.Context, tx pgx.Tx) error {
	const disagreements = `
SELECT clock_timestamp(), format('run %s is %s (job %s); job %s is %s (of run %s)',
    coalesce(r.id::text, '-'), coalesce(r.state, '-'), coalesce(r.job_id::text, '-'),
    coalesce(j.id::text, '-'), coalesce(j.state::text, '-'), coalesce(j.args ->> 'run_id', '-'))
FROM runs AS r
FULL JOIN (SELECT * FROM river_job WHERE kind = 'run') AS j ON j.id = r.job_id
WHERE NOT coalesce(CASE
    WHEN r.id IS NULL THEN j.finalized_at IS NOT NULL
    WHEN r.id::text <> j.args ->> 'run_id' THEN false
    WHEN r.state = 'running' THEN j.state = 'running'
    WHEN r.state IN ('queued', 'retrying') THEN j.finalized_at IS NULL -- it may have been fetched, and not begun
    WHEN r.state IN ('waiting', 'skipped', 'missed') THEN j.id IS NULL
    WHEN j.id IS NULL THEN true
    WHEN r.state = 'succeeded' THEN j.state = 'completed'
    WHEN r.state = 'failed' THEN j.state IN ('discarded', 'cancelled')
    WHEN r.state = 'cancelled' THEN j.state = 'cancelled'
END, false)
UNION ALL
SELECT clock_timestamp(), format('run %s waits behind %s; run %s is in line behind %s',
    coalesce(r.id::text, '-'), coalesce(r.lock_key, '-'), coalesce(l.run_id::text, '-'), coalesce(l.lock_key, '-'))
FROM (SELECT * FROM runs WHERE state = 'waiting') AS r
FULL JOIN lines AS l ON l.run_id = r.id
WHERE (r.lock_key, r.line_rank, r.scheduled_for) IS DISTINCT FROM (l.lock_key, l.line_rank, l.scheduled_for)`
	rows, err := tx.Query(ctx, disagreements)
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Disagreement])
	ev.Disagreed = append(ev.Disagreed, found...)
	return err
}

// ReadExecutions adds the log of executions. epoch is the time at which the
// monotonic clock stood at zero.
func (ev *Evidence) ReadExecutions(log []byte, epoch time.Time) error {
	type line struct {
		Event        string          `json:"event"`
		Mono         int64           `json:"mono"`
		PID          int             `json:"pid"`
		Node         string          `json:"node"`
		RunID        string          `json:"run_id"`
		ScheduleID   string          `json:"schedule_id"`
		ScheduledFor time.Time       `json:"scheduled_for"`
		Execution    int             `json:"execution"`
		Attempt      int             `json:"attempt"`
		Policy       string          `json:"policy"`
		TaskName     string          `json:"task_name"`
		Args         json.RawMessage `json:"args"`
		TaskParams   json.RawMessage `json:"task_params"`
		Context      string          `json:"context"`
	}
	type start struct {
		run       string
		execution int
		pid       int
	}
	open := map[start]int{}
	lines := bufio.NewScanner(bytes.NewReader(log))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("read the log of executions: %q: %w", lines.Text(), err)
		}
		at, id := epoch.Add(time.Duration(l.Mono)), start{l.RunID, l.Execution, l.PID}
		if l.Event == "start" {
			if _, ok := open[id]; ok {
				return fmt.Errorf("execution %d of run %s began twice in process %d", l.Execution, l.RunID, l.PID)
			}
			open[id] = len(ev.Executions)
			var params struct {
				Stubborn bool `json:"stubborn"`
			}
			if err := json.Unmarshal(l.TaskParams, &params); err != nil {
				return err
			}
			ev.Executions = append(ev.Executions, Execution{
				RunID: l.RunID, ScheduleID: l.ScheduleID, Key: keyOf(l.Policy, l.TaskName, l.Args, l.TaskParams),
				Number: l.Execution, Attempt: l.Attempt, ScheduledFor: l.ScheduledFor,
				Node: l.Node, PID: l.PID, Stubborn: params.Stubborn, Start: at,
			})
			continue
		}
		i, ok := open[id]
		if !ok {
			return fmt.Errorf("execution %d of run %s ended without a beginning", l.Execution, l.RunID)
		}
		e := &ev.Executions[i]
		e.End, e.Outcome, e.Context = at, l.Event, l.Context
	}
	slices.SortStableFunc(ev.Executions, func(a, b Execution) int { return a.Start.Compare(b.Start) })
	return lines.Err()
}

// keyOf is what may not overlap: a task with its arguments, unless it may.
func keyOf(policy, task string, args, params json.RawMessage) string {
	if policy == "allow" {
		return ""
	}
	return task + " " + canonical(args) + " " + canonical(params)
}

// canonical writes JSON with sorted keys and without white space.
func canonical(raw json.RawMessage) string {
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return string(raw)
	}
	out, err := json.Marshal(value)
	if err != nil {
		return string(raw)
	}
	return string(out)
}
