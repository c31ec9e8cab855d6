package execute

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const (
	// slotPause is how long a job waits at most for one of the slots of its task before it
	// looks again by itself.
	slotPause = 10 * time.Minute
	// forgetEvery is how many looks lie between two that clean up.
	forgetEvery = 60
)

// slotTask is the task whose slots a run of the definition needs; "" for none.
func slotTask(d *riverbeat.TaskDefinition) string {
	if d == nil || d.MaxConcurrency == 0 {
		return ""
	}
	return cmp.Or(d.AliasOf, d.TaskName)
}

// takeSlots gives a slot to each of the starts, by the index of its answer, that may have
// one: first those that were there first. A run that comes later than one that waits
// waits, too, though there be a slot: it is the other one's.
func (e *Executor) takeSlots(ctx context.Context, starts []start, answers []*started, limited []int) error {
	var tasks []string
	for _, i := range limited {
		tasks = append(tasks, slotTask(answers[i].definition))
	}
	slices.Sort(tasks)
	var first map[string]int64
	err := e.db.Read(ctx, func(tx *postgres.Tx) (err error) {
		first, err = tx.FirstForSlots(ctx, slices.Compact(tasks))
		return err
	})
	if err != nil {
		return fmt.Errorf("look who waits for slots: %w", err)
	}
	slices.SortFunc(limited, func(a, b int) int { return cmp.Compare(starts[a].JobID, starts[b].JobID) })
	full := map[string]bool{}
	for _, i := range limited {
		d := answers[i].definition
		task := slotTask(d)
		if job, waits := first[task]; full[task] || waits && job < starts[i].JobID {
			continue
		}
		answers[i].slot, err = e.session.lockOne(postgres.SlotKeys(task, d.MaxConcurrency), starts[i].lose)
		if err != nil {
			return err
		}
		full[task] = answers[i].slot == ""
	}
	return nil
}

// startLimited starts those runs whose tasks have a limit, as far as there are slots; the
// others are noted to wait.
func (e *Executor) startLimited(ctx context.Context, starts []start, answers []*started, limited []int) (err error) {
	defer func() {
		for _, i := range limited {
			if err != nil && answers[i].slot != "" {
				e.session.unlock(answers[i].slot)
				answers[i].slot = ""
			}
		}
	}()
	if err := e.takeSlots(ctx, starts, answers, limited); err != nil {
		return err
	}
	var may []postgres.Start
	var tasks []string
	var jobs []int64
	for _, i := range limited {
		if answers[i].slot != "" {
			may = append(may, starts[i].Start)
			continue
		}
		answers[i].waits = true
		tasks, jobs = append(tasks, slotTask(answers[i].definition)), append(jobs, starts[i].JobID)
	}
	return e.db.InTx(ctx, func(tx *postgres.Tx) error {
		if len(jobs) > 0 {
			if err := tx.WaitForSlots(ctx, tasks, jobs); err != nil {
				return err
			}
		}
		if len(may) == 0 {
			return nil
		}
		runs, err := tx.StartRuns(ctx, e.node.ID.String(), may)
		for _, i := range limited {
			if answers[i].slot != "" {
				answers[i].run = runs[starts[i].JobID]
			}
		}
		return err
	})
}

// releaseSlot gives a slot back, and wakes who waits for it first.
func (e *Executor) releaseSlot(ctx context.Context, s *started) {
	e.session.unlock(s.slot)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	// If it fails, the next look wakes them.
	_ = e.db.InTx(ctx, func(tx *postgres.Tx) error { return tx.WakeForSlots(ctx, slotTask(s.definition), 1) })
}

// slotKeeper wakes jobs that wait for slots which nobody else has woken them for: the
// node that had one was lost, or the limit was raised. It is used by one goroutine.
type slotKeeper struct {
	e     *Executor
	free  map[string]int // by task, at the last look
	looks int
}

// look wakes jobs for slots that were free a look ago, and are. After a restart of
// Postgres, who executes has the time to take his again.
func (k *slotKeeper) look(ctx context.Context) error {
	free := map[string]int{}
	defer func() { k.free = free }()
	return k.e.db.InTx(ctx, func(tx *postgres.Tx) error {
		if k.looks++; k.looks%forgetEvery == 0 {
			if err := tx.ForgetSlotWaits(ctx); err != nil {
				return fmt.Errorf("forget who waited for slots: %w", err)
			}
		}
		tasks, err := tx.SlotTasks(ctx)
		if err != nil {
			return fmt.Errorf("look who waits for slots: %w", err)
		}
		for _, task := range tasks {
			n := riverbeat.MaxMaxConcurrency
			if task.Slots > 0 {
				if n, err = tx.FreeSlots(ctx, task); err != nil {
					return fmt.Errorf("count the free slots of %s: %w", task.TaskName, err)
				}
			}
			free[task.TaskName] = n
			if n = min(n, k.free[task.TaskName]); n == 0 {
				continue
			}
			if err := tx.WakeForSlots(ctx, task.TaskName, n); err != nil {
				return fmt.Errorf("wake who waits for slots of %s: %w", task.TaskName, err)
			}
		}
		return nil
	})
}
