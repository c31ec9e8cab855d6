package statement_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute/secret"
	"riverbeat/internal/execute/statement"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const password = "pass-word-of-the-login"

var roles atomic.Int64

// lab is a database with a login for statements, which may make tables in schema public.
type lab struct {
	*pgtest.Database
	role, url string
}

func setup(t *testing.T) *lab {
	t.Helper()
	l := &lab{Database: pgtest.DB(t)}
	l.role = l.newRole(t, "")
	l.url = l.login(t, l.role, "")
	l.admin(t, "GRANT ALL ON SCHEMA public TO "+l.role)
	return l
}

func (l *lab) newRole(t *testing.T, attributes string) string {
	t.Helper()
	role := fmt.Sprintf("statement_%d", roles.Add(1))
	l.admin(t, "CREATE ROLE "+role+" LOGIN PASSWORD '"+password+"' "+attributes)
	t.Cleanup(func() {
		_, err := l.Pool.Exec(context.Background(), "DROP OWNED BY "+role)
		require.NoError(t, err)
		_, err = l.Pool.Exec(context.Background(), "DROP ROLE "+role)
		require.NoError(t, err)
	})
	return role
}

// login is the URL of a role; more is added to its query.
func (l *lab) login(t *testing.T, role, more string) string {
	t.Helper()
	u, err := url.Parse(l.URL)
	require.NoError(t, err)
	u.User = url.UserPassword(role, password)
	u.RawQuery += more
	return u.String()
}

func (l *lab) admin(t *testing.T, sql string) {
	t.Helper()
	_, err := l.Pool.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func (l *lab) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, l.Pool.QueryRow(t.Context(), query, args...).Scan(&n))
	return n
}

// attempt is one attempt of a statement, by the lab's login if there is no other.
type attempt struct {
	url, statement, params string
	lockTimeout            time.Duration
	logger                 *slog.Logger
	id                     uuid.UUID
}

func (l *lab) try(ctx context.Context, t *testing.T, a attempt) (*statement.Result, error) {
	t.Helper()
	if a.url == "" {
		a.url = l.url
	}
	return execute(ctx, t, a)
}

func execute(ctx context.Context, t *testing.T, a attempt) (*statement.Result, error) {
	t.Helper()
	if a.logger == nil {
		a.logger = slog.New(slog.DiscardHandler)
	}
	if a.id == uuid.Nil {
		a.id = uuid.New()
	}
	code := statement.New(statement.Config{Schema: pgtest.Schema})(riverbeat.Executor{
		Kind: riverbeat.ExecutorSQL, Database: riverbeat.Text{Literal: a.url}, Statement: a.statement, LockTimeout: a.lockTimeout,
	})
	result, err := code(ctx, &task.Run{
		ID: a.id, Execution: 3, ScheduledFor: time.Date(2026, 11, 25, 9, 30, 0, 250_000_000, time.UTC),
		TaskParams: json.RawMessage(a.params), Logger: a.logger,
	})
	if err != nil {
		require.Nil(t, result)
		for wrapped := err; wrapped != nil; wrapped = errors.Unwrap(wrapped) {
			require.NotContains(t, fmt.Sprintf("%+v", wrapped), password)
		}
		return nil, err
	}
	raw, err := json.Marshal(result)
	require.NoError(t, err)
	_, err = riverbeat.CanonicalJSON(raw)
	require.NoError(t, err, "%s", raw)
	typed, ok := result.(*statement.Result)
	require.True(t, ok)
	return typed, nil
}

func (l *lab) do(t *testing.T, sql, params string) *statement.Result {
	t.Helper()
	result, err := l.try(t.Context(), t, attempt{statement: sql, params: params})
	require.NoError(t, err)
	return result
}

// final is the text of the error with which a statement ends for good.
func (l *lab) final(t *testing.T, a attempt) string {
	t.Helper()
	_, err := l.try(t.Context(), t, a)
	require.Error(t, err)
	require.True(t, task.IsFinal(err), "%v", err)
	return err.Error()
}

// one is the only row of a statement.
func (l *lab) one(t *testing.T, sql, params string) string {
	t.Helper()
	result := l.do(t, sql, params)
	require.Len(t, result.Rows, 1)
	return string(result.Rows[0])
}

// within makes a deadline, as an attempt has.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// gone waits until no session of the login is left.
func (l *lab) gone(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		return l.count(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", l.role) == 0
	}, 10*time.Second, 20*time.Millisecond)
}

func TestResults(t *testing.T) {
	t.Parallel()
	l := setup(t)
	require.Equal(t, &statement.Result{Command: "CREATE TABLE"}, l.do(t, "CREATE TABLE public.x (i int PRIMARY KEY, t text)", ""))
	require.Equal(t, &statement.Result{Command: "INSERT", RowCount: 2}, l.do(t, "INSERT INTO public.x VALUES (1, 'a'), (2, 'b')", ""))
	require.Equal(t, &statement.Result{Command: "UPDATE", RowCount: 2, Rows: []json.RawMessage{[]byte(`{"i":1}`), []byte(`{"i":2}`)}},
		l.do(t, "UPDATE public.x SET t = 'c' RETURNING i", ""))
	require.Equal(t, &statement.Result{Command: "SELECT", Rows: []json.RawMessage{}}, l.do(t, "SELECT * FROM public.x WHERE false", ""))
	require.Equal(t, &statement.Result{Command: "DELETE", RowCount: 1}, l.do(t, "DELETE FROM public.x WHERE i = 1; -- the end", ""))
	require.Equal(t, &statement.Result{Command: "SHOW", RowCount: 1, Rows: []json.RawMessage{[]byte(`{"TimeZone":"UTC"}`)}}, l.do(t, "SHOW timezone", ""))
	require.Equal(t, "VACUUM", l.do(t, "VACUUM public.x", "").Command)
	require.Equal(t, "CREATE INDEX", l.do(t, "CREATE INDEX CONCURRENTLY ON public.x (t)", "").Command)
	require.Equal(t, "DO", l.do(t, "DO 'BEGIN NULL; END'", "").Command)
	raw, err := json.Marshal(l.do(t, "SELECT FROM generate_series(1, 2)", ""))
	require.NoError(t, err)
	require.JSONEq(t, `{"command": "SELECT", "row_count": 2, "rows": [{}, {}]}`, string(raw))
}

func TestValuesOfResults(t *testing.T) {
	t.Parallel()
	l := setup(t)
	for sql, want := range map[string]string{
		"true":                               `true`,
		"NULL::int":                          `null`,
		"NULL::jsonb":                        `null`,
		"NULL::bool":                         `null`,
		"9223372036854775807":                `9223372036854775807`,
		"'-1'::smallint":                     `-1`,
		"0.1::float8 + 0.2::float8":          `0.30000000000000004`,
		"1e300::float8":                      `1e+300`,
		"'NaN'::float8":                      `"NaN"`,
		"'-Infinity'::float4":                `"-Infinity"`,
		"12345678901234567890.12345678":      `12345678901234567890.12345678`,
		"'NaN'::numeric":                     `"NaN"`,
		`'{"a": [1, "x"]}'::jsonb`:           `{"a": [1, "x"]}`,
		`'{"a": 1, "a": 2}'::json`:           `"{\"a\": 1, \"a\": 2}"`,
		`'"\u0000"'::json`:                   `"\"\\u0000\""`,
		"'x<y'":                              `"x\u003cy"`,
		"'{1,2}'::int[]":                     `"{1,2}"`,
		"'\\x00ff'::bytea":                   `"\\x00ff"`,
		"'2026-11-25 09:30+02'::timestamptz": `"2026-11-25 07:30:00+00"`,
		"'1 day 2 hours'::interval":          `"P1DT2H"`,
		"'7e4d7cbc-1111-4111-8111-000000000000'::uuid": `"7e4d7cbc-1111-4111-8111-000000000000"`,
	} {
		require.Equal(t, `{"v":`+want+`}`, l.one(t, "SELECT "+sql+" AS v", ""), sql)
	}
	// What Riverbeat would not keep as JSON is kept as text.
	require.Contains(t, l.one(t, "SELECT '1e500'::jsonb AS v", ""), `{"v":"1000`)
	require.Contains(t, l.one(t, "SELECT (repeat('[', 99) || repeat(']', 99))::jsonb AS v", ""), `{"v":"[[[`)
	require.Contains(t, l.one(t, "SELECT (repeat('[', 97) || repeat(']', 97))::jsonb AS v", ""), `{"v":[[[`)
	require.Equal(t, `{"a":1,"a_2":2,"?column?":3,"a_2_2":4,"a_3":5}`, l.one(t, `SELECT 1 AS a, 2 AS a, 3, 4 AS a_2, 5 AS a`, ""))
}

func TestRowsAreCapped(t *testing.T) {
	t.Parallel()
	l := setup(t)
	million := l.do(t, "SELECT * FROM generate_series(1, 1000000) AS i", "")
	require.EqualValues(t, 1_000_000, million.RowCount)
	require.Len(t, million.Rows, 100)
	require.True(t, million.Truncated)
	require.Equal(t, `{"i":100}`, string(million.Rows[99]))

	exactly := l.do(t, "SELECT * FROM generate_series(1, 100) AS i", "")
	require.Len(t, exactly.Rows, 100)
	require.False(t, exactly.Truncated)

	wide := l.do(t, "SELECT i, CASE i WHEN 3 THEN repeat('x', 40000) END AS t FROM generate_series(1, 5) AS i", "")
	require.Len(t, wide.Rows, 2)
	require.EqualValues(t, 5, wide.RowCount)
	require.True(t, wide.Truncated)

	together := l.do(t, "SELECT repeat('<', 1000) FROM generate_series(1, 50)", "") // \u003c, six bytes each
	require.Len(t, together.Rows, 5)
}

// What does not fit into memory is not read, and nothing of such a statement stays.
func TestAHugeRow(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.do(t, "CREATE TABLE public.huge (t text)", "")
	text := l.final(t, attempt{statement: "INSERT INTO public.huge SELECT repeat('x', 200000000) RETURNING t"})
	require.Contains(t, text, "more than the 16777216 that are read")
	l.gone(t)
	require.Zero(t, l.count(t, "SELECT count(*) FROM public.huge"))
	require.Contains(t, l.final(t, attempt{statement: "DO $$ BEGIN RAISE NOTICE '%', repeat('x', 20000000); END $$"}), "that are read")
	require.Contains(t, l.final(t, attempt{statement: "DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 1000000); END $$"}), "xxx …")
}

func TestParameters(t *testing.T) {
	t.Parallel()
	l := setup(t)
	for _, test := range []struct{ sql, params, want string }{
		{"@v::text", `{"v": "it's \"x\" \\ $1 @v"}`, `"it's \"x\" \\ $1 @v"`},
		{"@v::text", `{"v": ""}`, `""`},
		{"@v::text", `{"v": null}`, `null`},
		{"@v::text", `{}`, `null`},
		{"@v::text", ``, `null`},
		{"@v::text", `{"v": 9007199254740993}`, `"9007199254740993"`},
		{"@v::text", `{"v": {"a": [1]}}`, `"{\"a\": [1]}"`},
		{"@v::text", `{"v": [1, "x"]}`, `"[1, \"x\"]"`},
		{"@v::bigint", `{"v": 9007199254740993}`, `9007199254740993`},
		{"@v::numeric", `{"v": 0.1000000000000000055511151231257827}`, `0.1000000000000000055511151231257827`},
		{"@v::bool", `{"v": false}`, `false`},
		{"@v::bool", `{"v": "yes"}`, `true`},
		{"@v::date", `{"v": "2026-02-28"}`, `"2026-02-28"`},
		{"@v::jsonb", `{"v": {"b": 1}}`, `{"b": 1}`},
		{"@v::jsonb", `{"v": "b"}`, `"b"`},
		{"@v::jsonb", `{"v": [1, null]}`, `[1, null]`},
		{"@v::jsonb", `{"v": null}`, `null`},
		{"@v::int[]", `{"v": [1, null, 3]}`, `"{1,NULL,3}"`},
		{"@v::int[]", `{"v": [[1, 2], [3, 4]]}`, `"{{1,2},{3,4}}"`},
		{"@v::int[]", `{"v": []}`, `"{}"`},
		{"@v::int[]", `{"v": "{5}"}`, `"{5}"`},
		{"(@v::text[])[1]", `{"v": ["a,b}\"\\", "NULL", ""]}`, `"a,b}\"\\"`},
		{"(@v::text[])[2]", `{"v": ["a", "NULL", ""]}`, `"NULL"`},
		{"(@v::text[])[2] IS NULL", `{"v": ["a", null]}`, `true`},
		{"(@v::jsonb[])[1]", `{"v": ["a", {"b": 1}]}`, `"a"`},
		{"(@v::jsonb[])[2]", `{"v": ["a", ["b\"", 1]]}`, `["b\"", 1]`},
		{"(@v::public.mood[])[2]::text", `{"v": ["sad", "ok"]}`, `"ok"`},
		{"3 = ANY (@v)", `{"v": [1, 3]}`, `true`},
		{"@riverbeat_execution + @v::int", `{"v": 1, "riverbeat_execution": 100}`, `4`},
		{"@riverbeat_scheduled_for::timestamptz", `{}`, `"2026-11-25 09:30:00.25+00"`},
		{"'@v' || @v || /* @v */ $$@v$$", `{"v": "!"}`, `"@v!@v"`},
	} {
		if strings.Contains(test.sql, "mood") {
			l.do(t, "CREATE TYPE public.mood AS ENUM ('sad', 'ok')", "")
		}
		require.Equal(t, `{"v":`+test.want+`}`, l.one(t, "SELECT "+test.sql+" AS v", test.params), "%s %s", test.sql, test.params)
	}
	id := uuid.New()
	result, err := l.try(t.Context(), t, attempt{statement: "SELECT @riverbeat_run_id::uuid AS id", id: id, params: `{"riverbeat_run_id": "x"}`})
	require.NoError(t, err)
	require.Equal(t, `{"id":"`+id.String()+`"}`, string(result.Rows[0]))

	require.Contains(t, l.final(t, attempt{statement: "SELECT @v::int", params: `{"v": "x"}`}), "22P02")
	require.Contains(t, l.final(t, attempt{statement: "SELECT @v::int", params: `{"v": 99999999999}`}), "22003")
	require.Contains(t, l.final(t, attempt{statement: "SELECT @v::int", params: `[]`}), "read the parameters")
	require.Contains(t, l.final(t, attempt{statement: "SELECT 'open"}), "not closed")
}

func TestInjectionByParameters(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.do(t, "CREATE TABLE public.x (t text)", "")
	for _, evil := range []string{
		`'; DROP TABLE public.x; --`, `"; DROP TABLE public.x; --`, `\'; DROP TABLE public.x; --`, `$$; DROP TABLE public.x; --`,
		`{"a"},{"b`, `a","b`, `\"`, `*/ DROP TABLE public.x; /*`, `@v`, `$1`, "x\n; DROP TABLE public.x",
	} {
		raw, err := json.Marshal(map[string]any{"v": evil, "list": []string{evil, "x"}})
		require.NoError(t, err)
		require.EqualValues(t, 2, l.do(t, "INSERT INTO public.x SELECT @v UNION ALL SELECT (@list::text[])[1] WHERE cardinality(@list) = 2", string(raw)).RowCount)
		require.Equal(t, 2, l.count(t, "SELECT count(*) FROM public.x WHERE t = $1", evil))
		l.do(t, "DELETE FROM public.x", "")
	}
}

func TestOneStatementOnly(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.do(t, "CREATE TABLE public.x (t text)", "")
	for _, sql := range []string{
		"SELECT 1; DROP TABLE public.x", "DROP TABLE public.x; SELECT 1", "DROP TABLE public.x;DROP TABLE public.x;",
		"SELECT '$$'; DROP TABLE public.x -- $$", "SELECT 1 /* ; */ ; /* */ DROP TABLE public.x", "BEGIN; DROP TABLE public.x; COMMIT",
		"SELECT $x$ ; $x$; DROP TABLE public.x", "SELECT E'\\''; DROP TABLE public.x; --'",
	} {
		require.Contains(t, l.final(t, attempt{statement: sql}), "42601", sql)
	}
	// With this off, Postgres would read another statement than ParseStatement does.
	require.Contains(t, l.final(t, attempt{
		url: l.url + "&standard_conforming_strings=off", statement: `SELECT '\'; DROP TABLE public.x; --'`,
	}), "42601")
	require.Zero(t, l.count(t, "SELECT count(*) FROM public.x"))
	require.Contains(t, l.one(t, "SELECT 'a;b' AS v, $$;$$ AS w /* ; */ -- ;", ""), `"a;b"`)
	for _, sql := range []string{"", " ; ", "-- nothing", "/* ; */"} {
		require.Contains(t, l.final(t, attempt{statement: sql}), "empty", sql)
	}
}

// Nothing of a session is left for the next run, which finds the server rid of it.
func TestNothingOfASessionLivesOn(t *testing.T) {
	t.Parallel()
	l := setup(t)
	for _, sql := range []string{
		"SELECT pg_advisory_lock(7)", "CREATE TEMP TABLE left_over (i int)", "SET search_path = nowhere", "BEGIN", "LISTEN x",
		"PREPARE p AS SELECT 1", "SELECT set_config('statement_timeout', '1ms', false)", "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
	} {
		l.do(t, sql, "")
		require.Zero(t, l.count(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", l.role), sql)
	}
	require.Contains(t, l.one(t, `SELECT pg_try_advisory_lock(7) AS l, to_regclass('left_over') AS t, current_setting('search_path') <> 'nowhere' AS s,
		(SELECT count(*) FROM pg_prepared_statements WHERE name = 'p') AS p`, ""), `{"l":true,"t":null,"s":true,"p":0}`)
	require.Equal(t, "COMMIT", l.do(t, "COMMIT", "").Command)
	require.Equal(t, "ROLLBACK", l.do(t, "ROLLBACK", "").Command)
	l.final(t, attempt{statement: "SAVEPOINT s"})
}

func TestSessionSettings(t *testing.T) {
	t.Parallel()
	l := setup(t)
	const asked = `SELECT array_to_string(ARRAY(SELECT current_setting(s) FROM unnest(ARRAY['lock_timeout', 'idle_in_transaction_session_timeout',
		'client_connection_check_interval', 'datestyle', 'timezone', 'intervalstyle', 'client_encoding', 'application_name', 'session_authorization']) AS s), '|') AS v,
		(SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout') AS timeout`
	l.admin(t, "ALTER ROLE "+l.role+" SET lock_timeout = 0")
	l.admin(t, "ALTER ROLE "+l.role+" SET statement_timeout = 0")
	for _, more := range []string{
		"", "&options=" + url.QueryEscape("-c statement_timeout=0 -c lock_timeout=0 -c DateStyle=German -c client_connection_check_interval=0"),
		"&statement_timeout=0&Statement_Timeout=0&LOCK_TIMEOUT=0&TimeZone=Asia/Tokyo&DATESTYLE=German&Application_Name=x&Client_Encoding=LATIN1",
		"&options=" + url.QueryEscape("--statement-timeout=0 --lock-timeout=0"),
	} {
		more = strings.ReplaceAll(more, "+", "%20")
		id := uuid.New()
		result, err := l.try(within(t, time.Minute), t, attempt{statement: asked, url: l.url + more, lockTimeout: 1500 * time.Millisecond, id: id})
		require.NoError(t, err, more)
		var row struct {
			V       string
			Timeout int
		}
		require.NoError(t, json.Unmarshal(result.Rows[0], &row))
		require.Equal(t, "1500ms|10s|1s|ISO, DMY|UTC|iso_8601|UTF8|riverbeat run "+id.String()+"|"+l.role, strings.ReplaceAll(row.V, "MDY", "DMY"), more)
		require.Greater(t, row.Timeout, 50_000, more)
		require.Less(t, row.Timeout, 60_000, more)
	}
	result := l.do(t, "SHOW statement_timeout", "") // without a deadline
	require.JSONEq(t, `{"statement_timeout":"0"}`, string(result.Rows[0]))
	path, err := l.try(t.Context(), t, attempt{statement: "SHOW search_path", url: l.url + "&search_path=here"})
	require.NoError(t, err)
	require.JSONEq(t, `{"search_path":"here"}`, string(path.Rows[0]))
}

func TestErrors(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.do(t, "CREATE TABLE public.x (i int CONSTRAINT pk PRIMARY KEY CHECK (i < 10))", "")
	l.do(t, "INSERT INTO public.x VALUES (1)", "")
	for sql, state := range map[string]string{
		"SELEC 1":                          "42601",
		"SELECT * FROM nowhere":            "42P01",
		"INSERT INTO public.x VALUES (1)":  "23505",
		"INSERT INTO public.x VALUES (11)": "23514",
		"SELECT 1 / 0":                     "22012",
		"SELECT * FROM riverbeat.runs":     "42501",
		"SELECT 1 WHERE @a":                "",
		"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'XX001', DETAIL = 'd', HINT = 'h'; END $$": "no (SQLSTATE XX001); detail: d; hint: h",
	} {
		if state == "" {
			l.do(t, sql, `{"a": "on"}`)
			continue
		}
		require.Contains(t, l.final(t, attempt{statement: sql}), state, sql)
	}
	require.Contains(t, l.final(t, attempt{statement: "INSERT INTO public.x VALUES (1)"}), "detail: Key (i)=(1) already exists.")
	for _, state := range []string{"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53100", "53300", "08006", "57014", "58030", "XX000"} {
		_, err := l.try(t.Context(), t, attempt{statement: "DO $$ BEGIN RAISE EXCEPTION 'later' USING ERRCODE = '" + state + "'; END $$"})
		require.ErrorContains(t, err, "later (SQLSTATE "+state+")")
		require.False(t, task.IsFinal(err), state)
	}
}

// A constraint that is checked at the commit fails the run.
func TestDeferredConstraint(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.do(t, "CREATE TABLE public.x (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)", "")
	require.Contains(t, l.final(t, attempt{statement: "INSERT INTO public.x VALUES (1), (1) RETURNING i"}), "23505")
	require.Zero(t, l.count(t, "SELECT count(*) FROM public.x"))
}

func TestNotices(t *testing.T) {
	t.Parallel()
	l := setup(t)
	var lines bytes.Buffer
	_, err := l.try(t.Context(), t, attempt{
		statement: "DO $$ BEGIN RAISE WARNING 'first'; FOR i IN 1..5000 LOOP RAISE NOTICE 'number %', i; END LOOP; END $$",
		logger:    slog.New(slog.NewTextHandler(&lines, nil)),
	})
	require.NoError(t, err)
	require.Contains(t, lines.String(), "level=WARN msg=first sqlstate=01000")
	require.Contains(t, lines.String(), `msg="number 98"`)
	require.NotContains(t, lines.String(), `msg="number 99"`)
	require.Equal(t, 1, strings.Count(lines.String(), "which are not kept"))
	require.Equal(t, 100, strings.Count(lines.String(), "\n"))
}

// A secret does not show half where a text is cut.
func TestSecretsAreNotCut(t *testing.T) {
	t.Parallel()
	l := setup(t)
	ctx := secret.With(t.Context(), secret.NewRedactor(map[string]string{"token": "0123456789abcdef"}))
	var lines bytes.Buffer
	_, err := l.try(ctx, t, attempt{
		statement: "DO $$ BEGIN RAISE NOTICE '%0123456789abcdef', repeat('x', 1016); RAISE EXCEPTION '%0123456789abcdef', repeat('x', 1016) USING HINT = '0123456789abcdef'; END $$",
		logger:    slog.New(slog.NewTextHandler(&lines, nil)),
	})
	require.ErrorContains(t, err, "xxx[secret ")
	require.ErrorContains(t, err, "hint: [secret token]")
	require.Contains(t, lines.String(), "xxx[secret ")
	require.NotContains(t, err.Error()+lines.String(), "0123")
}

func (l *lab) connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}
