package faults

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// A client that retries whatever it has no answer to makes one schedule and one run
// of each of its requests: commits are answered by a broken connection, and it
// hangs up itself.
func TestARetriedRequestIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	const requests = 25
	l := runningLab(t, 1)
	p := l.nodes[0].proxies[0]
	replays, lost := 0, 0
	// retried sends a request again and again until it is answered.
	retried := func(path, body, key string, anger int) {
		try, strange := -1, 0
		require.Eventually(t, func() bool {
			if try++; try < anger {
				p.lie(1)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if try < anger && rand.IntN(2) == 0 {
				time.AfterFunc(rand.N(20*time.Millisecond), cancel)
			}
			status, replayed := ask(ctx, l.nodes[0], path, body, key)
			cancel()
			if status == http.StatusCreated {
				if replayed {
					replays++
				}
				return true
			}
			// What is lost looks like this: nothing, our fault, not now, in flight.
			if !slices.Contains([]int{0, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusConflict}, status) {
				strange = status
				return true
			}
			lost++
			return false
		}, time.Minute, 20*time.Millisecond, "a request is never answered")
		require.Zero(t, strange)
	}
	anchor := l.create(spec{Name: "anchor", Cron: "0 0 0 1 1 *", Policy: "allow"})
	for i := range requests {
		retried("/api/v1/schedules", fmt.Sprintf(`{"name": "made %d", "task_name": "record", "cron_expression": "@yearly"}`, i), fmt.Sprintf("make %d", i), 3)
		retried("/api/v1/schedules/"+anchor+"/run", "", fmt.Sprintf("run %d", i), 3)
	}
	p.heal()
	l.sql(func(conn *pgx.Conn) error {
		var schedules, names, runs, jobs int
		err := conn.QueryRow(t.Context(), `
SELECT
    (SELECT count(*) FROM riverbeat.schedules WHERE name LIKE 'made %'),
    (SELECT count(DISTINCT name) FROM riverbeat.schedules WHERE name LIKE 'made %'),
    (SELECT count(*) FROM riverbeat.runs WHERE trigger = 'manual'),
    (SELECT count(DISTINCT job_id) FROM riverbeat.runs WHERE trigger = 'manual')`).Scan(&schedules, &names, &runs, &jobs)
		require.Equal(t, []int{requests, requests, requests, requests}, []int{schedules, names, runs, jobs})
		return err
	})
	t.Logf("%d answers were lost, %d were given again", lost, replays)
	require.Positive(t, replays, "nothing was lost after its commit")
}

// ask sends a request with a key; status 0 if it is not answered.
func ask(ctx context.Context, n *node, path, body, key string) (status int, replayed bool) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.listen+path, strings.NewReader(body))
	if err != nil {
		return 0, false
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Idempotency-Key", key)
	answer, err := client.Do(r)
	if err != nil {
		return 0, false
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	if _, err := io.ReadAll(answer.Body); err != nil {
		return 0, false
	}
	return answer.StatusCode, answer.Header.Get("Idempotent-Replayed") == "true"
}
