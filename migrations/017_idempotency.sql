-- Requests that are carried out once are answered with the headers of the first
-- answer, too.

ALTER TABLE idempotency_keys
    ADD COLUMN location text NOT NULL DEFAULT '',
    ADD COLUMN etag text NOT NULL DEFAULT '';
COMMENT ON TABLE idempotency_keys IS
    'The answers of requests with an Idempotency-Key, written in the transaction of what they did; kept for a day.';

---- create above / drop below ----

ALTER TABLE idempotency_keys
    DROP COLUMN location,
    DROP COLUMN etag;
