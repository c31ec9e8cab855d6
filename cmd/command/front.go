package command

import (
	"context"
	"errors"
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

// lookWithin is how long a look at the schema may take.
const lookWithin = 5 * time.Second

// fronts are where a node is asked. They are there before the node: while that migrates, or
// waits for somebody to, probes find a process that lives and is not ready.
type fronts struct {
	logger  *slog.Logger
	all     *front
	metrics *front                // nil: they have no address of their own
	why     atomic.Pointer[error] // nobody is let in yet
	failed  chan error
}

// newFronts listens. Whoever makes them closes them.
func newFronts(ctx context.Context, cfg config.Config, logger *slog.Logger) (*fronts, error) {
	f := &fronts{logger: logger, failed: make(chan error, 2)}
	f.stayShut(riverbeat.Errorf(riverbeat.Unavailable, "starting", "This process is starting."))
	var err error
	if f.all, err = f.listen(ctx, cfg.Listen); err != nil || cfg.MetricsListen == "" {
		return f, err
	}
	if f.metrics, err = f.listen(ctx, cfg.MetricsListen); err != nil {
		f.close()
	}
	return f, err
}

func (f *fronts) listen(ctx context.Context, address string) (*front, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	at := &front{listener: listener}
	at.server = &http.Server{
		Handler:           at,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(f.logger.Handler(), slog.LevelDebug),
	}
	at.answerBy(httpapi.NewWaiting(func() error { return *f.why.Load() }, time.Now)) //nolint:contextcheck // each request brings its own
	go func() { f.failed <- at.server.Serve(listener) }()
	return at, nil
}

func (f *fronts) each() []*front {
	if f.metrics == nil {
		return []*front{f.all}
	}
	return []*front{f.all, f.metrics}
}

// stayShut says why (an Unavailable) nobody is let in yet.
func (f *fronts) stayShut(why error) { f.why.Store(&why) }

// shutdown lets nobody in any more, and waits for the requests that are under way until
// ctx ends.
func (f *fronts) shutdown(ctx context.Context) (err error) {
	for _, at := range f.each() {
		if at.server.Shutdown(ctx) != nil {
			err = errors.Join(err, at.server.Close())
		}
	}
	return err
}

// close ends what is left of the requests.
func (f *fronts) close() {
	for _, at := range f.each() {
		_ = at.server.Close()
	}
}

// awaitSchema waits, however long it takes, until the schema is migrated as far as this
// program needs it, and then for whoever migrates it to end, who grants after that what
// nodes need. Where it finds the schema as it should be it waits for nobody: that may be
// migrated further beside nodes that work. It fails if the database does not answer at first
// (later on it may be away for a while), if the schema is too new, and when ctx ends.
func (f *fronts) awaitSchema(ctx context.Context, cfg config.Config) error {
	fault := ""
	for waited := false; ; waited = true {
		status, err := look(ctx, cfg)
		switch {
		case err == nil && !status.Behind() && (!waited || !status.Migrating):
			if waited {
				f.logger.InfoContext(ctx, "the schema is there", "version", status.Version)
			}
			return status.Check(cfg.Schema)
		case err == nil:
			fault = ""
			why := status.Check(cfg.Schema)
			if why == nil {
				why = riverbeat.Errorf(riverbeat.Unavailable, "schema_not_current", "Somebody still migrates the schema %s.", cfg.Schema)
			}
			f.stayShut(why)
			if !waited {
				f.logger.WarnContext(ctx, "waiting for the schema", "error", why)
			}
		case !waited:
			return err
		default:
			f.stayShut(&riverbeat.Error{
				Kind: riverbeat.Unavailable, Code: "schema_unknown", Cause: err,
				Detail: "This process waits for its schema, and the database does not say how far that is migrated.",
			})
			if text := riverbeat.Explain(err); ctx.Err() == nil && text != fault {
				fault = text
				f.logger.ErrorContext(ctx, "the schema cannot be looked at", "error", text)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// look reads how far the schema is migrated. A database that hangs does not answer.
func look(ctx context.Context, cfg config.Config) (postgres.MigrationStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	return postgres.Status(ctx, databaseConfig(cfg))
}

// front is one address at which a node is asked.
type front struct {
	listener net.Listener
	server   *http.Server
	handler  atomic.Pointer[http.Handler]
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*f.handler.Load()).ServeHTTP(w, r)
}

func (f *front) address() string { return f.listener.Addr().String() }

// answerBy has requests answered by handler from now on.
func (f *front) answerBy(handler http.Handler) { f.handler.Store(&handler) }
