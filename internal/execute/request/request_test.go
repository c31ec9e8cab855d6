package request_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute/request"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

// received is a request as it has come.
type received struct {
	*http.Request
	body []byte
}

// record starts a server that hands on what it was asked.
func record(t *testing.T) (url string, requests <-chan received) {
	t.Helper()
	list := make(chan received, 10)
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		list <- received{r, body}
	})
	return server.URL, list
}

func TestRequest(t *testing.T) {
	t.Parallel()
	for method, carries := range map[string]bool{"POST": true, "PUT": true, "PATCH": true, "GET": false, "DELETE": false} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			url, requests := record(t)
			settings := to(method, url+"/hook?to=me")
			settings.Headers = map[string]riverbeat.Text{"authorization": text("Bearer abc"), "X-Team": text("data\tteam")}
			run := newRun()
			got, err := attempt(t.Context(), t, request.New(config).Kind(settings), run, nil)
			require.NoError(t, err)
			require.Equal(t, &answer{Status: 200}, got)

			r := <-requests
			require.Equal(t, method, r.Method)
			require.Equal(t, "/hook?to=me", r.RequestURI)
			require.Equal(t, "Bearer abc", r.Header.Get("Authorization"))
			require.Equal(t, "data\tteam", r.Header.Get("X-Team"))
			require.Equal(t, "Riverbeat/1.2.3", r.Header.Get("User-Agent"))
			require.Equal(t, run.ID.String(), r.Header.Get("Idempotency-Key"))
			require.Regexp(t, "^00-"+strings.ReplaceAll(run.ID.String(), "-", "")+"-[0-9a-f]{16}-01$", r.Header.Get("Traceparent"))
			require.Empty(t, r.Header.Values("Webhook-Id"))
			if carries {
				expected, err := json.Marshal(run)
				require.NoError(t, err)
				require.Equal(t, string(expected), string(r.body))
				require.Equal(t, "application/json", r.Header.Get("Content-Type"))
				require.EqualValues(t, len(expected), r.ContentLength)
			} else {
				require.Empty(t, r.body)
				require.Empty(t, r.Header.Get("Content-Type"))
				require.Empty(t, r.TransferEncoding)
			}
		})
	}
}

func TestUserAgentOfTheSettings(t *testing.T) {
	t.Parallel()
	url, requests := record(t)
	settings := to("GET", url)
	settings.Headers = map[string]riverbeat.Text{"user-agent": text("ours/7")}
	_, err := do(t, config, settings)
	require.NoError(t, err)
	require.Equal(t, []string{"ours/7"}, (<-requests).Header.Values("User-Agent"))
}

func TestSigned(t *testing.T) {
	t.Parallel()
	key := []byte("a key of thirty-two bytes, or so")
	whsec := "whsec_" + base64.StdEncoding.EncodeToString(key)
	webhook, err := standardwebhooks.NewWebhook(whsec)
	require.NoError(t, err)
	for _, method := range []string{"POST", "GET"} {
		url, requests := record(t)
		settings := to(method, url)
		settings.SigningSecret = text(whsec)
		run := newRun()
		_, err := attempt(t.Context(), t, request.New(config).Kind(settings), run, nil)
		require.NoError(t, err)

		r := <-requests
		require.NoError(t, webhook.Verify(r.body, r.Header))
		require.Error(t, webhook.Verify(append(r.body, ' '), r.Header))
		require.Equal(t, run.ID.String(), r.Header.Get("Webhook-Id"))
		h := hmac.New(sha256.New, key)
		_, _ = fmt.Fprintf(h, "%s.%s.%s", run.ID, r.Header.Get("Webhook-Timestamp"), r.body)
		require.Equal(t, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)), r.Header.Get("Webhook-Signature"))
	}
}

func TestSigningSecretThatIsNone(t *testing.T) {
	t.Parallel()
	trap := newTrap(t, "127.0.0.1")
	for _, whsec := range []string{"c2VjcmV0", "whsec_", "whsec_%%%%", "whsec_c2VjcmV0X", "WHSEC_c2VjcmV0", "whsec_\n"} {
		settings := to("POST", "http://"+trap.Addr().String())
		settings.SigningSecret = text(whsec)
		_, err := do(t, config, settings)
		require.EqualError(t, err, "the signing secret must be whsec_ with a key in base64 behind it")
		require.True(t, task.IsFinal(err))
	}
	trap.avoided(t)
}

func TestAttemptsOfARun(t *testing.T) {
	t.Parallel()
	url, requests := record(t)
	settings := to("POST", url)
	settings.SigningSecret = text("whsec_c2VjcmV0")
	code, run := request.New(config).Kind(settings), newRun()
	for range 2 {
		_, err := attempt(t.Context(), t, code, run, nil)
		require.NoError(t, err)
		run.Attempt++
	}
	first, second := <-requests, <-requests
	require.Equal(t, first.Header.Get("Idempotency-Key"), second.Header.Get("Idempotency-Key"))
	require.Equal(t, first.Header.Get("Webhook-Id"), second.Header.Get("Webhook-Id"))
	parent := regexp.MustCompile("^00-([0-9a-f]{32})-([0-9a-f]{16})-01$")
	one, two := parent.FindStringSubmatch(first.Header.Get("Traceparent")), parent.FindStringSubmatch(second.Header.Get("Traceparent"))
	require.Equal(t, one[1], two[1])
	require.NotEqual(t, one[2], two[2])
	require.NotEqual(t, first.body, second.body)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100) // at the limit, and the result is one more
	for name, test := range map[string]struct {
		body, kept string // kept: "": none
		truncated  bool
	}{
		"None":               {"", "", false},
		"Object":             {`{"id": 7, "tags": ["a"]}`, `{"id":7,"tags":["a"]}`, false},
		"ManyDigits":         {`9007199254740993`, `9007199254740993`, false},
		"Null":               {"null", "null", false},
		"Text":               {"fine\n", `"fine\n"`, false},
		"SpacesOnly":         {"  ", `"  "`, false},
		"TwoValues":          {"1 2", `"1 2"`, false},
		"DuplicateKeys":      {`{"a":1,"a":2}`, `"{\"a\":1,\"a\":2}"`, false},
		"NULInJSON":          {`{"a":"\u0000"}`, `"{\"a\":\"\\u0000\"}"`, false},
		"LoneSurrogate":      {`"\ud800"`, `"\"\\ud800\""`, false},
		"HugeNumber":         {`1e999`, `"1e999"`, false},
		"TooDeep":            {deep, `"` + deep + `"`, false},
		"NotUTF8":            {"a\xff\xfeb", "\"a\ufffdb\"", false},
		"NotUTF8InJSON":      {"\"\xff\"", `"\"` + "\ufffd" + `\""`, false},
		"NUL":                {"a\x00b", "\"a\ufffdb\"", false},
		"LargestText":        {strings.Repeat("x", 48<<10), `"` + strings.Repeat("x", 48<<10) + `"`, false},
		"Larger":             {strings.Repeat("x", 48<<10+1), `"` + strings.Repeat("x", 48<<10) + `"`, true},
		"LargerJSON":         {`"` + strings.Repeat("x", 48<<10) + `"`, `"\"` + strings.Repeat("x", 48<<10-1) + `"`, true},
		"LargeWhenWritten":   {strings.Repeat("<", 48<<10), `"` + strings.Repeat("<", 10<<10) + `"`, true},
		"LargeWhenCanonical": {"[" + strings.Repeat("1.5,", 12<<10-1) + "2]", `"[` + strings.Repeat("1.5,", 12<<10-1) + `2]"`, false},
		"LargeWhenWrittenJSON": {
			`"` + strings.Repeat("<", 48<<10-2) + `"`, `"\"` + strings.Repeat("<", (60<<10-2)/6) + `"`, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := do(t, config, to("POST", serve(t, says(201, test.body)).URL))
			require.NoError(t, err)
			require.Equal(t, 201, got.Status)
			require.Equal(t, test.truncated, got.Truncated)
			if test.kept == "" {
				require.Empty(t, got.Body)
				return
			}
			require.JSONEq(t, test.kept, string(got.Body))
			if test.kept == "9007199254740993" { // which JSONEq cannot tell from its neighbour
				require.Equal(t, test.kept, string(got.Body))
			}
		})
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status         int
		success, retry []int
		failed, final  bool
	}{
		"OK":                  {status: 200},
		"NoContent":           {status: 204},
		"299":                 {status: 299},
		"OKThatIsNoSuccess":   {status: 200, success: []int{201}, failed: true, final: true},
		"NotFoundThatIsFine":  {status: 404, success: []int{200, 404}},
		"RedirectThatIsFine":  {status: 303, success: []int{303}},
		"Redirect":            {status: 302, failed: true, final: true},
		"NotModified":         {status: 304, failed: true, final: true},
		"RetriedRedirect":     {status: 307, retry: []int{307}, failed: true},
		"BadRequest":          {status: 400, failed: true, final: true},
		"RequestTimeout":      {status: 408, failed: true},
		"TooEarly":            {status: 425, failed: true},
		"TooManyRequests":     {status: 429, failed: true},
		"InternalServerError": {status: 500, failed: true},
		"599":                 {status: 599, failed: true},
		"600":                 {status: 600, failed: true, final: true},
		"999":                 {status: 999, failed: true, final: true},
		"RetriedNotFound":     {status: 404, retry: []int{404}, failed: true},
		"500ThatIsNotRetried": {status: 500, retry: []int{404}, failed: true, final: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := to("POST", serve(t, says(test.status, "")).URL)
			settings.SuccessCodes, settings.RetryCodes = test.success, test.retry
			got, err := do(t, config, settings)
			require.Equal(t, &answer{Status: test.status}, got)
			if !test.failed {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, fmt.Sprintf("POST answered %d", test.status))
			require.Equal(t, test.final, task.IsFinal(err))
		})
	}
}

func TestErrorTellsTheAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status     int
		body, says string
	}{
		{500, "", "POST answered 500 Internal Server Error"},
		{500, "out of\r\n\x00order\x1b[31m\n", "POST answered 500 Internal Server Error: out of  \ufffdorder [31m"},
		{422, `{"detail": "no such day"}`, `POST answered 422 Unprocessable Entity: {"detail": "no such day"}`},
		{599, "\xff", "POST answered 599: \ufffd"},
		{404, strings.Repeat("é", 1<<10), "POST answered 404 Not Found: " + strings.Repeat("é", 512)},
		{404, "x" + strings.Repeat("é", 1<<10), "POST answered 404 Not Found: x" + strings.Repeat("é", 511)},
		{302, "moved", "POST answered 302, and redirects are not followed"},
	} {
		got, err := do(t, config, to("POST", serve(t, says(test.status, test.body)).URL+"/?query=private"))
		require.EqualError(t, err, test.says)
		require.Equal(t, test.status, got.Status)
		require.Equal(t, test.body != "", len(got.Body) > 0, "the body is kept, too")
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	cfg := config
	cfg.Now = func() time.Time { return now }
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for header, wait := range map[string]time.Duration{
		"":                               0,
		"120":                            2 * time.Minute,
		" 7 ":                            7 * time.Second,
		"0":                              0,
		"-5":                             0,
		"+5":                             0,
		"1.5":                            0,
		"1e3":                            0,
		"soon":                           0,
		"86401":                          24 * time.Hour,
		"9223372036854775807":            24 * time.Hour,
		"99999999999999999999999":        24 * time.Hour,
		date(90 * time.Second):           90 * time.Second,
		date(-time.Second):               0,
		date(1000 * time.Hour):           24 * time.Hour,
		"Sunday, 01-Mar-26 09:00:30 GMT": 30 * time.Second, // RFC 850's
		"Mon, 31 Feb 2026 09:00:00 GMT":  0,
		"Fri, 31 Dec 9999 23:59:59 GMT":  24 * time.Hour,
	} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			for _, status := range []int{429, 500, 503} {
				_, err := do(t, cfg, to("POST", serve(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Retry-After", header)
					w.WriteHeader(status)
				}).URL))
				require.ErrorContains(t, err, fmt.Sprintf("POST answered %d", status))
				require.False(t, task.IsFinal(err))
				require.Equal(t, wait, task.RetriedAfter(err))
			}
		})
	}
	_, err := do(t, cfg, to("POST", serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(403)
	}).URL))
	require.True(t, task.IsFinal(err), "whatever it says")
	require.Zero(t, task.RetriedAfter(err))
}

func TestURLOfASecret(t *testing.T) {
	t.Parallel()
	for url, says := range map[string]string{
		"ftp://example.com/token-1234":                  "the URL must be a URL such as",
		"token-1234":                                    "the URL must be a URL such as",
		"http://[::1/token-1234":                        "the URL must be a URL such as",
		"http:///token-1234":                            "the URL must be a URL such as",
		"http:token-1234":                               "the URL must be a URL such as",
		"http://a\r\nb/token-1234":                      "the URL must be a URL such as",
		"file:///etc/token-1234":                        "the URL must be a URL such as",
		"http://user:token-1234@127.0.0.1/":             "the URL must have no user and password",
		"http://127.0.0.1/#token-1234":                  "the URL must have no fragment",
		"http://127.0.0.1/" + strings.Repeat("x", 3000): "the URL must have at most",
	} {
		got, err := do(t, config, to("POST", url))
		require.Nil(t, got)
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "token-1234")
		require.Less(t, len(err.Error()), 200)
		require.True(t, task.IsFinal(err))
	}
}

func TestNetworkErrorsAreRetried(t *testing.T) {
	t.Parallel()
	gone := newTrap(t, "127.0.0.1")
	require.NoError(t, gone.Close())
	refused := httptest.NewUnstartedServer(says(200, ""))
	refused.Config.ErrorLog = log.New(io.Discard, "", 0)
	refused.StartTLS()
	t.Cleanup(refused.Close)
	resolver, _ := dns(t, names{"here": {{"127.0.0.1"}}})
	cfg := config
	cfg.Resolver = resolver
	for name, test := range map[string]struct{ url, says string }{
		"NoSuchName":           {"http://nowhere.test.", "POST to nowhere.test.: "},
		"ConnectionRefused":    {"http://" + gone.Addr().String(), "connection refused"},
		"WrongCertificate":     {at(refused, "here.test"), "x509"},
		"NoTLS":                {strings.Replace(serve(t, says(200, "")).URL, "http:", "https:", 1), "tls: "},
		"NoAnswer":             {raw(t, "", true), "EOF"},
		"NoHTTP":               {raw(t, "SSH-2.0-OpenSSH_9.2\r\n", true), "malformed"},
		"HalfAHeader":          {raw(t, "HTTP/1.1 200 OK\r\nContent-Le", true), "malformed"},
		"NoStatus":             {raw(t, "HTTP/1.1 20x OK\r\n\r\n", true), "malformed"},
		"TwoDigits":            {raw(t, "HTTP/1.1 99 Odd\r\n\r\n", true), "malformed"},
		"InformationAndNoMore": {raw(t, "HTTP/1.1 199 Odd\r\n\r\n", true), "EOF"},
		"TwoLengths":           {raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", true), "Content-Length"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := do(t, cfg, to("POST", test.url+"/path?query=private"))
			require.Nil(t, got)
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "private")
			require.False(t, task.IsFinal(err))
		})
	}
}

func TestBrokenBody(t *testing.T) {
	t.Parallel()
	url := raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[1]", true)
	got, err := do(t, config, to("GET", url))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorContains(t, err, "read the answer of 127.0.0.1:")
	require.False(t, task.IsFinal(err))
	require.Equal(t, &answer{Status: 200, Body: json.RawMessage(`"[1]"`), Truncated: true}, got)

	for status, final := range map[int]bool{404: true, 503: false} {
		url := raw(t, fmt.Sprintf("HTTP/1.1 %d Odd\r\nContent-Length: 10\r\n\r\nso", status), true)
		got, err := do(t, config, to("GET", url))
		require.EqualError(t, err, fmt.Sprintf("GET answered %d %s: so", status, http.StatusText(status)))
		require.Equal(t, final, task.IsFinal(err), "the status says enough")
		require.Equal(t, &answer{Status: status, Body: json.RawMessage(`"so"`), Truncated: true}, got)
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := doWith(ctx, t, config, to("POST", raw(t, "", false)), nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, task.IsFinal(err))
}

func TestTLS(t *testing.T) {
	t.Parallel()
	for major, http2 := range map[int]bool{1: false, 2: true} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, r.ProtoMajor)
		}))
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(server.Close)
		got, err := do(t, config, to("POST", server.URL))
		require.NoError(t, err)
		require.JSONEq(t, fmt.Sprint(major), string(got.Body))
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	needs(t, "::1")
	server := serveAt(t, "[::1]:0", says(200, ""))
	_, err := do(t, config, to("POST", server.URL))
	require.NoError(t, err)
	cfg := config
	cfg.Networks = loopback[:1]
	_, err = do(t, cfg, to("POST", server.URL))
	require.ErrorContains(t, err, "the address ::1 of ::1 is not a public one; the operator may allow it by RIVERBEAT_HTTP_NETWORKS")
	require.True(t, task.IsFinal(err))
}

func TestRunThatIsNoJSON(t *testing.T) {
	t.Parallel()
	run := newRun()
	run.TaskParams = json.RawMessage(`{`)
	_, err := attempt(t.Context(), t, request.New(config).Kind(to("POST", "http://127.0.0.1:1")), run, nil)
	require.ErrorContains(t, err, "write the run")
	require.True(t, task.IsFinal(err))
}
