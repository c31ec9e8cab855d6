package celery

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/queue"
)

// A thousand tasks of Django; riverbeat's command is tested with a thousand of a plain table.
func TestImportOfDjango(t *testing.T) {
	t.Parallel()
	b, here := newDjango(t), pgtest.DB(t)
	q, err := queue.New(here.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	into := catalog.New(here.DB, ledger.New(q))
	take := func(start Start) ([]Item, map[string]int) {
		entries, err := Read(t.Context(), Source{URL: b.URL, Django: true, Zone: "UTC"})
		require.NoError(t, err)
		items, err := Import(t.Context(), into, entries, time.Now(), start)
		require.NoError(t, err)
		outcomes := map[string]int{}
		for _, item := range items {
			outcomes[item.Outcome]++
		}
		return items, outcomes
	}
	count := func(query string) (n int) {
		require.NoError(t, here.Pool.QueryRow(t.Context(), query).Scan(&n))
		return n
	}
	b.run(t, `
crons = [CrontabSchedule.objects.create(minute=str(i), hour="*/2", timezone="Asia/Tokyo") for i in range(60)]
every = [IntervalSchedule.objects.create(every=i, period="minutes") for i in range(1, 41)]
PeriodicTask.objects.bulk_create([PeriodicTask(name="cron %d" % i, task="load", crontab=crons[i % 60], kwargs='{"n": %d}' % i) for i in range(600)])
PeriodicTask.objects.bulk_create([PeriodicTask(name="every %d" % i, task="load", interval=every[i % 40], enabled=i % 2 == 0) for i in range(399)])
PeriodicTask.objects.create(name="sun", task="load", solar=SolarSchedule.objects.create(event="sunset", latitude=1, longitude=2))
`)
	items, outcomes := take(StartDisabled)
	require.Equal(t, map[string]int{"created": 999, Refused: 1}, outcomes)
	require.Equal(t, 999, count("SELECT count(*) FROM schedules WHERE NOT enabled"))
	for _, item := range items {
		if strings.HasPrefix(item.Name, "cron") {
			require.Equal(t, item.NextThere, item.NextHere, item.Name)
		}
	}
	_, err = b.Pool.Exec(t.Context(), "UPDATE django_celery_beat_periodictask SET last_run_at = now(), total_run_count = total_run_count + 1, date_changed = now()")
	require.NoError(t, err)
	_, err = b.Pool.Exec(t.Context(), "UPDATE django_celery_beat_crontabschedule SET minute = '59' WHERE minute = '7'")
	require.NoError(t, err)
	_, err = here.Pool.Exec(t.Context(), "UPDATE schedules SET execution_policy = 'skip', tags = '[\"ours\"]', category = 'ours', description = 'ours'")
	require.NoError(t, err)
	_, outcomes = take(StartDisabled)
	require.Equal(t, map[string]int{"unchanged": 989, "changed": 10, Refused: 1}, outcomes)
	require.Equal(t, 999, count("SELECT count(*) FROM schedules WHERE execution_policy = 'skip' AND tags = '[\"ours\"]' AND category = 'ours'"), "of which Celery knows nothing")
	require.Equal(t, 989, count("SELECT count(*) FROM schedules WHERE description = 'ours'"), "a row that changes is written with all that it says")
	require.Zero(t, count("SELECT count(*) FROM schedules WHERE enabled"))
	_, outcomes = take(StartEnabled)
	require.Equal(t, map[string]int{"unchanged": 199, "changed": 800, Refused: 1}, outcomes)
	require.Equal(t, 800, count("SELECT count(*) FROM schedules WHERE enabled"), "those that are enabled there")
}
