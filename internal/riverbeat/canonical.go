package riverbeat

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of a JSON value. They keep a short text from standing for something
// huge: Postgres writes 1e300 out, digit by digit.
const (
	maxJSONDepth    = 100 // arrays and objects within one another
	maxNumberLength = 400 // characters of one number, and its exponent added
	maxExponent     = 400 // of a number, either way; float64 ends at 308
	// What jsonb makes of a number with an exponent, which must be readable
	// again, is so much longer at most: 7e-399 comes back as 0.00…7.
	writtenOut = 3
)

// CanonicalJSON writes a JSON value in the one way that all equal values share:
// object keys sorted, no white space, strings by their code points, numbers by
// their exact decimal value (1, 1.0 and 10e-1 are all "1"). It is for comparing
// and hashing, not for showing.
//
// RFC 8785 (JCS) would take every number through float64, where
// 9007199254740993 and 9007199254740992 are the same. Here two runs whose ids
// differ in the last digit must not share a lock key, so digits are kept.
//
// What jsonb cannot store is refused: U+0000 and lone surrogates in strings.
// So are duplicate keys, invalid UTF-8, and values beyond the limits above. The
// error is an *Error of kind Invalid with code "invalid_json"; the pointer of
// its one field leads into raw.
func CanonicalJSON(raw []byte) ([]byte, error) {
	value, wrong := decodeJSON(raw)
	if wrong != nil {
		return nil, InvalidField("invalid_json", wrong.Pointer, "%s", wrong.Detail)
	}
	return appendCanonical(make([]byte, 0, len(raw)), value), nil
}

// decodeJSON reads one JSON value into nil, bool, json.Number, string, []any
// and map[string]any, under the rules of CanonicalJSON.
func decodeJSON(raw []byte) (any, *FieldError) {
	// encoding/json puts U+FFFD where a text is not Unicode, and so would make
	// two texts equal that are not. What it would mend is refused before.
	switch {
	case !utf8.Valid(raw):
		return nil, &FieldError{Detail: "is not valid UTF-8"}
	case !json.Valid(raw):
		return nil, &FieldError{Detail: "is not valid JSON"}
	case hasLoneSurrogate(raw):
		return nil, &FieldError{Detail: `has a string with half a surrogate pair (\ud800 to \udfff), which stands for no character`}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return decodeValue(d, 0)
}

func decodeValue(d *json.Decoder, depth int) (any, *FieldError) {
	token, err := d.Token()
	if err != nil {
		return nil, &FieldError{Detail: "is not valid JSON"}
	}
	switch token := token.(type) {
	case json.Delim:
		if depth == maxJSONDepth {
			return nil, &FieldError{Detail: "is nested more than " + strconv.Itoa(maxJSONDepth) + " levels deep"}
		}
		if token == '[' {
			return decodeArray(d, depth+1)
		}
		return decodeObject(d, depth+1)
	case json.Number:
		if _, ok := canonicalNumber(string(token)); !ok {
			return nil, &FieldError{Detail: "is a number with too many digits or too large an exponent"}
		}
		return token, nil
	case string:
		return token, checkNUL(token)
	}
	return token, nil
}

func decodeArray(d *json.Decoder, depth int) (any, *FieldError) {
	items := []any{}
	for d.More() {
		item, wrong := decodeValue(d, depth)
		if wrong != nil {
			return nil, wrong.within(strconv.Itoa(len(items)))
		}
		items = append(items, item)
	}
	_, _ = d.Token() // the closing bracket; the text is known to be valid
	return items, nil
}

func decodeObject(d *json.Decoder, depth int) (any, *FieldError) {
	object := map[string]any{}
	for d.More() {
		token, _ := d.Token()
		key, _ := token.(string)
		if wrong := checkNUL(key); wrong != nil {
			return nil, wrong.within(key)
		}
		if _, twice := object[key]; twice {
			return nil, (&FieldError{Detail: "stands twice in the same object"}).within(key)
		}
		value, wrong := decodeValue(d, depth)
		if wrong != nil {
			return nil, wrong.within(key)
		}
		object[key] = value
	}
	_, _ = d.Token()
	return object, nil
}

func checkNUL(text string) *FieldError {
	if strings.ContainsRune(text, 0) {
		return &FieldError{Detail: `contains the character \u0000, which cannot be stored`}
	}
	return nil
}

// within moves the pointer of e one level up: what is wrong is wrong in the
// member or item called token.
func (e *FieldError) within(token string) *FieldError {
	return &FieldError{Pointer: "/" + PointerToken(token) + e.Pointer, Detail: e.Detail}
}

// PointerToken escapes a key for a JSON Pointer (RFC 6901).
func PointerToken(key string) string {
	if !strings.ContainsAny(key, "~/") {
		return key
	}
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}

// hasLoneSurrogate tells whether a \u escape of valid JSON is half a pair.
func hasLoneSurrogate(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // on the character after the backslash
		first, ok := hexEscape(raw[i:])
		if !ok {
			continue
		}
		i += 4
		if !utf16.IsSurrogate(first) {
			continue
		}
		if len(raw) < i+3 || raw[i+1] != '\\' {
			return true
		}
		second, ok := hexEscape(raw[i+2:])
		if !ok || utf16.DecodeRune(first, second) == utf8.RuneError {
			return true
		}
		i += 6
	}
	return false
}

// hexEscape reads the uXXXX of an escape.
func hexEscape(text []byte) (rune, bool) {
	if len(text) < 5 || text[0] != 'u' {
		return 0, false
	}
	code, err := strconv.ParseUint(string(text[1:5]), 16, 16)
	return rune(code), err == nil
}

// canonicalNumber spells a JSON number as its digits without outer zeros and,
// if it is not 0, an exponent: 1500 is 15e2. ok is false beyond the limits.
func canonicalNumber(text string) (canonical string, ok bool) {
	digits, exponent, ok := decimal(text)
	if !ok {
		return "", false
	}
	if exponent != 0 {
		digits += "e" + strconv.Itoa(exponent)
	}
	return digits, true
}

// decimal takes a JSON number apart: its value is digits times ten to the
// exponent, and digits (with a sign if negative) have no outer zeros.
func decimal(text string) (digits string, exponent int, ok bool) {
	if len(text) > maxNumberLength+writtenOut {
		return "", 0, false
	}
	digits, power, found := strings.Cut(strings.ToLower(text), "e")
	if found {
		var err error
		if exponent, err = strconv.Atoi(power); err != nil || len(digits)+max(exponent, -exponent) > maxNumberLength {
			return "", 0, false
		}
	}
	digits, negative := strings.CutPrefix(digits, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	exponent -= len(fraction)
	digits = strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return "0", 0, true // -0, too
	}
	trimmed := strings.TrimRight(digits, "0")
	exponent += len(digits) - len(trimmed)
	if negative {
		trimmed = "-" + trimmed
	}
	return trimmed, exponent, true
}

func appendCanonical(to []byte, value any) []byte {
	switch value := value.(type) {
	case bool:
		return strconv.AppendBool(to, value)
	case json.Number:
		number, _ := canonicalNumber(string(value))
		return append(to, number...)
	case string:
		return appendCanonicalString(to, value)
	case []any:
		to = append(to, '[')
		for i, item := range value {
			if i > 0 {
				to = append(to, ',')
			}
			to = appendCanonical(to, item)
		}
		return append(to, ']')
	case map[string]any:
		to = append(to, '{')
		for i, key := range slices.Sorted(maps.Keys(value)) {
			if i > 0 {
				to = append(to, ',')
			}
			to = append(appendCanonicalString(to, key), ':')
			to = appendCanonical(to, value[key])
		}
		return append(to, '}')
	}
	return append(to, "null"...)
}

// appendCanonicalString escapes only what JSON demands.
func appendCanonicalString(to []byte, text string) []byte {
	const hex = "0123456789abcdef"
	to = append(to, '"')
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		case c < ' ':
			to = append(to, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}

// Member is one member of a JSON object, as its text has it.
type Member struct {
	Name string
	Raw  json.RawMessage
}

// Members reads the members of a JSON object in the order of its text. ok is
// false when raw is not an object.
func Members(raw json.RawMessage) (list []Member, ok bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		token, err := d.Token()
		name, isName := token.(string)
		var value json.RawMessage
		if err != nil || !isName || d.Decode(&value) != nil {
			return nil, false
		}
		list = append(list, Member{name, value})
	}
	_, err := d.Token()
	return list, err == nil || errors.Is(err, io.EOF)
}
