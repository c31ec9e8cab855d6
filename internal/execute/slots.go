package execute

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const (
	// slotPause is how long a job waits at most for one of the slots of its task before it
	// looks again by itself.
	slotPause = 10 * time.Minute
	// owedEvery is how often those are looked for again that are to be woken, and will be
	// put off in a moment.
	owedEvery = 50 * time.Millisecond
	// forgetEvery is how many looks lie between two that clean up.
	forgetEvery = 60
	// slotLooks is how many looks must find a slot free that nobody has given back here. They
	// take longer than a node may be without its session, and keep its slots.
	slotLooks = int(lostAfter/lookEvery) + 2
)

// slotTask is the task whose slots a run of the definition needs; "" for none.
func slotTask(d *riverbeat.TaskDefinition) string {
	if d == nil || d.MaxConcurrency == 0 {
		return ""
	}
	return cmp.Or(d.AliasOf, d.TaskName)
}

// startLimited starts those of the starts whose tasks have a limit, as far as there are
// slots; the others are noted to wait. They are named by the indexes of their answers. An
// error is that of their answers, and no slot is held then.
func (e *Executor) startLimited(ctx context.Context, starts []start, answers []*started, limited []int) {
	err := e.takeSlots(ctx, starts, answers, limited)
	if err == nil {
		err = e.db.InTx(ctx, func(tx *postgres.Tx) error { return e.startWithSlots(ctx, tx, starts, answers, limited) })
	}
	if err == nil {
		return
	}
	for _, i := range limited {
		if answers[i].slot != nil {
			e.session.release(answers[i].slot)
		}
		answers[i].slot, answers[i].err = nil, err
	}
}

// takeSlots gives a slot to each of the starts that may have one, and to those first that
// were there first. Nobody passes one that waits, though there be a slot.
func (e *Executor) takeSlots(ctx context.Context, starts []start, answers []*started, limited []int) error {
	if !e.session.settled() {
		return nil // others may be on their way to take theirs again
	}
	slices.SortFunc(limited, func(a, b int) int { return cmp.Compare(starts[a].JobID, starts[b].JobID) })
	tasks, jobs := make([]string, len(limited)), make([]int64, len(limited))
	for n, i := range limited {
		tasks[n], jobs[n] = slotTask(answers[i].definition), starts[i].JobID
	}
	var behind map[int64]bool
	err := e.db.Read(ctx, func(tx *postgres.Tx) (err error) {
		behind, err = tx.BehindOthers(ctx, tasks, jobs)
		return err
	})
	if err != nil {
		return fmt.Errorf("look who waits for slots: %w", err)
	}
	byTask := map[string][]int{}
	for n, i := range limited {
		if !behind[jobs[n]] {
			byTask[tasks[n]] = append(byTask[tasks[n]], i)
		}
	}
	for task, first := range byTask {
		holds := make([]*hold, len(first))
		for n, i := range first {
			holds[n] = &hold{lose: starts[i].lose}
		}
		slots := answers[first[0]].definition.MaxConcurrency
		if err := e.session.lockSome(postgres.SlotKeys(task, slots), holds); err != nil {
			return err
		}
		for n, i := range first {
			if holds[n].key != "" {
				answers[i].slot = holds[n]
			}
		}
	}
	return nil
}

func (e *Executor) startWithSlots(ctx context.Context, tx *postgres.Tx, starts []start, answers []*started, limited []int) error {
	var may []postgres.Start
	var tasks []string
	var with, without []int64
	for _, i := range limited {
		job := starts[i].JobID
		if answers[i].slot != nil {
			may, with = append(may, starts[i].Start), append(with, job)
			continue
		}
		answers[i].waits = true
		tasks, without = append(tasks, slotTask(answers[i].definition)), append(without, job)
	}
	if len(without) > 0 {
		if err := tx.WaitForSlots(ctx, tasks, without); err != nil {
			return fmt.Errorf("wait for slots: %w", err)
		}
	}
	if len(may) == 0 {
		return nil
	}
	if err := tx.HaveSlots(ctx, with); err != nil {
		return fmt.Errorf("note who has a slot: %w", err)
	}
	runs, err := tx.StartRuns(ctx, e.node.ID.String(), may)
	for _, i := range limited {
		if answers[i].slot != nil {
			answers[i].run = runs[starts[i].JobID]
		}
	}
	return err
}

// releaseSlot gives a slot back, and has the first of those woken who wait for it.
func (e *Executor) releaseSlot(s *started) {
	e.session.release(s.slot)
	e.slots.owe(slotTask(s.definition))
}

// slotKeeper wakes jobs that wait for slots: one for each slot that was given back here,
// and those that nobody else has woken, since the node that had a slot was lost, or the
// limit was raised.
type slotKeeper struct {
	db *postgres.DB

	mu   sync.Mutex
	owed map[string]int // slots given back for which nobody was woken, by task
	wake chan struct{}

	// Of the looks, which one goroutine makes.
	free  []map[string]int // the slots that nobody had, by task, at the last ones
	looks int
}

func newSlotKeeper(db *postgres.DB) *slotKeeper {
	return &slotKeeper{db: db, owed: map[string]int{}, wake: make(chan struct{}, 1)}
}

func (k *slotKeeper) owe(task string) {
	k.mu.Lock()
	k.owed[task]++
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run wakes a job for each slot that is owed, until ctx ends.
func (k *slotKeeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
		for k.pay(ctx) {
			// River puts those off who are to wait a moment after they were told so.
			select {
			case <-ctx.Done():
				return
			case <-k.wake:
			case <-time.After(owedEvery):
			}
		}
	}
}

// pay tells whether something is owed still. What an error leaves is found by the looks.
func (k *slotKeeper) pay(ctx context.Context) (left bool) {
	k.mu.Lock()
	owed := k.owed
	k.owed = map[string]int{}
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	for task, n := range owed {
		var woken int
		var more bool
		err := k.db.InTx(ctx, func(tx *postgres.Tx) (err error) {
			woken, more, err = tx.WakeForSlots(ctx, task, n)
			return err
		})
		if err == nil && woken < n && more {
			k.mu.Lock()
			k.owed[task] += n - woken
			k.mu.Unlock()
			left = true
		}
	}
	return left
}

// look wakes jobs for slots that were free for so many looks, and are.
func (k *slotKeeper) look(ctx context.Context) error {
	free := map[string]int{}
	err := k.db.InTx(ctx, func(tx *postgres.Tx) error {
		clear(free)
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
			if n = k.least(task.TaskName, n) - task.Woken; n <= 0 {
				continue
			}
			if _, _, err := tx.WakeForSlots(ctx, task.TaskName, n); err != nil {
				return fmt.Errorf("wake who waits for slots of %s: %w", task.TaskName, err)
			}
		}
		return nil
	})
	k.free = append(k.free, free)
	k.free = k.free[max(len(k.free)-slotLooks, 0):]
	return err
}

// least is how many slots were free at each of the last looks, and are.
func (k *slotKeeper) least(task string, now int) int {
	if len(k.free) < slotLooks {
		return 0
	}
	for _, free := range k.free {
		now = min(now, free[task])
	}
	return now
}
