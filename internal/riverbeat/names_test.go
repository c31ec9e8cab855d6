package riverbeat

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestAutoName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, task, params string
		telling            []string
		cron, want         string
	}{
		{"EveryMinute", "echo", `{}`, nil, "* * * * *", "echo_every_minute"},
		{"Hourly", "echo", `{}`, nil, "0 * * * *", "echo_hourly"},
		{"Daily", "echo", `{}`, nil, "0 0 * * *", "echo_daily"},
		{"Weekly", "echo", `{}`, nil, "0 0 * * 0", "echo_weekly"},
		{"Monthly", "echo", `{}`, nil, "0 0 1 * *", "echo_monthly"},
		{"AnyOtherTimeIsCustom", "echo", `{}`, nil, "30 9 * * 1-5", "echo_custom"},
		{"ADescriptorIsCustom", "echo", `{}`, nil, "@daily", "echo_custom"},
		{"SundayAsSevenIsCustom", "echo", `{}`, nil, "0 0 * * 7", "echo_custom"},
		{"WhiteSpaceInCron", "echo", `{}`, nil, " 0  0 *\t* * ", "echo_daily"},

		{"SuffixAsyncpg", "fetch_listed_info_task_asyncpg", `{"period_type":"daily"}`, nil, "0 9 * * *", "fetch_listed_info_daily_custom"},
		{"SuffixTask", "fetch_listed_info_task", `{"period_type":"weekly"}`, nil, "0 0 * * 0", "fetch_listed_info_weekly_weekly"},
		{"OnlyOneSuffix", "x_task_task", `{}`, nil, "0 0 * * *", "x_task_daily"},
		{"SuffixInTheMiddleStays", "task_x", `{}`, nil, "0 0 * * *", "task_x_daily"},
		{"NeverToNothing", "_task", `{}`, nil, "0 0 * * *", "_task_daily"},
		{"NeverToNothingAsyncpg", "_task_asyncpg", `{}`, nil, "0 0 * * *", "_task_asyncpg_daily"},

		{"PeriodTypeMissing", "fetch_listed_info", `{"code":"7203"}`, nil, "0 0 * * *", "fetch_listed_info_daily"},
		{"PeriodTypeOnlyOfThatTask", "echo", `{"period_type":"daily"}`, nil, "0 0 * * *", "echo_daily"},
		{"OthersDoNotTellForThatTask", "fetch_listed_info", `{"code":"7203"}`, []string{"code"}, "0 0 * * *", "fetch_listed_info_daily"},

		{"MarkedProperties", "sync", `{"market":"tse","year":2024}`, []string{"market", "year"}, "0 0 * * *", "sync_tse_2024_daily"},
		{"InTheOrderOfTheSchema", "sync", `{"market":"tse","year":2024}`, []string{"year", "market"}, "0 0 * * *", "sync_2024_tse_daily"},
		{"NumbersAsSpelled", "sync", `{"n":1.50,"big":9007199254740993}`, []string{"n", "big"}, "0 0 * * *", "sync_1.50_9007199254740993_daily"},
		{"OnlyStringsAndNumbers", "sync", `{"a":true,"b":null,"c":["x"],"d":{"e":1},"f":"ok"}`, []string{"a", "b", "c", "d", "f"}, "0 0 * * *", "sync_ok_daily"},
		{"EmptyTellsNothing", "sync", `{"a":"","b":"  "}`, []string{"a", "b"}, "0 0 * * *", "sync_daily"},
		{"ControlCharacters", "sync", `{"a":"x\ny\tz"}`, []string{"a"}, "0 0 * * *", "sync_x_y_z_daily"},
		{"NoParams", "sync", ``, []string{"a"}, "0 0 * * *", "sync_daily"},
		{"UnreadableParams", "sync", `{"a":`, []string{"a"}, "0 0 * * *", "sync_daily"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, AutoName(test.task, json.RawMessage(test.params), test.telling, test.cron))
		})
	}

	t.Run("CutBeforeTheFrequency", func(t *testing.T) {
		t.Parallel()
		name := AutoName(strings.Repeat("タ", 300), nil, nil, "0 0 1 * *")
		require.Equal(t, MaxNameLength, utf8.RuneCountInString(name))
		require.True(t, strings.HasSuffix(name, "タ_monthly"))
	})
}

func TestAutoNameIsAlwaysAName(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		params, err := json.Marshal(map[string]any{"x": rapid.String().Draw(t, "x")})
		require.NoError(t, err)
		name := AutoName(rapid.String().Draw(t, "task"), params, []string{"x"}, rapid.StringMatching(`[0-9*/ ]{0,12}`).Draw(t, "cron"))
		var broken fields
		broken.name("/name", name)
		require.Empty(t, broken, "%q", name)
	})
}
