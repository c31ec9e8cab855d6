package command

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"riverbeat/internal/client"
	"riverbeat/internal/manifest"
)

func newApply() *cobra.Command {
	c := apiCommand{
		use: "apply", short: "Make schedules what files say", args: noArgs,
		long: "Reads schedules from YAML or JSON, makes those that are managed by the given\n" +
			"name the same, all of them or none, and prints what was done. What other names\n" +
			"manage, or nobody, is never touched. It may be run again and again; see\n" +
			"docs/apply.md.",
		formats: []string{asTable, asJSON, asYAML},
		do: func(c *call, _ []string) error {
			plan, err := c.apply(flagOf(c.Command, "dry-run") == "true")
			if err != nil {
				return err
			}
			return cmp.Or(c.showPlan(plan), plan.refusal())
		},
	}.command()
	addManifest(c)
	c.Flags().Bool("dry-run", false, "print what would be done, and do nothing.")
	return c
}

func newDiff() *cobra.Command {
	c := apiCommand{
		use: "diff", short: "Say where schedules are not what files say", args: noArgs,
		long: "Prints what 'riverbeat apply' would do, and does nothing. The exit code is 3\n" +
			"if there is anything to do, and 0 if not.",
		formats: []string{asTable, asJSON, asYAML},
		do: func(c *call, _ []string) error {
			plan, err := c.apply(true)
			if err != nil {
				return err
			}
			if err := c.showPlan(plan); err != nil {
				return err
			}
			if err := plan.refusal(); err != nil {
				_, _ = fmt.Fprintln(c.errs, "This would be refused:", printableLines(err.Error()))
			}
			if plan.differs() {
				return codedError{errors.New("the schedules are not what the files say"), exitDifferences}
			}
			return nil
		},
	}.command()
	addManifest(c)
	return c
}

func addManifest(c *cobra.Command) {
	c.Flags().VarP(&texts{kind: "file, folder or -"}, "file", "f", "What to read: a file, all *.yaml, *.yml and *.json of a folder and those in it, or - for standard input. May be repeated. Required.")
	c.Flags().Var(&word{kind: "name"}, "managed-by", "Who keeps these schedules. Required.")
	c.Flags().Bool("prune", false, "delete the schedules that the name manages and that are not in the files.")
	c.Flags().Var(&word{kind: "number"}, "max-prune", "With --prune: how many may be deleted; if there are more, nothing is done. When not set: a fifth of those that the name manages.")
	c.Flags().Bool("adopt", false, "take over schedules that nobody manages, where the files name one by its id.")
	complete(c, "managed-by")
	complete(c, "max-prune")
}

// plan is what the server answers, as it is shown.
type plan struct {
	raw   json.RawMessage
	files *manifest.Manifest

	ManagedBy string `json:"managed_by"`
	DryRun    bool   `json:"dry_run"`
	Refused   *struct {
		Code   string              `json:"code"`
		Detail string              `json:"detail"`
		Errors []client.FieldError `json:"errors"`
	} `json:"refused"`
	Left            int           `json:"left"`
	Schedules       []plannedItem `json:"schedules"`
	TaskDefinitions []plannedItem `json:"task_definitions"`
}

type plannedItem struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	TaskName  string   `json:"task_name"`
	Action    string   `json:"action"`
	Namesakes []string `json:"namesakes"`
	Changes   []struct {
		Field string          `json:"field"`
		Old   json.RawMessage `json:"old"`
		New   json.RawMessage `json:"new"`
	} `json:"changes"`
}

// apply sends the files, as the flags of addManifest say.
func (c *call) apply(dry bool) (*plan, error) {
	body := map[string]any{
		"managed_by": flagOf(c.Command, "managed-by"), "dry_run": dry,
		"prune": flagOf(c.Command, "prune") == "true", "adopt": flagOf(c.Command, "adopt") == "true",
	}
	if most := flagOf(c.Command, "max-prune"); most != "" {
		n, err := strconv.Atoi(most)
		if body["prune"] == false {
			return nil, badCall(c.Command, "--max-prune goes with --prune")
		}
		if err != nil || n < 0 {
			return nil, badCall(c.Command, "--max-prune: %q is no number of 0 or more", most)
		}
		body["max_prune"] = n
	}
	names := c.Flags().Lookup("file").Value.(*texts).values
	switch {
	case len(names) == 0:
		return nil, badCall(c.Command, "-f is needed: what to read")
	case body["managed_by"] == "":
		return nil, badCall(c.Command, "--managed-by is needed: the name that keeps these schedules")
	}
	files, err := readFiles(c.InOrStdin(), names)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Read(files...)
	if err != nil {
		return nil, err
	}
	body["schedules"] = append([]json.RawMessage{}, m.Schedules...)
	body["task_definitions"] = append([]json.RawMessage{}, m.TaskDefinitions...)
	raw, err := client.Call[json.RawMessage](c.Context(), c.api, client.Request{Method: http.MethodPost, Path: "/apply", Body: body})
	if refused, ok := errors.AsType[*client.Error](err); ok {
		placeErrors(m, refused.Errors)
	}
	if err != nil {
		return nil, err
	}
	p := &plan{raw: raw, files: m}
	return p, json.Unmarshal(raw, p)
}

// readFiles reads what -f names.
func readFiles(stdin io.Reader, names []string) ([]manifest.File, error) {
	var files []manifest.File
	add := func(name string, from io.Reader) error {
		const most = 64 << 20
		text, err := io.ReadAll(io.LimitReader(from, most+1))
		if err == nil && len(text) > most {
			err = fmt.Errorf("%s is larger than %d MiB", name, most>>20)
		}
		files = append(files, manifest.File{Name: name, Text: text})
		return err
	}
	open := func(name string) error {
		file, err := os.Open(name) //nolint:gosec // whoever starts the program names the file
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		return add(name, file)
	}
	for _, name := range names {
		if name == "-" {
			if err := add("standard input", stdin); err != nil {
				return nil, err
			}
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if err := open(name); err != nil {
				return nil, err
			}
			continue
		}
		before := len(files)
		err = filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
			switch hidden := path != name && strings.HasPrefix(entry.Name(), "."); {
			case err != nil:
				return err
			case hidden && entry.IsDir():
				return fs.SkipDir
			case hidden, entry.IsDir(), !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)):
				return nil
			}
			return open(path)
		})
		if err != nil {
			return nil, err
		}
		if len(files) == before {
			return nil, usageError{fmt.Errorf("there is no *.yaml, *.yml or *.json in %s", name)}
		}
	}
	return files, nil
}

// placeErrors says where in the files is what is wrong.
func placeErrors(m *manifest.Manifest, wrong []client.FieldError) {
	for i, e := range wrong {
		place, ok := m.Place(e.Pointer)
		if !ok {
			continue
		}
		field := ""
		if parts := strings.SplitN(e.Pointer, "/", 4); len(parts) == 4 {
			field = " " + parts[3]
		}
		wrong[i].Pointer = place.String() + field
	}
}

// refusal is the error of a plan that may not be carried out; nil if it may.
func (p *plan) refusal() error {
	if p.Refused == nil {
		return nil
	}
	e := &client.Error{Status: http.StatusConflict, Code: p.Refused.Code, Detail: p.Refused.Detail, Errors: slices.Clone(p.Refused.Errors)}
	if e.Code == "role_not_sufficient" {
		e.Status = http.StatusForbidden
	}
	placeErrors(p.files, e.Errors)
	return e
}

// differs tells whether there is anything to do.
func (p *plan) differs() bool {
	return slices.ContainsFunc(slices.Concat(p.Schedules, p.TaskDefinitions), func(item plannedItem) bool { return item.Action != unchanged })
}

// The actions, as the API names them.
const (
	unchanged = "unchanged"
	conflict  = "conflict"
)

// actions are how actions are shown: done, not yet done, and in which colour.
var actions = []struct{ action, sign, done, todo, colour string }{
	{"create", "+", "created", "to create", green},
	{"change", "~", "changed", "to change", yellow},
	{"prune", "-", "pruned", "to prune", red},
	{conflict, "!", "in conflict", "in conflict", red},
	{unchanged, " ", unchanged, unchanged, ""},
}

// showPlan writes what was done, or would be.
func (c *call) showPlan(p *plan) error {
	if c.format != asTable {
		return show(c.output, noun[plan]{}, p.raw)
	}
	var b strings.Builder
	for _, d := range p.TaskDefinitions {
		d.Name = "task " + d.TaskName
		if err := c.showItem(&b, &d, p.ManagedBy); err != nil {
			return err
		}
	}
	for _, s := range p.Schedules {
		if err := c.showItem(&b, &s, p.ManagedBy); err != nil {
			return err
		}
	}
	counts := map[string]int{}
	for _, s := range p.Schedules {
		counts[s.Action]++
	}
	var parts []string
	for _, a := range actions {
		if n := counts[a.action]; n > 0 && p.DryRun {
			parts = append(parts, fmt.Sprintf("%d %s", n, a.todo))
		} else if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, a.done))
		}
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	b.WriteString(count(len(p.Schedules), "schedule"))
	if len(parts) > 0 {
		b.WriteString(": " + strings.Join(parts, ", "))
	}
	b.WriteString(".\n")
	if p.Left > 0 {
		fmt.Fprintf(&b, "%d more that %q manages are not in the files, and stay; --prune deletes them.\n", p.Left, printable(p.ManagedBy))
	}
	_, err := io.WriteString(c.w, b.String())
	return err
}

// showItem writes what becomes of one thing, if anything does.
func (c *call) showItem(b *strings.Builder, item *plannedItem, managedBy string) error {
	if item.Action == unchanged {
		return nil
	}
	for _, a := range actions {
		if a.action == item.Action {
			b.WriteString(c.screen.coloured(fmt.Sprintf("%s %s %s", a.sign, a.action, printable(item.Name)), a.colour) + "\n")
		}
	}
	for _, change := range item.Changes {
		if err := c.showChange(b, change.Field, change.Old, change.New); err != nil {
			return err
		}
	}
	if len(item.Namesakes) > 0 {
		fmt.Fprintf(b, "    beside %s of this name that %q does not manage: %s\n",
			count(len(item.Namesakes), "schedule"), printable(managedBy), strings.Join(item.Namesakes, ", "))
	}
	return nil
}

// showChange writes how a field changes, and of an object, how its members do.
func (c *call) showChange(b *strings.Builder, field string, old, now json.RawMessage) error {
	var before, after map[string]json.RawMessage
	if json.Unmarshal(old, &before) == nil && json.Unmarshal(now, &after) == nil && before != nil && after != nil {
		names := maps.Clone(before)
		maps.Copy(names, after)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if string(before[name]) == string(after[name]) {
				continue
			}
			if err := c.showChange(b, field+"."+name, before[name], after[name]); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Fprintf(b, "    %s:\n", printable(field))
	for _, side := range []struct {
		sign, colour string
		raw          json.RawMessage
	}{{"-", red, old}, {"+", green, now}} {
		if side.raw == nil {
			continue // a member that is not there
		}
		text, err := onOneLine(side.raw)
		if err != nil {
			return err
		}
		b.WriteString("      " + c.screen.coloured(side.sign+" "+text, side.colour) + "\n")
	}
	return nil
}

var exportFilters = slices.DeleteFunc(slices.Clone(scheduleFilters), func(f filter) bool { return f.flag == "sort" })

func newExport() *cobra.Command {
	c := apiCommand{
		use: "export", short: "Write schedules as 'apply' reads them", args: noArgs,
		long: "Writes the schedules that the flags pick, or all, as YAML. 'riverbeat apply' of\n" +
			"that by the name that manages them changes nothing.",
		formats: []string{asYAML, asJSON},
		do: func(c *call, _ []string) error {
			query := queryOf(c.Command, exportFilters)
			for flag, param := range map[string]string{"ids": "ids", "task-definitions": "task_definitions"} {
				if flagOf(c.Command, flag) == "true" {
					query.Set(param, "true")
				}
			}
			return c.export(query)
		},
	}.command()
	addFilters(c, exportFilters)
	c.Flags().Bool("ids", false, "with the ids of all, for 'apply --adopt', or to keep them in another database. (Where two have one name, both have their ids.)")
	c.Flags().Bool("task-definitions", false, "with the definitions of their tasks, but for those that are built in.")
	return c
}

func (c *call) export(query url.Values) error {
	found, err := client.Call[struct {
		TaskDefinitions []json.RawMessage `json:"task_definitions,omitempty"`
		Schedules       []json.RawMessage `json:"schedules"`
	}](c.Context(), c.api, client.Request{Path: "/export", Query: query})
	if err != nil {
		return err
	}
	raw, err := json.Marshal(found)
	if err != nil {
		return err
	}
	return show(c.output, noun[plan]{}, raw)
}
