package httpapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"riverbeat/internal/access"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// guard lets a request to its route, if whoever makes it may. What changes
// something is changed on his behalf from then on.
func (a *api) guard(c *gin.Context) {
	if c.FullPath() == "" {
		c.Next() // there is no such route; elsewhere asks for the mounts' itself
		return
	}
	if !a.admit(c, a.needed[routePattern(c.Request.Method, c.FullPath())]) {
		c.Abort()
		return
	}
	c.Next()
}

// routePattern is how the table of routes and roles writes a route of gin.
func routePattern(method, path string) string {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		switch {
		case strings.HasPrefix(s, ":"):
			segments[i] = "{" + s[1:] + "}"
		case strings.HasPrefix(s, "*"):
			segments[i] = "{" + s[1:] + "...}"
		}
	}
	if path == "/" {
		segments[1] = "{$}"
	}
	return method + " " + strings.Join(segments, "/")
}

// mountKey has, in a request's gin.Context, the pattern of the mount that serves it.
const mountKey = "mount"

// routeOf is the route that a request was for: a pattern of the table of routes and roles,
// never what the client has made up.
func routeOf(c *gin.Context) string {
	if c.FullPath() != "" {
		return routePattern(c.Request.Method, c.FullPath())
	}
	if mount := c.GetString(mountKey); mount != "" {
		return mount
	}
	return "(none)"
}

// findRoles finds the role of each route that there is. A route without one is an
// error.
func (a *api) findRoles(engine *gin.Engine) error {
	a.needed = map[string]riverbeat.Role{}
	var errs []error
	add := func(pattern string) {
		role, err := access.Needed(pattern)
		errs = append(errs, err)
		a.needed[pattern] = role
	}
	for _, r := range engine.Routes() {
		add(routePattern(r.Method, r.Path))
	}
	for pattern := range a.Mounts {
		add(pattern)
	}
	if a.OpenMetrics {
		a.needed[http.MethodGet+" "+metricsPath] = access.Anyone
	}
	return errors.Join(errs...)
}

// admit tells whether a request may have what the role is needed for; else it has
// been answered.
func (a *api) admit(c *gin.Context, needed riverbeat.Role) bool {
	actor, err := a.whoMay(c.Request, c.Writer.Header().Get(requestIDHeader), needed)
	if err != nil {
		if riverbeat.KindOf(err) == riverbeat.Unauthenticated {
			challenge(c)
		}
		a.fail(c, err)
		return false
	}
	ctx := context.WithValue(c.Request.Context(), callerKey{}, actor)
	if changes(c.Request.Method) {
		ctx = postgres.WithActor(ctx, actor)
	}
	c.Request = c.Request.WithContext(ctx)
	return true
}

type callerKey struct{}

// callerOf is who makes the request whose context it is, also one that only reads.
func callerOf(ctx context.Context) riverbeat.Actor {
	caller, _ := ctx.Value(callerKey{}).(riverbeat.Actor)
	return caller
}

// whoMay tells who makes a request, or why it is refused.
func (a *api) whoMay(r *http.Request, requestID string, needed riverbeat.Role) (riverbeat.Actor, error) {
	if err := a.crossOrigin.Check(r); err != nil {
		return riverbeat.Actor{}, riverbeat.Errorf(riverbeat.Forbidden, "cross_origin", "A page of another site may not do this.")
	}
	if needed == access.Anyone {
		return riverbeat.Actor{}, nil
	}
	onlyLoopback, err := a.Access.OnlyLoopback(r.Context())
	if err != nil {
		return riverbeat.Actor{}, err
	}
	if onlyLoopback && !isLoopback(r.Host) {
		return riverbeat.Actor{}, riverbeat.Errorf(riverbeat.Forbidden, "host_not_allowed",
			"While there are no keys, only this machine is served, under a name such as localhost or 127.0.0.1.")
	}
	actor, err := a.Access.Authenticate(r.Context(), access.Credentials{
		Key: shownKey(r), Address: a.addressOf(r), RequestID: requestID,
	})
	if err != nil {
		return actor, err
	}
	return actor, access.Authorize(actor, needed)
}

// shownKey is the key that a request shows: as a bearer token (RFC 6750), or, for
// browsers, as the password of any user (RFC 7617). Of more than one nothing is
// believed.
func shownKey(r *http.Request) string {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return ""
	}
	if len(headers) > 1 {
		return notAKey
	}
	if scheme, token, _ := strings.Cut(headers[0], " "); strings.EqualFold(scheme, "Bearer") {
		return orNotAKey(strings.TrimSpace(token))
	}
	_, password, _ := r.BasicAuth()
	return orNotAKey(password)
}

// notAKey stands for what is shown and is no key.
const notAKey = "-"

func orNotAKey(text string) string {
	if text == "" {
		return notAKey
	}
	return text
}

// challenge says how to show a key. Browsers ask people for it then, but for the
// API, where a script of a page would have them asked.
func challenge(c *gin.Context) {
	if !strings.HasPrefix(c.Request.URL.Path, apiPath+"/") {
		c.Writer.Header().Add("WWW-Authenticate", `Basic realm="Riverbeat: any user, and an API key as the password", charset="UTF-8"`)
	}
	c.Writer.Header().Add("WWW-Authenticate", `Bearer realm="Riverbeat"`)
}

// addressOf is where a request comes from: through proxies that are trusted, the
// last one that is not. The zero Addr if nobody knows.
func (a *api) addressOf(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	address = address.Unmap().WithZone("")
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(forwarded) {
		if !slices.ContainsFunc(a.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(address) }) {
			break
		}
		before, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			break
		}
		address = before.Unmap().WithZone("")
	}
	return address
}

// isLoopback tells whether a Host header means this machine.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

// changes tells whether a method is one that may change something.
func changes(method string) bool {
	return method != http.MethodGet && method != http.MethodHead
}

// mounted makes the handler of all that is mounted. Each request is admitted for
// the pattern that it matches.
func (a *api) mounted() *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, handler := range a.Mounts {
		mux.Handle(pattern, handler)
	}
	return mux
}

// elsewhere serves what is no route of gin: the mounts, or a 404.
func (a *api) elsewhere(c *gin.Context) {
	handler, pattern := a.mounts.Handler(c.Request)
	if pattern == "" {
		a.nowhere(c)
		return
	}
	c.Set(mountKey, pattern)
	if !a.admit(c, a.needed[pattern]) {
		return
	}
	c.Writer.Header().Del("Cache-Control") // theirs to say
	c.Header("Content-Security-Policy", "frame-ancestors 'none'")
	c.Status(http.StatusOK) // gin has set 404
	handler.ServeHTTP(c.Writer, c.Request)
}

// nowhere answers a request that nothing is there for.
func (a *api) nowhere(c *gin.Context) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := c.Request.Clone(context.WithoutCancel(c.Request.Context()))
		other.Method = method
		if _, pattern := a.mounts.Handler(other); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		c.Header("Allow", strings.Join(allowed, ", "))
		a.fail(c, methodNotAllowed("This path takes %s.", strings.Join(allowed, ", ")))
		return
	}
	a.fail(c, riverbeat.Errorf(riverbeat.NotFound, "no_such_path", "There is nothing at this path. GET /openapi.json lists what there is."))
}
