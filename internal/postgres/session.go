package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// SessionLife is how long the server keeps a session that says nothing, and
// with it the locks of a node that is frozen or cut off.
const SessionLife = 5 * time.Second

// The classes of advisory locks that a session holds: of its node, and of the
// lock keys that run there.
const (
	nodeClass    = "node"
	executeClass = "execute"
)

// Node is a process that works.
type Node struct {
	ID            uuid.UUID
	Host          string
	Version       string
	TZDataVersion string
	Tasks         []string       // registered names
	Commands      []string       // configured names
	Queues        map[string]int // workers of each
	RunsKept      time.Duration  // how long it wants runs to be kept, whole seconds; 0: for ever
}

// Session is the one database session by which a node is known to live: while
// it stands, it holds the lock of the node, and of each lock key that runs
// there. It has a connection of its own. It is used by one goroutine.
type Session struct {
	conn *pgx.Conn
	q    *dbq.Queries
	db   *DB
	node *Node
}

// OpenSession opens the session of a node and takes its lock. A former session
// of the same node that the server has not given up yet is ended. It fails as
// AtHome does when the node is on hold.
func (db *DB) OpenSession(ctx context.Context, n *Node) (*Session, error) {
	pool := db.Pool()
	if pool == nil {
		return nil, errors.New("a session needs a pool, not a transaction")
	}
	cc := pool.Config().ConnConfig.Copy()
	for name, value := range map[string]string{
		"application_name":     "riverbeat session " + n.ID.String(),
		"idle_session_timeout": SessionLife.String(),
		"tcp_user_timeout":     SessionLife.String(),
		// A session that waits for a lock does not beat.
		"lock_timeout": "1s",
	} {
		cc.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, translate(err)
	}
	s := &Session{conn: conn, q: dbq.New(), db: db, node: n}
	if err := s.take(ctx); err != nil {
		s.Close(ctx)
		return nil, translate(err)
	}
	return s, nil
}

func (s *Session) take(ctx context.Context) error {
	if err := keepsSettings(ctx, s.conn); err != nil {
		return err
	}
	if err := s.isSession(ctx); err != nil {
		return err
	}
	if err := s.atHome(ctx); err != nil {
		return err
	}
	// A connection that was cut is noticed late by the server, which lets its
	// session hold the lock until then.
	const endFormerSessions = `
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE application_name = current_setting('application_name')
    AND datname = current_database()
    AND pid <> pg_backend_pid()`
	key := riverbeat.AdvisoryKey(s.db.schema, nodeClass, s.node.ID.String())
	for {
		locked, err := s.q.TryLock(ctx, s.conn, key)
		if err != nil || locked {
			return err
		}
		if _, err := s.conn.Exec(ctx, endFormerSessions); err != nil {
			return fmt.Errorf("end the former session: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the lock of the node is taken: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// isSession fails when the connection goes through a pooler that gives each
// transaction another server session: locks would be held by nobody we know.
func (s *Session) isSession(ctx context.Context) error {
	const backend = "SELECT pg_backend_pid()"
	var mine, other uint32
	if err := s.conn.QueryRow(ctx, backend).Scan(&mine); err != nil || mine == s.conn.PgConn().PID() {
		return err
	}
	// A pooler answers. If it pools sessions, this one is ours while we are here.
	conn, err := pgx.ConnectConfig(ctx, s.conn.Config())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, backend).Scan(&other); err != nil || other != mine {
		return err
	}
	return pooled(nil)
}

func (s *Session) atHome(ctx context.Context) error {
	return atHome(ctx, s.q, s.conn, s.db.environment)
}

// Beat notes that the node lives, and answers the database's time. It fails as
// AtHome does when the node has to go on hold.
func (s *Session) Beat(ctx context.Context) (time.Time, error) {
	if err := s.atHome(ctx); err != nil {
		return time.Time{}, err
	}
	n := s.node
	return s.q.Beat(ctx, s.conn, &dbq.BeatParams{
		ID: n.ID, Host: n.Host, Version: n.Version, TzdataVersion: n.TZDataVersion,
		Tasks: mustJSON(append([]string{}, n.Tasks...)), Commands: mustJSON(append([]string{}, n.Commands...)), Queues: mustJSON(n.Queues),
		RunsKeptS: int64(n.RunsKept / time.Second),
	})
}

// TryLocks takes the execute locks of lock keys, as far as no other session
// holds them, and says which it got. Locks of one session nest: the caller
// sees to it that a key is taken once.
func (s *Session) TryLocks(ctx context.Context, keys []string) ([]bool, error) {
	return s.q.TryLocks(ctx, s.conn, s.executeLocks(keys))
}

// TrySomeLocks takes the execute locks of most of the lock keys that no other session holds,
// or fewer if there are fewer, and answers which.
func (s *Session) TrySomeLocks(ctx context.Context, keys []string, most int) ([]string, error) {
	locks := s.executeLocks(keys)
	taken, err := s.q.TrySomeLocks(ctx, s.conn, &dbq.TrySomeLocksParams{Keys: locks, Most: int32(most)}) //nolint:gosec // a batch
	if err != nil {
		return nil, err
	}
	names := make([]string, len(taken))
	for i, lock := range taken {
		names[i] = keys[slices.Index(locks, lock)]
	}
	return names, nil
}

// Unlock gives execute locks back.
func (s *Session) Unlock(ctx context.Context, keys []string) error {
	return s.q.Unlock(ctx, s.conn, s.executeLocks(keys))
}

func (s *Session) executeLocks(keys []string) []int64 {
	return advisoryLocks(s.db.schema, executeClass, keys)
}

// RunningJobs reads all running jobs of runs.
func (s *Session) RunningJobs(ctx context.Context) ([]RunningJob, error) {
	return runningJobs(ctx, s.q, s.conn)
}

// Wait returns nil when ctx ends, and an error as soon as the session has
// ended.
func (s *Session) Wait(ctx context.Context) error {
	for {
		_, err := s.conn.WaitForNotification(ctx)
		if ctx.Err() != nil && !s.conn.IsClosed() {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Leave takes the node off the list of nodes and ends the session.
func (s *Session) Leave(ctx context.Context) error {
	err := s.q.DeleteNode(ctx, s.conn, s.node.ID)
	s.Close(ctx)
	return err
}

// Close ends the session, and with it all its locks.
func (s *Session) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// ForgetNodes takes nodes off the list that were last seen a day ago.
func (tx *Tx) ForgetNodes(ctx context.Context) error { return tx.q.ForgetNodes(ctx, tx.Tx) }

// RunningJob is a job that is being worked, by what River's table says.
type RunningJob struct {
	ID              int64
	Node            string     // whose attempt it is; "" if of none
	FetchedAt       time.Time  // by that node; zero if it is not known
	LastSeen        *time.Time // of the node; nil: it is not on the list
	CancelRequested bool
}

// RunningJobs reads all running jobs of runs.
func (tx *Tx) RunningJobs(ctx context.Context) ([]RunningJob, error) {
	return runningJobs(ctx, tx.q, tx.Tx)
}

func runningJobs(ctx context.Context, q *dbq.Queries, conn dbq.DBTX) ([]RunningJob, error) {
	rows, err := q.RunningJobs(ctx, conn)
	jobs := make([]RunningJob, len(rows))
	for i, row := range rows {
		jobs[i] = RunningJob{ID: row.ID, Node: row.Node, LastSeen: row.LastSeenAt, CancelRequested: row.CancelRequested}
		if row.AttemptedAt != nil {
			jobs[i].FetchedAt = *row.AttemptedAt
		}
	}
	return jobs, err
}

// LockLostNode tells whether the node has no session, and keeps it from
// getting one until this transaction has ended.
func (tx *Tx) LockLostNode(ctx context.Context, node string) (bool, error) {
	return tx.q.TryLockNodeShared(ctx, tx.Tx, riverbeat.AdvisoryKey(tx.schema, nodeClass, node))
}

// LostJob is a running job that nobody will report the end of, locked by this
// transaction.
type LostJob struct {
	ID              int64
	Key             string         // the lock key; "" if there is none
	Run             *riverbeat.Run // whose job it is; nil: of none any more
	Attempt         int            // the one that was lost, from 1
	MaxAttempts     int
	CancelRequested bool
}

// lostJobWait bounds each wait for a lock of a lost job, for others are lost, too.
const lostJobWait = 500 * time.Millisecond

// LockLostJob locks the admission of the job's key, the job and its run. It is
// nil if the job is not being worked by the node any more. It fails (IsTimeout)
// when somebody else has one of them for long.
func (tx *Tx) LockLostJob(ctx context.Context, id int64, node string) (*LostJob, error) {
	if err := tx.WaitAtMost(ctx, lostJobWait); err != nil {
		return nil, err
	}
	of, err := tx.q.JobOfRun(ctx, tx.Tx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // it is gone, which is no error
	}
	if err != nil {
		return nil, err
	}
	lost := &LostJob{ID: id, Key: of.LockKey}
	if lost.Key != "" {
		if err := tx.LockKeys(ctx, []string{lost.Key}); err != nil {
			return nil, err
		}
	}
	job, err := tx.q.LockRunningJob(ctx, tx.Tx, &dbq.LockRunningJobParams{ID: id, Node: node})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // it has ended meanwhile
	}
	if err != nil {
		return nil, err
	}
	lost.Attempt, lost.MaxAttempts, lost.CancelRequested = int(job.Attempt), int(job.MaxAttempts), job.CancelRequested
	runID, err := uuid.Parse(of.RunID)
	if err != nil {
		return lost, nil //nolint:nilerr // not of a run of ours
	}
	at, ok := riverbeat.RunTime(runID)
	if !ok {
		return lost, nil
	}
	row, err := tx.q.LockRunOfJob(ctx, tx.Tx, &dbq.LockRunOfJobParams{ScheduledFor: at, ID: runID, JobID: id})
	if errors.Is(err, pgx.ErrNoRows) {
		return lost, nil
	}
	if err != nil {
		return nil, err
	}
	lost.Run, err = run(row)
	return lost, err
}

// FinalizeJob ends a running job in a final state of River's. said is what the
// history trigger is told, by the keys that an attempt reports by, and may be
// nil; cause is kept as the error of the attempt, if it is not "". Unlike the
// report of an attempt (Config.Node) it may end the job of another node.
func (tx *Tx) FinalizeJob(ctx context.Context, id int64, state, cause string, said map[string]any) error {
	if said == nil {
		said = map[string]any{}
	}
	if _, err := tx.Exec(ctx, "SELECT set_config('riverbeat.node', '', true)"); err != nil {
		return err
	}
	return tx.q.FinalizeJob(ctx, tx.Tx, &dbq.FinalizeJobParams{
		ID: id, State: dbq.RiverJobState(state), Error: cause, Metadata: mustJSON(said),
	})
}

// DetachJob leaves a run without a job until it gets the next one, in this
// transaction.
func (tx *Tx) DetachJob(ctx context.Context, r *riverbeat.Run) error {
	return tx.q.DetachJob(ctx, tx.Tx, &dbq.DetachJobParams{ScheduledFor: r.ScheduledFor, ID: r.ID})
}

// LoseLife writes down that the run has lost its job with the node.
func (tx *Tx) LoseLife(ctx context.Context, r *riverbeat.Run) error {
	return tx.q.LoseLife(ctx, tx.Tx, &dbq.LoseLifeParams{ScheduledFor: r.ScheduledFor, ID: r.ID})
}

// StartNextLife writes down that the run of a lost job goes on under r.JobID,
// for the reason.
func (tx *Tx) StartNextLife(ctx context.Context, r *riverbeat.Run, lost *LostJob, reason riverbeat.Reason) error {
	return tx.q.StartNextLife(ctx, tx.Tx, &dbq.StartNextLifeParams{
		ScheduledFor: r.ScheduledFor, ID: r.ID, JobID: *r.JobID, Reason: orNull(reason),
		AttemptsUsed: int32(lost.Attempt - 1), //nolint:gosec // River's smallint
	})
}
