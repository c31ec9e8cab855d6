package riverbeat

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/kaptinlin/jsonschema"
)

// valueJudge compiles the keywords that look at one value alone. Its schemas
// have no names and no references, so it keeps none and loads none.
var valueJudge = newValueJudge()

func newValueJudge() *jsonschema.Compiler {
	judge := jsonschema.NewCompiler().SetAssertFormat(true)
	clear(judge.Loaders) // it comes with loaders for http and https
	clear(judge.MediaTypes)
	for format, valid := range stricterFormats {
		judge.RegisterFormat(format, func(value any) bool {
			text, isString := value.(string)
			return !isString || valid(text)
		})
	}
	return judge
}

// stricterFormats mend formats in which the library accepts too much: "+1" as
// two digits of a time or an address, and labels that begin with "-".
var stricterFormats = map[string]func(string) bool{
	"time":      func(s string) bool { return timeText.MatchString(s) && jsonschema.IsTime(s) },
	"date-time": func(s string) bool { return dateTimeText.MatchString(s) && jsonschema.IsDateTime(s) },
	"ipv4": func(s string) bool {
		address, err := netip.ParseAddr(s)
		return err == nil && address.Is4()
	},
	"hostname": func(s string) bool {
		return jsonschema.IsHostname(s) && !strings.HasPrefix(s, "-") && !strings.Contains(s, ".-")
	},
}

const clockText = `\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$`

var (
	timeText     = regexp.MustCompile(`^` + clockText)
	dateTimeText = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]` + clockText)
)

// assertedFormats are those of the draft that are checked. Any other format,
// such as "password", is an annotation.
var assertedFormats = []string{
	"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference",
	"iri", "iri-reference", "uri-template", "uuid", "json-pointer", "relative-json-pointer", "regex",
}

var schemaTypes = []string{"array", "boolean", "integer", "null", "number", "object", "string"}

// Limits of a pattern. A match takes time in proportion to the instructions.
const (
	maxPatternText   = 1_000 // characters
	maxPatternLength = 1_000 // instructions, once compiled
)

// keyword is one keyword of a schema, about to be read.
type keyword struct {
	c        *schemaCompiler
	node     *schemaNode // that it belongs to
	name     string
	at       string // its pointer
	raw      json.RawMessage
	depth    int
	asserted bool // goes to the library
}

// schemaKeywords are the keywords and how each is read into its node. A reader
// returns what is wrong, "" for nothing. This table is what checks a schema's
// shape: the library would take "type": "strin" and refuse all values later.
var schemaKeywords map[string]func(k *keyword) string

// Filled in here and not above, because readers of subschemas use the table.
func init() {
	schemaKeywords = map[string]func(k *keyword) string{
		"$schema":        readDialect,
		"$id":            readID,
		"$ref":           readRef,
		"$dynamicRef":    readRef, // in one document without $id within, it is a $ref
		"$anchor":        readAnchor,
		"$dynamicAnchor": readAnchor,
		"$defs":          into(schemaMapOf, func(*schemaNode, []namedNode) {}),
		"definitions":    into(schemaMapOf, func(*schemaNode, []namedNode) {}), // as $defs was called
		"$comment":       wantString,

		"allOf":            into(schemasOf, func(n *schemaNode, v []*schemaNode) { n.allOf = v }),
		"anyOf":            into(schemasOf, func(n *schemaNode, v []*schemaNode) { n.anyOf = v }),
		"oneOf":            into(schemasOf, func(n *schemaNode, v []*schemaNode) { n.oneOf = v }),
		"not":              into(schemaOf, func(n, v *schemaNode) { n.not = v }),
		"if":               into(schemaOf, func(n, v *schemaNode) { n.condition = v }),
		"then":             into(schemaOf, func(n, v *schemaNode) { n.then = v }),
		"else":             into(schemaOf, func(n, v *schemaNode) { n.other = v }),
		"dependentSchemas": into(schemaMapOf, func(n *schemaNode, v []namedNode) { n.dependentSchemas = v }),

		"properties":            readProperties,
		"patternProperties":     readPatternProperties,
		"additionalProperties":  into(schemaOf, func(n, v *schemaNode) { n.additionalProperties = v }),
		"propertyNames":         into(schemaOf, func(n, v *schemaNode) { n.propertyNames = v }),
		"unevaluatedProperties": readUnevaluatedProperties,
		"required":              into(namesOf, func(n *schemaNode, v []string) { n.required = v }),
		"dependentRequired":     readDependentRequired,

		"prefixItems":      into(schemasOf, func(n *schemaNode, v []*schemaNode) { n.prefixItems = v }),
		"items":            readItems,
		"contains":         into(schemaOf, func(n, v *schemaNode) { n.contains = v }),
		"minContains":      into(countOf, func(n *schemaNode, v int) { n.minContains = v }),
		"maxContains":      into(countOf, func(n *schemaNode, v int) { n.maxContains = v }),
		"unevaluatedItems": readUnevaluatedItems,

		"type":             readType,
		"enum":             readEnum,
		"const":            readConst,
		"multipleOf":       readMultipleOf,
		"maximum":          judged(wantNumber),
		"exclusiveMaximum": judged(wantNumber),
		"minimum":          judged(wantNumber),
		"exclusiveMinimum": judged(wantNumber),
		"maxLength":        judged(wantCount),
		"minLength":        judged(wantCount),
		"pattern":          readPattern,
		"maxItems":         judged(wantCount),
		"minItems":         judged(wantCount),
		"uniqueItems":      readUniqueItems,
		"maxProperties":    judged(wantCount),
		"minProperties":    judged(wantCount),
		"format":           readFormat,

		"default":          readDefault,
		"title":            wantString,
		"description":      wantString,
		"examples":         wantList,
		"deprecated":       wantBool,
		"readOnly":         wantBool,
		"writeOnly":        readWriteOnly,
		"contentEncoding":  wantString,
		"contentMediaType": wantString,
		"contentSchema":    into(schemaOf, func(*schemaNode, *schemaNode) {}),
		"x-name":           readName,

		// What earlier drafts and OpenAPI 3.0 would check and this draft ignores:
		// silence would let through what the author meant to refuse.
		"dependencies":     replacedBy("dependentRequired or dependentSchemas"),
		"additionalItems":  replacedBy("items beside prefixItems"),
		"$recursiveRef":    replacedBy("$ref"),
		"$recursiveAnchor": replacedBy("$ref"),
		"nullable":         replacedBy(`"type": ["…", "null"]`),
	}
}

// into reads a keyword's value and stores it in the node.
func into[T any](read func(k *keyword) (T, string), store func(n *schemaNode, value T)) func(k *keyword) string {
	return func(k *keyword) string {
		value, wrong := read(k)
		if wrong == "" {
			store(k.node, value)
		}
		return wrong
	}
}

// judged leaves to the library a keyword whose shape is right.
func judged(check func(k *keyword) string) func(k *keyword) string {
	return func(k *keyword) string {
		k.asserted = true
		return check(k)
	}
}

func replacedBy(instead string) func(k *keyword) string {
	return func(*keyword) string { return "is not a keyword of draft 2020-12: use " + instead }
}

// value decodes the keyword's value. The document was decoded before.
func (k *keyword) value() any {
	value, _ := decodeJSON(k.raw)
	return value
}

func schemaOf(k *keyword) (*schemaNode, string) {
	return k.c.node(k.at, k.raw, k.depth+1), ""
}

func schemaMapOf(k *keyword) ([]namedNode, string) {
	list, ok := Members(k.raw)
	if !ok {
		return nil, "must be an object of schemas"
	}
	nodes := make([]namedNode, 0, len(list))
	for _, m := range list {
		nodes = append(nodes, namedNode{m.Name, k.c.node(k.at+"/"+PointerToken(m.Name), m.Raw, k.depth+1)})
	}
	return nodes, ""
}

func schemasOf(k *keyword) ([]*schemaNode, string) {
	var list []json.RawMessage
	if json.Unmarshal(k.raw, &list) != nil || len(list) == 0 {
		return nil, "must be a list of at least one schema"
	}
	nodes := make([]*schemaNode, 0, len(list))
	for i, raw := range list {
		nodes = append(nodes, k.c.node(indexed(k.at, i), raw, k.depth+1))
	}
	return nodes, ""
}

func namesOf(k *keyword) ([]string, string) { return propertyNames(k.value()) }

func propertyNames(value any) ([]string, string) {
	const wrong = "must be a list of property names, none twice"
	items, ok := value.([]any)
	if !ok {
		return nil, wrong
	}
	list := make([]string, 0, len(items))
	for _, item := range items {
		name, ok := item.(string)
		if !ok || slices.Contains(list, name) {
			return nil, wrong
		}
		list = append(list, name)
	}
	return list, ""
}

// countOf reads a count; 2.0 is one, too.
func countOf(k *keyword) (int, string) {
	const wrong = "must be a whole number from 0 to 999,999,999"
	number, ok := k.value().(json.Number)
	if !ok {
		return 0, wrong
	}
	digits, exponent, ok := decimal(string(number))
	if !ok || exponent < 0 || len(digits)+exponent > 9 {
		return 0, wrong
	}
	n, err := strconv.Atoi(digits + strings.Repeat("0", exponent))
	if err != nil || n < 0 {
		return 0, wrong
	}
	return n, ""
}

func wantCount(k *keyword) string {
	_, wrong := countOf(k)
	return wrong
}

func wantNumber(k *keyword) string {
	if _, ok := k.value().(json.Number); !ok {
		return "must be a number"
	}
	return ""
}

func wantString(k *keyword) string {
	if _, ok := k.value().(string); !ok {
		return "must be a string"
	}
	return ""
}

func wantBool(k *keyword) string {
	if _, ok := k.value().(bool); !ok {
		return "must be true or false"
	}
	return ""
}

func wantList(k *keyword) string {
	if _, ok := k.value().([]any); !ok {
		return "must be a list"
	}
	return ""
}

func readDialect(k *keyword) string {
	uri, _ := k.value().(string)
	if strings.TrimSuffix(uri, "#") != string(jsonschema.Draft202012) {
		return "must be " + string(jsonschema.Draft202012) + ", or left out"
	}
	return ""
}

func readID(k *keyword) string {
	if k.node.pointer != "" {
		return "may stand at the root only: references are to places in this document"
	}
	return wantString(k)
}

func readRef(k *keyword) string {
	ref, ok := k.value().(string)
	switch {
	case !ok || ref == "":
		return "must be a reference such as #/$defs/name"
	case k.node.refText != "":
		return "must not stand beside another reference"
	}
	k.node.refText, k.node.refAt = ref, k.at
	return ""
}

func readAnchor(k *keyword) string {
	name, _ := k.value().(string)
	if name == "" || strings.HasPrefix(name, "/") {
		return "must be a name"
	}
	if other := k.c.anchors[name]; other != nil && other != k.node {
		return "is a name that another anchor has"
	}
	k.c.anchors[name] = k.node
	return ""
}

func readProperties(k *keyword) (wrong string) {
	k.node.properties, wrong = schemaMapOf(k)
	k.node.hasProperty = make(map[string]bool, len(k.node.properties))
	for _, p := range k.node.properties {
		k.node.hasProperty[p.name] = true
	}
	return wrong
}

func readPatternProperties(k *keyword) string {
	nodes, wrong := schemaMapOf(k)
	for _, n := range nodes {
		pattern, length, wrong := compilePattern(n.name)
		if wrong != "" {
			k.c.refuse(n.node.pointer, "its name %s", wrong)
			continue
		}
		k.node.patternProperties = append(k.node.patternProperties, patternNode{pattern, length, n.node})
	}
	return wrong
}

func readDependentRequired(k *keyword) string {
	list, ok := Members(k.raw)
	if !ok {
		return "must be an object of lists of property names"
	}
	for _, m := range list {
		value, _ := decodeJSON(m.Raw)
		required, wrong := propertyNames(value)
		if wrong != "" {
			k.c.refuse(k.at+"/"+PointerToken(m.Name), "%s", wrong)
		}
		k.node.dependentRequired = append(k.node.dependentRequired, dependency{m.Name, required})
	}
	return ""
}

func readUnevaluatedProperties(k *keyword) (wrong string) {
	k.c.tracks = true
	k.node.unevaluatedProperties, wrong = schemaOf(k)
	return wrong
}

func readUnevaluatedItems(k *keyword) (wrong string) {
	k.c.tracks = true
	k.node.unevaluatedItems, wrong = schemaOf(k)
	return wrong
}

func readItems(k *keyword) string {
	if _, isList := k.value().([]any); isList {
		return "must be one schema: for a schema per position use prefixItems"
	}
	k.node.items, _ = schemaOf(k)
	return ""
}

func readType(k *keyword) string {
	k.asserted = true
	switch value := k.value().(type) {
	case string:
		k.node.types = []string{value}
	case []any:
		var wrong string
		if k.node.types, wrong = propertyNames(value); wrong != "" || len(value) == 0 {
			return "must be a type, or a list of types, none twice"
		}
	default:
		return "must be a type, or a list of types"
	}
	for _, name := range k.node.types {
		if !slices.Contains(schemaTypes, name) {
			return fmt.Sprintf("has the unknown type %q: there are %s", name, strings.Join(schemaTypes, ", "))
		}
	}
	return ""
}

func readEnum(k *keyword) string {
	k.asserted = true
	values, ok := k.value().([]any)
	if !ok || len(values) == 0 {
		return "must be a list of at least one value"
	}
	k.node.cost += countValues(values)
	return ""
}

func readConst(k *keyword) string {
	k.asserted = true
	k.node.cost += countValues(k.value())
	return ""
}

func readMultipleOf(k *keyword) string {
	k.asserted = true
	number, ok := k.value().(json.Number)
	digits, _, _ := decimal(string(number))
	if !ok || digits == "0" || strings.HasPrefix(digits, "-") {
		return "must be a number above 0"
	}
	return ""
}

func readPattern(k *keyword) string {
	k.asserted = true
	pattern, ok := k.value().(string)
	if !ok {
		return "must be a string"
	}
	_, length, wrong := compilePattern(pattern)
	k.node.patternLen = length
	return wrong
}

// compilePattern compiles a regular expression and counts its instructions.
func compilePattern(pattern string) (compiled *regexp.Regexp, length int, wrong string) {
	if len(pattern) > maxPatternText {
		return nil, 0, "is too large a pattern"
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, 0, fmt.Sprintf("is not a pattern of Go's regexp (RE2 syntax; no look-around, no back-references): %s", err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(program.Inst) > maxPatternLength {
		return nil, 0, "is too large a pattern"
	}
	compiled, err = regexp.Compile(pattern)
	if err != nil {
		return nil, 0, fmt.Sprintf("is not a pattern: %s", err)
	}
	return compiled, len(program.Inst), ""
}

func readUniqueItems(k *keyword) string {
	k.asserted = true
	k.node.unique, _ = k.value().(bool)
	return wantBool(k)
}

func readFormat(k *keyword) string {
	format, ok := k.value().(string)
	k.asserted = slices.Contains(assertedFormats, format)
	if !ok {
		return "must be a string"
	}
	return ""
}

func readDefault(k *keyword) string {
	k.c.fills = true
	k.node.fallback = &fallback{at: k.at, value: k.value(), size: len(k.raw)}
	return ""
}

func readWriteOnly(k *keyword) string {
	k.node.writeOnly, _ = k.value().(bool)
	k.c.hides = k.c.hides || k.node.writeOnly
	return wantBool(k)
}

func readName(k *keyword) string {
	k.node.nameGiver, _ = k.value().(bool)
	return wantBool(k)
}

// countValues counts a value and all within it.
func countValues(value any) int {
	n := 1
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			n += countValues(item)
		}
	case map[string]any:
		for _, item := range value {
			n += countValues(item)
		}
	}
	return n
}
