package postgres_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
)

// A week that a backfill has made long ago says nothing of those after it, which were
// dropped, or never made.
func TestTheFirstWeekIsThatSinceWhenThereAreAll(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	exec(t, d, "SELECT create_runs_partition('2020-01-06 00:00Z'), create_runs_partition('2020-01-13 00:00Z')")
	var first, want time.Time
	require.NoError(t, d.Pool.QueryRow(t.Context(), "SELECT runs_week(now() - interval '7 days')").Scan(&want))
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) (err error) {
		first, err = tx.FirstRunsWeek(t.Context())
		return err
	}))
	require.Equal(t, want.UTC(), first)
}
