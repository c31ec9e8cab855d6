package celery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/catalog"
	"riverbeat/internal/postgres"
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
	// again is how often it is looked whether a handover can go on.
	again = time.Second
	// atOnce bounds the schedules of one step.
	atOnce = 500
)

// Cutover hands schedules over from a running Celery Beat: it disables them there and
// enables them here, between two of their ticks, so that each tick is fired on one side.
//
// They are disabled there in one transaction. Before that commits, it is noted here, with
// the time after which the ticks are ours; so whoever comes later can tell whether it has
// happened. After that Beat has time to hear of it, and then they are enabled here, for the
// ticks after that time. Whoever dies in between, or is stopped, runs it again.
type Cutover struct {
	Source  Source
	Catalog *catalog.Catalog
	// Now is the time by our database.
	Now func(ctx context.Context) (time.Time, error)
	// Task and Name pick the schedules, by the name of their task, and by a pattern of
	// theirs (path.Match); "" picks all.
	Task, Name string
	Settle     time.Duration // how long Beat may go on after it was told
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
	conn, err := connect(ctx, c.Source.URL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	entries = slices.DeleteFunc(entries, func(e *Entry) bool { return !c.picks(e) })
	var waiting []*Translation
	for {
		now, err := c.Now(ctx)
		if err != nil {
			return items, err
		}
		for _, e := range entries { // those that were read just now
			t := Translate(e, now)
			outcome, refused, err := c.look(ctx, conn, t)
			if err != nil {
				return items, fmt.Errorf("hand over %q: %w", e.Name, err)
			}
			if outcome == "" {
				waiting = append(waiting, t)
				continue
			}
			items = append(items, item(t, outcome, refused))
		}
		if len(waiting) == 0 {
			return items, nil
		}
		cut, err := c.cut(ctx, conn, waiting)
		if err != nil {
			return items, err
		}
		items, entries = append(items, cut.items...), cut.changed
		waiting = slices.DeleteFunc(waiting, func(t *Translation) bool { return cut.gone[t.Key] })
		if len(cut.gone) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return items, context.Cause(ctx)
		case <-time.After(again):
		}
	}
}

func item(t *Translation, outcome, refused string) Item {
	i := Item{
		ID: t.ID().String(), Name: t.Name, TaskName: t.Task, Outcome: outcome, Refused: refused, Differs: t.Differs,
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

// look tells what became of an entry before, or why it cannot be handed over; "" is that it
// is to be handed over now, and was imported as it is now.
func (c *Cutover) look(ctx context.Context, conn *pgx.Conn, t *Translation) (outcome, refused string, err error) {
	cut, err := c.Catalog.Cut(ctx, t.ID())
	if err != nil {
		return "", "", err
	}
	if outcome, refused, err := c.begun(ctx, conn, t, cut); outcome != "" || err != nil {
		return outcome, refused, err
	}
	if refused := c.refuses(t); refused != "" {
		return Refused, refused, nil
	}
	switch became, err := c.Catalog.Import(ctx, t.asImport(StartDisabled)); {
	case cannotCome(err):
		return Refused, riverbeat.Explain(err), nil
	case err != nil:
		return "", "", err
	case became == catalog.ImportDeleted:
		return Refused, "it was deleted here", nil
	}
	return "", "", nil
}

// begun goes on with a handover that has begun; "" is that none has.
func (c *Cutover) begun(ctx context.Context, conn *pgx.Conn, t *Translation, cut *postgres.Cut) (outcome, refused string, err error) {
	switch {
	case cut == nil, cut.At == nil:
		return "", "", nil
	case cut.Over && t.Enabled:
		return Refused, "it was handed over, and is enabled there again: both fire", nil
	case cut.Over:
		return CutBefore, "", nil
	}
	xid, err := strconv.ParseInt(cut.XID, 10, 64)
	if err != nil {
		return "", "", fmt.Errorf("read the transaction %q: %w", cut.XID, err)
	}
	var status *string
	if err := conn.QueryRow(ctx, "SELECT txid_status($1)", xid).Scan(&status); err != nil {
		return "", "", fmt.Errorf("ask what became of transaction %d there: %w", xid, err)
	}
	begun := cut.At.Format(time.RFC3339)
	switch {
	case status == nil:
		return Refused, fmt.Sprintf("its handover was begun so long ago (%s) that nobody knows whether it was disabled there: enable it here by hand", begun), nil
	case *status == "aborted":
		return "", "", c.Catalog.ForgetCut(ctx, t.ID(), cut.XID)
	case *status == "in progress":
		return Refused, "somebody else is handing it over just now", nil
	case t.Enabled:
		return Refused, fmt.Sprintf("its handover was begun at %s, and it is enabled there again: disable it there, and try again", begun), nil
	}
	return c.finish(ctx, t)
}

// finish enables a schedule here that is disabled there.
func (c *Cutover) finish(ctx context.Context, t *Translation) (outcome, refused string, err error) {
	err = c.Catalog.CutOver(ctx, t.ID())
	if cannotCome(err) || riverbeat.KindOf(err) == riverbeat.NotFound {
		return Refused, "it is disabled there, and cannot be enabled here: " + riverbeat.Explain(err), nil
	}
	return CutOver, "", err
}

// refuses says why an entry cannot be handed over while Beat runs.
func (c *Cutover) refuses(t *Translation) string {
	gap := late + c.Settle
	switch {
	case !t.Enabled:
		return "it is disabled there"
	case t.Schedule == nil:
		return t.Refused
	case t.OtherTicks:
		return "it would fire at other times here"
	case t.Expression != "":
		return "Celery could not read its expression, so nobody knows when it fires there"
	case t.NextThere == nil:
		return "it fires there no more"
	case t.OneOff && t.Clocked == nil:
		return "it fires only once, and Beat may have fired it without having written that down"
	case !t.rests(gap):
		return fmt.Sprintf("it never rests for %s: there is no moment to hand it over while Beat runs", riverbeat.FormatDuration(gap))
	}
	return ""
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

// made is what a step of a handover has come to.
type made struct {
	items   []Item
	gone    map[string]bool // by their keys, those that do not wait any more
	changed []*Entry        // of them, those that have changed there, as they are now
}

// cut hands over those that do not fire just now.
func (c *Cutover) cut(ctx context.Context, conn *pgx.Conn, waiting []*Translation) (*made, error) {
	m := &made{gone: map[string]bool{}}
	now, err := c.Now(ctx)
	if err != nil {
		return nil, err
	}
	quiet := slices.DeleteFunc(slices.Clone(waiting), func(t *Translation) bool {
		return t.fires(now.Add(-late), now.Add(c.Settle))
	})
	if len(quiet) == 0 {
		return m, nil
	}
	quiet = quiet[:min(len(quiet), atOnce)]
	cut, at, err := c.disable(ctx, conn, quiet, m)
	if err != nil || len(cut) == 0 {
		return m, err
	}
	if err := c.settle(ctx, conn, cut, at); err != nil {
		return nil, fmt.Errorf("they are disabled there, and not yet enabled here; run it again: %w", err)
	}
	for _, t := range cut {
		outcome, refused, err := c.finish(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("they are disabled there, and not yet enabled here; run it again: %w", err)
		}
		m.items = append(m.items, item(t, outcome, refused))
	}
	return m, nil
}

// errTooLate undoes a transaction that has taken too long.
var errTooLate = errors.New("the tables of Celery Beat are held by somebody")

// disable disables entries there, in one transaction that is noted here before it commits,
// and tells a running Beat of it. It says which it were, and after which time their ticks
// are ours. Those that have changed there since they were read are left, and told in m.
func (c *Cutover) disable(ctx context.Context, conn *pgx.Conn, entries []*Translation, m *made) (cut []*Translation, at time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, writeWithin, errTooLate)
	defer cancel()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL timezone = 'UTC'"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT FROM "+c.Source.tasks()+" WHERE id::text = ANY($1) FOR UPDATE", keysOf(entries)); err != nil {
			return err
		}
		rows, err := readAll(ctx, tx, &c.Source)
		if err != nil {
			return err
		}
		byKey := map[string]*Entry{}
		for _, e := range rows {
			byKey[e.Key] = e
		}
		// The time that counts, right before the commit.
		if at, err = c.Now(ctx); err != nil {
			return err
		}
		for _, t := range entries {
			switch e := byKey[t.Key]; {
			case e == nil:
				m.gone[t.Key] = true
				m.items = append(m.items, item(t, Refused, "it was deleted there"))
			case !bytes.Equal(e.Row, t.Row):
				m.gone[t.Key] = true
				m.changed = append(m.changed, e)
			case !t.fires(at.Add(-late), at.Add(c.Settle)):
				cut = append(cut, t)
			}
		}
		if len(cut) == 0 {
			return nil
		}
		if err := c.switchOff(ctx, tx, keysOf(cut)); err != nil {
			return err
		}
		var xid string
		if err := tx.QueryRow(ctx, "SELECT txid_current()::text").Scan(&xid); err != nil {
			return err
		}
		ids := make([]uuid.UUID, len(cut))
		for i, t := range cut {
			ids[i] = t.ID()
		}
		return c.Catalog.BeginCut(ctx, ids, at, xid)
	})
	if err != nil {
		return nil, at, fmt.Errorf("disable them in Celery Beat: %w", errors.Join(err, context.Cause(ctx)))
	}
	for _, t := range cut {
		m.gone[t.Key] = true
	}
	return cut, at, nil
}

func keysOf(entries []*Translation) []string {
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.Key
	}
	return keys
}

// switchOff disables tasks there, all or none, and tells a running Beat of it.
func (c *Cutover) switchOff(ctx context.Context, tx pgx.Tx, keys []string) error {
	// A zero is false in a column of booleans and in one of numbers.
	set := "enabled = '0'"
	if c.Source.Django {
		set += ", last_run_at = NULL, date_changed = now()" // as PeriodicTask.save does
	}
	tag, err := tx.Exec(ctx, "UPDATE "+c.Source.tasks()+" SET "+set+" WHERE id::text = ANY($1)", keys)
	if err != nil {
		return err
	}
	if int(tag.RowsAffected()) != len(keys) {
		return fmt.Errorf("only %d of %d rows could be written", tag.RowsAffected(), len(keys))
	}
	if !c.Source.Django {
		return nil
	}
	// Beat reads all tasks anew, and takes those that have not run for run just then: one
	// that is due at that moment would not be fired.
	const begun = "UPDATE django_celery_beat_periodictask SET last_run_at = clock_timestamp() WHERE enabled AND last_run_at IS NULL"
	if _, err := tx.Exec(ctx, begun); err != nil {
		return err
	}
	// Without the marker it would not look, nor if the marker went back.
	const marker = `
INSERT INTO django_celery_beat_periodictasks AS p (ident, last_update) VALUES (1, clock_timestamp())
ON CONFLICT (ident) DO UPDATE SET last_update = greatest(clock_timestamp(), p.last_update + interval '1 microsecond')`
	_, err = tx.Exec(ctx, marker)
	return err
}

// settle gives Beat the time that it needs to hear of the change. It may write down what it
// has fired meanwhile, over the change: then they are disabled again.
func (c *Cutover) settle(ctx context.Context, conn *pgx.Conn, cut []*Translation, at time.Time) error {
	for {
		now, err := c.Now(ctx)
		if err != nil {
			return err
		}
		left := at.Add(c.Settle).Sub(now)
		var on []string
		rows, err := conn.Query(ctx, "SELECT id::text FROM "+c.Source.tasks()+" WHERE id::text = ANY($1) AND enabled::text IN ('true', '1')", keysOf(cut))
		if err == nil {
			on, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err == nil && len(on) > 0 {
			err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return c.switchOff(ctx, tx, on) })
		}
		switch {
		case err != nil:
			return err
		case left <= 0:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(left, again)):
		}
	}
}
