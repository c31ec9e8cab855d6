package faults

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
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
	"golang.org/x/sync/errgroup"

	"riverbeat/internal/faults/oracle"
)

var base = flag.String("base", "", "the revision whose nodes TestUpgrade upgrades; by default this one's, to migrations made up")

// The migrations that TestUpgrade makes up: what the next release may do beside nodes of
// this one.
var nextMigrations = []string{
	// Columns, a constraint, a function and triggers, on what every tick and request uses.
	`
ALTER TABLE schedules
    ADD COLUMN next_note text NOT NULL DEFAULT '',
    ADD CONSTRAINT schedules_next_note_short CHECK (length(next_note) < 100) NOT VALID;
ALTER TABLE schedule_versions ADD COLUMN next_note text;
ALTER TABLE task_definitions ADD COLUMN next_note text;
ALTER TABLE nodes ADD COLUMN next_note text;
ALTER TABLE runs ADD COLUMN next_note text;
CREATE FUNCTION note_next() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.next_note := NEW.schedule_name;
    RETURN NEW;
END
$$;
CREATE TRIGGER runs_note_next BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION note_next();
DROP TRIGGER schedules_announce ON schedules;
CREATE TRIGGER schedules_announce
    AFTER INSERT OR DELETE OR UPDATE OF cron_expression, timezone, enabled, next_note ON schedules
    FOR EACH STATEMENT EXECUTE FUNCTION announce_schedules();`,
	// What takes its time.
	`SELECT pg_sleep(4);`,
	`ALTER TABLE schedules VALIDATE CONSTRAINT schedules_next_note_short;`,
	// An index on each partition, which the one on runs then takes over.
	`---- tern: disable-tx ----
DROP INDEX IF EXISTS runs_next_idx;
-- {{ range .partitions }}
DROP INDEX IF EXISTS "{{ . }}_next_idx";
-- {{ end }}
SET lock_timeout = 0;
-- {{ range .partitions }}
CREATE INDEX CONCURRENTLY "{{ . }}_next_idx" ON "{{ . }}" (next_note);
-- {{ end }}
RESET lock_timeout;
CREATE INDEX runs_next_idx ON runs (next_note);`,
}

// upgrade is what is upgraded to what.
type upgrade struct {
	from, to string // binaries
	restarts bool   // nodes of the older one start on the newer schema
}

func newUpgrade(t *testing.T) (u upgrade) {
	t.Helper()
	this, err := program()
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(root, "migrations", "*.sql"))
	require.NoError(t, err)
	if *base == "" {
		var changes []change
		for i, sql := range nextMigrations {
			changes = append(changes, change{file: fmt.Sprintf("migrations/%03d_next.sql", len(files)+1+i), new: sql})
		}
		next, err := build("riverbeat-next", changes...)
		require.NoError(t, err)
		return upgrade{from: this, to: next, restarts: true}
	}
	dir := filepath.Join(buildDir, "base")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	unpack := exec.CommandContext(t.Context(), "sh", "-c", `git -C "$0" archive "$1" | tar -x -C "$2"`, root, *base, dir)
	out, err := unpack.CombinedOutput()
	require.NoError(t, err, string(out))
	before, err := buildOf(dir, "riverbeat-base")
	require.NoError(t, err)
	knows, err := filepath.Glob(filepath.Join(dir, "migrations", "*_oldest_node.sql"))
	require.NoError(t, err)
	return upgrade{from: before, to: this, restarts: len(knows) == 1}
}

// TestUpgrade migrates the database of two nodes that work and are asked things all the
// time, and replaces them one by one. No request fails, no tick is lost or doubled, and
// nobody waits for a migration for a second.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	u := newUpgrade(t)
	l := newLab(t, u.from)
	for range 2 {
		l.addNode(0, newProxy(t, l.server))
	}
	l.start()
	l.define()
	for _, s := range schedules() {
		l.schedules = append(l.schedules, l.create(s))
	}
	began := time.Now()
	was := l.version()
	people := l.askAllTheTime()
	locks := l.watchLocks()
	l.watch(3 * time.Second)

	// A node of the new release is there before its schema.
	l.addNode(0, newProxy(t, l.server))
	first := l.nodes[2]
	first.binary = u.to
	first.start()
	require.Eventually(t, func() bool {
		_, err := first.call(http.MethodGet, "/readyz", nil, nil)
		return err != nil && strings.Contains(err.Error(), "schema_not_current")
	}, 30*time.Second, 20*time.Millisecond)
	_, err := first.call(http.MethodGet, "/healthz", nil, nil)
	require.NoError(t, err)

	// Somebody reads a long report, and two migrate at once.
	report, err := pgx.Connect(t.Context(), l.server.URL()+"&application_name=report")
	require.NoError(t, err)
	defer report.Close(context.Background()) //nolint:errcheck // it only reads
	_, err = report.Exec(t.Context(), "BEGIN; SELECT count(*) FROM riverbeat.report_runs, riverbeat.report_schedule_versions")
	require.NoError(t, err)
	migrating := time.Now()
	var migrations errgroup.Group
	t.Cleanup(func() { _ = migrations.Wait() })
	for range 2 {
		migrations.Go(func() error {
			migrate := exec.CommandContext(t.Context(), u.to, "migrate", "up")
			migrate.Env = append(migrate.Environ(), "DATABASE_URL="+l.server.URL()+"&application_name=migrate")
			log, err := migrate.CombinedOutput()
			t.Logf("%s", log)
			return err
		})
	}
	const reading = 3 * time.Second
	l.watch(reading)
	_, err = report.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)

	// In the middle of it, a node of the old release starts again.
	if u.restarts {
		require.Eventually(t, func() bool { return l.version() > was }, 30*time.Second, 5*time.Millisecond)
		people.replace(l.nodes[0], u.from)
		t.Logf("a node of the old release has started again with the schema at %d", l.version())
	} else {
		t.Logf("no node of %s is started again: they do not work with a newer schema that they find", *base)
	}
	require.NoError(t, migrations.Wait())
	took := time.Since(migrating)
	require.Greater(t, l.version(), was, "nothing was migrated")
	l.watch(3 * time.Second)

	first.awaitReady()
	people.let(first)
	l.watch(2 * time.Second)
	for _, n := range l.nodes[:2] {
		people.replace(n, u.to)
	}
	calm := time.Now().Round(0)
	l.watch(2 * time.Second)
	people.stop()
	waits := locks.stop()
	doctor := exec.CommandContext(t.Context(), u.to, "doctor")
	doctor.Env = append(doctor.Environ(), "DATABASE_URL="+l.server.URL())
	findings, err := doctor.CombinedOutput()
	require.NoError(t, err, string(findings))
	l.finish()

	ev := l.evidence(calm)
	ev.Began = began
	verdict, err := oracle.Judge(ev)
	require.NoError(t, err)
	if len(verdict.Violations) > 0 {
		t.Error(story(ev, verdict))
	}
	t.Logf(`from version %d to %d in %s, with a report in the way for %s:
  %6d requests, %d of which failed; the slowest took %s
  %6d ticks, %d promises broken
  %s`,
		was, l.version(), took.Round(time.Millisecond), reading, people.asked, len(people.failures), people.slowest.Round(time.Millisecond),
		verdict.Ticks, len(verdict.Violations), waits)
	require.Empty(t, people.failures)
	require.Greater(t, people.asked, 500)
	if *base == "" {
		require.Positive(t, waits.ofMigrations, "no migration waited for the report")
	}
	require.NoError(t, waits.err)
	require.Less(t, waits.forMigrations, time.Second)
	for _, p := range ev.Processes {
		if !p.To.IsZero() {
			require.Equal(t, string(oracle.Stop), p.How, "%s (%d)", p.Node, p.PID)
		}
	}
	log, err := os.ReadFile(filepath.Join(l.dir, first.name+".log"))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(log), "waiting for the schema"))
}

// version is how far the schema is migrated.
func (l *lab) version() int {
	l.t.Helper()
	return l.number("SELECT version FROM schema_version")
}

// people ask nodes all the time, by a balancer that knows which are ready.
type people struct {
	lab    *lab
	edited string // a schedule
	stop   func()

	balancer sync.RWMutex // held by each request
	nodes    []*node

	mu       sync.Mutex
	asked    int
	slowest  time.Duration
	failures []string
}

// askAllTheTime begins it, with the nodes that there are, until stop is called.
func (l *lab) askAllTheTime() *people {
	l.t.Helper()
	p := &people{lab: l, nodes: slices.Clone(l.nodes)}
	p.edited = l.create(spec{Name: "edited", Cron: "* * * * * *", Policy: "queue", Params: map[string]any{"seconds": 0.2}})
	end := make(chan struct{})
	var asking sync.WaitGroup
	for i := range 3 {
		asking.Go(func() {
			for round := 0; ; round++ {
				p.doSomething(i, round)
				select {
				case <-end:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	p.stop = sync.OnceFunc(func() {
		close(end)
		asking.Wait()
	})
	l.t.Cleanup(p.stop)
	return p
}

// doSomething makes one round of requests.
func (p *people) doSomething(who, round int) {
	id := p.lab.schedules[rand.IntN(len(p.lab.schedules))]
	for _, path := range []string{
		"/schedules?page_size=50", "/schedules/" + id, "/schedules/" + id + "/runs?page_size=20", "/schedules/" + id + "/next?count=3",
		"/schedules/" + id + "/explain?at=" + time.Now().UTC().Add(-2*time.Second).Truncate(time.Second).Format(time.RFC3339),
		"/runs?page_size=50", "/task-definitions/record", "/nodes", "/installation", "/audit?page_size=20",
	} {
		p.ask(http.MethodGet, path, nil, nil)
	}
	var run, made struct {
		ID string `json:"id"`
	}
	if p.ask(http.MethodPost, "/schedules/"+id+"/run", map[string]any{}, &run) {
		p.lab.mu.Lock()
		p.lab.requested = append(p.lab.requested, run.ID)
		p.lab.mu.Unlock()
		p.ask(http.MethodGet, "/runs/"+run.ID, nil, nil)
	}
	p.ask(http.MethodPatch, "/schedules/"+id, map[string]any{"description": fmt.Sprint(round)}, nil)
	p.ask(http.MethodPatch, "/schedules/"+p.edited, map[string]any{"task_params": map[string]any{"who": who, "round": round}}, nil)
	if p.ask(http.MethodPost, "/schedules", spec{Name: "passing", Task: "record", Cron: "* * * * * *", Policy: "skip", Params: map[string]any{"who": who}}, &made) {
		p.ask(http.MethodPost, "/schedules/"+made.ID+"/disable", nil, nil)
		p.ask(http.MethodPost, "/schedules/"+made.ID+"/enable", nil, nil)
		p.ask(http.MethodDelete, "/schedules/"+made.ID, nil, nil)
	}
	p.ask(http.MethodPut, fmt.Sprintf("/task-definitions/passing-%d", who), map[string]any{
		"description": fmt.Sprint(round), "executor": map[string]any{"kind": "go", "name": "echo"},
	}, nil)
}

// ask asks some node, and tells whether it did what it was asked.
func (p *people) ask(method, path string, body, answer any) bool {
	p.balancer.RLock()
	n := p.nodes[rand.IntN(len(p.nodes))]
	began := time.Now()
	_, err := n.call(method, "/api/v1"+path, body, answer)
	took := time.Since(began)
	p.balancer.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	p.slowest = max(p.slowest, took)
	if err != nil {
		p.failures = append(p.failures, fmt.Sprintf("%s %s: %v", began.Format("15:04:05.000"), n.name, err))
	}
	return err == nil
}

// let has a node asked, too.
func (p *people) let(n *node) {
	p.balancer.Lock()
	defer p.balancer.Unlock()
	p.nodes = append(p.nodes, n)
}

// replace lets a node go on with another binary; nobody asks it meanwhile.
func (p *people) replace(n *node, binary string) {
	p.lab.t.Helper()
	p.balancer.Lock()
	p.nodes = slices.DeleteFunc(p.nodes, func(o *node) bool { return o == n })
	p.balancer.Unlock()
	n.mu.Lock()
	n.binary = binary
	n.mu.Unlock()
	n.roll()
	n.awaitReady()
	p.let(n)
}

// locks looks all the time who waits for a lock of the database.
type locks struct {
	end  chan struct{}
	done chan struct{}

	waits waits // of the goroutine that looks, until done
}

// waits are the longest.
type waits struct {
	forMigrations time.Duration // of others
	what          string        // who waited
	atAll         time.Duration // of all others, whoever they waited for
	ofMigrations  time.Duration
	looks         int
	err           error
}

func (w waits) String() string {
	return fmt.Sprintf("the longest wait for a lock of a migration took %s (%q), the longest of all %s, that of a migration %s; looked at %d times",
		w.forMigrations.Round(time.Millisecond), w.what, w.atAll.Round(time.Millisecond), w.ofMigrations.Round(time.Millisecond), w.looks)
}

func (l *lab) watchLocks() *locks {
	l.t.Helper()
	conn, err := pgx.Connect(l.t.Context(), l.server.URL()+"&application_name=watch")
	require.NoError(l.t, err)
	o := &locks{end: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer conn.Close(context.Background()) //nolint:errcheck // it only looks
		for {
			if o.waits.err = o.look(conn); o.waits.err != nil {
				return
			}
			select {
			case <-o.end:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return o
}

func (o *locks) look(conn *pgx.Conn) error {
	const query = `
SELECT
    a.application_name = 'migrate',
    EXISTS (
        SELECT FROM unnest(pg_blocking_pids(l.pid)) AS pid
        JOIN pg_stat_activity AS m USING (pid)
        WHERE m.application_name = 'migrate'
    ),
    extract(epoch FROM clock_timestamp() - l.waitstart)::float8,
    concat_ws(' ', l.mode, coalesce(l.relation::regclass::text, l.locktype), 'for', left(a.query, 60))
FROM pg_locks AS l
JOIN pg_stat_activity AS a USING (pid)
WHERE NOT l.granted AND l.waitstart IS NOT NULL`
	rows, err := conn.Query(context.Background(), query)
	if err != nil {
		return err
	}
	defer rows.Close()
	o.waits.looks++
	for rows.Next() {
		var migrates, byMigration bool
		var seconds float64
		var what string
		if err := rows.Scan(&migrates, &byMigration, &seconds, &what); err != nil {
			return err
		}
		wait := time.Duration(seconds * float64(time.Second))
		if migrates {
			o.waits.ofMigrations = max(o.waits.ofMigrations, wait)
			continue
		}
		o.waits.atAll = max(o.waits.atAll, wait)
		if byMigration && wait > o.waits.forMigrations {
			o.waits.forMigrations, o.waits.what = wait, what
		}
	}
	return rows.Err()
}

func (o *locks) stop() waits {
	close(o.end)
	<-o.done
	return o.waits
}
