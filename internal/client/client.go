// Package client speaks the HTTP API, for the commands of people. It knows how a
// request is made and what an answer or a problem looks like; what is asked for and how
// it is shown is for cmd.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// timeout is how long one request may take, in which the server's own 30 seconds lie.
	timeout = 45 * time.Second
	// maxAnswer is how much of an answer is read, in bytes.
	maxAnswer = 256 << 20

	// A request that is one too many is made again, when the server says; unless it asks
	// for more patience than people have.
	maxTries = 5
	maxWait  = 30 * time.Second
)

// Config is where the API is, and what is shown to it.
type Config struct {
	// Server is the address without /api/v1: http://127.0.0.1:8080, say. It may have a
	// path, below which a proxy has the server.
	Server string
	// Key is the API key; "" shows none.
	Key string
	// PlainHTTP allows that the key travels unencrypted to another machine.
	PlainHTTP bool
	// UserAgent is who asks. Defaults to riverbeat.
	UserAgent string
}

// Client makes requests. It is safe for concurrent use, and never shows its key.
type Client struct {
	base      *url.URL
	key       string
	userAgent string
	http      *http.Client
}

// New makes a Client, and asks nothing yet. It is an error if Server is no address, or
// if the key would travel where others can read it.
func New(cfg Config) (*Client, error) {
	base, err := ParseServer(cfg.Server)
	if err != nil {
		return nil, err
	}
	if cfg.Key != "" && base.Scheme == "http" && !isLoopback(base.Hostname()) && !cfg.PlainHTTP {
		return nil, fmt.Errorf("the API key is not sent to %s: on the way others could read it; use https, or say --plain-http", base)
	}
	if strings.ContainsFunc(cfg.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the API key has characters that no key has")
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "riverbeat"
	}
	return &Client{
		base: base, key: cfg.Key, userAgent: cfg.UserAgent,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
				TLSHandshakeTimeout: 10 * time.Second,
				ForceAttemptHTTP2:   true,
				IdleConnTimeout:     time.Minute,
			},
			Timeout: timeout,
			// A redirect could lead the key elsewhere; the API has none.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// ParseServer reads the address of a server. However it was written, the same server
// has the same String.
func ParseServer(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// The text is not repeated: there may be a password in it.
		return nil, errors.New("the server must be an address such as https://riverbeat.example, without user or query")
	}
	u.Host = strings.ToLower(u.Host)
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/api/v1")
	u.RawPath = ""
	return u, nil
}

// isLoopback tells whether a host is this machine.
func isLoopback(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

// String is the address of the server.
func (c *Client) String() string { return c.base.String() }

// GoString is String, so that the key is not shown by %#v either.
func (c *Client) GoString() string { return c.String() }

// Request is what is asked of the server.
type Request struct {
	Method string // Defaults to GET.
	// Path is what follows /api/v1, made with Path if there is anything variable in it.
	Path  string
	Query url.Values
	// Header is added to the client's own: If-Match, say.
	Header http.Header
	// Body is sent as JSON; nil sends none.
	Body any
	// Pages bounds those of a list that Items reads; 0 is all.
	Pages int
}

// Path joins the segments of a path, each escaped.
func Path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

// Call makes a request and reads its answer as a T; json.RawMessage is the answer as it
// came. What the server refuses is an *Error.
func Call[T any](ctx context.Context, c *Client, r Request) (T, error) {
	var answer T
	body, err := c.do(ctx, r)
	if err != nil || len(body) == 0 { // 204
		return answer, err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer, fmt.Errorf("the answer of %s cannot be read; is it a Riverbeat of another version? %w", c.base, err)
	}
	return answer, nil
}

// Page is a page of a list, as the API answers it.
type Page[T any] struct {
	Items []T `json:"items"`
	// NextPageToken is the page_token of the next page; nil on the last one.
	NextPageToken *string `json:"next_page_token"`
}

// Items makes a request that is answered with a list, and yields its items, page by page
// as they are needed. It ends with the first error.
func Items[T any](ctx context.Context, c *Client, r Request) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		query := url.Values{}
		for name, values := range r.Query {
			query[name] = values
		}
		r.Query = query
		for n := 1; r.Pages == 0 || n <= r.Pages; n++ {
			page, err := Call[Page[T]](ctx, c, r)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.NextPageToken == nil {
				return
			}
			query.Set("page_token", *page.NextPageToken)
		}
	}
}

// do makes a request, again when it was one too many.
func (c *Client) do(ctx context.Context, r Request) ([]byte, error) {
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = json.Marshal(r.Body); err != nil {
			return nil, err
		}
	}
	for try := 1; ; try++ {
		body, err := c.try(ctx, r, sent)
		refused, ok := errors.AsType[*Error](err)
		if !ok || refused.Status != http.StatusTooManyRequests || try == maxTries || refused.RetryAfter > maxWait {
			return body, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(max(refused.RetryAfter, time.Second)):
		}
	}
}

func (c *Client) try(ctx context.Context, r Request, sent []byte) ([]byte, error) {
	target := c.base.String() + "/api/v1" + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, r.Method, target, bytes.NewReader(sent))
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", c.userAgent)
	request.Header.Set("Accept", "application/json, application/problem+json")
	if sent != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		request.Header.Set("Authorization", "Bearer "+c.key)
	}
	for name, values := range r.Header {
		request.Header[name] = values
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, c.unreachable(ctx, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer of %s is larger than is read", c.base)
	case response.StatusCode >= 200 && response.StatusCode < 300:
		return body, nil
	default:
		return nil, c.refusal(response, body)
	}
}

// Unreachable is the error of a request that had no answer. Whether it was carried out
// nobody knows.
type Unreachable struct {
	Server string
	Cause  error
}

func (e *Unreachable) Error() string {
	return fmt.Sprintf("%s does not answer: %v", e.Server, e.Cause)
}

func (e *Unreachable) Unwrap() error { return e.Cause }

// unreachable is the error of a request that had no answer, but for its caller's own
// reasons.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // the rest is the address once more
	}
	return &Unreachable{Server: c.base.String(), Cause: err}
}

// Error is a request that the server refused: a problem document (RFC 9457).
type Error struct {
	Status int
	// Code is the stable name of the problem; "" if the answer was no problem document,
	// and who gave it perhaps no Riverbeat.
	Code   string
	Detail string
	// Errors are the parts of the request that are wrong.
	Errors []FieldError
	// BlockedBy is the run that is in the way; "" if none is.
	BlockedBy string
	RequestID string
	// RetryAfter is when it may work; 0 if nothing was said.
	RetryAfter time.Duration
}

// FieldError is one thing that is wrong with a request: a JSON Pointer into its body, or
// the name of a query parameter, and what is wrong there.
type FieldError struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	for _, f := range e.Errors {
		fmt.Fprintf(&b, "\n  %s: %s", f.Pointer, f.Detail)
	}
	if e.BlockedBy != "" {
		fmt.Fprintf(&b, "\n  in the way: %s", e.BlockedBy)
	}
	if e.Status >= http.StatusInternalServerError && e.RequestID != "" {
		fmt.Fprintf(&b, "\n  request id: %s", e.RequestID)
	}
	return b.String()
}

func (c *Client) refusal(response *http.Response, body []byte) *Error {
	var document struct {
		Code      string       `json:"code"`
		Detail    string       `json:"detail"`
		Errors    []FieldError `json:"errors"`
		BlockedBy string       `json:"blocked_by"`
		RequestID string       `json:"request_id"`
	}
	e := &Error{Status: response.StatusCode, RequestID: response.Header.Get("X-Request-Id")}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	if json.Unmarshal(body, &document) != nil || document.Code == "" {
		e.Detail = fmt.Sprintf("%s answers %s, and not as a Riverbeat does.", c.base, response.Status)
		return e
	}
	e.Code, e.Detail, e.Errors, e.BlockedBy = document.Code, document.Detail, document.Errors, document.BlockedBy
	if document.RequestID != "" {
		e.RequestID = document.RequestID
	}
	return e
}
