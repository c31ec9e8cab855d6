package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"riverbeat/internal/faults/oracle"
	"riverbeat/internal/localpg"
)

const schema = "riverbeat"

// lab is an installation under test: a Postgres, nodes, and a notebook of what
// is done to them.
type lab struct {
	t      *testing.T
	binary string
	dir    string
	server *localpg.Server
	nodes  []*node
	epoch  time.Time // when the monotonic clock stood at zero

	schedules []string // ids, under mu

	sqlMu   sync.Mutex
	conn    *pgx.Conn // past the proxies; nil: to be opened
	sampled oracle.Evidence

	database sync.Mutex // held while something is done to the server

	mu        sync.Mutex
	faults    []oracle.Fault
	processes []oracle.Process
	requested []string
	counts    map[string]int // what was injected how often
}

// newLab starts a Postgres and migrates it. Nodes are to be added.
func newLab(t *testing.T, binary string) *lab {
	t.Helper()
	var mono unix.Timespec
	require.NoError(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono))
	l := &lab{t: t, binary: binary, dir: t.TempDir(), counts: map[string]int{}}
	l.epoch = time.Now().Round(0).Add(-time.Duration(mono.Nano()))
	require.NoError(t, os.WriteFile(l.executions(), nil, 0o600))
	l.server = startServer(t, localpg.Config{})

	migrate := exec.CommandContext(t.Context(), binary, "migrate", "up")
	migrate.Env = append(migrate.Environ(), "DATABASE_URL="+l.server.URL())
	out, err := migrate.CombinedOutput()
	require.NoError(t, err, string(out))
	l.sql(func(conn *pgx.Conn) error { return oracle.Watch(t.Context(), conn, schema) })
	return l
}

// runningLab is a lab with its tasks defined and so many nodes at work, each behind
// a proxy.
func runningLab(t *testing.T, nodes int) *lab {
	t.Helper()
	binary, err := program()
	require.NoError(t, err)
	l := newLab(t, binary)
	for range nodes {
		l.addNode(0, newProxy(t, l.server))
	}
	l.start()
	l.define()
	return l
}

// startServer starts a Postgres that keeps what it has committed when it
// crashes, as in production.
func startServer(t *testing.T, cfg localpg.Config) *localpg.Server {
	t.Helper()
	cfg.Ephemeral = true
	settings := map[string]string{"synchronous_commit": "on", "shared_buffers": "32MB", "log_min_messages": "warning"}
	maps.Copy(settings, cfg.Settings)
	cfg.Settings = settings
	server, err := localpg.Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = server.Stop(ctx)
	})
	return server
}

// addNode adds a node whose clock is shifted by so much, and which reaches the
// database by the proxies, one for each server.
func (l *lab) addNode(shift time.Duration, proxies ...*proxy) {
	l.t.Helper()
	listener, err := new(net.ListenConfig).Listen(l.t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(l.t, err)
	defer func() { require.NoError(l.t, listener.Close()) }()
	var hosts []string
	for _, p := range proxies {
		hosts = append(hosts, p.address())
	}
	name := fmt.Sprintf("n%d", len(l.nodes)+1)
	n := &node{
		lab: l, binary: l.binary, name: name, shift: shift, proxies: proxies, listen: listener.Addr().String(),
		url: "postgres://riverbeat@" + strings.Join(hosts, ",") +
			"/riverbeat?sslmode=disable&target_session_attrs=read-write&connect_timeout=3&application_name=" + name,
	}
	l.nodes = append(l.nodes, n)
	l.t.Cleanup(n.end)
}

// start starts all nodes.
func (l *lab) start() {
	l.t.Helper()
	for _, n := range l.nodes {
		n.start()
	}
	for _, n := range l.nodes {
		n.awaitReady()
	}
}

func (l *lab) executions() string { return filepath.Join(l.dir, "executions.jsonl") }

// sql does something in the database, past the proxies, and again if the
// connection is lost: faults befall it, too.
func (l *lab) sql(what func(conn *pgx.Conn) error) {
	l.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := l.try(what)
		if err == nil {
			return
		}
		if time.Now().After(deadline) || l.t.Context().Err() != nil {
			require.NoError(l.t, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (l *lab) try(what func(conn *pgx.Conn) error) (err error) {
	l.sqlMu.Lock()
	defer l.sqlMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if l.conn == nil {
		if l.conn, err = pgx.Connect(ctx, l.server.URL()+"&application_name=faults"); err != nil {
			l.conn = nil
			return err
		}
		if _, err = l.conn.Exec(ctx, "SET search_path = "+schema+"; SET statement_timeout = '10s'"); err != nil {
			l.drop()
			return err
		}
	}
	if err = what(l.conn); err != nil {
		l.drop()
	}
	return err
}

// number is what a query answers.
func (l *lab) number(query string) (n int) {
	l.t.Helper()
	l.sql(func(conn *pgx.Conn) error { return conn.QueryRow(l.t.Context(), query).Scan(&n) })
	return n
}

func (l *lab) drop() {
	_ = l.conn.Close(context.Background())
	l.conn = nil
}

// note writes a fault down; the function it returns says when it was over.
func (l *lab) note(f oracle.Fault) (over func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.From.IsZero() {
		f.From = time.Now().Round(0)
	}
	f.To = f.From.AddDate(1, 0, 0)
	l.faults = append(l.faults, f)
	i := len(l.faults) - 1
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.faults[i].To = time.Now().Round(0)
	}
}

func (l *lab) count(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
}

// node is one place for processes of the binary: they come and go.
type node struct {
	lab    *lab
	binary string
	name   string
	shift  time.Duration
	listen string
	url    string

	proxies []*proxy

	mu      sync.Mutex // held while something is done to the process
	cmd     *exec.Cmd
	leash   io.Closer
	exited  chan struct{}
	process int // in lab.processes
	stopped bool

	wire sync.Mutex // held while something is done to the connections
}

// start begins a new process.
func (n *node) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.startLocked()
}

func (n *node) startLocked() {
	if n.stopped || n.alive() {
		return
	}
	cmd := exec.CommandContext(context.Background(), n.binary, "serve")
	cmd.Env = append(cmd.Environ(),
		"DATABASE_URL="+n.url, "RIVERBEAT_LISTEN="+n.listen, "RIVERBEAT_INSECURE_NO_AUTH=true",
		"RIVERBEAT_QUEUES=default=40", "RIVERBEAT_SHUTDOWN_GRACE=1s", "RIVERBEAT_MAX_CONNECTIONS=10",
		"FAULTS_EXECUTIONS="+n.lab.executions(), "FAULTS_NODE="+n.name,
		"FAULTS_SHIFT="+strconv.Itoa(int(n.shift/time.Second)),
	)
	log, err := os.OpenFile(filepath.Join(n.lab.dir, n.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer log.Close() //nolint:errcheck // the process writes it
	cmd.Stdout, cmd.Stderr = log, log
	if n.leash, err = cmd.StdinPipe(); err != nil {
		panic(err)
	}
	started := time.Now().Round(0)
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	exited := make(chan struct{})
	n.cmd, n.exited = cmd, exited
	n.lab.mu.Lock()
	n.process = len(n.lab.processes)
	n.lab.processes = append(n.lab.processes, oracle.Process{Node: n.name, PID: cmd.Process.Pid, From: started})
	n.lab.mu.Unlock()
	process := n.process
	go func() {
		err := cmd.Wait()
		n.lab.mu.Lock()
		p := &n.lab.processes[process]
		p.To = time.Now().Round(0)
		byItself := p.How == ""
		if byItself {
			p.How = fmt.Sprintf("ended by itself (%v)", err)
		}
		n.lab.mu.Unlock()
		close(exited)
		if byItself { // then its supervisor starts it again
			time.Sleep(time.Second)
			n.start()
		}
	}()
}

func (n *node) alive() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

func (n *node) pid() int { return n.cmd.Process.Pid }

// signal sends a signal and writes down that the process ends by it, if it
// does.
func (n *node) signal(s syscall.Signal, how oracle.Kind) {
	if how != "" {
		n.lab.mu.Lock()
		n.lab.processes[n.process].How = string(how)
		n.lab.mu.Unlock()
	}
	_ = n.cmd.Process.Signal(s)
}

// end ends the node for good.
func (n *node) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped = true
	if n.alive() {
		_ = n.cmd.Process.Kill()
		<-n.exited
	}
}

// heal ends what was done to the node's connections.
func (n *node) heal() {
	for _, p := range n.proxies {
		p.heal()
	}
}

// awaitReady waits until the node serves.
func (n *node) awaitReady() {
	n.lab.t.Helper()
	require.Eventually(n.lab.t, n.ready, 60*time.Second, 50*time.Millisecond, "%s does not come up:\n%s", n.name, n.logTail())
}

func (n *node) ready() bool {
	resp, err := n.call(http.MethodGet, "/readyz", nil, nil)
	return err == nil && resp == http.StatusOK
}

func (n *node) logTail() string {
	text, _ := os.ReadFile(filepath.Join(n.lab.dir, n.name+".log"))
	return string(text[max(0, len(text)-3000):])
}

// call asks the node's API. It gives up soon: the node may be frozen.
func (n *node) call(method, path string, body, answer any) (status int, err error) {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		payload = bytes.NewReader(raw)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.listen+path, payload)
	if err != nil {
		return 0, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode >= 300 {
		return resp.StatusCode, fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, strings.TrimSpace(string(raw)))
	}
	if answer != nil {
		err = json.Unmarshal(raw, answer)
	}
	return resp.StatusCode, err
}

// client keeps no connections: nodes come and go.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// must asks one node after the other until one does it, when no faults are on.
func (l *lab) must(method, path string, body, answer any) {
	l.t.Helper()
	var err error
	for range 20 {
		for _, n := range l.nodes {
			if _, err = n.call(method, path, body, answer); err == nil {
				return
			}
		}
		time.Sleep(250 * time.Millisecond)
	}
	require.NoError(l.t, err)
}

// spec is a schedule of the suite.
type spec struct {
	ID     string         `json:"id,omitempty"`
	Name   string         `json:"name"`
	Task   string         `json:"task_name"`
	Cron   string         `json:"cron_expression"`
	Zone   string         `json:"timezone,omitempty"`
	Policy string         `json:"execution_policy"`
	Params map[string]any `json:"task_params"`
	Most   int            `json:"max_waiting,omitempty"`
}

func (l *lab) define() {
	l.t.Helper()
	l.must(http.MethodPut, "/api/v1/task-definitions/record", map[string]any{
		"max_attempts": 3, "retry": map[string]any{"backoff": "200ms", "max_backoff": "1s"},
	}, nil)
}

// create makes a schedule and gives its id.
func (l *lab) create(s spec) string {
	l.t.Helper()
	var made struct {
		ID string `json:"id"`
	}
	s.Task = "record"
	l.must(http.MethodPost, "/api/v1/schedules", s, &made)
	return made.ID
}

// finish lets all schedules end in a moment and waits until their runs have, or
// until nothing moves any more.
func (l *lab) finish() {
	l.t.Helper()
	var ids []string
	l.sql(func(conn *pgx.Conn) error {
		rows, err := conn.Query(l.t.Context(), "SELECT id::text FROM schedules WHERE enabled ORDER BY id")
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	end := time.Now().Add(2 * time.Second).UTC().Truncate(time.Second)
	for _, id := range ids {
		l.must(http.MethodPatch, "/api/v1/schedules/"+id, map[string]any{"ends_at": end.Format(time.RFC3339)}, nil)
	}
	deadline := time.Now().Add(60 * time.Second)
	for settled := false; !settled && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		l.sample()
		l.sql(func(conn *pgx.Conn) error {
			return conn.QueryRow(l.t.Context(), `
SELECT clock_timestamp() > $1::timestamptz + interval '2 seconds'
    AND NOT EXISTS (SELECT FROM runs WHERE state IN ('waiting', 'queued', 'running', 'retrying'))
    AND NOT EXISTS (SELECT FROM schedule_clocks WHERE due_at < statement_timestamp())`, end).Scan(&settled)
		})
	}
}

// sample looks whether runs and jobs agree right now.
func (l *lab) sample() {
	_ = l.try(func(conn *pgx.Conn) error { // not while the database is away
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return l.sampled.Sample(ctx, conn, schema)
	})
}

// watch lets a while pass, and looks meanwhile.
func (l *lab) watch(while time.Duration) {
	for end := time.Now().Add(while); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		l.sample()
	}
}

// evidence is everything that is known, at the end.
func (l *lab) evidence(calm time.Time) *oracle.Evidence {
	l.t.Helper()
	ev := &oracle.Evidence{Calm: calm}
	l.sql(func(conn *pgx.Conn) error { return ev.Read(l.t.Context(), conn, schema) })
	log, err := os.ReadFile(l.executions())
	require.NoError(l.t, err)
	require.NoError(l.t, ev.ReadExecutions(log, l.epoch))
	l.mu.Lock()
	defer l.mu.Unlock()
	ev.Faults, ev.Processes, ev.Requested = l.faults, l.processes, l.requested
	ev.Disagreed = append(ev.Disagreed, l.sampled.Disagreed...)
	return ev
}
