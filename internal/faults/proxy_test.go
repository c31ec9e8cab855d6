package faults

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/localpg"
)

// proxy stands between a node and Postgres. It passes on messages of the
// protocol one by one, and does to them what it is told.
type proxy struct {
	listener net.Listener
	dial     func(context.Context) (net.Conn, error)

	mu      sync.Mutex
	links   map[*link]bool
	refuses bool
	deaf    bool          // drops notifications
	latency time.Duration // of each message
	lies    int           // so many commits to come are answered by a broken connection
	lied    int
	late    bool // commits wait for the next whole second
	waited  int
	flows   chan struct{} // closed while messages flow
	closed  bool
}

// link is one connection through the proxy.
type link struct{ client, server net.Conn }

func (l *link) cut() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func newProxy(t *testing.T, server *localpg.Server) *proxy {
	t.Helper()
	dial := func(ctx context.Context) (net.Conn, error) {
		// Where it listens, Postgres says in its directory.
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(server.DataDir(), ".s.PGSQL.5432"))
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: listener, dial: dial, links: map[*link]bool{}, flows: make(chan struct{})}
	close(p.flows)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.heal()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.cut()
		served.Wait()
	})
	return p
}

// port is where nodes reach the database.
func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) serve(client net.Conn) {
	defer client.Close() //nolint:errcheck // closed by either side
	if p.says(func() bool { return p.refuses || p.closed }) {
		return
	}
	p.await()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	server, err := p.dial(ctx)
	cancel()
	if err != nil {
		return
	}
	l := &link{client, server}
	p.mu.Lock()
	p.links[l] = true
	dead := p.closed
	p.mu.Unlock()
	if dead {
		l.cut()
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { p.forward(l) })
	pumps.Go(func() { p.answer(l) })
	pumps.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// forward passes on what the client says.
func (p *proxy) forward(l *link) {
	defer l.cut()
	buffer := make([]byte, 64<<10)
	for {
		n, err := l.client.Read(buffer)
		if n > 0 {
			p.await()
			if isCommit(buffer[:n]) && p.says(func() bool { return p.late }) {
				p.set(func() { p.waited++ })
				// That is when ticks are due, and everybody claims.
				wait := time.Until(time.Now().Truncate(time.Second).Add(time.Second))
				time.Sleep(wait + rand.N(6*time.Millisecond))
			}
			if _, err := l.server.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// answer passes on what the server says, message by message.
func (p *proxy) answer(l *link) {
	defer l.cut()
	in, out := bufio.NewReaderSize(l.server, 64<<10), bufio.NewWriterSize(l.client, 64<<10)
	head := make([]byte, 5)
	var held []byte // from the end of a command on, when it may be lied about
	for {
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint32(head[1:])) - 4
		if length < 0 || length > 64<<20 {
			return
		}
		message := make([]byte, 5+length)
		copy(message, head)
		if _, err := io.ReadFull(in, message[5:]); err != nil {
			return
		}
		p.await()
		const notification, complete, ready = 'A', 'C', 'Z'
		switch kind := message[0]; {
		case kind == notification && p.says(func() bool { return p.deaf }):
			continue
		case kind == complete && writes(message[5:]) && p.says(func() bool { return p.lies > 0 }):
			held = append(held, message...)
			continue
		case held != nil && kind == ready && message[5] == 'I':
			// It is committed, and whoever asked will never know.
			p.mu.Lock()
			lie := p.lies > 0
			if lie {
				p.lies--
				p.lied++
			}
			p.mu.Unlock()
			if lie {
				return
			}
		}
		if _, err := out.Write(append(held, message...)); err != nil {
			return
		}
		held = nil
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return
			}
		}
	}
}

// isCommit tells whether the client says COMMIT, which it does by itself.
func isCommit(message []byte) bool { return string(message[min(5, len(message)):]) == "commit\x00" }

// writes tells whether the command that has ended may have changed something.
// River's reports of ended attempts are SELECTs of what they have updated.
func writes(tag []byte) bool {
	for _, word := range []string{"COMMIT", "INSERT", "UPDATE", "DELETE", "SELECT"} {
		if strings.HasPrefix(string(tag), word) {
			return true
		}
	}
	return false
}

// await waits until messages flow, and as long as they take.
func (p *proxy) await() {
	p.mu.Lock()
	flows, latency := p.flows, p.latency
	p.mu.Unlock()
	<-flows
	if latency > 0 {
		time.Sleep(latency)
	}
}

func (p *proxy) says(what func() bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return what()
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

// refuse ends all connections and takes no more, until it is healed.
func (p *proxy) refuse() {
	p.set(func() { p.refuses = true })
	p.cut()
}

// hold keeps back all messages, as a broken cable does, until it is healed.
func (p *proxy) hold() {
	p.set(func() {
		select {
		case <-p.flows:
			p.flows = make(chan struct{})
		default:
		}
	})
}

func (p *proxy) slow(latency time.Duration) { p.set(func() { p.latency = latency }) }
func (p *proxy) delayCommits()              { p.set(func() { p.late = true }) }
func (p *proxy) dropNotifications()         { p.set(func() { p.deaf = true }) }
func (p *proxy) lie(commits int)            { p.set(func() { p.lies += commits }) }

// heal ends everything.
func (p *proxy) heal() {
	p.set(func() {
		p.refuses, p.deaf, p.late, p.latency, p.lies = false, false, false, 0, 0
		select {
		case <-p.flows:
		default:
			close(p.flows)
		}
	})
}

// done is how many commits were lied about, and how many waited.
func (p *proxy) done() (lied, waited int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lied, p.waited
}

func (p *proxy) set(how func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	how()
}
