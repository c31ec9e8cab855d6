// Package process executes tasks as processes: a command that the operator has named, with
// arguments that the definition gives it and the run as JSON on its standard input.
//
// There is no shell. The process has the environment that the operator gives it and
// nothing else, and a guard beside it that ends all of it; see Guard.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"riverbeat/internal/execute/secret"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

const (
	// maxOutput is how much is kept of a JSON output, in bytes.
	maxOutput = 40 << 10
	// maxText and maxErrors are how much is kept of an output that is text, and of what
	// was written to standard error: the last lines.
	maxText, maxErrors = 16 << 10, 8 << 10
	// maxMessage is how much of standard error stands in the error of a run.
	maxMessage = 1 << 10
	// patience is how long a guard may take beyond the grace.
	patience = 2 * time.Second
)

// The exit codes after which another attempt would do the same (sysexits.h): the command
// line, the input, or the configuration is wrong.
var finalExitCodes = []int{64, 65, 78}

// Config is what processes need.
type Config struct {
	Commands map[string]Command // by the names that definitions call them by
	Secrets  *secret.Store      // to which their environments refer
	// Ours is for how long from now nobody else can have the run whose attempt has the
	// context; 0: somebody may have it, and the process has no grace. Nil: for ever.
	Ours func(context.Context) time.Duration
}

// New makes the kind of executors: nil for a command that is not configured here.
func New(cfg Config) func(settings riverbeat.Executor) task.Code {
	return func(settings riverbeat.Executor) task.Code {
		command, ok := cfg.Commands[settings.Name]
		if !ok {
			return nil
		}
		return func(ctx context.Context, run *task.Run) (any, error) {
			return cfg.execute(ctx, run, command, settings.Arguments)
		}
	}
}

// result is what is kept with a run.
type result struct {
	ExitCode  *int   `json:"exit_code"` // null: a signal has ended it
	Signal    string `json:"signal,omitempty"`
	Output    any    `json:"output,omitempty"`    // JSON if it is JSON, else the last lines
	Errors    string `json:"stderr,omitempty"`    // the last lines
	Truncated bool   `json:"truncated,omitempty"` // of either
}

func (cfg Config) execute(ctx context.Context, run *task.Run, command Command, arguments []riverbeat.Argument) (any, error) {
	given, err := argv(arguments, run.TaskParams, secret.From(ctx))
	if err != nil {
		return nil, task.Final(err)
	}
	environment, secrets, err := cfg.environment(command)
	if err != nil {
		return nil, err
	}
	redact := secret.From(ctx).With(secrets)
	input, err := json.Marshal(run)
	if err != nil {
		return nil, task.Final(fmt.Errorf("write the run as JSON: %w", err))
	}
	directory := command.Directory
	removed := ""
	if directory == "" {
		if directory, err = os.MkdirTemp("", "riverbeat-run-"); err != nil {
			return nil, fmt.Errorf("make a working directory: %w", err)
		}
		removed = directory
		defer remove(removed) // unless the guard has, which may outlive this node
	}
	out, errs := &tail{most: maxOutput}, &tail{most: maxErrors}
	p := guarded{
		argv: slices.Concat(command.Argv, given), directory: directory, removed: removed, environment: environment,
		grace: command.Grace, input: append(input, '\n'), output: redact.Writer(out), errors: redact.Writer(errs),
		ours: cfg.Ours,
	}
	ended, err := p.run(ctx)
	if err = errors.Join(err, p.output.Close(), p.errors.Close()); err != nil {
		return nil, redact.Error(err)
	}
	if ended.Failure != "" {
		return nil, fmt.Errorf("start %s: %s", command.Argv[0], ended.Failure)
	}
	r := result{ExitCode: ended.ExitCode, Signal: ended.Signal, Errors: redact.Text(errs.text(maxErrors))}
	// Once more, since a secret may have been written in a way that is only plain now.
	switch output := out.value().(type) {
	case json.RawMessage:
		if r.Output, err = redact.JSON(output); err != nil {
			return nil, fmt.Errorf("read the output: %w", err)
		}
	case string:
		r.Output = redact.Text(output)
	}
	r.Truncated = out.cut || errs.cut || p.cut
	err = r.failure(ended.Why)
	if err == nil && p.told {
		// It may have stopped in the middle of its work, and call that an end.
		err = errors.New("was told to end, and has done so with exit code 0")
	}
	return r, err
}

// failure is the error of a process that has not ended with 0.
func (r result) failure(why string) error {
	said := ""
	if why != "" {
		said = ": " + why
	}
	if lines := lastLines(r.Errors, maxMessage); lines != "" {
		said += ": " + lines
	}
	switch {
	case r.ExitCode == nil:
		return fmt.Errorf("ended by the signal %s%s", r.Signal, said)
	case *r.ExitCode == 0:
		return nil
	}
	err := fmt.Errorf("exit code %d%s", *r.ExitCode, said)
	if slices.Contains(finalExitCodes, *r.ExitCode) {
		return task.Final(err)
	}
	return err
}

// environment is that of a command, and the secrets that it has.
func (cfg Config) environment(command Command) (environment []string, secrets map[string]string, err error) {
	environment, secrets = []string{}, map[string]string{}
	for name, text := range command.Environment {
		value := text.Literal
		if text.Secret != "" {
			if value, err = cfg.Secrets.Value(text.Secret); err != nil {
				return nil, nil, fmt.Errorf("make the environment: %w", err)
			}
			secrets[text.Secret] = value
		}
		environment = append(environment, name+"="+value)
	}
	return environment, secrets, nil
}

// argv are the arguments of a definition with the parameters in their places: one that is
// null or not there is none, a list is one for each item.
func argv(arguments []riverbeat.Argument, params json.RawMessage, redact *secret.Redactor) ([]string, error) {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(params, &given); err != nil {
		return nil, fmt.Errorf("read the parameters: %w", err)
	}
	var list []string
	for _, a := range arguments {
		if a.Parameter == "" {
			list = append(list, a.Literal)
			continue
		}
		raw, ok := given[a.Parameter]
		if !ok {
			continue
		}
		values := []json.RawMessage{raw}
		if raw[0] == '[' {
			if err := json.Unmarshal(raw, &values); err != nil {
				return nil, fmt.Errorf("read the parameter %s: %w", a.Parameter, err)
			}
		}
		for _, value := range values {
			if string(value) == "null" {
				continue
			}
			text := string(value)
			isText := json.Unmarshal(value, &text) == nil
			switch {
			case redact.Text(text) != text:
				return nil, fmt.Errorf("the parameter %s is a secret; every user of the machine can read command lines", a.Parameter)
			case isText && strings.HasPrefix(text, "-") && !slices.Contains(list, "--"):
				// Else whoever writes a schedule could give the command its options.
				return nil, fmt.Errorf(`the parameter %s begins with "-"; put "--" before it in the arguments of the definition if it is to be no option`, a.Parameter)
			}
			list = append(list, text)
		}
	}
	return list, nil
}

// guarded is a process and its guard.
type guarded struct {
	argv               []string
	directory, removed string
	environment        []string
	grace              time.Duration
	input              []byte
	output, errors     io.WriteCloser
	ours               func(context.Context) time.Duration

	told bool // to end, by this node
	cut  bool // not all of its output could be read
}

// run returns when nothing of the process is left. It is told to end when ctx does, and
// killed when somebody else may have the run.
func (p *guarded) run(ctx context.Context) (report, error) {
	program, err := self()
	if err != nil {
		return report{}, fmt.Errorf("find the program of the guard: %w", err)
	}
	lifeline, orders, err := os.Pipe()
	if err != nil {
		return report{}, fmt.Errorf("make a pipe: %w", err)
	}
	defer func() { _ = orders.Close() }()
	told, reports, err := os.Pipe()
	if err != nil {
		return report{}, errors.Join(fmt.Errorf("make a pipe: %w", err), lifeline.Close())
	}
	defer func() { _ = told.Close() }()
	guard := &exec.Cmd{
		Path: program, Args: append([]string{"riverbeat", guardName, p.grace.String(), p.removed}, p.argv...),
		Dir: p.directory, Env: p.environment,
		Stdin: bytes.NewReader(p.input), Stdout: p.output, Stderr: p.errors,
		ExtraFiles:  []*os.File{lifeline, reports},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, // ^C at a terminal is the node's
		WaitDelay:   patience,
	}
	err = guard.Start()
	_, _ = lifeline.Close(), reports.Close() // they are the guard's
	if err != nil {
		return report{}, fmt.Errorf("start the guard: %w", err)
	}
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { p.watch(ctx, orders, guard.Process, ended) })
	r, pid := read(told)
	waitErr := guard.Wait()
	close(ended)
	watching.Wait()
	p.cut = errors.Is(waitErr, exec.ErrWaitDelay)
	if r == nil {
		if pid > 0 { // of its descendants, the command alone has ended with it
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
		return report{}, fmt.Errorf("the guard of the process was ended: %w", waitErr)
	}
	return *r, nil
}

// read reads what a guard reports: that its command has begun, and how it has ended; nil
// if the guard has not come to that.
func read(reports io.Reader) (last *report, pid int) {
	for d := json.NewDecoder(reports); ; {
		var r report
		if d.Decode(&r) != nil {
			return last, pid
		}
		if r.PID > 0 {
			pid = r.PID
			continue
		}
		last = &r
	}
}

// watch tells the guard that this node lives, and to end the command when ctx ends, or at
// once when the run may be somebody else's.
func (p *guarded) watch(ctx context.Context, orders *os.File, guard *os.Process, ended <-chan struct{}) {
	beats := time.NewTicker(beatEvery)
	defer beats.Stop()
	stop, lost := ctx.Done(), false
	var late <-chan time.Time
	for {
		var order byte
		select {
		case <-ended:
			return
		case <-late:
			_ = guard.Kill() // and its command with it
			return
		case <-beats.C:
		case <-stop:
			stop, p.told = nil, true
			order, late = terminate, time.After(p.grace+patience)
		}
		left := silence
		if p.ours != nil {
			left = min(left, p.ours(ctx)+beatEvery)
		}
		switch {
		case lost:
			continue
		case left <= beatEvery:
			lost, p.told = true, true
			order, late = kill, time.After(patience)
		case order == 0:
			order = byte(left / (100 * time.Millisecond))
		}
		if _, err := orders.Write([]byte{order}); err != nil {
			return // the guard has ended; Wait says how
		}
	}
}

// tail keeps the last bytes that are written to it.
type tail struct {
	most    int
	kept    []byte
	written int
	cut     bool
}

// Write takes everything.
func (t *tail) Write(p []byte) (int, error) {
	t.written += len(p)
	t.kept = append(t.kept, p...)
	if len(t.kept) > 2*t.most {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-t.most:]...)
	}
	t.cut = t.written > t.most
	return len(p), nil
}

// value is the JSON that was written, or else the last lines; nil for nothing.
func (t *tail) value() any {
	raw := bytes.TrimSpace(t.kept)
	if len(raw) == 0 {
		return nil
	}
	if _, err := riverbeat.CanonicalJSON(raw); err == nil && !t.cut {
		return json.RawMessage(raw)
	}
	return t.text(maxText)
}

// text are the last lines of what was written, as text that can be shown and kept.
func (t *tail) text(most int) string {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(t.kept), "\uFFFD"))
	text := lastLines(clean, most)
	t.cut = t.cut || len(text) < len(strings.TrimRight(clean, "\n"))
	return text
}

// lastLines are the last whole lines of text that have at most so many bytes together, or
// the end of the last one.
func lastLines(text string, most int) string {
	text = strings.TrimRight(text, "\n")
	if len(text) <= most {
		return text
	}
	text = text[len(text)-most:]
	if at := strings.IndexByte(text, '\n'); at >= 0 {
		return text[at+1:]
	}
	return strings.ToValidUTF8(text, "")
}
