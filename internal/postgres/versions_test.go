package postgres_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"riverbeat/internal/pgtest"
	"riverbeat/internal/postgres"
	"riverbeat/internal/riverbeat"
	"riverbeat/migrations"
)

// version is a row of schedule_versions.
type version struct {
	ValidFrom  time.Time
	ValidUntil *time.Time
	Version    int
	Name       string
	Enabled    bool
	ChangedBy  *string
}

func versions(t *testing.T, d *pgtest.Database, id uuid.UUID) []version {
	t.Helper()
	rows, err := d.Pool.Query(t.Context(), `
SELECT valid_from, valid_until, version, name, enabled, changed_by
FROM schedule_versions
WHERE schedule_id = $1
ORDER BY valid_from`, id)
	require.NoError(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[version])
	require.NoError(t, err)
	for i, v := range list {
		if i < len(list)-1 {
			require.True(t, v.ValidUntil.Equal(list[i+1].ValidFrom), "no time between two versions")
		}
	}
	return list
}

func exec(t *testing.T, d *pgtest.Database, statement string, args ...any) {
	t.Helper()
	_, err := d.Pool.Exec(t.Context(), statement, args...)
	require.NoError(t, err)
}

func insertSchedule(t *testing.T, d *pgtest.Database) *riverbeat.Schedule {
	t.Helper()
	var s *riverbeat.Schedule
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		now, err := tx.Now(t.Context())
		require.NoError(t, err)
		s, err = tx.InsertSchedule(t.Context(), &riverbeat.Schedule{
			Name: "first", TaskName: "echo", CronExpression: "@daily", Timezone: "UTC", Enabled: true,
			Args: json.RawMessage("[]"), TaskParams: json.RawMessage("{}"),
			ExecutionPolicy: riverbeat.Allow, CatchUp: riverbeat.CatchUpLatest, MaxWaiting: 1,
		}, now)
		return err
	}))
	return s
}

func TestEachDefinitionOfAScheduleIsKept(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	s := insertSchedule(t, d)
	made := versions(t, d, s.ID)
	require.Len(t, made, 1)
	require.True(t, made[0].ValidFrom.Equal(s.CreatedAt))
	require.Equal(t, version{ValidFrom: made[0].ValidFrom, Version: 1, Name: "first", Enabled: true}, made[0])

	var settled time.Time
	require.NoError(t, d.DB.InTx(pgtest.As(t.Context(), "ada"), func(tx *postgres.Tx) error {
		locked, clock, err := tx.LockSchedule(t.Context(), s.ID)
		require.NoError(t, err)
		settled = clock.Now
		locked.Name = "second"
		_, err = tx.UpdateSchedule(t.Context(), locked)
		require.NoError(t, err)
		locked.Name = "third"
		_, err = tx.UpdateSchedule(t.Context(), locked)
		return err
	}))
	changed := versions(t, d, s.ID)
	require.Len(t, changed, 3)
	require.Equal(t, settled, changed[0].ValidUntil.UTC().Truncate(time.Millisecond), "where its ticks were settled")
	require.Equal(t, time.Microsecond, changed[1].ValidUntil.Sub(changed[1].ValidFrom))
	require.Equal(t, "third", changed[2].Name)
	require.Equal(t, 3, changed[2].Version)
	require.Equal(t, "ada", *changed[2].ChangedBy)
	require.Nil(t, changed[2].ValidUntil)

	// What is no change of the definition is none.
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		return tx.SetScheduleError(t.Context(), s.ID, "broken")
	}))
	exec(t, d, "UPDATE schedules SET name = name, updated_at = statement_timestamp()")
	require.Equal(t, changed, versions(t, d, s.ID))

	// In psql nobody counts versions.
	exec(t, d, "UPDATE schedules SET enabled = false")
	psql := versions(t, d, s.ID)
	require.Len(t, psql, 4)
	require.Equal(t, 3, psql[3].Version)
	require.False(t, psql[3].Enabled)
	require.Nil(t, psql[3].ChangedBy)

	// A schedule that is gone is in force no more, until it is put back.
	exec(t, d, "CREATE TABLE kept AS SELECT * FROM schedules")
	exec(t, d, "DELETE FROM schedules")
	gone := versions(t, d, s.ID)
	require.Len(t, gone, 4)
	require.NotNil(t, gone[3].ValidUntil)
	exec(t, d, "INSERT INTO schedules (id, name, task_name, cron_expression, timezone, version, created_at) SELECT id, name, task_name, cron_expression, timezone, version, created_at FROM kept")
	rows, err := d.Pool.Query(t.Context(), "SELECT valid_until FROM schedule_versions ORDER BY valid_from")
	require.NoError(t, err)
	ends, err := pgx.CollectRows(rows, pgx.RowTo[*time.Time])
	require.NoError(t, err)
	require.Len(t, ends, 5)
	require.NotNil(t, ends[3])
	require.Nil(t, ends[4])
}

func TestVersionAt(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	s := insertSchedule(t, d)
	exec(t, d, "UPDATE schedules SET name = 'second', version = 2")
	exec(t, d, "UPDATE schedule_versions SET valid_from = '2026-03-01Z', valid_until = '2026-03-02Z' WHERE version = 1")
	exec(t, d, "UPDATE schedule_versions SET valid_from = '2026-03-02Z', valid_until = '2026-03-03Z' WHERE version = 2")
	for at, want := range map[string]int{
		"2026-02-28T00:00:00Z":     1, // there was none: the first
		"2026-03-01T00:00:00Z":     1, // likewise
		"2026-03-01T00:00:00.001Z": 1,
		"2026-03-02T00:00:00Z":     1, // that tick was settled by it
		"2026-03-02T00:00:00.001Z": 2,
		"2026-03-04T00:00:00Z":     2, // there is none: the last
	} {
		moment, err := time.Parse(time.RFC3339, at)
		require.NoError(t, err)
		require.NoError(t, d.DB.Snapshot(t.Context(), func(tx *postgres.Tx) error {
			v, err := tx.VersionAt(t.Context(), s.ID, moment)
			require.NoError(t, err)
			require.Equal(t, want, v.Version, at)
			require.Equal(t, s.ID, v.ID)
			none, err := tx.VersionAt(t.Context(), uuid.New(), moment)
			require.Nil(t, none)
			return err
		}))
	}
}

// firstVersions is the migration that writes the versions of schedules that are
// older than their triggers.
func firstVersions(t *testing.T) string {
	t.Helper()
	names, err := fs.Glob(migrations.FS, "*_first_schedule_versions.sql")
	require.NoError(t, err)
	require.Len(t, names, 1)
	raw, err := fs.ReadFile(migrations.FS, names[0])
	require.NoError(t, err)
	up, _, found := strings.Cut(string(raw), "---- create above / drop below ----")
	require.True(t, found)
	return up
}

func TestOlderSchedulesGetTheirVersions(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	untouched, changed, deleted := insertSchedule(t, d), insertSchedule(t, d), insertSchedule(t, d)
	exec(t, d, "DELETE FROM schedule_versions") // as if there were no triggers
	exec(t, d, "UPDATE schedules SET name = 'second', version = 2 WHERE id = $1", changed.ID)
	exec(t, d, "DELETE FROM schedules WHERE id = $1", deleted.ID)
	for range 2 {
		exec(t, d, firstVersions(t))
		got := versions(t, d, untouched.ID)
		require.Len(t, got, 1)
		require.True(t, got[0].ValidFrom.Equal(untouched.UpdatedAt))
		require.Nil(t, got[0].ValidUntil)
		got = versions(t, d, changed.ID)
		require.Len(t, got, 2)
		require.Equal(t, "first", got[0].Name)
		require.True(t, got[0].ValidFrom.Equal(changed.UpdatedAt))
		require.Equal(t, "second", got[1].Name)
		require.Nil(t, got[1].ValidUntil)
		got = versions(t, d, deleted.ID)
		require.Len(t, got, 1)
		require.NotNil(t, got[0].ValidUntil)
	}
}

// A change that meets the migration waits for it, and neither fails.
func TestAChangeWhileVersionsAreWritten(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{"UPDATE schedules SET name = 'second', version = 2", "DELETE FROM schedules"} {
		t.Run(statement[:6], func(t *testing.T) {
			t.Parallel()
			d := pgtest.DB(t)
			s := insertSchedule(t, d)
			exec(t, d, "DELETE FROM schedule_versions")
			migration, err := d.Pool.Begin(t.Context())
			require.NoError(t, err)
			defer func() { _ = migration.Rollback(context.Background()) }()
			_, err = migration.Exec(t.Context(), firstVersions(t))
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() {
				_, err := d.Pool.Exec(t.Context(), statement)
				done <- err
			}()
			requireOneWaitsForALock(t, d)
			require.NoError(t, migration.Commit(t.Context()))
			require.NoError(t, <-done)
			got := versions(t, d, s.ID)
			require.NotNil(t, got[0].ValidUntil)
			if statement[0] == 'U' {
				require.Len(t, got, 2)
				require.Nil(t, got[1].ValidUntil)
			} else {
				require.Len(t, got, 1)
			}
		})
	}
}

func TestLostLivesAreRead(t *testing.T) {
	t.Parallel()
	d := pgtest.DB(t)
	at := time.Now().UTC().Truncate(time.Second)
	id := riverbeat.NewRunID(at, make([]byte, 10))
	exec(t, d, `
INSERT INTO runs (id, scheduled_for, schedule_name, task_name, execution_policy, trigger, slot, state, lost_lives)
VALUES ($1, $2, 'x', 'x', 'allow', 'manual', $1, 'running', '[{"job_id": 7, "node": "a", "execution": 2, "lost_at": "2026-03-02T09:00:00.5+01:00"}]')`, id, at)
	require.NoError(t, d.DB.InTx(t.Context(), func(tx *postgres.Tx) error {
		run, err := tx.Run(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, []riverbeat.LostLife{{JobID: 7, Node: "a", Execution: 2, LostAt: time.Date(2026, 3, 2, 8, 0, 0, 5e8, time.UTC)}}, run.LostLives)
		return nil
	}))
}
