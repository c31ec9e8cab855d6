package pgtest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/postgres"
)

// TakeOut makes the week of runs of a time, and takes it as far out as state says; drop
// goes on until it is gone.
func (d *Database) TakeOut(t testing.TB, at time.Time, state postgres.WeekState) (drop func()) {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, postgres.NewPartitions(d.DB).Ensure(ctx, at))
	var w postgres.Week
	require.NoError(t, d.DB.Read(ctx, func(tx *postgres.Tx) error {
		weeks, err := tx.Weeks(ctx)
		if n := slices.IndexFunc(weeks, func(w postgres.Week) bool { return w.Until.After(at) }); n >= 0 {
			w = weeks[n]
		}
		return err
	}))
	step := func(do func(*postgres.Pruning, context.Context, postgres.Week) (bool, error), done bool) {
		t.Helper()
		session, err := d.DB.OpenPruning(ctx)
		require.NoError(t, err)
		defer session.Close(ctx)
		got, err := do(session, ctx, w)
		require.NoError(t, err)
		require.Equal(t, done, got)
	}
	step((*postgres.Pruning).Seal, true)
	reader, err := d.Pool.Begin(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { _ = reader.Rollback(context.Background()) })
	if state == postgres.WeekLeaving {
		_, err := reader.Exec(ctx, "SELECT count(*) FROM runs")
		require.NoError(t, err)
		step((*postgres.Pruning).Detach, false)
	}
	w.State = state
	finish := func() {
		t.Helper()
		require.NoError(t, reader.Rollback(ctx))
		step((*postgres.Pruning).Detach, true)
	}
	if state == postgres.WeekDetached {
		finish()
		finish = func() {}
	}
	return func() {
		t.Helper()
		finish()
		step((*postgres.Pruning).Drop, true)
	}
}
