package riverbeat

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestReadDuration(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]time.Duration{
		`"1h"`:              time.Hour,
		`"90m"`:             90 * time.Minute,
		`"1h30m"`:           90 * time.Minute,
		`"0s"`:              0,
		`"0"`:               0,
		`"7d"`:              7 * 24 * time.Hour,
		`"1d12h"`:           36 * time.Hour,
		`"1.5s"`:            1500 * time.Millisecond,
		`"-2d1s"`:           -(48*time.Hour + time.Second),
		`90`:                90 * time.Second,
		`0`:                 0,
		`-1`:                -time.Second,
		`1.001`:             1001 * time.Millisecond,
		`1e3`:               1000 * time.Second,
		`31622400`:          366 * 24 * time.Hour,
		`4000000000.123`:    4_000_000_000*time.Second + 123*time.Millisecond,
		`"100000d"`:         100_000 * 24 * time.Hour,
		`"2540400h10m10s"`:  2_540_400*time.Hour + 10*time.Minute + 10*time.Second,
		`"0d"`:              0,
		`"\u0031h"`:         time.Hour,
		`"1000000µs"`:       time.Second,
		`"3600000000000ns"`: time.Hour,
	} {
		d, problem := ReadDuration(json.RawMessage(text))
		require.Empty(t, problem, text)
		require.Equal(t, want, d, text)
	}
	for _, text := range []string{
		`""`, `"d"`, `"1"`, `"1 h"`, `"h"`, `"1w"`, `"1d-1h"`, `"1d+1h"`, `"100001d"`, `"99999999999d"`, `"9999999h9999999h"`,
		`"2562047h48m"`, `true`, `{}`, `[]`, `1e10`, `-1e300`,
	} {
		_, problem := ReadDuration(json.RawMessage(text))
		require.Equal(t, badDuration, problem, text)
	}
	for _, text := range []string{`"1ns"`, `"1us"`, `0.0001`, `1.0005`} {
		_, problem := ReadDuration(json.RawMessage(text))
		require.Equal(t, tooFine, problem, text)
	}
}

func TestFormatDuration(t *testing.T) {
	t.Parallel()

	for want, d := range map[string]time.Duration{
		"0s":        0,
		"1h":        time.Hour,
		"1h30m":     90 * time.Minute,
		"100h0m10s": 100*time.Hour + 10*time.Second,
		"1m30s":     90 * time.Second,
		"10m":       10 * time.Minute,
		"20h":       20 * time.Hour,
		"1h0m1s":    time.Hour + time.Second,
		"1.5s":      1500 * time.Millisecond,
		"250ms":     250 * time.Millisecond,
		"168h":      7 * 24 * time.Hour,
		"10h10m":    10*time.Hour + 10*time.Minute,
		"-1h":       -time.Hour,
	} {
		require.Equal(t, want, FormatDuration(d))
	}
}

// What is answered can be given back.
func TestDurationReadsWhatItWrites(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		want := time.Duration(rapid.Int64Range(-1e12, 1e12).Draw(t, "ms")) * time.Millisecond
		raw, err := json.Marshal(FormatDuration(want))
		require.NoError(t, err)
		got, problem := ReadDuration(raw)
		require.Empty(t, problem)
		require.Equal(t, want, got)
	})
}
