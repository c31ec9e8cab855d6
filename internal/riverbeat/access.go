package riverbeat

import (
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Role is what a key allows. Each role may do what those before it may.
type Role string

// The roles, from the least to the most.
const (
	Viewer   Role = "viewer"   // reads
	Operator Role = "operator" // runs, cancels, retries, backfills, pauses
	Editor   Role = "editor"   // creates, changes and deletes schedules
	Admin    Role = "admin"    // changes task definitions, flags and keys
)

// Roles are all roles, from the least to the most.
var Roles = []Role{Viewer, Operator, Editor, Admin}

// Includes tells whether r may do what other may. What is no role includes
// nothing, and is included in nothing.
func (r Role) Includes(other Role) bool {
	mine, its := slices.Index(Roles, r), slices.Index(Roles, other)
	return its >= 0 && mine >= its
}

// Actor is on whose behalf something is done. The zero value is nobody known.
type Actor struct {
	// Name is who it is, for people: the name of a key, say.
	Name string
	// KeyID is the key that was shown; "" if none was.
	KeyID string
	Role  Role
	// Address is where the request came from; "" if it came from no network.
	Address string
	// RequestID is the id of the request; "" if there was none.
	RequestID string
}

// APIKey is what is kept of a key. The key itself is shown once and not kept.
type APIKey struct {
	ID   string
	Name string
	Role Role
	// Digest is KeyDigest of the key.
	Digest    []byte
	CreatedBy string
	CreatedAt time.Time
	// ExpiresAt is when it ends; nil: never.
	ExpiresAt *time.Time
	// RevokedAt is when someone ended it; nil: nobody has.
	RevokedAt *time.Time
	// LastUsedAt is when it was used last, some minutes more or less; nil: never.
	LastUsedAt *time.Time
	// RotatedFrom is the key that this one took the place of; "": none.
	RotatedFrom string
}

// Valid tells whether the key is good for anything at a time.
func (k *APIKey) Valid(at time.Time) bool {
	return k.RevokedAt == nil && (k.ExpiresAt == nil || at.Before(*k.ExpiresAt))
}

// The names of actors that show no key from the database.
const (
	Anonymous   = "anonymous"           // nobody had to show one
	SettingsKey = "RIVERBEAT_ADMIN_KEY" // who shows the key of the settings
	ActorOfCLI  = "cli:"                // with the name of the machine's user behind it
	ActorOfRole = "role:"               // with the database's role behind it (migration 016)
)

func isReservedActor(name string) bool {
	return name == Anonymous || name == SettingsKey || strings.HasPrefix(name, ActorOfCLI) || strings.HasPrefix(name, ActorOfRole)
}

// MaxKeyNameLength is how many characters the name of a key may have.
const MaxKeyNameLength = 100

// Validate checks the rules of a new key at a time.
func (k *APIKey) Validate(now time.Time) error {
	var broken fields
	if strings.TrimSpace(k.Name) == "" {
		broken.addf("/name", "is required: the audit trail tells people by it")
	} else if isReservedActor(k.Name) {
		broken.addf("/name", "is one that others have in the audit trail who show no key")
	} else {
		broken.line("/name", k.Name, MaxKeyNameLength)
	}
	if !slices.Contains(Roles, k.Role) {
		broken.addf("/role", "must be one of: viewer, operator, editor, admin")
	}
	if k.ExpiresAt != nil && !k.ExpiresAt.After(now) {
		broken.addf("/expires_at", "must be in the future")
	} else {
		broken.moment("/expires_at", k.ExpiresAt)
	}
	return broken.err("invalid_api_key", "The key breaks a rule.")
}

// Keys are written rb_<id>_<secret><checksum>: id and secret as crypto/rand.Text
// makes them (the id's first twelve characters, in lower case), and the CRC-32 of
// what stands before it in hexadecimal. The form is one that scanners for leaked
// secrets can find, and the checksum tells a typo from a key.
var keyPattern = regexp.MustCompile(`^rb_([a-z2-7]{12})_[A-Z2-7]{26}([0-9a-f]{8})$`)

// NewKeyText writes the key of an id and a secret.
func NewKeyText(id, secret string) string {
	text := "rb_" + id + "_" + secret
	return text + keyChecksum(text)
}

// ParseKey reads the id out of a key; false if it is none, or was not copied
// whole.
func ParseKey(text string) (id string, ok bool) {
	m := keyPattern.FindStringSubmatch(text)
	if m == nil || keyChecksum(strings.TrimSuffix(text, m[2])) != m[2] {
		return "", false
	}
	return m[1], true
}

func keyChecksum(text string) string {
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text)))
}

// KeyDigest is what is kept of a key. A secret of 130 random bits needs no slow
// hash.
func KeyDigest(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

// Expected says which version a thing must have to be changed. The zero value is
// whichever.
type Expected struct {
	// Given tells that it matters at all: then the version must be one of Versions,
	// or, with Any, the thing must be there.
	Given    bool
	Any      bool
	Versions []int
}

// Check is PreconditionFailed unless a thing may be changed that has a version; 0
// is a thing that is not there.
func (e Expected) Check(version int) error {
	switch {
	case !e.Given, e.Any && version > 0, slices.Contains(e.Versions, version):
		return nil
	case version == 0:
		return Errorf(PreconditionFailed, "version_mismatch", "There is no such thing that could have the version asked for by If-Match.")
	}
	return Errorf(PreconditionFailed, "version_mismatch",
		"It was changed since it was read: its version is %d. Read it again, and decide anew.", version)
}

// AuditEntry is one change: who made it, when, from where, and of what.
type AuditEntry struct {
	ID     int64
	At     time.Time
	Actor  Actor // without its role
	Action string
	Object AuditObject
	Before []byte // JSON; nil: there was nothing
	After  []byte // JSON; nil: there is nothing any more
}

// AuditObject is what a change was made of.
type AuditObject struct {
	Type string // schedule, run, …
	ID   string
}
