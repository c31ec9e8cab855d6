---- tern: disable-tx ----
-- The schedules that somebody keeps, by who it is. What a try that was given up has left is
-- no index.
DROP INDEX CONCURRENTLY IF EXISTS schedules_managed_by_idx;

CREATE INDEX CONCURRENTLY schedules_managed_by_idx ON schedules (managed_by, created_at, id)
    WHERE managed_by <> '';

---- create above / drop below ----
---- tern: disable-tx ----
DROP INDEX CONCURRENTLY IF EXISTS schedules_managed_by_idx;
