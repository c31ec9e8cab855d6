package httpapi

import (
	"context"
	"time"

	"riverbeat/internal/riverbeat"
)

// feature is how a feature is set, as it is answered.
type feature struct {
	Name      riverbeat.Feature `json:"name" example:"execution_policy"`
	Value     string            `json:"value" doc:"on, off, or for which part of its subjects it is on, such as 25%." example:"25%"`
	Subject   string            `json:"subject" doc:"What a part is counted by: schedule or lock key. The same subject is always of the same part, and stays in it while the part grows."`
	WhenOn    string            `json:"when_on" doc:"What it does, for people."`
	WhenOff   string            `json:"when_off" doc:"What is so where it is off, for people."`
	UpdatedBy *string           `json:"updated_by" doc:"Who has set it; null: nobody has, or nobody knows."`
	UpdatedAt *time.Time        `json:"updated_at" doc:"Null: nobody has set it, and it is on."`
}

func featureOf(s riverbeat.FeatureState) *feature {
	on, off := s.Feature.Doc()
	return &feature{
		Name: s.Feature, Value: s.Rollout.String(), Subject: s.Feature.Subject(), WhenOn: on, WhenOff: off,
		UpdatedBy: orNull(s.UpdatedBy), UpdatedAt: s.UpdatedAt,
	}
}

type featuresRequest struct{}

func (a *api) listFeatures(ctx context.Context, _ *featuresRequest) (*answer[list[*feature]], error) {
	states, err := a.Installation.Features(ctx)
	if err != nil {
		return nil, err
	}
	return pageOf[riverbeat.FeatureState, *feature, string]("features", states, featureOf, nil)
}

type putFeatureRequest struct {
	Name string `path:"name" of:"feature" doc:"The name of the feature."`
	Body featureInput
}

type featureInput struct {
	Value *string `json:"value" required:"true" doc:"on, off, or a percentage." example:"25%"`
}

func (in *featureInput) check() error {
	_, err := riverbeat.ParseRollout(valueOr(in.Value, ""))
	return err
}

func (a *api) putFeature(ctx context.Context, req *putFeatureRequest) (*answer[*feature], error) {
	name, err := riverbeat.ParseFeature(req.Name)
	if err != nil {
		return nil, err
	}
	rollout, err := riverbeat.ParseRollout(valueOr(req.Body.Value, ""))
	if err != nil {
		return nil, err
	}
	state, err := a.Installation.SetFeature(ctx, name, rollout)
	if err != nil {
		return nil, err
	}
	return ok(featureOf(*state)), nil
}
