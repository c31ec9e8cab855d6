package command

import (
	"context"
	"fmt"
	"io"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"riverbeat/internal/access"
	"riverbeat/internal/postgres"
	"riverbeat/task"
)

func newServe(tasks []task.Task) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API and work, on one node of many",
		Long: "Serves the API, River UI and the workers of one node (or, by --role, a part\n" +
			"of it) on the database of DATABASE_URL. Any number of nodes may share a\n" +
			"database. SIGTERM ends it gracefully.\n\n" +
			"If the database is not migrated as far as it needs, it waits until somebody\n" +
			"does so ('riverbeat migrate up'), or does it with --migrate.\n\n" +
			"It asks for API keys. At the first start, unless RIVERBEAT_ADMIN_KEY is\n" +
			"set, it makes one of an admin and prints it; 'riverbeat keys' makes more.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, logger, err := loadDatabaseConfig(c)
			if err != nil {
				return err
			}
			open := access.Closed
			if cfg.InsecureNoAuth {
				open = access.Open
			}
			logger.InfoContext(c.Context(), "starting", "version", version, "settings", cfg)
			front, err := newFront(c.Context(), cfg.Listen, logger)
			if err != nil {
				return err
			}
			defer front.close()
			if cfg.Migrate {
				if err := postgres.MigrateUp(c.Context(), databaseConfig(cfg), logger); err != nil {
					return err
				}
			}
			if err := front.awaitSchema(c.Context(), cfg); err != nil {
				if c.Context().Err() != nil { // nothing was begun
					return nil
				}
				return err
			}
			n, err := newNode(c.Context(), cfg, open, tasks, logger)
			if err != nil {
				return err
			}
			if cfg.Role.ServesAPI() {
				if err := firstKey(c.Context(), c.OutOrStdout(), n.access); err != nil {
					return err
				}
			}
			return n.run(c.Context(), front, func(string) error {
				if _, err := daemon.SdNotify(true, daemon.SdNotifyReady); err != nil { // nothing, if systemd has not asked
					logger.WarnContext(c.Context(), "tell systemd that the node is ready", "error", err)
				}
				return nil
			})
		},
	}
	addSettings(c, serveFlags...)
	return c
}

// serveFlags are the settings of which serve has a flag.
var serveFlags = []string{
	"database-url", "schema", "listen", "metrics-listen", "role", "migrate", "insecure-no-auth", "timezone",
	"environment", "queues", "shutdown-grace", "run-retention", "log-level", "log-format", "max-connections", "body-limit",
	"requests-per-second", "trusted-proxies",
}

// firstKey sees to it that somebody can come in, and prints the key if it has
// made one.
func firstKey(ctx context.Context, w io.Writer, a *access.Access) error {
	text, err := a.EnsureKey(ctx)
	if err != nil || text == "" {
		return err
	}
	_, err = fmt.Fprintf(w, "The first API key, of an admin. It is shown only now:\n\n  %s\n\n", text)
	return err
}
