package faults

import (
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Nodes that decide and work a backfill are killed again and again, and their
// commits are answered by broken connections: each tick becomes one run, and all end.
func TestABackfillSurvivesItsNodes(t *testing.T) {
	t.Parallel()
	const ticks = 200
	l := runningLab(t, 2)
	id := l.create(spec{Name: "past", Cron: "0 * * * * *", Policy: "allow", Params: map[string]any{"seconds": 0.05}})
	to := time.Now().UTC().Truncate(time.Minute).Add(-time.Hour)
	var made struct {
		ID    string `json:"id"`
		Total int    `json:"total"`
	}
	l.must(http.MethodPost, "/api/v1/schedules/"+id+"/backfill", map[string]any{"from": to.Add(-ticks * time.Minute), "to": to}, &made)
	require.Equal(t, ticks, made.Total)
	var state struct {
		State   string         `json:"state"`
		Decided int            `json:"decided"`
		Runs    map[string]int `json:"runs"`
	}
	killed, step := 0, 0
	require.Eventually(t, func() bool {
		defer func() { step++ }()
		if step%10 == 5 {
			l.nodes[step/10%2].proxies[0].lie(1)
		}
		if victim := l.nodes[step/40%2]; step%40 == 9 && state.Decided < ticks {
			victim.kill(200 * time.Millisecond)
			killed++
		}
		for _, n := range l.nodes {
			_, _ = n.call(http.MethodGet, "/api/v1/backfills/"+made.ID, nil, &state)
		}
		return state.State == "finished"
	}, 90*time.Second, 100*time.Millisecond, "it does not end")
	l.sql(func(conn *pgx.Conn) error {
		var runs, times, succeeded int
		err := conn.QueryRow(t.Context(), `
SELECT count(*), count(DISTINCT scheduled_for), count(*) FILTER (WHERE state = 'succeeded')
FROM riverbeat.runs
WHERE trigger = 'backfill'`).Scan(&runs, &times, &succeeded)
		require.Equal(t, []int{ticks, ticks, ticks}, []int{runs, times, succeeded})
		return err
	})
	require.Equal(t, ticks, state.Decided)
	require.Positive(t, killed)
	t.Logf("%d nodes were killed", killed)
}
