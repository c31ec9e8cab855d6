package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"riverbeat/internal/metrics"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// maxAlarms bounds the alarms of an installation; recurrences beyond it are
// found by the sweep.
const maxAlarms = 5_000

// alarms keeps one River periodic job for each distinct recurrence of the
// enabled schedules. River holds them in the leader's memory and calls them
// approximate, so an alarm carries nothing: it wakes the Ticker and makes no
// job. Every node keeps them, since each may become leader. It is used by one
// goroutine.
type alarms struct {
	db      *postgres.DB
	bundle  *river.PeriodicJobBundle
	wake    func()
	metrics *metrics.Metrics // nil: nothing is counted
	handles map[postgres.RecurrenceKey]rivertype.PeriodicJobHandle
}

func newAlarms(db *postgres.DB, bundle *river.PeriodicJobBundle, wake func(), m *metrics.Metrics) *alarms {
	return &alarms{db: db, bundle: bundle, wake: wake, metrics: m, handles: map[postgres.RecurrenceKey]rivertype.PeriodicJobHandle{}}
}

// sync adds and removes alarms until they are those of the schedules.
func (a *alarms) sync(ctx context.Context) error {
	var keys []postgres.RecurrenceKey
	err := a.db.InTx(ctx, func(tx *postgres.Tx) error {
		var err error
		keys, err = tx.Recurrences(ctx, maxAlarms)
		return err
	})
	if err != nil {
		return fmt.Errorf("read recurrences: %w", err)
	}
	wanted := make(map[postgres.RecurrenceKey]bool, len(keys))
	for _, key := range keys {
		wanted[key] = true
		if _, ok := a.handles[key]; ok {
			continue
		}
		recurrence, err := riverbeat.ParseRecurrence(key.CronExpression, key.Timezone)
		if err != nil {
			continue // the claim stops its schedules and says why
		}
		a.handles[key] = a.bundle.Add(river.NewPeriodicJob(alarm{recurrence}, func() (river.JobArgs, *river.InsertOpts) {
			a.metrics.AlarmFired()
			a.wake()
			return nil, nil
		}, nil))
	}
	for key, handle := range a.handles {
		if !wanted[key] {
			a.bundle.Remove(handle)
			delete(a.handles, key)
		}
	}
	a.metrics.Alarms(len(a.handles))
	return nil
}

// alarm is a recurrence as River's periodic jobs ask for it.
type alarm struct{ *riverbeat.Recurrence }

// Next is the first tick after now, or never.
func (a alarm) Next(now time.Time) time.Time {
	if next, ok := a.Recurrence.Next(now); ok {
		return next
	}
	return river.NeverSchedule().Next(now)
}
