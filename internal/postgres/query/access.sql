-- name: GetAPIKey :one
SELECT sqlc.embed(api_keys), statement_timestamp()::timestamptz AS now FROM api_keys WHERE id = @id;

-- name: LockAPIKey :one
SELECT * FROM api_keys WHERE id = @id FOR UPDATE;

-- Whether there has ever been a key, and whether one is valid now that may do
-- everything.
-- name: CountAPIKeys :one
SELECT
    EXISTS (SELECT FROM api_keys) AS any_key,
    EXISTS (
        SELECT FROM api_keys
        WHERE role = 'admin'
            AND revoked_at IS NULL
            AND (expires_at IS NULL OR expires_at > statement_timestamp())
    ) AS valid_admin;

-- name: InsertAPIKey :one
INSERT INTO api_keys (id, name, role, digest, created_by, expires_at, rotated_from)
VALUES (@id, @name, @role, @digest, @created_by, sqlc.narg('expires_at'), sqlc.narg('rotated_from'))
RETURNING *;

-- name: UpdateAPIKey :one
UPDATE api_keys
SET expires_at = sqlc.narg('expires_at'), revoked_at = sqlc.narg('revoked_at')
WHERE id = @id
RETURNING *;

-- Coarse: a key that is used all the time is written once a minute.
-- name: UseAPIKey :exec
UPDATE api_keys
SET last_used_at = statement_timestamp()
WHERE id = @id
    AND (last_used_at IS NULL OR last_used_at < statement_timestamp() - interval '1 minute');

-- Newest first.
-- name: ListAPIKeys :many
SELECT *
FROM api_keys
WHERE sqlc.narg('before_time')::timestamptz IS NULL
    OR (created_at, id) < (sqlc.narg('before_time')::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @max_items;

-- name: Audit :exec
SELECT audit(@action, @object_type, @object_id, sqlc.narg('before')::jsonb, sqlc.narg('after')::jsonb);

-- A lock that nobody waits for, until the transaction ends.
-- name: TryLockTx :one
SELECT pg_try_advisory_xact_lock(@key)::boolean AS locked;

-- name: GetAnswer :one
SELECT request_digest, coalesce(status, 0)::int AS status, response, location, etag
FROM idempotency_keys
WHERE actor = @actor AND key = @key AND created_at > statement_timestamp() - interval '24 hours';

-- In the place of one that is too old, if there is one.
-- name: SaveAnswer :exec
INSERT INTO idempotency_keys (actor, key, request_digest, status, response, location, etag)
VALUES (@actor, @key, @request_digest, @status::int, sqlc.narg('response')::json, @location, @etag)
ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO UPDATE
SET request_digest = excluded.request_digest,
    status = excluded.status,
    response = excluded.response,
    location = excluded.location,
    etag = excluded.etag,
    created_at = statement_timestamp();

-- name: ForgetAnswers :execrows
DELETE FROM idempotency_keys
WHERE (actor, key) IN (
    SELECT actor, key
    FROM idempotency_keys
    WHERE created_at < statement_timestamp() - interval '24 hours'
    LIMIT @max_items
)
    AND created_at < statement_timestamp() - interval '24 hours'; -- given anew meanwhile
