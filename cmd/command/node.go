package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/access"
	"riverbeat/internal/catalog"
	"riverbeat/internal/config"
	"riverbeat/internal/doctor"
	"riverbeat/internal/execute"
	"riverbeat/internal/execute/alert"
	"riverbeat/internal/execute/builtin"
	"riverbeat/internal/execute/jquants"
	"riverbeat/internal/execute/process"
	"riverbeat/internal/execute/request"
	"riverbeat/internal/execute/secret"
	"riverbeat/internal/execute/statement"
	"riverbeat/internal/history"
	"riverbeat/internal/httpapi"
	"riverbeat/internal/installation"
	"riverbeat/internal/ledger"
	"riverbeat/internal/metrics"
	"riverbeat/internal/postgres"
	"riverbeat/internal/prune"
	"riverbeat/internal/queue"
	"riverbeat/internal/riverbeat"
	"riverbeat/internal/tick"
	"riverbeat/internal/trace"
	"riverbeat/internal/watch"
	"riverbeat/internal/worker"
	"riverbeat/riverui"
	"riverbeat/task"
)

// scrapeWait is how long /metrics waits for new readings: less than Prometheus
// does for an answer.
const scrapeWait = 4 * time.Second

// node is one process of an installation: all parts, wired.
type node struct {
	cfg    config.Config
	logger *slog.Logger
	id     uuid.UUID
	db     *postgres.DB
	// forRequests leaves some connections to ticks and runs, however many requests
	// wait for a lock.
	forRequests *postgres.DB
	queue       *queue.Queue
	ledger      *ledger.Ledger
	access      *access.Access
	catalog     *catalog.Catalog
	registry    *execute.Registry
	commands    map[string]process.Command
	secrets     *secret.Store
	metrics     *metrics.Metrics
	tracer      *trace.Tracer // nil: nothing is traced
}

// newNode wires a node; needSchema must hold. open says when a request without a key is
// let in.
func newNode(ctx context.Context, cfg config.Config, open access.Openness, tasks []task.Task, logger *slog.Logger) (*node, error) {
	secrets, err := secretsOf(cfg)
	if err != nil {
		return nil, err
	}
	commands, err := commandsOf(cfg, secrets)
	if err != nil {
		return nil, err
	}
	id := uuid.New()
	tracer, err := tracerOf(ctx, cfg, id, logger)
	if err != nil {
		return nil, err
	}
	database := databaseConfig(cfg)
	database.Node = id.String()
	pool, err := postgres.NewPool(ctx, database)
	if err != nil {
		return nil, err
	}
	q, err := queue.New(pool, cfg.Schema, logger)
	if err != nil {
		pool.Close()
		return nil, err
	}
	db := postgres.New(pool, cfg.Schema).In(cfg.Environment)
	forRequests := db
	if cfg.Role.Works() {
		forRequests = db.AtMost(cfg.MaxConnections * 3 / 4)
	}
	registry := execute.NewRegistry()
	registry.RegisterKind(riverbeat.ExecutorHTTP, request.New(request.Config{
		Networks: cfg.HTTPNetworks, Setting: "RIVERBEAT_HTTP_NETWORKS", Version: version, Now: time.Now,
	}).Kind)
	registry.RegisterKind(riverbeat.ExecutorSQL, statement.New(statement.Config{Schema: cfg.Schema}))
	registry.RegisterKind(riverbeat.ExecutorCommand, process.New(process.Config{Commands: commands, Secrets: secrets, Ours: execute.Ours}))
	registry.Register(alert.New(request.Config{
		Networks: cfg.AlertNetworks, Setting: "RIVERBEAT_ALERT_NETWORKS", Version: version, Now: time.Now,
	}))
	registry.Register(builtin.Tasks()...)
	registry.Register(jquants.New(jquants.Config{
		DB: db, BaseURL: cfg.JQuantsBaseURL, APIKey: string(cfg.JQuantsAPIKey), PerMinute: cfg.JQuantsRequestsPerMinute,
	}))
	registry.Register(tasks...)
	counts := metrics.New(time.Now, cfg.Role.Works())
	counts.WatchPool(func() metrics.Pool { return pool.Stat() })
	if share := forRequests.Share(); share != nil {
		counts.WatchShare(share)
	}
	l := ledger.New(q).Counting(counts).Tracing(tracer)
	return &node{
		cfg: cfg, logger: logger, metrics: counts, tracer: tracer, id: id, db: db, forRequests: forRequests, queue: q, ledger: l,
		catalog: catalog.New(forRequests, l), registry: registry, commands: commands, secrets: secrets,
		access: access.New(access.Config{
			DB: forRequests, AdminKey: string(cfg.AdminKey), Open: open, RequestsPerSecond: cfg.RequestsPerSecond, Now: time.Now,
		}),
	}, nil
}

const (
	// traceFaultEvery is how often it is logged that the collector of traces is not told:
	// it may be away for long, and nothing depends on it.
	traceFaultEvery = 5 * time.Minute
	// tracesWithin is how long a node that ends tells the collector what it was not told.
	tracesWithin = 3 * time.Second
)

// tracerOf is the tracer of a node; nil if nothing is traced.
func tracerOf(ctx context.Context, cfg config.Config, id uuid.UUID, logger *slog.Logger) (*trace.Tracer, error) {
	if cfg.TracesEndpoint == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	var said atomic.Int64
	return trace.New(ctx, trace.Config{
		Endpoint: cfg.TracesEndpoint, Ratio: cfg.TracesRatio, Version: version, Node: id.String(),
		Failed: func(err error) {
			now, last := time.Now().UnixNano(), said.Load()
			if now-last > int64(traceFaultEvery) && said.CompareAndSwap(last, now) {
				logger.Warn("the collector of traces was not told", "error", err)
			}
		},
	})
}

func (n *node) closeTracer(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tracesWithin)
	defer cancel()
	if err := n.tracer.Close(ctx); err != nil {
		n.logger.WarnContext(ctx, "the collector of traces was not told the last ones", "error", err)
	}
}

// secretsOf are the secrets that the configuration names. It fails if a node that works
// would lack one.
func secretsOf(cfg config.Config) (*secret.Store, error) {
	sources := map[string]secret.Source{}
	for name, source := range cfg.Secrets {
		sources[name] = source.Read
	}
	secrets := secret.New(sources)
	if !cfg.Role.Works() {
		return secrets, nil
	}
	return secrets, secrets.Check()
}

// commandsOf are the commands of a node that works.
func commandsOf(cfg config.Config, secrets *secret.Store) (map[string]process.Command, error) {
	if cfg.CommandsFile == "" || !cfg.Role.Works() {
		return nil, nil //nolint:nilnil // there are none
	}
	commands, err := process.ReadCommands(cfg.CommandsFile)
	if err != nil {
		return nil, fmt.Errorf("read the commands: %w", err)
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		if err := commands[name].Check(secrets); err != nil {
			problems = append(problems, fmt.Errorf("command %q: %w", name, err))
		}
	}
	return commands, errors.Join(problems...)
}

// needSchema fails unless this program works with the schema as it is.
func needSchema(ctx context.Context, cfg config.Config) error {
	status, err := postgres.Status(ctx, databaseConfig(cfg))
	if err != nil {
		return err
	}
	return status.Check(cfg.Schema)
}

// gcPercent is GOGC, unless someone sets another than Go's own 100. A node's heap
// is small, and what it allocates for a run is gone when the run has ended: at its
// usual pace the collector takes a tenth of the node's time to save some 30 MB.
const gcPercent = 400

func collectLessOften() {
	if usual := debug.SetGCPercent(gcPercent); usual != 100 {
		debug.SetGCPercent(usual)
	}
}

// unlessTold is why a node could not begin; nil if it was told to stop meanwhile, when ctx
// has ended: then it has not failed.
func unlessTold(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// run serves at fronts and works until ctx ends, then stops in order. ready is called with
// the address served once everything runs.
func (n *node) run(ctx context.Context, fronts *fronts, ready func(address string) error) (err error) {
	defer n.db.Pool().Close()
	collectLessOften()
	// Everything that ends is ended here, by us, and not by ctx.
	background := context.WithoutCancel(ctx)
	defer n.closeTracer(background)
	if err := n.db.InTx(ctx, func(tx *postgres.Tx) error { return tx.EnsureInstallation(ctx) }); err != nil {
		return unlessTold(ctx, err)
	}

	monitor := doctor.NewMonitor(ctx, newDoctor(n.cfg, n.db, n.ledger, n.queue), time.Now, scrapeWait)
	defer monitor.Close()
	all, numbers, err := n.handlers(ctx, monitor)
	if err != nil {
		return unlessTold(ctx, err)
	}
	stopWork := func() {}
	if n.cfg.Role.Works() {
		w, err := n.worker()
		if err == nil {
			err = w.Start(background)
		}
		if w != nil {
			stopWork = w.Stop
			defer w.Stop()
		}
		if err != nil {
			return err
		}
	}
	fronts.all.answerBy(all)
	if fronts.metrics != nil {
		fronts.metrics.answerBy(numbers)
		n.logger.InfoContext(ctx, "serving metrics", "address", fronts.metrics.address())
	}
	n.logger.InfoContext(ctx, "serving", "address", fronts.all.address(), "node", n.id, "role", string(n.cfg.Role), "version", version)
	if err := ready(fronts.all.address()); err != nil {
		return unlessTold(ctx, err)
	}

	select {
	case err = <-fronts.failed:
		err = fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		n.logger.InfoContext(ctx, "stopping", "grace", n.cfg.ShutdownGrace.String())
	}
	// Requests and runs have the same grace, and a slow request does not keep
	// the worker taking new jobs.
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		stopWork()
	}()
	defer func() { <-worked }()
	drain, cancel := context.WithTimeout(background, n.cfg.ShutdownGrace)
	defer cancel()
	return errors.Join(err, fronts.shutdown(drain))
}

// handlers answer everything, and what is served where the metrics have an address of
// their own.
func (n *node) handlers(ctx context.Context, monitor *doctor.Monitor) (all, numbers http.Handler, err error) {
	api, err := n.api(ctx, monitor)
	if err != nil {
		return nil, nil, err
	}
	if all, err = httpapi.New(api); err != nil { //nolint:contextcheck // each request brings its own
		return nil, nil, err
	}
	api.HealthOnly, api.OpenMetrics, api.Mounts = true, true, nil
	numbers, err = httpapi.New(api) //nolint:contextcheck // each request brings its own
	return all, numbers, err
}

// api is what answers HTTP.
func (n *node) api(ctx context.Context, monitor *doctor.Monitor) (httpapi.Config, error) {
	api := httpapi.Config{
		Access:          n.access,
		Catalog:         n.catalog,
		History:         history.New(n.forRequests, n.ledger),
		Installation:    installation.New(n.forRequests),
		DefaultTimezone: n.cfg.Timezone,
		BodyLimit:       n.cfg.BodyLimit,
		Logger:          n.logger,
		Version:         version,
		Now:             time.Now,
		Ready:           n.ready,
		Monitor:         monitor,
		Metrics:         n.metrics,
		Tracer:          n.tracer,
		HealthOnly:      !n.cfg.Role.ServesAPI(),
		TrustedProxies:  n.cfg.TrustedProxies,
	}
	if !n.cfg.Role.ServesAPI() {
		return api, nil
	}
	var err error
	api.Mounts, err = riverui.New(ctx, n.queue.Client(), n.access, n.logger)
	return api, err
}

// sweepPatience is how long a node that works is ready without a sweep that has
// succeeded: longer than one takes that decides as much as it may.
const sweepPatience = time.Minute

// ready tells whether this node can do its work: its database answers, is home, and has
// the schema that the program needs, and its sweeps succeed. The error says which is not.
func (n *node) ready(ctx context.Context) error {
	err := n.db.InTx(ctx, func(tx *postgres.Tx) error {
		status, err := tx.MigrationStatus(ctx)
		if err != nil {
			return err
		}
		if err := status.Check(n.cfg.Schema); err != nil {
			return err
		}
		return tx.AtHome(ctx)
	})
	if err != nil || !n.cfg.Role.Works() {
		return err
	}
	if age := n.metrics.SinceSweep(); age > sweepPatience {
		return riverbeat.Errorf(riverbeat.Unavailable, "no_sweep",
			"Its last sweep succeeded %s ago: it decides no ticks. Its log says why.", age.Truncate(time.Second))
	}
	return nil
}

func (n *node) worker() (*worker.Worker, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	node := postgres.Node{
		ID: n.id, Host: host, Version: version, TZDataVersion: tzdataVersion(zoneDirs), Tasks: n.registry.Names(), Commands: slices.Sorted(maps.Keys(n.commands)), Queues: withAlerts(n.cfg.Queues),
		RunsKept: n.cfg.RunRetention,
	}
	return worker.New(worker.Config{
		DB: n.db,
		Executor: execute.New(execute.Config{
			DB: n.db, Ledger: n.ledger, Registry: n.registry, Secrets: n.secrets, Node: node, Logger: n.logger,
			Metrics: n.metrics, Tracer: n.tracer,
		}),
		Ticker:  tick.New(n.db, n.ledger, n.logger).Counting(n.metrics),
		Watcher: watch.New(n.db, n.ledger, n.logger),
		Pruner:  prune.New(prune.Config{DB: n.db, Keep: n.cfg.RunRetention, Now: time.Now, Logger: n.logger}),
		Declare: func(ctx context.Context) error {
			return n.catalog.Declare(ctx, n.registry.Definitions(), n.logger)
		},
		Logger:  n.logger,
		Metrics: n.metrics,
		Grace:   n.cfg.ShutdownGrace,
		Ending:  process.Ending(n.commands),
	})
}

// alertWorkers is how many alerts a node posts at once.
const alertWorkers = 10

// withAlerts are the queues of a node that works: every one posts alerts.
func withAlerts(queues map[string]int) map[string]int {
	all := map[string]int{riverbeat.AlertQueue: alertWorkers}
	maps.Copy(all, queues)
	return all
}
