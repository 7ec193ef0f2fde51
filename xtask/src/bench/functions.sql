-- What the scripts that make data have in common. In a schema of its own: the platform never looks there.
CREATE SCHEMA bench;

-- A UUIDv7 (RFC 9562, section 5.7) of the moment, as the platform makes them outside of the database.
CREATE FUNCTION bench.uuid_v7() RETURNS uuid
LANGUAGE sql
VOLATILE
AS $$
    SELECT (
        lpad(to_hex((EXTRACT(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7'
        || substr(replace(gen_random_uuid()::text, '-', ''), 14)
    )::uuid
$$;

-- What an event carries: the task as the API shows it.
CREATE FUNCTION bench.task_data(task tasks) RETURNS jsonb
LANGUAGE sql
STABLE
AS $$
    SELECT jsonb_build_object(
        'id', task.id, 'user_id', task.user_id, 'title', task.title, 'description', task.description,
        'status', task.status, 'priority', task.priority, 'category', task.category, 'tags', '[]'::jsonb,
        'due', CASE WHEN task.due_at IS NOT NULL THEN jsonb_build_object(
            'local', task.due_local, 'time_zone', task.due_zone, 'at', task.due_at
        ) END,
        'completed_at', task.completed_at, 'parent_id', task.parent_id, 'schedule_id', task.schedule_id,
        'occurrence_at', task.occurrence_at, 'recurrence', task.recurrence, 'previous_id', task.previous_id,
        'reminders', '[]'::jsonb, 'version', task.version, 'created_at', task.created_at, 'updated_at', task.updated_at
    )
$$;

-- Makes tasks of a thousand users, one after the other's turn.
CREATE PROCEDURE bench.make_tasks(number integer)
LANGUAGE sql
AS $$
    INSERT INTO tasks (id, user_id, title, description, priority, due_local, due_zone, due_at)
    SELECT
        bench.uuid_v7(), 'user-' || n % 1000, 'Water the plants of floor ' || n,
        'The fern in the corner takes twice as much as the others.', 'medium',
        (now() + interval '1 day')::timestamp, 'UTC', now() + interval '1 day'
    FROM generate_series(1, number) AS n
$$;

-- Makes events of 10,000 tasks in turn, a thousand in each transaction.
CREATE PROCEDURE bench.make_events(number integer)
LANGUAGE plpgsql
AS $$
BEGIN
    FOR batch IN 1 .. number / 1000 LOOP
        INSERT INTO outbox (id, event_type, subject, user_id, version, actor, data, previous)
        SELECT
            bench.uuid_v7(), 'updated', task.id, task.user_id, 1 + batch / 10, task.user_id, bench.task_data(task),
            '{"title": "Water the plants"}'
        FROM tasks AS task
        ORDER BY task.id
        LIMIT 1000
        OFFSET batch % 10 * 1000;
        COMMIT;
    END LOOP;
END
$$;
