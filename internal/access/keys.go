package access

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// CreateKey makes a key of a name, a role and, if it has one, a time at which it
// ends; nothing else of given is read. The text is the key itself, which nobody
// can be told again.
func (a *Access) CreateKey(ctx context.Context, given *riverbeat.APIKey) (key *riverbeat.APIKey, text string, err error) {
	err = a.db.InTx(ctx, func(tx *postgres.Tx) error {
		key, text, err = create(ctx, tx, given)
		return err
	})
	return key, text, err
}

func create(ctx context.Context, tx *postgres.Tx, given *riverbeat.APIKey) (*riverbeat.APIKey, string, error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return nil, "", err
	}
	if err := given.Validate(now); err != nil {
		return nil, "", err
	}
	id := strings.ToLower(rand.Text()[:12])
	text := riverbeat.NewKeyText(id, rand.Text())
	key, err := tx.InsertAPIKey(ctx, &riverbeat.APIKey{
		ID: id, Name: given.Name, Role: given.Role, Digest: riverbeat.KeyDigest(text),
		ExpiresAt: given.ExpiresAt, RotatedFrom: given.RotatedFrom,
	})
	return key, text, err
}

// Keys reads a page of keys, newest first; next is nil on the last one.
func (a *Access) Keys(ctx context.Context, after *postgres.APIKeyCursor, limit int) (page []*riverbeat.APIKey, next *postgres.APIKeyCursor, err error) {
	err = a.db.Read(ctx, func(tx *postgres.Tx) error {
		page, err = tx.ListAPIKeys(ctx, after, limit+1)
		return err
	})
	if len(page) > limit {
		page = page[:limit]
		last := page[limit-1]
		next = &postgres.APIKeyCursor{CreatedAt: last.CreatedAt, ID: last.ID}
	}
	return page, next, err
}

// Key reads a key; NotFound if there is none.
func (a *Access) Key(ctx context.Context, id string) (key *riverbeat.APIKey, err error) {
	err = a.db.Read(ctx, func(tx *postgres.Tx) error {
		key, _, err = tx.APIKey(ctx, id)
		return err
	})
	return key, err
}

// DefaultOverlap is how long a key that is rotated stays valid.
const DefaultOverlap = 24 * time.Hour

// MaxOverlap bounds it.
const MaxOverlap = 30 * 24 * time.Hour

// RotateKey makes a key of the same name and role in the place of another, which
// stays valid for overlap, unless it ends sooner by itself. The new one ends when
// the old one would have. A key that is not valid is a Conflict.
func (a *Access) RotateKey(ctx context.Context, id string, overlap time.Duration) (key *riverbeat.APIKey, text string, err error) {
	if overlap < 0 || overlap > MaxOverlap {
		return nil, "", riverbeat.InvalidField("invalid_overlap", "/overlap", "must be between 0s and 30d")
	}
	err = a.db.InTx(ctx, func(tx *postgres.Tx) error {
		old, now, err := lock(ctx, tx, id)
		if err != nil {
			return err
		}
		if !old.Valid(now) {
			return riverbeat.Errorf(riverbeat.Conflict, "api_key_ended", "The key %q has expired or was revoked. Make a new one.", id)
		}
		key, text, err = create(ctx, tx, &riverbeat.APIKey{Name: old.Name, Role: old.Role, ExpiresAt: old.ExpiresAt, RotatedFrom: id})
		if err != nil {
			return err
		}
		if end := now.Add(overlap); old.ExpiresAt == nil || end.Before(*old.ExpiresAt) {
			old.ExpiresAt = &end
		}
		_, err = tx.UpdateAPIKey(ctx, old)
		return err
	})
	return key, text, err
}

// RevokeKey ends a key at once. It may have ended already. The last valid one of
// an admin is a Conflict: nobody could make another one over the API.
func (a *Access) RevokeKey(ctx context.Context, id string) (key *riverbeat.APIKey, err error) {
	err = a.db.InTx(ctx, func(tx *postgres.Tx) error {
		old, now, err := lock(ctx, tx, id)
		if err != nil {
			return err
		}
		if key = old; old.RevokedAt != nil {
			return nil
		}
		wasValid := old.Valid(now)
		old.RevokedAt = &now
		if key, err = tx.UpdateAPIKey(ctx, old); err != nil || !wasValid || old.Role != riverbeat.Admin || a.adminKey != nil {
			return err
		}
		_, validAdmin, err := tx.HasAPIKeys(ctx)
		if err == nil && !validAdmin {
			err = riverbeat.Errorf(riverbeat.Conflict, "last_admin_key",
				"This is the last valid key of an admin. Make another one first, or rotate this one with the overlap 0s.")
		}
		return err
	})
	return key, err
}

// lock holds all keys, and reads one.
func lock(ctx context.Context, tx *postgres.Tx, id string) (*riverbeat.APIKey, time.Time, error) {
	if err := tx.LockAPIKeys(ctx); err != nil {
		return nil, time.Time{}, err
	}
	key, err := tx.LockAPIKey(ctx, id)
	if err != nil {
		return nil, time.Time{}, err
	}
	now, err := tx.Now(ctx)
	return key, now, err
}

// FirstKeyName is the name of the key that EnsureKey makes.
const FirstKeyName = "first admin"

// EnsureKey sees to it that somebody can come in: where there has never been a
// key it makes one of an admin, and answers its text. It is a Conflict if there
// have been keys, and none of an admin is valid any more. With Config.AdminKey, or
// if it is open to all, it does nothing.
func (a *Access) EnsureKey(ctx context.Context) (text string, err error) {
	if a.adminKey != nil || a.open == Open {
		return "", nil
	}
	err = a.db.InTx(ctx, func(tx *postgres.Tx) error {
		text = ""
		if err := tx.LockAPIKeys(ctx); err != nil {
			return err
		}
		ever, validAdmin, err := tx.HasAPIKeys(ctx)
		switch {
		case err != nil || validAdmin:
			return err
		case ever:
			return riverbeat.Errorf(riverbeat.Conflict, "no_admin_key",
				"There is no valid key of an admin any more. Make one: riverbeat keys create --role admin --name NAME")
		}
		_, text, err = create(ctx, tx, &riverbeat.APIKey{Name: FirstKeyName, Role: riverbeat.Admin})
		return err
	})
	return text, err
}
