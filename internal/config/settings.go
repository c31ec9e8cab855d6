package config

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"riverbeat/internal/riverbeat"
)

// Setting is one thing that can be set, and all that is known about it.
type Setting struct {
	// Name is the environment variable and the key in the file.
	Name string
	// Flag is the command line's name for it, without the dashes; "" if it has
	// none, since a command line can be read by every user of the machine.
	Flag string
	// Default is the value, as one would write it, of what is not set; "" is none.
	Default string
	// Unit says what kind of value it takes.
	Unit string
	// Doc says in a sentence or two what it does.
	Doc string
	// Bool tells that the flag may stand without a value.
	Bool bool
	// Secret tells that a value may hold one, and is not repeated. It may stand in a file
	// that FileName names.
	Secret bool

	// set reads a value that is not empty. What it answers is what the value
	// should have been ("a duration such as 10s"), or "".
	set func(c *Config, value string) (want string)
	// check judges the value that c holds, and answers as set does.
	check func(c *Config) (want string)
	// get shows the value that c holds, secrets left out.
	get func(c *Config) string
}

// FileName is the name under which a file can be given that holds the value, for what is
// secret; "" for all others.
func (s *Setting) FileName() string {
	if !s.Secret {
		return ""
	}
	return s.Name + "_FILE"
}

// Settings is the list of all settings, in the order in which people read them.
func Settings() []Setting { return slices.Clone(settings) }

const (
	databaseURLName = "DATABASE_URL"
	fileName        = "RIVERBEAT_CONFIG"
	prefix          = "RIVERBEAT_"
)

var settings = []Setting{
	{
		Name: databaseURLName, Flag: "database-url", Unit: "postgres:// URL", Secret: true,
		Doc: "Where the database is. Without it `riverbeat dev` starts a private Postgres; every other command that works on the database needs it. A pooler may stand in between if it pools sessions and passes on every startup parameter, which PgBouncer does not; a node says so and does not start.",
		set: func(c *Config, v string) string {
			c.DatabaseURL = DatabaseURL(v)
			return ""
		},
		check: func(c *Config) string {
			if c.DatabaseURL == "" {
				return ""
			}
			u, err := url.Parse(string(c.DatabaseURL))
			if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
				return "a URL such as postgres://user:password@host:5432/database"
			}
			return ""
		},
		get: func(c *Config) string { return c.DatabaseURL.String() },
	},
	{
		Name: "RIVERBEAT_SCHEMA", Flag: "schema", Default: "riverbeat", Unit: "name",
		Doc: "The schema that holds all objects of Riverbeat and of River, so that a database can be shared with an application. Lower-case letters, digits and `_`, not beginning with a digit or `pg_`, at most 46 characters.",
		set: func(c *Config, v string) string {
			c.Schema = v
			return ""
		},
		check: func(c *Config) string {
			if !schemaPattern.MatchString(c.Schema) || strings.HasPrefix(c.Schema, "pg_") {
				return "a schema name of lower-case letters, digits and _, at most 46 characters, not beginning with a digit or pg_"
			}
			return ""
		},
		get: func(c *Config) string { return c.Schema },
	},
	{
		Name: "RIVERBEAT_LISTEN", Flag: "listen", Default: "127.0.0.1:8080", Unit: "host:port",
		Doc: "The address that is served. An empty host is every address of the machine; port 0 takes a free one.",
		set: func(c *Config, v string) string {
			c.Listen = v
			return ""
		},
		check: func(c *Config) string { return checkAddress(c.Listen, "127.0.0.1:8080") },
		get:   func(c *Config) string { return c.Listen },
	},
	{
		Name: "RIVERBEAT_METRICS_LISTEN", Flag: "metrics-listen", Unit: "host:port",
		Doc: "An address of its own at which `/metrics`, `/healthz` and `/readyz` are served, and nothing else, to everyone who reaches it, without keys. `/metrics` tells numbers and the names of tasks; see [operations.md](operations.md#metrics). Without it they are served at `RIVERBEAT_LISTEN` only, `/metrics` to keys of the role viewer.",
		set: func(c *Config, v string) string {
			c.MetricsListen = v
			return ""
		},
		check: func(c *Config) string {
			if c.MetricsListen == "" {
				return ""
			}
			return checkAddress(c.MetricsListen, "127.0.0.1:9090")
		},
		get: func(c *Config) string { return c.MetricsListen },
	},
	{
		Name: "OTEL_EXPORTER_OTLP_ENDPOINT", Unit: "http:// or https:// URL", Secret: true,
		Doc: "The collector of OpenTelemetry that is told of [traces](operations.md#traces), by OTLP over HTTP, as in `http://127.0.0.1:4318`. Without it nothing is traced. OpenTelemetry itself reads the other variables of its exporter from the environment, such as `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.",
		set: func(c *Config, v string) string {
			c.TracesEndpoint = v
			return ""
		},
		check: func(c *Config) string {
			if c.TracesEndpoint == "" {
				return ""
			}
			u, err := url.Parse(c.TracesEndpoint)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
				return "a URL such as http://127.0.0.1:4318, without user or query"
			}
			return ""
		},
		get: func(c *Config) string { return c.TracesEndpoint },
	},
	{
		Name: "RIVERBEAT_TRACES_RATIO", Default: "1", Unit: "number from 0 to 1",
		Doc: "Of all traces, those that the collector is told of; all nodes pick the same, by the trace's id. A request that is a part of a trace which its caller does not tell is not told here either.",
		set: func(c *Config, v string) string {
			ratio, err := strconv.ParseFloat(v, 64)
			if err != nil {
				return "a number such as 0.1"
			}
			c.TracesRatio = ratio
			return ""
		},
		check: func(c *Config) string {
			if !(c.TracesRatio >= 0 && c.TracesRatio <= 1) { // NaN is neither
				return "a number from 0 to 1"
			}
			return ""
		},
		get: func(c *Config) string { return strconv.FormatFloat(c.TracesRatio, 'g', -1, 64) },
	},
	{
		Name: "RIVERBEAT_DATA_DIR", Flag: "data-dir", Unit: "directory",
		Doc: "Where `riverbeat dev` keeps its private Postgres. When not set: `/var/lib/riverbeat` for root, else `$XDG_DATA_HOME/riverbeat`, else `$HOME/.local/share/riverbeat`.",
		set: func(c *Config, v string) string {
			c.DataDir = v
			return ""
		},
		get: func(c *Config) string { return c.DataDir },
	},
	{
		Name: "RIVERBEAT_ROLE", Flag: "role", Default: string(RoleAll), Unit: "all, api or worker",
		Doc: "Which parts run in this process: `api` serves the API and the pages, `worker` decides ticks and executes runs, `all` does both.",
		set: func(c *Config, v string) string {
			c.Role = Role(v)
			return ""
		},
		check: func(c *Config) string {
			switch c.Role {
			case RoleAll, RoleAPI, RoleWorker:
				return ""
			}
			return "all, api or worker"
		},
		get: func(c *Config) string { return string(c.Role) },
	},
	{
		Name: "RIVERBEAT_MIGRATE", Flag: "migrate", Default: "false", Unit: "true or false", Bool: true,
		Doc: "Bring the schema up to date before serving. `riverbeat dev` always does.",
		set: func(c *Config, v string) string { return setBool(&c.Migrate, v) },
		get: func(c *Config) string { return strconv.FormatBool(c.Migrate) },
	},
	{
		Name: "RIVERBEAT_INSECURE_NO_AUTH", Flag: "insecure-no-auth", Default: "false", Unit: "true or false", Bool: true,
		Doc: "Serve without keys: everyone who reaches the address is an admin, and so are the pages of other sites that a browser on this machine shows, if they get a name of theirs to lead here.",
		set: func(c *Config, v string) string { return setBool(&c.InsecureNoAuth, v) },
		get: func(c *Config) string { return strconv.FormatBool(c.InsecureNoAuth) },
	},
	{
		Name: "RIVERBEAT_ADMIN_KEY", Unit: "API key", Secret: true,
		Doc: "An API key whose role is admin and that is not in the database, for machines that cannot read the one printed at the first start: at least 16 printable characters without spaces, such as `openssl rand -hex 20` makes them. It ends when it is not set any more. It has no flag, because a command line can be read by every user of the machine.",
		set: func(c *Config, v string) string {
			c.AdminKey = Secret(v)
			return ""
		},
		check: func(c *Config) string {
			if key := string(c.AdminKey); key != "" && (len(key) < 16 || strings.ContainsFunc(key, unprintable)) {
				return "a key of at least 16 printable characters without spaces"
			}
			return ""
		},
		get: func(c *Config) string { return c.AdminKey.String() },
	},
	{
		Name: "RIVERBEAT_TIMEZONE", Flag: "timezone", Default: "UTC", Unit: "IANA time zone",
		Doc: "The time zone of schedules that name none.",
		set: func(c *Config, v string) string {
			c.Timezone = v
			return ""
		},
		check: func(c *Config) string {
			// "" and "Local" load, but mean something else on each machine.
			_, err := time.LoadLocation(c.Timezone)
			if err != nil || c.Timezone == "" || c.Timezone == "Local" {
				return "a time zone such as Asia/Tokyo"
			}
			return ""
		},
		get: func(c *Config) string { return c.Timezone },
	},
	{
		Name: "RIVERBEAT_ENVIRONMENT", Flag: "environment", Default: "default", Unit: "label",
		Doc: "A label, written into the installation, that tells a copy of its database from the original. It is written down when the database is first used; a node with another one is on hold until `riverbeat resume --here`. At most 50 letters, digits, `.`, `_` and `-`.",
		set: func(c *Config, v string) string {
			c.Environment = v
			return ""
		},
		check: func(c *Config) string {
			if !environmentPattern.MatchString(c.Environment) {
				return "a label of at most 50 letters, digits, ., _ and -"
			}
			return ""
		},
		get: func(c *Config) string { return c.Environment },
	},
	{
		Name: "RIVERBEAT_QUEUES", Flag: "queues", Default: "default=200", Unit: "queue=number, …",
		Doc: "The queues worked by this process and, for each, the most runs that execute at once in it (1 to 10000), as in `default=100,slow=5`.",
		set: func(c *Config, v string) string { return setQueues(&c.Queues, v) },
		check: func(c *Config) string {
			if len(c.Queues) == 0 {
				return queuesWant
			}
			for name, most := range c.Queues {
				if len(name) > 64 || !queuePattern.MatchString(name) || most < 1 || most > 10_000 {
					return queuesWant
				}
			}
			return ""
		},
		get: func(c *Config) string { return showQueues(c.Queues) },
	},
	{
		Name: "RIVERBEAT_SHUTDOWN_GRACE", Flag: "shutdown-grace", Default: "10s", Unit: "duration",
		Doc: "How long runs may go on after SIGTERM before their contexts are cancelled and their jobs are handed back; at most `1h`, and `0s` cancels at once.",
		set: func(c *Config, v string) string {
			d, err := time.ParseDuration(v)
			if err != nil {
				return "a duration such as 10s"
			}
			c.ShutdownGrace = d
			return ""
		},
		check: func(c *Config) string {
			if c.ShutdownGrace < 0 || c.ShutdownGrace > time.Hour {
				return "a duration from 0s to 1h"
			}
			return ""
		},
		get: func(c *Config) string { return c.ShutdownGrace.String() },
	},
	{
		Name: "RIVERBEAT_RUN_RETENTION", Flag: "run-retention", Default: "90d", Unit: "duration or forever",
		Doc: "How long runs are kept, at least `7d`; `forever` keeps them all. Of the nodes that work the longest counts; those that only serve the API have no say. Set it before the upgrade to the first version that drops runs. See [operations.md](operations.md#how-long-runs-are-kept).",
		set: func(c *Config, v string) (want string) {
			c.RunRetention, want = riverbeat.ParseRetention(v)
			return want
		},
		get: func(c *Config) string { return riverbeat.FormatRetention(c.RunRetention) },
	},
	{
		Name: "RIVERBEAT_LOG_LEVEL", Flag: "log-level", Default: "info", Unit: "debug, info, warn or error",
		Doc: "The least level that is logged.",
		set: func(c *Config, v string) string {
			i := slices.IndexFunc(logLevels, func(l slog.Level) bool { return strings.EqualFold(l.String(), v) })
			if i < 0 {
				return "debug, info, warn or error"
			}
			c.LogLevel = logLevels[i]
			return ""
		},
		get: func(c *Config) string { return strings.ToLower(c.LogLevel.String()) },
	},
	{
		Name: "RIVERBEAT_LOG_FORMAT", Flag: "log-format", Default: string(LogText), Unit: "text or json",
		Doc: "How log lines are written.",
		set: func(c *Config, v string) string {
			c.LogFormat = LogFormat(v)
			return ""
		},
		check: func(c *Config) string {
			switch c.LogFormat {
			case LogText, LogJSON:
				return ""
			}
			return "text or json"
		},
		get: func(c *Config) string { return string(c.LogFormat) },
	},
	{
		Name: "RIVERBEAT_MAX_CONNECTIONS", Flag: "max-connections", Default: "20", Unit: "number",
		Doc: "The most database connections in this process's pool, 4 to 1000. On a node that works, requests of the API have three of four at most: the others are for ticks and runs. The node's session and its listeners come on top.",
		set: func(c *Config, v string) string { return setNumber(&c.MaxConnections, v, "20") },
		check: func(c *Config) string {
			if c.MaxConnections < 4 || c.MaxConnections > 1000 {
				return "a number from 4 to 1000"
			}
			return ""
		},
		get: func(c *Config) string { return strconv.Itoa(c.MaxConnections) },
	},
	{
		Name: "RIVERBEAT_BODY_LIMIT", Flag: "body-limit", Default: "1MiB", Unit: "bytes",
		Doc: "The largest request body that is read (of `POST /apply`: 16 times as much), `1KiB` to `1GiB`; a number of bytes, or one with `KiB`, `MiB` or `GiB` behind it.",
		set: func(c *Config, v string) string { return setBytes(&c.BodyLimit, v) },
		check: func(c *Config) string {
			if c.BodyLimit < 1<<10 || c.BodyLimit > 1<<30 {
				return "a size from 1KiB to 1GiB"
			}
			return ""
		},
		get: func(c *Config) string { return showBytes(c.BodyLimit) },
	},
	{
		Name: "RIVERBEAT_REQUESTS_PER_SECOND", Flag: "requests-per-second", Default: "500", Unit: "number",
		Doc: "How many requests a second one API key may make to this process, at most 1000000; after a pause twice as many at once. What is more is answered with 429. 0 is no limit.",
		set: func(c *Config, v string) string { return setNumber(&c.RequestsPerSecond, v, "500") },
		check: func(c *Config) string {
			if c.RequestsPerSecond < 0 || c.RequestsPerSecond > 1_000_000 {
				return "a number from 0 to 1000000"
			}
			return ""
		},
		get: func(c *Config) string { return strconv.Itoa(c.RequestsPerSecond) },
	},
	{
		Name: "RIVERBEAT_TRUSTED_PROXIES", Flag: "trusted-proxies", Unit: "address or network, …",
		Doc: "The proxies in front of this process, as in `10.0.0.0/8,192.0.2.1`. Where a request came from, which the audit trail keeps and failed attempts are counted by, is read from the `X-Forwarded-For` of these alone.",
		set: func(c *Config, v string) string { return setNetworks(&c.TrustedProxies, v) },
		get: func(c *Config) string { return showNetworks(c.TrustedProxies) },
	},
	{
		Name: "RIVERBEAT_SECRETS", Unit: "name=env:VARIABLE or name=file:/path, …", Secret: true,
		Doc: "The secrets to which parameters and executors may refer by `{\"$secret\": \"name\"}`, and where each is: in an environment variable, or in a file, which is read at each use, a line break at its end left out. A node that works does not start without one of them.",
		set: func(c *Config, v string) string { return setSecrets(&c.Secrets, v) },
		get: func(c *Config) string { return showSecrets(c.Secrets) },
	},
	{
		Name: "RIVERBEAT_COMMANDS", Unit: "file",
		Doc: "A JSON file with the commands that executors of the kind `command` may start; see [executors.md](executors.md#command). Without it there are none.",
		set: func(c *Config, v string) string {
			c.CommandsFile = v
			return ""
		},
		get: func(c *Config) string { return c.CommandsFile },
	},
	{
		Name: "RIVERBEAT_HTTP_NETWORKS", Unit: "address or network, …",
		Doc: "The networks that executors of the kind `http` may reach beside the public ones, as in `10.1.0.0/16,::1`. Without it they reach public addresses only.",
		set: func(c *Config, v string) string { return setNetworks(&c.HTTPNetworks, v) },
		get: func(c *Config) string { return showNetworks(c.HTTPNetworks) },
	},
	{
		Name: "RIVERBEAT_ALERT_NETWORKS", Unit: "address or network, …",
		Doc: "The networks that [alerts](alerts.md) may be posted to beside the public ones, as in `10.1.0.0/16,::1`. Who may write schedules says where those go, so it is a setting of its own. Without it they go to public addresses only.",
		set: func(c *Config, v string) string { return setNetworks(&c.AlertNetworks, v) },
		get: func(c *Config) string { return showNetworks(c.AlertNetworks) },
	},
	{
		Name: "RIVERBEAT_SERVER", Flag: "server", Unit: "URL",
		Doc: "The server whose API is used, by commands that use one. When not set: that of the last `riverbeat login`, else `http://127.0.0.1:8080`.",
		set: func(c *Config, v string) string {
			c.Server = v
			return ""
		},
		check: func(c *Config) string {
			if c.Server == "" {
				return ""
			}
			u, err := url.Parse(c.Server)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
				return "a URL such as https://riverbeat.example, without user or query"
			}
			return ""
		},
		get: func(c *Config) string { return c.Server },
	},
	{
		Name: "RIVERBEAT_API_KEY", Unit: "API key", Secret: true,
		Doc: "The API key that commands show to the server. When not set: that of the `riverbeat login` there, if there is one. It has no flag, because a command line can be read by every user of the machine; `--key-file` names a file with a key.",
		set: func(c *Config, v string) string {
			c.APIKey = Secret(v)
			return ""
		},
		check: func(c *Config) string {
			if strings.ContainsFunc(string(c.APIKey), unprintable) {
				return "a key of printable characters without spaces"
			}
			return ""
		},
		get: func(c *Config) string { return c.APIKey.String() },
	},
	{
		Name: "RIVERBEAT_PLAIN_HTTP", Flag: "plain-http", Default: "false", Unit: "true or false", Bool: true,
		Doc: "Let commands show the API key to another machine over plain http, where it can be read on the way.",
		set: func(c *Config, v string) string { return setBool(&c.PlainHTTP, v) },
		get: func(c *Config) string { return strconv.FormatBool(c.PlainHTTP) },
	},
	{
		Name: "RIVERBEAT_LOGIN_FILE", Unit: "file",
		Doc: "Where `riverbeat login` keeps servers and keys; nobody else may be allowed to read it. When not set: `riverbeat/login.json` in `$XDG_CONFIG_HOME`, else in `$HOME/.config`.",
		set: func(c *Config, v string) string {
			c.LoginFile = v
			return ""
		},
		get: func(c *Config) string { return c.LoginFile },
	},
	{
		Name: "RIVERBEAT_JQUANTS_BASE_URL", Default: "https://api.jquants.com", Unit: "http:// or https:// URL",
		Doc: "Where the task `fetch_listed_info` finds the J-Quants API, without `/v2`.",
		set: func(c *Config, v string) string {
			c.JQuantsBaseURL = v
			return ""
		},
		check: func(c *Config) string {
			u, err := url.Parse(c.JQuantsBaseURL)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
				return "a URL such as https://api.jquants.com, without user or query"
			}
			return ""
		},
		get: func(c *Config) string { return c.JQuantsBaseURL },
	},
	{
		Name: "RIVERBEAT_JQUANTS_API_KEY", Unit: "API key", Secret: true,
		Doc: "The key of J-Quants for the task `fetch_listed_info`; without it its runs fail. It has no flag, because a command line can be read by every user of the machine.",
		set: func(c *Config, v string) string {
			c.JQuantsAPIKey = Secret(v)
			return ""
		},
		check: func(c *Config) string {
			if strings.ContainsFunc(string(c.JQuantsAPIKey), unprintable) {
				return "a key of printable characters without spaces"
			}
			return ""
		},
		get: func(c *Config) string { return c.JQuantsAPIKey.String() },
	},
	{
		Name: "RIVERBEAT_JQUANTS_REQUESTS_PER_MINUTE", Default: "5", Unit: "number",
		Doc: "How many requests a minute the plan at J-Quants allows, over all nodes, 1 to 6000: 5 (free), 60, 120 or 500. They leave evenly spaced.",
		set: func(c *Config, v string) string { return setNumber(&c.JQuantsRequestsPerMinute, v, "60") },
		check: func(c *Config) string {
			if c.JQuantsRequestsPerMinute < 1 || c.JQuantsRequestsPerMinute > 6000 {
				return "a number from 1 to 6000"
			}
			return ""
		},
		get: func(c *Config) string { return strconv.Itoa(c.JQuantsRequestsPerMinute) },
	},
}

var (
	schemaPattern      = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,45}$`)
	environmentPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$`)
	queuePattern       = regexp.MustCompile(`^[a-z0-9]+([_|-]?[a-z0-9]+)*$`) // River's
	logLevels          = []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
)

const queuesWant = "a list such as default=100,slow=5 of queue names and numbers from 1 to 10000"

// problem is the error of a bad value. where says which of its sources it came
// from; a value that may hold a secret is not repeated.
func (s *Setting) problem(where, value, want string) error {
	if s.Secret {
		return fmt.Errorf("%s: is not %s", where, want)
	}
	return fmt.Errorf("%s: %q is not %s", where, value, want)
}

func checkAddress(address, example string) string {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "an address such as " + example
	}
	return ""
}

// unprintable tells what no key has.
func unprintable(r rune) bool { return r <= ' ' || r > '~' }

func setBool(to *bool, v string) string {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return "true or false"
	}
	*to = b
	return ""
}

func setNumber(to *int, v, example string) string {
	n, err := strconv.Atoi(v)
	if err != nil {
		return "a whole number such as " + example
	}
	*to = n
	return ""
}

func setQueues(to *map[string]int, v string) string {
	queues := map[string]int{}
	for pair := range strings.SplitSeq(v, ",") {
		name, number, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		most, err := strconv.Atoi(strings.TrimSpace(number))
		if _, twice := queues[name]; !ok || err != nil || twice {
			return queuesWant
		}
		queues[name] = most
	}
	*to = queues
	return ""
}

func showQueues(queues map[string]int) string {
	pairs := make([]string, 0, len(queues))
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		pairs = append(pairs, name+"="+strconv.Itoa(queues[name]))
	}
	return strings.Join(pairs, ",")
}

const secretsWant = "a list such as stripe=env:STRIPE_KEY,warehouse=file:/etc/warehouse" //nolint:gosec // no secret

func setSecrets(to *map[string]SecretSource, v string) string {
	secrets := map[string]SecretSource{}
	for text := range strings.SplitSeq(v, ",") {
		name, where, _ := strings.Cut(strings.TrimSpace(text), "=")
		kind, at, _ := strings.Cut(where, ":")
		source := SecretSource{}
		switch kind {
		case "env":
			source.Variable = at
		case "file":
			source.File = at
		}
		if _, twice := secrets[name]; twice || source == (SecretSource{}) || !riverbeat.SecretName.MatchString(name) {
			return secretsWant
		}
		secrets[name] = source
	}
	*to = secrets
	return ""
}

func showSecrets(secrets map[string]SecretSource) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		texts = append(texts, name+"="+secrets[name].String())
	}
	return strings.Join(texts, ",")
}

func setNetworks(to *[]netip.Prefix, v string) string {
	var networks []netip.Prefix
	for text := range strings.SplitSeq(v, ",") {
		text = strings.TrimSpace(text)
		network, err := netip.ParsePrefix(text)
		if address, notOne := netip.ParseAddr(text); err != nil && notOne == nil {
			network, err = address.Prefix(address.BitLen())
		}
		if err != nil {
			return "a list such as 10.0.0.0/8,192.0.2.1 of addresses and networks"
		}
		if network.Addr().Is4In6() && network.Bits() >= 96 { // it is one of IPv4
			network = netip.PrefixFrom(network.Addr().Unmap(), network.Bits()-96)
		}
		networks = append(networks, network.Masked())
	}
	*to = networks
	return ""
}

func showNetworks(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return strings.Join(texts, ",")
}

var byteUnits = []struct {
	suffix string
	size   int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

func setBytes(to *int64, v string) string {
	for _, unit := range byteUnits {
		number, ok := strings.CutSuffix(v, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 32)
		if err != nil {
			break
		}
		*to = n * unit.size
		return ""
	}
	return "a number of bytes such as 1048576 or 1MiB"
}

func showBytes(n int64) string {
	for _, unit := range byteUnits {
		if n != 0 && n%unit.size == 0 {
			return strconv.FormatInt(n/unit.size, 10) + unit.suffix
		}
	}
	return "0"
}
