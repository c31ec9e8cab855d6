package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"riverbeat/internal/client"
	"riverbeat/internal/pgtest"
)

// site is a node that serves an API, and who uses it.
type site struct {
	t        *testing.T
	database *pgtest.Database
	address  string
	node     *program
}

const adminKey = "the-key-of-an-admin"

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, database: pgtest.DB(t), address: freeAddress(t)}
	s.start()
	return s
}

func (s *site) url() string { return "http://" + s.address }

func (s *site) start() {
	s.t.Helper()
	s.node = start(s.t, "serve", "--config", s.file("RIVERBEAT_ADMIN_KEY="+adminKey), "--database-url", s.database.URL, "--listen", s.address)
	require.Eventually(s.t, func() bool {
		r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url()+"/readyz", nil)
		if err != nil {
			return false
		}
		answer, err := http.DefaultClient.Do(r)
		return err == nil && answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	}, time.Minute, 20*time.Millisecond)
}

// file makes a settings file.
func (s *site) file(lines ...string) string {
	s.t.Helper()
	name := filepath.Join(s.t.TempDir(), "riverbeat.env")
	require.NoError(s.t, os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o600))
	return name
}

// person is someone with a settings file.
type person struct {
	t    *testing.T
	file string
}

// person has a key for the site; "" is none.
func (s *site) person(key string) *person {
	s.t.Helper()
	return &person{s.t, s.file("RIVERBEAT_SERVER="+s.url(), "RIVERBEAT_API_KEY="+key,
		"RIVERBEAT_LOGIN_FILE="+filepath.Join(s.t.TempDir(), "login.json"))}
}

func (p *person) call(args ...string) (code int, out, errs string) {
	p.t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(p.t.Context(), nil, append(args, "--config", p.file), &stdout, &stderr)
	for _, text := range []string{stdout.String(), stderr.String()} {
		require.Equal(p.t, printableLines(text), text, "%q: nothing that a terminal obeys", args)
	}
	return code, stdout.String(), stderr.String()
}

// says is what a command prints that succeeds.
func (p *person) says(args ...string) string {
	p.t.Helper()
	code, out, errs := p.call(args...)
	require.Zero(p.t, code, "%q: %s", args, errs)
	return out
}

// make makes a schedule and answers its id.
func (s *site) make(body string) string {
	s.t.Helper()
	api, err := client.New(client.Config{Server: s.url(), Key: adminKey})
	require.NoError(s.t, err)
	made, err := client.Call[shownSchedule](s.t.Context(), api, client.Request{Method: http.MethodPost, Path: "/schedules", Body: json.RawMessage(body)})
	require.NoError(s.t, err)
	return made.ID
}

// fixed is what a command prints, with the parts that are others each time replaced.
func fixed(text string) string {
	for _, part := range []struct{ pattern, text string }{
		{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, "ID"},
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ`, "TIME"},
		{`  \d[\d.]*(ms|s)`, "  TOOK"},
		{`  +`, "  "}, // how columns are aligned is shown elsewhere
	} {
		text = regexp.MustCompile(part.pattern).ReplaceAllString(text, part.text)
	}
	return "\n" + text
}

func TestPeople(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	admin := s.person(adminKey)

	require.Equal(t, 0, first(admin.call("schedules", "list")))
	_, out, errs := admin.call("schedules", "list")
	require.Empty(t, out)
	require.Equal(t, "There are no schedules.\n", errs)
	require.Equal(t, "[]\n", admin.says("schedules", "list", "-o", "json"))
	require.Equal(t, "[]\n", admin.says("schedules", "list", "-o", "yaml"))
	require.Empty(t, admin.says("schedules", "list", "-o", "name"))

	report := s.make(`{"name": "sales-report", "task_name": "echo", "cron_expression": "30 2 * * *", "timezone": "Europe/Berlin", "enabled": false,
		"task_params": {"text": "hi"}, "category": "office", "tags": ["daily", "sales"]}`)
	s.make(`{"name": "上場銘柄の取得", "task_name": "fetch_listed_info", "cron_expression": "0 0 1 1 *", "task_params": {"period_type": "yesterday"}, "execution_policy": "skip"}`)
	s.make(`{"name": "broken", "task_name": "fail", "cron_expression": "0 0 1 1 *", "max_attempts": 1, "task_params": {"message": "out of \u001b[31mcheese"}}`)
	s.make(`{"name": "\u202eevil", "task_name": "echo", "cron_expression": "@yearly", "enabled": false}`)
	var twin string
	for range 2 {
		twin = s.make(`{"name": "twin", "task_name": "echo", "cron_expression": "0 0 1 1 *", "ends_at": "2020-01-01T00:00:00Z"}`)
	}

	t.Run("Schedules", func(t *testing.T) { //nolint:paralleltest // one after another
		require.Equal(t, `
NAME  NEXT  RECURRENCE  ID  TASK  POLICY  LAST
broken  TIME  0 0 1 1 *  ID  fail  allow  -
sales-report  disabled  30 2 * * * (Europe/Berlin)  ID  echo  allow  -
twin  ended  0 0 1 1 *  ID  echo  allow  -
twin  ended  0 0 1 1 *  ID  echo  allow  -
�evil  disabled  @yearly  ID  echo  allow  -
上場銘柄の取得  TIME  0 0 1 1 *  ID  fetch_listed_info  skip  -
`, fixed(admin.says("schedules", "list", "--sort", "name")))
		for filter, want := range map[string]string{
			"--category office": report, "--tag daily --tag sales": report, "--q sales": report, "--name sales-report": report,
			"--tag daily --tag none": "", "--enabled false --task echo --name sales-report": report,
		} {
			require.Equal(t, want, strings.TrimSpace(admin.says(append([]string{"schedules", "list", "-o", "name"}, strings.Fields(filter)...)...)), filter)
		}
		require.Len(t, strings.Fields(admin.says("schedules", "list", "--limit", "2", "-o", "name")), 2)

		for _, named := range []string{report, "sales-report"} {
			require.Contains(t, fixed(admin.says("schedules", "show", named)), "\nid  ID\nname  sales-report\n")
		}
		code, _, errs := admin.call("schedules", "show", "twin")
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, twin+"  0 0 1 1 *  echo")

		require.Equal(t, `at 02:30 every day

TICK                       HERE                  REMARK
2026-03-29 03:00:00+02:00  2026-03-29 01:00:00Z  02:30 does not exist on this day in Europe/Berlin; moved to 03:00
2026-03-30 02:30:00+02:00  2026-03-30 00:30:00Z
`, admin.says("schedules", "next", "sales-report", "--after", "2026-03-28 12:00", "--count", "2"))
		require.Equal(t, "2026-03-28T01:30:00Z\n", admin.says("schedules", "next", "sales-report", "--after", "2026-03-28", "--count", "1", "-o", "name"))
		require.Equal(t, `
It will run at 2099-01-01 00:00 +00:00, unless a run of the same task and arguments is unfinished
then (policy skip), if nothing is changed until then.

verdict  upcoming
tick before  TIME
tick after  TIME
`, fixed(admin.says("schedules", "explain", "上場銘柄の取得", "--at", "2099-01-01")))
		require.Equal(t, "before_creation\n", admin.says("schedules", "explain", report, "--at", "2026-01-01", "-o", "name"))
	})

	t.Run("Runs", func(t *testing.T) { //nolint:paralleltest // one after another
		require.Equal(t, exitOK, first(admin.call("schedules", "run", "sales-report", "--dry-run")))
		ids := strings.Fields(admin.says("schedules", "run", "sales-report", report, "--params", `{"text": "twice"}`, "--policy", "queue", "-o", "name"))
		require.Len(t, ids, 2)
		code, out, errs := admin.call(append([]string{"runs", "watch", "--every", "100ms"}, ids...)...)
		require.Zero(t, code, errs)
		require.Regexp(t, `^20.*Z  succeeded  `+ids[0]+`  sales-report\n|\n20.*Z  succeeded  `+ids[0]+`  sales-report\n`, out)
		require.Equal(t, `
SCHEDULE  STATE  SCHEDULED FOR  ID  TOOK  REASON  TRIGGER  TASK
sales-report  succeeded  TIME  ID  TOOK  -  manual  echo
sales-report  succeeded  TIME  ID  TOOK  -  manual  echo
`, fixed(admin.says("runs", "list", "--schedule", "sales-report", "--trigger", "manual")))
		require.Contains(t, admin.says("runs", "show", ids[0]), "text: twice")

		code, out, errs = admin.call("schedules", "run", "broken", "-o", "name")
		require.Zero(t, code, errs)
		failed := strings.TrimSpace(out)
		code, _, errs = admin.call("runs", "watch", failed, "--every", "100ms", "-o", "json")
		require.Equal(t, exitError, code)
		require.Equal(t, "riverbeat: "+failed+" failed\n", errs)
		require.Contains(t, admin.says("runs", "show", failed), "out of �[31mcheese")
		require.Equal(t, failed+"\n", admin.says("runs", "list", "--state", "failed", "--from", "-10m", "-o", "name"))
		require.Regexp(t, `(?m)^broken +`, admin.says("runs", "retry", failed))

		// What cannot be done to one is told, and done to the others.
		code, out, errs = admin.call("runs", "cancel", ids[0], ids[1])
		require.Equal(t, exitConflict, code)
		require.Empty(t, out)
		require.Contains(t, errs, ids[0]+": ")
		require.Contains(t, errs, ids[1]+": ")
	})

	t.Run("Others", func(t *testing.T) { //nolint:paralleltest // one after another
		require.Contains(t, fixed(admin.says("tasks", "list")), `
TASK  EXECUTOR  QUEUE  ATTEMPTS  TIMEOUT  CATEGORY  DESCRIPTION
echo  go  default  3  TOOK  demonstration  Returns its parameters.
`)
		require.Equal(t, "echo\n", admin.says("tasks", "show", "echo", "-o", "name"))
		require.Regexp(t, `(?m)^executor +kind: go$`, admin.says("tasks", "show", "echo"))
		require.Regexp(t, `^\nHOST  STATE  RUNNING  LAST SEEN  ID  VERSION  QUEUES  STARTED
\S+  alive  \d  TIME  ID  dev  default=200,riverbeat_alert=10  TIME
$`, fixed(admin.says("nodes")))
		require.Contains(t, fixed(admin.says("audit", "--action", "schedule.create", "--limit", "1")), `
AT  ACTOR  ACTION  OBJECT  ADDRESS  ID
TIME  RIVERBEAT_ADMIN_KEY  schedule.create  ID  127.0.0.1  `)
		require.Equal(t, "\n", fixed(admin.says("audit", "--object-id", uuid.NewString())))

		begun := admin.says("schedules", "backfill", "sales-report", "--from", "2026-01-01", "--to", "2026-03-01", "--only-missing")
		require.Equal(t, "\nSCHEDULE  STATE  DECIDED  ID  FROM  TO\nsales-report  running  0/59  ID  TIME  TIME\n", fixed(begun))
		id := strings.TrimSpace(admin.says("backfills", "list", "-o", "name"))
		require.Regexp(t, `(?m)^total +59$`, admin.says("backfills", "show", id))
		require.Eventually(t, func() bool {
			return strings.Contains(fixed(admin.says("backfills", "list", "--state", "finished")), "sales-report  finished  59/59  ")
		}, 30*time.Second, 100*time.Millisecond)
		require.Equal(t, exitConflict, first(admin.call("backfills", "cancel", id)))
		_, out, errs := admin.call("runs", "list", "-o", "name")
		require.Len(t, strings.Fields(out), 50)
		require.Equal(t, "There are more runs; --limit 0 shows all.\n", errs)
		require.Greater(t, len(strings.Fields(admin.says("runs", "list", "-o", "name", "--limit", "0"))), 59)
	})

	t.Run("Pause", func(t *testing.T) { //nolint:paralleltest // one after another
		require.Equal(t, exitUsage, first(admin.call("pause")))
		require.Contains(t, fixed(admin.says("pause", "--reason", "The warehouse moves")), "\npause reason  The warehouse moves\n")
		_, out, errs := admin.call("pause", "--reason", "Another")
		require.Contains(t, fixed(out), "\npause reason  The warehouse moves\n")
		require.Equal(t, "It was paused already, and that pause stands.\n", errs)
		require.Equal(t, "\nenvironment  default\n", fixed(admin.says("resume")))
		_, _, errs = admin.call("resume")
		require.Equal(t, "Nothing was paused.\n", errs)
	})

	t.Run("Changes", func(t *testing.T) { //nolint:paralleltest // one after another
		require.Contains(t, fixed(admin.says("schedules", "enable", "sales-report")), "\nsales-report  TIME  ")
		code, _, errs := admin.call("schedules", "disable", "sales-report", "--if-version", "1")
		require.Equal(t, exitConflict, code, errs)
		require.Contains(t, fixed(admin.says("schedules", "disable", "sales-report", "--if-version", "2", "--dry-run")), "disabled")
		require.Contains(t, fixed(admin.says("schedules", "disable", "sales-report", "--if-version", "2")), "disabled")
		all := strings.Fields(admin.says("schedules", "list", "--enabled", "true", "-o", "name"))
		require.Len(t, all, 4)
		require.Equal(t, strings.Join(all, "\n")+"\n", admin.says(append([]string{"schedules", "disable", "-o", "name"}, all...)...))
		require.Empty(t, admin.says("schedules", "list", "--enabled", "true", "-o", "name"))

		require.Contains(t, admin.says("schedules", "delete", "sales-report", "--dry-run"), "sales-report")
		require.Contains(t, admin.says("schedules", "delete", "sales-report"), "sales-report")
		code, out, errs := admin.call("schedules", "delete", report, twin)
		require.Equal(t, exitNotFound, code)
		require.Contains(t, out, "twin")
		require.Contains(t, errs, report)
	})

	t.Run("Codes", func(t *testing.T) { //nolint:paralleltest // one after another
		reader := s.person(s.key("viewer"))
		nowhere := s.person(adminKey)
		nowhere.file = s.file("RIVERBEAT_SERVER=http://" + freeAddress(t))
		for _, test := range []struct {
			who  *person
			args string
			code int
			says string
		}{
			{admin, "runs list --state broken", exitUsage, "See 'riverbeat runs list --help'"},
			{admin, "runs list -o xml", exitUsage, "table, json, yaml or name"},
			{admin, "runs list --limit -1", exitUsage, "--limit"},
			{admin, "runs list --from soon", exitUsage, "it is no time such as"},
			{admin, "runs show", exitUsage, "the id of a run is needed"},
			{admin, "runs watch x --state failed", exitUsage, "either"},
			{admin, "runs watch --every 1ms", exitUsage, "--every"},
			{admin, "runs watch -o yaml", exitUsage, "table or json"},
			{admin, "runs lst", exitUsage, "unknown command"},
			{admin, "schedules enable", exitUsage, "is needed"},
			{admin, "schedules explain broken", exitUsage, "--at is needed"},
			{admin, "schedules backfill broken --from 2026-01-01", exitUsage, "--from and --to"},
			{admin, "schedules run broken --params {", exitUsage, "--params"},
			{admin, "schedules run broken --params @/none", exitUsage, "/none"},
			{admin, "schedules enable broken --if-version x", exitUsage, "--if-version"},
			{admin, "schedules list --server nowhere", exitUsage, "RIVERBEAT_SERVER"},
			{admin, "schedules list --server http://192.0.2.1", exitUsage, "--plain-http"},
			{admin, "schedules list --key-file /none", exitUsage, "--key-file"},
			{admin, "completion tcsh", exitUsage, "unknown command"},
			{admin, "schedules run broken --params []", exitError, "/task_params"},
			{admin, "schedules next broken --count 0", exitError, "count: "},
			{nowhere, "schedules list", exitError, "does not answer"},
			{nowhere, "runs watch", exitError, "does not answer"},
			{admin, "schedules show no-such-name", exitNotFound, `there is no schedule "no-such-name"`},
			{admin, "schedules show " + uuid.NewString(), exitNotFound, "There is no schedule"},
			{admin, "runs show x", exitNotFound, `There is no run "x"`},
			{admin, "runs watch " + uuid.NewString(), exitNotFound, ""},
			{admin, "runs list --schedule none", exitNotFound, `there is no schedule "none"`},
			{admin, "tasks show none", exitNotFound, "none"},
			{s.person(""), "schedules list", exitDenied, "'riverbeat login' keeps a key"},
			{s.person("rb_wrong"), "schedules list", exitDenied, "key"},
			{reader, "pause --reason x", exitDenied, "operator"},
		} {
			code, out, errs := test.who.call(strings.Fields(test.args)...)
			require.Equal(t, test.code, code, "%s: %s", test.args, errs)
			require.Contains(t, errs, test.says, test.args)
			require.True(t, strings.HasPrefix(errs, "riverbeat: "), errs)
			require.Empty(t, out)
			require.NotContains(t, errs, adminKey)
		}
		require.Contains(t, reader.says("schedules", "list"), "broken")
	})

	t.Run("Formats", func(t *testing.T) { //nolint:paralleltest // one after another
		run := strings.Fields(admin.says("runs", "list", "-o", "name"))[0]
		for _, args := range []string{
			"schedules list", "schedules show broken", "schedules next broken", "schedules explain broken --at 2026-01-01", "schedules enable broken",
			"runs list", "runs show " + run, "tasks list", "tasks show echo", "backfills list", "audit", "nodes", "resume",
		} {
			fields := strings.Fields(args)
			var fromJSON, fromYAML any
			require.NoError(t, json.Unmarshal([]byte(admin.says(append(fields, "-o", "json")...)), &fromJSON), args)
			require.NoError(t, yaml.Unmarshal([]byte(admin.says(append(fields, "-o", "yaml")...)), &fromYAML), args)
			if !strings.HasPrefix(args, "nodes") { // there time passes
				again, err := json.Marshal(fromYAML)
				require.NoError(t, err)
				want, err := json.Marshal(fromJSON)
				require.NoError(t, err)
				require.JSONEq(t, string(want), string(again), args)
			}
			require.Regexp(t, `^(\S+\n)+$`, admin.says(append(fields, "-o", "name")...), args)
		}
	})
}

func first(code int, _, _ string) int { return code }

// key makes a key of a role.
func (s *site) key(role string) string {
	s.t.Helper()
	var out, errs bytes.Buffer
	code := run(s.t.Context(), nil, []string{"keys", "create", "--role", role, "--name", role, "-o", "json", "--database-url", s.database.URL}, &out, &errs)
	require.Zero(s.t, code, errs.String())
	var made struct{ Key string }
	require.NoError(s.t, json.Unmarshal(out.Bytes(), &made))
	return made.Key
}

// Each key is shown to its own server only, and flags beat the environment, which beats
// the settings file, which beats the logins.
func TestWhichServerAndKey(t *testing.T) {
	shown := map[string]string{} // by server
	server := func(name string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			shown[name] = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			if shown[name] == "wrong" {
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(`{"code": "invalid_key", "detail": "The key is not valid."}`))
				return
			}
			_, _ = w.Write([]byte(`{"items": [], "next_page_token": null, "environment": "of ` + name + `"}`))
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	a, b := server("a"), server("b")
	dir := t.TempDir()
	logins := filepath.Join(dir, "riverbeat", "login.json")
	t.Setenv("XDG_CONFIG_HOME", dir)
	key := func(text string) string {
		name := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(name, []byte(text+"\n"), 0o600))
		return name
	}
	call := func(args ...string) (code int, errs string) {
		t.Helper()
		clear(shown)
		var stdout, stderr bytes.Buffer
		code = run(t.Context(), nil, args, &stdout, &stderr)
		return code, stderr.String()
	}
	nodes := func(want map[string]string, args ...string) {
		t.Helper()
		code, errs := call(append([]string{"nodes"}, args...)...)
		require.Zero(t, code, errs)
		require.Equal(t, want, shown)
	}

	code, errs := call("login", "--server", a, "--key-file", key("wrong"))
	require.Equal(t, exitDenied, code, errs)
	require.NoFileExists(t, logins)
	for name, address := range map[string]string{"a": a, "b": b} {
		code, errs := call("login", "--server", address, "--key-file", key("key-of-"+name))
		require.Zero(t, code, errs)
		require.Equal(t, "Logged in at "+address+", environment of "+name+".\n", errs)
	}
	code, errs = call("login", "--server", b, "--key-file", key("key-of-b"))
	require.Zero(t, code, errs)
	info, err := os.Stat(logins)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	nodes(map[string]string{"b": "key-of-b"})
	nodes(map[string]string{"a": "key-of-a"}, "--server", a+"/")
	nodes(map[string]string{"b": "another"}, "--key-file", key("another"))
	file := filepath.Join(dir, "settings")
	require.NoError(t, os.WriteFile(file, []byte("RIVERBEAT_SERVER="+a), 0o600))
	nodes(map[string]string{"a": "key-of-a"}, "--config", file)
	t.Setenv("RIVERBEAT_SERVER", b)
	t.Setenv("RIVERBEAT_API_KEY", "of-the-environment")
	nodes(map[string]string{"b": "of-the-environment"}, "--config", file)
	nodes(map[string]string{"a": "another"}, "--config", file, "--server", a, "--key-file", key("another"))
	t.Setenv("RIVERBEAT_SERVER", "")
	t.Setenv("RIVERBEAT_API_KEY", "")

	code, errs = call("logout")
	require.Zero(t, code)
	require.Equal(t, "Logged out at "+b+".\n", errs)
	nodes(map[string]string{"b": ""}, "--server", b)
	nodes(map[string]string{"a": "key-of-a"}, "--server", a)
	code, errs = call("logout", "--server", b)
	require.Zero(t, code)
	require.Equal(t, "You are not logged in at "+b+".\n", errs)

	require.NoError(t, os.Chmod(logins, 0o644))
	for _, args := range [][]string{{"nodes"}, {"login", "--server", a, "--key-file", key("x")}, {"logout"}} {
		code, errs = call(args...)
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, "chmod 600 "+logins)
	}
	require.Empty(t, shown)
}

// programFile is the program as a process of its own, by a link that is named so.
func programFile(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	link := filepath.Join(t.TempDir(), "riverbeat")
	require.NoError(t, os.Symlink(self, link))
	return link
}

// shell runs a script of a shell, in which riverbeat is the program.
func (p *person) shell(script string, environment ...string) (string, error) {
	p.t.Helper()
	script = "PATH=" + filepath.Dir(programFile(p.t)) + ":$PATH\n" + script
	c := exec.CommandContext(p.t.Context(), "bash", "-ec", script)
	c.Env = append(append(c.Environ(), "TZ=UTC", "TERM=xterm", "NO_COLOR=", "RIVERBEAT_CONFIG="+p.file), environment...)
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestLoginReadsStandardInput(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.person("")
	out, err := p.shell("echo " + adminKey + " | riverbeat login; riverbeat nodes -o name")
	require.NoError(t, err, out)
	require.Contains(t, out, "Logged in at "+s.url()+", environment default.\n")
	out, err = p.shell("riverbeat logout; echo | riverbeat login")
	require.Error(t, err)
	require.Contains(t, out, "key")

	// On a terminal the key is asked for, and not shown.
	out, err = p.terminal("sleep 1; echo "+adminKey, "riverbeat login")
	require.NoError(t, err, out)
	require.Contains(t, out, "API key for "+s.url()+": \r\nLogged in at ")
}

// terminal runs a script on a terminal of 72 columns.
func (p *person) terminal(input, script string, environment ...string) (string, error) {
	p.t.Helper()
	if _, err := exec.LookPath("script"); err != nil {
		p.t.Skip("there is no script(1) to make a terminal with")
	}
	return p.shell("("+input+") | script -qec 'stty cols 72 rows 12; "+script+"' /dev/null", environment...)
}

func TestOnATerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.person(adminKey)
	s.make(`{"name": "a name that is longer than there is room for in a table", "task_name": "echo", "cron_expression": "@yearly", "enabled": false}`)

	const head = "NAME                            NEXT      RECURRENCE  TASK  POLICY  LAST\r\n"
	out, err := p.terminal(":", "riverbeat schedules list")
	require.NoError(t, err, out)
	require.Equal(t, head+"a name that is longer than th…  \x1b[2mdisabled\x1b[0m  @yearly     echo  allow   -\r\n", out)
	out, err = p.terminal(":", "riverbeat schedules list", "NO_COLOR=1")
	require.NoError(t, err, out)
	require.Equal(t, head+"a name that is longer than th…  disabled  @yearly     echo  allow   -\r\n", out)
	for _, elsewhere := range []func() (string, error){
		func() (string, error) { return p.terminal(":", "riverbeat schedules list", "TERM=dumb") },
		func() (string, error) { return p.terminal(":", "riverbeat schedules list | cat") },
	} {
		out, err = elsewhere()
		require.NoError(t, err, out)
		require.Contains(t, out, "a name that is longer than there is room for in a table  disabled")
		require.NotContains(t, out, "\x1b")
	}

	// The table that is drawn again and again leaves the terminal as it was.
	id := strings.TrimSpace(p.says("schedules", "list", "-o", "name"))
	out, err = p.terminal(":", "riverbeat runs watch --every 100ms $(riverbeat schedules run "+id+" -o name)")
	require.NoError(t, err, out)
	require.True(t, strings.HasPrefix(out, otherPage), "%q", out)
	_, after, ok := strings.Cut(out, thisPage)
	require.True(t, ok, "%q", out)
	require.Contains(t, after, "\x1b[32msucceeded\x1b[0m")
	out, err = p.terminal(":", "timeout --foreground --preserve-status -s INT 2 riverbeat runs watch --every 100ms")
	require.NoError(t, err, out)
	require.True(t, strings.HasSuffix(out, thisPage), "%q", out)
	require.Contains(t, out, "succeeded")
}

// Who watches sees what happens, also after the server was away.
func TestWatchOutlivesTheServer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.person(adminKey)
	id := s.make(`{"name": "slow", "task_name": "sleep", "cron_expression": "@yearly", "enabled": false, "task_params": {"seconds": 3}}`)
	for _, format := range []string{"table", "json"} {
		run := strings.TrimSpace(p.says("schedules", "run", id, "-o", "name"))
		w := start(t, "runs", "watch", "--config", p.file, "--every", "100ms", "-o", format)
		seen := func(run, state string) {
			t.Helper()
			if format == "json" {
				w.find(t, `^(\{"id":"`+run+`".*"state":"`+state+`".*)$`)
			} else {
				w.find(t, `^\S+ \S+  (`+state+` +`+run+`  slow.*)$`)
			}
		}
		seen(run, "running")
		seen(run, "succeeded")
		require.Zero(t, s.node.stop(), s.node.stderr)
		s.start()
		run = strings.TrimSpace(p.says("schedules", "run", id, "-o", "name"))
		seen(run, "succeeded")
		require.Zero(t, w.stop(), w.stderr)
		require.Contains(t, w.stderr.String(), "waiting for it.\n"+s.url()+" answers again.\n")
	}
}

// However many runs there are, those that ended before are not told, and all others are.
func TestWatchTellsWhatIsNew(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.person(adminKey)
	id := s.make(`{"name": "quick", "task_name": "echo", "cron_expression": "@yearly", "enabled": false}`)
	runs := func(n int) []string {
		args := append([]string{"schedules", "run", "-o", "name"}, slices.Repeat([]string{id}, n)...)
		return strings.Fields(p.says(args...))
	}
	before := runs(130)
	p.says(append([]string{"runs", "watch", "--every", "100ms"}, before...)...)

	slow := s.make(`{"name": "slow", "task_name": "sleep", "cron_expression": "@yearly", "enabled": false, "task_params": {"seconds": 3600}}`)
	running := strings.TrimSpace(p.says("schedules", "run", slow, "-o", "name"))
	w := start(t, "runs", "watch", "--config", p.file, "--every", "100ms")
	line := func() (run, state string) {
		t.Helper()
		fields := strings.Fields(w.find(t, `^(.*)$`))
		return fields[3], fields[2]
	}
	for state := ""; state != "running"; { // it has begun
		var run string
		run, state = line()
		require.Equal(t, running, run)
	}
	awaited := map[string]bool{}
	for _, run := range runs(130) {
		awaited[run] = true
	}
	for len(awaited) > 0 {
		run, state := line()
		require.NotContains(t, before, run, state)
		if state == "succeeded" {
			require.True(t, awaited[run], "once")
			delete(awaited, run)
		}
	}
	p.says("runs", "cancel", running)
	for state := ""; state != "cancelled"; { // far below the newest
		_, state = line()
	}
	require.Zero(t, w.stop(), w.stderr)
}

// A pause ends over the API, a hold in the database.
func TestResumeOnHold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.person(adminKey)
	s.make(`{"name": "due", "task_name": "echo", "cron_expression": "@yearly"}`)
	p.says("pause", "--reason", "before the copy")
	_, err := s.database.Pool.Exec(t.Context(), "UPDATE installation SET environment = 'elsewhere'")
	require.NoError(t, err)

	var looked []string
	for _, args := range [][]string{{"resume"}, {"resume", "--database-url", s.database.URL}} {
		code, out, errs := p.call(args...)
		require.Equal(t, exitError, code, errs)
		require.Contains(t, errs, "nothing was changed; say --here")
		require.Contains(t, out, "due")
		looked = append(looked, fixed(out))
	}
	require.Equal(t, looked[0], looked[1], "both ways it looks the same")
	require.Equal(t, exitUsage, first(p.call("resume", "--here", "--dry-run", "--database-url", s.database.URL)))
	require.Contains(t, p.says("resume", "--here", "--database-url", s.database.URL), "The installation belongs here now")
	require.Contains(t, p.says("resume", "--database-url", s.database.URL), "Nothing is on hold")
	require.NotContains(t, p.says("resume"), "paused")
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.person(adminKey)
	s.make(`{"name": "sales-report", "task_name": "echo", "cron_expression": "@yearly"}`)
	s.make(`{"name": "other", "task_name": "echo", "cron_expression": "@yearly"}`)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		require.Contains(t, p.says("completion", shell), "__complete", shell)
	}
	// What a shell asks, and what is offered then; a person's settings are known by RIVERBEAT_CONFIG.
	const script = `set +e
source <(riverbeat completion bash)
_init_completion() { # of the package bash-completion
	cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
}
compopt() { :; }
COMP_WORDS=(%s "%s") COMP_CWORD=$((${#COMP_WORDS[@]}-1)) COMP_LINE="${COMP_WORDS[*]}" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
__start_riverbeat
printf '%%s\n' "${COMPREPLY[@]%%%% *}"`
	for _, test := range []struct{ line, begun, want string }{
		{"riverbeat", "sched", "schedules"},
		{"riverbeat runs list --state", "r", "retrying running"},
		{"riverbeat runs list --trigger", "c", "catch_up"},
		{"riverbeat schedules run x --policy", "", "allow queue skip"},
		{"riverbeat schedules list -o", "", "json name table yaml"},
		{"riverbeat runs watch -o", "", "json table"},
		{"riverbeat schedules list --enabled", "t", "true"},
		{"riverbeat backfills list --state", "f", "finished"},
		{"riverbeat schedules enable", "sal", "sales-report"},
	} {
		out, err := p.shell(fmt.Sprintf(script, test.line, test.begun))
		require.NoError(t, err, out)
		offered := strings.Fields(out)
		slices.Sort(offered)
		require.Equal(t, test.want, strings.Join(offered, " "), "%s %s", test.line, test.begun)
	}
}

// TestTheCommandLine does what docs/cli.md says, line by line.
func TestTheCommandLine(t *testing.T) {
	t.Parallel()
	p := start(t, "dev", "--database-url", pgtest.DB(t).URL, "--listen", "127.0.0.1:0")
	base := p.find(t, `API\s+(http://\S+)/api/v1`)
	person := &person{t, filepath.Join(t.TempDir(), "riverbeat.env")}
	logins := filepath.Join(t.TempDir(), "login.json")
	require.NoError(t, os.WriteFile(person.file, []byte("RIVERBEAT_SERVER="+base+"\nRIVERBEAT_LOGIN_FILE="+logins), 0o600))
	page, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	commands := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		script := strings.ReplaceAll(block[1], "http://127.0.0.1:8080", base)
		script = strings.ReplaceAll(script, "curl ", "curl --fail-with-body ")
		commands += strings.Count(script, "riverbeat ")
		out, err := person.shell("set -o pipefail\n" + script)
		require.NoError(t, err, "%s\n%s", script, out)
	}
	require.Greater(t, commands, 30)
	require.Zero(t, p.stop(), p.stderr)
}
