// Package config reads the settings of a process once, at its start, and is the
// only place that looks at the environment.
//
// A setting has one name everywhere: the environment variable, the key in the
// file and the text of an error are the same word. Flags beat the environment,
// the environment beats the file, the file beats the default; in each of them an
// empty value stands for the default. [Settings] is the list of all of them, from
// which cmd makes its flags and docs/configuration.md is written.
//
// Nobody but cmd receives the whole Config; it hands each package its part.
package config

import (
	"log/slog"
	"net/netip"
	"time"
)

// Config is what can be set from outside. The zero value is not valid; Load of
// nothing gives the defaults.
type Config struct {
	// DatabaseURL is DATABASE_URL: where the database is, a postgres:// URL.
	// Default none: dev then starts a private Postgres, everything else needs it
	// (NeedDatabase).
	DatabaseURL DatabaseURL

	// Schema is RIVERBEAT_SCHEMA: the schema that holds all our objects and
	// River's. Lower-case letters, digits and _, at most 46 characters. Default
	// riverbeat.
	Schema string

	// Listen is RIVERBEAT_LISTEN: the address served, host:port; port 0 takes a
	// free one. Default 127.0.0.1:8080.
	Listen string

	// MetricsListen is RIVERBEAT_METRICS_LISTEN: the address, host:port, at which
	// /metrics is served without keys. Default none.
	MetricsListen string

	// TracesEndpoint is OTEL_EXPORTER_OTLP_ENDPOINT: the http:// or https:// URL of the
	// collector that is told of traces. Default none; then nothing is traced.
	TracesEndpoint string

	// TracesRatio is RIVERBEAT_TRACES_RATIO: of the traces that begin here, those that the
	// collector is told of, 0 to 1. Default 1.
	TracesRatio float64

	// DataDir is RIVERBEAT_DATA_DIR: the directory where dev keeps its private
	// Postgres. Default none: localpg.DefaultDataDir then says where.
	DataDir string

	// Role is RIVERBEAT_ROLE: which parts of the program run in this process: all,
	// api or worker. Default all.
	Role Role

	// Migrate is RIVERBEAT_MIGRATE: true brings the schema up to date before
	// serving. Default false.
	Migrate bool

	// InsecureNoAuth is RIVERBEAT_INSECURE_NO_AUTH: true serves without keys, so
	// everyone who reaches the address is an admin. Default false.
	InsecureNoAuth bool

	// AdminKey is RIVERBEAT_ADMIN_KEY: an admin's API key that is not in the
	// database, at least 16 characters. Default none.
	AdminKey Secret

	// Timezone is RIVERBEAT_TIMEZONE: the zone, by its IANA name, of schedules
	// that name none. Default UTC.
	Timezone string

	// Environment is RIVERBEAT_ENVIRONMENT: a label, written into the
	// installation, that tells a copy of its database from the original. At most 50
	// letters, digits, ., _ and -. Default default.
	Environment string

	// Queues is RIVERBEAT_QUEUES: the queues worked here and for each the most
	// runs that execute at once in this process, 1 to 10000. Default default=200.
	Queues map[string]int

	// ShutdownGrace is RIVERBEAT_SHUTDOWN_GRACE: how long, as a duration, runs may
	// go on after SIGTERM before their contexts are cancelled, at most one hour.
	// Default 10s.
	ShutdownGrace time.Duration

	// RunRetention is RIVERBEAT_RUN_RETENTION: how long runs are kept, at least
	// riverbeat.LeastRetention; 0 is for ever. Default 90d.
	RunRetention time.Duration

	// LogLevel is RIVERBEAT_LOG_LEVEL: the least level that is logged: debug, info,
	// warn or error. Default info.
	LogLevel slog.Level

	// LogFormat is RIVERBEAT_LOG_FORMAT: how log lines are written, text or json.
	// Default text.
	LogFormat LogFormat

	// MaxConnections is RIVERBEAT_MAX_CONNECTIONS: the most database connections
	// in the process's pool, 4 to 1000. Sessions and listeners come on top. Default
	// 20.
	MaxConnections int

	// BodyLimit is RIVERBEAT_BODY_LIMIT: the largest request body that is read, in
	// bytes, 1KiB to 1GiB. Default 1MiB.
	BodyLimit int64

	// RequestsPerSecond is RIVERBEAT_REQUESTS_PER_SECOND: how many requests a key is
	// allowed, 0 to 1000000; 0 is no limit. Default 500.
	RequestsPerSecond int

	// TrustedProxies is RIVERBEAT_TRUSTED_PROXIES: the networks of proxies whose
	// X-Forwarded-For is believed. Default none.
	TrustedProxies []netip.Prefix

	// Secrets is RIVERBEAT_SECRETS: where the values of secrets are, by their names.
	// Default none.
	Secrets map[string]SecretSource

	// CommandsFile is RIVERBEAT_COMMANDS: the file of the commands that executors may
	// start. Default none; then there are none.
	CommandsFile string

	// HTTPNetworks is RIVERBEAT_HTTP_NETWORKS: the private networks that executors may
	// reach. Default none.
	HTTPNetworks []netip.Prefix

	// AlertNetworks is RIVERBEAT_ALERT_NETWORKS: the private networks that alerts may be
	// posted to. Default none.
	AlertNetworks []netip.Prefix

	// Server is RIVERBEAT_SERVER: the server whose API commands use, an http:// or
	// https:// URL. Default none: that of the login (Logins), else DefaultServer.
	Server string

	// APIKey is RIVERBEAT_API_KEY: the key that commands show to the API. Default
	// none: that of the login at the server, if there is one.
	APIKey Secret

	// PlainHTTP is RIVERBEAT_PLAIN_HTTP: true lets a key travel unencrypted to another
	// machine. Default false.
	PlainHTTP bool

	// LoginFile is RIVERBEAT_LOGIN_FILE: where logins are kept. Default none:
	// riverbeat/login.json in the user's directory for configuration.
	LoginFile string

	// JQuantsBaseURL is RIVERBEAT_JQUANTS_BASE_URL: where fetch_listed_info finds the
	// J-Quants API. Default https://api.jquants.com.
	JQuantsBaseURL string

	// JQuantsAPIKey is RIVERBEAT_JQUANTS_API_KEY: the key for it. Default none; then the
	// task fails.
	JQuantsAPIKey Secret

	// JQuantsRequestsPerMinute is RIVERBEAT_JQUANTS_REQUESTS_PER_MINUTE: how many requests
	// the plan allows, over all nodes, 1 to 6000. Default 5, that of the free plan.
	JQuantsRequestsPerMinute int
}

// Role says which parts of the program run in a process.
type Role string

// The roles.
const (
	RoleAll    Role = "all"    // API, pages and work
	RoleAPI    Role = "api"    // API and pages
	RoleWorker Role = "worker" // work, and the open health pages
)

// ServesAPI tells whether the process answers API requests and shows pages.
func (r Role) ServesAPI() bool { return r == RoleAll || r == RoleAPI }

// Works tells whether the process decides ticks and executes runs.
func (r Role) Works() bool { return r == RoleAll || r == RoleWorker }

// LogFormat says how log lines are written.
type LogFormat string

// The log formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Validate checks the values that a Config holds, however it was made. The error
// names the variable of each bad one.
func (c Config) Validate() error {
	var problems []error
	for _, s := range settings {
		if s.check == nil {
			continue
		}
		if fault := s.check(&c); fault != "" {
			problems = append(problems, s.problem(s.Name, s.get(&c), fault))
		}
	}
	return joined(problems)
}

// NeedDatabase is the error of a command that needs DATABASE_URL and has none.
func (c Config) NeedDatabase() error {
	if c.DatabaseURL != "" {
		return nil
	}
	return errNoDatabase
}

// LogValue shows every setting under its name, passwords and keys left out.
func (c Config) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, len(settings))
	for _, s := range settings {
		attrs = append(attrs, slog.String(s.Name, s.get(&c)))
	}
	return slog.GroupValue(attrs...)
}
