-- minimum reader: 1

-- No row is rewritten; whoever needs `grants` waits while each index looks through it once.
ALTER TABLE grants ADD COLUMN renewal_taken_until timestamptz;
CREATE INDEX grants_in_use ON grants (renew_at)
    WHERE state = 'ACTIVE' AND last_used_at >= refreshed_at;
CREATE INDEX grants_idle ON grants (refreshed_at) WHERE state = 'ACTIVE';
COMMENT ON COLUMN grants.renewal_taken_until IS 'A replica renews it, and the others look for other
work until then; written without a new version';
