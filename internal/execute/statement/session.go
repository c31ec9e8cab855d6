package statement

import (
	"context"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"

	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

const (
	// connectWithin is how long one host may take to let us in.
	connectWithin = 10 * time.Second
	// cancelWithin is how long the server may take to end a statement that was cancelled,
	// and endWithin how long the session, by whatever means.
	cancelWithin = 500 * time.Millisecond
	endWithin    = time.Second
)

// session is the connection of one attempt.
type session struct {
	cfg  *pgconn.Config
	conn *pgconn.PgConn
	// pid and began, its backend_start, are together nobody else's.
	pid, began string
	// settled is that the server has said how the statement has ended.
	settled bool
}

func open(ctx context.Context, settings riverbeat.Executor, run *task.Run) (*session, error) {
	cfg, err := config(ctx, settings, run)
	if err != nil {
		return nil, err
	}
	cfg.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelWithin}
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &session{cfg: cfg, conn: conn, settled: true}, nil
}

func (s *session) query(ctx context.Context, sql string, args ...string) ([][][]byte, error) {
	values := make([][]byte, len(args))
	for i, arg := range args {
		values[i] = []byte(arg)
	}
	result := s.conn.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	return result.Rows, result.Err
}

// end closes the session and waits until the server has, too, so that none of its locks
// and temporary tables meets the next attempt.
func (s *session) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
	defer cancel()
	if !s.settled {
		s.terminate(ctx)
	}
	conn, err := s.conn.Hijack()
	if err != nil { // it is being closed
		select {
		case <-s.conn.CleanupDone():
		case <-ctx.Done():
		}
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Conn.Close() })
	defer stop()
	conn.Frontend.Send(&pgproto3.Terminate{})
	if conn.Frontend.Flush() == nil {
		_, _ = io.Copy(io.Discard, conn.Conn)
	}
	_ = conn.Conn.Close()
}

// terminate ends the session from outside: a statement can catch its cancellation, and
// take no notice of who has left, but not this.
func (s *session) terminate(ctx context.Context) {
	const kill = `
		SELECT pg_catalog.pg_terminate_backend(pid)
		FROM pg_catalog.pg_stat_get_activity($1::integer)
		WHERE backend_start = $2::timestamptz`
	conn, err := pgconn.ConnectConfig(ctx, s.cfg)
	if err != nil {
		return
	}
	other := &session{cfg: s.cfg, conn: conn, settled: true}
	_, _ = other.query(ctx, kill, s.pid, s.began)
	_ = conn.Close(ctx)
}
