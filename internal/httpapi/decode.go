package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"riverbeat/internal/riverbeat"
)

// maxFieldErrors is how many errors of one request are reported at once.
const maxFieldErrors = 50

// fields collects what is wrong with a request.
type fields []riverbeat.FieldError

func (f *fields) addf(pointer, format string, args ...any) {
	if len(*f) < maxFieldErrors {
		*f = append(*f, riverbeat.FieldError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
}

// covers tells whether something at pointer or above it is wrong already.
func (f fields) covers(pointer string) bool {
	for _, e := range f {
		if pointer == e.Pointer || strings.HasPrefix(pointer, e.Pointer+"/") {
			return true
		}
	}
	return false
}

func (f fields) err() error {
	if len(f) == 0 {
		return nil
	}
	return &riverbeat.Error{
		Kind: riverbeat.Invalid, Code: "invalid_request", Detail: "The request breaks a rule.", Fields: f,
	}
}

func malformed(code, format string, args ...any) *riverbeat.Error {
	return riverbeat.Errorf(riverbeat.Malformed, code, format, args...)
}

// checkJSON tells whether body is one JSON object in which no key stands twice,
// and that can be stored as it is, and answers it as canonical JSON.
func checkJSON(body []byte) (canonical []byte, err error) {
	if !utf8.Valid(body) {
		return nil, malformed("malformed_json", "The body is not valid UTF-8.")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			before := body[:min(max(syntax.Offset-1, 0), int64(len(body)))]
			line := bytes.Count(before, []byte("\n")) + 1
			column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
			return nil, malformed("malformed_json", "The body is not JSON: %s (line %d, column %d).", syntax, line, column)
		}
		return nil, malformed("malformed_json", "The body is not JSON.")
	}
	if raw[0] != '{' {
		return nil, malformed("malformed_json", "The body must be a JSON object.")
	}
	if pointer, twice := duplicateKey(json.NewDecoder(bytes.NewReader(raw)), ""); twice {
		e := malformed("malformed_json", "A key stands twice in one object of the body.")
		e.Fields = []riverbeat.FieldError{{Pointer: pointer, Detail: "stands twice"}}
		return nil, e
	}
	// What is left is JSON that no database keeps: \u0000, 1e999, half a
	// surrogate pair, a thousand levels.
	return riverbeat.CanonicalJSON(raw)
}

// duplicateKey finds the first key that stands twice in one object of the valid
// JSON that d reads.
func duplicateKey(d *json.Decoder, at string) (pointer string, twice bool) {
	token, _ := d.Token()
	switch token {
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			if pointer, twice = duplicateKey(d, at+"/"+strconv.Itoa(i)); twice {
				return pointer, true
			}
		}
		_, _ = d.Token()
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			token, _ := d.Token()
			key, _ := token.(string)
			below := at + "/" + riverbeat.PointerToken(key)
			if seen[key] {
				return below, true
			}
			seen[key] = true
			if pointer, twice = duplicateKey(d, below); twice {
				return pointer, true
			}
		}
		_, _ = d.Token()
	}
	return "", false
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

// choice is a text that is one of a few.
type choice interface{ choices() []string }

// decodeStruct reads a JSON object into the struct v by the names of its json
// tags, exactly as they are written. A null is as good as nothing. Everything
// that is wrong is added to wrong.
func decodeStruct(v reflect.Value, raw json.RawMessage, at string, wrong *fields) {
	members, ok := riverbeat.Members(raw)
	if !ok {
		wrong.addf(at, "must be an object")
		return
	}
	byName := map[string]reflect.StructField{}
	var names []string
	for _, f := range jsonFields(v.Type()) {
		name := jsonName(f)
		byName[name] = f
		names = append(names, name)
	}
	for _, m := range members {
		pointer := at + "/" + riverbeat.PointerToken(m.Name)
		f, known := byName[m.Name]
		switch {
		case !known:
			wrong.addf(pointer, "%s", unknown(m.Name, names))
		case isNull(m.Raw):
		default:
			to := v.FieldByIndex(f.Index)
			decodeValue(to, m.Raw, pointer, wrong)
			if n, isNumber := reflect.Indirect(to).Interface().(int); isNumber && !wrong.covers(pointer) {
				if problem := outside(f, n); problem != "" {
					wrong.addf(pointer, "%s", problem)
				}
			}
		}
	}
}

// jsonFields are the fields that a JSON object has, those of embedded structs among them.
func jsonFields(t reflect.Type) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Anonymous })
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// decodeValue reads a JSON value that is not null.
func decodeValue(v reflect.Value, raw json.RawMessage, at string, wrong *fields) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch to := v.Addr().Interface().(type) {
	case *jsonArray:
		to.RawMessage = compact(raw)
		return
	case *jsonObject:
		to.RawMessage = compact(raw)
		return
	case *executorOf:
		if raw[0] != '{' {
			wrong.addf(at, "must be an object")
		}
		to.RawMessage = compact(raw)
		return
	case interface {
		read(raw json.RawMessage) (problem string)
	}:
		if problem := to.read(raw); problem != "" {
			wrong.addf(at, "%s", problem)
		}
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		if text := string(raw); text == "true" || text == "false" {
			v.SetBool(text == "true")
			return
		}
		wrong.addf(at, "must be true or false")
	case reflect.Int:
		if n, ok := wholeNumber(string(raw)); ok {
			v.SetInt(int64(n))
			return
		}
		wrong.addf(at, "must be a whole number")
	case reflect.Slice:
		decodeSlice(v, raw, at, wrong)
	case reflect.String, reflect.Array, reflect.Struct:
		if _, isText := textTypes[v.Type()]; v.Kind() == reflect.Struct && !isText {
			decodeStruct(v, raw, at, wrong)
			return
		}
		var text string
		if raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
			wrong.addf(at, "must be a string")
			return
		}
		if problem := readText(v, text); problem != "" {
			wrong.addf(at, "%s", problem)
		}
	default:
		panic(fmt.Sprintf("httpapi: a request has a field of type %s", v.Type()))
	}
}

func decodeSlice(v reflect.Value, raw json.RawMessage, at string, wrong *fields) {
	var items []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		wrong.addf(at, "must be an array")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		decodeValue(v.Index(i), item, at+"/"+strconv.Itoa(i), wrong)
	}
}

// wholeNumber reads a JSON number without a fraction: 5, 5.0 or 5e0.
func wholeNumber(text string) (int, bool) {
	if n, err := strconv.Atoi(text); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return 0, false
	}
	return int(f), true
}

// textTypes are the types, beside strings, that are written as one.
var textTypes = map[reflect.Type]struct{}{
	reflect.TypeFor[time.Time](): {},
	reflect.TypeFor[uuid.UUID](): {},
}

// readText reads the text of a string or of a query parameter into v, and
// answers what is wrong with it.
func readText(v reflect.Value, text string) (problem string) {
	switch to := v.Addr().Interface().(type) {
	case *time.Time:
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			if _, err := time.Parse(time.RFC3339, strings.Replace(text, " ", "+", 1)); err == nil {
				return "must be a time in RFC 3339; in a query, write the + of its offset as %2B"
			}
			return `must be a time in RFC 3339, such as "2026-03-01T09:00:00Z"`
		}
		if at = at.UTC().Truncate(time.Microsecond); at.Year() < 1 || at.Year() > 9999 { // as Postgres keeps it
			return "must lie in the years 1 to 9999, in UTC"
		}
		*to = at
		return ""
	case *uuid.UUID:
		id, ok := readUUID(text)
		if !ok {
			return "must be a UUID"
		}
		*to = id
		return ""
	}
	v.SetString(text)
	if one, ok := v.Interface().(choice); ok {
		for _, allowed := range one.choices() {
			if text == allowed {
				return ""
			}
		}
		return "must be one of: " + strings.Join(one.choices(), ", ")
	}
	return ""
}

// readUUID reads the one usual form of a UUID.
func readUUID(text string) (uuid.UUID, bool) {
	id, err := uuid.Parse(text)
	return id, err == nil && len(text) == len("00000000-0000-0000-0000-000000000000")
}

func compact(raw json.RawMessage) json.RawMessage {
	var text bytes.Buffer
	if err := json.Compact(&text, raw); err != nil {
		return raw
	}
	return text.Bytes()
}

// unknown says that a name is not known, and which was perhaps meant.
func unknown(name string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(name, k, least); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return "is not known"
	}
	return fmt.Sprintf("is not known; did you mean %q?", best)
}

// distance is how many characters must be put in, left out or changed to get
// from a to b, if it is less than limit; limit or more otherwise.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
