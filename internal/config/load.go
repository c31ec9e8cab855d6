package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

var errNoDatabase = errors.New(databaseURLName + ": is not set; say where the database is with a URL such as postgres://user:password@host:5432/database")

// FromEnvironment is Load with the environment of this process.
func FromEnvironment(file string, flags map[string]string) (Config, []string, error) {
	return Load(os.Environ(), file, flags)
}

// Load makes the Config of a process. environ has the form of os.Environ; file is
// the settings file, "" for the one that RIVERBEAT_CONFIG names, if any; flags are
// the flags that were given, by Setting.Flag.
//
// A value that cannot be used is an error that names its variable and where it
// stands; all of them are told at once. An unknown RIVERBEAT_ key is an error in
// the file, which is ours, and a warning in the environment, which is not.
func Load(environ []string, file string, flags map[string]string) (Config, []string, error) {
	environment := map[string]string{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			environment[name] = value
		}
	}
	if file == "" {
		file = environment[fileName]
	}

	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if strings.HasPrefix(name, prefix) && name != fileName && !known(name) {
			warnings = append(warnings, name+": is not a setting and is ignored")
		}
	}
	lines := map[string]line{}
	if file != "" {
		var more []string
		var err error
		lines, more, err = readFile(file)
		warnings = append(warnings, more...)
		if err != nil {
			return Config{}, warnings, err
		}
	}
	for flag := range flags {
		if !slices.ContainsFunc(settings, func(s Setting) bool { return flag != "" && s.Flag == flag }) {
			return Config{}, warnings, fmt.Errorf("config: no setting has the flag --%s", flag)
		}
	}

	var c Config
	var problems []error
	for _, s := range settings {
		value, where := s.find(flags, environment, file, lines)
		fault := ""
		if value != "" {
			fault = s.set(&c, value)
		}
		if fault == "" && s.check != nil {
			fault = s.check(&c)
		}
		if fault != "" {
			problems = append(problems, s.problem(where, value, fault))
		}
	}
	if err := joined(problems); err != nil {
		return Config{}, warnings, err
	}
	return c, warnings, nil
}

// find tells the value that counts for s, as it was written, and where it stands.
func (s *Setting) find(flags, environment map[string]string, file string, lines map[string]line) (value, where string) {
	where = s.Name
	if v, ok := flags[s.Flag]; ok && s.Flag != "" {
		value, where = v, s.Name+" (--"+s.Flag+")"
	} else if v, ok := environment[s.Name]; ok {
		value = v
	} else if l, ok := lines[s.Name]; ok {
		value, where = l.value, fmt.Sprintf("%s (%s:%d)", s.Name, file, l.number)
	}
	if value = strings.TrimSpace(value); value == "" {
		value = s.Default
	}
	return value, where
}

func known(name string) bool {
	return slices.ContainsFunc(settings, func(s Setting) bool { return s.Name == name })
}

// joined is one error for all problems, one line each; nil if there are none.
func joined(problems []error) error {
	if len(problems) == 1 {
		return problems[0]
	}
	return errors.Join(problems...)
}

// line is a setting's value in the file.
type line struct {
	number int
	value  string
}

// readFile reads KEY=value lines. Empty lines and those that begin with # mean
// nothing, "export " before a key is passed over, and quotes around a whole value
// are taken off; inside a value nothing is expanded and # is a character.
func readFile(file string) (lines map[string]line, warnings []string, err error) {
	content, err := os.ReadFile(file) //nolint:gosec // whoever starts the process names the file
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", fileName, err)
	}
	lines = map[string]line{}
	var problems []error
	number := 0
	for text := range strings.Lines(strings.TrimPrefix(string(content), "\ufeff")) {
		number++
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(text, "export "), "=")
		name = strings.TrimSpace(name)
		switch earlier, twice := lines[name]; {
		case !ok || name == "":
			problems = append(problems, fmt.Errorf("%s:%d: is not of the form KEY=value", file, number))
		case name == fileName:
			problems = append(problems, fmt.Errorf("%s:%d: %s names this file and cannot stand in it", file, number, name))
		case twice:
			problems = append(problems, fmt.Errorf("%s:%d: %s stands in line %d already", file, number, name, earlier.number))
		case known(name):
			lines[name] = line{number, unquoted(strings.TrimSpace(value))}
		case strings.HasPrefix(name, prefix):
			problems = append(problems, fmt.Errorf("%s:%d: %s is not a setting", file, number, name))
		default:
			warnings = append(warnings, fmt.Sprintf("%s:%d: %s is not a setting and is ignored", file, number, name))
		}
	}
	return lines, warnings, joined(problems)
}

// unquoted takes a pair of quotes off that stands around the whole value.
func unquoted(value string) string {
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return value[1 : n-1]
	}
	return value
}
