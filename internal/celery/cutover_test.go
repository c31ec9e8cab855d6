package celery

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
)

// handover is an installation beside a plain table, from which all was imported.
type handover struct {
	t           *testing.T
	here, there *pgtest.Database
	Cutover
}

// newHandover has schedules by their names and expressions.
func newHandover(t *testing.T, crons map[string]string) *handover {
	t.Helper()
	h := &handover{t: t, here: pgtest.DB(t), there: newPlain(t, `
CREATE TABLE public.jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text, task_name text DEFAULT 'load', cron_expression text,
    enabled boolean DEFAULT true, args jsonb, kwargs jsonb, updated_at timestamptz DEFAULT '2026-01-01'
)`)}
	for name, cron := range crons {
		h.exec(h.there, "INSERT INTO public.jobs (name, cron_expression) VALUES ($1, $2)", name, cron)
	}
	q, err := queue.New(h.here.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	h.Cutover = Cutover{
		Source:  Source{URL: h.there.URL, Table: "public.jobs", Zone: "UTC"},
		Catalog: catalog.New(h.here.DB, ledger.New(q)), Settle: DefaultSettle,
		Now: func(ctx context.Context) (now time.Time, err error) {
			err = h.here.DB.InTx(ctx, func(tx *postgres.Tx) error {
				now, err = tx.Now(ctx)
				return err
			})
			return now, err
		},
	}
	entries, err := Read(t.Context(), h.Source)
	require.NoError(t, err)
	_, err = Import(t.Context(), h.Catalog, entries, time.Now(), false)
	require.NoError(t, err)
	return h
}

func (h *handover) exec(d *pgtest.Database, statement string, args ...any) {
	h.t.Helper()
	_, err := d.Pool.Exec(h.t.Context(), statement, args...)
	require.NoError(h.t, err)
}

func (h *handover) run() map[string]string {
	h.t.Helper()
	items, err := h.Run(h.t.Context())
	require.NoError(h.t, err)
	outcomes := map[string]string{}
	for _, item := range items {
		outcomes[item.Name] = item.Outcome
		if item.Refused != "" {
			outcomes[item.Name] += ": " + item.Refused
		}
	}
	return outcomes
}

// state is whether the schedule is enabled there and here, and its mark and next tick.
func (h *handover) state(name string) (there, here bool, mark time.Time, next *time.Time) {
	h.t.Helper()
	require.NoError(h.t, h.there.Pool.QueryRow(h.t.Context(), "SELECT enabled FROM public.jobs WHERE name = $1", name).Scan(&there))
	require.NoError(h.t, h.here.Pool.QueryRow(h.t.Context(), `
SELECT s.enabled, c.last_scheduled_for, c.next_run_at FROM schedules AS s JOIN schedule_clocks AS c ON c.schedule_id = s.id
WHERE s.name = $1`, name).Scan(&here, &mark, &next))
	return there, here, mark, next
}

func TestCutover(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"yearly": "0 0 1 1 *", "both": "0 0 1 1 mon", "off": "0 0 2 1 *", "other": "0 0 3 1 *"})
	h.exec(h.there, "UPDATE public.jobs SET enabled = false WHERE name = 'off'")
	h.exec(h.there, "UPDATE public.jobs SET task_name = 'else' WHERE name = 'other'")
	h.Task = "load"
	require.Equal(t, map[string]string{
		"yearly": CutOver, "both": "refused: it would fire at other times here", "off": "refused: it is disabled there",
	}, h.run())
	there, here, mark, next := h.state("yearly")
	require.False(t, there)
	require.True(t, here)
	require.WithinDuration(t, time.Now(), mark, time.Minute)
	require.True(t, next.After(mark))
	there, here, _, _ = h.state("other")
	require.True(t, there, "it was not picked")
	require.False(t, here)
	require.Equal(t, CutBefore, h.run()["yearly"])
	// What has changed there since, or is new, is handed over as it is now.
	h.exec(h.there, "INSERT INTO public.jobs (name, cron_expression) VALUES ('new', '0 0 4 1 *')")
	h.exec(h.there, "UPDATE public.jobs SET cron_expression = '0 0 5 1 *' WHERE name = 'other'")
	h.Task = ""
	got := h.run()
	require.Equal(t, CutOver, got["new"])
	require.Equal(t, CutOver, got["other"])
	_, here, _, next = h.state("other")
	require.True(t, here)
	require.Equal(t, 5, next.UTC().Day())

	// After that an import leaves it alone.
	h.exec(h.here, "UPDATE schedules SET description = 'ours' WHERE name = 'other'")
	entries, err := Read(t.Context(), h.Source)
	require.NoError(t, err)
	items, err := Import(t.Context(), h.Catalog, entries, time.Now(), false)
	require.NoError(t, err)
	for _, item := range items {
		if item.Name == "other" {
			require.Equal(t, "ours", item.Outcome)
		}
	}
}

// Whoever hands over may die between any two steps. Run again, it is as if he had not.
func TestCutoverThatWasBrokenOff(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"minutely": "* * * * *", "noted": "0 0 1 1 *", "somebody else": "0 0 2 1 *"})
	ids := map[string]string{}
	for _, name := range []string{"minutely", "noted", "somebody else"} {
		var id string
		require.NoError(t, h.there.Pool.QueryRow(t.Context(), "SELECT id FROM public.jobs WHERE name = $1", name).Scan(&id))
		ids[name] = id
	}
	begun := time.Now().UTC().Add(-5 * time.Minute).Truncate(time.Minute).Add(20 * time.Second)
	for _, id := range ids {
		h.exec(h.here, "UPDATE imported_schedules SET cut_at = $2 WHERE schedule_id = $1", id, begun)
	}
	h.exec(h.here, "UPDATE schedule_clocks SET last_scheduled_for = $1", begun.Add(-time.Hour)) // imported before
	h.exec(h.there, "UPDATE public.jobs SET enabled = false, updated_at = $1 WHERE name = 'minutely'", begun.Add(time.Second))
	h.exec(h.there, "UPDATE public.jobs SET enabled = false, updated_at = now() WHERE name = 'somebody else'")
	require.Equal(t, map[string]string{
		"minutely": CutOver, "noted": CutOver, "somebody else": "refused: it is disabled there",
	}, h.run())

	_, here, mark, next := h.state("minutely")
	require.True(t, here)
	require.Equal(t, begun, mark.UTC(), "its ticks since then are ours")
	require.Equal(t, begun.Truncate(time.Minute).Add(time.Minute), next.UTC())
	var valid time.Time
	require.NoError(t, h.here.Pool.QueryRow(t.Context(),
		"SELECT valid_from FROM report_schedule_versions WHERE schedule_id = $1 AND enabled", ids["minutely"]).Scan(&valid))
	require.False(t, valid.After(time.Now()))

	there, here, mark, _ := h.state("noted")
	require.False(t, there)
	require.True(t, here)
	require.WithinDuration(t, time.Now(), mark, time.Minute, "Beat was not told then, and went on")
	_, here, _, _ = h.state("somebody else")
	require.False(t, here)
}

func TestSomeSchedulesNeverRest(t *testing.T) {
	t.Parallel()
	for cron, rests := range map[Crontab]time.Duration{
		{"*", "*", "*", "*", "*", "UTC"}:    time.Minute,
		{"*/5", "*", "*", "*", "*", "UTC"}:  5 * time.Minute,
		{"*", "9-17", "*", "*", "*", "UTC"}: 15 * time.Hour,
	} {
		tr := Translate(&Entry{Crontab: &cron, Name: "x", Task: "x"}, now)
		require.True(t, tr.rests(rests-1), "%v", cron)
		require.False(t, tr.rests(rests+time.Minute), "%v", cron)
	}
	require.False(t, (&Translation{Entry: &Entry{Every: 5 * time.Second}}).rests(18*time.Second))
}

func TestCutoverWaitsForAMomentBetweenTicks(t *testing.T) {
	t.Parallel()
	read := &Crontab{"*/5", "*", "*", "*", "*", "UTC"}
	e := &Translation{Entry: &Entry{Crontab: read}}
	at := func(text string) time.Time { return *at("2026-03-01T" + text + "Z") }
	require.True(t, e.fires(at("11:59:58"), at("12:00:13")))
	require.True(t, e.fires(at("11:59:59"), at("12:00:00")))
	require.False(t, e.fires(at("12:00:00"), at("12:00:15")))
	require.False(t, e.fires(at("12:00:03"), at("12:04:59")))
}
