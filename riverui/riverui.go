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
	"strconv"
	"strings"

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
	handlers := map[string]http.Handler{reads: shown}
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
	var answer *recorded
	action, objects := whatOf(r.URL.Path, body)
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

// whatOf names a change and what it changes: /api/jobs/cancel of some ids, or
// /api/queues/{name}/pause.
func whatOf(path string, body []byte) (action string, objects []riverbeat.AuditObject) {
	parts := strings.Split(strings.TrimPrefix(path, Prefix+"/api/"), "/")
	if parts[0] == "queues" && len(parts) > 1 {
		verb := "change"
		if len(parts) > 2 {
			verb = parts[2]
		}
		return "queue." + verb, []riverbeat.AuditObject{{Type: "queue", ID: parts[1]}}
	}
	var request struct {
		IDs []json.Number `json:"ids"`
	}
	_ = json.Unmarshal(body, &request) // River UI says what is wrong with it
	for _, number := range request.IDs {
		if id, err := number.Int64(); err == nil {
			objects = append(objects, riverbeat.AuditObject{Type: "job", ID: strconv.FormatInt(id, 10)})
		}
	}
	return "job." + parts[len(parts)-1], objects
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
