package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute/process"
	"riverbeat/internal/pgtest"
)

func TestMain(m *testing.M) {
	if process.IsGuard(os.Args[1:]) { // of a command that a test's own node executes
		os.Exit(process.Guard(os.Args[1:]))
	}
	if filepath.Base(os.Args[0]) == "riverbeat" { // a link that a test made
		Main()
	}
	time.Local = time.UTC // tables show times by the clocks of the machine
	pgtest.Main(m)
}

// program is the program itself, running in this process.
type program struct {
	lines  chan string // of stdout
	stderr *bytes.Buffer
	stop   func() int
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	p := &program{lines: make(chan string, 100), stderr: &bytes.Buffer{}}
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, nil, args, in, p.stderr)
		_ = in.Close()
	}()
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
	}()
	ended := false
	p.stop = func() int {
		cancel()
		if ended {
			return 0
		}
		ended = true
		return <-code
	}
	t.Cleanup(func() { p.stop() })
	return p
}

// find reads lines until one matches, and gives its first group.
func (p *program) find(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(60 * time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			require.True(t, ok, "it ended: %s", p.stderr)
			if m := re.FindStringSubmatch(line); m != nil {
				return m[1]
			}
		case <-timeout:
			require.Fail(t, "no such line", pattern)
		}
	}
}

// dataDir is one that Postgres's user can reach, which t.TempDir is not for
// root.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "riverbeat-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "data")
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	return ask(t, http.MethodGet, url, "")
}

func ask(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	answered, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(answered)
}

// TestTheReadme does what the README and docs/sql.md say, with the program's
// own addresses.
func TestTheReadme(t *testing.T) {
	t.Parallel()
	p := start(t, "dev", "--listen", "127.0.0.1:0", "--data-dir", dataDir(t))
	base := strings.TrimSuffix(p.find(t, `^  API +(http://\S+)/api/v1$`), "/")
	database := p.find(t, `^  Database +(postgres://\S+)$`)
	code, body := get(t, base+"/readyz")
	require.Equal(t, http.StatusOK, code, body)

	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	var curls int
	for _, block := range regexp.MustCompile("(?s)```sh\n(curl.*?)```").FindAllStringSubmatch(string(readme), -1) {
		script := strings.ReplaceAll(block[1], "http://127.0.0.1:8080", base)
		script = strings.ReplaceAll(script, "curl ", "curl --silent --show-error --fail-with-body ")
		curls += strings.Count(block[1], "curl ")
		out, err := exec.CommandContext(t.Context(), "sh", "-ec", script).CombinedOutput()
		require.NoError(t, err, "%s\n%s", script, out)
	}
	require.Equal(t, 3, curls)

	var runs struct {
		Items []struct {
			State        string          `json:"state"`
			ScheduleName string          `json:"schedule_name"`
			Result       json.RawMessage `json:"result"`
		} `json:"items"`
	}
	require.Eventually(t, func() bool {
		_, body := get(t, base+"/api/v1/runs?state=succeeded&page_size=3")
		return json.Unmarshal([]byte(body), &runs) == nil && len(runs.Items) > 0
	}, 15*time.Second, 100*time.Millisecond)
	require.Equal(t, "greet_world_custom", runs.Items[0].ScheduleName)
	require.JSONEq(t, `{"name": "world", "polite": true}`, string(runs.Items[0].Result))

	query := regexp.MustCompile("(?s)```sql\n(.*?)```").FindStringSubmatch(string(readme))[1]
	out, err := exec.CommandContext(t.Context(), "psql", "--no-psqlrc", database, "-c", query).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "greet_world_custom")
	require.Contains(t, string(out), "succeeded")

	page, err := os.ReadFile("../../docs/sql.md")
	require.NoError(t, err)
	queries := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	require.NotEmpty(t, queries)
	for _, query := range queries {
		out, err := exec.CommandContext(t.Context(), "psql", "--no-psqlrc", database, "-v", "ON_ERROR_STOP=1", "-c", query[1]).CombinedOutput()
		require.NoError(t, err, "%s\n%s", query[1], out)
	}

	code, body = get(t, base+"/riverui/")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "<title>River</title>")
	code, body = get(t, base+"/riverui/api/jobs?state=completed")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "greet_world_custom")
	code, _ = get(t, base+"/docs")
	require.Equal(t, http.StatusOK, code)

	require.Zero(t, p.stop(), p.stderr)
}

func TestDevStartsAgainOnItsData(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	for range 2 {
		p := start(t, "dev", "--listen", "127.0.0.1:0", "--data-dir", dir)
		p.find(t, `^  API +(http://\S+)$`)
		require.Zero(t, p.stop(), p.stderr)
	}
}

func TestDevOutlivesItsPostgres(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	p := start(t, "dev", "--listen", "127.0.0.1:0", "--data-dir", dir)
	base := p.find(t, `^  API +(http://\S+)/api/v1$`)

	file, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.Split(string(file), "\n")[0])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))

	require.Eventually(t, func() bool {
		file, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
		return err == nil && !strings.HasPrefix(string(file), strconv.Itoa(pid)+"\n")
	}, 30*time.Second, 20*time.Millisecond, "another Postgres")
	require.Eventually(t, func() bool {
		code, _ := get(t, base+"/readyz")
		return code == http.StatusOK
	}, 30*time.Second, 20*time.Millisecond)
	require.Zero(t, p.stop(), p.stderr)
	require.Contains(t, p.stderr.String(), "Postgres ended; starting it again")
}

func TestServeAndMigrate(t *testing.T) {
	t.Parallel()
	d := pgtest.Empty(t)
	call := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := run(t.Context(), nil, args, &out, &out)
		return code, out.String()
	}
	for _, args := range [][]string{{"keys", "list"}, {"migrate", "roles"}, {"doctor"}} {
		code, out := call(append(args, "--database-url", d.URL)...)
		require.Equal(t, 1, code)
		require.Contains(t, out, "riverbeat migrate up")
	}
	code, out := call("migrate", "status", "--database-url", d.URL)
	require.Zero(t, code, out)
	require.Contains(t, out, "0 of ")
	require.Contains(t, out, "behind")
	code, out = call("migrate", "up", "--database-url", d.URL)
	require.Zero(t, code, out)
	code, out = call("migrate", "status", "--database-url", d.URL)
	require.Zero(t, code, out)
	require.Contains(t, out, "current")
	code, out = call("migrate", "down", "--database-url", d.URL)
	require.Zero(t, code, out)

	// Several nodes may start at once, and migrate.
	var nodes []*program
	for _, role := range []string{"all", "worker", "api"} {
		nodes = append(nodes, start(t, "serve", "--database-url", d.URL, "--insecure-no-auth", "--migrate",
			"--listen", "127.0.0.1:0", "--role", role))
	}
	require.Eventually(t, func() bool {
		var n int
		err := d.Pool.QueryRow(t.Context(), "SELECT count(*) FROM nodes").Scan(&n)
		return err == nil && n == 2
	}, 30*time.Second, 50*time.Millisecond, "two of them work")
	for _, n := range nodes {
		require.Zero(t, n.stop(), n.stderr)
	}
}

func TestBadCallsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"serve", "--insecure-no-auth"}, "DATABASE_URL"},
		{[]string{"dev", "--shutdown-grace", "soon"}, "shutdown-grace"},
		{[]string{"dev", "--listen", "nowhere"}, "listen"},
		{[]string{"dev", "--nonsense"}, "--help"},
		{[]string{"dve"}, `unknown command "dve"`},
		{[]string{"migrate", "upp"}, `unknown command "upp"`},
		{[]string{"serve", "now"}, `unexpected "now"`},
		{[]string{"keys", "revoke"}, "the id of one key"},
		{[]string{"keys", "list", "-o", "yaml"}, "neither text nor json"},
		{[]string{"keys", "create", "--expires-at", "soon", "--database-url", "postgres://127.0.0.1:1/none"}, "expires-at"},
		{[]string{"migrate", "up", "--schema", "No Schema", "--database-url", "postgres://x"}, "schema"},
	} {
		var out bytes.Buffer
		require.Equal(t, 2, run(t.Context(), nil, test.args, io.Discard, &out), test.args)
		require.Contains(t, out.String(), test.says)
	}
	var out bytes.Buffer
	require.Equal(t, 1, run(t.Context(), nil, []string{"migrate", "status", "--database-url", "postgres://127.0.0.1:1/none"}, io.Discard, &out))
	require.Contains(t, out.String(), "database")
	require.Contains(t, out.String(), "refused", "whoever types it may know why")
	require.Zero(t, run(t.Context(), nil, []string{"version"}, &out, io.Discard))
	require.Contains(t, out.String(), fmt.Sprintf("riverbeat %s", version))
}

func TestHelpFitsTheScreen(t *testing.T) {
	t.Parallel()
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Name() != "completion" { // that is cobra's
				check(sub)
			}
		}
		path := strings.Fields(c.CommandPath())[1:]
		var out bytes.Buffer
		require.Zero(t, run(t.Context(), nil, append(path, "--help"), &out, &out), path)
		require.NotContains(t, out.String(), "`", path)
		require.NotContains(t, out.String(), "](", path)
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(line), 81, line)
		}
	}
	check(newRoot(nil))
}
