package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"riverbeat/internal/riverbeat"
)

// param is a field of a request that comes from its path or its query.
type param struct {
	name  string
	index []int
	field reflect.StructField
}

// required tells whether the request must have the parameter.
func (p param) required() bool {
	return p.field.Tag.Get("path") != "" || p.field.Tag.Get("required") == "true"
}

// paramsOf are the fields of a request with the tag path, query or header, those of
// embedded structs included.
func paramsOf(request reflect.Type, tag string) []param {
	var list []param
	for _, f := range reflect.VisibleFields(request) {
		if name := f.Tag.Get(tag); name != "" {
			list = append(list, param{name, f.Index, f})
		}
	}
	return list
}

// readPath reads the path's parameters, as they stand in it. What cannot be the
// id of a thing is the id of none.
func readPath(request reflect.Value, params []param, raw func(name string) string) error {
	for _, p := range params {
		text, err := url.PathUnescape(raw(p.name))
		if err != nil || !storable(text) {
			return malformed("malformed_path", "The %s in the path is not a text that can be read.", p.name)
		}
		if problem := readText(request.FieldByIndex(p.index), text); problem != "" {
			what := p.field.Tag.Get("of")
			return riverbeat.Errorf(riverbeat.NotFound, what+"_not_found", "There is no %s %q.", what, text)
		}
	}
	return nil
}

// place is a struct some of whose fields are parameters.
type place struct {
	value  reflect.Value
	params []param
}

// readHeaders reads parameters that are headers, none of which may stand twice.
func readHeaders(in place, headers http.Header) error {
	for _, p := range in.params {
		values := headers.Values(p.name)
		if len(values) == 0 {
			continue
		}
		odd := func(r rune) bool { return r < ' ' || r > '~' }
		if len(values) > 1 || len(values[0]) > maxHeaderLength || values[0] == "" || strings.ContainsFunc(values[0], odd) {
			return malformed("malformed_header", "The header %s must stand there once, with 1 to %d printable characters.", p.name, maxHeaderLength)
		}
		switch to := in.value.FieldByIndex(p.index).Addr().Interface().(type) {
		case *string:
			*to = values[0]
		case *expected:
			if !to.read(values[0]) {
				return malformed("malformed_header", `The header %s must be an ETag such as "3", several with commas between, or *.`, p.name)
			}
		}
	}
	return nil
}

const maxHeaderLength = 255

var entityTag = regexp.MustCompile(`^(W/)?"[^"]*"$`)

// read reads the header. A tag that nothing of ours has, or a weak one, is one that
// nothing matches.
func (e *expected) read(text string) bool {
	e.Given = true
	if strings.TrimSpace(text) == "*" {
		e.Any = true
		return true
	}
	for tag := range strings.SplitSeq(text, ",") {
		tag = strings.TrimSpace(tag)
		if !entityTag.MatchString(tag) {
			return false
		}
		if version, err := strconv.Atoi(strings.Trim(tag, `"`)); err == nil && version > 0 {
			e.Versions = append(e.Versions, version)
		}
	}
	return true
}

// readQuery reads the query's parameters. A name that is not known, or stands
// twice where only one is taken, is refused.
func readQuery(places []place, rawQuery string, wrong *fields) error {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return malformed("malformed_query", "The query cannot be read: %s.", queryError(err))
	}
	var names []string
	for _, in := range places {
		for _, p := range in.params {
			names = append(names, p.name)
			values, given := query[p.name]
			if !given {
				if missing := p.field.Tag.Get("def"); missing != "" {
					values = []string{missing}
				}
				if p.required() {
					wrong.addf(p.name, "is required")
				}
			}
			if problem := readValues(in.value.FieldByIndex(p.index), p, values); problem != "" {
				wrong.addf(p.name, "%s", problem)
			}
		}
	}
	var strange []string
	for name := range query {
		if !slices.Contains(names, name) {
			strange = append(strange, name)
		}
	}
	slices.Sort(strange)
	for _, name := range strange {
		wrong.addf(strings.ToValidUTF8(name, "?"), "%s", unknown(name, names))
	}
	return nil
}

// queryError says what is wrong with a query without repeating all of it.
func queryError(err error) string {
	if escape, ok := errors.AsType[url.EscapeError](err); ok {
		return "invalid escape " + strconv.Quote(string(escape))
	}
	return err.Error()
}

// readValues reads the values that a query gives to one parameter.
func readValues(v reflect.Value, p param, values []string) (problem string) {
	if len(values) == 0 {
		return ""
	}
	for _, text := range values {
		if !storable(text) {
			return "is not a text that can be stored"
		}
	}
	if v.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(v.Type(), len(values), len(values)))
		for i, text := range values {
			if problem := readText(v.Index(i), text); problem != "" {
				return problem
			}
		}
		return ""
	}
	if len(values) > 1 {
		return "may be given only once"
	}
	text := values[0]
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return "must be true or false"
		}
		v.SetBool(text == "true")
		return ""
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return "must be a whole number"
		}
		v.SetInt(int64(n))
		return outside(p.field, n)
	default:
		if most, err := strconv.Atoi(p.field.Tag.Get("maxLength")); err == nil && utf8.RuneCountInString(text) > most {
			return fmt.Sprintf("must have at most %d characters", most)
		}
		return readText(v, text)
	}
}

// outside says that a number is not within the tags minimum and maximum of its
// field, which the OpenAPI document shows as well.
func outside(f reflect.StructField, n int) (problem string) {
	least, err := strconv.Atoi(f.Tag.Get("minimum"))
	if err != nil {
		return ""
	}
	most, err := strconv.Atoi(f.Tag.Get("maximum"))
	if err != nil || n >= least && n <= most {
		return ""
	}
	return fmt.Sprintf("must be between %d and %d", least, most)
}

// storable tells whether Postgres can take text at all.
func storable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}
