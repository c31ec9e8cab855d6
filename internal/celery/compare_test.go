package celery

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/history"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// noon is a time in seconds from which those of tests are counted.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func moments(seconds ...float64) []time.Time {
	list := []time.Time{}
	for _, s := range seconds {
		list = append(list, noon.Add(time.Duration(s*float64(time.Second))))
	}
	return list
}

func moment(seconds float64) time.Time { return moments(seconds)[0] }

func TestTicksAreHeldAgainstWhatWasSent(t *testing.T) {
	t.Parallel()
	minutes := moments(60, 120, 180, 240, 300, 360, 420)
	for name, c := range map[string]struct {
		ticks, sent []time.Time
		gaps        []riverbeat.Gap
		pace        bool
		want        Compared
	}{
		"each once": {ticks: minutes, sent: moments(60.1, 120, 180.7, 239.5, 301, 372, 420.1), want: Compared{
			Verdict: Same, Ticks: 7, Sent: 7, Latest: 12,
		}},
		"one was not sent": {ticks: minutes, sent: moments(60, 120, 240, 300, 360, 420), want: Compared{
			Verdict: Differs, Ticks: 7, Sent: 6, OnlyHere: moments(180),
		}},
		"the last was not sent": {ticks: minutes, sent: moments(60, 120, 180, 240, 300, 360), want: Compared{
			Verdict: Differs, Ticks: 7, Sent: 6, OnlyHere: moments(420),
		}},
		"one was sent twice": {ticks: minutes, sent: moments(60, 120, 180, 182, 240, 300, 360, 420), want: Compared{
			Verdict: Differs, Ticks: 7, Sent: 8, Twice: moments(182),
		}},
		"what is too late is of no tick": {ticks: moments(60, 300, 360, 420), sent: moments(60, 131, 300, 360, 420), want: Compared{
			Verdict: Differs, Ticks: 4, Sent: 5, OnlyThere: moments(131),
		}},
		"what is early by more than the clocks differ, too": {ticks: moments(60, 300, 420), sent: moments(60, 290, 420), want: Compared{
			Verdict: Differs, Ticks: 3, Sent: 3, OnlyHere: moments(300), OnlyThere: moments(290),
		}},
		"right after the beginning may be of a tick before it": {ticks: moments(120), sent: moments(1, 20, 59, 120), want: Compared{
			Verdict: Same, Ticks: 1, Sent: 1,
		}},
		"but not later": {ticks: moments(180), sent: moments(61, 180), want: Compared{
			Verdict: Differs, Ticks: 1, Sent: 2, OnlyThere: moments(61),
		}},
		"after the end nothing counts": {ticks: append(moments(480, 540), minutes...), sent: append(moments(421, 480, 541), minutes[:6]...), want: Compared{
			Verdict: Same, Ticks: 7, Sent: 7, Latest: 1,
		}},
		"two schedules at once": {ticks: moments(60, 60, 120, 180, 180), sent: moments(61, 62, 121, 180), want: Compared{
			Verdict: Differs, Ticks: 5, Sent: 4, OnlyHere: moments(180), Latest: 2,
		}},
		"in a gap": {
			ticks: moments(60, 420), sent: moments(60, 120, 180, 240, 300, 420), gaps: []riverbeat.Gap{{From: moment(120), Until: moment(240)}},
			want: Compared{Verdict: Differs, Ticks: 2, Sent: 6, InGaps: 3, OnlyThere: moments(300)},
		},
		"the next tick ends the time of the last one, though it is not looked at": {
			ticks: append(moments(480, 540), minutes...), sent: moments(60, 120, 180, 240, 300, 360, 420, 479.8, 540), want: Compared{
				Verdict: Same, Ticks: 7, Sent: 7,
			},
		},
		"an interval beside a gap": {
			ticks: moments(60, 120, 300, 360, 420), sent: moments(33, 93, 153, 213, 273, 333, 393), pace: true,
			gaps: []riverbeat.Gap{{From: moment(180), Until: moment(240)}}, want: Compared{
				Verdict: Same, Ticks: 5, Sent: 7, InGaps: 2, PaceOnly: true,
			},
		},
		"an interval of which nobody can tell yet": {ticks: moments(60), pace: true, want: Compared{
			Verdict: Nothing, Ticks: 1, PaceOnly: true,
		}},
		"an interval at its pace": {ticks: minutes, sent: moments(33, 93, 153, 213, 273, 333, 393), pace: true, want: Compared{
			Verdict: Same, Ticks: 7, Sent: 7, PaceOnly: true,
		}},
		"an interval that is slower": {ticks: minutes, sent: moments(33, 153, 273, 393), pace: true, want: Compared{
			Verdict: Differs, Ticks: 7, Sent: 4, PaceOnly: true,
		}},
		"nothing": {want: Compared{Verdict: Nothing}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := &group{name: name, from: noon, until: moment(420), ticks: c.ticks, gaps: c.gaps, paceOnly: c.pace}
			c.want.Name, c.want.From, c.want.Until = name, noon, moment(420)
			for _, list := range []*[]time.Time{&c.want.OnlyHere, &c.want.OnlyThere, &c.want.Twice} {
				if *list == nil {
					*list = []time.Time{}
				}
			}
			require.Equal(t, c.want, g.compare(c.sent, time.Minute))
		})
	}
}

// compare compares a plain table's schedules with public.sent.
func (h *handover) compare(log Log) map[string]Compared {
	h.t.Helper()
	now, err := h.Now(h.t.Context())
	require.NoError(h.t, err)
	log.URL, log.Table, log.At = h.there.URL, "public.sent", "at"
	comparison := Comparison{Source: h.Source, Log: log, Since: now.Add(-time.Hour), Now: now, Within: time.Minute, Shadows: h.shadows}
	compared, err := comparison.Run(h.t.Context())
	require.NoError(h.t, err)
	byName := map[string]Compared{}
	for _, c := range compared {
		byName[c.Name] = c
	}
	return byName
}

// shadow imports all that stands there, in shadow.
func (h *handover) shadow() {
	h.t.Helper()
	entries, err := Read(h.t.Context(), h.Source)
	require.NoError(h.t, err)
	_, err = Import(h.t.Context(), h.Catalog, entries, time.Now(), StartShadow)
	require.NoError(h.t, err)
}

func (h *handover) shadows(ctx context.Context, ids []uuid.UUID, since time.Time) (shadows map[uuid.UUID]*postgres.Shadow, err error) {
	err = h.here.DB.InTx(ctx, func(tx *postgres.Tx) error {
		shadows, err = tx.Shadows(ctx, ids, since)
		return err
	})
	return shadows, err
}

// sweep decides what is due here.
func (h *handover) sweep() {
	h.t.Helper()
	_, err := h.ticker.Sweep(h.t.Context())
	require.NoError(h.t, err)
}

// xid is the transaction that disables a schedule there.
func (h *handover) xid(id string) (xid string) {
	h.t.Helper()
	require.NoError(h.t, h.here.Pool.QueryRow(h.t.Context(), "SELECT cut_xid FROM imported_schedules WHERE schedule_id = $1", id).Scan(&xid))
	return xid
}

// slept lets schedules begin to tick in shadow 20 minutes ago, and stand still since.
func (h *handover) slept() {
	h.t.Helper()
	h.exec(h.here, `
UPDATE schedule_clocks SET last_scheduled_for = date_trunc('minute', now()) - interval '20 minutes' - interval '1 second',
    next_run_at = date_trunc('minute', now()) - interval '20 minutes'`)
	h.exec(h.here, "UPDATE schedule_versions SET valid_from = date_trunc('minute', now()) - interval '20 minutes' - interval '1 second' WHERE shadow AND valid_until IS NULL")
}

func TestCompare(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"each": "* * * * *", "lost": "* * * * *", "off": "* * * * *", "daily": "0 0 1 1 *"})
	h.exec(h.there, "UPDATE public.jobs SET enabled = false WHERE name = 'off'")
	h.exec(h.there, "CREATE TABLE public.sent (name text, task text DEFAULT 'load', at timestamptz)")
	require.Empty(t, h.compare(Log{Name: "name"}), "nothing is in shadow")
	h.exec(h.here, "UPDATE schedules SET catch_up = 'all'")
	h.shadow()
	h.slept()
	h.sweep()
	h.exec(h.there, `
INSERT INTO public.sent (name, at)
SELECT name, date_trunc('minute', now()) - make_interval(mins => m, secs => -0.5)
FROM generate_series(0, 30) AS m, (VALUES ('each'), ('lost')) AS of(name) WHERE name = 'each' OR m <> 7`)
	got := h.compare(Log{Name: "name"})
	require.Equal(t, Same, got["each"].Verdict, "%+v", got["each"])
	require.InDelta(t, 20, got["each"].Ticks, 1)
	require.Equal(t, got["each"].Ticks, got["each"].Sent)
	require.InDelta(t, 0.5, got["each"].Latest, 0.01)
	require.Equal(t, Differs, got["lost"].Verdict)
	require.Len(t, got["lost"].OnlyHere, 1)
	require.Equal(t, Nothing, got["daily"].Verdict)
	require.NotContains(t, got, "off")

	// By task, all that has it is one.
	got = h.compare(Log{Task: "task"})
	require.Len(t, got, 1)
	require.Len(t, got["load"].OnlyHere, 1)
	require.InDelta(t, 2*20, got["load"].Ticks, 2)

	// What is written there no more is not looked at.
	h.exec(h.there, "DELETE FROM public.sent WHERE at < now() - interval '5 minutes'")
	got = h.compare(Log{Name: "name"})
	require.Equal(t, Same, got["lost"].Verdict)
	require.Less(t, got["lost"].Ticks, 6)

	// Nor what was before a schedule was last in shadow.
	h.exec(h.here, "UPDATE schedules SET shadow = false, version = version + 1 WHERE name = 'each'")
	h.exec(h.here, "UPDATE schedules SET shadow = true, version = version + 1 WHERE name = 'each'")
	require.Zero(t, h.compare(Log{Name: "name"})["each"].Ticks)

	_, err := (&Comparison{
		Source: h.Source, Log: Log{URL: h.there.URL, Table: "nowhere", Name: "name", At: "at"}, Since: noon, Now: time.Now(), Shadows: h.shadows,
	}).Run(t.Context())
	require.Equal(t, riverbeat.NotFound, riverbeat.KindOf(err))
}

// A comparison ends where ticks are decided: what is due may still come.
func TestCompareDuringAnOutage(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"each": "* * * * *"})
	h.exec(h.there, "CREATE TABLE public.sent (name text, at timestamptz)")
	h.exec(h.here, "UPDATE schedules SET catch_up = 'all'")
	h.shadow()
	h.slept()
	h.sweep()
	h.exec(h.there, "INSERT INTO public.sent SELECT 'each', date_trunc('minute', now()) - make_interval(mins => m) FROM generate_series(0, 30) AS m")
	// Nobody decides anything for ten minutes.
	h.exec(h.here, "DELETE FROM runs WHERE scheduled_for > now() - interval '10 minutes'")
	h.exec(h.here, "UPDATE schedule_clocks SET next_run_at = date_trunc('minute', now()) - interval '9 minutes', last_scheduled_for = date_trunc('minute', now()) - interval '10 minutes'")
	got := h.compare(Log{Name: "name"})["each"]
	require.Equal(t, Same, got.Verdict, "%+v", got)
	require.InDelta(t, 11, got.Ticks, 1)
}

// An interval never rests, so it may tick in shadow in the very moment of its handover, and
// people may let it tick on when the handover was broken off. It goes on after the last tick
// that was decided; what people do beside that loses none.
func TestCutoverGoesOnAfterTheLastTick(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"again": "* * * * *", "asked": "* * * * *"})
	h.shadow()
	h.slept()
	h.sweep()
	cut := time.Now().UTC().Add(-10 * time.Minute).Truncate(time.Second)
	var ids []uuid.UUID
	for _, name := range []string{"again", "asked"} {
		id := h.disabled(name, cut, true)
		ids = append(ids, uuid.MustParse(id))
		require.NoError(t, h.Catalog.BeginCut(t.Context(), ids[len(ids)-1:], cut, h.xid(id)))
	}
	// Those ten minutes are not decided, but that somebody has let one tick on in shadow.
	h.exec(h.here, "DELETE FROM runs WHERE scheduled_for > $1", cut)
	h.exec(h.here, "UPDATE schedules SET catch_up = 'all'")
	shadow := func(on bool) {
		_, err := h.Catalog.ChangeSchedule(t.Context(), ids[0], func(s *riverbeat.Schedule) error {
			s.Enabled, s.Shadow = on, on
			return nil
		})
		require.NoError(t, err)
	}
	shadow(true)
	h.exec(h.here, "UPDATE schedule_clocks SET last_scheduled_for = $2, next_run_at = date_trunc('minute', now()) - interval '5 minutes' WHERE schedule_id = $1", ids[0], cut)
	h.sweep()
	shadow(false)
	// And has asked for a run of the other, and changed it.
	_, err := h.history.RunNow(t.Context(), ids[1], history.Overrides{})
	require.NoError(t, err)
	_, err = h.Catalog.ChangeSchedule(t.Context(), ids[1], func(s *riverbeat.Schedule) error { s.Description = "changed"; return nil })
	require.NoError(t, err)

	require.Equal(t, map[string]string{"again": CutOver, "asked": CutOver}, h.run())
	h.sweep()
	for i, want := range []int{0, 10} {
		var stopped string
		var ticks int
		require.NoError(t, h.here.Pool.QueryRow(t.Context(), `
SELECT s.last_error, (
    SELECT count(*) FROM runs WHERE schedule_id = s.id AND scheduled_for > $2 AND trigger IN ('schedule', 'catch_up') AND state IN ('queued', 'waiting')
) FROM schedules AS s WHERE s.id = $1`, ids[i], cut).Scan(&stopped, &ticks))
		require.Empty(t, stopped)
		require.InDelta(t, want, ticks, 1)
	}
}

// A handover that was undone there is begun again, or forgotten.
func TestAHandoverThatWasUndoneIsForgotten(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"yearly": "0 0 1 1 *"})
	id := h.disabled("yearly", time.Now(), false)
	h.exec(h.there, "UPDATE public.jobs SET enabled = false")
	require.Contains(t, h.run()["yearly"], "it is disabled there")
	var begun bool
	require.NoError(t, h.here.Pool.QueryRow(t.Context(), "SELECT cut_at IS NOT NULL FROM imported_schedules WHERE schedule_id = $1", id).Scan(&begun))
	require.False(t, begun)
	h.exec(h.there, "UPDATE public.jobs SET enabled = true")
	h.shadow()
	_, here, _, _ := h.state("yearly")
	require.True(t, here, "in shadow")
}

// A handover from shadow: no tick of ours is ticked away, also if the process dies after
// Celery was told.
func TestCutoverFromShadow(t *testing.T) {
	t.Parallel()
	h := newHandover(t, map[string]string{"each": "* * * * *", "yearly": "0 0 1 1 *"})
	h.shadow()
	h.slept()
	h.sweep()
	_, here, mark, _ := h.state("each")
	require.True(t, here)
	// Somebody begins to hand it over, disables it there and dies.
	id := h.disabled("each", mark, true)
	require.NoError(t, h.Catalog.BeginCut(t.Context(), []uuid.UUID{uuid.MustParse(id)}, mark, h.xid(id)))
	_, here, _, next := h.state("each")
	require.False(t, here, "nothing ticks in shadow after that")
	require.Nil(t, next)
	h.shadow()
	h.sweep()
	_, here, _, _ = h.state("each")
	require.False(t, here, "nor if somebody asks for it")
	// Ten minutes pass.
	h.exec(h.here, "UPDATE imported_schedules SET cut_at = cut_at - interval '10 minutes'")
	h.exec(h.here, "DELETE FROM runs WHERE scheduled_for > (SELECT cut_at FROM imported_schedules WHERE schedule_id = $1)", id)
	h.exec(h.here, "UPDATE schedules SET catch_up = 'all'")
	h.Name = "each"
	require.Equal(t, map[string]string{"each": CutOver}, h.run())
	h.sweep()
	var runs, shadows int
	require.NoError(t, h.here.Pool.QueryRow(t.Context(), `
SELECT count(*) FILTER (WHERE r.state = 'queued' OR r.state = 'waiting'), count(*) FILTER (WHERE r.reason = 'shadow')
FROM runs AS r JOIN imported_schedules AS i USING (schedule_id) WHERE r.scheduled_for > i.cut_at AND r.schedule_id = $1`, id).Scan(&runs, &shadows))
	require.GreaterOrEqual(t, runs, 10, "each tick since is run here")
	require.Zero(t, shadows)

	// One that is handed over at once.
	h.Name = "yearly"
	require.Equal(t, map[string]string{"yearly": CutOver}, h.run())
	var enabled, shadow bool
	require.NoError(t, h.here.Pool.QueryRow(t.Context(), "SELECT enabled, shadow FROM schedules WHERE name = 'yearly'").Scan(&enabled, &shadow))
	require.True(t, enabled)
	require.False(t, shadow)
}
