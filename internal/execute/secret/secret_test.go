package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"riverbeat/internal/execute/secret"
)

func fixed(value string) secret.Source { return func() (string, error) { return value, nil } }

func TestValue(t *testing.T) {
	t.Parallel()
	s := secret.New(map[string]secret.Source{
		"good": fixed("hunter2"), "short": fixed("abc"), "long": fixed(strings.Repeat("x", secret.MaxLength+1)),
		"binary": fixed("\xff\xfe\xfd\xfc"), "nul": fixed("ab\x00cd"), "broken": func() (string, error) { return "", io.ErrUnexpectedEOF },
	})
	value, err := s.Value("good")
	require.NoError(t, err)
	require.Equal(t, "hunter2", value)
	for name, want := range map[string]string{
		"short": "must have 4 to 65536 bytes", "long": "must have", "binary": "is not text", "nul": "is not text",
		"broken": `read the secret "broken": unexpected EOF`, "other": `no secret "other"`,
	} {
		_, err := s.Value(name)
		require.ErrorContains(t, err, want, name)
	}
	require.Error(t, s.Check())
	require.NoError(t, secret.New(map[string]secret.Source{"good": fixed("hunter2")}).Check())
	_, err = (*secret.Store)(nil).Value("good")
	require.ErrorContains(t, err, "RIVERBEAT_SECRETS")
}

func TestEveryWayToWriteASecretIsKnown(t *testing.T) {
	t.Parallel()
	const value = "p&ss \"w<ö>rd\"\n\\second/line+\tof it"
	r := secret.NewRedactor(map[string]string{"pw": value, "db": "postgres://me:s3cr3tpw@host/db"})
	marshalled, err := json.Marshal(value)
	require.NoError(t, err)
	for _, text := range []string{
		value, string(marshalled[1 : len(marshalled)-1]), fmt.Sprintf("%q", value), url.QueryEscape(value), url.PathEscape(value),
		base64.StdEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte(value)),
		"\\second/line+\tof it", // a line of it
	} {
		got := r.Text("before " + text + " after")
		require.Contains(t, got, "before ", text)
		require.Contains(t, got, "[secret pw]", text)
		require.Contains(t, got, " after", text)
		require.NotContains(t, got, "second", text)
	}
	for _, text := range []string{"user:" + value, "x" + value + "y", "ab" + value} {
		require.Contains(t, r.Text(base64.StdEncoding.EncodeToString([]byte(text))), "[secret pw]", text)
	}
	require.Equal(t, "bad token [secret t]", secret.NewRedactor(map[string]string{"t": "Bearer abc.def"}).Text("bad token abc.def"))
	require.Equal(t, `'it\'s [secret q]'`, secret.NewRedactor(map[string]string{"q": `a"b'c\`}).Text(`'it\'s a"b\'c\\'`))
	require.Equal(t, "[secret u]", secret.NewRedactor(map[string]string{"u": "postgres://me:a%2fb%40c@host/db"}).Text("a%2fb%40c"))
	require.Equal(t, "[secret u]", secret.NewRedactor(map[string]string{"u": "postgres://me:a%2fb%40c@host/db"}).Text("a/b@c"))
	require.Equal(t, "as [secret db] or [secret db]", r.Text("as s3cr3tpw or postgres://me:s3cr3tpw@host/db"))
	require.Equal(t, "nothing", r.Text("nothing"))
	require.Equal(t, "hunter2", (*secret.Redactor)(nil).Text("hunter2"))
	require.Nil(t, secret.NewRedactor(nil))
	require.Equal(t, "[secret a] [secret b]", secret.NewRedactor(map[string]string{"a": "aaaa"}).With(map[string]string{"b": "bbbb"}).Text("aaaa bbbb"))
}

// A long secret of many lines has thousands of forms, and they cost no more than one.
func BenchmarkText(b *testing.B) {
	text := strings.Repeat("some line of a long output, as there are many\n", 10_000)
	for _, lines := range []int{1, 900} {
		b.Run(fmt.Sprint(lines), func(b *testing.B) {
			var value strings.Builder
			for i := range lines {
				fmt.Fprintf(&value, "%064d\n", i*7919)
			}
			r := secret.NewRedactor(map[string]string{"pem": value.String()})
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				r.Text(text)
			}
		})
	}
}

func TestErrorsStayWhatTheyAre(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(map[string]string{"pw": "hunter2"})
	err := r.Error(fmt.Errorf("hunter2 is wrong: %w", io.EOF))
	require.EqualError(t, err, "[secret pw] is wrong: EOF")
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, io.EOF, r.Error(io.EOF))
	require.NoError(t, r.Error(nil))
}

func TestJSON(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(map[string]string{"pin": "4711", "pw": "a\"b\\c"})
	got, err := r.JSON(json.RawMessage(`{"a\"b\\c": [4711, 14711, 12, "4711", {"x": "a\"b\\c!"}, null, true], "text": "{\"in\": \"a\\\"b\\\\c\"}"}`))
	require.NoError(t, err)
	require.JSONEq(t, `{"[secret pw]": ["[secret pin]", "1[secret pin]", 12, "[secret pin]", {"x": "[secret pw]!"}, null, true],
		"text": "{\"in\": \"[secret pw]\"}"}`, string(got))
	got, err = (*secret.Redactor)(nil).JSON(json.RawMessage(`1e999`))
	require.NoError(t, err)
	require.Equal(t, "1e999", string(got))
}

// However the writes cut a text, what comes out is the text as a whole without secrets.
func TestWriter(t *testing.T) {
	t.Parallel()
	values := map[string]string{"a": "aaab", "b": "aaabcd", "c": "line one is long\nline two is long"}
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"a", "aaab", "aaabcd", "cd", "x", "line one is long\n", "line two is long", "\n", "line "})).Draw(t, "parts")
		text := strings.Join(parts, "")
		r := secret.NewRedactor(values)
		var out bytes.Buffer
		w := r.Writer(&out)
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			written, err := w.Write([]byte(rest[:n]))
			require.NoError(t, err)
			require.Equal(t, n, written)
			rest = rest[n:]
		}
		require.NoError(t, w.Close())
		require.Equal(t, r.Text(text), out.String())
		require.NotContains(t, out.String(), "aaab")
	})
	var out bytes.Buffer
	w := (*secret.Redactor)(nil).Writer(&out)
	_, err := w.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Equal(t, "x", out.String())
}

type stringer struct{ text string }

func (s stringer) String() string { return s.text }

func TestHandler(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := secret.NewRedactor(map[string]string{"pw": "hunter2"})
	logger := slog.New(r.Handler(slog.NewJSONHandler(&out, nil)))
	logger.With("k", "hunter2", "hunter2", 1).WithGroup("g").Info(
		"say hunter2", "err", errors.New("it is hunter2"), "s", stringer{"hunter2"}, "n", 7,
		"map", map[string]any{"a": []string{"hunter2"}}, "raw", json.RawMessage(`{"a": "hunter2"}`), "bytes", []byte("hunter2"), slog.Group("in", "deep", "hunter2"),
	)
	require.NotContains(t, out.String(), "hunter2")
	require.Equal(t, 9, strings.Count(out.String(), "[secret pw]"))
	require.Contains(t, out.String(), `"n":7`)
	h := slog.NewTextHandler(&out, nil)
	require.Equal(t, slog.Handler(h), (*secret.Redactor)(nil).Handler(h))
}
