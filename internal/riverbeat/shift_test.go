package riverbeat

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestShifted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, cron, zone string
		at               string
		wall, tick       string // tick "": none
		repeated         bool
	}{
		{"MovedByTheOffsetBefore", "30 2 * * *", "Europe/Berlin", "2026-03-29T02:30:00+01:00", "2026-03-29 02:30", "2026-03-29T03:00:00+02:00", false},
		{"MovedByTheOffsetAfter", "30 2 * * *", "Europe/Berlin", "2026-03-29T02:30:00+02:00", "2026-03-29 02:30", "2026-03-29T03:00:00+02:00", false},
		{"OneOfSeveralThatAreMoved", "10,50 2 * * *", "Europe/Berlin", "2026-03-29T02:50:00+01:00", "2026-03-29 02:50", "2026-03-29T03:00:00+02:00", false},
		{"ElapsedTimeHasNone", "*/30 2 * * *", "Europe/Berlin", "2026-03-29T02:30:00+01:00", "2026-03-29 02:30", "", false},
		{"ADayThatAZoneLeftOut", "0 9 * * fri", "Pacific/Apia", "2011-12-30T09:00:00-10:00", "2011-12-30 09:00", "", false},
		{"SecondPass", "30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+01:00", "2026-10-25 02:30", "2026-10-25T02:30:00+02:00", true},
		{"SecondPassOfHalfAnHour", "45 1 * * *", "Australia/Lord_Howe", "2026-04-05T01:45:00+10:30", "2026-04-05 01:45", "2026-04-05T01:45:00+11:00", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, err := ParseRecurrence(test.cron, test.zone)
			require.NoError(t, err)
			at, err := time.Parse(time.RFC3339, test.at)
			require.NoError(t, err)
			got, ok := r.Shifted(at)
			require.True(t, ok)
			require.Equal(t, test.wall, got.Wall)
			require.Equal(t, test.repeated, got.Repeated)
			if test.tick == "" {
				require.Nil(t, got.Tick)
				return
			}
			require.NotNil(t, got.Tick)
			require.Equal(t, test.tick, got.Tick.In(r.Location()).Format(time.RFC3339))
		})
	}
}

func TestShifted_NotAtAll(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, cron, zone, at string }{
		{"ATick", "30 2 * * *", "Europe/Berlin", "2026-03-30T02:30:00+02:00"},
		{"TheMovedTickItself", "30 2 * * *", "Europe/Berlin", "2026-03-29T03:00:00+02:00"},
		{"TheFirstPass", "30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00"},
		{"BothPassesOfElapsedTime", "*/30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+01:00"},
		{"AnotherTimeOfThatDay", "30 2 * * *", "Europe/Berlin", "2026-03-29T02:31:00+01:00"},
		{"AnOrdinaryDay", "30 2 * * *", "Europe/Berlin", "2026-03-28T02:31:00+01:00"},
		{"HalfASecondOff", "30 2 * * *", "Europe/Berlin", "2026-03-29T02:30:00.5+01:00"},
		{"NoClocks", "@every 7m", "Europe/Berlin", "2026-03-29T02:30:00+01:00"},
		{"TheBeginningOfTime", "30 2 * * *", "Europe/Berlin", "0001-01-01T00:00:00Z"},
		{"TheEndOfTime", "30 2 * * *", "Europe/Berlin", "9999-12-31T23:59:59Z"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, err := ParseRecurrence(test.cron, test.zone)
			require.NoError(t, err)
			at, err := time.Parse(time.RFC3339, test.at)
			require.NoError(t, err)
			_, ok := r.Shifted(at)
			require.False(t, ok)
		})
	}
}

// Whatever is said to stand for a time is a tick, is near, and is not the time.
func TestShifted_NamesTicks(t *testing.T) {
	t.Parallel()
	moved, repeated := 0, 0
	for _, zone := range []string{"Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "Asia/Gaza"} {
		for _, cron := range []string{"30 2 * * *", "*/30 2 * * *", "0,15,45 1,2,3 * * *", "0 0 * * *", "5 * * * *", "15 2-3 * * sun"} {
			r, err := ParseRecurrence(cron, zone)
			require.NoError(t, err)
			change := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
			for range 4 {
				change = r.periodAt(change).end
				for off := -4 * time.Hour; off <= 4*time.Hour; off += 5 * time.Minute {
					at := time.Unix(change, 0).UTC().Add(off)
					shift, ok := r.Shifted(at)
					if !ok || shift.Tick == nil {
						continue
					}
					require.False(t, r.IsTick(at), "%s %s", r, at)
					require.True(t, r.IsTick(*shift.Tick), "%s %s", r, at)
					require.WithinDuration(t, at, *shift.Tick, 3*time.Hour)
					if shift.Repeated {
						repeated++
					} else {
						moved++
					}
				}
			}
		}
	}
	require.Greater(t, moved, 20)
	require.Greater(t, repeated, 10)
}
