package httpapi

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
		var d duration
		require.Empty(t, d.read(json.RawMessage(text)), text)
		require.Equal(t, want, time.Duration(d), text)
	}
	for _, text := range []string{
		`""`, `"d"`, `"1"`, `"1 h"`, `"h"`, `"1w"`, `"1d-1h"`, `"1d+1h"`, `"100001d"`, `"99999999999d"`, `"9999999h9999999h"`,
		`"2562047h48m"`, `true`, `{}`, `[]`, `1e10`, `-1e300`,
	} {
		var d duration
		require.Equal(t, badDuration, d.read(json.RawMessage(text)), text)
	}
	for _, text := range []string{`"1ns"`, `"1us"`, `0.0001`, `1.0005`} {
		var d duration
		require.Equal(t, tooFine, d.read(json.RawMessage(text)), text)
	}
}

func TestWriteDuration(t *testing.T) {
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
		require.Equal(t, want, duration(d).String())
	}
}

// What is answered can be given back.
func TestDurationReadsWhatItWrites(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		want := duration(time.Duration(rapid.Int64Range(-1e12, 1e12).Draw(t, "ms")) * time.Millisecond)
		raw, err := json.Marshal(want)
		require.NoError(t, err)
		var got duration
		require.Empty(t, got.read(raw))
		require.Equal(t, want, got)
	})
}

// The test cases of RFC 7396, appendix A, and that order and text are kept.
func TestMergePatch(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"z":1.50,"a":{"y":9007199254740993,"b":"<&>"}}`, `{"a":{"b":"\u003c"},"n<":[null]}`, `{"z":1.50,"a":{"y":9007199254740993,"b":"\u003c"},"n<":[null]}`},
	} {
		require.Equal(t, tt.want, string(mergePatch(json.RawMessage(tt.target), json.RawMessage(tt.patch))), "%s with %s", tt.target, tt.patch)
	}
}

func TestUnknownSuggests(t *testing.T) {
	t.Parallel()

	known := []string{"timezone", "task_name", "tags", "name"}
	for name, want := range map[string]string{
		"timezon":   `is not known; did you mean "timezone"?`,
		"time_zone": `is not known; did you mean "timezone"?`,
		"taskname":  `is not known; did you mean "task_name"?`,
		"Tags":      `is not known; did you mean "tags"?`,
		"tag":       `is not known; did you mean "tags"?`,
		"whatever":  `is not known`,
		"":          `is not known`,
	} {
		require.Equal(t, want, unknown(name, known), name)
	}
}

// No text makes the reader of JSON panic, and what passes is one object that
// encoding/json reads, too.
func FuzzCheckJSON(f *testing.F) {
	for _, text := range []string{``, `{}`, `{"a":{"a":[{"b":1}]}}`, `{"a":1,"a":2}`, `[1]`, `{"a":"\ud800"}`, "{\"\xff\":1}", `{} {}`, ` {"a~/":null} `} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 {
			return
		}
		if _, err := checkJSON(text); err != nil {
			return
		}
		var object map[string]any
		require.NoError(t, json.Unmarshal(text, &object))
		require.NotNil(t, object)
	})
}
