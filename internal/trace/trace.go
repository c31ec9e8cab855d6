// Package trace tells a collector of OpenTelemetry what follows from what: the request,
// the run that it makes, the attempts of that run, and the requests that they make. It is
// the home of OpenTelemetry: others know Tracer and Span.
//
// The trace of a tick is its run: the trace has the run's id, and its first span the second
// half of it. So every node knows where an attempt belongs, and nothing is written down,
// through lines, retries and the loss of nodes. Only a job that a request asked for carries
// the request's trace, in its metadata.
package trace

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	api "go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
)

// Tracer begins traces. Nil traces nothing. It is safe for concurrent use, and neither
// waits for the collector nor fails for it: what that does not take is lost.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   otel.Tracer
}

// Config is what a Tracer needs.
type Config struct {
	Endpoint string  // of the collector, by OTLP over HTTP: http://host:4318
	Ratio    float64 // of all traces, those that are told: 0 to 1
	Version  string  // of this program
	Node     string  // its id
	// Failed is told what goes wrong, of all Tracers of the process. It is called often.
	Failed func(error)
}

// New makes a Tracer. It does not reach the collector yet.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(strings.TrimSuffix(cfg.Endpoint, "/")+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("make the exporter of traces: %w", err)
	}
	// What the environment says of the resource comes last, so that it counts.
	about, err := resource.New(ctx, resource.WithHost(), resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "riverbeat"),
		attribute.String("service.version", cfg.Version),
		attribute.String("service.instance.id", cfg.Node),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe this process to the collector of traces: %w", err)
	}
	api.SetErrorHandler(api.ErrorHandlerFunc(cfg.Failed))
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter), sdk.WithResource(about),
		sdk.WithIDGenerator(ids{}), sdk.WithSampler(newSampler(cfg.Ratio)),
	)
	return &Tracer{provider, provider.Tracer(tracerName)}, nil
}

const tracerName = "riverbeat"

// Close tells the collector what it was not told yet, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// headers is how a trace goes from one process to another: W3C's traceparent.
var headers propagation.TraceContext

// Request begins the span of a request that came in, as a part of the trace that it names.
// The context is that of the request from then on.
func (t *Tracer) Request(r *http.Request) (context.Context, *Span) {
	if t == nil {
		return r.Context(), nil
	}
	ctx := headers.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	return start(ctx, t.tracer, r.Method, otel.WithSpanKind(otel.SpanKindServer))
}

// Run is what spans say of a run.
type Run struct {
	ID      uuid.UUID // a UUIDv7
	Task    string
	Trigger string
}

func (r *Run) attributes() otel.SpanStartOption {
	return otel.WithAttributes(
		attribute.String("riverbeat.run_id", r.ID.String()),
		attribute.String("riverbeat.task", r.Task),
		attribute.String("riverbeat.trigger", r.Trigger),
	)
}

// Recorded tells of a run that was recorded in state, from its nominal time on; as a part
// of the trace of ctx, or as a trace of its own.
func (t *Tracer) Recorded(ctx context.Context, r Run, state string, from, to time.Time) {
	if t == nil {
		return
	}
	_, span := t.tracer.Start(context.WithValue(ctx, runKey{}, r.ID), "run "+r.Task,
		otel.WithSpanKind(otel.SpanKindProducer), otel.WithTimestamp(from), r.attributes(),
		otel.WithAttributes(attribute.String("riverbeat.state", state)))
	if to.Before(from) {
		to = from
	}
	span.End(otel.WithTimestamp(to))
}

// Attempt begins the span of an attempt, under that which its job carries, or that of its
// run.
func (t *Tracer) Attempt(ctx context.Context, r Run, carried string) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	ctx = headers.Extract(ctx, propagation.MapCarrier{Member: carried})
	if !otel.SpanContextFromContext(ctx).IsValid() {
		ctx = otel.ContextWithRemoteSpanContext(context.WithValue(ctx, ownTraceKey{}, true), otel.NewSpanContext(otel.SpanContextConfig{
			TraceID: otel.TraceID(r.ID), SpanID: spanOf(r.ID), TraceFlags: otel.FlagsSampled,
		}))
	}
	return start(ctx, t.tracer, "attempt "+r.Task, otel.WithSpanKind(otel.SpanKindConsumer), r.attributes())
}

// Outgoing begins the span of a request that the work of ctx makes; nil if that is not
// traced.
func Outgoing(ctx context.Context, method, host string) (context.Context, *Span) {
	within := otel.SpanFromContext(ctx)
	if !within.SpanContext().IsValid() {
		return ctx, nil
	}
	ctx, span := start(ctx, within.TracerProvider().Tracer(tracerName), method, otel.WithSpanKind(otel.SpanKindClient))
	span.Set("http.request.method", method)
	span.Set("server.address", host)
	return ctx, span
}

// Member is the member of a job's metadata that has what Carry answers, and the name of
// W3C's header.
const Member = "traceparent"

// Carry is what carries the trace of ctx elsewhere, in W3C's form; "" if there is none.
func Carry(ctx context.Context) string {
	carried := propagation.MapCarrier{}
	headers.Inject(ctx, carried)
	return carried[Member]
}

// CarryRun is Carry for the span of a run that is recorded in the trace of ctx.
func CarryRun(ctx context.Context, run uuid.UUID) string {
	within := otel.SpanContextFromContext(ctx)
	if !within.IsValid() {
		return ""
	}
	return Carry(otel.ContextWithSpanContext(ctx, within.WithSpanID(spanOf(run))))
}

// Span is a part of a trace. Nil is none.
type Span struct{ span otel.Span }

func start(ctx context.Context, tracer otel.Tracer, name string, options ...otel.SpanStartOption) (context.Context, *Span) {
	ctx, span := tracer.Start(ctx, name, options...)
	return ctx, &Span{span}
}

// Name names the span anew.
func (s *Span) Name(name string) {
	if s != nil {
		s.span.SetName(name)
	}
}

// Set says something of the span. It must be neither a parameter nor a secret.
func (s *Span) Set(name, value string) {
	if s != nil {
		s.span.SetAttributes(attribute.String(name, value))
	}
}

// SetNumber says a number of the span.
func (s *Span) SetNumber(name string, value int) {
	if s != nil {
		s.span.SetAttributes(attribute.Int(name, value))
	}
}

// Fail says that the span's work has failed. Why is in the log, which is not for everyone.
func (s *Span) Fail() {
	if s != nil {
		s.span.SetStatus(codes.Error, "")
	}
}

// End ends the span.
func (s *Span) End() {
	if s != nil {
		s.span.End()
	}
}

// runKey has, in the context in which the span of a run begins, the run's id.
type runKey struct{}

// ownTraceKey tells, in the context of an attempt, that its trace is the run's own.
type ownTraceKey struct{}

// spanOf is the id of the span of a run: it is not zero, for a UUID says its variant there.
func spanOf(run uuid.UUID) (id otel.SpanID) {
	copy(id[:], run[8:])
	return id
}

// ids makes the ids of spans: those of runs from their ids.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (otel.TraceID, otel.SpanID) {
	run, ok := ctx.Value(runKey{}).(uuid.UUID)
	if !ok {
		run = uuid.New()
	}
	return otel.TraceID(run), spanOf(run)
}

func (ids) NewSpanID(ctx context.Context, _ otel.TraceID) otel.SpanID {
	run, ok := ctx.Value(runKey{}).(uuid.UUID)
	if !ok {
		run = uuid.New()
	}
	return spanOf(run)
}

// sampler decides which spans are told: all or none of a trace, on all nodes the same.
type sampler struct{ root, child sdk.Sampler }

func newSampler(ratio float64) sdk.Sampler {
	root := byID(ratio)
	// A request names the trace that it is a part of before anybody knows whose it is: that
	// it is told elsewhere does not make it told here.
	return sampler{root, sdk.ParentBased(root, sdk.WithRemoteParentSampled(root))}
}

func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	if p.ParentContext.Value(ownTraceKey{}) != nil {
		return s.root.ShouldSample(p) // whether the run's span was told is not written down
	}
	return s.child.ShouldSample(p)
}

func (s sampler) Description() string { return s.child.Description() }

// byID tells a share of all traces, by their ids: by the last 62 bits, which are random in
// the id of a run, too.
type byID float64

func (ratio byID) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	result := sdk.SamplingResult{Decision: sdk.Drop, Tracestate: otel.SpanContextFromContext(p.ParentContext).TraceState()}
	if float64(binary.BigEndian.Uint64(p.TraceID[8:])<<2)/(1<<64) < float64(ratio) {
		result.Decision = sdk.RecordAndSample
	}
	return result
}

func (ratio byID) Description() string { return fmt.Sprintf("ByID(%g)", float64(ratio)) }
