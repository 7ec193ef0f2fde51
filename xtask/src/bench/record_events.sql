-- pgbench: the next thousand events from the outbox into the inbox and the audit log, by one statement.
WITH event AS (
    SELECT next.*
    FROM relay_cursor AS place
    CROSS JOIN LATERAL (
        SELECT outbox.*
        FROM outbox
        WHERE (outbox.xid, outbox.seq) > (place.xid, place.seq)
        ORDER BY outbox.xid, outbox.seq
        LIMIT 1000
    ) AS next
    WHERE place.name = 'bench'
), seen AS (
    INSERT INTO inbox (consumer, event_id)
    SELECT 'audit', id
    FROM event
), recorded AS (
    INSERT INTO audit (event_id, task_id, user_id, actor, event_type, version, before, after, occurred_at)
    SELECT id, subject, user_id, actor, event_type, version, previous, data, created_at
    FROM event
)
UPDATE relay_cursor
SET (xid, seq) = (SELECT xid, seq FROM event ORDER BY xid DESC, seq DESC LIMIT 1)
WHERE name = 'bench';
