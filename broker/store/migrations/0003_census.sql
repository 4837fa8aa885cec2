-- minimum reader: 1

-- For the census that one replica takes each minute: grants that are ACTIVE and in order are in none
-- of these but while an attempt is under way, so a rotation writes little more than before.
CREATE INDEX grants_not_active ON grants (state) WHERE state <> 'ACTIVE';
CREATE INDEX grants_attempted ON grants (attempt_deadline) WHERE attempt_number IS NOT NULL;
CREATE INDEX grants_overdue ON grants (renew_at)
    WHERE state = 'ACTIVE' AND last_used_at - renew_at > interval '1 minute';
COMMENT ON INDEX grants_overdue IS 'Given out long after their renewal time, and not rotated since';
