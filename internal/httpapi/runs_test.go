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
	require.Equal(t, first, c.stored(first), "as it is stored")

	skipped := c.ask(http.StatusCreated, "POST", at+"/run", "{}")
	require.Equal(t, "skipped", skipped["state"])
	require.Equal(t, "already_queued", skipped["reason"])
	require.Equal(t, first["id"], skipped["blocked_by"])
	require.Equal(t, skipped, c.stored(skipped))

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
	require.Equal(t, cancelled, c.stored(first))

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
	require.Equal(t, retried, c.stored(first))
}

// stored reads a run without what only its own address tells of it.
func (c *client) stored(run map[string]any) map[string]any {
	c.t.Helper()
	read := c.ask(http.StatusOK, "GET", runs+"/"+run["id"].(string), "")
	delete(read, "attempts")
	delete(read, "blocks")
	return read
}

func runNames(made, run map[string]any) *strings.Replacer {
	return strings.NewReplacer(made["id"].(string), "{schedule}", run["id"].(string), "{id}",
		run["lock_key"].(string), "{lock_key}", run["scheduled_for"].(string), "{scheduled_for}",
		`"job_id": `+strings.TrimSuffix(jsonText(run["job_id"]), ".0"), `"job_id": "{job_id}"`)
}

func TestListRuns(t *testing.T) {
	t.Parallel()

	c := setup(t)
	one := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "one", "cron_expression": "0 9 * * *", "execution_policy": "skip", "category": "x", "tags": ["red", "big"]}`)["id"].(string)
	two := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "two", "cron_expression": "0 9 * * *", "tags": ["big"]}`)["id"].(string)
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
		"category=x":                           {made[1], made[0]},
		"category=":                            {made[2]},
		"category=y":                           {},
		"tags=big":                             newestFirst,
		"tags=red&tags=big":                    {made[1], made[0]},
		"tags=re":                              {},
		"tags=red&state=skipped&category=x":    {made[1]},
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

// A rare state among many runs is searched for page by page, and each page looks at
// a bounded number of them.
func TestAListThatSearchesGoesOn(t *testing.T) {
	t.Parallel()
	c := setup(t)
	s := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "0 9 * * *"}`)["id"].(string)
	c.exec(`
INSERT INTO runs (id, scheduled_for, schedule_id, schedule_name, task_name, execution_policy, trigger, slot, state)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7000a000000000000000')::uuid,
    at, $1::uuid, 'given', 'echo', 'allow', 'schedule', '00000000-0000-0000-0000-000000000000',
    CASE WHEN i IN (3, 5000) THEN 'failed' ELSE 'succeeded' END
FROM generate_series(1, 5000) AS i, LATERAL (SELECT date_trunc('second', now()) - i * interval '10 milliseconds' AS at) AS a`, s)
	for _, list := range []string{
		runs + "?state=failed",
		schedules + "/" + s + "/runs?state=failed",
		runs + "?state=failed&task_name=echo",
	} {
		var found []int
		token := ""
		for {
			page := c.ask(http.StatusOK, "GET", list+token, "")
			found = append(found, len(items(page)))
			next, more := page["next_page_token"].(string)
			if !more {
				break
			}
			token = "&page_token=" + next
		}
		// The last one, too, may not know that there is nothing behind it.
		require.Equal(t, []int{1, 0, 0, 0, 1, 0}, found, list)
	}
	none := c.ask(http.StatusOK, "GET", schedules+"/"+s+"/runs?state=running&from=2199-01-01T00:00:00Z", "")
	require.Empty(t, items(none))
	require.Nil(t, none["next_page_token"])
}

// A run that is read by itself tells of its attempts, and whom it blocks.
func TestRunDetail(t *testing.T) {
	t.Parallel()
	c := setup(t)
	s := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "0 9 * * *", "execution_policy": "skip"}`)["id"].(string)
	start := func(body string) map[string]any {
		t.Helper()
		return c.ask(http.StatusCreated, "POST", schedules+"/"+s+"/run", body)
	}
	first := start("")
	require.NotContains(t, first, "attempts")
	at := runs + "/" + first["id"].(string)
	fresh := c.ask(http.StatusOK, "GET", at, "")
	require.Equal(t, []any{}, fresh["attempts"])
	require.Equal(t, []any{}, fresh["blocks"])

	// Its second life has failed once, and tries again.
	c.exec("UPDATE runs SET state = 'running', attempt = 4, max_attempts = 6 WHERE id = $1", first["id"])
	c.exec(`UPDATE river_job SET state = 'running', attempt = 2,
		errors = ARRAY['{"at": "2026-03-02T08:00:00Z", "error": "out of luck", "trace": "secret", "attempt": 1}'::jsonb] WHERE id = $1`, first["job_id"])
	skipped, waiting := start(""), start(`{"execution_policy": "queue"}`)
	got := c.ask(http.StatusOK, "GET", at, "")
	require.Equal(t, []any{
		map[string]any{"attempt": 3.0, "ended_at": "2026-03-02T08:00:00Z", "error": "out of luck"},
		map[string]any{"attempt": 4.0, "ended_at": nil, "error": nil},
	}, got["attempts"])
	var blocks []string
	for _, b := range got["blocks"].([]any) {
		b := b.(map[string]any)
		blocks = append(blocks, b["id"].(string)+" "+b["state"].(string))
	}
	require.Equal(t, []string{skipped["id"].(string) + " skipped", waiting["id"].(string) + " waiting"}, blocks)
	require.Equal(t, []any{}, c.ask(http.StatusOK, "GET", runs+"/"+skipped["id"].(string), "")["blocks"])
	require.NotContains(t, items(c.ask(http.StatusOK, "GET", runs, ""))[0], "attempts")

	c.exec("DELETE FROM river_job")
	require.Equal(t, []any{}, c.ask(http.StatusOK, "GET", at, "")["attempts"], "River has forgotten")
}

func TestNodes(t *testing.T) {
	t.Parallel()
	c := setup(t)
	require.Equal(t, []any{}, c.ask(http.StatusOK, "GET", "/api/v1/nodes", "")["items"])
	c.exec(`INSERT INTO nodes (id, host, version, tzdata_version, tasks, queues, last_seen_at) VALUES
		('11111111-2222-7333-8444-555555555555', 'alpha', '1.0', '2025b', '["echo"]', '{"default": 5}', now()),
		('11111111-2222-7333-8444-666666666666', 'beta', '1.1', '2026a', '[]', '{}', now() - interval '6 seconds')`)
	c.exec(`INSERT INTO river_job (args, kind, max_attempts, state, attempt, attempted_at, attempted_by)
		VALUES ('{}', 'run', 1, 'running', 1, now(), '{x, 11111111-2222-7333-8444-555555555555}')`)
	nodes := items(c.ask(http.StatusOK, "GET", "/api/v1/nodes", ""))
	require.Equal(t, []any{"alpha", "beta"}, []any{nodes[0]["host"], nodes[1]["host"]})
	require.Equal(t, []any{true, false}, []any{nodes[0]["alive"], nodes[1]["alive"]})
	require.Equal(t, []any{1.0, 0.0}, []any{nodes[0]["running"], nodes[1]["running"]})
	require.Equal(t, map[string]any{"default": 5.0}, nodes[0]["queues"])
	require.Equal(t, []any{"echo"}, nodes[0]["tasks"])
	require.Equal(t, "2025b", nodes[0]["tzdata_version"])
}
