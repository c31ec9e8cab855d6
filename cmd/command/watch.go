package command

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"riverbeat/internal/client"
	"riverbeat/internal/riverbeat"
)

func newRunsWatch() *cobra.Command {
	every := &word{value: "2s", kind: "duration"}
	c := apiCommand{
		use: "watch [RUN...]", short: "Watch how runs come and go", formats: []string{asTable, asJSON},
		long: "Watches runs until Ctrl-C, or those that are named until they have ended; then\n" +
			"the exit code is 1 if one of them did not succeed. On a terminal the table is\n" +
			"drawn again and again, those that have not ended first; elsewhere each change of\n" +
			"a run is a line, with -o json an object.\n\n" +
			"A server that goes away is waited for.",
		args: func(c *cobra.Command, args []string) error {
			if slices.Contains(args, "") {
				return badCall(c, "%s is not empty", oneRun)
			}
			return nil
		},
		do: func(c *call, ids []string) error {
			pause, err := time.ParseDuration(every.value)
			if err != nil || pause < 100*time.Millisecond {
				return badCall(c.Command, "--every: %q is no duration of 100ms or more", every.value)
			}
			query, err := c.runQuery()
			if err != nil {
				return err
			}
			if len(query) > 0 && len(ids) > 0 {
				return badCall(c.Command, "either runs are named, or filters are")
			}
			w := &watcher{call: c, query: query, ids: ids}
			if c.screen.width > 0 && c.format == asTable {
				return w.live(pause)
			}
			return w.follow(pause)
		},
	}.command()
	addRunFilters(c)
	c.Flags().Var(every, "every", "How long to wait between two looks.")
	complete(c, "every")
	return c
}

// watcher looks at runs again and again.
type watcher struct {
	*call
	query url.Values // what is watched, unless
	ids   []string   // runs are named

	known  map[string]*watched // of the last look; nil: there was none
	newest time.Time           // the newest nominal time in it
}

// watched is a run as it was seen last.
type watched struct {
	shownRun
	raw json.RawMessage
}

func (r *watched) UnmarshalJSON(raw []byte) error {
	r.raw = slices.Clone(raw)
	return json.Unmarshal(raw, &r.shownRun)
}

// What a look reads: the newest runs, by their nominal times, back to some time before
// the newest one of the last look; those that have not ended; and, one by one, those that
// had not, and are not among them.
const (
	backwards = 2 * time.Minute
	atLeast   = 50
	pages     = 10 // rare runs among many have empty ones
	pageSize  = "100"
	oneByOne  = 100
)

// look reads the runs as they are now, and tells which of them have changed since the
// last look, in the order of their nominal times. If it fails, it was none.
func (w *watcher) look() (changed []*watched, err error) {
	now := map[string]*watched{}
	ids, newest := w.ids, w.newest
	if len(w.ids) == 0 {
		if newest, err = w.lookAround(now); err != nil {
			return nil, err
		}
		for id, r := range w.known {
			if now[id] == nil && !r.State.Ended() && len(ids) < oneByOne {
				ids = append(ids, id)
			}
		}
	}
	for _, id := range ids {
		r, err := client.Call[*watched](w.Context(), w.api, client.Request{Path: runsPath + client.Path(id)})
		if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotFound && len(w.ids) == 0 {
			continue // its partition was dropped
		}
		if err != nil {
			return nil, err
		}
		now[id] = r
	}
	for id, r := range now {
		before := w.known[id]
		if before == nil || before.State != r.State || before.Attempt != r.Attempt || orDash(before.Reason) != orDash(r.Reason) {
			changed = append(changed, r)
		}
	}
	slices.SortFunc(changed, func(a, b *watched) int {
		return cmp.Or(a.ScheduledFor.Compare(b.ScheduledFor), strings.Compare(a.ID, b.ID))
	})
	w.known, w.newest = now, newest
	return changed, nil
}

// lookAround reads the newest runs and those that have not ended, and tells the newest
// nominal time.
func (w *watcher) lookAround(now map[string]*watched) (newest time.Time, err error) {
	newest = w.newest
	since, n := w.newest, 0
	for r, err := range w.runs(w.query, pages) {
		if err != nil {
			return newest, err
		}
		if n++; n == 1 && r.ScheduledFor.After(newest) {
			newest = r.ScheduledFor
		}
		if since.IsZero() {
			since = newest
		}
		if n > atLeast && r.ScheduledFor.Before(since.Add(-backwards)) {
			break
		}
		now[r.ID] = r
	}
	if w.query.Has("state") {
		return newest, nil
	}
	query := url.Values{"state": unfinishedStates}
	for name, values := range w.query {
		query[name] = values
	}
	for r, err := range w.runs(query, 1) {
		if err != nil {
			return newest, err
		}
		now[r.ID] = r
	}
	return newest, nil
}

// runs reads the runs of some pages, as far as they are needed.
func (w *watcher) runs(query url.Values, pages int) iter.Seq2[*watched, error] {
	r := client.Request{Path: runsPath, Query: url.Values{"page_size": {pageSize}}, Pages: pages}
	for name, values := range query {
		r.Query[name] = values
	}
	return client.Items[*watched](w.Context(), w.api, r)
}

var unfinishedStates = slices.DeleteFunc(slices.Clone(runStates), func(s string) bool { return riverbeat.State(s).Ended() })

// ended tells whether all runs that were named have ended, and if so by an error whether
// one did not succeed.
func (w *watcher) ended() (bool, error) {
	var others []string
	for _, id := range w.ids {
		switch r := w.known[id]; {
		case r == nil || !r.State.Ended():
			return false, nil
		case r.State != riverbeat.Succeeded:
			others = append(others, fmt.Sprintf("%s %s", id, r.State))
		}
	}
	if len(others) > 0 {
		return true, errors.New(strings.Join(others, ", "))
	}
	return len(w.ids) > 0, nil
}

// away tells whether an error is one of a server that may come back.
func away(err error) bool {
	if errors.As(err, new(*client.Unreachable)) {
		return true
	}
	refused, ok := errors.AsType[*client.Error](err)
	return ok && (refused.Status >= http.StatusInternalServerError || refused.Status == http.StatusTooManyRequests)
}

// repeat looks until all that was named has ended, or the command is told to end. tell
// is called after each look, and after each one in vain with its error.
func (w *watcher) repeat(pause time.Duration, tell func(changed []*watched, lost error) error) error {
	for first := true; w.Context().Err() == nil; first = false {
		changed, err := w.look()
		if err != nil && w.Context().Err() != nil {
			break
		}
		if err != nil && (first || !away(err)) {
			return err
		}
		if err := tell(changed, err); err != nil {
			return err
		}
		if done, err := w.ended(); done {
			return err
		}
		select {
		case <-w.Context().Done():
		case <-time.After(pause):
		}
	}
	return nil //nolint:nilerr // it was told to end
}

// follow writes a line for each change; at first for those that have not ended.
func (w *watcher) follow(pause time.Duration) error {
	begun, gone := false, false
	return w.repeat(pause, func(changed []*watched, lost error) error {
		if (lost != nil) != gone {
			if gone = lost != nil; gone {
				_, _ = fmt.Fprintf(w.errs, "%s; waiting for it.\n", printable(lost.Error()))
			} else {
				_, _ = fmt.Fprintf(w.errs, "%s answers again.\n", w.api)
			}
		}
		for _, r := range changed {
			if !begun && len(w.ids) == 0 && r.State.Ended() {
				continue
			}
			if err := w.line(r); err != nil {
				return err
			}
		}
		begun = begun || lost == nil
		return nil
	})
}

func (w *watcher) line(r *watched) error {
	if w.format == asJSON {
		text, err := onOneLine(r.raw)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w.w, text)
		return err
	}
	now := time.Now()
	text := fmt.Sprintf("%s  %-9s  %s  %s", stamp(&now), r.State, r.ID, r.ScheduleName)
	if r.Reason != nil {
		text += " (" + *r.Reason + ")"
	}
	_, err := fmt.Fprintln(w.w, printable(text))
	return err
}

// What a terminal understands: another page without a cursor, and the way back; to the
// top; the end of a line and of the page left empty.
const (
	otherPage = "\x1b[?1049h\x1b[?25l"
	thisPage  = "\x1b[?25h\x1b[?1049l"
	toTop     = "\x1b[H"
	endLine   = "\x1b[K\n"
	endPage   = "\x1b[J"
)

// live draws the table again and again.
func (w *watcher) live(pause time.Duration) error {
	if _, err := io.WriteString(w.w, otherPage); err != nil {
		return err
	}
	err := w.repeat(pause, func(_ []*watched, lost error) error { return w.draw(lost) })
	_, _ = io.WriteString(w.w, thisPage)
	if len(w.ids) == 0 || w.Context().Err() != nil {
		return err
	}
	var rows [][]string
	for _, r := range w.sorted() {
		rows = append(rows, runNoun.row(r.shownRun))
	}
	if len(rows) == 0 {
		return err
	}
	return errors.Join(writeTable(w.w, w.screen, runNoun.columns, rows), err)
}

// sorted are the runs that are known: those that have not ended first, then the newest.
func (w *watcher) sorted() []*watched {
	var all []*watched
	for _, r := range w.known {
		all = append(all, r)
	}
	order := func(r *watched) int {
		if r.State.Ended() {
			return 1
		}
		return 0
	}
	slices.SortFunc(all, func(a, b *watched) int {
		return cmp.Or(order(a)-order(b), b.ScheduledFor.Compare(a.ScheduledFor), strings.Compare(a.ID, b.ID))
	})
	return all
}

// draw fills the screen.
func (w *watcher) draw(lost error) error {
	w.screen = screenOf(w.w) // it may have another size now
	now, counts := time.Now(), map[string]int{}
	var rows [][]string
	for _, r := range w.sorted() {
		counts[string(r.State)]++
		if len(rows) < w.screen.height-4 {
			rows = append(rows, runNoun.row(r.shownRun))
		}
	}
	title := fmt.Sprintf("%s  %s", stamp(&now), w.api)
	for _, state := range unfinishedStates {
		if n := counts[state]; n > 0 {
			title += fmt.Sprintf("  %d %s", n, state)
		}
	}
	var page strings.Builder
	page.WriteString(cells.Truncate(printable(title), w.screen.width, "…") + "\n")
	if lost != nil {
		page.WriteString(w.screen.coloured(cells.Truncate(printable(lost.Error()), w.screen.width, "…"), red))
	}
	page.WriteString("\n")
	if len(rows) == 0 {
		page.WriteString("There are no runs.\n")
	} else if err := writeTable(&page, w.screen, runNoun.columns, rows); err != nil {
		return err
	}
	_, err := io.WriteString(w.w, toTop+strings.ReplaceAll(page.String(), "\n", endLine)+endPage)
	return err
}
