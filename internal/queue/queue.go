// Package queue puts runs into River: what a job carries, which runs are
// unique, the insertion of a batch in the caller's transaction, and the
// cancellation of a job. Taking jobs out is package worker's.
package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"riverbeat/internal/riverbeat"
	"riverbeat/internal/trace"
)

// RunArgs is what a job carries. The history trigger goes by run_id, and
// River's unique index by lock_key; the rest is for people who look into
// River UI. No secrets, ever.
type RunArgs struct {
	RunID        uuid.UUID       `json:"run_id"`
	ScheduledFor time.Time       `json:"scheduled_for"`
	LockKey      string          `json:"lock_key,omitempty" river:"unique"`
	TaskName     string          `json:"task_name"`
	ScheduleName string          `json:"schedule_name"`
	TaskParams   json.RawMessage `json:"task_params"`
}

// Kind is the kind of all our jobs in River; the history trigger knows it.
func (RunArgs) Kind() string { return "run" }

// MetadataKey is the member of a job's metadata in which the history trigger
// looks for what it cannot see by itself: state and reason.
const MetadataKey = "riverbeat"

// unique holds a lock key from the insertion of its job until the job has
// ended, retries included.
var unique = river.UniqueOpts{
	ByArgs: true,
	ByState: []rivertype.JobState{
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning,
		rivertype.JobStateRetryable, rivertype.JobStateScheduled,
	},
}

// Queue inserts jobs. It is safe for concurrent use.
type Queue struct {
	client *river.Client[pgx.Tx]
}

// New makes a Queue for the River tables in schema.
func New(pool *pgxpool.Pool, schema string, logger *slog.Logger) (*Queue, error) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Schema: schema, Logger: logger,
		// At most one notification of new jobs in this time leaves this process.
		// Whoever hears of none looks once a second: too late for a line.
		FetchCooldown: river.FetchCooldownMin,
		Middleware:    []rivertype.Middleware{river.JobInsertMiddlewareFunc(stamp)},
	})
	if err != nil {
		return nil, fmt.Errorf("make a River client: %w", err)
	}
	return &Queue{client: client}, nil
}

type nowKey struct{}

// stamp gives jobs the database's time. By itself River's driver takes that of
// this machine, and nobody may fetch the jobs of a node whose clock is ahead.
// (InsertOpts.ScheduledAt would make them scheduled, not available.)
func stamp(
	ctx context.Context, params []*rivertype.JobInsertParams,
	insert func(context.Context) ([]*rivertype.JobInsertResult, error),
) ([]*rivertype.JobInsertResult, error) {
	if now, ok := ctx.Value(nowKey{}).(time.Time); ok {
		for _, p := range params {
			p.CreatedAt, p.ScheduledAt = &now, &now
		}
	}
	return insert(ctx)
}

// Client is River's client that inserts only, for River UI.
func (q *Queue) Client() *river.Client[pgx.Tx] { return q.client }

// Entry is a run that gets a job, and where the job goes.
type Entry struct {
	Run      *riverbeat.Run
	Queue    string
	Priority int // 1 (first) to 4
	// Trace is what trace.Carry has said of the request that asks for the job; "": nobody
	// does, or nothing is traced.
	Trace string
}

// Duplicate is a run whose key was taken by another job after all.
type Duplicate struct {
	Entry     Entry
	BlockedBy uuid.UUID // the run of that job
	State     riverbeat.State
}

// traceMetadata is the metadata of a job that carries a trace; nil, which costs nothing, of
// one that carries none.
func traceMetadata(carried string) []byte {
	if carried == "" {
		return nil
	}
	metadata, _ := json.Marshal(map[string]string{trace.Member: carried}) // never fails
	return metadata
}

// Trace is the trace that a job carries; "": none.
func Trace(job *rivertype.JobRow) string {
	if !bytes.Contains(job.Metadata, []byte(trace.Member)) {
		return ""
	}
	var metadata struct {
		Trace string `json:"traceparent"`
	}
	_ = json.Unmarshal(job.Metadata, &metadata) // what cannot be read carries none
	return metadata.Trace
}

// Enqueue inserts a job for each run, due now by the database's clock, and sets
// the run's JobID, EnqueuedAt and state. Keyed runs are inserted in the order of
// their keys; each key may occur once. The runs that met a live job of their key
// are returned; they are left as they were.
func (q *Queue) Enqueue(ctx context.Context, tx pgx.Tx, now time.Time, entries []Entry) ([]Duplicate, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b Entry) int { return strings.Compare(a.Run.LockKey, b.Run.LockKey) })

	params := make([]river.InsertManyParams, len(entries))
	for i, e := range entries {
		opts := &river.InsertOpts{MaxAttempts: e.Run.MaxAttempts, Queue: e.Queue, Priority: e.Priority, Metadata: traceMetadata(e.Trace)}
		if e.Run.LockKey != "" {
			opts.UniqueOpts = unique
		}
		params[i] = river.InsertManyParams{InsertOpts: opts, Args: RunArgs{
			RunID:        e.Run.ID,
			ScheduledFor: e.Run.ScheduledFor,
			LockKey:      e.Run.LockKey,
			TaskName:     e.Run.TaskName,
			ScheduleName: e.Run.ScheduleName,
			TaskParams:   e.Run.TaskParams,
		}}
	}
	results, err := q.client.InsertManyTx(context.WithValue(ctx, nowKey{}, now), tx, params)
	if err != nil {
		return nil, fmt.Errorf("insert %d jobs: %w", len(params), err)
	}
	var duplicates []Duplicate
	for i, result := range results {
		e := entries[i]
		if !result.UniqueSkippedAsDuplicate {
			e.Run.State, e.Run.JobID, e.Run.EnqueuedAt = riverbeat.Queued, &result.Job.ID, &now
			continue
		}
		var args RunArgs
		if err := json.Unmarshal(result.Job.EncodedArgs, &args); err != nil {
			return nil, fmt.Errorf("read the job %d in the way: %w", result.Job.ID, err)
		}
		duplicates = append(duplicates, Duplicate{Entry: e, BlockedBy: args.RunID, State: runState(result.Job)})
	}
	return duplicates, nil
}

// Cancel cancels a job that waits for an attempt, or asks its node to end the
// attempt that is running. It tells whether one is; if not, the job has ended,
// or there is none any more.
func (q *Queue) Cancel(ctx context.Context, tx pgx.Tx, jobID int64) (running bool, err error) {
	job, err := q.client.JobCancelTx(ctx, tx, jobID)
	if errors.Is(err, river.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cancel the job %d: %w", jobID, err)
	}
	return job.State == rivertype.JobStateRunning, nil
}

func runState(job *rivertype.JobRow) riverbeat.State {
	switch {
	case job.State == rivertype.JobStateRunning:
		return riverbeat.Running
	case job.State == rivertype.JobStateRetryable, job.Attempt > 0:
		return riverbeat.Retrying
	default:
		return riverbeat.Queued
	}
}
