package command

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"riverbeat/internal/config"
	"riverbeat/internal/postgres"
)

func newMigrate() *cobra.Command {
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to date, or back",
	}
	up := &cobra.Command{
		Use:   "up",
		Short: "Apply River's migrations and ours, up to the newest",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, logger, err := loadDatabaseConfig(c)
			if err != nil {
				return err
			}
			return postgres.MigrateUp(c.Context(), databaseConfig(cfg), logger)
		},
	}
	down := &cobra.Command{
		Use:   "down",
		Short: "Revert our migrations; the data in their tables is lost",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, logger, err := loadDatabaseConfig(c)
			if err != nil {
				return err
			}
			to, err := c.Flags().GetInt("to")
			if err != nil {
				return err
			}
			if !c.Flags().Changed("to") {
				status, err := postgres.Status(c.Context(), databaseConfig(cfg))
				if err != nil {
					return err
				}
				to = max(status.Version-1, 0)
			}
			return postgres.MigrateDown(c.Context(), databaseConfig(cfg), to, logger)
		},
	}
	down.Flags().Int("to", 0, "The version to go down to. When not set: one step down.")
	down.Flags().Lookup("to").DefValue = ""
	status := &cobra.Command{
		Use:   "status",
		Short: "Say how far the database is migrated",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, _, err := loadDatabaseConfig(c)
			if err != nil {
				return err
			}
			s, err := postgres.Status(c.Context(), databaseConfig(cfg))
			if err != nil {
				return err
			}
			word := "current"
			switch {
			case s.Behind():
				word = "behind; run 'riverbeat migrate up'"
			case s.TooNew():
				word = fmt.Sprintf("too new; it needs a program that knows %d", s.OldestNode)
			case !s.Current():
				word = "newer than this program, which works with it"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "schema    %s\nriverbeat %d of %d\nriver     %d of %d\n%s\n",
				cfg.Schema, s.Version, s.Latest, s.RiverVersion, s.RiverLatest, word)
			return err
		},
	}
	roles := &cobra.Command{
		Use:   "roles",
		Short: "Make database roles for analysts and for nodes",
		Long: "Makes two roles, without a login, and grants them what they may:\n\n" +
			"  riverbeat_reader  reads the reporting views, and nothing else\n" +
			"  riverbeat_app     what nodes need: all rows, no DDL, and of the audit trail\n" +
			"                    no more than to read it and add to it\n\n" +
			"Give them to logins: GRANT riverbeat_reader TO analyst. Later migrations grant\n" +
			"what they add.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, _, err := loadDatabaseConfig(c)
			if err != nil {
				return err
			}
			if err := needSchema(c.Context(), cfg); err != nil {
				return err
			}
			if err := postgres.GrantRoles(c.Context(), databaseConfig(cfg)); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s may read the reporting views of the schema %s\n%s may work in it\n",
				postgres.RoleReader, cfg.Schema, postgres.RoleApp)
			return err
		},
	}
	for _, sub := range []*cobra.Command{up, down, status, roles} {
		addSettings(sub, "database-url", "schema", "log-level", "log-format")
	}
	group(c, up, down, status, roles)
	return c
}

// loadDatabaseConfig reads the settings of a command that needs a database.
func loadDatabaseConfig(c *cobra.Command) (config.Config, *slog.Logger, error) {
	cfg, log, err := loadConfig(c)
	if err != nil {
		return cfg, nil, err
	}
	if err := cfg.NeedDatabase(); err != nil {
		return cfg, nil, usageError{err}
	}
	return cfg, log, nil
}

func databaseConfig(cfg config.Config) postgres.Config {
	return postgres.Config{URL: string(cfg.DatabaseURL), Schema: cfg.Schema, MaxConns: cfg.MaxConnections}
}
