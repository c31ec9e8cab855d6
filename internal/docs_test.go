package internal

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Where pages point, there is something: the files that they lead to, and in those that
// name tests, the tests of the package that was named last.
func TestPagesPointAtWhatIsThere(t *testing.T) {
	t.Parallel()

	tests := map[string]map[string]bool{} // names of test functions, by package
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, f := range goFiles(t) {
		if !f.test {
			continue
		}
		content, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(f.name)))
		require.NoError(t, err)
		dir := filepath.ToSlash(filepath.Dir(f.name))
		if tests[dir] == nil {
			tests[dir] = map[string]bool{}
		}
		for _, m := range function.FindAllStringSubmatch(string(content), -1) {
			tests[dir][m[1]] = true
		}
	}

	pages, err := filepath.Glob("../docs/*.md")
	require.NoError(t, err)
	pages = append(pages, "../README.md", "../CHANGELOG.md")
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	pointer := regexp.MustCompile("`((?:internal|cmd)/[\\w/]+|riverui)`|\\b(Test[A-Z]\\w+)")
	named := 0
	var problems []string
	for _, page := range pages {
		content, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				problems = append(problems, page+": "+m[1]+" is not there")
			}
		}
		if !slices.Contains([]string{"threat-model.md", "guarantees.md"}, filepath.Base(page)) {
			continue
		}
		dir := ""
		for _, m := range pointer.FindAllStringSubmatch(string(content), -1) {
			if m[1] != "" {
				dir = strings.TrimSuffix(m[1], "/")
				continue
			}
			if named++; !tests[dir][m[2]] {
				problems = append(problems, page+": "+dir+" has no "+m[2])
			}
		}
	}
	require.Greater(t, named, 50)
	none(t, problems)
}
