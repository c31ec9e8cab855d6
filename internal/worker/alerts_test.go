package worker_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute/alert"
	"riverbeat/internal/execute/request"
	"riverbeat/internal/execute/secret"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/watch"
	"riverbeat/internal/worker"
	"riverbeat/task"
)

// post is a message that has arrived.
type post struct {
	run  string
	body string
	bad  error // its signature
}

// mailbox is where alerts are posted. It answers with the given statuses, then with 200.
type mailbox struct {
	*httptest.Server
	mu    sync.Mutex
	posts []post
}

// whsec is what messages are signed with.
var whsec = "whsec_" + base64.StdEncoding.EncodeToString([]byte("a key that nobody knows"))

func newMailbox(t *testing.T, statuses ...int) *mailbox {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(whsec)
	require.NoError(t, err)
	box := &mailbox{}
	box.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		box.mu.Lock()
		defer box.mu.Unlock()
		box.posts = append(box.posts, post{r.Header.Get("Idempotency-Key"), string(body), webhook.Verify(body, r.Header)})
		if n := len(box.posts); n <= len(statuses) {
			w.WriteHeader(statuses[n-1])
		}
		_, _ = io.WriteString(w, "what only those inside may read")
	}))
	t.Cleanup(box.Close)
	return box
}

func (box *mailbox) all() []post {
	box.mu.Lock()
	defer box.mu.Unlock()
	return append([]post{}, box.posts...)
}

// watched starts a node that watches and posts, without a pause between attempts.
func (b *bundle) watched(t *testing.T) {
	t.Helper()
	posting := alert.New(request.Config{
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Version: "test", Now: time.Now,
	})
	posting.Backoff, posting.MaxBackoff = time.Millisecond, time.Millisecond
	b.registry.Register(posting)
	require.NoError(t, b.catalog.Declare(t.Context(), b.registry.Definitions(), b.logger))
	q, err := queue.New(b.Pool, pgtest.Schema, b.logger)
	require.NoError(t, err)
	b.start(func(c *worker.Config) { c.Watcher = watch.New(b.DB, ledger.New(q), b.logger) })
}

// told waits for the run that tells people.
func (b *bundle) told(t *testing.T, state riverbeat.State) *riverbeat.Run {
	t.Helper()
	var id uuid.UUID
	require.Eventually(t, func() bool {
		name := riverbeat.AlertTask
		require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
			page, _, err := tx.SearchRuns(t.Context(), &postgres.RunFilter{TaskName: &name, Limit: 10})
			if len(page) > 0 {
				id = page[0].ID
			}
			return err
		}))
		return id != uuid.Nil
	}, 20*time.Second, 10*time.Millisecond)
	return b.until(t, id, in(state))
}

func TestAlertsArePosted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	box := newMailbox(t, http.StatusBadGateway, http.StatusForbidden, http.StatusMovedPermanently)
	b.secrets = secret.New(map[string]secret.Source{
		"hook":  func() (string, error) { return box.URL + "/services/T0/SECRETPATH", nil },
		"whsec": func() (string, error) { return whsec, nil },
	})
	b.watched(t)
	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.Name, s.TaskName, s.TaskParams = "nightly", "fail", []byte(`{"message": "no such table"}`)
		s.Limits = riverbeat.Limits{MaxAttempts: 2, Retry: riverbeat.Retry{Backoff: time.Millisecond, MaxBackoff: time.Millisecond}}
		s.Alerts = riverbeat.Alerts{URL: riverbeat.Text{Secret: "hook"}, SigningSecret: riverbeat.Text{Secret: "whsec"}}
	})
	failed := b.until(t, b.runNow(t, s).ID, in(riverbeat.Failed))
	told := b.told(t, riverbeat.Succeeded)
	require.Equal(t, 4, told.Attempt)
	require.Equal(t, 12, told.MaxAttempts)
	require.JSONEq(t, `{"status": 200}`, string(told.Result), "who may say where an alert goes may not always read there")
	require.NotContains(t, string(told.TaskParams)+string(told.Logs)+b.said.String(), "SECRETPATH")
	posts := box.all()
	require.Len(t, posts, 4)
	for _, p := range posts {
		require.NoError(t, p.bad)
		require.Equal(t, told.ID.String(), p.run)
		require.Equal(t, posts[0].body, p.body)
	}
	require.Contains(t, posts[0].body, `"type":"schedule.failing"`)
	require.Contains(t, posts[0].body, `"Schedule nightly (task fail) is failing: a run has failed. Last error: no such table"`)
	require.Contains(t, posts[0].body, failed.ID.String())
}

func TestAnAlertThatNobodyTakes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	box := newMailbox(t, http.StatusGone)
	b.watched(t)
	b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName, s.Limits.MaxAttempts, s.Alerts.URL = "fail", 1, riverbeat.Text{Literal: box.URL}
	}))
	told := b.told(t, riverbeat.Failed)
	require.Equal(t, "POST answered 410 Gone", told.Error)
	require.Len(t, box.all(), 1)
}

// Whoever hangs must not keep people from being told so.
func TestAlertsDoNotWaitForWhatTheyTellOf(t *testing.T) {
	t.Parallel()
	b := setup(t)
	box := newMailbox(t)
	let := make(chan struct{})
	defer close(let)
	b.register("hang", func(ctx context.Context, _ *task.Run) (any, error) {
		select {
		case <-let:
		case <-ctx.Done():
		}
		return nil, nil
	})
	b.watched(t)
	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName = "hang"
		s.Alerts = riverbeat.Alerts{URL: riverbeat.Text{Literal: box.URL}, NoSuccessFor: time.Second}
	})
	for range 60 {
		b.runNow(t, s)
	}
	b.told(t, riverbeat.Succeeded)
	require.Contains(t, box.all()[0].body, `"type":"schedule.overdue"`)
}

// An admin may give its code another name; what schedules of that say is not posted.
func TestTheCodeOfAlertsPostsNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	box := newMailbox(t)
	b.secrets = secret.New(map[string]secret.Source{"database": func() (string, error) { return "hunter2-hunter2", nil }})
	b.watched(t)
	b.define(t, "post", `{"kind": "go", "name": "riverbeat_alert"}`, func(*riverbeat.TaskDefinition) {})
	run := b.runNow(t, b.schedule(t, func(s *riverbeat.Schedule) {
		s.TaskName = "post"
		s.TaskParams = json.RawMessage(`{"url": "` + box.URL + `", "message": {"stolen": {"$secret": "database"}}}`)
	}))
	require.Contains(t, b.until(t, run.ID, in(riverbeat.Failed)).Error, "this task only posts alerts")
	require.Empty(t, box.all())
}
