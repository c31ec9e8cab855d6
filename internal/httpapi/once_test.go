package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// count is how many rows a table has.
func (c *client) count(table string) (n int) {
	c.t.Helper()
	c.query("SELECT count(*) FROM "+table, &n)
	return n
}

// A request with a key is carried out once; a replay gives the first answer.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	c := setup(t)
	const body = `{"task_name": "echo", "cron_expression": "@daily", "name": "once"}`
	first := c.do("POST", schedules, body, "Idempotency-Key: k 1")
	require.Equal(t, http.StatusCreated, first.StatusCode, "%s", first.body)
	require.Empty(t, first.Header.Get("Idempotent-Replayed"))
	id := first.object()["id"].(string)
	c.ask(http.StatusOK, "PATCH", schedules+"/"+id, `{"name": "changed meanwhile"}`)
	for _, same := range []string{body, `{ "name":"once", "cron_expression":"@daily",
		"task_name":"echo"}`} {
		again := c.do("POST", schedules, same, "Idempotency-Key: k 1")
		require.Equal(t, http.StatusCreated, again.StatusCode)
		require.Equal(t, "true", again.Header.Get("Idempotent-Replayed"))
		require.Equal(t, string(first.body), string(again.body))
		for _, name := range []string{"Location", "ETag", "Content-Type"} {
			require.Equal(t, first.Header.Get(name), again.Header.Get(name), name)
		}
	}
	require.Equal(t, 1, c.count("schedules"))

	// The same key for something else.
	for _, other := range [][2]string{
		{schedules, strings.Replace(body, "once", "twice", 1)}, {schedules + "/" + id + "/run", ""}, {definitions, `{"task_name": "echo"}`},
	} {
		require.Equal(t, "idempotency_key_reused", c.ask(http.StatusUnprocessableEntity, "POST", other[0], other[1], "Idempotency-Key: k 1")["code"])
	}
	require.Equal(t, "idempotency_key_reused",
		c.ask(http.StatusUnprocessableEntity, "DELETE", schedules+"/"+id, "", "Idempotency-Key: k 1")["code"])

	// Run-now, and a change whose answer was lost.
	run := c.ask(http.StatusCreated, "POST", schedules+"/"+id+"/run", "", "Idempotency-Key: run")
	require.Equal(t, run, c.ask(http.StatusCreated, "POST", schedules+"/"+id+"/run", "", "Idempotency-Key: run"))
	require.Equal(t, 1, c.count("runs"))
	require.Equal(t, 1, c.count("river_job"))
	for range 2 {
		c.ask(http.StatusOK, "POST", schedules+"/"+id+"/disable", "", "Idempotency-Key: off", `If-Match: "2"`)
	}
	require.Equal(t, "idempotency_key_reused", c.ask(http.StatusUnprocessableEntity,
		"POST", schedules+"/"+id+"/disable", "", "Idempotency-Key: off", `If-Match: "3"`)["code"])
	for range 2 {
		require.Equal(t, http.StatusNoContent, c.do("DELETE", schedules+"/"+id, "", "Idempotency-Key: gone").StatusCode)
	}

	// What failed has done nothing, and may be put right.
	bad := `{"task_name": "", "cron_expression": "@daily"}`
	c.ask(http.StatusUnprocessableEntity, "POST", schedules, bad, "Idempotency-Key: k 2")
	c.ask(http.StatusCreated, "POST", schedules, body, "Idempotency-Key: k 2")
	require.Equal(t, 1, c.count("schedules"))

	// It is kept for a day.
	c.exec("UPDATE idempotency_keys SET created_at = created_at - interval '24 hours 1 second'")
	c.ask(http.StatusCreated, "POST", schedules, body, "Idempotency-Key: k 2")
	c.ask(http.StatusCreated, "POST", schedules, body, "Idempotency-Key: k 2")
	require.Equal(t, 2, c.count("schedules"))

	for _, key := range []string{strings.Repeat("x", 256), "", "a\tb", "ü"} {
		r := c.request(t.Context(), "POST", schedules, body)
		r.Header["Idempotency-Key"] = []string{key}
		require.Equal(t, http.StatusBadRequest, c.serve(r).StatusCode)
	}
	r := c.request(t.Context(), "POST", schedules, body)
	r.Header["Idempotency-Key"] = []string{"a", "b"}
	require.Equal(t, http.StatusBadRequest, c.serve(r).StatusCode)
	require.Equal(t, "idempotency_key_not_taken", c.ask(http.StatusUnprocessableEntity, "POST", "/api/v1/pause",
		`{"reason": "x"}`, "Idempotency-Key: k 9")["code"], "it cannot be done in one transaction, and may be repeated")
	// The answer has a secret, which is not kept.
	require.Equal(t, "idempotency_key_not_taken", c.ask(http.StatusUnprocessableEntity, "POST", "/api/v1/api-keys",
		`{"name": "x", "role": "viewer"}`, "Idempotency-Key: k 9")["code"])
	require.Equal(t, 0, c.count("api_keys"))
}

func TestAKeyOfSomebodyElseIsAnotherKey(t *testing.T) {
	t.Parallel()
	c, keys := closed(t)
	const body = `{"task_name": "echo", "cron_expression": "@daily"}`
	for _, role := range []string{"editor", "admin"} {
		for range 2 {
			c.ask(http.StatusCreated, "POST", schedules, body, "Idempotency-Key: k", "Authorization: "+keys[role])
		}
	}
	require.Equal(t, 2, c.count("schedules"))
}

// Of many at once, one is carried out; the others are told so, or its answer.
func TestOneOfManyAtOnceIsCarriedOut(t *testing.T) {
	t.Parallel()
	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`)
	target := schedules + "/" + made["id"].(string) + "/run"
	for round := range 10 {
		var all sync.WaitGroup
		answers := make(chan *response, 8)
		for range cap(answers) {
			all.Go(func() { answers <- c.send(t.Context(), "POST", target, "", fmt.Sprintf("Idempotency-Key: %d", round)) })
		}
		all.Wait()
		close(answers)
		ids := map[string]bool{}
		for r := range answers {
			if r.StatusCode == http.StatusConflict {
				require.Equal(t, "request_in_flight", r.object()["code"])
				require.NotEmpty(t, r.Header.Get("Retry-After"))
				continue
			}
			require.Equal(t, http.StatusCreated, r.StatusCode)
			ids[r.object()["id"].(string)] = true
		}
		require.Len(t, ids, 1)
		require.Equal(t, round+1, c.count("runs"))
	}
}

// Whoever has not seen the last change is told so.
func TestIfMatch(t *testing.T) {
	t.Parallel()
	c := setup(t)
	r := c.do("POST", schedules, `{"task_name": "echo", "cron_expression": "@daily"}`)
	at := r.Header.Get("Location")
	require.Equal(t, `"1"`, r.Header.Get("ETag"))
	require.Equal(t, `"1"`, c.do("GET", at, "").Header.Get("ETag"))
	require.Equal(t, `"2"`, c.do("PATCH", at, `{"name": "a"}`, `If-Match: "1"`).Header.Get("ETag"))
	put := `{"task_name": "echo", "cron_expression": "@daily", "name": "b"}`
	for _, request := range [][3]string{
		{"PATCH", at, `{"name": "b"}`}, {"PUT", at, put}, {"DELETE", at, ""}, {"POST", at + "/enable", ""}, {"POST", at + "/disable", ""},
	} {
		for _, match := range []string{`"1"`, `W/"2"`, `"two"`, `"1", "3"`, `"02x"`} {
			failed := c.ask(http.StatusPreconditionFailed, request[0], request[1], request[2], "If-Match: "+match)
			require.Equal(t, "version_mismatch", failed["code"])
		}
		for _, match := range []string{"2", `"2`, `"2" "3"`, ","} {
			c.ask(http.StatusBadRequest, request[0], request[1], request[2], "If-Match: "+match)
		}
	}
	c.ask(http.StatusOK, "PATCH", at, `{"name": "c"}`, `If-Match: "1", "2"`)
	c.ask(http.StatusOK, "PATCH", at, `{"name": "d"}`, `If-Match: *`)
	c.ask(http.StatusNotFound, "PATCH", schedules+"/"+nobody, `{}`, `If-Match: *`)
	require.Equal(t, http.StatusNoContent, c.do("DELETE", at, "", `If-Match: "4"`).StatusCode)

	greet := definitions + "/greet"
	c.ask(http.StatusPreconditionFailed, "PUT", greet, `{}`, `If-Match: *`)
	require.Equal(t, `"1"`, c.do("PUT", greet, `{}`).Header.Get("ETag"))
	c.ask(http.StatusOK, "PUT", greet, `{"timeout": 1}`, `If-Match: "1"`)
	c.ask(http.StatusPreconditionFailed, "PUT", greet, `{"timeout": 2}`, `If-Match: "1"`)
	c.ask(http.StatusPreconditionFailed, "PATCH", greet, `{"timeout": 2}`, `If-Match: "1"`)
	c.ask(http.StatusPreconditionFailed, "DELETE", greet, "", `If-Match: "1"`)
	require.Equal(t, http.StatusNoContent, c.do("DELETE", greet, "", `If-Match: "2"`).StatusCode)

	// Of two writers who have read the same, one is told.
	made := c.do("POST", schedules, put)
	var both sync.WaitGroup
	statuses := make(chan int, 2)
	for i := range 2 {
		both.Go(func() {
			statuses <- c.send(t.Context(), "PATCH", made.Header.Get("Location"), fmt.Sprintf(`{"name": "writer %d"}`, i), `If-Match: "1"`).StatusCode
		})
	}
	both.Wait()
	require.Equal(t, http.StatusOK+http.StatusPreconditionFailed, <-statuses+<-statuses)
}

// A dry run answers as the real one would, and leaves nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	c := setup(t)
	made := c.ask(http.StatusCreated, "POST", schedules, `{"task_name": "echo", "cron_expression": "@daily", "execution_policy": "queue"}`)
	at := schedules + "/" + made["id"].(string)
	c.ask(http.StatusCreated, "POST", definitions, `{"task_name": "greet"}`)
	run := c.ask(http.StatusCreated, "POST", at+"/run", "")
	ended := c.ask(http.StatusOK, "POST", "/api/v1/runs/"+run["id"].(string)+"/cancel", "")
	key := c.ask(http.StatusCreated, "POST", "/api/v1/api-keys", `{"name": "x", "role": "viewer"}`)
	var before, after string
	const all = `SELECT jsonb_build_object(
		's', (SELECT jsonb_agg(s ORDER BY id) FROM schedules AS s), 'c', (SELECT jsonb_agg(c ORDER BY schedule_id) FROM schedule_clocks AS c),
		'd', (SELECT jsonb_agg(d ORDER BY id) FROM task_definitions AS d), 'r', (SELECT jsonb_agg(r ORDER BY id) FROM runs AS r),
		'j', (SELECT jsonb_agg(j ORDER BY id) FROM river_job AS j), 'k', (SELECT jsonb_agg(k ORDER BY id) FROM api_keys AS k),
		'i', (SELECT jsonb_agg(i) FROM installation AS i), 'a', (SELECT max(id) FROM audit_log), 'p', (SELECT count(*) FROM pauses))::text`
	c.query(all, &before)
	for _, request := range []struct {
		method, path, body string
		status             int
		want               map[string]any
	}{
		{"POST", schedules, `{"task_name": "echo", "cron_expression": "0 0 * * *"}`, 200, map[string]any{"name": "echo_daily", "version": 1.0}},
		{"PATCH", at, `{"name": "changed", "cron_expression": "@hourly"}`, 200, map[string]any{"name": "changed", "version": 2.0}},
		{"PUT", at, `{"task_name": "other", "cron_expression": "@hourly"}`, 200, map[string]any{"task_name": "other"}},
		{"POST", at + "/disable", "", 200, map[string]any{"enabled": false, "next_run_at": nil}},
		{"DELETE", at, "", 204, nil},
		{"POST", at + "/run", "", 200, map[string]any{"state": "queued"}},
		{"POST", "/api/v1/runs/" + run["id"].(string) + "/retry", "", 200, map[string]any{"state": "queued"}},
		{"POST", definitions, `{"task_name": "new"}`, 200, map[string]any{"task_name": "new"}},
		{"PUT", definitions + "/newer", `{}`, 200, map[string]any{"task_name": "newer"}},
		{"PATCH", definitions + "/greet", `{"timeout": 3}`, 200, map[string]any{"timeout": "3s"}},
		{"DELETE", definitions + "/greet", "", 204, nil},
		{"POST", "/api/v1/pause", `{"reason": "why"}`, 200, map[string]any{"pause_reason": "why"}},
		{"POST", "/api/v1/resume", "", 200, map[string]any{"paused_at": nil}},
		{"POST", "/api/v1/api-keys", `{"name": "y", "role": "viewer"}`, 200, map[string]any{"name": "y"}},
		{"POST", "/api/v1/api-keys/" + key["id"].(string) + "/rotate", "", 200, map[string]any{"name": "x"}},
		{"DELETE", "/api/v1/api-keys/" + key["id"].(string), "", 204, nil},
		// The same checks.
		{"POST", schedules, `{"task_name": "", "cron_expression": "x"}`, 422, map[string]any{"code": "invalid_request"}},
		{"POST", definitions, `{"task_name": "greet"}`, 409, map[string]any{"code": "task_definition_exists"}},
		{"DELETE", schedules + "/" + nobody, "", 404, nil},
		{"POST", "/api/v1/runs/" + ended["id"].(string) + "/cancel", "", 409, map[string]any{"code": "run_ended"}},
	} {
		r := c.do(request.method, request.path+"?dry_run=true", request.body)
		require.Equal(t, request.status, r.StatusCode, "%s %s: %s", request.method, request.path, r.body)
		require.Empty(t, r.Header.Get("Location"))
		for name, want := range request.want {
			if name == "code" && want == "invalid_request" {
				continue
			}
			require.Equal(t, want, r.object()[name], "%s %s", request.method, request.path)
		}
		c.query(all, &after)
		require.Equal(t, before, after, "%s %s", request.method, request.path)
	}
	c.ask(http.StatusPreconditionFailed, "PATCH", at+"?dry_run=true", `{"name": "x"}`, `If-Match: "7"`)
	c.ask(http.StatusOK, "POST", schedules+"?dry_run=true", `{"task_name": "echo", "cron_expression": "@daily"}`, "Idempotency-Key: dry")
	c.ask(http.StatusCreated, "POST", schedules+"?dry_run=false", `{"task_name": "echo", "cron_expression": "@daily"}`, "Idempotency-Key: dry")
	c.ask(http.StatusUnprocessableEntity, "POST", schedules+"?dry_run=1", `{"task_name": "echo", "cron_expression": "@daily"}`)
	c.ask(http.StatusUnprocessableEntity, "POST", schedules+"/preview?dry_run=true", `{"cron_expression": "@daily"}`)
}
