// Package command is the program: server, worker and tools in one binary. There is one
// file per command; node.go wires the parts of a node. It can be imported, so that who
// has tasks of his own makes the program with them; see docs/writing-a-task.md.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	_ "time/tzdata" // for machines without zone files
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"riverbeat/internal/config"
	"riverbeat/internal/execute/process"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

// version is set when the binary is built.
var version = "dev"

// Main is the program, with the given tasks beside those that come with it. It does not
// return, and panics if a task cannot be registered.
func Main(tasks ...task.Task) {
	if process.IsGuard(os.Args[1:]) {
		os.Exit(process.Guard(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, tasks, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the command that args name until it ends or ctx does, and says the exit
// code. What a command was asked for goes to stdout, logs and errors to stderr.
func run(ctx context.Context, tasks []task.Task, args []string, stdout, stderr io.Writer) int {
	root := newRoot(tasks) //nolint:contextcheck // a command has its own, which is ctx
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	completion(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(stderr, "riverbeat:", printableLines(err.Error()))
	if e, ok := errors.AsType[*riverbeat.Error](err); ok && e.Cause != nil {
		_, _ = fmt.Fprintln(stderr, "the cause:", e.Cause)
	}
	return exitCode(err)
}

func newRoot(tasks []task.Task) *cobra.Command {
	root := &cobra.Command{
		Use:   "riverbeat",
		Short: "A task scheduler that lives in one Postgres",
		Long: "Riverbeat runs tasks on schedules that live in Postgres: checked against\n" +
			"each task's JSON Schema, never overlapping without permission, and with\n" +
			"every tick accounted for.\n\n" +
			"Start with:  riverbeat dev",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().Var(&word{kind: "file"}, "config", "Settings, as KEY=value lines. (RIVERBEAT_CONFIG)")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return badCall(c, "%w", err) })
	root.SetUsageFunc(usage)
	group(root, newDev(tasks), newServe(tasks), newMigrate(), newConfig(), newKeys(), newImport(), newDoctorCommand(),
		newLogin(), newLogout(), newSchedules(), newTasks(), newRuns(), newBackfills(), newAudit(), newNodes(),
		newPause(), newResume(), newApply(), newDiff(), newExport(), newHealth(), newVersion())
	return root
}

// usage is what follows the description in the help of a command. It is cobra's,
// but for the flags: their descriptions are sentences, and stand below them.
func usage(c *cobra.Command) error {
	var b strings.Builder
	if !c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "Usage:\n  %s\n", c.UseLine())
	} else {
		fmt.Fprintf(&b, "Usage:\n  %s [command]\n\nCommands:\n", c.CommandPath())
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-*s %s\n", sub.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
	fmt.Fprintf(&b, "\nFlags:\n%s", flagHelp(c))
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\nUse \"%s [command] --help\" for more information about a command.\n", c.CommandPath())
	}
	_, err := io.WriteString(c.OutOrStdout(), b.String())
	return err
}

// flagHelp describes the flags of a command, those of its parents last.
func flagHelp(c *cobra.Command) string {
	var b strings.Builder
	describe := func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		head, doc := "  --"+f.Name, f.Usage
		if f.Shorthand != "" {
			head = "  -" + f.Shorthand + ", --" + f.Name
		}
		if f.Value.Type() == "bool" {
			doc = strings.ToUpper(doc[:1]) + doc[1:]
		} else {
			head += " " + f.Value.Type()
		}
		if d := f.DefValue; d != "" && d != "false" {
			head += "  (default " + d + ")"
		}
		b.WriteString(head)
		const indent, width = "\n        ", 80
		column := width // of the last line
		for word := range strings.FieldsSeq(doc) {
			if column += 1 + utf8.RuneCountInString(word); column > width {
				b.WriteString(indent)
				column = len(indent) - 1 + utf8.RuneCountInString(word)
			} else {
				b.WriteString(" ")
			}
			b.WriteString(word)
		}
		b.WriteString("\n")
	}
	c.LocalFlags().VisitAll(describe)
	c.InheritedFlags().VisitAll(describe)
	return b.String()
}

// group makes a command of which only the subcommands do something. By cobra
// itself, a subcommand that does not exist would be help and a success.
func group(c *cobra.Command, subcommands ...*cobra.Command) {
	c.AddCommand(subcommands...)
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return badCall(c, "unknown command %q", args[0])
		}
		return c.Help()
	}
}

// completion gives the program cobra's scripts for shells, which are called like its own
// commands. They are written to what is the program's output by now.
func completion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Short = "Print the script by which a shell completes commands"
		for _, shell := range c.Commands() {
			shell.Args = noArgs
		}
		group(c)
	}
}

// noArgs is the check of a command that takes none.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return badCall(c, "unexpected %q: the command takes flags only", args[0])
	}
	return nil
}

func badCall(c *cobra.Command, format string, args ...any) error {
	return usageError{fmt.Errorf(format+"\nSee '%s --help'", append(args, c.CommandPath())...)}
}

// word is the value of a flag as it was written. In the help it is of the kind
// that the setting says; config judges it.
type word struct{ value, kind string }

func (w *word) String() string { return w.value }

func (w *word) Type() string { return w.kind }

func (w *word) Set(v string) error {
	w.value = v
	return nil
}

// addSettings gives a command the flags of the named settings.
func addSettings(c *cobra.Command, flags ...string) {
	for _, s := range config.Settings() {
		for _, flag := range flags {
			if s.Flag != flag {
				continue
			}
			doc := withoutMarkup(s.Doc) + " (" + s.Name + ")"
			if s.Bool {
				c.Flags().Bool(flag, s.Default == "true", doc)
			} else {
				c.Flags().Var(&word{value: s.Default, kind: s.Unit}, flag, doc)
			}
			c.Flags().Lookup(flag).Annotations = map[string][]string{settingFlag: nil}
		}
	}
}

// link is one of a page of docs to another.
var link = regexp.MustCompile(`\[[^]]*\]\(([a-z-]+\.md)[^)]*\)`)

// withoutMarkup is Markdown as it is read on a terminal.
func withoutMarkup(doc string) string {
	return strings.ReplaceAll(link.ReplaceAllString(doc, "docs/$1"), "`", "")
}

// settingFlag marks the flags of settings: keys create has a --role that is none.
const settingFlag = "riverbeat_setting"

// readConfig reads the settings for a command: its flags, the environment, the file.
func readConfig(c *cobra.Command) (*config.Reading, error) {
	return config.FromEnvironment(flagOf(c, "config"), settingFlags(c))
}

// settingFlags are the flags of settings with which a command was called, and their values.
func settingFlags(c *cobra.Command) map[string]string {
	flags := map[string]string{}
	for _, s := range config.Settings() {
		if s.Flag == "" {
			continue
		}
		f := c.Flags().Lookup(s.Flag)
		if f == nil || !f.Changed {
			continue
		}
		if _, ok := f.Annotations[settingFlag]; ok {
			flags[s.Flag] = f.Value.String()
		}
	}
	return flags
}

// loadConfig reads the settings for a command that works by them.
func loadConfig(c *cobra.Command) (config.Config, *slog.Logger, error) {
	r, err := readConfig(c)
	if err != nil {
		return config.Config{}, nil, usageError{err}
	}
	logger := newLogger(c.ErrOrStderr(), r.Config)
	for _, name := range r.Unknown {
		logger.WarnContext(c.Context(), name+": is not a setting and is ignored")
	}
	for _, w := range r.Warnings {
		logger.WarnContext(c.Context(), w)
	}
	return r.Config, logger, nil
}

func newLogger(w io.Writer, cfg config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
