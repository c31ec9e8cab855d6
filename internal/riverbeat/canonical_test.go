package riverbeat

import (
	"bytes"
	"encoding/json"
	"math/big"
	"math/rand"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestCanonicalJSON(t *testing.T) {
	t.Parallel()

	t.Run("EqualValuesAreWrittenAlike", func(t *testing.T) {
		t.Parallel()
		for canonical, spellings := range map[string][]string{
			`{"a":1,"b":[true,null]}`: {`{"b":[true,null],"a":1}`, " {\n\"a\" : 1.0, \"b\":[ true , null ] }", `{"\u0061":1e0,"b":[true,null]}`},
			`1`:                       {`1`, `1.0`, `1e0`, `10e-1`, `0.1E+1`, `1.000`},
			`0`:                       {`0`, `-0`, `0.00`, `0e5`, `-0.0e-3`},
			`15e2`:                    {`1500`, `1.5e3`, `1500.00`},
			`-25e-2`:                  {`-0.25`, `-2.5e-1`, `-0.2500`},
			`9007199254740993`:        {`9007199254740993`, `9007199254740993.0`},
			`"é/😀"`:                   {`"é/😀"`, `"\u00e9\/\ud83d\ude00"`, `"\u00E9/\uD83D\uDE00"`},
			`"\"\\\u000a\u001f"`:      {`"\"\\\n\u001F"`, `"\u0022\u005c\u000a\u001f"`},
			`{}`:                      {`{}`, ` { } `},
			`[]`:                      {`[]`, "[\t]"},
		} {
			for _, spelling := range spellings {
				got, err := CanonicalJSON([]byte(spelling))
				require.NoError(t, err, spelling)
				require.Equal(t, canonical, string(got), spelling)
			}
		}
	})

	t.Run("DifferentValuesDiffer", func(t *testing.T) {
		t.Parallel()
		for _, pair := range [][2]string{
			{`9007199254740993`, `9007199254740992`}, // equal as float64
			{`0.1000000000000000055511151231257827`, `0.1`},
			{`1`, `"1"`},
			{`1`, `true`},
			{`[]`, `{}`},
			{`null`, `false`},
			{`10`, `1`},
			{`[1,2]`, `[2,1]`},
			{`[12]`, `[1,2]`},
			{`{"a":null}`, `{}`},
			{`"\u00e9"`, `"e\u0301"`}, // é composed or not: other code points
			{`"\ufffd"`, `"?"`},
		} {
			require.NotEqual(t, canonical(t, pair[0]), canonical(t, pair[1]))
		}
	})

	t.Run("Refused", func(t *testing.T) {
		t.Parallel()
		for _, test := range []struct{ name, text, pointer, detail string }{
			{"Empty", ``, "", "not valid JSON"},
			{"TwoValues", `{} {}`, "", "not valid JSON"},
			{"TrailingComma", `[1,]`, "", "not valid JSON"},
			{"NotANumber", `[NaN]`, "", "not valid JSON"},
			{"InvalidUTF8", "\"\xff\"", "", "UTF-8"},
			{"KeyTwice", `{"x":{"a/b":1,"a\u002fb":2}}`, "/x/a~1b", "twice"},
			{"NULInValue", `{"a":["ok","x\u0000y"]}`, "/a/1", `\u0000`},
			{"NULInKey", `{"a":{"\u0000":1}}`, "/a/\x00", `\u0000`},
			{"LoneHighSurrogate", `"\ud800"`, "", "surrogate"},
			{"LoneHighSurrogateBeforeText", `"\ud800abcdef"`, "", "surrogate"},
			{"LoneLowSurrogate", `"\udc00"`, "", "surrogate"},
			{"TwoHighSurrogates", `"\ud800\ud800"`, "", "surrogate"},
			{"SwappedSurrogates", `"\ude00\ud83d"`, "", "surrogate"},
			{"HighSurrogateBeforeEscape", `"\ud83d\n\ude00"`, "", "surrogate"},
			{"TooDeep", strings.Repeat("[", maxJSONDepth+1) + strings.Repeat("]", maxJSONDepth+1), strings.Repeat("/0", maxJSONDepth), "deep"},
			{"HugeExponent", `{"n":1e999999999}`, "/n", "exponent"},
			{"HugeNegativeExponent", `1e-999999999`, "", "exponent"},
			{"ExponentBeyondInt", `1e99999999999999999999`, "", "exponent"},
			{"HugeExponentOfZero", `0e999999999`, "", "exponent"},
			{"TooManyDigits", strings.Repeat("9", maxNumberLength+writtenOut+1), "", "digits"},
			{"LongerWhenWrittenOut", `1e400`, "", "digits"},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				_, err := CanonicalJSON([]byte(test.text))
				e := requireInvalid(t, err, "invalid_json")
				require.Equal(t, test.pointer, e.Fields[0].Pointer)
				require.Contains(t, e.Fields[0].Detail, test.detail)
			})
		}
	})

	t.Run("EscapedBackslashIsNoEscape", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, `"\\ud800"`, canonical(t, `"\\ud800"`))
		require.Equal(t, `"\\\\"`, canonical(t, `"\\\\"`))
	})

	t.Run("DeepestAllowed", func(t *testing.T) {
		t.Parallel()
		text := strings.Repeat("[", maxJSONDepth) + strings.Repeat("]", maxJSONDepth)
		require.Equal(t, text, canonical(t, text))
	})
}

// A value written in any way is written canonically in one, and that one means
// the same value.
func TestCanonicalJSONIsOneSpelling(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := anyValue(3).Draw(t, "value")
		random := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
		one, other := respell(random, value), respell(random, value)

		first, err := CanonicalJSON([]byte(one))
		require.NoError(t, err, one)
		second, err := CanonicalJSON([]byte(other))
		require.NoError(t, err, other)
		require.Equal(t, string(first), string(second))

		again, err := CanonicalJSON(first)
		require.NoError(t, err)
		require.Equal(t, string(first), string(again), "canonical of canonical")
		require.True(t, sameValue(value, decoded(t, string(first))), "meaning is kept")
	})
}

// Two values are written alike only if they are equal.
func TestCanonicalJSONTellsValuesApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
		one, other := anyValue(2).Draw(t, "one"), anyValue(2).Draw(t, "other")
		first, err := CanonicalJSON([]byte(respell(random, one)))
		require.NoError(t, err)
		second, err := CanonicalJSON([]byte(respell(random, other)))
		require.NoError(t, err)
		require.Equal(t, sameValue(one, other), bytes.Equal(first, second))
	})
}

func FuzzCanonicalJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,2.50,-0,1e5,"\ud83d\ude00",null,true]}`, `1e999999999`, `"\ud800"`, `{"a":1,"a":2}`, "\"\xff\"", `[[[[`, `-0.0e-0`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		canonical, err := CanonicalJSON(raw)
		if err != nil {
			require.Equal(t, Invalid, KindOf(err))
			return
		}
		require.True(t, json.Valid(canonical), "%s", canonical)
		again, err := CanonicalJSON(canonical)
		require.NoError(t, err)
		require.Equal(t, string(canonical), string(again))
	})
}

func BenchmarkCanonicalJSON(b *testing.B) {
	raw := []byte(`{"period_type":"daily","codes":["7203","6758"],"limit":100,"options":{"dry_run":false}}`)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = CanonicalJSON(raw)
	}
}

func canonical(t *testing.T, text string) string {
	t.Helper()
	got, err := CanonicalJSON([]byte(text))
	require.NoError(t, err, text)
	return string(got)
}

func decoded(t require.TestingT, text string) any {
	value, wrong := decodeJSON([]byte(text))
	require.Nil(t, wrong, text)
	return value
}

func requireInvalid(t *testing.T, err error, code string) *Error {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, Invalid, e.Kind)
	require.Equal(t, code, e.Code)
	require.NotEmpty(t, e.Fields)
	return e
}

// anyValue draws JSON values that often resemble one another.
func anyValue(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kinds := 6
		if depth == 0 {
			kinds = 4
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return rapid.SampledFrom([]any{nil, true, false}).Draw(t, "constant")
		case 1:
			return json.Number(strconv.Itoa(rapid.IntRange(-20, 20).Draw(t, "small")))
		case 2:
			return json.Number(rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "number"))
		case 3:
			return strings.ReplaceAll(rapid.StringN(0, 4, -1).Draw(t, "string"), "\x00", "")
		case 4:
			return rapid.SliceOfN(anyValue(depth-1), 0, 3).Draw(t, "array")
		}
		return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "", "a/b", "é", "\n", `"`}), anyValue(depth-1), 0, 3).Draw(t, "object")
	})
}

// respell writes a value in one of the many ways there are.
func respell(random *rand.Rand, value any) string {
	space := func() string { return strings.Repeat([]string{" ", "\n", "\t", "\r"}[random.Intn(4)], random.Intn(2)) }
	switch value := value.(type) {
	case json.Number:
		return respellNumber(random, string(value))
	case string:
		return respellString(random, value)
	case []any:
		items := make([]string, len(value))
		for i, item := range value {
			items[i] = space() + respell(random, item) + space()
		}
		return "[" + strings.Join(items, ",") + space() + "]"
	case map[string]any:
		var list []string
		for key, item := range value {
			list = append(list, space()+respellString(random, key)+space()+":"+space()+respell(random, item))
		}
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		return "{" + strings.Join(list, ",") + space() + "}"
	}
	text, _ := json.Marshal(value)
	return string(text)
}

func respellNumber(random *rand.Rand, text string) string {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	power, _ := strconv.Atoi(exponent)
	if random.Intn(2) == 0 { // more zeros behind
		if !strings.Contains(mantissa, ".") {
			mantissa += "."
		}
		mantissa += strings.Repeat("0", 1+random.Intn(3))
	}
	if whole, fraction, ok := strings.Cut(mantissa, "."); ok && random.Intn(2) == 0 && fraction != "" && strings.Trim(whole, "-0") != "" {
		mantissa = whole + fraction[:1] + "." + fraction[1:] + "0" // point to the right
		power--
	}
	return mantissa + []string{"e", "E"}[random.Intn(2)] + []string{"", "+"}[random.Intn(2)*b2i(power >= 0)] + strconv.Itoa(power)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func respellString(random *rand.Rand, text string) string {
	spelled, _ := json.Marshal(text)
	if random.Intn(2) == 0 {
		return string(spelled)
	}
	var escaped strings.Builder
	for _, r := range text {
		if r > 0xffff {
			first, second := surrogates(r)
			escaped.WriteString(`\u` + strconv.FormatInt(first, 16) + `\u` + strconv.FormatInt(second, 16))
			continue
		}
		hex := strconv.FormatInt(int64(r), 16)
		escaped.WriteString(`\u` + strings.Repeat("0", 4-len(hex)) + hex)
	}
	return `"` + escaped.String() + `"`
}

func surrogates(r rune) (high, low int64) {
	rest := int64(r) - 0x10000
	return 0xd800 + rest>>10, 0xdc00 + rest&0x3ff
}

// sameValue compares two values by other means than the code under test.
func sameValue(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		if !ok {
			return false
		}
		x, _ := new(big.Rat).SetString(string(a))
		y, _ := new(big.Rat).SetString(string(b))
		return x.Cmp(y) == 0
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !sameValue(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key := range a {
			other, there := b[key]
			if !there || !sameValue(a[key], other) {
				return false
			}
		}
		return true
	}
	switch b.(type) {
	case []any, map[string]any:
		return false
	}
	return a == b
}
