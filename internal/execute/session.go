package execute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"riverbeat/internal/metrics"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

const (
	// BeatEvery is how often a node says that it lives.
	BeatEvery = time.Second
	// fenceAfter is when a node that cannot say so gives its runs up, by its
	// monotonic clock. It comes before the server ends the session
	// (postgres.SessionLife), and so before anyone else may have the runs.
	fenceAfter = 4 * time.Second
	// answerWithin bounds one exchange with the server: what takes longer is a
	// broken connection, and there is time for another one.
	answerWithin = 1500 * time.Millisecond
	reopenEvery  = 200 * time.Millisecond
	// openWithin bounds the first opening, when nothing runs yet.
	openWithin = 10 * time.Second
)

// errNoSession is why an attempt cannot begin right now.
var errNoSession = errors.New("the node has no session with the database")

// session keeps the node's database session: it beats, holds the execute locks
// of the keys that run here, opens the session again when it breaks, and gives
// the node's runs up when it cannot.
//
// One goroutine uses the connection; whoever wants a lock leaves a request.
type session struct {
	open   func(context.Context) (*postgres.Session, error)
	logger *slog.Logger
	// metrics counts; nil: nothing is counted.
	metrics *metrics.Metrics
	// fence gives up all attempts.
	fence func()
	// onHold tells that the node has to go on hold, and why.
	onHold func(error)
	// recheck looks, over the new connection, which attempts still have their
	// jobs after a break.
	recheck func(context.Context, *postgres.Session) error

	offset atomic.Int64 // from this machine's clock to the database's, ns

	mu       sync.Mutex
	beat     time.Time     // when the last answered beat was sent
	standing chan struct{} // closed while the session stands
	fenced   bool
	held     map[string]*hold // by lock key: taken by an attempt of this node
	openings int              // so far
	// settledAt is when, after a break, every other node has its locks again, or has given
	// them up.
	settledAt time.Time
	requests  []*lockRequest
	wake      func() // ends the wait for requests
}

// hold is a key that an attempt has taken or asks for. Advisory locks nest
// within a session, so the map that has it, not Postgres, keeps two attempts of
// one node apart.
type hold struct {
	locked bool   // in the database, too
	lose   func() // the lock is lost, and somebody else has it
	key    string // "": of those it may have, it has none
	// anyOf are the keys of which it has one, whichever it is.
	anyOf []string
}

type lockRequest struct {
	key    string
	hold   *hold   // nil: give the lock back
	holds  []*hold // instead of hold: each takes another one of its anyOf, as far as they go
	locked bool
	err    error
	done   chan struct{}
}

func newLockRequest(key string, h *hold) *lockRequest {
	return &lockRequest{key: key, hold: h, done: make(chan struct{})}
}

func newSession(open func(context.Context) (*postgres.Session, error), logger *slog.Logger) *session {
	return &session{
		open: open, logger: logger, standing: make(chan struct{}), held: map[string]*hold{}, wake: func() {},
	}
}

// now is the database's time, as far as this machine can tell.
func (s *session) now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }

// alive tells whether nobody else can have this node's runs yet.
func (s *session) alive() bool { return s.left() > 0 }

// left is for how long from now nobody else can have this node's runs; 0: somebody may.
func (s *session) left() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fenced {
		return 0
	}
	return max(fenceAfter-time.Since(s.beat), 0)
}

// settled tells whether locks that nobody has are free: after a break of the session, other
// nodes may have one, too, and take theirs again.
func (s *session) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !time.Now().Before(s.settledAt)
}

// ready waits until the session stands, for a while.
func (s *session) ready(ctx context.Context) error {
	s.mu.Lock()
	standing := s.standing
	s.mu.Unlock()
	timeout := time.NewTimer(fenceAfter)
	defer timeout.Stop()
	select {
	case <-standing:
		return nil
	case <-timeout.C:
		return errNoSession
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lock takes the execute lock of a key for an attempt; false if another attempt
// has it, here or elsewhere. lose is called if the lock is lost to somebody
// else later.
func (s *session) lock(ctx context.Context, key string, lose func()) (bool, error) {
	s.mu.Lock()
	if s.held[key] != nil {
		s.mu.Unlock()
		return false, nil
	}
	h := &hold{lose: lose, key: key}
	s.held[key] = h
	s.mu.Unlock()
	locked, err := s.ask(newLockRequest(key, h))
	if err != nil || !locked {
		s.forget(key)
		return false, err
	}
	if ctx.Err() != nil {
		s.unlock(key)
		return false, context.Cause(ctx)
	}
	return true, nil
}

// lockSome takes for each of holds, as far as there are any, the execute lock of one of
// keys that nobody has. Its key says which. lose is called as that of lock is, but not
// while there is another one of keys.
func (s *session) lockSome(keys []string, holds []*hold) error {
	for _, h := range holds {
		h.anyOf = keys
	}
	r := newLockRequest("", nil)
	r.holds = holds
	if _, err := s.ask(r); err != nil {
		for _, h := range holds {
			s.release(h) // an error may come behind its lock
		}
		return err
	}
	return nil
}

// release gives the lock of a hold back, if it has one. When it returns, others can take
// it.
func (s *session) release(h *hold) {
	s.mu.Lock()
	key := h.key
	h.locked = false // a session that is opened right now must not take it, or another one, again
	s.mu.Unlock()
	if key == "" {
		return
	}
	_, _ = s.ask(newLockRequest(key, nil)) // a session that has broken holds no locks
	s.forget(key)
}

// unlock gives a key back. When it returns, others can take it.
func (s *session) unlock(key string) {
	s.mu.Lock()
	h := s.held[key]
	s.mu.Unlock()
	s.release(h)
}

func (s *session) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, key)
}

// ask leaves a request. It is answered in time: when the connection breaks, so
// are all requests.
func (s *session) ask(r *lockRequest) (bool, error) {
	s.mu.Lock()
	select {
	case <-s.standing:
	default:
		s.mu.Unlock()
		return false, errNoSession
	}
	s.requests = append(s.requests, r)
	s.wake()
	s.mu.Unlock()
	<-r.done
	return r.locked, r.err
}

// run keeps the session, beginning with the one given, until ctx ends. It
// answers the session that stands then, if one does.
func (s *session) run(ctx context.Context, conn *postgres.Session) *postgres.Session {
	var guarding sync.WaitGroup
	defer guarding.Wait()
	guarding.Go(func() { s.guard(ctx) })
	fault := ""
	for {
		beat, err := s.take(ctx, conn)
		if err == nil {
			if fault != "" {
				s.logger.InfoContext(ctx, "the node has a session with the database again")
			}
			fault = ""
			err = s.serve(ctx, conn, beat)
		}
		if ctx.Err() != nil {
			return conn
		}
		conn.Close(ctx)
		s.metrics.SessionLost()
		if text := riverbeat.Explain(err); text != fault {
			fault = text
			s.logger.WarnContext(ctx, "the node has no session with the database; opening it again", "error", text)
		}
		if postgres.IsOnHold(err) {
			s.giveUp(err)
		}
		if conn = s.reopen(ctx); conn == nil {
			return nil
		}
	}
}

// giveUp stops all attempts at once, for the node goes on hold.
func (s *session) giveUp(cause error) {
	s.mu.Lock()
	newly := !s.fenced
	s.fenced = true
	s.mu.Unlock()
	if newly {
		s.metrics.Fenced()
	}
	s.fence()
	s.onHold(cause)
}

// reopen opens a session, at once and then again and again until ctx ends.
func (s *session) reopen(ctx context.Context) *postgres.Session {
	for {
		conn, err := s.opened(ctx)
		if err == nil {
			return conn
		}
		if postgres.IsOnHold(err) {
			s.giveUp(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reopenEvery):
		}
	}
}

func (s *session) opened(ctx context.Context) (*postgres.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.open(ctx)
}

// take makes a new session the node's: it beats, takes again the locks of what
// runs here, and looks whether that still is ours. It says when it has beaten.
func (s *session) take(ctx context.Context, conn *postgres.Session) (beat time.Time, err error) {
	beat, err = s.sendBeat(ctx, conn)
	if err != nil {
		return beat, err
	}
	s.mu.Lock()
	var keys []string
	for key, h := range s.held {
		if h.locked {
			keys = append(keys, key)
		}
	}
	s.mu.Unlock()
	if keys, err = s.retake(ctx, conn, keys); err != nil {
		return beat, err
	}
	if err := s.recheck(ctx, conn); err != nil {
		return beat, fmt.Errorf("look after the runs of this node: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if h := s.held[key]; h == nil || !h.locked {
			s.requests = append(s.requests, newLockRequest(key, nil)) // its attempt has ended meanwhile
		}
	}
	s.beat, s.fenced = beat, false
	if s.openings++; s.openings > 1 {
		s.settledAt = beat.Add(lostAfter)
	}
	close(s.standing)
	s.metrics.SessionUp(true)
	return beat, nil
}

// retake takes locks again, and answers which it has then: instead of one that somebody
// else has by now, another one that is as good.
func (s *session) retake(ctx context.Context, conn *postgres.Session, keys []string) (taken []string, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	locked, err := conn.TryLocks(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("take the locks again: %w", err)
	}
	for i, key := range keys {
		if locked[i] {
			taken = append(taken, key)
			continue
		}
		other, err := s.instead(ctx, conn, key)
		if err != nil {
			return nil, fmt.Errorf("take another lock instead: %w", err)
		}
		if other != "" {
			taken = append(taken, other)
		}
	}
	return taken, nil
}

// instead takes another lock in the place of one that is lost. If there is none, it says
// that to who has held it.
func (s *session) instead(ctx context.Context, conn *postgres.Session, key string) (other string, err error) {
	s.mu.Lock()
	h := s.held[key]
	var free []string
	if h != nil && h.locked {
		for _, one := range h.anyOf {
			if s.held[one] == nil {
				free = append(free, one)
			}
		}
	}
	s.mu.Unlock()
	var keys []string
	if len(free) > 0 {
		if keys, err = conn.TrySomeLocks(ctx, free, 1); err != nil {
			return "", err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(keys) > 0 {
		other = keys[0]
	}
	if h = s.held[key]; h == nil || !h.locked {
		return other, nil // it was given back meanwhile; so is the other one
	}
	if other == "" {
		h.locked = false
		h.lose()
		return "", nil
	}
	delete(s.held, key)
	h.key, s.held[other] = other, h
	return other, nil
}

// serve beats, the next time BeatEvery after beat, and answers requests until
// ctx ends or the connection breaks.
func (s *session) serve(ctx context.Context, conn *postgres.Session, beat time.Time) error {
	defer s.fallen()
	next := beat.Add(BeatEvery)
	for ctx.Err() == nil {
		if !time.Now().Before(next) {
			sent, err := s.sendBeat(ctx, conn)
			if err != nil {
				return err
			}
			s.mu.Lock()
			s.beat = sent
			s.mu.Unlock()
			next = sent.Add(BeatEvery)
		}
		waiting, cancel := context.WithDeadline(ctx, next)
		s.mu.Lock()
		requests := s.requests
		s.requests, s.wake = nil, cancel
		s.mu.Unlock()
		var err error
		if len(requests) > 0 {
			err = s.answer(ctx, conn, requests)
		} else {
			err = conn.Wait(waiting)
		}
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// fallen notes that the session stands no more.
func (s *session) fallen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.standing, s.wake = make(chan struct{}), func() {}
	s.metrics.SessionUp(false)
	for _, r := range s.requests {
		r.err = errNoSession
		close(r.done)
	}
	s.requests = nil
}

// answer gives back and takes the locks that were asked for.
func (s *session) answer(ctx context.Context, conn *postgres.Session, requests []*lockRequest) (err error) {
	defer func() {
		for _, r := range requests {
			r.err = err
			close(r.done)
		}
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	var unlock, lock []string
	var asked []*lockRequest
	var choices []*lockRequest
	for _, r := range requests {
		switch {
		case r.holds != nil:
			choices = append(choices, r)
		case r.hold == nil:
			unlock = append(unlock, r.key)
		default:
			lock, asked = append(lock, r.key), append(asked, r)
		}
	}
	if len(unlock) > 0 {
		if err := conn.Unlock(ctx, unlock); err != nil {
			return fmt.Errorf("give locks back: %w", err)
		}
	}
	for _, r := range choices {
		if err := s.choose(ctx, conn, r.holds); err != nil {
			return fmt.Errorf("take some of several locks: %w", err)
		}
	}
	if len(lock) == 0 {
		return nil
	}
	locked, err := conn.TryLocks(ctx, lock)
	if err != nil {
		return fmt.Errorf("take locks: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range asked {
		r.locked, r.hold.locked = locked[i], locked[i]
	}
	return nil
}

// choose takes, for each hold, a lock that nobody has of those that it may have.
func (s *session) choose(ctx context.Context, conn *postgres.Session, holds []*hold) error {
	s.mu.Lock()
	var free []string
	for _, key := range holds[0].anyOf {
		if s.held[key] == nil {
			free = append(free, key)
		}
	}
	s.mu.Unlock()
	keys, err := conn.TrySomeLocks(ctx, free, len(holds))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, key := range keys {
		holds[i].key, holds[i].locked = key, true
		s.held[key] = holds[i]
	}
	return nil
}

// sendBeat beats, and measures how far the clocks are apart. It ends its exchange
// when ctx ends, too: a connection that is left in the middle of one is closed, and
// the node could not say that it leaves.
func (s *session) sendBeat(ctx context.Context, conn *postgres.Session) (sent time.Time, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	sent = time.Now()
	now, err := conn.Beat(ctx)
	if err != nil {
		return sent, fmt.Errorf("beat: %w", err)
	}
	took := time.Since(sent)
	offset := now.Sub(sent.Add(took / 2))
	s.offset.Store(int64(offset))
	s.metrics.Beat(took, offset)
	return sent, nil
}

// guard gives the runs of this node up when it has not beaten for too long. It
// has a goroutine of its own, for the other one may hang in a connection.
func (s *session) guard(ctx context.Context) {
	timer := time.NewTimer(fenceAfter)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		s.mu.Lock()
		left := fenceAfter - time.Since(s.beat)
		newly := left <= 0 && !s.fenced
		if newly {
			s.fenced = true
		}
		s.mu.Unlock()
		if newly {
			s.logger.ErrorContext(ctx, "the node could not reach the database for too long and gives its runs up",
				"after", fenceAfter.String())
			s.metrics.Fenced()
			s.fence()
		}
		if left <= 0 {
			left = 100 * time.Millisecond
		}
		timer.Reset(left)
	}
}
