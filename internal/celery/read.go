package celery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"riverbeat/internal/riverbeat"
)

// PlainTable is the name of a plain table, where none is given.
const PlainTable = "celery_beat_schedules"

// Source is where entries are read.
type Source struct {
	URL   string // postgres://
	Table string // the plain one, with or without its schema; "" is PlainTable
	// Django says that the tables are those of django-celery-beat, in place of a plain one.
	Django bool
	// Zone is that of times and crontabs that name none: Celery's setting timezone.
	Zone string
}

// readTimeout bounds the reading of all entries.
const readTimeout = time.Minute

// Read reads all entries, in the order of their keys. It only reads.
func Read(ctx context.Context, from Source) ([]*Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	conn, err := connect(ctx, from.URL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin to read: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// Times as texts that can be told apart.
	if _, err := tx.Exec(ctx, "SET LOCAL timezone = 'UTC'"); err != nil {
		return nil, fmt.Errorf("begin to read: %w", err)
	}
	return readAll(ctx, tx, &from)
}

func readAll(ctx context.Context, tx pgx.Tx, from *Source) ([]*Entry, error) {
	if from.Django {
		return readDjango(ctx, tx, from)
	}
	return readPlain(ctx, tx, from)
}

func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, riverbeat.Errorf(riverbeat.Unavailable, "source_unavailable", "The database of Celery Beat cannot be reached: %s.", withoutURL(err))
	}
	return conn, nil
}

// table is the name of the plain one.
func (s *Source) table() string { return cmp.Or(s.Table, PlainTable) }

// djangoTasks is the table of django-celery-beat's tasks.
const djangoTasks = "django_celery_beat_periodictask"

// tasks is the table that has the tasks, as it stands in a statement.
func (s *Source) tasks() string {
	if s.Django {
		return djangoTasks
	}
	return pgx.Identifier(strings.Split(s.table(), ".")).Sanitize()
}

// unreadable is why tables cannot be read: most often because they are not there.
func unreadable(err error, missing string) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(e.Code, "42") && e.Code != "42501" {
		return &riverbeat.Error{Kind: riverbeat.NotFound, Code: "source_not_found", Detail: missing, Cause: err}
	}
	return fmt.Errorf("read the tables of Celery Beat: %w", err)
}

// withoutURL is what went wrong, without the password that may stand in the URL.
func withoutURL(err error) string {
	text := err.Error()
	if at := strings.LastIndex(text, ": "); at >= 0 && strings.Contains(text, "postgres") {
		return text[at+2:]
	}
	return text
}

// row is a row of a table as JSON, by its columns.
type row map[string]json.RawMessage

// reader reads the columns of a row into an Entry, and notes what cannot be read.
type reader struct {
	row   row
	entry *Entry
	zone  *time.Location
}

func (r *reader) faulty(format string, args ...any) {
	r.entry.Faults = append(r.entry.Faults, fmt.Sprintf(format, args...))
}

// text is a column as text; "" if it is null, or there is none.
func (r *reader) text(column string) string {
	raw := r.row[column]
	var text string
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw) // a number, or JSON
}

// boolean is a column that is true or false; missing where there is none, and false if it
// is null.
func (r *reader) boolean(column string, missing bool) bool {
	if _, there := r.row[column]; !there {
		return missing
	}
	switch text := r.text(column); text {
	case "":
		return false
	case "true", "1", "t":
		return true
	case "false", "0", "f":
		return false
	default:
		r.faulty("%s is %q, and neither true nor false", column, text)
		return false
	}
}

func (r *reader) number(column string) int {
	text := r.text(column)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		r.faulty("%s is %q, and no number", column, text)
	}
	return n
}

func (r *reader) time(column string) *time.Time {
	text := r.text(column)
	if text == "" {
		return nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if at, err := time.ParseInLocation(layout, text, r.zone); err == nil {
			at = at.UTC()
			return &at
		}
	}
	r.faulty("%s is %q, and no time", column, text)
	return nil
}

// json is a column that has JSON, or a text that is JSON; missing if it is empty.
func (r *reader) json(column, missing string) json.RawMessage {
	raw := r.row[column]
	var text string
	if len(raw) == 0 || string(raw) == "null" {
		return json.RawMessage(missing)
	}
	if json.Unmarshal(raw, &text) == nil {
		raw = json.RawMessage(strings.TrimSpace(text))
	}
	if len(raw) == 0 || string(raw) == "null" {
		return json.RawMessage(missing)
	}
	if !json.Valid(raw) {
		r.faulty("%s is no JSON: %.60q", column, string(raw))
		return json.RawMessage(missing)
	}
	return raw
}

// common reads what both shapes have.
func (r *reader) common(taskColumn string) {
	e := r.entry
	e.Key, e.Name, e.Task = r.text("id"), r.text("name"), r.text(taskColumn)
	e.Enabled = r.boolean("enabled", true)
	e.Args, e.Kwargs = r.json("args", "[]"), r.json("kwargs", "{}")
	e.Description = r.text("description")
	e.LastRunAt = r.time("last_run_at")
	e.Has = func(column string) bool { return r.row[column] != nil }
}

// kept are those of the columns that a row has: what its schedule is made of, and nothing
// that changes when it fires.
func (r row) kept(columns ...string) row {
	kept := row{}
	for _, column := range columns {
		if value, there := r[column]; there {
			kept[column] = value
		}
	}
	return kept
}

func readPlain(ctx context.Context, tx pgx.Tx, from *Source) ([]*Entry, error) {
	rows, err := query[row](ctx, tx, "SELECT to_jsonb(t) || jsonb_build_object('id', t.id::text) FROM "+from.tasks()+" AS t ORDER BY t.id")
	if err != nil {
		return nil, unreadable(err, "There is no table "+from.table()+" with a column id in that database.")
	}
	source, zone, err := places(ctx, tx, from)
	if err != nil {
		return nil, err
	}
	entries := make([]*Entry, len(rows))
	seen := map[string]bool{}
	for i, columns := range rows {
		r := &reader{row: columns, entry: &Entry{Source: source}, zone: zone}
		r.common("task_name")
		e := r.entry
		e.Category, e.Policy, e.AutoNamed = r.text("category"), r.text("execution_policy"), r.boolean("auto_generated_name", false)
		if err := json.Unmarshal(r.json("tags", "[]"), &e.Tags); err != nil {
			r.faulty("tags are no list of texts")
		}
		if seen[e.Key] {
			r.faulty("there is another row with the id %s", e.Key)
		}
		seen[e.Key] = true
		// What a crontab means goes by the zone, too.
		e.Row, _ = json.Marshal(map[string]any{"zone": from.Zone, "row": columns.kept("name", "task_name", "cron_expression",
			"enabled", "args", "kwargs", "description", "category", "tags", "execution_policy", "auto_generated_name")})
		if at := r.time("created_at"); at != nil {
			e.CreatedAt = *at
		}
		r.expression(from.Zone)
		entries[i] = e
	}
	return entries, nil
}

// expression reads a cron expression: Celery's five fields, or else what we may make of it.
func (r *reader) expression(zone string) {
	text := r.text("cron_expression")
	fields := strings.Fields(text)
	if len(fields) == 5 {
		c := &Crontab{Minute: fields[0], Hour: fields[1], DayOfMonth: fields[2], MonthOfYear: fields[3], DayOfWeek: fields[4], Zone: zone}
		if _, err := c.parse(); err == nil {
			r.entry.Crontab = c
			return
		}
	}
	r.entry.Expression, r.entry.Zone = text, zone
}

// djangoRow is a periodic task of Django with its schedule, of which there is one.
type djangoRow struct {
	Task     row `json:"task"`
	Crontab  row `json:"crontab"`
	Interval row `json:"interval"`
	Clocked  row `json:"clocked"`
	Solar    row `json:"solar"`
}

func readDjango(ctx context.Context, tx pgx.Tx, from *Source) ([]*Entry, error) {
	const tasks = `
SELECT jsonb_build_object(
    'task', to_jsonb(p) || jsonb_build_object('id', p.id::text), 'crontab', to_jsonb(c), 'interval', to_jsonb(i), 'clocked', to_jsonb(k), 'solar', to_jsonb(s)
)
FROM django_celery_beat_periodictask AS p
LEFT JOIN django_celery_beat_crontabschedule AS c ON c.id = p.crontab_id
LEFT JOIN django_celery_beat_intervalschedule AS i ON i.id = p.interval_id
LEFT JOIN django_celery_beat_clockedschedule AS k ON k.id = p.clocked_id
LEFT JOIN django_celery_beat_solarschedule AS s ON s.id = p.solar_id
WHERE p.task <> 'celery.backend_cleanup' -- Celery's own
ORDER BY p.id`
	rows, err := query[djangoRow](ctx, tx, tasks)
	if err != nil {
		return nil, unreadable(err, "There are no tables of django-celery-beat in that database, where its search_path looks.")
	}
	source, zone, err := places(ctx, tx, from)
	if err != nil {
		return nil, err
	}
	entries := make([]*Entry, len(rows))
	for i, d := range rows {
		r := &reader{row: d.Task, entry: &Entry{Source: source}, zone: zone}
		r.common("task")
		r.entry.Row, _ = json.Marshal(map[string]any{
			"zone": from.Zone, "crontab": d.Crontab, "interval": d.Interval, "clocked": d.Clocked, "solar": d.Solar,
			"task": d.Task.kept("name", "task", "args", "kwargs", "description", "enabled", "queue", "exchange", "routing_key",
				"headers", "priority", "expires", "expire_seconds", "one_off", "start_time"),
		})
		r.django(&d, from.Zone)
		entries[i] = r.entry
	}
	return entries, nil
}

func (r *reader) django(d *djangoRow, zone string) {
	e := r.entry
	e.Expires, e.ExpireSeconds = r.time("expires"), r.number("expire_seconds")
	e.StartTime, e.OneOff, e.Runs = r.time("start_time"), r.boolean("one_off", false), r.number("total_run_count")
	for _, column := range []string{"queue", "priority", "exchange", "routing_key", "headers"} {
		if text := r.text(column); text != "" && text != "{}" {
			e.Routing = append(e.Routing, column+"="+text)
		}
	}
	of := func(columns row) *reader { return &reader{row: columns, entry: e, zone: r.zone} }
	switch {
	case d.Crontab != nil:
		c := of(d.Crontab)
		e.Crontab = &Crontab{
			Minute: c.text("minute"), Hour: c.text("hour"), DayOfMonth: c.text("day_of_month"),
			MonthOfYear: c.text("month_of_year"), DayOfWeek: c.text("day_of_week"), Zone: c.text("timezone"),
		}
		if e.Crontab.Zone == "" { // before there was such a column
			e.Crontab.Zone = zone
		}
	case d.Interval != nil:
		i := of(d.Interval)
		unit, known := units[i.text("period")]
		if n := i.number("every"); known && n > 0 && n <= int(riverbeat.MaxEvery/unit) {
			e.Every = time.Duration(n) * unit
		} else {
			r.faulty("its interval is %s %s, and nothing here is longer than ten years", i.text("every"), i.text("period"))
		}
	case d.Clocked != nil:
		if e.Clocked = of(d.Clocked).time("clocked_time"); e.Clocked == nil {
			r.faulty("it has no time")
		}
	case d.Solar != nil:
		s := of(d.Solar)
		e.Solar = s.text("event") + " at " + s.text("latitude") + ", " + s.text("longitude")
	default:
		r.faulty("it has no schedule")
	}
}

var units = map[string]time.Duration{
	"days": 24 * time.Hour, "hours": time.Hour, "minutes": time.Minute, "seconds": time.Second, "microseconds": time.Microsecond,
}

// places are the name of where the entries stand, and the zone of times without one.
func places(ctx context.Context, tx pgx.Tx, from *Source) (source string, zone *time.Location, err error) {
	if zone, err = time.LoadLocation(from.Zone); err != nil {
		return "", nil, riverbeat.Errorf(riverbeat.Invalid, "invalid_timezone", "There is no time zone %q.", from.Zone)
	}
	// By the schema that it really stands in.
	const place = `
SELECT format('%s.%s.%s', current_database(), n.nspname, c.relname)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = $1::text::regclass`
	err = tx.QueryRow(ctx, place, from.tasks()).Scan(&source)
	return source, zone, err
}

// query reads rows of one JSON column.
func query[T any](ctx context.Context, tx pgx.Tx, statement string) ([]T, error) {
	rows, err := tx.Query(ctx, statement)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (value T, err error) {
		var raw []byte
		if err = r.Scan(&raw); err == nil {
			err = json.Unmarshal(raw, &value)
		}
		return value, err
	})
}
