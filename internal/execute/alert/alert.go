// Package alert has the task that tells people of a change of a schedule: it posts the
// message that package watch has made.
package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// New makes the task. Of an answer only the status is kept: who says where an alert goes is
// not always one who may read what is there.
func New(cfg request.Config) task.Task {
	cfg.StatusOnly = true
	client := request.New(cfg)
	t := task.New(riverbeat.AlertTask, func(ctx context.Context, run *task.Run, p params) (any, error) {
		if run.Trigger != string(riverbeat.TriggerAlert) {
			return nil, task.Final(errors.New("this task only posts alerts; for another request there is the executor http"))
		}
		var body bytes.Buffer
		if err := json.Compact(&body, p.Message); err != nil {
			return nil, task.Final(fmt.Errorf("read the message: %w", err))
		}
		return client.Send(ctx, &riverbeat.Executor{
			Kind: riverbeat.ExecutorHTTP, Method: http.MethodPost, RetryCodes: retryCodes,
			URL: riverbeat.Text{Literal: p.URL}, SigningSecret: riverbeat.Text{Literal: p.SigningSecret},
		}, run.ID, body.Bytes())
	})
	t.Category, t.Description = "riverbeat", "Posts an alert: what a schedule, or the definition of its task, has under alerts."
	t.Queue = riverbeat.AlertQueue
	t.MaxAttempts, t.Backoff, t.MaxBackoff, t.Timeout = maxAttempts, backoff, maxBackoff, timeout
	return t
}

// retryCodes are all that are none of a success, but for 410: whatever stands before who has
// to be told (a proxy under maintenance, a gateway that wants a login) may answer with them.
var retryCodes = func() (codes []int) {
	for code := http.StatusMultipleChoices; code < 600; code++ {
		if code != http.StatusGone {
			codes = append(codes, code)
		}
	}
	return codes
}()
