package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// line lets three nodes work n ticks that share one key, policy queue: many
// schedules of every second with the same arguments. It holds that they ran one
// after another, in the order of their nominal times.
func (b *bench) line(ctx context.Context, n int) error {
	const schedules = 50
	for range 3 {
		if _, _, err := b.serve(ctx); err != nil {
			return err
		}
	}
	const insert = `
WITH made AS (
    INSERT INTO schedules (name, task_name, cron_expression, timezone, execution_policy, max_waiting, ends_at)
    SELECT 'line_' || i, 'echo', '* * * * * *', 'UTC', 'queue', 100000,
        date_trunc('second', clock_timestamp()) + make_interval(secs => 2.5 + $2)
    FROM generate_series(1, $1::int) AS i
    RETURNING id
)
INSERT INTO schedule_clocks (schedule_id, next_run_at, last_scheduled_for)
SELECT id, date_trunc('second', clock_timestamp()) + interval '3 seconds', date_trunc('second', clock_timestamp()) + interval '2 seconds'
FROM made`
	if err := b.exec(ctx, insert, schedules, n/schedules); err != nil {
		return err
	}
	began := time.Now()
	err := b.until(ctx, 10*time.Minute, func() (bool, error) {
		done, err := b.int(ctx, "SELECT count(*) FROM runs WHERE state = 'succeeded'")
		return done >= n, err
	})
	if err != nil {
		return err
	}
	const tally = `
WITH worked AS (
    SELECT
        scheduled_for,
        started_at,
        finished_at,
        lag(finished_at) OVER (ORDER BY started_at) AS before,
        max(scheduled_for) OVER (ORDER BY started_at) AS newest,
        row_number() OVER (ORDER BY started_at) AS place
    FROM runs
)
SELECT
    count(*),
    count(*) FILTER (WHERE started_at < before),
    count(*) FILTER (WHERE scheduled_for < newest),
    coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - before)) * 1000, 0)::float8,
    coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - before)) * 1000, 0)::float8
FROM worked`
	var rows, overlaps, overtakings int
	var median, p99 float64
	if err := b.pool.QueryRow(ctx, tally).Scan(&rows, &overlaps, &overtakings, &median, &p99); err != nil {
		return err
	}
	b.printf("three nodes, one key, policy queue: %d runs in %.0f s, %d overlap, %d were overtaken; hand-over median %.1f ms, p99 %.1f ms\n",
		rows, time.Since(began).Seconds(), overlaps, overtakings, median, p99)
	if overlaps > 0 || overtakings > 0 || rows != n {
		return errors.New("they should run one after another, in order")
	}
	return nil
}

// recovery kills n times the node that works a run, and measures how long it is
// until the run starts on another one.
func (b *bench) recovery(ctx context.Context, n int) error {
	works, _, err := b.serve(ctx)
	if err != nil {
		return err
	}
	var took []float64
	for range n {
		s, err := b.kill(ctx, &works)
		if err != nil {
			return err
		}
		took = append(took, s)
	}
	slices.Sort(took)
	b.printf("from kill -9 to the run's new start on another node, %d times: median %.2f s, maximum %.2f s\n", n, took[n/2], took[n-1])
	return nil
}

// kill starts a run on the node, starts another node, kills the first and
// answers after how many seconds the run starts on the other one, which is the
// working one then.
func (b *bench) kill(ctx context.Context, works **exec.Cmd) (float64, error) {
	var id string
	next, address, err := b.serve(ctx, "--role", "api")
	if err != nil {
		return 0, err
	}
	if id, err = b.sleepNow(ctx, address); err != nil {
		return 0, err
	}
	if err := next.Process.Kill(); err != nil {
		return 0, err
	}
	running := func(lives int) func() (bool, error) {
		return func() (bool, error) {
			count, err := b.int(ctx, fmt.Sprintf("SELECT count(*) FROM runs WHERE id = '%s' AND state = 'running' AND lives = %d", id, lives))
			return count == 1, err
		}
	}
	if err := b.until(ctx, time.Minute, running(0)); err != nil {
		return 0, err
	}
	if next, _, err = b.serve(ctx); err != nil {
		return 0, err
	}
	var killed time.Time
	if err := b.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&killed); err != nil {
		return 0, err
	}
	if err := (*works).Process.Kill(); err != nil {
		return 0, err
	}
	*works = next
	if err := b.until(ctx, time.Minute, running(1)); err != nil {
		return 0, err
	}
	var took float64
	if err := b.pool.QueryRow(ctx, "SELECT extract(epoch FROM started_at - $2)::float8 FROM runs WHERE id = $1", id, killed).Scan(&took); err != nil {
		return 0, err
	}
	return took, b.exec(ctx, "UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE args ->> 'run_id' = $1 AND finalized_at IS NULL", id)
}

// sleepNow makes a schedule that sleeps, and runs it.
func (b *bench) sleepNow(ctx context.Context, address string) (id string, err error) {
	post := func(path, body string) (id string, err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/api/v1"+path, strings.NewReader(body))
		if err != nil {
			return "", err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		var made struct{ ID string }
		err = json.NewDecoder(resp.Body).Decode(&made)
		if resp.StatusCode != http.StatusCreated {
			err = errors.Join(err, fmt.Errorf("POST %s: %s", path, resp.Status))
		}
		return made.ID, errors.Join(err, resp.Body.Close())
	}
	schedule, err := post("/schedules", `{"task_name": "sleep", "task_params": {"seconds": 600}, "cron_expression": "@yearly", "execution_policy": "allow"}`)
	if err != nil {
		return "", err
	}
	return post("/schedules/"+schedule+"/run", "{}")
}
