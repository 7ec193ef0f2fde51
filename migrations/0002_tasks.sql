-- Tasks and what hangs on them.
--
-- What holds here, and not only in code:
--   * A row belongs to exactly one user, and what refers to a task (its parent, tags, reminders) refers to
--     (user_id, id): the database itself refuses a link from one user's data to another's.
--   * A due date is civil time + zone + instant, all three or none. Civil time and zone are what the user said;
--     the instant follows from them and from the time-zone rules of the day, and is computed again when those
--     rules change. SQL never converts between zones: the server's own zone data may be older than ours.
--   * `version` counts the changes of a task, from 1, and is what ETags, events and consumers go by.
--   * Deleting sets deleted_at: a task is never lost by a slip of the finger, and its history stays readable.
--   * A task makes at most one next one (previous_id is unique), however often its event is delivered.
--
-- Priorities are an enum and not a table: they sort by rank, and a foreign key would make each insert lock
-- the one row 'medium', which under load turns into a queue.
CREATE TYPE task_priority AS ENUM ('low', 'medium', 'high', 'critical');
CREATE TYPE task_status AS ENUM ('open', 'completed');

-- A schedule makes a task for each of its occurrences. `rule` is what recurrence understands
-- (exactly one of cron, rrule, every; zone; bounds), `template` is the task to make.
-- cursor_at is the last instant that was dealt with: made, skipped or counted as missed. It only moves forward
-- and in the transaction that made the tasks, which is why a crash can neither lose nor double an occurrence.
CREATE TABLE schedules (
    id uuid PRIMARY KEY,
    user_id text NOT NULL CHECK (char_length(user_id) BETWEEN 1 AND 255),
    -- The UID of the RecurringSchedule that declares it; NULL for one made over the API.
    external_uid text UNIQUE CHECK (char_length(external_uid) BETWEEN 1 AND 255),
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 253),
    rule jsonb NOT NULL CHECK (jsonb_typeof(rule) = 'object'),
    template jsonb NOT NULL CHECK (jsonb_typeof(template) = 'object'),
    overlap text NOT NULL DEFAULT 'allow' CHECK (overlap IN ('allow', 'skip')),
    catch_up_policy text NOT NULL DEFAULT 'all' CHECK (catch_up_policy IN ('all', 'latest', 'none')),
    catch_up_window_seconds bigint NOT NULL DEFAULT 2592000 CHECK (catch_up_window_seconds >= 0),
    catch_up_max integer NOT NULL DEFAULT 1000 CHECK (catch_up_max BETWEEN 1 AND 10000),
    suspended boolean NOT NULL DEFAULT false,
    -- Where the rule counts from when it has no start of its own.
    anchor_at timestamptz NOT NULL,
    cursor_at timestamptz NOT NULL,
    -- The next instant to deal with; NULL when the rule has ended.
    next_at timestamptz,
    last_at timestamptz,
    made bigint NOT NULL DEFAULT 0 CHECK (made >= 0),
    missed bigint NOT NULL DEFAULT 0 CHECK (missed >= 0),
    skipped bigint NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    -- Why it makes nothing: this version cannot read its rule or template. Cleared by the next change of it.
    problem text,
    version bigint NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    CHECK (next_at > cursor_at)
);
CREATE INDEX schedules_user ON schedules (user_id, id) WHERE deleted_at IS NULL;
CREATE INDEX schedules_due ON schedules (next_at)
    WHERE next_at IS NOT NULL AND NOT suspended AND problem IS NULL AND deleted_at IS NULL;

CREATE TABLE tasks (
    id uuid PRIMARY KEY,
    user_id text NOT NULL CHECK (char_length(user_id) BETWEEN 1 AND 255),
    title text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 500),
    description text NOT NULL DEFAULT '' CHECK (char_length(description) <= 20000),
    status task_status NOT NULL DEFAULT 'open',
    priority task_priority NOT NULL DEFAULT 'medium',
    category text CHECK (char_length(category) BETWEEN 1 AND 100),
    due_local timestamp,
    due_zone text,
    due_at timestamptz,
    completed_at timestamptz,
    parent_id uuid CHECK (parent_id <> id),
    schedule_id uuid REFERENCES schedules (id),
    -- The occurrence of the schedule that this task stands for.
    occurrence_at timestamptz,
    -- The task's own recurrence, and the civil time its series began at: a monthly series that began on
    -- the 31st comes back to the 31st after February.
    recurrence jsonb CHECK (jsonb_typeof(recurrence) = 'object'),
    series_start timestamp,
    previous_id uuid UNIQUE CHECK (previous_id <> id),
    version bigint NOT NULL DEFAULT 1 CHECK (version >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    -- Also the index that lists a user's tasks: ids are UUIDv7 and sort by creation.
    CONSTRAINT tasks_user_id_id UNIQUE (user_id, id),
    CONSTRAINT tasks_parent FOREIGN KEY (user_id, parent_id) REFERENCES tasks (user_id, id),
    CONSTRAINT tasks_previous FOREIGN KEY (user_id, previous_id) REFERENCES tasks (user_id, id),
    CONSTRAINT tasks_due_whole CHECK (num_nulls(due_local, due_zone, due_at) IN (0, 3)),
    CONSTRAINT tasks_completed_at CHECK ((status = 'completed') = (completed_at IS NOT NULL)),
    CONSTRAINT tasks_occurrence_whole CHECK (num_nulls(schedule_id, occurrence_at) IN (0, 2)),
    CONSTRAINT tasks_series_whole CHECK (num_nulls(recurrence, series_start) IN (0, 2)),
    CONSTRAINT tasks_recurrence_due CHECK (recurrence IS NULL OR due_at IS NOT NULL)
);
CREATE INDEX tasks_due ON tasks (user_id, due_at, id) WHERE due_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX tasks_parent_id ON tasks (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX tasks_schedule ON tasks (schedule_id, occurrence_at) WHERE schedule_id IS NOT NULL;

-- One row for each occurrence that made a task. The primary key is the promise that none is doubled.
CREATE TABLE occurrences (
    schedule_id uuid NOT NULL REFERENCES schedules (id),
    scheduled_for timestamptz NOT NULL,
    task_id uuid NOT NULL UNIQUE REFERENCES tasks (id),
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schedule_id, scheduled_for)
);

-- A user's own words for sorting tasks. Names are kept in lower case: "Home" and "home" are one tag.
CREATE TABLE tags (
    user_id text NOT NULL,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 50 AND name = lower(name)),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, name)
);
CREATE TABLE task_tags (
    user_id text NOT NULL,
    task_id uuid NOT NULL,
    tag text NOT NULL,
    PRIMARY KEY (task_id, tag),
    FOREIGN KEY (user_id, tag) REFERENCES tags (user_id, name),
    FOREIGN KEY (user_id, task_id) REFERENCES tasks (user_id, id) ON DELETE CASCADE
);
CREATE INDEX task_tags_tag ON task_tags (user_id, tag, task_id);

-- A reminder is either at a civil time of its own, or some seconds before its task is due.
-- fire_at is when it goes out; NULL while there is nothing to send (no due date, task completed or deleted).
-- It is sent exactly once per fire_at: claiming, the event and the notification are one transaction.
CREATE TABLE reminders (
    id uuid PRIMARY KEY,
    user_id text NOT NULL,
    task_id uuid NOT NULL,
    before_seconds bigint CHECK (before_seconds BETWEEN 0 AND 31622400),
    at_local timestamp,
    at_zone text,
    fire_at timestamptz,
    sent_at timestamptz,
    -- Went out more than 60 seconds after fire_at, after downtime.
    late boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (user_id, task_id) REFERENCES tasks (user_id, id) ON DELETE CASCADE,
    CONSTRAINT reminders_kind CHECK (
        (before_seconds IS NOT NULL AND at_local IS NULL AND at_zone IS NULL)
        OR (before_seconds IS NULL AND at_local IS NOT NULL AND at_zone IS NOT NULL)
    ),
    CONSTRAINT reminders_never_early CHECK (sent_at IS NULL OR (fire_at IS NOT NULL AND sent_at >= fire_at)),
    CONSTRAINT reminders_distinct UNIQUE NULLS NOT DISTINCT (task_id, before_seconds, at_local, at_zone)
);
CREATE INDEX reminders_due ON reminders (fire_at) WHERE fire_at IS NOT NULL AND sent_at IS NULL;

-- What a user is told. A digest stands for the reminders that came due while nothing ran: each of them has
-- its own row (it went out, once), tied to the digest that is shown instead of them.
CREATE TABLE notifications (
    id uuid PRIMARY KEY,
    user_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('reminder', 'digest')),
    title text NOT NULL,
    task_id uuid,
    reminder_id uuid,
    scheduled_for timestamptz NOT NULL,
    late boolean NOT NULL DEFAULT false,
    digest_id uuid REFERENCES notifications (id),
    -- How many reminders a digest stands for.
    reminder_count integer NOT NULL DEFAULT 1 CHECK (reminder_count >= 1),
    read_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT notifications_once UNIQUE (reminder_id, scheduled_for),
    CONSTRAINT notifications_of_a_reminder CHECK ((kind = 'reminder') = (reminder_id IS NOT NULL AND task_id IS NOT NULL))
);
CREATE INDEX notifications_feed ON notifications (user_id, id) WHERE digest_id IS NULL;
CREATE INDEX notifications_digest ON notifications (digest_id) WHERE digest_id IS NOT NULL;

-- Who did what, when, before and after: one row per event, written by the audit consumer.
-- `seq` is the order in which they were applied.
CREATE TABLE audit (
    event_id uuid PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    task_id uuid NOT NULL,
    user_id text NOT NULL,
    actor text NOT NULL,
    event_type text NOT NULL,
    version bigint NOT NULL,
    -- The former values of the fields that changed; NULL when the task was new.
    before jsonb,
    after jsonb NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_task ON audit (task_id, seq);
CREATE INDEX audit_occurred ON audit (occurred_at);

-- The answers to POST requests that carried an Idempotency-Key, written in the effect's own transaction:
-- a repeated request finds either the effect and its answer, or neither.
CREATE TABLE idempotency_keys (
    user_id text NOT NULL,
    key text NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    -- SHA-256 of method, path and body: the same key with another request is the caller's mistake.
    fingerprint bytea NOT NULL,
    status smallint,
    headers jsonb,
    -- As it was sent, to the byte.
    body text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- The version of the time-zone rules that the stored instants were computed with. One row.
CREATE TABLE time_zone_database (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
