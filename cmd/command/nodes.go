package command

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// shownNode is what tables show of a node.
type shownNode struct {
	ID         string         `json:"id"`
	Host       string         `json:"host"`
	Version    string         `json:"version"`
	StartedAt  time.Time      `json:"started_at"`
	LastSeenAt time.Time      `json:"last_seen_at"`
	Alive      bool           `json:"alive"`
	Queues     map[string]int `json:"queues"`
	Running    int            `json:"running"`
}

func (n *shownNode) queues() string {
	var shown []string
	for _, name := range slices.Sorted(maps.Keys(n.Queues)) {
		shown = append(shown, fmt.Sprintf("%s=%d", name, n.Queues[name]))
	}
	return strings.Join(shown, ",")
}

const (
	aliveNode = "alive"
	goneNode  = "gone"
)

var nodeNoun = noun[shownNode]{
	one: "node",
	columns: []column{
		{head: "HOST", least: 12},
		{head: "STATE", colour: func(text string) string {
			return map[string]string{aliveNode: green, goneNode: red}[text]
		}},
		{head: "RUNNING"},
		{head: "LAST SEEN"},
		{head: "ID"},
		{head: "VERSION", least: 8},
		{head: "QUEUES", least: 12},
		{head: "STARTED"},
	},
	row: func(n shownNode) []string {
		state := goneNode
		if n.Alive {
			state = aliveNode
		}
		return []string{
			n.Host, state, strconv.Itoa(n.Running), stamp(&n.LastSeenAt), n.ID, n.Version, n.queues(), stamp(&n.StartedAt),
		}
	},
	name: func(n shownNode) string { return n.ID },
}

func newNodes() *cobra.Command {
	return apiCommand{
		use: "nodes", short: "List the nodes that work, or did within the last day", args: noArgs,
		long: "Uses the API of a server; see 'riverbeat login'. Nodes that only serve the API\n" +
			"are not on the list.",
		do: func(c *call, _ []string) error {
			return list(c, nodeNoun, "/nodes", url.Values{})
		},
	}.command()
}
