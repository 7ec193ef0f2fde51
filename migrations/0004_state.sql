-- State: values under keys, each with a version, for what is read and written whole, such as a conversation.
--
-- The database is the store where no other is configured, and stands in for one that is away. What waits here for the
-- other store to come back has to be found without knowing its keys, so they sort by their bytes and have a common
-- beginning for each kind.
CREATE TABLE state (
    key text COLLATE "C" PRIMARY KEY CHECK (char_length(key) BETWEEN 1 AND 2000),
    value jsonb NOT NULL,
    -- Another one after each write.
    etag uuid NOT NULL DEFAULT gen_random_uuid(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Nobody sees it from then on; NULL: never.
    expires_at timestamptz
);
CREATE INDEX state_expires ON state (expires_at) WHERE expires_at IS NOT NULL;
