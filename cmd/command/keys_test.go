package command

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
)

// The keys that people make are those that let them in, from the first on.
func TestKeysOpenADoor(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	address := freeAddress(t)
	base := "http://" + address
	p := start(t, "serve", "--database-url", d.URL, "--listen", address, "--role", "api")
	first := p.find(t, `^  (rb_\S+)$`)
	awaitReady(t, address)
	ask := func(key, path string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		require.NoError(t, err)
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		return answer.StatusCode
	}
	require.Equal(t, http.StatusUnauthorized, ask("", "/api/v1/schedules"))
	require.Equal(t, http.StatusUnauthorized, ask("", "/riverui/"))
	require.Equal(t, http.StatusUnauthorized, ask("", "/metrics"))
	require.Equal(t, http.StatusOK, ask("", "/readyz"))
	require.Equal(t, http.StatusOK, ask(first, "/api/v1/api-keys"))
	require.Equal(t, http.StatusOK, ask(first, "/riverui/"))
	require.Equal(t, http.StatusOK, ask(first, "/metrics"))

	keys := func(args ...string) string {
		t.Helper()
		var out, log bytes.Buffer
		require.Zero(t, run(t.Context(), nil, append(append([]string{"keys"}, args...), "--database-url", d.URL), &out, &log), log.String())
		require.Empty(t, log.String())
		return out.String()
	}
	var made struct{ ID, Key, Role, Name string }
	require.NoError(t, json.Unmarshal([]byte(keys("create", "--role", "viewer", "--name", "a reader", "-o", "json")), &made))
	require.Equal(t, "viewer", made.Role)
	require.Equal(t, http.StatusOK, ask(made.Key, "/api/v1/schedules"))
	require.Equal(t, http.StatusForbidden, ask(made.Key, "/api/v1/api-keys"))

	rotated := keys("rotate", made.ID, "--overlap", "0s")
	next, _, _ := strings.Cut(rotated, "\n")
	require.Equal(t, http.StatusUnauthorized, ask(made.Key, "/api/v1/schedules"))
	require.Equal(t, http.StatusOK, ask(next, "/api/v1/schedules"))
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	shown := keys("create", "--role", "admin", "--name", "another", "--expires-at", until)
	require.Contains(t, shown, "shown only now")
	list := keys("list")
	require.Len(t, strings.Split(strings.TrimSpace(list), "\n"), 5)
	require.Contains(t, list, until)
	require.Contains(t, list, "cli:")
	require.Contains(t, keys("revoke", strings.Split(next, "_")[1]), "(revoked)")
	require.Equal(t, http.StatusUnauthorized, ask(next, "/api/v1/schedules"))
	require.Zero(t, p.stop(), p.stderr)

	// It is printed once, and where nobody could come in nothing is served.
	again := start(t, "serve", "--database-url", d.URL, "--listen", address, "--role", "api")
	awaitReady(t, address)
	require.Zero(t, again.stop(), again.stderr)
	for line := range again.lines {
		require.NotContains(t, line, "rb_")
	}
	_, err := d.Pool.Exec(t.Context(), "UPDATE api_keys SET expires_at = now()")
	require.NoError(t, err)
	var out bytes.Buffer
	require.Equal(t, 1, run(t.Context(), nil, []string{"serve", "--database-url", d.URL, "--listen", "127.0.0.1:0"}, &out, &out))
	require.Contains(t, out.String(), "riverbeat keys create --role admin")
	require.NotContains(t, out.String(), "serving")
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// On an address that others reach, dev asks for keys from the beginning.
func TestDevBeyondLoopbackIsClosed(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	p := start(t, "dev", "--database-url", d.URL, "--listen", "0.0.0.0:0")
	require.NotEmpty(t, p.find(t, `^  (rb_\S+)$`))
	p.find(t, `(API keys are needed)`)
}

func TestDevIsOpenUntilAKey(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	p := start(t, "dev", "--database-url", d.URL, "--listen", "127.0.0.1:0")
	p.find(t, `(There are no keys)`)
	base := p.find(t, `API\s+(http://\S+)/api/v1`)
	ask := func(host string, headers ...string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/v1/schedules/preview", strings.NewReader(`{"cron_expression": "@daily"}`))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
		}
		if host != "" {
			r.Host = host
		}
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		return answer.StatusCode
	}
	for _, host := range []string{"", "localhost:8080", "LOCALHOST", "app.localhost", "[::1]:80", "127.1.2.3"} {
		require.Equal(t, http.StatusOK, ask(host), host)
	}
	for _, host := range []string{"evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "192.0.2.1"} {
		require.Equal(t, http.StatusForbidden, ask(host), host)
	}
	require.Equal(t, http.StatusForbidden, ask("", "Origin: http://evil.example"))
	require.Equal(t, http.StatusForbidden, ask("", "Sec-Fetch-Site: cross-site"))
	require.Equal(t, http.StatusOK, ask("", "Sec-Fetch-Site: same-origin"))
	var out bytes.Buffer
	require.Zero(t, run(t.Context(), nil, []string{"keys", "create", "--role", "viewer", "--name", "x", "--database-url", d.URL}, &out, &out))
	require.Equal(t, http.StatusUnauthorized, ask(""))
}
