package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"riverbeat/internal/client"
	"riverbeat/internal/riverbeat"
)

func newSchedules() *cobra.Command {
	c := &cobra.Command{
		Use:   "schedules",
		Short: "List, explain, run and change schedules",
		Long: "Uses the API of a server; see 'riverbeat login'. A schedule is named by its id,\n" +
			"or by its name if no other schedule has the same.",
	}
	group(c, newSchedulesList(), newSchedulesShow(), newSchedulesNext(), newSchedulesExplain(), newSchedulesRun(),
		newSchedulesChange("enable", "Let schedules tick, from now on"),
		newSchedulesChange("disable", "Let schedules tick no more, and cancel what waits in line"),
		newSchedulesDelete(), newSchedulesBackfill())
	return c
}

// shownSchedule is what tables show of a schedule.
type shownSchedule struct {
	ID              string     `json:"id"`
	Name            string     `json:"name"`
	TaskName        string     `json:"task_name"`
	CronExpression  string     `json:"cron_expression"`
	Timezone        string     `json:"timezone"`
	Enabled         bool       `json:"enabled"`
	ExecutionPolicy string     `json:"execution_policy"`
	NextRunAt       *time.Time `json:"next_run_at"`
	LastRunAt       *time.Time `json:"last_run_at"`
	LastError       *string    `json:"last_error"`
}

// next is its next tick, or why it has none.
func (s *shownSchedule) next() string {
	switch {
	case s.NextRunAt != nil:
		return stamp(s.NextRunAt)
	case !s.Enabled:
		return "disabled"
	case s.LastError != nil:
		return "stopped"
	default:
		return "ended"
	}
}

func (s *shownSchedule) recurrence() string {
	if s.Timezone == "UTC" {
		return s.CronExpression
	}
	return s.CronExpression + " (" + s.Timezone + ")"
}

var scheduleNoun = noun[shownSchedule]{
	one: "schedule",
	columns: []column{
		{head: "NAME", least: 20},
		{head: "NEXT", colour: func(text string) string {
			return map[string]string{"disabled": faint, "ended": faint, "stopped": red}[text]
		}},
		{head: "RECURRENCE", least: 16},
		{head: "ID"},
		{head: "TASK", least: 12},
		{head: "POLICY"},
		{head: "LAST"},
	},
	row: func(s shownSchedule) []string {
		return []string{s.Name, s.next(), s.recurrence(), s.ID, s.TaskName, s.ExecutionPolicy, stamp(s.LastRunAt)}
	},
	name: func(s shownSchedule) string { return s.ID },
}

var scheduleFilters = []filter{
	{flag: "name", param: "name", kind: "name", doc: "With exactly this name."},
	{flag: "q", param: "q", kind: "words", doc: "With these words in the name; the last one may be unfinished."},
	{flag: "task", param: "task_name", kind: "name", doc: "Of this task."},
	{flag: "category", param: "category", kind: "category", doc: "Of this category; empty: of none."},
	{flag: "tag", param: "tags", kind: "tag", many: true, doc: "With this tag. May be repeated; all must match."},
	{flag: "managed-by", param: "managed_by", kind: "name", doc: "Managed by this name; empty: by nobody."},
	{flag: "enabled", param: "enabled", of: []string{"true", "false"}, doc: "Enabled ones, or disabled ones."},
	{
		flag: "sort", param: "sort", of: []string{"-created_at", "created_at", "name", "-name", "next_run_at", "-next_run_at"},
		doc: "The order; - is descending. When not set: -created_at.",
	},
}

const schedulesPath = "/schedules"

func newSchedulesList() *cobra.Command {
	c := apiCommand{
		use: "list", short: "List schedules", args: noArgs,
		do: func(c *call, _ []string) error {
			return list(c, scheduleNoun, schedulesPath, queryOf(c.Command, scheduleFilters))
		},
	}.command()
	addFilters(c, scheduleFilters)
	addLimit(c, 0)
	return c
}

const oneSchedule = "the id or the name of a schedule"

func newSchedulesShow() *cobra.Command {
	return scheduleNamed(apiCommand{
		use: "show SCHEDULE", short: "Show all there is to say of a schedule", args: oneArg(oneSchedule),
		do: func(c *call, args []string) error {
			path, err := c.schedulePath(args[0])
			if err != nil {
				return err
			}
			raw, err := c.get(path, nil)
			if err != nil {
				return err
			}
			return show(c.output, scheduleNoun, raw)
		},
	}.command())
}

// schedulePath is the path of a schedule that is named by its id or its name, and of what
// is below it.
func (c *call) schedulePath(named string, below ...string) (string, error) {
	id, err := c.scheduleID(named)
	return schedulesPath + client.Path(append([]string{id}, below...)...), err
}

// scheduleID is the id of a schedule that is named by its id or its name.
func (c *call) scheduleID(named string) (string, error) {
	if len(named) == 36 && uuid.Validate(named) == nil {
		return named, nil
	}
	const shown = 10
	var found []shownSchedule
	query := url.Values{"name": {named}, "page_size": {fmt.Sprint(shown + 1)}}
	for s, err := range client.Items[shownSchedule](c.Context(), c.api, client.Request{Path: schedulesPath, Query: query}) {
		if err != nil {
			return "", err
		}
		if found = append(found, s); len(found) > shown {
			break
		}
	}
	switch len(found) {
	case 0:
		return "", codedError{fmt.Errorf("there is no schedule %q; 'riverbeat schedules list' shows them", named), exitNotFound}
	case 1:
		return found[0].ID, nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "several schedules have the name %q; take the id of one:", named)
	for i, s := range found {
		if i == shown {
			b.WriteString("\n  and more")
			break
		}
		fmt.Fprintf(&b, "\n  %s  %s  %s", s.ID, s.recurrence(), s.TaskName)
	}
	return "", usageError{errors.New(b.String())}
}

func newSchedulesNext() *cobra.Command {
	filters := []filter{
		{flag: "after", param: "after", kind: byTime, doc: "The ticks after it. When not set: now."},
		{flag: "count", param: "count", kind: "number", doc: "How many, at most 100. When not set: 5."},
	}
	c := apiCommand{
		use: "next SCHEDULE", short: "Tell when a schedule ticks next", args: oneArg(oneSchedule),
		long: "Tells when a schedule ticks next, by the clocks of its time zone. Those of a\n" +
			"disabled one are those that it would have. -o name is their times in UTC.",
		do: func(c *call, args []string) error {
			path, err := c.schedulePath(args[0], "next")
			if err != nil {
				return err
			}
			raw, err := c.get(path, queryOf(c.Command, filters))
			if err != nil {
				return err
			}
			return c.showTicks(raw)
		},
	}.command()
	addFilters(c, filters)
	return scheduleNamed(c)
}

// shownTick is what a table shows of a tick.
type shownTick struct {
	At     time.Time `json:"at"`
	Local  string    `json:"local"`
	Remark string    `json:"remark"`
}

// local is when it is by the clocks of the schedule's zone.
func (t *shownTick) local() string { return strings.Replace(t.Local, "T", " ", 1) }

// showTicks shows the next ticks of a schedule.
func (c *call) showTicks(raw json.RawMessage) error {
	if c.format == asJSON || c.format == asYAML {
		return show(c.output, noun[any]{}, raw)
	}
	var next struct {
		Description string
		Ticks       []shownTick
	}
	if err := json.Unmarshal(raw, &next); err != nil {
		return err
	}
	if c.format == asName {
		for _, t := range next.Ticks {
			_, _ = fmt.Fprintln(c.w, t.At.Format(time.RFC3339))
		}
		return nil
	}
	if len(next.Ticks) == 0 {
		_, _ = fmt.Fprintln(c.errs, "There are no more ticks.")
		return nil
	}
	_, _ = fmt.Fprintf(c.w, "%s\n\n", printable(next.Description))
	rows := make([][]string, len(next.Ticks))
	for i, t := range next.Ticks {
		rows[i] = []string{t.local(), stamp(&t.At), t.Remark}
	}
	return writeTable(c.w, c.screen, []column{{head: "TICK"}, {head: "HERE"}, {head: "REMARK", least: 10}}, rows)
}

func newSchedulesExplain() *cobra.Command {
	at := &moment{}
	c := apiCommand{
		use: "explain SCHEDULE", short: "Explain why a schedule ran at a time, or did not", args: oneArg(oneSchedule),
		long: "Explains why a schedule ran at a time of the past, or did not, or whether it\n" +
			"will: by what was in force then, and what is recorded. A schedule that was\n" +
			"deleted is named by its id. -o name is the verdict.",
		do: func(c *call, args []string) error {
			if at.text == "" {
				return badCall(c.Command, "--at is needed: the time to explain")
			}
			path, err := c.schedulePath(args[0], "explain")
			if err != nil {
				return err
			}
			raw, err := c.get(path, url.Values{"at": {at.query()}})
			if err != nil {
				return err
			}
			return c.showExplanation(raw)
		},
	}.command()
	c.Flags().Var(at, "at", "The time, of the past or to come. Required.")
	complete(c, "at")
	return scheduleNamed(c)
}

func (c *call) showExplanation(raw json.RawMessage) error {
	type reference struct{ ID string }
	type explanation struct {
		Verdict, Explanation string
		Nearest              struct{ Before, After *shownTick }
		Run                  *reference
		BlockedBy            *reference `json:"blocked_by"`
	}
	if c.format != asTable {
		return show(c.output, noun[explanation]{name: func(e explanation) string { return e.Verdict }}, raw)
	}
	var e explanation
	if err := json.Unmarshal(raw, &e); err != nil {
		return err
	}
	var b strings.Builder
	paragraph(&b, "", printable(e.Explanation))
	b.WriteString("\n")
	line := func(name, value string) { fmt.Fprintf(&b, "%-11s  %s\n", name, printable(value)) }
	line("verdict", e.Verdict)
	if e.Run != nil {
		line("run", e.Run.ID)
	}
	if e.BlockedBy != nil {
		line("blocked by", e.BlockedBy.ID)
	}
	if e.Nearest.Before != nil {
		line("tick before", e.Nearest.Before.local())
	}
	if e.Nearest.After != nil {
		line("tick after", e.Nearest.After.local())
	}
	_, err := io.WriteString(c.w, b.String())
	return err
}

func newSchedulesRun() *cobra.Command {
	params, policy := &word{kind: "JSON or @file"}, policyFlag()
	c := apiCommand{
		use: "run SCHEDULE...", short: "Run schedules now", args: someArgs(oneSchedule),
		long: "Runs schedules now, enabled or not, each by its policy: look at the state of the\n" +
			"run, which may have been skipped, or wait in line. -o name is the ids of the\n" +
			"runs, for 'riverbeat runs watch'.",
		do: func(c *call, args []string) error {
			body := map[string]any{}
			if params.value != "" {
				raw, err := readParams(params.value)
				if err != nil {
					return badCall(c.Command, "--params: %w", err)
				}
				body["task_params"] = raw
			}
			if policy.value != "" {
				body["execution_policy"] = policy.value
			}
			return forEach(c, runNoun, args, func(arg string) (json.RawMessage, error) {
				path, err := c.schedulePath(arg, "run")
				if err != nil {
					return nil, err
				}
				return c.change(http.MethodPost, path, body)
			})
		},
	}.command()
	c.Flags().Var(params, "params", "Parameters instead of all of the schedule's: an object, or @ and a file with one.")
	c.Flags().Var(policy, "policy", "A policy instead of the schedule's.")
	complete(c, "policy", policy.of...)
	addChange(c)
	return scheduleNamed(c)
}

// policyFlag is a flag that is a policy.
func policyFlag() *choice {
	return &choice{of: []string{string(riverbeat.Allow), string(riverbeat.Skip), string(riverbeat.Queue)}}
}

// readParams reads parameters: JSON, or @ and the name of a file with it.
func readParams(text string) (json.RawMessage, error) {
	raw := []byte(text)
	if name, ok := strings.CutPrefix(text, "@"); ok {
		var err error
		if raw, err = os.ReadFile(name); err != nil { //nolint:gosec // whoever starts the program names the file
			return nil, err
		}
	}
	if !json.Valid(raw) {
		return nil, fmt.Errorf("it is not JSON such as %s", `{"text": "hello"}`)
	}
	return raw, nil
}

// newSchedulesChange is a command that does to schedules what its name says.
func newSchedulesChange(verb, short string) *cobra.Command {
	c := apiCommand{
		use: verb + " SCHEDULE...", short: short, args: someArgs(oneSchedule),
		do: func(c *call, args []string) error {
			return forEach(c, scheduleNoun, args, func(arg string) (json.RawMessage, error) {
				path, err := c.schedulePath(arg, verb)
				if err != nil {
					return nil, err
				}
				return c.change(http.MethodPost, path, nil)
			})
		},
	}.command()
	addChange(c)
	addIfVersion(c)
	return scheduleNamed(c)
}

func newSchedulesDelete() *cobra.Command {
	c := apiCommand{
		use: "delete SCHEDULE...", short: "Delete schedules; their history stays", args: someArgs(oneSchedule),
		long: "Deletes schedules and shows what they were. What waits in line is cancelled,\n" +
			"what runs goes on, and the history stays.",
		do: func(c *call, args []string) error {
			return forEach(c, scheduleNoun, args, func(arg string) (json.RawMessage, error) {
				path, err := c.schedulePath(arg)
				if err != nil {
					return nil, err
				}
				was, err := c.get(path, nil)
				if err != nil {
					return nil, err
				}
				_, err = c.change(http.MethodDelete, path, nil)
				return was, err
			})
		},
	}.command()
	addChange(c)
	addIfVersion(c)
	return scheduleNamed(c)
}

func newSchedulesBackfill() *cobra.Command {
	from, to, policy := &moment{}, &moment{}, policyFlag()
	c := apiCommand{
		use: "backfill SCHEDULE...", short: "Run the ticks of a range of the past", args: someArgs(oneSchedule),
		long: "Runs the ticks of a range of the past, each once and at its own pace behind what\n" +
			"ticks now. 'riverbeat backfills show' tells how far it has come.",
		do: func(c *call, args []string) error {
			if from.text == "" || to.text == "" {
				return badCall(c.Command, "--from and --to are needed: the range, without its end")
			}
			body := map[string]any{"from": from.at, "to": to.at, "only_missing": flagOf(c.Command, "only-missing") == "true"}
			if policy.value != "" {
				body["execution_policy"] = policy.value
			}
			return forEach(c, backfillNoun, args, func(arg string) (json.RawMessage, error) {
				path, err := c.schedulePath(arg, "backfill")
				if err != nil {
					return nil, err
				}
				return c.change(http.MethodPost, path, body)
			})
		},
	}.command()
	c.Flags().Var(from, "from", "Ticks at it or after. Required.")
	c.Flags().Var(to, "to", "Ticks before it. Required.")
	complete(c, "from")
	complete(c, "to")
	c.Flags().Bool("only-missing", false, "only ticks that have not run, and will not.")
	c.Flags().Var(policy, "policy", "A policy instead of the schedule's. When not set and that is skip: queue.")
	complete(c, "policy", policy.of...)
	addChange(c)
	return scheduleNamed(c)
}
