package command

import (
	"bytes"
	"encoding/json"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/celery"
	"riverbeat/internal/pgtest"
)

// door is an installation beside the database of a Celery Beat.
type door struct {
	here, there *pgtest.Database
	t           *testing.T
}

func newDoor(t *testing.T) *door {
	t.Helper()
	return &door{pgtest.DB(t), pgtest.DB(t), t}
}

// imported is what 'riverbeat import celery-beat -o json' says.
type imported struct {
	DryRun bool `json:"dry_run"`
	Items  []celery.Item
}

func (d *door) imported(args ...string) (outcomes map[string]int, said imported) {
	d.t.Helper()
	code, out, stderr := d.call(append(args, "-o", "json")...)
	require.Zero(d.t, code, stderr)
	require.NoError(d.t, json.Unmarshal([]byte(out), &said))
	outcomes = map[string]int{}
	for _, item := range said.Items {
		outcomes[item.Outcome]++
	}
	return outcomes, said
}

func (d *door) call(args ...string) (code int, out, errs string) {
	d.t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(d.t.Context(), nil, append([]string{
		"import", "celery-beat", "--database-url", d.here.URL, "--schema", pgtest.Schema, "--from", d.there.URL,
	}, args...), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func (d *door) exec(database *pgtest.Database, statement string) {
	d.t.Helper()
	_, err := database.Pool.Exec(d.t.Context(), statement)
	require.NoError(d.t, err, statement)
}

func (d *door) count(query string) (n int) {
	d.t.Helper()
	require.NoError(d.t, d.here.Pool.QueryRow(d.t.Context(), query).Scan(&n))
	return n
}

var moments = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

const plainTable = `
CREATE TABLE public.celery_beat_schedules (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name varchar(255) NOT NULL,
    task_name varchar(255) NOT NULL,
    cron_expression varchar(100) NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    args jsonb NOT NULL DEFAULT '[]',
    kwargs jsonb NOT NULL DEFAULT '{}',
    description text,
    category varchar(50),
    tags jsonb DEFAULT '[]',
    execution_policy varchar(20) NOT NULL DEFAULT 'allow',
    auto_generated_name boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);`

func TestImportOfAPlainTable(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	d.exec(d.there, plainTable+`
INSERT INTO public.celery_beat_schedules (name, task_name, cron_expression, kwargs, category, tags, execution_policy)
SELECT 'job ' || i, 'load', i % 60 || ' ' || i % 24 || ' * * *', jsonb_build_object('n', i), 'etl', '["nightly"]', (ARRAY['allow', 'skip', 'queue'])[i % 3 + 1]
FROM generate_series(1, 998) AS i;
INSERT INTO public.celery_beat_schedules (name, task_name, cron_expression) VALUES ('both', 'load', '0 0 13 * fri'), ('broken', 'load', 'whenever');`)
	from := []string{"--table", "public.celery_beat_schedules"}

	outcomes, said := d.imported(append(from, "--dry-run")...)
	require.Equal(t, map[string]int{"created": 999, "refused": 1}, outcomes)
	require.True(t, said.DryRun)
	require.Zero(t, d.count("SELECT count(*) FROM schedules"))

	outcomes, said = d.imported(from...)
	require.Equal(t, map[string]int{"created": 999, "refused": 1}, outcomes)
	require.Equal(t, 999, d.count("SELECT count(*) FROM schedules WHERE NOT enabled"))
	require.Equal(t, 333, d.count("SELECT count(*) FROM schedules WHERE execution_policy = 'skip' AND category = 'etl' AND tags = '[\"nightly\"]'"))
	for _, item := range said.Items {
		if item.Name == "both" {
			require.NotEqual(t, item.NextThere, item.NextHere)
		} else if item.Refused == "" {
			require.Equal(t, item.NextThere, item.NextHere, item.Name)
		}
	}
	var ids int
	require.NoError(t, d.there.Pool.QueryRow(t.Context(), "SELECT count(*) FROM public.celery_beat_schedules").Scan(&ids))
	require.Equal(t, 1000, ids)

	// Again: only what has changed there is written. What people have changed here stays.
	d.exec(d.here, "UPDATE schedules SET description = 'ours', enabled = true WHERE name IN ('job 7', 'job 8')")
	d.exec(d.there, "ALTER TABLE public.celery_beat_schedules ADD run_count int; UPDATE public.celery_beat_schedules SET updated_at = now(), run_count = 7")
	d.exec(d.there, "UPDATE public.celery_beat_schedules SET cron_expression = '1 2 3 * *' WHERE name = 'job 8'")
	d.exec(d.here, "DELETE FROM schedules WHERE name = 'job 9'")
	before := d.count("SELECT sum(version) FROM schedules")
	outcomes, _ = d.imported(from...)
	require.Equal(t, map[string]int{"unchanged": 997, "changed": 1, "deleted": 1, "refused": 1}, outcomes)
	require.Equal(t, before+1, d.count("SELECT sum(version) FROM schedules"))
	require.Equal(t, 1, d.count("SELECT count(*) FROM schedules WHERE name = 'job 7' AND description = 'ours' AND enabled"))
	require.Equal(t, 1, d.count("SELECT count(*) FROM schedules WHERE name = 'job 8' AND cron_expression = '1 2 3 * *' AND enabled"))
	require.Equal(t, 1, d.count("SELECT count(*) FROM schedule_clocks AS c JOIN schedules AS s ON s.id = c.schedule_id WHERE s.name = 'job 8' AND c.next_run_at > now()"))

	// What a crontab means goes by the zone, too.
	outcomes, _ = d.imported(append(from, "--timezone", "Asia/Tokyo")...)
	require.Equal(t, map[string]int{"changed": 998, "deleted": 1, "refused": 1}, outcomes)
	require.Equal(t, 998, d.count("SELECT count(*) FROM schedules WHERE timezone = 'Asia/Tokyo'"))

	// Enabled, all but what would fire at other times.
	d.exec(d.here, "DELETE FROM imported_schedules; DELETE FROM schedules")
	outcomes, _ = d.imported(append(from, "--enable")...)
	require.Equal(t, 999, outcomes["created"])
	require.Equal(t, 998, d.count("SELECT count(*) FROM schedules AS s JOIN schedule_clocks AS c ON c.schedule_id = s.id WHERE enabled AND next_run_at > last_scheduled_for"), "and not now(): a minute may begin before they are counted")
}

func TestImportIsReadable(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	d.exec(d.there, plainTable+`
INSERT INTO public.celery_beat_schedules (id, name, task_name, cron_expression, enabled) VALUES
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a01', 'daily', 'load', '0 9 * * mon-fri', true),
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a02', 'friday the 13th', 'load', '0 0 13 * fri', true),
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a03', 'broken', 'load', 'whenever', true),
    ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a04', 'off', 'load', '*/5 * * * *', false);`)
	d.exec(d.there, "INSERT INTO public.celery_beat_schedules (id, name, task_name, cron_expression) VALUES ('7d4c1b1e-6d0a-4c55-9b1c-2b6b8d6a1a05', e'ev\x1b]0;x\x07il\nrow\ttab' || repeat('x', 200), 'load', '0 0 * * *')")
	code, out, stderr := d.call("--table", "public.celery_beat_schedules", "--timezone", "Asia/Tokyo", "--dry-run")
	require.Zero(t, code, stderr)
	golden(t, "import.txt", moments.ReplaceAllString(out, "TIME                "))

	for _, args := range [][]string{{"--output", "yaml"}, {"--django", "--table", "x"}, {"extra"}} {
		code, _, _ = d.call(args...)
		require.Equal(t, 2, code, args)
	}
	code, _, stderr = d.call("--table", "nothing")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "There is no table nothing")
}
