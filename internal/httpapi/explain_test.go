package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/riverbeat"
)

// asked is a schedule whose past a test writes: it is in force since 2026-03-01,
// and its ticks are decided up to 2026-11-01.
type asked struct {
	*client
	id string
	n  byte // ids of runs so far
}

func ask(t *testing.T, more string) *asked {
	t.Helper()
	c := setup(t)
	fields := map[string]any{"name": "morning", "task_name": "report", "cron_expression": "0 9 * * *", "timezone": "Europe/Berlin"}
	require.NoError(t, json.Unmarshal([]byte("{"+more+"}"), &fields))
	made := c.ask(http.StatusCreated, "POST", schedules, jsonText(fields))
	a := &asked{client: c, id: made["id"].(string)}
	a.exec("UPDATE schedule_versions SET valid_from = '2026-03-01T00:00:00Z'")
	a.exec("UPDATE schedule_clocks SET last_scheduled_for = '2026-11-01T00:00:00Z', next_run_at = CASE WHEN next_run_at IS NULL THEN NULL ELSE timestamptz '2098-01-01T00:00:00Z' END")
	a.exec("SELECT create_runs_partition('2026-03-02T00:00:00Z'), create_runs_partition('2026-03-29T00:00:00Z'), create_runs_partition('2026-10-25T00:00:00Z')")
	return a
}

// run writes a run of the schedule, and answers its id; set are more columns, as
// in UPDATE.
func (a *asked) run(at, state, set string) string {
	a.t.Helper()
	scheduledFor, err := time.Parse(time.RFC3339, at)
	require.NoError(a.t, err)
	a.n++
	id := riverbeat.NewRunID(scheduledFor, []byte{0, a.n, 0, 0, 0, 0, 0, 0, 0, 0}).String()
	a.exec(`
INSERT INTO runs (id, scheduled_for, schedule_id, schedule_name, schedule_version, task_name, execution_policy, trigger, slot, state, line_rank, max_attempts)
SELECT $1, $2, $3, 'morning', 1, 'report', 'allow', 'schedule', $5, state, CASE WHEN state = 'waiting' THEN 0 END, 3
FROM (VALUES ($4::text)) AS given (state)`,
		id, scheduledFor, a.id, state, uuid.Nil)
	if set != "" {
		a.exec("UPDATE runs SET "+set+" WHERE id = $1", id)
	}
	return id
}

// pause writes a pause of the past.
func (a *asked) pause(from, until string) {
	a.t.Helper()
	a.exec("INSERT INTO pauses (paused_at, paused_by, reason, resumed_at, resumed_by) VALUES ($1::text::timestamptz, 'ada', 'database upgrade', $2::text::timestamptz, 'bob')", from, until)
}

const tickAt, finished = "2026-03-02T08:00:00Z", "finished_at = '2026-03-02T08:00:02.5Z'"

const started = "attempt = 1, execution = 1, node = 'node-a', enqueued_at = '2026-03-02T08:00:00.02Z', started_at = '2026-03-02T08:00:00.132Z'"

// Each verdict, each with its document in testdata/explain.
func TestExplain(t *testing.T) {
	t.Parallel()

	covered := map[riverbeat.Verdict]bool{}
	for _, tt := range []struct {
		name     string
		schedule string // fields beside the usual ones
		given    func(*asked)
		at       string
		verdict  riverbeat.Verdict
	}{
		{"succeeded", ``, func(a *asked) {
			a.run(tickAt, "succeeded", started+", "+finished)
		}, tickAt, "succeeded"},
		{"caught up after a pause", ``, func(a *asked) {
			a.pause("2026-03-02T07:50:00Z", "2026-03-02T08:20:00Z")
			a.run(tickAt, "succeeded", "trigger = 'catch_up', "+strings.ReplaceAll(started+", "+finished, "T08:00", "T08:20"))
		}, tickAt, "succeeded"},
		{"failed", ``, func(a *asked) {
			a.run(tickAt, "failed", strings.Replace(started, "attempt = 1", "attempt = 3", 1)+", "+finished+", error = 'no paper'")
		}, tickAt, "failed"},
		{"failed with its nodes", ``, func(a *asked) {
			a.run(tickAt, "failed", started+", "+finished+`, lives = 3, reason = 'worker_lost'`)
		}, tickAt, "failed"},
		{"invalid params", ``, func(a *asked) {
			a.run(tickAt, "failed", finished+", reason = 'invalid_params', error = '/day: is required'")
		}, tickAt, "invalid_params"},
		{"cancelled in line", ``, func(a *asked) {
			a.run(tickAt, "cancelled", finished+", reason = 'schedule_disabled'")
		}, tickAt, "cancelled"},
		{"cancelled by a person", ``, func(a *asked) {
			a.run(tickAt, "cancelled", started+", "+finished+", reason = 'cancelled_by_user'")
		}, tickAt, "cancelled"},
		{"running on another node", ``, func(a *asked) {
			a.run(tickAt, "running", strings.NewReplacer("node-a", "node-b", "execution = 1", "execution = 2").Replace(started)+`, lives = 1, cancel_requested_at = '2026-03-02T08:30:00Z',
				lost_lives = '[{"job_id": 7, "node": "node-a", "execution": 1, "lost_at": "2026-03-02T08:00:06.5Z"}]'`)
		}, tickAt, "running"},
		{"retrying", ``, func(a *asked) { a.run(tickAt, "retrying", started) }, tickAt, "retrying"},
		{"queued without a worker", ``, func(a *asked) { a.run(tickAt, "queued", "reason = 'no_worker'") }, tickAt, "queued"},
		{"waiting", `"execution_policy": "queue"`, func(a *asked) {
			key := "execution_policy = 'queue', lock_key = 'the key'"
			running := a.run("2026-03-02T07:00:00Z", "running", key+", started_at = '2026-03-02T07:00:01Z'")
			a.exec(`
INSERT INTO river_job (kind, args, max_attempts, state, attempt, attempted_at, attempted_by)
VALUES ('run', jsonb_build_object('run_id', $1::text, 'lock_key', 'the key'), 3, 'running', 1, statement_timestamp(), '{node-a}')`, running)
			a.run("2026-03-02T07:30:00Z", "waiting", key)
			a.run(tickAt, "waiting", key)
			a.run("2026-03-02T08:30:00Z", "waiting", key)
		}, tickAt, "waiting"},
		{"skipped", `"execution_policy": "skip"`, func(a *asked) {
			behind := a.run("2026-03-02T07:59:00Z", "succeeded", "schedule_id = gen_random_uuid(), schedule_name = 'the other', started_at = '2026-03-02T07:59:00.1Z', finished_at = '2026-03-02T08:10:00Z'")
			a.exec("UPDATE runs SET schedule_id = $1", nobody)
			a.run(tickAt, "skipped", finished+", reason = 'already_running', blocked_by = '"+behind+"'")
		}, tickAt, "skipped"},
		{"skipped behind what is forgotten", `"execution_policy": "skip"`, func(a *asked) {
			a.run(tickAt, "skipped", finished+", reason = 'already_queued', blocked_by = '"+nobody+"'")
		}, tickAt, "skipped"},
		{"queue full", `"execution_policy": "queue", "max_waiting": 1`, func(a *asked) {
			behind := a.run("2026-03-02T07:59:00Z", "running", "started_at = '2026-03-02T07:59:00.1Z'")
			a.run(tickAt, "skipped", finished+", reason = 'queue_full', blocked_by = '"+behind+"'")
		}, tickAt, "queue_full"},

		{"missed for newer ones", `"cron_expression": "0 * * * *"`, func(a *asked) {
			a.run("2026-03-02T12:00:00Z", "missed", "reason = 'superseded', missed_from = '2026-03-02T06:00:00Z', missed_until = '2026-03-02T12:00:00Z', missed_count = 7, finished_at = '2026-03-02T13:20:00.75Z'")
		}, tickAt, "missed"},
		{"missed during a pause", `"catch_up": "none"`, func(a *asked) {
			a.pause("2026-03-02T07:50:00Z", "2026-03-02T08:20:00Z")
			a.run(tickAt, "missed", "reason = 'outside_window', missed_from = '2026-03-02T08:00:00Z', missed_until = '2026-03-02T08:00:00Z', missed_count = 1, finished_at = '2026-03-02T08:20:00.1Z'")
		}, tickAt, "missed"},
		{"missed and backfilled", ``, func(a *asked) {
			a.run("2026-03-03T08:00:00Z", "missed", "reason = 'outside_window', missed_from = '2026-03-02T08:00:00Z', missed_until = '2026-03-03T08:00:00Z', missed_count = 2, finished_at = '2026-03-03T10:00:00Z'")
			a.run(tickAt, "succeeded", "trigger = 'backfill', slot = '"+nobody+"', backfill_id = slot, requested_by = 'ada', started_at = '2026-03-05T11:00:00Z', finished_at = '2026-03-05T11:00:02Z'")
			a.exec("UPDATE runs SET backfill_id = slot WHERE trigger = 'backfill'")
		}, tickAt, "succeeded"},
		{"run and backfilled", ``, func(a *asked) {
			a.run(tickAt, "succeeded", "trigger = 'backfill', slot = '"+nobody+"', started_at = '2026-03-05T11:00:00Z', finished_at = '2026-03-05T11:00:02Z'")
			a.run(tickAt, "failed", started+", "+finished)
		}, tickAt, "failed"},

		{"upcoming", `"execution_policy": "skip", "ends_at": "2099-01-03T12:00:00Z"`, func(*asked) {}, "2099-01-01T08:00:00Z", "upcoming"},
		{"upcoming if it is resumed", ``, func(a *asked) {
			a.exec("UPDATE installation SET paused_at = '2026-03-02T07:50:00Z', paused_by = 'ada', pause_reason = 'database upgrade'")
		}, "2099-01-01T08:00:00Z", "upcoming"},
		{"due", ``, func(a *asked) {
			a.exec("UPDATE schedule_clocks SET last_scheduled_for = '2026-03-02T07:00:00Z', next_run_at = '2026-03-02T08:00:00Z'")
		}, tickAt, "due"},
		{"due with the next", ``, func(a *asked) {
			a.exec("UPDATE schedule_clocks SET last_scheduled_for = '2026-03-02T07:00:00Z'")
		}, tickAt, "due"},
		{"paused", ``, func(a *asked) {
			a.exec("UPDATE schedule_clocks SET last_scheduled_for = '2026-03-02T07:00:00Z', next_run_at = '2026-03-02T08:00:00Z'")
			a.exec("UPDATE installation SET paused_at = '2026-03-02T08:05:00Z', paused_by = 'ada', pause_reason = 'database upgrade'")
		}, tickAt, "paused"},
		{"stopped", ``, func(a *asked) {
			a.exec("UPDATE schedule_clocks SET last_scheduled_for = '2026-03-02T07:00:00Z', next_run_at = NULL, retry_at = '2026-03-02T09:00:00Z'")
			a.exec("UPDATE schedules SET last_error = 'The database refuses the rows of its runs; see the log.'")
		}, tickAt, "stopped"},
		{"stopped for its zone", ``, func(a *asked) {
			a.exec("UPDATE schedules SET timezone = 'Atlantis/Capital', last_error = 'No zone Atlantis/Capital'")
			a.exec("UPDATE schedule_clocks SET last_scheduled_for = '2026-03-02T07:00:00Z', next_run_at = NULL, retry_at = '2026-03-02T09:00:00Z'")
			a.exec("DELETE FROM schedule_versions WHERE valid_until IS NOT NULL")
			a.exec("UPDATE schedule_versions SET valid_from = '2026-03-01T00:00:00Z'")
		}, tickAt, "stopped"},

		{"not a tick", ``, func(*asked) {}, "2026-03-02T08:00:01.5Z", "not_a_tick"},
		{"moved", `"cron_expression": "30 2 * * *"`, func(a *asked) {
			a.run("2026-03-29T01:00:00Z", "succeeded", "started_at = '2026-03-29T01:00:00.1Z', finished_at = '2026-03-29T01:00:01Z'")
		}, "2026-03-29T02:30:00+01:00", "moved"},
		{"second pass", `"cron_expression": "30 2 * * *"`, func(a *asked) {
			a.run("2026-10-25T00:30:00Z", "succeeded", "started_at = '2026-10-25T00:30:00.1Z', finished_at = '2026-10-25T00:30:01Z'")
		}, "2026-10-25T02:30:00+01:00", "second_pass"},
		{"no such time", `"cron_expression": "*/30 2 * * *"`, func(*asked) {}, "2026-03-29T02:30:00+01:00", "no_such_time"},

		{"before creation", ``, func(*asked) {}, "2026-02-28T08:00:00Z", "before_creation"},
		{"deleted", ``, func(a *asked) {
			a.ask(http.StatusNoContent, "DELETE", schedules+"/"+a.id, "")
			a.exec("UPDATE schedule_versions SET valid_until = '2026-03-02T06:30:00Z'")
		}, tickAt, "deleted"},
		{"disabled", ``, func(a *asked) {
			a.ask(http.StatusOK, "POST", schedules+"/"+a.id+"/disable", "")
			a.ask(http.StatusOK, "POST", schedules+"/"+a.id+"/enable", "")
			a.exec("UPDATE schedule_versions SET valid_until = '2026-03-02T06:30:00Z' WHERE version = 1")
			a.exec("UPDATE schedule_versions SET valid_from = '2026-03-02T06:30:00Z', valid_until = '2026-03-04T09:30:00Z' WHERE version = 2")
			a.exec("UPDATE schedule_versions SET valid_from = '2026-03-04T09:30:00Z' WHERE version = 3")
		}, tickAt, "disabled"},
		{"before start", `"starts_at": "2026-03-02T08:00:00.001Z"`, func(*asked) {}, tickAt, "before_start"},
		{"after end", `"ends_at": "2026-03-02T07:59:00Z"`, func(*asked) {}, tickAt, "after_end"},

		{"forgotten", ``, func(a *asked) { a.exec("DROP TABLE runs_p20260302") }, tickAt, "forgotten"},
		{"unknown", ``, func(a *asked) {
			a.exec("UPDATE schedule_versions SET version = 4, valid_from = '2026-03-02T12:00:00Z'")
		}, tickAt, "unknown"},
		{"unaccounted", ``, func(*asked) {}, tickAt, "unaccounted"},
	} {
		covered[tt.verdict] = true
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			a := ask(t, tt.schedule)
			tt.given(a)
			r := a.explain(tt.at)
			require.Equal(t, http.StatusOK, r.StatusCode, "%s", r.body)
			require.Equal(t, string(tt.verdict), r.object()["verdict"])
			age := regexp.MustCompile(`due for \w+ `) // until now
			golden(t, "explain/"+strings.ReplaceAll(tt.name, " ", "_"), age.ReplaceAll(r.body, []byte("due for {age} ")), strings.NewReplacer(a.id, "{schedule}"))
		})
	}
	for _, verdict := range riverbeat.Verdicts() {
		require.True(t, covered[verdict], verdict)
	}
}

func (a *asked) explain(at string) *response {
	a.t.Helper()
	return a.do("GET", schedules+"/"+a.id+"/explain?at="+url.QueryEscape(at), "")
}

// Far ends of time, where neighbours or local times cannot be written.
func TestExplainFarAway(t *testing.T) {
	t.Parallel()

	a := ask(t, `"timezone": "Asia/Tokyo"`)
	for at, verdict := range map[string]string{
		"1970-01-01T00:00:00Z":      "before_creation",
		"9999-12-31T23:59:59Z":      "not_a_tick",
		"9999-12-30T23:59:59+09:00": "not_a_tick",
	} {
		r := a.explain(at)
		require.Equal(t, http.StatusOK, r.StatusCode, "%s", r.body)
		require.Equal(t, verdict, r.object()["verdict"])
	}
}
