package riverbeat

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Statement is an SQL statement with named parameters: @name, as in
//
//	DELETE FROM sessions WHERE ended_at < @before
type Statement struct {
	// SQL is the text with $1, $2, … in their places.
	SQL string
	// Parameters are their names, that of $1 first, each once.
	Parameters []string
}

// RunParameters are the names by which a statement has what it needs to know of its run:
// run_id (uuid) and execution (a number), which together are a fencing token, and
// scheduled_for (timestamp with time zone).
var RunParameters = []string{"riverbeat_run_id", "riverbeat_execution", "riverbeat_scheduled_for"}

// ParseStatement finds the parameters of a statement by the lexical rules of Postgres
// (its manual, section 4.1, with standard_conforming_strings on): an @ in a text, a
// quoted name, a comment or an operator such as @> is none. Whether the text is SQL is
// not asked.
func ParseStatement(text string) (Statement, error) {
	var s Statement
	var sql strings.Builder
	for i := 0; i < len(text); {
		n, err := tokenLength(text, i)
		if err != nil {
			return Statement{}, err
		}
		token := text[i : i+n]
		i += n
		switch {
		case isParameter(token):
			name := token[1:]
			at := slices.Index(s.Parameters, name)
			if at < 0 {
				at = len(s.Parameters)
				s.Parameters = append(s.Parameters, name)
			}
			if i > len(token) && isWord(text[i-len(token)-1]) {
				sql.WriteByte(' ') // LIMIT@n is not the name LIMIT$1
			}
			sql.WriteString("$" + strconv.Itoa(at+1))
		case len(token) > 1 && token[0] == '$' && isDigit(token[1]):
			return Statement{}, errors.New("has the numbered parameter " + token + "; parameters have names, as in @day")
		default:
			sql.WriteString(token)
		}
	}
	s.SQL = sql.String()
	return s, nil
}

func isParameter(token string) bool {
	return len(token) > 1 && token[0] == '@' && isNameStart(token[1])
}

const operatorCharacters = "+-*/<>=~!@#%^&|`?"

// tokenLength is how long the token is that begins at i; what means nothing here is one
// token a byte.
func tokenLength(text string, i int) (int, error) {
	rest := text[i:]
	switch c := rest[0]; {
	case c == '\'':
		return closed(rest, "'", "has a text that is not closed")
	case c == '"':
		return closed(rest, `"`, "has a quoted name that is not closed")
	case strings.HasPrefix(rest, "--"):
		if end := strings.IndexAny(rest, "\r\n"); end >= 0 {
			return end, nil
		}
		return len(rest), nil
	case strings.HasPrefix(rest, "/*"):
		return commentLength(rest)
	case strings.IndexByte(operatorCharacters, c) >= 0:
		if c == '@' && len(rest) > 1 && isNameStart(rest[1]) {
			return 1 + nameLength(rest[1:]), nil
		}
		return operatorLength(rest), nil
	case c == '$':
		return dollarLength(rest)
	case isNameStart(c) || isDigit(c):
		n := wordLength(rest)
		if (rest[:n] == "e" || rest[:n] == "E") && strings.HasPrefix(rest[n:], "'") {
			m, err := escapedLength(rest[n:])
			return n + m, err
		}
		return n, nil
	}
	return 1, nil
}

// closed is the length up to the quote that closes what rest begins with; a doubled one
// does not.
func closed(rest, quote, problem string) (int, error) {
	end := strings.Index(rest[1:], quote)
	if end < 0 {
		return 0, errors.New(problem)
	}
	return 1 + end + 1, nil // of a doubled one, the second begins another such token
}

// goesOn is what lies between two parts of a text: of E'…', the second is like the first.
var goesOn = regexp.MustCompile(`^(?:[ \t\f\v]|--[^\r\n]*)*[\r\n](?:[ \t\f\v\r\n]|--[^\r\n]*[\r\n])*'`)

// escapedLength is that of E'…' without its E, in which \' closes nothing.
func escapedLength(rest string) (int, error) {
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case '\'':
			between := goesOn.FindString(rest[i+1:])
			if between == "" {
				return i + 1, nil
			}
			i += len(between) // on the quote that opens the second
		}
	}
	return 0, errors.New("has a text that is not closed")
}

// commentLength is that of /*…*/; such comments nest.
func commentLength(rest string) (int, error) {
	depth := 0
	for i := 0; i < len(rest)-1; i++ {
		switch rest[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return i + 1, nil
			}
		}
	}
	return 0, errors.New("has a comment that is not closed")
}

// operatorLength is that of an operator; a comment, or a parameter, ends it.
func operatorLength(rest string) int {
	for n := 1; n < len(rest); n++ {
		if strings.IndexByte(operatorCharacters, rest[n]) < 0 || strings.HasPrefix(rest[n:], "--") || strings.HasPrefix(rest[n:], "/*") {
			return n
		}
		if rest[n] == '@' && n+1 < len(rest) && isNameStart(rest[n+1]) && rest[n-1] != '@' {
			return n // =@day
		}
	}
	return len(rest)
}

// dollarLength is that of $tag$…$tag$, or of $1, or of a $ that is neither.
func dollarLength(rest string) (int, error) {
	if len(rest) > 1 && isDigit(rest[1]) {
		n := 1
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		return n, nil
	}
	tag := 1
	for tag < len(rest) && rest[tag] != '$' && (isNameStart(rest[tag]) || isDigit(rest[tag])) {
		tag++
	}
	if tag == len(rest) || rest[tag] != '$' {
		return 1, nil
	}
	opening := rest[:tag+1]
	end := strings.Index(rest[len(opening):], opening)
	if end < 0 {
		return 0, errors.New("has a text in " + opening + " that is not closed")
	}
	return len(opening) + end + len(opening), nil
}

// nameLength is that of a name as parameters have them.
func nameLength(rest string) int {
	n := 0
	for n < len(rest) && (isNameStart(rest[n]) || isDigit(rest[n])) {
		n++
	}
	return n
}

// wordLength is that of a name or number of SQL: a $ in it begins nothing.
func wordLength(rest string) int {
	n := 0
	for n < len(rest) && isWord(rest[n]) {
		n++
	}
	return n
}

func isNameStart(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}
func isWord(c byte) bool  { return isNameStart(c) || isDigit(c) || c == '$' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
