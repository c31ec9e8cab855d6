package execute

import (
	"context"
	"time"

	"riverbeat/internal/postgres"
)

// maxStarts bounds one statement of starts.
const maxStarts = 500

// starter reads the runs of attempts that begin. They begin in bursts (River
// hands out a batch at a time), so those that ask while a statement is under
// way share the next one: nobody waits for company, and a burst costs a few
// statements instead of thousands.
type starter struct {
	db    *postgres.DB
	queue chan startRequest
}

type startRequest struct {
	start  postgres.Start
	answer chan<- startAnswer
}

type startAnswer struct {
	started *postgres.Started // nil: the job is not its run's
	err     error
}

func newStarter(db *postgres.DB) *starter {
	return &starter{db: db, queue: make(chan startRequest)}
}

// start asks for the run of one attempt. It needs run to be running.
func (s *starter) start(ctx context.Context, start postgres.Start) (*postgres.Started, error) {
	answer := make(chan startAnswer, 1)
	select {
	case s.queue <- startRequest{start, answer}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case a := <-answer:
		return a.started, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run serves until ctx ends.
func (s *starter) run(ctx context.Context) {
	var (
		pending []startRequest
		idle    = make(chan struct{}, 1)
		busy    bool
	)
	for {
		if len(pending) > 0 && !busy {
			n := min(len(pending), maxStarts)
			batch := pending[:n:n]
			pending = pending[n:]
			busy = true
			go func() {
				s.read(ctx, batch)
				idle <- struct{}{}
			}()
		}
		select {
		case r := <-s.queue:
			pending = append(pending, r)
		case <-idle:
			busy = false
		case <-ctx.Done():
			return
		}
	}
}

func (s *starter) read(ctx context.Context, batch []startRequest) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	starts := make([]postgres.Start, len(batch))
	for i, r := range batch {
		starts[i] = r.start
	}
	var started map[int64]*postgres.Started
	err := s.db.InTx(ctx, func(tx *postgres.Tx) error {
		var err error
		started, err = tx.StartedRuns(ctx, starts)
		return err
	})
	for _, r := range batch {
		r.answer <- startAnswer{started[r.start.JobID], err}
	}
}
