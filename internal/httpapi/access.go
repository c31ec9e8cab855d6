package httpapi

import (
	"context"
	"time"

	"riverbeat/internal/access"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// apiKey is what is kept of a key, as it is answered.
type apiKey struct {
	ID          string     `json:"id" doc:"It stands in the key, and in the audit trail."`
	Name        string     `json:"name"`
	Role        role       `json:"role" doc:"What the key allows: viewer reads; operator runs, cancels and pauses, too; editor changes schedules; admin changes task definitions and keys."`
	CreatedBy   *string    `json:"created_by"`
	CreatedAt   time.Time  `json:"created_at"`
	ExpiresAt   *time.Time `json:"expires_at" doc:"When it ends; null: never."`
	RevokedAt   *time.Time `json:"revoked_at" doc:"When someone ended it."`
	LastUsedAt  *time.Time `json:"last_used_at" doc:"To the minute."`
	RotatedFrom *string    `json:"rotated_from" doc:"The id of the key in whose place it is."`
	Key         string     `json:"key,omitempty" doc:"The key itself, only in the answer that makes it. It cannot be asked for again."`
}

// ShowAPIKey is a key as it is answered, for those who write JSON elsewhere, too;
// with the key itself, unless that is "".
func ShowAPIKey(k *riverbeat.APIKey, text string) any { return apiKeyOf(k, text) }

func apiKeyOf(k *riverbeat.APIKey, text string) *apiKey {
	return &apiKey{
		ID: k.ID, Name: k.Name, Role: role(k.Role), CreatedBy: orNull(k.CreatedBy), CreatedAt: k.CreatedAt,
		ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt, LastUsedAt: k.LastUsedAt, RotatedFrom: orNull(k.RotatedFrom), Key: text,
	}
}

// keptOf is what is kept of a key.
func keptOf(k *riverbeat.APIKey) *apiKey { return apiKeyOf(k, "") }

func newKeyAnswer(k *riverbeat.APIKey, text string, err error) (*answer[*apiKey], error) {
	if err != nil {
		return nil, err
	}
	return created(apiKeyOf(k, text), apiKeysPath+"/"+k.ID), nil
}

type createAPIKeyRequest struct{ Body apiKeyInput }

type apiKeyInput struct {
	Name      *string    `json:"name" required:"true" doc:"Who or what has it; it stands in the audit trail. At most 100 characters." example:"deploy pipeline"`
	Role      *role      `json:"role" required:"true" doc:"What it allows." example:"editor"`
	ExpiresAt *time.Time `json:"expires_at" doc:"When it ends. Null: never."`
}

func (in *apiKeyInput) key() *riverbeat.APIKey {
	return &riverbeat.APIKey{
		Name: valueOr(in.Name, ""), Role: riverbeat.Role(valueOr(in.Role, "")), ExpiresAt: in.ExpiresAt,
	}
}

func (in *apiKeyInput) check() error {
	return in.key().Validate(time.Time{}) // the database's clock says whether it has expired
}

func (a *api) createAPIKey(ctx context.Context, req *createAPIKeyRequest) (*answer[*apiKey], error) {
	return newKeyAnswer(a.Access.CreateKey(ctx, req.Body.key()))
}

type apiKeyRequest struct {
	ID string `path:"id" of:"api_key" doc:"The id of the key."`
}

func (a *api) getAPIKey(ctx context.Context, req *apiKeyRequest) (*answer[*apiKey], error) {
	k, err := a.Access.Key(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	return ok(keptOf(k)), nil
}

type rotateAPIKeyRequest struct {
	apiKeyRequest
	Body *rotation
}

type rotation struct {
	Overlap *duration `json:"overlap" def:"\"24h\"" doc:"How long the old key stays valid: at most 30 days; 0 ends it at once."`
}

func (a *api) rotateAPIKey(ctx context.Context, req *rotateAPIKeyRequest) (*answer[*apiKey], error) {
	overlap := durationOr(valueOr(req.Body, rotation{}).Overlap, access.DefaultOverlap)
	return newKeyAnswer(a.Access.RotateKey(ctx, req.ID, overlap))
}

func (a *api) revokeAPIKey(ctx context.Context, req *apiKeyRequest) (*answer[nothing], error) {
	if _, err := a.Access.RevokeKey(ctx, req.ID); err != nil {
		return nil, err
	}
	return noContent(), nil
}

type listAPIKeysRequest struct{ pageParams }

func (a *api) listAPIKeys(ctx context.Context, req *listAPIKeysRequest) (*answer[list[*apiKey]], error) {
	after, err := readToken[postgres.APIKeyCursor]("api-keys", req.PageToken)
	if err != nil {
		return nil, err
	}
	page, next, err := a.Access.Keys(ctx, after, req.PageSize)
	if err != nil {
		return nil, err
	}
	return pageOf("api-keys", page, keptOf, next)
}

// change is an entry of the audit trail, as it is answered.
type change struct {
	ID         int64     `json:"id"`
	At         time.Time `json:"at"`
	Actor      string    `json:"actor" doc:"The name of the key that was shown; anonymous where none was needed; role: and the database role for what was done in psql."`
	KeyID      *string   `json:"key_id"`
	Address    *string   `json:"address" doc:"Where the request came from."`
	RequestID  *string   `json:"request_id"`
	Action     string    `json:"action" example:"schedule.change"`
	ObjectType string    `json:"object_type" example:"schedule"`
	ObjectID   string    `json:"object_id"`
	Before     jsonAny   `json:"before" doc:"What it was; null: there was nothing."`
	After      jsonAny   `json:"after" doc:"What it is then; null: there is nothing any more."`
}

func changeOf(e *riverbeat.AuditEntry) *change {
	return &change{
		ID: e.ID, At: e.At, Actor: e.Actor.Name, KeyID: orNull(e.Actor.KeyID), Address: orNull(e.Actor.Address),
		RequestID: orNull(e.Actor.RequestID), Action: e.Action, ObjectType: e.Object.Type, ObjectID: e.Object.ID,
		Before: jsonAny{e.Before}, After: jsonAny{e.After},
	}
}

type listAuditRequest struct {
	Actor      *string    `query:"actor" doc:"By this one."`
	KeyID      *string    `query:"key_id" doc:"With the key of this id."`
	Action     *string    `query:"action" doc:"Of this action, such as schedule.change."`
	ObjectType *string    `query:"object_type" doc:"Of things of this type, such as schedule."`
	ObjectID   *string    `query:"object_id" doc:"Of the thing with this id."`
	From       *time.Time `query:"from" doc:"At it or after."`
	To         *time.Time `query:"to" doc:"Before it."`
	pageParams
}

func (a *api) listAudit(ctx context.Context, req *listAuditRequest) (*answer[list[*change]], error) {
	f := postgres.AuditFilter{
		Actor: req.Actor, KeyID: req.KeyID, Action: req.Action, ObjectType: req.ObjectType, ObjectID: req.ObjectID,
		From: req.From, To: req.To,
		NotOfKeys: !callerOf(ctx).Role.Includes(riverbeat.Admin), // who lists keys
	}
	asked := f
	before, err := readToken[int64](asked, req.PageToken)
	if err != nil {
		return nil, err
	}
	f.Before, f.Limit = before, req.PageSize
	page, next, err := a.Access.Audit(ctx, &f)
	if err != nil {
		return nil, err
	}
	return pageOf(asked, page, changeOf, next)
}
