package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"riverbeat/internal/access"
	"riverbeat/internal/catalog"
	"riverbeat/internal/history"
	"riverbeat/internal/httpapi"
	"riverbeat/internal/installation"
	"riverbeat/internal/ledger"
	"riverbeat/internal/manifest"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/queue"
)

// served is a server on a database of its own.
func served(t *testing.T) (address string) {
	t.Helper()
	d := pgtest.DB(t)
	q, err := queue.New(d.Pool, pgtest.Schema, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := ledger.New(q)
	handler, err := httpapi.New(httpapi.Config{
		Access:  access.New(access.Config{DB: d.DB, Open: access.Open, Now: time.Now}),
		Catalog: catalog.New(d.DB, l), History: history.New(d.DB, l), Installation: installation.New(d.DB), Now: time.Now,
	})
	require.NoError(t, err)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// runs runs a command against a server and answers all that it writes.
func runs(t *testing.T, server string, args ...string) (code int, written string) {
	t.Helper()
	var out bytes.Buffer
	code = run(t.Context(), nil, append(args, "--server", server), &out, &out)
	return code, out.String()
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// What docs/apply.md shows is what happens, one after another.
func TestTheExamplesOfApply(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/apply.md")
	require.NoError(t, err)
	server := served(t)
	dir := t.TempDir()
	ran := 0
	for _, block := range regexp.MustCompile("(?s)```(yaml|console)\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if block[1] == "yaml" {
			name, _, _ := strings.Cut(strings.TrimPrefix(block[2], "# "), "\n")
			write(t, dir, name, block[2])
			continue
		}
		for _, example := range strings.Split(block[2], "$ riverbeat ")[1:] {
			command, want, _ := strings.Cut(example, "\n")
			args := strings.Fields(command)
			for i := range args {
				if args[i] == "shop" && args[i-1] == "-f" {
					args[i] = filepath.Join(dir, "shop")
				}
			}
			code, got := runs(t, server, args...)
			require.Equal(t, want, got, command)
			require.Equal(t, strings.Contains(want, "riverbeat: the schedules are not"), code == exitDifferences, command)
			ran++
		}
	}
	require.Equal(t, 7, ran)
}

func TestApplySaysWhere(t *testing.T) {
	t.Parallel()
	server := served(t)
	dir := t.TempDir()
	write(t, dir, "a.yaml", "schedules:\n- {name: a, task_name: echo, cron_expression: '@daily'}\n")
	write(t, dir, "below/b.yml", "# b\n---\nschedules:\n- name: b\n  task_name: echo\n  cron_expression: daily\n  task_param: {}\n")
	write(t, dir, ".hidden.yaml", "!")
	code, out := runs(t, server, "apply", "-f", dir, "--managed-by", "x")
	require.Equal(t, exitError, code)
	require.Contains(t, out, filepath.Join(dir, "below/b.yml")+`:7 task_param: is not known; did you mean "task_params"?`)
	require.Contains(t, out, filepath.Join(dir, "below/b.yml")+`:6 cron_expression: `)
	_, out = runs(t, server, "schedules", "list")
	require.Contains(t, out, "There are no schedules.")

	for _, tt := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "--managed-by is needed", []string{"apply", "-f", dir}},
		{exitUsage, "-f is needed", []string{"diff", "--managed-by", "x"}},
		{exitUsage, "there is no *.yaml", []string{"apply", "-f", t.TempDir(), "--managed-by", "x", "--prune"}},
		{exitUsage, "--max-prune: ", []string{"apply", "-f", dir, "--managed-by", "x", "--prune", "--max-prune", "all"}},
		{exitUsage, "--max-prune goes with", []string{"apply", "-f", dir, "--managed-by", "x", "--max-prune", "1"}},
		{exitError, "no such file", []string{"apply", "-f", filepath.Join(dir, "none"), "--managed-by", "x"}},
	} {
		code, out := runs(t, server, tt.args...)
		require.Equal(t, tt.code, code, "%v: %s", tt.args, out)
		require.Contains(t, out, tt.want)
	}

	twins := `{"schedules": [{"id": %q, "name": "a", "task_name": "echo", "cron_expression": "@daily"}]}`
	one := write(t, t.TempDir(), "one.json", fmt.Sprintf(twins, "6f1c7a52-8b0e-4a55-9d0c-2f6f3a0f6f11"))
	code, out = runs(t, server, "apply", "-f", one, "--managed-by", "x")
	require.Equal(t, exitOK, code, out)
	code, out = runs(t, server, "apply", "-f", one, "--managed-by", "y", "--dry-run")
	require.Equal(t, exitConflict, code)
	require.Contains(t, out, "! conflict a\n")
	require.Contains(t, out, one+`:1: The schedule 6f1c7a52-8b0e-4a55-9d0c-2f6f3a0f6f11 is managed by "x".`)
	code, out = runs(t, server, "apply", "-f", one, "--managed-by", "y")
	require.Equal(t, exitConflict, code)
	require.Contains(t, out, "one.json:1: ")
}

// What people have made comes into files, and is managed from there.
func TestWhatNobodyManagesIsAdopted(t *testing.T) {
	t.Parallel()
	server := served(t)
	for range 2 { // of one name, which is made
		response, err := http.Post(server+"/api/v1/schedules", "application/json", strings.NewReader(`{"task_name": "echo", "cron_expression": "@daily", "task_params": {"big": 123456789012345678901234567890}}`)) //nolint:noctx // a test
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusCreated, response.StatusCode)
	}
	code, exported := runs(t, server, "export", "--managed-by", "", "--task", "echo", "--ids")
	require.Equal(t, exitOK, code, exported)
	file := write(t, t.TempDir(), "office.yaml", exported)
	code, out := runs(t, server, "apply", "-f", file, "--managed-by", "office")
	require.Equal(t, exitConflict, code, out)
	require.Contains(t, out, file+":2: ")
	code, out = runs(t, server, "apply", "-f", file, "--managed-by", "office", "--adopt")
	require.Equal(t, exitOK, code, out)
	require.Contains(t, out, "2 schedules: 2 changed.\n")
	require.Contains(t, out, "    managed_by:\n      - null\n      + \"office\"\n")
	code, out = runs(t, server, "diff", "-f", file, "--managed-by", "office", "--prune")
	require.Equal(t, exitOK, code, out)
	_, again := runs(t, server, "export", "--managed-by", "office")
	require.Equal(t, exported, again, "two of one name have their ids anyway")
}

// anyJSON is a JSON value with all that YAML could take for something else.
func anyJSON(depth int) *rapid.Generator[string] {
	text := rapid.Custom(func(t *rapid.T) string {
		s := rapid.OneOf(
			rapid.SampledFrom([]string{
				"", " ", "on", "No", "y", "null", "~", "true", "1e3", "1.0", "012", "0x1F", "12:30", "1_000", ".5", "+1", ".inf", "<<", "=", "- a", "a: b", "a #b", "#", "*a", "&a", "!a", "%a", "@a", "`a",
				"a\nb", "a\n", "\na", " a\n b\n", "a\n\n", "a \nb", "\ta", "a\tb\n\tc", "\r\n", "\u0085", "\u2028", "\ufeff", "\u007f", "\u009f", "\ufffd", "日本\n語", "😀", "---", "...", "--- a\nb", "2026-01-01", "a\\nb", "\"", "'", "{a}", "[a]", "?", "-", ":", "a:", ",",
			}),
			rapid.String(),
			rapid.StringMatching(`[ -~\n]{0,40}`),
		).Draw(t, "text")
		s = strings.ReplaceAll(s, "\x00", "0")
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	})
	scalar := rapid.OneOf(text, text, rapid.SampledFrom([]string{
		"null", "true", "false", "0", "-0", "1.0", "1.50", "1e400", "-7e-390", "1E+2", "123456789012345678901234567890", "0.1", "100000000000000000000000.5", "9007199254740993",
	}))
	if depth == 0 {
		return scalar
	}
	return rapid.OneOf(scalar,
		rapid.Map(rapid.SliceOfN(anyJSON(depth-1), 0, 3), func(items []string) string { return "[" + strings.Join(items, ",") + "]" }),
		rapid.Custom(func(t *rapid.T) string {
			var members []string
			for key, value := range rapid.MapOfN(text, anyJSON(depth-1), 0, 3).Draw(t, "members") {
				members = append(members, key+":"+value)
			}
			return "{" + strings.Join(members, ",") + "}"
		}))
}

// YAML that is written is read as the very JSON that it was made of, digits and order
// included.
func TestYAMLComesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var want bytes.Buffer
		item := `{"params":` + anyJSON(3).Draw(t, "value") + `}`
		if err := json.Compact(&want, []byte(item)); err != nil {
			t.Fatal(err)
		}
		var written bytes.Buffer
		o := &output{w: &written, format: asYAML}
		if err := show(o, noun[plan]{}, json.RawMessage(`{"schedules":[`+item+`]}`)); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{written.String(), `{"schedules":[` + item + `]}`} {
			m, err := manifest.Read(manifest.File{Name: "f", Text: []byte(text)})
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if got := respelled(m.Schedules[0]); got != respelled(want.Bytes()) {
				t.Fatalf("%s\nbecame\n%s\nby\n%s", want.String(), got, text)
			}
		}
	})
}

// respelled is JSON with its strings escaped in one way, and its numbers as they are.
func respelled(raw []byte) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var b strings.Builder
	for {
		token, err := d.Token()
		if err != nil {
			return b.String()
		}
		fmt.Fprintf(&b, "%T %q,", token, fmt.Sprint(token))
	}
}

// What is exported is applied again without a change, whatever is in it.
func TestWhatIsExportedIsApplied(t *testing.T) {
	t.Parallel()
	server := served(t)
	optional := func(t *rapid.T, name string, values ...string) string {
		if value := rapid.SampledFrom(append([]string{""}, values...)).Draw(t, name); value != "" {
			return fmt.Sprintf(", %q: %s", name, value)
		}
		return ""
	}
	rapid.Check(t, func(r *rapid.T) {
		object := rapid.Custom(func(r *rapid.T) string {
			var members []string
			for i := range rapid.IntRange(0, 3).Draw(r, "n") {
				members = append(members, fmt.Sprintf(`"k%d": %s`, i, storable.ReplaceAllString(anyJSON(2).Draw(r, "value"), "0")))
			}
			return "{" + strings.Join(members, ", ") + "}"
		})
		var items []string
		for i := range rapid.IntRange(1, 4).Draw(r, "schedules") {
			items = append(items, fmt.Sprintf(`{"name": "no. %d", "task_name": "echo", "cron_expression": "*/5 * * * *", "task_params": %s%s}`, i, object.Draw(r, "params"),
				optional(r, "enabled", "true", "false")+optional(r, "tags", `["on", "1.0"]`, `["é"]`)+optional(r, "timezone", `"Asia/Tokyo"`)+
					optional(r, "description", `"a\nb\n"`, `" x"`, `"no"`)+optional(r, "catch_up", `"all"`)+optional(r, "catch_up_window", "90", `"2h"`)+
					optional(r, "retry", `{"backoff": 1}`)+optional(r, "alerts", `{"url": "https://example.com", "on": ["failing"]}`)+
					optional(r, "starts_at", `"2026-01-01T00:00:00.123456Z"`)+optional(r, "category", `""`, `"no"`)+optional(r, "max_attempts", "7")+optional(r, "args", `["0x1", 1e5, null]`)))
		}
		dir := t.TempDir()
		first := write(t, dir, "first.json", `{"schedules": [`+strings.Join(items, ",\n")+`]}`)
		code, out := runs(t, server, "apply", "-f", first, "--managed-by", "x", "--prune", "--max-prune", "100")
		if code != exitOK {
			r.Fatalf("%s\n%s", out, items)
		}
		for _, format := range []string{asYAML, asJSON} {
			_, exported := runs(t, server, "export", "--managed-by", "x", "-o", format)
			again := write(t, dir, "again.yaml", exported)
			code, out = runs(t, server, "diff", "-f", again, "--managed-by", "x", "--prune")
			if code != exitOK {
				r.Fatalf("%s\n%s", out, exported)
			}
		}
		code, out = runs(t, server, "diff", "-f", first, "--managed-by", "x", "--prune")
		if code != exitOK {
			r.Fatalf("%s\n%s", out, items)
		}
	})
}

// storable finds the numbers that the API does not keep.
var storable = regexp.MustCompile(`1e400|-7e-390`)
