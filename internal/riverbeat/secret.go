package riverbeat

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"slices"
)

// secretKey is the one member of an object that stands for a secret:
// {"$secret": "name"}. What is behind the name is known to the operator's
// configuration alone, and resolved by the node that executes.
const secretKey = "$secret"

// SecretName is what names of secrets look like.
var SecretName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$`)

const badSecret = `must be {"$secret": "name"} with a name of at most 100 letters, digits, ., _ and -` //nolint:gosec // no secret

// onlySecret is what is wrong with a text that may only be referred to.
const onlySecret = `must be a reference to a secret, {"$secret": "name"}: what stands here is read by many` //nolint:gosec // no secret

// secretIn tells whether a decoded JSON value stands for a secret, and for which. An
// object that has the key and is no reference gives the problem with it.
func secretIn(value any) (name string, is bool, problem string) {
	object, _ := value.(map[string]any)
	reference, is := object[secretKey]
	if !is {
		return "", false, ""
	}
	name, _ = reference.(string)
	if len(object) != 1 || !SecretName.MatchString(name) {
		return "", false, badSecret
	}
	return name, true, ""
}

// checkSecrets adds what is wrong with the references to secrets within a value.
func (f *fields) checkSecrets(pointer string, value any) {
	if _, _, problem := secretIn(value); problem != "" {
		f.addf(pointer, "%s", problem)
		return
	}
	switch value := value.(type) {
	case []any:
		for i, item := range value {
			f.checkSecrets(indexed(pointer, i), item)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			f.checkSecrets(pointer+"/"+PointerToken(name), value[name])
		}
	}
}

// Text is a text of an executor's settings: as it is, or a reference to a secret.
type Text struct {
	Literal string
	Secret  string // its name; then there is no Literal
}

// IsZero tells whether there is none.
func (t Text) IsZero() bool { return t == Text{} }

// MarshalJSON writes a string, or a reference.
func (t Text) MarshalJSON() ([]byte, error) { return marshalReference(secretKey, t.Secret, t.Literal) }

// marshalReference writes {key: name}, or the literal where there is no name.
func marshalReference(key, name, literal string) ([]byte, error) {
	if name != "" {
		return encodeJSON(map[string]any{key: name})
	}
	return encodeJSON(literal)
}

// UnmarshalJSON reads a string, or a reference.
func (t *Text) UnmarshalJSON(raw []byte) error {
	value, wrong := decodeJSON(raw)
	if wrong != nil {
		return errors.New(wrong.Detail)
	}
	switch value := value.(type) {
	case string:
		*t = Text{Literal: value}
		return nil
	case map[string]any:
		name, is, _ := secretIn(value)
		if !is {
			return errors.New(badSecret)
		}
		*t = Text{Secret: name}
		return nil
	}
	return errors.New(`must be a string or {"$secret": "name"}`)
}

// ReplaceSecrets writes raw with what value has for each secret that it refers to. raw
// comes back as it is if it refers to none. An error of value is returned.
func ReplaceSecrets(raw json.RawMessage, value func(name string) (string, error)) (json.RawMessage, error) {
	if !bytes.ContainsRune(raw, '$') && !bytes.ContainsRune(raw, '\\') { // $ may be written \u0024
		return raw, nil
	}
	decoded, wrong := decodeJSON(raw)
	if wrong != nil {
		return nil, errors.New(wrong.Detail)
	}
	replaced, err := replaceSecrets(decoded, value)
	if err != nil {
		return nil, err
	}
	return encodeJSON(replaced)
}

func replaceSecrets(decoded any, value func(name string) (string, error)) (any, error) {
	name, is, problem := secretIn(decoded)
	switch {
	case problem != "":
		return nil, errors.New("a reference to a secret " + problem)
	case is:
		return value(name)
	}
	var err error
	switch decoded := decoded.(type) {
	case []any:
		for i := range decoded {
			if decoded[i], err = replaceSecrets(decoded[i], value); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key := range decoded {
			if decoded[key], err = replaceSecrets(decoded[key], value); err != nil {
				return nil, err
			}
		}
	}
	return decoded, nil
}
