package celery

import (
	"bytes"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/riverbeat"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// python runs a script of testdata with the Python that has django-celery-beat.
func python(t *testing.T, stdin string, environment []string, script string, args ...string) string {
	t.Helper()
	for _, program := range []string{"/usr/bin/python3", "python3"} {
		if exec.CommandContext(t.Context(), program, "-c", "import celery, django_celery_beat, django_celery_results, psycopg2").Run() != nil {
			continue
		}
		c := exec.CommandContext(t.Context(), program, append([]string{"testdata/" + script}, args...)...)
		c.Stdin, c.Env = strings.NewReader(stdin), append(c.Environ(), environment...)
		var stdout, stderr bytes.Buffer
		c.Stdout, c.Stderr = &stdout, &stderr
		require.NoError(t, c.Run(), stderr.String())
		return stdout.String()
	}
	t.Skip("there is no django-celery-beat here; deploy/install-deps.sh beat installs it")
	return ""
}

// django is a database with the tables of django-celery-beat, made by its own migrations.
type django struct {
	*pgtest.Database
	environment []string
}

func newDjango(t *testing.T) *django {
	t.Helper()
	d := pgtest.DB(t)
	u, err := url.Parse(d.URL)
	require.NoError(t, err)
	q := u.Query()
	b := &django{d, []string{
		"BEAT_NAME=" + strings.TrimPrefix(u.Path, "/"), "BEAT_HOST=" + q.Get("host"), "BEAT_PORT=" + q.Get("port"), "BEAT_USER=" + u.User.Username(),
	}}
	python(t, "", b.environment, "beat.py", "migrate")
	return b
}

// run runs Python with the models of django-celery-beat.
func (b *django) run(t *testing.T, program string) {
	t.Helper()
	python(t, "from django_celery_beat.models import *\nfrom datetime import datetime, timedelta, timezone as tz\nimport json\n"+program, b.environment, "beat.py", "run")
}

// newPlain is a database in which statements were run.
func newPlain(t *testing.T, statements string) *pgtest.Database {
	t.Helper()
	d := pgtest.DB(t)
	_, err := d.Pool.Exec(t.Context(), statements)
	require.NoError(t, err)
	return d
}

func mustRecurrence(t *testing.T, expression string) *riverbeat.Recurrence {
	t.Helper()
	r, err := riverbeat.ParseRecurrence(expression, "UTC")
	require.NoError(t, err)
	return r
}
