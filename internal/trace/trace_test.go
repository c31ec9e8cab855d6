package trace

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
)

// Of the runs of a tick the same share is told as of requests, and on all nodes the same
// ones, attempts included.
func TestAShareOfTheTracesIsTold(t *testing.T) {
	t.Parallel()
	const all = 20_000
	for _, ratio := range []float64{0, 0.1, 0.9, 1} {
		here, there := newSampler(ratio), newSampler(ratio)
		for kind, made := range map[string]func() (uuid.UUID, error){"run": uuid.NewV7, "request": uuid.NewRandom} {
			told := 0
			for range all {
				id, err := made()
				require.NoError(t, err)
				root := here.ShouldSample(sdk.SamplingParameters{ParentContext: t.Context(), TraceID: otel.TraceID(id)}).Decision
				attempt := otel.ContextWithRemoteSpanContext(context.WithValue(t.Context(), ownTraceKey{}, true), otel.NewSpanContext(otel.SpanContextConfig{
					TraceID: otel.TraceID(id), SpanID: spanOf(id), TraceFlags: otel.FlagsSampled, Remote: true,
				}))
				require.Equal(t, root, there.ShouldSample(sdk.SamplingParameters{ParentContext: attempt, TraceID: otel.TraceID(id)}).Decision)
				if root == sdk.RecordAndSample {
					told++
				}
			}
			require.InDelta(t, ratio*all, told, all*0.02, kind)
		}
	}
}

// Whoever asks may keep his traces from being told, and has no say beyond that.
func TestAShareOfTheTracesOfOthersIsTold(t *testing.T) {
	t.Parallel()
	const all = 20_000
	for _, ratio := range []float64{0, 0.1, 1} {
		s := newSampler(ratio)
		for flags, share := range map[otel.TraceFlags]float64{0: 0, otel.FlagsSampled: ratio} {
			told := 0
			for range all {
				id := uuid.New()
				decide := func(remote bool, flags otel.TraceFlags) sdk.SamplingDecision {
					parent := otel.ContextWithSpanContext(t.Context(), otel.NewSpanContext(otel.SpanContextConfig{
						TraceID: otel.TraceID(id), SpanID: spanOf(id), TraceFlags: flags, Remote: remote,
					}))
					return s.ShouldSample(sdk.SamplingParameters{ParentContext: parent, TraceID: otel.TraceID(id)}).Decision
				}
				if decide(true, flags) == sdk.RecordAndSample {
					told++
					require.Equal(t, sdk.RecordAndSample, decide(false, otel.FlagsSampled), "with all that follows")
				}
			}
			require.InDelta(t, share*all, told, all*0.02)
		}
	}
}

// Where nothing is traced, nothing needs to know.
func TestNobodyNeedsATracer(t *testing.T) {
	t.Parallel()
	var tracer *Tracer
	ctx, span := tracer.Attempt(t.Context(), Run{}, "")
	require.Equal(t, t.Context(), ctx)
	_, child := Outgoing(ctx, "POST", "example.com")
	for _, s := range []*Span{span, child} {
		require.Nil(t, s)
		s.Name("x")
		s.Set("x", "y")
		s.SetNumber("x", 1)
		s.Fail()
		s.End()
	}
	require.Empty(t, Carry(ctx))
	require.NoError(t, tracer.Close(ctx))
}
