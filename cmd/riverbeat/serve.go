package main

import (
	"errors"

	"github.com/spf13/cobra"

	"riverbeat/internal/postgres"
)

func newServe() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API and work, on one node of many",
		Long: "Serves the API, River UI and the workers of one node (or, by --role, a part\n" +
			"of it) on the database of DATABASE_URL. Any number of nodes may share a\n" +
			"database. SIGTERM ends it gracefully.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, logger, err := loadDatabaseConfig(c)
			if err != nil {
				return err
			}
			if !cfg.InsecureNoAuth {
				return usageError{errors.New("this version has no keys yet, so whoever reaches the address may do everything; " +
					"say --insecure-no-auth if that is what you want")}
			}
			logger.InfoContext(c.Context(), "starting", "version", version, "settings", cfg)
			if cfg.Migrate {
				if err := postgres.MigrateUp(c.Context(), databaseConfig(cfg), logger); err != nil {
					return err
				}
			}
			n, err := newNode(c.Context(), cfg, logger)
			if err != nil {
				return err
			}
			return n.run(c.Context(), nil)
		},
	}
	addSettings(c, "database-url", "schema", "listen", "role", "migrate", "insecure-no-auth", "timezone",
		"environment", "queues", "shutdown-grace", "log-level", "log-format", "max-connections", "body-limit")
	return c
}
