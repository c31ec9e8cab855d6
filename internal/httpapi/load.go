package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"riverbeat/internal/riverbeat"
)

// load is a forecast of ticks, as it is answered.
type load struct {
	From    time.Time    `json:"from"`
	To      time.Time    `json:"to"`
	Total   int          `json:"total" doc:"Ticks in all."`
	Minutes []loadMinute `json:"minutes" nullable:"false" doc:"The minutes that have ticks, in their order."`
	Peaks   []loadPeak   `json:"peaks" nullable:"false" doc:"The fullest minutes, at most 10, the fullest first."`
}

type loadMinute struct {
	At    time.Time `json:"at" doc:"When the minute begins."`
	Ticks int       `json:"ticks"`
}

type loadPeak struct {
	At     time.Time   `json:"at"`
	Ticks  int         `json:"ticks"`
	Causes []loadCause `json:"causes" nullable:"false" doc:"The recurrences with the most ticks in it, at most 5."`
}

type loadCause struct {
	CronExpression string          `json:"cron_expression"`
	Timezone       string          `json:"timezone"`
	Ticks          int             `json:"ticks" doc:"Of all its schedules, in this minute."`
	Schedules      []namedSchedule `json:"schedules" nullable:"false" doc:"Some of its schedules, at most 5."`
}

type namedSchedule struct {
	ID       uuid.UUID `json:"id" format:"uuid"`
	Name     string    `json:"name"`
	TaskName string    `json:"task_name"`
}

func loadOf(l *riverbeat.Load) *load {
	shown := &load{From: l.From, To: l.To, Total: l.Total, Minutes: make([]loadMinute, len(l.Minutes)), Peaks: make([]loadPeak, len(l.Peaks))}
	for i, m := range l.Minutes {
		shown.Minutes[i] = loadMinute(m)
	}
	for i, p := range l.Peaks {
		peak := loadPeak{At: p.At, Ticks: p.Ticks, Causes: make([]loadCause, len(p.Causes))}
		for j, c := range p.Causes {
			cause := loadCause{CronExpression: c.CronExpression, Timezone: c.Timezone, Ticks: c.Ticks, Schedules: make([]namedSchedule, len(c.Examples))}
			for k, s := range c.Examples {
				cause.Schedules[k] = namedSchedule(s)
			}
			peak.Causes[j] = cause
		}
		shown.Peaks[i] = peak
	}
	return shown
}

type loadRequest struct {
	From *time.Time `query:"from" doc:"From this minute on. Defaults to now."`
	To   *time.Time `query:"to" doc:"Before it; at most 7 days later. Defaults to a day later."`
}

func (a *api) load(ctx context.Context, req *loadRequest) (*answer[*load], error) {
	l, err := a.History.Load(ctx, req.From, req.To)
	if err != nil {
		return nil, err
	}
	return ok(loadOf(l)), nil
}
