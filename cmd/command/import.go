package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"riverbeat/internal/catalog"
	"riverbeat/internal/celery"
	"riverbeat/internal/ledger"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
)

func newImport() *cobra.Command {
	c := &cobra.Command{
		Use:   "import",
		Short: "Take over the schedules of another scheduler",
	}
	group(c, newImportCeleryBeat(), newImportCompare())
	return c
}

func newImportCeleryBeat() *cobra.Command {
	c := &cobra.Command{
		Use:   "celery-beat",
		Short: "Take over the periodic tasks of Celery Beat",
		Long: "Reads the periodic tasks of Celery Beat from its tables in a Postgres, writes\n" +
			"them here as schedules, and prints what came, what is another matter here,\n" +
			"what cannot come and why, and when both would next fire. The schedules are\n" +
			"disabled, unless told otherwise, so Celery Beat can go on meanwhile; only\n" +
			"--cutover writes there.\n\n" +
			"It may be run again and again: it writes what has changed there since.",
		Args: noArgs,
	}
	from := addBeatSource(c)
	output := &word{value: "text", kind: "text or json"}
	c.Flags().VarP(output, "output", "o", "How it is shown.")
	dry := c.Flags().Bool("dry-run", false, "print, and write nothing.")
	enable := c.Flags().Bool("enable", false, "enable those that are enabled there. Stop Celery Beat first, or both will fire.")
	shadow := c.Flags().Bool("shadow", false, "let those that are enabled there tick in shadow: their ticks are recorded here, and not run.")
	cutover := c.Flags().Bool("cutover", false, "import, and hand over: disable there and enable here, between two ticks, while Celery Beat runs.")
	task, name := &word{kind: "name"}, &word{kind: "pattern"}
	c.Flags().Var(task, "task", "With --cutover: only the schedules of this task.")
	c.Flags().Var(name, "name", "With --cutover: only the schedules with such a name; * stands for anything.")
	settle := &word{value: riverbeat.FormatDuration(celery.DefaultSettle), kind: "duration"}
	c.Flags().Var(settle, "settle", "With --cutover: how long Celery Beat may take to hear of a change.")
	addSettings(c, "database-url", "schema", "timezone")
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case output.value != "text" && output.value != "json":
			return badCall(c, "--output: %q is neither text nor json", output.value)
		case *cutover && (*dry || *enable || *shadow):
			return badCall(c, "--cutover goes with none of --dry-run, --enable and --shadow")
		case *enable && *shadow:
			return badCall(c, "--enable and --shadow: what runs is not in shadow")
		case !*cutover && (task.value != "" || name.value != "" || c.Flags().Changed("settle")):
			return badCall(c, "--task, --name and --settle go with --cutover")
		}
		settling, err := time.ParseDuration(settle.value)
		if err != nil || settling < time.Second {
			return badCall(c, "--settle: %q is no duration of a second or more", settle.value)
		}
		if _, err := path.Match(name.value, ""); err != nil {
			return badCall(c, "--name: %q is no pattern", name.value)
		}
		into, err := from.open(c)
		if err != nil {
			return err
		}
		defer into.close()
		ctx := postgres.WithActor(c.Context(), riverbeat.Actor{Name: riverbeat.ActorOfCLI + userName()})
		start := celery.StartDisabled
		switch {
		case *enable:
			start = celery.StartEnabled
		case *shadow:
			start = celery.StartShadow
		}
		var items []celery.Item
		do := func(ctx context.Context) (err error) {
			items, err = into.takeAll(ctx, start)
			return err
		}
		switch {
		case *cutover:
			handover := celery.Cutover{Source: into.source, Catalog: into.catalog, Now: into.now, Task: task.value, Name: name.value, Settle: settling}
			items, err = handover.Run(ctx)
		case *dry:
			err = into.db.DryRun(ctx, do)
		default:
			err = do(ctx)
		}
		if err != nil && len(items) == 0 {
			return err
		}
		// What was done is told, also if not all was.
		return errors.Join(printImport(c.OutOrStdout(), items, output.value == "json", *dry), err)
	}
	return c
}

// beatSource is the flags that say where the tables of Celery Beat are.
type beatSource struct {
	from, table *word
	django      *bool
}

func addBeatSource(c *cobra.Command) *beatSource {
	s := &beatSource{from: &word{kind: "postgres:// URL"}, table: &word{value: celery.PlainTable, kind: "table"}}
	c.Flags().Var(s.from, "from", "The database with the tables of Celery Beat. Required.")
	c.Flags().Var(s.table, "table", "The table with a row for each schedule, if need be with its schema.")
	s.django = c.Flags().Bool("django", false, "read the tables of django-celery-beat.")
	return s
}

// importer is both ends of an import: Celery Beat's tables, and the catalog here.
type importer struct {
	*tool
	source  celery.Source
	catalog *catalog.Catalog
}

// open reaches the database here. close is to be called in the end.
func (s *beatSource) open(c *cobra.Command) (*importer, error) {
	switch {
	case s.from.value == "":
		return nil, badCall(c, "--from is needed: the URL of the database with the tables of Celery Beat")
	case *s.django && c.Flags().Changed("table"):
		return nil, badCall(c, "--table and --django: the tables of django-celery-beat have names of their own")
	}
	t, err := openTool(c)
	if err != nil {
		return nil, err
	}
	q, err := queue.New(t.db.Pool(), t.cfg.Schema, t.logger)
	if err != nil {
		t.close()
		return nil, err
	}
	return &importer{
		tool:    t,
		source:  celery.Source{URL: s.from.value, Table: s.table.value, Django: *s.django, Zone: t.cfg.Timezone},
		catalog: catalog.New(t.db, ledger.New(q)),
	}, nil
}

// now is the time by the database here.
func (i *importer) now(ctx context.Context) (now time.Time, err error) {
	err = i.db.Read(ctx, func(tx *postgres.Tx) (err error) {
		now, err = tx.Now(ctx)
		return err
	})
	return now, err
}

// takeAll reads all entries and imports them.
func (i *importer) takeAll(ctx context.Context, start celery.Start) ([]celery.Item, error) {
	entries, err := celery.Read(ctx, i.source)
	if err != nil {
		return nil, err
	}
	at, err := i.now(ctx)
	if err != nil {
		return nil, err
	}
	return celery.Import(ctx, i.catalog, entries, at, start)
}

// printImport shows what became of entries.
func printImport(w io.Writer, items []celery.Item, asJSON, dry bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(map[string]any{"dry_run": dry, "items": append([]celery.Item{}, items...)})
	}
	columns := []column{{head: "OUTCOME"}, {head: "NAME"}, {head: "TASK"}, {head: "RECURRENCE"}, {head: "NEXT THERE"}, {head: "NEXT HERE"}}
	var rows [][]string
	counts := map[string]int{}
	for _, item := range items {
		counts[item.Outcome]++
		recurrence := item.Cron
		if item.Timezone != "" && item.Timezone != "UTC" {
			recurrence += " (" + item.Timezone + ")"
		}
		rows = append(rows, []string{
			item.Outcome, cell(item.Name), cell(item.TaskName), cell(recurrence), when(item.NextThere, "-"), when(item.NextHere, "-"),
		})
	}
	if err := writeTable(w, screen{}, columns, rows); err != nil {
		return err
	}
	printRemarks(w, "What is another matter here", items, func(item *celery.Item) []string {
		if item.Refused != "" {
			return nil
		}
		return item.Differs
	})
	printRemarks(w, "What cannot come", items, func(item *celery.Item) []string {
		if item.Refused == "" {
			return nil
		}
		return []string{item.Refused}
	})
	var parts []string
	for _, outcome := range []string{
		string(catalog.ImportCreated), string(catalog.ImportChanged), string(catalog.ImportUnchanged), string(catalog.ImportDeleted), string(catalog.ImportOurs), celery.CutOver, celery.CutBefore, celery.Refused,
	} {
		if n := counts[outcome]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, outcome))
		}
	}
	summary := "\n" + count(len(items), "periodic task")
	if len(parts) > 0 {
		summary += ": " + strings.Join(parts, ", ")
	}
	if dry {
		summary += ". Nothing was written"
	}
	_, err := fmt.Fprintln(w, summary+".")
	return err
}

// maxCell is how much of a text stands in a table, in characters.
const maxCell = 60

// cell is a text for a table, which may be anything.
func cell(text string) string {
	runes := []rune(printable(text))
	if len(runes) > maxCell {
		return string(runes[:maxCell-1]) + "…"
	}
	return string(runes)
}

// printable is a text that does nothing to a terminal.
func printable(text string) string { return printableBut(text, "") }

// printableLines is printable for a text of several lines.
func printableLines(text string) string { return printableBut(text, "\n\t") }

// printableBut replaces what is not printable, but for some characters. Spaces of all
// widths are printable: Japanese names have wide ones.
func printableBut(text, others string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) || strings.ContainsRune(others, r) {
			return r
		}
		return '\ufffd'
	}, text)
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// maxNamed is how many names stand behind a remark that many have.
const maxNamed = 5

// printRemarks prints what there is to say of items: the same of several only once.
func printRemarks(w io.Writer, title string, items []celery.Item, of func(*celery.Item) []string) {
	named := map[string][]string{}
	var remarks []string // in the order in which they come
	for k := range items {
		for _, remark := range of(&items[k]) {
			if named[remark] == nil {
				remarks = append(remarks, remark)
			}
			named[remark] = append(named[remark], cell(items[k].Name))
		}
	}
	if len(remarks) > 0 {
		_, _ = fmt.Fprintf(w, "\n%s:\n", title)
	}
	for _, remark := range remarks {
		names := named[remark]
		more := ""
		if len(names) > maxNamed {
			more = fmt.Sprintf(" and %d more", len(names)-maxNamed)
		}
		_, _ = fmt.Fprintf(w, "  %s%s:\n      %s\n", strings.Join(names[:min(len(names), maxNamed)], ", "), more, printable(remark))
	}
}
