package command

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"riverbeat/internal/config"
	"riverbeat/internal/doctor"
	"riverbeat/internal/ledger"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
)

func newDoctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check that everything is as it should be, and repair what is not",
		Long: "Looks whether what Riverbeat promises is true of the database right now, and\n" +
			"says what is not, with examples and what to do. It changes nothing, unless\n" +
			"--repair is said. It exits with 0 if nothing fails (warnings are no failure),\n" +
			"1 if something does or the database does not answer, 2 if it was called wrongly.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			call, err := readDoctorCall(c)
			if err != nil {
				return err
			}
			cfg, logger, err := loadDatabaseConfig(c)
			if err != nil {
				return err
			}
			report, err := call.examine(c, cfg, logger)
			if err != nil {
				return err
			}
			if err := call.print(c.OutOrStdout(), report); err != nil {
				return err
			}
			if failing := failing(report); len(failing) > 0 {
				return fmt.Errorf("not well: %s", strings.Join(failing, ", "))
			}
			return nil
		},
	}
	c.Flags().Bool("repair", false, "Repair what can be repaired without harm, then check. It may be said again at any time.")
	c.Flags().Var(&word{value: "24h", kind: "duration"}, "since", "How far back runs and ticks are looked at.")
	c.Flags().Var(&word{value: "1000", kind: "number"}, "schedules", "For how many schedules the runs are compared with "+
		"the ticks there should have been. If there are more, some are picked at random.")
	c.Flags().VarP(&word{value: "table", kind: "table or json"}, "output", "o", "How to say it.")
	addSettings(c, "database-url", "schema", "environment", "log-level", "log-format")
	return c
}

// doctorCall is how the command was called.
type doctorCall struct {
	repair  bool
	options doctor.Options
	print   func(io.Writer, *doctor.Report) error
}

func readDoctorCall(c *cobra.Command) (*doctorCall, error) {
	flag := func(name string) string { return flagOf(c, name) }
	call := &doctorCall{repair: flag("repair") == "true"}
	since, err := time.ParseDuration(flag("since"))
	if err != nil || since <= 0 {
		return nil, badCall(c, "--since: %q is no duration like 90m or 72h", flag("since"))
	}
	schedules, err := strconv.Atoi(flag("schedules"))
	if err != nil || schedules <= 0 {
		return nil, badCall(c, "--schedules: %q is no number above 0", flag("schedules"))
	}
	call.options = doctor.Options{Since: since, Schedules: schedules}
	switch output := flag("output"); output {
	case "table":
		call.print = printTable
	case "json":
		call.print = printJSON
	default:
		return nil, badCall(c, "--output: %q is neither table nor json", output)
	}
	return call, nil
}

func (call *doctorCall) examine(c *cobra.Command, cfg config.Config, logger *slog.Logger) (*doctor.Report, error) {
	database := databaseConfig(cfg)
	database.MaxConns = 2
	pool, err := postgres.NewPool(c.Context(), database)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	q, err := queue.New(pool, cfg.Schema, logger)
	if err != nil {
		return nil, err
	}
	d := newDoctor(cfg, postgres.New(pool, cfg.Schema), ledger.New(q), q)
	if call.repair {
		return d.Repair(c.Context(), call.options)
	}
	return d.Check(c.Context(), call.options)
}

func newDoctor(cfg config.Config, db *postgres.DB, l *ledger.Ledger, q *queue.Queue) *doctor.Doctor {
	return doctor.New(doctor.Config{DB: db, Ledger: l, Queue: q, Environment: cfg.Environment})
}

// failing are the names of the checks that fail.
func failing(r *doctor.Report) []string {
	var names []string
	for _, f := range r.Findings {
		if f.Status == doctor.Fail {
			names = append(names, f.Check)
		}
	}
	return names
}

func printJSON(w io.Writer, r *doctor.Report) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// printTable writes a line for each check, and below it what there is to say of
// one that is not well.
func printTable(w io.Writer, r *doctor.Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "schema %s at %s\n\n", r.Schema, r.CheckedAt.Format(time.RFC3339))
	marks := map[doctor.Status]string{doctor.OK: "ok", doctor.Warn: "warn", doctor.Fail: "FAIL"}
	count := map[doctor.Status]int{}
	for _, f := range r.Findings {
		count[f.Status]++
		paragraph(&b, fmt.Sprintf("%-5s %-19s ", marks[f.Status], f.Check), f.Detail)
		for _, e := range f.Examples {
			// Not wrapped, so that it can be copied and searched for.
			fmt.Fprintf(&b, "%26s- %s\n", "", e)
		}
		switch more := f.Count - len(f.Examples); {
		case len(f.Examples) == 0 || more <= 0:
		case f.Count > doctor.Most:
			fmt.Fprintf(&b, "%26s- and many more\n", "")
		default:
			fmt.Fprintf(&b, "%26s- and %d more\n", "", more)
		}
		if f.Repaired != "" {
			paragraph(&b, strings.Repeat(" ", 16)+"repaired: ", f.Repaired)
		}
		if f.Advice != "" {
			paragraph(&b, strings.Repeat(" ", 22)+"do: ", f.Advice)
		}
		if f.Repair != "" && f.Repaired == "" {
			paragraph(&b, strings.Repeat(" ", 16)+"--repair: ", f.Repair)
		}
	}
	things := "checks"
	if len(r.Findings) == 1 {
		things = "check"
	}
	fmt.Fprintf(&b, "\n%d %s: %d ok, %d warn, %d fail\n", len(r.Findings), things, count[doctor.OK], count[doctor.Warn], count[doctor.Fail])
	if names := failing(r); len(names) > 1 && slices.Contains(names, "nodes") {
		b.WriteString("Begin with nodes: the others may follow from it.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// paragraph writes a text behind a head, its further lines below its first.
func paragraph(b *strings.Builder, head, text string) {
	const width = 100
	b.WriteString(head)
	indent := utf8.RuneCountInString(head)
	column := indent
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == indent:
		case column+1+n > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteString("\n")
}
