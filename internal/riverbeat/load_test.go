package riverbeat

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestForecast(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 3, 2, 8, 58, 0, 0, time.UTC)
	to := from.Add(10 * time.Minute)
	source := func(cron string, n int) LoadSource {
		return LoadSource{CronExpression: cron, Timezone: "UTC", StartsAt: from, EndsAt: to, Schedules: n}
	}
	late := source("* * * * *", 5)
	late.StartsAt = from.Add(8 * time.Minute)
	tokyo := source("0 18 * * *", 7)
	tokyo.Timezone = "Asia/Tokyo"
	load, err := Forecast([]LoadSource{
		source("0 9 * * *", 100), source("*/5 * * * *", 3), source("30 1 9 * * *", 2), late, tokyo,
		source("0 0 1 1 *", 9), source("this is none", 1),
	}, from, to)
	require.NoError(t, err)
	minute := func(clock string, n int) LoadMinute {
		at, err := time.Parse("15:04", clock)
		require.NoError(t, err)
		return LoadMinute{time.Date(2026, 3, 2, at.Hour(), at.Minute(), 0, 0, time.UTC), n}
	}
	require.Equal(t, []LoadMinute{minute("09:00", 110), minute("09:01", 2), minute("09:05", 3), minute("09:06", 5), minute("09:07", 5)}, load.Minutes)
	require.Equal(t, 125, load.Total)
	require.Len(t, load.Peaks, 5)
	require.Equal(t, minute("09:00", 110), load.Peaks[0].LoadMinute)
	var causes []string
	for _, c := range load.Peaks[0].Causes {
		causes = append(causes, c.CronExpression)
	}
	require.Equal(t, []string{"0 9 * * *", "0 18 * * *", "*/5 * * * *"}, causes)
	require.Equal(t, minute("09:06", 5), load.Peaks[1].LoadMinute, "of two that are as full the earlier first")

	many := make([]LoadSource, 40)
	for i := range many {
		many[i] = LoadSource{CronExpression: "* * * * * *", Timezone: "UTC", StartsAt: from, EndsAt: from.Add(MaxLoadRange), Schedules: 1}
	}
	_, err = Forecast(many, from, from.Add(MaxLoadRange))
	require.Equal(t, Invalid, KindOf(err))
}

func BenchmarkForecast(b *testing.B) {
	from := time.Date(2026, 3, 2, 8, 58, 0, 0, time.UTC)
	sources := []LoadSource{{CronExpression: "* * * * * *", Timezone: "Europe/Berlin", StartsAt: from, EndsAt: from.Add(MaxLoadRange), Schedules: 1}}
	for b.Loop() {
		_, err := Forecast(sources, from, from.Add(24*time.Hour))
		require.NoError(b, err)
	}
}
