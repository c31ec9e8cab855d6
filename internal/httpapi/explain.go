package httpapi

import (
	"context"
	"time"

	"riverbeat/internal/riverbeat"
)

// explanation says why there was, or was not, a run. What there is nothing to
// say about is left out.
type explanation struct {
	At          time.Time        `json:"at" doc:"What was asked for, in UTC."`
	Local       string           `json:"local,omitempty" format:"date-time" doc:"The same by the clocks of the schedule's zone."`
	Verdict     verdict          `json:"verdict" doc:"Why, for programs. The state of the run if there is one."`
	Explanation string           `json:"explanation" doc:"Why, for people. Times are in the schedule's zone."`
	Nominal     bool             `json:"nominal" doc:"Whether the expression in force ticks then; enabled, starts_at and ends_at are another matter."`
	Nearest     nearestTicks     `json:"nearest" doc:"The ticks before and after it, by what was in force then."`
	Tick        *tick            `json:"tick,omitempty" doc:"The tick that it is about: at, or the one that stands for it because clocks changed."`
	Run         *run             `json:"run,omitempty" doc:"The tick's run; if there is none, that of a backfill or request at that very time."`
	Runs        []*run           `json:"runs,omitempty" doc:"All runs of that time, if there are several."`
	Lateness    *float64         `json:"lateness_seconds,omitempty" doc:"From the nominal time of the run to its start."`
	BlockedBy   *run             `json:"blocked_by,omitempty" doc:"The run behind which it was skipped, or waits now."`
	Ahead       *int             `json:"ahead,omitempty" doc:"For verdict waiting: how many wait in line before it."`
	Gap         *gap             `json:"gap,omitempty" doc:"The gap of missed ticks that it lies in."`
	Pause       *pause           `json:"pause,omitempty" doc:"The pause of the installation that it lies in, or is held by."`
	Stopped     *stoppedClock    `json:"stopped,omitempty" doc:"For verdict stopped: why."`
	Next        []tick           `json:"next,omitempty" doc:"For verdict upcoming: the ticks after it."`
	Version     *scheduleVersion `json:"version,omitempty" doc:"The definition in force then; if there was none, the last one before or the first one."`
}

type nearestTicks struct {
	Before *tick `json:"before,omitempty"`
	After  *tick `json:"after,omitempty"`
}

// gap is a row of ticks that were not run.
type gap struct {
	From       *time.Time `json:"from" doc:"Its first tick."`
	Until      *time.Time `json:"until" doc:"Its last tick."`
	Count      *int       `json:"count" doc:"How many ticks; null if more than 10,000."`
	Reason     *string    `json:"reason" doc:"outside_window, superseded or paused."`
	RecordedAt *time.Time `json:"recorded_at"`
}

// pause is a time during which no tick fired.
type pause struct {
	PausedAt  time.Time  `json:"paused_at"`
	PausedBy  *string    `json:"paused_by"`
	Reason    *string    `json:"reason"`
	ResumedAt *time.Time `json:"resumed_at" doc:"Null while it lasts."`
	ResumedBy *string    `json:"resumed_by"`
}

type stoppedClock struct {
	LastError *string    `json:"last_error"`
	RetryAt   *time.Time `json:"retry_at" doc:"When it is tried again by itself."`
}

// scheduleVersion is a definition that a schedule had.
type scheduleVersion struct {
	Version         int             `json:"version"`
	ValidFrom       time.Time       `json:"valid_from" doc:"In force for ticks after it."`
	ValidUntil      *time.Time      `json:"valid_until" doc:"And up to it; null: it is in force."`
	ChangedBy       *string         `json:"changed_by"`
	Name            string          `json:"name"`
	TaskName        string          `json:"task_name"`
	CronExpression  string          `json:"cron_expression"`
	Timezone        string          `json:"timezone"`
	Enabled         bool            `json:"enabled"`
	Args            jsonArray       `json:"args"`
	TaskParams      jsonObject      `json:"task_params"`
	ExecutionPolicy executionPolicy `json:"execution_policy"`
	CatchUp         catchUp         `json:"catch_up"`
	CatchUpWindow   duration        `json:"catch_up_window"`
	MaxWaiting      int             `json:"max_waiting"`
	StartsAt        *time.Time      `json:"starts_at"`
	EndsAt          *time.Time      `json:"ends_at"`
}

type explainRequest struct {
	scheduleRequest
	At time.Time `query:"at" required:"true" doc:"The time to explain, past or to come, in the years 1970 to 9999."`
}

func (a *api) explain(ctx context.Context, req *explainRequest) (*answer[*explanation], error) {
	if req.At.Year() < 1970 || req.At.Year() > 9999 {
		return nil, riverbeat.InvalidField("invalid_request", "at", "must lie in the years 1970 to 9999")
	}
	e, err := a.History.Explain(ctx, req.ID, req.At)
	if err != nil {
		return nil, err
	}
	return ok(explanationOf(e)), nil
}

func explanationOf(e *riverbeat.Explanation) *explanation {
	shown := &explanation{
		At:          e.At,
		Verdict:     verdict(e.Verdict),
		Explanation: e.Text,
		Nominal:     e.Nominal,
		Gap:         gapOf(e.Gap),
		Version:     versionOf(e.Version),
	}
	if r := e.Recurrence; r != nil {
		optional := func(at *time.Time) *tick {
			if at == nil {
				return nil
			}
			if t, ok := tickOf(r, *at); ok {
				return &t
			}
			return nil
		}
		shown.Nearest = nearestTicks{Before: optional(e.Before), After: optional(e.After)}
		if e.Nominal || !e.Tick.Equal(e.At) {
			shown.Tick = optional(&e.Tick)
		}
		for _, at := range e.Next {
			if t := optional(&at); t != nil {
				shown.Next = append(shown.Next, *t)
			}
		}
		if local := e.At.In(r.Location()); local.Year() <= 9999 {
			shown.Local = local.Format(time.RFC3339Nano)
		}
	}
	if len(e.Runs) > 0 {
		shown.Run = runOf(e.Runs[0])
	}
	if len(e.Runs) > 1 {
		for _, r := range e.Runs {
			shown.Runs = append(shown.Runs, runOf(r))
		}
	}
	if e.Lateness != nil {
		seconds := e.Lateness.Seconds()
		shown.Lateness = &seconds
	}
	if e.BlockedBy != nil {
		shown.BlockedBy = runOf(e.BlockedBy)
	}
	switch {
	case e.Verdict == riverbeat.Verdict(riverbeat.Waiting):
		shown.Ahead = &e.Ahead
	case e.Verdict == riverbeat.VerdictStopped && e.Clock != nil:
		shown.Stopped = &stoppedClock{LastError: orNull(e.Clock.LastError), RetryAt: e.Clock.RetryAt}
	}
	if shown.Pause = pauseOf(e.Pause); shown.Pause == nil && e.Verdict == riverbeat.VerdictPaused {
		shown.Pause = pauseOf(e.Paused)
	}
	return shown
}

func gapOf(r *riverbeat.Run) *gap {
	if r == nil {
		return nil
	}
	return &gap{From: r.MissedFrom, Until: r.MissedUntil, Count: r.MissedCount, Reason: orNull(r.Reason), RecordedAt: r.FinishedAt}
}

func pauseOf(p *riverbeat.Pause) *pause {
	if p == nil {
		return nil
	}
	return &pause{
		PausedAt: p.PausedAt, PausedBy: orNull(p.PausedBy), Reason: orNull(p.Reason),
		ResumedAt: p.ResumedAt, ResumedBy: orNull(p.ResumedBy),
	}
}

func versionOf(v *riverbeat.ScheduleVersion) *scheduleVersion {
	if v == nil {
		return nil
	}
	return &scheduleVersion{
		Version:         v.Version,
		ValidFrom:       v.ValidFrom,
		ValidUntil:      v.ValidUntil,
		ChangedBy:       orNull(v.ChangedBy),
		Name:            v.Name,
		TaskName:        v.TaskName,
		CronExpression:  v.CronExpression,
		Timezone:        v.Timezone,
		Enabled:         v.Enabled,
		Args:            jsonArray{rawOr(v.Args, "[]")},
		TaskParams:      jsonObject{rawOr(v.TaskParams, "{}")},
		ExecutionPolicy: executionPolicy(v.ExecutionPolicy),
		CatchUp:         catchUp(v.CatchUp),
		CatchUpWindow:   duration(v.CatchUpWindow),
		MaxWaiting:      v.MaxWaiting,
		StartsAt:        v.StartsAt,
		EndsAt:          v.EndsAt,
	}
}
