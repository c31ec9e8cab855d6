package command

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// choice is a flag with one of a few values.
type choice struct {
	value string
	of    []string
}

func (v *choice) String() string { return v.value }

func (v *choice) Type() string { return orList(v.of) }

func (v *choice) Set(text string) error {
	if !slices.Contains(v.of, text) {
		return fmt.Errorf("it is not %s", orList(v.of))
	}
	v.value = text
	return nil
}

// orList writes "a, b or c".
func orList(values []string) string {
	last := len(values) - 1
	if last < 1 {
		return strings.Join(values, "")
	}
	return strings.Join(values[:last], ", ") + " or " + values[last]
}

// texts is a flag that may be repeated.
type texts struct {
	values []string
	kind   string
	of     []string // nil: any
}

func (v *texts) String() string { return strings.Join(v.values, ",") }

func (v *texts) Type() string { return v.kind }

func (v *texts) Set(text string) error {
	if v.of != nil && !slices.Contains(v.of, text) {
		return fmt.Errorf("it is not %s", orList(v.of))
	}
	v.values = append(v.values, text)
	return nil
}

// moment is a flag that is a time, as readTime reads it. The zero time is none.
type moment struct {
	at   time.Time
	text string
}

func (v *moment) String() string { return v.text }

func (v *moment) Type() string { return "time" }

func (v *moment) Set(text string) error {
	at, ok := readTime(text, time.Now())
	if !ok {
		return fmt.Errorf("it is no time such as 2027-01-31T09:00:00Z, %q (by the clocks here) or -90m (so long ago)", "2027-01-31 09:00")
	}
	v.at, v.text = at, text
	return nil
}

// query is the time as the API reads it.
func (v *moment) query() string { return v.at.Format(time.RFC3339Nano) }

// readTime reads a time that a person wrote: in RFC 3339, or without an offset and then by
// the clocks of this machine, or as a duration from now.
func readTime(text string, now time.Time) (time.Time, bool) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d), true
	}
	for _, layout := range []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 Z07:00", "2006-01-02 15:04 Z07:00",
		"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly,
	} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// filter is a flag that becomes a parameter of a query.
type filter struct {
	flag, param string
	kind        string
	doc         string
	of          []string // the values that it may have; nil: any
	many        bool     // it may be repeated
}

// byTime is the kind of filters that are times.
const byTime = "time"

// addFilters gives a command the flags of filters, for queryOf.
func addFilters(c *cobra.Command, filters []filter) {
	for _, f := range filters {
		switch {
		case f.kind == byTime:
			c.Flags().Var(&moment{}, f.flag, f.doc)
		case f.many:
			c.Flags().Var(&texts{kind: f.kind, of: f.of}, f.flag, f.doc)
		case f.of != nil:
			c.Flags().Var(&choice{of: f.of}, f.flag, f.doc)
		default:
			c.Flags().Var(&word{kind: f.kind}, f.flag, f.doc)
		}
		complete(c, f.flag, f.of...)
	}
}

// queryOf is the query that the flags of filters ask for.
func queryOf(c *cobra.Command, filters []filter) url.Values {
	query := url.Values{}
	for _, f := range filters {
		flag := c.Flags().Lookup(f.flag)
		if !flag.Changed {
			continue
		}
		switch v := flag.Value.(type) {
		case *moment:
			query.Set(f.param, v.query())
		case *texts:
			query[f.param] = v.values
		default:
			query.Set(f.param, v.String())
		}
	}
	return query
}

// complete says which values a shell offers for a flag; none for what a person must know.
func complete(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag, or it has been said
	}
}

// addLimit gives a command that lists the flag --limit.
func addLimit(c *cobra.Command, limit int) {
	c.Flags().Var(&word{value: strconv.Itoa(limit), kind: "number"}, "limit", "How many are shown at most; 0 is all.")
	complete(c, "limit")
}

// someArgs is the check of a command that takes one of something, or several.
func someArgs(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 || slices.Contains(args, "") {
			return badCall(c, "%s is needed, or several", what)
		}
		return nil
	}
}

// oneArg is the check of a command that takes one of something.
func oneArg(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return badCall(c, "%s is needed, and nothing else", what)
		}
		return nil
	}
}
