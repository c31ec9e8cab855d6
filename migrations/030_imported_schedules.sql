-- The schedules that were imported from another scheduler: where each stood there, and what
-- it was when it was last taken over, so that an import that is run again writes only what
-- has changed there. A row outlives its schedule: one that was deleted here is not imported
-- again.
CREATE TABLE imported_schedules (
    schedule_id uuid NOT NULL,
    source text NOT NULL,
    line jsonb NOT NULL,
    imported_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    -- The handover: the ticks up to cut_at are the other scheduler's, those after it ours,
    -- if the transaction cut_xid of its database has committed, which disables it there.
    -- Until cut_over_at it is under way.
    cut_at timestamptz,
    cut_xid text,
    cut_over_at timestamptz,
    CONSTRAINT imported_schedules_pkey PRIMARY KEY (schedule_id)
);

---- create above / drop below ----

DROP TABLE imported_schedules;
