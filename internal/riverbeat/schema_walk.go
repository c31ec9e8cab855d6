package riverbeat

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Budget of one walk. A step is one schema applied to one value, one or two
// microseconds; long texts, patterns and lists of values take more of them.
const (
	maxSteps  = 500_000
	maxFilled = 1 << 20 // bytes of defaults filled in
)

const tooComplex = "is too large to be checked against the task's schema"

// evaluation is one walk through a schema and a value together.
type evaluation struct {
	steps    int // left
	fillable int // bytes of defaults left
	filled   bool
	tracks   bool   // whether anyone asks what was evaluated
	aborted  string // why the walk was given up; its result means nothing
	errors   []violation
}

// violation is one broken rule.
type violation struct {
	at      *place
	keyword string
	detail  string
}

// place is a place in the value; nil is the value as a whole. Its pointer is
// made only for errors.
type place struct {
	parent *place
	name   string
	index  int // -1: a member called name
}

func (p *place) member(name string) *place { return &place{p, name, -1} }
func (p *place) item(index int) *place     { return &place{p, "", index} }

func (p *place) pointer() string {
	switch {
	case p == nil:
		return ""
	case p.index >= 0:
		return p.parent.pointer() + "/" + strconv.Itoa(p.index)
	}
	return p.parent.pointer() + "/" + PointerToken(p.name)
}

// evaluated are the parts of a value that some schema has looked at; the others
// are those that unevaluatedProperties and unevaluatedItems are about. Nil keeps
// no record.
type evaluated struct {
	members map[string]bool
	items   map[int]bool
}

func (e *evaluation) fail(at *place, keyword, format string, args ...any) bool {
	if len(e.errors) < maxFieldErrors {
		e.errors = append(e.errors, violation{at, keyword, fmt.Sprintf(format, args...)})
	}
	return false
}

func (e *evaluation) fieldErrors() []FieldError {
	var list []FieldError
	for _, v := range e.errors {
		field := FieldError{Pointer: v.at.pointer(), Detail: v.detail}
		if !slices.Contains(list, field) { // two schemas may say the same
			list = append(list, field)
		}
	}
	return list
}

func (e *evaluation) spend(steps int) bool {
	e.steps -= steps
	if e.steps < 0 {
		e.abort(tooComplex)
	}
	return e.aborted == ""
}

func (e *evaluation) abort(why string) {
	if e.aborted == "" {
		e.aborted = why
	}
}

// fill puts the defaults of n into value, in place.
func (e *evaluation) fill(n *schemaNode, value any, depth int) {
	if depth > maxJSONDepth {
		e.abort("is nested too deep with the schema's defaults filled in")
	}
	if n == nil || !e.spend(1) {
		return
	}
	if _, secret, _ := secretIn(value); secret {
		return
	}
	switch value := value.(type) {
	case map[string]any:
		e.fillObject(n, value, depth)
	case []any:
		for i, item := range value {
			if i < len(n.prefixItems) {
				e.fill(n.prefixItems[i], item, depth+1)
			} else {
				e.fill(n.items, item, depth+1)
			}
		}
	default:
		return
	}
	e.fill(n.ref, value, depth)
	for _, sub := range n.allOf {
		e.fill(sub, value, depth)
	}
}

func (e *evaluation) fillObject(n *schemaNode, object map[string]any, depth int) {
	for _, p := range n.properties {
		if _, given := object[p.name]; !given {
			if p.node.fallback == nil {
				continue
			}
			if e.fillable -= p.node.fallback.size; e.fillable < 0 {
				e.abort("is too large with the schema's defaults filled in")
				return
			}
			object[p.name] = copyJSON(p.node.fallback.value)
			e.filled = true
		}
		e.fill(p.node, object[p.name], depth+1)
	}
	if n.patternProperties == nil && n.additionalProperties == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		for _, sub := range e.schemasByName(n, name) {
			e.fill(sub, object[name], depth+1)
		}
	}
}

// schemasByName are the schemas that n has for a member by its name, other than
// those of properties.
func (e *evaluation) schemasByName(n *schemaNode, name string) []*schemaNode {
	var matching []*schemaNode
	for _, p := range n.patternProperties {
		if !e.spend(1 + len(name)*p.length/32) {
			return nil
		}
		if p.pattern.MatchString(name) {
			matching = append(matching, p.node)
		}
	}
	if matching == nil && n.additionalProperties != nil && !n.hasProperty[name] {
		matching = append(matching, n.additionalProperties)
	}
	return matching
}

// apply checks value against n. What n and the schemas it applies to the same
// value have looked at is added to seen, if n accepts the value.
func (e *evaluation) apply(n *schemaNode, value any, at *place, seen *evaluated) bool {
	if n == nil {
		return true
	}
	if !e.spend(n.stepsFor(value)) {
		return false
	}
	if n.never {
		return e.fail(at, "false", "is not allowed")
	}
	if _, secret, _ := secretIn(value); secret {
		return true // of what is behind it nothing is known here
	}
	if n.writeOnly && value != nil {
		return e.fail(at, "writeOnly", onlySecret)
	}
	var own *evaluated
	if e.tracks {
		own = &evaluated{}
	}
	ok := e.judge(n, value, at)
	ok = e.applySame(n, value, at, own) && ok
	switch value := value.(type) {
	case map[string]any:
		ok = e.applyObject(n, value, at, own) && ok
	case []any:
		ok = e.applyArray(n, value, at, own) && ok
	}
	if ok && seen != nil && own != nil {
		e.merge(seen, own)
	}
	return ok
}

func (e *evaluation) merge(to, from *evaluated) {
	if !e.spend((len(from.members) + len(from.items)) / 16) {
		return
	}
	if to.members == nil && to.items == nil {
		*to = *from
		return
	}
	for name := range from.members {
		to.see(name)
	}
	for i := range from.items {
		to.seeItem(i)
	}
}

func (s *evaluated) see(name string) {
	if s == nil {
		return
	}
	if s.members == nil {
		s.members = map[string]bool{}
	}
	s.members[name] = true
}

func (s *evaluated) seeItem(i int) {
	if s == nil {
		return
	}
	if s.items == nil {
		s.items = map[int]bool{}
	}
	s.items[i] = true
}

// stepsFor is what it costs to check value against n's own assertions.
func (n *schemaNode) stepsFor(value any) int {
	if n.assertions == nil {
		return 1
	}
	switch value := value.(type) {
	case string:
		return n.cost + len(value)/64 + len(value)*n.patternLen/32
	case json.Number:
		if strings.ContainsAny(string(value), "eE") { // may be long when written out
			return n.cost + maxExponent/10
		}
		return n.cost + len(value)/8
	case []any:
		if n.unique {
			return n.cost + countValues(value)
		}
	}
	return n.cost
}

// judge checks value against n's own assertions.
func (e *evaluation) judge(n *schemaNode, value any, at *place) bool {
	if n.assertions == nil {
		return true
	}
	result := n.assertions.Validate(value)
	if result.IsValid() {
		return true
	}
	if wrong := result.Errors["type"]; wrong != nil { // the rest follows from it
		return e.fail(at, "type", "must be %s, not %v", strings.Join(n.types, " or "), wrong.Params["received"])
	}
	for _, word := range slices.Sorted(maps.Keys(result.Errors)) {
		e.fail(at, word, "%s", n.complaint(word))
	}
	return false
}

// complaints say what a keyword wants; %s is the keyword's value. None contains
// the value that was given.
var complaints = map[string]string{
	"enum":             "must be one of %s",
	"const":            "must be %s",
	"multipleOf":       "must be a multiple of %s",
	"maximum":          "must be at most %s",
	"exclusiveMaximum": "must be below %s",
	"minimum":          "must be at least %s",
	"exclusiveMinimum": "must be above %s",
	"maxLength":        "must have at most %s characters",
	"minLength":        "must have at least %s characters",
	"pattern":          "must match the pattern %s",
	"format":           "must have the format %s",
	"maxItems":         "must have at most %s items",
	"minItems":         "must have at least %s items",
	"uniqueItems":      "must not have the same item twice",
	"maxProperties":    "must have at most %s properties",
	"minProperties":    "must have at least %s properties",
}

func (n *schemaNode) complaint(word string) string {
	complaint, known := complaints[word]
	if !known {
		return "does not fit the schema's " + word
	}
	if !strings.Contains(complaint, "%s") {
		return complaint
	}
	const most = 200
	limit := n.limits[word]
	if runes := []rune(limit); len(runes) > most {
		limit = string(runes[:most]) + "…"
	}
	return fmt.Sprintf(complaint, limit)
}

// applySame applies the schemas that n has for the value itself.
func (e *evaluation) applySame(n *schemaNode, value any, at *place, seen *evaluated) bool {
	ok := e.apply(n.ref, value, at, seen)
	for _, sub := range n.allOf {
		ok = e.apply(sub, value, at, seen) && ok
	}
	if n.anyOf != nil {
		ok = e.applyAlternatives(n.anyOf, value, at, seen, len(n.anyOf)) && ok
	}
	if n.oneOf != nil {
		ok = e.applyAlternatives(n.oneOf, value, at, seen, 1) && ok
	}
	if n.not != nil {
		if fits, _ := e.try(n.not, value, at, nil); fits {
			ok = e.fail(at, "not", "has what the schema excludes by \"not\"")
		}
	}
	if n.condition != nil {
		if fits, _ := e.try(n.condition, value, at, seen); fits {
			ok = e.apply(n.then, value, at, seen) && ok
		} else {
			ok = e.apply(n.other, value, at, seen) && ok
		}
	}
	return ok
}

// try applies n and takes its errors back.
func (e *evaluation) try(n *schemaNode, value any, at *place, seen *evaluated) (bool, []violation) {
	before := len(e.errors)
	ok := e.apply(n, value, at, seen)
	errors := slices.Clone(e.errors[before:])
	e.errors = e.errors[:before]
	return ok, errors
}

// applyAlternatives demands that at least one and at most so many of the
// alternatives accept the value.
func (e *evaluation) applyAlternatives(alternatives []*schemaNode, value any, at *place, seen *evaluated, most int) bool {
	fitting := 0
	var near [][]violation // of the alternatives for values of this type
	for _, sub := range alternatives {
		fits, errors := e.try(sub, value, at, seen)
		otherType := func(v violation) bool { return v.at == at && (v.keyword == "type" || v.keyword == "false") }
		switch {
		case fits:
			fitting++
		case !slices.ContainsFunc(errors, otherType):
			near = append(near, errors)
		}
	}
	switch {
	case fitting > most:
		return e.fail(at, "oneOf", "fits %d of the schema's alternatives, where exactly one is wanted", fitting)
	case fitting > 0:
		return true
	case len(near) == 1 && len(near[0]) > 0:
		// Of "a date or null", what is wrong with the date helps.
		e.errors = append(e.errors, near[0]...)
		return false
	}
	return e.fail(at, "anyOf", "fits none of the schema's %d alternatives", len(alternatives))
}

func (e *evaluation) applyObject(n *schemaNode, object map[string]any, at *place, seen *evaluated) bool {
	ok := true
	for _, name := range n.required {
		if _, given := object[name]; !given {
			ok = e.fail(at.member(name), "required", "is required")
		}
	}
	for _, d := range n.dependentRequired {
		if _, given := object[d.name]; !given {
			continue
		}
		for _, name := range d.required {
			if _, given := object[name]; !given {
				ok = e.fail(at.member(name), "dependentRequired", "is required beside %s", d.name)
			}
		}
	}
	for _, d := range n.dependentSchemas {
		if _, given := object[d.name]; given {
			ok = e.apply(d.node, object, at, seen) && ok
		}
	}
	for _, p := range n.properties {
		if value, given := object[p.name]; given {
			ok = e.apply(p.node, value, at.member(p.name), nil) && ok
			seen.see(p.name)
		}
	}
	if !n.looksAtNames() {
		return ok
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if !e.spend(1) {
			return false
		}
		ok = e.applyName(n, name, at) && ok
		for _, sub := range e.schemasByName(n, name) {
			ok = e.applyMember(sub, object[name], at.member(name)) && ok
			seen.see(name)
		}
		if n.unevaluatedProperties != nil && !seen.members[name] {
			ok = e.applyMember(n.unevaluatedProperties, object[name], at.member(name)) && ok
			seen.see(name)
		}
	}
	return ok
}

// looksAtNames tells whether members concern n that it does not know by name.
func (n *schemaNode) looksAtNames() bool {
	return n.patternProperties != nil || n.additionalProperties != nil || n.propertyNames != nil ||
		n.unevaluatedProperties != nil
}

func (e *evaluation) applyMember(n *schemaNode, value any, at *place) bool {
	if n.never {
		return e.fail(at, "false", "is not a known property")
	}
	return e.apply(n, value, at, nil)
}

func (e *evaluation) applyName(n *schemaNode, name string, at *place) bool {
	fits, errors := e.try(n.propertyNames, name, at, nil)
	switch {
	case fits:
		return true
	case len(errors) == 0:
		return false
	}
	return e.fail(at.member(name), "propertyNames", "has a name that %s", errors[0].detail)
}

func (e *evaluation) applyArray(n *schemaNode, array []any, at *place, seen *evaluated) bool {
	ok := true
	for i, item := range array {
		var sub *schemaNode
		if sub = n.items; i < len(n.prefixItems) {
			sub = n.prefixItems[i]
		}
		if sub == nil {
			break
		}
		ok = e.apply(sub, item, at.item(i), nil) && ok
		seen.seeItem(i)
	}
	if n.contains != nil {
		ok = e.applyContains(n, array, at, seen) && ok
	}
	if n.unevaluatedItems != nil {
		for i, item := range array {
			if !seen.items[i] {
				ok = e.apply(n.unevaluatedItems, item, at.item(i), nil) && ok
				seen.seeItem(i)
			}
		}
	}
	return ok
}

func (e *evaluation) applyContains(n *schemaNode, array []any, at *place, seen *evaluated) bool {
	fitting := 0
	for i, item := range array {
		if fits, _ := e.try(n.contains, item, at.item(i), nil); fits {
			fitting++
			seen.seeItem(i)
		}
	}
	switch {
	case fitting < n.minContains:
		return e.fail(at, "contains", "must have at least %d items of the kind the schema names", n.minContains)
	case n.maxContains >= 0 && fitting > n.maxContains:
		return e.fail(at, "contains", "must have at most %d items of the kind the schema names", n.maxContains)
	}
	return true
}
