package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// MigrationStatus says how far a database is migrated.
type MigrationStatus struct {
	Version, Latest           int // of our own migrations
	RiverVersion, RiverLatest int // of River's
}

// Current tells whether nothing is left to migrate.
func (s MigrationStatus) Current() bool {
	return s.Version == s.Latest && s.RiverVersion == s.RiverLatest
}

// MigrateUp makes the schema if it is missing and applies River's migrations,
// then ours, up to the newest. Several processes may call it at once: one
// migrates, the others wait and find nothing to do.
func MigrateUp(ctx context.Context, cfg Config, logger *slog.Logger) error {
	return withMigrator(ctx, cfg, func(m *migrator) error {
		if _, err := m.conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{cfg.schema()}.Sanitize()); err != nil {
			return fmt.Errorf("make the schema %s: %w", cfg.schema(), err)
		}
		result, err := m.river.Migrate(ctx, rivermigrate.DirectionUp, nil)
		if err != nil {
			return fmt.Errorf("apply River's migrations: %w", err)
		}
		for _, v := range result.Versions {
			logger.InfoContext(ctx, "migrated", "migration", v.Name, "of", "river")
		}
		if err := m.loadOwn(ctx); err != nil {
			return err
		}
		m.own.OnStart = func(_ int32, name, _, _ string) {
			logger.InfoContext(ctx, "migrated", "migration", name, "of", "riverbeat")
		}
		if err := patiently(ctx, func() error { return m.own.Migrate(ctx) }); err != nil {
			return err
		}
		return m.regrant(ctx)
	})
}

// MigrateDown reverts our own migrations down to version, 0 being before the
// first. River's stay.
func MigrateDown(ctx context.Context, cfg Config, version int) error {
	return withMigrator(ctx, cfg, func(m *migrator) error {
		if err := m.loadOwn(ctx); err != nil {
			return err
		}
		current, err := m.own.GetCurrentVersion(ctx)
		if err != nil {
			return err
		}
		if version < 0 || int32(version) > current { //nolint:gosec // compared right here
			return riverbeat.Errorf(riverbeat.Invalid, "invalid_version", "The schema is at version %d; it cannot go down to %d.", current, version)
		}
		return patiently(ctx, func() error { return m.own.MigrateTo(ctx, int32(version)) }) //nolint:gosec // checked above
	})
}

// Status reads how far the database is migrated; it changes nothing.
func Status(ctx context.Context, cfg Config) (MigrationStatus, error) {
	var status MigrationStatus
	err := withMigrator(ctx, cfg, func(m *migrator) error {
		return pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
			var err error
			status, err = readStatus(ctx, tx, m.river)
			return err
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
		err = tx.QueryRow(ctx, "SELECT version FROM schema_version").Scan(&status.Version)
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

// withMigrator calls fn while this process alone may migrate.
func withMigrator(ctx context.Context, cfg Config, fn func(*migrator) error) error {
	pool, err := NewPool(ctx, Config{URL: cfg.URL, Schema: cfg.Schema, MaxConns: 2})
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
	lock := riverbeat.AdvisoryKey(cfg.schema(), "migrate", "")
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", lock); err != nil {
		return fmt.Errorf("wait for another process that migrates: %w", err)
	}
	defer func() {
		_, _ = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", lock)
	}()

	if _, err := conn.Exec(ctx, "SET lock_timeout = '2s'"); err != nil {
		return err
	}

	river, err := newRiverMigrator(pool, cfg.schema())
	if err != nil {
		return err
	}
	return fn(&migrator{conn: conn, river: river, table: cfg.schema() + ".schema_version"})
}

func newRiverMigrator(pool *pgxpool.Pool, schema string) (*rivermigrate.Migrator[pgx.Tx], error) {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	return rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: schema, Logger: quiet})
}

func (m *migrator) loadOwn(ctx context.Context) error {
	own, err := migrate.NewMigrator(ctx, m.conn, m.table)
	if err != nil {
		return err
	}
	m.own = own
	return own.LoadMigrations(migrations.FS)
}

// patiently runs a migration that gives up a lock it does not get at once, so
// that nobody queues up behind it, or that somebody else and it wait for each
// other's, and tries again.
func patiently(ctx context.Context, migration func() error) error {
	const tries = 30
	for try := 1; ; try++ {
		err := migration()
		pgErr, ok := errors.AsType[*pgconn.PgError](err)
		if err == nil || !ok || pgErr.Code != "55P03" && pgErr.Code != "40P01" || try == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
