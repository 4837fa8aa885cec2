-- minimum reader: 1

CREATE TABLE disclosures (
    tenant text COLLATE "C" NOT NULL,
    caller text COLLATE "C" NOT NULL,
    first_generation bigint NOT NULL,
    last_generation bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, caller),
    CONSTRAINT disclosures_in_order CHECK (
        first_generation <= last_generation AND first_at <= last_at
    )
);
COMMENT ON TABLE disclosures IS 'Who was given which tokens: after a leak of generation G of a
tenant, whoever has first_generation <= G <= last_generation may hold it';
COMMENT ON COLUMN disclosures.last_at IS 'Of the last generation, noted every so often';

-- The role of the service may not alter the schema, nor delete what is on record. What the upkeep of
-- the daily partitions needs beyond that, these two do in the name of the role that migrated.

CREATE FUNCTION make_attempts_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition text := 'refresh_attempts_' || to_char(day, 'YYYYMMDD');
    today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    -- In UTC, whatever the session's time zone: days must not overlap, nor leave an hour out.
    begins timestamptz := day::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF day NOT BETWEEN today - 1 AND today + 31 THEN
        RAISE EXCEPTION 'partitions are made for the coming days';
    END IF;
    -- Attaching locks the parent less than CREATE TABLE … PARTITION OF would, and refuses while
    -- lines of that day lie in the default partition: they move first.
    EXECUTE format('CREATE TABLE %I (LIKE refresh_attempts INCLUDING ALL)', partition);
    EXECUTE format(
        'WITH moved AS (
            DELETE FROM refresh_attempts_default WHERE started_at >= %L AND started_at < %L
            RETURNING *
        )
        INSERT INTO %I SELECT * FROM moved', begins, ends, partition);
    EXECUTE format('ALTER TABLE refresh_attempts ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        partition, begins, ends);
END $$;

CREATE FUNCTION drop_attempts_before(oldest date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition regclass;
    -- Whoever has taken the service over does not clear away the traces of a week with this.
    before date := least(
        coalesce(oldest, '-infinity'), (clock_timestamp() AT TIME ZONE 'UTC')::date - 7
    );
BEGIN
    FOR partition IN
        SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'refresh_attempts'::regclass AND relname ~ '_\d{8}$'
        AND to_date(right(relname, 8), 'YYYYMMDD') < before
        ORDER BY relname
    LOOP
        EXECUTE format('DROP TABLE %s', partition);
    END LOOP;
    -- What never had a partition of its own grows old as well.
    DELETE FROM refresh_attempts_default WHERE started_at < before::timestamp AT TIME ZONE 'UTC';
END $$;

-- A caller's search_path must not lead them to tables of its own.
DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY['make_attempts_partition(date)', 'drop_attempts_before(date)']
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', signature,
            current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
    END LOOP;
END $$;
