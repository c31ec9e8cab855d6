package jquants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"riverbeat/internal/postgres"
	"riverbeat/task"
)

const (
	// service is whose slots the requests take.
	service = "jquants"
	// slack is what a minute of the plan has more here.
	slack = 2 * time.Second
	// lookAgain is how long who finds all slots of the next minute taken waits at most
	// before he looks again.
	lookAgain = 10 * time.Second

	path = "/v2/equities/master"
	// afterTooMany is how long a run rests when there were too many requests: the answer
	// does not say how long.
	afterTooMany = 2 * time.Minute
	// maxPages, maxBody and maxRows bound what a day may be: it is some 4,000 rows,
	// 1.5 MB.
	maxPages = 100
	maxBody  = 8 << 20
	maxRows  = 100_000
	// answerWithin is how long a page may take, its body included.
	answerWithin = time.Minute
	// maxMessage is how much is kept of what J-Quants says of an error.
	maxMessage = 1 << 10
)

type client struct {
	cfg  Config
	http *http.Client
}

func newClient(cfg Config) *client {
	return &client{cfg: cfg, http: &http.Client{
		Timeout: answerWithin,
		// The key would go along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// row is an issue as J-Quants tells it.
type row struct {
	Date, Code             string
	CoName, CoNameEn       string
	S17, S17Nm, S33, S33Nm string
	ScaleCat, Mkt, MktNm   string
	Mrgn, MrgnNm, ProdCat  string
}

func (r *row) issue() postgres.ListedIssue {
	return postgres.ListedIssue{
		Code:        r.Code,
		CompanyName: r.CoName, CompanyNameEnglish: r.CoNameEn,
		Sector17Code: r.S17, Sector17CodeName: r.S17Nm,
		Sector33Code: r.S33, Sector33CodeName: r.S33Nm,
		ScaleCategory: r.ScaleCat,
		MarketCode:    r.Mkt, MarketCodeName: r.MktNm,
		MarginCode: r.Mrgn, MarginCodeName: r.MrgnNm,
		ProductCategory: r.ProdCat,
	}
}

// page is an answer.
type page struct {
	Data          []row   `json:"data"`
	PaginationKey *string `json:"pagination_key"` // null or "": this is the last
}

// fetch fetches the issues of a day, of one code if it is given. Its error is Final where
// asking again would be answered the same, and a Snooze where there were too many
// requests.
func (c *client) fetch(ctx context.Context, day time.Time, code string) ([]row, error) {
	query := url.Values{"date": {day.Format(time.DateOnly)}}
	if code != "" {
		query.Set("code", code)
	}
	var rows []row
	seen := map[string]bool{}
	for range maxPages {
		got, err := c.page(ctx, query)
		if err != nil {
			return nil, err
		}
		if rows = append(rows, got.Data...); len(rows) > maxRows {
			return nil, task.Final(fmt.Errorf("J-Quants has more than %d issues for one day", maxRows))
		}
		if got.PaginationKey == nil || *got.PaginationKey == "" {
			return rows, nil
		}
		if seen[*got.PaginationKey] {
			return nil, task.Final(fmt.Errorf("J-Quants gave the pagination_key %.100q twice", *got.PaginationKey))
		}
		seen[*got.PaginationKey] = true
		query.Set("pagination_key", *got.PaginationKey)
	}
	return nil, task.Final(fmt.Errorf("J-Quants has more than %d pages for one day", maxPages))
}

func (c *client) page(ctx context.Context, query url.Values) (*page, error) {
	if err := c.awaitSlot(ctx); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.cfg.BaseURL, "/")+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, task.Final(err)
	}
	r.Header.Set("x-api-key", c.cfg.APIKey)
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask J-Quants: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if err := c.refused(answer); err != nil {
		if _, tooMany := task.Snoozed(err); tooMany {
			return nil, errors.Join(err, c.cfg.DB.InTx(ctx, func(tx *postgres.Tx) error {
				return tx.HoldRequests(ctx, service, afterTooMany)
			}))
		}
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of J-Quants: %w", err)
	}
	if len(body) > maxBody {
		return nil, task.Final(fmt.Errorf("J-Quants answered with more than %d bytes", maxBody))
	}
	var got page
	if err := json.Unmarshal(body, &got); err != nil {
		return nil, fmt.Errorf("read the answer of J-Quants: %w", err)
	}
	return &got, nil
}

// awaitSlot waits until a request may leave.
func (c *client) awaitSlot(ctx context.Context) error {
	// A little more than the plan says, for some requests take longer to arrive.
	apart := (time.Minute + slack) / time.Duration(c.cfg.PerMinute)
	for {
		var wait time.Duration
		var taken bool
		err := c.cfg.DB.InTx(ctx, func(tx *postgres.Tx) (err error) {
			wait, taken, err = tx.TakeRequestSlot(ctx, service, apart)
			return err
		})
		if err != nil {
			return fmt.Errorf("wait for a slot of the plan's rate: %w", err)
		}
		if !taken {
			wait = min(wait, lookAgain)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		if taken {
			return nil
		}
	}
}

// refused makes the error of an answer that has no rows.
func (c *client) refused(answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	said, _ := io.ReadAll(io.LimitReader(answer.Body, maxMessage)) // what cannot be read is not told
	message := strings.TrimSpace(string(said))
	var document struct{ Message string }
	if json.Unmarshal(said, &document) == nil && document.Message != "" {
		message = document.Message
	}
	message = strings.ReplaceAll(message, c.cfg.APIKey, "…") // of who echoes what he was asked
	err := fmt.Errorf("J-Quants answered %s: %s", answer.Status, message)
	switch {
	case answer.StatusCode == http.StatusTooManyRequests:
		return task.Snooze(afterTooMany, err)
	case answer.StatusCode == http.StatusRequestTimeout, answer.StatusCode >= http.StatusInternalServerError:
		return err
	}
	return task.Final(err)
}
