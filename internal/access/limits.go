package access

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxLimited is how many are remembered at once. Whoever is forgotten begins anew.
const maxLimited = 10_000

// limits bounds how often each of many does something.
type limits[K comparable] struct {
	now    func() time.Time
	every  rate.Limit
	atOnce int

	mu sync.Mutex
	of map[K]*rate.Limiter
}

func newLimits[K comparable](now func() time.Time, perSecond float64, atOnce int) *limits[K] {
	return &limits[K]{now: now, every: rate.Limit(perSecond), atOnce: atOnce, of: map[K]*rate.Limiter{}}
}

// take answers 0 if k may do it now, or how long k has to wait.
func (l *limits[K]) take(k K) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	limiter := l.of[k]
	if limiter == nil {
		l.makeRoom(now)
		limiter = rate.NewLimiter(l.every, l.atOnce)
		l.of[k] = limiter
	}
	if limiter.AllowN(now, 1) {
		return 0
	}
	missing := 1 - limiter.TokensAt(now)
	return time.Duration(missing / float64(l.every) * float64(time.Second))
}

// makeRoom forgets those who could not be told from new ones, and if that are too
// few, whomever.
func (l *limits[K]) makeRoom(now time.Time) {
	if len(l.of) < maxLimited {
		return
	}
	for k, limiter := range l.of {
		if limiter.TokensAt(now) >= float64(l.atOnce) {
			delete(l.of, k)
		}
	}
	for k := range l.of {
		if len(l.of) < maxLimited {
			return
		}
		delete(l.of, k)
	}
}
