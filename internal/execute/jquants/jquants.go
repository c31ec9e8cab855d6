// Package jquants has the task fetch_listed_info: it fetches the list of issues of the
// Tokyo Stock Exchange from the J-Quants API V2 and stores it, day by day, in
// jquants_listed_info.
package jquants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/invopop/jsonschema"

	"riverbeat/internal/postgres"
	"riverbeat/task"
)

// Config is what the operator says of J-Quants.
type Config struct {
	DB      *postgres.DB
	BaseURL string // without the version's path, such as https://api.jquants.com
	APIKey  string // "" is none, and the task fails
	// PerMinute is how many requests the plan allows, over all nodes.
	PerMinute int
}

// Names that schedules call it by: the first is its own, the others come with those of
// Celery.
const (
	name        = "fetch_listed_info"
	celeryName  = "fetch_listed_info_task"
	asyncpgName = "fetch_listed_info_task_asyncpg"
)

// The values of period_type.
const (
	yesterday  = "yesterday"
	sevenDays  = "7days"
	thirtyDays = "30days"
	custom     = "custom"
)

const (
	// maxDays bounds a custom period.
	maxDays = 366
	// maxCodes bounds the codes, for each is a request per day.
	maxCodes = 100
	// maxCodeLength is that of the column.
	maxCodeLength = 10
	// maxErrors is how many rows that could not be stored are told one by one.
	maxErrors = 20
)

// New makes the task.
func New(cfg Config) task.Task {
	f := &fetcher{cfg: cfg, client: newClient(cfg)}
	t := task.New(name, f.run)
	t.Aliases = []string{celeryName, asyncpgName}
	t.Category = "jquants"
	t.Description = "Fetches the list of issues of the Tokyo Stock Exchange from J-Quants and stores it in jquants_listed_info."
	return t
}

type params struct {
	PeriodType string   `json:"period_type,omitempty" jsonschema:"enum=yesterday,enum=7days,enum=30days,enum=custom,default=yesterday,description=Which days: the one before the run's nominal time in the zone of its schedule\\, the 7 or 30 before it\\, or from_date to to_date."`
	FromDate   string   `json:"from_date,omitempty" jsonschema:"format=date,description=The first day\\, YYYY-MM-DD. For custom only."`
	ToDate     string   `json:"to_date,omitempty" jsonschema:"format=date,description=The last day\\, YYYY-MM-DD; at most 366 days in all. For custom only."`
	Codes      []string `json:"codes,omitempty" jsonschema:"uniqueItems=true,description=Only these issues: 4 or 5 characters of 0-9 and A-Z each. Each is a request for each day."`
	Market     string   `json:"market,omitempty" jsonschema:"pattern=^[0-9A-Z]{1\\,10}$,description=Only the issues of this market: its code\\, such as 0111."`
}

// JSONSchemaExtend says what tags cannot.
func (params) JSONSchemaExtend(schema *jsonschema.Schema) {
	if codes, ok := schema.Properties.Get("codes"); ok {
		most := uint64(maxCodes)
		codes.MaxItems = &most
		codes.Items = &jsonschema.Schema{Type: "string", Pattern: "^[0-9A-Z]{4,5}$"}
	}
	isCustom := jsonschema.NewProperties()
	isCustom.Set("period_type", &jsonschema.Schema{Const: custom})
	schema.If = &jsonschema.Schema{Properties: isCustom, Required: []string{"period_type"}}
	schema.Then = &jsonschema.Schema{Required: []string{"from_date", "to_date"}}
}

// days are the days that are meant, the first and the last. at is the run's nominal time
// in the zone of its schedule.
func (p *params) days(at time.Time) (from, to time.Time, err error) {
	day := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
	switch p.PeriodType {
	case yesterday, "":
		return day.AddDate(0, 0, -1), day.AddDate(0, 0, -1), nil
	case sevenDays:
		return day.AddDate(0, 0, -7), day.AddDate(0, 0, -1), nil
	case thirtyDays:
		return day.AddDate(0, 0, -30), day.AddDate(0, 0, -1), nil
	}
	if from, err = time.Parse(time.DateOnly, p.FromDate); err != nil {
		return from, to, fmt.Errorf("from_date must be a day, YYYY-MM-DD: %q", p.FromDate)
	}
	if to, err = time.Parse(time.DateOnly, p.ToDate); err != nil {
		return from, to, fmt.Errorf("to_date must be a day, YYYY-MM-DD: %q", p.ToDate)
	}
	if to.Before(from) {
		return from, to, fmt.Errorf("from_date %s must not be after to_date %s", p.FromDate, p.ToDate)
	}
	if !to.Before(from.AddDate(0, 0, maxDays)) {
		return from, to, fmt.Errorf("from_date %s and to_date %s are more than %d days apart", p.FromDate, p.ToDate, maxDays)
	}
	return from, to, nil
}

// result is what a run tells.
type result struct {
	Fetched        int      `json:"fetched"`         // rows that came
	Saved          int      `json:"saved"`           // rows that were new or had changed
	DatesProcessed []string `json:"dates_processed"` // days whose rows were stored, or that had none
	Errors         []string `json:"errors"`          // rows that could not be stored
}

func (r *result) failed(format string, args ...any) {
	switch len(r.Errors) {
	case maxErrors:
		r.Errors = append(r.Errors, "and others")
	case maxErrors + 1:
	default:
		r.Errors = append(r.Errors, fmt.Sprintf(format, args...))
	}
}

type fetcher struct {
	cfg    Config
	client *client
}

func (f *fetcher) run(ctx context.Context, run *task.Run, p params) (any, error) {
	if f.cfg.APIKey == "" {
		return nil, task.Final(errors.New("the key for J-Quants is not set: RIVERBEAT_JQUANTS_API_KEY"))
	}
	zone, err := run.Zone(ctx)
	if err != nil {
		return nil, err
	}
	from, to, err := p.days(run.ScheduledFor.In(zone))
	if err != nil {
		return nil, task.Final(err)
	}
	codes := p.Codes
	if len(codes) == 0 {
		codes = []string{""} // all
	}
	told := &result{DatesProcessed: []string{}, Errors: []string{}}
	for day := from; !day.After(to); {
		var rows []row
		for _, code := range codes {
			some, err := f.client.fetch(ctx, day, code)
			if err != nil {
				return nil, fmt.Errorf("fetch %s: %w", day.Format(time.DateOnly), err)
			}
			rows = append(rows, some...)
		}
		told.Fetched += len(rows)
		if len(rows) == 0 {
			told.DatesProcessed = append(told.DatesProcessed, day.Format(time.DateOnly))
		}
		first, err := f.save(ctx, rows, p.Market, told)
		if err != nil {
			return nil, err
		}
		run.Logger.InfoContext(ctx, "fetched", "day", day.Format(time.DateOnly), "rows", len(rows), "saved", told.Saved)
		// A holiday answers with the next business day: those between are the same.
		if first.After(day) {
			day = first
		}
		day = day.AddDate(0, 0, 1)
	}
	return told, nil
}

// save stores rows, each day in one transaction, and says which the first of those is.
func (f *fetcher) save(ctx context.Context, rows []row, market string, told *result) (first time.Time, err error) {
	days := map[time.Time]map[string]postgres.ListedIssue{}
	for _, r := range rows {
		day, err := time.Parse(time.DateOnly, r.Date)
		switch {
		case err != nil:
			told.failed("code %.20q has the date %.20q", r.Code, r.Date)
			continue
		case r.Code == "" || utf8.RuneCountInString(r.Code) > maxCodeLength:
			told.failed("a row of %s has the code %.20q", r.Date, r.Code)
			continue
		case strings.ContainsRune(fmt.Sprint(r), 0):
			told.failed("code %q of %s has a text with a NUL in it", r.Code, r.Date) // Postgres keeps none
			continue
		}
		if first.IsZero() || day.Before(first) {
			first = day
		}
		if days[day] == nil {
			days[day] = map[string]postgres.ListedIssue{}
		}
		if market == "" || r.Mkt == market {
			days[day][r.Code] = r.issue()
		}
	}
	for _, day := range slices.SortedFunc(maps.Keys(days), time.Time.Compare) {
		issues := make([]postgres.ListedIssue, 0, len(days[day]))
		for _, issue := range days[day] {
			issues = append(issues, issue)
		}
		// In one order, or two that store the same day would lock each other out.
		slices.SortFunc(issues, func(a, b postgres.ListedIssue) int { return strings.Compare(a.Code, b.Code) })
		var saved int
		err := f.cfg.DB.InTx(ctx, func(tx *postgres.Tx) (err error) {
			saved, err = tx.SaveListedInfo(ctx, day, issues)
			return err
		})
		if err != nil {
			return first, fmt.Errorf("store %s: %w", day.Format(time.DateOnly), err)
		}
		told.Saved += saved
		told.DatesProcessed = append(told.DatesProcessed, day.Format(time.DateOnly))
	}
	return first, nil
}
