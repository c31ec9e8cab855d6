package celery

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/riverbeat"
)

// randomField makes the text of a field, now and then one that cannot be read.
func randomField(r *rand.Rand, f field) string {
	number := func() string {
		if list := names[f.name]; f.name == weekday.name && r.IntN(4) == 0 {
			return list[r.IntN(7)]
		}
		n := f.low + r.IntN(f.high-f.low+1)
		if r.IntN(60) == 0 {
			n = f.high + 1
		}
		return fmt.Sprint(n)
	}
	var parts []string
	for range 1 + r.IntN(3) {
		switch r.IntN(6) {
		case 0, 1:
			parts = append(parts, "*")
		case 2:
			parts = append(parts, fmt.Sprintf("*/%d", r.IntN(f.high+4)))
		case 3:
			parts = append(parts, number()+"-"+number())
		case 4:
			parts = append(parts, fmt.Sprintf("%s-%s/%d", number(), number(), 1+r.IntN(5)))
		default:
			parts = append(parts, number())
		}
	}
	if r.IntN(3) == 0 {
		return "*"
	}
	if r.IntN(100) == 0 {
		return []string{"", ",", "x", "1,", "5/2", "-1", "*/", "1-", "?"}[r.IntN(9)]
	}
	return strings.Join(parts, ",")
}

// What we read of a crontab, and when it fires next, is what Celery says.
func TestCrontabsAreReadAsCeleryDoes(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	type asked struct {
		Fields [5]string `json:"fields"`
		Zone   string    `json:"zone"`
		Now    int64     `json:"now"`
	}
	var questions []asked
	var input strings.Builder
	for range 2_000 {
		q := asked{
			Zone: []string{"UTC", "Asia/Tokyo"}[r.IntN(2)], // whose clocks do not change
			Now:  time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix() + r.Int64N(3*366*24*3600),
		}
		for i, f := range []field{minutes, hours, days, months, weekday} {
			q.Fields[i] = randomField(r, f)
		}
		questions = append(questions, q)
		line, err := json.Marshal(q)
		require.NoError(t, err)
		input.Write(append(line, '\n'))
	}
	lines := strings.Split(strings.TrimSpace(python(t, input.String(), nil, "crontabs.py")), "\n")
	require.Len(t, lines, len(questions))
	refused, both := 0, 0
	for i, line := range lines {
		var said struct {
			Problem *string
			Never   string
			Sets    [5][]int
			Next    int64
		}
		require.NoError(t, json.Unmarshal([]byte(line), &said))
		q := questions[i]
		c := Crontab{q.Fields[0], q.Fields[1], q.Fields[2], q.Fields[3], q.Fields[4], q.Zone}
		read, err := c.parse()
		if said.Problem != nil {
			require.Error(t, err, "%v: %s", q, line)
			refused++
			continue
		}
		require.NoError(t, err, "%v: %s", q, line)
		for k, s := range []set{read.minute, read.hour, read.day, read.month, read.weekday} {
			var want set
			for _, n := range said.Sets[k] {
				want |= 1 << n
			}
			require.Equal(t, want, s, "%v: %s", q, line)
		}
		next, ok := read.next(time.Unix(q.Now, 0))
		if said.Never != "" {
			continue // Celery does not get as far as 2000 months, or it never fires
		}
		require.True(t, ok, "%v: %s", q, line)
		require.Equal(t, time.Unix(said.Next, 0).UTC(), next, "%v: %s", q, line)

		// And so does the expression that we make of it, if it can be one.
		recurrence, err := riverbeat.ParseRecurrence(c.expression(read), q.Zone)
		require.NoError(t, err, "%v", q)
		numbers, err := riverbeat.ParseRecurrence(read.String(), q.Zone)
		require.NoError(t, err, "%v", q)
		if read.bothDays() {
			both++
			continue
		}
		for _, r := range []*riverbeat.Recurrence{recurrence, numbers} {
			here, ok := r.Next(time.Unix(q.Now, 0))
			require.True(t, ok)
			require.Equal(t, next, here, "%v as %s", q, r)
		}
	}
	require.Greater(t, refused, 20)
	require.Greater(t, both, 50)
}

func TestExpressionsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"0 9 * * 1-5":          "0 9 * * 1-5",
		"*/15 * * * *":         "*/15 * * * *",
		"0 22-2 * * *":         "0 0-2,22,23 * * *",
		"0 0 * * fri-mon":      "0 0 * * 0,1,5,6",
		"0 0 * * mon":          "0 0 * * 1",
		"0-59 0 * * *":         "* 0 * * *",
		"0 0 1-31 * monday":    "0 0 * * 1",
		"0,30 8-18/2 1,15 * *": "0,30 8-18/2 1,15 * *",
	} {
		f := strings.Fields(given)
		c := Crontab{f[0], f[1], f[2], f[3], f[4], "UTC"}
		read, err := c.parse()
		require.NoError(t, err, given)
		require.Equal(t, want, c.expression(read), given)
	}
	_, err := (&Crontab{"0", "0", "*", "*", "7", "UTC"}).parse()
	require.EqualError(t, err, `day of week "7": 7 is not between 0 and 6`)
	_, err = (&Crontab{"0", "0", "*", "*", "*", "Mars/Olympus"}).parse()
	require.EqualError(t, err, `there is no time zone "Mars/Olympus"`)
}
