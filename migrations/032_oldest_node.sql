-- How old a program may be to work with this schema, said by the number of migrations that
-- it knows. Programs look at it when they start: in the middle of an upgrade those of the
-- release before still do. A migration that contracts, which takes away or changes what
-- older programs use, raises it.
ALTER TABLE schema_version ADD COLUMN oldest_node integer NOT NULL DEFAULT 0;

---- create above / drop below ----

ALTER TABLE schema_version DROP COLUMN oldest_node;
