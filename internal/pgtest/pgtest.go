// Package pgtest gives tests a real, migrated Postgres. By default a test gets
// a transaction that is rolled back (Tx); where two connections matter, a
// database of its own, cloned from a migrated template (DB).
//
// A test binary that uses it has
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// The server is private to the binary and gone when it ends.
package pgtest

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/localpg"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const environment = "default"

// Schema is the schema of all test databases.
const Schema = postgres.DefaultSchema

const template = "riverbeat_template"

// server is started by the first test that needs it.
var server struct {
	sync.Mutex
	*localpg.Server
	shared *Database
	clones atomic.Int64
}

// Main runs the tests and stops the server.
func Main(m *testing.M) {
	code := m.Run()
	if server.shared != nil {
		server.shared.Pool.Close()
	}
	if server.Server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if err := server.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			code = max(code, 1)
		}
		cancel()
	}
	os.Exit(code)
}

// Database is a migrated database of a test's own.
type Database struct {
	URL    string
	Pool   *pgxpool.Pool
	DB     *postgres.DB
	Server *localpg.Server // shared by all tests of the binary
}

// Config is how postgres reaches the database.
func (d *Database) Config() postgres.Config {
	return postgres.Config{URL: d.URL, Schema: Schema}
}

// Tx gives a DB whose use cases run in one transaction, rolled back at the
// end. Its times do advance, its rows nobody else sees.
func Tx(t testing.TB) *postgres.DB {
	t.Helper()
	tx, err := Pool(t).Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = tx.Rollback(context.Background())
	})
	return postgres.New(tx, Schema)
}

// Pool is the pool of the database that tests with Tx share.
func Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	ensureServer(t)
	server.Lock()
	defer server.Unlock()
	if server.shared == nil {
		server.shared = openClone(t, clone(t))
	}
	return server.shared.Pool
}

// DB gives a database of its own. It is dropped at the end, or kept, and its
// address logged, if the test has failed.
func DB(t testing.TB) *Database {
	t.Helper()
	ensureServer(t)
	name := clone(t)
	d := openClone(t, name)
	t.Cleanup(func() {
		d.Pool.Close()
		if t.Failed() {
			t.Logf("the database is kept until this binary ends: %s", d.URL)
			return
		}
		admin(t, "DROP DATABASE "+name+" WITH (FORCE)")
	})
	return d
}

// Empty gives a database of its own without any schema.
func Empty(t testing.TB) *Database {
	t.Helper()
	ensureServer(t)
	name := fmt.Sprintf("empty_%d", server.clones.Add(1))
	admin(t, "CREATE DATABASE "+name)
	d := open(t, name)
	t.Cleanup(func() {
		d.Pool.Close()
		admin(t, "DROP DATABASE "+name+" WITH (FORCE)")
	})
	return d
}

func ensureServer(t testing.TB) {
	t.Helper()
	server.Lock()
	defer server.Unlock()
	if server.Server != nil {
		return
	}
	s, err := localpg.Start(context.Background(), localpg.Config{
		Ephemeral: true,
		Settings:  map[string]string{"max_connections": "300"},
	})
	require.NoError(t, err)
	server.Server = s
	admin(t, "CREATE DATABASE "+template)
	// A half-hour offset and summer time find every forgotten UTC.
	admin(t, "ALTER DATABASE "+template+" SET timezone = 'Canada/Newfoundland'")
	cfg := postgres.Config{URL: databaseURL(t, template), Schema: Schema}
	require.NoError(t, postgres.MigrateUp(context.Background(), cfg, slog.New(slog.DiscardHandler)))
	pool, err := postgres.NewPool(context.Background(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	db := postgres.New(pool, Schema).In(environment)
	require.NoError(t, db.InTx(context.Background(), func(tx *postgres.Tx) error {
		now, err := tx.Now(context.Background())
		if err != nil {
			return err
		}
		for _, at := range []time.Time{now.AddDate(0, 0, -7), now, now.AddDate(0, 0, 7)} {
			if _, err := tx.Exec(context.Background(), "SELECT create_runs_partition($1)", at); err != nil {
				return err
			}
		}
		return tx.EnsureInstallation(context.Background())
	}))
}

func clone(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", server.clones.Add(1))
	admin(t, "CREATE DATABASE "+name+" TEMPLATE "+template)
	admin(t, "ALTER DATABASE "+name+" SET timezone = 'Canada/Newfoundland'")
	return name
}

// openClone opens a clone, in which the installation is at home.
func openClone(t testing.TB, name string) *Database {
	t.Helper()
	d := open(t, name)
	require.NoError(t, d.DB.InTx(context.Background(), func(tx *postgres.Tx) error {
		return tx.MoveHere(context.Background())
	}))
	return d
}

func open(t testing.TB, name string) *Database {
	t.Helper()
	d := &Database{URL: databaseURL(t, name), Server: server.Server}
	var err error
	d.Pool, err = postgres.NewPool(context.Background(), d.Config())
	require.NoError(t, err)
	d.DB = postgres.New(d.Pool, Schema).In(environment)
	return d
}

func admin(t testing.TB, statement string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, databaseURL(t, "postgres"))
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	require.NoError(t, err)
}

func databaseURL(t testing.TB, name string) string {
	t.Helper()
	u, err := url.Parse(server.URL())
	require.NoError(t, err)
	u.Path = "/" + strings.TrimPrefix(name, "/")
	return u.String()
}

// As is a context in which someone of the given name acts.
func As(ctx context.Context, name string) context.Context {
	return postgres.WithActor(ctx, riverbeat.Actor{Name: name})
}
