package postgres

import (
	"context"
	"sync"
	"time"

	"riverbeat/internal/postgres/internal/dbq"
)

const week = 7 * 24 * time.Hour

// Partitions makes the weekly partitions of runs, and remembers which exist.
// It is safe for concurrent use. Each is made in a transaction of its own,
// before the transaction that needs it has touched runs.
type Partitions struct {
	db *DB

	mu   sync.Mutex
	have map[int64]bool // by week since the Unix epoch's Monday
}

// NewPartitions makes an empty memory of partitions.
func NewPartitions(db *DB) *Partitions {
	return &Partitions{db: db, have: map[int64]bool{}}
}

// Ensure makes the partitions of the given times that are missing.
func (p *Partitions) Ensure(ctx context.Context, times ...time.Time) error {
	for _, at := range times {
		// 1970-01-05 was a Monday.
		n := at.Add(-4*24*time.Hour).Unix() / int64(week/time.Second)
		p.mu.Lock()
		have := p.have[n]
		p.mu.Unlock()
		if have {
			continue
		}
		err := p.db.InTx(ctx, func(tx *Tx) error {
			_, err := dbq.New().CreateRunsPartition(ctx, tx.Tx, at)
			return err
		})
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.have[n] = true
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

// Forget drops what is remembered, after a partition was found missing.
func (p *Partitions) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.have)
}
