package riverbeat

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRecurrence_Describe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ expression, want string }{
		// steps and wholes
		{"* * * * *", "every minute"},
		{"? ? ? ? ?", "every minute"},
		{"*/1 * * * *", "every minute"},
		{"*/15 * * * *", "every 15 minutes"},
		{"0/15 * * * *", "every 15 minutes"},
		{"0,15,30,45 * * * *", "every 15 minutes"},
		{"0,30 * * * *", "every 30 minutes"},
		{"*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"},
		{"1-59/2 * * * *", "at every 2nd minute from 1 to 59 of every hour"},
		{"1-30/3 * * * *", "at every 3rd minute from 1 to 28 of every hour"},
		{"2-59/4 * * * *", "at every 4th minute from 2 to 58 of every hour"},
		{"5 * * * *", "at minute 5 of every hour"},
		{"0-10,30 * * * *", "at minutes 0 to 10 and 30 of every hour"},
		{"0 * * * *", "every hour"},
		{"@hourly", "every hour"},
		{"0 */2 * * *", "every 2 hours"},
		{"0 */6 * * *", "every 6 hours"},
		{"0 */12 * * *", "at 00:00 and 12:00 every day"},
		{"0 */5 * * *", "at 00:00, 05:00, 10:00, 15:00 and 20:00 every day"},
		{"0 */2 * * mon", "every 2 hours on Monday"},
		{"5 */2 * * *", "at minute 5 of every 2nd hour from 0 to 22 every day"},
		// times of the day
		{"0 9 * * *", "at 09:00 every day"},
		{"@daily", "at 00:00 every day"},
		{"0 9 * * mon-fri", "at 09:00 on Monday to Friday"},
		{"0 9 * * MON,WED,FRI", "at 09:00 on Monday, Wednesday and Friday"},
		{"0,30 9,17 * * *", "at 09:00, 09:30, 17:00 and 17:30 every day"},
		{"30 9-17 * * mon-fri", "every hour from 09:30 to 17:30 on Monday to Friday"},
		{"* 9-17 * * *", "every minute from 09:00 to 17:59"},
		{"*/15 9-17 * * 1-5", "every 15 minutes from 09:00 to 17:45 on Monday to Friday"},
		{"* 2 * * *", "every minute from 02:00 to 02:59"},
		{"*/30 9,11,13,15 * * *", "every 30 minutes of hours 9, 11, 13 and 15"},
		{"10-20 9,11 * * *", "at minutes 10 to 20 of hours 9 and 11 every day"},
		{"59 23 * * *", "at 23:59 every day"},
		// days
		{"@weekly", "at 00:00 on Sunday"},
		{"@monthly", "at 00:00 on day 1 of the month"},
		{"@yearly", "at 00:00 on day 1 of January"},
		{"0 0 1,15 * *", "at 00:00 on days 1 and 15 of the month"},
		{"0 0 */2 * *", "at 00:00 on every 2nd day from 1 to 31 of the month"},
		{"0 0 13 * fri", "at 00:00 on day 13 of the month or on Friday"},
		{"0 0 13 10 fri", "at 00:00 in October, on day 13 of the month or on Friday"},
		{"0 0 1-7 * mon", "at 00:00 on days 1 to 7 of the month or on Monday"},
		{"0 0 * 6-8 *", "at 00:00 every day in June to August"},
		{"0 0 * 1,7 sat,sun", "at 00:00 on Sunday and Saturday in January and July"},
		{"* * * feb *", "every minute in February"},
		{"0 0 29 2 *", "at 00:00 on day 29 of February"},
		{"0 12 1 1,7 *", "at 12:00 on day 1 of January and July"},
		// every day, though both fields are restricted
		{"0 0 1-31 * 0-6", "at 00:00 every day"},
		{"0 0 13 * 0-6", "at 00:00 every day"},
		{"0 0 13 * *", "at 00:00 on day 13 of the month"},
		{"0 0 * * */2", "at 00:00 on Sunday, Tuesday, Thursday and Saturday"},
		// seconds
		{"* * * * * *", "every second"},
		{"*/5 * * * * *", "every 5 seconds"},
		{"30 * * * * *", "at second 30 of every minute"},
		{"5,35 * * * * *", "at seconds 5 and 35 of every minute"},
		{"0 * * * * *", "every minute"},
		{"30 0 9 * * *", "at 09:00:30 every day"},
		{"0,30 0 9 * * mon", "at 09:00 and 09:00:30 on Monday"},
		{"*/10 */20 * * * *", "every 10 seconds of minutes 0, 20 and 40 of every hour"},
		{"* 30 2 * * *", "every second of minute 30 of hour 2"},
		{"* * 9-11 * * *", "every second of every minute of hours 9 to 11"},
		{"1-5 * 9 * * *", "at seconds 1 to 5 of every minute of hour 9 every day"},
		// intervals
		{"@every 1s", "every second"},
		{"@every 5s", "every 5 seconds"},
		{"@every 90s", "every 90 seconds"},
		{"@every 1m", "every minute"},
		{"@every 1h30m", "every 90 minutes"},
		{"@every 1h", "every hour, counted in UTC"},
		{"@every 24h", "every 24 hours, counted in UTC"},
	} {
		t.Run(tt.expression, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, mustParseRecurrence(t, tt.expression, "UTC").Describe())
		})
	}
}
