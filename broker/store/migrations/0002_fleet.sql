-- minimum reader: 1

-- No row is rewritten, and the indexes are empty but for refused grants; yet whoever needs `grants`
-- waits while each of them looks through the table once.
ALTER TABLE grants ADD COLUMN quarantined_until timestamptz;
CREATE INDEX grants_held ON grants (reauth_since) WHERE state = 'HELD';
CREATE INDEX grants_refused ON grants (reauth_since)
    WHERE state = 'REAUTH_REQUIRED' AND pair_generation IS NOT NULL AND quarantined_until IS NULL;
CREATE INDEX grants_given_up ON grants (quarantined_until) WHERE quarantined_until IS NOT NULL;
COMMENT ON COLUMN grants.quarantined_until IS 'Given up by the fleet guard: its sealed pair can be
taken back until then';

CREATE TABLE fleet (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    version bigint NOT NULL CHECK (version > 0),
    breaker_cause text
        CHECK (breaker_cause IN ('CLIENT_REJECTED', 'OUTCOMES_UNKNOWN', 'RATE_LIMITED')),
    breaker_code text,
    breaker_since timestamptz,
    breaker_probe_at timestamptz,
    breaker_probes integer,
    guard_state text NOT NULL
        CHECK (guard_state IN ('WATCHING', 'HOLDING', 'CONFIRMING', 'DISCARDING')),
    guard_since timestamptz,
    guard_until timestamptz,
    guard_counted_from timestamptz,
    guard_canary_tenant text,
    guard_canary_generation bigint,
    guard_canary_refused_at timestamptz,
    guard_decided_by text NOT NULL,
    guard_reason text NOT NULL,
    timeline text NOT NULL,
    timeline_since timestamptz,
    CONSTRAINT fleet_whole_breaker CHECK (
        num_nonnulls(breaker_cause, breaker_code, breaker_since, breaker_probe_at, breaker_probes)
        IN (0, 5)
    ),
    CONSTRAINT fleet_whole_canary CHECK (
        num_nonnulls(guard_canary_tenant, guard_canary_generation, guard_canary_refused_at)
        IN (0, 3)
    )
);
INSERT INTO fleet (version, guard_state, guard_decided_by, guard_reason, timeline)
    VALUES (1, 'WATCHING', '', '', '');
COMMENT ON TABLE fleet IS 'One row: the breaker and the guard, which all replicas share';
COMMENT ON COLUMN fleet.version IS 'One more with every write; writes compare and set it';
COMMENT ON COLUMN fleet.timeline IS 'Which past of the database the broker last worked with';

CREATE TABLE replicas (
    name text PRIMARY KEY,
    build text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL
);
COMMENT ON TABLE replicas IS 'Signs of life; those of a day ago are deleted';
