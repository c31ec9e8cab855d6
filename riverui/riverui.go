// Package riverui mounts River's own UI, which shows the jobs.
package riverui

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	upstream "riverqueue.com/riverui"
)

// Prefix is the path under which River UI answers.
const Prefix = "/riverui"

// New makes the handler of River UI for everything under Prefix. Its
// background queries run until ctx ends. Its lists show the arguments of jobs:
// which schedule and which task, and no secrets.
func New(ctx context.Context, client *river.Client[pgx.Tx], logger *slog.Logger) (http.Handler, error) {
	handler, err := upstream.NewHandler(&upstream.HandlerOpts{
		Endpoints: upstream.NewEndpoints(client, nil),
		Logger:    logger,
		Prefix:    Prefix,
	})
	if err != nil {
		return nil, fmt.Errorf("make River UI: %w", err)
	}
	if err := handler.Start(ctx); err != nil {
		return nil, fmt.Errorf("start River UI: %w", err)
	}
	return handler, nil
}
