-- How many runs of a task may be executed at once, over all nodes; NULL: any number.
ALTER TABLE task_definitions
    ADD COLUMN max_concurrency integer,
    ADD CONSTRAINT task_definitions_max_concurrency_positive CHECK (max_concurrency > 0);

-- The jobs that wait for one of the slots of their task (aliases share those), until they
-- have one. A row counts only while its job is put off for that reason, and may outlive it.
CREATE TABLE slot_waits (
    task_name varchar(255) NOT NULL,
    job_id bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT slot_waits_pkey PRIMARY KEY (job_id)
);
CREATE INDEX slot_waits_in_order ON slot_waits (task_name, since, job_id);

---- create above / drop below ----

DROP TABLE slot_waits;
ALTER TABLE task_definitions DROP COLUMN max_concurrency;
