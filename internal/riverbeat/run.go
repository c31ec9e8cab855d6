package riverbeat

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// State is how far a run has come.
type State string

// The states of a run. A run starts as waiting, queued, skipped or missed.
const (
	Waiting   State = "waiting"   // in the line of its key, without a job
	Queued    State = "queued"    // its job waits for a worker
	Running   State = "running"   // an attempt is under way
	Retrying  State = "retrying"  // an attempt failed, another follows
	Succeeded State = "succeeded" // ended
	Failed    State = "failed"    // ended: the last attempt failed
	Cancelled State = "cancelled" // ended by a person or an edit
	Skipped   State = "skipped"   // never ran: its policy said so
	Missed    State = "missed"    // a gap: ticks that were not run
)

// Ended tells whether the state is final.
func (s State) Ended() bool {
	switch s {
	case Waiting, Queued, Running, Retrying:
		return false
	case Succeeded, Failed, Cancelled, Skipped, Missed:
		return true
	}
	return false
}

// Reason says why a run is in its state; "" where the state says it all.
type Reason string

// The reasons.
const (
	AlreadyRunning   Reason = "already_running"
	AlreadyQueued    Reason = "already_queued"
	RetryPending     Reason = "retrying"
	QueueFull        Reason = "queue_full"
	InShadow         Reason = "shadow" // its schedule ticks only to be looked at
	Fenced           Reason = "fenced"
	WorkerLost       Reason = "worker_lost"
	NoWorker         Reason = "no_worker"
	NoSlot           Reason = "no_slot"
	InvalidParams    Reason = "invalid_params"
	ScheduleDeleted  Reason = "schedule_deleted"
	ScheduleDisabled Reason = "schedule_disabled"
	Paused           Reason = "paused"
	OutsideWindow    Reason = "outside_window"
	Superseded       Reason = "superseded"
	JobDeleted       Reason = "job_deleted"
	CancelledByUser  Reason = "cancelled_by_user"
)

// MaxLives is how many jobs a run may lose with their nodes; with the last one
// it has failed.
const MaxLives = 3

// Trigger says what asked for a run.
type Trigger string

// The triggers.
const (
	TriggerSchedule Trigger = "schedule" // a tick, decided on time
	TriggerCatchUp  Trigger = "catch_up" // a tick, decided late
	TriggerManual   Trigger = "manual"   // a person
	TriggerBackfill Trigger = "backfill" // a range of the past, asked for
	TriggerAlert    Trigger = "alert"    // a change of a schedule that people are told of
)

// OfTick tells whether a tick asked for the run, and no person.
func (t Trigger) OfTick() bool { return t == TriggerSchedule || t == TriggerCatchUp }

// Run is what became of a tick or of a request. A gap (state missed) stands
// for MissedCount ticks from MissedFrom to MissedUntil, both included.
type Run struct {
	ID                uuid.UUID  // UUIDv7, its time is ScheduledFor
	ScheduleID        *uuid.UUID // nil: it tells people of the schedule that has the name
	ScheduleName      string
	ScheduleVersion   int
	DefinitionVersion int // 0: the task had no definition
	TaskName          string
	Category          string
	Tags              []string
	Args              json.RawMessage
	TaskParams        json.RawMessage // the effective ones, defaults filled in
	LockKey           string          // "" for policy allow
	ExecutionPolicy   Policy
	Trigger           Trigger
	BackfillID        *uuid.UUID
	ScheduledFor      time.Time // nominal time, whole milliseconds
	State             State
	Reason            Reason
	BlockedBy         *uuid.UUID // the run in the way, for skipped ones
	JobID             *int64
	Lives             int // jobs it has had that were lost
	LostLives         []LostLife
	Execution         int // starts, over attempts, snoozes and lives
	Attempt           int // tries, of all lives together
	MaxAttempts       int
	Limits            Limits // what its schedule said when it was planned
	EnqueuedAt        *time.Time
	StartedAt         *time.Time // first start of the current life
	FinishedAt        *time.Time
	CancelRequestedAt *time.Time // a running one goes on until its task obeys
	CancelRequestedBy string
	Node              string
	Result            json.RawMessage
	Error             string
	Logs              json.RawMessage // [{"attempt": n, "log": "…"}]
	MissedFrom        *time.Time
	MissedUntil       *time.Time
	MissedCount       *int // nil: more than MaxGapCount
	RequestedBy       string
}

// Attempt is one try of a run that has ended, or is under way.
type Attempt struct {
	Number  int        // of all lives together
	EndedAt *time.Time // nil: it has not
	Error   string     // "": it did not fail
}

// RunDetail is a run with what stands elsewhere about it.
type RunDetail struct {
	*Run
	// Attempts are those that River still knows of, in their order.
	Attempts []Attempt
	// Blocks are runs that it is or was in the way of.
	Blocks []BlockedRun
}

// BlockedRun is a run that another was in the way of.
type BlockedRun struct {
	ID           uuid.UUID
	ScheduleID   *uuid.UUID
	ScheduleName string
	ScheduledFor time.Time
	State        State
	Reason       Reason
}

// LostLife is a life of a run that ended with its node.
type LostLife struct {
	JobID     int64     `json:"job_id"`
	Node      string    `json:"node"`
	Execution int       `json:"execution"`
	LostAt    time.Time `json:"lost_at"`
}

// NewRunID makes the id of a run: a UUIDv7 (RFC 9562) whose 48 bits of time
// are scheduledFor in milliseconds, so that the id alone tells the partition.
// random must hold at least 10 bytes of randomness.
func NewRunID(scheduledFor time.Time, random []byte) uuid.UUID {
	var id uuid.UUID
	ms := uint64(scheduledFor.UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i)) //nolint:gosec // its lowest eight bits are wanted
	}
	copy(id[6:], random[:10])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// RunTime is the nominal time that a run's id carries. ok is false when id is
// not one that NewRunID makes.
func RunTime(id uuid.UUID) (scheduledFor time.Time, ok bool) {
	if id[6]>>4 != 7 || id[8]>>6 != 2 {
		return time.Time{}, false
	}
	var ms int64
	for i := range 6 {
		ms = ms<<8 | int64(id[i])
	}
	return time.UnixMilli(ms).UTC(), true
}
