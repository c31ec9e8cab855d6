package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// The roles of the database that GrantRoles makes. Nobody can log in as one of
// them; logins are made members of it.
const (
	// RoleReader reads the reporting views and nothing else.
	RoleReader = "riverbeat_reader"
	// RoleApp is what nodes need: all rows, no DDL, and of the audit trail no more
	// than to read it and add to it.
	RoleApp = "riverbeat_app"
)

// GrantRoles makes the roles that are missing and grants them what they may, by the
// schema as it is now. Whoever calls it must own the schema, and may create roles if
// one is missing.
func GrantRoles(ctx context.Context, cfg Config) error {
	return withMigrator(ctx, cfg, func(m *migrator) error {
		return pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
			// Else what newer programs grant would be taken back.
			if s, err := readStatus(ctx, tx, m.river); err != nil {
				return err
			} else if s.Version > s.Latest {
				return tooNew(cfg.schema(), s.Version, s.Latest)
			}
			for _, role := range []string{RoleReader, RoleApp} {
				exists, err := hasRole(ctx, tx, role)
				if err != nil {
					return err
				}
				if !exists {
					if _, err := tx.Exec(ctx, "CREATE ROLE "+role+" NOLOGIN"); err != nil {
						return fmt.Errorf("make the role %s: %w", role, err)
					}
				}
			}
			_, err := tx.Exec(ctx, grantRoles)
			return err
		})
	})
}

// regrant is GrantRoles after a migration, where the roles are in use here: it may
// have made what they need.
func (m *migrator) regrant(ctx context.Context) error {
	return pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
		const inUse = `
SELECT count(*) = 2 AND bool_and(has_schema_privilege(oid, current_schema(), 'USAGE'))
FROM pg_roles
WHERE rolname IN ('` + RoleReader + `', '` + RoleApp + `')`
		var granted *bool
		if err := tx.QueryRow(ctx, inUse).Scan(&granted); err != nil || granted == nil || !*granted {
			return err
		}
		_, err := tx.Exec(ctx, grantRoles)
		return err
	})
}

func hasRole(ctx context.Context, tx pgx.Tx, role string) (exists bool, err error) {
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&exists)
	return exists, err
}

// Functions are everybody's by default, and one of ours makes partitions with its
// owner's rights. Partitions of runs are reached through their parent only.
const grantRoles = `
DO $$
DECLARE
    schema text := current_schema();
    item record;
BEGIN
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM ` + RoleReader + `, ` + RoleApp + `', schema);
    EXECUTE format('REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA %I FROM PUBLIC', schema);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO ` + RoleReader + `, ` + RoleApp + `', schema);
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO ` + RoleApp + `', schema);
    EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %I TO ` + RoleApp + `', schema);
    FOR item IN
        SELECT relname, relkind
        FROM pg_class
        WHERE relnamespace = schema::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition
    LOOP
        IF item.relkind = 'v' THEN
            EXECUTE format('GRANT SELECT ON %I.%I TO ` + RoleApp + `', schema, item.relname);
            IF item.relname LIKE 'report\_%' THEN
                EXECUTE format('GRANT SELECT ON %I.%I TO ` + RoleReader + `', schema, item.relname);
            ELSE -- FOR SHARE of a view takes UPDATE
                EXECUTE format('GRANT UPDATE ON %I.%I TO ` + RoleApp + `', schema, item.relname);
            END IF;
        ELSIF item.relname IN ('schema_version', 'river_migration') THEN
            EXECUTE format('GRANT SELECT ON %I.%I TO ` + RoleApp + `', schema, item.relname);
        ELSIF item.relname = 'audit_log' THEN
            EXECUTE format('GRANT SELECT, INSERT ON %I.%I TO ` + RoleApp + `', schema, item.relname);
        ELSE
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.%I TO ` + RoleApp + `', schema, item.relname);
        END IF;
    END LOOP;
END
$$`
