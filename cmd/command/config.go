package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"riverbeat/internal/config"
	"riverbeat/internal/postgres"
)

func newConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check the settings, or show them and where each stands",
		Long: "Reads the settings as 'riverbeat serve' would, with the same flags, and asks no\n" +
			"database.",
	}
	check := &cobra.Command{
		Use:   "check",
		Short: "Say whether serve would start with these settings",
		Long: "Reads the settings, and the files that they name, as 'riverbeat serve' would,\n" +
			"and says all that is wrong with them. A RIVERBEAT_ variable that is no setting,\n" +
			"of which serve only warns, is wrong, too.\n\n" +
			"It exits with 0 if nothing is wrong, 1 if something is, 2 if it was called\n" +
			"wrongly.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := readConfig(c)
			for _, w := range r.Warnings {
				_, _ = fmt.Fprintln(c.ErrOrStderr(), "warning:", w)
			}
			if err := faultsOf(r, err); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "the settings are right, for the role %s\n", r.Config.Role)
			return err
		},
	}
	show := &cobra.Command{
		Use:   "show",
		Short: "Print each setting and where it stands, secrets left out",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			output := flagOf(c, "output")
			if output != "table" && output != "json" {
				return badCall(c, "--output: %q is neither table nor json", output)
			}
			r, err := readConfig(c)
			if err != nil {
				return usageError{err}
			}
			return printSettings(c.OutOrStdout(), r, output == "json")
		},
	}
	show.Flags().VarP(&word{value: "table", kind: "table or json"}, "output", "o", "How to say it.")
	addSettings(check, serveFlags...)
	addSettings(show, serveFlags...)
	group(c, check, show)
	return c
}

// faultsOf is all that is wrong with settings that were read with an error, or without.
func faultsOf(r *config.Reading, err error) error {
	problems := []error{err}
	for _, name := range r.Unknown {
		problems = append(problems, fmt.Errorf("%s: is not a setting", name))
	}
	if err == nil {
		if err = r.Config.NeedDatabase(); err == nil {
			err = postgres.CheckURL(string(r.Config.DatabaseURL))
		}
		problems = append(problems, err)
	}
	secrets, err := secretsOf(r.Config)
	problems = append(problems, err)
	_, err = commandsOf(r.Config, secrets)
	return errors.Join(append(problems, err)...)
}

// shownSetting is a setting as config show prints it.
type shownSetting struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	From    string `json:"from"`
}

func printSettings(w io.Writer, r *config.Reading, asJSON bool) error {
	var shown []shownSetting
	for _, attr := range r.Config.LogValue().Group() {
		shown = append(shown, shownSetting{attr.Key, attr.Value.String(), r.Places[attr.Key]})
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(shown)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "SETTING\tVALUE\tFROM")
	for _, s := range shown {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", s.Setting, s.Value, s.From)
	}
	return t.Flush()
}
