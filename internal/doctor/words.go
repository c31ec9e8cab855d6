package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Most is how far faults are counted.
const Most = 10_000

// maxExamples is how many of them are shown.
const maxExamples = 5

// healthy is the finding of a check that found nothing wrong.
func healthy(format string, args ...any) Finding {
	return Finding{Status: OK, Detail: sentence(format, args...)}
}

// examples shows the first few of the faults.
func examples[T any](faults []T, show func(T) string) []string {
	list := make([]string, 0, maxExamples)
	for _, f := range faults[:min(len(faults), maxExamples)] {
		list = append(list, show(f))
	}
	return list
}

// sentence begins with a capital letter.
func sentence(format string, args ...any) string {
	text := fmt.Sprintf(format, args...)
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// count is a number of things in words: "1 clock", "12,000 clocks".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return digits(n) + " " + thing + plural(thing)
}

// many is a number of faults in words. One more than Most stands for all that
// are more.
func many(n int, thing string) string {
	if n > Most {
		return "more than " + count(Most, thing)
	}
	return count(n, thing)
}

// be is the verb of n things.
func be(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

func plural(thing string) string {
	if strings.HasSuffix(thing, "x") {
		return "es"
	}
	return "s"
}

// digits writes 12345 as 12,345.
func digits(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// long is a duration for people: not finer than it matters.
func long(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	text := d.Round(time.Second).String()
	if d >= time.Hour {
		text = d.Round(time.Minute).String()
	}
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }
