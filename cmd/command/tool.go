package command

import (
	"log/slog"

	"github.com/spf13/cobra"

	"riverbeat/internal/config"
	"riverbeat/internal/postgres"
)

// tool is what a command has that works on the database itself, beside the nodes.
type tool struct {
	cfg    config.Config
	logger *slog.Logger
	db     *postgres.DB // which compares no environments
}

// openTool reads the settings and reaches the database, whose schema this program must know.
// The command closes it in the end.
func openTool(c *cobra.Command) (*tool, error) {
	cfg, logger, err := loadDatabaseConfig(c)
	if err != nil {
		return nil, err
	}
	if err := needSchema(c.Context(), cfg); err != nil {
		return nil, err
	}
	database := databaseConfig(cfg)
	database.MaxConns = 2
	pool, err := postgres.NewPool(c.Context(), database)
	if err != nil {
		return nil, err
	}
	return &tool{cfg, logger, postgres.New(pool, cfg.Schema)}, nil
}

func (t *tool) close() { t.db.Pool().Close() }
