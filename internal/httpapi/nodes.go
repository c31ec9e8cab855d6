package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/riverbeat"
)

// node is a process that works, as it is answered.
type node struct {
	ID            uuid.UUID      `json:"id" format:"uuid" doc:"New at each start; a run's node is it."`
	Host          string         `json:"host"`
	Version       string         `json:"version"`
	TZDataVersion string         `json:"tzdata_version" doc:"Of its time zones. Nodes with different ones may disagree about when a schedule ticks."`
	StartedAt     time.Time      `json:"started_at"`
	LastSeenAt    time.Time      `json:"last_seen_at" doc:"It says that it lives once a second."`
	Alive         bool           `json:"alive" doc:"Whether it was seen within five seconds."`
	Tasks         []string       `json:"tasks" nullable:"false" doc:"The tasks whose code it has."`
	Commands      []string       `json:"commands" nullable:"false" doc:"The commands that executors can start there."`
	Queues        map[string]int `json:"queues" doc:"The queues that it works, and the most runs at once of each."`
	Running       int            `json:"running" doc:"How many runs it works on right now."`
}

func nodeOf(n *riverbeat.Node) *node {
	return &node{
		ID: n.ID, Host: n.Host, Version: n.Version, TZDataVersion: n.TZDataVersion, StartedAt: n.StartedAt, LastSeenAt: n.LastSeenAt,
		Alive: n.Alive, Tasks: append([]string{}, n.Tasks...), Commands: append([]string{}, n.Commands...), Queues: n.Queues, Running: n.Running,
	}
}

type nodesRequest struct{}

func (a *api) listNodes(ctx context.Context, _ *nodesRequest) (*answer[list[*node]], error) {
	nodes, err := a.Installation.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	return pageOf[*riverbeat.Node, *node, string]("nodes", nodes, nodeOf, nil)
}
