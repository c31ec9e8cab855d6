package command

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
)

func TestPrune(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := d.Pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	call := func(args ...string) (code int, out, errors string) {
		var stdout, stderr bytes.Buffer
		code = run(t.Context(), nil, append([]string{"runs", "prune", "--log-level", "error", "--database-url", d.URL}, args...), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	var monday time.Time
	require.NoError(t, d.Pool.QueryRow(t.Context(), "SELECT runs_week(now() - interval '20 weeks')").Scan(&monday))
	for n := range 3 {
		at := monday.AddDate(0, 0, -7*n)
		exec("SELECT create_runs_partition($1)", at)
		exec(`
INSERT INTO runs (id, scheduled_for, schedule_name, task_name, execution_policy, trigger, slot, state, created_at)
SELECT gen_random_uuid(), $1, 'nightly', 'echo', 'allow', 'manual', gen_random_uuid(), CASE WHEN $2 = 1 THEN 'running' ELSE 'skipped' END, $1
FROM generate_series(1, 3)`, at.Add(90*time.Minute), n)
	}
	day := func(n int) string { return monday.AddDate(0, 0, -7*n).UTC().Format(time.DateOnly) }

	code, out, stderr := call("--dry-run")
	require.Zero(t, code, stderr)
	require.Contains(t, out, "Runs are kept for 90d.")
	row := func(week, runs, unended, what string) {
		t.Helper()
		require.Regexp(t, "(?m)^"+week+" +"+runs+` +[\d.]+ KiB +`+unended+" +"+what+"$", out)
	}
	row(day(2), "3", "-", "would be dropped")
	row(day(1), "3", day(1)+"T01:30:00Z", "kept: 3 runs have not ended")
	row(day(0), "3", "-", "would be dropped")
	require.Regexp(t, `\n6 weeks: 2 would be dropped, 4 kept\n$`, out)
	require.Len(t, regexp.MustCompile(`(?m)^20.* kept$`).FindAllString(out, -1), 3)

	// Somebody reads.
	report, err := d.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = report.Rollback(context.Background()) }()
	_, err = report.Exec(t.Context(), "SELECT count(*) FROM runs")
	require.NoError(t, err)
	code, out, stderr = call()
	require.Equal(t, 1, code)
	require.Contains(t, out, "leaving: somebody is at it; it goes when they are done")
	require.Contains(t, stderr, "say it again")
	require.NoError(t, report.Rollback(t.Context()))
	code, out, stderr = call()
	require.Zero(t, code, stderr)
	require.Regexp(t, `\n6 weeks: 2 dropped, 4 kept\n$`, out)
	exec("UPDATE runs SET state = 'cancelled', finished_at = now() - interval '10 days'")
	code, out, stderr = call("--run-retention", "forever", "--older-than", "30d")
	require.Zero(t, code, stderr)
	row(day(1), "3", "-", "kept: a run was written down or ended on .*")
	code, out, stderr = call("--run-retention", "forever", "--older-than", "7d")
	require.Zero(t, code, stderr)
	row(day(1), "3", "-", "dropped")
	_, out, _ = call("--run-retention", "forever", "--dry-run")
	require.Contains(t, out, "Runs are kept for ever.")

	for _, args := range []string{"--older-than 6d", "--older-than forever", "--older-than soon", "--run-retention 1d", "now"} {
		code, out, stderr = call(strings.Fields(args)...)
		require.Equal(t, 2, code, args)
		require.Empty(t, out)
		require.NotEmpty(t, stderr)
	}
	exec("UPDATE installation SET system_identifier = 1")
	code, _, stderr = call()
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "On hold")
}
