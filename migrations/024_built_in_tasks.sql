-- The tasks that a binary has are defined by themselves, and have other names.
ALTER TABLE task_definitions
    ADD COLUMN built_in boolean NOT NULL DEFAULT false,
    ADD COLUMN alias_of varchar(255),
    ADD CONSTRAINT task_definitions_alias_is_built_in CHECK (alias_of IS NULL OR built_in);

---- create above / drop below ----

ALTER TABLE task_definitions
    DROP CONSTRAINT task_definitions_alias_is_built_in,
    DROP COLUMN alias_of,
    DROP COLUMN built_in;
