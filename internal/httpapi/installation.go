package httpapi

import (
	"context"
	"time"

	"riverbeat/internal/riverbeat"
)

// installationState is the installation as it is answered.
type installationState struct {
	Environment string     `json:"environment" doc:"The label from the configuration." example:"production"`
	PausedAt    *time.Time `json:"paused_at" doc:"Since when no tick fires; null: they do."`
	PausedBy    *string    `json:"paused_by"`
	PauseReason *string    `json:"pause_reason"`
}

func stateOf(i *riverbeat.Installation) *installationState {
	return &installationState{
		Environment: i.Environment, PausedAt: i.PausedAt, PausedBy: orNull(i.PausedBy), PauseReason: orNull(i.PauseReason),
	}
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
	return installationAnswer(a.Installation.Pause(ctx, valueOr(req.Body.Reason, ""), ""))
}

func (a *api) resume(ctx context.Context, _ *installationRequest) (*answer[*installationState], error) {
	return installationAnswer(a.Installation.Resume(ctx, ""))
}

func installationAnswer(i *riverbeat.Installation, err error) (*answer[*installationState], error) {
	if err != nil {
		return nil, err
	}
	return ok(stateOf(i)), nil
}
