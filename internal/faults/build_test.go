package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// root is the top of the repository.
const root = "../.."

// change is one replacement in a source file; what is replaced must be there
// exactly once. Where nothing is replaced, the file is new.
type change struct{ file, old, new string }

// shiftedClock makes a process read its clock FAULTS_SHIFT seconds off, River
// and pgx included. Only wall clocks shift; the monotonic one is nobody's to
// set on a real machine either.
func shiftedClock() (change, error) {
	out, err := exec.CommandContext(context.Background(), "go", "env", "GOROOT").Output()
	return change{
		file: filepath.Join(strings.TrimSpace(string(out)), "src", "time", "time.go"),
		old:  "	sec, nsec, mono := runtimeNow()\n",
		new: `	sec, nsec, mono := runtimeNow()
	sec += faultsShift
`,
	}, err
}

const shiftSource = `
var faultsShift = func() (shift int64) {
	text, _ := syscall.Getenv("FAULTS_SHIFT")
	negative := len(text) > 0 && text[0] == '-'
	for _, c := range []byte(text) {
		if c >= '0' && c <= '9' {
			shift = 10*shift + int64(c-'0')
		}
	}
	if negative {
		return -shift
	}
	return shift
}()
`

// program is riverbeat with the task "record" and a clock that can be shifted,
// built once.
var program = sync.OnceValues(func() (string, error) { return build("riverbeat") })

var buildDir string // set by TestMain

// build makes the binary, with changes of its source, which stays untouched.
func build(name string, changes ...change) (string, error) {
	return buildOf(root, name, changes...)
}

// buildOf is build of the source in a directory.
func buildOf(root, name string, changes ...change) (string, error) {
	shift, err := shiftedClock()
	if err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for _, c := range append(changes, shift) {
		from := c.file
		if !filepath.IsAbs(from) {
			from = filepath.Join(root, from)
		}
		if from, err = filepath.Abs(from); err != nil {
			return "", err
		}
		source := from
		if before, ok := overlay.Replace[from]; ok {
			source = before
		}
		var text []byte
		if c.old != "" {
			if text, err = os.ReadFile(source); err != nil {
				return "", err
			}
		}
		if n := strings.Count(string(text), c.old); n != 1 { // of nothing in nothing, too
			return "", fmt.Errorf("%s: the text to be replaced is there %d times, so this change is out of date:\n%s", c.file, n, c.old)
		}
		changed := strings.Replace(string(text), c.old, c.new, 1)
		if c == shift {
			changed = strings.Replace(changed, "import (\n", "import (\n\t\"syscall\"\n", 1) + shiftSource
		}
		to := filepath.Join(buildDir, fmt.Sprintf("%s-%d-%s", name, len(overlay.Replace), filepath.Base(from)))
		if err := os.WriteFile(to, []byte(changed), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[from] = to
	}
	raw, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	file, out := filepath.Join(buildDir, name+".json"), filepath.Join(buildDir, name)
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(context.Background(), "go", "build", "-tags", "faults", "-overlay", file, "-o", out, "./cmd/riverbeat")
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, text)
	}
	return out, nil
}
