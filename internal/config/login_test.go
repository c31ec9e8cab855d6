package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/config"
)

func TestLogins(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "when needed")
	c := config.Config{LoginFile: filepath.Join(dir, "login.json")}
	found, err := c.Logins()
	require.NoError(t, err)
	require.Empty(t, found.Server)

	found.Server = "https://a.example"
	found.Servers["https://a.example"] = config.Login{Key: "rb_a"}
	found.Servers["http://b.example"] = config.Login{Key: "rb_b", PlainHTTP: true}
	for range 2 { // also over one that is there
		require.NoError(t, c.SaveLogins(found))
		again, err := c.Logins()
		require.NoError(t, err)
		require.Equal(t, found, again)
	}
	info, err := os.Stat(c.LoginFile)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1, "nothing else stays")

	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		require.NoError(t, os.Chmod(c.LoginFile, mode))
		_, err = c.Logins()
		require.ErrorContains(t, err, "can be read by others")
		require.ErrorContains(t, err, "chmod 600")
		require.NotContains(t, err.Error(), "rb_")
	}
	require.NoError(t, os.Remove(c.LoginFile))
	require.NoError(t, os.WriteFile(c.LoginFile, []byte(`{"server"`), 0o600))
	_, err = c.Logins()
	require.ErrorContains(t, err, "log in again")
}

// The file lies where programs of the machine keep theirs.
func TestLoginFileOfTheUser(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	var c config.Config
	require.NoError(t, c.SaveLogins(config.Logins{Server: "https://a.example"}))
	require.FileExists(t, filepath.Join(dir, "riverbeat", "login.json"))

	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("HOME", "")
	found, err := c.Logins()
	require.NoError(t, err)
	require.Empty(t, found.Server)
	require.ErrorContains(t, c.SaveLogins(found), "RIVERBEAT_LOGIN_FILE")
}

func TestTerminal(t *testing.T) { //nolint:paralleltest // it sets the environment
	for _, test := range []struct {
		term, noColor    string
		capable, colours bool
	}{{"xterm", "", true, true}, {"xterm", "1", true, false}, {"dumb", "", false, true}} {
		t.Setenv("TERM", test.term)
		t.Setenv("NO_COLOR", test.noColor)
		capable, colours := config.Terminal()
		require.Equal(t, test.capable, capable)
		require.Equal(t, test.colours, colours)
	}
}
