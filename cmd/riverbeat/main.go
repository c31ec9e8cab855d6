// Command riverbeat is the task scheduler: server, worker and tools in one
// binary. There is one file per command; node.go wires the parts of a node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // for machines without zone files

	"github.com/spf13/cobra"

	"riverbeat/internal/config"
)

// version is set when the binary is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: it runs the command that args name until it ends or ctx
// does, and says the exit code. What a command was asked for goes to stdout,
// logs and errors to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "riverbeat:", err)
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

// usageError is a fault in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func newRoot() *cobra.Command {
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
	root.PersistentFlags().String("config", "", "file of settings, KEY=value lines (RIVERBEAT_CONFIG)")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())}
	})
	root.AddCommand(newDev(), newServe(), newMigrate(), newVersion())
	return root
}

// addSettings gives a command the flags of the named settings.
func addSettings(c *cobra.Command, flags ...string) {
	for _, s := range config.Settings() {
		for _, flag := range flags {
			if s.Flag != flag {
				continue
			}
			usage := s.Doc + " (" + s.Name + ")"
			if s.Bool {
				c.Flags().Bool(flag, s.Default == "true", usage)
				continue
			}
			c.Flags().String(flag, s.Default, usage)
		}
	}
}

// loadConfig reads the settings for a command: its flags, the environment, the
// file.
func loadConfig(c *cobra.Command) (config.Config, *slog.Logger, error) {
	flags := map[string]string{}
	for _, s := range config.Settings() {
		if s.Flag == "" {
			continue
		}
		if f := c.Flags().Lookup(s.Flag); f != nil && f.Changed {
			flags[s.Flag] = f.Value.String()
		}
	}
	file, err := c.Flags().GetString("config")
	if err != nil {
		return config.Config{}, nil, err
	}
	cfg, warnings, err := config.FromEnvironment(file, flags)
	if err != nil {
		return cfg, nil, usageError{err}
	}
	logger := newLogger(c.ErrOrStderr(), cfg)
	for _, w := range warnings {
		logger.WarnContext(c.Context(), w)
	}
	return cfg, logger, nil
}

func newLogger(w io.Writer, cfg config.Config) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
