package httpapi

import (
	"context"
	"time"

	"riverbeat/internal/riverbeat"
)

// ticks are the next ticks of a recurrence.
type ticks struct {
	Description string `json:"description" doc:"The cron expression in words, without the zone." example:"at 09:00 on Monday to Friday"`
	Ticks       []tick `json:"ticks" nullable:"false" doc:"In order. Fewer than asked for if the recurrence or the schedule ends."`
}

type tick struct {
	At     time.Time `json:"at" doc:"When, in UTC." example:"2026-03-02T00:00:00Z"`
	Local  string    `json:"local" format:"date-time" doc:"When, by the clocks of the zone." example:"2026-03-02T09:00:00+09:00"`
	Remark string    `json:"remark,omitempty" doc:"What is odd about it: its time does not exist on that day, or exists twice."`
}

// nextTicks are at most count ticks of s after the given time.
func nextTicks(s *riverbeat.Schedule, r *riverbeat.Recurrence, after time.Time, count int) ticks {
	next := ticks{Description: r.Describe(), Ticks: []tick{}}
	for len(next.Ticks) < count {
		at := s.NextTick(r, after)
		if at == nil {
			break
		}
		shown, ok := tickOf(r, *at)
		if !ok {
			break
		}
		next.Ticks = append(next.Ticks, shown)
		after = *at
	}
	return next
}

// tickOf shows a tick; false if RFC 3339 cannot write its local time.
func tickOf(r *riverbeat.Recurrence, at time.Time) (tick, bool) {
	local := at.In(r.Location())
	if local.Year() > 9999 {
		return tick{}, false
	}
	return tick{At: at, Local: local.Format(time.RFC3339), Remark: r.Remark(at)}, true
}

type nextRequest struct {
	scheduleRequest
	After *time.Time `query:"after" doc:"Ticks after it. Defaults to now."`
	Count int        `query:"count" def:"5" minimum:"1" maximum:"100" doc:"How many ticks."`
}

func (a *api) nextTicks(ctx context.Context, req *nextRequest) (*answer[ticks], error) {
	s, err := a.Catalog.Schedule(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	r, err := s.Recurrence()
	if err != nil {
		return nil, err
	}
	return ok(nextTicks(s, r, valueOr(req.After, a.Now()), req.Count)), nil
}

type previewRequest struct{ Body previewInput }

type previewInput struct {
	CronExpression *string    `json:"cron_expression" required:"true" example:"30 2 * * *"`
	Timezone       *string    `json:"timezone" doc:"IANA name. Defaults to the server's." example:"Europe/Berlin"`
	After          *time.Time `json:"after" doc:"Ticks after it. Defaults to now."`
	Count          *int       `json:"count" def:"5" minimum:"1" maximum:"100" doc:"How many ticks."`
}

func (in *previewInput) check() error {
	_, err := riverbeat.ParseRecurrence(valueOr(in.CronExpression, ""), valueOr(in.Timezone, "UTC"))
	return err
}

func (a *api) preview(_ context.Context, req *previewRequest) (*answer[ticks], error) {
	in := &req.Body
	r, err := riverbeat.ParseRecurrence(valueOr(in.CronExpression, ""), valueOr(in.Timezone, a.DefaultTimezone))
	if err != nil {
		return nil, err
	}
	return ok(nextTicks(&riverbeat.Schedule{}, r, valueOr(in.After, a.Now()), valueOr(in.Count, 5))), nil
}
