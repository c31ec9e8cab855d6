package jquants_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/execute/jquants"
	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
	"riverbeat/task"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const key = "secret-key-of-jquants"

// stub plays J-Quants: answers are what it says to the requests, in their order, and the
// last one to all that follow.
type stub struct {
	*pgtest.Database
	task    task.Task
	base    string
	mu      sync.Mutex
	asked   []string
	answers []func(w http.ResponseWriter, r *http.Request)
}

func setup(t *testing.T, answers ...func(http.ResponseWriter, *http.Request)) *stub {
	t.Helper()
	s := &stub{Database: pgtest.DB(t), answers: answers}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.RequestURI())
		answer := s.answers[min(len(s.asked), len(s.answers))-1]
		s.mu.Unlock()
		if r.Header.Get("x-api-key") != key || r.URL.Path != "/v2/equities/master" || r.Method != http.MethodGet {
			http.Error(w, "who asks so?", http.StatusTeapot)
			return
		}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	s.base = server.URL
	s.task = jquants.New(jquants.Config{DB: s.DB, BaseURL: server.URL + "/", APIKey: key, PerMinute: 6000})
	return s
}

// run runs the task at a nominal time of a schedule in Tokyo, with its parameters
// checked and their defaults filled in, as a node does.
func (s *stub) run(t *testing.T, at, params string) (map[string]any, error) {
	t.Helper()
	schema, err := riverbeat.CompileParameterSchema(s.task.Schema())
	require.NoError(t, err)
	effective, err := schema.Effective(json.RawMessage(params))
	require.NoError(t, err)
	when, err := time.Parse(time.RFC3339, at)
	require.NoError(t, err)
	result, err := s.task.Run(t.Context(), &task.Run{
		ID: uuid.New(), ScheduledFor: when.UTC(), TaskParams: effective, Logger: slog.New(slog.DiscardHandler),
		Zone: func(context.Context) (*time.Location, error) { return time.LoadLocation("Asia/Tokyo") },
	})
	if err != nil {
		require.NotContains(t, err.Error(), key)
		return nil, err
	}
	raw, err := json.Marshal(result)
	require.NoError(t, err)
	var told map[string]any
	require.NoError(t, json.Unmarshal(raw, &told))
	return told, nil
}

func (s *stub) count(t *testing.T, query string) int {
	t.Helper()
	var n int
	require.NoError(t, s.Pool.QueryRow(t.Context(), query).Scan(&n))
	return n
}

// days are the days that were asked for.
func (s *stub) days() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var days []string
	for _, uri := range s.asked {
		_, day, _ := strings.Cut(uri, "date=")
		days = append(days, day[:10])
	}
	return days
}

func says(status int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func issue(date, code string) string {
	return fmt.Sprintf(`{"Date": %q, "Code": %q, "CoName": "極洋", "CoNameEn": "KYOKUYO", "S17": "1", "S17Nm": "食品", "S33": "0050",
		"S33Nm": "水産", "ScaleCat": "TOPIX Small 2", "Mkt": "0111", "MktNm": "プライム", "Mrgn": "1", "MrgnNm": "信用", "ProdCat": "011"}`, date, code)
}

func page(next string, issues ...string) func(http.ResponseWriter, *http.Request) {
	return says(http.StatusOK, `{"data": [`+strings.Join(issues, ",")+`], "pagination_key": `+next+`}`)
}

// sameDay answers with one issue of the day that is asked for.
func sameDay(w http.ResponseWriter, r *http.Request) {
	page("null", issue(r.URL.Query().Get("date"), "13010"))(w, r)
}

const (
	// nine is 9 in the morning of the 25th in Tokyo, the 24th in UTC still at ten before.
	nine = "2026-11-25T00:00:00Z"
	few  = "2026-11-24T14:59:00Z" // the 24th, 23:59 in Tokyo
)

func TestTwoPages(t *testing.T) {
	t.Parallel()
	s := setup(t,
		page(`"next/1"`, issue("2026-11-24", "13010"), issue("2026-11-24", "130A0")),
		page(`""`, issue("2026-11-24", "99990")))
	told, err := s.run(t, nine, `{}`)
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"fetched": 3.0, "saved": 3.0, "dates_processed": []any{"2026-11-24"}, "errors": []any{},
	}, told)
	require.Equal(t, []string{
		"/v2/equities/master?date=2026-11-24", "/v2/equities/master?date=2026-11-24&pagination_key=next%2F1",
	}, s.asked)
	require.Equal(t, 1, s.count(t, `SELECT count(*) FROM jquants_listed_info WHERE date = '2026-11-24' AND code = '130A0'
		AND company_name = '極洋' AND company_name_english = 'KYOKUYO' AND sector_17_code = '1' AND sector_17_code_name = '食品'
		AND sector_33_code = '0050' AND sector_33_code_name = '水産' AND scale_category = 'TOPIX Small 2' AND market_code = '0111'
		AND market_code_name = 'プライム' AND margin_code = '1' AND margin_code_name = '信用' AND product_category = '011'`))
}

// What is as it was is not touched; what is missing is null, what is unknown nothing.
func TestTheSameAgain(t *testing.T) {
	t.Parallel()
	s := setup(t,
		page("null", issue("2026-11-24", "13010"), issue("2026-11-24", "13050")),
		says(http.StatusOK, `{"data": [`+issue("2026-11-24", "13010")+`, {"Date": "2026-11-24", "Code": "13050", "CoName": "new", "Unknown": {"x": 1}}], "more": 1}`))
	_, err := s.run(t, nine, `{}`)
	require.NoError(t, err)
	told, err := s.run(t, nine, `{}`)
	require.NoError(t, err)
	require.EqualValues(t, 2, told["fetched"])
	require.EqualValues(t, 1, told["saved"])
	require.Equal(t, 1, s.count(t, "SELECT count(*) FROM jquants_listed_info WHERE code = '13010' AND updated_at = created_at"))
	require.Equal(t, 1, s.count(t, "SELECT count(*) FROM jquants_listed_info WHERE code = '13050' AND company_name = 'new' AND margin_code IS NULL AND updated_at > created_at"))
}

func TestDays(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		at, params  string
		first, last string
		days        int
	}{
		"Yesterday":        {nine, `{}`, "2026-11-24", "2026-11-24", 1},
		"YesterdayOfTokyo": {few, `{"period_type": "yesterday"}`, "2026-11-23", "2026-11-23", 1},
		"Seven":            {nine, `{"period_type": "7days"}`, "2026-11-18", "2026-11-24", 7},
		"Thirty":           {nine, `{"period_type": "30days"}`, "2026-10-26", "2026-11-24", 30},
		"Custom":           {nine, `{"period_type": "custom", "from_date": "2024-02-28", "to_date": "2024-03-01"}`, "2024-02-28", "2024-03-01", 3},
		"One":              {nine, `{"period_type": "custom", "from_date": "2024-02-29", "to_date": "2024-02-29"}`, "2024-02-29", "2024-02-29", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, sameDay)
			told, err := s.run(t, test.at, test.params)
			require.NoError(t, err)
			days := s.days()
			require.Len(t, days, test.days)
			require.Equal(t, test.first, days[0])
			require.Equal(t, test.last, days[len(days)-1])
			require.Len(t, told["dates_processed"], test.days)
		})
	}
}

// A holiday answers with the next business day, which is not asked for again.
func TestAHolidayIsTheNextBusinessDay(t *testing.T) {
	t.Parallel()
	s := setup(t, func(w http.ResponseWriter, r *http.Request) {
		day := r.URL.Query().Get("date")
		if day == "2026-11-21" || day == "2026-11-22" || day == "2026-11-23" { // Saturday, Sunday, a holiday
			day = "2026-11-24"
		}
		page("null", issue(day, "13010"))(w, r)
	})
	told, err := s.run(t, nine, `{"period_type": "7days"}`)
	require.NoError(t, err)
	require.Equal(t, []string{"2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21"}, s.days())
	require.Equal(t, []any{"2026-11-18", "2026-11-19", "2026-11-20", "2026-11-24"}, told["dates_processed"])
}

func TestCodesAndMarket(t *testing.T) {
	t.Parallel()
	s := setup(t, func(w http.ResponseWriter, r *http.Request) {
		page("null", issue("2026-11-24", r.URL.Query().Get("code")))(w, r)
	})
	told, err := s.run(t, nine, `{"codes": ["13010", "130A0"], "market": "0111"}`)
	require.NoError(t, err)
	require.EqualValues(t, 2, told["saved"])
	require.Equal(t, []string{"/v2/equities/master?code=13010&date=2026-11-24", "/v2/equities/master?code=130A0&date=2026-11-24"}, s.asked)
	told, err = s.run(t, nine, `{"codes": ["13010"], "market": "0112"}`)
	require.NoError(t, err)
	require.EqualValues(t, 1, told["fetched"])
	require.EqualValues(t, 0, told["saved"])
	require.Equal(t, []any{"2026-11-24"}, told["dates_processed"])
}

func TestParametersThatAreRefused(t *testing.T) {
	t.Parallel()
	s := setup(t, sameDay)
	schema, err := riverbeat.CompileParameterSchema(s.task.Schema())
	require.NoError(t, err)
	for _, params := range []string{
		`{"period_type": "daily"}`, `{"period_type": "custom"}`, `{"period_type": "custom", "from_date": "2026-01-01"}`,
		`{"period_type": "custom", "from_date": "2026-01-01", "to_date": "2026-02-30"}`, `{"from_date": "01.02.2026"}`,
		`{"codes": ["130"]}`, `{"codes": ["13010a"]}`, `{"codes": ["1301a"]}`, `{"codes": "13010"}`, `{"market": "prime!"}`, `{"other": 1}`,
	} {
		_, err := schema.Effective(json.RawMessage(params))
		require.Equal(t, riverbeat.Invalid, riverbeat.KindOf(err), params)
	}
	for params, why := range map[string]string{
		`{"period_type": "custom", "from_date": "2026-01-02", "to_date": "2026-01-01"}`: "must not be after",
		`{"period_type": "custom", "from_date": "2025-01-01", "to_date": "2026-01-02"}`: "366 days",
	} {
		_, err := s.run(t, nine, params)
		require.ErrorContains(t, err, why)
		require.True(t, task.IsFinal(err))
	}
	require.Empty(t, s.asked)
	_, err = s.run(t, nine, `{"period_type": "custom", "from_date": "2025-01-01", "to_date": "2026-01-01"}`)
	require.NoError(t, err)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer  func(http.ResponseWriter, *http.Request)
		final   bool
		snoozed time.Duration
		says    string
	}{
		"JSON403": {says(403, `{"message": "The incoming token is invalid"}`), true, 0, "403 Forbidden: The incoming token is invalid"},
		"Echoes":  {says(401, "your key "+key+" is wrong"), true, 0, "your key … is wrong"},
		"Text403": {says(403, "  Forbidden here  "), true, 0, "403 Forbidden: Forbidden here"},
		"JSON400": {says(400, `{"message": "'date' is wrong"}`), true, 0, "'date' is wrong"},
		"TooMany": {says(429, `{"message": "Rate limit exceeded"}`), false, 2 * time.Minute, "Rate limit exceeded"},
		"Broken":  {says(500, "oops"), false, 0, "500 Internal Server Error: oops"},
		"Redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}, true, 0, "302"},
		"NotJSON":      {says(200, "<html>"), false, 0, "read the answer"},
		"RepeatedPage": {page(`"same"`, issue("2026-11-24", "13010")), true, 0, `"same" twice`},
		"CutOff": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"data": [`)
		}, false, 0, "unexpected EOF"},
		"EndlessPages": {func(w http.ResponseWriter, r *http.Request) {
			page(fmt.Sprintf("%q", r.URL.Query().Get("pagination_key")+"x"))(w, r)
		}, true, 0, "100 pages"},
		"EndlessBody": {func(w http.ResponseWriter, _ *http.Request) {
			for block := []byte(strings.Repeat(" ", 1<<20)); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, true, 0, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, test.answer)
			_, err := s.run(t, nine, `{}`)
			require.ErrorContains(t, err, test.says)
			require.Equal(t, test.final, task.IsFinal(err))
			after, _ := task.Snoozed(err)
			require.Equal(t, test.snoozed, after)
			require.Zero(t, s.count(t, "SELECT count(*) FROM jquants_listed_info"))
			held := s.count(t, "SELECT count(*) FROM request_slots WHERE next_at > now() + interval '1 minute'")
			require.Equal(t, test.snoozed > 0, held == 1, "nobody else asks either")
		})
	}
}

func TestEmptyAndOddRows(t *testing.T) {
	t.Parallel()
	s := setup(t, page("null"), page("null", issue("2026-11-24", "13010"), issue("24.11.2026", "13010"), issue("2026-11-24", ""),
		issue("2026-11-24", "13011122333"), strings.Replace(issue("2026-11-24", "13050"), "KYOKUYO", `KYO\u0000KUYO`, 1)))
	told, err := s.run(t, nine, `{}`)
	require.NoError(t, err)
	require.EqualValues(t, 0, told["fetched"])
	require.Equal(t, []any{"2026-11-24"}, told["dates_processed"])
	told, err = s.run(t, nine, `{}`)
	require.NoError(t, err)
	require.EqualValues(t, 1, told["saved"], "one that cannot be stored does not take the others with it")
	require.Len(t, told["errors"], 4)
}

func TestGzip(t *testing.T) {
	t.Parallel()
	s := setup(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			http.Error(w, "it must be gzip", http.StatusNotAcceptable)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, `{"data": [`+issue("2026-11-24", "13010")+`]}`)
		_ = z.Close()
	})
	told, err := s.run(t, nine, `{}`)
	require.NoError(t, err)
	require.EqualValues(t, 1, told["saved"])
}

// A body that does not end holds the run no longer than its deadline.
func TestASlowBody(t *testing.T) {
	t.Parallel()
	s := setup(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"data": [`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := s.task.Run(ctx, &task.Run{
		ScheduledFor: time.Now(), TaskParams: json.RawMessage(`{}`), Logger: slog.New(slog.DiscardHandler),
		Zone: func(context.Context) (*time.Location, error) { return time.UTC, nil },
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, task.IsFinal(err))
}

// All nodes together keep to the rate.
func TestRequestsLeaveAtThePlansRate(t *testing.T) {
	t.Parallel()
	s := setup(t, sameDay)
	slow := jquants.New(jquants.Config{DB: s.DB, BaseURL: s.base, APIKey: key, PerMinute: 600}) // each 0.1 s
	other := jquants.New(jquants.Config{DB: s.DB, BaseURL: s.base, APIKey: key, PerMinute: 600})
	began := time.Now()
	var nodes sync.WaitGroup
	for _, of := range []task.Task{slow, other} {
		nodes.Go(func() {
			_, err := of.Run(t.Context(), &task.Run{
				ScheduledFor: began, TaskParams: json.RawMessage(`{"period_type": "7days"}`), Logger: slog.New(slog.DiscardHandler),
				Zone: func(context.Context) (*time.Location, error) { return time.UTC, nil },
			})
			require.NoError(t, err)
		})
	}
	nodes.Wait()
	require.Len(t, s.days(), 14)
	require.GreaterOrEqual(t, time.Since(began), 1300*time.Millisecond)
}

// Nobody takes slots that lie far ahead, since a node that ends loses its own; and a
// clock that was wrong once does not hold all for ever.
func TestSlotsAreNotTakenFarAhead(t *testing.T) {
	t.Parallel()
	s := setup(t, sameDay)
	take := func() (wait time.Duration, taken bool) {
		require.NoError(t, s.DB.InTx(t.Context(), func(tx *postgres.Tx) (err error) {
			wait, taken, err = tx.TakeRequestSlot(t.Context(), "s", 20*time.Second)
			return err
		}))
		return wait, taken
	}
	for i := range 3 {
		wait, taken := take()
		require.True(t, taken)
		require.InDelta(t, 20*i, wait.Seconds(), 2)
	}
	_, err := s.Pool.Exec(t.Context(), "UPDATE request_slots SET next_at = now() + interval '2 minutes'")
	require.NoError(t, err)
	wait, taken := take()
	require.False(t, taken)
	require.InDelta(t, 120, wait.Seconds(), 2)
	_, err = s.Pool.Exec(t.Context(), "UPDATE request_slots SET next_at = now() + interval '2 years'")
	require.NoError(t, err)
	wait, taken = take()
	require.True(t, taken)
	require.InDelta(t, 0, wait.Seconds(), 2)
}

func TestWithoutAKey(t *testing.T) {
	t.Parallel()
	s := setup(t, sameDay)
	s.task = jquants.New(jquants.Config{DB: s.DB, BaseURL: s.base, PerMinute: 5})
	_, err := s.run(t, nine, `{}`)
	require.ErrorContains(t, err, "RIVERBEAT_JQUANTS_API_KEY")
	require.True(t, task.IsFinal(err))
}
