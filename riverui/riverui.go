// Package riverui mounts River's own UI, which shows the jobs, behind our access
// control: whoever clicks is in the audit trail, in the transaction of the click.
package riverui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/apiframe/apiendpoint"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivershared/baseservice"
	upstream "riverqueue.com/riverui"
	"riverqueue.com/riverui/uiendpoints"

	"riverbeat/internal/access"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Prefix is the path under which River UI answers.
const Prefix = "/riverui"

// reads is the pattern of all that changes nothing.
const reads = "GET " + Prefix + "/{page...}"

// New makes the handlers of River UI, by the patterns of their routes, all of them
// under Prefix. Its background queries run until ctx ends. Its lists show the
// arguments of jobs: which schedule and which task, and no secrets.
func New(ctx context.Context, client *river.Client[pgx.Tx], by *access.Access, logger *slog.Logger) (map[string]http.Handler, error) {
	shown, err := newUpstream(upstream.NewEndpoints(client, nil), logger)
	if err != nil {
		return nil, err
	}
	if err := shown.Start(ctx); err != nil {
		return nil, fmt.Errorf("start River UI: %w", err)
	}
	handlers := map[string]http.Handler{reads: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !readable(r) {
			refuse(w, http.StatusBadRequest, unreadable)
			return
		}
		shown.ServeHTTP(w, r)
	})}
	clicks := &clicks{client: client, access: by, logger: logger}
	// Asked of it, so that a new version of it cannot bring a way to change
	// something that nobody has thought of.
	endpoints := upstream.NewEndpoints(client, nil)
	endpoints.Configure(&uiendpoints.BundleOpts{})
	for _, e := range endpoints.MountEndpoints(
		baseservice.NewArchetype(logger), logger, http.NewServeMux(), &apiendpoint.MountOpts{Logger: logger},
	) {
		method, path, _ := strings.Cut(e.Meta().Pattern, " ")
		if method != http.MethodGet {
			handlers[method+" "+Prefix+path] = clicks
		}
	}
	return handlers, nil
}

func newUpstream(endpoints uiendpoints.Bundle, logger *slog.Logger) (*upstream.Handler, error) {
	handler, err := upstream.NewHandler(&upstream.HandlerOpts{Endpoints: endpoints, Logger: logger, Prefix: Prefix})
	if err != nil {
		return nil, fmt.Errorf("make River UI: %w", err)
	}
	return handler, nil
}

// clicks answers the requests that change something.
type clicks struct {
	client *river.Client[pgx.Tx]
	access *access.Access
	logger *slog.Logger
}

// errRefused undoes a change that River UI has answered with an error.
var errRefused = errors.New("refused by River UI")

func (c *clicks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "The request is too large, or ended too early.")
		return
	}
	action, objects, problem := whatOf(r.URL.Path, body)
	if problem == "" && !readable(r) {
		problem = unreadable
	}
	if problem != "" {
		refuse(w, http.StatusBadRequest, problem)
		return
	}
	var answer *recorded
	err = c.access.Do(r.Context(), action, objects, func(tx *postgres.Tx) error { //nolint:contextcheck // it is in the request
		// River UI takes its transaction when it is made, which takes a moment;
		// people do not click often.
		handler, err := newUpstream(upstream.NewEndpoints(c.client, &upstream.EndpointsOpts[pgx.Tx]{Tx: &tx.Tx}), c.logger)
		if err != nil {
			return err
		}
		again := r.Clone(r.Context())
		again.Body = io.NopCloser(bytes.NewReader(body))
		answer = &recorded{header: http.Header{}, status: http.StatusOK}
		handler.ServeHTTP(answer, again)
		if answer.status >= http.StatusBadRequest {
			return errRefused
		}
		return nil
	})
	if err != nil && !errors.Is(err, errRefused) {
		c.logger.ErrorContext(r.Context(), "a change in River UI failed", "action", action, "error", err)
		refuse(w, http.StatusInternalServerError, "Something went wrong here. Nothing was changed.")
		return
	}
	for name, values := range answer.header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body.Bytes())
}

// maxJobs is how many jobs River UI takes in one request.
const maxJobs = 1_000

// whatOf names a change and what it changes: /api/jobs/cancel of some ids, or
// /api/queues/{name}/pause. What cannot be named is a problem: nobody would be in
// the audit trail for it.
func whatOf(path string, body []byte) (action string, objects []riverbeat.AuditObject, problem string) {
	parts := strings.Split(strings.TrimPrefix(path, Prefix+"/api/"), "/")
	if parts[0] == "queues" && len(parts) > 1 {
		verb := "change"
		if len(parts) > 2 {
			verb = parts[2]
		}
		if parts[1] == "*" { // to River that is all of them
			return "", nil, "One queue has to be named."
		}
		return "queue." + verb, []riverbeat.AuditObject{{Type: "queue", ID: parts[1]}}, ""
	}
	var request struct {
		IDs []jobID `json:"ids"`
	}
	if err := json.Unmarshal(body, &request); err != nil || len(request.IDs) == 0 || len(request.IDs) > maxJobs {
		return "", nil, fmt.Sprintf("The ids of 1 to %d jobs are needed.", maxJobs)
	}
	seen := map[jobID]bool{}
	for _, id := range request.IDs {
		if !seen[id] {
			seen[id] = true
			objects = append(objects, riverbeat.AuditObject{Type: "job", ID: strconv.FormatInt(int64(id), 10)})
		}
	}
	return "job." + parts[len(parts)-1], objects, ""
}

// jobID is the id of a job as River UI reads it: a string, or a number.
type jobID int64

// UnmarshalJSON reads what River UI would read.
func (id *jobID) UnmarshalJSON(raw []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
	*id = jobID(n)
	return err
}

const unreadable = "The address has what nobody can read."

// readable tells whether an address is one that River UI knows an answer to: NUL and
// what is no UTF-8 are faults of its own to it, and so are pages without items.
func readable(r *http.Request) bool {
	texts := []string{r.URL.Path}
	for name, values := range r.URL.Query() {
		texts = append(append(texts, name), values...)
		if name == "limit" && slices.ContainsFunc(values, func(v string) bool { n, err := strconv.Atoi(v); return err != nil || n < 1 }) {
			return false
		}
	}
	return !slices.ContainsFunc(texts, func(text string) bool { return !utf8.ValidString(text) || strings.ContainsRune(text, 0) })
}

// recorded is an answer that is not sent yet.
type recorded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorded) Header() http.Header         { return r.header }
func (r *recorded) WriteHeader(status int)      { r.status = status }
func (r *recorded) Write(b []byte) (int, error) { return r.body.Write(b) }

// refuse answers as River UI does.
func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}
