package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverlog"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"riverbeat/internal/postgres"
)

// rawArgs is a job of the same size as ours, without history.
type rawArgs struct {
	RunID      string          `json:"run_id"`
	TaskName   string          `json:"task_name"`
	TaskParams json.RawMessage `json:"task_params"`
}

// Kind is not ours, so the history trigger passes over it.
func (rawArgs) Kind() string { return "raw" }

type rawWorker struct {
	river.WorkerDefaults[rawArgs]
}

// Work does what echo does, by River's own means: a line in the job's log, and an
// output.
func (rawWorker) Work(ctx context.Context, job *river.Job[rawArgs]) error {
	riverlog.Logger(ctx).InfoContext(ctx, "echo", "task_params", string(job.Args.TaskParams))
	return river.RecordOutput(ctx, job.Args.TaskParams)
}

func newLineHandler(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) }

// throughput compares working off n runs of each policy, history on and keys
// distinct, with working off n jobs in raw River, on the same database one after
// the other, in several rounds. Medians count: other work on the machine makes
// single figures differ by a quarter.
func (b *bench) throughput(ctx context.Context, n, rounds int) error {
	policies := []string{"allow", "skip", "queue"}
	took := map[string][]time.Duration{}
	for range rounds {
		if err := b.forgetStatements(ctx); err != nil {
			return err
		}
		raw, err := b.rawRiver(ctx, n)
		if err != nil {
			return err
		}
		took["raw"] = append(took["raw"], raw)
		if b.verbose {
			b.printf("raw River: %.2f s\n", raw.Seconds())
			if err := b.statements(ctx); err != nil {
				return err
			}
		}
		node, _, err := b.serve(ctx, "--queues", "default="+b.workers)
		if err != nil {
			return err
		}
		for _, b.policy = range policies {
			ours, err := b.ticks(ctx, n)
			if err != nil {
				return err
			}
			took[b.policy] = append(took[b.policy], ours)
			if b.verbose {
				b.printf("policy %s: %.2f s\n", b.policy, ours.Seconds())
				if err := b.statements(ctx); err != nil {
					return err
				}
			}
		}
		if err := b.stop(node); err != nil {
			return err
		}
	}
	raw := median(took["raw"])
	b.printf("%d each, medians of %d rounds\n", n, rounds)
	b.printf("raw River    %.2f s  %6.0f/s   inserted and worked\n", raw.Seconds(), float64(n)/raw.Seconds())
	for _, policy := range policies {
		ours := median(took[policy])
		b.printf("policy %-5s %.2f s  %6.0f/s   claimed, recorded and worked; ratio to raw River %.2f\n",
			policy, ours.Seconds(), float64(n)/ours.Seconds(), raw.Seconds()/ours.Seconds())
	}
	return nil
}

// median is the one in the middle, or the later of the two.
func median(times []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(times))[len(times)/2]
}

// warmUp is how many are worked off before those that are measured: each session
// plans its statements for tables that are new.
const warmUp = 3000

// ticks lets n ticks of the policy be due at once, in tables that are as good as
// empty, as those of raw River, and says how long it is until all are done.
func (b *bench) ticks(ctx context.Context, n int) (time.Duration, error) {
	for _, statement := range []string{"TRUNCATE river_job, runs, schedules CASCADE", "ANALYZE"} {
		if err := b.exec(ctx, statement); err != nil {
			return 0, err
		}
	}
	if _, err := b.addDue(ctx, warmUp, 5*time.Second); err != nil {
		return 0, err
	}
	began, err := b.addDue(ctx, n, 8*time.Second)
	if err != nil {
		return 0, err
	}
	if err := b.forgetStatements(ctx); err != nil {
		return 0, err
	}
	err = b.until(ctx, 5*time.Minute, func() (bool, error) {
		done, err := b.int(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'")
		return done >= warmUp+n, err
	})
	if err != nil {
		return 0, err
	}
	return b.seconds(ctx, "SELECT extract(epoch FROM max(finished_at) - $1)::float8 FROM runs", began)
}

// rawRiver inserts n jobs and works them at the same time, as our node does. The
// River is as it comes, in a schema of its own.
func (b *bench) rawRiver(ctx context.Context, n int) (time.Duration, error) {
	const schema = "raw_river"
	if err := b.exec(ctx, "DROP SCHEMA IF EXISTS "+schema+" CASCADE"); err != nil {
		return 0, err
	}
	if err := b.exec(ctx, "CREATE SCHEMA "+schema); err != nil {
		return 0, err
	}
	// A pool of its own: it remembers statements of the schema before.
	pool, err := postgres.NewPool(ctx, postgres.Config{URL: b.server.URL()})
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: schema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return 0, err
	}
	works := river.NewWorkers()
	river.AddWorker(works, rawWorker{})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Schema:        schema,
		Logger:        slog.New(slog.DiscardHandler),
		Queues:        map[string]river.QueueConfig{"default": {MaxWorkers: 200}},
		Workers:       works,
		FetchCooldown: 5 * time.Millisecond,
		Middleware:    []rivertype.Middleware{riverlog.NewMiddleware(newLineHandler, nil)},
	})
	if err != nil {
		return 0, err
	}
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	defer func() { _ = client.Stop(context.WithoutCancel(ctx)) }()
	if err := b.work(ctx, client, pool, warmUp); err != nil {
		return 0, err
	}
	began := time.Now().UTC()
	if err := b.work(ctx, client, pool, n); err != nil {
		return 0, err
	}
	return b.seconds(ctx, "SELECT extract(epoch FROM max(finalized_at) - $1)::float8 FROM raw_river.river_job", began)
}

// work inserts n jobs into raw River, in batches of the size of our claims, and
// waits until all are done.
func (b *bench) work(ctx context.Context, client *river.Client[pgx.Tx], pool *pgxpool.Pool, n int) error {
	const batch = 500
	for i := 0; i < n; i += batch {
		params := make([]river.InsertManyParams, min(batch, n-i))
		for k := range params {
			params[k] = river.InsertManyParams{Args: rawArgs{
				RunID: fmt.Sprintf("01939c3e-8800-7000-8000-%012d", i+k), TaskName: "echo",
				TaskParams: json.RawMessage(fmt.Sprintf(`{"i": %d}`, i+k)),
			}}
		}
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := client.InsertManyTx(ctx, tx, params)
			return err
		})
		if err != nil {
			return err
		}
	}
	return b.until(ctx, 5*time.Minute, func() (done bool, err error) {
		err = pool.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM raw_river.river_job WHERE state <> 'completed')").Scan(&done)
		return done, err
	})
}

// seconds reads how long something took since a time.
func (b *bench) seconds(ctx context.Context, sql string, since time.Time) (time.Duration, error) {
	var seconds float64
	err := b.pool.QueryRow(ctx, sql, since).Scan(&seconds)
	return time.Duration(seconds * float64(time.Second)), err
}
