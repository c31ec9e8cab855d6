package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

func newResume() *cobra.Command {
	c := apiCommand{
		use: "resume", short: "End a pause, or the hold of nodes on a copy of a database", args: noArgs,
		long: "Ends the pause that 'riverbeat pause' began, over the API of a server.\n\n" +
			"With --here it is about nodes on hold, and works on the database. A node is on\n" +
			"hold when the installation in its database says that it belongs elsewhere: to\n" +
			"another environment (RIVERBEAT_ENVIRONMENT), Postgres cluster or database. So a\n" +
			"copy of production's database does not do production's work. With --here the\n" +
			"installation belongs to this database and the environment given from now on,\n" +
			"and nodes on hold begin within a second. With --database-url alone nothing is\n" +
			"changed, and shown what would happen at once if they began to work.",
		do: func(c *call, _ []string) error { return c.endPause() },
	}.command()
	overAPI := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		for _, flag := range []string{"here", "database-url", "schema", "environment"} {
			if c.Flags().Changed(flag) {
				return resumeInDatabase(c)
			}
		}
		return overAPI(c, args)
	}
	c.Flags().Bool("here", false, "the installation belongs here from now on.")
	addChange(c)
	addSettings(c, "database-url", "schema", "environment")
	return c
}

// resumeInDatabase shows what is on hold, and lets it go on with --here.
func resumeInDatabase(c *cobra.Command) error {
	here, err := c.Flags().GetBool("here")
	if err != nil {
		return err
	}
	if flagOf(c, "dry-run") == "true" {
		return badCall(c, "--dry-run is for a pause; a hold is only shown without --here")
	}
	cfg, _, err := loadDatabaseConfig(c)
	if err != nil {
		return err
	}
	pool, err := postgres.NewPool(c.Context(), databaseConfig(cfg))
	if err != nil {
		return err
	}
	defer pool.Close()
	db := postgres.New(pool, cfg.Schema).In(cfg.Environment)
	return db.InTx(c.Context(), func(tx *postgres.Tx) error {
		return resume(c.Context(), tx, c.OutOrStdout(), cfg.Environment, here)
	})
}

func resume(ctx context.Context, tx *postgres.Tx, out io.Writer, environment string, here bool) error {
	const shown = 10
	hold, err := tx.Hold(ctx, shown)
	if err != nil {
		return err
	}
	if hold == nil {
		_, err := fmt.Fprintln(out, "Nothing is on hold: the installation is at home here.")
		return err
	}
	if err := printHold(out, hold); err != nil {
		return err
	}
	if !here {
		return errors.New("nothing was changed; say --here to let the nodes work on this database")
	}
	if err := tx.MoveHere(ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\nThe installation belongs here now, environment %s. Nodes on hold begin within a second.\n", environment)
	return err
}

func printHold(out io.Writer, h *riverbeat.Hold) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%s\n\nAt once there would be\nschedules that are due\t%d\njobs that are not finished\t%d\nruns that wait in line\t%d\n",
		h.Why, h.DueSchedules, h.Jobs, h.WaitingRuns)
	if len(h.Next) > 0 {
		_, _ = fmt.Fprintf(w, "\nNEXT TICK\tSCHEDULE\tTASK\n")
	}
	for _, n := range h.Next {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", n.At.Format(time.RFC3339), printable(n.ScheduleName), printable(n.TaskName))
	}
	return w.Flush()
}
