package secret

import (
	"bytes"
	"cmp"
	"context"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Redactor puts "[secret name]" where a secret is. It knows a value as it is, line by
// line, and as JSON, URLs, Go, Python and base64 write it; of a URL also the password
// alone, and of "Bearer x" the x. The nil Redactor, which knows no secret, leaves
// everything as it is.
type Redactor struct {
	forms   map[[prefix]byte][]form // by their first bytes, the longest first
	begins  [256]bool
	longest int
}

// prefix is how many bytes every form has at least.
const prefix = MinLength

// form is one way in which a secret may be written.
type form struct{ text, instead string }

// NewRedactor makes a Redactor of values by the names of their secrets; nil if there are
// none.
func NewRedactor(values map[string]string) *Redactor { return (*Redactor)(nil).With(values) }

// With is a Redactor that knows these values as well.
func (r *Redactor) With(values map[string]string) *Redactor {
	if len(values) == 0 {
		return r
	}
	more := &Redactor{forms: map[[prefix]byte][]form{}}
	if r != nil {
		*more = *r
		more.forms = maps.Clone(r.forms)
	}
	for name, value := range values {
		for _, text := range formsOf(value) {
			begin := [prefix]byte([]byte(text))
			more.forms[begin] = append(slices.Clone(more.forms[begin]), form{text, "[secret " + name + "]"})
			more.begins[text[0]] = true
			more.longest = max(more.longest, len(text))
		}
	}
	// Of two that begin at the same place, the longer one is replaced as a whole.
	for _, forms := range more.forms {
		slices.SortFunc(forms, func(a, b form) int {
			return cmp.Or(len(b.text)-len(a.text), strings.Compare(a.text+a.instead, b.text+b.instead))
		})
	}
	return more
}

// shortestLine is how long a line of a secret must be to be known by itself.
const shortestLine = 8

func formsOf(value string) []string {
	parts := []string{value}
	if lines := strings.Split(strings.ReplaceAll(value, "\r\n", "\n"), "\n"); len(lines) > 1 {
		for _, line := range lines {
			if len(strings.TrimSpace(line)) >= shortestLine {
				parts = append(parts, strings.TrimSpace(line))
			}
		}
	}
	if u, err := url.Parse(value); err == nil && u.User != nil {
		password, _ := u.User.Password()
		_, rest, _ := strings.Cut(value, "://")
		_, spelled, _ := strings.Cut(rest[:max(strings.LastIndexByte(rest, '@'), 0)], ":")
		parts = append(parts, password, spelled, u.Query().Get("password"))
	}
	if scheme, credentials, ok := strings.Cut(value, " "); ok && !strings.ContainsAny(scheme, "\r\n\t") {
		parts = append(parts, strings.TrimSpace(credentials)) // as in Bearer x
	}
	var forms []string
	for _, part := range parts {
		if len(part) < MinLength {
			continue
		}
		quoted := strings.Trim(strconv.Quote(part), `"`)
		forms = append(
			forms, part, url.QueryEscape(part), url.PathEscape(part), quoted,
			inJSON(part, true), inJSON(part, false),
			strings.ReplaceAll(strings.ReplaceAll(part, `\`, `\\`), `'`, `\'`), // Python's repr
		)
		forms = append(forms, inBase64(part)...)
	}
	slices.Sort(forms)
	return slices.Compact(forms)
}

// inBase64 is what is sure of a text in base64, wherever in what is encoded it begins.
func inBase64(text string) []string {
	var forms []string
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), text...))
		encoded = encoded[(before*8+5)/6:] // whose bits are of what stands before, too
		if (before+len(text))%3 != 0 {
			encoded = encoded[:len(encoded)-1] // or behind
		}
		if len(encoded) >= MinLength {
			forms = append(forms, encoded, strings.NewReplacer("+", "-", "/", "_").Replace(encoded))
		}
	}
	return forms
}

func inJSON(text string, escapeHTML bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(escapeHTML)
	if e.Encode(text) != nil {
		return text
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(b.String(), "\n"), `"`), `"`)
}

// Text is text without the secrets.
func (r *Redactor) Text(text string) string {
	if r == nil {
		return text
	}
	clean, _ := r.scan(nil, []byte(text), true)
	return string(clean)
}

// scan adds to clean what text is without the secrets. Unless text ends there, what may
// begin a secret is left to the next scan.
func (r *Redactor) scan(clean, text []byte, ends bool) (_, left []byte) {
	for i := 0; i < len(text); {
		if !ends && len(text)-i < r.longest {
			return clean, text[i:]
		}
		var found form
		if r.begins[text[i]] && len(text)-i >= prefix {
			for _, f := range r.forms[[prefix]byte(text[i:])] {
				if bytes.HasPrefix(text[i:], []byte(f.text)) {
					found = f
					break
				}
			}
		}
		if found.text == "" {
			clean = append(clean, text[i])
			i++
			continue
		}
		clean = append(clean, found.instead...)
		i += len(found.text)
	}
	return clean, nil
}

// Longest is how many bytes before a cut must be redacted so that no part of a secret
// stays behind it.
func (r *Redactor) Longest() int {
	if r == nil {
		return 0
	}
	return r.longest
}

// Error is err with a text that has no secrets. What it wraps can still be asked for.
func (r *Redactor) Error(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	clean := r.Text(text)
	if clean == text {
		return err
	}
	return &redacted{clean, err}
}

type redacted struct {
	text string
	err  error
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.err }

// JSON is a JSON value without the secrets in its texts and keys. A number that is one
// becomes a text.
func (r *Redactor) JSON(raw json.RawMessage) (json.RawMessage, error) {
	if r == nil || len(raw) == 0 {
		return raw, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	return json.Marshal(r.value(value))
}

func (r *Redactor) value(value any) any {
	switch value := value.(type) {
	case string:
		return r.Text(value)
	case json.Number:
		if clean := r.Text(value.String()); clean != value.String() {
			return clean
		}
	case []any:
		for i := range value {
			value[i] = r.value(value[i])
		}
	case map[string]any:
		clean := make(map[string]any, len(value))
		for name, item := range value {
			clean[r.Text(name)] = r.value(item)
		}
		return clean
	}
	return value
}

// Writer passes on to w what is written to it, without the secrets, however the writes cut
// them. The last bytes come with Close, which does not close w.
func (r *Redactor) Writer(w io.Writer) io.WriteCloser { return &writer{r: r, w: w} }

type writer struct {
	r    *Redactor
	w    io.Writer
	held []byte // may be the beginning of a secret
}

// Write takes all of p.
func (w *writer) Write(p []byte) (int, error) {
	if w.r == nil {
		return w.w.Write(p)
	}
	clean, left := w.r.scan(nil, append(w.held, p...), false)
	w.held = left
	_, err := w.w.Write(clean)
	return len(p), err
}

// Close writes what was held back.
func (w *writer) Close() error {
	if w.r == nil {
		return nil
	}
	clean, _ := w.r.scan(nil, w.held, true)
	w.held = nil
	_, err := w.w.Write(clean)
	return err
}

// Handler passes on to h what is logged, without the secrets.
func (r *Redactor) Handler(h slog.Handler) slog.Handler {
	if r == nil {
		return h
	}
	return &handler{h, r}
}

type handler struct {
	slog.Handler
	r *Redactor
}

// Handle passes on a line.
func (h *handler) Handle(ctx context.Context, line slog.Record) error {
	clean := slog.NewRecord(line.Time, line.Level, h.r.Text(line.Message), line.PC)
	line.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.attr(a))
		return true
	})
	return h.Handler.Handle(ctx, clean)
}

// WithAttrs is the handler of lines that have attrs.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = h.attr(a)
	}
	return &handler{h.Handler.WithAttrs(clean), h.r}
}

// WithGroup is the handler of lines whose attributes stand in a group.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(h.r.Text(name)), h.r}
}

func (h *handler) attr(a slog.Attr) slog.Attr {
	value := a.Value.Resolve()
	switch value.Kind() {
	case slog.KindString:
		value = slog.StringValue(h.r.Text(value.String()))
	case slog.KindGroup:
		group := slices.Clone(value.Group())
		for i := range group {
			group[i] = h.attr(group[i])
		}
		value = slog.GroupValue(group...)
	default: // as it is, unless it has one in any way in which a handler may write it
		for _, text := range textsOf(value.Any()) {
			if clean := h.r.Text(text); clean != text {
				value = slog.StringValue(clean)
				break
			}
		}
	}
	return slog.Attr{Key: h.r.Text(a.Key), Value: value}
}

// textsOf are the ways in which slog's handlers write a value.
func textsOf(value any) []string {
	texts := []string{fmt.Sprintf("%+v", value)}
	if v := reflect.ValueOf(value); v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		texts = append(texts, string(v.Bytes()))
	}
	if marshaler, ok := value.(encoding.TextMarshaler); ok {
		if text, err := marshaler.MarshalText(); err == nil {
			texts = append(texts, string(text))
		}
	}
	if raw, err := json.Marshal(value); err == nil {
		texts = append(texts, string(raw))
	}
	return texts
}
