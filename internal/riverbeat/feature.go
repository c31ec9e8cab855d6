package riverbeat

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Feature is a rule that an installation can do without, wholly or for a part of what it is
// about: to bring it in little by little, or to be rid of it in a hurry.
type Feature string

// The features.
const (
	FeatureParameterValidation Feature = "parameter_validation"
	FeatureExecutionPolicy     Feature = "execution_policy"
	FeatureAutoNaming          Feature = "auto_naming"
	FeatureCatchUp             Feature = "catch_up"
)

// FeatureList are all of them, in the order in which they are told.
func FeatureList() []Feature {
	return []Feature{FeatureParameterValidation, FeatureExecutionPolicy, FeatureAutoNaming, FeatureCatchUp}
}

// ParseFeature reads the name of a feature; NotFound if there is none such.
func ParseFeature(name string) (Feature, error) {
	for _, f := range FeatureList() {
		if name == string(f) {
			return f, nil
		}
	}
	return "", Errorf(NotFound, "feature_not_found", "There is no feature %q.", name)
}

// Doc says what a feature does, and what is so where it is off.
func (f Feature) Doc() (on, off string) {
	switch f {
	case FeatureParameterValidation:
		return "Parameters must fit the schema of their task.",
			"Parameters that break the schema are taken and passed on, and the schedule's last_error warns of it."
	case FeatureExecutionPolicy:
		return "Runs of the policies skip and queue hold their lock key.",
			"Those runs are decided, and recorded, as if their policy were allow: they may overlap."
	case FeatureAutoNaming:
		return "A schedule without a name gets one.",
			"A name is required; names that were made before stay as they are."
	case FeatureCatchUp:
		return "Ticks that are more than a minute late are caught up with, as catch_up says.",
			"Those ticks are recorded as missed, as if catch_up were none."
	}
	return "", ""
}

// Subject is what a part of a feature is counted by: "lock key" or "schedule".
func (f Feature) Subject() string {
	if f == FeatureExecutionPolicy {
		return "lock key"
	}
	return "schedule"
}

// Rollout is for how many of a hundred subjects a feature is on: 0 is off, 100 is on.
type Rollout int

// The ends of a Rollout.
const (
	Off Rollout = 0
	On  Rollout = 100
)

// ParseRollout reads "off", "on" or "N%", with N from 0 to 100.
func ParseRollout(text string) (Rollout, error) {
	switch text {
	case "off":
		return Off, nil
	case "on":
		return On, nil
	}
	digits, isPercent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseUint(digits, 10, 8)
	if !isPercent || err != nil || n > 100 || strings.HasPrefix(digits, "+") {
		return Off, InvalidField("invalid_rollout", "/value", `must be "off", "on", or a percentage such as "25%%"`)
	}
	return Rollout(n), nil
}

// String is the text that ParseRollout reads.
func (r Rollout) String() string {
	switch r {
	case Off:
		return "off"
	case On:
		return "on"
	}
	return fmt.Sprintf("%d%%", int(r))
}

// Features are those of an installation; one that is not in it is on.
type Features map[Feature]Rollout

// On tells whether a feature is on for a subject: the lock key, or the id of the schedule. A
// subject for which it is on stays so as long as the Rollout does not sink.
func (f Features) On(feature Feature, subject string) bool {
	rollout, isSet := f[feature]
	if !isSet || rollout >= On {
		return true
	}
	digest := sha256.Sum256([]byte(string(feature) + "\n" + subject))
	return binary.BigEndian.Uint64(digest[:8])%100 < uint64(max(rollout, Off))
}

// Validates tells whether the parameters of a schedule must fit its task's schema.
func (f Features) Validates(s *Schedule) bool {
	return f.On(FeatureParameterValidation, s.ID.String())
}

// Names tells whether a schedule without a name gets one.
func (f Features) Names(s *Schedule) bool { return f.On(FeatureAutoNaming, s.ID.String()) }

// Planned is a schedule as it is planned: one that does not catch up has CatchUpNone.
func (f Features) Planned(s *Schedule) *Schedule {
	if f.On(FeatureCatchUp, s.ID.String()) {
		return s
	}
	planned := *s
	planned.CatchUp = CatchUpNone
	return &planned
}

// FeatureState is how a feature is set.
type FeatureState struct {
	Feature   Feature
	Rollout   Rollout
	UpdatedBy string     // "" where nobody has set it
	UpdatedAt *time.Time // nil: nobody has
}
