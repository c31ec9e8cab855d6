package command

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/access"
	"riverbeat/internal/config"
	"riverbeat/internal/metrics"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/riverbeat"
)

func TestANodeIsReadyWhenItCanDoItsWork(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	read, err := config.Load([]string{"DATABASE_URL=" + d.URL}, "", nil)
	require.NoError(t, err)
	n, err := newNode(t.Context(), read.Config, access.Closed, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(n.db.Pool().Close)
	exec := func(statement string) {
		t.Helper()
		_, err := d.Pool.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	code := func() string {
		t.Helper()
		err := n.ready(t.Context())
		if err == nil {
			return ""
		}
		e, ok := errors.AsType[*riverbeat.Error](err)
		require.True(t, ok, err)
		require.Equal(t, riverbeat.Unavailable, e.Kind)
		return e.Code
	}
	exec("UPDATE installation SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())")
	require.Empty(t, code())

	// Sweeps.
	now := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	n.metrics = metrics.New(func() time.Time { return now }, true)
	now = now.Add(sweepPatience)
	require.Empty(t, code(), "a minute is not long")
	now = now.Add(time.Second)
	require.Equal(t, "no_sweep", code())
	n.metrics.Sweep()(errors.New("the disk is full"))
	require.Equal(t, "no_sweep", code())
	n.cfg.Role = config.RoleAPI
	require.Empty(t, code(), "who does not work does not sweep")
	n.cfg.Role = config.RoleWorker
	n.metrics.Sweep()(nil)
	require.Empty(t, code())

	// The schema, and the database.
	exec("UPDATE schema_version SET version = version + 1")
	require.Empty(t, code(), "a newer one is no harm")
	exec("UPDATE schema_version SET version = version - 2")
	require.Equal(t, "schema_not_current", code())
	exec("UPDATE schema_version SET version = version + 1")
	exec("UPDATE installation SET environment = 'staging'")
	require.Equal(t, "on_hold", code())
	_, err = pgtest.DB(t).Pool.Exec(t.Context(), "ALTER DATABASE "+d.Pool.Config().ConnConfig.Database+" ALLOW_CONNECTIONS false")
	require.NoError(t, err)
	n.db.Pool().Reset()
	require.Equal(t, "database_unavailable", code())
}
