package statement

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

// maxRows and maxRowBytes bound the rows that are kept.
const (
	maxRows     = 100
	maxRowBytes = 32 << 10
)

// bind makes the values of parameters in the text form of their types.
func (s *session) bind(ctx context.Context, names []string, types []uint32, run *task.Run) ([][]byte, error) {
	given := map[string]json.RawMessage{}
	if err := json.Unmarshal(run.TaskParams, &given); len(run.TaskParams) > 0 && err != nil {
		return nil, task.Final(fmt.Errorf("read the parameters: %w", err))
	}
	own := []string{run.ID.String(), strconv.Itoa(run.Execution), run.ScheduledFor.UTC().Format(time.RFC3339Nano)}
	var arrays []uint32
	if slices.ContainsFunc(names, func(name string) bool { return isArray(given[name]) }) {
		var err error
		if arrays, err = s.arraysAmong(ctx, types); err != nil {
			return nil, err
		}
	}
	values := make([][]byte, len(names))
	for i, name := range names {
		if at := slices.Index(riverbeat.RunParameters, name); at >= 0 {
			values[i] = []byte(own[at])
			continue
		}
		if text, ok := literal(given[name], types[i], slices.Contains(arrays, types[i])); ok {
			values[i] = []byte(text)
		}
	}
	return values, nil
}

func (s *session) arraysAmong(ctx context.Context, types []uint32) ([]uint32, error) {
	const query = `SELECT oid FROM pg_catalog.pg_type WHERE oid = ANY ($1::oid[]) AND typcategory = 'A'`
	var list []string
	for _, oid := range types {
		list = append(list, strconv.FormatUint(uint64(oid), 10))
	}
	found, err := s.query(ctx, query, "{"+strings.Join(list, ",")+"}")
	if err != nil {
		return nil, err
	}
	var arrays []uint32
	for _, row := range found {
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil {
			return nil, err
		}
		arrays = append(arrays, uint32(oid))
	}
	return arrays, nil
}

// literal is a JSON value as Postgres reads it for a type; not ok is NULL. Of a type that is
// JSON itself, a string is one with its quotes.
func literal(raw json.RawMessage, oid uint32, array bool) (_ string, ok bool) {
	switch {
	case len(raw) == 0, string(raw) == "null":
		return "", false
	case oid == pgtype.JSONOID, oid == pgtype.JSONBOID:
		return string(raw), true
	case array && isArray(raw):
		return arrayLiteral(raw, oid == pgtype.JSONArrayOID || oid == pgtype.JSONBArrayOID), true
	}
	return plain(raw), true
}

func isArray(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '[' }

// plain is a string as it is, and of all else its JSON.
func plain(raw json.RawMessage) string {
	var text string
	if raw[0] == '"' && json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// arrayLiteral writes {"a","b"}, as the manual says in section 8.15.6.
func arrayLiteral(raw json.RawMessage, ofJSON bool) string {
	var items []json.RawMessage
	_ = json.Unmarshal(raw, &items) // it is known to be an array
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	literals := make([]string, len(items))
	for i, item := range items {
		switch {
		case string(item) == "null":
			literals[i] = "NULL"
		case ofJSON:
			literals[i] = `"` + escape.Replace(string(item)) + `"`
		case isArray(item):
			literals[i] = arrayLiteral(item, false)
		default:
			literals[i] = `"` + escape.Replace(plain(item)) + `"`
		}
	}
	return "{" + strings.Join(literals, ",") + "}"
}

// rows keeps the first of the rows of a statement, and counts all.
type rows struct {
	names []string // of the columns, as JSON
	types []uint32
	kept  []json.RawMessage
	bytes int
	count int64
	full  bool
}

// newRows makes the rows of columns; if there are none, the statement returns no rows.
func newRows(columns []pgconn.FieldDescription) *rows {
	r := &rows{}
	if columns != nil {
		r.kept = []json.RawMessage{}
	}
	taken := map[string]bool{}
	for _, c := range columns {
		own := strings.ToValidUTF8(c.Name, "\uFFFD")
		name := own
		for n := 2; taken[name]; n++ {
			name = own + "_" + strconv.Itoa(n)
		}
		taken[name] = true
		r.names = append(r.names, string(quote(name)))
		r.types = append(r.types, c.DataTypeOID)
	}
	return r
}

// add keeps a row, unless it, or one before it, has no room any more.
func (r *rows) add(values [][]byte) {
	r.count++
	size := 0
	for _, value := range values {
		size += len(value)
	}
	if r.full = r.full || len(r.kept) == maxRows || r.bytes+size > maxRowBytes; r.full {
		return
	}
	row := []byte{'{'}
	for i, value := range values {
		if i > 0 {
			row = append(row, ',')
		}
		row = append(row, r.names[i]...)
		row = append(row, ':')
		row = append(row, asJSON(r.types[i], value)...)
	}
	row = append(row, '}')
	if r.full = r.bytes+len(row) > maxRowBytes; r.full {
		return
	}
	r.kept, r.bytes = append(r.kept, row), r.bytes+len(row)
}

// result is that of a statement whose command tag is such as INSERT 0 5.
func (r *rows) result(tag string) *Result {
	words := strings.TrimRight(tag, " 0123456789")
	count := r.count
	if words != tag {
		count = pgconn.NewCommandTag(tag).RowsAffected()
	}
	return &Result{Command: words, RowCount: count, Rows: r.kept, Truncated: r.full}
}

// asJSON is a value of a type, in its text form, as JSON: as a text where JSON has nothing
// like it, such as NaN, or where Riverbeat would not keep it.
func asJSON(oid uint32, value []byte) json.RawMessage {
	switch oid {
	case pgtype.BoolOID:
		if len(value) == 1 {
			return strconv.AppendBool(nil, value[0] == 't')
		}
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID,
		pgtype.JSONOID, pgtype.JSONBOID:
		// As deep as it is in the result.
		if _, err := riverbeat.CanonicalJSON(slices.Concat([]byte("[[["), value, []byte("]]]"))); err == nil && value != nil {
			return value
		}
	}
	if value == nil {
		return json.RawMessage("null")
	}
	return quote(string(value))
}

func quote(text string) json.RawMessage {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err) // of a string
	}
	return quoted
}
