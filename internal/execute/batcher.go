package execute

import (
	"context"
	"time"
)

// maxBatch bounds one call of a batcher.
const maxBatch = 500

// batcher answers questions of many goroutines with few calls. Attempts begin
// and end in bursts (River hands out a batch at a time), so those that ask
// while a call is under way share the next one: nobody waits for company, and
// a burst costs a few statements instead of thousands.
type batcher[Q, A any] struct {
	// call answers each of the questions, in their order.
	call  func(context.Context, []Q) ([]A, error)
	queue chan question[Q, A]
}

type question[Q, A any] struct {
	q      Q
	answer chan<- answer[A]
}

type answer[A any] struct {
	a   A
	err error
}

func newBatcher[Q, A any](call func(context.Context, []Q) ([]A, error)) *batcher[Q, A] {
	return &batcher[Q, A]{call: call, queue: make(chan question[Q, A])}
}

// ask asks one question. It needs run to be running. A question that was taken
// is waited for, whatever becomes of ctx: it will be answered, and what the
// answer has done must be known.
func (b *batcher[Q, A]) ask(ctx context.Context, q Q) (A, error) {
	var none A
	to := make(chan answer[A], 1)
	select {
	case b.queue <- question[Q, A]{q, to}:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	got := <-to
	return got.a, got.err
}

// run serves until ctx ends, and answers all questions that it has taken.
func (b *batcher[Q, A]) run(ctx context.Context) {
	var pending []question[Q, A]
	done := make(chan struct{}, 1)
	busy := false
	for {
		if len(pending) > 0 && !busy {
			n := min(len(pending), maxBatch)
			batch := pending[:n:n]
			pending = pending[n:]
			busy = true
			go func() {
				b.answer(ctx, batch)
				done <- struct{}{}
			}()
		}
		select {
		case q := <-b.queue:
			pending = append(pending, q)
		case <-done:
			busy = false
		case <-ctx.Done():
			if busy {
				<-done
			}
			for _, q := range pending {
				q.answer <- answer[A]{err: context.Cause(ctx)}
			}
			return
		}
	}
}

func (b *batcher[Q, A]) answer(ctx context.Context, batch []question[Q, A]) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	questions := make([]Q, len(batch))
	for i, q := range batch {
		questions[i] = q.q
	}
	answers, err := b.call(ctx, questions)
	for i, q := range batch {
		got := answer[A]{err: err}
		if err == nil {
			got.a = answers[i]
		}
		q.answer <- got
	}
}
