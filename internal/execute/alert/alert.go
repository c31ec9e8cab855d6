// Package alert has the task that tells people of a change of a schedule: it posts the
// message that package watch has made.
package alert

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"riverbeat/internal/execute/request"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

// params are riverbeat.AlertParams, their secrets resolved.
type params struct {
	URL           string          `json:"url"                      jsonschema:"description=Where the message is posted."`
	SigningSecret string          `json:"signing_secret,omitempty" jsonschema:"description=What it is signed with by Standard Webhooks."`
	Message       json.RawMessage `json:"message"                  jsonschema:"description=What is posted."`
}

// Who has to be told may be away for a while: an hour, with these.
const (
	maxAttempts = 12
	backoff     = 5 * time.Second
	maxBackoff  = 15 * time.Minute
	timeout     = 30 * time.Second
)

// New makes the task. Requests are the client's.
func New(client *request.Client) task.Task {
	t := task.New(riverbeat.AlertTask, func(ctx context.Context, run *task.Run, p params) (any, error) {
		return client.Send(ctx, &riverbeat.Executor{
			Kind: riverbeat.ExecutorHTTP, Method: http.MethodPost,
			URL: riverbeat.Text{Literal: p.URL}, SigningSecret: riverbeat.Text{Literal: p.SigningSecret},
		}, run.ID, p.Message)
	})
	t.Category, t.Description = "riverbeat", "Posts an alert: what a schedule, or the definition of its task, has under alerts."
	t.MaxAttempts, t.Backoff, t.MaxBackoff, t.Timeout = maxAttempts, backoff, maxBackoff, timeout
	return t
}
