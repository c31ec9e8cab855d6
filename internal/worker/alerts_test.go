package worker_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

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
)

func TestAlertsArePosted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	whsec := "whsec_" + base64.StdEncoding.EncodeToString([]byte("a key that nobody knows"))
	webhook, err := standardwebhooks.NewWebhook(whsec)
	require.NoError(t, err)
	type post struct {
		header http.Header
		body   string
		bad    error // its signature
	}
	var mu sync.Mutex
	var posts []post
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		posts = append(posts, post{r.Header, string(body), webhook.Verify(body, r.Header)})
		if len(posts) < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer server.Close()
	hidden := server.URL + "/services/T0/SECRETPATH"
	b.secrets = secret.New(map[string]secret.Source{
		"hook":  func() (string, error) { return hidden, nil },
		"whsec": func() (string, error) { return whsec, nil },
	})
	posting := alert.New(request.New(request.Config{
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Version: "test", Now: time.Now,
	}))
	posting.Backoff, posting.MaxBackoff = time.Millisecond, time.Millisecond
	b.registry.Register(posting)
	require.NoError(t, b.catalog.Declare(t.Context(), b.registry.Definitions(), b.logger))
	q, err := queue.New(b.Pool, pgtest.Schema, b.logger)
	require.NoError(t, err)
	b.start(func(c *worker.Config) { c.Watcher = watch.New(b.DB, ledger.New(q), b.logger) })

	s := b.schedule(t, func(s *riverbeat.Schedule) {
		s.Name, s.TaskName, s.TaskParams = "nightly", "fail", []byte(`{"message": "no such table"}`)
		s.Limits = riverbeat.Limits{MaxAttempts: 2, Retry: riverbeat.Retry{Backoff: time.Millisecond, MaxBackoff: time.Millisecond}}
		s.Alerts = riverbeat.Alerts{URL: riverbeat.Text{Secret: "hook"}, SigningSecret: riverbeat.Text{Secret: "whsec"}}
	})
	failed := b.until(t, b.runNow(t, s).ID, in(riverbeat.Failed))
	posted := func() (told *riverbeat.Run) {
		require.NoError(t, b.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
			name := riverbeat.AlertTask
			page, _, err := tx.SearchRuns(t.Context(), &postgres.RunFilter{TaskName: &name, Limit: 10})
			if len(page) > 0 {
				told = page[0]
			}
			return err
		}))
		return told
	}
	require.Eventually(t, func() bool { return posted() != nil }, 20*time.Second, 10*time.Millisecond)
	told := b.until(t, posted().ID, in(riverbeat.Succeeded))
	require.Equal(t, 3, told.Attempt)
	require.Equal(t, 12, told.MaxAttempts)
	require.NotContains(t, string(told.TaskParams)+string(told.Result)+string(told.Logs)+b.said.String(), "SECRETPATH")
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, posts, 3)
	for _, p := range posts {
		require.NoError(t, p.bad)
		require.Equal(t, told.ID.String(), p.header.Get("Webhook-Id"))
		require.Equal(t, told.ID.String(), p.header.Get("Idempotency-Key"))
		require.Equal(t, posts[0].body, p.body)
	}
	require.Contains(t, posts[0].body, `"type":"schedule.failing"`)
	require.Contains(t, posts[0].body, `"Schedule nightly (task fail) is failing: a run has failed. Last error: no such table"`)
	require.Contains(t, posts[0].body, failed.ID.String())
}
