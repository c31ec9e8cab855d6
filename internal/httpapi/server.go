// Package httpapi is the REST API: gin at the door, handlers that are functions
// of a request, problem documents for everything that goes wrong, and the
// OpenAPI document made from the very types that requests are read into.
//
// All routes are in routes.go. DESIGN.md says why requests are decoded here and
// not by huma.
package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"riverbeat/internal/access"
	"riverbeat/internal/catalog"
	"riverbeat/internal/doctor"
	"riverbeat/internal/history"
	"riverbeat/internal/installation"
	"riverbeat/internal/metrics"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/trace"
)

// DefaultRequestTimeout is shorter than what a server gives its answers, so that
// there is one.
const DefaultRequestTimeout = 30 * time.Second

// DefaultBodyLimit is how many bytes of a request's body are read by default.
const DefaultBodyLimit = 1 << 20

// Config is what the API needs.
type Config struct {
	// Access says who may, and Catalog, History and Installation do what is asked.
	// Required.
	Access       *access.Access
	Catalog      *catalog.Catalog
	History      *history.History
	Installation *installation.Installation
	// Now is this machine's clock: previews begin there, and the access log
	// measures by it. Required.
	Now func() time.Time
	// DefaultTimezone is the zone of schedules that name none. Defaults to UTC.
	DefaultTimezone string
	// BodyLimit is how many bytes of a body are read. Defaults to
	// DefaultBodyLimit.
	BodyLimit int64
	// RequestTimeout is how long a request may take; then it is ended, and what it did
	// is undone. Defaults to DefaultRequestTimeout.
	RequestTimeout time.Duration
	// Logger gets faults as errors and each request at debug. Defaults to none.
	Logger *slog.Logger
	// Version is shown in the OpenAPI document.
	Version string
	// Ready says why the process cannot serve yet, or no more. Defaults to
	// always ready.
	Ready func(ctx context.Context) error
	// Monitor looks after the installation, and Metrics counts what the process does,
	// for /metrics. Default to none.
	Monitor *doctor.Monitor
	Metrics *metrics.Metrics
	// Tracer begins a trace with each request. Defaults to none.
	Tracer *trace.Tracer
	// OpenMetrics is whether /metrics is open to all who reach this handler.
	OpenMetrics bool
	// HealthOnly leaves out the API and its docs: a node that only works has
	// just the health pages and its metrics.
	HealthOnly bool
	// Mounts are other handlers, by the patterns of their routes: what is not one
	// of these never gets to them.
	Mounts map[string]http.Handler
	// TrustedProxies are those whose X-Forwarded-For is believed. Defaults to none.
	TrustedProxies []netip.Prefix
}

func (cfg Config) withDefaults() Config {
	if cfg.Access == nil || cfg.Catalog == nil || cfg.History == nil || cfg.Installation == nil || cfg.Now == nil {
		panic("httpapi: Access, Catalog, History, Installation and Now are required")
	}
	if cfg.DefaultTimezone == "" {
		cfg.DefaultTimezone = "UTC"
	}
	if cfg.BodyLimit == 0 {
		cfg.BodyLimit = DefaultBodyLimit
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = DefaultRequestTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Ready == nil {
		cfg.Ready = func(context.Context) error { return nil }
	}
	return cfg
}

// api is what the handlers share.
type api struct {
	Config
	openAPI *huma.OpenAPI
	adapter huma.Adapter

	needed      map[string]riverbeat.Role // by the patterns of all routes
	crossOrigin *http.CrossOriginProtection
	mounts      *http.ServeMux
}

// New makes the handler of everything that is served. A route that is not in the
// table of routes and roles is an error.
func New(cfg Config) (http.Handler, error) {
	engine := newEngine()
	a := &api{Config: cfg.withDefaults(), crossOrigin: http.NewCrossOriginProtection()}
	a.mounts = a.mounted()
	h := humagin.New(engine, huma.Config{OpenAPI: newOpenAPI(a.Version)})
	a.openAPI, a.adapter = h.OpenAPI(), h.Adapter()

	engine.Use(a.observe, a.trace, a.recoverPanic, a.limitTime, a.guard, a.limitBody)
	engine.NoRoute(a.elsewhere)
	engine.NoMethod(a.wrongMethod)
	a.healthRoutes()
	a.serveMetrics(engine)
	if !a.HealthOnly {
		a.routes()
		a.serveDocs(engine)
	}
	return engine, a.findRoles(engine)
}

func newEngine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	// One resource, one path: no redirect to a path that a client did not mean.
	engine.RedirectTrailingSlash = false
	// A task name may contain a slash, as %2F. What gin would unescape, it would
	// unescape as a query, where + is a space; params.go does it.
	engine.UseEscapedPath = true
	engine.UnescapePathValues = false
	return engine
}
