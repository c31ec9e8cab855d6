package worker_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// River keeps jobs that have ended for a day, those that failed for a week, and those
// that have not ended for ever.
func TestJobsThatHaveEndedAreKeptForAWhile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	insert := func(name, state, ago string) {
		_, err := b.Pool.Exec(t.Context(), `
INSERT INTO river_job (kind, args, tags, max_attempts, state, attempt, created_at, scheduled_at, finalized_at)
SELECT 'other', '{}', ARRAY[$1], 1, $2::river_job_state, 1, at, at, CASE WHEN $2 <> 'available' THEN at END
FROM (SELECT now() - $3::interval) AS moment (at)`, name, state, ago)
		require.NoError(t, err)
	}
	for _, state := range []string{"completed", "cancelled", "discarded"} {
		insert("young_"+state, state, "23 hours")
	}
	insert("failed", "discarded", "6 days 23 hours")
	insert("waits", "available", "400 days")
	insert("gone_1", "completed", "25 hours")
	insert("gone_2", "cancelled", "25 hours")
	insert("gone_3", "discarded", "7 days 1 hour")
	b.start()
	var left []string
	require.Eventually(t, func() bool {
		rows, err := b.Pool.Query(t.Context(), "SELECT tags[1] FROM river_job WHERE kind = 'other' ORDER BY 1")
		require.NoError(t, err)
		left, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return len(left) <= 5
	}, time.Minute, 50*time.Millisecond)
	require.Equal(t, []string{"failed", "waits", "young_cancelled", "young_completed", "young_discarded"}, left)
}
