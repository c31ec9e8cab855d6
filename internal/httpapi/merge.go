package httpapi

import (
	"encoding/json"
	"reflect"
	"slices"

	"riverbeat/internal/riverbeat"
)

// patch is a JSON merge patch (RFC 7396) of what T is the whole of: a member
// that is not there stays, null is back to its default, objects are merged.
type patch[T any] struct{ raw json.RawMessage }

// patcher is a patch of whatever.
type patcher interface {
	readPatch(raw json.RawMessage, wrong *fields)
}

// readPatch keeps the patch and notes what is wrong with it by itself.
func (p *patch[T]) readPatch(raw json.RawMessage, wrong *fields) {
	var alone T
	decodeStruct(reflect.ValueOf(&alone).Elem(), raw, "", wrong)
	p.raw = raw
}

func (*patch[T]) variantOf() (whole reflect.Type, suffix string) {
	return reflect.TypeFor[T](), "Patch"
}

// apply is current with the patch applied.
func (p *patch[T]) apply(current T) (T, error) {
	var merged T
	raw, err := encode(current)
	if err != nil {
		return merged, err
	}
	var wrong fields
	decodeStruct(reflect.ValueOf(&merged).Elem(), mergePatch(raw, p.raw), "", &wrong)
	return merged, wrong.err()
}

// mergePatch is RFC 7396's MergePatch. It keeps the order of members and the
// text of what is not patched.
func mergePatch(target, patch json.RawMessage) json.RawMessage {
	changes, ok := riverbeat.Members(patch)
	if !ok {
		return patch
	}
	members, _ := riverbeat.Members(target)
	for _, change := range changes {
		i := slices.IndexFunc(members, func(m riverbeat.Member) bool { return m.Name == change.Name })
		switch {
		case isNull(change.Raw) && i >= 0:
			members = slices.Delete(members, i, i+1)
		case isNull(change.Raw):
		case i >= 0:
			members[i].Raw = mergePatch(members[i].Raw, change.Raw)
		default:
			members = append(members, riverbeat.Member{Name: change.Name, Raw: mergePatch(nil, change.Raw)})
		}
	}
	text := json.RawMessage("{")
	for i, m := range members {
		if i > 0 {
			text = append(text, ',')
		}
		name, err := encode(m.Name)
		if err != nil {
			panic(err) // a string
		}
		text = append(append(append(text, name...), ':'), m.Raw...)
	}
	return append(text, '}')
}
