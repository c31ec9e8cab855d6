package riverbeat

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// frequencies are the words for the five expressions that have one.
var frequencies = map[string]string{
	"* * * * *": "every_minute",
	"0 * * * *": "hourly",
	"0 0 * * *": "daily",
	"0 0 * * 0": "weekly",
	"0 0 1 * *": "monthly",
}

// AutoName makes the name of a schedule that was given none: the shortened task
// name, the telling parameters and the frequency, joined by "_", as in
// fetch_listed_info_daily_hourly for period_type "daily" each hour.
//
// The telling parameter of the tasks fetch_listed_info* is period_type; that of
// others are nameProperties (ParameterSchema.NameProperties), in that order. A
// parameter that is missing, or neither a string nor a number, tells nothing.
func AutoName(taskName string, params json.RawMessage, nameProperties []string, cronExpression string) string {
	if strings.HasPrefix(taskName, "fetch_listed_info") {
		nameProperties = []string{"period_type"}
	}
	parts := []string{shortTaskName(taskName)}
	parts = append(parts, tellingValues(params, nameProperties)...)
	frequency, ok := frequencies[strings.Join(strings.Fields(cronExpression), " ")]
	if !ok {
		frequency = "custom"
	}
	// Of a name too long, the frequency stays: it tells two schedules of one
	// task apart.
	start := cut(cleanText(strings.Join(parts, "_")), MaxNameLength-len("_"+frequency))
	return start + "_" + frequency
}

// shortTaskName drops the ending that task names of the old worker have, unless
// nothing would be left.
func shortTaskName(taskName string) string {
	for _, ending := range []string{"_task_asyncpg", "_task"} {
		if short, found := strings.CutSuffix(taskName, ending); found && short != "" {
			return short
		}
	}
	return taskName
}

func tellingValues(params json.RawMessage, properties []string) []string {
	if len(properties) == 0 || isMissing(params) {
		return nil
	}
	value, wrong := decodeJSON(params)
	object, ok := value.(map[string]any)
	if wrong != nil || !ok {
		return nil
	}
	var values []string
	for _, property := range properties {
		var text string
		switch value := object[property].(type) {
		case string:
			text = strings.TrimSpace(value)
		case json.Number:
			text = value.String()
		}
		if text != "" {
			values = append(values, text)
		}
	}
	return values
}

// cleanText makes text fit for a name: control characters become "_".
func cleanText(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(text, "_"))
}

// cut shortens text to length characters.
func cut(text string, length int) string {
	if utf8.RuneCountInString(text) <= length {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:length]), "_ ")
}

// isMissing tells whether an optional JSON value was not given. A null is not
// given either.
func isMissing(raw json.RawMessage) bool {
	text := strings.TrimSpace(string(raw))
	return text == "" || text == "null"
}
