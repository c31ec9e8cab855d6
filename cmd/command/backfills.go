package command

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"riverbeat/internal/client"
	"riverbeat/internal/riverbeat"
)

func newBackfills() *cobra.Command {
	c := &cobra.Command{
		Use:   "backfills",
		Short: "See how far backfills have come, and cancel them",
		Long: "Uses the API of a server; see 'riverbeat login'. 'riverbeat schedules backfill'\n" +
			"begins one.",
	}
	group(c, newBackfillsList(), newBackfillsShow(), newBackfillsCancel())
	return c
}

// shownBackfill is what tables show of a backfill.
type shownBackfill struct {
	ID           string    `json:"id"`
	ScheduleName string    `json:"schedule_name"`
	From         time.Time `json:"from"`
	To           time.Time `json:"to"`
	State        string    `json:"state"`
	Total        int       `json:"total"`
	Decided      int       `json:"decided"`
	LeftOut      int       `json:"left_out"`
}

var backfillNoun = noun[shownBackfill]{
	one: "backfill",
	columns: []column{
		{head: "SCHEDULE", least: 16},
		{head: "STATE"},
		{head: "DECIDED"},
		{head: "ID"},
		{head: "FROM"},
		{head: "TO"},
	},
	row: func(b shownBackfill) []string {
		return []string{b.ScheduleName, b.State, fmt.Sprintf("%d/%d", b.Decided+b.LeftOut, b.Total), b.ID, stamp(&b.From), stamp(&b.To)}
	},
	name: func(b shownBackfill) string { return b.ID },
}

const (
	backfillsPath = "/backfills"
	oneBackfill   = "the id of a backfill"
)

func newBackfillsList() *cobra.Command {
	filters := []filter{{
		flag: "state", param: "state",
		of:  []string{string(riverbeat.BackfillRunning), string(riverbeat.BackfillFinished), string(riverbeat.BackfillCancelled)},
		doc: "In this state.",
	}}
	c := apiCommand{
		use: "list", short: "List backfills, the newest first", args: noArgs,
		do: func(c *call, _ []string) error {
			return list(c, backfillNoun, backfillsPath, queryOf(c.Command, filters))
		},
	}.command()
	addFilters(c, filters)
	addLimit(c, 50)
	return c
}

func newBackfillsShow() *cobra.Command {
	return apiCommand{
		use: "show BACKFILL", short: "Show how far a backfill has come", args: oneArg(oneBackfill),
		do: func(c *call, args []string) error {
			raw, err := c.get(backfillsPath+client.Path(args[0]), nil)
			if err != nil {
				return err
			}
			return show(c.output, backfillNoun, raw)
		},
	}.command()
}

func newBackfillsCancel() *cobra.Command {
	c := apiCommand{
		use: "cancel BACKFILL...", short: "End backfills; what runs goes on", args: someArgs(oneBackfill),
		do: func(c *call, args []string) error {
			return forEach(c, backfillNoun, args, func(id string) (json.RawMessage, error) {
				return c.change(http.MethodPost, backfillsPath+client.Path(id, "cancel"), nil)
			})
		},
	}.command()
	addChange(c)
	return c
}
