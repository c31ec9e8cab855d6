-- Where a run was when it lost its node.

ALTER TABLE runs ADD COLUMN lost_lives jsonb;
COMMENT ON COLUMN runs.lost_lives IS
    'The lives that were lost with their node: [{job_id, node, execution, lost_at}].';

---- create above / drop below ----

ALTER TABLE runs DROP COLUMN lost_lives;
