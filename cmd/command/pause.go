package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"riverbeat/internal/client"
	"riverbeat/internal/riverbeat"
)

const installationPath = "/installation"

// installationState is what the API says of the state of an installation.
type installationState struct {
	Environment string     `json:"environment"`
	PausedAt    *time.Time `json:"paused_at"`
	PauseReason *string    `json:"pause_reason"`
	Hold        *struct {
		Why      string `json:"why"`
		WouldRun struct {
			DueSchedules int `json:"due_schedules"`
			Jobs         int `json:"jobs"`
			WaitingRuns  int `json:"waiting_runs"`
			Next         []struct {
				ScheduleName string    `json:"schedule_name"`
				TaskName     string    `json:"task_name"`
				At           time.Time `json:"at"`
			} `json:"next"`
		} `json:"would_run"`
	} `json:"hold"`
}

// hold is why the node that answered does nothing; nil if it works.
func (s *installationState) hold() *riverbeat.Hold {
	if s.Hold == nil {
		return nil
	}
	would := s.Hold.WouldRun
	h := &riverbeat.Hold{Why: s.Hold.Why, DueSchedules: would.DueSchedules, Jobs: would.Jobs, WaitingRuns: would.WaitingRuns}
	for _, n := range would.Next {
		h.Next = append(h.Next, riverbeat.NextTick{ScheduleName: n.ScheduleName, TaskName: n.TaskName, At: n.At})
	}
	return h
}

var installationNoun = noun[installationState]{
	one:  "installation",
	name: func(s installationState) string { return s.Environment },
}

func newPause() *cobra.Command {
	reason := &word{kind: "text"}
	c := apiCommand{
		use: "pause", short: "Let no schedule tick, until 'riverbeat resume'", args: noArgs,
		long: "When this has answered, no schedule ticks on any node. None of the ticks is\n" +
			"lost: on resuming, each runs, is caught up with or is recorded as missed by the\n" +
			"rules for late ones. What is queued or waits in line goes on. If it is paused\n" +
			"already, that pause stands.",
		do: func(c *call, _ []string) error {
			if reason.value == "" {
				return badCall(c.Command, "--reason is needed, for those who find ticks missing")
			}
			raw, err := c.change(http.MethodPost, "/pause", map[string]string{"reason": reason.value})
			if err != nil {
				return err
			}
			var state installationState
			if err := json.Unmarshal(raw, &state); err != nil {
				return err
			}
			if orDash(state.PauseReason) != reason.value {
				_, _ = fmt.Fprintln(c.errs, "It was paused already, and that pause stands.")
			}
			return show(c.output, installationNoun, raw)
		},
	}.command()
	c.Flags().Var(reason, "reason", "Why. Required.")
	complete(c, "reason")
	addChange(c)
	return c
}

// endPause ends a pause over the API.
func (c *call) endPause() error {
	before, err := client.Call[installationState](c.Context(), c.api, client.Request{Path: installationPath})
	if err != nil {
		return err
	}
	if hold := before.hold(); hold != nil {
		if err := printHold(c.w, hold); err != nil {
			return err
		}
		return errors.New("nothing was changed; say --here, and where the database is, to let the nodes work on it")
	}
	raw, err := c.change(http.MethodPost, "/resume", nil)
	if err != nil {
		return err
	}
	if before.PausedAt == nil {
		_, _ = fmt.Fprintln(c.errs, "Nothing was paused.")
	}
	return show(c.output, installationNoun, raw)
}
