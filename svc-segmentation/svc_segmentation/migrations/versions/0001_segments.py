# SPDX-License-Identifier: Apache-2.0
"""Behaviour by fragment, segments, memberships with their history, and what waits to be evaluated."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
-- One row per fragment, event name and day. Room in each page keeps updates out of the index.
CREATE TABLE event_days (
    fragment_id uuid NOT NULL,
    event_key bigint NOT NULL,
    day integer NOT NULL,
    count integer NOT NULL,
    first_us bigint NOT NULL,
    last_us bigint NOT NULL,
    times_us bigint[] NOT NULL,
    amount_properties text[],
    amount_times_us bigint[],
    amounts numeric[],
    older_amounts jsonb,
    PRIMARY KEY (fragment_id, event_key, day)
) WITH (fillfactor = 85);

-- For retention: days lie about in the order of time, so blocks tell enough.
CREATE INDEX event_days_day ON event_days USING brin (day) WITH (autosummarize = on);

-- {"<trait>": [value, time in microseconds, tie-break]}; what svc-profile decided goes above what events stated.
CREATE TABLE fragment_traits (
    fragment_id uuid PRIMARY KEY,
    traits jsonb NOT NULL,
    decided_traits jsonb,
    decided_revision bigint
) WITH (fillfactor = 85);

CREATE TABLE segments (
    segment_id text PRIMARY KEY,
    name text NOT NULL UNIQUE,
    description text NOT NULL,
    rule text NOT NULL,
    rule_version integer NOT NULL,
    evaluated_version integer NOT NULL,
    request_id text UNIQUE,
    created_time timestamptz NOT NULL,
    updated_time timestamptz NOT NULL
);

-- Grows by one with every change of any segment, so that each process knows when to read them again.
CREATE TABLE rule_set (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL
);
INSERT INTO rule_set (revision) VALUES (1);

CREATE TABLE memberships (
    segment_id text NOT NULL,
    profile_id uuid NOT NULL,
    revision bigint NOT NULL,
    rule_version integer NOT NULL,
    entered_time timestamptz NOT NULL,
    PRIMARY KEY (segment_id, profile_id)
);
CREATE INDEX memberships_profile_id ON memberships (profile_id);

CREATE TABLE membership_history (
    segment_id text NOT NULL,
    profile_id uuid NOT NULL,
    revision bigint NOT NULL,
    rule_version integer NOT NULL,
    member boolean NOT NULL,
    change_time timestamptz NOT NULL,
    PRIMARY KEY (segment_id, profile_id, revision)
);

-- Only one transaction at a time evaluates, so that numbers drawn here grow in the order of the changes.
CREATE SEQUENCE membership_revision CACHE 1;

-- Fragments that something happened to. No key: consumers must never wait for the evaluation that empties it.
CREATE TABLE changed_fragments (
    fragment_id uuid NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- When time alone may next change an answer about a profile.
CREATE TABLE due_profiles (
    profile_id uuid PRIMARY KEY,
    due_us bigint NOT NULL
);
CREATE INDEX due_profiles_due_us ON due_profiles (due_us);
"""

FUNCTIONS = (
    # Distinct values in the order of their JSON, as many as svc-profile keeps.
    """
    CREATE FUNCTION first_values(elements jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT jsonb_agg(element ORDER BY CAST(element AS text) COLLATE "C")
        FROM (
            SELECT element FROM jsonb_array_elements(elements) AS e (element)
            GROUP BY element ORDER BY CAST(element AS text) COLLATE "C" LIMIT 100
        ) first
    $$
    """,
    """
    CREATE FUNCTION newer_traits(old jsonb, new jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT old || coalesce(
            jsonb_object_agg(n.key, n.value) FILTER (
                WHERE NOT jsonb_exists(old, n.key)
                OR (CAST(n.value ->> 1 AS bigint), (n.value ->> 2) COLLATE "C")
                 > (CAST(old -> n.key ->> 1 AS bigint), (old -> n.key ->> 2) COLLATE "C")
            ),
            '{}'
        )
        FROM jsonb_each(new) n
    $$
    """,
    # Of two states of a trait the one with the greater order wins, as among statements; one that is null says nothing;
    # sums and unions are added up.
    """
    CREATE FUNCTION joined_traits(old jsonb, new jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT old || coalesce(
            jsonb_object_agg(n.key, CASE
                WHEN n.value ->> 3 = 'SUM' AND old -> n.key ->> 3 = 'SUM' THEN jsonb_build_array(
                    CAST(n.value ->> 0 AS numeric) + CAST(old -> n.key ->> 0 AS numeric),
                    n.value -> 1, n.value -> 2, 'SUM'
                )
                WHEN n.value ->> 3 = 'UNION' AND old -> n.key ->> 3 = 'UNION' THEN jsonb_build_array(
                    first_values((n.value -> 0) || (old -> n.key -> 0)), n.value -> 1, n.value -> 2, 'UNION'
                )
                ELSE n.value
            END) FILTER (
                WHERE jsonb_typeof(n.value) <> 'null' AND (
                    coalesce(jsonb_typeof(old -> n.key), 'null') = 'null'
                    OR n.value ->> 3 IN ('SUM', 'UNION')
                    OR (CAST(n.value ->> 1 AS bigint), (n.value ->> 2) COLLATE "C")
                     > (CAST(old -> n.key ->> 1 AS bigint), (old -> n.key ->> 2) COLLATE "C")
                )
            ),
            '{}'
        )
        FROM jsonb_each(new) n
    $$
    """,
    # A customer's traits out of those of all fragments; the traits of a single one pass untouched.
    """
    CREATE AGGREGATE merged_traits (jsonb) (sfunc = joined_traits, stype = jsonb, parallel = safe)
    """,
    # The first names in alphabetical order, so that a flood of names cannot grow a row; as svc-profile does.
    """
    CREATE FUNCTION first_traits(traits jsonb, most integer) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT CASE
            WHEN (SELECT count(*) FROM jsonb_object_keys(traits)) <= most THEN traits
            ELSE (
                SELECT jsonb_object_agg(key, value)
                FROM (SELECT * FROM jsonb_each(traits) ORDER BY key COLLATE "C" LIMIT most) first
            )
        END
    $$
    """,
    # Adds to a sum what no longer fits among the amounts that are kept apart.
    """
    CREATE FUNCTION folded_amounts(older jsonb, properties text[], amounts numeric[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT coalesce(jsonb_object_agg(property, total), '{}')
        FROM (
            SELECT property, sum(amount) AS total
            FROM (
                SELECT key AS property, CAST(value AS numeric) AS amount FROM jsonb_each(coalesce(older, '{}'))
                UNION ALL SELECT * FROM unnest(properties, amounts)
            ) every
            GROUP BY property
        ) totals
    $$
    """,
    """
    CREATE FUNCTION read_number(text) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT CASE WHEN $1 ~ '^[-+]?[0-9]{1,30}([.][0-9]{1,30})?$' THEN CAST($1 AS numeric) END
    $$
    """,
    # The pattern is the rule language's (svc_segmentation.domain.functions.TIME_FORMAT). Immutable, because a text
    # without an offset is given one.
    """
    CREATE FUNCTION read_time_us(text, pattern text) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        aware text := CASE WHEN $1 ~ ':[0-9]{2}:[0-9.]+$|^[-0-9]{10}$' THEN $1 || 'Z' ELSE $1 END;
    BEGIN
        IF $1 ~ pattern AND pg_input_is_valid(aware, 'timestamptz') THEN
            RETURN CAST(extract(epoch FROM CAST(aware AS timestamptz)) * 1000000 AS bigint);
        END IF;
        RETURN NULL;
    END
    $$
    """,
)


def upgrade() -> None:
    """Create everything."""
    for statement in (*TABLES.split(";\n"), *FUNCTIONS):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop everything."""
    op.execute("DROP AGGREGATE merged_traits (jsonb)")
    op.execute(
        "DROP FUNCTION read_time_us, read_number, folded_amounts, first_traits, newer_traits,"
        " joined_traits, first_values"
    )
    op.execute("DROP SEQUENCE membership_revision")
    op.execute(
        "DROP TABLE due_profiles, changed_fragments, membership_history, memberships, rule_set, segments,"
        " fragment_traits, event_days"
    )
