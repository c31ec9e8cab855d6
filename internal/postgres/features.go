package postgres

import (
	"context"
	"fmt"

	"riverbeat/internal/postgres/internal/dbq"
	"riverbeat/internal/riverbeat"
)

// Features reads which features are on.
func (tx *Tx) Features(ctx context.Context) (riverbeat.Features, error) {
	rows, err := tx.q.FeatureFlags(ctx, tx.Tx)
	if err != nil {
		return nil, fmt.Errorf("read the features: %w", err)
	}
	features := make(riverbeat.Features, len(rows))
	for _, row := range rows {
		features[riverbeat.Feature(row.Name)] = riverbeat.Rollout(row.Percent)
	}
	return features, nil
}

// FeatureStates reads how each feature is set.
func (tx *Tx) FeatureStates(ctx context.Context) ([]riverbeat.FeatureState, error) {
	rows, err := tx.q.FeatureFlags(ctx, tx.Tx)
	if err != nil {
		return nil, fmt.Errorf("read the features: %w", err)
	}
	states := make([]riverbeat.FeatureState, 0, len(riverbeat.FeatureList()))
	for _, feature := range riverbeat.FeatureList() {
		state := riverbeat.FeatureState{Feature: feature, Rollout: riverbeat.On}
		for _, row := range rows {
			if row.Name == string(feature) {
				state.Rollout, state.UpdatedBy, state.UpdatedAt = riverbeat.Rollout(row.Percent), row.UpdatedBy, utc(&row.UpdatedAt)
			}
		}
		states = append(states, state)
	}
	return states, nil
}

// SetFeature sets a feature, in the name of the actor of ctx. If it is set so, it stays as
// it is.
func (tx *Tx) SetFeature(ctx context.Context, feature riverbeat.Feature, rollout riverbeat.Rollout) error {
	actor, _ := ActorOf(ctx)
	return tx.q.SetFeatureFlag(ctx, tx.Tx, &dbq.SetFeatureFlagParams{
		Name: string(feature), Percent: int16(rollout), UpdatedBy: actor.Name, //nolint:gosec // at most 100
	})
}
