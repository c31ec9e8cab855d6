package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// DefaultServer is the server of commands if no other is named: that of 'riverbeat dev'.
const DefaultServer = "http://127.0.0.1:8080"

// Logins are the servers that somebody has logged in at.
type Logins struct {
	// Server is where he did last; "" if nowhere.
	Server string `json:"server"`
	// Servers are all of them, by address. Each key is shown to its own server only.
	Servers map[string]Login `json:"servers"`
}

// Login is what is kept of one server.
type Login struct {
	// Key is the API key; "" if the server needs none.
	Key string `json:"key"`
	// PlainHTTP allows that the key travels unencrypted.
	PlainHTTP bool `json:"plain_http,omitempty"`
}

// loginFile is where logins are kept.
func (c *Config) loginFile() (string, error) {
	if c.LoginFile != "" {
		return c.LoginFile, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("where are logins kept? Set RIVERBEAT_LOGIN_FILE: %w", err)
	}
	return filepath.Join(dir, "riverbeat", "login.json"), nil
}

// Logins reads what SaveLogins wrote; there are none if it never did. A file that others
// can read is an error: the keys in it may be known to them.
func (c *Config) Logins() (Logins, error) {
	none := Logins{Servers: map[string]Login{}}
	name, err := c.loginFile()
	if err != nil {
		return none, nil // a user without a home has logged in nowhere
	}
	file, err := os.Open(name) //nolint:gosec // whoever starts the program names the file
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return none, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return none, fmt.Errorf("%s has API keys in it and can be read by others (mode %04o); say 'chmod 600 %s', and think about new keys", name, mode, name)
	}
	found := Logins{}
	if err := json.NewDecoder(file).Decode(&found); err != nil {
		return none, fmt.Errorf("%s cannot be read; remove it and log in again: %w", name, err)
	}
	if found.Servers == nil {
		found.Servers = none.Servers
	}
	return found, nil
}

// SaveLogins keeps logins for later, where only this user can read them. Whoever reads
// at the same time reads all of the old ones or all of the new ones.
func (c *Config) SaveLogins(l Logins) (err error) {
	name, err := c.loginFile()
	if err != nil {
		return err
	}
	content, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, ".login-*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if _, err := file.Write(append(content, '\n')); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}

// Terminal tells what the environment says of the terminal: whether it can do more than
// print lines, and whether colours are wanted (NO_COLOR, see no-color.org).
func Terminal() (capable, colours bool) {
	return os.Getenv("TERM") != "dumb", os.Getenv("NO_COLOR") == ""
}
