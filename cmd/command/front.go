package command

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"riverbeat/internal/config"
	"riverbeat/internal/httpapi"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// front is where a node is asked. It is there before the node: while that migrates, or
// waits for somebody to, probes find a process that lives and is not ready.
type front struct {
	logger   *slog.Logger
	listener net.Listener
	server   *http.Server
	handler  atomic.Pointer[http.Handler]
	why      atomic.Pointer[error] // nobody is let in yet
	failed   chan error
}

// newFront listens. Whoever makes one closes it.
func newFront(ctx context.Context, address string, logger *slog.Logger) (*front, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	f := &front{logger: logger, listener: listener, failed: make(chan error, 1)}
	f.server = &http.Server{
		Handler:           f,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	f.stayShut(riverbeat.Errorf(riverbeat.Unavailable, "starting", "This process is starting."))
	f.answerBy(httpapi.NewWaiting(func() error { return *f.why.Load() }, time.Now)) //nolint:contextcheck // each request brings its own
	go func() { f.failed <- f.server.Serve(listener) }()
	return f, nil
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*f.handler.Load()).ServeHTTP(w, r)
}

func (f *front) address() string { return f.listener.Addr().String() }

// stayShut says why nobody is let in yet.
func (f *front) stayShut(why error) { f.why.Store(&why) }

// answerBy has requests answered by handler from now on.
func (f *front) answerBy(handler http.Handler) { f.handler.Store(&handler) }

// shutdown lets nobody in any more, and waits for the requests that are under way until
// ctx ends.
func (f *front) shutdown(ctx context.Context) error {
	if err := f.server.Shutdown(ctx); err != nil {
		return f.server.Close()
	}
	return nil
}

// close ends what is left of the requests.
func (f *front) close() { _ = f.server.Close() }

// awaitSchema waits, however long it takes, until the schema is migrated as far as this
// program needs it. It fails if the database does not answer at first (later on it may
// be away for a while), if the schema is too new, and when ctx ends.
func (f *front) awaitSchema(ctx context.Context, cfg config.Config) error {
	for waited := false; ; waited = true {
		status, err := postgres.Status(ctx, databaseConfig(cfg))
		switch {
		case err == nil && !status.Behind():
			if waited {
				f.logger.InfoContext(ctx, "the schema is there", "version", status.Version)
			}
			return status.Check(cfg.Schema)
		case err == nil:
			why := status.Check(cfg.Schema)
			f.stayShut(why)
			if !waited {
				f.logger.WarnContext(ctx, "waiting for the schema", "error", why)
			}
		case !waited:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
