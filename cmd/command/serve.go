package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"riverbeat/internal/access"
	"riverbeat/internal/config"
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
			fronts, err := newFronts(c.Context(), cfg, logger)
			if err != nil {
				return err
			}
			defer fronts.close()
			n, err := prepare(c.Context(), cfg, open, tasks, fronts, logger)
			if err != nil {
				return unlessTold(c.Context(), err)
			}
			if cfg.Role.ServesAPI() {
				if err := firstKey(c.Context(), c.OutOrStdout(), n.access); err != nil {
					return unlessTold(c.Context(), err)
				}
			}
			return n.run(c.Context(), fronts, func(string) error {
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

// prepare wires a node when its schema is there, which it migrates itself if it is to.
func prepare(ctx context.Context, cfg config.Config, open access.Openness, tasks []task.Task, fronts *fronts, logger *slog.Logger) (*node, error) {
	if cfg.Migrate {
		if err := postgres.MigrateUp(ctx, databaseConfig(cfg), logger); err != nil {
			return nil, err
		}
	}
	if err := fronts.awaitSchema(ctx, cfg); err != nil {
		return nil, err
	}
	return newNode(ctx, cfg, open, tasks, logger)
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
