-- What happened: the outbox, the inbox, the relay's place and the dead letters.
--
-- A command changes a row and appends one outbox row in the same transaction, so there is never a
-- change without its event nor an event without its change. A relay reads the outbox in commit order
-- and hands the events to the bus; a consumer records each event that it has applied in its inbox, in
-- the transaction of the effect itself. "At least once" from the relay and "not twice" from the inbox
-- make "exactly once".
--
-- Why the outbox has an `xid`. A sequence alone loses events: transaction A takes number 10, B takes 11
-- and commits, the reader moves past 11, A commits, and nobody ever reads 10. A reader that takes only
-- rows below `pg_snapshot_xmin(pg_current_snapshot())` sees no transaction that still runs, nor one
-- that started after it, and so may step over what it has read. The price: one long transaction, in any
-- database of the cluster, holds the whole outbox back, which `todo_outbox_oldest_age_seconds` shows.
--
-- Why nothing marks a row as published. An UPDATE for each event doubles the writes and leaves a dead
-- tuple for each; a reader's place is one row in `relay_cursor`. Rows leave by whole partitions.
--
-- Why there are DEFAULT partitions. A missing partition must never fail a user's write. Rows that land
-- there are read like any others, and are swept one by one when they are old.
--
-- Why time is always written with an offset here. A partition's bounds are UTC days, whatever the
-- session's time zone says.

CREATE SEQUENCE outbox_seq AS bigint;

CREATE TABLE outbox (
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    seq         bigint      NOT NULL DEFAULT nextval('outbox_seq'),
    -- UUIDv7, made by the writer. It is the CloudEvents id, and so what every consumer deduplicates by.
    id          uuid        NOT NULL,
    event_type  text        NOT NULL,
    -- The task.
    subject     uuid        NOT NULL,
    user_id     text        NOT NULL,
    -- The task's version after the change: the order of one task's events.
    version     bigint      NOT NULL,
    -- Who did it: a user's `sub`, or `system:` and a role.
    actor       text        NOT NULL,
    -- The task as it is after the change, or the last that was known of it.
    data        jsonb       NOT NULL,
    -- The former values of the fields that changed; null on creation.
    previous    jsonb,
    -- W3C trace context of the request, so that a trace goes on in the consumers.
    traceparent text,
    created_at  timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT outbox_pkey PRIMARY KEY (xid, seq, created_at),
    CONSTRAINT outbox_event_type_known CHECK (
        event_type IN ('created', 'updated', 'completed', 'deleted', 'reminder', 'recurring_spawn')
    ),
    CONSTRAINT outbox_version_positive CHECK (version > 0),
    CONSTRAINT outbox_user_present CHECK (user_id <> ''),
    CONSTRAINT outbox_actor_present CHECK (actor <> ''),
    CONSTRAINT outbox_previous_object CHECK (previous IS NULL OR jsonb_typeof(previous) = 'object')
) PARTITION BY RANGE (created_at);

ALTER SEQUENCE outbox_seq OWNED BY outbox.seq;

CREATE TABLE outbox_default PARTITION OF outbox DEFAULT;

COMMENT ON TABLE outbox IS 'Events in commit order. Append-only; write through append_events.';

-- How events are appended, in their order: also within the statement that changes the rows, by crates that do not
-- know the table. Arrays of one length; `previous` and `traceparents` may be left out. Returns how many.
--
--     WITH changed AS (UPDATE tasks …)
--     SELECT append_events($1, $2, …)
--
-- Arrays and not one call for each event: a call costs four times what a row in a set costs. PL/pgSQL rather than
-- SQL, because its plan is kept for the session.
CREATE FUNCTION append_events(
    event_ids    uuid[],
    event_types  text[],
    subjects     uuid[],
    user_ids     text[],
    versions     bigint[],
    actors       text[],
    data         jsonb[],
    previous     jsonb[] DEFAULT NULL,
    traceparents text[]  DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
VOLATILE
AS $$
DECLARE
    appended bigint;
BEGIN
    INSERT INTO outbox (id, event_type, subject, user_id, version, actor, data, previous, traceparent)
    SELECT *
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9);
    GET DIAGNOSTICS appended = ROW_COUNT;
    RETURN appended;
END
$$;

-- What every transaction that changes an existing task begins with, before it writes or locks anything:
-- it makes the order of transaction ids the order of the task's versions. The docs of `outbox` in the
-- crate `todo-events` say why a row lock alone does not. Held to the end of the transaction.
--
--     SELECT task.*
--     FROM lock_subject($1) AS held(id)
--     CROSS JOIN LATERAL (SELECT * FROM tasks WHERE tasks.id = held.id FOR UPDATE) AS task
CREATE FUNCTION lock_subject(subject uuid) RETURNS uuid
LANGUAGE plpgsql
VOLATILE
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended($1::text, 0));
    RETURN $1;
END
$$;

-- One row for each event that a consumer has applied, written in the transaction of the effect.
-- UUIDv7 sorts by time, so a range of ids is a day, and an old day is dropped whole.
CREATE TABLE inbox (
    consumer     text        NOT NULL,
    event_id     uuid        NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT inbox_pkey PRIMARY KEY (consumer, event_id)
) PARTITION BY RANGE (event_id);

CREATE TABLE inbox_default PARTITION OF inbox DEFAULT;

COMMENT ON TABLE inbox IS 'Which consumer has applied which event. Never in dead_letters at the same time.';

-- How far each relay got: one row for each consumer that is fed here in the process, one for a broker. A
-- consumer that is switched off keeps its place, and finds all that happened meanwhile when it is back.
CREATE TABLE relay_cursor (
    name       text        NOT NULL,
    xid        xid8        NOT NULL DEFAULT '0',
    seq        bigint      NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT relay_cursor_pkey PRIMARY KEY (name)
);

-- From when on the outbox is whole: what is older may have been dropped, so nothing can be rebuilt from
-- before it. One row; null while nothing has been dropped.
CREATE TABLE outbox_retained (
    only_row      boolean     NOT NULL DEFAULT true,
    retained_from timestamptz,

    CONSTRAINT outbox_retained_pkey PRIMARY KEY (only_row),
    CONSTRAINT outbox_retained_one_row CHECK (only_row)
);

INSERT INTO outbox_retained DEFAULT VALUES;

-- Events that a consumer could not apply, and those of the same task that wait behind one.
CREATE TABLE dead_letters (
    consumer        text        NOT NULL,
    event_id        uuid        NOT NULL,
    subject         uuid        NOT NULL,
    version         bigint      NOT NULL,
    -- The order in which they came, and so in which they are applied later. Not `version`, because a
    -- reminder does not raise it.
    arrival         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    -- The whole CloudEvent: the outbox row may be gone when somebody looks.
    event           jsonb       NOT NULL,
    event_time      timestamptz NOT NULL,
    error           text        NOT NULL,
    attempts        integer     NOT NULL,
    -- Null for an event that failed itself; else the failed event that it waits for.
    parked_behind   uuid,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    last_failed_at  timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT dead_letters_pkey PRIMARY KEY (consumer, event_id),
    CONSTRAINT dead_letters_error_bounded CHECK (length(error) <= 2000),
    CONSTRAINT dead_letters_attempts_counted CHECK (attempts >= 0)
);

CREATE INDEX dead_letters_by_subject ON dead_letters (consumer, subject, arrival);
CREATE INDEX dead_letters_by_arrival ON dead_letters (arrival);
