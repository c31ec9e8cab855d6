package riverbeat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kaptinlin/jsonschema"
)

// Limits of a parameter schema.
const (
	MaxSchemaSize  = 64 << 10 // bytes
	maxSchemaDepth = 32       // schemas within one another
	maxSchemaNodes = 2_000    // schemas in one document
	maxFieldErrors = 50       // reported at once
)

// ParameterSchema is a compiled JSON Schema (draft 2020-12) of a task's
// parameters. It is safe for concurrent use.
//
// The JSON Schema library judges single values (type, enum, numbers, lengths,
// patterns, formats). Walking the schema is ours, because the library's walk
//   - ignores a $ref that it cannot resolve, and fetches one that is a URL;
//   - writes to the schema while it validates, so that two goroutines crash;
//   - takes exponential time where schemas refer to one another, and a
//     kilobyte for each value of the parameters;
//   - reports places by unescaped names and in the order of a Go map.
//
// Here every walk has a budget of steps, and is refused when it is used up.
type ParameterSchema struct {
	root   *schemaNode
	fills  bool // has defaults
	tracks bool // has unevaluatedProperties or unevaluatedItems
	hides  bool // has writeOnly
}

// schemaNode is one schema of the document: the root, that of a property, an
// element of allOf, ….
type schemaNode struct {
	pointer string // where it stands in the document
	never   bool   // the schema false
	types   []string

	// What one value is checked for, by the library. Nil for nothing.
	assertions *jsonschema.Schema
	limits     map[string]string // keyword -> its value as text, for messages
	cost       int               // steps it takes to check the assertions
	patternLen int               // instructions of its pattern
	unique     bool              // uniqueItems

	// Schemas for the same value.
	ref                    *schemaNode
	allOf, anyOf, oneOf    []*schemaNode
	not                    *schemaNode
	condition, then, other *schemaNode // if, then, else
	dependentSchemas       []namedNode

	// Schemas for the parts of an object.
	properties            []namedNode // in the order of the text
	hasProperty           map[string]bool
	patternProperties     []patternNode
	additionalProperties  *schemaNode
	propertyNames         *schemaNode
	unevaluatedProperties *schemaNode
	required              []string
	dependentRequired     []dependency

	// Schemas for the parts of an array.
	prefixItems      []*schemaNode
	items            *schemaNode
	contains         *schemaNode
	minContains      int
	maxContains      int // -1: no limit
	unevaluatedItems *schemaNode

	fallback  *fallback // its default: its own, or that of what it refers to
	nameGiver bool      // x-name
	writeOnly bool      // takes references to secrets only

	refText string // until it is resolved
	refAt   string
	visit   visit
}

type namedNode struct {
	name string
	node *schemaNode
}

type patternNode struct {
	pattern *regexp.Regexp
	length  int // instructions
	node    *schemaNode
}

type dependency struct {
	name     string
	required []string
}

// fallback is a default: what a property has when it is not given.
type fallback struct {
	at    string // its pointer
	value any
	size  int // bytes of its text
}

// CompileParameterSchema reads a task's parameter schema. Nothing given is {},
// which accepts every object.
//
// Its keywords are those of draft 2020-12, and its own "x-name": true (see
// AutoName). Format is asserted for the formats of the draft; others are mere
// annotations, as are content keywords. References stay within the document:
// no network, no files; "$id" is accepted at the root and means nothing.
//
// The error is an *Error of kind Invalid with code "invalid_parameter_schema";
// its pointers begin with /parameter_schema.
func CompileParameterSchema(raw json.RawMessage) (*ParameterSchema, error) {
	if isMissing(raw) {
		raw = json.RawMessage(`{}`)
	}
	c := &schemaCompiler{nodes: map[string]*schemaNode{}, anchors: map[string]*schemaNode{}}
	root := c.compile(raw)
	if len(c.wrong) == 0 && len(root.types) > 0 && !slices.Contains(root.types, "object") {
		c.refuse("/type", `must allow "object": parameters are always an object`)
	}
	if len(c.wrong) == 0 {
		c.checkDefaults()
	}
	if len(c.wrong) > 0 {
		return nil, &Error{
			Kind: Invalid, Code: "invalid_parameter_schema",
			Detail: "The parameter schema is not one that can be used.", Fields: c.wrong,
		}
	}
	return &ParameterSchema{root: root, fills: c.fills, tracks: c.tracks, hides: c.hides}, nil
}

// Effective checks params and returns them with the schema's defaults filled
// in. Missing params are {}. When there is nothing to fill in, params come back
// as they were, else re-written with sorted keys; numbers keep their spelling.
//
// A default is filled in before anything is checked, wherever its object is
// present (or has a default itself), through properties, items, $ref and
// allOf. What depends on the value, as in anyOf or if, fills nothing in.
//
// A reference to a secret stands for any value within params: it fits every schema but
// false. A property that is writeOnly takes nothing else.
//
// The error is an *Error of kind Invalid with code "invalid_params"; its
// pointers begin with /task_params, and no detail contains a value that was
// given, for it may be secret.
func (s *ParameterSchema) Effective(params json.RawMessage) (json.RawMessage, error) {
	params, value, e, err := s.filled(params)
	if err != nil {
		return nil, err
	}
	e.apply(s.root, value, nil, nil)
	if e.aborted != "" {
		return nil, invalidParams(FieldError{Detail: e.aborted})
	}
	if len(e.errors) > 0 {
		return nil, invalidParams(e.fieldErrors()...)
	}
	if !e.filled {
		return params, nil
	}
	return encodeJSON(value)
}

// Unchecked is Effective for params that need not fit the schema: only what can be no
// parameters at all is an error. A schema that takes secrets is kept, for it keeps them from
// being written down.
func (s *ParameterSchema) Unchecked(params json.RawMessage) (json.RawMessage, error) {
	if s.hides {
		return s.Effective(params)
	}
	given, value, e, err := s.filled(params)
	if err != nil || !e.filled || e.aborted != "" {
		return given, err
	}
	return encodeJSON(value)
}

// filled reads params, and fills in the defaults.
func (s *ParameterSchema) filled(params json.RawMessage) (given json.RawMessage, value any, e *evaluation, err error) {
	if isMissing(params) {
		params = json.RawMessage(`{}`)
	}
	value, wrong := decodeJSON(params)
	if wrong != nil {
		return nil, nil, nil, invalidParams(*wrong)
	}
	if _, ok := value.(map[string]any); !ok {
		return nil, nil, nil, invalidParams(FieldError{Detail: "must be a JSON object"})
	}
	if _, secret, _ := secretIn(value); secret {
		return nil, nil, nil, invalidParams(FieldError{Detail: "must be the parameters; a secret stands for the value of one of them"})
	}
	e = &evaluation{steps: maxSteps, fillable: maxFilled, tracks: s.tracks}
	if s.fills {
		e.fill(s.root, value, 0)
	}
	return params, value, e, nil
}

// NameProperties are the properties marked "x-name": true, in the order of the
// schema's text, those of $ref and allOf after the schema's own.
func (s *ParameterSchema) NameProperties() []string {
	var names []string
	for _, p := range s.properties() {
		if p.node.nameGiver && !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	return names
}

// HasProperty tells whether the schema says something of the parameter: its own
// properties do, or those of $ref and allOf.
func (s *ParameterSchema) HasProperty(name string) bool {
	return slices.ContainsFunc(s.properties(), func(p namedNode) bool { return p.name == name })
}

// properties are those of the parameters, by the schema and what it refers to.
func (s *ParameterSchema) properties() []namedNode {
	var list []namedNode
	seen := map[*schemaNode]bool{}
	var collect func(n *schemaNode)
	collect = func(n *schemaNode) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		list = append(list, n.properties...)
		collect(n.ref)
		for _, sub := range n.allOf {
			collect(sub)
		}
	}
	collect(s.root)
	return list
}

func invalidParams(wrong ...FieldError) *Error {
	e := &Error{Kind: Invalid, Code: "invalid_params", Detail: "The parameters do not fit the task's schema."}
	for _, w := range wrong {
		e.Fields = append(e.Fields, FieldError{Pointer: "/task_params" + w.Pointer, Detail: w.Detail})
	}
	return e
}

func encodeJSON(value any) (json.RawMessage, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

// schemaCompiler turns the text of a schema into nodes. It goes on after an
// error, to report all of them.
type schemaCompiler struct {
	nodes   map[string]*schemaNode // by pointer
	ordered []*schemaNode          // in the order of the text
	anchors map[string]*schemaNode
	fills   bool // as in ParameterSchema
	tracks  bool
	hides   bool
	wrong   []FieldError
}

func (c *schemaCompiler) refuse(at, format string, args ...any) {
	if len(c.wrong) < maxFieldErrors {
		c.wrong = append(c.wrong, FieldError{Pointer: "/parameter_schema" + at, Detail: fmt.Sprintf(format, args...)})
	}
}

// compile reads the document and checks that no walk through it can go round
// in circles.
func (c *schemaCompiler) compile(raw json.RawMessage) *schemaNode {
	if len(raw) > MaxSchemaSize {
		c.refuse("", "must have at most %d bytes", MaxSchemaSize)
		return nil
	}
	if _, wrong := decodeJSON(raw); wrong != nil {
		c.refuse(wrong.Pointer, "%s", wrong.Detail)
		return nil
	}
	root := c.node("", raw, 0)
	for _, n := range c.ordered {
		c.resolve(n)
	}
	if len(c.wrong) > 0 {
		return root
	}
	for _, n := range c.ordered {
		c.settle(n)
	}
	return root
}

// node reads the schema at a place of the document.
func (c *schemaCompiler) node(at string, raw json.RawMessage, depth int) *schemaNode {
	n := &schemaNode{pointer: at, minContains: 1, maxContains: -1, limits: map[string]string{}, cost: 1}
	switch {
	case depth > maxSchemaDepth:
		c.refuse(at, "is nested more than %d schemas deep", maxSchemaDepth)
		return n
	case len(c.ordered) == maxSchemaNodes:
		c.refuse(at, "is one too many: a document may have at most %d schemas", maxSchemaNodes)
		return n
	}
	c.nodes[at] = n
	c.ordered = append(c.ordered, n)
	switch text := string(bytes.TrimSpace(raw)); text {
	case "true":
		return n
	case "false":
		n.never = true
		return n
	}
	keywords, ok := Members(raw)
	if !ok {
		c.refuse(at, "must be a schema: an object, true or false")
		return n
	}
	asserted := map[string]json.RawMessage{}
	before := len(c.wrong)
	for _, m := range keywords {
		k := keyword{c: c, node: n, name: m.Name, at: at + "/" + PointerToken(m.Name), raw: m.Raw, depth: depth}
		read, known := schemaKeywords[m.Name]
		if !known {
			continue // an annotation, by the draft
		}
		if detail := read(&k); detail != "" {
			c.refuse(k.at, "%s", detail)
		} else if k.asserted {
			asserted[m.Name] = m.Raw
			n.limits[m.Name] = limitText(m)
		}
	}
	if len(asserted) > 0 && len(c.wrong) == before {
		c.assert(n, asserted)
	}
	return n
}

// limitText is a keyword's value as a message shows it.
func limitText(m Member) string {
	switch m.Name {
	case "pattern", "format":
		var text string
		_ = json.Unmarshal(m.Raw, &text) // it was read as a string before
		return text
	case "enum":
		var values []json.RawMessage
		_ = json.Unmarshal(m.Raw, &values)
		texts := make([]string, len(values))
		for i, value := range values {
			texts[i] = string(value)
		}
		return strings.Join(texts, ", ")
	}
	return string(m.Raw)
}

// assert hands the keywords that look at one value alone to the library.
func (c *schemaCompiler) assert(n *schemaNode, asserted map[string]json.RawMessage) {
	text, err := json.Marshal(asserted)
	if err == nil {
		n.assertions, err = valueJudge.Compile(text)
	}
	if err != nil {
		c.refuse(n.pointer, "cannot be compiled: %s", err)
		return
	}
	// The library compiles a pattern when it first meets a string, without a
	// lock. After this it only reads.
	n.assertions.Validate("")
}

// resolve finds what a $ref refers to.
func (c *schemaCompiler) resolve(n *schemaNode) {
	if n.refText == "" {
		return
	}
	fragment, local := strings.CutPrefix(n.refText, "#")
	if !local {
		c.refuse(n.refAt, "must refer to a place in this schema, as in #/$defs/name: nothing is fetched")
		return
	}
	if decoded, err := url.PathUnescape(fragment); err == nil {
		fragment = decoded
	}
	target := c.nodes[fragment]
	if fragment != "" && !strings.HasPrefix(fragment, "/") {
		target = c.anchors[fragment]
	}
	if target == nil {
		c.refuse(n.refAt, "refers to no schema of this document")
	}
	n.ref = target
}

// visit is how far settle has come with a node.
type visit int

const (
	unvisited visit = iota
	underway
	settled
)

// settle checks that a node does not lead back to itself without a step down
// into the value, which would never end, and gives it the default of what it
// refers to if it has none.
func (c *schemaCompiler) settle(n *schemaNode) {
	switch n.visit {
	case settled:
		return
	case underway:
		c.refuse(n.pointer, "refers to itself without end")
		return
	case unvisited:
	}
	n.visit = underway
	for _, same := range n.sameValue() {
		c.settle(same)
	}
	for _, same := range append([]*schemaNode{n.ref}, n.allOf...) {
		if same != nil && n.fallback == nil {
			n.fallback = same.fallback
		}
	}
	n.visit = settled
}

// sameValue are the nodes that n applies to the same value.
func (n *schemaNode) sameValue() []*schemaNode {
	nodes := slices.Concat(n.allOf, n.anyOf, n.oneOf)
	for _, d := range n.dependentSchemas {
		nodes = append(nodes, d.node)
	}
	for _, one := range []*schemaNode{n.ref, n.not, n.condition, n.then, n.other} {
		if one != nil {
			nodes = append(nodes, one)
		}
	}
	return nodes
}

// checkDefaults checks that each default fits the schema it stands in, its own
// defaults filled in; and so, that filling in comes to an end.
func (c *schemaCompiler) checkDefaults() {
	e := &evaluation{steps: maxSteps, fillable: maxFilled, tracks: c.tracks}
	for _, n := range c.ordered {
		if n.fallback == nil {
			continue
		}
		value := copyJSON(n.fallback.value)
		e.errors = nil
		e.fill(n, value, 0)
		e.apply(n, value, nil, nil)
		if e.aborted != "" {
			c.refuse(n.fallback.at, "cannot be filled in: with the defaults within it, it is too deep or too large")
			return
		}
		for _, wrong := range e.fieldErrors() {
			c.refuse(n.fallback.at+wrong.Pointer, "does not fit its own schema: %s", wrong.Detail)
		}
	}
}

func copyJSON(value any) any {
	switch value := value.(type) {
	case []any:
		list := make([]any, len(value))
		for i, item := range value {
			list[i] = copyJSON(item)
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(value))
		for key, item := range value {
			object[key] = copyJSON(item)
		}
		return object
	}
	return value
}

func indexed(at string, i int) string { return at + "/" + strconv.Itoa(i) }
