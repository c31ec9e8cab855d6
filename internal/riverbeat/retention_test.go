package riverbeat

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetention(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"90d": 90 * day, "7d": 7 * day, "168h": 7 * day, "10d12h": 10*day + 12*time.Hour, "36500d": 36_500 * day, "forever": 0,
	} {
		d, problem := ParseRetention(text)
		require.Empty(t, problem, text)
		require.Equal(t, want, d, text)
		again, problem := ParseRetention(FormatRetention(d))
		require.Empty(t, problem, text)
		require.Equal(t, d, again, text)
	}
	require.Equal(t, "90d", FormatRetention(2160*time.Hour))
	for _, text := range []string{"", "0", "0s", "0d", "-90d", "6d23h", "36501d", "90", "for ever", "90 days"} {
		_, problem := ParseRetention(text)
		require.Equal(t, "a time such as 90d, at least 7d, or forever", problem, text)
	}
}
