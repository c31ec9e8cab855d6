package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"riverbeat/internal/faults/oracle"
)

// The faults. Each returns when it is over, and does nothing if another one
// has its object.

// kill ends a process as a crash would, and starts another one later.
func (n *node) kill(down time.Duration) {
	if !n.mu.TryLock() {
		return
	}
	defer n.mu.Unlock()
	if !n.alive() {
		return
	}
	over := n.note(oracle.Kill, "")
	n.signal(syscall.SIGKILL, oracle.Kill)
	<-n.exited
	over()
	time.Sleep(down)
	n.startLocked()
}

// freeze stops a process in its tracks, and lets it go on.
func (n *node) freeze(length time.Duration) {
	if !n.mu.TryLock() {
		return
	}
	defer n.mu.Unlock()
	if !n.alive() {
		return
	}
	over := n.note(oracle.Freeze, "for "+length.String())
	n.signal(syscall.SIGSTOP, "")
	time.Sleep(length)
	n.signal(syscall.SIGCONT, "")
	over()
}

// roll restarts a node as a deployment does.
func (n *node) roll() {
	if !n.mu.TryLock() {
		return
	}
	defer n.mu.Unlock()
	if !n.alive() {
		return
	}
	n.stopLocked()
	n.startLocked()
}

// stop ends the process; another one comes with start.
func (n *node) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopLocked()
}

func (n *node) stopLocked() {
	over := n.note(oracle.Stop, "")
	n.signal(syscall.SIGTERM, oracle.Stop)
	select {
	case <-n.exited:
	case <-time.After(30 * time.Second):
		n.signal(syscall.SIGKILL, oracle.Kill)
		<-n.exited
		n.lab.t.Errorf("%s did not end within 30 s of SIGTERM:\n%s", n.name, n.logTail())
	}
	over()
}

func (n *node) note(kind oracle.Kind, detail string) func() {
	n.lab.count(string(kind))
	return n.lab.note(oracle.Fault{Kind: kind, Node: n.name, PID: n.pid(), Detail: detail})
}

// disconnect does something to a node's connections for a while.
func (n *node) disconnect(kind oracle.Kind, what string, length time.Duration, how func(*proxy)) {
	if !n.wire.TryLock() {
		return
	}
	defer n.wire.Unlock()
	n.lab.count(what)
	// Whatever process the node has meanwhile is concerned.
	from := time.Now().Round(0)
	for _, p := range n.proxies {
		how(p)
	}
	time.Sleep(length)
	n.heal()
	until := time.Now().Round(0)
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	for _, p := range n.lab.processes {
		if p.Node == n.name && (p.To.IsZero() || p.To.After(from)) && p.From.Before(until) {
			n.lab.faults = append(n.lab.faults, oracle.Fault{Kind: kind, Node: n.name, PID: p.PID, From: from, To: until, Detail: what})
		}
	}
}

// terminate ends one of a node's database sessions, in the order of their
// ages; which 0 is the node's own session with its locks.
func (n *node) terminate(which int) {
	what, name := "terminated session", "riverbeat session "+n.id()+"%"
	if which > 0 {
		what, name = "terminated connection", n.name
	}
	n.disconnect(oracle.CutOff, what, 0, func(*proxy) {
		_ = n.lab.try(func(conn *pgx.Conn) error {
			const terminate = `
SELECT pg_terminate_backend(pid) FROM (
    SELECT pid, row_number() OVER (ORDER BY backend_start) - 1 AS place, count(*) OVER () AS all
    FROM pg_stat_activity WHERE application_name LIKE $1
) AS s WHERE place = $2 % "all"`
			_, err := conn.Exec(context.Background(), terminate, name, which)
			return err
		})
	})
}

var nodeID = regexp.MustCompile(`msg=serving .*node=(\S+)`)

// id is what the node's present process calls itself.
func (n *node) id() string {
	text, _ := os.ReadFile(filepath.Join(n.lab.dir, n.name+".log"))
	all := nodeID.FindAllSubmatch(text, -1)
	if len(all) == 0 {
		return "unknown"
	}
	return string(all[len(all)-1][1])
}

// restart restarts Postgres: by a fast shutdown, or an immediate one, which is
// recovered from as a crash.
func (l *lab) restart(immediate bool) {
	if !l.database.TryLock() {
		return
	}
	defer l.database.Unlock()
	what := "restart fast"
	if immediate {
		what = "restart immediate"
	}
	l.count(what)
	over := l.note(oracle.Fault{Kind: oracle.Database, Detail: what})
	defer over()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if immediate {
		if pid, err := l.postmaster(); err == nil {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
			<-l.server.Done()
		}
	}
	if err := l.server.Restart(ctx); err != nil {
		l.t.Errorf("Postgres does not come back: %v", err)
	}
}

func (l *lab) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(l.server.DataDir(), "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

// touch changes a job as somebody with psql would.
func (l *lab) touch(which int, state string, what, statement string) {
	_ = l.try(func(conn *pgx.Conn) error {
		ctx := context.Background()
		var run string
		var job int64
		const live = `
SELECT id::text, job_id FROM (
    SELECT id, job_id, row_number() OVER (ORDER BY id) - 1 AS place, count(*) OVER () AS all
    FROM runs WHERE state = $1 AND job_id IS NOT NULL
) AS r WHERE place = $2 % "all"`
		if err := conn.QueryRow(ctx, live, state, which).Scan(&run, &job); err != nil {
			return nil // there is none
		}
		l.count(what)
		over := l.note(oracle.Fault{Kind: oracle.Touch, RunID: run, Detail: fmt.Sprintf("%s: %s", what, run)})
		defer over()
		_, err := conn.Exec(ctx, statement, job)
		return err
	})
}

const (
	cancelJob = `UPDATE river_job SET state = 'cancelled', finalized_at = now() WHERE id = $1 AND finalized_at IS NULL`
	deleteJob = `DELETE FROM river_job WHERE id = $1`
)

// edit changes a schedule by the API, at a node, or another if that one is down.
func (l *lab) edit(which int, at *node, what, method, path string, body any) {
	l.mu.Lock()
	if len(l.schedules) == 0 {
		l.mu.Unlock()
		return
	}
	id := l.schedules[which%len(l.schedules)]
	l.mu.Unlock()
	over := l.note(oracle.Fault{Kind: oracle.Edit, Node: at.name, Detail: fmt.Sprintf("%s %s %v", what, id, body)})
	defer over()
	var answer struct {
		ID string `json:"id"`
	}
	_, err := at.call(method, "/api/v1/schedules/"+id+path, body, &answer)
	for _, other := range l.nodes {
		if errors.Is(err, syscall.ECONNREFUSED) && other != at {
			_, err = other.call(method, "/api/v1/schedules/"+id+path, body, &answer)
		}
	}
	if err != nil {
		l.count(what + " (no answer)")
		return
	}
	l.count(what)
	if path == "/run" {
		l.mu.Lock()
		l.requested = append(l.requested, answer.ID)
		l.mu.Unlock()
	}
}

// replace deletes a schedule and makes another one like it.
func (l *lab) replace(which int, at *node, s spec) {
	l.edit(which, at, "delete", http.MethodDelete, "", nil)
	s.Task = "record"
	var made struct {
		ID string `json:"id"`
	}
	if _, err := at.call(http.MethodPost, "/api/v1/schedules", s, &made); err == nil {
		l.count("create")
		l.mu.Lock()
		l.schedules = append(l.schedules, made.ID)
		l.mu.Unlock()
	}
}
