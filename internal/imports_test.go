// Package internal only holds the test that the layout stays what the design says:
// who may import whom, where each foreign library is at home, what lies at the top,
// and that each package says what it is for.
//
// The files are read here, not asked of go list, so that go test's cache notices
// when one of them changes.
package internal

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "riverbeat"

// layers are our packages, the topmost first. A package may import those of the
// layers below its own, and its own subpackages.
var layers = [][]string{
	{"cmd/riverbeat"},
	{"cmd/command", "internal/bench"},
	{"internal/celery", "internal/httpapi", "internal/webui", "internal/worker", "riverui"},
	{"internal/access", "internal/catalog", "internal/doctor", "internal/execute", "internal/history", "internal/installation", "internal/prune", "internal/tick", "internal/watch"},
	{"internal/ledger"},
	{"internal/metrics", "internal/postgres", "internal/queue"},
	{"internal/riverbeat", "internal/trace"},
}

// sideways are the imports that go from one package to another of its layer, each
// with its reason.
var sideways = map[edge]string{}

// beside are the packages that stand beside the layers: what each may import, and
// who may import it. Tests may import all of them.
var beside = map[string]struct{ imports, importedBy []string }{
	"internal/config": {
		imports:    []string{"internal/riverbeat"},
		importedBy: []string{"cmd/command", "internal/bench"},
	},
	// Tests, and the oracle that judges them. What they run they build; the
	// oracle's own test holds that it imports nothing of ours.
	"internal/faults": {},
	// The API from outside: what the commands of people see of a server.
	"internal/client": {
		importedBy: []string{"cmd/command"},
	},
	// What people write of schedules, as files.
	"internal/manifest": {
		importedBy: []string{"cmd/command"},
	},
	"internal/localpg": {
		importedBy: []string{"cmd/command", "internal/pgtest", "internal/bench"},
	},
	"internal/pgtest": {
		imports:    []string{"internal/postgres", "internal/queue", "internal/riverbeat"},
		importedBy: []string{"internal/bench"},
	},
	// What people of other modules write tasks with.
	"task": {
		importedBy: []string{"cmd/command", "internal/execute"},
	},
	"migrations": {
		importedBy: []string{"internal/postgres", "internal/pgtest"},
	},
}

// Homes of libraries that are no package.
const (
	anywhere = "anywhere"
	inTests  = "in tests" // files named _test.go, and pgtest
)

// libraries are the foreign libraries, each with the packages that may import it
// and what is below it, unless a longer path says otherwise. Tests may import all
// of them. A library that is not here may not be used.
var libraries = map[string][]string{
	"code.dny.dev/ssrf":                                        {"internal/execute"}, // where a request may go
	"github.com/coreos/go-systemd/v22":                         {"cmd/command"},      // the node is ready
	"github.com/danielgtaylor/huma/v2":                         {"internal/httpapi"},
	"github.com/gin-gonic/gin":                                 {"internal/httpapi", "internal/webui", "riverui"},
	"github.com/google/uuid":                                   {anywhere},
	"github.com/invopop/jsonschema":                            {"task", "internal/execute"},
	"github.com/jackc/pgx/v5":                                  {"internal/postgres", "internal/celery", "internal/queue", "internal/worker", "internal/execute", "internal/localpg", "internal/pgtest", "internal/bench", "internal/faults", "riverui"},
	"github.com/jackc/tern/v2":                                 {"internal/postgres"},
	"github.com/kaptinlin/jsonschema":                          {"internal/riverbeat"},
	"github.com/mattn/go-runewidth":                            {"cmd/command"},
	"github.com/prometheus/client_golang":                      {"internal/metrics", "internal/httpapi"},
	"github.com/riverqueue/apiframe":                           {"riverui"}, // River UI's
	"github.com/riverqueue/river":                              {"internal/queue", "internal/worker", "internal/execute", "internal/bench", "riverui"},
	"github.com/riverqueue/river/riverdriver/riverpgxv5":       {"internal/postgres", "internal/queue", "internal/worker", "internal/execute", "internal/bench", "riverui"},
	"github.com/riverqueue/river/rivermigrate":                 {"internal/postgres", "internal/bench"},
	"github.com/robfig/cron/v3":                                {"internal/riverbeat"},
	"github.com/spf13/cobra":                                   {"cmd/command"},
	"github.com/spf13/pflag":                                   {"cmd/command"}, // cobra's flags
	"github.com/standard-webhooks/standard-webhooks/libraries": {"internal/execute"},
	"github.com/swaggest/swgui":                                {"internal/httpapi"},
	"github.com/vgarvardt/pgx-google-uuid/v5":                  {"internal/postgres"},
	"go.opentelemetry.io/otel":                                 {"internal/trace"},
	"go.yaml.in/yaml/v3":                                       {"cmd/command", "internal/manifest"},
	"golang.org/x/sync":                                        {"internal/bench", "internal/postgres", "internal/tick"},
	"golang.org/x/sys":                                         {"internal/execute"}, // the clock that processes share
	"golang.org/x/term":                                        {"cmd/command"},
	"golang.org/x/time":                                        {"internal/access"},
	"riverqueue.com/riverui":                                   {"riverui"},

	"github.com/prometheus/client_model": {inTests},
	"github.com/prometheus/common":       {inTests},
	"github.com/prometheus/prometheus":   {inTests}, // its PromQL
	"github.com/stretchr/testify":        {inTests},
	"go.uber.org/goleak":                 {inTests},
	"k8s.io/api":                         {inTests}, // what deploy/kubernetes is held to
	"k8s.io/apimachinery":                {inTests},
	"k8s.io/pod-security-admission":      {inTests},
	"go.opentelemetry.io/proto/otlp":     {inTests}, // what a collector is told
	"google.golang.org/protobuf":         {inTests},
	"pgregory.net/rapid":                 {inTests},
	"sigs.k8s.io/yaml":                   {inTests},
	"sigs.k8s.io/json":                   {inTests},
}

// top is all that may lie at the top, beside files and folders that begin with a
// dot and what git does not keep (bin, tmp).
var top = []string{
	"cmd", "internal", "migrations", "riverui", "docs", "deploy",
	"task", // an importable package: nobody outside may import what is in internal
	"go.mod", "go.sum", "Makefile", "Dockerfile", "docker-compose.yml",
	"README.md", "CHANGELOG.md", "LICENSE",
	"bin", "tmp",
}

// notYet are the packages that are still being written: they may be missing, and a
// library at home in a missing one need not be in use. When the last of them is
// there, the test asks for this list to go.
var notYet = []string{
	"cmd/riverbeat",
	"internal/access", "internal/bench", "internal/catalog", "internal/execute", "internal/history",
	"internal/httpapi", "internal/pgtest", "internal/webui", "internal/worker",
	"riverui",
}

func TestImportsGoDown(t *testing.T) {
	t.Parallel()

	files := goFiles(t)
	used := map[edge]bool{}
	var problems []string
	for _, f := range files {
		if f.test {
			continue // a test looks at its package from outside
		}
		if !placed(f.unit) {
			problems = append(problems, fmt.Sprintf("%s: package %s has no place in layers or beside", f.name, f.unit))
			continue
		}
		for _, imported := range f.imports {
			to, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			e := edge{f.unit, unitOf(to)}
			used[e] = true
			if !allowed(e) {
				problems = append(problems, fmt.Sprintf("%s: %s may not import %s", f.name, e.from, e.to))
			}
		}
	}

	for e, reason := range sideways {
		if !used[e] || reason == "" {
			problems = append(problems, fmt.Sprintf("sideways: %s -> %s is not in use, or has no reason", e.from, e.to))
		}
	}
	for _, unit := range slices.Concat(slices.Concat(layers...), slices.Collect(maps.Keys(beside))) {
		if !exists(files, unit) && !slices.Contains(notYet, unit) {
			problems = append(problems, fmt.Sprintf("layers, beside: there is no package %s", unit))
		}
	}
	none(t, problems)
}

func TestNotYetIsNotForever(t *testing.T) {
	t.Parallel()

	files := goFiles(t)
	missing := slices.ContainsFunc(notYet, func(unit string) bool { return !exists(files, unit) })
	require.True(t, missing || len(notYet) == 0, "every package of notYet is there: empty the list")
}

func TestLibrariesAreAtHome(t *testing.T) {
	t.Parallel()

	files := goFiles(t)
	used := map[string]bool{}
	var problems []string
	for _, f := range files {
		test := f.test || f.unit == "internal/pgtest"
		for _, imported := range f.imports {
			domain, _, _ := strings.Cut(imported, "/")
			if !strings.Contains(domain, ".") {
				continue // ours, or the standard library's
			}
			library := libraryOf(imported)
			homes := libraries[library]
			switch {
			case library == "":
				problems = append(problems, fmt.Sprintf("%s: %s has no home in libraries", f.name, imported))
			case slices.Contains(homes, anywhere), slices.Contains(homes, f.unit), slices.Contains(homes, inTests) && test:
				used[library] = used[library] || !f.test || slices.Contains(homes, inTests)
			case !test:
				problems = append(problems, fmt.Sprintf("%s: %s is at home in %v only", f.name, imported, homes))
			}
		}
	}

	for library, homes := range libraries {
		awaited := slices.ContainsFunc(notYet, func(unit string) bool {
			return !exists(files, unit) && (slices.Contains(homes, unit) || slices.Contains(homes, inTests))
		})
		if !used[library] && !awaited {
			problems = append(problems, fmt.Sprintf("libraries: nobody at home imports %s", library))
		}
	}
	none(t, problems)
}

func TestTopLevel(t *testing.T) {
	t.Parallel()

	entries, err := os.ReadDir("..")
	require.NoError(t, err)
	var problems []string
	for _, entry := range entries {
		if name := entry.Name(); !strings.HasPrefix(name, ".") && !slices.Contains(top, name) {
			problems = append(problems, name+": does not belong at the top")
		}
	}
	none(t, problems)
}

func TestPackagesAreDocumentedOnce(t *testing.T) {
	t.Parallel()

	docs := map[string][]string{} // files with a package comment, by folder
	for _, f := range goFiles(t) {
		if f.test || f.generated {
			continue
		}
		dir := path.Dir(f.name)
		docs[dir] = append(docs[dir], f.documented...)
	}
	var problems []string
	for dir, files := range docs {
		switch len(files) {
		case 0:
			problems = append(problems, dir+": has no package comment")
		case 1:
		default:
			problems = append(problems, fmt.Sprintf("%s: has a package comment in each of %v", dir, files))
		}
	}
	none(t, problems)
}

// The rules that hold the rules.
func TestAllowed(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{"cmd/command", "internal/httpapi", true},
		{"cmd/command", "internal/config", true},
		{"internal/httpapi", "internal/riverbeat", true},
		{"internal/tick", "internal/ledger", true},
		{"internal/postgres", "internal/postgres", true},
		{"internal/postgres", "migrations", true},
		{"internal/pgtest", "internal/localpg", true},
		{"internal/bench", "internal/pgtest", true},
		{"internal/riverbeat", "internal/postgres", false},
		{"internal/tick", "internal/httpapi", false},
		{"internal/tick", "internal/catalog", false},
		{"internal/tick", "internal/config", false},
		{"internal/tick", "internal/pgtest", false},
		{"internal/httpapi", "cmd/command", false},
		{"internal/riverbeat", "task", false},
		{"task", "internal/riverbeat", false},
		{"internal/config", "internal/postgres", false},
		{"internal/localpg", "internal/riverbeat", false},
		{"migrations", "internal/riverbeat", false},
		{"internal/tick", "internal/unknown", false},
		{"internal/unknown", "internal/riverbeat", false},
	} {
		require.Equal(t, tt.want, allowed(edge{tt.from, tt.to}), "%s -> %s", tt.from, tt.to)
	}
}

func TestLibraryOf(t *testing.T) {
	t.Parallel()

	require.Equal(t, "github.com/riverqueue/river", libraryOf("github.com/riverqueue/river"))
	require.Equal(t, "github.com/riverqueue/river", libraryOf("github.com/riverqueue/river/rivertype"))
	require.Equal(t, "github.com/riverqueue/river/rivermigrate", libraryOf("github.com/riverqueue/river/rivermigrate"))
	require.Empty(t, libraryOf("github.com/riverqueue/rivercontrib"))
	require.Empty(t, libraryOf("github.com/jackc/pgx/v4"))
}

// edge is an import from one of our packages to another.
type edge struct{ from, to string }

func allowed(e edge) bool {
	if e.from == e.to {
		return true
	}
	if !placed(e.from) || !placed(e.to) {
		return false
	}
	if _, ok := sideways[e]; ok {
		return true
	}
	if to, ok := beside[e.to]; ok {
		return slices.Contains(to.importedBy, e.from)
	}
	if from, ok := beside[e.from]; ok {
		return slices.Contains(from.imports, e.to)
	}
	return layerOf(e.from) < layerOf(e.to)
}

func placed(unit string) bool {
	_, ok := beside[unit]
	return ok || layerOf(unit) >= 0
}

// layerOf tells the layer of a unit, 0 for the topmost; -1 if it is in none.
func layerOf(unit string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, unit) })
}

// unitOf tells to which package of layers or beside a folder belongs: subpackages
// share the place of their parent.
func unitOf(dir string) string {
	parts := strings.Split(dir, "/")
	depth := 1
	if parts[0] == "cmd" || parts[0] == "internal" {
		depth = 2
	}
	return strings.Join(parts[:min(depth, len(parts))], "/")
}

// libraryOf tells the longest entry of libraries that covers an import; "" if none
// does.
func libraryOf(imported string) string {
	for p := imported; p != "."; p = path.Dir(p) {
		if _, ok := libraries[p]; ok {
			return p
		}
	}
	return ""
}

// goFile is what the rules need to know of one file.
type goFile struct {
	name       string // from the top of the repository, with slashes
	unit       string
	test       bool
	generated  bool
	documented []string // its own base name, if it has a package comment
	imports    []string
}

// goFiles reads every Go file of the repository.
func goFiles(t *testing.T) []goFile {
	t.Helper()

	var files []goFile
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			base := entry.Name()
			if name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || name == "bin" || name == "tmp") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", filepath.FromSlash(name)), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		f := goFile{
			name: name, unit: unitOf(path.Dir(name)),
			test: strings.HasSuffix(name, "_test.go"), generated: ast.IsGenerated(parsed),
		}
		if parsed.Doc != nil {
			f.documented = []string{path.Base(name)}
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imported)
		}
		files = append(files, f)
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// exists tells whether a unit has code of its own.
func exists(files []goFile, unit string) bool {
	return slices.ContainsFunc(files, func(f goFile) bool { return f.unit == unit && !f.test })
}

// none fails the test with all problems, one a line.
func none(t *testing.T, problems []string) {
	t.Helper()
	if len(problems) > 0 {
		slices.Sort(problems)
		require.Fail(t, "The layout is broken.", strings.Join(slices.Compact(problems), "\n"))
	}
}
