package main

import (
	"context"
	"fmt"
	"time"
)

// nodes lets two nodes work n schedules of every minute, and holds that each
// tick is there once; with kill, one node is killed between two minutes.
func (b *bench) nodes(ctx context.Context, n, minutes int, kill bool) error {
	first, _, err := b.serve(ctx)
	if err != nil {
		return err
	}
	if _, _, err := b.serve(ctx); err != nil {
		return err
	}
	var start time.Time
	const nextMinute = "SELECT date_trunc('minute', clock_timestamp() + interval '3 seconds') + interval '1 minute'"
	if err := b.pool.QueryRow(ctx, nextMinute).Scan(&start); err != nil {
		return err
	}
	if err := b.addSchedules(ctx, n, "* * * * *", start); err != nil {
		return err
	}
	end := start.Add(time.Duration(minutes) * time.Minute)
	wait := func(until time.Time) error {
		return b.until(ctx, 10*time.Minute, func() (bool, error) {
			var past bool
			err := b.pool.QueryRow(ctx, "SELECT clock_timestamp() >= $1", until).Scan(&past)
			return past, err
		})
	}
	if kill {
		if err := wait(start.Add(90 * time.Second)); err != nil {
			return err
		}
		if err := first.Process.Kill(); err != nil {
			return err
		}
		b.printf("killed a node (-9) half a minute after the second tick\n")
	}
	// The last tick is that before end; give it its time.
	if err := wait(end.Add(-45 * time.Second)); err != nil {
		return err
	}
	const tally = `
SELECT
    count(*),
    count(DISTINCT (schedule_id, scheduled_for)),
    count(DISTINCT scheduled_for),
    count(*) FILTER (WHERE state = 'succeeded'),
    coalesce(extract(epoch FROM percentile_cont(0.99) WITHIN GROUP (ORDER BY started_at - scheduled_for)), 0)::float8
FROM runs
WHERE scheduled_for >= $1 AND scheduled_for < $2 AND trigger = 'schedule'`
	var rows, distinct, times, succeeded int
	var p99 float64
	if err := b.pool.QueryRow(ctx, tally, start, end).Scan(&rows, &distinct, &times, &succeeded, &p99); err != nil {
		return err
	}
	b.printf("two nodes, %d schedules of every minute, %d minutes: %d rows of ticks, %d distinct (schedule, tick), %d nominal times, %d succeeded; nominal to started p99 %.3f s\n",
		n, minutes, rows, distinct, times, succeeded, p99)
	if rows != n*minutes || distinct != rows {
		return fmt.Errorf("there should be %d, each once", n*minutes)
	}
	return nil
}
