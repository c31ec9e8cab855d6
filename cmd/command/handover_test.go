package command

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
)

const celeryFiles = "../../internal/celery/testdata"

// beat is a running Celery Beat, with its database and its Redis.
type beat struct {
	*pgtest.Database
	python      string
	environment []string
	socket      string // Redis's

	mu    sync.Mutex
	fired map[string][]time.Time // by the names of tasks, when their messages were there
}

func newBeat(t *testing.T) *beat {
	t.Helper()
	b := &beat{Database: pgtest.DB(t), fired: map[string][]time.Time{}}
	for _, candidate := range []string{"/usr/bin/python3", "python3"} {
		if exec.CommandContext(t.Context(), candidate, "-c", "import celery, django_celery_beat, django_celery_results, psycopg2, redis").Run() == nil {
			b.python = candidate
		}
	}
	server, err := exec.LookPath("redis-server")
	dir := t.TempDir()
	if err != nil { // Debian's redis-tools has it under another name, and without a service
		server = filepath.Join(dir, "redis-server")
		if tool, err := exec.LookPath("redis-check-rdb"); err == nil {
			require.NoError(t, os.Symlink(tool, server))
		}
	}
	if _, err := os.Stat(server); err != nil || b.python == "" {
		t.Skip("there is no Celery Beat here; deploy/install-deps.sh beat installs it")
	}
	b.socket = filepath.Join(dir, "redis.sock")
	b.run(t, exec.CommandContext(t.Context(), server, "--port", "0", "--unixsocket", b.socket, "--save", "", "--dir", dir))
	require.Eventually(t, func() bool {
		return exec.CommandContext(t.Context(), "redis-cli", "-s", b.socket, "ping").Run() == nil
	}, 20*time.Second, 20*time.Millisecond)
	u, err := url.Parse(b.URL)
	require.NoError(t, err)
	b.environment = []string{
		"BEAT_NAME=" + strings.TrimPrefix(u.Path, "/"), "BEAT_HOST=" + u.Query().Get("host"),
		"BEAT_PORT=" + u.Query().Get("port"), "BEAT_USER=" + u.User.Username(), "BEAT_BROKER=redis+socket://" + b.socket,
	}
	b.django(t, "migrate", "")
	return b
}

// run starts a process that ends with the test.
func (b *beat) run(t *testing.T, c *exec.Cmd) {
	t.Helper()
	c.Env = append(c.Environ(), b.environment...)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	require.NoError(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if t.Failed() {
			t.Log(c.Path, said.String())
		}
	})
}

func (b *beat) django(t *testing.T, what, program string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), b.python, filepath.Join(celeryFiles, "beat.py"), what)
	c.Env, c.Stdin = append(c.Environ(), b.environment...), strings.NewReader("from django_celery_beat.models import *\n"+program)
	said, err := c.CombinedOutput()
	require.NoError(t, err, string(said))
}

// start starts Beat, and notes what it sends.
func (b *beat) start(t *testing.T) {
	t.Helper()
	c := exec.CommandContext(t.Context(), b.python, "-m", "celery", "--app", "shop", "beat",
		"--scheduler", "django_celery_beat.schedulers:DatabaseScheduler", "--pidfile=")
	c.Dir = celeryFiles
	b.run(t, c)
	listening, stop := context.WithCancel(t.Context())
	var noting sync.WaitGroup
	t.Cleanup(func() { stop(); noting.Wait() })
	noting.Go(func() {
		for listening.Err() == nil {
			out, _ := exec.CommandContext(listening, "redis-cli", "-s", b.socket, "--raw", "brpop", "celery", "1").Output()
			_, raw, _ := strings.Cut(string(out), "\n")
			var message struct{ Headers struct{ Task string } }
			if json.Unmarshal([]byte(raw), &message) != nil {
				continue
			}
			b.mu.Lock()
			b.fired[message.Headers.Task] = append(b.fired[message.Headers.Task], time.Now().UTC())
			b.mu.Unlock()
		}
	})
}

// minutes are those at which a task was fired there.
func (b *beat) minutes(task string) (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range b.fired[task] {
		list = append(list, at.Format("2006-01-02 15:04"))
	}
	return list
}

// TestHandover hands a schedule over from a running Celery Beat, and finds each of its
// ticks fired once: there before, here after.
func TestHandover(t *testing.T) {
	t.Parallel()
	b := newBeat(t)
	b.django(t, "run", `
each = CrontabSchedule.objects.create(minute="*", timezone="UTC")
PeriodicTask.objects.create(name="first", task="echo", crontab=each)
PeriodicTask.objects.create(name="second", task="sleep", crontab=each)
PeriodicTask.objects.create(name="often", task="fail", interval=IntervalSchedule.objects.create(every=5, period="seconds"), enabled=False)
`)
	p := start(t, "dev", "--data-dir", dataDir(t), "--listen", "127.0.0.1:0", "--timezone", "UTC")
	base := p.find(t, `^  API +(http://\S+)$`)
	database := p.find(t, `^  Database +(postgres://\S+)$`)
	call := func(args ...string) string {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), nil, append([]string{"import", "celery-beat", "--database-url", database, "--from", b.URL, "--django"}, args...), &stdout, &stderr)
		require.Zero(t, code, stderr.String())
		return stdout.String()
	}
	b.start(t)
	require.Contains(t, call(), "3 periodic tasks: 3 created.")
	require.Eventually(t, func() bool { return len(b.minutes("echo")) > 0 && len(b.minutes("sleep")) > 0 }, 90*time.Second, 50*time.Millisecond)

	// On a machine that is busy with other tests Beat may be later than a handover allows for.
	require.Eventually(t, func() bool { second := time.Now().Second(); return 15 <= second && second < 30 }, time.Minute, 50*time.Millisecond)
	said := call("--cutover", "--name", "f*", "--settle", "10s")
	require.Contains(t, said, "1 periodic task: 1 cut over.")
	require.Contains(t, call("--cutover", "--name", "f*"), "1 cut over already")
	require.Regexp(t, `refused +often`, call("--cutover", "--task", "fail"))
	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	here := func() (minutes []string) {
		rows, err := conn.Query(t.Context(), "SELECT to_char(scheduled_for AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM riverbeat.report_runs WHERE task_name = 'echo' AND state = 'succeeded' ORDER BY 1")
		require.NoError(t, err)
		minutes, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return minutes
	}
	require.Eventually(t, func() bool { return len(here()) >= 2 }, 150*time.Second, 100*time.Millisecond)

	// What is not handed over goes on there: its minutes are what the others are held to.
	all := b.minutes("sleep")
	require.Eventually(t, func() bool { return len(b.minutes("sleep")) > len(all)-1 }, 10*time.Second, 50*time.Millisecond)
	t.Logf("fired there: %v, here: %v", b.minutes("echo"), here())
	both := append(b.minutes("echo"), here()...)
	slices.Sort(both)
	want := b.minutes("sleep")
	require.Equal(t, want[:len(both)], both, "there %v, here %v", b.minutes("echo"), here())
	require.Empty(t, slices.DeleteFunc(here(), func(minute string) bool { return !slices.Contains(b.minutes("echo"), minute) }))
	_, schedules := get(t, base+"/schedules?enabled=true")
	require.Contains(t, schedules, `"name":"first"`)
	require.NotContains(t, schedules, `"name":"second"`)
	require.Zero(t, p.stop(), p.stderr)
}

// TestShadow lets schedules of a running Celery tick in shadow, and holds them against what
// its worker has written down: one is the same, one was not sent once, and one is sent that
// nobody asked for. Nothing of it is run here.
func TestShadow(t *testing.T) {
	t.Parallel()
	b := newBeat(t)
	b.django(t, "run", `
each = CrontabSchedule.objects.create(minute="*", timezone="UTC")
PeriodicTask.objects.create(name="kept", task="echo", crontab=each)
PeriodicTask.objects.create(name="lost", task="sleep", crontab=each)
PeriodicTask.objects.create(name="often", task="echo", interval=IntervalSchedule.objects.create(every=5, period="seconds"))
`)
	worker := exec.CommandContext(t.Context(), b.python, "-m", "celery", "--app", "shop", "worker", "--pool", "solo", "--without-gossip", "--without-mingle")
	worker.Dir = celeryFiles
	b.run(t, worker)
	scheduler := exec.CommandContext(t.Context(), b.python, "-m", "celery", "--app", "shop", "beat",
		"--scheduler", "django_celery_beat.schedulers:DatabaseScheduler", "--pidfile=")
	scheduler.Dir = celeryFiles
	b.run(t, scheduler)
	p := start(t, "dev", "--data-dir", dataDir(t), "--listen", "127.0.0.1:0", "--timezone", "UTC")
	database := p.find(t, `^  Database +(postgres://\S+)$`)
	call := func(want int, args ...string) string {
		var stdout, stderr bytes.Buffer
		args = append(append([]string{"import"}, args...), "--database-url", database, "--from", b.URL, "--django")
		require.Equal(t, want, run(t.Context(), nil, args, &stdout, &stderr), stderr.String())
		return stdout.String()
	}
	require.Contains(t, call(0, "compare"), "Nothing ticks in shadow")
	require.Contains(t, call(0, "celery-beat", "--shadow"), "3 periodic tasks: 3 created.")
	done := func(name string) (n int) {
		require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM django_celery_results_taskresult WHERE periodic_task_name = $1", name).Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { return done("kept") >= 2 && done("lost") >= 2 && done("often") >= 12 }, 4*time.Minute, 100*time.Millisecond)

	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	var shadows, jobs int
	require.NoError(t, conn.QueryRow(t.Context(), `
SELECT count(*) FILTER (WHERE reason = 'shadow'), (SELECT count(*) FROM riverbeat.river_job WHERE kind = 'run') FROM riverbeat.runs`).Scan(&shadows, &jobs))
	require.GreaterOrEqual(t, shadows, 2+2+12)
	require.Zero(t, jobs, "nothing is executed here")

	// What is compared ends --within ago.
	require.Eventually(t, func() bool {
		var stdout, stderr bytes.Buffer
		run(t.Context(), nil, []string{"import", "compare", "--within", "20s", "-o", "json", "--database-url", database, "--from", b.URL, "--django"}, &stdout, &stderr)
		return strings.Count(stdout.String(), `"ticks": 0`) == 0 && strings.Contains(stdout.String(), "kept")
	}, time.Minute, 500*time.Millisecond)
	t.Log(call(0, "compare", "--within", "20s"))
	said := call(0, "compare", "--within", "20s", "-o", "json")
	require.Equal(t, 3, strings.Count(said, `"verdict": "same"`), said)
	_, err = b.Pool.Exec(t.Context(), `
DELETE FROM django_celery_results_taskresult WHERE id = (
    SELECT max(id) FROM django_celery_results_taskresult WHERE periodic_task_name = 'lost' AND date_created < now() - interval '25 seconds')`)
	require.NoError(t, err)
	said = call(3, "compare", "--within", "20s")
	require.Regexp(t, `(?m)^differs +lost`, said)
	require.Regexp(t, `(?m)^same +kept`, said)
	require.Contains(t, said, "not sent there: ")
	require.Zero(t, p.stop(), p.stderr)
}
