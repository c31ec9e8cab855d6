// Package manifest reads what people want of schedules: files in YAML or JSON become the
// body of one request, and what is wrong with that is told by file and line.
//
// What a text says is the same for every reader of YAML, or it is refused: a plain no is
// false to some and a text to others.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// maxDepth is how deep things may lie in one another, which ends also those that lie in
	// themselves.
	maxDepth = 150
	// maxSize bounds the JSON that all files together become, in bytes: a few lines can say
	// by aliases of aliases what fills the memory of any machine.
	maxSize = 16 << 20
	// costOfMerge is what a merged member counts as, whatever becomes of it.
	costOfMerge = 64
)

// File is a file as it was read.
type File struct {
	Name string // as errors tell it
	Text []byte
}

// Manifest is what files want. Its items are JSON, their members in the order of the files.
type Manifest struct {
	Schedules       []json.RawMessage
	TaskDefinitions []json.RawMessage

	places map[string]Place // by JSON pointers
}

// Place is where something stands.
type Place struct {
	File string
	Line int
}

func (p Place) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// Read reads files, each of which may have several documents. A document is an object with
// lists of schedules and of task_definitions, one of them or both.
func Read(files ...File) (*Manifest, error) {
	r := &reader{m: &Manifest{places: map[string]Place{}}}
	var errs []error
	for _, f := range files {
		r.file = f.Name
		errs = append(errs, r.read(f.Text))
	}
	return r.m, errors.Join(errs...)
}

// Place is where the thing that a pointer leads to stands, or the one that it lies in. ok is
// false if there is none.
func (m *Manifest) Place(pointer string) (place Place, ok bool) {
	for {
		if place, ok = m.places[pointer]; ok {
			return place, true
		}
		end := strings.LastIndexByte(pointer, '/')
		if end < 0 {
			return Place{}, false
		}
		pointer = pointer[:end]
	}
}

type reader struct {
	m    *Manifest
	file string
	size int // of all JSON so far
}

func (r *reader) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s: %s", Place{r.file, n.Line}, fmt.Sprintf(format, args...))
}

var errorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// hints say what people have meant by what is no YAML.
var hints = map[string]string{
	"did not find expected alphabetic or numeric character": "a text that begins with * or & needs quotes",
	"found character that cannot start any token":           "a text that begins with @, ` or % needs quotes",
}

// unreadable is an error of the library, as ours are.
func (r *reader) unreadable(err error) error {
	line, text := "", err.Error()
	if said := errorLine.FindStringSubmatch(text); said != nil {
		line, text = said[1], said[2]
	}
	if hint := hints[text]; hint != "" {
		text += "; " + hint
	}
	if line == "" {
		return fmt.Errorf("%s: %s", r.file, text)
	}
	return fmt.Errorf("%s:%s: %s", r.file, line, text)
}

func (r *reader) read(text []byte) error {
	if json.Valid(text) && utf8.Valid(text) {
		text = asYAML(text)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		err := d.Decode(&document)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.unreadable(err)
		}
		if err := r.document(document.Content[0]); err != nil {
			return err
		}
	}
}

func (r *reader) document(n *yaml.Node) error {
	if n.ShortTag() == "!!null" && n.Kind == yaml.ScalarNode {
		return nil // nothing but comments
	}
	if n.Kind != yaml.MappingNode {
		return r.errorf(n, "a document must be an object with schedules, or task_definitions")
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		lists := map[string]*[]json.RawMessage{"schedules": &r.m.Schedules, "task_definitions": &r.m.TaskDefinitions}
		list := lists[key.Value]
		switch {
		case list == nil:
			return r.errorf(key, "%q is not known; a document has schedules, or task_definitions", key.Value)
		case seen[key.Value]:
			return r.errorf(key, "%s stands twice", key.Value)
		case value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null":
			continue
		case value.Kind != yaml.SequenceNode:
			return r.errorf(value, "%s must be a list", key.Value)
		}
		seen[key.Value] = true
		for _, item := range value.Content {
			raw, err := r.value(nil, item, fmt.Sprintf("/%s/%d", key.Value, len(*list)), 0)
			if err != nil {
				return err
			}
			*list = append(*list, raw)
		}
	}
	return nil
}

// value appends a node as JSON. Its pointer is at; "" within what an alias repeats, which has
// no place of its own.
func (r *reader) value(to []byte, n *yaml.Node, at string, depth int) (json.RawMessage, error) {
	if at != "" {
		r.m.places[at] = Place{r.file, n.Line}
	}
	below := func(token string) string {
		if at == "" {
			return ""
		}
		return at + "/" + token
	}
	begun := len(to)
	var err error
	switch {
	case depth > maxDepth:
		return nil, r.errorf(n, "is nested too deep")
	case n.Kind == yaml.AliasNode:
		return r.value(to, n.Alias, "", depth+1)
	case n.Kind == yaml.ScalarNode:
		if to, err = r.scalar(to, n); err != nil {
			return nil, err
		}
		r.size += len(to) - begun
	case n.Style&yaml.TaggedStyle != 0:
		return nil, r.errorf(n, "the tag %s is not read", n.Tag)
	case n.Kind == yaml.SequenceNode:
		to = append(to, '[')
		for i, item := range n.Content {
			if i > 0 {
				to = append(to, ',')
			}
			if to, err = r.value(to, item, below(strconv.Itoa(i)), depth+1); err != nil {
				return nil, err
			}
		}
		to = append(to, ']')
		r.size += len(n.Content) + 2
	default:
		members, err := r.members(n, depth)
		if err != nil {
			return nil, err
		}
		to = append(to, '{')
		for i, m := range members {
			if i > 0 {
				to = append(to, ',')
			}
			if to, err = appendText(to, m.key.Value); err != nil {
				return nil, err
			}
			to = append(to, ':')
			if to, err = r.value(to, m.value, below(pointerToken.Replace(m.key.Value)), depth+1); err != nil {
				return nil, err
			}
			r.size += len(m.key.Value) + 4
		}
		to = append(to, '}')
		r.size += 2
	}
	if r.size > maxSize {
		return nil, r.errorf(n, "all files together say more than %d MiB; do aliases repeat it?", maxSize>>20)
	}
	return to, nil
}

var pointerToken = strings.NewReplacer("~", "~0", "/", "~1")

type member struct{ key, value *yaml.Node }

// members are the members of an object: its own, then those of the objects that it merges
// (<<) and does not have itself.
func (r *reader) members(n *yaml.Node, depth int) ([]member, error) {
	if depth > maxDepth {
		return nil, r.errorf(n, "is nested too deep")
	}
	var list []member
	var merged []*yaml.Node
	own := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0:
			return nil, r.errorf(key, "the name of a member must be a text")
		case key.ShortTag() == "!!merge":
			merged = append(merged, value)
		case own[key.Value]:
			return nil, r.errorf(key, "%q stands twice", key.Value)
		default:
			own[key.Value] = true
			list = append(list, member{key, value})
		}
	}
	for len(merged) > 0 {
		from := merged[0]
		merged = merged[1:]
		if from.Kind == yaml.AliasNode {
			from = from.Alias
		}
		switch from.Kind {
		case yaml.SequenceNode:
			if depth++; depth > maxDepth {
				return nil, r.errorf(from, "is nested too deep")
			}
			merged = append(from.Content[:len(from.Content):len(from.Content)], merged...)
		case yaml.MappingNode:
			more, err := r.members(from, depth+1)
			if err != nil {
				return nil, err
			}
			for _, m := range more {
				if !own[m.key.Value] {
					own[m.key.Value] = true
					list = append(list, m)
				}
			}
			if r.size += costOfMerge * (len(more) + 1); r.size > maxSize {
				return nil, r.errorf(from, "is merged too often")
			}
		default:
			return nil, r.errorf(from, "<< takes an object, or a list of them")
		}
	}
	return list, nil
}

var (
	number = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
	// otherNumber is what some readers take for a number, and JSON has no word for.
	otherNumber = regexp.MustCompile(`^[-+]?(\.?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|0[xob][0-9a-fA-F_]+|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$|^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)
)

// isNumber tells whether JSON has a plain text for a number, or only some readers have.
func isNumber(text string) (toAll, toSome bool) {
	if text == "" || !strings.ContainsRune("+-.0123456789", rune(text[0])) {
		return false, false
	}
	return number.MatchString(text), otherNumber.MatchString(text)
}

// isOtherWord tells whether a plain text is true or false to some readers.
func isOtherWord(text string) bool {
	switch text {
	case "y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF":
		return true
	}
	return false
}

func (r *reader) scalar(to []byte, n *yaml.Node) ([]byte, error) {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	text := n.Value
	switch {
	case n.Style&yaml.TaggedStyle != 0 && n.ShortTag() != "!!str":
		return nil, r.errorf(n, "the tag %s is not read", n.Tag)
	case n.Style&(quoted|yaml.TaggedStyle) != 0:
		return appendText(to, text)
	}
	switch text {
	case "", "~", "null", "Null", "NULL":
		return append(to, "null"...), nil
	case "true", "True", "TRUE":
		return append(to, "true"...), nil
	case "false", "False", "FALSE":
		return append(to, "false"...), nil
	}
	switch toAll, toSome := isNumber(text); {
	case toAll:
		return append(to, text...), nil
	case isOtherWord(text):
		return nil, r.errorf(n, `%s means true or false to some and a text to others: write true, false or "%s"`, text, text)
	case toSome:
		return nil, r.errorf(n, `%s is a number to some and a text to others: write a number as JSON has it, or "%s"`, text, text)
	}
	return appendText(to, text)
}

// appendText appends a JSON string, with no more escapes than there must be.
func appendText(to []byte, text string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		return nil, err
	}
	return append(to, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...), nil
}

var escapes = regexp.MustCompile(`\\(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|.)`)

// asYAML is a JSON text without what YAML reads otherwise: escapes that it does not have, and
// characters that it does not take as they are, or takes for the end of a line.
func asYAML(text []byte) []byte {
	text = escapes.ReplaceAllFunc(text, func(escape []byte) []byte {
		if string(escape) == `\/` {
			return escape[1:]
		}
		if len(escape) == 2 {
			return escape
		}
		high, errHigh := strconv.ParseUint(string(escape[2:6]), 16, 16)
		low, errLow := strconv.ParseUint(string(escape[8:12]), 16, 16)
		if errHigh != nil || errLow != nil {
			return escape
		}
		return utf8.AppendRune(nil, utf16.DecodeRune(rune(high), rune(low)))
	})
	var b bytes.Buffer
	for _, r := range string(text) {
		if r > '~' && r <= 0xffff && !unicode.IsPrint(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.Bytes()
}

// Ambiguous tells whether a plain text means something else to some readers of YAML, this
// one included.
func Ambiguous(text string) bool {
	switch strings.ToLower(text) {
	case "", "~", "null", "true", "false", "<<", "=":
		return true
	}
	toAll, toSome := isNumber(text)
	return toAll || toSome || isOtherWord(text)
}
