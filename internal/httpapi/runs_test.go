package httpapi_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/postgres"
)

func TestRunNow(t *testing.T) {
	t.Parallel()

	c := setup(t)
	c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "greet", "max_attempts": 4, "executor": {"name": "echo"},
		"parameter_schema": {"properties": {"text": {"default": "hi"}}}}`)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"name": "given", "task_name": "greet", "cron_expression": "0 9 * * *", "args": [1],
		"category": "x", "tags": ["t"], "execution_policy": "skip", "enabled": false}`)
	at := schedules + "/" + made["id"].(string)

	r := c.do("POST", at+"/run", "")
	require.Equal(t, http.StatusCreated, r.StatusCode, "%s", r.body)
	first := r.object()
	require.Equal(t, runs+"/"+first["id"].(string), r.Header.Get("Location"))
	golden(t, "run_queued", r.body, runNames(made, first))
	require.Equal(t, first, c.ask(http.StatusOK, "GET", runs+"/"+first["id"].(string), ""), "as it is stored")

	skipped := c.ask(http.StatusCreated, "POST", at+"/run", "{}")
	require.Equal(t, "skipped", skipped["state"])
	require.Equal(t, "already_queued", skipped["reason"])
	require.Equal(t, first["id"], skipped["blocked_by"])
	require.Equal(t, skipped, c.ask(http.StatusOK, "GET", runs+"/"+skipped["id"].(string), ""))

	waiting := c.ask(http.StatusCreated, "POST", at+"/run", `{"execution_policy": "queue", "task_params": null}`)
	require.Equal(t, "waiting", waiting["state"])
	require.Nil(t, waiting["job_id"])

	other := c.ask(http.StatusCreated, "POST", at+"/run", `{"task_params": {"text": "else", "n": 12345678901234567890}}`)
	require.Equal(t, "queued", other["state"])
	require.NotEqual(t, first["lock_key"], other["lock_key"])
	allowed := c.ask(http.StatusCreated, "POST", at+"/run", `{"execution_policy": "allow"}`)
	require.Nil(t, allowed["lock_key"])
	require.NotNil(t, allowed["job_id"])

	require.Equal(t, made["version"], c.ask(http.StatusOK, "GET", at, "")["version"])
	newest := c.ask(http.StatusOK, "GET", at+"/runs?page_size=1", "")
	require.Equal(t, field(newest, "scheduled_for")[0], c.ask(http.StatusOK, "GET", at, "")["last_run_at"])
}

func TestCancelAndRetryRun(t *testing.T) {
	t.Parallel()

	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"name": "given", "task_name": "echo", "cron_expression": "0 9 * * *", "execution_policy": "queue"}`)
	runNow := func() map[string]any {
		return c.ask(http.StatusCreated, "POST", schedules+"/"+made["id"].(string)+"/run", "")
	}
	first, second := runNow(), runNow()
	at := runs + "/" + first["id"].(string)

	cancelled := c.ask(http.StatusOK, "POST", at+"/cancel", "")
	require.Equal(t, "cancelled", cancelled["state"])
	require.Equal(t, "cancelled_by_user", cancelled["reason"])
	require.NotNil(t, cancelled["cancel_requested_at"])
	require.Equal(t, cancelled, c.ask(http.StatusOK, "GET", at, ""))

	refused := c.ask(http.StatusConflict, "POST", at+"/retry", "")
	require.Equal(t, "lock_key_taken", refused["code"])
	require.Equal(t, second["id"], refused["blocked_by"])

	c.exec("UPDATE river_job SET state = 'running', attempt = 1 WHERE args ->> 'run_id' = $1", second["id"])
	c.exec("UPDATE runs SET state = 'running', attempt = 1 WHERE id = $1", second["id"])
	asked := c.ask(http.StatusOK, "POST", runs+"/"+second["id"].(string)+"/cancel", "{}")
	require.Equal(t, "running", asked["state"])
	require.NotNil(t, asked["cancel_requested_at"])
	require.Equal(t, asked, c.ask(http.StatusOK, "POST", runs+"/"+second["id"].(string)+"/cancel", ""))
	c.exec("UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE args ->> 'run_id' = $1", second["id"])

	retried := c.ask(http.StatusOK, "POST", at+"/retry", "")
	require.Equal(t, "queued", retried["state"])
	require.Nil(t, retried["cancel_requested_at"])
	require.NotEqual(t, first["job_id"], retried["job_id"])
	require.Equal(t, retried, c.ask(http.StatusOK, "GET", at, ""))
}

func runNames(made, run map[string]any) *strings.Replacer {
	return strings.NewReplacer(made["id"].(string), "{schedule}", run["id"].(string), "{id}",
		run["lock_key"].(string), "{lock_key}", run["scheduled_for"].(string), "{scheduled_for}",
		`"job_id": `+strings.TrimSuffix(jsonText(run["job_id"]), ".0"), `"job_id": "{job_id}"`)
}

func TestListRuns(t *testing.T) {
	t.Parallel()

	c := setup(t)
	one := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "one", "cron_expression": "0 9 * * *", "execution_policy": "skip"}`)["id"].(string)
	two := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "two", "cron_expression": "0 9 * * *"}`)["id"].(string)
	var made []any
	var times []string
	for _, id := range []string{one, one, two} {
		r := c.ask(http.StatusCreated, "POST", schedules+"/"+id+"/run", "")
		made = append(made, r["id"])
		times = append(times, url.QueryEscape(r["scheduled_for"].(string)))
		// The next one's nominal time is another millisecond.
		at, err := time.Parse(time.RFC3339Nano, r["scheduled_for"].(string))
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			var now time.Time
			require.NoError(t, c.db.InTx(t.Context(), func(tx *postgres.Tx) error {
				var err error
				now, err = tx.Now(t.Context())
				return err
			}))
			return now.After(at)
		}, 5*time.Second, time.Millisecond)
	}
	newestFirst := slices.Clone(made)
	slices.Reverse(newestFirst)

	for query, want := range map[string][]any{
		"":                                     newestFirst,
		"state=queued":                         {made[2], made[0]},
		"state=skipped&state=queued":           newestFirst,
		"state=failed":                         {},
		"task_name=one":                        {made[1], made[0]},
		"schedule_id=" + two:                   {made[2]},
		"schedule_id=" + nobody:                {},
		"trigger=manual&trigger=schedule":      newestFirst,
		"trigger=backfill":                     {},
		"from=" + times[1]:                     {made[2], made[1]},
		"to=" + times[1]:                       {made[0]},
		"from=" + times[1] + "&to=" + times[2]: {made[1]},
	} {
		page := c.ask(http.StatusOK, "GET", runs+"?"+query, "")
		require.Equal(t, want, field(page, "id"), query)
		require.Nil(t, page["next_page_token"])
	}

	page := c.ask(http.StatusOK, "GET", runs+"?page_size=2&state=skipped&state=queued", "")
	require.Equal(t, newestFirst[:2], field(page, "id"))
	token := page["next_page_token"].(string)
	page = c.ask(http.StatusOK, "GET", runs+"?state=queued&state=skipped&page_token="+token, "")
	require.Equal(t, newestFirst[2:], field(page, "id"))
	require.Nil(t, page["next_page_token"])
	c.ask(http.StatusUnprocessableEntity, "GET", schedules+"/"+one+"/runs?page_token="+token, "")

	require.Equal(t, []any{made[1], made[0]}, field(c.ask(http.StatusOK, "GET", schedules+"/"+one+"/runs", ""), "id"))
	require.Equal(t, []any{made[1]}, field(c.ask(http.StatusOK, "GET", schedules+"/"+one+"/runs?state=skipped", ""), "id"))
	empty := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "three", "cron_expression": "0 9 * * *"}`)["id"].(string)
	require.Equal(t, []any{}, field(c.ask(http.StatusOK, "GET", schedules+"/"+empty+"/runs", ""), "id"))
}
