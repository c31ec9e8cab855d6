package celery

import (
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/catalog"
	"riverbeat/internal/riverbeat"
)

const (
	// DefaultSettle is how long a running Beat may need to hear of a change: that of
	// django-celery-beat looks every five seconds.
	DefaultSettle = 15 * time.Second
	// late is how long after its time a Beat may fire, and how far the clocks of its machine
	// and of the databases may lie apart.
	late = 3 * time.Second
	// writeWithin bounds the change there, of which nobody may hear too late.
	writeWithin = 3 * time.Second
	// heard is how long after that Beat may still write down what it fired before it heard
	// of a change. What is disabled later was disabled by somebody else.
	heard = time.Minute
)

// Cutover hands schedules over from a running Celery Beat: it disables them there and
// enables them here, between two of their ticks, so that each tick is fired on one side.
//
// Noted here first is the time after which the ticks are ours; then Beat is told; then they
// are enabled here, for the ticks after that time. Whoever dies in between, or is stopped,
// runs it again.
type Cutover struct {
	Source  Source
	Catalog *catalog.Catalog
	// Now is the time by our database.
	Now func(ctx context.Context) (time.Time, error)
	// Task and Name pick the schedules, by the name of their task, and by a pattern of
	// theirs (path.Match); "" picks all.
	Task, Name string
	Settle     time.Duration // at least how long Beat may go on after it was told
}

// The outcomes of a handover, beside Refused.
const (
	CutOver   = "cut over"         // it is ours from now on
	CutBefore = "cut over already" // by an earlier call
)

// Run hands over what is picked, and waits for the moments at which that can be done. It
// says what became of each that is picked, also beside an error.
func (c *Cutover) Run(ctx context.Context) (items []Item, err error) {
	entries, err := Read(ctx, c.Source)
	if err != nil {
		return nil, err
	}
	now, err := c.Now(ctx)
	if err != nil {
		return nil, err
	}
	var waiting []*Translation
	for _, e := range entries {
		if !c.picks(e) {
			continue
		}
		t := Translate(e, now)
		outcome, refused, err := c.look(ctx, t)
		if err != nil {
			return items, fmt.Errorf("hand over %q: %w", e.Name, err)
		}
		if outcome == "" {
			waiting = append(waiting, t)
			continue
		}
		items = append(items, item(t, outcome, refused))
	}
	for len(waiting) > 0 {
		done, wait, err := c.cut(ctx, waiting)
		for _, t := range done {
			items = append(items, item(t, CutOver, ""))
		}
		if err != nil {
			return items, err
		}
		waiting = slices.DeleteFunc(waiting, func(t *Translation) bool { return slices.Contains(done, t) })
		if len(done) == 0 {
			select {
			case <-ctx.Done():
				return items, context.Cause(ctx)
			case <-time.After(wait):
			}
		}
	}
	return items, nil
}

func item(t *Translation, outcome, refused string) Item {
	i := Item{
		ID: t.ID().String(), Name: t.Name, TaskName: t.Task, Outcome: outcome, Refused: refused,
		NextThere: t.NextThere, NextHere: t.NextHere,
	}
	if t.Schedule != nil {
		i.Cron, i.Timezone = t.Schedule.CronExpression, t.Schedule.Timezone
	}
	return i
}

func (c *Cutover) picks(e *Entry) bool {
	if c.Task != "" && e.Task != c.Task {
		return false
	}
	if c.Name == "" {
		return true
	}
	picked, err := path.Match(c.Name, e.Name)
	return err == nil && picked
}

// look tells what became of an entry before; "" is that it is to be handed over now. A
// handover that was begun, and of which Beat was told, is ended.
func (c *Cutover) look(ctx context.Context, t *Translation) (outcome, refused string, err error) {
	cut, err := c.Catalog.Cut(ctx, t.ID())
	switch {
	case err != nil:
		return "", "", err
	case cut != nil && cut.Over:
		return CutBefore, "", nil
	case cut != nil && cut.At != nil && !t.Enabled && (t.ChangedAt == nil || t.ChangedAt.Before(cut.At.Add(c.Settle+heard))):
		err := c.Catalog.CutOver(ctx, t.ID())
		return CutOver, "", err
	case !t.Enabled:
		return Refused, "it is disabled there", nil
	case t.Schedule == nil:
		return Refused, t.Refused, nil
	case t.OtherTicks:
		return Refused, "it would fire at other times here", nil
	}
	if gap := late + c.Settle; !t.rests(gap) {
		return Refused, fmt.Sprintf("it never rests for %s: there is no moment to hand it over while Beat runs", riverbeat.FormatDuration(gap)), nil
	}
	// It is handed over as it is there now.
	switch became, err := c.Catalog.Import(ctx, catalog.Import{Schedule: t.Schedule, Source: t.Source, Line: t.Row}); {
	case cannotCome(err):
		return Refused, riverbeat.Explain(err), nil
	case err != nil:
		return "", "", err
	case became == catalog.ImportDeleted:
		return Refused, "it was deleted here", nil
	}
	return "", "", nil
}

// rests tells whether more than so long a time lies between two of the next ticks.
func (t *Translation) rests(gap time.Duration) bool {
	if t.Crontab == nil {
		return t.Clocked != nil || t.Every > gap
	}
	read, err := t.Crontab.parse()
	if err != nil || t.NextThere == nil {
		return false
	}
	const ticksOfADay = 24 * 60
	for at, n := *t.NextThere, 0; n < ticksOfADay; n++ {
		next, ok := read.next(at)
		if !ok || next.Sub(at) > gap {
			return true
		}
		at = next
	}
	return false
}

// fires tells whether Beat may fire an entry after a time and up to another.
func (t *Translation) fires(after, until time.Time) bool {
	var next time.Time
	switch {
	case t.Crontab != nil:
		read, err := t.Crontab.parse()
		if err != nil {
			return true
		}
		var ok bool
		if next, ok = read.next(after); !ok {
			return false
		}
	case t.Clocked != nil:
		next = *t.Clocked
	default:
		return false // an interval is not of times: here it begins anew
	}
	return next.After(after) && !next.After(until)
}

// cut hands over those that do not fire just now, and says when to try again with others.
func (c *Cutover) cut(ctx context.Context, waiting []*Translation) (done []*Translation, wait time.Duration, err error) {
	now, err := c.Now(ctx)
	if err != nil {
		return nil, 0, err
	}
	wait = time.Second
	for _, t := range waiting {
		if !t.fires(now.Add(-late), now.Add(c.Settle)) {
			done = append(done, t)
		}
	}
	if len(done) == 0 {
		return nil, wait, nil
	}
	ids := make([]uuid.UUID, len(done))
	for i, t := range done {
		ids[i] = t.ID()
	}
	if err := c.Catalog.BeginCut(ctx, ids, now); err != nil {
		return nil, 0, fmt.Errorf("note the handover: %w", err)
	}
	if err := c.disable(ctx, done); err != nil {
		return nil, 0, fmt.Errorf("disable them in Celery Beat: %w", err)
	}
	for i, t := range done {
		if err := c.Catalog.CutOver(ctx, t.ID()); err != nil {
			return done[:i], 0, fmt.Errorf("enable %q: %w", t.Name, err)
		}
	}
	return done, 0, nil
}

// disable disables entries there, and tells a running Beat of it. Either all are disabled
// soon enough, or none.
func (c *Cutover) disable(ctx context.Context, entries []*Translation) error {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	conn, err := connect(ctx, c.Source.URL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.Key
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if !c.Source.Django {
			set := "enabled = false"
			if entries[0].ChangedAt != nil {
				set += ", updated_at = now()"
			}
			_, err := tx.Exec(ctx, "UPDATE "+c.Source.table().Sanitize()+" SET "+set+" WHERE id::text = ANY($1)", keys)
			return err
		}
		// What PeriodicTask.save does: without the marker Beat would not look.
		const disable = "UPDATE django_celery_beat_periodictask SET enabled = false, last_run_at = NULL, date_changed = now() WHERE id::text = ANY($1)"
		const marker = `
INSERT INTO django_celery_beat_periodictasks (ident, last_update) VALUES (1, clock_timestamp())
ON CONFLICT (ident) DO UPDATE SET last_update = excluded.last_update`
		if _, err := tx.Exec(ctx, disable, keys); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, marker)
		return err
	})
}
