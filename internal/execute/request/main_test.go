package request_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute/request"
	"riverbeat/internal/execute/secret"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

// TestMain has the certificate of httptest's servers trusted, as those of others are.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "request")
	if err != nil {
		panic(err)
	}
	server := httptest.NewTLSServer(nil)
	file := filepath.Join(dir, "roots.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, certificate, 0o600); err != nil {
		panic(err)
	}
	server.Close()
	_ = os.Setenv("SSL_CERT_FILE", file)
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// loopback is where the servers of the tests are.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

var config = request.Config{Networks: loopback, Setting: "RIVERBEAT_HTTP_NETWORKS", Version: "1.2.3", Now: time.Now}

func text(literal string) riverbeat.Text { return riverbeat.Text{Literal: literal} }

func to(method, url string) riverbeat.Executor {
	return riverbeat.Executor{Kind: riverbeat.ExecutorHTTP, Method: method, URL: text(url)}
}

func newRun() *task.Run {
	return &task.Run{
		ID: uuid.New(), Execution: 2, Attempt: 1, MaxAttempts: 3, TaskName: "notify", ScheduleName: "nightly",
		Trigger: "schedule", ScheduledFor: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC),
		TaskParams: json.RawMessage(`{"day":"<today>"}`), Logger: slog.New(slog.DiscardHandler),
	}
}

// answer is the result of an attempt, as it is kept.
type answer struct {
	Status    int             `json:"status"`
	Body      json.RawMessage `json:"body"`
	Truncated bool            `json:"truncated"`
}

// text is the body that is a string.
func (a *answer) text(t *testing.T) string {
	t.Helper()
	var text string
	require.NoError(t, json.Unmarshal(a.Body, &text))
	return text
}

// do makes an attempt; the answer is nil if there was none. What is returned can be kept.
func do(t *testing.T, cfg request.Config, settings riverbeat.Executor) (*answer, error) {
	t.Helper()
	return doWith(t.Context(), t, cfg, settings, nil)
}

func doWith(ctx context.Context, t *testing.T, cfg request.Config, settings riverbeat.Executor, secrets map[string]string) (*answer, error) {
	t.Helper()
	return attempt(ctx, t, request.New(cfg).Kind(settings), newRun(), secrets)
}

func attempt(ctx context.Context, t *testing.T, code task.Code, run *task.Run, secrets map[string]string) (*answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second) // of what must not hang
	defer cancel()
	redact := secret.NewRedactor(secrets)
	result, err := code(secret.With(ctx, redact), run)
	if result == nil {
		return nil, err
	}
	raw, encoded := json.Marshal(result)
	require.NoError(t, encoded)
	again, encoded := redact.JSON(raw)
	require.NoError(t, encoded)
	require.JSONEq(t, string(raw), string(again), "a secret is left")
	require.LessOrEqual(t, len(again), 64<<10)
	canonical, encoded := riverbeat.CanonicalJSON(again)
	require.NoError(t, encoded)
	require.LessOrEqual(t, len(canonical), 64<<10)
	var told answer
	require.NoError(t, json.Unmarshal(raw, &told))
	return &told, err
}

// serve starts a server.
func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// needs skips a test where this machine does not have an address of its own.
func needs(t *testing.T, host string) {
	t.Helper()
	if !has(t, host) {
		t.Skip("this machine has no address " + host)
	}
}

func has(t *testing.T, host string) bool {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err == nil {
		_ = listener.Close()
	}
	return err == nil
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// raw starts a server that answers each request with bytes, and then closes the connection
// if it is told so.
func raw(t *testing.T, bytes string, closes bool) (url string) {
	t.Helper()
	listener := listen(t, "127.0.0.1:0")
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, _ = conn.Read(make([]byte, 64<<10))
				_, _ = io.WriteString(conn, bytes)
				if !closes {
					_, _ = io.Copy(io.Discard, conn)
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// trap is a listener to which nobody may connect.
type trap struct {
	net.Listener
	port string
}

// newTrap listens on all addresses of the machine if host is "".
func newTrap(t *testing.T, host string) *trap {
	t.Helper()
	listener := listen(t, net.JoinHostPort(host, "0"))
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return &trap{listener, port}
}

// avoided checks that nobody has connected: the first who is in the line is the check.
func (l *trap) avoided(t *testing.T) {
	t.Helper()
	host, _, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	if netip.MustParseAddr(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx := context.WithoutCancel(t.Context()) // for it may be called when the test is over
	check, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, l.port))
	require.NoError(t, err)
	defer func() { _ = check.Close() }()
	first, err := l.Accept()
	require.NoError(t, err)
	defer func() { _ = first.Close() }()
	_, checkPort, err := net.SplitHostPort(check.LocalAddr().String())
	require.NoError(t, err)
	_, firstPort, err := net.SplitHostPort(first.RemoteAddr().String())
	require.NoError(t, err)
	require.Equal(t, checkPort, firstPort, "a request has reached a server that it must not reach")
}

// serveAt starts a server on an address.
func serveAt(t *testing.T, address string, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	require.NoError(t, server.Listener.Close())
	server.Listener = listen(t, address)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// at is the address of a server, with another host.
func at(server *httptest.Server, host string) string {
	u, err := url.Parse(server.URL)
	if err != nil {
		panic(err)
	}
	return u.Scheme + "://" + net.JoinHostPort(host, u.Port())
}

// names are the names that a DNS server knows, by their first label: lookups are the
// addresses that are answered, one list after the other, and the last for ever.
type names map[string][][]string

// dns starts a DNS server. asked counts the lookups of a name, by A and AAAA alike.
func dns(t *testing.T, known names) (resolver *net.Resolver, asked func(label string) int) {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	const typeA, typeAAAA = 1, 28
	var mu sync.Mutex
	times := map[string]map[uint16]int{}
	go func() {
		query := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			if n < 12 {
				continue
			}
			end, label := 12, ""
			for query[end] != 0 {
				if label == "" {
					label = strings.ToLower(string(query[end+1 : end+1+int(query[end])]))
				}
				end += 1 + int(query[end])
			}
			kind := binary.BigEndian.Uint16(query[end+1:])
			lookups, ok := known[label]
			if !ok {
				lookups, ok = known["*"]
			}
			reply := append(append([]byte{}, query[:2]...), 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
			reply = append(reply, query[12:end+5]...)
			if !ok {
				reply[3] |= 3 // no such name
			} else {
				mu.Lock()
				if times[label] == nil {
					times[label] = map[uint16]int{}
				}
				lookup := lookups[min(times[label][kind], len(lookups)-1)]
				times[label][kind]++
				mu.Unlock()
				for _, text := range lookup {
					address := netip.MustParseAddr(text)
					if address.Is4() != (kind == typeA) || kind != typeA && kind != typeAAAA {
						continue
					}
					data := address.AsSlice()
					reply = append(reply, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(data)))
					reply = append(reply, data...)
					reply[7]++
				}
			}
			_, _ = conn.WriteTo(reply, from)
		}
	}()
	resolver = &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
		},
	}
	return resolver, func(label string) int {
		mu.Lock()
		defer mu.Unlock()
		return times[label][typeA]
	}
}
