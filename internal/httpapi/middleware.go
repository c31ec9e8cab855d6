package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"riverbeat/internal/riverbeat"
)

// requestIDHeader carries the id of a request: the client's, if it is sane, or
// one of ours. It is set on each response before anything else happens.
const requestIDHeader = "X-Request-Id"

// maxRequestIDLength is the longest id of a client that is taken over.
const maxRequestIDLength = 64

// observe names the request, sets the headers that every response has, counts it, and
// logs a line at debug.
func (a *api) observe(c *gin.Context) {
	id := c.GetHeader(requestIDHeader)
	if !saneRequestID(id) {
		id = uuid.NewString()
	}
	header := c.Writer.Header()
	header.Set(requestIDHeader, id)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY") // else clicks can be stolen
	if c.FullPath() == "" || !strings.HasPrefix(c.FullPath(), docsPath) {
		header.Set("Cache-Control", "no-store")
	}

	start, answered := a.Now(), a.Metrics.Request()
	defer func() { answered(routeOf(c), c.Writer.Status()) }()
	c.Next()
	if ctx := c.Request.Context(); a.Logger.Enabled(ctx, slog.LevelDebug) {
		a.Logger.DebugContext(ctx, "request",
			"method", c.Request.Method, "path", c.Request.URL.Path, "status", c.Writer.Status(),
			"bytes", max(c.Writer.Size(), 0), "took", a.Now().Sub(start), "request_id", id)
	}
}

// trace makes the request a part of a trace. Those that look at the process are none.
func (a *api) trace(c *gin.Context) {
	switch c.FullPath() {
	case healthzPath, readyzPath, metricsPath:
		c.Next()
		return
	}
	ctx, span := a.Tracer.Request(c.Request)
	defer func() {
		route := routeOf(c)
		span.Name(route)
		if _, path, ok := strings.Cut(route, " "); ok {
			span.Set("http.route", path)
		}
		span.Set("http.request.method", c.Request.Method)
		span.Set("riverbeat.request_id", c.Writer.Header().Get(requestIDHeader))
		span.SetNumber("http.response.status_code", c.Writer.Status())
		if c.Writer.Status() >= http.StatusInternalServerError {
			span.Fail()
		}
		span.End()
	}()
	c.Request = c.Request.WithContext(ctx)
	c.Next()
}

func saneRequestID(id string) bool {
	return id != "" && len(id) <= maxRequestIDLength &&
		!strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}

// recoverPanic answers a panic as a fault of ours.
func (a *api) recoverPanic(c *gin.Context) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		if cause == http.ErrAbortHandler { //nolint:errorlint // a panic's value, by identity
			panic(cause)
		}
		a.Logger.ErrorContext(c.Request.Context(), "panic",
			"panic", fmt.Sprint(cause), "stack", string(debug.Stack()),
			"request_id", c.Writer.Header().Get(requestIDHeader))
		if c.Writer.Written() {
			panic(http.ErrAbortHandler) // the client must not take a part for the whole
		}
		c.Abort()
		a.writeProblem(c, forms[riverbeat.Internal], internalError)
	}()
	c.Next()
}

func (a *api) limitTime(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), a.RequestTimeout)
	defer cancel()
	c.Request = c.Request.WithContext(ctx)
	c.Next()
}

// manyThings is how many times as large as other bodies that of a manifest may be.
const manyThings = 16

func (a *api) limitBody(c *gin.Context) {
	limit := a.BodyLimit
	if c.FullPath() == applyPath {
		limit *= manyThings
	}
	if c.Request.Body != nil {
		c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, limit)
	}
	c.Next()
}

// wrongMethod answers a method that the path does not have. gin has set Allow.
func (a *api) wrongMethod(c *gin.Context) {
	allowed := strings.Split(c.Writer.Header().Get("Allow"), ", ")
	slices.Sort(allowed)
	c.Writer.Header().Set("Allow", strings.Join(allowed, ", "))
	a.fail(c, methodNotAllowed("This path takes %s.", strings.Join(allowed, ", ")))
}
