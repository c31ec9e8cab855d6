package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"riverbeat/internal/manifest"
)

// The values of --output.
const (
	asTable = "table"
	asJSON  = "json"
	asYAML  = "yaml"
	asName  = "name"
)

// output is where a command writes what it was asked for, and how.
type output struct {
	w, errs io.Writer
	format  string
	screen  screen
}

// addOutput gives a command the flag --output, for newOutput.
func addOutput(c *cobra.Command, formats []string) {
	doc := "How it is shown."
	if formats == nil {
		formats = []string{asTable, asJSON, asYAML, asName}
		doc = "How it is shown; name is ids, one a line."
	}
	c.Flags().VarP(&choice{value: formats[0], of: formats}, "output", "o", doc)
	complete(c, "output", formats...)
}

func newOutput(c *cobra.Command) *output {
	w := c.OutOrStdout()
	return &output{w: w, errs: c.ErrOrStderr(), format: flagOf(c, "output"), screen: screenOf(w)}
}

// noun is a kind of things that the API knows: what they are called, and how they stand
// in a table. T is what is read of one.
type noun[T any] struct {
	one     string // a schedule, say; with an s behind it they are many
	columns []column
	row     func(T) []string
	name    func(T) string // what names one to other commands
}

// printer writes things as they come.
type printer[T any] struct {
	*output
	noun noun[T]
	list bool // they are one document; else each is

	written int
	rows    [][]string // of a table, which is written at the end
}

func (p *printer[T]) add(raw json.RawMessage) error {
	p.written++
	before := func(first, others string) string {
		if p.written == 1 {
			return first
		}
		return others
	}
	switch p.format {
	case asJSON:
		start, indent, end := "", "", "\n"
		if p.list {
			start, indent, end = before("[\n  ", ",\n  "), "  ", ""
		}
		text, err := indented(raw, indent)
		if err != nil {
			return err
		}
		_, err = io.WriteString(p.w, start+text+end)
		return err
	case asYAML:
		node, err := yamlNode(raw)
		if err != nil {
			return err
		}
		if p.list {
			node = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{node}}
		} else if _, err := io.WriteString(p.w, before("", "---\n")); err != nil {
			return err
		}
		return writeYAML(p.w, node)
	}
	var thing T
	if err := json.Unmarshal(raw, &thing); err != nil {
		return err
	}
	if p.format == asName {
		_, err := fmt.Fprintln(p.w, printable(p.noun.name(thing)))
		return err
	}
	p.rows = append(p.rows, p.noun.row(thing))
	return nil
}

func (p *printer[T]) end() error {
	switch document := p.list && (p.format == asJSON || p.format == asYAML); {
	case p.format == asTable && p.written > 0:
		return writeTable(p.w, p.screen, p.noun.columns, p.rows)
	case document && p.written == 0:
		_, err := io.WriteString(p.w, "[]\n")
		return err
	case document && p.format == asJSON:
		_, err := io.WriteString(p.w, "\n]\n")
		return err
	}
	return nil
}

// list reads a list and writes it, as far as --limit says if the command has one. If
// there are none, or more than there are by default, that is said on stderr.
func list[T any](c *call, n noun[T], path string, query url.Values) error {
	const largest = 1000
	limit, asked := 0, true
	if f := c.Flags().Lookup("limit"); f != nil {
		var err error
		if limit, err = strconv.Atoi(f.Value.String()); err != nil || limit < 0 {
			return badCall(c.Command, "--limit: %q is no number of 0 or more", f.Value)
		}
		size := largest
		if limit > 0 {
			size = min(limit+1, largest) // one more tells whether there are more
		}
		query.Set("page_size", strconv.Itoa(size))
		asked = f.Changed
	}
	p, more := printer[T]{output: c.output, noun: n, list: true}, false
	for raw, err := range c.items(path, query) {
		if err != nil {
			return err
		}
		if more = limit > 0 && p.written == limit; more {
			break
		}
		if err := p.add(raw); err != nil {
			return err
		}
	}
	switch {
	case p.written == 0 && (c.format == asTable || c.format == asName):
		_, _ = fmt.Fprintf(c.errs, "There are no %ss.\n", n.one)
	case more && !asked:
		_, _ = fmt.Fprintf(c.errs, "There are more %ss; --limit 0 shows all.\n", n.one)
	}
	return p.end()
}

// show writes all there is to say of one thing.
func show[T any](o *output, n noun[T], raw json.RawMessage) error {
	if o.format == asTable {
		return writeFields(o.w, raw)
	}
	return (&printer[T]{output: o, noun: n}).add(raw)
}

// forEach does something to each of what the arguments name and writes what became of
// it. What is wrong with one keeps none of the others from being done.
func forEach[T any](c *call, n noun[T], args []string, do func(arg string) (json.RawMessage, error)) error {
	p := printer[T]{output: c.output, noun: n}
	var errs []error
	for _, arg := range args {
		raw, err := do(arg)
		if err == nil {
			err = p.add(raw)
		}
		if err != nil && len(args) > 1 {
			err = fmt.Errorf("%s: %w", arg, err)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, p.end())...)
}

// indented is JSON for people. It means the same; see harmless.
func indented(raw json.RawMessage, prefix string) (string, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, prefix, "  "); err != nil {
		return "", err
	}
	return harmlessJSON(b.String()), nil
}

func harmlessJSON(document string) string {
	return harmless(document, func(r rune) string {
		if r > 0xffff {
			high, low := utf16.EncodeRune(r)
			return fmt.Sprintf(`\u%04x\u%04x`, high, low)
		}
		return fmt.Sprintf(`\u%04x`, r)
	})
}

// onOneLine is JSON as indented has it, without its lines.
func onOneLine(raw json.RawMessage) (string, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", err
	}
	return harmlessJSON(b.String()), nil
}

// writeYAML writes a document, or a part of one; see harmless.
func writeYAML(w io.Writer, node *yaml.Node) error {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(node), e.Close()); err != nil {
		return err
	}
	_, err := io.WriteString(w, harmless(b.String(), func(r rune) string { return fmt.Sprintf(`\U%08x`, r) }))
	return err
}

// harmless escapes the characters of a document that could do something to a terminal.
// They only stand in quotes there.
func harmless(document string, escape func(rune) string) string {
	var b strings.Builder
	for _, r := range document {
		if r == '\n' || unicode.IsGraphic(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(escape(r))
		}
	}
	return b.String()
}

// yamlNode is JSON as YAML: members stay in their order, and numbers what they are.
func yamlNode(raw json.RawMessage) (*yaml.Node, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return readNode(d)
}

func readNode(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		node := &yaml.Node{Kind: yaml.MappingNode}
		if token == '[' {
			node.Kind = yaml.SequenceNode
		}
		for d.More() {
			item, err := readNode(d) // of an object: a name, then its value
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, item)
		}
		if len(node.Content) == 0 {
			node.Style = yaml.FlowStyle
		}
		_, err := d.Token() // the end
		return node, err
	case string:
		node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: token}
		if manifest.Ambiguous(token) || strings.ContainsFunc(token, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }) {
			node.Style = yaml.DoubleQuotedStyle
		}
		return node, nil
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: "null"}, nil
	default: // a number or a truth value
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(token)}, nil
	}
}

// writeFields writes the members of an object, one a line, for people: without those that
// are not set, and with times by the clocks of this machine.
func writeFields(w io.Writer, raw json.RawMessage) error {
	object, err := yamlNode(raw)
	if err != nil {
		return err
	}
	var names, values []string
	width := 0
	for pair := range slices.Chunk(object.Content, 2) {
		value, err := fieldValue(pair[0].Value, pair[1])
		if err != nil {
			return err
		}
		if value == "" {
			continue
		}
		name := strings.ReplaceAll(pair[0].Value, "_", " ")
		names, values = append(names, name), append(values, value)
		width = max(width, len(name))
	}
	for i, name := range names {
		value := strings.ReplaceAll(printableLines(values[i]), "\n", "\n"+strings.Repeat(" ", width+len(between)))
		if _, err := fmt.Fprintf(w, "%-*s%s%s\n", width, name, between, value); err != nil {
			return err
		}
	}
	return nil
}

// fieldValue is the value of a member as people read it; "" if it is not set.
func fieldValue(name string, value *yaml.Node) (string, error) {
	switch {
	case value.Kind != yaml.ScalarNode && len(value.Content) == 0, value.ShortTag() == "!!null":
		return "", nil
	case value.Kind == yaml.ScalarNode:
		if isTime(name) {
			if at, err := time.Parse(time.RFC3339, value.Value); err == nil {
				return stamp(&at), nil
			}
		}
		return value.Value, nil
	}
	var b strings.Builder
	err := writeYAML(&b, value)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// isTime tells whether a member of that name is a time.
func isTime(name string) bool {
	last := name[strings.LastIndex(name, "_")+1:]
	return slices.Contains([]string{"at", "for", "from", "until", "to"}, last)
}
