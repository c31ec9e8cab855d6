package history

import (
	"context"
	"sync"
	"time"

	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
)

// forecasts remembers the last forecast: it reads all schedules, and people look at
// it again and again.
type forecasts struct {
	mu   sync.Mutex
	last *riverbeat.Load // nil: none yet
	at   time.Time
}

// forecastLife is how long a forecast is good for.
const forecastLife = time.Minute

// Load counts the ticks of each minute of a time to come: from is cut to its
// minute, and nil is now; to is nil for a day later. It may be a minute old.
func (h *History) Load(ctx context.Context, from, to *time.Time) (*riverbeat.Load, error) {
	h.forecasts.mu.Lock() // one asks, and the others have its answer
	defer h.forecasts.mu.Unlock()
	var load *riverbeat.Load
	err := h.db.InTx(ctx, func(tx *postgres.Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		since, until, err := loadRange(now, from, to)
		if err != nil {
			return err
		}
		if last := h.forecasts.last; last != nil && last.From.Equal(since) && last.To.Equal(until) && now.Sub(h.forecasts.at) < forecastLife {
			load = last
			return nil
		}
		if load, err = forecast(ctx, tx, since, until); err != nil {
			return err
		}
		h.forecasts.last, h.forecasts.at = load, now
		return nil
	})
	return load, err
}

func loadRange(now time.Time, from, to *time.Time) (since, until time.Time, err error) {
	since = now.Truncate(time.Minute)
	if from != nil {
		if from.Before(since) {
			return since, until, riverbeat.InvalidField("invalid_range", "from", "must not lie in the past; the list of runs tells of that")
		}
		since = from.Truncate(time.Minute)
	}
	until = since.Add(24 * time.Hour)
	if to != nil {
		until = *to
	}
	switch {
	case until.Year() > 9999:
		err = riverbeat.InvalidField("invalid_range", "from", "must lie before the last day of the year 9999")
	case !until.After(since):
		err = riverbeat.InvalidField("invalid_range", "to", "must be after from")
	case until.Sub(since) > riverbeat.MaxLoadRange:
		err = riverbeat.InvalidField("invalid_range", "to", "must be within 7 days of from")
	}
	return since, until, err
}

func forecast(ctx context.Context, tx *postgres.Tx, from, to time.Time) (*riverbeat.Load, error) {
	const examples = 5
	sources, err := tx.LoadSources(ctx, from, to)
	if err != nil {
		return nil, err
	}
	load, err := riverbeat.Forecast(sources, from, to)
	if err != nil {
		return nil, err
	}
	for i := range load.Peaks {
		for j := range load.Peaks[i].Causes {
			cause := &load.Peaks[i].Causes[j]
			cause.Examples, err = tx.SchedulesOfRecurrence(ctx, postgres.RecurrenceKey{
				CronExpression: cause.CronExpression, Timezone: cause.Timezone,
			}, examples)
			if err != nil {
				return nil, err
			}
		}
	}
	return load, nil
}
