// Package access allows: it tells who a request is from and what that one may do,
// keeps the keys, and reads the audit trail. Which role each route needs stands on
// one page, routes.go; why it is as it is, in DESIGN.md.
package access

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Openness says when a request without a key is let in, as an admin.
type Openness int

// How open an installation is.
const (
	Closed        Openness = iota // never
	OpenUntilAKey                 // until the first key is made
	Open                          // always
)

// Config is what an Access needs.
type Config struct {
	DB *postgres.DB
	// AdminKey is a key that is not in the database, whose role is admin: any text
	// that is too long to be guessed. "" is none.
	AdminKey string
	Open     Openness
	// RequestsPerSecond is how many requests a key is allowed, for a while; it may
	// save up twice as many. 0: no limit.
	RequestsPerSecond int
	// Now is this machine's clock, by which the limits go.
	Now func() time.Time
}

// Access is safe for concurrent use.
type Access struct {
	db       *postgres.DB
	adminKey *riverbeat.APIKey // nil: none
	open     Openness
	hasKeys  atomic.Bool // there has been a key; it stays true
	failures *limits[netip.Prefix]
	requests *limits[string] // nil: no limit
}

// settingsKeyID is the id of Config.AdminKey. It is no hash of it: people may have
// chosen one that can be guessed, with as many tries as they like.
const settingsKeyID = "settings"

// New makes an Access.
func New(cfg Config) *Access {
	a := &Access{db: cfg.DB, open: cfg.Open, failures: newLimits[netip.Prefix](cfg.Now, failuresPerSecond, failuresAtOnce)}
	if cfg.AdminKey != "" {
		a.adminKey = &riverbeat.APIKey{
			ID: settingsKeyID, Name: riverbeat.SettingsKey, Role: riverbeat.Admin, Digest: riverbeat.KeyDigest(cfg.AdminKey),
		}
	}
	if n := cfg.RequestsPerSecond; n > 0 {
		a.requests = newLimits[string](cfg.Now, float64(n), 2*n)
	}
	return a
}

// Ten failed attempts of an address are answered as such, then one in six
// seconds. A valid key is let in whatever others at its address have tried.
const (
	failuresPerSecond = 1.0 / 6
	failuresAtOnce    = 10
)

// Credentials are what a request shows.
type Credentials struct {
	Key       string // "" if it shows none
	Address   netip.Addr
	RequestID string
}

// Authenticate tells who shows credentials. It is Unauthenticated if there is no
// key, or one that is not valid, whatever is wrong with it; TooMany after too
// many of those, and after too many requests with a valid one.
func (a *Access) Authenticate(ctx context.Context, c Credentials) (riverbeat.Actor, error) {
	if c.Key == "" {
		open, err := a.openNow(ctx)
		if err != nil {
			return riverbeat.Actor{}, err
		}
		if !open {
			return riverbeat.Actor{}, errUnauthenticated
		}
		return a.actor(&riverbeat.APIKey{Name: riverbeat.Anonymous, Role: riverbeat.Admin}, c), nil
	}
	key, err := a.find(ctx, c.Key)
	if err != nil {
		return riverbeat.Actor{}, err
	}
	if key == nil {
		if wait := a.failures.take(network(c.Address)); wait > 0 {
			return riverbeat.Actor{}, &riverbeat.Error{
				Kind: riverbeat.TooMany, Code: "too_many_failures", RetryAfter: wait,
				Detail: "Too many keys were shown from this address that are not valid.",
			}
		}
		return riverbeat.Actor{}, errUnauthenticated
	}
	if a.requests != nil {
		if wait := a.requests.take(key.ID); wait > 0 {
			return riverbeat.Actor{}, &riverbeat.Error{
				Kind: riverbeat.TooMany, Code: "too_many_requests", RetryAfter: wait,
				Detail: "This key makes too many requests.",
			}
		}
	}
	return a.actor(key, c), nil
}

// errUnauthenticated is all that is told to whoever has no valid key.
var errUnauthenticated = riverbeat.Errorf(riverbeat.Unauthenticated, "unauthenticated",
	"A valid API key is needed, as in: Authorization: Bearer rb_…")

func (a *Access) actor(key *riverbeat.APIKey, c Credentials) riverbeat.Actor {
	actor := riverbeat.Actor{Name: key.Name, KeyID: key.ID, Role: key.Role, RequestID: c.RequestID}
	if c.Address.IsValid() {
		actor.Address = c.Address.Unmap().String()
	}
	return actor
}

// Authorize is Forbidden unless the actor has the role.
func Authorize(actor riverbeat.Actor, needed riverbeat.Role) error {
	if actor.Role.Includes(needed) {
		return nil
	}
	return riverbeat.Errorf(riverbeat.Forbidden, "role_not_sufficient",
		"This takes the role %s; the key %q has the role %s.", needed, actor.Name, actor.Role)
}

// unknown is compared with when there is no such key, so that it takes as long.
var unknown = riverbeat.KeyDigest("")

// find finds the valid key of a text; nil if there is none. A text that cannot be
// a key is not asked for.
func (a *Access) find(ctx context.Context, text string) (*riverbeat.APIKey, error) {
	digest := riverbeat.KeyDigest(text)
	if a.adminKey != nil && subtle.ConstantTimeCompare(digest, a.adminKey.Digest) == 1 {
		return a.adminKey, nil
	}
	id, ok := riverbeat.ParseKey(text)
	if !ok {
		return nil, nil //nolint:nilnil // says its comment
	}
	var key *riverbeat.APIKey
	var now time.Time
	err := a.db.Read(ctx, func(tx *postgres.Tx) (err error) {
		key, now, err = tx.APIKey(ctx, id)
		return err
	})
	missing := riverbeat.KindOf(err) == riverbeat.NotFound
	if err != nil && !missing {
		return nil, fmt.Errorf("look for a key: %w", err)
	}
	want := unknown
	if !missing {
		want = key.Digest
	}
	same := subtle.ConstantTimeCompare(digest, want) == 1
	if missing || !same || !key.Valid(now) {
		return nil, nil //nolint:nilnil // says its comment
	}
	if key.LastUsedAt == nil || now.Sub(*key.LastUsedAt) >= usedEvery {
		if err := a.db.InTx(ctx, func(tx *postgres.Tx) error { return tx.UseAPIKey(ctx, id) }); err != nil {
			return nil, fmt.Errorf("note that a key is used: %w", err)
		}
	}
	return key, nil
}

// usedEvery is how coarse the time is at which a key was used last.
const usedEvery = time.Minute

// openNow tells whether a request without a key is let in.
func (a *Access) openNow(ctx context.Context) (bool, error) {
	switch {
	case a.open == Open:
		return true, nil
	case a.open == Closed, a.adminKey != nil, a.hasKeys.Load():
		return false, nil
	}
	err := a.db.Read(ctx, func(tx *postgres.Tx) error {
		ever, _, err := tx.HasAPIKeys(ctx)
		if ever {
			a.hasKeys.Store(true)
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look whether there are keys: %w", err)
	}
	return !a.hasKeys.Load(), nil
}

// OnlyLoopback tells whether requests that do not name this machine as their host
// must be refused: a page of another site, whose name leads here, would be let in
// without a key.
func (a *Access) OnlyLoopback(ctx context.Context) (bool, error) {
	if a.open != OpenUntilAKey {
		return false, nil
	}
	return a.openNow(ctx)
}

// network is what counts as one address: of IPv6, everybody has many.
func network(address netip.Addr) netip.Prefix {
	address = address.Unmap()
	bits := 64
	if address.Is4() {
		bits = 32
	}
	p, _ := address.Prefix(bits) // the zero Prefix for the zero Addr
	return p
}
