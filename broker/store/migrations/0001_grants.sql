-- minimum reader: 1

CREATE TABLE home (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    name text NOT NULL,
    environment text NOT NULL,
    token_url text NOT NULL,
    client_id text NOT NULL,
    sealed_fingerprint_key bytea NOT NULL,
    key_id bigint NOT NULL
);
COMMENT ON TABLE home IS 'One row: which installation these grants belong to';
COMMENT ON COLUMN home.sealed_fingerprint_key IS '32 random bytes for fingerprints of tokens';

CREATE TABLE grants (
    tenant text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL CHECK (version > 0),
    changed_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    state text NOT NULL
        CHECK (state IN ('UNCONNECTED', 'ACTIVE', 'HELD', 'REAUTH_REQUIRED', 'REVOKED')),
    generation bigint NOT NULL CHECK (generation >= 0),
    pair_generation bigint,
    sealed_access_token bytea,
    sealed_refresh_token bytea,
    token_type text,
    key_id bigint,
    pair_attempt bigint NOT NULL CHECK (pair_attempt >= 0),
    pair_base bigint,
    consent_attempt bigint NOT NULL CHECK (consent_attempt >= 0),
    last_attempt bigint NOT NULL,
    attempt_number bigint,
    attempt_id text,
    attempt_kind text CHECK (attempt_kind IN ('REFRESH', 'EXCHANGE', 'IMPORT')),
    attempt_base bigint,
    attempt_deadline timestamptz,
    attempt_phase text CHECK (attempt_phase IN ('CLAIMED', 'ARMED', 'UNKNOWN')),
    attempt_started_at timestamptz,
    attempt_replica text,
    doubt smallint NOT NULL CHECK (doubt BETWEEN 0 AND 2),
    lifetime interval,
    expires_at timestamptz,
    renew_at timestamptz,
    scopes text[] NOT NULL,
    scopes_source text NOT NULL
        CHECK (scopes_source IN ('REQUESTED', 'TOKEN_RESPONSE', 'INTROSPECTION', 'IMPORTED')),
    subject text,
    exclusive_subject text,
    import_fingerprint bytea,
    reauth_cause text
        CHECK (reauth_cause IN ('EXPIRED_OR_REVOKED', 'ROTATION_LOST', 'OPERATOR')),
    reauth_since timestamptz,
    reauth_error text,
    failure_kind text NOT NULL CHECK (failure_kind IN
        ('NONE', 'PROVIDER_UNAVAILABLE', 'OUTCOME_UNKNOWN', 'CLIENT_REJECTED')),
    failure_code text NOT NULL,
    failure_count integer NOT NULL CHECK (failure_count >= 0),
    failure_next_try_at timestamptz,
    rejection_generation bigint NOT NULL,
    rejection_rotated_at timestamptz,
    rejection_interval interval NOT NULL,
    refreshed_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT grants_whole_pair CHECK (
        num_nonnulls(pair_generation, token_type, key_id) IN (0, 3)
        AND (pair_generation IS NOT NULL
            OR num_nonnulls(sealed_access_token, sealed_refresh_token) = 0)
        AND pair_generation <= generation
    ),
    CONSTRAINT grants_whole_attempt CHECK (
        num_nonnulls(attempt_number, attempt_id, attempt_kind, attempt_base, attempt_deadline,
            attempt_phase, attempt_started_at, attempt_replica) IN (0, 8)
    ),
    CONSTRAINT grants_whole_reauth CHECK (
        num_nonnulls(reauth_cause, reauth_since, reauth_error) IN (0, 3)
    ),
    CONSTRAINT grants_reauth_has_cause CHECK (
        state <> 'REAUTH_REQUIRED' OR reauth_cause IS NOT NULL
    ),
    CONSTRAINT grants_revoked_at_a_time CHECK (state <> 'REVOKED' OR revoked_at IS NOT NULL),
    CONSTRAINT grants_exclusive_is_subject CHECK (
        exclusive_subject = subject AND state NOT IN ('UNCONNECTED', 'REVOKED')
        OR exclusive_subject IS NULL
    )
);
CREATE UNIQUE INDEX grants_exclusive_subject ON grants (exclusive_subject);
CREATE INDEX grants_changed_xid ON grants (changed_xid);
CREATE INDEX grants_updated_at ON grants (updated_at);
COMMENT ON TABLE grants IS 'One row for each tenant, never deleted: its numbers never restart';
COMMENT ON COLUMN grants.version IS 'One more with every write; writes compare and set it';
COMMENT ON COLUMN grants.changed_xid IS 'Transaction in which the others last had to be told';
COMMENT ON COLUMN grants.pair_generation IS 'Sealed into the pair; smaller than generation where
a revocation kept the pair';
COMMENT ON COLUMN grants.key_id IS 'The key of the keyset under which both tokens are sealed';
COMMENT ON COLUMN grants.exclusive_subject IS 'The subject, where no other tenant may have it';
COMMENT ON COLUMN grants.last_used_at IS 'Written in batches, without a new version';

CREATE TABLE refresh_attempts (
    tenant text NOT NULL,
    number bigint NOT NULL,
    attempt_id text NOT NULL,
    kind text NOT NULL,
    base_generation bigint NOT NULL,
    phase text NOT NULL,
    replica text NOT NULL,
    started_at timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    outcome text NOT NULL,
    http_status integer,
    error text NOT NULL,
    duration interval,
    generation_after bigint
) PARTITION BY RANGE (started_at);
CREATE TABLE refresh_attempts_default PARTITION OF refresh_attempts DEFAULT;
CREATE INDEX refresh_attempts_of_tenant ON refresh_attempts (tenant, number);
CREATE INDEX refresh_attempts_ended_at ON refresh_attempts (ended_at);
COMMENT ON TABLE refresh_attempts IS 'One line for each settled attempt, in daily partitions';

CREATE TABLE grant_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant text NOT NULL,
    actor text NOT NULL,
    call text NOT NULL,
    reason text NOT NULL,
    state_before text NOT NULL,
    state_after text NOT NULL,
    generation bigint NOT NULL
);
CREATE INDEX grant_events_of_tenant ON grant_events (tenant, at);
COMMENT ON TABLE grant_events IS 'Every change of state and every administrative act';

CREATE TABLE authorizations (
    state_hash bytea PRIMARY KEY,
    tenant text NOT NULL,
    session_binding_hash bytea NOT NULL,
    caller text NOT NULL,
    sealed_code_verifier bytea,
    key_id bigint,
    redirect_uri text NOT NULL,
    scopes text[] NOT NULL,
    expected_subject text,
    allow_subject_change boolean NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    spent_at timestamptz,
    code_hash bytea,
    attempt_number bigint,
    outcome_reason text,
    outcome_metadata jsonb,
    CONSTRAINT authorizations_whole_verifier CHECK (
        num_nonnulls(sealed_code_verifier, key_id) IN (0, 2)
    ),
    CONSTRAINT authorizations_whole_outcome CHECK (
        num_nonnulls(outcome_reason, outcome_metadata) IN (0, 2)
    ),
    CONSTRAINT authorizations_spent_by_code CHECK (
        num_nonnulls(code_hash, attempt_number) IN (0, 2)
        AND (code_hash IS NULL OR spent_at IS NOT NULL)
    )
);
CREATE INDEX authorizations_expires_at ON authorizations (expires_at);
COMMENT ON TABLE authorizations IS 'Pending consents; their state and session binding are hashed';
COMMENT ON COLUMN authorizations.outcome_reason IS 'Empty for success; set: the verifier is gone';

CREATE TABLE imports (
    tenant text NOT NULL,
    fingerprint bytea NOT NULL,
    sealed_refresh_token bytea,
    key_id bigint,
    outcome text NOT NULL CHECK (outcome IN ('PENDING', 'STORED', 'REFUSED')),
    presentations integer NOT NULL CHECK (presentations >= 0),
    error text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, fingerprint),
    -- Two tenants with one token would present it twice, and the second kills the first's grant.
    CONSTRAINT imports_once UNIQUE (fingerprint),
    CONSTRAINT imports_whole_token CHECK (num_nonnulls(sealed_refresh_token, key_id) IN (0, 2))
);
COMMENT ON TABLE imports IS 'Refresh tokens that callers handed over, known by fingerprint';
