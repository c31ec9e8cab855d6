package execute

import (
	"io"
	"log/slog"
)

// Limits of the log lines that are kept, of one attempt and of all attempts of
// a job together.
const (
	maxLogBytes      = 32 << 10
	maxTotalLogBytes = 64 << 10
)

// newLineHandler writes log lines as text, and stops when the limit is
// reached: the first lines tell most, and a chatty task must not eat memory.
func newLineHandler(w io.Writer) slog.Handler {
	return slog.NewTextHandler(&cappedWriter{w: w, room: maxLogBytes - len(cutNotice)}, nil)
}

const cutNotice = "… more lines were dropped\n"

type cappedWriter struct {
	w    io.Writer
	room int
}

// Write takes everything, and passes on what there is room for. It is called
// by one slog handler, which serialises.
func (c *cappedWriter) Write(p []byte) (int, error) {
	switch {
	case c.room < 0:
	case len(p) > c.room:
		c.room = -1
		if _, err := io.WriteString(c.w, cutNotice); err != nil {
			return 0, err
		}
	default:
		c.room -= len(p)
		if _, err := c.w.Write(p); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
