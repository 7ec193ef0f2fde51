-- pgbench: the rows that a thousand due schedules come to, written by one statement that reads nothing back.
WITH due AS (
    SELECT id, user_id, next_at
    FROM schedules
    WHERE next_at <= now()
        AND NOT suspended
        AND problem IS NULL
        AND deleted_at IS NULL
    ORDER BY next_at
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
), task AS (
    INSERT INTO tasks (
        id, user_id, title, priority, due_local, due_zone, due_at, schedule_id, occurrence_at, created_at, updated_at
    )
    SELECT
        bench.uuid_v7(), user_id, 'Weekly review 2030-01-31', 'high', '20300131T170000', 'Europe/Berlin',
        next_at + interval '8 hours', id, next_at, now(), now()
    FROM due
    RETURNING *
), known_tag AS (
    INSERT INTO tags (user_id, name)
    SELECT DISTINCT user_id, 'review'
    FROM due
    ON CONFLICT DO NOTHING
), task_tag AS (
    INSERT INTO task_tags (user_id, tag, task_id)
    SELECT user_id, 'review', id
    FROM task
), reminder AS (
    INSERT INTO reminders (id, user_id, task_id, before_seconds, fire_at)
    SELECT bench.uuid_v7(), user_id, id, 1800, due_at - interval '30 minutes'
    FROM task
), event AS (
    INSERT INTO outbox (id, event_type, subject, user_id, version, actor, data)
    SELECT bench.uuid_v7(), 'recurring_spawn', id, user_id, 1, 'system recurring', bench.task_data(task)
    FROM task
), occurrence AS (
    INSERT INTO occurrences (schedule_id, scheduled_for, task_id)
    SELECT schedule_id, occurrence_at, id
    FROM task
)
UPDATE schedules
SET cursor_at = now(),
    next_at = now() + interval '1 hour',
    last_at = due.next_at,
    made = made + 1
FROM due
WHERE schedules.id = due.id;
