package manifest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/manifest"
)

func read(text string) (*manifest.Manifest, error) {
	return manifest.Read(manifest.File{Name: "f.yaml", Text: []byte(text)})
}

// value reads one value, written on one line.
func value(text string) (string, error) {
	m, err := read("schedules:\n- v: " + text + "\n")
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(m.Schedules[0]), `{"v":`), "}"), nil
}

func TestScalars(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "null", "~": "null", "null": "null", "true": "true", "FALSE": "false",
		"1": "1", "1.0": "1.0", "-0": "-0", "1e400": "1e400", "1E+2": "1E+2", "123456789012345678901234567890": "123456789012345678901234567890",
		`"1"`: `"1"`, `'no'`: `"no"`, `!!str 012`: `"012"`, `!!str`: `""`,
		"mon-fri": `"mon-fri"`, "0 9 * * 1": `"0 9 * * 1"`, "1h30m": `"1h30m"`, "2026-01-01": `"2026-01-01"`, "2026-01-01T00:00:00Z": `"2026-01-01T00:00:00Z"`, "1.2.3": `"1.2.3"`,
		`"</&\t\u2028\x41"`: `"</&\t\u2028A"`, "日本": `"日本"`, "{}": "{}", "[]": "[]", "{on: [failing]}": `{"on":["failing"]}`, "{1: a, null: b, no: c}": `{"1":"a","null":"b","no":"c"}`,
	} {
		got, err := value(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"yes", "No", "on", "OFF", "y", "N", // true or false, to some
		"012", "0x1F", "0o17", "0b1", "+1", ".5", "5.", "1_000", ".inf", "-.INF", ".NaN", "12:30", "1:2:3.5",
	} {
		_, err := value(text)
		require.ErrorContains(t, err, "f.yaml:2: "+text+" ", text)
	}
	for text, want := range map[string]string{
		"!!int 5": "the tag !!int", "!!binary aGk=": "the tag !!binary", "!x {}": "the tag !x", "*none": "unknown anchor", "{a: 1, a: 2}": `"a" stands twice`, "{[a]: 1}": "must be a text",
		"*/5 * * * *": "f.yaml:2: did not find expected alphabetic or numeric character; a text that begins with * ", "@daily": "f.yaml:2: found character that cannot start any token; a text that begins with @", "{<<: 1}": "<< takes an object", "\x00": "control characters",
	} {
		_, err := value(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	m, err := manifest.Read(
		manifest.File{Name: "a.yaml", Text: []byte("# nothing\n---\nschedules:\n- name: a\n- name: b\n  task_params:\n    x/y: [1,\n      2]\n---\n---\ntask_definitions:\n- task_name: t\n")},
		manifest.File{Name: "b.json", Text: []byte("{\n\t\"schedules\": [\n\t\t{\"name\":\"\\ud83d\\ude00 \\\\ud83d\\\\ude00 \u2028\\/\"}\n\t]\n}")},
		manifest.File{Name: "empty.yaml"},
	)
	require.NoError(t, err)
	require.Len(t, m.Schedules, 3)
	require.JSONEq(t, `{"name": "😀 \\ud83d\\ude00 \u2028/"}`, string(m.Schedules[2]))
	require.JSONEq(t, `{"task_name":"t"}`, string(m.TaskDefinitions[0]))
	for pointer, want := range map[string]string{
		"/schedules/0/name":               "a.yaml:4",
		"/schedules/1":                    "a.yaml:5",
		"/schedules/1/task_params/x~1y/1": "a.yaml:8",
		"/schedules/1/cron_expression":    "a.yaml:5", // which is missing
		"/schedules/2/name":               "b.json:3",
		"/task_definitions/0/task_name":   "a.yaml:12",
	} {
		place, ok := m.Place(pointer)
		require.True(t, ok, pointer)
		require.Equal(t, want, place.String(), pointer)
	}
	_, ok := m.Place("/managed_by")
	require.False(t, ok)

	for text, want := range map[string]string{
		"- a":                                "f.yaml:1: a document must be an object",
		"managed_by: x":                      `f.yaml:1: "managed_by" is not known`,
		"schedules: {}":                      "f.yaml:1: schedules must be a list",
		"schedules: []\nschedules: []":       "f.yaml:2: schedules stands twice",
		"schedules:\n- a: b\n  c: d: e":      "f.yaml:3: mapping values are not allowed",
		"schedules: []\n---\nschedules: [*a": "f.yaml",
	} {
		_, err := read(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestAliasesAndMerges(t *testing.T) {
	t.Parallel()
	m, err := read(`
schedules:
- &base
  name: a
  task_params: &params {x: 1, y: 2}
- <<: *base
  name: b
  task_params:
    <<: [{y: 3}, *params]
    z: *params
`)
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"b","task_params":{"z":{"x":1,"y":2},"y":3,"x":1}}`, string(m.Schedules[1]))

	// A few lines that would be gigabytes, or never end.
	var bomb, merges strings.Builder
	bomb.WriteString("schedules:\n- a0: &a0 [x, x]\n")
	merges.WriteString("schedules:\n- a0: &a0 {}\n")
	for i := range 60 {
		fmt.Fprintf(&bomb, "  a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
		fmt.Fprintf(&merges, "  a%d: &a%d {<<: [*a%d, *a%d]}\n", i+1, i+1, i, i)
	}
	for text, want := range map[string]string{
		bomb.String():                    "say more than 16 MiB",
		merges.String():                  "merged too often",
		"schedules: [&a [*a]]":           "nested too deep",
		"schedules: [&a {b: *a}]":        "nested too deep",
		"schedules: [&a {<<: *a}]":       "nested too deep",
		"schedules: [{<<: &a [*a]}]":     "nested too deep",
		"schedules: [{<<: &a [*a, *a]}]": "nested too deep",
		"schedules: " + strings.Repeat("[", 500) + strings.Repeat("]", 500): "nested too deep",
	} {
		_, err := read(text)
		require.ErrorContains(t, err, want, text)
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{"schedules: [{a: *b, <<: {c: 1e5}}]", "schedules:\n- |\n  a\n- &a [*a]", `{"schedules": ["\ud83d\ude00"]}`, "a: !!str"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := read(text)
		if err != nil {
			return
		}
		for _, raw := range append(m.Schedules, m.TaskDefinitions...) {
			require.True(t, json.Valid(raw), "%s", raw)
		}
	})
}
