package command

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
)

// TestListedInfoOfAMonth backfills 30 days of 4,000 issues by policy skip: each day is
// fetched once, and stored.
func TestListedInfoOfAMonth(t *testing.T) {
	t.Parallel()
	const days, perDay = 30, 4_000
	var mu sync.Mutex
	asked := map[string]int{}
	jquants := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		day, next := r.URL.Query().Get("date"), r.URL.Query().Get("pagination_key")
		mu.Lock()
		asked[day+next]++
		mu.Unlock()
		first, key := 0, `"2"`
		if next == "2" {
			first, key = perDay/2, "null"
		}
		issues := make([]string, perDay/2)
		for i := range issues {
			issues[i] = fmt.Sprintf(`{"Date": %q, "Code": "%05d", "CoName": "name", "Mkt": "0111"}`, day, 10000+first+i)
		}
		_, _ = fmt.Fprintf(w, `{"data": [%s], "pagination_key": %s}`, strings.Join(issues, ","), key)
	}))
	defer jquants.Close()
	d := pgtest.DB(t)
	settings := filepath.Join(t.TempDir(), "settings")
	require.NoError(t, os.WriteFile(settings, []byte("RIVERBEAT_JQUANTS_BASE_URL="+jquants.URL+`
RIVERBEAT_JQUANTS_API_KEY=a-key-of-jquants
RIVERBEAT_JQUANTS_REQUESTS_PER_MINUTE=6000
`), 0o600))
	p := start(t, "dev", "--config", settings, "--database-url", d.URL, "--listen", "127.0.0.1:0")
	base := p.find(t, `^  API +(http://\S+)$`)
	_, body := get(t, base+"/task-definitions/fetch_listed_info_task_asyncpg")
	require.Contains(t, body, `"alias_of":"fetch_listed_info"`)
	code, body := ask(t, http.MethodPost, base+"/schedules", `{"task_name": "fetch_listed_info_task", "cron_expression": "0 9 * * *",
		"timezone": "Asia/Tokyo", "execution_policy": "skip", "task_params": {"period_type": "yesterday"}}`)
	require.Equal(t, http.StatusCreated, code, body)
	var made struct{ ID, Name string }
	require.NoError(t, json.Unmarshal([]byte(body), &made))
	require.Equal(t, "fetch_listed_info_yesterday_custom", made.Name)

	began := time.Now()
	code, body = ask(t, http.MethodPost, base+"/schedules/"+made.ID+"/backfill", `{"from": "2026-01-02T00:00:00+09:00", "to": "2026-02-01T00:00:00+09:00"}`)
	require.Equal(t, http.StatusCreated, code, body)
	count := func(query string) (n int) {
		require.NoError(t, d.Pool.QueryRow(t.Context(), query).Scan(&n))
		return n
	}
	require.Eventually(t, func() bool {
		return count("SELECT count(*) FROM riverbeat.report_runs WHERE trigger = 'backfill' AND state = 'succeeded'") == days
	}, 60*time.Second, 50*time.Millisecond, "%s", p.stderr)
	t.Logf("%d days of %d issues in %s", days, perDay, time.Since(began).Round(time.Millisecond))
	require.Equal(t, days*perDay, count("SELECT count(*) FROM riverbeat.jquants_listed_info WHERE date BETWEEN '2026-01-01' AND '2026-01-30'"))
	require.Equal(t, days*perDay, count("SELECT sum((result ->> 'saved')::int) FROM riverbeat.report_runs WHERE trigger = 'backfill'"))
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, asked, 2*days)
	for page, times := range asked {
		require.Equal(t, 1, times, page)
	}
}
