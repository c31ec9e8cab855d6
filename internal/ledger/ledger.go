// Package ledger is the one door through which ticks, requests and backfills
// become rows in runs and jobs in River, through which the line of a lock key
// moves up, and through which runs are cancelled and retried. tick, history,
// catalog and execute decide what shall be recorded; how it is admitted is
// decided here, by riverbeat.Admit under the lock of the key.
//
// Everything happens in the caller's transaction. The order of locks is:
// clock, admit key, job, run.
package ledger

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/metrics"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/trace"
)

// Ledger records runs. It is safe for concurrent use.
type Ledger struct {
	queue   *queue.Queue
	schemas *Schemas
	metrics *metrics.Metrics // nil: nothing is counted
	tracer  *trace.Tracer    // nil: nothing is traced
}

// New makes a Ledger.
func New(q *queue.Queue) *Ledger {
	return &Ledger{queue: q, schemas: NewSchemas()}
}

// Counting answers the Ledger that counts what it records, and shares all else with l.
func (l *Ledger) Counting(m *metrics.Metrics) *Ledger {
	counting := *l
	counting.metrics = m
	return &counting
}

// Tracing answers the Ledger that tells of what it records, and shares all else with l.
func (l *Ledger) Tracing(t *trace.Tracer) *Ledger {
	tracing := *l
	tracing.tracer = t
	return &tracing
}

// Schemas is the ledger's memory of compiled parameter schemas.
func (l *Ledger) Schemas() *Schemas { return l.schemas }

// Entry is a run to be recorded, as it is before its admission.
type Entry struct {
	Run        *riverbeat.Run
	AdmitAs    riverbeat.Policy // Run.ExecutionPolicy, but for chained catch-up
	MaxWaiting int
	Definition *riverbeat.TaskDefinition // nil: the task has none
	Warning    string                    // what is wrong with its parameters, although it runs; "": nothing

	admitted bool
}

// Request is what becomes one run of a schedule.
type Request struct {
	Schedule    *riverbeat.Schedule       // one that has no ID is none: the run only looks like one of it
	Definition  *riverbeat.TaskDefinition // nil: the task has none
	Features    riverbeat.Features        // nil: all are on
	Trigger     riverbeat.Trigger
	At          time.Time // nominal time, whole milliseconds
	BackfillID  *uuid.UUID
	RequestedBy string
}

// Entry makes the run of a request. Parameters that break the definition's
// schema give a run that has failed with reason invalid_params; an error is
// one of planning, for which the schedule is to blame.
func (l *Ledger) Entry(r Request, now time.Time) (*Entry, error) {
	s := r.Schedule
	run := newRun(s, r.Trigger, r.At)
	run.BackfillID, run.RequestedBy = r.BackfillID, r.RequestedBy
	entry := &Entry{Run: run, AdmitAs: s.ExecutionPolicy, MaxWaiting: s.MaxWaiting, Definition: r.Definition}
	run.Limits = s.Limits
	run.MaxAttempts = riverbeat.LimitsOf(r.Definition, s.Limits).MaxAttempts
	task := s.TaskName
	if d := r.Definition; d != nil {
		run.DefinitionVersion = d.Version
		if d.AliasOf != "" {
			task = d.AliasOf
		}
		if err := riverbeat.ValidateQueue(d.Queue); err != nil {
			return nil, err
		}
	}
	effective, warning, err := l.schemas.EffectiveOf(s, r.Definition, r.Features)
	if s.Shadow && r.Trigger.OfTick() {
		run.State, run.Reason, run.FinishedAt = riverbeat.Skipped, riverbeat.InShadow, &now
		entry.Warning = warning
		if err != nil {
			entry.Warning = riverbeat.Explain(err)
		}
		return entry, nil
	}
	if e, ok := errors.AsType[*riverbeat.Error](err); ok && e.Code == "invalid_params" {
		run.State, run.Reason, run.Error, run.FinishedAt = riverbeat.Failed, riverbeat.InvalidParams, e.Error(), &now
		return entry, nil
	}
	if err != nil {
		return nil, err
	}
	run.TaskParams, entry.Warning = effective, warning

	if s.ExecutionPolicy.Keyed() {
		if run.LockKey, err = riverbeat.LockKey(task, s.Args, effective); err != nil {
			return nil, err
		}
		if !r.Features.On(riverbeat.FeatureExecutionPolicy, run.LockKey) {
			run.LockKey, run.ExecutionPolicy, entry.AdmitAs = "", riverbeat.Allow, riverbeat.Allow
		}
	}
	if r.Trigger == riverbeat.TriggerCatchUp && s.CatchUp == riverbeat.CatchUpAll { // a chain
		run.LockKey, entry.AdmitAs = cmp.Or(run.LockKey, riverbeat.ChainKey(s.ID)), riverbeat.Queue
	}
	return entry, nil
}

// Gap makes the row of a gap.
func Gap(s *riverbeat.Schedule, gap *riverbeat.Gap, now time.Time) *Entry {
	run := newRun(s, riverbeat.TriggerSchedule, gap.Until)
	if now.Sub(gap.Until) > riverbeat.OnTime {
		run.Trigger = riverbeat.TriggerCatchUp
	}
	run.State, run.Reason = riverbeat.Missed, gap.Reason
	run.MissedFrom, run.MissedUntil, run.MissedCount = &gap.From, &gap.Until, gap.Count
	run.FinishedAt = &now
	return &Entry{Run: run}
}

func newRun(s *riverbeat.Schedule, trigger riverbeat.Trigger, at time.Time) *riverbeat.Run {
	var random [10]byte
	_, _ = rand.Read(random[:]) // never fails, crypto/rand
	run := &riverbeat.Run{
		ID:              riverbeat.NewRunID(at, random[:]),
		ScheduleName:    s.Name,
		ScheduleVersion: s.Version,
		TaskName:        s.TaskName,
		Category:        s.Category,
		Tags:            s.Tags,
		Args:            s.Args,
		TaskParams:      s.TaskParams,
		ExecutionPolicy: s.ExecutionPolicy,
		Trigger:         trigger,
		ScheduledFor:    at.UTC(),
	}
	if s.ID != uuid.Nil {
		run.ScheduleID = &s.ID
	}
	return run
}

// Record admits the entries in the order of their nominal times, enqueues the
// jobs of those that may run, and writes all of them. The partitions of their
// times must exist. At most postgres.MaxKeysPerTx of them may be keyed. After a
// failure that the caller has undone, the same entries may be recorded again.
func (l *Ledger) Record(ctx context.Context, tx *postgres.Tx, now time.Time, entries []*Entry) error {
	entries = slices.SortedStableFunc(slices.Values(entries), inLine)
	keys := lockKeys(entries)
	if len(keys) > postgres.MaxKeysPerTx {
		return fmt.Errorf("%d lock keys in one transaction", len(keys))
	}
	if err := tx.LockKeys(ctx, keys); err != nil {
		return fmt.Errorf("lock %d keys: %w", len(keys), err)
	}
	busy, err := tx.Busy(ctx, keys)
	if err != nil {
		return fmt.Errorf("read who is busy: %w", err)
	}
	jobs := admit(entries, busy, now)
	for i, job := range jobs {
		jobs[i].Trace = trace.CarryRun(ctx, job.Run.ID)
	}
	duplicates, err := l.queue.Enqueue(ctx, tx.Tx, now, jobs)
	if err != nil {
		return err
	}
	// Whoever makes a job live without our lock may still have been faster: then
	// River's unique index has the last word, and all of its key are admitted
	// anew, behind that job.
	taken := map[string]*riverbeat.Busy{}
	for _, d := range duplicates {
		taken[d.Entry.Run.LockKey] = &riverbeat.Busy{Job: &d.BlockedBy, JobState: d.State}
	}
	admit(slices.DeleteFunc(slices.Clone(entries), func(e *Entry) bool { return taken[e.Run.LockKey] == nil }), taken, now)

	runs := make([]*riverbeat.Run, len(entries))
	for i, e := range entries {
		runs[i] = e.Run
	}
	if err := tx.InsertRuns(ctx, runs); err != nil {
		return fmt.Errorf("insert %d runs: %w", len(runs), err)
	}
	tx.AfterCommit(func() {
		l.metrics.Recorded(runs)
		for _, r := range runs {
			l.tracer.Recorded(ctx, TraceOf(r), string(r.State), r.ScheduledFor, now)
		}
	})
	return l.announceWaiting(ctx, tx, runs)
}

// TraceOf is what is told of a run in its trace.
func TraceOf(r *riverbeat.Run) trace.Run {
	return trace.Run{ID: r.ID, Task: r.TaskName, Trigger: string(r.Trigger)}
}

// inLine is the order of a key's line, as promotion has it.
func inLine(a, b *Entry) int {
	last := func(e *Entry) int {
		if e.Run.Trigger == riverbeat.TriggerBackfill {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(last(a), last(b)),
		a.Run.ScheduledFor.Compare(b.Run.ScheduledFor),
		bytes.Compare(a.Run.ID[:], b.Run.ID[:]),
	)
}

// admit decides the entries in turn, each of them counting for the next of its
// key, and returns the jobs of those that may run.
func admit(entries []*Entry, busy map[string]*riverbeat.Busy, now time.Time) []queue.Entry {
	var jobs []queue.Entry
	for _, e := range entries {
		e.forget()
		if e.Run.State.Ended() {
			continue // a gap, or one that cannot run
		}
		if e.admit(busy, now); e.Run.State == riverbeat.Queued {
			jobs = append(jobs, job(e.Run, e.Definition))
		}
	}
	return jobs
}

// admit decides a run and counts it for the next of its key.
func (e *Entry) admit(busy map[string]*riverbeat.Busy, now time.Time) {
	e.admitted = true
	run := e.Run
	if run.LockKey == "" {
		run.State = riverbeat.Queued
		return
	}
	b := busy[run.LockKey]
	if b == nil {
		b = &riverbeat.Busy{}
		busy[run.LockKey] = b
	}
	a := riverbeat.Admit(e.AdmitAs, run.Trigger, e.MaxWaiting, *b)
	b.Admitted(run.ID, run.Trigger, a)
	run.State, run.Reason, run.BlockedBy = a.State, a.Reason, a.BlockedBy
	if a.State == riverbeat.Skipped {
		run.FinishedAt = &now
	}
}

// forget takes back an admission that was undone.
func (e *Entry) forget() {
	if !e.admitted {
		return
	}
	e.admitted = false
	r := e.Run
	r.State, r.Reason, r.BlockedBy, r.JobID, r.EnqueuedAt, r.FinishedAt = "", "", nil, nil, nil, nil
}

// announceWaiting wakes the nodes for each key that somebody now waits behind:
// the job in the way may have ended since it was read.
func (l *Ledger) announceWaiting(ctx context.Context, tx *postgres.Tx, runs []*riverbeat.Run) error {
	told := map[string]bool{}
	for _, r := range runs {
		if r.State != riverbeat.Waiting || told[r.LockKey] {
			continue
		}
		told[r.LockKey] = true
		if err := tx.Notify(ctx, postgres.ChannelLines, r.LockKey); err != nil {
			return err
		}
	}
	return nil
}

// Promote gives the first of the key's line its job, if nothing stands in its
// way. It does no harm when nobody waits or the key is busy, and may be called
// any number of times.
func (l *Ledger) Promote(ctx context.Context, tx *postgres.Tx, key string) error {
	if err := tx.LockKeys(ctx, []string{key}); err != nil {
		return err
	}
	if held, err := tx.HasLiveJob(ctx, key); err != nil || held {
		return err
	}
	first, err := tx.FirstWaiting(ctx, key)
	if err != nil || first == nil {
		return err
	}
	definition, err := definitionOf(ctx, tx, first)
	if err != nil {
		return err
	}
	inTheWay, err := l.enqueue(ctx, tx, job(first, definition)) // whoever made room did not ask for it: no trace
	if err != nil || inTheWay != nil {
		return err // someone's job holds the key after all; its end promotes
	}
	return tx.Promote(ctx, first)
}

// definitionOf reads the definition that a run's task has now; nil for none.
func definitionOf(ctx context.Context, tx *postgres.Tx, run *riverbeat.Run) (*riverbeat.TaskDefinition, error) {
	definitions, err := tx.TaskDefinitions(ctx, []string{run.TaskName})
	return definitions[run.TaskName], err
}

// enqueue gives a run that is written already its job, due now. If a live job holds its
// key, that is answered and the run is left as it was.
func (l *Ledger) enqueue(ctx context.Context, tx *postgres.Tx, entry queue.Entry) (*queue.Duplicate, error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return nil, err
	}
	duplicates, err := l.queue.Enqueue(ctx, tx.Tx, now, []queue.Entry{entry})
	if err != nil || len(duplicates) == 0 {
		return nil, err
	}
	return &duplicates[0], nil
}

func job(run *riverbeat.Run, d *riverbeat.TaskDefinition) queue.Entry {
	e := queue.Entry{Run: run, Queue: riverbeat.DefaultQueue, Priority: riverbeat.DefaultPriority}
	if d != nil {
		e.Queue, e.Priority = d.Queue, d.Priority
	}
	if run.Trigger == riverbeat.TriggerBackfill {
		e.Priority = riverbeat.BackfillPriority
	}
	return e
}

// RecordGap records a gap by itself, and asks p for its partition: the error may be one
// for p.InTx. Where runs are kept no longer, because the week is on its way out, the gap
// is not either.
func (l *Ledger) RecordGap(ctx context.Context, tx *postgres.Tx, p *postgres.Partitions, s *riverbeat.Schedule, gap *riverbeat.Gap, now time.Time) error {
	entries := []*Entry{Gap(s, gap, now)}
	err := tx.Savepoint(ctx, func(tx *postgres.Tx) error {
		if err := p.Need(tx, Times(entries)...); err != nil {
			return err
		}
		return l.Record(ctx, tx, now, entries)
	})
	if postgres.IsSealed(err) {
		return nil
	}
	return err
}

func lockKeys(entries []*Entry) []string {
	seen := map[string]bool{}
	var keys []string
	for _, e := range entries {
		if key := e.Run.LockKey; key != "" && !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}
