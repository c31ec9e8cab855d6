package process_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute/process"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

const tasks = `
import os, sys, time, logging

def add(a, b=1):
    print("printed")
    os.write(1, b"by the system call\n")
    return {"sum": a + b, "module": __name__}

def when():
    import datetime
    return datetime.date(2026, 3, 1)

def keys():
    return {(1, 2): "tuple"}

async def later(n):
    return n + 1

def broken():
    raise ValueError("out of order")

def long(file):
    open(file, "w").write("begun")
    try:
        while True:
            time.sleep(0.05)
    finally:
        open(file, "a").write(" ended")
`

const celeryApp = `
from celery import Celery
app = Celery("shop", broker="redis://nowhere:1/0")

@app.task(bind=True, name="shop.order", max_retries=5)
def order(self, item, count=1):
    return {"item": item, "count": count, "id": self.request.id, "retries": self.request.retries}

class InContext(app.Task):
    def __call__(self, *args, **kwargs):
        self.context = "in context"
        return super().__call__(*args, **kwargs)

@app.task(bind=True, base=InContext)
def inside(self, n):
    return [self.context, n]

@app.task(bind=True, autoretry_for=(KeyError,))
def flaky(self):
    raise KeyError("again")

@app.task(bind=True)
def retrying(self):
    try:
        raise OSError("no line")
    except OSError as e:
        raise self.retry(exc=e, countdown=3600)
`

// python is a command that calls tasks of a folder of its own.
func python(t *testing.T, program string, arguments ...string) process.Command {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "reports"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "reports", "tasks.py"), []byte(tasks), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "shop.py"), []byte(celeryApp), 0o600))
	runner, err := filepath.Abs("../../../deploy/python/run_task.py")
	require.NoError(t, err)
	return process.Command{Argv: append([]string{program, runner}, arguments...), Directory: dir, Grace: process.DefaultGrace}
}

func named(task string) []riverbeat.Argument { return []riverbeat.Argument{{Literal: task}} }

func TestPythonFunctions(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no Python here; deploy/install-deps.sh celery installs it")
	}
	c := python(t, program)
	got, err := execute(t.Context(), c, named("reports.tasks.add"), `{"a": 2, "b": 5}`)
	require.NoError(t, err)
	require.JSONEq(t, `{"sum": 7, "module": "reports.tasks"}`, string(got.Output))
	require.Equal(t, "printed\nby the system call", sortedLines(got.Stderr))
	got, err = execute(t.Context(), c, named("reports.tasks.when"), `{}`)
	require.NoError(t, err)
	require.Equal(t, "2026-03-01", got.text())
	got, err = execute(t.Context(), c, named("reports.tasks.keys"), `{}`)
	require.NoError(t, err)
	require.Equal(t, "{(1, 2): 'tuple'}", got.text())
	got, err = execute(t.Context(), c, named("reports.tasks.later"), `{"n": 1}`)
	require.NoError(t, err)
	require.Equal(t, "2", string(got.Output))
	got, err = execute(t.Context(), c, named("reports.tasks.broken"), `{}`)
	require.ErrorContains(t, err, "exit code 1: Traceback")
	require.ErrorContains(t, err, "ValueError: out of order")
	require.False(t, task.IsFinal(err))
	require.Equal(t, 1, *got.ExitCode)
	_, err = execute(t.Context(), c, named("reports.tasks.add"), `{"c": 2}`)
	require.ErrorContains(t, err, "unexpected keyword argument 'c'")
	for _, name := range []string{"reports.tasks.missing", "nowhere.x", "add", ""} {
		_, err = execute(t.Context(), c, named(name), `{}`)
		require.ErrorContains(t, err, "exit code 64", name)
		require.True(t, task.IsFinal(err), name)
	}

	file := filepath.Join(t.TempDir(), "said")
	params, err := json.Marshal(map[string]string{"file": file})
	require.NoError(t, err)
	_, err = execute(soon(t, time.Second, os.ErrDeadlineExceeded), c, named("reports.tasks.long"), string(params))
	require.ErrorContains(t, err, "exit code 143")
	said, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "begun ended", string(said))
}

func sortedLines(text string) string {
	if text == "by the system call\nprinted" { // Python's own buffer comes last
		return "printed\nby the system call"
	}
	return text
}

func TestCeleryTasks(t *testing.T) {
	t.Parallel()
	program := ""
	for _, candidate := range []string{"/usr/bin/python3", "python3"} {
		if exec.CommandContext(t.Context(), candidate, "-c", "import celery").Run() == nil {
			path, err := exec.LookPath(candidate)
			require.NoError(t, err)
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("there is no Celery here; deploy/install-deps.sh celery installs it")
	}
	c := python(t, program, "--app", "shop:app")
	got, err := execute(t.Context(), c, named("shop.order"), `{"item": "tea", "count": 2}`)
	require.NoError(t, err)
	require.JSONEq(t, `{"item": "tea", "count": 2, "id": "019c0000-0000-7000-8000-000000000001", "retries": 0}`, string(got.Output))
	got, err = execute(t.Context(), c, named("shop.inside"), `{"n": 3}`)
	require.NoError(t, err)
	require.JSONEq(t, `["in context", 3]`, string(got.Output))
	for name, want := range map[string]string{"shop.flaky": "KeyError: 'again'", "shop.retrying": "OSError: no line"} {
		_, err = execute(t.Context(), c, named(name), `{}`)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "exit code 1")
	}
	_, err = execute(t.Context(), c, named("shop.unknown"), `{}`)
	require.True(t, task.IsFinal(err))

	got, err = execute(t.Context(), python(t, program), named("shop.order"), `{"item": "tea"}`)
	require.NoError(t, err, "by its path")
	require.Contains(t, string(got.Output), `"count":1`)
}
