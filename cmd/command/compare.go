package command

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"riverbeat/internal/celery"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

func newImportCompare() *cobra.Command {
	c := &cobra.Command{
		Use:   "compare",
		Short: "Hold what ticks here in shadow against what Celery has sent",
		Long: "Compares the ticks that were recorded here in shadow ('riverbeat import\n" +
			"celery-beat --shadow') with the table in which Celery writes down what it has\n" +
			"sent or done, tick by tick. With --django that is the one of\n" +
			"django-celery-results, unless told otherwise. It only reads.\n\n" +
			"It exits with 3 if anything differs.",
		Args: noArgs,
	}
	from := addBeatSource(c)
	logFrom, table := &word{kind: "postgres:// URL"}, &word{kind: "table"}
	name, task, at := &word{kind: "column"}, &word{kind: "column"}, &word{kind: "column"}
	c.Flags().Var(logFrom, "log-from", "The database with the log. Defaults to --from.")
	c.Flags().Var(table, "log", "The table with a row for each time that something was sent. With --django it defaults to "+celery.DjangoLog.Table+".")
	c.Flags().Var(name, "log-name", "Its column with the name of the schedule.")
	c.Flags().Var(task, "log-task", "If it has none such: its column with the name of the task. The schedules of a task are held against it together.")
	c.Flags().Var(at, "log-at", "Its column with the time; one without a zone is UTC.")
	since := &word{value: "24h", kind: "duration"}
	c.Flags().Var(since, "since", "How far back ticks are looked at.")
	within := &word{value: riverbeat.FormatDuration(celery.DefaultWithin), kind: "duration"}
	c.Flags().Var(within, "within", "How late after its tick a row may be.")
	output := &word{value: "table", kind: "table or json"}
	c.Flags().VarP(output, "output", "o", "How it is shown.")
	addSettings(c, "database-url", "schema", "timezone")
	c.RunE = func(c *cobra.Command, _ []string) error {
		log := celery.Log{URL: cmp.Or(logFrom.value, from.from.value), Table: table.value, Name: name.value, Task: task.value, At: at.value}
		if *from.django && log.Table == "" {
			log.Table = celery.DjangoLog.Table
			log.At = cmp.Or(log.At, celery.DjangoLog.At)
			if log.Task == "" {
				log.Name = cmp.Or(log.Name, celery.DjangoLog.Name)
			}
		}
		switch {
		case output.value != "table" && output.value != "json":
			return badCall(c, "--output: %q is neither table nor json", output.value)
		case log.Table == "" || log.At == "":
			return badCall(c, "--log and --log-at are needed: the table in which Celery's sendings stand, and its column with the time")
		case (log.Name == "") == (log.Task == ""):
			return badCall(c, "one of --log-name and --log-task is needed: the column with the name of the schedule, or of the task")
		}
		back, err := time.ParseDuration(since.value)
		if err != nil || back <= 0 {
			return badCall(c, "--since: %q is no duration like 90m or 72h", since.value)
		}
		allowed, err := time.ParseDuration(within.value)
		if err != nil || allowed <= 0 {
			return badCall(c, "--within: %q is no duration like 30s or 5m", within.value)
		}
		here, err := from.open(c)
		if err != nil {
			return err
		}
		defer here.close()
		now, err := here.now(c.Context())
		if err != nil {
			return err
		}
		comparison := celery.Comparison{
			Source: here.source, Log: log, Since: now.Add(-back), Now: now, Within: allowed, Shadows: here.shadows,
		}
		compared, err := comparison.Run(c.Context())
		if err != nil {
			return err
		}
		if err := printCompared(c.OutOrStdout(), compared, output.value == "json"); err != nil {
			return err
		}
		return differing(compared)
	}
	return c
}

// shadows reads what was recorded here of the ticks of schedules in shadow.
func (i *importer) shadows(ctx context.Context, schedules []uuid.UUID, since time.Time) (shadows map[uuid.UUID]*postgres.Shadow, err error) {
	err = i.db.Read(ctx, func(tx *postgres.Tx) (err error) {
		shadows, err = tx.Shadows(ctx, schedules, since)
		return err
	})
	return shadows, err
}

// differing is an error if anything differs.
func differing(compared []celery.Compared) error {
	n := 0
	for _, one := range compared {
		if one.Verdict == celery.Differs {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return codedError{fmt.Errorf("%d of %d differ", n, len(compared)), exitDifferences}
}

// maxMoments is how many moments are listed for each schedule.
const maxMoments = 5

// printCompared shows what comparisons have come to.
func printCompared(w io.Writer, compared []celery.Compared, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(map[string]any{"items": append([]celery.Compared{}, compared...)})
	}
	if len(compared) == 0 {
		_, err := fmt.Fprintln(w, "Nothing ticks in shadow: begin with 'riverbeat import celery-beat --shadow'.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "VERDICT\tNAME\tSINCE\tTICKS HERE\tSENT THERE\tONLY HERE\tONLY THERE\tTWICE\tLATEST")
	for i := range compared {
		one := &compared[i]
		moments := fmt.Sprintf("%d\t%d\t%d\t%.1f s", len(one.OnlyHere), len(one.OnlyThere), len(one.Twice), one.Latest)
		if one.PaceOnly {
			moments = "-\t-\t-\t-"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\n", one.Verdict, cell(one.Name), when(&one.From, "-"), one.Ticks, one.Sent, moments)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range compared {
		printMoments(w, &compared[i])
	}
	_, err := fmt.Fprintf(w, "\n%s compared.\n", count(len(compared), "schedule"))
	return err
}

// printMoments lists what a table has no room for.
func printMoments(w io.Writer, one *celery.Compared) {
	var lines []string
	list := func(what string, moments []time.Time) {
		if len(moments) == 0 {
			return
		}
		texts := make([]string, 0, maxMoments)
		for _, at := range moments[:min(len(moments), maxMoments)] {
			texts = append(texts, at.Format(time.RFC3339))
		}
		if more := len(moments) - len(texts); more > 0 {
			texts = append(texts, fmt.Sprintf("and %d more", more))
		}
		lines = append(lines, what+strings.Join(texts, ", "))
	}
	list("not sent there: ", one.OnlyHere)
	list("sent there for no tick of here: ", one.OnlyThere)
	list("sent there once more: ", one.Twice)
	if one.InGaps > 0 {
		lines = append(lines, fmt.Sprintf("%d were sent there while no ticks were decided here (a pause, or no node that worked)", one.InGaps))
	}
	if one.PaceOnly {
		lines = append(lines, "an interval: Celery counts it from its last run, so only the numbers are compared")
	}
	if len(lines) > 0 {
		_, _ = fmt.Fprintf(w, "\n%s:\n  %s\n", cell(one.Name), strings.Join(lines, "\n  "))
	}
}
