package command

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestWriteTable(t *testing.T) {
	t.Parallel()
	columns := []column{
		{head: "NAME", least: 8}, {head: "STATE", colour: stateColour}, {head: "ID"}, {head: "REASON", least: 6},
	}
	rows := [][]string{
		{"greet", "failed", "0123456789", ""},
		{"上場　銘柄取得", "running", "1", "no_worker"},
		{"\x1b[31mred\x07\u202e", "queued", "2", "a\nb"},
	}
	for _, test := range []struct {
		screen screen
		want   string
	}{
		{screen{}, `
NAME            STATE    ID          REASON
greet           failed   0123456789
上場　銘柄取得  running  1           no_worker
�[31mred��      queued   2           a�b
`},
		{screen{width: 40}, `
NAME      STATE    ID          REASON
greet     failed   0123456789
上場　…   running  1           no_worker
�[31mre…  queued   2           a�b
`},
		{screen{width: 26, colours: true}, "" + `
NAME      STATE    REASON
greet     ` + "\x1b[31mfailed\x1b[0m" + `
上場　…   ` + "\x1b[34mrunning\x1b[0m" + `  no_wor…
�[31mre…  queued   a�b
`},
		{screen{width: 5}, "\nNAME\ngreet\n上場　…\n�[31mre…\n"},
	} {
		var b bytes.Buffer
		require.NoError(t, writeTable(&b, test.screen, columns, rows))
		require.Equal(t, test.want, "\n"+b.String(), test.screen)
		for line := range bytes.Lines(b.Bytes()) {
			if test.screen.width > 10 && !test.screen.colours {
				require.LessOrEqual(t, cells.StringWidth(string(line)), test.screen.width)
			}
		}
	}
}

// Whatever an answer has in it, people see it whole, and it does nothing to their
// terminal.
func TestDocumentsSayTheSame(t *testing.T) {
	t.Parallel()
	const document = `{
		"b": 1, "a": [], "n": null, "f": 1.50, "big": 123456789012345678901234567890, "e": 1e3, "yes": "yes", "t": true,
		"number": "12", "time": "2026-01-02T03:04:05Z", "lines": "one\ntwo\n", "name": "上場",
		"evil": "\u001b[31m\u009b\u202e\u0007\t", "\u001bkey": "é", "tag": "\udb40\udc01", "empty": "", "o": {"x": {"y": [1, [2], {}]}}
	}`
	var want any
	require.NoError(t, json.Unmarshal([]byte(document), &want))

	text, err := indented(json.RawMessage(document), "")
	require.NoError(t, err)
	var got any
	require.NoError(t, json.Unmarshal([]byte(text), &got))
	require.Equal(t, want, got)
	line, err := onOneLine(json.RawMessage(document))
	require.NoError(t, err)
	require.NotContains(t, line, "\n")
	require.NoError(t, json.Unmarshal([]byte(line), &got))
	require.Equal(t, want, got)

	node, err := yamlNode(json.RawMessage(document))
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, writeYAML(&b, node))
	require.NoError(t, yaml.Unmarshal(b.Bytes(), &got))
	again, err := json.Marshal(got)
	require.NoError(t, err)
	require.JSONEq(t, document, string(again))
	require.Contains(t, b.String(), "f: 1.50\nbig: 123456789012345678901234567890\n", "numbers are what they were")
	require.Regexp(t, `(?s)^b: 1\na: \[\]\n.*o:\n  x:\n    "?y"?:\n      - 1\n`, b.String(), "and in their order")

	for _, shown := range []string{text, line, b.String()} {
		require.Equal(t, printableLines(shown), shown)
	}
}

func TestWriteFields(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, writeFields(&b, json.RawMessage(`{
		"id": "1", "task_name": "2026-01-02T03:04:05Z", "next_run_at": "2026-01-02T03:04:05.678Z", "description": null,
		"args": [], "task_params": {"text": "hi", "n": 1}, "error": "first\nsecond\u001b", "enabled": false,
		"logs": [{"attempt": 1, "log": "one\ntwo"}]
	}`)))
	require.Equal(t, `
id           1
task name    2026-01-02T03:04:05Z
next run at  2026-01-02 03:04:05Z
task params  text: hi
             "n": 1
error        first
             second�
enabled      false
logs         - attempt: 1
               log: |-
                 one
                 two
`, "\n"+b.String())
}

func TestReadTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2026-03-02T09:00:00+09:00":     "2026-03-02T00:00:00Z",
		"2026-03-02T09:00:00.5Z":        "2026-03-02T09:00:00.5Z",
		"2026-03-02 09:00:00+09:00":     "2026-03-02T00:00:00Z", // as tables show it
		"2026-03-02 09:00 +01:00":       "2026-03-02T08:00:00Z", // as explanations do
		"2026-03-02 09:00:00.1 +01:00":  "2026-03-02T08:00:00.1Z",
		"2026-03-02 09:00":              "2026-03-02T09:00:00Z",
		"2026-03-02":                    "2026-03-02T00:00:00Z",
		"-90m":                          "2026-03-02T10:30:00Z",
		"1h":                            "2026-03-02T13:00:00Z",
		"":                              "",
		"soon":                          "",
		"03/02/2026":                    "",
		"2026-03-02T09:00:00+09:00 CET": "",
	} {
		at, ok := readTime(text, now)
		require.Equal(t, want != "", ok, text)
		if ok {
			require.Equal(t, want, at.UTC().Format(time.RFC3339Nano), text)
		}
	}
	at := now.In(time.FixedZone("", 9*3600))
	shown, ok := readTime(stamp(&at), now)
	require.True(t, ok)
	require.True(t, shown.Equal(now))
}
