package httpapi_test

import (
	"os"
	"testing"
)

func TestX(t *testing.T) {
	c := setup(t)
	os.WriteFile("/tmp/openapi.json", c.do("GET", "/openapi.json", "").body, 0o644)
	t.Logf("%s", c.do("POST", "/api/v1/schedules", `{"task_name":"echo","cron_expression":"0 9 * * mon-fri"}`).body)
	t.Logf("%s", c.do("POST", "/api/v1/schedules", `{"task_name":5,"cron_expresion":"0 9 * * mon-fri", "cron_expression":"x"}`).body)
	_ = ready
	_ = idPattern
	_ = golden
	_ = field
}
