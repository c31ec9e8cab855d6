package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestEveryMigrationGoesUpAndDownAndUpAgain(t *testing.T) {
	t.Parallel()
	d := pgtest.Empty(t)
	ctx := t.Context()
	quiet := slog.New(slog.DiscardHandler)

	status, err := postgres.Status(ctx, d.Config())
	require.NoError(t, err)
	require.Zero(t, status.Version)
	require.Zero(t, status.RiverVersion)
	require.False(t, status.Current())

	require.NoError(t, postgres.MigrateUp(ctx, d.Config(), quiet))
	status, err = postgres.Status(ctx, d.Config())
	require.NoError(t, err)
	require.True(t, status.Current())
	before := objects(t, d)
	require.NotEmpty(t, before)

	for version := status.Latest - 1; version >= 0; version-- {
		require.NoError(t, postgres.MigrateDown(ctx, d.Config(), version, quiet))
		at, err := postgres.Status(ctx, d.Config())
		require.NoError(t, err)
		require.Equal(t, version, at.Version)
	}
	for _, object := range objects(t, d) {
		require.Contains(t, object, "river_", "only River's objects and the version table are left")
	}
	require.NoError(t, postgres.MigrateUp(ctx, d.Config(), quiet))
	require.Equal(t, before, objects(t, d))
	require.NoError(t, postgres.MigrateUp(ctx, d.Config(), quiet), "again, with nothing to do")

	require.Error(t, postgres.MigrateDown(ctx, d.Config(), status.Latest+1, quiet))
}

// objects lists what is in the schema, but for partitions and the version
// table of migrations.
func objects(t *testing.T, d *pgtest.Database) []string {
	t.Helper()
	rows, err := d.Pool.Query(t.Context(), `
SELECT relkind::text || ' ' || relname
FROM pg_class
WHERE relnamespace = to_regnamespace('riverbeat') AND relname !~ '^(schema_version|runs_p\d)'
UNION ALL
SELECT 'function ' || proname
FROM pg_proc
WHERE pronamespace = to_regnamespace('riverbeat')
UNION ALL
SELECT 'constraint ' || conname
FROM pg_constraint
WHERE connamespace = to_regnamespace('riverbeat') AND conrelid::regclass::text !~ 'river_|schema_version|runs_p'
UNION ALL
SELECT 'trigger ' || tgname
FROM pg_trigger
WHERE NOT tgisinternal AND tgrelid::regclass::text ~ 'river_job|runs$'
ORDER BY 1`)
	require.NoError(t, err)
	var list []string
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		list = append(list, name)
	}
	require.NoError(t, rows.Err())
	return list
}

func TestNodesThatStartTogetherMigrateOnce(t *testing.T) {
	t.Parallel()
	d := pgtest.Empty(t)
	const nodes = 4
	done := make(chan error, nodes)
	for range nodes {
		go func() {
			done <- postgres.MigrateUp(t.Context(), d.Config(), slog.New(slog.DiscardHandler))
		}()
	}
	for range nodes {
		require.NoError(t, <-done)
	}
	status, err := postgres.Status(t.Context(), d.Config())
	require.NoError(t, err)
	require.True(t, status.Current())
}

func TestATransactionThatIsLeftAloneEnds(t *testing.T) {
	t.Parallel()
	var most string
	require.NoError(t, pgtest.Pool(t).QueryRow(t.Context(), "SHOW idle_in_transaction_session_timeout").Scan(&most))
	require.Equal(t, "5s", most, "a frozen node holds no clock longer")
}

func TestTagsAreStrings(t *testing.T) {
	t.Parallel()
	for tags, ok := range map[string]bool{`[]`: true, `["a", "1"]`: true, `[1]`: false, `["a", null]`: false, `[["a"]]`: false} {
		_, err := pgtest.Pool(t).Exec(t.Context(), `
INSERT INTO schedules (name, task_name, cron_expression, timezone, enabled, tags)
VALUES ('tagged', 'echo', '@daily', 'UTC', false, $1::text::jsonb)`, tags)
		if ok {
			require.NoError(t, err, tags)
		} else {
			require.ErrorContains(t, err, "schedules_tags_are_strings", tags)
		}
	}
}

func TestPartitionsAreMadeOutsideTheTransactionThatNeedsThem(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	p := postgres.NewPartitions(d.DB)
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	calls := 0
	insert := func(tx *postgres.Tx) error {
		calls++
		if err := p.Need(tx, at, at.Add(time.Hour)); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `
INSERT INTO runs (id, scheduled_for, schedule_name, task_name, execution_policy, trigger, slot, state)
VALUES (gen_random_uuid(), $1, 'x', 'x', 'allow', 'manual', gen_random_uuid(), 'queued')`, at)
		return err
	}
	require.NoError(t, p.InTx(t.Context(), insert))
	require.Equal(t, 2, calls)
	require.NoError(t, p.InTx(t.Context(), insert))
	require.Equal(t, 3, calls, "it is remembered")

	_, err := d.Pool.Exec(t.Context(), "DROP TABLE runs_p20010129")
	require.NoError(t, err)
	require.NoError(t, p.InTx(t.Context(), insert), "and made again if it was dropped")

	_, err = d.Pool.Exec(t.Context(), "DROP TABLE runs_p20010129")
	require.NoError(t, err)
	_, err = d.Pool.Exec(t.Context(), "CREATE TABLE runs_p20010129 ()")
	require.NoError(t, err)
	calls = 0
	require.True(t, postgres.IsSealed(p.InTx(t.Context(), insert)), "it is somebody's own")
	require.Equal(t, 3, calls, "no endless tries")
}

// Requests that all wait for a lock leave connections to ticks.
func TestAtMost(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	cfg := d.Config()
	cfg.MaxConns = 3
	pool, err := postgres.NewPool(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	db := postgres.New(pool, pgtest.Schema)
	some := db.AtMost(2)

	inside, done := make(chan int, 3), make(chan struct{})
	var holding errgroup.Group
	for i, begin := range []func(context.Context, func(*postgres.Tx) error) error{some.InTx, some.Read, some.InTx} {
		holding.Go(func() error {
			return begin(t.Context(), func(*postgres.Tx) error {
				inside <- i
				<-done
				return nil
			})
		})
	}
	<-inside
	<-inside
	require.Equal(t, 2, some.Share().Most())
	require.Equal(t, 2, some.Share().Open())
	require.Eventually(t, func() bool { return some.Share().Waiting() == 1 }, 10*time.Second, time.Millisecond)
	require.Nil(t, db.Share())
	nothing := func(*postgres.Tx) error { return nil }
	require.NoError(t, db.InTx(t.Context(), nothing))
	require.NoError(t, db.Snapshot(t.Context(), nothing))
	require.Empty(t, inside)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, some.InTx(ctx, nothing), context.Canceled)
	require.ErrorIs(t, some.Read(ctx, nothing), context.Canceled)
	close(done)
	require.NoError(t, holding.Wait())
	for range 3 { // what fails lets the next one in, too
		require.ErrorIs(t, some.Read(t.Context(), func(*postgres.Tx) error { return io.EOF }), io.EOF)
	}
	require.NoError(t, some.InTx(t.Context(), nothing))
	require.Zero(t, some.Share().Open())
	require.Zero(t, some.Share().Waiting())
}

// What is said after a commit is said of what was committed, once.
func TestAfterCommit(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	var said []string
	say := func(what string) func(*postgres.Tx) error {
		return func(tx *postgres.Tx) error {
			tx.AfterCommit(func() { said = append(said, what) })
			return nil
		}
	}
	undone := func(what string) func(*postgres.Tx) error {
		return func(tx *postgres.Tx) error { return errors.Join(say(what)(tx), io.EOF) }
	}
	tries := 0
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		if tries++; tries == 1 {
			return errors.Join(say("the first try")(tx), &pgconn.PgError{Code: "40001"})
		}
		require.NoError(t, say("the transaction")(tx))
		require.NoError(t, tx.Savepoint(t.Context(), say("a savepoint")))
		require.ErrorIs(t, tx.Savepoint(t.Context(), func(tx *postgres.Tx) error {
			return errors.Join(tx.Savepoint(t.Context(), say("one in another that is undone")), io.EOF)
		}), io.EOF)
		require.NoError(t, d.DB.InTx(tx.Within(t.Context()), say("a use case within")))
		require.Empty(t, said, "not yet")
		return nil
	}))
	require.Equal(t, []string{"the transaction", "a savepoint", "a use case within"}, said)
	said = nil
	require.ErrorIs(t, d.DB.InTx(t.Context(), undone("undone")), io.EOF)
	require.NoError(t, d.DB.DryRun(t.Context(), func(ctx context.Context) error { return d.DB.InTx(ctx, say("dry")) }))
	require.NoError(t, d.DB.Read(t.Context(), say("read")))
	require.Empty(t, said)
}

// What only reads opens no transaction, and is a part of the one that it is within.
func TestRead(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	began := func(tx *postgres.Tx) (at time.Time) {
		require.NoError(t, tx.QueryRow(t.Context(), "SELECT transaction_timestamp()").Scan(&at))
		return at
	}
	require.NoError(t, d.DB.Read(t.Context(), func(tx *postgres.Tx) error {
		first := began(tx)
		require.NotEqual(t, first, began(tx))
		return nil
	}))
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		at := began(tx)
		return d.DB.Read(tx.Within(t.Context()), func(tx *postgres.Tx) error {
			require.Equal(t, at, began(tx))
			return nil
		})
	}))
	require.NoError(t, d.DB.Read(t.Context(), func(tx *postgres.Tx) error {
		require.Panics(t, func() { tx.Within(t.Context()) })
		return nil
	}))
	err := d.DB.Read(t.Context(), func(tx *postgres.Tx) error { _, err := tx.Run(t.Context(), uuid.New()); return err })
	require.Equal(t, riverbeat.NotFound, riverbeat.KindOf(err))
}

// JSON stays as it was written, and null is none.
func TestJSONIsReadAsItIs(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	require.NoError(t, d.DB.Read(t.Context(), func(tx *postgres.Tx) error {
		var kept, sorted, none json.RawMessage
		var parsed map[string]int
		const all = `SELECT '{"b":  1, "a": 2}'::json, '{"b":  1, "a": 2}'::jsonb, NULL::jsonb, '{"b": 1}'::jsonb`
		require.NoError(t, tx.QueryRow(t.Context(), all).Scan(&kept, &sorted, &none, &parsed))
		require.Equal(t, `{"b":  1, "a": 2}`, string(kept))
		require.Equal(t, `{"a": 2, "b": 1}`, string(sorted))
		require.Nil(t, none)
		require.Equal(t, map[string]int{"b": 1}, parsed)
		return nil
	}))
}
