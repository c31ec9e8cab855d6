package httpapi

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

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
		path:   paramsOf(request, "path"),
		query:  paramsOf(request, "query"),
		writes: method != http.MethodGet,
	}
	if f, ok := request.FieldByName("Body"); ok {
		in.body = &f
	}
	serve := func(ctx huma.Context) {
		c := humagin.Unwrap(ctx)
		req := new(Req)
		err := in.read(c, reflect.ValueOf(req).Elem())
		var out *answer[Resp]
		if err == nil {
			out, err = do(ctx.Context(), req)
		}
		var body []byte
		if err == nil && out.status != http.StatusNoContent {
			body, err = encode(out.body)
		}
		if err != nil {
			a.fail(c, err)
			return
		}
		if out.location != "" {
			c.Header("Location", out.location)
		}
		if out.status == http.StatusNoContent {
			c.Status(out.status)
			return
		}
		writeBody(c, out.status, "application/json", body)
	}
	documented := a.document(method, path, op, in, reflect.TypeFor[Resp]())
	a.adapter.Handle(documented, serve)
	if method == http.MethodGet {
		a.adapter.Handle(&huma.Operation{Method: http.MethodHead, Path: path}, serve)
	}
}

// reader reads the requests of one route.
type reader struct {
	path, query []param
	body        *reflect.StructField // nil: it has no fields
	writes      bool                 // else a body is not looked at
}

// bodyOptional tells whether there may be no body at all.
func (in *reader) bodyOptional() bool {
	return in.body == nil || in.body.Type.Kind() == reflect.Pointer
}

// patches tells whether the body is a merge patch.
func (in *reader) patches() bool {
	return in.body != nil && reflect.PointerTo(in.body.Type).Implements(reflect.TypeFor[patcher]())
}

func (in *reader) read(c *gin.Context, request reflect.Value) error {
	if err := readPath(request, in.path, c.Param); err != nil {
		return err
	}
	var wrong fields
	if err := readQuery(request, in.query, c.Request.URL.RawQuery, &wrong); err != nil {
		return err
	}
	if in.writes {
		body := reflect.New(reflect.TypeFor[*struct{}]()).Elem()
		if in.body != nil {
			body = request.FieldByIndex(in.body.Index)
		}
		if err := in.readBody(c.Request, body, &wrong); err != nil {
			return err
		}
	}
	return wrong.err()
}

// checker is a body that knows rules beyond its types. They are asked for when
// something else is wrong with it already, so that all of it is told at once;
// else the handler will hold the request to them.
type checker interface{ check() error }

func (in *reader) readBody(r *http.Request, to reflect.Value, wrong *fields) error {
	raw, err := io.ReadAll(r.Body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return riverbeat.Errorf(riverbeat.TooLarge, "body_too_large", "The body may have at most %d bytes.", tooLarge.Limit)
	}
	if err != nil {
		return malformed("unreadable_body", "The body ended before it was complete.")
	}
	if len(raw) == 0 && in.bodyOptional() {
		return nil
	}
	if len(raw) == 0 {
		return malformed("empty_body", "A JSON object is needed as the body.")
	}
	if err := checkContentType(r.Header, in.patches()); err != nil {
		return err
	}
	if err := checkJSON(raw); err != nil {
		return err
	}
	if in.patches() {
		to.Addr().Interface().(patcher).readPatch(raw, wrong)
		return nil
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
	return nil
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
