package request

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	"riverbeat/task"
)

// dialer connects to addresses that the guard lets pass. It is asked behind the name
// resolution, about the very address that is connected to, so that neither a notation nor
// a name whose answer changes gets around it; and a connection that is used again is to
// the same host.
type dialer struct {
	guard    *ssrf.Guardian
	resolver *net.Resolver
	setting  string
}

func newTransport(cfg *Config) *http.Transport {
	var v4, v6 []netip.Prefix
	for _, p := range cfg.Networks {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	d := &dialer{
		guard:    ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...)),
		resolver: cfg.Resolver,
		setting:  cfg.Setting,
	}
	return &http.Transport{
		Proxy:                  nil, // its address would be checked in place of where the request goes
		DialContext:            d.dial,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns:           50,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        time.Minute,
	}
}

// dial connects. The error is Final if no address of the name passes: where one does, it
// may answer the next time.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var mu sync.Mutex // a name's addresses of both families are tried side by side
	var refused string
	passed := false
	checked := net.Dialer{
		Timeout:  30 * time.Second,
		Resolver: d.resolver,
		Control: func(network, address string, c syscall.RawConn) error {
			err := d.guard.Safe(network, address, c)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				passed = true
			case refused == "":
				refused, _, _ = net.SplitHostPort(address)
			}
			return err
		},
	}
	conn, err := checked.DialContext(ctx, network, address)
	mu.Lock()
	defer mu.Unlock()
	if err == nil || refused == "" || passed {
		return conn, err
	}
	host, _, _ := net.SplitHostPort(address)
	return nil, task.Final(fmt.Errorf(
		"the address %s of %s is not a public one; the operator may allow it by %s", refused, host, d.setting))
}
