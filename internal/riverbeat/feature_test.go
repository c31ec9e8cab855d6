package riverbeat

import (
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestRollouts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rollout{"off": 0, "on": 100, "0%": 0, "1%": 1, "99%": 99, "100%": 100, "007%": 7} {
		got, err := ParseRollout(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "ON", "25", "101%", "-1%", "+1%", "1.5%", "%", " 5%", "5 %", "true", "1000%"} {
		_, err := ParseRollout(text)
		require.Equal(t, Invalid, KindOf(err), text)
	}
	for n := range 101 {
		got, err := ParseRollout(Rollout(n).String())
		require.NoError(t, err)
		require.Equal(t, Rollout(n), got)
	}
}

// Whoever is in a part stays in it as it grows, and the parts are as large as they say.
func TestPartsAreStable(t *testing.T) {
	t.Parallel()
	require.True(t, Features(nil).On(FeatureCatchUp, "x"), "what nobody has set is on")
	rapid.Check(t, func(t *rapid.T) {
		feature := rapid.SampledFrom(FeatureList()).Draw(t, "feature")
		subject := rapid.String().Draw(t, "subject")
		was := false
		for n := range 101 {
			is := Features{feature: Rollout(n)}.On(feature, subject)
			if was && !is {
				t.Fatalf("at %d%% it is off again", n)
			}
			was = is
		}
		if !was || (Features{feature: Off}).On(feature, subject) {
			t.Fatal("on is for all, and off for none")
		}
	})
	for _, feature := range FeatureList() {
		on, both := 0, 0
		for i := range 10_000 {
			subject := uuid.NewSHA1(uuid.NameSpaceURL, []byte(strconv.Itoa(i))).String()
			if (Features{feature: 25}).On(feature, subject) {
				on++
				if (Features{FeatureCatchUp: 25}).On(FeatureCatchUp, subject) {
					both++
				}
			}
		}
		require.InDelta(t, 2_500, on, 200, feature)
		if feature != FeatureCatchUp {
			require.InDelta(t, 625, both, 120, "other features are for other parts")
		}
	}
}

func TestEachFeatureIsExplained(t *testing.T) {
	t.Parallel()
	for _, f := range FeatureList() {
		on, off := f.Doc()
		require.NotEmpty(t, on)
		require.NotEmpty(t, off)
		read, err := ParseFeature(string(f))
		require.NoError(t, err)
		require.Equal(t, f, read)
	}
	_, err := ParseFeature("telepathy")
	require.Equal(t, NotFound, KindOf(err))
}
