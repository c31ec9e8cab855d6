package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/access"
	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/httpapi"
	"riverbeat/internal/installation"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { pgtest.Main(m) }

// client speaks to the API of one test.
type client struct {
	t       *testing.T
	handler http.Handler
	config  httpapi.Config
	db      *postgres.DB
	log     *bytes.Buffer
}

// setup makes an API on an empty database.
func setup(t *testing.T, options ...func(*httpapi.Config)) *client {
	t.Helper()
	// A database of its own: transactions that share one would wait for each
	// other's names of tasks.
	return serve(t, pgtest.DB(t).DB, options...)
}

func serve(t *testing.T, db *postgres.DB, options ...func(*httpapi.Config)) *client {
	t.Helper()
	logged := &bytes.Buffer{}
	logger := slog.New(slog.NewTextHandler(logged, nil))
	q, err := queue.New(pgtest.Pool(t), pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := ledger.New(q)
	cfg := httpapi.Config{
		Access:  access.New(access.Config{DB: db, Open: access.Open, Now: time.Now}),
		Catalog: catalog.New(db, l), History: history.New(db, l), Installation: installation.New(db),
		Now: time.Now, DefaultTimezone: "Asia/Tokyo", Logger: logger, Version: "1.2.3",
	}
	for _, option := range options {
		option(&cfg)
	}
	handler, err := httpapi.New(cfg)
	require.NoError(t, err)
	return &client{t: t, handler: handler, config: cfg, db: db, log: logged}
}

// response is an answer of the API.
type response struct {
	*http.Response
	t    *testing.T
	body []byte
}

// do sends a request. A body that is not empty is JSON, unless headers, given
// as "Name: value", say something else. The answer is held to the OpenAPI
// document.
func (c *client) do(method, path, body string, headers ...string) *response {
	c.t.Helper()
	r := c.send(c.t.Context(), method, path, body, headers...)
	r.keepsContract(c, method, path)
	return r
}

func (c *client) send(ctx context.Context, method, path, body string, headers ...string) *response {
	c.t.Helper()
	return c.serve(c.request(ctx, method, path, body, headers...))
}

// sendFrom is send from an address.
func (c *client) sendFrom(address, method, path, body string, headers ...string) *response {
	c.t.Helper()
	r := c.request(c.t.Context(), method, path, body, headers...)
	r.RemoteAddr = address
	return c.serve(r)
}

func (c *client) request(ctx context.Context, method, path, body string, headers ...string) *http.Request {
	c.t.Helper()
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	return r
}

func (c *client) serve(r *http.Request) *response {
	c.t.Helper()
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	result := w.Result()
	raw, err := io.ReadAll(result.Body)
	require.NoError(c.t, err)
	require.NoError(c.t, result.Body.Close())
	return &response{Response: result, t: c.t, body: raw}
}

// ask sends a request that is answered with the status, and reads the answer.
func (c *client) ask(status int, method, path, body string, headers ...string) map[string]any {
	c.t.Helper()
	r := c.do(method, path, body, headers...)
	require.Equal(c.t, status, r.StatusCode, "%s %s: %s", method, path, r.body)
	if len(r.body) == 0 {
		return nil
	}
	return r.object()
}

func (r *response) object() map[string]any {
	r.t.Helper()
	var object map[string]any
	require.NoError(r.t, json.Unmarshal(r.body, &object), "%s", r.body)
	return object
}

// exec changes the database behind the API's back.
func (c *client) exec(statement string, args ...any) {
	c.t.Helper()
	require.NoError(c.t, c.db.InTx(c.t.Context(), func(tx *postgres.Tx) error {
		_, err := tx.Exec(c.t.Context(), statement, args...)
		return err
	}))
}

// query asks the database for one row.
func (c *client) query(statement string, to ...any) {
	c.t.Helper()
	require.NoError(c.t, c.db.InTx(c.t.Context(), func(tx *postgres.Tx) error {
		return tx.QueryRow(c.t.Context(), statement).Scan(to...)
	}))
}

// items are the items of a page.
func items(page map[string]any) []map[string]any {
	var list []map[string]any
	for _, item := range page["items"].([]any) {
		list = append(list, item.(map[string]any))
	}
	return list
}

// field collects one field of all items.
func field(page map[string]any, name string) []any {
	list := []any{}
	for _, item := range items(page) {
		list = append(list, item[name])
	}
	return list
}

// golden compares JSON with a file, in which what differs from test to test has
// a name.
func golden(t *testing.T, name string, raw []byte, names *strings.Replacer) {
	t.Helper()
	var pretty bytes.Buffer
	require.NoError(t, json.Indent(&pretty, raw, "", "  "), "%s", raw)
	got := names.Replace(pretty.String()) + "\n"
	file := filepath.Join("testdata", name+".json")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "run the test with -update to write it")
	require.Equal(t, string(want), got)
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func ready(err error) func(*httpapi.Config) {
	return func(cfg *httpapi.Config) {
		cfg.Ready = func(context.Context) error { return err }
	}
}

func jsonText(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}
