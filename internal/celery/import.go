package celery

import (
	"context"
	"fmt"
	"time"

	"riverbeat/internal/catalog"
	"riverbeat/internal/riverbeat"
)

// Item is what became of an entry that was to be imported.
type Item struct {
	ID        string     `json:"id"` // of its schedule
	Name      string     `json:"name"`
	TaskName  string     `json:"task_name"`
	Cron      string     `json:"cron_expression,omitempty"`
	Timezone  string     `json:"timezone,omitempty"`
	NextThere *time.Time `json:"next_there"` // when both would next fire
	NextHere  *time.Time `json:"next_here"`
	Outcome   string     `json:"outcome"` // one of catalog.Imported, or Refused
	Differs   []string   `json:"differs,omitempty"`
	Refused   string     `json:"refused,omitempty"` // why it cannot come
}

// Refused is the outcome of what cannot come.
const Refused = "refused"

// Start says how those that come, and are enabled there, go on here.
type Start int

// The ways to start.
const (
	StartDisabled Start = iota // and those that have come before stay as they are
	StartEnabled               // if they fire at the same times here
	StartShadow                // in shadow, if they do not run already
)

// Import writes entries as schedules, as of now, each in a transaction of its own. It says
// what became of each, also beside an error, which ends it.
func Import(ctx context.Context, c *catalog.Catalog, entries []*Entry, now time.Time, start Start) (items []Item, err error) {
	for _, e := range entries {
		t := Translate(e, now)
		item := Item{
			ID: e.ID().String(), Name: e.Name, TaskName: e.Task, Outcome: Refused,
			NextThere: t.NextThere, NextHere: t.NextHere, Differs: t.Differs, Refused: t.Refused,
		}
		if s := t.Schedule; s != nil {
			item.Cron, item.Timezone = s.CronExpression, s.Timezone
			became, err := c.Import(ctx, t.asImport(start))
			switch {
			case cannotCome(err):
				item.Refused, item.NextHere = riverbeat.Explain(err), nil
			case err != nil:
				return items, fmt.Errorf("import %q, after %d of %d: %w", e.Name, len(items), len(entries), err)
			default:
				item.Outcome = string(became)
			}
		}
		items = append(items, item)
	}
	return items, nil
}

// cannotCome tells whether an error of Import is the fault of the schedule.
func cannotCome(err error) bool {
	kind := riverbeat.KindOf(err)
	return err != nil && (kind == riverbeat.Invalid || kind == riverbeat.Conflict)
}
