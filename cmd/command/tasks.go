package command

import (
	"strconv"

	"github.com/spf13/cobra"

	"riverbeat/internal/client"
)

func newTasks() *cobra.Command {
	c := &cobra.Command{
		Use:   "tasks",
		Short: "List and show task definitions",
		Long:  "Uses the API of a server; see 'riverbeat login'.",
	}
	group(c, newTasksList(), newTasksShow())
	return c
}

// shownTask is what tables show of a task definition.
type shownTask struct {
	TaskName    string  `json:"task_name"`
	Category    *string `json:"category"`
	Description *string `json:"description"`
	Executor    struct {
		Kind string `json:"kind"`
	} `json:"executor"`
	Queue       string `json:"queue"`
	MaxAttempts int    `json:"max_attempts"`
	Timeout     string `json:"timeout"`
}

var taskNoun = noun[shownTask]{
	one: "task",
	columns: []column{
		{head: "TASK", least: 16},
		{head: "EXECUTOR"},
		{head: "QUEUE"},
		{head: "ATTEMPTS"},
		{head: "TIMEOUT"},
		{head: "CATEGORY", least: 8},
		{head: "DESCRIPTION", least: 12},
	},
	row: func(t shownTask) []string {
		return []string{
			t.TaskName, t.Executor.Kind, t.Queue, strconv.Itoa(t.MaxAttempts), t.Timeout, orDash(t.Category), orDash(t.Description),
		}
	},
	name: func(t shownTask) string { return t.TaskName },
}

const tasksPath = "/task-definitions"

func newTasksList() *cobra.Command {
	filters := []filter{{flag: "category", param: "category", kind: "category", doc: "Of this category."}}
	c := apiCommand{
		use: "list", short: "List task definitions, by name", args: noArgs,
		do: func(c *call, _ []string) error {
			return list(c, taskNoun, tasksPath, queryOf(c.Command, filters))
		},
	}.command()
	addFilters(c, filters)
	addLimit(c, 0)
	return c
}

func newTasksShow() *cobra.Command {
	return apiCommand{
		use: "show TASK", short: "Show the definition of a task", args: oneArg("the name of a task"),
		do: func(c *call, args []string) error {
			raw, err := c.get(tasksPath+client.Path(args[0]), nil)
			if err != nil {
				return err
			}
			return show(c.output, taskNoun, raw)
		},
	}.command()
}
