package httpapi

import (
	"net/http"

	"riverbeat/internal/riverbeat"
)

// Where things stand.
const (
	apiPath             = "/api/v1"
	schedulesPath       = apiPath + "/schedules"
	taskDefinitionsPath = apiPath + "/task-definitions"
	runsPath            = apiPath + "/runs"
	installationPath    = apiPath + "/installation"
	backfillsPath       = apiPath + "/backfills"
	apiKeysPath         = apiPath + "/api-keys"
	featuresPath        = apiPath + "/features"
	healthzPath         = "/healthz"
	readyzPath          = "/readyz"
	applyPath           = apiPath + "/apply"
)

// The headings of the OpenAPI document.
const (
	tagSchedules       = "Schedules"
	tagTaskDefinitions = "Task definitions"
	tagRuns            = "Runs"
	tagBackfills       = "Backfills"
	tagInstallation    = "Installation"
	tagAccess          = "Access"
	tagProcess         = "Process"
)

// routes is the whole API on one page.
func (a *api) routes() {
	const (
		get, post, put, patch, remove = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete

		schedule   = schedulesPath + "/{id}"
		definition = taskDefinitionsPath + "/{task_name}"
		run        = runsPath + "/{id}"
	)
	var (
		notFound = []riverbeat.Kind{riverbeat.NotFound}
		conflict = []riverbeat.Kind{riverbeat.Conflict}
		both     = []riverbeat.Kind{riverbeat.NotFound, riverbeat.Conflict}
		made     = []int{http.StatusCreated}
		gone     = []int{http.StatusNoContent}
	)

	handle(a, post, schedulesPath, operation{
		id: "create-schedule", tag: tagSchedules, summary: "Create a schedule", successes: made,
		example: `{"task_name": "echo", "cron_expression": "0 9 * * mon-fri", "timezone": "Asia/Tokyo", "task_params": {"text": "good morning"}, "tags": ["office"], "execution_policy": "skip"}`,
	}, a.createSchedule)
	handle(a, get, schedulesPath, operation{
		id: "list-schedules", tag: tagSchedules, summary: "List schedules",
	}, a.listSchedules)
	handle(a, get, schedule, operation{
		id: "get-schedule", tag: tagSchedules, summary: "Read a schedule", failures: notFound,
	}, a.getSchedule)
	handle(a, put, schedule, operation{
		id: "replace-schedule", tag: tagSchedules, summary: "Replace a schedule", failures: notFound,
		description: "What is left out gets its default, enabled and category included. Ticks that are due are decided by the old schedule; nothing is replayed.",
		example:     `{"name": "Good evening", "task_name": "echo", "cron_expression": "@daily", "timezone": "Europe/Berlin", "catch_up": "all", "catch_up_window": "6h"}`,
	}, a.putSchedule)
	handle(a, patch, schedule, operation{
		id: "change-schedule", tag: tagSchedules, summary: "Change a schedule", failures: notFound,
		description: "A JSON merge patch (RFC 7396): what is left out stays, null is back to its default, task_params is merged member by member. An empty name or null is made anew.",
		example:     `{"cron_expression": "*/10 * * * *", "task_params": {"text": "good evening"}, "description": null}`,
	}, a.patchSchedule)
	handle(a, remove, schedule, operation{
		id: "delete-schedule", tag: tagSchedules, summary: "Delete a schedule", successes: gone, failures: notFound,
		description: "Its waiting runs are cancelled; what runs goes on, and its history stays.",
	}, a.deleteSchedule)
	handle(a, post, schedule+"/enable", operation{
		id: "enable-schedule", tag: tagSchedules, summary: "Enable a schedule", failures: notFound,
		description: "It ticks from now on. What it would have done while it was disabled is not made up for.",
	}, a.enableSchedule)
	handle(a, post, schedule+"/disable", operation{
		id: "disable-schedule", tag: tagSchedules, summary: "Disable a schedule", failures: notFound,
		description: "It has no more ticks, and its waiting runs are cancelled.",
	}, a.disableSchedule)
	handle(a, post, schedule+"/run", operation{
		id: "run-schedule", tag: tagSchedules, summary: "Run a schedule now", successes: made, failures: notFound,
		description: "Enabled or not, by its policy: look at state, for the run may have been skipped or wait in line.",
		example:     `{"task_params": {"text": "just once"}, "execution_policy": "queue"}`,
	}, a.runNow)
	handle(a, get, schedule+"/runs", operation{
		id: "list-runs-of-schedule", tag: tagSchedules, summary: "List the runs of a schedule", failures: notFound,
		description: "The newest nominal time first. With state, trigger, category or tags a page looks at a bounded number of runs: it may have fewer items than it could, even none, and the list goes on as long as there is a next_page_token.",
	}, a.listScheduleRuns)
	handle(a, get, schedule+"/next", operation{
		id: "next-ticks", tag: tagSchedules, summary: "The next ticks of a schedule", failures: both,
		description: "Within starts_at and ends_at; those of a disabled schedule are those it would have.",
	}, a.nextTicks)
	handle(a, get, schedule+"/explain", operation{
		id: "explain-schedule", tag: tagSchedules, summary: "Why a schedule ran, or did not, at a time", failures: notFound,
		description: "At a time of the past or to come, by what was in force then; also of a schedule that was deleted. Programs go by verdict, people by explanation.",
	}, a.explain)
	handle(a, post, schedulesPath+"/preview", operation{
		id: "preview-ticks", tag: tagSchedules, summary: "The ticks of a cron expression", readsOnly: true,
		description: "Nothing is written.",
		example:     `{"cron_expression": "30 2 * * *", "timezone": "Europe/Berlin", "after": "2026-03-28T00:00:00Z", "count": 3}`,
	}, a.preview)

	handle(a, post, schedulesPath+"/bulk", operation{
		id: "change-schedules", tag: tagSchedules, summary: "Do something to many schedules",
		description: "In one transaction, to at most 500, whose ticks wait until it has ended. An item that cannot be done is told with its error, and the others are done.",
		example:     `{"filter": {"category": "office", "enabled": true}, "action": "tag", "tags": ["2026"]}`,
	}, a.bulk)

	handle(a, post, applyPath, operation{
		id: "apply-manifest", tag: tagSchedules, summary: "Make the schedules of a name those of a manifest", failures: conflict,
		description: "In one transaction, all of it or nothing. What is left out of a schedule gets its default, but for enabled. What is as it should be is not touched, so it may be sent again and again; what another name manages, or nobody, never is. A dry run answers the plan, also one that would be refused.",
		example:     `{"managed_by": "shop", "schedules": [{"name": "good morning", "task_name": "echo", "cron_expression": "0 9 * * mon-fri", "timezone": "Asia/Tokyo"}], "prune": true}`,
	}, a.apply)
	handle(a, get, apiPath+"/export", operation{
		id: "export-manifest", tag: tagSchedules, summary: "Write a manifest of what there is",
		description: "POST /apply of it by the name that manages these schedules changes nothing.",
	}, a.export)

	handle(a, get, taskDefinitionsPath, operation{
		id: "list-task-definitions", tag: tagTaskDefinitions, summary: "List task definitions",
		description: "By name.",
	}, a.listTaskDefinitions)
	handle(a, post, taskDefinitionsPath, operation{
		id: "create-task-definition", tag: tagTaskDefinitions, summary: "Define a task", successes: made, failures: conflict,
		example: `{"task_name": "greet", "category": "demo", "parameter_schema": {"type": "object", "properties": {"text": {"type": "string", "default": "hello", "x-name": true}}}, "executor": {"kind": "go", "name": "echo"}, "retry": {"backoff": "10s", "max_backoff": "10m"}, "timeout": "1h30m"}`,
	}, a.createTaskDefinition)
	handle(a, get, definition, operation{
		id: "get-task-definition", tag: tagTaskDefinitions, summary: "Read a task definition", failures: notFound,
	}, a.getTaskDefinition)
	handle(a, put, definition, operation{
		id: "put-task-definition", tag: tagTaskDefinitions, summary: "Define a task, or replace its definition",
		successes: []int{http.StatusOK, http.StatusCreated}, failures: conflict,
		description: "What is left out gets its default. 201 if the task had no definition.",
		example:     `{"description": "Says what it is told", "executor": {"kind": "go", "name": "echo"}, "max_attempts": 5, "timeout": 90}`,
	}, a.putTaskDefinition)
	handle(a, patch, definition, operation{
		id: "change-task-definition", tag: tagTaskDefinitions, summary: "Change a task definition", failures: both,
		description: "A JSON merge patch (RFC 7396): what is left out stays, null is back to its default, objects are merged, parameter_schema too. To replace a schema as a whole, PUT the definition.",
		example:     `{"timeout": "10m", "retry": {"max_backoff": "1h"}, "category": null}`,
	}, a.patchTaskDefinition)
	handle(a, remove, definition, operation{
		id: "delete-task-definition", tag: tagTaskDefinitions, summary: "Delete a task definition", successes: gone, failures: both,
		description: "409 while the task stands in schedules.",
	}, a.deleteTaskDefinition)

	handle(a, get, runsPath, operation{
		id: "list-runs", tag: tagRuns, summary: "List runs",
		description: "The newest nominal time first. With state, trigger, category or tags a page looks at a bounded number of runs: it may have fewer items than it could, even none, and the list goes on as long as there is a next_page_token.",
	}, a.listRuns)
	handle(a, get, run, operation{
		id: "get-run", tag: tagRuns, summary: "Read a run", failures: notFound,
	}, a.getRun)
	handle(a, post, run+"/cancel", operation{
		id: "cancel-run", tag: tagRuns, summary: "Cancel a run", failures: both,
		description: "One that waits or is queued ends at once. A running one is asked to stop, by the context of its task: it has cancel_requested_at, and ends when the task obeys. 409 if it has ended.",
	}, a.cancelRun)
	handle(a, post, run+"/retry", operation{
		id: "retry-run", tag: tagRuns, summary: "Run an ended run once more", failures: both,
		description: "The same run, under a new job, with as many attempts as its task has now. 409 if it has not ended, if it never ran (skipped, missed, invalid_params: run its schedule now instead), or if another run with its lock key has not ended: blocked_by says which.",
	}, a.retryRun)

	handle(a, post, schedule+"/backfill", operation{
		id: "backfill-schedule", tag: tagBackfills, summary: "Run the ticks of a range of the past", successes: made, failures: both,
		description: "Enabled or not, and without touching next_run_at: each tick of the range becomes a run, once, at its own pace behind what ticks now. At most 10,000 ticks. What runs is the schedule as it is then; which ticks there are, as it is now.",
		example:     `{"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z", "execution_policy": "queue", "only_missing": true}`,
	}, a.backfillSchedule)
	handle(a, get, backfillsPath, operation{
		id: "list-backfills", tag: tagBackfills, summary: "List backfills",
		description: "The newest first.",
	}, a.listBackfills)
	handle(a, get, backfillsPath+"/{id}", operation{
		id: "get-backfill", tag: tagBackfills, summary: "How far a backfill has come", failures: notFound,
	}, a.getBackfill)
	handle(a, post, backfillsPath+"/{id}/cancel", operation{
		id: "cancel-backfill", tag: tagBackfills, summary: "End a backfill", failures: both,
		description: "No more of its ticks are run, and its runs that have not begun are cancelled; what runs goes on. 409 if it is over.",
	}, a.cancelBackfill)

	handle(a, get, installationPath, operation{
		id: "get-installation", tag: tagInstallation, summary: "Read the state of the installation",
	}, a.getInstallation)
	handle(a, get, apiPath+"/load", operation{
		id: "forecast-load", tag: tagInstallation, summary: "How many ticks fall in each minute to come",
		description: "By the enabled schedules as they are now, and which of them make the fullest minutes. It may be a minute old.",
	}, a.load)
	handle(a, get, apiPath+"/nodes", operation{
		id: "list-nodes", tag: tagInstallation, summary: "List the nodes",
		description: "Those that work, or did within the last day; the ones seen last first. Nodes that only serve the API are not on the list.",
	}, a.listNodes)
	handle(a, get, featuresPath, operation{
		id: "list-features", tag: tagInstallation, summary: "List the features, and for what they are on",
	}, a.listFeatures)
	handle(a, put, featuresPath+"/{name}", operation{
		id: "set-feature", tag: tagInstallation, summary: "Switch a feature on or off, or on for a part", failures: notFound,
		description: "What begins to be decided after this has answered goes by it, on every node.",
		example:     `{"value": "25%"}`,
	}, a.putFeature)
	handle(a, post, apiPath+"/pause", operation{
		id: "pause", tag: tagInstallation, summary: "Pause the whole installation", takesNoKey: true,
		description: "When this has answered, no tick fires until it is resumed. None is lost: on resuming, each is run, caught up with or recorded as missed by the rules for late ones. What is queued, lines and run-now are not held. If it is paused already, that pause stands.",
		example:     `{"reason": "The warehouse is being migrated"}`,
	}, a.pause)
	handle(a, post, apiPath+"/resume", operation{
		id: "resume", tag: tagInstallation, summary: "Resume the installation",
		description: "Of the ticks since the pause, those that are at most a minute old run, older ones by the catch_up of their schedules.",
	}, a.resume)

	handle(a, get, apiKeysPath, operation{
		id: "list-api-keys", tag: tagAccess, summary: "List the keys",
		description: "Newest first, those that have ended included. The keys themselves are not kept.",
	}, a.listAPIKeys)
	handle(a, post, apiKeysPath, operation{
		id: "create-api-key", tag: tagAccess, summary: "Make a key", successes: made, takesNoKey: true,
		description: "The answer is the only one that has the key.",
		example:     `{"name": "deploy pipeline", "role": "editor", "expires_at": "2199-01-01T00:00:00Z"}`,
	}, a.createAPIKey)
	handle(a, get, apiKeysPath+"/{id}", operation{
		id: "get-api-key", tag: tagAccess, summary: "Read what is kept of a key", failures: notFound,
	}, a.getAPIKey)
	handle(a, post, apiKeysPath+"/{id}/rotate", operation{
		id: "rotate-api-key", tag: tagAccess, summary: "Put another key in the place of one", successes: made, failures: both, takesNoKey: true,
		description: "With the same name, role and end. The old one stays valid for the overlap. 409 if it has ended.",
		example:     `{"overlap": "1h"}`,
	}, a.rotateAPIKey)
	handle(a, remove, apiKeysPath+"/{id}", operation{
		id: "revoke-api-key", tag: tagAccess, summary: "End a key at once", successes: gone, failures: both,
		description: "What is kept of it stays in the list. 409 for the last valid one of an admin.",
	}, a.revokeAPIKey)
	handle(a, get, apiPath+"/audit", operation{
		id: "list-audit", tag: tagAccess, summary: "Who changed what",
		description: "The newest first. Changes that were made in psql are there, too, by the database role. What was done to keys is told to admins only.",
	}, a.listAudit)
}

// healthRoutes are the open pages of every node, whatever its role.
func (a *api) healthRoutes() {
	handle(a, http.MethodGet, healthzPath, operation{
		id: "health", tag: tagProcess, summary: "Whether the process lives",
	}, a.healthz)
	handle(a, http.MethodGet, readyzPath, operation{
		id: "ready", tag: tagProcess, summary: "Whether the process can serve",
	}, a.readyz)
}
