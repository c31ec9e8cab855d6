-- The table in which tern keeps how far the schema is migrated. For sqlc only; tern makes
-- the real one.
CREATE TABLE schema_version (
    version integer NOT NULL
);
