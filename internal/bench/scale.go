package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// scale fills the tables and measures what runs per tick and per list, then reads
// beside ticks for so many minutes.
func (b *bench) scale(ctx context.Context, schedules, runs, minutes int) error {
	if err := b.fill(ctx, schedules, runs); err != nil {
		return err
	}
	if err := b.plans(ctx); err != nil {
		return err
	}
	_, base, err := b.serve(ctx)
	if err != nil {
		return err
	}
	if err := b.lists(ctx, base); err != nil {
		return err
	}
	return b.reads(ctx, base, runs, minutes)
}

func (b *bench) fill(ctx context.Context, schedules, runs int) error {
	began := time.Now()
	// Ten tasks, twenty categories, tags of very different frequency; one in
	// ten disabled; next runs spread over the coming day from an hour on.
	const addSchedules = `
INSERT INTO schedules (
    name, task_name, cron_expression, timezone, enabled, kwargs, category, tags, execution_policy, created_at
)
SELECT
    'schedule ' || i || ' of ' || (ARRAY['north', 'south', 'east', 'west'])[1 + i % 4],
    'task_' || i % 10,
    '0 * * * *', 'UTC', i % 10 <> 0,
    jsonb_build_object('i', i),
    'category_' || i % 20,
    jsonb_build_array('all', 'tag_' || i % 100, 'rare_' || i % 10000),
    (ARRAY['allow', 'skip', 'queue'])[1 + i % 3],
    statement_timestamp() - interval '1 second' * i
FROM generate_series(1, $1::int) AS i`
	const addClocks = `
INSERT INTO schedule_clocks (schedule_id, next_run_at, last_scheduled_for)
SELECT
    id,
    CASE WHEN enabled THEN statement_timestamp() + interval '1 hour' + random() * interval '1 day' END,
    statement_timestamp()
FROM schedules`
	// Of a trail of a million entries of one moment nobody wants to know.
	if err := b.exec(ctx, "ALTER TABLE schedules DISABLE TRIGGER schedules_audit_insert"); err != nil {
		return err
	}
	if err := b.exec(ctx, addSchedules, schedules); err != nil {
		return err
	}
	if err := b.exec(ctx, "ALTER TABLE schedules ENABLE TRIGGER schedules_audit_insert"); err != nil {
		return err
	}
	if err := b.exec(ctx, addClocks); err != nil {
		return err
	}
	var filling errgroup.Group
	filling.SetLimit(2)
	for week := range b.weeks {
		at := time.Now().Add(-time.Duration(week) * 7 * 24 * time.Hour)
		filling.Go(func() error { return b.fillWeek(ctx, at, schedules, runs/b.weeks+1) })
	}
	if err := filling.Wait(); err != nil {
		return err
	}
	return b.filled(ctx, began)
}

// fillWeek makes n runs in the week of a time, in their order, as they come about.
func (b *bench) fillWeek(ctx context.Context, at time.Time, schedules, n int) error {
	if err := b.exec(ctx, "SELECT create_runs_partition($1)", at); err != nil {
		return err
	}
	const addRuns = `
INSERT INTO runs (
    id, scheduled_for, schedule_id, schedule_name, task_name, category, tags, task_params,
    execution_policy, trigger, slot, state, enqueued_at, started_at, finished_at, attempt, execution, result
)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(i::text), 1, 3)
        || '8' || substr(md5(i::text), 4, 15))::uuid,
    at, s.id, s.name, s.task_name, s.category, s.tags, s.kwargs, s.execution_policy, 'schedule',
    '00000000-0000-0000-0000-000000000000',
    CASE WHEN i % 50 = 0 THEN 'failed' ELSE 'succeeded' END, at, at, at + interval '1 second', 1, 1, '{"ok": true}'
FROM (
    SELECT i, runs_week($1) + interval '1 millisecond' * (i::bigint * 600000000 / $2) AS at
    FROM generate_series(1, $2::int) AS i
) AS ticks
JOIN (SELECT row_number() OVER () AS place, * FROM schedules) AS s
    ON s.place = 1 + (ticks.i::bigint * 7919) % $3::int
ORDER BY ticks.i`
	return b.exec(ctx, addRuns, at, n, schedules)
}

func (b *bench) filled(ctx context.Context, began time.Time) error {
	if err := b.exec(ctx, "VACUUM ANALYZE"); err != nil {
		return err
	}
	// Or it would be written while what follows is measured.
	if err := b.exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	syscall.Sync()
	nSchedules, err := b.int(ctx, "SELECT count(*) FROM schedules")
	if err != nil {
		return err
	}
	nRuns, err := b.int(ctx, "SELECT count(*) FROM runs")
	if err != nil {
		return err
	}
	nPartitions, err := b.int(ctx, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'runs'::regclass")
	if err != nil {
		return err
	}
	b.printf("filled in %.0f s: %d schedules, %d runs in %d partitions\n", time.Since(began).Seconds(), nSchedules, nRuns, nPartitions)
	return nil
}

// plans prints the plan and the time of the idle claim, asked for many times
// on one connection as a Ticker does.
func (b *bench) plans(ctx context.Context) error {
	conn, err := b.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	claim, err := claimSQL()
	if err != nil {
		return err
	}
	const here = `
INSERT INTO installation (environment, system_identifier, database_oid)
SELECT 'default', c.system_identifier, d.oid
FROM pg_control_system() AS c, pg_database AS d
WHERE d.datname = current_database()`
	if err := b.exec(ctx, here); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS) "+claim)
	if err != nil {
		return err
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	b.printf("%s\n", strings.Join(plan, "\n"))
	const times = 500
	took := make([]time.Duration, times)
	for i := range took {
		began := time.Now()
		if _, err := conn.Exec(ctx, claim); err != nil {
			return err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	b.printf("idle claim, round trip: p50 %.3f ms, p99 %.3f ms\n", ms(took[times/2]), ms(took[times*99/100]))
	return nil
}

// claimSQL is the claim's statement as package postgres has it.
func claimSQL() (string, error) {
	queries, err := os.ReadFile("internal/postgres/query/clocks.sql")
	if err != nil {
		return "", err
	}
	_, claim, found := strings.Cut(string(queries), "-- name: ClaimClocks :many\n")
	claim, _, ended := strings.Cut(claim, ";\n")
	if !found || !ended {
		return "", errors.New("clocks.sql has no ClaimClocks")
	}
	return strings.ReplaceAll(claim, "@max_items", "500"), nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// lists asks the API for pages of schedules by each filter and order, and
// prints how long the first and the next page take.
func (b *bench) lists(ctx context.Context, base string) error {
	b.printf("%-64s %9s %9s\n", "GET /api/v1/schedules?…", "p50 ms", "p99 ms")
	for _, query := range []string{
		"", "category=category_7", "task_name=task_3", "enabled=false", "enabled=true",
		"tags=all", "tags=tag_7", "tags=rare_77", "tags=all&tags=tag_7", "q=north", "q=schedule+77", "q=nothing",
		"sort=name", "sort=-name", "sort=next_run_at", "sort=-next_run_at", "sort=created_at",
		"category=category_7&enabled=true&tags=all&sort=name", "category=category_7&sort=next_run_at",
		"task_name=task_3&q=east&sort=next_run_at", "tags=rare_77&sort=name", "page_size=1000",
	} {
		token, err := b.list(ctx, base, query)
		if err != nil {
			return err
		}
		if token == "" {
			continue
		}
		next := "page_token=" + url.QueryEscape(token)
		if query != "" {
			next = query + "&" + next
		}
		if _, err := b.list(ctx, base, next); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) list(ctx context.Context, base, query string) (next string, err error) {
	const times = 40
	took := make([]time.Duration, 0, times)
	for range times {
		began := time.Now()
		body, err := get(ctx, base+"/api/v1/schedules?"+query)
		if err != nil {
			return "", err
		}
		took = append(took, time.Since(began))
		var page struct {
			Next string `json:"next_page_token"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return "", err
		}
		next = page.Next
	}
	slices.Sort(took)
	shown := query
	if at := strings.Index(shown, "page_token="); at >= 0 {
		shown = shown[:at] + "page_token=…"
	}
	b.printf("%-64s %9.2f %9.2f\n", shown, ms(took[times/2]), ms(took[times-1]))
	return next, nil
}
