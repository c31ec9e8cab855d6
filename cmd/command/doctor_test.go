package command

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/doctor"
	"riverbeat/internal/pgtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// patient is a database with a live node, whose troubles are always the same.
type patient struct {
	*pgtest.Database
	t *testing.T
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{pgtest.DB(t), t}
	p.exec("UPDATE installation SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())")
	p.liveNode()
	return p
}

func (p *patient) liveNode() {
	p.t.Helper()
	p.exec(`INSERT INTO nodes (id, host, version, tzdata_version, tasks, queues, last_seen_at)
VALUES (gen_random_uuid(), 'alpha', '1.0', '2026a', '["echo"]', '{"default": 10}', now() + interval '1 hour')`)
}

func (p *patient) exec(statement string) {
	p.t.Helper()
	_, err := p.Pool.Exec(p.t.Context(), statement)
	require.NoError(p.t, err, statement)
}

// fallIll breaks what can be repaired and what cannot, and what is only a
// warning.
func (p *patient) fallIll() {
	p.t.Helper()
	p.exec("ALTER TABLE river_job DISABLE TRIGGER riverbeat_record_update")
	p.exec("SELECT create_runs_partition('2026-01-05 00:00Z')")
	p.exec(`INSERT INTO runs (id, scheduled_for, schedule_name, task_name, lock_key, execution_policy, trigger, slot, state, line_rank)
SELECT ('019b8b74-1800-7000-8000-00000000000' || n)::uuid, '2026-01-05 00:00Z', 'nightly', 'echo', 'key', 'queue', 'manual',
	('019b8b74-1800-7000-8000-00000000000' || n)::uuid, 'waiting', 0
FROM generate_series(1, 3) AS n`)
	p.exec(`INSERT INTO schedules (id, name, task_name, cron_expression, timezone, last_error)
SELECT ('11111111-1111-4111-8111-11111111111' || n)::uuid, 'report ' || n, 'echo', '0 0 1 1 *', 'Mars/Olympus', 'There is no time zone Mars/Olympus.'
FROM generate_series(1, 7) AS n`)
	p.exec(`INSERT INTO schedule_clocks (schedule_id, last_scheduled_for, retry_at)
SELECT id, now(), now() + interval '1 hour' + (right(name, 1) || ' seconds')::interval FROM schedules`)
	p.exec("INSERT INTO task_definitions (task_name, queue) VALUES ('report', 'reports')")
}

// call runs the command and says how it ended.
func (p *patient) call(args ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	var out, errors bytes.Buffer
	code = run(p.t.Context(), nil, append([]string{"doctor", "--database-url", p.URL}, args...), &out, &errors)
	return code, out.String(), errors.String()
}

// What differs from time to time, and from migration to migration.
var (
	times    = regexp.MustCompile(`at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	versions = regexp.MustCompile(`at \d+ of \d+`)
)

func golden(t *testing.T, name, got string) {
	t.Helper()
	got = versions.ReplaceAllString(times.ReplaceAllString(got, "at TIME"), "at N of N")
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "run the test with -update to write it")
	require.Equal(t, string(want), got)
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	code, out, stderr := p.call()
	require.Zero(t, code, out)
	require.Empty(t, stderr)
	golden(t, "doctor_well.txt", out)

	p.exec("INSERT INTO task_definitions (task_name, queue) VALUES ('warned', 'elsewhere')")
	code, out, stderr = p.call()
	require.Zero(t, code, "a warning is no failure")
	require.Empty(t, stderr)
	require.Contains(t, out, "21 checks: 20 ok, 1 warn, 0 fail")
	p.exec("DELETE FROM task_definitions")

	p.fallIll()
	code, out, stderr = p.call()
	require.Equal(t, 1, code)
	require.Equal(t, "riverbeat: not well: history_trigger, stopped_clocks, stalled_lines\n", stderr)
	golden(t, "doctor_ill.txt", out)

	code, out, stderr = p.call("-o", "json")
	require.Equal(t, 1, code)
	require.Equal(t, "riverbeat: not well: history_trigger, stopped_clocks, stalled_lines\n", stderr)
	var report doctor.Report
	decoder := json.NewDecoder(bytes.NewReader([]byte(out)))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&report))
	require.Equal(t, doctor.Fail, report.Status)
	require.Equal(t, report.CheckedAt.Add(-24*60*60*1e9), report.Since)
	require.Len(t, report.Findings, 21)
	require.Equal(t, "stalled_lines", report.Findings[16].Check)
	require.Equal(t, []string{"nightly (019b8b74-1800-7000-8000-000000000001): 3 runs, since 2026-01-05T00:00:00Z"}, report.Findings[16].Examples)
	require.Contains(t, out, `"examples": []`, "a list, always")

	p.exec("DELETE FROM nodes")
	_, out, _ = p.call()
	require.Contains(t, out, "\nBegin with nodes: the others may follow from it.\n")
	p.liveNode()

	code, out, stderr = p.call("--repair")
	require.Zero(t, code, out)
	require.Empty(t, stderr)
	golden(t, "doctor_repaired.txt", out)
	_, out, _ = p.call("--repair")
	require.NotContains(t, out, "repaired", "there is nothing left to do")
}

func TestDoctorOfADatabaseThatIsNotMigrated(t *testing.T) {
	t.Parallel()
	p := &patient{pgtest.Empty(t), t}
	code, out, stderr := p.call()
	require.Equal(t, 1, code)
	require.Equal(t, "riverbeat: not well: schema\n", stderr)
	require.Contains(t, out, "FAIL  schema")
	require.Contains(t, out, "riverbeat migrate up")
	require.Contains(t, out, "\n1 check: 0 ok, 0 warn, 1 fail\n")
	code, out, stderr = p.call("--repair")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, stderr, "Nothing is repaired here.")
}

func TestDoctorCalls(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	for _, args := range [][]string{
		{"--since", "soon"},
		{"--since", "-1h"},
		{"--since", "0s"},
		{"--schedules", "0"},
		{"--schedules", "many"},
		{"-o", "yaml"},
		{"--output", ""},
		{"--fix"},
		{"now"},
		{"--schema", "No Schema"},
		{"--repair=perhaps"},
	} {
		code, out, stderr := p.call(args...)
		require.Equal(t, 2, code, args)
		require.Empty(t, out)
		require.NotEmpty(t, stderr)
	}
	code, out, _ := p.call("--since", "90m", "--schedules", "5", "--output", "table")
	require.Zero(t, code)
	require.Contains(t, out, "in the last 1h30m")

	var stdout, stderr bytes.Buffer
	require.Equal(t, 1, run(t.Context(), nil, []string{"doctor", "--database-url", "postgres://127.0.0.1:1/none", "-o", "json"}, &stdout, &stderr))
	require.Empty(t, stdout.String())
	require.Contains(t, stderr.String(), "refused")

	code, _, message := p.call("--repair", "--environment", "production")
	require.Equal(t, 1, code)
	require.Contains(t, message, `configured for "production"`)
}
