-- The commands that a node can execute, as its tasks are.
ALTER TABLE nodes ADD COLUMN commands jsonb NOT NULL DEFAULT '[]';

---- create above / drop below ----

ALTER TABLE nodes DROP COLUMN commands;
