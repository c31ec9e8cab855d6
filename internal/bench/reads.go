package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// nothing is a request that costs nothing: what it takes is the machine's.
const nothing = "/healthz"

// reads asks for 50 lists and things a second, whether it has its answers or not,
// while 1,000 schedules tick once a minute, and prints how long each kind of request
// took.
func (b *bench) reads(ctx context.Context, base string, nRuns, minutes int) error {
	const perSecond, warmUpSeconds = 50, 180
	if err := b.addTicking(ctx); err != nil {
		return err
	}
	schedules, err := b.some(ctx, "SELECT id::text FROM schedules LIMIT 500")
	if err != nil {
		return err
	}
	percent := min(100, 100*5000/float64(nRuns))
	runs, err := b.some(ctx, "SELECT id::text FROM runs TABLESAMPLE SYSTEM ($1) LIMIT 500", percent)
	if err != nil {
		return err
	}
	if len(schedules) == 0 || len(runs) == 0 {
		return errors.New("there is nothing to ask for: -schedules and -runs are too few")
	}
	month := time.Now().Add(-30 * 24 * time.Hour).UTC().Format(time.RFC3339)
	kinds := []string{
		"/schedules", "/schedules?category=category_7&enabled=true", "/schedules?tags=rare_77", "/schedules?q=north", "/schedules?sort=next_run_at",
		"/schedules/{schedule}", "/schedules/{schedule}/next", "/schedules/{schedule}/runs", "/schedules/{schedule}/runs?state=failed",
		"/schedules/{schedule}/explain?at=" + month,
		"/runs", "/runs?state=failed", "/runs?state=failed&to=" + month, "/runs?state=skipped", "/runs?task_name=task_3", "/runs?task_name=task_3&state=failed",
		"/runs?category=category_7", "/runs?tags=rare_77", "/runs?trigger=manual&from=" + month, "/runs/{run}",
		"/task-definitions", "/audit", "/audit?object_type=schedule&actor=nobody", "/backfills", "/nodes", "/installation", nothing,
	}
	ask := func(i int) (kind string, one span, err error) {
		kind = kinds[i%len(kinds)]
		target := strings.NewReplacer("{schedule}", schedules[rand.IntN(len(schedules))], "{run}", runs[rand.IntN(len(runs))]).Replace(kind) //nolint:gosec // any will do
		if kind != nothing {
			target = "/api/v1" + target
		}
		one.from = time.Now()
		_, err = get(ctx, base+target)
		one.to = time.Now()
		return kind, one, err
	}
	// Each of the node's connections prepares each statement once, and plans some for all
	// partitions: those that only a burst needs are a while without some. By then all that
	// tick once a minute tick.
	if _, err := atRate(ctx, perSecond, warmUpSeconds*perSecond, ask); err != nil {
		return err
	}
	before, err := b.int(ctx, "SELECT count(*) FROM runs WHERE task_name = 'echo' AND state = 'succeeded'")
	if err != nil {
		return err
	}
	watch := watchStandstills()
	took, err := atRate(ctx, perSecond, minutes*60*perSecond, ask)
	still := watch()
	if err != nil {
		return err
	}
	after, err := b.int(ctx, "SELECT count(*) FROM runs WHERE task_name = 'echo' AND state = 'succeeded'")
	if err != nil {
		return err
	}
	b.printf("\n%d requests a second for %d min, beside %d runs a minute\n", perSecond, minutes, (after-before)/minutes)
	b.printf("the machine stood still %d times, %.0f ms in all: the last columns are of the requests that none of these met\n",
		len(still), ms(still.sum()))
	b.printf("%-64s %9s %9s %9s %9s %9s\n", "GET /api/v1…", "p50 ms", "p99 ms", "max ms", "p99 ms", "max ms")
	show := func(name string, list []span) {
		all, undisturbed := durations(list, nil), durations(list, still)
		b.printf("%-64s %9.2f %9.2f %9.2f %9.2f %9.2f\n", name,
			ms(all[len(all)/2]), ms(all[len(all)*99/100]), ms(all[len(all)-1]),
			ms(undisturbed[len(undisturbed)*99/100]), ms(undisturbed[len(undisturbed)-1]))
	}
	var total []span
	for _, kind := range kinds {
		if kind != nothing {
			total = append(total, took[kind]...)
			show(strings.ReplaceAll(kind, month, "…"), took[kind])
		}
	}
	show("all", total)
	show("beside them: "+nothing+", which asks nothing of Postgres", took[nothing])
	began := time.Now()
	if _, err := get(ctx, base+"/api/v1/load"); err != nil {
		return err
	}
	b.printf("%-64s %9.2f\n", "/load, the first in a minute", ms(time.Since(began)))
	return nil
}

// atRate asks n times, so often a second whether there are answers or not, and says how
// long each kind took.
func atRate(ctx context.Context, perSecond, n int, ask func(i int) (string, span, error)) (map[string][]span, error) {
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	var mu sync.Mutex
	took := map[string][]span{}
	var asking errgroup.Group
	for i := range n {
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), asking.Wait())
		case <-ticker.C:
		}
		asking.Go(func() error {
			kind, one, err := ask(i)
			mu.Lock()
			defer mu.Unlock()
			took[kind] = append(took[kind], one)
			return err
		})
	}
	return took, asking.Wait()
}

// span is from one time to another.
type span struct{ from, to time.Time }

// standstills are the times in which nothing went on, in their order.
type standstills []span

func (s standstills) sum() time.Duration {
	var d time.Duration
	for _, each := range s {
		d += each.to.Sub(each.from)
	}
	return d
}

func (s standstills) met(one span) bool {
	return slices.ContainsFunc(s, func(each span) bool { return each.from.Before(one.to) && one.from.Before(each.to) })
}

// durations are those of the requests that met none of the standstills, sorted.
func durations(list []span, still standstills) []time.Duration {
	var took []time.Duration
	for _, one := range list {
		if !still.met(one) {
			took = append(took, one.to.Sub(one.from))
		}
	}
	slices.Sort(took)
	return took
}

// watchStandstills watches until the returned function is called. Who has slept for
// a millisecond is woken within a few, whatever else there is to do; more than ten
// late were all, because the host of a virtual machine had no time for it.
func watchStandstills() func() standstills {
	const nap, late = time.Millisecond, 10 * time.Millisecond
	end, found := make(chan struct{}), make(chan standstills)
	go func() {
		runtime.LockOSThread()
		var still standstills
		for {
			select {
			case <-end:
				found <- still
				return
			default:
			}
			before := time.Now()
			time.Sleep(nap)
			if after := time.Now(); after.Sub(before) > nap+late {
				still = append(still, span{before, after})
			}
		}
	}()
	return func() standstills {
		close(end)
		return <-found
	}
}

// addTicking makes 1,000 schedules that tick once a minute, spread over its seconds.
func (b *bench) addTicking(ctx context.Context) error {
	const add = `
WITH made AS (
    INSERT INTO schedules (name, task_name, cron_expression, timezone, kwargs)
    SELECT 'ticks ' || i, 'echo', i % 60 || ' * * * * *', 'UTC', jsonb_build_object('i', i)
    FROM generate_series(1, 1000) AS i
    RETURNING id, cron_expression
)
INSERT INTO schedule_clocks (schedule_id, next_run_at, last_scheduled_for)
SELECT
    id,
    date_trunc('minute', statement_timestamp()) + interval '1 minute' + split_part(cron_expression, ' ', 1)::int * interval '1 second',
    statement_timestamp()
FROM made`
	return b.exec(ctx, add)
}

// some reads the texts of a query.
func (b *bench) some(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := b.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// get asks the node, and answers the body.
func get(ctx context.Context, address string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil) //nolint:gosec // the node that we have started
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r) //nolint:gosec // the same
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s %s", address, answer.Status, body)
	}
	return body, nil
}
