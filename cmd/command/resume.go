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
	c := &cobra.Command{
		Use:   "resume",
		Short: "Let nodes work that are on hold, because their database is a copy",
		Long: "A node is on hold when the installation in its database says that it belongs\n" +
			"elsewhere: to another environment (RIVERBEAT_ENVIRONMENT), Postgres cluster or\n" +
			"database. So a copy of production's database does not do production's work.\n\n" +
			"Without --here this command only shows what would happen at once if the nodes\n" +
			"began to work. With --here the installation belongs to this database and the\n" +
			"environment given from now on, and nodes on hold begin within a second.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			here, err := c.Flags().GetBool("here")
			if err != nil {
				return err
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
		},
	}
	c.Flags().Bool("here", false, "the installation belongs here from now on.")
	addSettings(c, "database-url", "schema", "environment")
	return c
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
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", n.At.Format(time.RFC3339), n.ScheduleName, n.TaskName)
	}
	return w.Flush()
}
