package command

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/config"
	"riverbeat/internal/pgtest"
)

// called runs a command, and gives its exit code and all it has said.
func called(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), nil, args, &out, &out)
	return code, out.String()
}

// written is a file with the content.
func written(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

func TestConfigShow(t *testing.T) {
	t.Parallel()
	key := written(t, "key", "hunter2-hunter2-hunter2\n")
	settings := written(t, "riverbeat.env", "# ours\nDATABASE_URL=postgres://app:hunter3@db/app?sslpassword=hunter4\n"+
		"RIVERBEAT_ADMIN_KEY_FILE="+key+"\nRIVERBEAT_JQUANTS_API_KEY=hunter5\nRIVERBEAT_SECRETS=stripe=env:STRIPE\n")

	code, out := called(t, "config", "show", "--config", settings, "--role", "worker", "-o", "json")
	require.Zero(t, code, out)
	var shown []shownSetting
	require.NoError(t, json.Unmarshal([]byte(out), &shown))
	require.Len(t, shown, len(config.Settings()))
	for _, want := range []shownSetting{
		{"DATABASE_URL", "postgres://app:xxxxx@db/app?sslpassword=xxxxx", settings + ":2"},
		{"RIVERBEAT_ADMIN_KEY", "xxxxx", settings + ":3, " + key},
		{"RIVERBEAT_JQUANTS_API_KEY", "xxxxx", settings + ":4"},
		{"RIVERBEAT_SECRETS", "stripe=env:STRIPE", settings + ":5"},
		{"RIVERBEAT_ROLE", "worker", "--role"},
		{"RIVERBEAT_TIMEZONE", "UTC", "default"},
	} {
		require.Contains(t, shown, want)
	}
	require.NotContains(t, out, "hunter")

	code, out = called(t, "config", "show", "--config", settings)
	require.Zero(t, code, out)
	require.Regexp(t, `(?m)^SETTING +VALUE +FROM$`, out)
	require.Regexp(t, `(?m)^RIVERBEAT_ADMIN_KEY +xxxxx +\S+:3, `+key+`$`, out)
	require.NotContains(t, out, "hunter")

	code, out = called(t, "config", "show", "-o", "yaml")
	require.Equal(t, 2, code)
	require.Contains(t, out, "neither table nor json")
	code, out = called(t, "config", "show", "--config", written(t, "bad.env", "RIVERBEAT_ROLE=boss\n"))
	require.Equal(t, 2, code)
	require.Contains(t, out, "bad.env:1")
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	secret := written(t, "secret", "hunter2-hunter2\n")
	commands := written(t, "commands.json", `{"report": {"argv": ["/bin/true"], "environment": {"TOKEN": {"$secret": "token"}}}}`)
	for name, test := range map[string]struct {
		settings string
		code     int
		says     []string
	}{
		"Right": {
			"DATABASE_URL=postgres://h/d\nRIVERBEAT_SECRETS=token=file:" + secret + "\nRIVERBEAT_COMMANDS=" + commands, 0,
			[]string{"the settings are right, for the role all"},
		},
		"ForeignKey": {
			"DATABASE_URL=postgres://h/d\nOTHER=x", 0,
			[]string{"warning: ", ":2: OTHER is not a setting and is ignored", "the settings are right"},
		},
		"NoDatabase": {"", 1, []string{"DATABASE_URL: is not set"}},
		"URL":        {"DATABASE_URL=postgres://app:hunter3@h/d?sslmode=never", 1, []string{"sslmode is invalid"}},
		"UnknownKey": {"DATABASE_URL=postgres://h/d\nRIVERBEAT_LISTENS=x", 1, []string{":2: RIVERBEAT_LISTENS is not a setting"}},
		"AllAtOnce": {
			"RIVERBEAT_LISTENS=x\nRIVERBEAT_TIMEZONE=Tokyo\nRIVERBEAT_ADMIN_KEY_FILE=/nowhere/key\nRIVERBEAT_SECRETS=a=env:RIVERBEAT_TEST_NO_SUCH,b=file:/nowhere/b\nRIVERBEAT_COMMANDS=" + commands, 1,
			[]string{
				":1: RIVERBEAT_LISTENS is not a setting", `:2): "Tokyo" is not a time zone`, ":3): open /nowhere/key: no such file",
				`the secret "a": the environment variable RIVERBEAT_TEST_NO_SUCH is not set`, `the secret "b": open /nowhere/b`,
				`command "report": this node has no secret "token"`,
			},
		},
		"NoCommands": {"DATABASE_URL=postgres://h/d\nRIVERBEAT_COMMANDS=/nowhere/commands.json", 1, []string{"read the commands: open /nowhere/commands.json"}},
		// Only nodes that work need secrets and commands.
		"API": {
			"RIVERBEAT_ROLE=api\nDATABASE_URL=postgres://h/d\nRIVERBEAT_SECRETS=b=file:/nowhere/b\nRIVERBEAT_COMMANDS=/nowhere/commands.json", 0,
			[]string{"for the role api"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out := called(t, "config", "check", "--config", written(t, "riverbeat.env", test.settings))
			require.Equal(t, test.code, code, out)
			for _, says := range test.says {
				require.Contains(t, out, says)
			}
			require.NotContains(t, out, "hunter")
		})
	}

	code, out := called(t, "config", "check", "--role", "boss", "--database-url", "postgres://h/d")
	require.Equal(t, 1, code)
	require.Contains(t, out, "(--role)")
	code, _ = called(t, "config", "check", "--nonsense")
	require.Equal(t, 2, code)
}

func TestConfigCheckRefusesUnknownVariables(t *testing.T) {
	t.Setenv("RIVERBEAT_LISTENS", "hunter2")
	code, out := called(t, "config", "check", "--database-url", "postgres://h/d")
	require.Equal(t, 1, code)
	require.Equal(t, "riverbeat: RIVERBEAT_LISTENS: is not a setting\n", out)
}

func TestHealth(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	address := freeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	code, out := called(t, "health", "--listen", address)
	require.Equal(t, 1, code)
	require.Contains(t, out, "refused")

	node := start(t, "serve", "--database-url", d.URL, "--listen", address)
	node.find(t, `(rb_\S+)`)
	require.Eventually(t, func() bool {
		code, out = called(t, "health", "--listen", "0.0.0.0:"+port)
		return code == 0
	}, 30*time.Second, 50*time.Millisecond)
	for _, host := range []string{"", "[::]", "127.0.0.1"} {
		code, out = called(t, "health", "--listen", host+":"+port)
		require.Zero(t, code, out)
	}

	// It answers, and is not ready: its database is somebody else's.
	_, err := d.Pool.Exec(t.Context(), "UPDATE riverbeat.installation SET environment = 'elsewhere'")
	require.NoError(t, err)
	code, out = called(t, "health", "--listen", address)
	require.Equal(t, 1, code)
	require.Contains(t, out, "elsewhere")
	require.Zero(t, node.stop(), node.stderr)

	code, out = called(t, "health", "--listen", "127.0.0.1:0")
	require.Equal(t, 2, code)
	require.Contains(t, out, "any free port")
}

// A unit of Type=notify has started when its node is ready.
func TestServeTellsSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer func() { _ = systemd.Close() }()
	require.NoError(t, systemd.SetReadDeadline(time.Now().Add(30*time.Second)))
	t.Setenv("NOTIFY_SOCKET", socket)

	address := freeAddress(t)
	node := start(t, "serve", "--database-url", pgtest.DB(t).URL, "--listen", address, "--insecure-no-auth")
	said := make([]byte, 100)
	n, err := systemd.Read(said)
	require.NoError(t, err, node.stderr)
	require.Equal(t, "READY=1", string(said[:n]))
	code, body := get(t, "http://"+address+"/readyz")
	require.Equal(t, http.StatusOK, code, body)
}
