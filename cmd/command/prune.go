package command

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"riverbeat/internal/prune"
	"riverbeat/internal/riverbeat"
)

func newPrune() *cobra.Command {
	c := &cobra.Command{
		Use:   "prune",
		Short: "Drop the runs that are kept no longer, or say which those are",
		Long: "Does at once what nodes do once an hour, and says why what stays is kept. Runs\n" +
			"are dropped by the week, when each of the week has ended and is older than\n" +
			"RIVERBEAT_RUN_RETENTION; if nodes keep them for longer, that counts.\n\n" +
			"It works on the database itself, and its login must own the tables. It exits\n" +
			"with 0 if all is dropped that could be, 1 if something still reads a week that\n" +
			"is on its way out (say it again later, or leave it to the nodes) or if it\n" +
			"failed, 2 if it was called wrongly.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o := prune.Options{DryRun: flagOf(c, "dry-run") == "true"}
			if text := flagOf(c, "older-than"); text != "" {
				var problem string
				if o.OlderThan, problem = riverbeat.ParseRetention(text); problem != "" || o.OlderThan == 0 {
					return badCall(c, "--older-than: %q is not a time such as 90d, at least 7d", text)
				}
			}
			t, err := openTool(c)
			if err != nil {
				return err
			}
			defer t.close()
			p := prune.New(prune.Config{
				DB: t.db.In(t.cfg.Environment), Keep: t.cfg.RunRetention, Now: time.Now, Logger: t.logger,
			})
			report, err := p.Prune(c.Context(), o)
			if err != nil && len(report.Weeks) == 0 {
				return err
			}
			if printing := printPruned(c.OutOrStdout(), report); err == nil {
				err = printing
			}
			if err == nil && report.Unfinished() {
				err = errors.New("something still reads a week that is on its way out; say it again when that is done")
			}
			return err
		},
	}
	c.Flags().Bool("dry-run", false, "Change nothing, and say what would be dropped.")
	c.Flags().Var(&word{kind: "duration"}, "older-than", "How old runs are dropped, whatever nodes keep; at least 7d.")
	addSettings(c, "database-url", "schema", "environment", "run-retention", "log-level", "log-format")
	return c
}

// printPruned writes a line for each week, and how many there were of each outcome.
func printPruned(out io.Writer, r *prune.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if r.Keep == 0 {
		_, _ = fmt.Fprintf(w, "Runs are kept for ever.\n\n")
	} else {
		_, _ = fmt.Fprintf(w, "Runs are kept for %s.\n\n", riverbeat.FormatRetention(r.Keep))
	}
	says := map[prune.Outcome]string{
		prune.Kept: "kept", prune.Due: "would be dropped", prune.Leaving: "leaving", prune.Dropped: "dropped", prune.Later: "not looked at",
	}
	_, _ = fmt.Fprintln(w, "WEEK OF\tRUNS\tSIZE\tOLDEST UNENDED\tWHAT")
	count := map[prune.Outcome]int{}
	for i := range r.Weeks {
		week := &r.Weeks[i]
		count[week.Outcome]++
		what := says[week.Outcome]
		if week.Why != "" {
			what += ": " + week.Why
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", week.From.Format(time.DateOnly), runsOf(week), size(week.Bytes), oldestUnended(week), what)
	}
	var sums []string
	for _, outcome := range []prune.Outcome{prune.Dropped, prune.Due, prune.Leaving, prune.Later, prune.Kept} {
		if n := count[outcome]; n > 0 {
			sums = append(sums, fmt.Sprintf("%d %s", n, says[outcome]))
		}
	}
	_, _ = fmt.Fprintf(w, "\n%d weeks: %s\n", len(r.Weeks), strings.Join(sums, ", "))
	return w.Flush()
}

// runsOf is how many runs a week has: counted, or by the statistics.
func runsOf(w *prune.Week) string {
	switch {
	case w.Looked != nil:
		return fmt.Sprint(w.Looked.Runs)
	case w.Runs >= 0:
		return fmt.Sprintf("~%d", w.Runs)
	default:
		return "?"
	}
}

func oldestUnended(w *prune.Week) string {
	if w.Looked == nil || w.Looked.FirstUnended == nil {
		return "-"
	}
	return w.Looked.FirstUnended.Format(time.RFC3339)
}

// size is a number of bytes in words.
func size(bytes int64) string {
	const step = 1024
	unit := 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	n := float64(bytes)
	for n >= step && unit < len(units)-1 {
		n /= step
		unit++
	}
	if unit == 0 || n >= 100 {
		return fmt.Sprintf("%.0f %s", n, units[unit])
	}
	return fmt.Sprintf("%.1f %s", n, units[unit])
}
