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

// Reading is what was read of the settings of a process.
type Reading struct {
	// Config is what they say. Beside an error it has what could be used of them.
	Config Config
	// Places tells where the value of each setting stands, by its name: a flag, the
	// environment, a line of the settings file, with the file that has the value of a
	// secret; or that it is the default.
	Places map[string]string
	// Unknown are the RIVERBEAT_ variables of the environment that are no settings.
	Unknown []string
	// Warnings are the keys of the settings file that are others'.
	Warnings []string
}

// FromEnvironment is Load with the environment of this process.
func FromEnvironment(file string, flags map[string]string) (*Reading, error) {
	return Load(os.Environ(), file, flags)
}

// Load makes the Config of a process. environ has the form of os.Environ; file is
// the settings file, "" for the one that RIVERBEAT_CONFIG names, if any; flags are
// the flags that were given, by Setting.Flag.
//
// A value that cannot be used is an error that names its variable and where it
// stands; all of them are told at once. An unknown RIVERBEAT_ key is an error in
// the file, which is ours, and only told in the environment, which is not.
func Load(environ []string, file string, flags map[string]string) (*Reading, error) {
	r := &Reading{Places: map[string]string{}}
	environment := map[string]entry{}
	for _, text := range environ {
		if name, value, ok := strings.Cut(text, "="); ok {
			environment[name] = entry{value: value, place: "environment"}
		}
	}
	if file == "" {
		file = environment[fileName].value
	}
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if strings.HasPrefix(name, prefix) && name != fileName && !known(name) {
			r.Unknown = append(r.Unknown, name)
		}
	}
	for flag := range flags {
		if !slices.ContainsFunc(settings, func(s Setting) bool { return flag != "" && s.Flag == flag }) {
			return r, fmt.Errorf("config: no setting has the flag --%s", flag)
		}
	}
	var problems []error
	lines := map[string]entry{}
	if file != "" {
		content, err := os.ReadFile(file) //nolint:gosec // whoever starts the process names the file
		if err != nil {
			return r, fmt.Errorf("%s: %w", fileName, err)
		}
		lines, r.Warnings, problems = readLines(file, string(content))
	}
	for _, s := range settings {
		e, err := s.find(flags, environment, lines)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		r.Places[s.Name] = e.place
		fault := ""
		if e.value != "" {
			fault = s.set(&r.Config, e.value)
		}
		if fault == "" && s.check != nil {
			fault = s.check(&r.Config)
		}
		if fault != "" {
			problems = append(problems, s.problem(s.at(e), e.value, fault))
		}
	}
	return r, joined(problems)
}

// entry is the value of a setting, as it was written, and where it stands.
type entry struct{ value, place string }

// find tells the entry that counts for s: that of its flag, else that of the first of the
// sources that has one.
func (s *Setting) find(flags map[string]string, sources ...map[string]entry) (entry, error) {
	e := entry{}
	if v, ok := flags[s.Flag]; ok && s.Flag != "" {
		e = entry{v, "--" + s.Flag}
	} else {
		for _, source := range sources {
			found, ok, err := s.in(source)
			if err != nil {
				return entry{}, err
			}
			if ok {
				e = found
				break
			}
		}
	}
	if e.value = strings.TrimSpace(e.value); e.value == "" {
		e = entry{s.Default, "default"}
	}
	return e, nil
}

// in tells the entry of s in one of the sources, and whether it has one. The value of a
// secret may stand in a file that the source names instead.
func (s *Setting) in(source map[string]entry) (e entry, ok bool, err error) {
	e, ok = source[s.Name]
	if s.FileName() == "" {
		return e, ok, nil
	}
	named, also := source[s.FileName()]
	file := strings.TrimSpace(named.value)
	if file == "" {
		return e, ok || also, nil
	}
	if strings.TrimSpace(e.value) != "" {
		return entry{}, false, fmt.Errorf("%s: is set beside %s; set one of them", s.at(e), s.FileName())
	}
	value, err := readSecret(file)
	if err == nil && strings.TrimSpace(value) == "" {
		err = fmt.Errorf("%s is empty", file)
	}
	if err != nil {
		return entry{}, false, fmt.Errorf("%s: %w", at(s.FileName(), named), err)
	}
	return entry{value, named.place + ", " + file}, true, nil
}

func (s *Setting) at(e entry) string { return at(s.Name, e) }

// at names a setting and, unless it is plain, the place of its value.
func at(name string, e entry) string {
	if e.place == "environment" || e.place == "default" {
		return name
	}
	return name + " (" + e.place + ")"
}

func known(name string) bool {
	return slices.ContainsFunc(settings, func(s Setting) bool { return s.Name == name || s.FileName() == name })
}

// joined is one error for all problems, one line each; nil if there are none.
func joined(problems []error) error {
	if len(problems) == 1 {
		return problems[0]
	}
	return errors.Join(problems...)
}

// readLines reads the KEY=value lines of a settings file. Empty lines and those that begin
// with # mean nothing, "export " before a key is passed over, and quotes around a whole
// value are taken off; inside a value nothing is expanded and # is a character.
func readLines(file, content string) (lines map[string]entry, warnings []string, problems []error) {
	lines = map[string]entry{}
	numbers := map[string]int{}
	number := 0
	for text := range strings.Lines(strings.TrimPrefix(content, "\ufeff")) {
		number++
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(text, "export "), "=")
		name = strings.TrimSpace(name)
		place := fmt.Sprintf("%s:%d", file, number)
		switch {
		case !ok || name == "":
			problems = append(problems, fmt.Errorf("%s: is not of the form KEY=value", place))
		case name == fileName:
			problems = append(problems, fmt.Errorf("%s: %s names this file and cannot stand in it", place, name))
		case numbers[name] != 0:
			problems = append(problems, fmt.Errorf("%s: %s stands in line %d already", place, name, numbers[name]))
		case known(name):
			lines[name], numbers[name] = entry{unquoted(strings.TrimSpace(value)), place}, number
		case strings.HasPrefix(name, prefix):
			problems = append(problems, fmt.Errorf("%s: %s is not a setting", place, name))
		default:
			warnings = append(warnings, fmt.Sprintf("%s: %s is not a setting and is ignored", place, name))
		}
	}
	return lines, warnings, problems
}

// unquoted takes a pair of quotes off that stands around the whole value.
func unquoted(value string) string {
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return value[1 : n-1]
	}
	return value
}
