package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"riverbeat/internal/postgres/internal/dbq"
)

// ZoneOfVersion is the zone of a schedule at a version, be it gone or not;
// pgx.ErrNoRows if it is not known.
func (tx *Tx) ZoneOfVersion(ctx context.Context, scheduleID uuid.UUID, version int) (string, error) {
	return tx.q.ZoneOfVersion(ctx, tx.Tx, &dbq.ZoneOfVersionParams{
		ScheduleID: scheduleID, Version: int32(version), //nolint:gosec // it was read from there
	})
}

// slotsAhead is how far ahead slots are taken, and slotsHeld how far they may be put off:
// what lies behind that comes from a clock that was wrong.
const (
	slotsAhead = time.Minute
	slotsHeld  = 10 * time.Minute
)

// TakeRequestSlot takes the next moment at which a request to a service may leave,
// whichever node sends it, and tells how long that is from now; 0 or less: now. The
// moments lie so far apart. Who does not use his has lost it, so none is taken that is
// more than a minute off: then taken is false, and wait how long that is.
func (tx *Tx) TakeRequestSlot(ctx context.Context, service string, apart time.Duration) (wait time.Duration, taken bool, err error) {
	const take = `
WITH slot AS (
    INSERT INTO request_slots AS s (service, next_at)
    VALUES (@service, statement_timestamp() + @apart::interval)
    ON CONFLICT ON CONSTRAINT request_slots_pkey DO UPDATE
    SET next_at = @apart::interval + CASE
        WHEN s.next_at BETWEEN statement_timestamp() AND statement_timestamp() + @ahead::interval THEN s.next_at
        ELSE statement_timestamp()
    END
    WHERE NOT s.next_at BETWEEN statement_timestamp() + @ahead::interval AND statement_timestamp() + @held::interval
    RETURNING next_at - @apart::interval AS at
)
SELECT
    coalesce(
        (SELECT at FROM slot),
        (SELECT next_at FROM request_slots WHERE service = @service)
    ) - statement_timestamp(),
    EXISTS (SELECT FROM slot)`
	err = tx.QueryRow(ctx, take, pgx.StrictNamedArgs{
		"service": service, "apart": apart, "ahead": slotsAhead, "held": slotsHeld,
	}).Scan(&wait, &taken)
	return wait, taken, err
}

// HoldRequests keeps all requests to a service, whichever node sends them, for a while
// of at most ten minutes; those whose slots are taken leave.
func (tx *Tx) HoldRequests(ctx context.Context, service string, most time.Duration) error {
	const hold = `
UPDATE request_slots
SET next_at = greatest(next_at, statement_timestamp() + @most::interval)
WHERE service = @service`
	_, err := tx.Exec(ctx, hold, pgx.StrictNamedArgs{"service": service, "most": most})
	return err
}

// ListedIssue is one issue of the Tokyo Stock Exchange on a day; "" is what is missing.
type ListedIssue struct {
	Code                            string
	CompanyName, CompanyNameEnglish string
	Sector17Code, Sector17CodeName  string
	Sector33Code, Sector33CodeName  string
	ScaleCategory                   string
	MarketCode, MarketCodeName      string
	MarginCode, MarginCodeName      string
	ProductCategory                 string
}

// SaveListedInfo writes the issues of a day over those that are there, each code once,
// and tells how many were new or have changed: what is as it was is not touched.
func (tx *Tx) SaveListedInfo(ctx context.Context, day time.Time, issues []ListedIssue) (saved int, err error) {
	const save = `
INSERT INTO jquants_listed_info AS l (
    date, code, company_name, company_name_english, sector_17_code, sector_17_code_name,
    sector_33_code, sector_33_code_name, scale_category, market_code, market_code_name,
    margin_code, margin_code_name, product_category
)
SELECT
    @date::date, r.code,
    nullif(r.company_name, ''), nullif(r.company_name_english, ''),
    nullif(r.sector_17_code, ''), nullif(r.sector_17_code_name, ''),
    nullif(r.sector_33_code, ''), nullif(r.sector_33_code_name, ''),
    nullif(r.scale_category, ''), nullif(r.market_code, ''), nullif(r.market_code_name, ''),
    nullif(r.margin_code, ''), nullif(r.margin_code_name, ''), nullif(r.product_category, '')
FROM unnest(
    @codes::text[], @company_names::text[], @company_names_english::text[],
    @sector_17_codes::text[], @sector_17_code_names::text[],
    @sector_33_codes::text[], @sector_33_code_names::text[],
    @scale_categories::text[], @market_codes::text[], @market_code_names::text[],
    @margin_codes::text[], @margin_code_names::text[], @product_categories::text[]
) AS r (
    code, company_name, company_name_english, sector_17_code, sector_17_code_name,
    sector_33_code, sector_33_code_name, scale_category, market_code, market_code_name,
    margin_code, margin_code_name, product_category
)
ON CONFLICT ON CONSTRAINT jquants_listed_info_pkey DO UPDATE
SET company_name = excluded.company_name,
    company_name_english = excluded.company_name_english,
    sector_17_code = excluded.sector_17_code,
    sector_17_code_name = excluded.sector_17_code_name,
    sector_33_code = excluded.sector_33_code,
    sector_33_code_name = excluded.sector_33_code_name,
    scale_category = excluded.scale_category,
    market_code = excluded.market_code,
    market_code_name = excluded.market_code_name,
    margin_code = excluded.margin_code,
    margin_code_name = excluded.margin_code_name,
    product_category = excluded.product_category,
    updated_at = statement_timestamp()
WHERE (
    l.company_name, l.company_name_english, l.sector_17_code, l.sector_17_code_name,
    l.sector_33_code, l.sector_33_code_name, l.scale_category, l.market_code,
    l.market_code_name, l.margin_code, l.margin_code_name, l.product_category
) IS DISTINCT FROM (
    excluded.company_name, excluded.company_name_english, excluded.sector_17_code,
    excluded.sector_17_code_name, excluded.sector_33_code, excluded.sector_33_code_name,
    excluded.scale_category, excluded.market_code, excluded.market_code_name,
    excluded.margin_code, excluded.margin_code_name, excluded.product_category
)`
	columns := map[string]func(*ListedIssue) string{
		"codes":                 func(i *ListedIssue) string { return i.Code },
		"company_names":         func(i *ListedIssue) string { return i.CompanyName },
		"company_names_english": func(i *ListedIssue) string { return i.CompanyNameEnglish },
		"sector_17_codes":       func(i *ListedIssue) string { return i.Sector17Code },
		"sector_17_code_names":  func(i *ListedIssue) string { return i.Sector17CodeName },
		"sector_33_codes":       func(i *ListedIssue) string { return i.Sector33Code },
		"sector_33_code_names":  func(i *ListedIssue) string { return i.Sector33CodeName },
		"scale_categories":      func(i *ListedIssue) string { return i.ScaleCategory },
		"market_codes":          func(i *ListedIssue) string { return i.MarketCode },
		"market_code_names":     func(i *ListedIssue) string { return i.MarketCodeName },
		"margin_codes":          func(i *ListedIssue) string { return i.MarginCode },
		"margin_code_names":     func(i *ListedIssue) string { return i.MarginCodeName },
		"product_categories":    func(i *ListedIssue) string { return i.ProductCategory },
	}
	args := pgx.StrictNamedArgs{"date": day}
	for name, of := range columns {
		values := make([]string, len(issues))
		for i := range issues {
			values[i] = of(&issues[i])
		}
		args[name] = values
	}
	done, err := tx.Exec(ctx, save, args)
	return int(done.RowsAffected()), err
}
