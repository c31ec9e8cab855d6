package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"riverbeat/internal/access"
	"riverbeat/internal/config"
	"riverbeat/internal/localpg"
	"riverbeat/internal/postgres"
	"riverbeat/task"
)

func newDev(tasks []task.Task) *cobra.Command {
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine, with a private Postgres if need be",
		Long: "Runs API, River UI and workers in one process. It uses the database of\n" +
			"DATABASE_URL if that is set, else starts a private Postgres from the server\n" +
			"binaries of this machine. The data stays in --data-dir.\n\n" +
			"On a loopback address it asks for no keys until the first is made\n" +
			"('riverbeat keys create'); on any other it does from the beginning.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, logger, err := loadConfig(c)
			if err != nil {
				return err
			}
			logger.InfoContext(c.Context(), "starting", "version", version, "settings", cfg)
			private := cfg.DatabaseURL == ""
			if private {
				server, err := localpg.Start(c.Context(), localpg.Config{DataDir: cfg.DataDir, Logger: logger})
				if err != nil {
					return unlessTold(c.Context(), err)
				}
				let := keepRunning(c.Context(), server, logger)
				defer func() {
					let()
					ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), 30*time.Second)
					defer cancel()
					if err := server.Stop(ctx); err != nil {
						logger.ErrorContext(ctx, "stop Postgres", "error", err)
					}
				}()
				cfg.DatabaseURL = config.DatabaseURL(server.URL())
			}
			open := access.Closed
			if onLoopback(cfg.Listen) {
				open = access.OpenUntilAKey
			}
			fronts, err := newFronts(c.Context(), cfg, logger)
			if err != nil {
				return err
			}
			defer fronts.close()
			cfg.Migrate = true
			n, err := prepare(c.Context(), cfg, open, tasks, fronts, logger)
			if err != nil {
				return unlessTold(c.Context(), err)
			}
			if private {
				// Nobody else lives there, so psql may find the tables by itself.
				if err := postgres.ShowSchema(c.Context(), databaseConfig(cfg)); err != nil {
					return unlessTold(c.Context(), err)
				}
			}
			if open == access.Closed {
				if err := firstKey(c.Context(), c.OutOrStdout(), n.access); err != nil {
					return unlessTold(c.Context(), err)
				}
			}
			return n.run(c.Context(), fronts, func(address string) error {
				unlocked, err := n.access.OnlyLoopback(c.Context())
				if err != nil {
					return err
				}
				return banner(c.OutOrStdout(), "http://"+address, cfg.DatabaseURL, unlocked)
			})
		},
	}
	addSettings(c, "listen", "metrics-listen", "data-dir", "database-url", "schema", "timezone", "queues", "shutdown-grace", "run-retention",
		"log-level", "log-format", "max-connections")
	return c
}

// keepRunning starts the private Postgres again when it ends by itself, until
// the answered function is called.
func keepRunning(ctx context.Context, server *localpg.Server, logger *slog.Logger) (let func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-server.Done():
			}
			logger.ErrorContext(ctx, "Postgres ended; starting it again", "error", server.Err())
			if server.Restart(ctx) == nil {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// onLoopback tells whether an address to listen on is reached from this machine
// alone.
func onLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// banner says where everything is, once it is there, and who may come in.
func banner(w io.Writer, base string, database config.DatabaseURL, unlocked bool) error {
	who := "API keys are needed; 'riverbeat keys create' makes more."
	if unlocked {
		who = "There are no keys: whoever reaches the address may do everything, until the first is made."
	}
	_, err := fmt.Fprintf(w, `
Riverbeat is ready. %[3]s

  API       %[1]s/api/v1
  API docs  %[1]s/docs
  River UI  %[1]s/riverui/
  Database  %[2]s

`, base, database, who)
	return err
}
