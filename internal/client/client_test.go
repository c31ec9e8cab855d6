package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/client"
)

// serve answers requests with handle, and gives a client for it.
func serve(t *testing.T, handle http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	c, err := client.New(client.Config{Server: server.URL, Key: "rb_of_a_test"})
	require.NoError(t, err)
	return c
}

func TestCall(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer := []string{
			r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(body),
			r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.Header.Get("If-Match"),
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	answer, err := client.Call[[]string](t.Context(), c, client.Request{Path: client.Path("task-definitions", "a/b c")})
	require.NoError(t, err)
	require.Equal(t, []string{"GET", "/api/v1/task-definitions/a%2Fb%20c", "", "", "Bearer rb_of_a_test", "", ""}, answer)

	answer, err = client.Call[[]string](t.Context(), c, client.Request{
		Method: http.MethodPost, Path: "/pause", Query: url.Values{"dry_run": {"true"}},
		Header: http.Header{"If-Match": {`"3"`}}, Body: map[string]string{"reason": "<rest>"},
	})
	require.NoError(t, err)
	require.Equal(t, []string{"POST", "/api/v1/pause", "dry_run=true"}, answer[:3])
	require.JSONEq(t, `{"reason": "<rest>"}`, answer[3])
	require.Equal(t, []string{"application/json", `"3"`}, answer[5:])

	raw, err := client.Call[json.RawMessage](t.Context(), c, client.Request{Method: http.MethodDelete, Path: "/schedules/x"})
	require.NoError(t, err)
	require.Empty(t, raw)

	_, err = client.Call[map[string]int](t.Context(), c, client.Request{Path: "/nodes"})
	require.ErrorContains(t, err, "cannot be read")
}

func TestItemsOfAllPages(t *testing.T) {
	t.Parallel()
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		switch r.URL.Query().Get("page_token") {
		case "":
			_, _ = io.WriteString(w, `{"items": [1, 2], "next_page_token": "two"}`)
		case "two": // a page of a sparse list may be empty
			_, _ = io.WriteString(w, `{"items": [], "next_page_token": "three"}`)
		case "three":
			_, _ = io.WriteString(w, `{"items": [3], "next_page_token": null}`)
		}
	})
	query := url.Values{"state": {"failed"}}
	var all []int
	for n, err := range client.Items[int](t.Context(), c, client.Request{Path: "/runs", Query: query}) {
		require.NoError(t, err)
		all = append(all, n)
	}
	require.Equal(t, []int{1, 2, 3}, all)
	require.Equal(t, []string{"state=failed", "page_token=two&state=failed", "page_token=three&state=failed"}, asked)
	require.Equal(t, url.Values{"state": {"failed"}}, query)

	asked = nil
	for _, err := range client.Items[int](t.Context(), c, client.Request{Path: "/runs"}) {
		require.NoError(t, err)
		break
	}
	require.Len(t, asked, 1, "no more pages than are needed")
}

func TestProblems(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "of-the-header")
		switch r.URL.Path {
		case "/api/v1/invalid":
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"status": 422, "code": "invalid_schedule", "detail": "The schedule breaks a rule.", "errors": [{"pointer": "/timezone", "detail": "is none"}], "request_id": "of-the-document"}`)
		case "/api/v1/broken":
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"status": 500, "code": "internal_error", "detail": "Not your fault."}`)
		case "/api/v1/moved":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		default:
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, `<html>`)
		}
	})
	ask := func(path string) *client.Error {
		t.Helper()
		_, err := client.Call[any](t.Context(), c, client.Request{Path: path})
		e, ok := errors.AsType[*client.Error](err)
		require.True(t, ok, "%v", err)
		return e
	}
	e := ask("/invalid")
	require.Equal(t, &client.Error{
		Status: 422, Code: "invalid_schedule", Detail: "The schedule breaks a rule.",
		Errors: []client.FieldError{{Pointer: "/timezone", Detail: "is none"}}, RequestID: "of-the-document",
	}, e)
	require.EqualError(t, e, "The schedule breaks a rule.\n  /timezone: is none")
	require.EqualError(t, ask("/broken"), "Not your fault.\n  request id: of-the-header")
	for _, path := range []string{"/moved", "/of-a-proxy"} {
		e = ask(path)
		require.Empty(t, e.Code)
		require.Contains(t, e.Detail, "not as a Riverbeat does")
	}
}

func TestTooManyRequestsAreMadeAgain(t *testing.T) {
	t.Parallel()
	refuse, wait, tries := 1, "1", 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if tries++; tries <= refuse {
			w.Header().Set("Retry-After", wait)
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"code": "too_many_requests", "detail": "Slowly."}`)
			return
		}
		_, _ = w.Write(body)
	})
	r := client.Request{Method: http.MethodPost, Path: "/pause", Body: "the same"}
	answer, err := client.Call[string](t.Context(), c, r)
	require.NoError(t, err)
	require.Equal(t, "the same", answer)
	require.Equal(t, 2, tries)

	wait, tries = "3600", 0
	_, err = client.Call[string](t.Context(), c, r)
	require.EqualError(t, err, "Slowly.")
	require.Equal(t, 1, tries, "nobody waits for an hour")

	wait, tries = "30", 0
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = client.Call[string](ctx, c, r)
	require.ErrorIs(t, err, context.Canceled)
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	c, err := client.New(client.Config{Server: server.URL})
	require.NoError(t, err)
	_, err = client.Call[any](t.Context(), c, client.Request{Path: "/nodes"})
	require.ErrorAs(t, err, new(*client.Unreachable))
	require.ErrorContains(t, err, server.URL+" does not answer: ")
	require.NotContains(t, err.Error(), "/api/v1")
}

func TestWhereAKeyMayGo(t *testing.T) {
	t.Parallel()
	const key = "rb_of_a_test"
	for server, may := range map[string]bool{
		"https://riverbeat.example":         true,
		"http://127.0.0.1:8080":             true,
		"http://[::1]:8080":                 true,
		"http://LOCALHOST":                  true,
		"http://app.localhost":              true,
		"http://riverbeat.example":          false,
		"http://localhost.riverbeat.exampl": false,
		"http://10.0.0.1:8080":              false,
	} {
		_, err := client.New(client.Config{Server: server, Key: key})
		require.Equal(t, may, err == nil, server)
		if err != nil {
			require.NotContains(t, err.Error(), key)
		}
		for _, cfg := range []client.Config{{Server: server}, {Server: server, Key: key, PlainHTTP: true}} {
			_, err = client.New(cfg)
			require.NoError(t, err, server)
		}
	}
	_, err := client.New(client.Config{Server: "https://riverbeat.example", Key: "two\nlines"})
	require.Error(t, err)
	c, err := client.New(client.Config{Server: "https://riverbeat.example", Key: key})
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%v %s %+v %#v", c, c, c, c), key)
}

func TestParseServer(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://Riverbeat.Example":              "https://riverbeat.example",
		"https://riverbeat.example/":             "https://riverbeat.example",
		"https://riverbeat.example/api/v1":       "https://riverbeat.example",
		"https://riverbeat.example/beats/":       "https://riverbeat.example/beats",
		"http://[::1]:8080/api/v1/":              "http://[::1]:8080",
		"":                                       "",
		"127.0.0.1:8080":                         "",
		"ftp://riverbeat.example":                "",
		"https://user:secret@riverbeat.example":  "",
		"https://riverbeat.example?token=secret": "",
		"https://:8080":                          "",
		"https://riverbeat.example\x7f/secret":   "",
	} {
		u, err := client.ParseServer(text)
		if want == "" {
			require.Error(t, err, text)
			require.NotContains(t, err.Error(), "secret")
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, u.String())
	}
}
