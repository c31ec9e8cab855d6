// Package request executes definitions of kind http. An attempt is one request: it goes to
// public addresses and to those that the operator allows, follows no redirect, and knows
// no proxy and no cookies. What was answered is the result.
package request

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"riverbeat/internal/execute/secret"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/trace"
	"riverbeat/task"
)

const (
	// maxBody is how much of an answer is read to be kept, and maxResult how long the
	// result may be as JSON, which writes some characters as six: it stays below what is
	// kept with a run, or its status would be lost with the rest.
	maxBody   = 48 << 10
	maxResult = 60 << 10
	// maxMessage is how much of an answer is told in the error.
	maxMessage = 1 << 10
	// maxRetryAfter bounds what an answer may ask for.
	maxRetryAfter = 24 * time.Hour
)

// withBody are the methods whose requests carry the run.
var withBody = []string{http.MethodPost, http.MethodPut, http.MethodPatch}

// Config is what the operator says of requests.
type Config struct {
	Networks []netip.Prefix // where requests may go beside public addresses
	Setting  string         // by which the operator says so, for errors
	// StatusOnly is whether nothing of an answer is kept but its status.
	StatusOnly bool
	Version    string // of Riverbeat, for User-Agent
	Now        func() time.Time
	Resolver   *net.Resolver // nil: the system's
}

// Client makes requests. It is safe for concurrent use.
type Client struct {
	cfg Config
	// transport is used as it is: redirects and cookies are what http.Client adds.
	transport *http.Transport
}

// New makes a Client.
func New(cfg Config) *Client { return &Client{cfg: cfg, transport: newTransport(&cfg)} }

// Kind is the kind http of executors: the code for settings whose secrets are resolved.
// Its body is the run.
func (c *Client) Kind(settings riverbeat.Executor) task.Code {
	return func(ctx context.Context, run *task.Run) (any, error) {
		var body []byte
		if slices.Contains(withBody, settings.Method) {
			var err error
			if body, err = json.Marshal(run); err != nil {
				return nil, task.Final(fmt.Errorf("write the run: %w", err))
			}
		}
		return c.Send(ctx, &settings, run.ID, body)
	}
}

// result is what is kept of an answer.
type result struct {
	Status int `json:"status"`
	// Body is the answer's JSON, or its text as a string; none if it is empty.
	Body      json.RawMessage `json:"body,omitempty"`
	Truncated bool            `json:"truncated,omitempty"` // there is more than Body has
}

// Send makes the request of a run. The result is what was answered; it stands beside the
// error of an answer, too. The error is Final where asking again would be answered the
// same.
func (c *Client) Send(ctx context.Context, settings *riverbeat.Executor, run uuid.UUID, body []byte) (any, error) {
	r, err := c.request(ctx, settings, run, body)
	if err != nil {
		return nil, task.Final(err)
	}
	ctx, span := trace.Outgoing(ctx, r.Method, r.URL.Hostname())
	defer span.End()
	r = r.WithContext(ctx)
	if carried := trace.Carry(ctx); carried != "" {
		r.Header.Set(trace.Member, carried)
	}
	response, err := c.transport.RoundTrip(r)
	if err != nil {
		span.Fail()
		return nil, fmt.Errorf("%s to %s: %w", r.Method, r.URL.Host, err)
	}
	defer func() { _ = response.Body.Close() }()
	span.SetNumber("http.response.status_code", response.StatusCode)
	if !succeeds(settings, response.StatusCode) {
		span.Fail()
	}

	redact := secret.From(ctx)
	limit := maxBody + redact.Longest()
	var answer []byte
	var broken error
	// What stands behind 101 is a bare connection, and reading it does not end with ctx.
	if response.StatusCode != http.StatusSwitchingProtocols && !c.cfg.StatusOnly {
		answer, broken = io.ReadAll(io.LimitReader(response.Body, int64(limit)+1))
	}
	whole := broken == nil && len(answer) <= limit
	kept, text := keep(response.StatusCode, answer[:min(len(answer), limit)], whole, redact)
	if !succeeds(settings, response.StatusCode) {
		// What cannot be read is not told: the status says enough.
		return kept, c.failure(settings, response, text)
	}
	if broken != nil {
		return kept, fmt.Errorf("read the answer of %s: %w", r.URL.Host, broken)
	}
	return kept, nil
}

// request makes the request of a run. No error has more of the settings than names.
func (c *Client) request(ctx context.Context, settings *riverbeat.Executor, run uuid.UUID, body []byte) (*http.Request, error) {
	// One that is a secret was not checked before.
	if problem := riverbeat.CheckRequestURL(settings.URL.Literal); problem != "" {
		return nil, fmt.Errorf("the URL %s", problem)
	}
	r, err := http.NewRequestWithContext(ctx, settings.Method, settings.URL.Literal, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	r.Header.Set("User-Agent", "Riverbeat/"+c.cfg.Version)
	for name, value := range settings.Headers {
		if strings.ContainsFunc(value.Literal, func(c rune) bool { return unicode.IsControl(c) && c != '\t' }) {
			return nil, fmt.Errorf("the header %s has a line break or another control character", name)
		}
		r.Header.Set(name, value.Literal)
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	// The same for all attempts, so that who is asked again can tell. By this header
	// net/http, too, may repeat a request whose kept connection turns out to be closed.
	r.Header.Set("Idempotency-Key", run.String())
	parent := make([]byte, 8)
	_, _ = rand.Read(parent) // never fails
	r.Header.Set("Traceparent", fmt.Sprintf("00-%s-%x-01", hex.EncodeToString(run[:]), parent))
	if settings.SigningSecret.Literal != "" {
		if err := sign(r.Header, settings.SigningSecret.Literal, run.String(), c.cfg.Now(), body); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// sign adds the headers of Standard Webhooks.
func sign(header http.Header, shared, id string, now time.Time, body []byte) error {
	encoded, ok := strings.CutPrefix(shared, "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) == 0 {
		return errors.New("the signing secret must be whsec_ with a key in base64 behind it")
	}
	webhook, err := standardwebhooks.NewWebhookRaw(key)
	if err != nil {
		return fmt.Errorf("sign the request: %w", err)
	}
	signature, err := webhook.Sign(id, now, body)
	if err != nil {
		return fmt.Errorf("sign the request: %w", err)
	}
	header.Set(standardwebhooks.HeaderWebhookID, id)
	header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return nil
}

// keep makes the result of an answer, and its body as text. Neither has a secret, nor the
// beginning of one, where the body ends too early.
func keep(status int, body []byte, whole bool, redact *secret.Redactor) (kept *result, text string) {
	var clean strings.Builder
	w := redact.Writer(&clean)
	_, _ = w.Write(body)
	if whole {
		_ = w.Close() // or what it holds back is left out: it may begin a secret
	}
	text = strings.ReplaceAll(strings.ToValidUTF8(clean.String(), "\ufffd"), "\x00", "\ufffd")
	if whole {
		if kept := keepJSON(status, body, redact); kept != nil {
			return kept, text
		}
	}
	end, room := len(text), maxResult
	for i, r := range text {
		if room -= lengthInJSON(r); room < 0 {
			end = i
			break
		}
	}
	kept = &result{Status: status, Truncated: !whole || end < len(text)}
	if end > 0 {
		kept.Body, _ = json.Marshal(text[:end])
	}
	return kept, text
}

// keepJSON makes the result of an answer whose body is JSON; nil if it is none that can be
// kept as it is.
func keepJSON(status int, body []byte, redact *secret.Redactor) *result {
	kept := &result{Status: status, Body: body}
	if len(body) == 0 || !fits(kept) {
		return nil
	}
	var err error
	if kept.Body, err = redact.JSON(body); err != nil || !fits(kept) {
		return nil
	}
	return kept
}

// fits tells whether a result can be kept. It is looked at as a whole, for the body is
// nested one level deeper in it, and in both of its spellings, either of which may be the
// longer one.
func fits(kept *result) bool {
	raw, err := json.Marshal(kept)
	if err != nil {
		return false
	}
	canonical, err := riverbeat.CanonicalJSON(raw)
	return err == nil && max(len(raw), len(canonical)) <= maxResult
}

// lengthInJSON is how many bytes a character has in a JSON string at most.
func lengthInJSON(r rune) int {
	switch {
	case r < ' ', strings.ContainsRune("<>&\u2028\u2029", r):
		return len(`\u0000`)
	case r == '"', r == '\\':
		return len(`\"`)
	}
	return utf8.RuneLen(r)
}

func succeeds(settings *riverbeat.Executor, status int) bool {
	if len(settings.SuccessCodes) > 0 {
		return slices.Contains(settings.SuccessCodes, status)
	}
	return status >= 200 && status <= 299
}

func retried(settings *riverbeat.Executor, status int) bool {
	if len(settings.RetryCodes) > 0 {
		return slices.Contains(settings.RetryCodes, status)
	}
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500 && status <= 599
}

// failure makes the error of an answer that is no success.
func (c *Client) failure(settings *riverbeat.Executor, response *http.Response, text string) error {
	status := response.StatusCode
	var err error
	if status >= 300 && status <= 399 {
		err = fmt.Errorf("%s answered %d, and redirects are not followed", settings.Method, status)
	} else {
		// The server's own words for its status may be anything.
		message := strings.TrimSpace(fmt.Sprintf("%s answered %d %s", settings.Method, status, http.StatusText(status)))
		if said := printable(text); said != "" {
			message += ": " + said
		}
		err = errors.New(message)
	}
	if !retried(settings, status) {
		return task.Final(err)
	}
	if wait := c.retryAfter(response.Header.Get("Retry-After")); wait > 0 {
		return task.RetryAfter(wait, err)
	}
	return err
}

// printable is the beginning of a text, on one line.
func printable(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxMessage)], "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text))
}

// retryAfter reads the header Retry-After; 0 if it says nothing that can be meant.
func (c *Client) retryAfter(text string) time.Duration {
	seconds, err := strconv.ParseUint(text, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then it is the largest number
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(c.cfg.Now()), 0), maxRetryAfter)
}
