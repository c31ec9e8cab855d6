package httpapi

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

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
