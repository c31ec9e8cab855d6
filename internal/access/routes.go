package access

import (
	"fmt"

	"riverbeat/internal/riverbeat"
)

// Anyone is the role that routes need which are open to all.
const Anyone riverbeat.Role = "anyone"

// Route is what a role is needed for.
type Route struct {
	// Pattern is a method and a path, as http.ServeMux reads them. GET is HEAD,
	// too.
	Pattern string
	Role    riverbeat.Role
}

// Routes says for each route which role it needs. What is not here is not served:
// a program with a route that is not here does not start.
var Routes = []Route{
	// Open.
	{"GET /healthz", Anyone},
	{"GET /readyz", Anyone},
	{"GET /{$}", Anyone}, // leads elsewhere

	// Who reads.
	{"GET /metrics", riverbeat.Viewer},
	{"GET /openapi.json", riverbeat.Viewer},
	{"GET /docs", riverbeat.Viewer},
	{"GET /docs/{file...}", riverbeat.Viewer},
	{"GET /api/v1/schedules", riverbeat.Viewer},
	{"GET /api/v1/schedules/{id}", riverbeat.Viewer},
	{"GET /api/v1/schedules/{id}/runs", riverbeat.Viewer},
	{"GET /api/v1/schedules/{id}/next", riverbeat.Viewer},
	{"GET /api/v1/schedules/{id}/explain", riverbeat.Viewer},
	{"POST /api/v1/schedules/preview", riverbeat.Viewer},
	{"GET /api/v1/export", riverbeat.Viewer},
	{"GET /api/v1/task-definitions", riverbeat.Viewer},
	{"GET /api/v1/task-definitions/{task_name}", riverbeat.Viewer},
	{"GET /api/v1/runs", riverbeat.Viewer},
	{"GET /api/v1/runs/{id}", riverbeat.Viewer},
	{"GET /api/v1/backfills", riverbeat.Viewer},
	{"GET /api/v1/backfills/{id}", riverbeat.Viewer},
	{"GET /api/v1/installation", riverbeat.Viewer},
	{"GET /api/v1/load", riverbeat.Viewer},
	{"GET /api/v1/nodes", riverbeat.Viewer},
	{"GET /api/v1/features", riverbeat.Viewer},
	{"GET /api/v1/audit", riverbeat.Viewer},
	{"GET /riverui/{page...}", riverbeat.Viewer},

	// Who sees to it that things run.
	{"POST /api/v1/schedules/{id}/run", riverbeat.Operator},
	{"POST /api/v1/schedules/{id}/backfill", riverbeat.Operator},
	{"POST /api/v1/backfills/{id}/cancel", riverbeat.Operator},
	{"POST /api/v1/runs/{id}/cancel", riverbeat.Operator},
	{"POST /api/v1/runs/{id}/retry", riverbeat.Operator},
	{"POST /api/v1/pause", riverbeat.Operator},
	{"POST /api/v1/resume", riverbeat.Operator},
	{"POST /riverui/api/jobs/cancel", riverbeat.Operator},
	{"POST /riverui/api/jobs/retry", riverbeat.Operator},

	// Who says what runs when.
	{"POST /api/v1/schedules", riverbeat.Editor},
	{"POST /api/v1/schedules/bulk", riverbeat.Editor},
	{"POST /api/v1/apply", riverbeat.Editor}, // where it changes definitions, its handler asks for more
	{"PUT /api/v1/schedules/{id}", riverbeat.Editor},
	{"PATCH /api/v1/schedules/{id}", riverbeat.Editor},
	{"DELETE /api/v1/schedules/{id}", riverbeat.Editor},
	{"POST /api/v1/schedules/{id}/enable", riverbeat.Editor},
	{"POST /api/v1/schedules/{id}/disable", riverbeat.Editor},

	// Who says what can be run, and by whom.
	{"POST /api/v1/task-definitions", riverbeat.Admin},
	{"PUT /api/v1/task-definitions/{task_name}", riverbeat.Admin},
	{"PATCH /api/v1/task-definitions/{task_name}", riverbeat.Admin},
	{"DELETE /api/v1/task-definitions/{task_name}", riverbeat.Admin},
	{"PUT /api/v1/features/{name}", riverbeat.Admin},
	{"GET /api/v1/api-keys", riverbeat.Admin},
	{"POST /api/v1/api-keys", riverbeat.Admin},
	{"GET /api/v1/api-keys/{id}", riverbeat.Admin},
	{"DELETE /api/v1/api-keys/{id}", riverbeat.Admin},
	{"POST /api/v1/api-keys/{id}/rotate", riverbeat.Admin},
	{"POST /riverui/api/jobs/delete", riverbeat.Admin},
	{"PUT /riverui/api/queues/{name}/pause", riverbeat.Admin},
	{"PUT /riverui/api/queues/{name}/resume", riverbeat.Admin},
	{"PATCH /riverui/api/queues/{name}", riverbeat.Admin},
}

var roles = func() map[string]riverbeat.Role {
	byPattern := map[string]riverbeat.Role{}
	for _, r := range Routes {
		if _, twice := byPattern[r.Pattern]; twice {
			panic("access: a route stands twice in the table: " + r.Pattern)
		}
		byPattern[r.Pattern] = r.Role
	}
	return byPattern
}()

// Needed is the role that a route needs, by its pattern; an error if the route is
// not in the table.
func Needed(pattern string) (riverbeat.Role, error) {
	role, ok := roles[pattern]
	if !ok {
		return "", fmt.Errorf("the route %q is not in the table of routes and roles (internal/access/routes.go)", pattern)
	}
	return role, nil
}
