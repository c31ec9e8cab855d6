package statement_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/task"
)

// Whatever a statement does to the timeout, it ends, and its session is gone.
func TestTooLong(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"Sleep":       "SELECT pg_sleep(300)",
		"Busy":        "SELECT count(*) FROM generate_series(1, 100000000000)",
		"ManyRows":    "SELECT * FROM generate_series(1, 100000000000)",
		"SetConfig":   "SELECT set_config('statement_timeout', '0', false), pg_sleep(300)",
		"SetLocal":    "DO $$ BEGIN SET LOCAL statement_timeout = 0; PERFORM pg_sleep(300); END $$",
		"CommitInDo":  "DO $$ BEGIN SET statement_timeout = 0; COMMIT; SET statement_timeout = 0; PERFORM pg_sleep(300); END $$",
		"Procedure":   "CALL public.p()",
		"Immutable":   "SELECT public.early()",
		"Deferred":    "INSERT INTO public.x VALUES (1)",
		"Caught":      "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(300); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$",
		"CaughtAlone": "DO $$ BEGIN SET client_connection_check_interval = 0; SET application_name = ''; LOOP BEGIN PERFORM pg_sleep(300); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			l.do(t, "CREATE PROCEDURE public.p() LANGUAGE plpgsql AS 'BEGIN SET statement_timeout = 0; COMMIT; PERFORM pg_sleep(300); END'", "")
			l.do(t, "CREATE FUNCTION public.early() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('statement_timeout', '0', false), pg_sleep(300); RETURN 1; END$$", "")
			l.do(t, "CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(300); RETURN NULL; END'", "")
			l.do(t, "CREATE TABLE public.x (i int)", "")
			l.do(t, "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON public.x DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.late()", "")
			began := time.Now()
			_, err := l.try(within(t, 2*time.Second), t, attempt{statement: sql})
			require.Error(t, err)
			require.False(t, task.IsFinal(err), "%v", err)
			require.Less(t, time.Since(began), 10*time.Second) // the machine is slow at times
			l.gone(t)
			require.Zero(t, l.count(t, "SELECT count(*) FROM public.x"))
		})
	}
}

func TestTheServerEndsWhatIsTooLong(t *testing.T) {
	t.Parallel()
	l := setup(t)
	_, err := l.try(within(t, 4*time.Second), t, attempt{statement: "SELECT pg_sleep(300)"})
	require.ErrorContains(t, err, "57014")
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	l := setup(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("somebody wants it cancelled")
	go func() {
		const sleeps = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'PgSleep'"
		for n := 0; n == 0; {
			if l.Pool.QueryRow(ctx, sleeps, l.role).Scan(&n) != nil {
				return
			}
		}
		cancel(why)
	}()
	began := time.Now()
	_, err := l.try(ctx, t, attempt{statement: "SELECT pg_sleep(300)"})
	require.ErrorIs(t, err, why)
	require.Less(t, time.Since(began), time.Minute)
	l.gone(t)
	_, err = l.try(ctx, t, attempt{statement: "SELECT 1"})
	require.ErrorIs(t, err, why)
}

func TestLockTimeout(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.do(t, "CREATE TABLE public.x (i int)", "")
	tx, err := l.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), "LOCK TABLE public.x")
	require.NoError(t, err)
	for _, sql := range []string{"SELECT * FROM public.x", "INSERT INTO public.x VALUES (1)", "DROP TABLE public.x"} {
		_, err = l.try(within(t, time.Minute), t, attempt{statement: sql, lockTimeout: 100 * time.Millisecond})
		require.ErrorContains(t, err, "55P03")
		require.False(t, task.IsFinal(err))
	}
}

func TestCopy(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.do(t, "CREATE TABLE public.x (i int)", "")
	for _, sql := range []string{
		"COPY public.x FROM STDIN", "/* */ copy public.x (i) from stdin", "COPY public.x TO STDOUT", "COPY (SELECT * FROM generate_series(1, 100000000)) TO STDOUT",
	} {
		require.Contains(t, l.final(t, attempt{statement: sql}), "use INSERT or SELECT", sql)
		l.gone(t)
	}
	for _, sql := range []string{"COPY public.x TO PROGRAM 'id'", "COPY public.x FROM PROGRAM 'id'", "COPY public.x FROM '/etc/passwd'", "COPY public.x TO '/tmp/x'"} {
		require.Contains(t, l.final(t, attempt{statement: sql}), "42501", sql)
	}
}

func TestLeavingTheRole(t *testing.T) {
	t.Parallel()
	l := setup(t)
	other := l.newRole(t, "")
	l.admin(t, "CREATE TABLE public.secrets (i int)")
	for _, sql := range []string{
		"SET ROLE " + other, "SET SESSION AUTHORIZATION " + other, "SET SESSION AUTHORIZATION riverbeat", "SET ROLE riverbeat",
		"DO $$ BEGIN RESET ROLE; RESET SESSION AUTHORIZATION; DELETE FROM public.secrets; END $$",
		"ALTER ROLE CURRENT_USER SUPERUSER", "CREATE ROLE mine", "SELECT pg_read_file('/etc/passwd')", "SELECT lo_import('/etc/passwd')",
		"ALTER SYSTEM SET work_mem = '1MB'", "SELECT pg_reload_conf()", "CREATE EXTENSION file_fdw", "DELETE FROM public.secrets", "DROP SCHEMA riverbeat CASCADE",
	} {
		require.Regexp(t, "42501|0A000|58P01|22023", l.final(t, attempt{statement: sql}), sql)
	}
	for _, sql := range []string{"RESET ROLE", "RESET SESSION AUTHORIZATION", "RESET ALL", "DISCARD ALL", "LISTEN x"} {
		l.do(t, sql, "")
	}
}

func TestAnothersSession(t *testing.T) {
	t.Parallel()
	l := setup(t)
	other := l.newRole(t, "")
	conn := l.connect(t, l.login(t, other, ""))
	for _, f := range []string{"pg_terminate_backend", "pg_cancel_backend"} {
		require.Contains(t, l.final(t, attempt{statement: "SELECT " + f + "(pid) FROM pg_stat_activity WHERE usename = '" + other + "'"}), "42501")
	}
	require.NoError(t, conn.Ping(t.Context()))
	_, err := l.try(t.Context(), t, attempt{statement: "SELECT pg_terminate_backend(pg_backend_pid())"})
	require.ErrorContains(t, err, "57P01")
	require.False(t, task.IsFinal(err))
}

func TestLoginsThatCanDoTooMuch(t *testing.T) {
	t.Parallel()
	l := setup(t)
	super := l.newRole(t, "SUPERUSER")
	creates := l.newRole(t, "CREATEROLE")
	for name, test := range map[string]struct{ attributes, grant, says string }{
		"Superuser":         {attributes: "SUPERUSER", says: "SUPERUSER"},
		"CreateRole":        {attributes: "CREATEROLE", says: "CREATEROLE"},
		"CreateDB":          {attributes: "CREATEDB NOINHERIT", says: "CREATEDB"},
		"Replication":       {attributes: "REPLICATION", says: "REPLICATION"},
		"BypassRLS":         {attributes: "BYPASSRLS", says: "BYPASSRLS"},
		"Programs":          {grant: "GRANT pg_execute_server_program TO %s", says: "pg_execute_server_program"},
		"ReadsFiles":        {grant: "GRANT pg_read_server_files TO %s", says: "pg_read_server_files"},
		"WritesFiles":       {grant: "GRANT pg_write_server_files TO %s", attributes: "NOINHERIT", says: "pg_write_server_files"},
		"Signals":           {grant: "GRANT pg_signal_backend TO %s", says: "pg_signal_backend"},
		"MemberOfSuperuser": {grant: "GRANT " + super + " TO %s", attributes: "NOINHERIT", says: "SUPERUSER"},
		"MemberOfCreator":   {grant: "GRANT " + creates + " TO %s", says: "CREATEROLE"},
		"WritesRuns":        {grant: "GRANT UPDATE ON riverbeat.runs TO %s", says: "write access to tables of Riverbeat, such as runs"},
		"WritesSchedules":   {grant: "GRANT TRUNCATE ON riverbeat.schedules TO %s", says: "write access to tables of Riverbeat, such as schedules"},
		"WritesJobs":        {grant: "GRANT INSERT ON riverbeat.river_job TO %s", says: "write access to tables of Riverbeat, such as river_job"},
		"WritesAColumn":     {grant: "GRANT UPDATE (state) ON riverbeat.river_job TO %s", says: "write access to tables of Riverbeat, such as river_job"},
		"WritesDefinitions": {grant: "GRANT INSERT ON riverbeat.task_definitions TO %s", says: "write access to tables of Riverbeat, such as task_definitions"},
		"WritesEverything":  {grant: "GRANT pg_write_all_data TO %s", says: "write access to tables of Riverbeat, such as "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			role := l.newRole(t, test.attributes)
			if test.grant != "" {
				l.admin(t, strings.ReplaceAll(test.grant, "%s", role))
			}
			said := l.final(t, attempt{url: l.login(t, role, ""), statement: "CREATE TABLE public.never ()"})
			require.Contains(t, said, test.says)
			require.Contains(t, said, "use a login of its own")
			require.NotContains(t, said, "never")
		})
	}
	t.Run("Indirectly", func(t *testing.T) {
		t.Parallel()
		middle, role := l.newRole(t, "NOINHERIT"), l.newRole(t, "NOINHERIT")
		l.admin(t, "GRANT pg_write_server_files TO "+middle)
		l.admin(t, "GRANT "+middle+" TO "+role)
		require.Contains(t, l.final(t, attempt{url: l.login(t, role, ""), statement: "SELECT 1"}), "pg_write_server_files")
	})
	t.Run("InDisguise", func(t *testing.T) {
		t.Parallel()
		role := l.newRole(t, "SUPERUSER")
		options := "&options=" + strings.ReplaceAll(url.QueryEscape("-c session_authorization="+l.role), "+", "%20")
		for _, more := range []string{"&role=" + l.role, "&session_authorization=" + l.role, "&Session_Authorization=" + l.role, options} {
			require.Contains(t, l.final(t, attempt{url: l.login(t, role, more), statement: "SELECT 1"}), "SUPERUSER", more)
		}
	})
	t.Run("ByFunctionsOfItsOwn", func(t *testing.T) {
		t.Parallel()
		role := l.newRole(t, "CREATEROLE")
		l.admin(t, "CREATE SCHEMA evil AUTHORIZATION "+role)
		t.Cleanup(func() { _, _ = l.Pool.Exec(context.Background(), "DROP SCHEMA evil CASCADE") })
		l.admin(t, "CREATE FUNCTION evil.pg_has_role(name, oid, text) RETURNS bool LANGUAGE sql AS 'SELECT false'")
		l.admin(t, "CREATE VIEW evil.pg_roles AS SELECT * FROM pg_catalog.pg_roles WHERE false")
		require.Contains(t, l.final(t, attempt{url: l.login(t, role, "&search_path=evil,pg_catalog"), statement: "SELECT 1"}), "CREATEROLE")
	})
	t.Run("WithoutTables", func(t *testing.T) {
		t.Parallel()
		empty := &lab{Database: pgtest.Empty(t)}
		_, err := l.try(t.Context(), t, attempt{url: empty.login(t, l.role, ""), statement: "SELECT 1"})
		require.NoError(t, err)
	})
}

func TestWrongDatabases(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{
		"", "x", "host=localhost user=u password=" + password, "mysql://u:" + password + "@h/d", "postgres://localhost/d", "postgres://:" + password + "@localhost/d",
		"postgres://u:" + password + "@localhost:port/d", "postgres://u:a/" + password + "@localhost/d", "postgres://u:1/" + password + "@localhost/d",
		"postgres://u:x?" + password + "@localhost/d", "postgres://u:x#" + password + "@localhost/d", "postgres://u:x@y/" + password + "@localhost/d",
		"postgres://u:%zz" + password + "@localhost/d", "postgres://u:" + password + "@localhost/d?sslmode=nonsense", "postgres://u:" + password + "\x00@localhost/d",
		"postgres://u:" + password + "@[::1/d", "postgres://u:" + password + "@localhost/d?connect_timeout=x",
	} {
		_, err := execute(t.Context(), t, attempt{url: wrong, statement: "SELECT 1"})
		require.ErrorContains(t, err, "postgres://user:password@host/name", wrong)
		require.True(t, task.IsFinal(err))
	}
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of a test
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for _, address := range []string{closed.Addr().String(), "no-such-host.invalid:5432"} {
		_, err = execute(t.Context(), t, attempt{url: "postgres://u:" + password + "@" + address + "/d?sslmode=disable", statement: "SELECT 1"})
		require.ErrorContains(t, err, "failed to connect")
		require.False(t, task.IsFinal(err), "%v", err)
	}
}

// server plays a Postgres that is asked for a password.
func server(t *testing.T, answer func(b *pgproto3.Backend)) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of a test
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				b := pgproto3.NewBackend(conn, conn)
				if _, err := b.ReceiveStartupMessage(); err == nil {
					answer(b)
				}
			}()
		}
	}()
	return "postgres://u:" + password + "@" + listener.Addr().String() + "/d?sslmode=disable"
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	for code, final := range map[string]bool{"28P01": true, "3D000": true, "53300": false, "57P03": false} {
		url := server(t, func(b *pgproto3.Backend) {
			b.Send(&pgproto3.AuthenticationCleartextPassword{})
			_ = b.Flush()
			_, _ = b.Receive()
			b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: "you may not"})
			_ = b.Flush()
		})
		_, err := execute(t.Context(), t, attempt{url: url, statement: "SELECT 1"})
		require.ErrorContains(t, err, "you may not (SQLSTATE "+code+")")
		require.Equal(t, final, task.IsFinal(err))
	}
}

// A server that says nothing any more holds nobody up.
func TestADumbServer(t *testing.T) {
	t.Parallel()
	stop := t.Context()
	url := server(t, func(*pgproto3.Backend) { <-stop.Done() })
	began := time.Now()
	_, err := execute(within(t, time.Second), t, attempt{url: url, statement: "SELECT 1"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 5*time.Second)

	url = server(t, func(b *pgproto3.Backend) {
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = b.Flush()
		<-stop.Done()
	})
	began = time.Now()
	_, err = execute(within(t, time.Second), t, attempt{url: url, statement: "SELECT 1"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 5*time.Second)
}
