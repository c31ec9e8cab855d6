package celery

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// translated are the translations of what stands in a source, by name, as of a moment.
func translated(t *testing.T, from Source, now time.Time) map[string]*Translation {
	t.Helper()
	entries, err := Read(t.Context(), from)
	require.NoError(t, err)
	byName := map[string]*Translation{}
	for _, e := range entries {
		byName[e.Name] = Translate(e, now)
	}
	return byName
}

var now = time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC) // a Sunday

func at(text string) *time.Time {
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return &moment
}

func TestDjango(t *testing.T) {
	t.Parallel()
	b := newDjango(t)
	b.run(t, `
def cron(zone="UTC", **fields): return CrontabSchedule.objects.create(timezone=zone, **fields)
def task(name, **fields): return PeriodicTask.objects.create(name=name, task="shop.tasks." + name.split(" ")[0], **fields)
task("plain", crontab=cron("Asia/Tokyo", minute="0", hour="9", day_of_week="mon-fri"), args='[1, "a"]', kwargs='{"region": "north"}', description="says")
task("both", crontab=cron(minute="0", hour="0", day_of_month="1", day_of_week="1"))
task("wraps", crontab=cron(minute="0", hour="22-2"))
task("every", interval=IntervalSchedule.objects.create(every=10, period="minutes"))
PeriodicTask.objects.filter(name="every").update(last_run_at=datetime(2026, 3, 1, 11, 58, 20, tzinfo=tz.utc), total_run_count=7)
task("days", interval=IntervalSchedule.objects.create(every=2, period="days"))
task("tiny", interval=IntervalSchedule.objects.create(every=100, period="microseconds"))
task("clocked", clocked=ClockedSchedule.objects.create(clocked_time=datetime(2026, 12, 24, 18, 30, 15, tzinfo=tz.utc)), one_off=True)
task("past", clocked=ClockedSchedule.objects.create(clocked_time=datetime(2020, 1, 1, tzinfo=tz.utc)), one_off=True)
task("solar", solar=SolarSchedule.objects.create(event="sunrise", latitude=35.68, longitude=139.69))
task("off", crontab=cron(minute="5"), enabled=False)
task("once", crontab=cron(minute="30", hour="4"), one_off=True)
task("done", crontab=cron(minute="30", hour="5"), one_off=True)
PeriodicTask.objects.filter(name="done").update(total_run_count=1)
task("routed", crontab=cron(minute="6"), queue="slow", priority=3, expire_seconds=120)
task("window", crontab=cron(minute="7"), start_time=datetime(2026, 4, 1, tzinfo=tz.utc), expires=datetime(2026, 5, 1, tzinfo=tz.utc))
task("faulty", crontab=cron(minute="8"))
PeriodicTask.objects.filter(name="faulty").update(kwargs="{not json")
task("long", crontab=cron(minute=",".join(str(n) for n in range(0, 60, 2)), hour=",".join(str(n) for n in range(0, 24, 2)), day_of_month=",".join(str(n) for n in range(1, 32, 2))))
task("never", crontab=cron(minute="0", hour="0", day_of_month="31", month_of_year="2"))
`)
	got := translated(t, Source{URL: b.URL, Django: true, Zone: "UTC"}, now)
	require.Len(t, got, 17)

	s := got["plain"].Schedule
	require.Equal(t, "0 9 * * 1-5", s.CronExpression)
	require.Equal(t, "Asia/Tokyo", s.Timezone)
	require.Equal(t, "shop.tasks.plain", s.TaskName)
	require.JSONEq(t, `[1, "a"]`, string(s.Args))
	require.JSONEq(t, `{"region": "north"}`, string(s.TaskParams))
	require.Equal(t, "says", s.Description)
	require.False(t, s.Enabled)
	require.Equal(t, at("2026-03-02T00:00:00Z"), got["plain"].NextThere)
	require.Equal(t, got["plain"].NextThere, got["plain"].NextHere)
	require.Empty(t, got["plain"].Differs)
	require.NotEqual(t, s.ID, got["off"].Schedule.ID)
	require.Equal(t, s.ID, translated(t, Source{URL: b.URL, Django: true, Zone: "UTC"}, now)["plain"].Schedule.ID, "the same each time")

	both := got["both"]
	require.True(t, both.OtherTicks)
	require.Equal(t, at("2026-06-01T00:00:00Z"), both.NextThere, "the first first that is a Monday")
	require.Equal(t, at("2026-03-02T00:00:00Z"), both.NextHere)
	require.Equal(t, "0 0-2,22,23 * * *", got["wraps"].Schedule.CronExpression)

	require.Equal(t, "@every 10m", got["every"].Schedule.CronExpression)
	require.Equal(t, at("2026-03-01T12:08:20Z"), got["every"].NextThere)
	require.Equal(t, at("2026-03-01T12:10:00Z"), got["every"].NextHere)
	require.Equal(t, "@every 48h", got["days"].Schedule.CronExpression)

	clocked := got["clocked"].Schedule
	require.Equal(t, "15 30 18 24 12 *", clocked.CronExpression)
	require.Equal(t, at("2026-12-24T18:30:15Z"), got["clocked"].NextHere)
	recurrence := mustRecurrence(t, clocked.CronExpression)
	require.Nil(t, clocked.NextTick(recurrence, *got["clocked"].NextHere), "only once")

	require.Equal(t, []string{"it is disabled there"}, got["off"].Differs)
	once := got["once"]
	require.Equal(t, at("2026-03-02T04:30:00Z"), once.NextHere)
	require.Nil(t, once.Schedule.NextTick(mustRecurrence(t, once.Schedule.CronExpression), *once.NextHere))
	require.Equal(t, 2*time.Minute, got["routed"].Schedule.CatchUpWindow)
	require.Contains(t, fmt.Sprint(got["routed"].Differs), "queue=slow, priority=3")
	require.Equal(t, at("2026-04-01T00:07:00Z"), got["window"].NextThere)
	require.Equal(t, got["window"].NextThere, got["window"].NextHere)
	require.Equal(t, at("2026-05-01T00:00:00Z"), got["window"].Schedule.EndsAt)

	for name, why := range map[string]string{
		"tiny":   "it fires each 100µs, and nothing here fires more often than once a second",
		"past":   "it was to fire once, at 2020-01-01T00:00:00Z, which is past",
		"solar":  "it fires by the sun (sunrise at 35.680000, 139.690000), which no cron expression can say",
		"done":   "it has fired, and was to do so only once",
		"faulty": `kwargs is no JSON: "{not json"`,
		"never":  "it never fires: no year has such a day",
	} {
		require.Nil(t, got[name].Schedule, name)
		require.Equal(t, why, got[name].Refused, name)
	}
	require.NotNil(t, got["long"].Schedule, "%s", got["long"].Refused)
	require.LessOrEqual(t, len(got["long"].Schedule.CronExpression), 255)
}

func TestPlainTable(t *testing.T) {
	t.Parallel()
	b := newPlain(t, `
CREATE TABLE public.celery_beat_schedules (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name varchar(255) NOT NULL UNIQUE,
    task_name varchar(255) NOT NULL,
    cron_expression varchar(100) NOT NULL,
    enabled boolean DEFAULT true,
    args json DEFAULT '[]',
    kwargs json DEFAULT '{}',
    description text,
    category varchar(50),
    tags json DEFAULT '[]',
    execution_policy varchar(20) DEFAULT 'allow',
    auto_generated_name boolean DEFAULT false,
    created_at timestamp DEFAULT '2025-01-01 09:00',
    updated_at timestamp DEFAULT now()
);
INSERT INTO public.celery_beat_schedules (id, name, task_name, cron_expression, kwargs, category, tags, execution_policy, auto_generated_name) VALUES
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a01', 'fetch_listed_info_yesterday_daily', 'fetch_listed_info_task', '0 0 * * *', '{"period_type": "yesterday"}', 'data', '["jquants", "nightly"]', 'skip', true),
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a02', 'made by hand', 'fetch_listed_info_task', '0 0 * * *', '{"period_type": "yesterday"}', NULL, '[]', 'queue', true),
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a03', 'both', 'x', '0 0 13 * fri', '{}', NULL, NULL, NULL, NULL),
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a04', 'descriptor', 'x', '@daily', '{}', NULL, NULL, 'allow', false),
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a05', 'broken', 'x', 'whenever', '{}', NULL, NULL, 'allow', false),
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a06', 'odd', 'x', '0 0 * * *', '{}', NULL, '{"a": 1}', 'sometimes', false);`)
	got := translated(t, Source{URL: b.URL, Table: "public.celery_beat_schedules", Zone: "Asia/Tokyo"}, now)
	s := got["fetch_listed_info_yesterday_daily"].Schedule
	require.Equal(t, "7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a01", s.ID.String())
	require.True(t, s.AutoGeneratedName)
	require.Equal(t, "Asia/Tokyo", s.Timezone)
	require.Equal(t, "data", s.Category)
	require.Equal(t, []string{"jquants", "nightly"}, s.Tags)
	require.EqualValues(t, "skip", s.ExecutionPolicy)
	require.Equal(t, *at("2025-01-01T00:00:00Z"), s.CreatedAt, "a time without a zone is one of Celery's")
	require.Equal(t, at("2026-03-01T15:00:00Z"), got["fetch_listed_info_yesterday_daily"].NextHere)
	require.False(t, got["made by hand"].Schedule.AutoGeneratedName)
	require.Contains(t, fmt.Sprint(got["made by hand"].Differs), "its name was made by the program")
	require.True(t, got["both"].OtherTicks)
	require.EqualValues(t, "allow", got["both"].Schedule.ExecutionPolicy)
	require.Equal(t, "@daily", got["descriptor"].Schedule.CronExpression)
	require.Equal(t, []string{`Celery could not read "@daily"`}, got["descriptor"].Differs)
	require.Contains(t, got["broken"].Refused, "It has 1 fields")
	require.Contains(t, got["odd"].Refused, "tags are no list of texts")

	// An older table lacks some columns, and its keys are numbers.
	old := newPlain(t, `
CREATE TABLE public.jobs (id serial PRIMARY KEY, name text, task_name text, cron_expression text, enabled int, args text, kwargs text);
INSERT INTO public.jobs (name, task_name, cron_expression, enabled, args, kwargs) VALUES ('old', 'x', '5 4 * * *', 0, '', '{"a": 1}');`)
	got = translated(t, Source{URL: old.URL, Table: "public.jobs", Zone: "UTC"}, now)
	require.JSONEq(t, `{"a": 1}`, string(got["old"].Schedule.TaskParams))
	require.JSONEq(t, `[]`, string(got["old"].Schedule.Args))
	require.False(t, got["old"].Enabled)

	for from, says := range map[Source]string{
		{URL: b.URL, Zone: "UTC", Django: true}:                                   "There are no tables of django-celery-beat",
		{URL: b.URL, Zone: "UTC", Table: "public.nothing"}:                        "There is no table public.nothing",
		{URL: b.URL, Zone: "UTC", Table: `x"; DROP TABLE y`}:                      "There is no table",
		{URL: b.URL, Zone: "Mars/Olympus", Table: "public.celery_beat_schedules"}: "There is no time zone",
		{URL: "postgres://nobody:hunter2@127.0.0.1:1/x", Zone: "UTC"}:             "cannot be reached",
		{URL: "mysql://u:hunter2@h/x", Zone: "UTC"}:                               "cannot be reached",
	} {
		_, err := Read(t.Context(), from)
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "hunter2")
	}
}
