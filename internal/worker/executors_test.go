package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute"
	"riverbeat/internal/execute/process"
	"riverbeat/internal/execute/request"
	"riverbeat/internal/execute/secret"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/worker"
	"riverbeat/task"
)

func (b *bundle) define(t *testing.T, taskName, executor string, change func(*riverbeat.TaskDefinition)) {
	t.Helper()
	e, err := riverbeat.ParseExecutor(json.RawMessage(executor))
	require.NoError(t, err)
	d := &riverbeat.TaskDefinition{
		TaskName: taskName, ParameterSchema: json.RawMessage("{}"), Executor: e, Queue: "default", Priority: 1, MaxAttempts: 1,
		Retry: riverbeat.Retry{Backoff: time.Millisecond, MaxBackoff: time.Millisecond}, Timeout: time.Minute,
	}
	change(d)
	_, err = b.catalog.CreateTaskDefinition(t.Context(), d, false)
	require.NoError(t, err)
}

func TestAKindOfExecutorsThatANodeDoesNotHaveIsLeftToOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.registry.RegisterKind(riverbeat.ExecutorCommand, func(settings riverbeat.Executor) task.Code {
		if settings.Name != "here" {
			return nil
		}
		return func(context.Context, *task.Run) (any, error) { return settings.Arguments, nil }
	})
	b.define(t, "a", `{"kind": "command", "name": "here", "arguments": ["x"]}`, func(*riverbeat.TaskDefinition) {})
	b.define(t, "b", `{"kind": "command", "name": "elsewhere"}`, func(*riverbeat.TaskDefinition) {})
	b.define(t, "c", `{"kind": "http", "url": "https://example.com"}`, func(*riverbeat.TaskDefinition) {})
	b.start()
	run := b.until(t, b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "a" })).ID, in(riverbeat.Succeeded))
	require.JSONEq(t, `["x"]`, string(run.Result))
	for _, name := range []string{"b", "c"} {
		run := b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = name }))
		b.until(t, run.ID, func(r *riverbeat.Run) bool { return r.Reason == riverbeat.NoWorker && r.Execution == 0 })
	}
}

func TestAFailedAttemptKeepsItsResult(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.register("partly", func(_ context.Context, run *task.Run) (any, error) {
		return map[string]int{"exit_code": run.Attempt}, errors.New("no more")
	})
	b.define(t, "partly", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxAttempts = 2 })
	b.start()
	run := b.until(t, b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "partly" })).ID, in(riverbeat.Failed))
	require.JSONEq(t, `{"exit_code": 2}`, string(run.Result))
	require.Contains(t, run.Error, "no more")
}

func TestAFailedAttemptMaySayWhenTheNextOneIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.register("busy", func(context.Context, *task.Run) (any, error) {
		return nil, task.RetryAfter(time.Hour, errors.New("come back in an hour"))
	})
	b.define(t, "busy", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxAttempts = 2 })
	b.start()
	run := b.until(t, b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "busy" })).ID, in(riverbeat.Retrying))
	var wait time.Duration
	require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT scheduled_at - now() FROM river_job WHERE id = $1", *run.JobID).Scan(&wait))
	require.Greater(t, wait, 59*time.Minute)
	require.Less(t, wait, 67*time.Minute)
}

// A secret is used, and stands nowhere.
func TestSecretsStandNowhere(t *testing.T) {
	t.Parallel()
	const hidden = "hunter2-and-more"
	b := setup(t)
	b.secrets = secret.New(map[string]secret.Source{
		"pw": func() (string, error) { return hidden, nil }, "url": func() (string, error) { return "https://example.com/" + hidden, nil },
	})
	seen := make(chan string, 10)
	b.register("use", func(ctx context.Context, run *task.Run) (any, error) {
		seen <- string(run.TaskParams) + string(run.Args)
		run.Logger.InfoContext(ctx, "with "+hidden, "params", run.TaskParams, "password", hidden)
		var params struct{ Do string }
		if err := json.Unmarshal(run.TaskParams, &params); err != nil {
			return nil, err
		}
		switch params.Do {
		case "fail":
			return map[string]string{hidden: "it was " + hidden}, errors.New("wrong: " + hidden)
		case "panic":
			panic("out of " + hidden)
		case "snooze":
			if run.Execution == 1 {
				return nil, task.Snooze(0, errors.New("not yet: "+hidden))
			}
		}
		return run.TaskParams, nil
	})
	b.registry.RegisterKind(riverbeat.ExecutorHTTP, func(settings riverbeat.Executor) task.Code {
		return func(context.Context, *task.Run) (any, error) {
			seen <- settings.URL.Literal + settings.Headers["X-A"].Literal
			return settings.URL.Literal, nil
		}
	})
	b.define(t, "ask", `{"kind": "http", "url": {"$secret": "url"}, "headers": {"X-A": {"$secret": "pw"}}}`, func(*riverbeat.TaskDefinition) {})
	b.define(t, "use", `{}`, func(*riverbeat.TaskDefinition) {})
	b.start()
	run := func(do string, state riverbeat.State) *riverbeat.Run {
		s := b.schedule(t, func(s *riverbeat.Schedule) {
			s.TaskName = "use"
			s.TaskParams = json.RawMessage(`{"do": "` + do + `", "deep": [{"key": {"$secret": "pw"}}]}`)
			s.Args = json.RawMessage(`[{"$secret": "pw"}]`)
		})
		return b.until(t, b.runNow(t, s).ID, in(state))
	}
	ended := run("", riverbeat.Succeeded)
	require.Contains(t, <-seen, `[{"key":"`+hidden+`"}]`)
	require.JSONEq(t, `{"do": "", "deep": [{"key": "[secret pw]"}]}`, string(ended.Result))
	require.Contains(t, string(ended.Logs), "with [secret pw]")
	ended = run("fail", riverbeat.Failed)
	require.Contains(t, ended.Error, "wrong: [secret pw]")
	require.JSONEq(t, `{"[secret pw]": "it was [secret pw]"}`, string(ended.Result))
	require.Contains(t, run("panic", riverbeat.Failed).Error, "panic: out of [secret pw]")
	require.Contains(t, string(run("snooze", riverbeat.Succeeded).Logs), "not yet: [secret pw]")
	for range 4 {
		<-seen
	}
	ended = b.until(t, b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "ask" })).ID, in(riverbeat.Succeeded))
	require.Equal(t, "https://example.com/"+hidden+hidden, <-seen)
	require.JSONEq(t, `"[secret url]"`, string(ended.Result))

	var tables []string
	require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT array_agg(c.oid::regclass::text) FROM pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace = $1::regnamespace",
		"riverbeat").Scan(&tables))
	require.Greater(t, len(tables), 10)
	for _, table := range tables {
		var rows int
		require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM "+table+" AS t WHERE t::text LIKE '%hunter2%'").Scan(&rows))
		require.Zero(t, rows, table)
	}
	b.said.mu.Lock()
	defer b.said.mu.Unlock()
	require.NotContains(t, b.said.lines.String(), "hunter2")
}

func TestARunThatEndsForGoodSaysWhyAndNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.register("over", func(context.Context, *task.Run) (any, error) { return nil, task.Final(errors.New("no such day")) })
	b.define(t, "over", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxAttempts = 5 })
	b.start()
	run := b.until(t, b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "over" })).ID, in(riverbeat.Failed))
	require.Equal(t, "no such day", run.Error)
	require.Equal(t, 1, run.Attempt)
}

func TestASecretThatIsNotThereFailsTheRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.define(t, "echo", `{}`, func(*riverbeat.TaskDefinition) {})
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) { s.TaskParams = json.RawMessage(`{"key": {"$secret": "nobody"}}`) })
	run := b.until(t, b.runNow(t, s).ID, in(riverbeat.Failed))
	require.Contains(t, run.Error, `this node has no secret "nobody"`)
	require.Equal(t, 1, run.Attempt)
}

func TestAScheduleMayHaveLimitsOfItsOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.register("stuck", func(ctx context.Context, _ *task.Run) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	b.define(t, "stuck", `{}`, func(d *riverbeat.TaskDefinition) { d.MaxAttempts, d.Timeout = 1, time.Hour })
	b.start()
	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName = "stuck"
		s.Limits = riverbeat.Limits{MaxAttempts: 2, Timeout: 50 * time.Millisecond, Retry: riverbeat.Retry{Backoff: time.Hour, MaxBackoff: time.Hour}}
	})
	run := b.until(t, b.runNow(t, s).ID, in(riverbeat.Retrying))
	require.Equal(t, 2, run.MaxAttempts)
	var wait time.Duration
	require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT scheduled_at - now() FROM river_job WHERE id = $1", *run.JobID).Scan(&wait))
	require.Greater(t, wait, 59*time.Minute)
	b.exec(t, "UPDATE river_job SET scheduled_at = now() WHERE id = $1", *run.JobID)
	run = b.until(t, run.ID, in(riverbeat.Failed))
	require.Contains(t, run.Error, "longer than its timeout of 50ms")

	// Begun anew, it has as many attempts again, and keeps its limits.
	run, err := b.history.Retry(t.Context(), run.ID)
	require.NoError(t, err)
	require.Equal(t, 4, run.MaxAttempts)
	run = b.until(t, run.ID, in(riverbeat.Retrying))
	require.Equal(t, 3, run.Attempt)
}

func TestARequestIsMadeAgainUntilItSucceeds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var mu sync.Mutex
	var keys, traces []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		keys, traces = append(keys, r.Header.Get("Idempotency-Key")), append(traces, r.Header.Get("Traceparent"))
		switch len(keys) {
		case 1, 2:
			w.WriteHeader(http.StatusInternalServerError)
		case 3:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			_, _ = w.Write([]byte(`{"done": true}`))
		}
	}))
	defer server.Close()
	b.registry.RegisterKind(riverbeat.ExecutorHTTP, request.New(request.Config{
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Version: "test", Now: time.Now,
	}).Kind)
	b.define(t, "ask", `{"kind": "http", "url": "`+server.URL+`"}`, func(d *riverbeat.TaskDefinition) { d.MaxAttempts = 4 })
	b.start()
	run := b.until(t, b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "ask" })).ID, in(riverbeat.Succeeded))
	require.Equal(t, 4, run.Attempt)
	require.JSONEq(t, `{"status": 200, "body": {"done": true}}`, string(run.Result))
	require.Empty(t, run.Error)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{run.ID.String(), run.ID.String(), run.ID.String(), run.ID.String()}, keys)
	require.NotEqual(t, traces[0], traces[1])
	require.Equal(t, traces[0][:36], traces[3][:36], "one trace")
}

func TestAProcessEndsWhenItsNodeStops(t *testing.T) {
	t.Parallel()
	b := setup(t)
	begun := filepath.Join(t.TempDir(), "pid")
	b.registry.RegisterKind(riverbeat.ExecutorCommand, process.New(process.Config{
		Ours: execute.Ours,
		Commands: map[string]process.Command{"stubborn": {
			Argv: []string{"/bin/sh", "-c", `trap '' TERM; echo $$ >> "$0"; while :; do sleep 0.1; done`, begun}, Grace: 100 * time.Millisecond,
		}},
	}))
	b.define(t, "stubborn", `{"kind": "command", "name": "stubborn"}`, func(*riverbeat.TaskDefinition) {})
	w := b.start(func(c *worker.Config) { c.Grace = 0 })
	run := b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) { s.TaskName = "stubborn" }))
	pids := func() []string {
		content, _ := os.ReadFile(begun)
		return strings.Fields(string(content))
	}
	require.Eventually(t, func() bool { return len(pids()) == 1 }, 20*time.Second, 5*time.Millisecond)
	w.Stop()
	_, err := os.Stat("/proc/" + pids()[0])
	require.ErrorIs(t, err, os.ErrNotExist)
	stopped, err := b.history.Run(t.Context(), run.ID)
	require.NoError(t, err)
	require.Equal(t, riverbeat.Queued, stopped.State, "another node goes on with it")

	b.start()
	require.Eventually(t, func() bool { return len(pids()) == 2 }, 20*time.Second, 5*time.Millisecond)
	_, err = b.history.Cancel(t.Context(), run.ID)
	require.NoError(t, err)
	require.JSONEq(t, `{"exit_code": null, "signal": "killed"}`, string(b.until(t, run.ID, in(riverbeat.Cancelled)).Result))
	require.Eventually(t, func() bool {
		_, err := os.Stat("/proc/" + pids()[1])
		return errors.Is(err, os.ErrNotExist)
	}, 20*time.Second, 5*time.Millisecond)
}
