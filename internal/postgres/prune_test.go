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

// Where a week is read as a whole, no other processor is taken from ticks.
func TestAWeekIsReadOnOneProcessor(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	ctx := t.Context()
	for name, read := range map[string]func(*postgres.Tx, postgres.Week) error{
		"LookAtWeek": func(tx *postgres.Tx, w postgres.Week) error {
			_, err := tx.LookAtWeek(ctx, w)
			return err
		},
		"WeekChangedSince": func(tx *postgres.Tx, w postgres.Week) error {
			_, err := tx.WeekChangedSince(ctx, w, time.Now())
			return err
		},
	} {
		require.NoError(t, d.DB.InTx(ctx, func(tx *postgres.Tx) error {
			weeks, err := tx.Weeks(ctx)
			require.NoError(t, err)
			require.NoError(t, read(tx, weeks[0]))
			workers := ""
			require.NoError(t, tx.QueryRow(ctx, "SHOW max_parallel_workers_per_gather").Scan(&workers))
			require.Equal(t, "0", workers, name)
			return nil
		}))
	}
}
