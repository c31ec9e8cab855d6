package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"riverbeat/internal/localpg"
	"riverbeat/internal/postgres"
)

// bench is a fresh, migrated, analyzed, private Postgres and the nodes on it.
type bench struct {
	out    io.Writer
	binary string
	server *localpg.Server
	pool   *pgxpool.Pool
	procs  []*exec.Cmd

	verbose bool
	weeks   int    // of history
	workers string // of a node's default queue
	policy  string // of the schedules: allow, skip, queue or mixed
}

// slowStatement is logged by Postgres, and counted by us, in milliseconds.
const slowStatement = 200

func (b *bench) open(ctx context.Context) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "./cmd/riverbeat") //nolint:gosec // our own program
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build riverbeat: %w", err)
	}
	var err error
	// As in production but for the disk: what is measured is the product.
	settings := map[string]string{
		"shared_buffers":             "1GB",
		"max_wal_size":               "8GB",
		"log_min_duration_statement": fmt.Sprint(slowStatement),
		"log_line_prefix":            "%a: ",
	}
	if b.verbose { // it costs us, who have statements within statements, more than raw River
		settings["shared_preload_libraries"] = "pg_stat_statements"
		settings["pg_stat_statements.track"] = "all"
		settings["pg_stat_statements.track_planning"] = "on"
	}
	b.server, err = localpg.Start(ctx, localpg.Config{Ephemeral: true, Settings: settings})
	if err != nil {
		return err
	}
	cfg := postgres.Config{URL: b.server.URL() + "&application_name=bench"}
	if err := postgres.MigrateUp(ctx, cfg, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if b.pool, err = postgres.NewPool(ctx, cfg); err != nil {
		return err
	}
	if b.verbose {
		if err := b.exec(ctx, "CREATE EXTENSION pg_stat_statements SCHEMA public"); err != nil {
			return err
		}
	}
	// Their partitions are what each statement has to pass over.
	const history = "SELECT count(create_runs_partition(now() - i * interval '1 week')) FROM generate_series(1, $1::int) AS i"
	if err := b.exec(ctx, history, b.weeks); err != nil {
		return err
	}
	return b.exec(ctx, "ANALYZE")
}

// forgetStatements makes statements begin anew.
func (b *bench) forgetStatements(ctx context.Context) error {
	if !b.verbose {
		return nil
	}
	return b.exec(ctx, "SELECT public.pg_stat_statements_reset()")
}

// statements prints what the database's time went to since they were forgotten.
func (b *bench) statements(ctx context.Context) error {
	rows, err := b.pool.Query(ctx, `
SELECT calls, total_exec_time, mean_exec_time, total_plan_time, left(regexp_replace(query, '\s+', ' ', 'g'), 90)
FROM public.pg_stat_statements
WHERE query !~ 'generate_series|pg_stat'
ORDER BY total_exec_time DESC
LIMIT 14`)
	if err != nil {
		return err
	}
	b.printf("%8s %10s %8s %8s  statement\n", "calls", "total ms", "mean", "planning")
	for rows.Next() {
		var calls int
		var total, mean, planning float64
		var text string
		if err := rows.Scan(&calls, &total, &mean, &planning, &text); err != nil {
			return err
		}
		b.printf("%8d %10.0f %8.2f %8.1f  %s\n", calls, total, mean, planning, text)
	}
	return rows.Err()
}

func (b *bench) close(ctx context.Context) {
	for _, p := range b.procs {
		_ = p.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range b.procs {
		_ = p.Wait()
	}
	if b.pool != nil {
		b.pool.Close()
	}
	if b.server != nil {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		_ = b.server.Stop(ctx)
	}
}

func (b *bench) printf(format string, args ...any) { _, _ = fmt.Fprintf(b.out, format, args...) }

func (b *bench) exec(ctx context.Context, sql string, args ...any) error {
	_, err := b.pool.Exec(ctx, sql, args...)
	return err
}

func (b *bench) int(ctx context.Context, sql string) (n int, err error) {
	err = b.pool.QueryRow(ctx, sql).Scan(&n)
	return n, err
}

// serve starts a node and waits until it is ready. It says the node's address.
func (b *bench) serve(ctx context.Context, args ...string) (*exec.Cmd, string, error) {
	// A port that was free a moment ago; the node's log would tell otherwise.
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, "", err
	}
	p := exec.Command(b.binary, append([]string{"serve", "--insecure-no-auth", "--listen", address}, args...)...) //nolint:gosec,noctx // our own program, ended by close
	p.Env = append(os.Environ(), "DATABASE_URL="+b.server.URL(), "RIVERBEAT_LOG_LEVEL=warn")                      //nolint:forbidigo // a child's
	p.Stdout, p.Stderr = os.Stderr, os.Stderr
	if err := p.Start(); err != nil {
		return nil, "", err
	}
	b.procs = append(b.procs, p)
	return p, "http://" + address, b.until(ctx, 30*time.Second, func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
		if err != nil {
			return false, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, nil //nolint:nilerr // not yet there
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
}

// stop ends a node that serve has started.
func (b *bench) stop(p *exec.Cmd) error {
	b.procs = slices.DeleteFunc(b.procs, func(o *exec.Cmd) bool { return o == p })
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.Wait()
}

// until asks again and again until ok, at most for the given time: not often,
// since what it asks costs the database more the more there is.
func (b *bench) until(ctx context.Context, most time.Duration, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.New("it did not come about in time")
		case <-tick.C:
		}
	}
}

// addDue makes n schedules that are due once, at the second that is so far from
// now, and says which that is, by the database's clock.
func (b *bench) addDue(ctx context.Context, n int, in time.Duration) (due time.Time, err error) {
	const then = "SELECT date_trunc('second', clock_timestamp()) + $1"
	if err := b.pool.QueryRow(ctx, then, in).Scan(&due); err != nil {
		return due, err
	}
	due = due.UTC()
	cron := fmt.Sprintf("%d %d %d %d %d *", due.Second(), due.Minute(), due.Hour(), due.Day(), int(due.Month()))
	return due, b.addSchedules(ctx, n, cron, due)
}

// addSchedules makes n schedules of echo with the given recurrence. Of policy
// mixed, every fourth is skip and every fourth queue; keys are their own.
func (b *bench) addSchedules(ctx context.Context, n int, cron string, next time.Time) error {
	const insert = `
WITH made AS (
    INSERT INTO schedules (name, task_name, cron_expression, timezone, kwargs, category, tags, execution_policy)
    SELECT
        format('bench_%s_%s', extract(epoch FROM $3::timestamptz), i), 'echo', $2, 'UTC', jsonb_build_object('i', i), 'bench', '["bench"]',
        CASE WHEN $4 <> 'mixed' THEN $4 WHEN i % 4 = 0 THEN 'skip' WHEN i % 4 = 1 THEN 'queue' ELSE 'allow' END
    FROM generate_series(1, $1::int) AS i
    RETURNING id
)
INSERT INTO schedule_clocks (schedule_id, next_run_at, last_scheduled_for)
SELECT id, $3::timestamptz, $3::timestamptz - interval '1 millisecond'
FROM made`
	if err := b.exec(ctx, insert, n, cron, next, b.policy); err != nil {
		return fmt.Errorf("make %d schedules: %w", n, err)
	}
	return nil
}
