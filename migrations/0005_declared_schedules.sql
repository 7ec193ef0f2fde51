-- Schedules that resources of a cluster declare, and how whoever follows them hears of changes.
--
-- Whoever copies the state of schedules elsewhere (the operator, into the status of resources) asks again and again
-- for what has changed since. `changed_xid` is the transaction that wrote a row last, set by a trigger so that no
-- command can forget it. A reader takes rows in the order of (changed_xid, id), and only those below
-- `pg_snapshot_xmin(pg_current_snapshot())`: no transaction that still runs can come before what it has read, so
-- nothing is passed over, as in the outbox. A clock or a sequence would lose the change of a slow commit. The price is
-- the same, too: one long transaction holds back what is heard.

-- Whose token has opened the API at least once. A schedule may be declared for anyone, also for a `sub` that nobody
-- has; nothing else tells the two apart. Written with a user's first request to a process.
CREATE TABLE known_users (
    user_id text PRIMARY KEY CHECK (char_length(user_id) BETWEEN 1 AND 255),
    first_seen_at timestamptz NOT NULL DEFAULT now()
);

-- Who has written something by themselves is known. What schedules made for somebody says nothing about them. First
-- and not last: it reads much, and from the next statement on others wait for this migration.
INSERT INTO known_users (user_id, first_seen_at)
SELECT user_id, min(created_at)
FROM (
    SELECT user_id, created_at
    FROM tasks
    WHERE schedule_id IS NULL
        AND previous_id IS NULL
    UNION ALL
    SELECT user_id, created_at
    FROM schedules
    WHERE external_uid IS NULL
    UNION ALL
    SELECT user_id, created_at
    FROM idempotency_keys
) AS trace
GROUP BY user_id;

ALTER TABLE schedules
    -- NAMESPACE/NAME of the resource that declares it; NULL when none does (any more). It finds the schedule of a
    -- resource that has another UID because its cluster was restored.
    ADD COLUMN origin text CHECK (char_length(origin) BETWEEN 3 AND 317),
    -- Which content of the resource this row has; NULL when it was changed by somebody else since.
    ADD COLUMN external_hash text CHECK (char_length(external_hash) BETWEEN 1 AND 128),
    ADD COLUMN changed_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD CONSTRAINT schedules_origin_keyed CHECK (origin IS NULL OR external_uid IS NOT NULL);

-- One resource, one schedule.
CREATE UNIQUE INDEX schedules_origin ON schedules (origin) WHERE origin IS NOT NULL;
-- What has changed, in order.
CREATE INDEX schedules_changed ON schedules (changed_xid, id) WHERE origin IS NOT NULL;

-- Keys of manifests that a resource stands for: whoever runs the manifest once more on this database finds the
-- resource's schedule there, and makes no second one.
CREATE TABLE adopted_keys (
    key text PRIMARY KEY CHECK (char_length(key) BETWEEN 1 AND 255),
    schedule_id uuid NOT NULL REFERENCES schedules (id)
);

CREATE FUNCTION note_schedule_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.changed_xid := pg_current_xact_id();
    RETURN NEW;
END
$$;

CREATE TRIGGER schedule_changed
    BEFORE INSERT OR UPDATE ON schedules
    FOR EACH ROW
    EXECUTE FUNCTION note_schedule_change();
