// Package watch tells people how schedules fare: it takes in the ends of the runs of those
// that have alerts, looks which have not succeeded for too long, and makes a run of each
// change, which posts the message (package execute/alert).
//
// What riverbeat.AlertState says, the states, and the runs that tell of it are written in
// one transaction with what was taken in: a change is told once, whatever dies in between.
package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/ledger"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const (
	// Every is how often a Watcher looks.
	Every = time.Second
	// maxAtOnce bounds the ends, and the states that are due, of one transaction.
	maxAtOnce = 1_000
	// callTimeout bounds one transaction.
	callTimeout = 30 * time.Second
)

// Watcher watches. Any number of them may work on one database: one at a time does.
type Watcher struct {
	ledger     *ledger.Ledger
	partitions *postgres.Partitions
	logger     *slog.Logger
}

// New makes a Watcher. It does nothing before Run.
func New(db *postgres.DB, l *ledger.Ledger, logger *slog.Logger) *Watcher {
	return &Watcher{ledger: l, partitions: postgres.NewPartitions(db.ByIndex()), logger: logger}
}

// Run looks once every Every until ctx ends. A failure is logged, once for as long as it
// stays the same, and tried again.
func (w *Watcher) Run(ctx context.Context) {
	timer := time.NewTimer(Every)
	defer timer.Stop()
	fault := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		text, wait := "", Every
		switch more, err := w.Look(ctx); {
		case err != nil && ctx.Err() == nil:
			text = riverbeat.Explain(err)
		case more:
			wait = 0
		}
		if text != "" && text != fault {
			w.logger.ErrorContext(ctx, "alerts do not go on", "error", text)
		}
		fault = text
		timer.Reset(wait)
	}
}

// Look takes in what there is, and makes the runs that tell of it. more is whether there is
// more. It does nothing while somebody else does, or on hold (postgres.Tx.AtHome).
func (w *Watcher) Look(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = w.partitions.InTx(ctx, func(tx *postgres.Tx) error {
		more = false
		if err := tx.AtHome(ctx); err != nil {
			return err
		}
		if free, err := tx.TryWatch(ctx); err != nil || !free {
			return err
		}
		ends, err := tx.TakeRunEnds(ctx, maxAtOnce)
		if err != nil {
			return fmt.Errorf("take the ends of runs: %w", err)
		}
		due, err := tx.DueAlertStates(ctx, maxAtOnce)
		if err != nil {
			return fmt.Errorf("read which states are due: %w", err)
		}
		if len(ends) == 0 && len(due) == 0 {
			return nil
		}
		more = len(ends) == maxAtOnce || len(due) == maxAtOnce
		return w.take(ctx, tx, ends, due)
	})
	if postgres.IsOnHold(err) {
		return false, nil
	}
	return more, err
}

// change is what people are told of.
type change struct {
	event    riverbeat.AlertEvent
	watching riverbeat.Watching
	state    riverbeat.AlertState // right after it
	run      *uuid.UUID           // by which it has changed; nil: by none
}

// take changes the states of schedules: by the ends of their runs, and by the time for
// those that are due.
func (w *Watcher) take(ctx context.Context, tx *postgres.Tx, ends []riverbeat.RunEnd, due []uuid.UUID) error {
	byID := map[uuid.UUID][]riverbeat.RunEnd{}
	for _, id := range due {
		byID[id] = nil
	}
	for _, end := range ends {
		byID[end.ScheduleID] = append(byID[end.ScheduleID], end)
	}
	ids := slices.Collect(maps.Keys(byID))
	states, err := tx.LockAlertStates(ctx, ids)
	if err != nil {
		return fmt.Errorf("read the states of alerts: %w", err)
	}
	watched, err := w.watched(ctx, tx, ids)
	if err != nil {
		return err
	}
	var changes []change
	for _, state := range states {
		watching := watched[state.ScheduleID]
		if watching.Schedule == nil {
			continue // deleted just now, and its state with it
		}
		note := func(event riverbeat.AlertEvent, run *uuid.UUID) {
			if event != "" && watching.Alerts.Tells(event) {
				changes = append(changes, change{event, watching, *state, run})
			}
		}
		for _, end := range byID[state.ScheduleID] {
			note(state.Ended(watching.Alerts, end), &end.RunID)
		}
		note(state.Look(watching), nil)
	}
	if err := tx.SetAlertStates(ctx, states); err != nil {
		return fmt.Errorf("write the states of alerts: %w", err)
	}
	return w.tell(ctx, tx, changes)
}

// watched reads what is needed for a look at schedules.
func (w *Watcher) watched(ctx context.Context, tx *postgres.Tx, ids []uuid.UUID) (map[uuid.UUID]riverbeat.Watching, error) {
	schedules, err := tx.Schedules(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read schedules: %w", err)
	}
	names := map[string]bool{}
	for _, s := range schedules {
		names[s.TaskName] = true
	}
	definitions, err := tx.TaskDefinitions(ctx, slices.Collect(maps.Keys(names)))
	if err != nil {
		return nil, fmt.Errorf("read definitions: %w", err)
	}
	now, err := tx.Now(ctx)
	if err != nil {
		return nil, err
	}
	installation, err := tx.Installation(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the installation: %w", err)
	}
	resumed, err := tx.LastResumedAt(ctx)
	if err != nil {
		return nil, fmt.Errorf("read when it was resumed: %w", err)
	}
	watched := make(map[uuid.UUID]riverbeat.Watching, len(schedules))
	for id, s := range schedules {
		watched[id] = riverbeat.Watching{
			Schedule: s, Alerts: riverbeat.AlertsOf(definitions[s.TaskName], s.Alerts), Environment: installation.Environment,
			Now: now, Paused: installation.PausedAt != nil, ResumedAt: resumed,
		}
	}
	return watched, nil
}

// tell makes the runs that tell of changes.
func (w *Watcher) tell(ctx context.Context, tx *postgres.Tx, changes []change) error {
	if len(changes) == 0 {
		return nil
	}
	definitions, err := tx.TaskDefinitions(ctx, []string{riverbeat.AlertTask})
	if err != nil {
		return fmt.Errorf("read the definition of %s: %w", riverbeat.AlertTask, err)
	}
	now := changes[0].watching.Now
	entries := make([]*ledger.Entry, len(changes))
	for i, c := range changes {
		params, err := c.params(ctx, tx)
		if err != nil {
			return err
		}
		s := c.watching.Schedule
		entries[i], err = w.ledger.Entry(ledger.Request{
			Schedule: &riverbeat.Schedule{
				Name: s.Name, TaskName: riverbeat.AlertTask, Args: json.RawMessage("[]"), TaskParams: params,
				Category: s.Category, Tags: s.Tags, ExecutionPolicy: riverbeat.Allow,
			},
			Definition: definitions[riverbeat.AlertTask], Trigger: riverbeat.TriggerAlert, At: now,
		}, now)
		if err != nil {
			return fmt.Errorf("make the alert of schedule %s: %w", s.ID, err)
		}
	}
	if err := w.partitions.Need(ledger.Times(entries)...); err != nil {
		return err
	}
	return w.ledger.Record(ctx, tx, now, entries)
}

// params are the parameters of the run that tells of a change.
func (c *change) params(ctx context.Context, tx *postgres.Tx) (json.RawMessage, error) {
	var run *riverbeat.Run
	if c.run != nil {
		var err error
		run, err = tx.Run(ctx, *c.run)
		if err != nil && riverbeat.KindOf(err) != riverbeat.NotFound { // its week may be gone
			return nil, fmt.Errorf("read run %s: %w", c.run, err)
		}
	}
	return json.Marshal(riverbeat.AlertParams{
		URL: c.watching.Alerts.URL, SigningSecret: c.watching.Alerts.SigningSecret,
		Message: riverbeat.NewAlertMessage(c.event, c.watching, &c.state, run),
	})
}
