package command

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// healthWait is how long a node has to say that it is ready.
const healthWait = 4 * time.Second

func newHealth() *cobra.Command {
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask the node of this machine whether it is ready",
		Long: "Asks /readyz of the address that RIVERBEAT_LISTEN names, as a health check in a\n" +
			"container that has no other program. It exits with 0 if the node is ready, 1 if\n" +
			"it is not or does not answer within four seconds.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, _, err := loadConfig(c)
			if err != nil {
				return err
			}
			address, err := dialled(cfg.Listen)
			if err != nil {
				return usageError{err}
			}
			ctx, cancel := context.WithTimeout(c.Context(), healthWait)
			defer cancel()
			return askReady(ctx, "http://"+address+"/readyz")
		},
	}
	addSettings(c, "listen")
	return c
}

// dialled is where a node that listens on an address can be reached on its machine.
func dialled(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if port == "0" {
		return "", fmt.Errorf("RIVERBEAT_LISTEN: %s takes any free port, so there is none to ask", listen)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // not localhost, which is a name that a container may not know
	}
	return net.JoinHostPort(host, port), nil
}

func askReady(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy of the environment
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		const most = 1 << 10
		body, _ := io.ReadAll(io.LimitReader(response.Body, most))
		return fmt.Errorf("%s answered %s: %s", url, response.Status, body)
	}
	return nil
}
