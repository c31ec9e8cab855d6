package config_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/config"
)

var update = flag.Bool("update", false, "write the files that are made from the code")

// Each setting is written down twice, as a row and as a field; the comment of the
// field must agree with the row.
func TestFieldsAreDocumented(t *testing.T) {
	t.Parallel()

	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	require.NoError(t, err)
	comments := map[string]string{} // by variable
	variable := regexp.MustCompile(`^\w+ is ([A-Z_]+): `)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "Config" {
			return true
		}
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			comment := strings.Join(strings.Fields(field.Doc.Text()), " ")
			m := variable.FindStringSubmatch(comment)
			require.NotNil(t, m, "%s: the comment must begin with its name and that of its variable", field.Names[0])
			require.NotContains(t, comments, m[1])
			comments[m[1]] = comment
		}
		return false
	})
	settings := config.Settings()
	require.Len(t, comments, len(settings))
	for _, s := range settings {
		def := s.Default
		if def == "" {
			def = "none"
		}
		require.Regexp(t, `Default `+regexp.QuoteMeta(def)+`\b`, comments[s.Name], s.Name)
	}
}

func TestNamesAndFlagsAgree(t *testing.T) {
	t.Parallel()

	seen := map[string]bool{"config": true} // --config FILE
	for _, s := range config.Settings() {
		if s.Flag == "" {
			continue
		}
		require.False(t, seen[s.Flag], s.Flag)
		seen[s.Flag] = true
		name := strings.ToUpper(strings.ReplaceAll(s.Flag, "-", "_"))
		require.Equal(t, name, strings.TrimPrefix(s.Name, "RIVERBEAT_"))
		require.Equal(t, s.Bool, s.Default == "false", s.Name)
	}
}

// TestConfigurationPage holds that docs/configuration.md is what the settings
// say; with -update it writes the page.
func TestConfigurationPage(t *testing.T) {
	t.Parallel()

	name := filepath.Join("..", "..", "docs", "configuration.md")
	page := configurationPage()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(page), 0o644))
		return
	}
	written, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, string(written), page, "docs/configuration.md is out of date: run make generate")
}

func configurationPage() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Written by make generate from internal/config/settings.go. Do not edit. -->

A setting has one name everywhere: the environment variable, the key in the
settings file, and the word in an error message are the same. Most have a flag,
too.

**Flags beat the environment, the environment beats the file, the file beats the
default.** In each of them an empty value stands for the default.

| Setting | Flag | Value | Default |
|---|---|---|---|
`)
	for _, s := range config.Settings() {
		flag, def := "none", "none"
		if s.Flag != "" {
			flag = "`--" + s.Flag + "`"
		}
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s | %s |\n", s.Name, strings.ToLower(s.Name), flag, s.Unit, def)
	}
	b.WriteString(`
The settings are read once, when the process starts. ` + "`dev`" + ` and ` + "`serve`" + ` log all
of them, passwords and keys left out; ` + "`riverbeat config show`" + ` prints them with the place
where each stands, and ` + "`riverbeat config check`" + ` tells whether ` + "`serve`" + ` would start with
them, without a database.

## The settings file

` + "`--config FILE`" + ` or ` + "`RIVERBEAT_CONFIG=FILE`" + ` names a file of ` + "`KEY=value`" + ` lines:

` + "```sh" + `
# riverbeat.env
DATABASE_URL=postgres://riverbeat@db.internal:5432/app
RIVERBEAT_QUEUES=default=100,slow=5
RIVERBEAT_TIMEZONE=Asia/Tokyo
` + "```" + `

Empty lines and lines that begin with ` + "`#`" + ` mean nothing. ` + "`export `" + ` before a key is
passed over and a pair of quotes around a whole value is taken off. Nothing is
expanded, and a ` + "`#`" + ` inside a value belongs to it. A ` + "`RIVERBEAT_`" + ` key that is not
in the list above, or a key that stands there twice, is an error that names its
line; such a variable in the environment is a warning, as are other keys in the
file. ` + "`riverbeat config check`" + ` refuses that variable, too.

## Secrets in files

A secret need not stand in the environment or in the settings file: in either of them
the name with ` + "`_FILE`" + ` behind it names a file that has the value, a line break at its end
left out, such as Docker, Kubernetes and systemd put there:

`)
	for _, s := range config.Settings() {
		if name := s.FileName(); name != "" {
			fmt.Fprintf(&b, "- `%s`\n", name)
		}
	}
	b.WriteString(`
A file that is missing, empty, unreadable or larger than 128 KiB is an error, and so are
both names at once.

## The settings one by one
`)
	for _, s := range config.Settings() {
		fmt.Fprintf(&b, "\n### `%s`\n\n%s\n", s.Name, s.Doc)
	}
	return b.String()
}
