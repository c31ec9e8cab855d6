package tick

import (
	"context"
	"errors"
	"fmt"
	"time"

	"riverbeat/internal/postgres"
)

const (
	// upkeepEvery is how often there is something to keep up, and upkeepAgain how long
	// after a failure it is tried again.
	upkeepEvery = time.Hour
	upkeepAgain = time.Second
	// weeksAhead is how many partitions are made before they are needed.
	weeksAhead = 2
)

// RunUpkeep makes the partitions of the weeks to come, forgets nodes that went long ago
// and puts back in line who waits and is in none, until ctx ends. A failure is logged,
// once for as long as it stays the same, and tried again.
//
// It has a goroutine of its own, for no tick shall wait for it: one that needs a
// partition makes it.
func (t *Ticker) RunUpkeep(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var fault fault
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := upkeepEvery
		err := t.Upkeep(ctx)
		if err != nil {
			wait = upkeepAgain
		}
		fault.log(ctx, t.logger, "partition upkeep failed", err)
		timer.Reset(wait)
	}
}

// Upkeep does once what RunUpkeep does. What fails keeps nothing else from being done.
func (t *Ticker) Upkeep(ctx context.Context) error {
	return errors.Join(
		t.makePartitions(ctx),
		t.inTx(ctx, func(ctx context.Context, tx *postgres.Tx) error { return tx.ForgetNodes(ctx) }),
		t.inTx(ctx, func(ctx context.Context, tx *postgres.Tx) error {
			_, err := tx.RestoreLines(ctx)
			return err
		}),
	)
}

func (t *Ticker) makePartitions(ctx context.Context) error {
	var now time.Time
	err := t.inTx(ctx, func(ctx context.Context, tx *postgres.Tx) (err error) {
		now, err = tx.Now(ctx)
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := t.partitions.EnsureAhead(ctx, now, weeksAhead); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}
