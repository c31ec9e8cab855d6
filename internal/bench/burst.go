package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// burst lets n schedules be due in the same second, on a database that was
// empty when it was analyzed, and measures from nominal time to the executor's
// first statement, by the database's clock.
func (b *bench) burst(ctx context.Context, n int) error {
	if _, _, err := b.serve(ctx, "--queues", "default="+b.workers); err != nil {
		return err
	}
	// Idle long enough that every prepared statement has met empty tables.
	if _, err := b.addDue(ctx, n, 15*time.Second); err != nil {
		return err
	}
	err := b.until(ctx, 3*time.Minute, func() (bool, error) {
		started, err := b.int(ctx, "SELECT count(*) FROM runs WHERE state = 'succeeded'")
		return started >= n, err
	})
	if err != nil {
		return err
	}
	const lateness = `
SELECT
    count(*),
    extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY enqueued_at - scheduled_for))::float8,
    extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY started_at - scheduled_for))::float8,
    extract(epoch FROM percentile_cont(0.99) WITHIN GROUP (ORDER BY started_at - scheduled_for))::float8,
    extract(epoch FROM max(started_at - scheduled_for))::float8,
    extract(epoch FROM max(finished_at - scheduled_for))::float8
FROM runs`
	var count int
	var claimed, p50, p99, last, finished float64
	if err := b.pool.QueryRow(ctx, lateness).Scan(&count, &claimed, &p50, &p99, &last, &finished); err != nil {
		return err
	}
	slow, err := b.slowStatements()
	if err != nil {
		return err
	}
	b.printf("burst of %d: nominal to claimed p50 %.3f s; nominal to started p50 %.3f s, p99 %.3f s, last %.3f s; last finished %.3f s; statements above %d ms: %d\n",
		count, claimed, p50, p99, last, finished, slowStatement, len(slow))
	for _, s := range slow {
		b.printf("  %s\n", s)
	}
	if !b.verbose {
		return nil
	}
	return b.statements(ctx)
}

// slowStatements are those of the nodes that Postgres logged as slow.
func (b *bench) slowStatements() ([]string, error) {
	log, err := os.ReadFile(filepath.Join(b.server.DataDir(), "postgres.log"))
	if err != nil {
		return nil, err
	}
	var slow []string
	for line := range bytes.Lines(log) {
		text := string(line)
		if strings.HasPrefix(text, "riverbeat: ") && strings.Contains(text, "duration:") {
			slow = append(slow, strings.TrimSpace(text[:min(len(text), 200)]))
		}
	}
	return slow, nil
}
