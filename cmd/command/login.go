package command

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"riverbeat/internal/client"
	"riverbeat/internal/config"
)

func newLogin() *cobra.Command {
	c := &cobra.Command{
		Use:   "login",
		Short: "Keep a server and its API key for the commands that use its API",
		Long: "Asks for the API key, or reads it from standard input, tries it, and keeps it\n" +
			"in a file that only you can read. From then on this is the server of the\n" +
			"commands that use an API, unless --server names another; each key is shown to\n" +
			"its own server only.\n\n" +
			"An empty key is for a server that asks for none.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, logins, server, err := findServer(c)
			if err != nil {
				return err
			}
			if flagOf(c, "key-file") == "" {
				if server.Key, err = askForKey(c, server.Server); err != nil {
					return err
				}
			}
			api, err := client.New(server)
			if err != nil {
				return usageError{err}
			}
			there, err := client.Call[installationState](c.Context(), api, client.Request{Path: installationPath})
			if err != nil {
				return err
			}
			logins.Server = server.Server
			logins.Servers[server.Server] = config.Login{Key: server.Key, PlainHTTP: server.PlainHTTP}
			if err := cfg.SaveLogins(logins); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.ErrOrStderr(), "Logged in at %s, environment %s.\n", api, printable(there.Environment))
			return err
		},
	}
	addServer(c)
	return c
}

// askForKey asks for a key, without showing what is typed. What is no terminal is read.
func askForKey(c *cobra.Command, server string) (string, error) {
	from, ok := c.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(from.Fd())) {
		key, err := readKey(c.InOrStdin())
		if errors.Is(err, errNoKey) {
			return "", nil
		}
		return key, err
	}
	before, err := term.GetState(int(from.Fd()))
	if err != nil {
		return "", err
	}
	_, _ = fmt.Fprintf(c.ErrOrStderr(), "API key for %s: ", server)
	defer func() { _, _ = fmt.Fprintln(c.ErrOrStderr()) }()
	type typed struct {
		key []byte
		err error
	}
	answer := make(chan typed, 1)
	go func() {
		key, err := term.ReadPassword(int(from.Fd()))
		answer <- typed{key, err}
	}()
	select {
	case <-c.Context().Done():
		return "", errors.Join(c.Context().Err(), term.Restore(int(from.Fd()), before))
	case typed := <-answer:
		return strings.TrimSpace(string(typed.key)), typed.err
	}
}

func newLogout() *cobra.Command {
	c := &cobra.Command{
		Use:   "logout",
		Short: "Forget the API key of a server",
		Long: "Removes what 'riverbeat login' kept of a server: of --server, or of the one that\n" +
			"commands use. The key itself stays valid; 'riverbeat keys revoke' ends it.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, logins, server, err := findServer(c)
			if err != nil {
				return err
			}
			if _, ok := logins.Servers[server.Server]; !ok {
				_, err := fmt.Fprintf(c.ErrOrStderr(), "You are not logged in at %s.\n", server.Server)
				return err
			}
			delete(logins.Servers, server.Server)
			if logins.Server == server.Server {
				logins.Server = ""
			}
			if err := cfg.SaveLogins(logins); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.ErrOrStderr(), "Logged out at %s.\n", server.Server)
			return err
		},
	}
	addSettings(c, "server")
	return c
}
