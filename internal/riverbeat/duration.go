package riverbeat

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// days are the days at the beginning of a duration, which Go does not know.
var days = regexp.MustCompile(`^(-?)(\d{1,6})d`)

const (
	badDuration = `must be a duration such as "90s", "1h30m" or "7d", or a number of seconds`
	tooFine     = "must be whole milliseconds"
)

// ReadDuration reads a length of time as people write it in JSON: "1h30m", "7d" or a
// number of seconds. Problem says what is wrong with it; "" is nothing.
func ReadDuration(raw json.RawMessage) (d time.Duration, problem string) {
	var text string
	switch c := raw[0]; {
	case c == '"':
		if json.Unmarshal(raw, &text) != nil {
			return 0, badDuration
		}
		var ok bool
		if d, ok = ParseDuration(text); !ok {
			return 0, badDuration
		}
	case c == '-' || c >= '0' && c <= '9':
		seconds, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || math.Abs(seconds) > math.MaxInt64/float64(time.Second)/2 {
			return 0, badDuration
		}
		ms := math.Round(seconds * 1000)
		if math.Abs(seconds*1000-ms) > 1e-6 {
			return 0, tooFine
		}
		d = time.Duration(ms) * time.Millisecond
	default:
		return 0, badDuration
	}
	if d%time.Millisecond != 0 {
		return 0, tooFine
	}
	return d, ""
}

// ParseDuration reads a length of time as people write it: "1h30m", "7d", "7d12h".
func ParseDuration(text string) (time.Duration, bool) {
	var sum time.Duration
	found := days.FindStringSubmatch(text)
	if found != nil {
		n, err := strconv.Atoi(found[2])
		if err != nil || n > 100_000 {
			return 0, false
		}
		sum = time.Duration(n) * 24 * time.Hour
		if text = text[len(found[0]):]; text != "" && (text[0] < '0' || text[0] > '9') {
			return 0, false
		}
	}
	if text != "" || found == nil {
		rest, err := time.ParseDuration(text)
		if err != nil || rest > math.MaxInt64-sum {
			return 0, false
		}
		sum += rest
	}
	if found != nil && found[1] != "" {
		sum = -sum
	}
	return sum, true
}

// FormatDuration writes a length of time as people do: "1h", not "1h0m0s".
func FormatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
