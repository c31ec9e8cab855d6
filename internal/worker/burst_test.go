package worker_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A burst onto an idle scheduler: the tables were analyzed when they were
// empty, so a plan that is kept from then is ruinous. (Not a timed test; make
// bench measures it. With such plans it would take minutes.)
func TestABurstOntoEmptyAnalyzedTables(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.Pool.Exec(t.Context(), "ANALYZE")
	require.NoError(t, err)
	b.start()
	const n = 2000
	const insert = `
WITH made AS (
    INSERT INTO schedules (name, task_name, cron_expression, timezone, catch_up_window_s, kwargs, execution_policy)
    SELECT 'burst', 'echo', '0 0 1 1 *', 'UTC', 366 * 24 * 3600, $2::jsonb || jsonb_build_object('i', i),
        (ARRAY['allow', 'skip', 'queue'])[1 + i % 3]
    FROM generate_series(1, $1::int) AS i
    RETURNING id
)
INSERT INTO schedule_clocks (schedule_id, next_run_at, last_scheduled_for)
SELECT id, date_trunc('year', statement_timestamp(), 'UTC'), date_trunc('year', statement_timestamp(), 'UTC') - interval '1 day'
FROM made`
	_, err = b.Pool.Exec(t.Context(), insert, n, json.RawMessage(`{"text": "now"}`))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		var done int
		require.NoError(t, b.Pool.QueryRow(t.Context(), "SELECT count(*) FROM runs WHERE state = 'succeeded'").Scan(&done))
		return done == n
	}, 60*time.Second, 100*time.Millisecond)
}
