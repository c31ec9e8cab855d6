// Package doctor checks: it looks whether what Riverbeat promises is true of a
// database right now, says what is not in words that a tired person
// understands, and repairs what can be repaired without harm.
//
// All checks are on one page, checks. Each looks by itself, in a read-only
// transaction of its own with a bound on its time, and its answer is one
// Finding. DESIGN.md says what they cost.
package doctor

import (
	"context"
	"time"

	"riverbeat/internal/ledger"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
)

// Status says how bad a Finding is.
type Status string

// The statuses, from good to bad.
const (
	OK   Status = "ok"
	Warn Status = "warn" // look at it in the morning
	Fail Status = "fail" // a promise is not kept, or will not be
)

// Finding is what one check has found.
type Finding struct {
	Check    string   `json:"check"`
	Status   Status   `json:"status"`
	Count    int      `json:"count"` // of faults; Most+1 stands for all that are more
	Detail   string   `json:"detail"`
	Examples []string `json:"examples"`           // a few of the faults
	Advice   string   `json:"advice,omitempty"`   // what to do
	Repair   string   `json:"repair,omitempty"`   // what Repair would do
	Repaired string   `json:"repaired,omitempty"` // what Repair did

	forbids bool // to repair anything
}

// Report is what all checks have found, in their order.
type Report struct {
	Schema    string    `json:"schema"`
	CheckedAt time.Time `json:"checked_at"` // by the database's clock
	Since     time.Time `json:"since"`      // how far back runs and ticks were looked at
	Status    Status    `json:"status"`     // the worst of all
	Findings  []Finding `json:"checks"`
}

// Options bound how much is looked at.
type Options struct {
	// Since is how far back runs and ticks are looked at. Defaults to a day.
	Since time.Duration
	// Schedules is for how many schedules, picked at random if there are more,
	// the ledger is compared with their nominal ticks. Defaults to 1,000.
	Schedules int
	// Timeout bounds each statement. Defaults to 30 seconds.
	Timeout time.Duration

	maxTicks int // that are compared, over all schedules
	maxJobs  int // live jobs that are looked at
}

func (o Options) withDefaults() Options {
	if o.Since == 0 {
		o.Since = 24 * time.Hour
	}
	if o.Schedules == 0 {
		o.Schedules = 1_000
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.maxTicks == 0 {
		o.maxTicks = 500 * o.Schedules
	}
	if o.maxJobs == 0 {
		o.maxJobs = 100_000
	}
	return o
}

// Config is what a Doctor needs.
type Config struct {
	DB          *postgres.DB
	Ledger      *ledger.Ledger
	Queue       *queue.Queue
	Environment string // the label of this process's configuration
}

// Doctor is safe for concurrent use.
type Doctor struct {
	Config
	partitions *postgres.Partitions
	// patience lies between the two looks after which a line is called stalled:
	// longer than a healthy sweep takes to move it up.
	patience time.Duration
	// openFor is how long a transaction may be open.
	openFor time.Duration
}

// New makes a Doctor.
func New(cfg Config) *Doctor {
	return &Doctor{
		Config: cfg, partitions: postgres.NewPartitions(cfg.DB),
		patience: 2500 * time.Millisecond, openFor: 10 * time.Minute,
	}
}

// Check looks at everything and changes nothing. What cannot be checked is a
// finding, too; an error means that the database does not answer. If the
// schema is not what this binary knows, nothing else is looked at.
func (d *Doctor) Check(ctx context.Context, o Options) (*Report, error) {
	o = o.withDefaults()
	report := &Report{Schema: d.DB.Schema(), Status: OK}
	err := d.read(ctx, o, func(tx *postgres.Tx) error {
		var err error
		report.CheckedAt, err = tx.Now(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	report.Since = report.CheckedAt.Add(-o.Since)
	for _, c := range checks {
		f, err := d.look(ctx, c, o)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			f = uncheckable(c, o, err)
		}
		report.Findings = append(report.Findings, f)
		report.Status = worse(report.Status, f.Status)
		if c.name == schemaCheck && f.Status == Fail {
			break
		}
	}
	return report, nil
}

// look makes the finding of one check.
func (d *Doctor) look(ctx context.Context, c check, o Options) (f Finding, err error) {
	err = d.read(ctx, o, func(tx *postgres.Tx) error {
		f, err = c.look(d, ctx, tx, o)
		return err
	})
	f.Check = c.name
	if f.Examples == nil {
		f.Examples = []string{} // so that it is a list in JSON, too
	}
	if f.Status != OK && f.Repair == "" && c.repair != nil {
		f.Repair = c.repairs
	}
	return f, err
}

// uncheckable is the finding of a check that failed.
func uncheckable(c check, o Options, err error) Finding {
	f := Finding{Check: c.name, Status: Fail, Examples: []string{}}
	if postgres.IsTimeout(err) {
		f.Detail = sentence("It could not be checked within %s.", o.Timeout)
		f.Advice = "Try again when the database has less to do, or look at less: --since, --schedules."
		return f
	}
	f.Detail = sentence("It could not be checked: %s.", riverbeat.Explain(err))
	return f
}

// Repair repairs what can be repaired without harm, and then checks: the
// findings are those that are left, with what was done in Repaired. Each repair
// may be made any number of times. On a clone of the database nothing is
// repaired: its jobs are somebody else's.
func (d *Doctor) Repair(ctx context.Context, o Options) (*Report, error) {
	o = o.withDefaults()
	for _, name := range []string{schemaCheck, installationCheck} {
		f, err := d.look(ctx, named(name), o)
		if err != nil {
			return nil, err
		}
		if f.forbids {
			return nil, riverbeat.Errorf(riverbeat.Conflict, "not_repairable", "Nothing is repaired here. %s %s", f.Detail, f.Advice)
		}
	}
	done := map[string]string{}
	failed := map[string]error{}
	for _, c := range checks {
		if c.repair == nil {
			continue
		}
		said, err := c.repair(d, ctx, o)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if said != "" {
			done[c.name] = said
		}
		if err != nil {
			failed[c.name] = err
		}
	}
	report, err := d.Check(ctx, o)
	if err != nil {
		return nil, err
	}
	for i := range report.Findings {
		f := &report.Findings[i]
		f.Repaired = done[f.Check]
		if err := failed[f.Check]; err != nil {
			f.Status, report.Status = Fail, Fail
			f.Detail += sentence(" The repair failed: %s.", riverbeat.Explain(err))
		}
	}
	return report, nil
}

// read is a transaction that only reads, within bounds. Each of its statements
// sees what is committed by then.
func (d *Doctor) read(ctx context.Context, o Options, fn func(*postgres.Tx) error) error {
	return d.DB.InTx(ctx, func(tx *postgres.Tx) error {
		if err := tx.OnlyRead(ctx, o.Timeout); err != nil {
			return err
		}
		return fn(tx)
	})
}

func worse(a, b Status) Status {
	for _, s := range []Status{Fail, Warn} {
		if a == s || b == s {
			return s
		}
	}
	return OK
}
