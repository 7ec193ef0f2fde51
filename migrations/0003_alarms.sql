-- Alarms: a job in a scheduler outside of the database for each reminder that waits.
--
-- An alarm only wakes the worker of reminders, which looks into `reminders` as it does by itself every few seconds.
-- So a job that is lost, late or doubled changes nothing; but what the scheduler should hold has to be known, to the
-- instant, without asking it: it may be down, slow or wiped.
--
-- One row for each reminder that waits, or whose job may still be there. What is wanted is written by a trigger, in
-- the transaction that arms, moves, sends or deletes a reminder: no command can forget it, and no crash can come
-- between. Who tells the scheduler compares it with what is set: one look into an index, however many wait.
--
-- No foreign key: the row outlives its reminder until the job is removed.
CREATE TABLE reminder_alarm (
    reminder_id uuid PRIMARY KEY,
    -- When it should ring; NULL: there should be no job.
    wanted_at timestamptz,
    -- When it is known to ring; NULL while that is not known: never set, or a call is under way or was not answered.
    set_to timestamptz,
    -- The scheduler may hold a job of this name: it was told once, and not told to remove it since.
    maybe_set boolean NOT NULL DEFAULT false,
    -- When to tell it again, although nothing differs: it may have forgotten.
    tell_again_at timestamptz,
    -- Who is telling it, and until when nobody else does.
    claim uuid,
    claimed_until timestamptz,
    CONSTRAINT reminder_alarm_removable CHECK (wanted_at IS NOT NULL OR maybe_set),
    CONSTRAINT reminder_alarm_set CHECK (set_to IS NULL OR (maybe_set AND tell_again_at IS NOT NULL)),
    CONSTRAINT reminder_alarm_claim CHECK ((claim IS NULL) = (claimed_until IS NULL))
);

-- What differs, the soonest first; what is to be removed comes last.
CREATE INDEX reminder_alarm_different ON reminder_alarm (wanted_at) WHERE (wanted_at = set_to) IS NOT TRUE;
-- What is as it should be, by when to say so again.
CREATE INDEX reminder_alarm_again ON reminder_alarm (tell_again_at) WHERE (wanted_at = set_to) IS TRUE;

CREATE FUNCTION want_reminder_alarm() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    reminder uuid;
    wanted timestamptz;
BEGIN
    IF TG_OP = 'DELETE' THEN
        reminder := OLD.id;
    ELSE
        reminder := NEW.id;
        IF NEW.sent_at IS NULL THEN
            wanted := NEW.fire_at;
        END IF;
    END IF;
    IF wanted IS NOT NULL THEN
        INSERT INTO reminder_alarm (reminder_id, wanted_at)
        VALUES (reminder, wanted)
        ON CONFLICT (reminder_id) DO UPDATE
        SET wanted_at = EXCLUDED.wanted_at;
        RETURN NULL;
    END IF;
    -- Two statements: one that is claimed in between is not deleted by the first, and found by the second.
    DELETE FROM reminder_alarm
    WHERE reminder_id = reminder
        AND NOT maybe_set;
    IF NOT FOUND THEN
        UPDATE reminder_alarm
        SET wanted_at = NULL
        WHERE reminder_id = reminder;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER reminder_armed
    AFTER INSERT ON reminders
    FOR EACH ROW
    WHEN (NEW.fire_at IS NOT NULL AND NEW.sent_at IS NULL)
    EXECUTE FUNCTION want_reminder_alarm();

CREATE TRIGGER reminder_moved
    AFTER UPDATE ON reminders
    FOR EACH ROW
    WHEN (
        (CASE WHEN OLD.sent_at IS NULL THEN OLD.fire_at END)
        IS DISTINCT FROM (CASE WHEN NEW.sent_at IS NULL THEN NEW.fire_at END)
    )
    EXECUTE FUNCTION want_reminder_alarm();

CREATE TRIGGER reminder_gone
    AFTER DELETE ON reminders
    FOR EACH ROW
    WHEN (OLD.fire_at IS NOT NULL AND OLD.sent_at IS NULL)
    EXECUTE FUNCTION want_reminder_alarm();

-- After the triggers, whose making has locked `reminders` against writers until this migration is committed.
INSERT INTO reminder_alarm (reminder_id, wanted_at)
SELECT id, fire_at
FROM reminders
WHERE sent_at IS NULL
    AND fire_at IS NOT NULL;
