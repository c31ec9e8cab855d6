package history_test

import (
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestRunNow_NeedsOneConnection(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	q, err := queue.New(d.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := ledger.New(q)
	s, err := catalog.New(d.DB, l).CreateSchedule(t.Context(), &riverbeat.Schedule{
		TaskName: "echo", CronExpression: "@daily", Timezone: "UTC",
		Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
		ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpLatest, MaxWaiting: 1,
	})
	require.NoError(t, err)

	// As many at once as there are connections, on a node that has just started
	// and knows no partition.
	cfg := d.Config()
	cfg.MaxConns = 2
	pool, err := postgres.NewPool(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	h := history.New(postgres.New(pool, pgtest.Schema), l)
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			run, err := h.RunNow(pgtest.As(t.Context(), "me"), s.ID, history.Overrides{})
			if err == nil && run.State != riverbeat.Queued {
				err = riverbeat.Errorf(riverbeat.Internal, "state", "the run is %s", run.State)
			}
			done <- err
		}()
	}
	for range cap(done) {
		require.NoError(t, <-done)
	}
}
