package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

type actorKey struct{}

// WithActor answers a context whose transactions act on behalf of a: the audit
// trail and the other histories that the database keeps name it.
func WithActor(ctx context.Context, a riverbeat.Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf is the actor of WithActor; false if there is none.
func ActorOf(ctx context.Context) (riverbeat.Actor, bool) {
	a, ok := ctx.Value(actorKey{}).(riverbeat.Actor)
	return a, ok
}

// nameOf is the name of the actor of ctx; "" if there is none.
func nameOf(ctx context.Context) string {
	a, _ := ActorOf(ctx)
	return a.Name
}

// actAs tells the transaction who makes its changes.
func (tx *Tx) actAs(ctx context.Context, a riverbeat.Actor) error {
	const act = `
SELECT
    set_config('riverbeat.actor', @name, true),
    set_config('riverbeat.key_id', @key_id, true),
    set_config('riverbeat.address', @address, true),
    set_config('riverbeat.request_id', @request_id, true)`
	_, err := tx.Exec(ctx, act, pgx.StrictNamedArgs{
		"name": a.Name, "key_id": a.KeyID, "address": a.Address, "request_id": a.RequestID,
	})
	return err
}

// Audit writes down what the actor of ctx did to something that is not audited
// by its table (migration 016). before and after are marshalled; nil is nothing,
// and two that are equal are no change and leave no entry.
func (tx *Tx) Audit(ctx context.Context, action string, object riverbeat.AuditObject, before, after any) error {
	params := &dbq.AuditParams{Action: action, ObjectType: object.Type, ObjectID: object.ID}
	for to, value := range map[*json.RawMessage]any{&params.Before: before, &params.After: after} {
		if value == nil {
			continue
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("write the audit trail: %w", err)
		}
		*to = raw
	}
	return tx.q.Audit(ctx, tx.Tx, params)
}

// ShowObjects is what the audit trail shows of jobs and queues of River, in their
// order; nil for one that is not there.
func (tx *Tx) ShowObjects(ctx context.Context, objects []riverbeat.AuditObject) ([]any, error) {
	const show = `
SELECT
    CASE type
        WHEN 'job' THEN (
            SELECT jsonb_build_object(
                'run_id', args -> 'run_id', 'queue', queue, 'state', state, 'attempt', attempt,
                'scheduled_at', scheduled_at, 'cancel_attempted_at', metadata -> 'cancel_attempted_at'
            )
            FROM river_job
            WHERE river_job.id = given.id::bigint
        )
        WHEN 'queue' THEN (
            SELECT jsonb_build_object('paused_at', paused_at, 'metadata', metadata)
            FROM river_queue
            WHERE name = given.id
        )
    END AS shown
FROM unnest(@types::text[], @ids::text[]) WITH ORDINALITY AS given (type, id, place)
ORDER BY place`
	types, ids := make([]string, len(objects)), make([]string, len(objects))
	for i, o := range objects {
		types[i], ids[i] = o.Type, o.ID
	}
	rows, err := tx.Query(ctx, show, pgx.StrictNamedArgs{"types": types, "ids": ids})
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (any, error) {
		var shown json.RawMessage
		if err := row.Scan(&shown); err != nil || shown == nil {
			return nil, err
		}
		return shown, nil
	})
}

// AuditFilter picks a page of the audit trail, newest first. A nil or zero field
// picks all.
type AuditFilter struct {
	Actor      *string
	KeyID      *string
	Action     *string
	ObjectType *string
	ObjectID   *string
	From       *time.Time // at or after it
	To         *time.Time // before it
	NotOfKeys  bool       // leave out what was done to keys
	Before     *int64     // the id of the last entry of the page before
	Limit      int        // items, at least 1
}

// ListAudit reads a page of the audit trail.
func (tx *Tx) ListAudit(ctx context.Context, f *AuditFilter) ([]*riverbeat.AuditEntry, error) {
	const list = `
SELECT id, at, actor, key_id, address, request_id, action, object_type, object_id, before, after
FROM audit_log
WHERE %s
ORDER BY id DESC
LIMIT @limit`
	args := pgx.StrictNamedArgs{"limit": f.Limit}
	where := []string{"true"}
	filter := func(condition, name string, value any) {
		where = append(where, condition)
		args[name] = value
	}
	for column, value := range map[string]*string{
		"actor": f.Actor, "key_id": f.KeyID, "action": f.Action, "object_type": f.ObjectType, "object_id": f.ObjectID,
	} {
		if value != nil {
			filter(column+" = @"+column, column, *value)
		}
	}
	if f.From != nil {
		filter("at >= @from", "from", *f.From)
	}
	if f.To != nil {
		filter("at < @to", "to", *f.To)
	}
	if f.NotOfKeys {
		where = append(where, "object_type <> 'api_key'")
	}
	if f.Before != nil {
		filter("id < @before", "before", *f.Before)
	}
	rows, err := tx.Query(ctx, fmt.Sprintf(list, strings.Join(where, "\n    AND ")), args)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*riverbeat.AuditEntry, error) {
		e := &riverbeat.AuditEntry{}
		err := row.Scan(&e.ID, &e.At, &e.Actor.Name, &e.Actor.KeyID, &e.Actor.Address, &e.Actor.RequestID,
			&e.Action, &e.Object.Type, &e.Object.ID, &e.Before, &e.After)
		e.At = e.At.UTC()
		return e, err
	})
}

// APIKey reads a key, and what time it is; NotFound if there is none.
func (tx *Tx) APIKey(ctx context.Context, id string) (key *riverbeat.APIKey, now time.Time, err error) {
	row, err := tx.q.GetAPIKey(ctx, tx.Tx, id)
	if err != nil {
		return nil, time.Time{}, noAPIKey(err, id)
	}
	return apiKey(row.ApiKey), millis(row.Now), nil
}

// LockAPIKey reads a key and holds it until the transaction ends.
func (tx *Tx) LockAPIKey(ctx context.Context, id string) (*riverbeat.APIKey, error) {
	row, err := tx.q.LockAPIKey(ctx, tx.Tx, id)
	if err != nil {
		return nil, noAPIKey(err, id)
	}
	return apiKey(row), nil
}

func noAPIKey(err error, id string) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return riverbeat.Errorf(riverbeat.NotFound, "api_key_not_found", "There is no API key %q.", id)
	}
	return err
}

// HasAPIKeys tells whether there has ever been a key, and whether one is valid
// now that may do everything.
func (tx *Tx) HasAPIKeys(ctx context.Context) (ever, validAdmin bool, err error) {
	row, err := tx.q.CountAPIKeys(ctx, tx.Tx)
	return row.AnyKey, row.ValidAdmin, err
}

// LockAPIKeys keeps others from making keys until the transaction ends, if they
// ask for the same.
func (tx *Tx) LockAPIKeys(ctx context.Context) error {
	return tx.q.LockKeys(ctx, tx.Tx, advisoryLocks(tx.schema, "api_keys", []string{""}))
}

// InsertAPIKey writes a new key.
func (tx *Tx) InsertAPIKey(ctx context.Context, k *riverbeat.APIKey) (*riverbeat.APIKey, error) {
	row, err := tx.q.InsertAPIKey(ctx, tx.Tx, &dbq.InsertAPIKeyParams{
		ID: k.ID, Name: k.Name, Role: string(k.Role), Digest: k.Digest, CreatedBy: nameOf(ctx),
		ExpiresAt: k.ExpiresAt, RotatedFrom: orNull(k.RotatedFrom),
	})
	return apiKey(row), err
}

// UpdateAPIKey writes when a key ends: ExpiresAt and RevokedAt.
func (tx *Tx) UpdateAPIKey(ctx context.Context, k *riverbeat.APIKey) (*riverbeat.APIKey, error) {
	row, err := tx.q.UpdateAPIKey(ctx, tx.Tx, &dbq.UpdateAPIKeyParams{ID: k.ID, ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt})
	return apiKey(row), err
}

// UseAPIKey notes that a key is used, unless that was noted a minute ago.
func (tx *Tx) UseAPIKey(ctx context.Context, id string) error {
	return tx.q.UseAPIKey(ctx, tx.Tx, id)
}

// ListAPIKeys reads a page of keys, newest first: those after the key that is
// given, nil for the first page.
func (tx *Tx) ListAPIKeys(ctx context.Context, after *APIKeyCursor, limit int) ([]*riverbeat.APIKey, error) {
	params := &dbq.ListAPIKeysParams{MaxItems: int32(limit)} //nolint:gosec // a page
	if after != nil {
		params.BeforeTime, params.BeforeID = &after.CreatedAt, after.ID
	}
	rows, err := tx.q.ListAPIKeys(ctx, tx.Tx, params)
	if err != nil {
		return nil, err
	}
	keys := make([]*riverbeat.APIKey, len(rows))
	for i, row := range rows {
		keys[i] = apiKey(row)
	}
	return keys, nil
}

// APIKeyCursor is a place in the list of keys.
type APIKeyCursor struct {
	CreatedAt time.Time `json:"t"`
	ID        string    `json:"i"`
}

func apiKey(row dbq.ApiKey) *riverbeat.APIKey {
	return &riverbeat.APIKey{
		ID: row.ID, Name: row.Name, Role: riverbeat.Role(row.Role), Digest: row.Digest,
		CreatedBy: row.CreatedBy, CreatedAt: row.CreatedAt.UTC(), ExpiresAt: utc(row.ExpiresAt), RevokedAt: utc(row.RevokedAt),
		LastUsedAt: utc(row.LastUsedAt), RotatedFrom: deref(row.RotatedFrom),
	}
}

// Answer is what a request was answered with.
type Answer struct {
	Status   int
	Body     json.RawMessage // nil: none
	Location string          // "": none
	ETag     string          // "": none
}

// TryLockRequest keeps others from carrying out the request with a key of an actor
// until the transaction ends; false if somebody is at it.
func (tx *Tx) TryLockRequest(ctx context.Context, actor, key string) (bool, error) {
	lock := riverbeat.AdvisoryKey(tx.schema, "request", actor+"\n"+key)
	return tx.q.TryLockTx(ctx, tx.Tx, lock)
}

// Answer reads the answer that the request with a key of an actor was given within
// the last day, and the digest of that request; nil if there was none.
func (tx *Tx) Answer(ctx context.Context, actor, key string) (answer *Answer, digest []byte, err error) {
	row, err := tx.q.GetAnswer(ctx, tx.Tx, &dbq.GetAnswerParams{Actor: actor, Key: key})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return &Answer{Status: int(row.Status), Body: row.Response, Location: row.Location, ETag: row.Etag}, row.RequestDigest, nil
}

// SaveAnswer keeps the answer of a request for a day.
func (tx *Tx) SaveAnswer(ctx context.Context, actor, key string, digest []byte, a *Answer) error {
	return tx.q.SaveAnswer(ctx, tx.Tx, &dbq.SaveAnswerParams{
		Actor: actor, Key: key, RequestDigest: digest, Status: int32(a.Status), //nolint:gosec // of HTTP
		Response: a.Body, Location: a.Location, Etag: a.ETag,
	})
}

// ForgetAnswers deletes at most limit answers that are kept no longer, and says how
// many.
func (tx *Tx) ForgetAnswers(ctx context.Context, limit int) (int, error) {
	n, err := tx.q.ForgetAnswers(ctx, tx.Tx, int32(limit)) //nolint:gosec // a batch
	return int(n), err
}
