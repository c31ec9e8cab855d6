// Package postgres has all of Riverbeat's SQL. DB can do nothing but open a
// transaction, or read, and the queries are methods of Tx, so that one use case that
// changes something is one transaction, and its rows are the nouns of package riverbeat.
//
// Static queries stand in query/*.sql and become internal/dbq by sqlc; those
// that sqlc cannot express stand at the top of their function.
package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
	"golang.org/x/sync/semaphore"

	"riverbeat/internal/postgres/internal/dbq"
)

// DefaultSchema is where Riverbeat's and River's tables are by default.
const DefaultSchema = "riverbeat"

// Config says how to reach the database.
type Config struct {
	// URL is a postgres:// URL. Required.
	URL string
	// Schema has all objects of Riverbeat, River's included. Defaults to
	// DefaultSchema.
	Schema string
	// MaxConns bounds the pool. Defaults to 20.
	MaxConns int
	// Node is the id of the node that works with the pool, "" if none does. The
	// database then refuses reports over it of attempts that another node has
	// by now (migration 013).
	Node string

	lockWait time.Duration // for each lock; 0: however long it takes
}

// Beginner is what DB needs of a connection: a pool has it, and so has a
// transaction, so that a test may hand DB one that is rolled back at the end.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// DB opens transactions. It is safe for concurrent use.
type DB struct {
	conn        Beginner
	schema      string
	environment string
	byIndex     bool
	share       *Share // nil: as many as the pool has connections
}

// Tx is a transaction with the queries. It ends with the function that InTx
// calls.
type Tx struct {
	pgx.Tx
	q           *dbq.Queries
	schema      string
	environment string
	committed   *[]func()       // by AfterCommit
	refused     map[int64]error // by the numbers of weeks; see Partitions.Need
}

// New makes a DB of a pool that NewPool made, or of a transaction on such a
// connection.
func New(conn Beginner, schema string) *DB {
	return &DB{conn: conn, schema: schema}
}

// In answers a DB of the environment with the given label, which AtHome and
// Ticking compare with the installation's. Without it they do not.
func (db *DB) In(environment string) *DB {
	in := *db
	in.environment = environment
	return &in
}

// AtMost answers a DB that has no more than n transactions open at once: who wants
// another one waits, without a connection. The pool's others are for those who
// cannot wait.
func (db *DB) AtMost(n int) *DB {
	some := *db
	some.share = &Share{most: n, room: semaphore.NewWeighted(int64(n))}
	return &some
}

// Share is how much of what AtMost allows is in use; nil if db may have all.
func (db *DB) Share() *Share { return db.share }

// Share bounds the transactions that are open at once.
type Share struct {
	most          int
	room          *semaphore.Weighted
	open, waiting atomic.Int64
}

// Most is how many transactions may be open.
func (s *Share) Most() int { return s.most }

// Open is how many are.
func (s *Share) Open() int { return int(s.open.Load()) }

// Waiting is how many want to be.
func (s *Share) Waiting() int { return int(s.waiting.Load()) }

// ByIndex answers a DB whose transactions find their rows by an index, and in its
// order, whatever the statistics say: those of clocks know nothing of ten thousand
// that are due at once.
func (db *DB) ByIndex() *DB {
	by := *db
	by.byIndex = true
	return &by
}

// CheckURL tells whether a pool can be made of the URL, with the certificates and the
// password file that it may name. No database is asked.
func CheckURL(url string) error {
	_, err := parse(url)
	return err
}

func parse(url string) (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	return pc, nil
}

// NewPool opens a pool whose connections see the schema's objects, speak UTC,
// and plan each statement for its arguments: an idle scheduler's tables are
// empty, a generic plan made then is a sequential scan, and it would be kept
// when ten thousand jobs are there.
func NewPool(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	pc, err := parse(cfg.URL)
	if err != nil {
		return nil, err
	}
	setSession(pc.ConnConfig, cfg.schema())
	if cfg.Node != "" {
		pc.ConnConfig.RuntimeParams["riverbeat.node"] = cfg.Node
	}
	if cfg.lockWait > 0 { // here, as tern resets what is set later after each migration
		pc.ConnConfig.RuntimeParams["lock_timeout"] = strconv.Itoa(int(cfg.lockWait.Milliseconds())) + "ms"
	}
	pc.MaxConns = 20
	if cfg.MaxConns > 0 {
		pc.MaxConns = int32(min(cfg.MaxConns, 10_000))
	}
	pc.MinIdleConns = 2
	pc.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		// By itself pgx writes each id as text and reads that again, and it decodes JSON
		// that is to stay as it is.
		pgxuuid.Register(conn.TypeMap())
		registerJSON(conn.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	return pool, nil
}

func registerJSON(types *pgtype.Map) {
	asIs := func(raw []byte, to any) error {
		if to, ok := to.(*json.RawMessage); ok {
			*to = slices.Clone(raw)
			return nil
		}
		return json.Unmarshal(raw, to)
	}
	codec := pgtype.JSONCodec{Marshal: json.Marshal, Unmarshal: asIs}
	types.RegisterType(&pgtype.Type{Name: "json", OID: pgtype.JSONOID, Codec: &codec})
	types.RegisterType(&pgtype.Type{Name: "jsonb", OID: pgtype.JSONBOID, Codec: &pgtype.JSONBCodec{Marshal: json.Marshal, Unmarshal: asIs}})
}

func (cfg Config) schema() string {
	if cfg.Schema == "" {
		return DefaultSchema
	}
	return cfg.Schema
}

// setSession sets what every session of ours relies on.
func setSession(cc *pgx.ConnConfig, schema string) {
	if cc.RuntimeParams["application_name"] == "" {
		cc.RuntimeParams["application_name"] = "riverbeat"
	}
	for name, value := range map[string]string{
		"search_path":     pgx.Identifier{schema}.Sanitize(),
		"timezone":        "UTC",
		"plan_cache_mode": "force_custom_plan",
		// Our statements go by an index and end when they have a page. By default a row
		// found by an index costs as much as on a disk that has to turn; the plan then
		// reads ten times as many rows because they lie together, or is so expensive on
		// paper that it is compiled each time.
		"random_page_cost":              "1.1",
		"jit":                           "off",
		"default_transaction_isolation": "read committed",
		// A node that is frozen or cut off in the middle of a claim holds its
		// clocks and keys no longer than this; our transactions never think.
		"idle_in_transaction_session_timeout": SessionLife.String(),
	} {
		cc.RuntimeParams[name] = value
	}
}

// keepsSettings fails when the server does not have what conn was opened with: a
// pooler may be told to leave startup parameters out. Nothing would end the
// silent session of a frozen node then, nor name the schema.
func keepsSettings(ctx context.Context, conn *pgx.Conn) error {
	var names, given []string
	for _, name := range []string{"search_path", "idle_in_transaction_session_timeout", "idle_session_timeout", "lock_timeout", "riverbeat.node"} {
		if value, ok := conn.Config().RuntimeParams[name]; ok {
			names, given = append(names, name), append(given, value)
		}
	}
	const differing = `
SELECT name, value, coalesce(current_setting(name, true), '')
FROM unnest(@names::text[], @given::text[]) AS given (name, value)
WHERE current_setting(name, true) IS DISTINCT FROM value
LIMIT 1`
	var name, value, has string
	err := conn.QueryRow(ctx, differing, pgx.StrictNamedArgs{"names": names, "given": given}).Scan(&name, &value, &has)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return pooled(fmt.Errorf("the server has %q for %s, not %q", has, name, value))
}

// Schema is the schema that has all objects.
func (db *DB) Schema() string { return db.schema }

// Pool is the pool that New was given; nil if it was a transaction.
func (db *DB) Pool() *pgxpool.Pool {
	pool, _ := db.conn.(*pgxpool.Pool)
	return pool
}

// InTx runs fn in a transaction (READ COMMITTED) and commits it if fn returns
// nil. Its changes are those of the actor of ctx (WithActor). It runs fn again, up to five times, when Postgres ends the transaction
// for a deadlock (40P01) or a serialization failure (40001), so fn must do
// nothing that a rollback does not undo. If ctx is within a transaction
// (Tx.Within), fn is a part of that one, and it is run again as a whole.
func (db *DB) InTx(ctx context.Context, fn func(tx *Tx) error) error {
	const tries = 5
	if outer, ok := ctx.Value(withinKey{}).(*Tx); ok {
		return outer.Savepoint(ctx, fn)
	}
	for try := 1; ; try++ {
		err := db.inTx(ctx, fn)
		if err == nil || try == tries || !again(err) {
			return translate(err)
		}
		pause := time.Duration(try) * time.Duration(5+rand.IntN(20)) * time.Millisecond //nolint:gosec // jitter
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

type withinKey struct{}

// Within answers a context in which everything that InTx does is a part of tx: the
// use cases that are called with it, one after another, commit with tx or not at
// all. The tx of a Read cannot.
func (tx *Tx) Within(ctx context.Context) context.Context {
	if _, ok := tx.Tx.(statements); ok {
		panic("postgres: nothing is within a Read")
	}
	return context.WithValue(ctx, withinKey{}, tx)
}

type dryKey struct{}

// errDry undoes what a dry run did.
var errDry = errors.New("a dry run leaves nothing")

// DryRun runs fn with a context in which everything that InTx does is undone at the
// end, whatever it was told.
func (db *DB) DryRun(ctx context.Context, fn func(ctx context.Context) error) error {
	err := db.InTx(ctx, func(tx *Tx) error {
		if err := fn(context.WithValue(tx.Within(ctx), dryKey{}, true)); err != nil {
			return err
		}
		return errDry
	})
	if errors.Is(err, errDry) {
		return nil
	}
	return err
}

// IsDry tells whether ctx is of a DryRun.
func IsDry(ctx context.Context) bool { return ctx.Value(dryKey{}) != nil }

// Read runs fn, which only reads, on one connection and without a transaction around
// it: each statement sees the database as it is then, as in InTx, and nothing is said
// to the database but what is asked of it. A statement that fails is not run again. If
// ctx is within a transaction (Tx.Within), fn is a part of that one.
func (db *DB) Read(ctx context.Context, fn func(tx *Tx) error) error {
	pool, ok := db.conn.(*pgxpool.Pool)
	if _, within := ctx.Value(withinKey{}).(*Tx); within || !ok {
		return db.InTx(ctx, fn)
	}
	release, err := db.await(ctx)
	if err != nil {
		return translate(err)
	}
	defer release()
	return translate(pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		return fn(db.tx(statements{conn}))
	}))
}

// statements is a pgx.Tx that is none: each statement is by itself.
type statements struct{ *poolConn }

type poolConn = pgxpool.Conn // whose method Conn would be hidden by a field of that name

func (statements) Commit(context.Context) error   { return nil }
func (statements) Rollback(context.Context) error { return nil }

func (s statements) LargeObjects() pgx.LargeObjects { return pgx.LargeObjects{} }

func (s statements) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	return s.Conn().Prepare(ctx, name, sql)
}

// Snapshot runs fn in a transaction that only reads, and whose statements all see
// the database as it is at the first of them.
func (db *DB) Snapshot(ctx context.Context, fn func(tx *Tx) error) error {
	return translate(db.begin(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn))
}

func (db *DB) inTx(ctx context.Context, fn func(tx *Tx) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted}
	if db.byIndex {
		options = pgx.TxOptions{BeginQuery: beginByIndex}
	}
	return db.begin(ctx, options, fn)
}

// Else all that are due are read and sorted for each batch.
const beginByIndex = `
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off`

// begin runs fn in a transaction; options do not matter where that is a
// savepoint in a test's transaction.
func (db *DB) begin(ctx context.Context, options pgx.TxOptions, fn func(tx *Tx) error) error {
	actor, acts := ActorOf(ctx)
	var committed []func()
	run := func(tx pgx.Tx) error {
		t := db.tx(tx)
		t.committed = &committed
		if acts {
			if err := t.actAs(ctx, actor); err != nil {
				return err
			}
		}
		return fn(t)
	}
	release, err := db.await(ctx)
	if err != nil {
		return err
	}
	defer release()
	if pool, ok := db.conn.(*pgxpool.Pool); ok {
		err = pgx.BeginTxFunc(ctx, pool, options, run)
	} else {
		err = pgx.BeginFunc(ctx, db.conn, run)
	}
	if err != nil {
		return err
	}
	for _, fn := range committed {
		fn()
	}
	return nil
}

// AfterCommit has fn called once the transaction is committed, if it is, and the savepoint
// in which it was said was not undone. fn must be quick, and cannot fail. A Read commits
// nothing.
func (tx *Tx) AfterCommit(fn func()) {
	if tx.committed != nil {
		*tx.committed = append(*tx.committed, fn)
	}
}

// await waits until there are less open than AtMost allows; release lets the next one
// in.
func (db *DB) await(ctx context.Context) (release func(), err error) {
	s := db.share
	if s == nil {
		return func() {}, nil
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	if err := s.room.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	s.open.Add(1)
	return func() {
		s.open.Add(-1)
		s.room.Release(1)
	}, nil
}

func (db *DB) tx(tx pgx.Tx) *Tx {
	return &Tx{Tx: tx, q: dbq.New(), schema: db.schema, environment: db.environment}
}

// again tells whether the transaction failed through no fault of its own.
func again(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "40001" || pgErr.Code == "40P01")
}

// Savepoint runs fn in a savepoint of tx: if fn fails, what it did is undone
// and tx can go on. Its errors are those of InTx.
func (tx *Tx) Savepoint(ctx context.Context, fn func(tx *Tx) error) error {
	before := 0
	if tx.committed != nil {
		before = len(*tx.committed)
	}
	err := pgx.BeginFunc(ctx, tx.Tx, func(inner pgx.Tx) error {
		savepoint := *tx
		savepoint.Tx = inner
		return fn(&savepoint)
	})
	if err != nil && tx.committed != nil {
		*tx.committed = (*tx.committed)[:before]
	}
	return translate(err)
}

// WaitAtMost bounds each wait of the transaction for a lock. One that takes longer
// fails (IsTimeout).
func (tx *Tx) WaitAtMost(ctx context.Context, wait time.Duration) error {
	_, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", wait.String())
	return err
}

// columnsOf are the columns of a row of sqlc's, in the order of its fields, of a table
// that is named so in a statement. All of them by a star would be one more for a node of
// the version before, once there is one more.
func columnsOf[Row any](table string) string {
	var columns []string
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Row]()) {
		columns = append(columns, table+"."+field.Tag.Get("db"))
	}
	return strings.Join(columns, ", ")
}

// Now is the database's time at this statement, whole milliseconds, UTC.
func (tx *Tx) Now(ctx context.Context) (time.Time, error) {
	now, err := tx.q.Now(ctx, tx.Tx)
	return now.UTC().Truncate(time.Millisecond), err
}
