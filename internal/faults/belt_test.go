package faults

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// withoutUniqueIndex takes River's unique index out of force: nothing that is
// inserted is in it. (Dropped for good, River's INSERT … ON CONFLICT, which
// names it, would fail.)
func withoutUniqueIndex(l *lab) {
	l.t.Helper()
	l.sql(func(conn *pgx.Conn) error {
		_, err := conn.Exec(l.t.Context(), `
CREATE FUNCTION faults.not_unique() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.unique_key := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER faults_not_unique BEFORE INSERT ON river_job FOR EACH ROW EXECUTE FUNCTION faults.not_unique()`)
		return err
	})
}

// TestWithoutUniqueIndex is the belt without the braces: the locks of admission
// and of execution keep the runs of a key apart by themselves.
func TestWithoutUniqueIndex(t *testing.T) {
	t.Parallel()
	binary, err := program()
	require.NoError(t, err)
	const psql = 3
	require.Equal(t, "psql", moodOf(psql).name)
	runScenario(t, binary, psql, *length/2, withoutUniqueIndex).report(t)
}
