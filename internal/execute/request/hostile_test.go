package request_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute/request"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

// public is a node whose operator allows nothing beside public addresses.
func public(resolver *net.Resolver) request.Config {
	return request.Config{Setting: "RIVERBEAT_HTTP_NETWORKS", Version: "1.2.3", Now: time.Now, Resolver: resolver}
}

func TestAddressesThatAreNotPublic(t *testing.T) {
	t.Parallel()
	trap, ipv6 := newTrap(t, ""), has(t, "::1")
	// Whatever is no address is a name, and each name is this machine, as it is where the
	// system's resolver reads such notations.
	resolver, _ := dns(t, names{"*": {{"127.0.0.1", "::1"}}})
	t.Run("Hosts", func(t *testing.T) {
		t.Parallel()
		for _, host := range []string{
			"127.0.0.1", "127.8.9.10", "127.255.255.255", "0.0.0.0", "0.1.2.3",
			"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.100.100.200",
			"169.254.169.254", "169.254.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
			"224.0.0.1", "240.0.0.1", "255.255.255.255",
			"[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:169.254.169.254]",
			"[::127.0.0.1]", "[fd00:ec2::254]", "[fc00::1]", "[fe80::1]", "[fe80::1%25lo]", "[::1%25lo]", "[fec0::1]", "[ff02::1]",
			"[64:ff9b::7f00:1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]",
			"[2001:0:7f00:1::]", "[2001:db8::1]", "[100::1]", "[3fff::1]", "[5f00::1]",
			"localhost", "LOCALHOST", "localhost.", "sub.localhost", "anything.test", "metadata.google.internal",
			"127.0.0.1.nip.io", "0x7f000001", "0x7f.1", "0x7f.0x0.0x0.0x1", "0xa9fea9fe",
			"１２７.０.０.１", "①②⑦.⓪.⓪.①", "127。0。0。1", "ⓛocalhost",
		} {
			t.Run(host, func(t *testing.T) {
				t.Parallel()
				for _, scheme := range []string{"http", "https"} {
					got, err := do(t, public(resolver), to("POST", scheme+"://"+host+":"+trap.port+"/?query=private"))
					require.Nil(t, got)
					require.Error(t, err)
					if strings.HasPrefix(host, "[") && !ipv6 {
						continue // it does not come so far
					}
					require.ErrorContains(t, err, "is not a public one; the operator may allow it by RIVERBEAT_HTTP_NETWORKS")
					require.NotContains(t, err.Error(), "private")
					require.True(t, task.IsFinal(err))
				}
			})
		}
		// These are neither addresses nor names here: they reach nothing, and are no more
		// than an error.
		for _, host := range []string{
			"2130706433", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "127.0.0.1.", "127.000.000.001", "0", "2852039166",
			"169.254.43518", "0251.0376.0251.0376",
		} {
			t.Run(host, func(t *testing.T) {
				t.Parallel()
				got, err := do(t, public(resolver), to("POST", "http://"+host+":"+trap.port))
				require.Nil(t, got)
				require.Error(t, err)
			})
		}
	})
	t.Cleanup(func() { trap.avoided(t) }) // when all have been asked for
}

func TestRefusedAddressIsNamed(t *testing.T) {
	t.Parallel()
	resolver, _ := dns(t, names{"inside": {{"10.1.2.3"}}})
	_, err := do(t, public(resolver), to("POST", "http://inside.test:8080/?query=private"))
	require.EqualError(t, err, "POST to inside.test:8080: the address 10.1.2.3 of inside.test is not a public one; "+
		"the operator may allow it by RIVERBEAT_HTTP_NETWORKS")
	require.True(t, task.IsFinal(err))
}

// onOneAddress allows one address of this machine, where a server is: it stands for a
// public one.
func onOneAddress(t *testing.T, handler http.HandlerFunc) (cfg request.Config, server *httptest.Server) {
	t.Helper()
	needs(t, "127.0.0.2")
	server = serveAt(t, "127.0.0.2:0", handler)
	cfg = public(nil)
	cfg.Networks = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	return cfg, server
}

// beside is a trap on another address, with the port of a server.
func beside(t *testing.T, server *httptest.Server) *trap {
	t.Helper()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	return &trap{listen(t, "127.0.0.1:"+port), port}
}

func TestNameWhoseAddressChanges(t *testing.T) {
	t.Parallel()
	for name, lookups := range map[string][][]string{
		"ToAPrivateOne":   {{"127.0.0.2"}, {"127.0.0.1"}},
		"FromAPrivateOne": {{"127.0.0.1"}, {"127.0.0.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, server := onOneAddress(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Connection", "close") // each request looks it up
			})
			trap := beside(t, server)
			resolver, asked := dns(t, names{"rebinds": lookups})
			cfg.Resolver = resolver
			code := request.New(cfg).Kind(to("POST", at(server, "rebinds.test.")))
			for i, lookup := range lookups {
				_, err := attempt(t.Context(), t, code, newRun(), nil)
				require.Equal(t, i+1, asked("rebinds"), "what is checked is what is connected to")
				if lookup[0] == "127.0.0.2" {
					require.NoError(t, err)
					continue
				}
				require.ErrorContains(t, err, "the address 127.0.0.1 of rebinds.test. is not a public one")
				require.True(t, task.IsFinal(err))
			}
			trap.avoided(t)
		})
	}
}

func TestNameWithSeveralAddresses(t *testing.T) {
	t.Parallel()
	cfg, server := onOneAddress(t, says(200, ""))
	trap := beside(t, server)
	resolver, _ := dns(t, names{
		"first":  {{"127.0.0.1", "127.0.0.2"}},
		"second": {{"127.0.0.2", "127.0.0.1"}},
		"six":    {{"::1", "fd00:ec2::254", "127.0.0.2"}},
		"none":   {{"127.0.0.1", "10.0.0.1", "::1", "fd00:ec2::254"}},
		"silent": {{"127.0.0.1", "127.0.0.3", "::1"}},
		"empty":  {{}},
	})
	cfg.Resolver = resolver
	for _, name := range []string{"first", "second", "six"} {
		got, err := do(t, cfg, to("POST", at(server, name+".test.")))
		require.NoError(t, err, name)
		require.Equal(t, 200, got.Status)
	}
	_, err := do(t, cfg, to("POST", at(server, "none.test.")))
	require.ErrorContains(t, err, "of none.test. is not a public one")
	require.True(t, task.IsFinal(err))

	// Where one may be asked, it may answer the next time.
	cfg.Networks = append(cfg.Networks, netip.MustParsePrefix("127.0.0.3/32"))
	_, err = do(t, cfg, to("POST", at(server, "silent.test.")))
	require.Error(t, err)
	require.False(t, task.IsFinal(err))
	_, err = do(t, cfg, to("POST", at(server, "empty.test.")))
	require.Error(t, err)
	require.False(t, task.IsFinal(err))
	trap.avoided(t)
}

func TestKeptConnectionIsOfItsHost(t *testing.T) {
	t.Parallel()
	cfg, server := onOneAddress(t, says(200, ""))
	trap := beside(t, server)
	kind := request.New(cfg).Kind
	for range 2 {
		_, err := attempt(t.Context(), t, kind(to("POST", server.URL)), newRun(), nil)
		require.NoError(t, err)
	}
	other := to("POST", at(server, "127.0.0.1"))
	other.Headers = map[string]riverbeat.Text{"X-Forwarded-Host": text("127.0.0.2")}
	_, err := attempt(t.Context(), t, kind(other), newRun(), nil)
	require.True(t, task.IsFinal(err))
	trap.avoided(t)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	trap := newTrap(t, "")
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		for _, location := range []string{"http://127.0.0.1:" + trap.port, "http://[::1]:" + trap.port, "//localhost:" + trap.port, "/again", "http://%zz", ""} {
			for _, method := range []string{"GET", "POST"} {
				asked := make(chan bool, 9)
				got, err := do(t, config, to(method, serve(t, func(w http.ResponseWriter, _ *http.Request) {
					asked <- true
					w.Header().Set("Location", location)
					w.WriteHeader(status)
				}).URL))
				require.EqualError(t, err, fmt.Sprintf("%s answered %d, and redirects are not followed", method, status))
				require.True(t, task.IsFinal(err))
				require.Equal(t, status, got.Status)
				require.Len(t, asked, 1)
			}
		}
	}
	trap.avoided(t)
}

func TestEnvironmentNamesAProxy(t *testing.T) {
	trap := newTrap(t, "127.0.0.1")
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://"+trap.Addr().String())
		t.Setenv(strings.ToLower(name), "http://"+trap.Addr().String())
	}
	t.Setenv("NO_PROXY", "")
	t.Setenv("no_proxy", "")
	resolver, _ := dns(t, names{"*": {{"127.0.0.1"}}}) // of a name: this machine is never asked by a proxy
	cfg := config
	cfg.Resolver = resolver
	_, err := do(t, cfg, to("POST", at(serve(t, says(200, "")), "server.test")))
	require.NoError(t, err)
	server := httptest.NewTLSServer(says(200, ""))
	t.Cleanup(server.Close)
	_, err = do(t, cfg, to("POST", at(server, "example.com"))) // its certificate's
	require.NoError(t, err)
	trap.avoided(t)
}

func TestCookiesAreForgotten(t *testing.T) {
	t.Parallel()
	code := request.New(config).Kind(to("POST", serve(t, func(w http.ResponseWriter, r *http.Request) {
		if len(r.Cookies()) > 0 {
			w.WriteHeader(http.StatusTeapot)
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
	}).URL))
	for range 2 {
		_, err := attempt(t.Context(), t, code, newRun(), nil)
		require.NoError(t, err)
	}
}

func TestHeaderInjection(t *testing.T) {
	t.Parallel()
	trap := newTrap(t, "127.0.0.1")
	for _, value := range []string{"token-1234\r\nX-Admin: 1", "token-1234\n", "token-1234\r", "token-1234\x00", "token-1234\x7f", "token-1234\u0085"} {
		settings := to("POST", "http://"+trap.Addr().String())
		settings.Headers = map[string]riverbeat.Text{"X-Token": text(value)}
		_, err := do(t, config, settings)
		require.EqualError(t, err, "the header X-Token has a line break or another control character")
		require.True(t, task.IsFinal(err))
	}
	trap.avoided(t)
}

func TestEndlessBody(t *testing.T) {
	t.Parallel()
	for status, failed := range map[int]bool{200: false, 500: true} {
		for _, secrets := range []map[string]string{nil, {"large": strings.Repeat("secret", 1000)}} {
			got, err := doWith(t.Context(), t, config, to("GET", serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				for {
					if _, err := io.WriteString(w, strings.Repeat("more ", 1000)); err != nil {
						return
					}
				}
			}).URL), secrets)
			require.Equal(t, failed, err != nil)
			require.Equal(t, status, got.Status)
			require.True(t, got.Truncated)
			require.InDelta(t, 48<<10, len(got.text(t)), 1)
		}
	}
}

func TestBodyThatTrickles(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	got, err := doWith(ctx, t, config, to("GET", serve(t, func(w http.ResponseWriter, r *http.Request) {
		for {
			_, _ = io.WriteString(w, ".")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(5 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	}).URL), nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, task.IsFinal(err))
	require.Equal(t, 200, got.Status)
	require.True(t, got.Truncated)
}

func TestConnectionThatIsSwitched(t *testing.T) {
	t.Parallel()
	_, err := do(t, config, to("GET", raw(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nso", false)))
	require.EqualError(t, err, "GET answered 101 Switching Protocols")
	require.True(t, task.IsFinal(err))
}

func TestInformationWithoutEnd(t *testing.T) {
	t.Parallel()
	_, err := do(t, config, to("GET", raw(t, strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("x", 1000)+"\r\n\r\n", 200), false)))
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, task.IsFinal(err))
}

func TestGzipBomb(t *testing.T) {
	t.Parallel()
	got, err := do(t, config, to("GET", serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		zeros := make([]byte, 1<<20)
		for range 50 {
			if _, err := z.Write(zeros); err != nil {
				return
			}
		}
		_ = z.Close()
	}).URL))
	require.NoError(t, err)
	require.True(t, got.Truncated)
	require.Equal(t, strings.Repeat("\ufffd", 20<<10), got.text(t))
}

func TestBodyThatIsNoGzip(t *testing.T) {
	t.Parallel()
	got, err := do(t, config, to("GET", serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "this is plain")
	}).URL))
	require.ErrorIs(t, err, gzip.ErrHeader)
	require.False(t, task.IsFinal(err))
	require.Equal(t, 200, got.Status)
}

func TestHugeHeaders(t *testing.T) {
	t.Parallel()
	handler := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Huge", strings.Repeat("x", 100<<10)) }
	server := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	for _, url := range []string{serve(t, handler).URL, server.URL} {
		got, err := do(t, config, to("GET", url))
		require.Nil(t, got)
		require.Error(t, err)
		require.False(t, task.IsFinal(err))
	}
}

func TestWordsOfTheStatusAreNotTold(t *testing.T) {
	t.Parallel()
	got, err := do(t, config, to("GET", raw(t, "HTTP/1.1 404 \x1b[31m"+strings.Repeat("a", 9000)+"\r\nContent-Length: 0\r\n\r\n", true)))
	require.EqualError(t, err, "GET answered 404 Not Found")
	require.Equal(t, &answer{Status: 404}, got)
}

func TestAnswerThatRepeatsASecret(t *testing.T) {
	t.Parallel()
	secrets := map[string]string{"a": "Zx9Qw7Lp2Mn5", "b": "Yk3\"Rt\\8<Vb&6é"}
	inJSON, err := json.Marshal(secrets["b"])
	require.NoError(t, err)
	forms := []string{secrets["a"], secrets["b"], strings.Trim(string(inJSON), `"`)}
	clean := func(t *testing.T, text string) {
		t.Helper()
		for _, begin := range []string{"Zx", "Yk"} {
			require.NotContains(t, text, begin)
		}
	}
	// Around where the body is cut, where reading it ends (longest behind that), and where
	// the message is.
	const longest = 60
	var places []int
	for i := 0; i < 2*longest; i += 7 {
		places = append(places, 48<<10-longest+i, 1<<10-longest+i)
	}
	places = append(places, 0, 48<<10+longest, 48<<10+2*longest)
	for _, status := range []int{200, 500} {
		body := make(chan string, 1)
		code := request.New(config).Kind(to("POST", serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, <-body)
		}).URL))
		for i, place := range places {
			form := forms[i%len(forms)]
			// Those in front make what is kept shorter, so that more of the end moves into it.
			for _, front := range []string{"", strings.Repeat(forms[2], 100)} {
				text := front + strings.Repeat(".", max(place-len(front), 0)) + form
				body <- text + strings.Repeat(".", i%3*100)
				got, err := attempt(t.Context(), t, code, newRun(), secrets)
				clean(t, string(got.Body))
				require.Equal(t, status == 500, err != nil)
				if err != nil {
					clean(t, err.Error())
				}
			}
		}
	}

	for _, body := range []string{
		`{"echo": ["Zx9Qw7Lp2Mn5", ` + string(inJSON) + `], "Zx9Qw7Lp2Mn5": 1}`,
		`"\u005ax9Qw7Lp2Mn5"`,
		`{"a": "Zx9Qw7Lp2Mn5", "a": 1}`,
	} {
		for _, status := range []int{200, 500} {
			got, err := doWith(t.Context(), t, config, to("POST", serve(t, says(status, body)).URL), secrets)
			clean(t, string(got.Body))
			require.Contains(t, string(got.Body), "[secret a]")
			if err != nil && !strings.Contains(body, `\u005a`) {
				clean(t, err.Error())
			}
		}
	}
	// A secret is short, and what stands for it is long.
	got, err := doWith(t.Context(), t, config, to("POST", serve(t, says(200, `"`+strings.Repeat("abcd", 12<<10-1)+`"`)).URL), map[string]string{"with-a-long-name": "abcd"})
	require.NoError(t, err)
	require.True(t, got.Truncated)
	require.True(t, strings.HasPrefix(got.text(t), `"[secret with-a-long-name][secret`))
}
