package riverbeat

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptinlin/jsonschema"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// listedInfo is the schema of a real task.
const listedInfo = `{
	"$schema": "https://json-schema.org/draft/2020-12/schema",
	"type": "object",
	"properties": {
		"period_type": {"type": "string", "enum": ["daily", "weekly"], "x-name": true},
		"date":        {"type": "string", "format": "date"},
		"codes":       {"type": "array", "items": {"type": "string", "pattern": "^[0-9]{4}$"}, "default": []},
		"limit":       {"type": "integer", "minimum": 1, "default": 100},
		"api_key":     {"type": "string", "minLength": 8, "writeOnly": true}
	},
	"required": ["period_type"],
	"additionalProperties": false
}`

func compiled(t require.TestingT, schema string) *ParameterSchema {
	s, err := CompileParameterSchema(json.RawMessage(schema))
	require.NoError(t, err, schema)
	return s
}

func TestCompileParameterSchema(t *testing.T) {
	t.Parallel()

	t.Run("Accepted", func(t *testing.T) {
		t.Parallel()
		for name, schema := range map[string]string{
			"Nothing":            ``,
			"Null":               `null`,
			"Empty":              `{}`,
			"True":               `true`,
			"Plain":              listedInfo,
			"RootID":             `{"$id":"https://example.com/x","properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"type":"string"}}}`,
			"Definitions":        `{"properties":{"a":{"$ref":"#/definitions/a"}},"definitions":{"a":{"type":"string"}}}`,
			"Anchor":             `{"properties":{"a":{"$ref":"#it"}},"$defs":{"a":{"$anchor":"it","type":"string"}}}`,
			"EscapedReference":   `{"properties":{"a":{"$ref":"#/$defs/x~1y~0%20z"}},"$defs":{"x/y~ z":{"type":"string"}}}`,
			"RecursionDownwards": `{"properties":{"child":{"$ref":"#"}}}`,
			"OpenAPIAnnotations": `{"properties":{"a":{"type":"string","format":"password","example":"x","x-order":3}}}`,
			"PropertyNamedType":  `{"properties":{"type":{"type":"string"},"$ref":{"type":"string"}}}`,
		} {
			_, err := CompileParameterSchema(json.RawMessage(schema))
			require.NoError(t, err, name)
		}
	})

	for _, test := range []struct{ name, schema, pointer, detail string }{
		{"NotJSON", `{"type":`, "", "JSON"},
		{"Array", `[]`, "", "must be a schema"},
		{"String", `"object"`, "", "must be a schema"},
		{"SubschemaNull", `{"properties":{"a":null}}`, "/properties/a", "must be a schema"},
		{"KeywordTwice", `{"type":"object","type":"object"}`, "/type", "twice"},
		{"NUL", `{"properties":{"a":{"const":"\u0000"}}}`, "/properties/a/const", "u0000"},
		{"OtherDraft", `{"$schema":"http://json-schema.org/draft-07/schema#"}`, "/$schema", "2020-12"},
		{"RootForNoObject", `{"type":"string"}`, "/type", "object"},

		{"TypeMisspelt", `{"properties":{"a":{"type":"strin"}}}`, "/properties/a/type", "strin"},
		{"TypeTwice", `{"properties":{"a":{"type":["string","string"]}}}`, "/properties/a/type", "twice"},
		{"RequiredNoList", `{"required":"a"}`, "/required", "list"},
		{"RequiredBoolean", `{"properties":{"a":{"required":true}}}`, "/properties/a/required", "list"},
		{"RequiredTwice", `{"required":["a","a"]}`, "/required", "twice"},
		{"PropertiesNoObject", `{"properties":["a"]}`, "/properties", "object"},
		{"EnumEmpty", `{"properties":{"a":{"enum":[]}}}`, "/properties/a/enum", "at least one"},
		{"EnumNoList", `{"properties":{"a":{"enum":"x"}}}`, "/properties/a/enum", "list"},
		{"MinimumString", `{"properties":{"a":{"minimum":"1"}}}`, "/properties/a/minimum", "number"},
		{"ExclusiveMinimumOfDraft4", `{"properties":{"a":{"exclusiveMinimum":true}}}`, "/properties/a/exclusiveMinimum", "number"},
		{"MinLengthNegative", `{"properties":{"a":{"minLength":-1}}}`, "/properties/a/minLength", "whole"},
		{"MaxItemsFraction", `{"properties":{"a":{"maxItems":1.5}}}`, "/properties/a/maxItems", "whole"},
		{"MultipleOfZero", `{"properties":{"a":{"multipleOf":0.0}}}`, "/properties/a/multipleOf", "above 0"},
		{"AllOfEmpty", `{"allOf":[]}`, "/allOf", "at least one"},
		{"AllOfObject", `{"allOf":{}}`, "/allOf", "list"},
		{"ItemsOfDraft7", `{"properties":{"a":{"items":[{}]}}}`, "/properties/a/items", "prefixItems"},
		{"AdditionalItemsOfDraft7", `{"properties":{"a":{"additionalItems":false}}}`, "/properties/a/additionalItems", "prefixItems"},
		{"DependenciesOfDraft7", `{"dependencies":{"a":["b"]}}`, "/dependencies", "dependentRequired"},
		{"NullableOfOpenAPI", `{"properties":{"a":{"nullable":true}}}`, "/properties/a/nullable", "null"},
		{"AdditionalPropertiesString", `{"additionalProperties":"no"}`, "/additionalProperties", "must be a schema"},
		{"PatternLookahead", `{"properties":{"a":{"pattern":"(?=x)"}}}`, "/properties/a/pattern", "look-around"},
		{"PatternBroken", `{"properties":{"a":{"pattern":"["}}}`, "/properties/a/pattern", "missing closing ]"},
		{"PatternHuge", `{"properties":{"a":{"pattern":"(a{1000})(b{1000})"}}}`, "/properties/a/pattern", "large"},
		{"PatternLong", `{"properties":{"a":{"pattern":"` + strings.Repeat("a", maxPatternText+1) + `"}}}`, "/properties/a/pattern", "large"},
		{"PatternPropertyBroken", `{"patternProperties":{"(":{}}}`, "/patternProperties/(", "pattern"},
		{"XNameString", `{"properties":{"a":{"x-name":"yes"}}}`, "/properties/a/x-name", "true or false"},
		{"HugeNumber", `{"properties":{"a":{"maximum":1e999999999}}}`, "/properties/a/maximum", "exponent"},

		{"RemoteReference", `{"$ref":"https://example.com/schema.json"}`, "/$ref", "nothing is fetched"},
		{"FileReference", `{"$ref":"file:///etc/passwd"}`, "/$ref", "nothing is fetched"},
		{"RelativeReference", `{"$ref":"other.json#/a"}`, "/$ref", "nothing is fetched"},
		{"MissingReference", `{"properties":{"a":{"$ref":"#/$defs/a"}}}`, "/properties/a/$ref", "no schema"},
		{"ReferenceToNoSchema", `{"$ref":"#/properties","properties":{}}`, "/$ref", "no schema"},
		{"MissingDynamicReference", `{"$dynamicRef":"#a"}`, "/$dynamicRef", "no schema"},
		{"MissingAnchor", `{"$ref":"#a"}`, "/$ref", "no schema"},
		{"AnchorTwice", `{"$defs":{"a":{"$anchor":"x"},"b":{"$anchor":"x"}}}`, "/$defs/b/$anchor", "another"},
		{"NestedID", `{"$defs":{"a":{"$id":"https://example.com/x"}}}`, "/$defs/a/$id", "root only"},
		{"ReferenceToItself", `{"$ref":"#"}`, "", "without end"},
		{"MutualReferences", `{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"anyOf":[{"$ref":"#/$defs/a"}]}}}`, "/$defs/a", "without end"},
		{"ReferenceToItselfThroughNot", `{"not":{"$ref":"#"}}`, "", "without end"},
		{"ReferenceToItselfUnused", `{"$defs":{"a":{"if":true,"then":{"$ref":"#/$defs/a"}}}}`, "/$defs/a", "without end"},

		{"DefaultOfWrongType", `{"properties":{"a":{"type":"integer","default":"1"}}}`, "/properties/a/default", "must be integer"},
		{"DefaultWrongInside", `{"properties":{"a":{"type":"array","items":{"minimum":3},"default":[4,1]}}}`, "/properties/a/default/1", "at least 3"},
		{"DefaultWrongThroughReference", `{"properties":{"a":{"$ref":"#/$defs/a","default":"x"}},"$defs":{"a":{"type":"integer"}}}`, "/properties/a/default", "must be integer"},
		{"DefaultWrongForWhoRefersToIt", `{"properties":{"a":{"$ref":"#/$defs/a","minimum":5}},"$defs":{"a":{"default":1}}}`, "/$defs/a/default", "at least 5"},
		{"DefaultLacksRequired", `{"properties":{"a":{"required":["b"],"default":{}}}}`, "/properties/a/default/b", "required"},
		{"DefaultOfWrongFormat", `{"properties":{"a":{"format":"date","default":"today"}}}`, "/properties/a/default", "date"},
		{"DefaultsWithoutEnd", `{"properties":{"t":{"$ref":"#/$defs/n"}},"$defs":{"n":{"properties":{"n":{"$ref":"#/$defs/n","default":{}}}}}}`, "/$defs/n/properties/n/default", "too deep"},

		{"TooLarge", `{"description":"` + strings.Repeat("x", MaxSchemaSize) + `"}`, "", "bytes"},
		{"TooDeep", nested(maxSchemaDepth+1, `{"not":`, `{}`, `}`), strings.Repeat("/not", maxSchemaDepth+1), "deep"},
		{"TooManySchemas", `{"$defs":{` + manyMembers(maxSchemaNodes, `{}`) + `}}`, fmt.Sprintf("/$defs/p%d", maxSchemaNodes-1), "too many"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := CompileParameterSchema(json.RawMessage(test.schema))
			e := requireInvalid(t, err, "invalid_parameter_schema")
			require.Equal(t, "/parameter_schema"+test.pointer, e.Fields[0].Pointer)
			require.Contains(t, e.Fields[0].Detail, test.detail)
		})
	}

	t.Run("ReportsAllAtOnce", func(t *testing.T) {
		t.Parallel()
		_, err := CompileParameterSchema(json.RawMessage(`{"required":1,"properties":{"a":{"type":"x"},"b":{"pattern":"("}}}`))
		require.Len(t, requireInvalid(t, err, "invalid_parameter_schema").Fields, 3)
	})
}

func TestEffective(t *testing.T) {
	t.Parallel()

	t.Run("UnchangedWhenNothingIsFilledIn", func(t *testing.T) {
		t.Parallel()
		s := compiled(t, `{"properties":{"a":{"default":1}}}`)
		for _, params := range []string{`{ "b":2, "a": 1.0 }`, `{"a":123456789012345678901234567890.1234567890123456789}`} {
			got, err := s.Effective(json.RawMessage(params))
			require.NoError(t, err)
			require.Equal(t, params, string(got))
		}
	})

	t.Run("MissingParamsAreEmpty", func(t *testing.T) {
		t.Parallel()
		for _, params := range []string{``, `null`, `{}`, ` null `} {
			got, err := compiled(t, `{}`).Effective(json.RawMessage(params))
			require.NoError(t, err)
			require.Equal(t, `{}`, string(got))
		}
	})

	for _, test := range []struct{ name, schema, params, want string }{
		{"Given", `{"properties":{"a":{"default":1}}}`, `{"a":2}`, `{"a":2}`},
		{"NullIsGiven", `{"properties":{"a":{"default":1}}}`, `{"a":null}`, `{"a":null}`},
		{"Missing", `{"properties":{"a":{"default":1},"b":{"default":null},"c":{}}}`, `{}`, `{"a":1,"b":null}`},
		{"BeforeRequired", `{"properties":{"a":{"default":1}},"required":["a"]}`, `{}`, `{"a":1}`},
		{"NumbersKeepTheirSpelling", `{"properties":{"a":{"default":1.50}}}`, `{"b":9007199254740993,"c":1.0}`, `{"a":1.50,"b":9007199254740993,"c":1.0}`},
		{"TextKeepsItsCharacters", `{"properties":{"a":{"default":"<&>"}}}`, `{"b":"é"}`, `{"a":"<&>","b":"é"}`},
		{"Nested", `{"properties":{"o":{"properties":{"a":{"default":1}}}}}`, `{"o":{}}`, `{"o":{"a":1}}`},
		{"NotInAMissingObject", `{"properties":{"o":{"properties":{"a":{"default":1}}}}}`, `{}`, `{}`},
		{"InAnObjectThatIsADefault", `{"properties":{"o":{"default":{},"properties":{"a":{"default":1}}}}}`, `{}`, `{"o":{"a":1}}`},
		{"InItems", `{"properties":{"l":{"prefixItems":[true],"items":{"properties":{"a":{"default":1}}}}}}`, `{"l":[{},{},{"a":2}]}`, `{"l":[{},{"a":1},{"a":2}]}`},
		{"InPatternAndAdditionalProperties", `{"patternProperties":{"^p":{"properties":{"a":{"default":1}}}},"additionalProperties":{"properties":{"b":{"default":2}}}}`, `{"p":{},"q":{}}`, `{"p":{"a":1},"q":{"b":2}}`},
		{"ThroughReference", `{"$ref":"#/$defs/x","$defs":{"x":{"properties":{"a":{"default":1}}}}}`, `{}`, `{"a":1}`},
		{"OfWhatAPropertyRefersTo", `{"properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"default":1}}}`, `{}`, `{"a":1}`},
		{"OwnBeforeThatOfTheReference", `{"properties":{"a":{"$ref":"#/$defs/x","default":2}},"$defs":{"x":{"default":1}}}`, `{}`, `{"a":2}`},
		{"ThroughAllOf", `{"allOf":[{"properties":{"a":{"default":1}}},{"properties":{"a":{"default":2},"b":{"default":3}}}]}`, `{}`, `{"a":1,"b":3}`},
		{"NotThroughAnyOf", `{"anyOf":[{"properties":{"a":{"default":1}}}]}`, `{}`, `{}`},
		{"Recursive", `{"properties":{"v":{"default":0},"next":{"$ref":"#"}}}`, `{"next":{"next":{}}}`, `{"next":{"next":{"v":0},"v":0},"v":0}`},
		{"DefaultsAreNotShared", `{"properties":{"a":{"$ref":"#/$defs/x"},"b":{"$ref":"#/$defs/x"}},"$defs":{"x":{"default":{"l":[{}]}}}}`, `{}`, `{"a":{"l":[{}]},"b":{"l":[{}]}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := compiled(t, test.schema).Effective(json.RawMessage(test.params))
			require.NoError(t, err)
			require.Equal(t, test.want, string(got))
		})
	}

	t.Run("TwiceIsAsGoodAsOnce", func(t *testing.T) {
		t.Parallel()
		s := compiled(t, listedInfo)
		once, err := s.Effective(json.RawMessage(`{"period_type":"daily"}`))
		require.NoError(t, err)
		twice, err := s.Effective(once)
		require.NoError(t, err)
		require.Equal(t, string(once), string(twice))
	})
}

func TestEffectiveRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, schema, params string
		want                 []string // "pointer: detail"
	}{
		{"MissingProperty", listedInfo, `{}`, []string{"/period_type: is required"}},
		{"MissingInside", `{"properties":{"o":{"required":["a","b"]}}}`, `{"o":{}}`, []string{"/o/a: is required", "/o/b: is required"}},
		{"UnknownProperty", listedInfo, `{"period_type":"daily","perod":1}`, []string{"/perod: is not a known property"}},
		{"UnknownPropertyEscaped", `{"additionalProperties":false}`, `{"a/b~c":1}`, []string{"/a~1b~0c: is not a known property"}},
		{"UnevaluatedProperty", `{"allOf":[{"properties":{"a":true}}],"unevaluatedProperties":false}`, `{"a":1,"b":1}`, []string{"/b: is not a known property"}},
		{"WrongType", `{"properties":{"a":{"type":"integer"}}}`, `{"a":"1"}`, []string{"/a: must be integer, not string"}},
		{"WrongTypeSaysNoMore", `{"properties":{"a":{"type":["string","null"],"enum":["x",null]}}}`, `{"a":1}`, []string{"/a: must be string or null, not integer"}},
		{"Enum", listedInfo, `{"period_type":"hourly"}`, []string{`/period_type: must be one of "daily", "weekly"`}},
		{"Const", `{"properties":{"a":{"const":{"x":1}}}}`, `{"a":1}`, []string{`/a: must be {"x":1}`}},
		{"Bounds", `{"properties":{"a":{"minimum":2,"multipleOf":2}}}`, `{"a":1}`, []string{"/a: must be at least 2", "/a: must be a multiple of 2"}},
		{"Lengths", `{"properties":{"a":{"maxLength":1},"b":{"minItems":1},"c":{"uniqueItems":true},"d":{"minProperties":1}}}`, `{"a":"ab","b":[],"c":[1,1.0],"d":{}}`, []string{"/a: must have at most 1 characters", "/b: must have at least 1 items", "/c: must not have the same item twice", "/d: must have at least 1 properties"}},
		{"Pattern", listedInfo, `{"period_type":"daily","codes":["7203","x"]}`, []string{"/codes/1: must match the pattern ^[0-9]{4}$"}},
		{"Format", listedInfo, `{"period_type":"daily","date":"2024-02-30"}`, []string{"/date: must have the format date"}},
		{"PropertyName", `{"propertyNames":{"maxLength":1}}`, `{"ab":1}`, []string{"/ab: has a name that must have at most 1 characters"}},
		{"DependentRequired", `{"dependentRequired":{"a":["b"]}}`, `{"a":1}`, []string{"/b: is required beside a"}},
		{"Not", `{"properties":{"a":{"not":{"type":"string"}}}}`, `{"a":""}`, []string{`/a: has what the schema excludes by "not"`}},
		{"Contains", `{"properties":{"a":{"contains":{"const":1}}}}`, `{"a":[2]}`, []string{"/a: must have at least 1 items of the kind the schema names"}},
		{"OptionalValue", `{"properties":{"a":{"anyOf":[{"type":"string","format":"date"},{"type":"null"}]}}}`, `{"a":"x"}`, []string{"/a: must have the format date"}},
		{"NoAlternative", `{"properties":{"a":{"anyOf":[{"type":"string"},{"type":"null"}]}}}`, `{"a":1}`, []string{"/a: fits none of the schema's 2 alternatives"}},
		{"TwoAlternatives", `{"properties":{"a":{"oneOf":[{"minimum":1},{"minimum":2}]}}}`, `{"a":3}`, []string{"/a: fits 2 of the schema's alternatives, where exactly one is wanted"}},
		{"Then", `{"if":{"required":["a"]},"then":{"required":["b"]},"else":{"required":["c"]}}`, `{"a":1}`, []string{"/b: is required"}},
		{"Else", `{"if":{"required":["a"]},"then":{"required":["b"]},"else":{"required":["c"]}}`, `{}`, []string{"/c: is required"}},
		{"SaidOnceOnly", `{"required":["a"],"allOf":[{"required":["a"]}]}`, `{}`, []string{"/a: is required"}},
		{"False", `false`, `{}`, []string{": is not allowed"}},
		{"NoObject", `{}`, `[]`, []string{": must be a JSON object"}},
		{"NotJSON", `{}`, `{`, []string{": is not valid JSON"}},
		{"NUL", `{}`, `{"a":{"b":"\u0000"}}`, []string{`/a/b: contains the character \u0000, which cannot be stored`}},
		{"InTheOrderOfTheText", `{"properties":{"b":{"type":"null"},"a":{"type":"null"}},"additionalProperties":{"type":"null"}}`, `{"z":1,"a":1,"y":1,"b":1}`, []string{
			"/b: must be null, not integer", "/a: must be null, not integer", "/y: must be null, not integer", "/z: must be null, not integer",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := compiled(t, test.schema).Effective(json.RawMessage(test.params))
			var got []string
			for _, field := range requireInvalid(t, err, "invalid_params").Fields {
				got = append(got, strings.TrimPrefix(field.Pointer, "/task_params")+": "+field.Detail)
			}
			require.Equal(t, test.want, got)
		})
	}

	t.Run("NeverShowsWhatWasGiven", func(t *testing.T) {
		t.Parallel()
		const secret = "hunter2"
		for _, schema := range []string{
			`{"properties":{"k":{"minLength":8}}}`,
			`{"properties":{"k":{"enum":["a"]}}}`,
			`{"properties":{"k":{"pattern":"^[0-9]+$","format":"uuid","maxLength":2,"const":"a","type":"string"}}}`,
			`{"properties":{"k":{"type":"integer"}}}`,
			`{"properties":{"k":{"anyOf":[{"const":1},{"format":"date"}]}}}`,
			`{"properties":{"k":{"not":{"type":"string"}}}}`,
		} {
			_, err := compiled(t, schema).Effective(json.RawMessage(`{"k":"` + secret + `"}`))
			e := requireInvalid(t, err, "invalid_params")
			require.NotContains(t, fmt.Sprint(*e), secret, schema)
		}
	})

	t.Run("NotMoreThanSoManyErrors", func(t *testing.T) {
		t.Parallel()
		_, err := compiled(t, `{"additionalProperties":false}`).Effective(json.RawMessage(`{` + manyMembers(1000, `1`) + `}`))
		require.Len(t, requireInvalid(t, err, "invalid_params").Fields, maxFieldErrors)
	})
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for format, values := range map[string]struct{ valid, invalid []string }{
		"date":      {[]string{"2024-02-29"}, []string{"2023-02-29", "2024-2-9", "today", ""}},
		"date-time": {[]string{"2024-02-29T12:00:00Z", "2024-02-29T12:00:00.5+09:00"}, []string{"2024-02-29T12:00:00", "2024-02-29 12:00:00Z", "2024-02-29T+1:00:00Z"}},
		"time":      {[]string{"12:00:00Z"}, []string{"12:00:00", "25:00:00Z", "+1:00:00Z"}},
		"duration":  {[]string{"P1D", "PT1H30M"}, []string{"1h", "P"}},
		"email":     {[]string{"a@example.com"}, []string{"a", "a@", "Joe <a@example.com>"}},
		"uuid":      {[]string{"018f4e2a-7c3b-7000-8000-000000000000"}, []string{"018f4e2a7c3b70008000000000000000"}},
		"ipv4":      {[]string{"10.0.0.1"}, []string{"10.0.0.256", "+1.2.3.4", "1.2.3"}},
		"ipv6":      {[]string{"::1"}, []string{"10.0.0.1", "::g"}},
		"hostname":  {[]string{"db-1.example.com"}, []string{"a.-b", "-a", "a_b"}},
		"uri":       {[]string{"https://example.com/a?b=c"}, []string{"/a", "example.com"}},
		"regex":     {[]string{"^a+$"}, []string{"("}},
		"password":  {[]string{"anything"}, nil},
	} {
		s := compiled(t, `{"properties":{"v":{"format":"`+format+`"}}}`)
		check := func(value string) error {
			params, err := json.Marshal(map[string]string{"v": value})
			require.NoError(t, err)
			_, err = s.Effective(params)
			return err
		}
		for _, value := range values.valid {
			require.NoError(t, check(value), "%s %q", format, value)
		}
		for _, value := range values.invalid {
			require.Error(t, check(value), "%s %q", format, value)
		}
	}
}

func TestBigNumbers(t *testing.T) {
	t.Parallel()
	s := compiled(t, `{"properties":{"id":{"type":"integer","maximum":9007199254740992},"d":{"multipleOf":0.01}}}`)
	for params, valid := range map[string]bool{
		`{"id":9007199254740992}`:   true,
		`{"id":9007199254740993}`:   false, // one more; the same as float64
		`{"id":9007199254740992.0}`: true,
		`{"id":1e3}`:                true,
		`{"id":1.5}`:                false,
		`{"d":0.07}`:                true, // not as float64
		`{"d":0.075}`:               false,
	} {
		_, err := s.Effective(json.RawMessage(params))
		require.Equal(t, valid, err == nil, params)
	}
}

func TestNameProperties(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string][]string{
		`{}`:       nil,
		listedInfo: {"period_type"},
		`{"properties":{"z":{"x-name":true},"b":{"x-name":false},"a":{"x-name":true},"o":{"properties":{"i":{"x-name":true}}}}}`: {"z", "a"},
		`{"$ref":"#/$defs/x","properties":{"b":{"x-name":true}},"$defs":{"x":{"properties":{"a":{"x-name":true}}}}}`:             {"b", "a"},
	} {
		require.Equal(t, want, compiled(t, schema).NameProperties(), schema)
	}
}

// Small texts that ask for much work, each of which once was a way to stop a
// node: it either ends soon or is refused.
func TestAdversaries(t *testing.T) {
	t.Parallel()
	doubling := `{"properties":{"a":{"$ref":"#/$defs/d0"}},"$defs":{"d60":{"type":"integer"}` // 2^60 ways through it
	for i := range 60 {
		doubling += fmt.Sprintf(`,"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, i+1, i+1)
	}
	doubling += `}}`
	twice := `{"allOf":[{"properties":{"a":{"$ref":"#"}}},{"properties":{"a":{"$ref":"#"}}}]}`
	ones := "[" + strings.TrimSuffix(strings.Repeat("1,", 200_000), ",") + "]"

	for _, test := range []struct{ name, schema, params string }{ //nolint:paralleltest // each is timed
		{"DoublingReferences", doubling, `{"a":1}`},
		{"DoublingByDepth", twice, nested(90, `{"a":`, `{}`, `}`)},
		{"DoublingDefaults", strings.Replace(doubling, `{"type":"integer"}`, `{"properties":{"x":{"default":1}}}`, 1), `{"a":{}}`},
		{"ManyItems", `{"properties":{"a":{"items":{"type":"string"}}}}`, `{"a":` + ones + `}`},
		{"ManyItemsManySchemas", `{"properties":{"a":{"items":{"allOf":[` + strings.TrimSuffix(strings.Repeat(`{"minimum":0},`, 1500), ",") + `]}}}}`, `{"a":` + ones + `}`},
		{"ManyItemsManyValues", `{"properties":{"a":{"items":{"enum":[` + strings.TrimSuffix(strings.Repeat(`"x",`, 10_000), ",") + `]}}}}`, `{"a":` + ones + `}`},
		{"ManyItemsUnique", `{"properties":{"a":{"allOf":[` + strings.TrimSuffix(strings.Repeat(`{"uniqueItems":true},`, 1500), ",") + `]}}}`, `{"a":` + ones + `}`},
		{"LargeNumbers", `{"properties":{"a":{"items":{"multipleOf":7e-399,"minimum":0}}}}`, `{"a":[` + strings.TrimSuffix(strings.Repeat("1e399,", 100_000), ",") + `]}`},
		{"LongDigits", `{"properties":{"a":{"items":{"multipleOf":7e-399,"minimum":0}}}}`, `{"a":[` + strings.TrimSuffix(strings.Repeat(strings.Repeat("9", 190)+"e200,", 2_500), ",") + `]}`},
		{"LongTextManySchemas", `{"properties":{"a":{"allOf":[` + strings.TrimSuffix(strings.Repeat(`{"minLength":2},`, 1500), ",") + `]}}}`, `{"a":"` + strings.Repeat("x", 1<<20) + `"}`},
		{"LongTextSlowPattern", `{"properties":{"a":{"pattern":"(x+x+)+y(a|b|x){1,100}$"}}}`, `{"a":"` + strings.Repeat("x", 1<<20) + `"}`},
		{"ManyPropertiesManyPatterns", `{"patternProperties":{` + manyMembers(1500, `true`) + `}}`, `{` + manyMembers(50_000, `1`) + `}`},
		{"ManyPropertiesNotKnown", `{"additionalProperties":false}`, `{` + manyMembers(80_000, `1`) + `}`},
		{"ManyLargeDefaults", `{"properties":{"a":{"items":{"properties":{"d":{"default":"` + strings.Repeat("x", 60_000) + `"}}}}}}`, `{"a":[` + strings.TrimSuffix(strings.Repeat("{},", 300_000), ",") + `]}`},
		{"ManyItemsUnevaluated", `{"properties":{"a":{"allOf":[` + strings.TrimSuffix(strings.Repeat(`{"items":true},`, 900), ",") + `],"unevaluatedItems":false}}}`, `{"a":` + ones + `}`},
		{"DeepParams", `{}`, nested(100_000, `{"a":`, `1`, `}`)},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := CompileParameterSchema(json.RawMessage(test.schema))
			if err == nil {
				start := time.Now()
				_, err = s.Effective(json.RawMessage(test.params))
				took := time.Since(start)
				t.Logf("%v, %v", took, err)
				require.Less(t, took, 3*time.Minute, "what explodes never ends; what does not takes a second or so on a machine that is not busy")
			}
			if err != nil {
				require.Equal(t, Invalid, KindOf(err))
			}
		})
	}
}

// The library's schemas are not safe for concurrent use as it delivers them;
// ours are. The race detector looks on.
func TestParameterSchemaIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	s := compiled(t, `{
		"properties": {"a": {"pattern": "^x", "format": "email", "default": "x@example.com"}, "o": {"default": {}, "properties": {"b": {"default": [1]}}}},
		"patternProperties": {"^p": {"pattern": "^y", "enum": ["y", "yy"]}}, "unevaluatedProperties": false
	}`)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 200 {
				_, err := s.Effective(json.RawMessage(fmt.Sprintf(`{"p%d":"yy"}`, i)))
				if err != nil {
					t.Error(err)
				}
				_, err = s.Effective(json.RawMessage(fmt.Sprintf(`{"q%d":"n"}`, i)))
				if err == nil {
					t.Error("an unknown property was accepted")
				}
			}
		})
	}
	all.Wait()
}

// Where the library is right, the walk agrees with it.
func TestAgreesWithTheLibrary(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text, err := json.Marshal(map[string]any{
			"properties": map[string]any{"v": anySchema(3).Draw(t, "schema")},
			"$defs":      map[string]any{"d": map[string]any{"type": []any{"string", "integer"}}},
		})
		require.NoError(t, err)
		oracle, err := jsonschema.NewCompiler().Compile(text)
		require.NoError(t, err)
		params, err := json.Marshal(map[string]any{"v": anyValue(3).Draw(t, "value")})
		require.NoError(t, err)

		_, err = compiled(t, string(text)).Effective(params)
		require.Equal(t, oracle.ValidateJSON(params).IsValid(), err == nil, "%s\n%s\n%v", text, params, err)
	})
}

func anySchema(depth int) *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		number := rapid.IntRange(0, 4)
		sub := func(name string) map[string]any { return anySchema(depth-1).Draw(t, name) }
		list := func(name string) []map[string]any { return rapid.SliceOfN(anySchema(depth-1), 1, 3).Draw(t, name) }
		keywords := map[string]func() any{
			"type":      func() any { return rapid.SampledFrom(schemaTypes).Draw(t, "type") },
			"enum":      func() any { return rapid.SliceOfN(anyValue(1), 1, 4).Draw(t, "enum") },
			"const":     func() any { return anyValue(1).Draw(t, "const") },
			"minimum":   func() any { return number.Draw(t, "minimum") },
			"maxLength": func() any { return number.Draw(t, "maxLength") },
			"minItems":  func() any { return number.Draw(t, "minItems") },
			"required":  func() any { return []string{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "required")} },
		}
		if depth > 0 {
			keywords["properties"] = func() any { return map[string]any{"a": sub("a"), "b": sub("b")} }
			keywords["additionalProperties"] = func() any { return sub("additional") }
			keywords["items"] = func() any { return sub("items") }
			keywords["contains"] = func() any { return sub("contains") }
			keywords["not"] = func() any { return sub("not") }
			keywords["allOf"] = func() any { return list("allOf") }
			keywords["anyOf"] = func() any { return list("anyOf") }
			keywords["oneOf"] = func() any { return list("oneOf") }
			keywords["if"] = func() any { return sub("if") }
			keywords["then"] = func() any { return sub("then") }
			keywords["else"] = func() any { return sub("else") }
			keywords["$ref"] = func() any { return "#/$defs/d" }
		}
		schema := map[string]any{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(slices.Sorted(maps.Keys(keywords))), 0, 3, rapid.ID[string]).Draw(t, "keywords") {
			schema[name] = keywords[name]()
		}
		return schema
	})
}

func FuzzEffective(f *testing.F) {
	f.Add([]byte(listedInfo), []byte(`{"period_type":"daily","codes":["7203"]}`))
	f.Add([]byte(`{"$ref":"#"}`), []byte(`{}`))
	f.Add([]byte(`{"properties":{"a":{"$ref":"#"}},"unevaluatedProperties":false}`), []byte(`{"a":{"a":{}}}`))
	f.Add([]byte(`{"oneOf":[{"required":["a"]},{"if":true,"then":{"dependentRequired":{"a":["b"]}}}]}`), []byte(`{"a":1e5}`))
	f.Add([]byte(`{"patternProperties":{"^a":{"contains":{"const":1},"maxContains":1}},"propertyNames":{"maxLength":2}}`), []byte(`{"ab":[1,1]}`))
	f.Fuzz(func(t *testing.T, schema, params []byte) {
		s, err := CompileParameterSchema(schema)
		if err != nil {
			_ = requireInvalid(t, err, "invalid_parameter_schema")
			return
		}
		effective, err := s.Effective(params)
		if err != nil {
			_ = requireInvalid(t, err, "invalid_params")
			return
		}
		again, err := s.Effective(effective)
		require.NoError(t, err, "what was filled in fits")
		require.Equal(t, string(effective), string(again), "nothing more to fill in")
	})
}

func BenchmarkEffective(b *testing.B) {
	s := compiled(b, listedInfo)
	for name, params := range map[string]string{
		"Unchanged": `{"period_type":"daily","codes":["7203","6758"],"limit":10}`,
		"FilledIn":  `{"period_type":"daily"}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Effective(json.RawMessage(params)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func nested(depth int, open, innermost, end string) string {
	return strings.Repeat(open, depth) + innermost + strings.Repeat(end, depth)
}

func manyMembers(n int, value string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"p%d":%s`, i, value)
	}
	return strings.Join(list, ",")
}
