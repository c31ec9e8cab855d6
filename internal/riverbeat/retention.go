package riverbeat

import (
	"fmt"
	"time"
)

const day = 24 * time.Hour

// LeastRetention is the shortest time that runs may be kept: no shorter than River keeps
// the jobs of any of them.
const LeastRetention = 7 * day

// mostRetention is a hundred years. What is longer is for ever.
const mostRetention = 36_500 * day

const forEver = "forever"

// ParseRetention reads how long runs are kept, as people write it: "90d", or "forever",
// which is 0. Problem says what is wrong with it; "" is nothing.
func ParseRetention(text string) (d time.Duration, problem string) {
	if text == forEver {
		return 0, ""
	}
	if d, ok := ParseDuration(text); ok && d >= LeastRetention && d <= mostRetention {
		return d, ""
	}
	return 0, "a time such as 90d, at least 7d, or " + forEver
}

// FormatRetention writes it as people do.
func FormatRetention(d time.Duration) string {
	switch {
	case d == 0:
		return forEver
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	default:
		return FormatDuration(d)
	}
}
