package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/config"
)

func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()

	c, _, err := load(nil, "", map[string]string{
		"database-url": "postgres://app:hunter2@db:5432/app?sslmode=require&sslpassword=hunter3",
	})
	require.NoError(t, err)
	c.AdminKey = "hunter4"

	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "config", c, "url", c.DatabaseURL, "key", c.AdminKey)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "config", c, "url", c.DatabaseURL, "key", c.AdminKey)
	marshalled, err := json.Marshal(c)
	require.NoError(t, err)

	for name, text := range map[string]string{
		"Log":    log.String(),
		"JSON":   string(marshalled),
		"Value":  fmt.Sprintf("%v", c),
		"Fields": fmt.Sprintf("%+v %+v", c, &c),
		"Go":     fmt.Sprintf("%#v", c),
		"String": fmt.Sprintf("%s %q %v", c.DatabaseURL, c.DatabaseURL, c.AdminKey),
	} {
		require.NotContains(t, text, "hunter", name)
		require.Contains(t, text, "postgres://app:xxxxx@db:5432/app?sslmode=require", name)
	}
}

func TestDatabaseURLString(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ url, want string }{
		{"", ""},
		{"postgres://h/d", "postgres://h/d"},
		{"postgres://u@h/d", "postgres://u@h/d"},
		{"postgres://u:p@h:1,i:2/d", "postgres://u:xxxxx@h:1,i:2/d"},
		{"postgres:///d?host=/run&password=p&user=u", "postgres:///d?host=/run&password=xxxxx&user=u"},
		{"postgres:///d?pass%77ord=p", "postgres:///d?pass%77ord=xxxxx"},
		{"postgres://u:p%zz@h/d", "xxxxx"},
	} {
		require.Equal(t, tt.want, config.DatabaseURL(tt.url).String())
	}
}

func TestSecretSources(t *testing.T) {
	t.Setenv("RIVERBEAT_TEST_SECRET", " value\n")
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("first\nsecond\r\n"), 0o600))
	for source, want := range map[config.SecretSource]string{
		{Variable: "RIVERBEAT_TEST_SECRET"}: " value\n",
		{File: file}:                        "first\nsecond",
	} {
		value, err := source.Read()
		require.NoError(t, err)
		require.Equal(t, want, value)
	}
	_, err := config.SecretSource{Variable: "RIVERBEAT_TEST_NOT_SET"}.Read()
	require.ErrorContains(t, err, "RIVERBEAT_TEST_NOT_SET is not set")
	_, err = config.SecretSource{File: file + ".none"}.Read()
	require.ErrorIs(t, err, os.ErrNotExist)
}
