// Package installation holds: it pauses and resumes the whole installation, and says which
// features are on. Each exported method is one use case.
//
// It is a package of its own because it is about all nodes at once and about no
// schedule: package tick obeys it, and nothing else of a tick depends on it.
package installation

import (
	"context"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// Installation is safe for concurrent use.
type Installation struct {
	db *postgres.DB
}

// New makes an Installation.
func New(db *postgres.DB) *Installation {
	return &Installation{db: db}
}

// Read tells the state of the installation.
func (i *Installation) Read(ctx context.Context) (state *riverbeat.Installation, err error) {
	err = i.db.Read(ctx, func(tx *postgres.Tx) error {
		state, err = tx.Installation(ctx)
		return err
	})
	return state, err
}

// Nodes reads the nodes that live or did within the last day, those seen last
// first.
func (i *Installation) Nodes(ctx context.Context) (nodes []*riverbeat.Node, err error) {
	const most = 1_000
	err = i.db.Read(ctx, func(tx *postgres.Tx) error {
		nodes, err = tx.ListNodes(ctx, most)
		return err
	})
	return nodes, err
}

// Pause stops all ticks, for a reason. When it has answered, no tick fires until
// Resume; what is queued, lines and requests are not held. Ticks are not lost:
// on resuming, the rules for late ones apply. If there is a pause, it stands as
// it is.
func (i *Installation) Pause(ctx context.Context, reason string) (*riverbeat.Installation, error) {
	if err := riverbeat.ValidatePauseReason(reason); err != nil {
		return nil, err
	}
	if postgres.IsDry(ctx) {
		return i.read(ctx, func(tx *postgres.Tx) error { return tx.Pause(ctx, reason) })
	}
	// First the pause is written, so that no claim begins any more, and then
	// those that have begun are waited for. In one transaction it could not be
	// seen before they have ended, and there would always be new ones.
	if err := i.db.InTx(ctx, func(tx *postgres.Tx) error { return tx.Pause(ctx, reason) }); err != nil {
		return nil, err
	}
	return i.read(ctx, func(tx *postgres.Tx) error { return tx.AwaitClaims(ctx) })
}

// Features tells how each feature is set.
func (i *Installation) Features(ctx context.Context) (states []riverbeat.FeatureState, err error) {
	err = i.db.Read(ctx, func(tx *postgres.Tx) error {
		states, err = tx.FeatureStates(ctx)
		return err
	})
	return states, err
}

// SetFeature sets a feature. What begins to be decided after it has answered goes by it.
func (i *Installation) SetFeature(ctx context.Context, feature riverbeat.Feature, rollout riverbeat.Rollout) (*riverbeat.FeatureState, error) {
	var states []riverbeat.FeatureState
	err := i.db.InTx(ctx, func(tx *postgres.Tx) (err error) {
		if err := tx.SetFeature(ctx, feature, rollout); err != nil {
			return err
		}
		states, err = tx.FeatureStates(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, state := range states {
		if state.Feature == feature {
			return &state, nil
		}
	}
	return nil, riverbeat.Errorf(riverbeat.NotFound, "feature_not_found", "There is no feature %q.", feature)
}

// Resume ends the pause, if there is one.
func (i *Installation) Resume(ctx context.Context) (*riverbeat.Installation, error) {
	return i.read(ctx, func(tx *postgres.Tx) error { return tx.Resume(ctx) })
}

// read tells the state of the installation after the change.
func (i *Installation) read(ctx context.Context, change func(*postgres.Tx) error) (*riverbeat.Installation, error) {
	var state *riverbeat.Installation
	err := i.db.InTx(ctx, func(tx *postgres.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		var err error
		state, err = tx.Installation(ctx)
		return err
	})
	return state, err
}
