-- name: InsertTaskDefinition :one
INSERT INTO task_definitions (
    task_name, category, description, parameter_schema, executor, queue,
    priority, max_attempts, retry, timeout_ms, max_concurrency, alerts, built_in, alias_of
) VALUES (
    @task_name, @category, @description, @parameter_schema, @executor, @queue,
    @priority, @max_attempts, @retry, @timeout_ms, @max_concurrency, @alerts, @built_in, @alias_of
)
RETURNING *;

-- name: GetTaskDefinition :one
SELECT * FROM task_definitions WHERE task_name = @task_name;

-- A definition that a schedule or run is checked against may not change until
-- the check has committed.
-- name: GetTaskDefinitionForShare :one
SELECT * FROM task_definitions WHERE task_name = @task_name FOR SHARE;

-- name: GetTaskDefinitionForUpdate :one
SELECT * FROM task_definitions WHERE task_name = @task_name FOR UPDATE;

-- name: TaskDefinitionsByName :many
SELECT * FROM task_definitions WHERE task_name = ANY(@task_names::text[]);

-- name: ListTaskDefinitions :many
SELECT *
FROM task_definitions
WHERE (sqlc.narg('category')::text IS NULL OR coalesce(category, '') = sqlc.narg('category'))
    AND task_name > @after_name
ORDER BY task_name
LIMIT @max_items;

-- name: UpdateTaskDefinition :one
UPDATE task_definitions
SET category = @category,
    description = @description,
    parameter_schema = @parameter_schema,
    executor = @executor,
    queue = @queue,
    priority = @priority,
    max_attempts = @max_attempts,
    retry = @retry,
    timeout_ms = @timeout_ms,
    max_concurrency = @max_concurrency,
    alerts = @alerts,
    built_in = @built_in,
    alias_of = @alias_of,
    version = version + 1,
    updated_at = statement_timestamp()
WHERE task_name = @task_name
RETURNING *;

-- name: DeleteTaskDefinition :execrows
DELETE FROM task_definitions WHERE task_name = @task_name;

-- name: AliasesOf :many
SELECT * FROM task_definitions WHERE alias_of = @task_name::text ORDER BY task_name FOR UPDATE;

-- Whether a node that lives has the code of a task.
-- name: TaskIsRegistered :one
SELECT EXISTS (
    SELECT FROM nodes
    WHERE tasks @> to_jsonb(@task_name::text)
        AND last_seen_at >= statement_timestamp() - make_interval(secs => @lives_seconds::float8)
);
