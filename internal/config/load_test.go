package config_test

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/config"
)

// settingsFile writes a settings file and tells where it is.
func settingsFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "riverbeat.env")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

// load tells the Config, and all that is told beside it.
func load(environ []string, file string, flags map[string]string) (config.Config, []string, error) {
	r, err := config.Load(environ, file, flags)
	return r.Config, append(r.Unknown, r.Warnings...), err
}

func TestLoadDefaults(t *testing.T) {
	t.Parallel()

	c, warnings, err := load(nil, "", nil)
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Equal(t, config.Config{
		Schema:            "riverbeat",
		Listen:            "127.0.0.1:8080",
		TracesRatio:       1,
		Role:              config.RoleAll,
		Timezone:          "UTC",
		Environment:       "default",
		Queues:            map[string]int{"default": 200},
		ShutdownGrace:     10 * time.Second,
		RunRetention:      90 * 24 * time.Hour,
		LogLevel:          slog.LevelInfo,
		LogFormat:         config.LogText,
		MaxConnections:    20,
		BodyLimit:         1 << 20,
		RequestsPerSecond: 500,

		JQuantsBaseURL: "https://api.jquants.com", JQuantsRequestsPerMinute: 5,
	}, c)
	require.NoError(t, c.Validate())
}

func TestLoadOrder(t *testing.T) {
	t.Parallel()

	file := settingsFile(t, "RIVERBEAT_SCHEMA=from_file\nRIVERBEAT_ENVIRONMENT=from_file\nRIVERBEAT_ROLE=api\n")
	environ := []string{"RIVERBEAT_SCHEMA=from_environment", "RIVERBEAT_ENVIRONMENT=from_environment", "RIVERBEAT_CONFIG=" + file}
	flags := map[string]string{"environment": "from_flag"}

	for name, given := range map[string]string{"FileArgument": file, "FileFromEnvironment": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c, warnings, err := load(environ, given, flags)
			require.NoError(t, err)
			require.Empty(t, warnings)
			require.Equal(t, "from_flag", c.Environment)
			require.Equal(t, "from_environment", c.Schema)
			require.Equal(t, config.RoleAPI, c.Role)
		})
	}

	t.Run("EmptyIsDefault", func(t *testing.T) {
		t.Parallel()

		c, _, err := load([]string{"DATABASE_URL=postgres://h/d", "RIVERBEAT_ROLE=", "RIVERBEAT_SCHEMA=x"}, file,
			map[string]string{"database-url": "", "schema": " "})
		require.NoError(t, err)
		require.Empty(t, c.DatabaseURL)
		require.Equal(t, config.RoleAll, c.Role)
		require.Equal(t, "riverbeat", c.Schema)
	})
}

func TestLoadValues(t *testing.T) {
	t.Parallel()

	c, warnings, err := load([]string{
		"DATABASE_URL=postgres://app:secret@a:5432,b:5433/app?target_session_attrs=primary",
		"RIVERBEAT_SCHEMA=_beat2",
		"RIVERBEAT_LISTEN=[::1]:0",
		"RIVERBEAT_METRICS_LISTEN=:9090",
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://otel:4318",
		"RIVERBEAT_TRACES_RATIO=0.25",
		"RIVERBEAT_DATA_DIR=/srv/beat",
		"RIVERBEAT_ROLE=worker",
		"RIVERBEAT_MIGRATE=true",
		"RIVERBEAT_INSECURE_NO_AUTH=1",
		"RIVERBEAT_ADMIN_KEY=a-key-of-twenty-chars",
		"RIVERBEAT_TIMEZONE=Asia/Tokyo",
		"RIVERBEAT_ENVIRONMENT=prod-1",
		"RIVERBEAT_QUEUES=default=100, slow=5",
		"RIVERBEAT_RUN_RETENTION=400d",
		"RIVERBEAT_SHUTDOWN_GRACE=1m30s",
		"RIVERBEAT_LOG_LEVEL=WARN",
		"RIVERBEAT_LOG_FORMAT=json",
		"RIVERBEAT_MAX_CONNECTIONS=4",
		"RIVERBEAT_BODY_LIMIT=512KiB",
		"RIVERBEAT_REQUESTS_PER_SECOND=50",
		"RIVERBEAT_TRUSTED_PROXIES=10.1.2.3/8, ::1",
		"RIVERBEAT_SECRETS=a.b-c_1=env:API_KEY, db=file:/run/secrets/a,b=env:x",
		"RIVERBEAT_COMMANDS=/etc/commands.json",
		"RIVERBEAT_HTTP_NETWORKS=::ffff:10.1.2.3/104,fd00::/8",
		"RIVERBEAT_ALERT_NETWORKS=127.0.0.1",
		"RIVERBEAT_JQUANTS_BASE_URL=http://[::1]:9",
		"RIVERBEAT_JQUANTS_API_KEY=a-key",
		"RIVERBEAT_JQUANTS_REQUESTS_PER_MINUTE=120",
		"PATH=/bin",
		"no equals sign",
	}, "", nil)
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Equal(t, config.Config{
		DatabaseURL:       "postgres://app:secret@a:5432,b:5433/app?target_session_attrs=primary",
		Schema:            "_beat2",
		Listen:            "[::1]:0",
		MetricsListen:     ":9090",
		TracesEndpoint:    "https://otel:4318",
		TracesRatio:       0.25,
		DataDir:           "/srv/beat",
		Role:              config.RoleWorker,
		Migrate:           true,
		InsecureNoAuth:    true,
		AdminKey:          "a-key-of-twenty-chars",
		Timezone:          "Asia/Tokyo",
		Environment:       "prod-1",
		Queues:            map[string]int{"default": 100, "slow": 5},
		ShutdownGrace:     90 * time.Second,
		RunRetention:      400 * 24 * time.Hour,
		LogLevel:          slog.LevelWarn,
		LogFormat:         config.LogJSON,
		MaxConnections:    4,
		BodyLimit:         512 << 10,
		RequestsPerSecond: 50,
		TrustedProxies:    []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")},

		Secrets:      map[string]config.SecretSource{"a.b-c_1": {Variable: "API_KEY"}, "db": {File: "/run/secrets/a"}, "b": {Variable: "x"}},
		CommandsFile: "/etc/commands.json",
		HTTPNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},

		AlertNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},

		JQuantsBaseURL: "http://[::1]:9", JQuantsAPIKey: "a-key", JQuantsRequestsPerMinute: 120,
	}, c)
}

// What the list of settings says is the default must be a value that can be
// written, and what get shows must be read back as the same.
func TestShownValuesCanBeRead(t *testing.T) {
	t.Parallel()

	want, _, err := load(nil, "", map[string]string{"queues": "b=2,a=1", "body-limit": "3MiB"})
	require.NoError(t, err)
	var environ []string
	for _, attr := range want.LogValue().Group() {
		environ = append(environ, attr.Key+"="+attr.Value.String())
	}
	require.Len(t, environ, len(config.Settings()))
	got, warnings, err := load(environ, "", nil)
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Equal(t, want, got)
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()

	const long = "a234567890123456789012345678901234567890123456x" // 47 characters
	for _, tt := range []struct{ entry, want string }{
		{"RIVERBEAT_SHUTDOWN_GRACE=abc", `RIVERBEAT_SHUTDOWN_GRACE: "abc" is not a duration such as 10s`},
		{"RIVERBEAT_SHUTDOWN_GRACE=10", `RIVERBEAT_SHUTDOWN_GRACE: "10" is not a duration such as 10s`},
		{"RIVERBEAT_SHUTDOWN_GRACE=-1s", `RIVERBEAT_SHUTDOWN_GRACE: "-1s" is not a duration from 0s to 1h`},
		{"RIVERBEAT_SHUTDOWN_GRACE=2h", `RIVERBEAT_SHUTDOWN_GRACE: "2h" is not a duration from 0s to 1h`},
		{"RIVERBEAT_RUN_RETENTION=6d", `RIVERBEAT_RUN_RETENTION: "6d" is not a time such as 90d, at least 7d, or forever`},
		{"RIVERBEAT_SCHEMA=Beat", `RIVERBEAT_SCHEMA: "Beat" is not a schema name of lower-case letters, digits and _, at most 46 characters, not beginning with a digit or pg_`},
		{"RIVERBEAT_SCHEMA=" + long, `RIVERBEAT_SCHEMA: "` + long + `" is not`},
		{"RIVERBEAT_SCHEMA=1beat", `RIVERBEAT_SCHEMA: "1beat" is not`},
		{"RIVERBEAT_SCHEMA=pg_beat", `RIVERBEAT_SCHEMA: "pg_beat" is not`},
		{"RIVERBEAT_LISTEN=8080", `RIVERBEAT_LISTEN: "8080" is not an address such as 127.0.0.1:8080`},
		{"RIVERBEAT_LISTEN=localhost:http", `RIVERBEAT_LISTEN: "localhost:http" is not`},
		{"RIVERBEAT_LISTEN=:65536", `RIVERBEAT_LISTEN: ":65536" is not`},
		{"RIVERBEAT_METRICS_LISTEN=9090", `RIVERBEAT_METRICS_LISTEN: "9090" is not an address such as 127.0.0.1:9090`},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=otel:4318", "OTEL_EXPORTER_OTLP_ENDPOINT: is not a URL such as http://127.0.0.1:4318"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://me:secret@otel:4318", "OTEL_EXPORTER_OTLP_ENDPOINT: is not a URL"},
		{"RIVERBEAT_TRACES_RATIO=half", `RIVERBEAT_TRACES_RATIO: "half" is not a number such as 0.1`},
		{"RIVERBEAT_TRACES_RATIO=1.5", `RIVERBEAT_TRACES_RATIO: "1.5" is not a number from 0 to 1`},
		{"RIVERBEAT_TRACES_RATIO=NaN", `RIVERBEAT_TRACES_RATIO: "NaN" is not a number from 0 to 1`},
		{"RIVERBEAT_ROLE=boss", `RIVERBEAT_ROLE: "boss" is not all, api or worker`},
		{"RIVERBEAT_MIGRATE=yes", `RIVERBEAT_MIGRATE: "yes" is not true or false`},
		{"RIVERBEAT_INSECURE_NO_AUTH=y", `RIVERBEAT_INSECURE_NO_AUTH: "y" is not true or false`},
		{"RIVERBEAT_TIMEZONE=Tokyo", `RIVERBEAT_TIMEZONE: "Tokyo" is not a time zone such as Asia/Tokyo`},
		{"RIVERBEAT_TIMEZONE=Local", `RIVERBEAT_TIMEZONE: "Local" is not`},
		{"RIVERBEAT_ENVIRONMENT=a b", `RIVERBEAT_ENVIRONMENT: "a b" is not a label`},
		{"RIVERBEAT_SECRETS=a", `RIVERBEAT_SECRETS: is not a list such as stripe=env:STRIPE_KEY`},
		{"RIVERBEAT_SECRETS=a=hunter2", `RIVERBEAT_SECRETS: is not a list`},
		{"RIVERBEAT_SECRETS=a=env:", `is not a list`},
		{"RIVERBEAT_SECRETS=a=env:B,a=env:C", `is not a list`},
		{"RIVERBEAT_SECRETS=a b=env:B", `is not a list`},
		{"RIVERBEAT_HTTP_NETWORKS=10.0.0.0/99", `RIVERBEAT_HTTP_NETWORKS: "10.0.0.0/99" is not a list such as 10.0.0.0/8`},
		{"RIVERBEAT_QUEUES=default", `RIVERBEAT_QUEUES: "default" is not a list such as default=100,slow=5`},
		{"RIVERBEAT_QUEUES=a=1,a=2", `RIVERBEAT_QUEUES: "a=1,a=2" is not`},
		{"RIVERBEAT_QUEUES=a=0", `RIVERBEAT_QUEUES: "a=0" is not`},
		{"RIVERBEAT_QUEUES=A=1", `RIVERBEAT_QUEUES: "A=1" is not`},
		{"RIVERBEAT_QUEUES=a=1,", `RIVERBEAT_QUEUES: "a=1," is not`},
		{"RIVERBEAT_LOG_LEVEL=loud", `RIVERBEAT_LOG_LEVEL: "loud" is not debug, info, warn or error`},
		{"RIVERBEAT_LOG_FORMAT=xml", `RIVERBEAT_LOG_FORMAT: "xml" is not text or json`},
		{"RIVERBEAT_MAX_CONNECTIONS=many", `RIVERBEAT_MAX_CONNECTIONS: "many" is not a whole number such as 20`},
		{"RIVERBEAT_MAX_CONNECTIONS=3", `RIVERBEAT_MAX_CONNECTIONS: "3" is not a number from 4 to 1000`},
		{"RIVERBEAT_BODY_LIMIT=1MB", `RIVERBEAT_BODY_LIMIT: "1MB" is not a number of bytes such as 1048576 or 1MiB`},
		{"RIVERBEAT_BODY_LIMIT=99999999999GiB", `RIVERBEAT_BODY_LIMIT: "99999999999GiB" is not`},
		{"RIVERBEAT_BODY_LIMIT=-1", `RIVERBEAT_BODY_LIMIT: "-1" is not a size from 1KiB to 1GiB`},
		{"DATABASE_URL=mysql://root:secret@h/d", "DATABASE_URL: is not a URL such as postgres://user:password@host:5432/database"},
		{"DATABASE_URL=postgres://u:sec%ret@h/d", "DATABASE_URL: is not a URL such as"},
		{"DATABASE_URL=host=h password=secret", "DATABASE_URL: is not a URL such as"},
	} {
		t.Run(tt.entry, func(t *testing.T) {
			t.Parallel()

			_, _, err := load([]string{tt.entry}, "", nil)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}

	t.Run("NamesTheFlag", func(t *testing.T) {
		t.Parallel()

		_, _, err := load(nil, "", map[string]string{"shutdown-grace": "abc"})
		require.EqualError(t, err, `RIVERBEAT_SHUTDOWN_GRACE (--shutdown-grace): "abc" is not a duration such as 10s`)
	})
	t.Run("NamesTheLine", func(t *testing.T) {
		t.Parallel()

		file := settingsFile(t, "# ours\n\nRIVERBEAT_MIGRATE=maybe\n")
		_, _, err := load(nil, file, nil)
		require.EqualError(t, err, `RIVERBEAT_MIGRATE (`+file+`:3): "maybe" is not true or false`)
	})
	t.Run("AllAtOnce", func(t *testing.T) {
		t.Parallel()

		file := settingsFile(t, "RIVERBEAT_LISTENS=:1\nRIVERBEAT_ADMIN_KEY_FILE=/nowhere/key\nRIVERBEAT_SCHEMA=beat\n")
		r, err := config.Load([]string{"RIVERBEAT_ROLE=boss", "RIVERBEAT_MIGRATE=maybe"}, file, nil)
		for _, name := range []string{"RIVERBEAT_ROLE", "RIVERBEAT_MIGRATE", "RIVERBEAT_LISTENS", "RIVERBEAT_ADMIN_KEY_FILE"} {
			require.ErrorContains(t, err, name)
		}
		require.Equal(t, "beat", r.Config.Schema, "what could be used")
	})
	t.Run("UnknownFlag", func(t *testing.T) {
		t.Parallel()

		_, _, err := load(nil, "", map[string]string{"lisen": "x"})
		require.ErrorContains(t, err, "--lisen")
	})
	t.Run("KeyHasNoFlag", func(t *testing.T) {
		t.Parallel()

		_, _, err := load(nil, "", map[string]string{"": "a-key-of-twenty-chars"})
		require.Error(t, err)
	})
}

// A secret may stand in a file of its own, which the environment or the settings file
// names.
func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()

	const key = "hunter2-hunter2-hunter2"
	write := func(t *testing.T, content string) string {
		t.Helper()
		return settingsFile(t, content)
	}

	t.Run("Values", func(t *testing.T) {
		t.Parallel()

		url := write(t, "postgres://app:hunter2@db/app\r\n")
		settings := write(t, "RIVERBEAT_ADMIN_KEY_FILE="+write(t, key+"\n")+"\nDATABASE_URL=postgres://other/one\n")
		r, err := config.Load([]string{"DATABASE_URL_FILE= " + url, "DATABASE_URL="}, settings, nil)
		require.NoError(t, err)
		require.Empty(t, r.Unknown)
		require.Empty(t, r.Warnings)
		require.Equal(t, config.DatabaseURL("postgres://app:hunter2@db/app"), r.Config.DatabaseURL)
		require.Equal(t, config.Secret(key), r.Config.AdminKey)
		require.Equal(t, "environment, "+url, r.Places["DATABASE_URL"])
		require.Regexp(t, "^"+settings+":1, .+", r.Places["RIVERBEAT_ADMIN_KEY"])
	})
	t.Run("EmptyIsDefault", func(t *testing.T) {
		t.Parallel()

		r, err := config.Load([]string{"RIVERBEAT_ADMIN_KEY_FILE="}, write(t, "RIVERBEAT_ADMIN_KEY="+key), nil)
		require.NoError(t, err)
		require.Empty(t, r.Config.AdminKey)
	})
	t.Run("FlagFirst", func(t *testing.T) {
		t.Parallel()

		c, _, err := load([]string{"DATABASE_URL_FILE=/nowhere/url"}, "", map[string]string{"database-url": "postgres://h/d"})
		require.NoError(t, err)
		require.Equal(t, config.DatabaseURL("postgres://h/d"), c.DatabaseURL)
	})
	t.Run("OnlySecrets", func(t *testing.T) {
		t.Parallel()

		_, warnings, err := load([]string{"RIVERBEAT_SCHEMA_FILE=/nowhere/schema"}, "", nil)
		require.NoError(t, err)
		require.Equal(t, []string{"RIVERBEAT_SCHEMA_FILE"}, warnings)
	})

	dir := t.TempDir()
	for name, tt := range map[string]struct{ environ, setting, want string }{
		"Missing":   {"DATABASE_URL_FILE=" + dir + "/none", "DATABASE_URL_FILE", "open " + dir + "/none: no such file"},
		"Directory": {"DATABASE_URL_FILE=" + dir, "DATABASE_URL_FILE", "read " + dir + ": is a directory"},
		"Empty":     {"RIVERBEAT_ADMIN_KEY_FILE=" + write(t, " \n"), "RIVERBEAT_ADMIN_KEY_FILE", "is empty"},
		"TooLarge":  {"RIVERBEAT_ADMIN_KEY_FILE=" + write(t, strings.Repeat("hunter2-", 20_000)), "RIVERBEAT_ADMIN_KEY_FILE", "is larger than 131072 bytes"},
		"Bad":       {"RIVERBEAT_ADMIN_KEY_FILE=" + write(t, "hunter2"), "RIVERBEAT_ADMIN_KEY", "is not a key of at least 16"},
		"Lines":     {"RIVERBEAT_ADMIN_KEY_FILE=" + write(t, key+"\n"+key), "RIVERBEAT_ADMIN_KEY", "is not a key of at least 16"},
		"Both":      {"RIVERBEAT_ADMIN_KEY_FILE=" + write(t, key) + " RIVERBEAT_ADMIN_KEY=" + key, "RIVERBEAT_ADMIN_KEY", "is set beside RIVERBEAT_ADMIN_KEY_FILE; set one of them"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			entries := strings.Fields(tt.environ)
			_, _, err := load(entries, "", nil)
			require.ErrorContains(t, err, tt.want)
			require.Regexp(t, "^"+tt.setting+"[: ]", err.Error())
			require.NotContains(t, err.Error(), "hunter")

			_, _, err = load(nil, write(t, strings.Join(entries, "\n")), nil)
			require.ErrorContains(t, err, tt.want)
			require.Regexp(t, "^"+tt.setting+` \(\S+/riverbeat\.env:\d.*\): `, err.Error())
			require.NotContains(t, err.Error(), "hunter")
		})
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()

	file := settingsFile(t, "# ours\nRIVERBEAT_SCHEMA=beat\nRIVERBEAT_ROLE=api\n")
	r, err := config.Load([]string{"RIVERBEAT_ROLE=worker", "RIVERBEAT_TIMEZONE="}, file, map[string]string{"listen": ":1"})
	require.NoError(t, err)
	require.Len(t, r.Places, len(config.Settings()))
	for name, place := range map[string]string{
		"RIVERBEAT_SCHEMA": file + ":2", "RIVERBEAT_ROLE": "environment", "RIVERBEAT_LISTEN": "--listen",
		"RIVERBEAT_TIMEZONE": "default", "DATABASE_URL": "default",
	} {
		require.Equal(t, place, r.Places[name], name)
	}
}

func TestUnknownNames(t *testing.T) {
	t.Parallel()

	t.Run("EnvironmentTells", func(t *testing.T) {
		t.Parallel()

		r, err := config.Load([]string{"RIVERBEAT_LISTENS=x", "RIVERBEAT_AAA=secret", "HOME=/h", "RIVERBEAT_CONFIG="}, "", nil)
		require.NoError(t, err)
		require.Equal(t, []string{"RIVERBEAT_AAA", "RIVERBEAT_LISTENS"}, r.Unknown)
		require.Empty(t, r.Warnings)
	})
	t.Run("FileRefuses", func(t *testing.T) {
		t.Parallel()

		file := settingsFile(t, "RIVERBEAT_LISTEN=:1\nRIVERBEAT_LISTENS=:2\n")
		_, _, err := load(nil, file, nil)
		require.EqualError(t, err, file+":2: RIVERBEAT_LISTENS is not a setting")
	})
}

func TestFile(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, content, schema, want string }{
		{"Empty", "", "riverbeat", ""},
		{"CommentsAndBlankLines", "# one\n\n  # two\nRIVERBEAT_SCHEMA=beat\n", "beat", ""},
		{"NoNewlineAtEnd", "RIVERBEAT_SCHEMA=beat", "beat", ""},
		{"WindowsLines", "\ufeffRIVERBEAT_SCHEMA=beat\r\nRIVERBEAT_ROLE=api\r\n", "beat", ""},
		{"Spaces", "  RIVERBEAT_SCHEMA = beat  \n", "beat", ""},
		{"Export", "export RIVERBEAT_SCHEMA=beat\n", "beat", ""},
		{"DoubleQuotes", "RIVERBEAT_SCHEMA=\"beat\"\n", "beat", ""},
		{"SingleQuotes", "RIVERBEAT_SCHEMA='beat'\n", "beat", ""},
		{"EmptyQuotes", "RIVERBEAT_SCHEMA=\"\"\n", "riverbeat", ""},
		{"HashIsPartOfValue", "RIVERBEAT_SCHEMA=beat # no\n", "", `"beat # no" is not a schema name`},
		{"NoEqualsSign", "RIVERBEAT_SCHEMA beat\n", "", ":1: is not of the form KEY=value"},
		{"NoKey", "\n=beat\n", "", ":2: is not of the form KEY=value"},
		{"Twice", "RIVERBEAT_SCHEMA=a\nRIVERBEAT_SCHEMA=b\n", "", ":2: RIVERBEAT_SCHEMA stands in line 1 already"},
		{"NamesItself", "RIVERBEAT_CONFIG=x\n", "", ":1: RIVERBEAT_CONFIG names this file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c, warnings, err := load(nil, settingsFile(t, tt.content), nil)
			if tt.want != "" {
				require.ErrorContains(t, err, tt.want)
				return
			}
			require.NoError(t, err)
			require.Empty(t, warnings)
			require.Equal(t, tt.schema, c.Schema)
		})
	}

	t.Run("ForeignKeysWarn", func(t *testing.T) {
		t.Parallel()

		file := settingsFile(t, "DATABASE_URL=postgres://h/d\nOTHER=x\n")
		c, warnings, err := load(nil, file, nil)
		require.NoError(t, err)
		require.Equal(t, config.DatabaseURL("postgres://h/d"), c.DatabaseURL)
		require.Equal(t, []string{file + ":2: OTHER is not a setting and is ignored"}, warnings)
	})
	t.Run("Missing", func(t *testing.T) {
		t.Parallel()

		_, _, err := load(nil, filepath.Join(t.TempDir(), "none.env"), nil)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, "RIVERBEAT_CONFIG: ")
	})
}

func TestValidateNamesTheVariable(t *testing.T) {
	t.Parallel()

	c, _, err := load(nil, "", nil)
	require.NoError(t, err)
	c.Queues = map[string]int{"default": 0}
	c.DatabaseURL = "mysql://root:secret@h/d"
	err = c.Validate()
	require.ErrorContains(t, err, `RIVERBEAT_QUEUES: "default=0" is not`)
	require.ErrorContains(t, err, "DATABASE_URL: is not")
	require.NotContains(t, err.Error(), "secret")
}

func TestNeedDatabase(t *testing.T) {
	t.Parallel()

	require.ErrorContains(t, config.Config{}.NeedDatabase(), "DATABASE_URL: is not set")
	require.NoError(t, config.Config{DatabaseURL: "postgres://h/d"}.NeedDatabase())
}

func TestRole(t *testing.T) {
	t.Parallel()

	require.True(t, config.RoleAll.ServesAPI() && config.RoleAll.Works())
	require.True(t, config.RoleAPI.ServesAPI() && !config.RoleAPI.Works())
	require.True(t, !config.RoleWorker.ServesAPI() && config.RoleWorker.Works())
}

func TestFromEnvironment(t *testing.T) {
	t.Setenv("RIVERBEAT_ENVIRONMENT", "from_process")
	r, err := config.FromEnvironment("", nil)
	require.NoError(t, err)
	require.Equal(t, "from_process", r.Config.Environment)
}
