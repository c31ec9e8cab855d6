package celery

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Log is a table in which Celery, or who works for it, writes down what it has sent: a row
// for each time that a task was.
type Log struct {
	URL   string // postgres://
	Table string // with or without its schema
	// Name is the column with the name of the periodic task; "": there is none, and Task is
	// that with the name of the task. Then schedules of one task are held against it together.
	Name, Task string
	At         string // the column with the time; one without a zone is UTC
}

// DjangoLog is the table of the package django-celery-results, whose rows tell which
// periodic task they are of if Celery's setting result_extended is on.
var DjangoLog = Log{Table: "django_celery_results_taskresult", Name: "periodic_task_name", At: "date_created"}

// DefaultWithin is how late after its tick a row may be, where nothing else is said.
const DefaultWithin = time.Minute

// Comparison holds what schedules ticked here in shadow against what was sent there.
type Comparison struct {
	Source Source
	Log    Log
	// Since bounds the time that is looked at, and Now ends it: both by our database.
	Since, Now time.Time
	// Within is how late after its tick a row may be. One that comes after the next tick is
	// that one's.
	Within time.Duration
	// Shadows reads what was recorded here.
	Shadows func(ctx context.Context, schedules []uuid.UUID, since time.Time) (map[uuid.UUID]*postgres.Shadow, error)
}

// Verdict is what a comparison has come to.
type Verdict string

// The verdicts.
const (
	Same    Verdict = "same"
	Differs Verdict = "differs"
	Nothing Verdict = "nothing" // there was nothing to compare
)

// Compared is what became of the ticks of a schedule, or of all those of a task.
type Compared struct {
	Name    string  `json:"name"` // of the schedule; of the task if its schedules are held against the log together
	Verdict Verdict `json:"verdict"`
	// The time that was looked at.
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	Ticks int       `json:"ticks"` // here
	Sent  int       `json:"sent"`  // there
	// PaceOnly tells that only their numbers were compared: those of an interval are at other
	// moments there.
	PaceOnly bool `json:"pace_only"`
	// OnlyHere are the ticks that were not sent there, OnlyThere what was sent for no tick,
	// and Twice what was sent once more for a tick that had its row.
	OnlyHere  []time.Time `json:"only_here"`
	OnlyThere []time.Time `json:"only_there"`
	Twice     []time.Time `json:"twice"`
	// InGaps is what was sent there while no ticks were decided here: nothing worked, or the
	// installation was paused.
	InGaps int `json:"in_gaps"`
	// Latest is how long after its tick the latest row was, in seconds.
	Latest float64 `json:"latest_s"`
}

// Run compares those of the periodic tasks that tick here in shadow.
func (c *Comparison) Run(ctx context.Context) ([]Compared, error) {
	entries, err := Read(ctx, c.Source)
	if err != nil {
		return nil, err
	}
	ids := make([]uuid.UUID, len(entries))
	for i, e := range entries {
		ids[i] = e.ID()
	}
	shadows, err := c.Shadows(ctx, ids, c.Since)
	if err != nil {
		return nil, err
	}
	groups := map[string]*group{}
	for _, e := range entries {
		shadow := shadows[e.ID()]
		if shadow == nil {
			continue
		}
		name := e.Name
		if c.Log.Name == "" {
			name = e.Task
		}
		if groups[name] == nil {
			groups[name] = &group{name: name, from: shadow.From, until: shadow.Until}
		}
		groups[name].add(shadow, e.Every > 0)
	}
	if len(groups) == 0 {
		return nil, nil
	}
	sent, begins, err := c.read(ctx, groups)
	if err != nil {
		return nil, err
	}
	var compared []Compared
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g := groups[name]
		if begins.After(g.from) { // what was before is not written there any more
			g.from = begins
		}
		if last := c.Now.Add(-c.Within); last.Before(g.until) { // what is later may still be written
			g.until = last
		}
		compared = append(compared, g.compare(sent[name], c.Within))
	}
	return compared, nil
}

// group is the schedules that are held against the log together.
type group struct {
	name        string
	from, until time.Time // when all of them were in shadow
	ticks       []time.Time
	gaps        []riverbeat.Gap
	paceOnly    bool
}

func (g *group) add(s *postgres.Shadow, paceOnly bool) {
	if s.From.After(g.from) {
		g.from = s.From
	}
	if s.Until.Before(g.until) {
		g.until = s.Until
	}
	g.ticks = append(g.ticks, s.Ticks...)
	g.gaps = append(g.gaps, s.Gaps...)
	g.paceOnly = g.paceOnly || paceOnly
}

// paceOff is by how many of a hundred ticks an interval may differ: Beat counts it from its
// last run, and falls behind by a little at each.
const paceOff = 2

// compare holds the ticks against what was sent, both in the time of the group. A tick has
// what was sent after it, up to the next one; Beat's clock may be behind ours.
func (g *group) compare(sent []time.Time, within time.Duration) Compared {
	slices.SortFunc(g.ticks, time.Time.Compare)
	slices.SortFunc(sent, time.Time.Compare)
	ticks := slices.DeleteFunc(g.ticks, func(at time.Time) bool { return !at.After(g.from) })
	c := Compared{
		Name: g.name, From: g.from, Until: g.until, PaceOnly: g.paceOnly,
		OnlyHere: []time.Time{}, OnlyThere: []time.Time{}, Twice: []time.Time{},
	}
	for c.Ticks < len(ticks) && !ticks[c.Ticks].After(g.until) { // those after it only end the time of the last one
		c.Ticks++
	}
	if g.paceOnly {
		return g.comparePace(c, sent, within)
	}
	row := 0
	// between takes what was sent before a time, for no tick.
	between := func(before time.Time) {
		for ; row < len(sent) && sent[row].Before(before); row++ {
			g.forNoTick(&c, sent[row], within)
		}
	}
	for i := 0; i < c.Ticks; {
		tick, expected := ticks[i], 0
		for i < len(ticks) && ticks[i].Equal(tick) {
			i, expected = i+1, expected+1
		}
		between(tick.Add(-late))
		end := tick.Add(within)
		if i < len(ticks) && ticks[i].Add(-late).Before(end) {
			end = ticks[i].Add(-late)
		}
		for ; row < len(sent) && sent[row].Before(end); row++ {
			expected--
			if expected < 0 && sent[row].After(g.until) {
				continue // it may be of a tick that is not looked at
			}
			if c.Sent++; expected < 0 {
				c.Twice = append(c.Twice, sent[row])
				continue
			}
			c.Latest = max(c.Latest, sent[row].Sub(tick).Seconds())
		}
		for range expected { // those that have none
			c.OnlyHere = append(c.OnlyHere, tick)
		}
	}
	between(g.until)
	return c.judged()
}

// forNoTick takes what was sent while no tick has its time. Right after the beginning it may
// be of a tick before it.
func (g *group) forNoTick(c *Compared, at time.Time, within time.Duration) {
	if at.Before(g.from.Add(within)) {
		return
	}
	if c.Sent++; g.inGap(at, within) {
		c.InGaps++
		return
	}
	c.OnlyThere = append(c.OnlyThere, at)
}

// inGap tells whether something was sent while no ticks were decided here.
func (g *group) inGap(at time.Time, within time.Duration) bool {
	return slices.ContainsFunc(g.gaps, func(gap riverbeat.Gap) bool {
		return !at.Before(gap.From.Add(-late)) && at.Before(gap.Until.Add(within))
	})
}

func (g *group) comparePace(c Compared, sent []time.Time, within time.Duration) Compared {
	for _, at := range sent {
		if !at.After(g.from) || at.After(g.until) {
			continue
		}
		if c.Sent++; g.inGap(at, within) {
			c.InGaps++
		}
	}
	return c.judged()
}

func (c Compared) judged() Compared {
	sent := c.Sent - c.InGaps
	off := max(c.Ticks-sent, sent-c.Ticks)
	switch {
	case c.Ticks == 0 && sent == 0, c.PaceOnly && min(c.Ticks, sent) == 0 && off == 1: // too short a time to tell
		c.Verdict = Nothing
	case c.PaceOnly && off > 1+max(c.Ticks, sent)*paceOff/100, len(c.OnlyHere)+len(c.OnlyThere)+len(c.Twice) > 0:
		c.Verdict = Differs
	default:
		c.Verdict = Same
	}
	return c
}

// read reads what was sent for groups, by their names, and since when the log tells of
// anything.
func (c *Comparison) read(ctx context.Context, groups map[string]*group) (sent map[string][]time.Time, begins time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	conn, err := connect(ctx, c.Log.URL)
	if err != nil {
		return nil, begins, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "SET timezone = 'UTC'"); err != nil {
		return nil, begins, fmt.Errorf("begin to read: %w", err)
	}
	table := pgx.Identifier(strings.Split(c.Log.Table, ".")).Sanitize()
	at := pgx.Identifier{c.Log.At}.Sanitize() + "::timestamptz"
	name := pgx.Identifier{cmp.Or(c.Log.Name, c.Log.Task)}.Sanitize() + "::text"
	missing := fmt.Sprintf("There is no table %s that can be read, with the columns %s and %s, in the database of the log.",
		c.Log.Table, cmp.Or(c.Log.Name, c.Log.Task), c.Log.At)
	var first *time.Time
	if err := conn.QueryRow(ctx, "SELECT min("+at+") FROM "+table).Scan(&first); err != nil {
		return nil, begins, unreadable(err, missing)
	}
	if first != nil {
		begins = first.UTC().Add(-late)
	}
	rows, err := conn.Query(ctx, "SELECT "+name+", "+at+" FROM "+table+" WHERE "+at+" > $1 AND "+at+" <= $2 AND "+name+" = ANY($3)",
		c.Since, c.Now, slices.Collect(maps.Keys(groups)))
	if err != nil {
		return nil, begins, unreadable(err, missing)
	}
	sent = map[string][]time.Time{}
	var of string
	var when time.Time
	_, err = pgx.ForEachRow(rows, []any{&of, &when}, func() error {
		sent[of] = append(sent[of], when.UTC())
		return nil
	})
	if err != nil {
		return nil, begins, unreadable(err, missing)
	}
	return sent, begins, nil
}
