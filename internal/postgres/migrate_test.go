package postgres_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/migrations"
)

// further are the migrations that there are, and some more.
func further(t *testing.T, sql ...string) fs.FS {
	t.Helper()
	files := fstest.MapFS{}
	names, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	for _, name := range names {
		text, err := fs.ReadFile(migrations.FS, name)
		require.NoError(t, err)
		files[name] = &fstest.MapFile{Data: text}
	}
	for i, text := range sql {
		files[fmt.Sprintf("%03d_further.sql", len(names)+1+i)] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

func migrateTo(ctx context.Context, d *pgtest.Database, files fs.FS) error {
	return postgres.MigrateUpTo(ctx, d.Config(), files, slog.New(slog.DiscardHandler))
}

// begin opens a transaction on a connection of its own.
func begin(t *testing.T, d *pgtest.Database) pgx.Tx {
	t.Helper()
	tx, err := d.Pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

func TestAMigrationGivesWay(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	ctx := t.Context()
	report := begin(t, d)
	_, err := report.Exec(ctx, "SELECT count(*) FROM schedules")
	require.NoError(t, err)

	// The second one waits for the report: what is set for the first is forgotten by then.
	done := make(chan error, 1)
	files := further(t, "CREATE TABLE one ()", "ALTER TABLE schedules ADD COLUMN more text")
	go func() { done <- migrateTo(ctx, d, files) }()
	waits := func() (n int) {
		require.NoError(t, d.Pool.QueryRow(ctx, `
SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n))
		return n
	}
	for range 2 { // times that it tries
		require.Eventually(t, func() bool { return waits() > 0 }, 30*time.Second, time.Millisecond)
		asked := time.Now()
		_, err := d.Pool.Exec(ctx, "UPDATE schedules SET description = ''")
		require.NoError(t, err)
		require.Less(t, time.Since(asked), time.Second, "for so long it holds up others")
		require.Eventually(t, func() bool { return waits() == 0 }, 30*time.Second, time.Millisecond)
	}
	require.Empty(t, done)
	require.NoError(t, report.Rollback(ctx))
	require.NoError(t, <-done)
	_, err = d.Pool.Exec(ctx, "SELECT more FROM schedules")
	require.NoError(t, err)
}

// anIndex is how an index is made beside nodes that work: those who wait for it in a
// transaction of theirs are waited for, and what an attempt before has left is removed.
const anIndex = `---- tern: disable-tx ----
SET lock_timeout = 0;
DROP INDEX IF EXISTS schedules_more_idx;
CREATE INDEX CONCURRENTLY schedules_more_idx ON schedules (description)`

func TestAnIndexIsMadeByOneWhileOthersWaitForIt(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	const nodes = 4
	done := make(chan error, nodes)
	open := begin(t, d)
	_, err := open.Exec(t.Context(), "LOCK TABLE schedules IN ROW EXCLUSIVE MODE")
	require.NoError(t, err)
	files := further(t, anIndex)
	for range nodes {
		go func() { done <- migrateTo(t.Context(), d, files) }()
	}
	require.Eventually(t, func() bool { return waitsForAnIndex(t, d) }, 30*time.Second, 5*time.Millisecond)
	status, err := postgres.Status(t.Context(), d.Config())
	require.NoError(t, err, "nobody waits to be told how far it is")
	require.True(t, status.Current(), "it does not count before it is done")
	require.NoError(t, open.Rollback(t.Context()))
	for range nodes {
		require.NoError(t, <-done)
	}
	require.True(t, isValid(t, d))
}

func TestAMigrationThatDiedIsCompleted(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	ctx := t.Context()
	open := begin(t, d)
	_, err := open.Exec(ctx, "LOCK TABLE schedules IN ROW EXCLUSIVE MODE")
	require.NoError(t, err)
	done := make(chan error, 1)
	files := further(t, "CREATE TABLE one ()", anIndex)
	go func() { done <- migrateTo(ctx, d, files) }()
	require.Eventually(t, func() bool { return waitsForAnIndex(t, d) }, 30*time.Second, 5*time.Millisecond)
	_, err = d.Pool.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index WHERE datname = current_database()")
	require.NoError(t, err)
	require.Error(t, <-done)
	require.False(t, isValid(t, d))

	require.NoError(t, open.Rollback(ctx))
	require.NoError(t, migrateTo(ctx, d, files))
	require.True(t, isValid(t, d))
}

func waitsForAnIndex(t *testing.T, d *pgtest.Database) (waits bool) {
	t.Helper()
	require.NoError(t, d.Pool.QueryRow(t.Context(), `
SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE 'waiting%')`).Scan(&waits))
	return waits
}

func isValid(t *testing.T, d *pgtest.Database) (valid bool) {
	t.Helper()
	require.NoError(t, d.Pool.QueryRow(t.Context(), "SELECT indisvalid FROM pg_index WHERE indexrelid = 'schedules_more_idx'::regclass").Scan(&valid))
	return valid
}

func TestASchemaThatIsNewerThanTheProgram(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	ctx := t.Context()
	quiet := slog.New(slog.DiscardHandler)
	known, err := postgres.Status(ctx, d.Config())
	require.NoError(t, err)
	require.NoError(t, known.Check("riverbeat"))

	// It expands: this program works with it, and leaves it as it is.
	require.NoError(t, migrateTo(ctx, d, further(t, "ALTER TABLE schedules ADD COLUMN more text")))
	status, err := postgres.Status(ctx, d.Config())
	require.NoError(t, err)
	require.Equal(t, known.Latest+1, status.Version)
	require.False(t, status.Behind())
	require.NoError(t, status.Check("riverbeat"))
	require.NoError(t, postgres.MigrateUp(ctx, d.Config(), quiet))
	for name, err := range map[string]error{
		"down":  postgres.MigrateDown(ctx, d.Config(), known.Latest, quiet),
		"roles": postgres.GrantRoles(ctx, d.Config()),
	} {
		require.ErrorContains(t, err, "Use a newer one", name)
	}

	// It contracts: this program does not work with it any more.
	require.NoError(t, migrateTo(ctx, d, further(t,
		"ALTER TABLE schedules ADD COLUMN more text",
		fmt.Sprintf("ALTER TABLE schedules DROP COLUMN description CASCADE; UPDATE schema_version SET oldest_node = %d", known.Latest+1),
	)))
	status, err = postgres.Status(ctx, d.Config())
	require.NoError(t, err)
	require.True(t, status.TooNew())
	require.EqualError(t, status.Check("riverbeat"), fmt.Sprintf("The schema riverbeat is at version %d, and this program knows up to %d. Use a newer one, such as migrated it.", known.Latest+2, known.Latest))
}
