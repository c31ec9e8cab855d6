package celery

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/ledger"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
)

// handover is an installation beside a plain table, from which all was imported.
type handover struct {
	t           *testing.T
	here, there *pgtest.Database
	ticker      *tick.Ticker
	history     *history.History
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
	l := ledger.New(q)
	h.history = history.New(h.here.DB, l)
	h.ticker = tick.New(h.here.DB, l, slog.New(slog.DiscardHandler))
	h.Cutover = Cutover{
		Source:  Source{URL: h.there.URL, Table: "public.jobs", Zone: "UTC"},
		Catalog: catalog.New(h.here.DB, l), Settle: 2 * time.Second,
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
	_, err = Import(t.Context(), h.Catalog, entries, time.Now(), StartDisabled)
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
	items, err := Import(t.Context(), h.Catalog, entries, time.Now(), StartDisabled)
	require.NoError(t, err)
	for _, item := range items {
		if item.Name == "other" {
			require.Equal(t, "ours", item.Outcome)
		}
	}
}

// disabled disables a schedule there in a transaction that ends as said, and notes that as
// BeginCut does. It says the id.
func (h *handover) disabled(name string, at time.Time, commit bool) (id string) {
	h.t.Helper()
	tx, err := h.there.Pool.Begin(h.t.Context())
	require.NoError(h.t, err)
	var xid string
	require.NoError(h.t, tx.QueryRow(h.t.Context(), "UPDATE public.jobs SET enabled = false WHERE name = $1 RETURNING id::text, txid_current()::text", name).Scan(&id, &xid))
	h.exec(h.here, "UPDATE imported_schedules SET cut_at = $2, cut_xid = $3 WHERE schedule_id = $1", id, at, xid)
	if commit {
		require.NoError(h.t, tx.Commit(h.t.Context()))
	} else {
		require.NoError(h.t, tx.Rollback(h.t.Context()))
	}
	return id
}

// Whoever hands over may die between any two steps. Run again, it is as if he had not.
func TestCutoverThatWasBrokenOff(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{
		"minutely": "* * * * *", "noted": "0 0 1 1 *", "somebody else": "0 0 2 1 *", "again": "0 0 3 1 *", "deleted": "0 0 4 1 *",
	})
	begun := time.Now().UTC().Add(-5 * time.Minute).Truncate(time.Minute).Add(20 * time.Second)
	h.exec(h.here, "UPDATE schedule_clocks SET last_scheduled_for = $1", begun.Add(-time.Hour)) // imported before
	id := h.disabled("minutely", begun, true)
	h.disabled("noted", begun, false)
	h.disabled("somebody else", begun, false)
	h.exec(h.there, "UPDATE public.jobs SET enabled = false WHERE name = 'somebody else'")
	h.disabled("again", begun, true)
	h.exec(h.there, "UPDATE public.jobs SET enabled = true WHERE name = 'again'")
	deleted := h.disabled("deleted", begun, true)
	require.NoError(t, h.Catalog.DeleteSchedule(t.Context(), uuid.MustParse(deleted), riverbeat.Expected{}))
	_, err := h.Catalog.ChangeSchedule(t.Context(), uuid.MustParse(id), func(s *riverbeat.Schedule) error {
		s.Description = "somebody has changed it meanwhile"
		return nil
	})
	require.NoError(t, err)
	got := h.run()
	require.Contains(t, got["again"], "it is enabled there again")
	require.Contains(t, got["deleted"], "it is disabled there, and cannot be enabled here: There is no schedule")
	delete(got, "again")
	delete(got, "deleted")
	require.Equal(t, map[string]string{"minutely": CutOver, "noted": CutOver, "somebody else": "refused: it is disabled there"}, got)

	_, here, mark, next := h.state("minutely")
	require.True(t, here)
	require.Equal(t, begun, mark.UTC(), "its ticks since then are ours")
	require.Equal(t, begun.Truncate(time.Minute).Add(time.Minute), next.UTC())

	there, here, mark, _ := h.state("noted")
	require.False(t, there)
	require.True(t, here)
	require.WithinDuration(t, time.Now(), mark, time.Minute, "Beat was not told then, and went on")
	_, here, _, _ = h.state("somebody else")
	require.False(t, here)

	h.exec(h.there, "UPDATE public.jobs SET enabled = true WHERE name = 'noted'")
	require.Contains(t, h.run()["noted"], "both fire")
}

// Beat writes down what it has fired, over what others have written.
func TestCutoverThatBeatOverwrites(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"yearly": "0 0 1 1 *"})
	h.exec(h.there, `
CREATE FUNCTION public.beat() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.enabled = NEW.enabled OR (SELECT count(*) FROM public.saves) < 2;
    INSERT INTO public.saves DEFAULT VALUES;
    RETURN NEW;
END $$;
CREATE TABLE public.saves (at timestamptz DEFAULT now());
CREATE TRIGGER beat BEFORE UPDATE ON public.jobs FOR EACH ROW EXECUTE FUNCTION public.beat()`)
	require.Equal(t, CutOver, h.run()["yearly"])
	there, here, _, _ := h.state("yearly")
	require.False(t, there)
	require.True(t, here)
}

func TestCutoverOfWhatIsChangedMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"yearly": "0 0 1 1 *"})
	tx, err := h.there.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "UPDATE public.jobs SET cron_expression = '0 0 9 1 *'")
	require.NoError(t, err)
	outcome := make(chan string, 1)
	go func() {
		items, err := h.Run(context.WithoutCancel(t.Context()))
		if err != nil || len(items) != 1 {
			outcome <- fmt.Sprint(items, err)
			return
		}
		outcome <- items[0].Outcome
	}()
	require.Eventually(t, func() bool {
		var waiting int
		require.NoError(t, h.there.Pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting))
		return waiting == 1
	}, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, CutOver, <-outcome)
	_, here, _, next := h.state("yearly")
	require.True(t, here)
	require.Equal(t, 9, next.UTC().Day(), "as it is there now")
}

// Who holds the tables for long is waited for shortly, and nothing has happened then.
func TestCutoverOfTablesThatAreHeld(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"yearly": "0 0 1 1 *"})
	tx, err := h.there.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT FROM public.jobs FOR UPDATE")
	require.NoError(t, err)
	_, err = h.Run(t.Context())
	require.ErrorContains(t, err, "the tables of Celery Beat are held by somebody")
	require.NoError(t, tx.Rollback(t.Context()))
	there, here, _, _ := h.state("yearly")
	require.True(t, there)
	require.False(t, here)
	require.Equal(t, CutOver, h.run()["yearly"])
}

func TestCutoverOfNumbersAsBooleans(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"yearly": "0 0 1 1 *"})
	h.exec(h.there, "ALTER TABLE public.jobs ALTER enabled DROP DEFAULT, ALTER enabled TYPE smallint USING enabled::int")
	require.Equal(t, CutOver, h.run()["yearly"])
	require.Equal(t, CutBefore, h.run()["yearly"])
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
