package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"riverbeat/internal/postgres/internal/dbq"
)

const week = 7 * 24 * time.Hour

// Partitions makes the weekly partitions of runs, and remembers which exist.
// It is safe for concurrent use. Each is made in a transaction of its own,
// while no other is open: one that waits for a second connection of its pool
// can wait for ever. (Within a transaction, Tx.Within, it is made in that one.)
type Partitions struct {
	db *DB

	mu   sync.Mutex
	have map[int64]bool // by weekNumber
}

// NewPartitions makes an empty memory of partitions.
func NewPartitions(db *DB) *Partitions {
	return &Partitions{db: db, have: map[int64]bool{}}
}

// InTx is DB.InTx for a transaction that writes runs. Before it does, fn asks
// for their partitions by Need and returns its error; then they are made and
// fn is run again.
func (p *Partitions) InTx(ctx context.Context, fn func(tx *Tx) error) error {
	const tries = 5
	refused := map[int64]error{}
	for try := 1; ; try++ {
		err := p.db.InTx(ctx, func(tx *Tx) error {
			tx.refused = refused
			return fn(tx)
		})
		missing, needed := errors.AsType[*missingPartitions](err)
		switch {
		case try == tries:
			return err
		case needed:
			for _, at := range missing.times {
				if err := p.Ensure(ctx, at); IsSealed(err) {
					refused[weekNumber(at)] = err
				} else if err != nil {
					return fmt.Errorf("make partitions: %w", err)
				}
			}
		case IsMissingPartition(err):
			p.forget() // dropped after it was remembered
		default:
			return err
		}
	}
}

// Need is an error for InTx if a partition of the times is not known to exist. If InTx
// could not make one, since the week is on its way out, the error says so (IsSealed): it
// is that of a row that is refused.
func (p *Partitions) Need(tx *Tx, times ...time.Time) error {
	missing := p.missing(times)
	for _, at := range missing {
		if err := tx.refused[weekNumber(at)]; err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return &missingPartitions{missing}
	}
	return nil
}

type missingPartitions struct{ times []time.Time }

func (e *missingPartitions) Error() string {
	return fmt.Sprintf("there may be no partition for %s", e.times[0])
}

// Ensure makes the partitions of the given times that are missing.
func (p *Partitions) Ensure(ctx context.Context, times ...time.Time) error {
	for _, at := range p.missing(times) {
		err := p.db.InTx(ctx, func(tx *Tx) error {
			_, err := dbq.New().CreateRunsPartition(ctx, tx.Tx, at)
			return err
		})
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.have[weekNumber(at)] = true
		p.mu.Unlock()
	}
	return nil
}

// EnsureAhead makes the partitions of the week of now and of the given number
// of weeks after it.
func (p *Partitions) EnsureAhead(ctx context.Context, now time.Time, weeks int) error {
	for i := range weeks + 1 {
		if err := p.Ensure(ctx, now.Add(time.Duration(i)*week)); err != nil {
			return err
		}
	}
	return nil
}

// KeepsRuns tells whether there is a partition for runs of a nominal time: there
// is none where nothing has happened yet, and where it was dropped.
func (tx *Tx) KeepsRuns(ctx context.Context, at time.Time) (bool, error) {
	return tx.q.HasRunsPartition(ctx, tx.Tx, at)
}

// missing are the times, one of each week, whose partitions are not known to
// exist.
func (p *Partitions) missing(times []time.Time) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []time.Time
	listed := map[int64]bool{}
	for _, at := range times {
		if n := weekNumber(at); !p.have[n] && !listed[n] {
			listed[n] = true
			list = append(list, at)
		}
	}
	return list
}

func (p *Partitions) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.have)
}

// weekNumber counts weeks from that of 1970-01-01, whose Monday was
// 1969-12-29.
func weekNumber(at time.Time) int64 {
	return at.Add(3*24*time.Hour).Unix() / int64(week/time.Second)
}
