package command

import (
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"riverbeat/internal/config"
)

// screen is where something is written: how wide a line may be, and whether there are
// colours. The zero value is no terminal: there are no limits and no colours.
type screen struct {
	width, height int
	colours       bool
}

// screenOf looks at what a writer leads to, as it is now.
func screenOf(w io.Writer) screen {
	file, ok := w.(*os.File)
	capable, colours := config.Terminal()
	if !ok || !capable || !term.IsTerminal(int(file.Fd())) {
		return screen{}
	}
	s := screen{width: 80, height: 24, colours: colours}
	if width, height, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		s.width, s.height = width, height
	}
	return s
}

// column is a column of a table.
type column struct {
	head string
	// least is down to what width its cells may be cut; 0: they may not.
	least int
	// colour tells the colour of a cell by its text; nil: it has none.
	colour func(text string) string
}

// writeTable writes rows in columns, wide characters (Japanese ones, say) counted as the
// two cells that they take. On a screen a line is no longer than the screen is wide: cells
// are cut, and columns for which there is no room are left out.
func writeTable(w io.Writer, s screen, columns []column, rows [][]string) error {
	lines := make([][]string, 1, len(rows)+1)
	for _, c := range columns {
		lines[0] = append(lines[0], c.head)
	}
	for _, row := range rows {
		line := make([]string, len(columns))
		for i := range columns {
			line[i] = printable(row[i])
		}
		lines = append(lines, line)
	}
	shown, widths := layOut(s, columns, lines)
	var b strings.Builder
	for n, line := range lines {
		gap := 0 // before the next text; none at the end of a line
		for _, i := range shown {
			text := cells.Truncate(line[i], widths[i], "…")
			if text != "" {
				b.WriteString(strings.Repeat(" ", gap))
				gap = 0
			}
			gap += widths[i] - cells.StringWidth(text) + len(between)
			if n > 0 && columns[i].colour != nil {
				text = s.coloured(text, columns[i].colour(line[i]))
			}
			b.WriteString(text)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// between stands between two columns.
const between = "  "

// cells measures text. A character of which it depends on the terminal is narrow.
var cells = func() *runewidth.Condition {
	c := runewidth.NewCondition()
	c.EastAsianWidth = false
	return c
}()

// layOut tells which columns there is room for, and how wide each is.
func layOut(s screen, columns []column, lines [][]string) (shown, widths []int) {
	widths = make([]int, len(columns))
	least := make([]int, len(columns))
	for i, c := range columns {
		for _, line := range lines {
			widths[i] = max(widths[i], cells.StringWidth(line[i]))
		}
		if least[i] = widths[i]; c.least > 0 {
			least[i] = min(widths[i], max(c.least, cells.StringWidth(c.head)))
		}
	}
	room, total := s.width, -len(between)
	for i := range columns {
		if s.width > 0 && i > 0 && room < least[i] {
			continue
		}
		shown = append(shown, i)
		room -= least[i] + len(between)
		total += widths[i] + len(between)
	}
	for s.width > 0 && total > s.width {
		widest := -1
		for _, i := range shown {
			if widths[i] > least[i] && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break // the first column alone is wider than the screen
		}
		widths[widest]--
		total--
	}
	return shown, widths
}

// The colours, as terminals know them.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
	faint  = "2"
)

// coloured is a text in a colour, if there are colours; "" is none.
func (s screen) coloured(text, colour string) string {
	if colour == "" || !s.colours {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// stamp shows a time by the clocks of this machine, with their offset; "-" for none.
func stamp(at *time.Time) string {
	if at == nil {
		return "-"
	}
	return at.Local().Format("2006-01-02 15:04:05Z07:00")
}

// orDash is a text that may be missing.
func orDash(text *string) string {
	if text == nil || *text == "" {
		return "-"
	}
	return *text
}
