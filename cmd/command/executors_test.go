package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// TestOneOfEachExecutor runs one definition of each kind on schedule in one riverbeat dev,
// and finds the results in report_runs.
func TestOneOfEachExecutor(t *testing.T) {
	t.Parallel()
	const signing = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	webhook, err := standardwebhooks.NewWebhook(signing)
	require.NoError(t, err)
	var refused atomic.Int32
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var run struct {
			RunID      string `json:"run_id"`
			TaskParams struct{ N int }
		}
		if err != nil || webhook.Verify(body, r.Header) != nil || json.Unmarshal(body, &run) != nil || r.Header.Get("Idempotency-Key") != run.RunID {
			refused.Add(1)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = fmt.Fprintf(w, `{"received": %q}`, run.RunID)
	}))
	defer receiver.Close()

	dir := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		return file
	}
	commands := write("commands.json", `{"report": {"argv": ["/bin/sh", "-c", "cat >/dev/null; printf '{\"args\": \"%s\"}' \"$*\"; echo \"$TOKEN\" >&2", "sh"], "environment": {"TOKEN": {"$secret": "token"}}}}`)
	// It is read at each use; what stands there now is only good for the start.
	database := write("database", "postgres://nobody@nowhere/none")
	settings := write("settings", fmt.Sprintf(`
RIVERBEAT_COMMANDS=%s
RIVERBEAT_SECRETS=signing=file:%s,token=file:%s,database=file:%s
RIVERBEAT_HTTP_NETWORKS=127.0.0.0/8
`, commands, write("signing", signing+"\n"), write("token", "hunter2-hunter2\n"), database))
	p := start(t, "dev", "--config", settings, "--data-dir", dataDir(t), "--listen", "127.0.0.1:0", "--timezone", "UTC")
	base := p.find(t, `^  API +(http://\S+)$`)
	url := p.find(t, `^  Database +(postgres://\S+)$`)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.Exec(t.Context(), `CREATE ROLE reports_task LOGIN; CREATE TABLE public.done (n int, run_id uuid); GRANT SELECT, INSERT ON public.done TO reports_task`)
	require.NoError(t, err)
	write("database", urlOf(t, url, "reports_task"))

	post := func(path, body string) {
		code, answered := ask(t, http.MethodPost, base+path, body)
		require.Equal(t, http.StatusCreated, code, answered)
	}
	for name, executor := range map[string]string{
		"one.go":      `{"kind": "go", "name": "echo"}`,
		"one.http":    fmt.Sprintf(`{"kind": "http", "url": %q, "signing_secret": {"$secret": "signing"}}`, receiver.URL+"/hook"),
		"one.sql":     `{"kind": "sql", "database": {"$secret": "database"}, "statement": "INSERT INTO public.done VALUES (@n, @riverbeat_run_id) RETURNING n, run_id"}`,
		"one.command": `{"kind": "command", "name": "report", "arguments": ["--n", {"$param": "n"}]}`,
	} {
		post("/task-definitions", fmt.Sprintf(`{"task_name": %q, "executor": %s, "parameter_schema": {"properties": {"n": {"type": "integer", "default": 7}}}}`, name, executor))
		post("/schedules", fmt.Sprintf(`{"task_name": %q, "cron_expression": "@every 1s"}`, name))
	}
	const wanted = `
SELECT count(DISTINCT task_name)
FROM (
    SELECT task_name, count(*) AS runs
    FROM riverbeat.report_runs
    WHERE state = 'succeeded' AND trigger = 'schedule' AND result @> CASE task_name
        WHEN 'one.go' THEN '{"n": 7}'::jsonb
        WHEN 'one.http' THEN jsonb_build_object('status', 200, 'body', jsonb_build_object('received', id))
        WHEN 'one.sql' THEN jsonb_build_object('command', 'INSERT', 'row_count', 1, 'rows', jsonb_build_array(jsonb_build_object('n', 7, 'run_id', id)))
        WHEN 'one.command' THEN '{"exit_code": 0, "output": {"args": "--n 7"}, "stderr": "[secret token]"}'
    END
    GROUP BY task_name
    HAVING count(*) >= 2
) AS good`
	defer func() {
		if !t.Failed() {
			return
		}
		var runs string
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT string_agg(format('%s %s %s %s', task_name, state, result, error), e'\n')
FROM (SELECT DISTINCT ON (task_name, state) * FROM riverbeat.report_runs) AS r`).Scan(&runs))
		t.Log(runs, p.stderr)
	}()
	require.Eventually(t, func() bool {
		var kinds int
		require.NoError(t, conn.QueryRow(t.Context(), wanted).Scan(&kinds))
		return kinds == 4
	}, 60*time.Second, 50*time.Millisecond)
	require.Zero(t, refused.Load())
	var failed int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM riverbeat.report_runs WHERE state = 'failed'").Scan(&failed))
	require.Zero(t, failed)
	_, nodes := get(t, base+"/nodes")
	require.Contains(t, nodes, `"commands":["report"]`)

	for _, page := range []string{"executors.md", "python-tasks.md", "alerts.md"} {
		content, err := os.ReadFile(filepath.Join("../../docs", page))
		require.NoError(t, err)
		found := regexp.MustCompile(`(?s)curl -sS \$B(/[a-z-]+) --json '(\{.*?\})'\n`).FindAllStringSubmatch(string(content), -1)
		require.GreaterOrEqual(t, len(found), 2, page)
		for _, request := range found {
			post(request[1], strings.ReplaceAll(request[2], `'\''`, `'`))
		}
	}
	require.Zero(t, p.stop(), p.stderr)
	require.NotContains(t, p.stderr.String(), "hunter2")
}
