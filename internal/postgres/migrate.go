package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/tern/v2/migrate"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"riverbeat/internal/riverbeat"
	"riverbeat/migrations"
)

// minVersion is the oldest Postgres that has what the migrations use.
const minVersion = 150000

// lockWait is how long a migration waits for a lock of a table. Whoever comes to the
// table meanwhile waits behind it, so it is short of the second for which nobody may be
// held up, also for a migration that waits for one table while it has another.
const lockWait = 250 * time.Millisecond

// MigrationStatus says how far a database is migrated, and how far this program knows
// how to.
type MigrationStatus struct {
	Version, Latest           int // of our own migrations
	RiverVersion, RiverLatest int // of River's
	// OldestNode is the version that programs have to know, at least, to work with the
	// schema. Migrations that contract raise it.
	OldestNode int
	// Migrating tells whether somebody else was about to migrate when Status had read the
	// versions: what comes after the last migration may be missing.
	Migrating bool
}

// Current tells whether the schema is the one that this program knows, neither older
// nor newer.
func (s MigrationStatus) Current() bool {
	return s.Version == s.Latest && s.RiverVersion == s.RiverLatest
}

// Behind tells whether something is left to migrate.
func (s MigrationStatus) Behind() bool {
	return s.Version < s.Latest || s.RiverVersion < s.RiverLatest
}

// TooNew tells whether the schema has gone so far ahead that this program does not work
// with it any more.
func (s MigrationStatus) TooNew() bool { return s.Latest < s.OldestNode }

// Check fails (Unavailable) if this program does not work with the schema: something is
// left to migrate, or the schema is too new.
func (s MigrationStatus) Check(schema string) error {
	switch {
	case s.Behind():
		own := fmt.Sprintf("at version %d of %d", s.Version, s.Latest)
		if s.Version >= s.Latest {
			own = fmt.Sprintf("at version %d of %d of River's", s.RiverVersion, s.RiverLatest)
		}
		return riverbeat.Errorf(riverbeat.Unavailable, "schema_not_current",
			"The schema %s is %s. Run 'riverbeat migrate up', or start with --migrate.", schema, own)
	case s.TooNew():
		return tooNew(schema, s.Version, s.Latest)
	default:
		return nil
	}
}

func tooNew(schema string, version, known int) error {
	return riverbeat.Errorf(riverbeat.Unavailable, "schema_too_new",
		"The schema %s is at version %d, and this program knows up to %d. Use a newer one, such as migrated it.", schema, version, known)
}

// MigrateUp makes the schema if it is missing and applies River's migrations,
// then ours, up to the newest. Several processes may call it at once: one
// migrates, the others wait and find nothing to do. Nodes may be at work: a migration
// that does not get a lock soon gives way, and is tried again for some minutes. A schema
// that is ahead of this program is left as it is.
func MigrateUp(ctx context.Context, cfg Config, logger *slog.Logger) error {
	return migrateUp(ctx, cfg, migrations.FS, logger)
}

func migrateUp(ctx context.Context, cfg Config, files fs.FS, logger *slog.Logger) error {
	return withMigrator(ctx, cfg, func(m *migrator) error {
		if _, err := m.conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{cfg.schema()}.Sanitize()); err != nil {
			return fmt.Errorf("make the schema %s: %w", cfg.schema(), err)
		}
		var river *rivermigrate.MigrateResult
		err := m.patiently(ctx, logger, func() (err error) {
			river, err = m.river.Migrate(ctx, rivermigrate.DirectionUp, nil)
			return err
		})
		if err != nil {
			return fmt.Errorf("apply River's migrations: %w", err)
		}
		for _, v := range river.Versions {
			logger.InfoContext(ctx, "migrated", "migration", v.Name, "of", "river")
		}
		version, err := m.load(ctx, files, logger)
		if err != nil {
			return err
		}
		if known := len(m.own.Migrations); version > known {
			logger.InfoContext(ctx, "nothing is migrated: the schema is newer than this program", "version", version, "known", known)
			return nil
		}
		m.own.OnStart = func(_ int32, name, _, _ string) {
			logger.InfoContext(ctx, "migrating", "migration", name, "of", "riverbeat")
		}
		if err := m.patiently(ctx, logger, func() error { return m.own.Migrate(ctx) }); err != nil {
			return err
		}
		return m.patiently(ctx, logger, func() error { return m.regrant(ctx) })
	})
}

// MigrateDown reverts our own migrations down to version, 0 being before the
// first. River's stay.
func MigrateDown(ctx context.Context, cfg Config, version int, logger *slog.Logger) error {
	return withMigrator(ctx, cfg, func(m *migrator) error {
		current, err := m.load(ctx, migrations.FS, logger)
		if err != nil {
			return err
		}
		if known := len(m.own.Migrations); current > known {
			return tooNew(cfg.schema(), current, known)
		}
		if version < 0 || version > current {
			return riverbeat.Errorf(riverbeat.Invalid, "invalid_version", "The schema is at version %d; it cannot go down to %d.", current, version)
		}
		return m.patiently(ctx, logger, func() error { return m.own.MigrateTo(ctx, int32(version)) }) //nolint:gosec // checked above
	})
}

// Status reads how far the database is migrated. It changes nothing, and waits for
// nobody who migrates.
func Status(ctx context.Context, cfg Config) (status MigrationStatus, err error) {
	err = withConn(ctx, cfg, func(pool *pgxpool.Pool, conn *pgx.Conn) error {
		river, err := newRiverMigrator(pool, cfg.schema())
		if err != nil {
			return err
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if status, err = readStatus(ctx, tx, river); err != nil {
				return err
			}
			return tx.QueryRow(ctx, "SELECT NOT pg_try_advisory_xact_lock_shared($1)", migrateLock(cfg.schema())).Scan(&status.Migrating)
		})
	})
	return status, err
}

// MigrationStatus reads how far the database is migrated, without waiting for
// one that migrates.
func (tx *Tx) MigrationStatus(ctx context.Context) (MigrationStatus, error) {
	river, err := newRiverMigrator(nil, tx.schema)
	if err != nil {
		return MigrationStatus{}, err
	}
	return readStatus(ctx, tx.Tx, river)
}

func readStatus(ctx context.Context, tx pgx.Tx, river *rivermigrate.Migrator[pgx.Tx]) (MigrationStatus, error) {
	var status MigrationStatus
	for _, v := range river.AllVersions() {
		status.RiverLatest = max(status.RiverLatest, v.Version)
	}
	found, err := migrate.FindMigrations(migrations.FS)
	if err != nil {
		return status, err
	}
	status.Latest = len(found)
	var hasRiver, hasOwn bool
	const tables = `SELECT to_regclass('river_migration') IS NOT NULL, to_regclass('schema_version') IS NOT NULL`
	if err := tx.QueryRow(ctx, tables).Scan(&hasRiver, &hasOwn); err != nil {
		return status, err
	}
	if hasRiver {
		if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM river_migration").Scan(&status.RiverVersion); err != nil {
			return status, err
		}
	}
	if hasOwn {
		// There is no such column yet in older schemas.
		const own = `SELECT version, coalesce((to_jsonb(v) ->> 'oldest_node')::int, 0) FROM schema_version AS v`
		err = tx.QueryRow(ctx, own).Scan(&status.Version, &status.OldestNode)
	}
	return status, err
}

// ShowSchema makes the schema the first that every later session of the
// database looks into, such as a person's psql. For a database of our own only.
func ShowSchema(ctx context.Context, cfg Config) error {
	pool, err := NewPool(ctx, Config{URL: cfg.URL, Schema: cfg.Schema, MaxConns: 1})
	if err != nil {
		return err
	}
	defer pool.Close()
	const alter = `
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = %I, public', current_database(), current_schema());
END
$$`
	_, err = pool.Exec(ctx, alter)
	return translate(err)
}

type migrator struct {
	conn  *pgx.Conn
	river *rivermigrate.Migrator[pgx.Tx]
	own   *migrate.Migrator
	table string
}

// withConn calls fn with a connection of a pool, if the server is one to work with.
func withConn(ctx context.Context, cfg Config, fn func(*pgxpool.Pool, *pgx.Conn) error) error {
	pool, err := NewPool(ctx, Config{URL: cfg.URL, Schema: cfg.Schema, MaxConns: 2, lockWait: lockWait})
	if err != nil {
		return err
	}
	defer pool.Close()
	c, err := pool.Acquire(ctx)
	if err != nil {
		return translate(fmt.Errorf("reach the database: %w", err))
	}
	defer c.Release()
	conn := c.Conn()

	var version int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	if err := keepsSettings(ctx, conn); err != nil {
		return err
	}
	if version < minVersion {
		return riverbeat.Errorf(riverbeat.Invalid, "postgres_too_old",
			"Postgres %d is too old; Riverbeat needs 15 or newer.", version/10000)
	}
	return fn(pool, conn)
}

// withMigrator calls fn while this process alone may migrate.
func withMigrator(ctx context.Context, cfg Config, fn func(*migrator) error) error {
	return withConn(ctx, cfg, func(pool *pgxpool.Pool, conn *pgx.Conn) error {
		lock := migrateLock(cfg.schema())
		if err := awaitAdvisoryLock(ctx, conn, lock); err != nil {
			return fmt.Errorf("wait for another process that migrates: %w", err)
		}
		defer func() {
			_, _ = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", lock)
		}()
		river, err := newRiverMigrator(pool, cfg.schema())
		if err != nil {
			return err
		}
		return fn(&migrator{conn: conn, river: river, table: cfg.schema() + ".schema_version"})
	})
}

// migrateLock is held by whoever migrates a schema.
func migrateLock(schema string) int64 { return riverbeat.AdvisoryKey(schema, "migrate", "") }

// awaitAdvisoryLock asks again and again. Who waits inside of Postgres has a snapshot,
// and CREATE INDEX CONCURRENTLY waits for those: whoever migrates would wait for him who
// waits for it.
func awaitAdvisoryLock(ctx context.Context, conn *pgx.Conn, lock int64) error {
	for {
		var got bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lock).Scan(&got); err != nil || got {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func newRiverMigrator(pool *pgxpool.Pool, schema string) (*rivermigrate.Migrator[pgx.Tx], error) {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	return rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: schema, Logger: quiet})
}

// load reads our own migrations, and answers at which version the schema is.
func (m *migrator) load(ctx context.Context, files fs.FS, logger *slog.Logger) (version int, err error) {
	// Tern's lock belongs to the whole database: somebody may migrate another schema.
	err = m.patiently(ctx, logger, func() (err error) {
		m.own, err = migrate.NewMigrator(ctx, m.conn, m.table)
		return err
	})
	if err != nil {
		return 0, err
	}
	if m.own.Data["partitions"], err = runsPartitions(ctx, m.conn); err != nil {
		return 0, err
	}
	if err := m.own.LoadMigrations(files); err != nil {
		return 0, err
	}
	current, err := m.own.GetCurrentVersion(ctx)
	return int(current), err
}

// runsPartitions are the names of the partitions of runs, for migrations that have to name
// each: what is done CONCURRENTLY is done by no function.
func runsPartitions(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	const names = `
SELECT c.relname
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('runs') AND NOT i.inhdetachpending
ORDER BY c.relname`
	rows, err := conn.Query(ctx, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// patiently runs a migration that gives up a lock it does not get at once, so
// that nobody queues up behind it, or that somebody else and it wait for each
// other's, and tries again.
func (m *migrator) patiently(ctx context.Context, logger *slog.Logger, migration func() error) error {
	const tries = 180
	for try := 1; ; try++ {
		err := migration()
		pgErr, ok := errors.AsType[*pgconn.PgError](err)
		if err == nil || !ok || pgErr.Code != "55P03" && pgErr.Code != "40P01" || try == tries {
			return err
		}
		logger.InfoContext(ctx, "somebody has a lock that is needed; trying again", "error", err, "try", try)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		// What a migration outside of a transaction had set.
		if _, err := m.conn.Exec(ctx, "RESET ALL"); err != nil {
			return err
		}
	}
}
