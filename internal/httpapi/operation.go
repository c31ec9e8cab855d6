package httpapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"riverbeat/internal/access"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// operation is what the OpenAPI document says of a route, beyond what its types
// say.
type operation struct {
	id          string
	tag         string
	summary     string
	description string
	// successes are the statuses of success; the first is the usual one.
	// Defaults to 200.
	successes []int
	// failures are the kinds of errors beyond those of every route of its shape.
	failures []riverbeat.Kind
	// example is a body that the route accepts.
	example string
	// readsOnly is a route that takes a body and changes nothing.
	readsOnly bool
	// takesNoKey is a route that cannot be carried out once only (Idempotency-Key):
	// its answer has a secret, which must not be kept, or it cannot be done in one
	// transaction and may be asked for as often as one likes.
	takesNoKey bool
}

// writeOptions are what every request may have that changes something. handle
// sees to them; handlers know nothing of them.
type writeOptions struct {
	DryRun         bool   `query:"dry_run" doc:"Check and answer as if it were done, and leave nothing. What would be made has no address, and its id is not kept."`
	IdempotencyKey string `header:"Idempotency-Key" doc:"A name of your own for this request, 1 to 255 printable characters. Sent again within 24 hours with the same key, it is not carried out again but given the first answer (Idempotent-Replayed: true). A failed request has done nothing and may be sent again. 422 if it was used for another request, 409 while it is carried out."`
}

// ifMatch is a part of requests that change something that has a version.
type ifMatch struct {
	IfMatch expected `header:"If-Match" doc:"The ETag of what was read: change it only if it is still that (412 otherwise)."`
}

// expected is an If-Match header (RFC 9110, 13.1.1).
type expected struct{ riverbeat.Expected }

// Schema describes the type in the OpenAPI document.
func (expected) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Examples: []any{`"3"`}}
}

// versioned is a body that has an ETag: that of its version.
type versioned interface{ versionOf() int }

func etagOf(body any) string {
	if v, ok := body.(versioned); ok {
		return `"` + strconv.Itoa(v.versionOf()) + `"`
	}
	return ""
}

// answer is what a handler returns.
type answer[B any] struct {
	body     B
	status   int
	location string // the path of what was made; "" if nothing was
}

func ok[B any](body B) *answer[B] { return &answer[B]{body: body, status: http.StatusOK} }

func created[B any](body B, location string) *answer[B] {
	return &answer[B]{body: body, status: http.StatusCreated, location: location}
}

// nothing is the body of an answer without one.
type nothing struct{}

func noContent() *answer[nothing] { return &answer[nothing]{status: http.StatusNoContent} }

// handler does what a route is for. It neither sees HTTP nor writes an error.
type handler[Req, Resp any] func(ctx context.Context, req *Req) (*answer[Resp], error)

// handle makes a route of a handler. Req is a struct whose fields have the tags
// path and query, and one may be named Body: an optional body if it is a
// pointer, a merge patch if it is a patch. This is the only place where requests
// are read and responses written.
func handle[Req, Resp any](a *api, method, path string, op operation, do handler[Req, Resp]) {
	request := reflect.TypeFor[Req]()
	in := reader{
		path:    paramsOf(request, "path"),
		query:   paramsOf(request, "query"),
		header:  paramsOf(request, "header"),
		hasBody: changes(method),
	}
	if in.hasBody && !op.readsOnly {
		options := reflect.TypeFor[writeOptions]()
		in.optionQuery = paramsOf(options, "query")
		if !op.takesNoKey {
			in.optionHeader = paramsOf(options, "header")
		}
	}
	if f, ok := request.FieldByName("Body"); ok {
		in.body = &f
	}
	serve := func(ctx huma.Context) {
		c := humagin.Unwrap(ctx)
		req, options := new(Req), new(writeOptions)
		digest, err := in.read(c, reflect.ValueOf(req).Elem(), reflect.ValueOf(options).Elem())
		if err != nil {
			a.fail(c, err)
			return
		}
		out, err := a.carryOut(c, options, digest, func(ctx context.Context) (*postgres.Answer, error) {
			return answerOf(do(ctx, req))
		})
		if err != nil {
			a.fail(c, err)
			return
		}
		writeAnswer(c, out)
	}
	documented := a.document(method, path, op, in, reflect.TypeFor[Resp]())
	a.adapter.Handle(documented, serve)
	if method == http.MethodGet {
		a.adapter.Handle(&huma.Operation{Method: http.MethodHead, Path: path}, serve)
	}
}

// answerOf is what a handler has answered, as it is written.
func answerOf[B any](out *answer[B], err error) (*postgres.Answer, error) {
	if err != nil {
		return nil, err
	}
	w := &postgres.Answer{Status: out.status, Location: out.location, ETag: etagOf(out.body)}
	if out.status != http.StatusNoContent {
		w.Body, err = encode(out.body)
	}
	return w, err
}

// carryOut does what a request asks for, as its options say.
func (a *api) carryOut(c *gin.Context, options *writeOptions, digest []byte, do func(context.Context) (*postgres.Answer, error)) (out *postgres.Answer, err error) {
	ctx := c.Request.Context()
	switch {
	case options.DryRun:
		err = a.Access.DryRun(ctx, func(ctx context.Context) error {
			out, err = do(ctx)
			return err
		})
		if err == nil && out.Status == http.StatusCreated {
			out.Status, out.Location = http.StatusOK, "" // nothing was made
		}
	case options.IdempotencyKey != "":
		var replayed bool
		out, replayed, err = a.Access.Once(ctx, access.Request{Key: options.IdempotencyKey, Digest: digest}, do)
		if replayed {
			c.Header("Idempotent-Replayed", "true")
		}
	default:
		out, err = do(ctx)
	}
	return out, err
}

func writeAnswer(c *gin.Context, out *postgres.Answer) {
	if out.Location != "" {
		c.Header("Location", out.Location)
	}
	if out.ETag != "" {
		c.Header("ETag", out.ETag)
	}
	if out.Status == http.StatusNoContent {
		c.Status(out.Status)
		return
	}
	writeBody(c, out.Status, "application/json", out.Body)
}

// reader reads the requests of one route.
type reader struct {
	path, query, header       []param              // of the request's type
	optionQuery, optionHeader []param              // of writeOptions
	body                      *reflect.StructField // nil: it has no fields
	hasBody                   bool                 // else a body is not looked at
}

// bodyOptional tells whether there may be no body at all.
func (in *reader) bodyOptional() bool {
	return in.body == nil || in.body.Type.Kind() == reflect.Pointer
}

// patches tells whether the body is a merge patch.
func (in *reader) patches() bool {
	return in.body != nil && reflect.PointerTo(in.body.Type).Implements(reflect.TypeFor[patcher]())
}

// read reads a request and its options, and makes a digest of all that it asks for.
func (in *reader) read(c *gin.Context, request, options reflect.Value) (digest []byte, err error) {
	if err := readPath(request, in.path, c.Param); err != nil {
		return nil, err
	}
	var wrong fields
	places := []place{{request, in.query}, {options, in.optionQuery}}
	if err := readQuery(places, c.Request.URL.RawQuery, &wrong); err != nil {
		return nil, err
	}
	for _, p := range []place{{request, in.header}, {options, in.optionHeader}} {
		if err := readHeaders(p, c.Request.Header); err != nil {
			return nil, err
		}
	}
	if !in.hasBody {
		return nil, wrong.err()
	}
	if len(in.optionHeader) == 0 && c.GetHeader(idempotencyKeyHeader) != "" {
		return nil, riverbeat.InvalidField("idempotency_key_not_taken", idempotencyKeyHeader, "is not taken here")
	}
	body := reflect.New(reflect.TypeFor[*struct{}]()).Elem()
	if in.body != nil {
		body = request.FieldByIndex(in.body.Index)
	}
	raw, err := in.readBody(c.Request, body, &wrong)
	if err != nil || len(wrong) > 0 {
		return nil, cmp.Or(err, wrong.err())
	}
	sum := sha256.New()
	parts := []string{c.Request.Method, c.Request.URL.EscapedPath(), c.Request.URL.RawQuery, string(raw)}
	for _, p := range in.header {
		parts = append(parts, c.GetHeader(p.name))
	}
	for _, part := range parts {
		_, _ = fmt.Fprintf(sum, "%d %s", len(part), part)
	}
	return sum.Sum(nil), nil
}

const idempotencyKeyHeader = "Idempotency-Key"

// checker is a body that knows rules beyond its types. They are asked for when
// something else is wrong with it already, so that all of it is told at once;
// else the handler will hold the request to them.
type checker interface{ check() error }

// readBody reads the body, and answers it in the one form that all of its spellings
// have.
func (in *reader) readBody(r *http.Request, to reflect.Value, wrong *fields) (canonical []byte, err error) {
	raw, err := io.ReadAll(r.Body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, riverbeat.Errorf(riverbeat.TooLarge, "body_too_large", "The body may have at most %d bytes.", tooLarge.Limit)
	}
	if err != nil {
		return nil, malformed("unreadable_body", "The body ended before it was complete.")
	}
	if len(raw) == 0 && in.bodyOptional() {
		return nil, nil
	}
	if len(raw) == 0 {
		return nil, malformed("empty_body", "A JSON object is needed as the body.")
	}
	if err := checkContentType(r.Header, in.patches()); err != nil {
		return nil, err
	}
	if canonical, err = checkJSON(raw); err != nil {
		return nil, err
	}
	if in.patches() {
		to.Addr().Interface().(patcher).readPatch(raw, wrong)
		return canonical, nil
	}
	if to.Kind() == reflect.Pointer {
		to.Set(reflect.New(to.Type().Elem()))
		to = to.Elem()
	}
	decodeStruct(to, raw, "", wrong)
	if body, ok := to.Addr().Interface().(checker); ok && len(*wrong) > 0 {
		if more, ok := errors.AsType[*riverbeat.Error](body.check()); ok {
			for _, f := range more.Fields {
				if !wrong.covers(f.Pointer) {
					wrong.addf(f.Pointer, "%s", f.Detail)
				}
			}
		}
	}
	return canonical, nil
}

// checkContentType wants JSON to be called JSON. A body without a type is
// refused, too: a page of another site may make a browser send one, but none
// that says application/json.
func checkContentType(header http.Header, patch bool) error {
	if encoding := header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return unsupportedMediaType("The body must not be compressed.")
	}
	wanted := []string{"application/json"}
	if patch {
		wanted = append(wanted, "application/merge-patch+json")
	}
	mediaType, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	charset := params["charset"]
	if err != nil || !slices.Contains(wanted, mediaType) || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return unsupportedMediaType("Send the body as %s, and say so in the header Content-Type.", strings.Join(wanted, " or "))
	}
	return nil
}
