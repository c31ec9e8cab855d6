package command

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"riverbeat/internal/client"
	"riverbeat/internal/config"
)

// addServer gives a command the flags that say which server's API it uses.
func addServer(c *cobra.Command) {
	addSettings(c, "server", "plain-http")
	c.Flags().Var(&word{kind: "file"}, "key-file", "A file with the API key in its first line, instead of RIVERBEAT_API_KEY; - is standard input.")
}

// dial makes the client of a command with addServer, and asks nothing yet.
func dial(c *cobra.Command) (*client.Client, error) {
	_, _, server, err := findServer(c)
	if err != nil {
		return nil, err
	}
	api, err := client.New(server)
	if err != nil {
		return nil, usageError{err}
	}
	return api, nil
}

// findServer finds out which server a command is for and which key is shown to it: what
// its flags say, the environment, the settings file or the logins, in this order. The key
// of a login goes to the server of that login only.
func findServer(c *cobra.Command) (cfg config.Config, logins config.Logins, server client.Config, err error) {
	if cfg, _, err = loadConfig(c); err != nil {
		return cfg, logins, server, err
	}
	if logins, err = cfg.Logins(); err != nil {
		return cfg, logins, server, usageError{err}
	}
	base, err := client.ParseServer(cmp.Or(cfg.Server, logins.Server, config.DefaultServer))
	if err != nil {
		return cfg, logins, server, usageError{err}
	}
	server = client.Config{Server: base.String(), Key: string(cfg.APIKey), PlainHTTP: cfg.PlainHTTP, UserAgent: "riverbeat/" + version}
	if file := c.Flags().Lookup("key-file"); file != nil && file.Changed {
		if server.Key, err = readKeyFile(c, file.Value.String()); err != nil {
			return cfg, logins, server, usageError{fmt.Errorf("--key-file: %w", err)}
		}
	}
	if login := logins.Servers[server.Server]; server.Key == "" {
		server.Key, server.PlainHTTP = login.Key, server.PlainHTTP || login.PlainHTTP
	}
	return cfg, logins, server, nil
}

// readKeyFile reads the key in the first line of a file; - is standard input.
func readKeyFile(c *cobra.Command, name string) (string, error) {
	if name == "-" {
		return readKey(c.InOrStdin())
	}
	file, err := os.Open(name) //nolint:gosec // whoever starts the program names the file
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	return readKey(file)
}

var errNoKey = errors.New("there is no key in the first line")

func readKey(from io.Reader) (string, error) {
	const enough = 4 << 10
	line, err := bufio.NewReader(io.LimitReader(from, enough)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	key := strings.TrimSpace(line)
	if key == "" {
		return "", errNoKey
	}
	return key, nil
}
