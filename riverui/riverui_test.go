package riverui_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/access"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/riverui"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// What people do to jobs in the browser, and what they are told of it.
func TestPeopleTouchJobs(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	quiet := slog.New(slog.DiscardHandler)
	q, err := queue.New(d.Pool, pgtest.Schema, quiet)
	require.NoError(t, err)
	handlers, err := riverui.New(t.Context(), q.Client(), access.New(access.Config{DB: d.DB, Now: time.Now}), quiet)
	require.NoError(t, err)
	do := func(what string, job int64) (status int, message string) {
		t.Helper()
		r := httptest.NewRequestWithContext(pgtest.As(t.Context(), "ada"), http.MethodPost, riverui.Prefix+"/api/jobs/"+what,
			strings.NewReader(`{"ids": ["`+strconv.FormatInt(job, 10)+`"]}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handlers["POST "+riverui.Prefix+"/api/jobs/"+what].ServeHTTP(w, r)
		var answer struct{ Message string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer), "%s", w.Body)
		return w.Code, answer.Message
	}

	l := ledger.New(q)
	s := &riverbeat.Schedule{
		ID: uuid.New(), Name: "nightly", TaskName: "echo", Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
		ExecutionPolicy: riverbeat.Skip, MaxWaiting: 1,
	}
	runNowOf := func(task string) (run *riverbeat.Run) {
		t.Helper()
		s := *s
		s.TaskName = task
		require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
			now, err := tx.Now(t.Context())
			require.NoError(t, err)
			e, err := l.Entry(ledger.Request{Schedule: &s, Trigger: riverbeat.TriggerManual, At: now}, now)
			require.NoError(t, err)
			run = e.Run
			return l.Record(t.Context(), tx, now, []*ledger.Entry{e})
		}))
		require.Equal(t, riverbeat.Queued, run.State)
		return run
	}
	runNow := func() *riverbeat.Run { return runNowOf("echo") }
	stateOf := func(run *riverbeat.Run) riverbeat.State {
		t.Helper()
		require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
			var err error
			run, err = tx.Run(t.Context(), run.ID)
			return err
		}))
		return run.State
	}

	first := runNow()
	status, _ := do("cancel", *first.JobID)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, riverbeat.Cancelled, stateOf(first))
	status, _ = do("retry", *first.JobID)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, riverbeat.Queued, stateOf(first))
	status, _ = do("delete", *first.JobID)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, riverbeat.Cancelled, stateOf(first))

	second := runNow()
	do("cancel", *second.JobID)
	third := runNow()
	status, message := do("retry", *second.JobID)
	require.Equal(t, http.StatusConflict, status, "its key is taken")
	require.Contains(t, message, "another active job has the same unique properties")
	require.Equal(t, riverbeat.Cancelled, stateOf(second))
	require.Equal(t, riverbeat.Queued, stateOf(third))

	// What nobody could be named for is refused, however it is spelt.
	ask := func(pattern, target, body string) int {
		t.Helper()
		method, _, _ := strings.Cut(pattern, " ")
		r := httptest.NewRequestWithContext(pgtest.As(t.Context(), "ada"), method, riverui.Prefix+target, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handlers[pattern].ServeHTTP(w, r)
		return w.Code
	}
	for _, body := range []string{`{"ids": []}`, `{}`, `{`, `{"ids": ["x"]}`, `{"ids": [1.5]}`, `{"ids": [` + strings.Repeat("1,", 1000) + `1]}`} {
		require.Equal(t, http.StatusBadRequest, ask("POST /riverui/api/jobs/cancel", "/api/jobs/cancel", body), body)
	}
	require.Equal(t, http.StatusBadRequest, ask("PUT /riverui/api/queues/{name}/pause", "/api/queues/*/pause", ""))
	require.Equal(t, http.StatusBadRequest, ask("PUT /riverui/api/queues/{name}/pause", "/api/queues/%00/pause", ""))
	for _, target := range []string{"/api/jobs?limit=0", "/%ff", "/api/queues/%00", "/api/autocomplete?facet=job_kind&match=%00"} {
		require.Equal(t, http.StatusBadRequest, ask("GET /riverui/{page...}", target, ""), target)
	}
	require.Equal(t, http.StatusOK, ask("GET /riverui/{page...}", "/api/jobs?limit=1&state=available", ""))
	again := runNowOf("echo again")
	id := strconv.FormatInt(*again.JobID, 10)
	require.Equal(t, http.StatusOK, ask("POST /riverui/api/jobs/cancel", "/api/jobs/cancel", `{"ids": ["+`+id+`", "00`+id+`", "`+id+`"]}`))
	require.Equal(t, riverbeat.Cancelled, stateOf(again))

	// Who did it is written down, but not what was refused.
	rows, err := d.Pool.Query(t.Context(), `
SELECT concat_ws(' ', actor, action, object_id, before ->> 'state', after ->> 'state')
FROM audit_log
WHERE object_type = 'job'
ORDER BY id`)
	require.NoError(t, err)
	trail, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	one, two := strconv.FormatInt(*first.JobID, 10), strconv.FormatInt(*second.JobID, 10)
	require.Equal(t, []string{
		"ada job.cancel " + one + " available cancelled",
		"ada job.retry " + one + " cancelled available",
		"ada job.delete " + one + " available",
		"ada job.cancel " + two + " available cancelled",
		"ada job.cancel " + id + " available cancelled",
	}, trail)
}

// Whatever River UI can change needs a role; what it cannot is refused before it
// sees it.
func TestEveryClickNeedsARole(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	quiet := slog.New(slog.DiscardHandler)
	q, err := queue.New(d.Pool, pgtest.Schema, quiet)
	require.NoError(t, err)
	handlers, err := riverui.New(t.Context(), q.Client(), access.New(access.Config{DB: d.DB, Now: time.Now}), quiet)
	require.NoError(t, err)
	require.Len(t, handlers, 7)
	for pattern := range handlers {
		role, err := access.Needed(pattern)
		require.NoError(t, err)
		require.NotEqual(t, access.Anyone, role)
	}
}
