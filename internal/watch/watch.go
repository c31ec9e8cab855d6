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
		ends, err := tx.RunEnds(ctx, maxAtOnce)
		if err != nil {
			return fmt.Errorf("read the ends of runs: %w", err)
		}
		concerned := map[uuid.UUID][]riverbeat.RunEnd{}
		for _, end := range ends {
			concerned[end.ScheduleID] = append(concerned[end.ScheduleID], end)
		}
		behind := len(ends) == maxAtOnce
		if !behind {
			if more, err = alsoDue(ctx, tx, concerned); err != nil {
				return err
			}
		}
		if len(concerned) == 0 {
			return nil
		}
		taken, err := w.take(ctx, tx, concerned, behind)
		more = more || behind && taken > 0
		return err
	})
	if postgres.IsOnHold(err) {
		return false, nil
	}
	return more, err
}

// alsoDue adds the schedules that have to be looked at, whatever has ended. more is whether
// there are more.
func alsoDue(ctx context.Context, tx *postgres.Tx, concerned map[uuid.UUID][]riverbeat.RunEnd) (more bool, err error) {
	due, err := tx.DueAlertStates(ctx, maxAtOnce)
	if err != nil {
		return false, fmt.Errorf("read which states are due: %w", err)
	}
	changed, err := tx.WatchNextSchedules(ctx, maxAtOnce)
	if err != nil {
		return false, fmt.Errorf("follow the definition of a task: %w", err)
	}
	for _, id := range slices.Concat(due, changed) {
		concerned[id] = slices.Clip(concerned[id]) // with its ends, if there are any
	}
	return len(due) >= maxAtOnce || len(changed) > 0, nil
}

// change is what people are told of.
type change struct {
	event    riverbeat.AlertEvent
	watching riverbeat.Watching
	state    riverbeat.AlertState // right after it
	run      *uuid.UUID           // by which it has changed; nil: by none
}

// take changes the states of schedules, by the ends of their runs and by the time. behind is
// whether there are more ends. It says how many ends were taken in: those of a schedule that
// somebody is changing are left for the next look.
func (w *Watcher) take(ctx context.Context, tx *postgres.Tx, concerned map[uuid.UUID][]riverbeat.RunEnd, behind bool) (taken int, err error) {
	states, held, err := tx.LockAlertStates(ctx, slices.Collect(maps.Keys(concerned)))
	if err != nil {
		return 0, fmt.Errorf("read the states of alerts: %w", err)
	}
	// After that, so that it is what their edits have left.
	watched, err := watched(ctx, tx, states)
	if err != nil {
		return 0, err
	}
	var done []int64
	for id, ends := range concerned {
		for _, end := range ends {
			if !held[id] {
				done = append(done, end.ID)
			}
		}
	}
	var changes []change
	var forgotten []uuid.UUID
	for _, state := range states {
		watching := watched[state.ScheduleID]
		if watching == nil {
			forgotten = append(forgotten, state.ScheduleID)
			continue
		}
		watching.Behind = behind
		for _, end := range concerned[state.ScheduleID] {
			if end.TaskName != watching.Schedule.TaskName {
				continue // of before it was given another one
			}
			if event := state.Ended(watching.Alerts, end); event != "" {
				changes = append(changes, change{event, *watching, *state, &end.RunID})
			}
		}
		for _, event := range state.Look(*watching) {
			c := change{event, *watching, *state, nil}
			if event == riverbeat.AlertFailing {
				c.run = state.FailedRun
			}
			changes = append(changes, c)
		}
	}
	if err := tx.DeleteRunEnds(ctx, done); err != nil {
		return 0, fmt.Errorf("take in the ends of runs: %w", err)
	}
	if err := tx.DeleteAlertStates(ctx, forgotten); err != nil {
		return 0, fmt.Errorf("forget the states of alerts: %w", err)
	}
	if err := tx.SetAlertStates(ctx, states); err != nil {
		return 0, fmt.Errorf("write the states of alerts: %w", err)
	}
	return len(done), w.tell(ctx, tx, changes)
}

// watched reads what is needed for a look at schedules. Those that are gone, or of which
// nobody is to be told, are not in it.
func watched(ctx context.Context, tx *postgres.Tx, states []*riverbeat.AlertState) (map[uuid.UUID]*riverbeat.Watching, error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return nil, err
	}
	ids, since := make([]uuid.UUID, len(states)), now
	for i, state := range states {
		if ids[i] = state.ScheduleID; state.Since.Before(since) {
			since = state.Since
		}
	}
	schedules, definitions, err := tx.SchedulesWithDefinitions(ctx, ids)
	if err != nil {
		return nil, err
	}
	installation, err := tx.Installation(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the installation: %w", err)
	}
	pauses, err := tx.PausesSince(ctx, since)
	if err != nil {
		return nil, fmt.Errorf("read the pauses: %w", err)
	}
	watched := make(map[uuid.UUID]*riverbeat.Watching, len(schedules))
	for id, s := range schedules {
		d := definitions[s.TaskName]
		if s.Alerts.IsZero() && (d == nil || d.Alerts.IsZero()) {
			continue
		}
		watched[id] = &riverbeat.Watching{
			Schedule: s, Alerts: riverbeat.AlertsOf(d, s.Alerts), Environment: installation.Environment,
			Now: now, Pauses: pauses,
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
	if err := w.partitions.Need(tx, ledger.Times(entries)...); err != nil {
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
