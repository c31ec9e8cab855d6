// Package prune forgets: it drops the weeks of runs that are kept no longer, whatever else
// goes on. Why a week goes the way it goes is in postgres/DESIGN.md, "Dropping a week".
package prune

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const (
	// again is how soon a week is tried again that somebody still reads.
	again = time.Minute
	// atMost is how many weeks a node begins to drop at a time. One is more than come of
	// age in an hour, and when a clock is wrong there is time to notice.
	atMost = 1
	// apart is how far the clocks of the database and of this machine may be apart.
	apart = 24 * time.Hour
	// within bounds one time, so that a lost connection does not end them all.
	within = 30 * time.Minute
)

// Config is what a Pruner needs.
type Config struct {
	DB     *postgres.DB     // of a pool
	Keep   time.Duration    // how long this process wants runs to be kept; 0: for ever
	Every  time.Duration    // how often Run prunes; 0: once an hour
	Now    func() time.Time // the clock of this machine
	Logger *slog.Logger
}

// Pruner drops old runs. Any number of them may work on one database.
type Pruner struct{ cfg Config }

// New makes a Pruner. It does nothing before Run or Prune.
func New(cfg Config) *Pruner {
	cfg.Every = cmp.Or(cfg.Every, time.Hour)
	return &Pruner{cfg}
}

// Run prunes now and then until ctx ends. A failure is logged, once for as long as it
// stays the same, and tried again.
func (p *Pruner) Run(ctx context.Context) {
	// Nodes that start together do not prune together, and one that starts again and
	// again does not prune each time.
	timer := time.NewTimer(rand.N(p.cfg.Every)) //nolint:gosec // jitter
	defer timer.Stop()
	fault := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		text, wait := "", p.cfg.Every-p.cfg.Every/20+rand.N(p.cfg.Every/10) //nolint:gosec // jitter
		switch report, err := p.once(ctx); {
		case ctx.Err() != nil || postgres.IsPruning(err):
		case err != nil:
			text = riverbeat.Explain(err)
		case report.Unfinished():
			wait = min(wait, again)
		}
		if text != "" && text != fault {
			p.cfg.Logger.WarnContext(ctx, "old runs are not dropped", "why", text)
		}
		fault = text
		timer.Reset(wait)
	}
}

func (p *Pruner) once(ctx context.Context) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return p.Prune(ctx, Options{Most: atMost})
}

// Options say how to prune.
type Options struct {
	// OlderThan is how old runs are dropped; 0: as old as nobody wants them to be kept,
	// neither this process nor a node of the last day.
	OlderThan time.Duration
	// DryRun changes nothing, and says what would be dropped.
	DryRun bool
	// Most bounds the weeks that it begins to drop; 0 does not. Those that were begun are
	// gone on with in any case.
	Most int
}

// Outcome is what becomes of a week.
type Outcome string

// The outcomes.
const (
	Later   Outcome = "later" // nobody looked: another week was its turn
	Kept    Outcome = "kept"
	Due     Outcome = "due"     // it would be dropped
	Leaving Outcome = "leaving" // it is dropped when those who are at it are done
	Dropped Outcome = "dropped"
)

// Report is what became of the weeks of runs, the oldest first.
type Report struct {
	Keep  time.Duration // 0: for ever
	Weeks []Week
}

// Week is one of them.
type Week struct {
	postgres.Week
	Looked  *postgres.WeekRuns // what is in it; nil: nobody had to look
	Outcome Outcome
	Why     string // it is kept, or is not gone yet
}

// Unfinished tells whether a week is on its way out and not gone.
func (r *Report) Unfinished() bool {
	return slices.ContainsFunc(r.Weeks, func(w Week) bool { return w.Outcome == Leaving })
}

// Prune drops the weeks of runs of which each run has ended, and is older than it is kept
// for: by its nominal time, and by when it was written down and ended. A week that
// somebody is at is left on its way, and gone on with next time. Beside an error there is
// the report of what was done until then.
func (p *Pruner) Prune(ctx context.Context, o Options) (*Report, error) {
	pass := &pass{Pruner: p, Options: o, report: &Report{}}
	pass.inTx = p.cfg.DB.InTx
	if !o.DryRun {
		session, err := p.cfg.DB.OpenPruning(ctx)
		if err != nil {
			return pass.report, err
		}
		defer session.Close(ctx)
		pass.session, pass.inTx = session, session.InTx
	}
	if err := pass.inTx(ctx, func(tx *postgres.Tx) error { return pass.begin(ctx, tx) }); err != nil {
		return pass.report, err
	}
	return pass.report, pass.weeks(ctx)
}

// pass is one time of pruning.
type pass struct {
	*Pruner
	Options
	session *postgres.Pruning // nil: nothing is changed
	inTx    func(context.Context, func(*postgres.Tx) error) error
	before  time.Time // what is older is dropped
	report  *Report
}

// begin reads how long runs are kept, and which weeks there are.
func (p *pass) begin(ctx context.Context, tx *postgres.Tx) error {
	now, err := tx.Now(ctx)
	if err != nil {
		return err
	}
	if off := now.Sub(p.cfg.Now()); off.Abs() > apart {
		return riverbeat.Errorf(riverbeat.Unavailable, "clocks_disagree",
			"The clock of the database is %s off that of this machine: nobody knows how old runs are.", off.Round(time.Minute))
	}
	keep := p.OlderThan
	if keep == 0 {
		kept, known, err := tx.RunsKept(ctx)
		if err != nil {
			return err
		}
		if keep = p.cfg.Keep; known {
			keep = longest(keep, kept)
		}
	}
	p.report.Keep, p.before = keep, now.Add(-keep)
	weeks, err := tx.Weeks(ctx)
	for _, w := range weeks {
		p.report.Weeks = append(p.report.Weeks, Week{Week: w, Outcome: Later})
	}
	return err
}

// longest is the longer of two times that runs are kept; 0 is for ever.
func longest(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// weeks goes through them. What was begun is finished first, since two cannot leave at a
// time.
func (p *pass) weeks(ctx context.Context) error {
	begun := 0
	for _, begin := range []bool{false, true} {
		for i := range p.report.Weeks {
			w := &p.report.Weeks[i]
			if begin != (w.State == postgres.WeekOpen && w.Outcome == Later) {
				continue
			}
			if err := p.week(ctx, w); err != nil {
				return fmt.Errorf("%s: %w", w, err)
			}
			if w.State != postgres.WeekOpen && begin {
				begun++
			}
			if w.Outcome == Leaving || p.Most > 0 && begun == p.Most {
				return nil
			}
		}
	}
	return nil
}

// week drops a week, if it is kept no longer. It is looked at before each step, as it may
// have been left at any by somebody else; but not while it leaves, which may take long. What
// leaves and is not ours is detached, too, since nothing else can leave before.
func (p *pass) week(ctx context.Context, w *Week) error {
	for {
		if w.State != postgres.WeekLeaving || p.session == nil {
			if err := p.look(ctx, w); err != nil || w.Outcome == Kept || p.session == nil {
				return err
			}
		}
		step, next := p.session.Seal, postgres.WeekSealed
		switch w.State {
		case postgres.WeekOpen:
		case postgres.WeekSealed, postgres.WeekLeaving:
			step, next = p.session.Detach, postgres.WeekDetached
		case postgres.WeekDetached:
			step = p.session.Drop
		}
		done, err := step(ctx, w.Week)
		switch {
		case err != nil:
			return err
		case !done:
			w.Outcome, w.Why = Leaving, "somebody is at it; it goes when they are done"
			return nil
		case w.State == postgres.WeekDetached:
			w.Outcome = Dropped
			p.cfg.Logger.InfoContext(ctx, "dropped old runs", "week", w.From.Format(time.DateOnly), "runs", w.Looked.Runs, "bytes", w.Bytes)
			return nil
		}
		w.State, w.Sealed = next, w.Sealed || next == postgres.WeekSealed
		if !w.Sealed {
			p.cfg.Logger.WarnContext(ctx, "finished what somebody else has begun to detach, and leave it alone", "table", w.Table)
		}
	}
}

// look tells whether a week is kept. One that is sealed is dropped when all its runs have
// ended, whatever else would keep it by now.
func (p *pass) look(ctx context.Context, w *Week) error {
	open := w.State == postgres.WeekOpen
	if !open && !w.Sealed {
		w.Outcome, w.Why = Kept, "somebody else detached it: it is his"
		return nil
	}
	if open && (p.report.Keep == 0 || w.Until.After(p.before)) {
		w.Outcome = Kept
		return nil
	}
	return p.inTx(ctx, func(tx *postgres.Tx) error {
		found, err := tx.LookAtWeek(ctx, w.Week)
		if err != nil {
			return err
		}
		awaiting := ""
		if open {
			if awaiting, err = tx.WhoAwaitsWeek(ctx, w.Week); err != nil {
				return err
			}
		}
		w.Looked, w.Outcome, w.Why = &found, Kept, ""
		switch {
		case found.Unended > 0:
			w.Why = unended(found.Unended)
			if w.State == postgres.WeekDetached { // somebody has switched the trigger off
				w.Why += "; attach it again"
			}
		case open && found.LastChange != nil && !found.LastChange.Before(p.before):
			w.Why = "a run was written down or ended on " + found.LastChange.Format(time.DateOnly)
		case awaiting != "":
			w.Why = awaiting + " has ticks of then to decide"
		default:
			w.Outcome = Due
		}
		return nil
	})
}

func unended(n int64) string {
	if n == 1 {
		return "1 run has not ended"
	}
	return fmt.Sprintf("%d runs have not ended", n)
}
