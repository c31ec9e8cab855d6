package command

import (
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"riverbeat/internal/client"
	"riverbeat/internal/riverbeat"
)

func newRuns() *cobra.Command {
	c := &cobra.Command{
		Use:   "runs",
		Short: "List, watch, cancel, retry and prune runs",
		Long: "Uses the API of a server; see 'riverbeat login'. Only prune works on the\n" +
			"database itself. Every tick of a schedule is a run, or is inside one that is\n" +
			"missed and stands for a gap.",
	}
	group(c, newRunsList(), newRunsShow(), newRunsWatch(),
		newRunsChange("cancel", "Cancel runs; running ones are asked to stop"),
		newRunsChange("retry", "Run ended runs once more"),
		newPrune())
	return c
}

// shownRun is what tables show of a run.
type shownRun struct {
	ID           string          `json:"id"`
	ScheduleName string          `json:"schedule_name"`
	TaskName     string          `json:"task_name"`
	Trigger      string          `json:"trigger"`
	ScheduledFor time.Time       `json:"scheduled_for"`
	State        riverbeat.State `json:"state"`
	Reason       *string         `json:"reason"`
	Attempt      int             `json:"attempt"`
	StartedAt    *time.Time      `json:"started_at"`
	FinishedAt   *time.Time      `json:"finished_at"`
}

// took is how long it ran, if it has ended.
func (r *shownRun) took() string {
	if r.StartedAt == nil || r.FinishedAt == nil {
		return "-"
	}
	d := r.FinishedAt.Sub(*r.StartedAt)
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	return d.Round(time.Millisecond).String()
}

func stateColour(state string) string {
	switch riverbeat.State(state) {
	case riverbeat.Succeeded:
		return green
	case riverbeat.Failed:
		return red
	case riverbeat.Cancelled, riverbeat.Skipped, riverbeat.Missed, riverbeat.Retrying:
		return yellow
	case riverbeat.Running:
		return blue
	default:
		return ""
	}
}

var runNoun = noun[shownRun]{
	one: "run",
	columns: []column{
		{head: "SCHEDULE", least: 16},
		{head: "STATE", colour: stateColour},
		{head: "SCHEDULED FOR"},
		{head: "ID"},
		{head: "TOOK"},
		{head: "REASON"},
		{head: "TRIGGER"},
		{head: "TASK", least: 12},
	},
	row: func(r shownRun) []string {
		return []string{
			r.ScheduleName, string(r.State), stamp(&r.ScheduledFor), r.ID, r.took(), orDash(r.Reason), r.Trigger, r.TaskName,
		}
	},
	name: func(r shownRun) string { return r.ID },
}

var runStates = []string{
	string(riverbeat.Waiting), string(riverbeat.Queued), string(riverbeat.Running), string(riverbeat.Retrying), string(riverbeat.Succeeded),
	string(riverbeat.Failed), string(riverbeat.Cancelled), string(riverbeat.Skipped), string(riverbeat.Missed),
}

var runFilters = []filter{
	{flag: "state", param: "state", kind: "state", of: runStates, many: true, doc: "In this state. May be repeated; one must match."},
	{
		flag: "trigger", param: "trigger", kind: "trigger", many: true,
		of: []string{
			string(riverbeat.TriggerSchedule), string(riverbeat.TriggerCatchUp), string(riverbeat.TriggerManual),
			string(riverbeat.TriggerBackfill), string(riverbeat.TriggerAlert),
		},
		doc: "Asked for by schedule, catch_up, manual, backfill or alert. May be repeated; one must match.",
	},
	{flag: "task", param: "task_name", kind: "name", doc: "Of this task."},
	{flag: "category", param: "category", kind: "category", doc: "Of this category; empty: of none."},
	{flag: "tag", param: "tags", kind: "tag", many: true, doc: "With this tag. May be repeated; all must match."},
	{flag: "from", param: "from", kind: byTime, doc: "With a nominal time at it or after."},
	{flag: "to", param: "to", kind: byTime, doc: "With a nominal time before it."},
}

// addRunFilters gives a command the flags that pick runs, for runQuery.
func addRunFilters(c *cobra.Command) {
	addFilters(c, runFilters)
	c.Flags().Var(&word{kind: "id or name"}, "schedule", "Of this schedule.")
	complete(c, "schedule")
}

func (c *call) runQuery() (url.Values, error) {
	query := queryOf(c.Command, runFilters)
	if named := flagOf(c.Command, "schedule"); named != "" {
		id, err := c.scheduleID(named)
		if err != nil {
			return nil, err
		}
		query.Set("schedule_id", id)
	}
	return query, nil
}

const runsPath = "/runs"

func newRunsList() *cobra.Command {
	c := apiCommand{
		use: "list", short: "List runs, the newest nominal time first", args: noArgs,
		do: func(c *call, _ []string) error {
			query, err := c.runQuery()
			if err != nil {
				return err
			}
			return list(c, runNoun, runsPath, query)
		},
	}.command()
	addRunFilters(c)
	addLimit(c, 50)
	return c
}

const oneRun = "the id of a run"

func newRunsShow() *cobra.Command {
	return apiCommand{
		use: "show RUN", short: "Show all there is to say of a run, its logs included", args: oneArg(oneRun),
		do: func(c *call, args []string) error {
			raw, err := c.get(runsPath+client.Path(args[0]), nil)
			if err != nil {
				return err
			}
			return show(c.output, runNoun, raw)
		},
	}.command()
}

// newRunsChange is a command that does to runs what its name says.
func newRunsChange(verb, short string) *cobra.Command {
	c := apiCommand{
		use: verb + " RUN...", short: short, args: someArgs(oneRun),
		do: func(c *call, args []string) error {
			return forEach(c, runNoun, args, func(id string) (json.RawMessage, error) {
				return c.change(http.MethodPost, runsPath+client.Path(id, verb), nil)
			})
		},
	}.command()
	addChange(c)
	return c
}
