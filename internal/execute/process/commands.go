package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"riverbeat/internal/execute/secret"
	"riverbeat/internal/riverbeat"
)

// Bounds of how long a process has between SIGTERM and SIGKILL.
const (
	DefaultGrace = 5 * time.Second
	MaxGrace     = time.Minute
)

// Command is what the operator lets executors start.
type Command struct {
	// Argv is the program, by its absolute path, and its first arguments. Those of the
	// definition come behind them.
	Argv []string
	// Directory is where it works; "": a new one for each attempt, which is deleted.
	Directory string
	// Environment is all that it has of one.
	Environment map[string]riverbeat.Text
	// Grace lies between SIGTERM and SIGKILL.
	Grace time.Duration
}

// commandFile is a command as it stands in the file.
type commandFile struct {
	Argv        []string                  `json:"argv"`
	Directory   string                    `json:"directory"`
	Environment map[string]riverbeat.Text `json:"environment"`
	Grace       json.RawMessage           `json:"grace"`
}

// ReadCommands reads the file that names the commands: a JSON object with one member for
// each. A file that cannot be used is an error that tells all that is wrong with it.
func ReadCommands(file string) (map[string]Command, error) {
	content, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	var listed map[string]commandFile
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if err := d.Decode(&listed); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: something follows the JSON object", file)
	}
	commands := map[string]Command{}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		c, problem := listed[name].command()
		if strings.TrimSpace(name) == "" {
			problem = errors.New("has no name")
		}
		if problem != nil {
			wrong = append(wrong, fmt.Errorf("%s: command %q: %w", file, name, problem))
		}
		commands[name] = c
	}
	return commands, errors.Join(wrong...)
}

// variable is what names of environment variables look like (POSIX, section 8.1).
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (f commandFile) command() (Command, error) {
	c := Command{Argv: f.Argv, Directory: f.Directory, Environment: f.Environment, Grace: DefaultGrace}
	if len(c.Argv) == 0 || !filepath.IsAbs(c.Argv[0]) {
		return c, errors.New("argv must begin with the absolute path of a program")
	}
	if _, err := exec.LookPath(c.Argv[0]); err != nil {
		return c, fmt.Errorf("argv: %w", err)
	}
	if c.Directory != "" {
		about, err := os.Stat(c.Directory)
		if err == nil && (!about.IsDir() || !filepath.IsAbs(c.Directory)) {
			err = errors.New("is not the absolute path of a directory")
		}
		if err != nil {
			return c, fmt.Errorf("directory: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Environment)) {
		if !variable.MatchString(name) {
			return c, fmt.Errorf("environment: %q is not the name of a variable", name)
		}
	}
	if slices.ContainsFunc(c.Argv, hasNUL) || slices.ContainsFunc(slices.Collect(maps.Values(c.Environment)), func(t riverbeat.Text) bool { return hasNUL(t.Literal) }) {
		return c, errors.New("has a NUL character")
	}
	if len(f.Grace) > 0 && string(f.Grace) != "null" {
		var problem string
		if c.Grace, problem = riverbeat.ReadDuration(f.Grace); problem != "" {
			return c, errors.New("grace: " + problem)
		}
		if c.Grace < 0 || c.Grace > MaxGrace {
			return c, fmt.Errorf("grace: must be at most %s", riverbeat.FormatDuration(MaxGrace))
		}
	}
	return c, nil
}

// Check reads the secrets of the environment once.
func (c Command) Check(secrets *secret.Store) error {
	for _, text := range c.Environment {
		if text.Secret == "" {
			continue
		}
		if _, err := secrets.Value(text.Secret); err != nil {
			return err
		}
	}
	return nil
}

// Ending is how long processes of the commands take at most to end when they are told to.
func Ending(commands map[string]Command) time.Duration {
	var longest time.Duration
	for _, c := range commands {
		longest = max(longest, c.Grace+2*patience)
	}
	return longest
}

func hasNUL(text string) bool { return strings.ContainsRune(text, 0) }
