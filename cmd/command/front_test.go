package command

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
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
