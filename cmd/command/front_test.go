package command

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/riverbeat"
)

// asks answers what a node says at a path; status 0 while nobody listens.
func asks(t *testing.T, address, path string) (int, string) {
	t.Helper()
	probe, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, http.NoBody)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(probe)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(said)
}

func awaitReady(t *testing.T, address string) {
	t.Helper()
	require.Eventually(t, func() bool {
		code, _ := asks(t, address, "/readyz")
		return code == http.StatusOK
	}, 60*time.Second, 20*time.Millisecond)
}

// Whoever scrapes the metrics of a node that waits finds it, and asks for no key.
func TestTheMetricsAddressOfANodeThatWaits(t *testing.T) {
	t.Parallel()
	d := pgtest.Empty(t)
	address, metrics := freeAddress(t), freeAddress(t)
	serve := []string{"serve", "--database-url", d.URL, "--insecure-no-auth", "--listen", address, "--metrics-listen", metrics}
	n := start(t, serve...)
	require.Eventually(t, func() bool {
		_, said := asks(t, metrics, "/readyz")
		return strings.Contains(said, `"schema_not_current"`)
	}, 60*time.Second, 20*time.Millisecond)
	code, _ := asks(t, metrics, "/healthz")
	require.Equal(t, http.StatusOK, code)
	code, _ = asks(t, metrics, "/metrics")
	require.Equal(t, http.StatusServiceUnavailable, code)

	var out bytes.Buffer
	taken := append(slices.Clone(serve[:5]), freeAddress(t), "--metrics-listen", metrics)
	require.Equal(t, 1, run(t.Context(), nil, taken, &out, &out), "before it waits")
	require.Contains(t, out.String(), "address already in use")

	require.Zero(t, run(t.Context(), nil, []string{"migrate", "up", "--database-url", d.URL}, &out, &out), &out)
	awaitReady(t, metrics)
	code, _ = asks(t, metrics, "/metrics")
	require.Equal(t, http.StatusOK, code)
	code, _ = asks(t, metrics, "/api/v1/schedules")
	require.Equal(t, http.StatusNotFound, code)
	code, _ = asks(t, address, "/api/v1/schedules")
	require.Equal(t, http.StatusOK, code)
	require.Zero(t, n.stop(), n.stderr)
	code, _ = asks(t, metrics, "/healthz")
	require.Zero(t, code, "nobody listens any more")
}

func TestANodeWaitsForItsSchema(t *testing.T) {
	t.Parallel()
	d := pgtest.Empty(t)
	var nodes []*program
	var addresses []string
	for _, role := range []string{"all", "worker", "api"} {
		addresses = append(addresses, freeAddress(t))
		nodes = append(nodes, start(t, "serve", "--database-url", d.URL, "--insecure-no-auth", "--role", role, "--listen", addresses[len(addresses)-1]))
	}
	for _, address := range addresses {
		var said string
		require.Eventually(t, func() (waits bool) {
			_, said = asks(t, address, "/readyz")
			return strings.Contains(said, `"schema_not_current"`)
		}, 60*time.Second, 20*time.Millisecond)
		require.Contains(t, said, "at version 0 of ")
		code, said := get(t, "http://"+address+"/healthz")
		require.Equal(t, http.StatusOK, code)
		require.JSONEq(t, `{"status": "ok"}`, said)
		code, said = ask(t, http.MethodPost, "http://"+address+"/api/v1/schedules", "{}")
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Contains(t, said, `"schema_not_current"`)
	}
	require.Zero(t, nodes[2].stop(), "SIGTERM ends the wait")

	var out bytes.Buffer
	require.Zero(t, run(t.Context(), nil, []string{"migrate", "up", "--database-url", d.URL}, &out, &out), &out)
	for i, n := range nodes[:2] {
		awaitReady(t, addresses[i])
		require.Zero(t, n.stop(), n.stderr)
		require.Equal(t, 1, strings.Count(n.stderr.String(), "waiting for the schema"), n.stderr)
		require.Equal(t, 1, strings.Count(n.stderr.String(), "the schema is there"), n.stderr)
	}
}

// The database goes away and comes back while a node waits for its schema.
func TestANodeThatWaitsSaysWhy(t *testing.T) {
	t.Parallel()
	d, elsewhere := pgtest.Empty(t), pgtest.Empty(t)
	address := freeAddress(t)
	n := start(t, "serve", "--database-url", d.URL, "--insecure-no-auth", "--listen", address)
	says := func(code string) {
		t.Helper()
		require.Eventually(t, func() bool {
			_, said := asks(t, address, "/readyz")
			return strings.Contains(said, code)
		}, 60*time.Second, 20*time.Millisecond)
	}
	for range 2 {
		says(`"schema_not_current"`)
		for _, let := range []string{"false", "true"} {
			_, err := elsewhere.Pool.Exec(t.Context(), "ALTER DATABASE "+d.Pool.Config().ConnConfig.Database+" ALLOW_CONNECTIONS "+let)
			require.NoError(t, err)
			if let == "false" {
				says(`"schema_unknown"`)
			}
		}
	}
	says(`"schema_not_current"`)
	require.Zero(t, n.stop(), n.stderr)
	require.Equal(t, 2, strings.Count(n.stderr.String(), "the schema cannot be looked at"), n.stderr)
	require.Equal(t, 1, strings.Count(n.stderr.String(), "waiting for the schema"), n.stderr)
}

// Whoever migrates grants after the last migration what nodes need.
func TestANodeThatWaitsLetsTheMigratorEnd(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	exec := func(statement string, args ...any) {
		t.Helper()
		_, err := d.Pool.Exec(t.Context(), statement, args...)
		require.NoError(t, err)
	}
	says := func(address, what string) {
		t.Helper()
		require.Eventually(t, func() bool {
			_, said := asks(t, address, "/readyz")
			return strings.Contains(said, what)
		}, 60*time.Second, 20*time.Millisecond)
	}
	exec("UPDATE schema_version SET version = version - 1")
	waiting, began := freeAddress(t), freeAddress(t)
	n := start(t, "serve", "--database-url", d.URL, "--insecure-no-auth", "--listen", waiting)
	says(waiting, "at version")
	migrator := holdMigrations(t, d)
	exec("UPDATE schema_version SET version = version + 1")
	says(waiting, "still migrates")
	other := start(t, "serve", "--database-url", d.URL, "--insecure-no-auth", "--listen", began)
	awaitReady(t, began)
	says(waiting, "still migrates")
	require.NoError(t, migrator.Rollback(t.Context()))
	awaitReady(t, waiting)
	require.Zero(t, n.stop(), n.stderr)
	require.Zero(t, other.stop(), other.stderr)
}

// holdMigrations keeps others from migrating, as somebody who migrates does.
func holdMigrations(t *testing.T, d *pgtest.Database) pgx.Tx {
	t.Helper()
	migrator, err := d.Pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = migrator.Rollback(context.Background()) })
	_, err = migrator.Exec(t.Context(), "SELECT pg_advisory_xact_lock($1)", riverbeat.AdvisoryKey(pgtest.Schema, "migrate", ""))
	require.NoError(t, err)
	return migrator
}

func TestSIGTERMEndsTheWaitForAnotherWhoMigrates(t *testing.T) {
	t.Parallel()
	d := pgtest.Empty(t)
	holdMigrations(t, d)
	for _, args := range [][]string{{"serve", "--insecure-no-auth", "--migrate"}, {"dev"}} {
		n := start(t, append(args, "--database-url", d.URL, "--listen", freeAddress(t))...)
		require.Eventually(t, func() (waits bool) {
			require.NoError(t, d.Pool.QueryRow(t.Context(), `
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_try_advisory_lock(%' AND pid <> pg_backend_pid())`).Scan(&waits))
			return waits
		}, 60*time.Second, 20*time.Millisecond)
		require.Zero(t, n.stop(), n.stderr)
	}
}

// A node that is started again in the middle of an upgrade finds a schema that it does not
// know, with which it works, if that says so.
func TestANodeOnANewerSchema(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	change := func(statement string) {
		_, err := d.Pool.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	call := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := run(t.Context(), nil, append(args, "--database-url", d.URL), &out, &out)
		return code, out.String()
	}
	change("UPDATE schema_version SET version = version + 1")
	for _, migrates := range []string{"--migrate=false", "--migrate"} {
		address := freeAddress(t)
		n := start(t, "serve", "--database-url", d.URL, "--insecure-no-auth", "--listen", address, migrates)
		awaitReady(t, address)
		require.Zero(t, n.stop(), n.stderr)
	}
	for _, args := range [][]string{{"keys", "list"}, {"migrate", "up"}} {
		code, out := call(args...)
		require.Zero(t, code, out)
	}
	_, out := call("migrate", "status")
	require.Contains(t, out, "newer than this program, which works with it")

	change("UPDATE schema_version SET oldest_node = version")
	for _, args := range [][]string{
		{"serve", "--insecure-no-auth", "--listen", "127.0.0.1:0"},
		{"serve", "--insecure-no-auth", "--listen", "127.0.0.1:0", "--migrate"},
		{"dev", "--listen", "127.0.0.1:0"},
		{"keys", "list"},
		{"migrate", "down"},
	} {
		code, out := call(args...)
		require.Equal(t, 1, code, args)
		require.Contains(t, out, "Use a newer one", args)
	}
	_, out = call("migrate", "status")
	require.Contains(t, out, "too new; it needs a program that knows ")
}
