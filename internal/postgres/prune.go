package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// WeekState is how far a week of runs is on its way out. It goes only forward.
type WeekState string

// The states of a week. Why each is there: DESIGN.md, "Dropping a week".
const (
	WeekOpen     WeekState = "open"     // as any other
	WeekSealed   WeekState = "sealed"   // nothing begins in it any more; what goes on may end
	WeekLeaving  WeekState = "leaving"  // who begins to read now does not see it; who read it before does
	WeekDetached WeekState = "detached" // a table by itself, to be dropped
)

// Week is a partition of runs, or what one has become on its way out.
type Week struct {
	Table       string
	From, Until time.Time // of the nominal times of its runs
	State       WeekState
	Sealed      bool  // it is dropped by us; else what leaves or is detached is somebody's own
	Runs        int64 // by the statistics; -1: not known
	Bytes       int64 // with its indexes
}

// Weeks reads the weeks of runs, the oldest first: all partitions, and what was detached.
func (tx *Tx) Weeks(ctx context.Context) ([]Week, error) {
	const weeks = `
SELECT "table", "from", "from" + interval '168 hours' AS until, state, sealed, runs, bytes
FROM (
    SELECT
        c.relname::text AS "table",
        to_date(substr(c.relname, 7), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS "from",
        CASE
            WHEN i.inhrelid IS NULL THEN 'detached'
            WHEN i.inhdetachpending THEN 'leaving'
            WHEN s.oid IS NOT NULL THEN 'sealed'
            ELSE 'open'
        END AS state,
        s.oid IS NOT NULL AS sealed,
        c.reltuples::bigint AS runs,
        coalesce(pg_total_relation_size(c.oid), 0) AS bytes
    FROM pg_class AS c
    LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND i.inhparent = 'runs'::regclass
    LEFT JOIN pg_trigger AS s ON s.tgrelid = c.oid AND s.tgname = 'riverbeat_sealed'
    WHERE c.relnamespace = current_schema()::regnamespace
        AND c.relkind = 'r'
        AND c.relname ~ '^runs_p\d{8}$'
) AS week
ORDER BY "from"`
	rows, err := tx.Query(ctx, weeks)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Week])
	for i := range list {
		list[i].From, list[i].Until = list[i].From.UTC(), list[i].Until.UTC()
	}
	return list, err
}

// WeekRuns is what there is in a week.
type WeekRuns struct {
	Runs         int64
	Unended      int64
	FirstUnended *time.Time // the nominal time of the oldest that has not ended
	LastChange   *time.Time // when a run was last written down, or ended
}

const unended = "('waiting', 'queued', 'running', 'retrying')"

// oneProcessor has what tx reads from now on read on one: the others are for ticks.
func (tx *Tx) oneProcessor(ctx context.Context) error {
	_, err := tx.Exec(ctx, "SET LOCAL max_parallel_workers_per_gather = 0")
	return err
}

// LookAtWeek reads all runs of a week, on one processor.
func (tx *Tx) LookAtWeek(ctx context.Context, w Week) (WeekRuns, error) {
	if err := tx.oneProcessor(ctx); err != nil {
		return WeekRuns{}, err
	}
	look := `
SELECT
    count(*) AS runs,
    count(*) FILTER (WHERE state IN ` + unended + `) AS unended,
    min(scheduled_for) FILTER (WHERE state IN ` + unended + `) AS first_unended,
    max(greatest(created_at, finished_at)) AS last_change
FROM ` + w.name()
	rows, err := tx.Query(ctx, look)
	if err != nil {
		return WeekRuns{}, err
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[WeekRuns])
	found.FirstUnended, found.LastChange = utc(found.FirstUnended), utc(found.LastChange)
	return found, err
}

// WeekChangedSince tells whether a run of the week was written down, or ended, at a time
// or after it. It reads no further than to the first, on one processor.
func (tx *Tx) WeekChangedSince(ctx context.Context, w Week, at time.Time) (changed bool, err error) {
	if err := tx.oneProcessor(ctx); err != nil {
		return false, err
	}
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+w.name()+" WHERE greatest(created_at, finished_at) >= $1)", at).Scan(&changed)
	return changed, err
}

// WhoAwaitsWeek says who has runs of the week yet to write down: a backfill, or a schedule
// that has ticks of then to decide. "" is nobody.
func (tx *Tx) WhoAwaitsWeek(ctx context.Context, w Week) (who string, err error) {
	const awaits = `
SELECT who
FROM (
    (SELECT 'the backfill ' || id AS who
    FROM backfills
    WHERE state = 'running' AND coalesce(decided_until, from_time) < @until AND until_time > @from
    LIMIT 1)
    UNION ALL
    (SELECT 'the schedule ' || schedule_id FROM schedule_clocks WHERE due_at < @until ORDER BY due_at LIMIT 1)
    UNION ALL
    (SELECT 'the schedule ' || schedule_id
    FROM schedule_clocks
    WHERE retry_at IS NOT NULL -- it is stopped; when it goes on, its ticks of then run, or are a gap
        AND last_scheduled_for < @until
    LIMIT 1)
) AS awaiting
LIMIT 1`
	err = tx.QueryRow(ctx, awaits, pgx.StrictNamedArgs{"from": w.From, "until": w.Until}).Scan(&who)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return who, err
}

// RunsKept reads how long runs are kept: the longest that a node of the last day wants; 0
// is for ever. known is whether there is one.
func (tx *Tx) RunsKept(ctx context.Context) (keep time.Duration, known bool, err error) {
	row, err := tx.q.RunsKept(ctx, tx.Tx)
	if row.ForEver {
		row.Seconds = 0
	}
	return time.Duration(row.Seconds) * time.Second, row.Known, err
}

func (w Week) name() string { return pgx.Identifier{w.Table}.Sanitize() }

const (
	// pruneClass is the class of the advisory lock of who prunes.
	pruneClass = "prune"
	codePruned = "runs_pruned"
	// sealWait is how long sealing a week waits for a lock, and so what the end of a run
	// may wait for it; sealTries is how often it tries, with sealPause in between.
	sealWait  = 20 * time.Millisecond
	sealTries = 50
	sealPause = 100 * time.Millisecond
	// leaveWait is how long a week that leaves waits for those who read it, and so what a
	// new partition may wait for it. An autovacuum makes way after a second.
	leaveWait = 2 * time.Second
)

// Pruning is the session of who drops weeks of runs. There is one at a time. It has a
// connection of its own, since what it does is no part of a transaction. It is used by one
// goroutine.
type Pruning struct {
	conn *pgx.Conn
	db   *DB
}

// OpenPruning begins to prune. It fails when somebody else does (IsPruning), on hold as
// AtHome does, and when the login of the database may change no table (Forbidden).
func (db *DB) OpenPruning(ctx context.Context) (*Pruning, error) {
	pool := db.Pool()
	if pool == nil {
		return nil, errors.New("pruning needs a pool, not a transaction")
	}
	cc := pool.Config().ConnConfig.Copy()
	for name, value := range map[string]string{
		"application_name":     "riverbeat prune",
		"idle_session_timeout": SessionLife.String(), // of a process that is frozen or cut off
		"tcp_user_timeout":     SessionLife.String(),
		"lock_timeout":         leaveWait.String(),
	} {
		cc.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, translate(err)
	}
	p := &Pruning{conn, db}
	if err := p.take(ctx); err != nil {
		p.Close(ctx)
		return nil, translate(err)
	}
	return p, nil
}

func (p *Pruning) take(ctx context.Context) error {
	if err := keepsSettings(ctx, p.conn); err != nil {
		return err
	}
	q := dbq.New()
	if err := atHome(ctx, q, p.conn, p.db.environment); err != nil {
		return err
	}
	const owns = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'runs'::regclass"
	var owner bool
	if err := p.conn.QueryRow(ctx, owns).Scan(&owner); err != nil {
		return err
	}
	if !owner {
		return riverbeat.Errorf(riverbeat.Forbidden, "not_owner",
			"The login of this database may not change its tables. Old runs are dropped by 'riverbeat runs prune', said by the owner.")
	}
	locked, err := q.TryLock(ctx, p.conn, riverbeat.AdvisoryKey(p.db.schema, pruneClass, ""))
	if err == nil && !locked {
		err = riverbeat.Errorf(riverbeat.Conflict, codePruned, "Somebody else is pruning the runs at this moment.")
	}
	return err
}

// IsPruning tells whether err is that of somebody else who prunes.
func IsPruning(err error) bool {
	e, ok := errors.AsType[*riverbeat.Error](err)
	return ok && e.Code == codePruned
}

// InTx runs fn in a transaction of this session, which else would be idle meanwhile and
// end.
func (p *Pruning) InTx(ctx context.Context, fn func(tx *Tx) error) error {
	return translate(pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error { return fn(p.db.tx(tx)) }))
}

// Seal sees to it that nothing begins in a week any more: no run is added and none that
// has ended begins anew. Those that go on may end. done is false if there always was
// somebody who wrote there for long.
func (p *Pruning) Seal(ctx context.Context, w Week) (done bool, err error) {
	seal := "CREATE OR REPLACE TRIGGER riverbeat_sealed BEFORE INSERT OR UPDATE ON " + w.name() + " FOR EACH ROW EXECUTE FUNCTION refuse_run()"
	for range sealTries {
		done, err = unlessBusy(pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", sealWait.String()); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, seal)
			return err
		}))
		if done || err != nil {
			return done, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(sealPause):
		}
	}
	return false, nil
}

// Detach takes a sealed week out of runs. done is false if somebody still reads it: call
// it again, later.
func (p *Pruning) Detach(ctx context.Context, w Week) (done bool, err error) {
	how := " CONCURRENTLY"
	if w.State == WeekLeaving {
		how = " FINALIZE"
	}
	_, err = p.conn.Exec(ctx, "ALTER TABLE runs DETACH PARTITION "+w.name()+how)
	return unlessBusy(err)
}

// Drop drops a week that is detached. done is as of Detach.
func (p *Pruning) Drop(ctx context.Context, w Week) (done bool, err error) {
	_, err = p.conn.Exec(ctx, "DROP TABLE "+w.name())
	return unlessBusy(err)
}

func unlessBusy(err error) (done bool, _ error) {
	if IsTimeout(err) {
		return false, nil
	}
	return err == nil, err
}

// Close ends the session, and lets others prune: from now on, and not when the server has
// noticed.
func (p *Pruning) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = p.conn.Exec(ctx, "SELECT pg_advisory_unlock_all()")
	_ = p.conn.Close(ctx)
}

// String is how people call a week: by its Monday.
func (w Week) String() string { return fmt.Sprintf("the week of %s", w.From.Format(time.DateOnly)) }
