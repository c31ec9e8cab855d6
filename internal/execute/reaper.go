package execute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/riverqueue/river/rivertype"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const (
	// lookEvery is how often a node looks at the running jobs.
	lookEvery = time.Second
	// lostAfter is how long a node must be seen without a beat before its runs
	// are taken over. By then it has given them up (fenceAfter).
	lostAfter = postgres.SessionLife
	// strayAfter is how long a job may run under this node without an attempt:
	// it is fetched a moment before its attempt begins, and ended a moment after.
	strayAfter = 3 * time.Second
	// reportWithin is how long River may need to report an attempt that has not
	// succeeded: it tries again and again when the database was away, with pauses.
	// Taken for a stray, such a job would be done once more, its failure forgotten.
	reportWithin = time.Minute
	// lookTimeout bounds one look; a later one sees what it did not.
	lookTimeout = 10 * time.Second
)

// Why an attempt is told to stop.
var (
	errFenced = errors.New("the node could not reach the database for so long that another one may have this run now")
	errTaken  = errors.New("the job was ended, deleted or handed on by somebody else while it was worked")
)

// attempts are those that this node has under way, and those whose end it has
// reported.
type attempts struct {
	mu sync.Mutex
	// underWay has the way to stop each attempt, by job.
	underWay map[int64]context.CancelCauseFunc
	// reported has how attempts ended, until River's table is seen to know.
	reported map[int64]outcome
}

// outcome is how an attempt ended.
type outcome struct {
	fetched   time.Time // when its job was: each attempt is another one, even if it has the number of the last
	succeeded bool
	result    json.RawMessage // of one that succeeded; nil: none
}

// begin notes an attempt; false if there is one of the job already.
func (a *attempts) begin(job int64, cancel context.CancelCauseFunc) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.underWay[job] != nil {
		return false
	}
	a.underWay[job] = cancel
	delete(a.reported, job)
	return true
}

// end notes that an attempt is over, and reported to River in a moment.
func (a *attempts) end(job int64, fetched time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.underWay, job)
	if _, ok := a.reported[job]; !ok {
		a.reported[job] = outcome{fetched: fetched}
	}
}

// succeed notes that an attempt that is about to end has succeeded.
func (a *attempts) succeed(job int64, fetched time.Time, result json.RawMessage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reported[job] = outcome{fetched, true, result}
}

// of tells whether an attempt of the job is under way, and how the one ended for
// which it was fetched, as far as it is known here.
func (a *attempts) of(job postgres.RunningJob) (underWay bool, last outcome, reported bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, reported = a.reported[job.ID]; !last.fetched.Equal(job.FetchedAt) {
		last, reported = outcome{}, false
	}
	return a.underWay[job.ID] != nil, last, reported
}

// cancelAll tells all attempts to stop.
func (a *attempts) cancelAll(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, cancel := range a.underWay {
		cancel(cause)
	}
}

// idle tells whether none is under way.
func (a *attempts) idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.underWay) == 0
}

// known is a copy of what is known before the database is asked.
type known struct {
	underWay map[int64]context.CancelCauseFunc
	reported []int64
}

func (a *attempts) known() known {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := known{underWay: make(map[int64]context.CancelCauseFunc, len(a.underWay))}
	for job, cancel := range a.underWay {
		k.underWay[job] = cancel
	}
	for job := range a.reported {
		k.reported = append(k.reported, job)
	}
	return k
}

// reaper compares the jobs that run by River's table with the nodes that live
// and with what this node has under way. It is used by one goroutine.
type reaper struct {
	e *Executor
	// strays are jobs that run under this node without an attempt, and since when.
	strays map[int64]time.Time
	// silent has of each node that has running jobs its last beat, and for how
	// long it was seen to be that. No clock but this machine's monotonic one
	// decides that a node is lost.
	silent map[string]silence
}

// silence is how long a node has not beaten, at least.
type silence struct {
	beat time.Time     // the last, by the database's clock
	seen time.Duration // so far
	till time.Time     // by this machine's clock
}

// run looks until ctx ends.
func (r *reaper) run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	fault := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := r.look(ctx)
		text := ""
		if err != nil {
			text = riverbeat.Explain(err)
		}
		if text != fault && ctx.Err() == nil {
			if fault = text; text != "" {
				r.e.logger.WarnContext(ctx, "could not look after the running jobs; trying again", "error", text)
			}
		}
	}
}

func (r *reaper) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	began, known := time.Now(), r.e.attempts.known()
	var jobs []postgres.RunningJob
	err := r.e.db.InTx(ctx, func(tx *postgres.Tx) (err error) {
		jobs, err = tx.RunningJobs(ctx)
		return err
	})
	if err != nil {
		return err
	}
	r.e.compare(known, jobs)
	return errors.Join(r.mine(ctx, known, jobs), r.others(ctx, began, jobs), r.e.slots.look(ctx))
}

// recheck stops the attempts whose jobs are not theirs any more.
func (e *Executor) recheck(ctx context.Context, conn *postgres.Session) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	known := e.attempts.known()
	if len(known.underWay) == 0 {
		return nil
	}
	jobs, err := conn.RunningJobs(ctx)
	if err == nil {
		e.compare(known, jobs)
	}
	return err
}

// compare stops attempts whose jobs were taken away, and those that somebody
// wants cancelled: River's own notification of that may get lost, and then it
// looks only once a minute.
func (e *Executor) compare(k known, jobs []postgres.RunningJob) {
	running := make(map[int64]bool, len(k.underWay))
	for _, job := range jobs {
		if job.Node != e.node.ID.String() {
			continue
		}
		running[job.ID] = true
		if cancel := k.underWay[job.ID]; cancel != nil && job.CancelRequested {
			cancel(rivertype.ErrJobCancelledRemotely)
		}
	}
	for job, cancel := range k.underWay {
		if !running[job] {
			cancel(errTaken)
		}
	}
	e.attempts.mu.Lock()
	defer e.attempts.mu.Unlock()
	for _, job := range k.reported {
		if !running[job] {
			delete(e.attempts.reported, job)
		}
	}
}

// mine ends jobs that run under this node without an attempt: fetched in a
// transaction whose commit was not heard of, or reported when the database was
// away.
func (r *reaper) mine(ctx context.Context, k known, jobs []postgres.RunningJob) error {
	me := r.e.node.ID.String()
	strays := map[int64]time.Time{}
	var failed []error
	for _, job := range jobs {
		if job.Node != me || k.underWay[job.ID] != nil {
			continue
		}
		since, ok := r.strays[job.ID]
		if !ok {
			since = time.Now()
		}
		strays[job.ID] = since
		patience := strayAfter
		if _, last, reported := r.e.attempts.of(job); reported && !last.succeeded {
			patience = reportWithin
		}
		if time.Since(since) >= patience {
			failed = append(failed, r.e.endStray(ctx, job))
		}
	}
	r.strays = strays
	return errors.Join(failed...)
}

func (e *Executor) endStray(ctx context.Context, job postgres.RunningJob) error {
	ended, succeeded := false, false
	err := e.db.InTx(ctx, func(tx *postgres.Tx) error {
		ended = false
		lost, err := tx.LockLostJob(ctx, job.ID, job.Node)
		if err != nil || lost == nil {
			return err
		}
		// Who has begun by now starts its run after us, and finds another job.
		underWay, last, _ := e.attempts.of(job)
		if underWay {
			return nil
		}
		ended, succeeded = true, last.succeeded
		if succeeded {
			return e.ledger.Complete(ctx, tx, lost, last.result)
		}
		return e.ledger.TakeOver(ctx, tx, lost, false)
	})
	if err != nil {
		return fmt.Errorf("end the stray job %d: %w", job.ID, err)
	}
	if ended {
		e.metrics.TookOver(true)
		e.logger.WarnContext(ctx, "ended a job of this node that nobody worked", "job", job.ID, "succeeded", succeeded)
	}
	return nil
}

// others takes over the runs of nodes that are lost, by the jobs that were read
// after began.
func (r *reaper) others(ctx context.Context, began time.Time, jobs []postgres.RunningJob) error {
	silent := map[string]silence{}
	lost := map[string][]int64{}
	for _, job := range jobs {
		if job.Node == r.e.node.ID.String() {
			continue
		}
		var beat time.Time
		if job.LastSeen != nil {
			beat = *job.LastSeen
		}
		s, ok := silent[job.Node]
		if !ok {
			if s, ok = r.silent[job.Node]; ok && s.beat.Equal(beat) {
				// When this node could not look, the others could not beat, maybe: of
				// such a pause a part counts, and who lives has the rest to say so.
				s.seen += min(began.Sub(s.till), 2*lookEvery)
				s.till = began
			} else {
				s = silence{beat: beat, till: time.Now()}
			}
			silent[job.Node] = s
		}
		if s.seen >= lostAfter {
			lost[job.Node] = append(lost[job.Node], job.ID)
		}
	}
	r.silent = silent
	var failed []error
	for node, ids := range lost {
		// Others take over, too: they shall not all wait for each other's jobs.
		rand.Shuffle(len(ids), func(i, k int) { ids[i], ids[k] = ids[k], ids[i] }) //nolint:gosec // no secret
		for _, id := range ids {
			free, err := r.e.takeOver(ctx, id, node)
			if ctx.Err() != nil || (err == nil && !free) {
				break
			}
			if err != nil { // that of one job keeps no other from going on
				failed = append(failed, fmt.Errorf("take the job %d of node %s over: %w", id, node, err))
			}
		}
	}
	return errors.Join(failed...)
}

// takeOver gives the run of a lost node's job a new one; false if the node has
// a session after all.
func (e *Executor) takeOver(ctx context.Context, job int64, node string) (bool, error) {
	var free bool
	err := e.db.InTx(ctx, func(tx *postgres.Tx) error {
		var err error
		if free, err = tx.LockLostNode(ctx, node); err != nil || !free {
			return err
		}
		lost, err := tx.LockLostJob(ctx, job, node)
		if err != nil || lost == nil {
			return err
		}
		if err := e.ledger.TakeOver(ctx, tx, lost, true); err != nil {
			return err
		}
		tx.AfterCommit(func() { e.metrics.TookOver(false) })
		if lost.Run != nil {
			e.logger.WarnContext(ctx, "took over the run of a lost node", "run", lost.Run.ID, "node", node, "lives", lost.Run.Lives+1)
		}
		return nil
	})
	return free, err
}
