package history

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// audited is what the audit trail shows of a run.
type audited struct {
	ScheduleID        *uuid.UUID       `json:"schedule_id"`
	ScheduleName      string           `json:"schedule_name"`
	TaskName          string           `json:"task_name"`
	TaskParams        json.RawMessage  `json:"task_params"`
	ExecutionPolicy   riverbeat.Policy `json:"execution_policy"`
	State             riverbeat.State  `json:"state"`
	Reason            riverbeat.Reason `json:"reason,omitempty"`
	JobID             *int64           `json:"job_id"`
	CancelRequestedAt *time.Time       `json:"cancel_requested_at"`
}

func auditedOf(r *riverbeat.Run) *audited {
	return &audited{
		ScheduleID: r.ScheduleID, ScheduleName: r.ScheduleName, TaskName: r.TaskName, TaskParams: r.TaskParams,
		ExecutionPolicy: r.ExecutionPolicy, State: r.State, Reason: r.Reason, JobID: r.JobID, CancelRequestedAt: r.CancelRequestedAt,
	}
}

// audit writes down what the actor of ctx did to a run; before is nil if it is a
// new one.
func audit(ctx context.Context, tx *postgres.Tx, action string, before, after *riverbeat.Run) error {
	object := riverbeat.AuditObject{Type: "run", ID: after.ID.String()}
	if before == nil {
		return tx.Audit(ctx, action, object, nil, auditedOf(after))
	}
	return tx.Audit(ctx, action, object, auditedOf(before), auditedOf(after))
}

// auditedBackfill is what the audit trail shows of a backfill.
type auditedBackfill struct {
	ScheduleID      uuid.UUID               `json:"schedule_id"`
	ScheduleName    string                  `json:"schedule_name"`
	From            time.Time               `json:"from"`
	To              time.Time               `json:"to"`
	ExecutionPolicy *riverbeat.Policy       `json:"execution_policy"`
	OnlyMissing     bool                    `json:"only_missing"`
	State           riverbeat.BackfillState `json:"state"`
	Total           int                     `json:"total"`
	Decided         int                     `json:"decided"`
}

func auditedBackfillOf(b *riverbeat.Backfill) *auditedBackfill {
	return &auditedBackfill{
		b.ScheduleID, b.ScheduleName, b.From, b.To, b.ExecutionPolicy, b.OnlyMissing, b.State, b.Total, b.Decided,
	}
}

func backfillObject(b *riverbeat.Backfill) riverbeat.AuditObject {
	return riverbeat.AuditObject{Type: "backfill", ID: b.ID.String()}
}
