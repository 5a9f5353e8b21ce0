# SPDX-License-Identifier: Apache-2.0
"""The tables in ClickHouse, as numbered steps; a step that has run is never changed, a new one is added."""

# An acknowledged batch must outlive a power cut, hence fsync; a batch that comes again with the same token is dropped.
_DURABLE = "fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 10000"

_EVENTS = f"""
CREATE TABLE IF NOT EXISTS events (
    fragment_id UUID,
    event_time DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    event_id UUID MATERIALIZED reinterpretAsUUID(sipHash128(concat(source, '\\0', message_id))) CODEC(NONE),
    received_time DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    source LowCardinality(String),
    message_id String CODEC(ZSTD(1)),
    type Enum8('identify' = 1, 'track' = 2, 'page' = 3, 'screen' = 4, 'group' = 5, 'alias' = 6),
    name String CODEC(ZSTD(1)),
    counted_name LowCardinality(String),
    revenue Decimal(18, 4),
    currency LowCardinality(String),
    order_id String CODEC(ZSTD(1)),
    order_key String CODEC(ZSTD(1)),
    properties String CODEC(ZSTD(1)),
    context String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(received_time)
PARTITION BY toYYYYMM(event_time)
ORDER BY (fragment_id, event_time, event_id)
SETTINGS {_DURABLE}, min_age_to_force_merge_seconds = 3600, min_age_to_force_merge_on_partition_only = 1
"""

_FRAGMENT_PROFILES = f"""
CREATE TABLE IF NOT EXISTS fragment_profiles (
    fragment_id UUID,
    profile_id UUID,
    revision UInt64,
    INDEX by_profile profile_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY fragment_id
SETTINGS {_DURABLE}
"""

_SEGMENT_MEMBERS = f"""
CREATE TABLE IF NOT EXISTS segment_members (
    segment_id String,
    profile_id UUID,
    member Bool,
    revision UInt64
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (segment_id, profile_id)
SETTINGS {_DURABLE}
"""

# The name that a segment had at its latest change; deletion carries the highest version, so that nothing revives it.
_SEGMENTS = f"""
CREATE TABLE IF NOT EXISTS segments (
    segment_id String,
    name String,
    deleted Bool,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY segment_id
SETTINGS {_DURABLE}
"""

STEPS_TABLE = """
CREATE TABLE IF NOT EXISTS schema_steps (step UInt32, applied_time DateTime DEFAULT now('UTC'))
ENGINE = MergeTree ORDER BY step
"""

# True for events that are nobody's any more: their time was over.
_ANONYMOUS = "ALTER TABLE events ADD COLUMN IF NOT EXISTS anonymous Bool DEFAULT false"

STEPS: tuple[tuple[str, ...], ...] = ((_EVENTS, _FRAGMENT_PROFILES, _SEGMENT_MEMBERS, _SEGMENTS), (_ANONYMOUS,))
"""Statements of each step, in order; the first step has number 1."""
