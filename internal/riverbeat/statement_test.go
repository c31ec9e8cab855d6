package riverbeat

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseStatement(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, text, sql, parameters string }{
		{"None", "SELECT 1", "SELECT 1", ""},
		{"Empty", "", "", ""},
		{"One", "DELETE FROM x WHERE at < @before", "DELETE FROM x WHERE at < $1", "before"},
		{"InTheirOrder", "SELECT @b, @a, @b", "SELECT $1, $2, $1", "b a"},
		{"EachNameOnce", "SELECT @a,@a,@A", "SELECT $1,$1,$2", "a A"},
		{"AtBothEnds", "@a@b", "$1 $2", "a b"},
		{"Casted", "SELECT @day::date", "SELECT $1::date", "day"},
		{"WithDigits", "@a1_2", "$1", "a1_2"},
		{"Underscore", "@_a", "$1", "_a"},
		{"NotADigit", "SELECT @1", "SELECT @1", ""},
		{"NotASpace", "SELECT @ -5", "SELECT @ -5", ""},
		{"OtherLetters", "@größe", "$1", "größe"},
		{"DollarEndsAName", "@a$b", "$1$b", "a"},

		{"Text", "SELECT '@a', @b", "SELECT '@a', $1", "b"},
		{"DoubledQuote", "SELECT 'it''s @a', @b", "SELECT 'it''s @a', $1", "b"},
		{"BackslashIsNoEscape", `SELECT '\', @b, '@c'`, `SELECT '\', $1, '@c'`, "b"},
		{"Escaped", `SELECT E'\'@a', @b`, `SELECT E'\'@a', $1`, "b"},
		{"EscapedBackslash", `SELECT e'\\', @b, '@c'`, `SELECT e'\\', $1, '@c'`, "b"},
		{"EscapedDoubledQuote", `SELECT E'''@a', @b`, `SELECT E'''@a', $1`, "b"},
		{"NoEIfItEndsAName", `SELECT typE'\', @b, '@c'`, `SELECT typE'\', $1, '@c'`, "b"},
		{"OtherPrefixes", `SELECT B'1', x'f', N'@a', U&'@a', U&"@a", @b`, `SELECT B'1', x'f', N'@a', U&'@a', U&"@a", $1`, "b"},
		{"EscapedGoesOn", "SELECT E'a' -- it's\n -- it's\n '\\'@a', @b", "SELECT E'a' -- it's\n -- it's\n '\\'@a', $1", "b"},
		{"EscapedDoesNotGoOn", "SELECT E'a' '\\', @b, '@c'", "SELECT E'a' '\\', $1, '@c'", "b"},
		{"PlainGoesOn", "SELECT 'a'\n'\\', @b, '@c'", "SELECT 'a'\n'\\', $1, '@c'", "b"},
		{"QuotedName", `SELECT "@a""@b", @c`, `SELECT "@a""@b", $1`, "c"},
		{"QuoteInAName", `SELECT "it's", @a, "it's"`, `SELECT "it's", $1, "it's"`, "a"},
		{"LinesOfText", "SELECT 'a'\n'@b', @c", "SELECT 'a'\n'@b', $1", "c"},

		{"DollarQuotes", "SELECT $$@a ' \" -- /* $$, @b", "SELECT $$@a ' \" -- /* $$, $1", "b"},
		{"Tagged", "SELECT $x$@a $$ $y$ @a $x$, @b", "SELECT $x$@a $$ $y$ @a $x$, $1", "b"},
		{"TagsHaveCase", "SELECT $x$@a $X$ @a $x$, @b", "SELECT $x$@a $X$ @a $x$, $1", "b"},
		{"TagsWithDigits", "SELECT $x1$@a$x1$, @b", "SELECT $x1$@a$x1$, $1", "b"},
		{"DollarInAName", "SELECT a$b$, @c, a$b$", "SELECT a$b$, $1, a$b$", "c"},
		{"DoAndWhatIsInIt", "DO $$ BEGIN PERFORM @a; END $$", "DO $$ BEGIN PERFORM @a; END $$", ""},

		{"LineComment", "SELECT 1 -- @a ' \n, @b", "SELECT 1 -- @a ' \n, $1", "b"},
		{"LineCommentOfCR", "SELECT 1 -- @a ' \r, @b", "SELECT 1 -- @a ' \r, $1", "b"},
		{"LineCommentAtTheEnd", "SELECT 1 -- @a", "SELECT 1 -- @a", ""},
		{"Comment", "SELECT /* @a ' */ @b", "SELECT /* @a ' */ $1", "b"},
		{"NestedComment", "SELECT /* /* @a */ @b */ @c", "SELECT /* /* @a */ @b */ $1", "c"},
		{"ShortestComment", "/**/@a/*/**/*/@b", "/**/$1/*/**/*/$2", "a b"},
		{"CommentEndsAnOperator", "SELECT 1+/*@a*/@b", "SELECT 1+/*@a*/$1", "b"},
		{"LineCommentEndsAnOperator", "SELECT 1+--@a\n@b", "SELECT 1+--@a\n$1", "b"},

		{"OperatorsWithAt", "SELECT a @> b, a <@ b, a @@ b, @ a", "SELECT a @> b, a <@ b, a @@ b, @ a", ""},
		{"ParameterBehindAnOperator", "a=@b", "a=$1", "b"},
		{"ParameterBehindContains", "a @> @b", "a @> $1", "b"},
		{"ContainsAndNoSpace", "a@>@b", "a@>$1", "b"},
		{"MatchesAndAName", "a @@b", "a @@b", ""},
		{"AbsoluteValueIsWrittenWithASpace", "SELECT @ a, @(a)", "SELECT @ a, @(a)", ""},
		{"ParameterBehindAName", "LIMIT@b", "LIMIT $1", "b"},
		{"Negative", "SELECT -@a", "SELECT -$1", "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseStatement(test.text)
			require.NoError(t, err)
			require.Equal(t, test.sql, got.SQL)
			require.Equal(t, test.parameters, strings.Join(got.Parameters, " "))
		})
	}
}

func TestParseStatementRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"SELECT 'a":           "text that is not closed",
		"SELECT 'a''":         "text that is not closed",
		`SELECT E'a\'`:        "text that is not closed",
		`SELECT E'a\`:         "text that is not closed",
		`SELECT "a`:           "quoted name that is not closed",
		"SELECT $$a":          "text in $$ that is not closed",
		"SELECT $a$ $$ $A$":   "text in $a$ that is not closed",
		"SELECT /* a":         "comment that is not closed",
		"SELECT /* /* */ a":   "comment that is not closed",
		"SELECT /*/":          "comment that is not closed",
		"SELECT $1":           "numbered parameter $1",
		"SELECT @a, $12::int": "numbered parameter $12",
	} {
		_, err := ParseStatement(text)
		require.ErrorContains(t, err, want, text)
	}
}

// Nothing is lost or added but the parameters: with their names back in their places, a
// statement is what it was, but for spaces.
func TestParseStatementKeepsTheText(t *testing.T) {
	t.Parallel()
	piece := rapid.SampledFrom([]string{
		"'", "''", `"`, "$$", "$x$", "--", "/*", "*/", "\n", "@", "@a", "@b1", "@@", "$", `\`, "E'", "e", " ", "x", "é", "1", "<", ">", "-", ";", "\r", "&",
	})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(piece, 0, 30).Draw(t, "pieces"), "")
		s, err := ParseStatement(text)
		if err != nil {
			return
		}
		var back strings.Builder
		for i := 0; i < len(s.SQL); {
			n, err := tokenLength(s.SQL, i)
			if err != nil {
				t.Fatalf("%q became %q, which cannot be read: %v", text, s.SQL, err)
			}
			token := s.SQL[i : i+n]
			if len(token) > 1 && token[0] == '$' && isDigit(token[1]) {
				at := 0
				for _, c := range token[1:] {
					at = at*10 + int(c-'0')
				}
				token = "@" + s.Parameters[at-1]
			}
			back.WriteString(token)
			i += n
		}
		if noSpace := strings.NewReplacer(" ", ""); noSpace.Replace(back.String()) != noSpace.Replace(text) {
			t.Fatalf("%q became %q, and back %q", text, s.SQL, back.String())
		}
	})
}
