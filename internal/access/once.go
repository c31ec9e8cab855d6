package access

import (
	"bytes"
	"context"
	"time"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Request is one that is carried out once: whoever sends it again within a day is
// given the first answer.
type Request struct {
	// Key is what the client calls it. Clients do not share their keys.
	Key string
	// Digest is of what is asked for.
	Digest []byte
}

// Once carries a request of the actor of ctx out, in one transaction with the note
// of its answer: what do does by InTx commits with it, or not at all. A request
// that was carried out before is not again (replayed). Invalid if the key was used
// for another request; a Conflict while it is carried out by somebody else. A
// request that fails has done nothing, and may be sent again.
func (a *Access) Once(ctx context.Context, r Request, do func(ctx context.Context) (*postgres.Answer, error)) (answer *postgres.Answer, replayed bool, err error) {
	actor, _ := postgres.ActorOf(ctx)
	who := actor.KeyID
	if who == "" {
		who = actor.Name
	}
	err = a.db.InTx(ctx, func(tx *postgres.Tx) error {
		answer, replayed = nil, false
		locked, err := tx.TryLockRequest(ctx, who, r.Key)
		if err != nil {
			return err
		}
		if !locked {
			return &riverbeat.Error{
				Kind: riverbeat.Conflict, Code: "request_in_flight", RetryAfter: time.Second,
				Detail: "A request with this Idempotency-Key is being carried out right now. Send it again in a moment.",
			}
		}
		before, digest, err := tx.Answer(ctx, who, r.Key)
		if err != nil {
			return err
		}
		if before != nil {
			if !bytes.Equal(digest, r.Digest) {
				return riverbeat.InvalidField("idempotency_key_reused", "Idempotency-Key",
					"was used for another request within the last 24 hours; take a new one")
			}
			answer, replayed = before, true
			return nil
		}
		if answer, err = do(tx.Within(ctx)); err != nil {
			return err
		}
		return tx.SaveAnswer(ctx, who, r.Key, r.Digest, answer)
	})
	return answer, replayed, err
}

// DryRun runs do with a context in which nothing that it does by InTx stays.
func (a *Access) DryRun(ctx context.Context, do func(ctx context.Context) error) error {
	return a.db.DryRun(ctx, do)
}
