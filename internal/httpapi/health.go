package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

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

// readyz says which part of the process is not as it should be, and nothing of what lies
// behind that.
func (a *api) readyz(ctx context.Context, _ *healthRequest) (*answer[health], error) {
	err := a.Ready(ctx)
	if err == nil {
		return ok(health{"ok"}), nil
	}
	if postgres.IsOnHold(err) {
		return nil, err
	}
	detail := "This process cannot serve now."
	if why, ok := errors.AsType[*riverbeat.Error](err); ok && why.Kind == riverbeat.Unavailable {
		detail += " " + why.Detail
	}
	return nil, &riverbeat.Error{Kind: riverbeat.Unavailable, Code: "not_ready", Detail: detail, Cause: err}
}

// NewWaiting makes the handler of a process that does not serve yet: it lives, and
// answers why (an Unavailable) whatever else it is asked.
func NewWaiting(why func() error, now func() time.Time) http.Handler {
	a := &api{Config: Config{Now: now, Logger: slog.New(slog.DiscardHandler)}} // probes come every second
	lives := func(c *gin.Context) {
		body, err := encode(health{"ok"})
		if err != nil {
			panic(err) // a string
		}
		writeBody(c, http.StatusOK, "application/json", body)
	}
	elsewhere := func(c *gin.Context) { a.fail(c, why()) }
	engine := newEngine()
	engine.Use(a.observe, a.recoverPanic)
	engine.GET("/healthz", lives)
	engine.HEAD("/healthz", lives)
	engine.NoRoute(elsewhere)
	engine.NoMethod(elsewhere)
	return engine
}
