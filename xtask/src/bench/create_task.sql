-- pgbench: the two inserts of creating a task, with the columns that the API writes, and nothing else.
-- What stands for the event's data is replaced by what the API has written into one.
-- Times are written without colons: pgbench takes what follows one for the name of a variable.
-- Ids grow with time as UUIDv7 does: a count, and then random digits.
\set count :count + 1
\set random random(1, 1152921504606846975)
\set user random(1, 256)
BEGIN;
INSERT INTO tasks (
    id, user_id, title, description, priority, category, due_local, due_zone, due_at, parent_id, schedule_id,
    occurrence_at, recurrence, series_start, previous_id, created_at, updated_at
)
VALUES (
    (lpad(to_hex(:count::bigint), 12, '0') || '70008' || lpad(to_hex(:random::bigint), 15, '0'))::uuid,
    'bench-' || :user::text, 'Water the plants of floor ' || :user::text,
    'The fern in the corner takes twice as much as the others.', 'medium', NULL,
    '20300131T090000', 'Europe/Berlin', '20300131T080000Z', NULL, NULL, NULL, NULL, NULL, NULL, now(), now()
);
INSERT INTO outbox (id, event_type, subject, user_id, version, actor, data, previous, traceparent)
VALUES (
    (lpad(to_hex(:count::bigint), 12, '0') || '70009' || lpad(to_hex(:random::bigint), 15, '0'))::uuid, 'created',
    (lpad(to_hex(:count::bigint), 12, '0') || '70008' || lpad(to_hex(:random::bigint), 15, '0'))::uuid,
    'bench-' || :user::text, 1, 'bench-' || :user::text,
    replace(E'EVENT_DATA', 'TASK_ID', lpad(to_hex(:random::bigint), 36, '0'))::jsonb, NULL, NULL
);
COMMIT;
