package command

import (
	"encoding/json"
	"fmt"
	"io"
	"os/user"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"riverbeat/internal/access"
	"riverbeat/internal/httpapi"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

func newKeys() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make, list, rotate and revoke API keys",
		Long: "Works on the database itself, so it needs no key. A key has a role:\n" +
			"viewer reads; operator runs, cancels and pauses, too; editor changes\n" +
			"schedules; admin changes task definitions and keys.",
	}
	var expires *time.Time
	create := keysCommand("create", "Make a key, and print it once", noArgs,
		func(c *cobra.Command, a *access.Access, _ []string) (*shownKeys, error) {
			return made(a.CreateKey(c.Context(), &riverbeat.APIKey{
				Name: flagOf(c, "name"), Role: riverbeat.Role(flagOf(c, "role")), ExpiresAt: expires,
			}))
		})
	create.PreRunE = func(c *cobra.Command, _ []string) error {
		text := flagOf(c, "expires-at")
		if text == "" {
			return nil
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return badCall(c, "--expires-at: %q is no time such as 2027-01-31T00:00:00Z", text)
		}
		expires = &at
		return nil
	}
	create.Flags().Var(&word{kind: "role"}, "role", "viewer, operator, editor or admin.")
	create.Flags().Var(&word{kind: "name"}, "name", "Who or what has it; it stands in the audit trail.")
	create.Flags().Var(&word{kind: "time"}, "expires-at", "When it ends, in RFC 3339. When not set: never.")
	list := keysCommand("list", "List the keys, newest first", noArgs,
		func(c *cobra.Command, a *access.Access, _ []string) (*shownKeys, error) {
			const most = 10_000
			keys, _, err := a.Keys(c.Context(), nil, most)
			return &shownKeys{list: keys}, err
		})
	var overlap time.Duration
	rotate := keysCommand("rotate ID", "Put another key in the place of one, and print it once", oneKey,
		func(c *cobra.Command, a *access.Access, args []string) (*shownKeys, error) {
			return made(a.RotateKey(c.Context(), args[0], overlap))
		})
	rotate.PreRunE = func(c *cobra.Command, _ []string) (err error) {
		if overlap, err = time.ParseDuration(flagOf(c, "overlap")); err != nil {
			return badCall(c, "--overlap: %q is no duration like 90m or 24h", flagOf(c, "overlap"))
		}
		return nil
	}
	rotate.Flags().Var(&word{value: "24h", kind: "duration"}, "overlap", "How long the old key stays valid; 0s ends it at once.")
	revoke := keysCommand("revoke ID", "End a key at once", oneKey,
		func(c *cobra.Command, a *access.Access, args []string) (*shownKeys, error) {
			k, err := a.RevokeKey(c.Context(), args[0])
			if err != nil {
				return nil, err
			}
			return &shownKeys{one: k}, nil
		})
	group(c, create, list, rotate, revoke)
	return c
}

func flagOf(c *cobra.Command, name string) string { return c.Flags().Lookup(name).Value.String() }

func oneKey(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return badCall(c, "the id of one key is needed; 'riverbeat keys list' shows them")
	}
	return nil
}

// keysCommand makes a command that does something to keys and shows which.
func keysCommand(use, short string, args cobra.PositionalArgs, do func(*cobra.Command, *access.Access, []string) (*shownKeys, error)) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(c *cobra.Command, args []string) error {
			output := flagOf(c, "output")
			if output != "text" && output != "json" {
				return badCall(c, "--output: %q is neither text nor json", output)
			}
			t, err := openTool(c)
			if err != nil {
				return err
			}
			defer t.close()
			a := access.New(access.Config{DB: t.db, AdminKey: string(t.cfg.AdminKey), Now: time.Now})
			c.SetContext(postgres.WithActor(c.Context(), riverbeat.Actor{Name: riverbeat.ActorOfCLI + userName()}))
			shown, err := do(c, a, args)
			if err != nil {
				return err
			}
			return shown.print(c.OutOrStdout(), output == "json")
		},
	}
	c.Flags().VarP(&word{value: "text", kind: "text or json"}, "output", "o", "How the keys are shown.")
	addSettings(c, "database-url", "schema")
	return c
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

// shownKeys is what there is to show of keys: one of them, or a list.
type shownKeys struct {
	one  *riverbeat.APIKey
	text string // the key itself; "" if it is not new
	list []*riverbeat.APIKey
}

func made(k *riverbeat.APIKey, text string, err error) (*shownKeys, error) {
	if err != nil {
		return nil, err
	}
	return &shownKeys{one: k, text: text}, nil
}

func (s *shownKeys) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if s.one != nil {
			return e.Encode(httpapi.ShowAPIKey(s.one, s.text))
		}
		list := make([]any, len(s.list))
		for i, k := range s.list {
			list[i] = httpapi.ShowAPIKey(k, "")
		}
		return e.Encode(list)
	}
	if s.text != "" {
		_, err := fmt.Fprintf(w, "%s\n\nThis is the key %s (%s, %s). It is shown only now.\n", s.text, s.one.ID, s.one.Name, s.one.Role)
		return err
	}
	list := s.list
	if s.one != nil {
		list = []*riverbeat.APIKey{s.one}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "ID\tNAME\tROLE\tCREATED\tBY\tLAST USED\tENDS")
	for _, k := range list {
		ends := when(k.ExpiresAt, "never")
		if k.RevokedAt != nil {
			ends = when(k.RevokedAt, "") + " (revoked)"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			k.ID, k.Name, k.Role, when(&k.CreatedAt, ""), k.CreatedBy, when(k.LastUsedAt, "never"), ends)
	}
	return t.Flush()
}

// when shows a time, or what stands for none.
func when(at *time.Time, none string) string {
	if at == nil {
		return none
	}
	return at.Format(time.RFC3339)
}
