-- pgbench: the rows that a thousand due reminders come to, written by one statement that reads nothing back.
WITH due AS (
    SELECT id, user_id, task_id, fire_at
    FROM reminders
    WHERE sent_at IS NULL
        AND fire_at <= now()
    ORDER BY fire_at
    LIMIT 1000
    FOR UPDATE SKIP LOCKED
), sent AS (
    UPDATE reminders
    SET sent_at = now()
    FROM due
    WHERE reminders.id = due.id
), feed AS (
    INSERT INTO notifications (id, reminder_id, user_id, task_id, title, scheduled_for, kind)
    SELECT bench.uuid_v7(), due.id, due.user_id, due.task_id, task.title, due.fire_at, 'reminder'
    FROM due
    JOIN tasks AS task ON task.id = due.task_id
)
INSERT INTO outbox (id, event_type, subject, user_id, version, actor, data)
SELECT
    bench.uuid_v7(), 'reminder', task.id, task.user_id, task.version, 'system reminders', bench.task_data(task)
FROM due
JOIN tasks AS task ON task.id = due.task_id;
