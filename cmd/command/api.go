package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"riverbeat/internal/client"
)

// apiCommand describes a command that uses the API of a server.
type apiCommand struct {
	use, short, long string
	args             cobra.PositionalArgs
	formats          []string // of --output; nil: all
	do               func(c *call, args []string) error
}

// call is one call of such a command.
type call struct {
	*cobra.Command
	*output
	api *client.Client
}

func (a apiCommand) command() *cobra.Command {
	c := &cobra.Command{
		Use: a.use, Short: a.short, Long: a.long, Args: a.args,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := dial(c)
			if err != nil {
				return err
			}
			err = a.do(&call{c, newOutput(c), api}, args)
			if refused, ok := errors.AsType[*client.Error](err); ok && refused.Status == http.StatusUnauthorized {
				err = fmt.Errorf("%w\n'riverbeat login' keeps a key for %s", err, api)
			}
			return err
		},
	}
	addServer(c)
	addOutput(c, a.formats)
	return c
}

// get reads something.
func (c *call) get(path string, query url.Values) (json.RawMessage, error) {
	return client.Call[json.RawMessage](c.Context(), c.api, client.Request{Path: path, Query: query})
}

// items reads a list, as far as it is needed.
func (c *call) items(path string, query url.Values) iter.Seq2[json.RawMessage, error] {
	return client.Items[json.RawMessage](c.Context(), c.api, client.Request{Path: path, Query: query})
}

// change does something, as the flags of addChange say.
func (c *call) change(method, path string, body any) (json.RawMessage, error) {
	r := client.Request{Method: method, Path: path, Query: url.Values{}, Header: http.Header{}, Body: body}
	if flagOf(c.Command, "dry-run") == "true" {
		r.Query.Set("dry_run", "true")
	}
	if version := c.Flags().Lookup("if-version"); version != nil && version.Changed {
		if _, err := strconv.Atoi(version.Value.String()); err != nil {
			return nil, badCall(c.Command, "--if-version: %q is no number", version.Value)
		}
		r.Header.Set("If-Match", `"`+version.Value.String()+`"`)
	}
	return client.Call[json.RawMessage](c.Context(), c.api, r)
}

// addChange gives a command that changes something the flag --dry-run.
func addChange(c *cobra.Command) {
	c.Flags().Bool("dry-run", false, "check and show what would be, and change nothing.")
}

// addIfVersion gives one that changes what has a version the flag --if-version.
func addIfVersion(c *cobra.Command) {
	c.Flags().Var(&word{kind: "version"}, "if-version", "Only if this is its version still; else the exit code is 6.")
	complete(c, "if-version")
}

// scheduleNamed lets a shell offer the names of schedules to a command.
func scheduleNamed(c *cobra.Command) *cobra.Command {
	c.ValidArgsFunction = func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		const most = 100
		api, err := dial(c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
		defer cancel()
		var names []string
		query := url.Values{"q": {begun}, "sort": {"name"}, "page_size": {strconv.Itoa(most)}}
		for s, err := range client.Items[shownSchedule](ctx, api, client.Request{Path: schedulesPath, Query: query}) {
			if err != nil || len(names) == most {
				break
			}
			if strings.HasPrefix(s.Name, begun) && s.Name == printable(s.Name) {
				names = append(names, s.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}
