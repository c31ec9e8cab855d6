package process_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute/process"
	"riverbeat/internal/execute/secret"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

// asNode lets this binary be a node that executes one process, until it is killed.
const asNode = "RIVERBEAT_TEST_PROCESS"

func TestMain(m *testing.M) {
	if process.IsGuard(os.Args[1:]) {
		os.Exit(process.Guard(os.Args[1:]))
	}
	if script := os.Getenv(asNode); script != "" { //nolint:forbidigo // a program of its own
		_, err := execute(context.Background(), shell(script), nil, "{}")
		fmt.Println(err) //nolint:forbidigo // a program of its own
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func shell(script string, arguments ...string) process.Command {
	return process.Command{Argv: append([]string{"/bin/sh", "-c", script, "sh"}, arguments...), Grace: process.DefaultGrace}
}

// outcome is a result as it is kept.
type outcome struct {
	ExitCode  *int            `json:"exit_code"`
	Signal    string          `json:"signal"`
	Output    json.RawMessage `json:"output"`
	Stderr    string          `json:"stderr"`
	Truncated bool            `json:"truncated"`
}

func (o outcome) text() string {
	var text string
	if json.Unmarshal(o.Output, &text) != nil {
		return ""
	}
	return text
}

func execute(ctx context.Context, c process.Command, arguments []riverbeat.Argument, params string) (outcome, error) {
	return executeWith(ctx, process.Config{Commands: map[string]process.Command{"it": c}}, arguments, params)
}

func executeWith(ctx context.Context, cfg process.Config, arguments []riverbeat.Argument, params string) (outcome, error) {
	code := process.New(cfg)(riverbeat.Executor{Kind: riverbeat.ExecutorCommand, Name: "it", Arguments: arguments})
	result, err := code(ctx, &task.Run{
		ID: uuid.MustParse("019c0000-0000-7000-8000-000000000001"), Execution: 1, Attempt: 1, TaskName: "t",
		TaskParams: json.RawMessage(params), Logger: slog.New(slog.DiscardHandler),
	})
	raw, marshalErr := json.Marshal(result)
	var o outcome
	return o, errors.Join(err, marshalErr, json.Unmarshal(raw, &o))
}

// began executes in the background, and answers when a file has so many words. What it
// gives waits for the end.
func began(t *testing.T, ctx context.Context, cfg process.Config, file string, words int) func() (outcome, error) {
	t.Helper()
	var got outcome
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		got, err = executeWith(ctx, cfg, nil, "{}")
	}()
	written(t, file, words)
	return func() (outcome, error) {
		<-done
		return got, err
	}
}

// soon is a context that ends, and with why.
func soon(t *testing.T, after time.Duration, why error) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), after, why)
	t.Cleanup(cancel)
	return ctx
}

// gone waits until the processes whose ids stand in a file do not live any more.
func gone(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	pids := strings.Fields(string(content))
	require.NotEmpty(t, pids)
	for _, pid := range pids {
		require.Eventually(t, func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		}, 20*time.Second, 10*time.Millisecond, "process %s lives", pid)
	}
}

// written waits until a file has so many words.
func written(t *testing.T, file string, words int) {
	t.Helper()
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(file)
		return err == nil && len(strings.Fields(string(content))) >= words
	}, 20*time.Second, 10*time.Millisecond)
}

func TestTheRunIsOnStandardInput(t *testing.T) {
	t.Parallel()
	got, err := execute(t.Context(), process.Command{Argv: []string{"/bin/cat"}}, nil, `{"day": "2026-03-01", "n": 9007199254740993}`)
	require.NoError(t, err)
	require.Zero(t, *got.ExitCode)
	require.False(t, got.Truncated)
	var run struct {
		RunID      string          `json:"run_id"`
		TaskParams json.RawMessage `json:"task_params"`
	}
	require.NoError(t, json.Unmarshal(got.Output, &run))
	require.Equal(t, "019c0000-0000-7000-8000-000000000001", run.RunID)
	require.JSONEq(t, `{"day": "2026-03-01", "n": 9007199254740993}`, string(run.TaskParams))

	_, err = execute(t.Context(), process.Command{Argv: []string{"/bin/true"}}, nil, `{"text": "`+strings.Repeat("x", 500_000)+`"}`)
	require.NoError(t, err, "nobody has to read it")
}

func TestArgumentsAreNeverReadByAShell(t *testing.T) {
	t.Parallel()
	print := shell(`printf '%s\n' "$@"`, "first")
	dir := t.TempDir()
	hostile := "$(touch " + filepath.Join(dir, "made") + "); `id` && 'x' \"y\" \n*"
	params, err := json.Marshal(map[string]any{
		"text": hostile, "number": json.Number("1.50"), "yes": true, "none": nil, "list": []any{"a b", 7, nil}, "object": map[string]any{"k": 1}, "empty": "",
	})
	require.NoError(t, err)
	var arguments []riverbeat.Argument
	arguments = append(arguments, riverbeat.Argument{Literal: "--x=$HOME"})
	for _, name := range []string{"text", "number", "yes", "none", "missing", "list", "object", "empty"} {
		arguments = append(arguments, riverbeat.Argument{Parameter: name})
	}
	got, err := execute(t.Context(), print, arguments, string(params))
	require.NoError(t, err)
	require.Equal(t, "first\n--x=$HOME\n"+hostile+"\n1.50\ntrue\na b\n7\n{\"k\":1}", got.text())
	require.NoFileExists(t, filepath.Join(dir, "made"))
}

func TestAParameterIsNoOption(t *testing.T) {
	t.Parallel()
	print := shell(`printf '%s\n' "$@"`)
	named := []riverbeat.Argument{{Parameter: "a"}}
	for _, params := range []string{`{"a": "--evil"}`, `{"a": ["x", "-e"]}`} {
		_, err := execute(t.Context(), print, named, params)
		require.ErrorContains(t, err, `the parameter a begins with "-"`)
		require.True(t, task.IsFinal(err))
	}
	got, err := execute(t.Context(), print, append([]riverbeat.Argument{{Literal: "--"}}, named...), `{"a": "--evil"}`)
	require.NoError(t, err)
	require.Equal(t, "--\n--evil", got.text())
	got, err = execute(t.Context(), print, named, `{"a": -5}`)
	require.NoError(t, err)
	require.Equal(t, "-5", string(got.Output))
}

func TestTheEnvironmentIsTheOperators(t *testing.T) {
	t.Parallel()
	got, err := execute(t.Context(), process.Command{Argv: []string{"/usr/bin/env"}}, nil, "{}")
	require.NoError(t, err)
	require.Empty(t, got.Output)
	got, err = execute(t.Context(), process.Command{
		Argv: []string{"/usr/bin/env"}, Environment: map[string]riverbeat.Text{"A": {Literal: "b c"}},
	}, nil, "{}")
	require.NoError(t, err)
	require.Equal(t, "A=b c", got.text())
	_, err = execute(t.Context(), process.Command{
		Argv: []string{"/usr/bin/env"}, Environment: map[string]riverbeat.Text{"A": {Secret: "unknown"}},
	}, nil, "{}")
	require.ErrorContains(t, err, `no secret "unknown"`)
}

func TestTheWorkingDirectory(t *testing.T) {
	t.Parallel()
	where := shell(`pwd; echo x > file; ls -ld .`)
	got, err := execute(t.Context(), where, nil, "{}")
	require.NoError(t, err)
	dir, mode, _ := strings.Cut(got.text(), "\n")
	require.NoDirExists(t, dir)
	require.True(t, strings.HasPrefix(mode, "drwx------"), mode)
	where.Directory = t.TempDir()
	got, err = execute(t.Context(), where, nil, "{}")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(got.text(), where.Directory+"\n"), got.text())
	require.FileExists(t, filepath.Join(where.Directory, "file"))
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	got, err := execute(t.Context(), shell(`echo said; echo one >&2; echo two >&2; exit 3`), nil, "{}")
	require.EqualError(t, err, "exit code 3: one\ntwo")
	require.False(t, task.IsFinal(err))
	require.Equal(t, 3, *got.ExitCode)
	require.Equal(t, "said", got.text())
	require.Equal(t, "one\ntwo", got.Stderr)
	for _, code := range []int{64, 65, 78} {
		_, err = execute(t.Context(), shell(fmt.Sprintf("exit %d", code)), nil, "{}")
		require.True(t, task.IsFinal(err), code)
	}
	got, err = execute(t.Context(), shell(`kill -SEGV $$`), nil, "{}")
	require.ErrorContains(t, err, "ended by the signal segmentation fault")
	require.Nil(t, got.ExitCode)
	require.Equal(t, "segmentation fault", got.Signal)
	_, err = execute(t.Context(), process.Command{Argv: []string{filepath.Join(t.TempDir(), "missing")}}, nil, "{}")
	require.ErrorContains(t, err, "no such file")
	require.False(t, task.IsFinal(err), "it may be on its way here")
	require.Nil(t, process.New(process.Config{})(riverbeat.Executor{Kind: riverbeat.ExecutorCommand, Name: "it"}), "another node may have it")
}

func TestOutputIsCapped(t *testing.T) {
	t.Parallel()
	got, err := execute(t.Context(), shell(`i=0; while [ $i -lt 20000 ]; do echo "line $i of many"; echo "error $i" >&2; i=$((i+1)); done`), nil, "{}")
	require.NoError(t, err)
	require.True(t, got.Truncated)
	require.True(t, strings.HasSuffix(got.text(), "\nline 19999 of many"), got.text())
	require.True(t, strings.HasPrefix(got.text(), "line "), "whole lines")
	require.True(t, strings.HasSuffix(got.Stderr, "\nerror 19999"))
	require.Less(t, len(got.text()), 17<<10)

	got, err = execute(soon(t, 300*time.Millisecond, errors.New("over")), shell(`exec yes "$(head -c 100000 /dev/zero | tr '\0' x)"`), nil, "{}")
	require.ErrorContains(t, err, "signal")
	require.True(t, got.Truncated)
	require.Less(t, len(got.text()), 17<<10)

	for script, want := range map[string]string{
		`printf ' {"a": [1.50]}\n'`:             `{"a": [1.50]}`,
		`printf 7`:                              `7`,
		`printf '{"a": 1, "a": 2}'`:             `"{\"a\": 1, \"a\": 2}"`, // cannot be kept as JSON
		`printf '"\\u0000"'`:                    `"\"\\u0000\""`,
		`printf '\377\000\033[1mb\033[0m\tx\n'`: `"�[1mb[0m\tx"`,
		`printf '{"a": 1} more'`:                `"{\"a\": 1} more"`,
	} {
		got, err = execute(t.Context(), shell(script), nil, "{}")
		require.NoError(t, err, script)
		require.JSONEq(t, want, string(got.Output), script)
		require.False(t, got.Truncated)
	}
}

func TestSecretsAreKeptOutOfWhatIsLeft(t *testing.T) {
	t.Parallel()
	const hidden = "hunter2-hunter2"
	t.Run("written otherwise", func(t *testing.T) {
		t.Parallel()
		for script, value := range map[string]string{
			`printf '{"a": "p\\u00e4ssw\\u00f6rd\\/1234"}'`:    "p\u00e4ssw\u00f6rd/1234",
			`printf '%s' "$S" | sed 's/./&\x00/g'`:             "password/1234", // UTF-16
			`printf '%s' "$S" | sed 's/./&\x00/g' >&2; exit 1`: "password/1234",
		} {
			got, err := executeWith(t.Context(), process.Config{
				Commands: map[string]process.Command{"it": {Argv: []string{"/bin/sh", "-c", script}, Environment: map[string]riverbeat.Text{"S": {Secret: "pw"}}}},
				Secrets:  secret.New(map[string]secret.Source{"pw": func() (string, error) { return value, nil }}),
			}, nil, "{}")
			require.Contains(t, fmt.Sprint(string(got.Output), err), "[secret pw]", script)
			require.NotContains(t, fmt.Sprint(string(got.Output), got.Stderr, err), "1234", script)
		}
	})
	cfg := process.Config{
		Commands: map[string]process.Command{"it": {
			Argv:        []string{"/bin/sh", "-c", `printf '%s' "${S%2}"; printf '2 and '; i=0; while [ $i -lt 9000 ]; do printf '%s ' "$S"; i=$((i+1)); done; echo "bad $S" >&2; cat >&2; exit 1`},
			Environment: map[string]riverbeat.Text{"S": {Secret: "pw"}},
		}},
		Secrets: secret.New(map[string]secret.Source{"pw": func() (string, error) { return hidden, nil }}),
	}
	ctx := secret.With(t.Context(), secret.NewRedactor(map[string]string{"param": "from-a-parameter"}))
	got, err := executeWith(ctx, cfg, nil, `{"p": "from-a-parameter"}`)
	require.ErrorContains(t, err, "bad [secret pw]")
	require.Contains(t, got.Stderr, `"p":"[secret param]"`)
	all := fmt.Sprint(got, err, got.text())
	for _, part := range []string{"hunter", "unter2", "from-a", "parameter\""} {
		require.NotContains(t, all, part)
	}

	_, err = executeWith(ctx, cfg, []riverbeat.Argument{{Parameter: "p"}}, `{"p": "from-a-parameter"}`)
	require.ErrorContains(t, err, "the parameter p is a secret")
	require.True(t, task.IsFinal(err))
}

func TestAProcessIsToldToEndAndThenKilled(t *testing.T) {
	t.Parallel()
	over := errors.New("over")
	t.Run("it obeys", func(t *testing.T) {
		t.Parallel()
		got, err := execute(soon(t, 300*time.Millisecond, over), shell(`trap 'echo bye; exit 7' TERM; while :; do sleep 0.05; done`), nil, "{}")
		require.ErrorContains(t, err, "exit code 7")
		require.Equal(t, "bye", got.text())
	})
	t.Run("and says that all is well", func(t *testing.T) {
		t.Parallel()
		got, err := execute(soon(t, 300*time.Millisecond, over), shell(`trap 'exit 0' TERM; while :; do sleep 0.05; done`), nil, "{}")
		require.ErrorContains(t, err, "was told to end")
		require.Zero(t, *got.ExitCode)
	})
	t.Run("neither it nor its children do", func(t *testing.T) {
		t.Parallel()
		pids := filepath.Join(t.TempDir(), "pids")
		c := shell(`trap '' TERM; sh -c 'echo $$ >> "$0"; while :; do sleep 1; done' "$1" & echo $$ >> "$1"; setsid sh -c 'trap "" TERM; echo $$ >> "$0"; exec sleep 1000' "$1" & wait; wait`, pids)
		c.Grace = 200 * time.Millisecond
		ctx, cancel := context.WithCancelCause(t.Context())
		end := began(t, ctx, process.Config{Commands: map[string]process.Command{"it": c}}, pids, 3)
		cancel(over)
		got, err := end()
		require.ErrorContains(t, err, "ended by the signal killed")
		require.Nil(t, got.ExitCode)
		gone(t, pids)
	})
	t.Run("another node may have its run", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "pids")
		var lost atomic.Bool
		end := began(t, t.Context(), process.Config{
			Commands: map[string]process.Command{"it": shell(`trap 'echo told' TERM; echo $$ > "$1"; while :; do sleep 0.05; done`, file)},
			Ours:     oursUntil(&lost),
		}, file, 1)
		lost.Store(true)
		got, err := end()
		require.ErrorContains(t, err, "ended by the signal killed")
		require.Empty(t, got.Output)
		gone(t, file)
	})
	t.Run("another node may have its run while it ends", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "pids")
		ctx, cancel := context.WithCancelCause(t.Context())
		var lost atomic.Bool
		c := shell(`trap 'echo told >> "$1"' TERM; echo $$ > "$1"; while :; do sleep 0.05; done`, file)
		c.Grace = time.Minute
		end := began(t, ctx, process.Config{Commands: map[string]process.Command{"it": c}, Ours: oursUntil(&lost)}, file, 1)
		cancel(over)
		written(t, file, 2)
		lost.Store(true)
		_, err := end()
		require.ErrorContains(t, err, "ended by the signal killed")
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, bytes.Fields(content)[0], 0o600))
		gone(t, file)
	})
	t.Run("a child has time, too", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "said")
		ctx, cancel := context.WithCancelCause(t.Context())
		end := began(t, ctx, process.Config{Commands: map[string]process.Command{"it": shell(
			`sh -c 'trap "sleep 0.3; echo cleaned >> \$0; exit" TERM; echo begun > "$0"; while :; do sleep 0.05; done' "$1"; true`, file)}}, file, 1)
		cancel(over)
		_, err := end()
		require.ErrorContains(t, err, "ended by the signal terminated")
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, "begun\ncleaned\n", string(content))
	})
}

func oursUntil(lost *atomic.Bool) func(context.Context) time.Duration {
	return func(context.Context) time.Duration {
		if lost.Load() {
			return 0
		}
		return time.Minute
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	pids := filepath.Join(t.TempDir(), "pids")
	// Each of them would hold the output open.
	got, err := execute(t.Context(), shell(`
		sh -c 'trap "" TERM HUP; echo $$ >> "$0"; exec sleep 1000' "$1" &
		setsid sh -c '(trap "" TERM; sh -c "echo \$\$ >> $0; exec sleep 1000") & exit 0' "$1"
		while [ "$(wc -l < "$1")" -lt 2 ]; do sleep 0.01; done
		echo done`, pids), nil, "{}")
	require.NoError(t, err)
	require.Equal(t, "done", got.text())
	gone(t, pids)
}

func TestAProcessEndsWithItsNode(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "frozen": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pids := filepath.Join(t.TempDir(), "pids")
			script := `trap '' TERM; echo $$ >> ` + pids + `; setsid sh -c 'echo $$ >> ` + pids + `; exec sleep 1000' & while :; do sleep 1; done`
			node := exec.CommandContext(t.Context(), os.Args[0])
			node.Env = []string{asNode + "=" + script}
			require.NoError(t, node.Start())
			written(t, pids, 2)
			require.NoError(t, node.Process.Signal(signal))
			gone(t, pids)
			_ = node.Process.Kill()
			_ = node.Wait()
		})
	}
}

func TestAGuardIsNotEndedByASignalToAll(t *testing.T) {
	t.Parallel()
	got, err := execute(t.Context(), shell(`kill -TERM $PPID; kill -INT $PPID; kill -HUP $PPID; sleep 0.1; echo well`), nil, "{}")
	require.NoError(t, err)
	require.Equal(t, "well", got.text())
}

func TestOrphansAreReapedWhileItRuns(t *testing.T) {
	t.Parallel()
	got, err := execute(t.Context(), shell(`
		i=0; while [ $i -lt 50 ]; do sh -c '(exec true) & exit'; i=$((i+1)); done
		n=1; while [ "$n" -gt 0 ]; do n=$(grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null | while read f; do grep -l "^PPid:.$PPID$" "$f"; done | wc -l); done
		echo $n`), nil, "{}")
	require.NoError(t, err)
	require.Equal(t, "0", string(got.Output))
}

func TestAProcessEndsWithItsGuard(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pids")
	end := began(t, t.Context(), process.Config{
		Commands: map[string]process.Command{"it": shell(`sh -c 'trap "" HUP; echo $$ > "$0"; exec sleep 1000' "$1" & sleep 0.1; echo $PPID $$ >> "$1"; while :; do sleep 0.05; done`, file)},
	}, file, 3)
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	guard, err := strconv.Atoi(strings.Fields(string(content))[1])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(guard, syscall.SIGKILL))
	_, err = end()
	require.ErrorContains(t, err, "the guard of the process was ended")
	fields := strings.Fields(string(content))
	require.NoError(t, os.WriteFile(file, []byte(fields[0]+" "+fields[2]), 0o600))
	gone(t, file)
}

func TestReadCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	read := func(content string) (map[string]process.Command, error) {
		file := filepath.Join(t.TempDir(), "commands.json")
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		return process.ReadCommands(file)
	}
	got, err := read(`{
		"a": {"argv": ["/bin/sh", "-c", "x"], "directory": "` + dir + `", "grace": "1m", "environment": {"PATH": "/bin", "PW": {"$secret": "pw"}}},
		"b": {"argv": ["/bin/true"]}
	}`)
	require.NoError(t, err)
	require.Equal(t, map[string]process.Command{
		"a": {
			Argv: []string{"/bin/sh", "-c", "x"}, Directory: dir, Grace: time.Minute,
			Environment: map[string]riverbeat.Text{"PATH": {Literal: "/bin"}, "PW": {Secret: "pw"}},
		},
		"b": {Argv: []string{"/bin/true"}, Grace: process.DefaultGrace},
	}, got)
	for content, want := range map[string]string{
		``:                                 "EOF",
		`[]`:                               "cannot unmarshal",
		`{} {}`:                            "something follows",
		`{"": {"argv": ["/bin/true"]}}`:    "has no name",
		`{"a": {}}`:                        `command "a": argv must begin with the absolute path`,
		`{"a": {"argv": ["true"]}}`:        "absolute path",
		`{"a": {"argv": ["/etc"]}}`:        "argv:",
		`{"a": {"argv": ["/etc/passwd"]}}`: "permission denied",
		`{"a": {"argv": ["/bin/true"], "shell": true}}`:                         `unknown field "shell"`,
		`{"a": {"argv": ["/bin/true"], "directory": "/nowhere/at/all"}}`:        "directory:",
		`{"a": {"argv": ["/bin/true"], "directory": "/etc/passwd"}}`:            "absolute path of a directory",
		`{"a": {"argv": ["/bin/true"], "environment": {"A=B": "x"}}}`:           `"A=B" is not the name`,
		`{"a": {"argv": ["/bin/true"], "environment": {"A": {"$secret": ""}}}}`: "must be {",
		`{"a": {"argv": ["/bin/true"], "grace": "2m"}}`:                         "grace: must be at most 1m",
		`{"a": {"argv": ["/bin/true"], "grace": "soon"}}`:                       "grace: must be a duration",
		`{"a": {"argv": ["/bin/true", "x\u0000"]}}`:                             "NUL",
		`{"a": {"argv": ["/bin/none"]}, "b": {"argv": ["/bin/nothing"]}}`:       "/bin/nothing",
	} {
		_, err := read(content)
		require.ErrorContains(t, err, want, content)
	}
	_, err = process.ReadCommands(filepath.Join(dir, "none.json"))
	require.ErrorContains(t, err, "no such file")
}
