package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Each repair looks for itself, under the locks, in the order that everyone
// takes them (clock, admit key, job, run), and leaves alone what is right by
// then.

// batch bounds what one transaction repairs.
const batch = 500

// enableTriggers must come first: what is changed without them is not written
// down.
func (d *Doctor) enableTriggers(ctx context.Context, o Options) (string, error) {
	missing, err := collect(ctx, d, o, func(tx *postgres.Tx) ([]postgres.MissingTrigger, error) {
		return tx.MissingTriggers(ctx)
	})
	enabled := 0
	for _, t := range missing {
		if !t.Exists {
			continue
		}
		if err := d.change(ctx, o, func(ctx context.Context, tx *postgres.Tx) error { return tx.EnableTrigger(ctx, t) }); err != nil {
			return did("Enabled", enabled, "trigger"), err
		}
		enabled++
	}
	return did("Enabled", enabled, "trigger"), err
}

func (d *Doctor) makePartitions(ctx context.Context, o Options) (string, error) {
	missing, err := collect(ctx, d, o, func(tx *postgres.Tx) ([]time.Time, error) {
		return tx.MissingPartitions(ctx, weeksAhead)
	})
	if err == nil {
		err = postgres.NewPartitions(d.DB).Ensure(ctx, missing...)
	}
	if err != nil {
		return "", err
	}
	return did("Made", len(missing), "partition"), nil
}

func (d *Doctor) retryClocks(ctx context.Context, o Options) (string, error) {
	retried := 0
	for {
		n := 0
		err := d.change(ctx, o, func(ctx context.Context, tx *postgres.Tx) error {
			var err error
			n, err = tx.RetryClocksNow(ctx, batch)
			return err
		})
		if retried += n; err != nil || n == 0 {
			return did("Asked for another try of", retried, "schedule"), err
		}
	}
}

// startClocks lets idle clocks tick. Nobody owes the ticks that lie between
// their marks and now, or can tell whether they were wanted: so none of them
// runs, and all are one gap.
func (d *Doctor) startClocks(ctx context.Context, o Options) (string, error) {
	idle, err := collect(ctx, d, o, func(tx *postgres.Tx) ([]*riverbeat.Schedule, error) {
		return tx.IdleClocks(ctx, Most)
	})
	started := 0
	for _, s := range idle {
		ok := false
		within, cancel := context.WithTimeout(ctx, o.Timeout)
		err := d.partitions.InTx(within, func(tx *postgres.Tx) error {
			var err error
			ok, err = d.startClock(within, tx, s)
			return err
		})
		cancel()
		if err != nil {
			return did("Started the clock of", started, "schedule"), err
		}
		if ok {
			started++
		}
	}
	return did("Started the clock of", started, "schedule"), err
}

func (d *Doctor) startClock(ctx context.Context, tx *postgres.Tx, found *riverbeat.Schedule) (bool, error) {
	if err := tx.MakeMissingClock(ctx, found.ID); err != nil {
		return false, err
	}
	s, clock, err := tx.LockSchedule(ctx, found.ID)
	if riverbeat.KindOf(err) == riverbeat.NotFound {
		return false, nil // deleted meanwhile
	}
	if err != nil {
		return false, err
	}
	r, err := riverbeat.ParseRecurrence(s.CronExpression, s.Timezone)
	if err != nil {
		return false, fmt.Errorf("start the clock of %s: %w", name(s.Name, s.ID), err)
	}
	next := s.NextTick(r, clock.Now)
	if !s.Enabled || s.NextRunAt != nil || next == nil {
		return false, nil
	}
	if gap := s.Miss(r, clock.Mark, clock.Now, riverbeat.OutsideWindow); gap != nil {
		if err := d.Ledger.RecordGap(ctx, tx, d.partitions, s, gap, clock.Now); err != nil {
			return false, err
		}
	}
	plan := riverbeat.Plan{Mark: clock.Now, Next: next}
	return true, tx.SetClocks(ctx, map[uuid.UUID]riverbeat.Plan{s.ID: plan})
}

// setRunsStraight does what the history trigger has not done.
func (d *Doctor) setRunsStraight(ctx context.Context, o Options) (string, error) {
	straight := 0
	for {
		wrong, err := collect(ctx, d, o, func(tx *postgres.Tx) ([]postgres.RunAndJob, error) {
			since, err := sinceOf(ctx, tx, o)
			if err != nil {
				return nil, err
			}
			return tx.RunsWithoutJob(ctx, since, Most)
		})
		before := straight
		for chunk := range slices.Chunk(wrong, batch) {
			n := 0
			if err == nil {
				err = d.change(ctx, o, func(ctx context.Context, tx *postgres.Tx) error {
					var err error
					n, err = straighten(ctx, tx, chunk)
					return err
				})
			}
			straight += n
		}
		if err != nil || straight == before {
			return did("Set", straight, "run", "straight"), err
		}
	}
}

func straighten(ctx context.Context, tx *postgres.Tx, runs []postgres.RunAndJob) (int, error) {
	var keys []string
	var jobs []int64
	for _, r := range runs {
		if r.LockKey != "" {
			keys = append(keys, r.LockKey)
		}
		if r.JobID != nil {
			jobs = append(jobs, *r.JobID)
		}
	}
	if err := tx.LockKeys(ctx, keys); err != nil {
		return 0, err
	}
	if err := tx.LockJobs(ctx, jobs); err != nil {
		return 0, err
	}
	return tx.SetRunsStraight(ctx, runs)
}

// cancelJobs cancels the live jobs that belong to no run. One whose run has
// ended by somebody's hand is still its run's, so there the run follows the job.
func (d *Doctor) cancelJobs(ctx context.Context, o Options) (string, error) {
	jobs, err := collect(ctx, d, o, func(tx *postgres.Tx) ([]postgres.JobAndRun, error) {
		return tx.JobsWithoutRun(ctx, nil, o.maxJobs, Most)
	})
	cancelled, followed := 0, 0
	for _, job := range jobs {
		jobsEnded, runsMoved := 0, 0
		err = d.change(ctx, o, func(ctx context.Context, tx *postgres.Tx) error {
			var err error
			jobsEnded, runsMoved, err = d.cancelJob(ctx, tx, job)
			return err
		})
		if err != nil {
			break
		}
		cancelled, followed = cancelled+jobsEnded, followed+runsMoved
	}
	said := did("Cancelled", cancelled, "job") + " " + did("Let", followed, "run", "follow "+be(followed, "its job", "their jobs"))
	return strings.TrimSpace(said), err
}

func (d *Doctor) cancelJob(ctx context.Context, tx *postgres.Tx, found postgres.JobAndRun) (cancelled, followed int, err error) {
	if found.LockKey != "" {
		if err := tx.LockKeys(ctx, []string{found.LockKey}); err != nil {
			return 0, 0, err
		}
	}
	if err := tx.LockJobs(ctx, []int64{found.JobID}); err != nil {
		return 0, 0, err
	}
	still, err := tx.JobsWithoutRun(ctx, []int64{found.JobID}, 1, 1)
	if err != nil || len(still) == 0 {
		return 0, 0, err
	}
	if run, own := still[0].Run(); own {
		followed, err = tx.SetRunsStraight(ctx, []postgres.RunAndJob{run})
		return 0, followed, err
	}
	_, err = d.Queue.Cancel(ctx, tx.Tx, found.JobID)
	return 1, 0, err
}

func (d *Doctor) restoreLines(ctx context.Context, o Options) (string, error) {
	restored := 0
	err := d.change(ctx, o, func(ctx context.Context, tx *postgres.Tx) error {
		var err error
		restored, err = tx.RestoreLines(ctx)
		return err
	})
	return did("Put", restored, "run", "in line"), err
}

func (d *Doctor) moveLinesUp(ctx context.Context, o Options) (string, error) {
	lines, err := collect(ctx, d, o, func(tx *postgres.Tx) ([]postgres.StalledLine, error) {
		return d.stalled(ctx, tx)
	})
	for i, line := range lines {
		err := d.change(ctx, o, func(ctx context.Context, tx *postgres.Tx) error { return d.Ledger.Promote(ctx, tx, line.LockKey) })
		if err != nil {
			return did("Moved up", i, "line"), err
		}
	}
	return did("Moved up", len(lines), "line"), err
}

// collect reads faults, within bounds.
func collect[T any](ctx context.Context, d *Doctor, o Options, read func(*postgres.Tx) ([]T, error)) (list []T, err error) {
	err = d.read(ctx, o, func(tx *postgres.Tx) error {
		list, err = read(tx)
		return err
	})
	return list, err
}

// change is a transaction that repairs. It does not wait for ever for those who
// hold what it needs.
func (d *Doctor) change(ctx context.Context, o Options, fn func(context.Context, *postgres.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	return d.DB.InTx(ctx, func(tx *postgres.Tx) error { return fn(ctx, tx) })
}

// did says what was done to n things; "" if there were none.
func did(verb string, n int, thing string, rest ...string) string {
	if n == 0 {
		return ""
	}
	text := verb + " " + count(n, thing)
	for _, r := range rest {
		text += " " + r
	}
	return text + "."
}
