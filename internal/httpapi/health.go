package httpapi

import (
	"context"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

type healthRequest struct{}

type health struct {
	Status string `json:"status" example:"ok"`
}

// healthz answers while the process lives, whatever the database does.
func (a *api) healthz(context.Context, *healthRequest) (*answer[health], error) {
	return ok(health{"ok"}), nil
}

func (a *api) readyz(ctx context.Context, _ *healthRequest) (*answer[health], error) {
	if err := a.Ready(ctx); err != nil {
		if postgres.IsOnHold(err) {
			return nil, err
		}
		return nil, &riverbeat.Error{Kind: riverbeat.Unavailable, Code: "not_ready", Detail: "This process cannot serve now.", Cause: err}
	}
	return ok(health{"ok"}), nil
}
