package command

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
)

// TestWritingATask builds the program of docs/writing-a-task.md as a module of its own,
// and asks it to greet.
func TestWritingATask(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/writing-a-task.md")
	require.NoError(t, err)
	source := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(string(page))[1]
	require.LessOrEqual(t, strings.Count(source, "\n"), 35)
	build := regexp.MustCompile("(?s)```sh\n(mkdir.*?)go build").FindStringSubmatch(string(page))[1]
	root, err := filepath.Abs("../..")
	require.NoError(t, err)

	dir := t.TempDir()
	script := strings.ReplaceAll(build, "=../riverbeat", "="+root)
	script = strings.ReplaceAll(script, "cd greeter ", "cd greeter && cp "+filepath.Join(dir, "main.go")+" . ")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600))
	command := exec.CommandContext(t.Context(), "sh", "-ec", script+"go build")
	command.Dir = dir
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s\n%s", script, out)

	d := pgtest.DB(t)
	greeter := exec.CommandContext(t.Context(), filepath.Join(dir, "greeter", "greeter"), "serve", "--insecure-no-auth",
		"--listen", "127.0.0.1:0", "--database-url", d.URL, "--log-format", "json")
	stderr, err := greeter.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, greeter.Start())
	base := ""
	lines := bufio.NewScanner(stderr)
	for base == "" && lines.Scan() {
		if m := regexp.MustCompile(`"msg":"serving","address":"([^"]+)"`).FindStringSubmatch(lines.Text()); m != nil {
			base = "http://" + m[1] + "/api/v1"
		}
	}
	require.NotEmpty(t, base)
	go func() {
		for lines.Scan() { // or it would wait for us
		}
	}()

	code, body := get(t, base+"/task-definitions/greet")
	require.Equal(t, http.StatusOK, code, body)
	require.Contains(t, body, `"built_in":true`)
	require.Contains(t, body, `"description":"Greets somebody."`)
	post := func(path, body string) (int, string) { return ask(t, http.MethodPost, base+path, body) }
	code, body = post("/schedules", `{"task_name": "greet", "cron_expression": "0 9 * * *", "task_params": {"name": ""}}`)
	require.Equal(t, http.StatusUnprocessableEntity, code)
	require.Contains(t, body, "/task_params/name")
	code, body = post("/schedules", `{"task_name": "greet", "cron_expression": "0 9 * * *", "task_params": {"name": "Ada"}}`)
	require.Equal(t, http.StatusCreated, code, body)
	id := regexp.MustCompile(`"id":"([^"]+)"`).FindStringSubmatch(body)[1]
	code, body = post("/schedules/"+id+"/run", "")
	require.Equal(t, http.StatusCreated, code, body)
	var runs struct {
		Items []struct{ Result json.RawMessage }
	}
	require.Eventually(t, func() bool {
		_, body := get(t, base+"/schedules/"+id+"/runs?state=succeeded")
		return json.Unmarshal([]byte(body), &runs) == nil && len(runs.Items) == 1
	}, 15*time.Second, 50*time.Millisecond)
	require.JSONEq(t, `{"greeting": "Hello, Ada", "times": 1}`, string(runs.Items[0].Result))
	require.NoError(t, greeter.Process.Signal(syscall.SIGTERM))
	require.NoError(t, greeter.Wait())
}
