package command

import (
	"bytes"
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
)

// What the roles of the database may, and what they may not. Roles belong to the
// whole server, so this is one test.
func TestDatabaseRoles(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	exec := func(sql string) {
		t.Helper()
		_, err := d.Pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	call := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		require.Zero(t, run(t.Context(), nil, append(args, "--database-url", d.URL), &out, &out), out.String())
		return out.String()
	}
	for range 2 {
		require.Contains(t, call("migrate", "roles"), "riverbeat_reader may read")
	}
	// A migration grants what it adds.
	exec("REVOKE SELECT ON riverbeat.report_gaps FROM riverbeat_reader")
	// It is tried again if somebody else grants meanwhile.
	grants, err := d.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = grants.Rollback(context.Background()) }()
	_, err = grants.Exec(t.Context(), "REVOKE SELECT ON riverbeat.runs FROM riverbeat_reader, PUBLIC; GRANT SELECT ON riverbeat.runs TO riverbeat_app")
	require.NoError(t, err)
	waits := func(want bool) {
		t.Helper()
		require.Eventually(t, func() (waits bool) {
			require.NoError(t, d.Pool.QueryRow(t.Context(), `
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%REVOKE ALL ON ALL TABLES%')`).Scan(&waits))
			return waits == want
		}, 30*time.Second, time.Millisecond)
	}
	var out bytes.Buffer
	migrated := make(chan int, 1)
	go func() {
		migrated <- run(t.Context(), nil, []string{"migrate", "up", "--database-url", d.URL}, &out, &out)
	}()
	waits(true)
	waits(false)
	require.NoError(t, grants.Rollback(t.Context()))
	require.Zero(t, <-migrated, &out)
	as := func(role string) *pgx.Conn {
		t.Helper()
		exec("CREATE ROLE login_" + role + " LOGIN IN ROLE " + role)
		t.Cleanup(func() { _, _ = d.Pool.Exec(t.Context(), "DROP ROLE login_"+role) })
		conn, err := pgx.Connect(t.Context(), urlOf(t, d.URL, "login_"+role))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close(t.Context()) })
		_, err = conn.Exec(t.Context(), "SET search_path = riverbeat")
		require.NoError(t, err)
		return conn
	}
	may := func(conn *pgx.Conn, sql string) {
		t.Helper()
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	mayNot := func(conn *pgx.Conn, statements ...string) {
		t.Helper()
		for _, sql := range statements {
			_, err := conn.Exec(t.Context(), sql)
			require.ErrorContains(t, err, "permission denied", sql)
		}
	}

	reader := as("riverbeat_reader")
	rows, err := d.Pool.Query(t.Context(), "SELECT viewname FROM pg_views WHERE schemaname = 'riverbeat' AND viewname LIKE 'report\\_%'")
	require.NoError(t, err)
	views, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Len(t, views, 10)
	for _, view := range views {
		may(reader, "SELECT * FROM "+view)
	}
	mayNot(reader,
		"SELECT * FROM runs", "SELECT * FROM schedules", "SELECT * FROM api_keys", "SELECT * FROM audit_log", "SELECT * FROM river_job",
		"SELECT * FROM runs_without_line", "SELECT * FROM idempotency_keys", "UPDATE report_runs SET state = 'failed'", "DELETE FROM report_audit",
		"SELECT create_runs_partition(now() + interval '1 year')", "SELECT audit('a', 'b', 'c', NULL, NULL)", "CREATE TABLE riverbeat.mine ()")

	app := as("riverbeat_app")
	mayNot(app,
		"UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log", "TRUNCATE runs",
		"CREATE TABLE riverbeat.mine ()", "UPDATE schema_version SET version = 1", "DELETE FROM river_migration")
	for sql, says := range map[string]string{
		"ALTER TABLE runs ADD COLUMN x int": "must be owner", "DROP VIEW report_runs": "must be owner", "DROP TABLE runs": "must be owner",
		"ALTER TABLE audit_log DISABLE TRIGGER ALL": "must be owner",
	} {
		_, err := app.Exec(t.Context(), sql)
		require.ErrorContains(t, err, says, sql)
	}

	// A node works with no more than that.
	address := freeAddress(t)
	node := start(t, "serve", "--database-url", urlOf(t, d.URL, "login_riverbeat_app"), "--insecure-no-auth", "--listen", address)
	// One statement, so that no second passes between the schedule and its clock.
	exec(`
WITH made AS (
    INSERT INTO riverbeat.schedules (name, task_name, cron_expression, timezone) VALUES ('each second', 'echo', '* * * * * *', 'UTC')
    RETURNING id
)
INSERT INTO riverbeat.schedule_clocks (schedule_id, last_scheduled_for, next_run_at) SELECT id, now(), now() + interval '1 ms' FROM made`)
	// Meanwhile an analyst asks for long.
	report, err := reader.Begin(t.Context())
	require.NoError(t, err)
	_, err = report.Exec(t.Context(), "SELECT * FROM report_runs")
	require.NoError(t, err)
	count := func(sql string) (n int) {
		require.NoError(t, d.Pool.QueryRow(t.Context(), sql).Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { return count("SELECT count(*) FROM riverbeat.runs WHERE state = 'succeeded'") >= 3 }, 30*time.Second, 50*time.Millisecond)
	require.Equal(t, 90*86400, count("SELECT runs_kept_s FROM riverbeat.nodes"), "it says how long it wants runs to be kept")
	before := count("SELECT count(*) FROM pg_inherits WHERE inhparent = 'riverbeat.runs'::regclass")
	may(app, "SET lock_timeout = '1s'")
	may(app, "SELECT create_runs_partition(now() + interval '100 days')")
	require.Equal(t, before+1, count("SELECT count(*) FROM pg_inherits WHERE inhparent = 'riverbeat.runs'::regclass"), "the report holds up no upkeep")
	ticked := count("SELECT count(*) FROM riverbeat.runs")
	require.Eventually(t, func() bool { return count("SELECT count(*) FROM riverbeat.runs") > ticked }, 10*time.Second, 50*time.Millisecond, "nor ticks")
	_, err = report.Exec(t.Context(), "SELECT * FROM report_task_daily")
	require.NoError(t, err)
	require.NoError(t, report.Rollback(t.Context()))
	doctor := func() (int, string) {
		var out bytes.Buffer
		return run(t.Context(), nil, []string{"doctor", "--database-url", urlOf(t, d.URL, "login_riverbeat_app")}, &out, &out), out.String()
	}
	code, said := doctor()
	require.Zero(t, code, said)
	// To drop runs is the owner's.
	var refused bytes.Buffer
	require.Equal(t, 1, run(t.Context(), nil, []string{"runs", "prune", "--database-url", urlOf(t, d.URL, "login_riverbeat_app")}, &refused, &refused))
	require.Contains(t, refused.String(), "may not change its tables")
	require.Contains(t, call("runs", "prune"), "kept")
	require.Zero(t, node.stop(), node.stderr)
	require.NotRegexp(t, ".*permission denied.*", node.stderr.String())
}

func urlOf(t *testing.T, database, user string) string {
	t.Helper()
	u, err := url.Parse(database)
	require.NoError(t, err)
	u.User = url.User(user)
	return u.String()
}
