package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/riverbeat"
)

// installationState is the installation as it is answered.
type installationState struct {
	Environment string     `json:"environment" doc:"The label from the configuration." example:"production"`
	PausedAt    *time.Time `json:"paused_at" doc:"Since when no tick fires; null: they do."`
	PausedBy    *string    `json:"paused_by"`
	PauseReason *string    `json:"pause_reason"`
	Hold        *hold      `json:"hold,omitempty" doc:"Why this node does nothing; left out: it works."`
}

// hold is why a node does nothing, as it is answered.
type hold struct {
	Why      string `json:"why"`
	WouldRun struct {
		DueSchedules int        `json:"due_schedules" doc:"Whose ticks would be decided."`
		Jobs         int        `json:"jobs" doc:"Not finished; they would be worked."`
		WaitingRuns  int        `json:"waiting_runs" doc:"In lines, that would move up."`
		Next         []nextTick `json:"next" doc:"The first ticks, at most 10."`
	} `json:"would_run" doc:"What would happen at once if the node worked here."`
}

type nextTick struct {
	ScheduleID   uuid.UUID `json:"schedule_id"`
	ScheduleName string    `json:"schedule_name"`
	TaskName     string    `json:"task_name"`
	At           time.Time `json:"at"`
}

func stateOf(i *riverbeat.Installation) *installationState {
	return &installationState{
		Environment: i.Environment, PausedAt: i.PausedAt, PausedBy: orNull(i.PausedBy), PauseReason: orNull(i.PauseReason),
		Hold: holdOf(i.Hold),
	}
}

func holdOf(h *riverbeat.Hold) *hold {
	if h == nil {
		return nil
	}
	answer := &hold{Why: h.Why}
	would := &answer.WouldRun
	would.DueSchedules, would.Jobs, would.WaitingRuns = h.DueSchedules, h.Jobs, h.WaitingRuns
	would.Next = make([]nextTick, len(h.Next))
	for i, n := range h.Next {
		would.Next[i] = nextTick(n)
	}
	return answer
}

type installationRequest struct{}

func (a *api) getInstallation(ctx context.Context, _ *installationRequest) (*answer[*installationState], error) {
	return installationAnswer(a.Installation.Read(ctx))
}

type pauseRequest struct{ Body pauseInput }

type pauseInput struct {
	Reason *string `json:"reason" required:"true" doc:"Why, for those who find ticks missing. At most 500 characters." example:"The warehouse is being migrated"`
}

func (in *pauseInput) check() error {
	return riverbeat.ValidatePauseReason(valueOr(in.Reason, ""))
}

func (a *api) pause(ctx context.Context, req *pauseRequest) (*answer[*installationState], error) {
	return installationAnswer(a.Installation.Pause(ctx, valueOr(req.Body.Reason, "")))
}

func (a *api) resume(ctx context.Context, _ *installationRequest) (*answer[*installationState], error) {
	return installationAnswer(a.Installation.Resume(ctx))
}

func installationAnswer(i *riverbeat.Installation, err error) (*answer[*installationState], error) {
	if err != nil {
		return nil, err
	}
	return ok(stateOf(i)), nil
}
