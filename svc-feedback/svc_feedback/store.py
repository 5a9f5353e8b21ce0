# SPDX-License-Identifier: Apache-2.0
"""Where feedback is kept."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from chassis.database import Transaction
from chassis.errors import NotFound
from chassis.privacy import PersonalTable, PersonalTables
from chassis.retention import CONCERNED, Due
from sqlalchemy import Row

from svc_feedback.domain.feedback import Choice, Draft, Feedback, Kept, Kind, Summary, event_of
from svc_feedback.domain.sentiment import Sentiment

_COLUMNS = """
feedback_id, request_id, f.fragment_id, kind, rating, text, item_id, language, sentiment_details, source,
feedback_time, received_time, coalesce(p.profile_id, f.fragment_id) AS profile_id
FROM feedback f LEFT JOIN fragment_profiles p USING (fragment_id)
"""

_PUT = """
INSERT INTO feedback (
    feedback_id, request_id, fragment_id, kind, rating, text, item_id, language, sentiment, sentiment_details,
    source, feedback_time, received_time
)
SELECT * FROM unnest(
    CAST(:feedback_ids AS text[]), CAST(:request_ids AS text[]), CAST(:fragment_ids AS uuid[]),
    CAST(:kinds AS smallint[]), CAST(:ratings AS smallint[]), CAST(:texts AS text[]), CAST(:item_ids AS text[]),
    CAST(:languages AS text[]), CAST(:sentiments AS smallint[]), CAST(CAST(:details AS text[]) AS jsonb[]),
    CAST(:sources AS text[]), CAST(:feedback_times AS timestamptz[]), CAST(:received_times AS timestamptz[])
)
ON CONFLICT (request_id) DO NOTHING
RETURNING feedback_id
"""

# A fragment without a row in fragment_profiles is its own profile, and may have others.
_PAGE = f"""
WITH customer AS (
    SELECT coalesce(
        (SELECT profile_id FROM fragment_profiles WHERE fragment_id = :fragment_id), CAST(:fragment_id AS uuid)
    ) AS profile_id
)
SELECT {_COLUMNS}
WHERE (CAST(:fragment_id AS uuid) IS NULL OR f.fragment_id = ANY (ARRAY(
        SELECT profile_id FROM customer
        UNION SELECT m.fragment_id FROM fragment_profiles m JOIN customer USING (profile_id)
    )))
    AND (:item_id = '' OR item_id = :item_id)
    AND (:kind = 0 OR kind = :kind)
    AND (:sentiment = 0 OR sentiment = :sentiment)
    AND (CAST(:before_time AS timestamptz) IS NULL OR (feedback_time, feedback_id) < (:before_time, :before_id))
ORDER BY feedback_time DESC, feedback_id DESC
LIMIT :limit
"""  # noqa: S608  the columns are ours

_SUMMARY = """
SELECT count(*) AS count,
    count(*) FILTER (WHERE sentiment = 1) AS negative_count,
    count(*) FILTER (WHERE sentiment = 2) AS neutral_count,
    count(*) FILTER (WHERE sentiment = 3) AS positive_count,
    count(rating) FILTER (WHERE kind = 1) AS rating_count,
    coalesce(sum(rating) FILTER (WHERE kind = 1), 0) AS rating_sum,
    count(*) FILTER (WHERE kind = 2 AND rating >= 9) AS promoter_count,
    count(*) FILTER (WHERE kind = 2 AND rating IN (7, 8)) AS passive_count,
    count(*) FILTER (WHERE kind = 2 AND rating <= 6) AS detractor_count
FROM feedback
WHERE (:item_id = '' OR item_id = :item_id)
    AND (CAST(:start_time AS timestamptz) IS NULL OR feedback_time >= :start_time)
    AND (CAST(:end_time AS timestamptz) IS NULL OR feedback_time < :end_time)
"""

# What is nobody's any more, and says nothing, has been anonymised; it is not found again.
_DUE = f"""
kind = ANY (CAST(:kinds AS smallint[]))
    AND feedback_time < timestamptz 'epoch' + CAST(:before_us AS bigint) * interval '1 microsecond'
    AND (NOT :anonymise OR fragment_id IS NOT NULL OR text <> '' OR request_id IS NOT NULL)
    AND {CONCERNED.format(fragment="feedback.fragment_id")}
"""

_DESTROY = f"""
DELETE FROM feedback WHERE feedback_id = ANY (ARRAY(
    SELECT feedback_id FROM feedback WHERE {_DUE} ORDER BY feedback_time, feedback_id LIMIT :most FOR UPDATE SKIP LOCKED
))
"""  # noqa: S608

# The words that decided the sentiment are the customer's.
_ANONYMISE = f"""
UPDATE feedback SET fragment_id = NULL, request_id = NULL, text = '', source = '',
    sentiment_details = CASE WHEN sentiment_details IS NULL THEN NULL
        ELSE jsonb_set(sentiment_details, '{{terms}}', '[]') END
WHERE feedback_id = ANY (ARRAY(
    SELECT feedback_id FROM feedback WHERE {_DUE} ORDER BY feedback_time, feedback_id LIMIT :most FOR UPDATE SKIP LOCKED
))
"""  # noqa: S608

PERSONAL_TABLES = PersonalTables([PersonalTable("feedback", left_out=("request_id",))])


class RetainedFeedback:
    """Feedback, as retention sees it: of an anonymised piece, rating, sentiment and item stay."""

    table = "feedback"

    async def count(self, tx: Transaction, due: Due) -> int:
        """Return how many pieces a rule would touch."""
        return int(await tx.value(f"SELECT count(*) FROM feedback WHERE {_DUE}", **_given(due)))  # noqa: S608

    async def enforce(self, tx: Transaction, due: Due, most: int) -> int:
        """Destroy or anonymise some pieces."""
        return await tx.execute(_ANONYMISE if due.rule.anonymise else _DESTROY, **_given(due), most=most)


def _given(due: Due) -> dict[str, Any]:
    return {
        "kinds": [int(kind) for kind in Kind if due.concerns(event_of(kind))],
        "before_us": due.before_us,
        "anonymise": due.rule.anonymise,
        "purpose": due.rule.purpose_id,
    }


class FeedbackStore:
    """Feedback of one database, inside one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def put(self, feedback: Sequence[Feedback]) -> set[str]:
        """Keep feedback whose request id is new; return the ids of what was kept."""
        rows = await self._tx.rows(
            _PUT,
            feedback_ids=[f.feedback_id for f in feedback],
            request_ids=[f.draft.request_id or None for f in feedback],
            fragment_ids=[f.draft.fragment_id for f in feedback],
            kinds=[int(f.draft.kind) for f in feedback],
            ratings=[f.draft.rating for f in feedback],
            texts=[f.draft.text for f in feedback],
            item_ids=[f.draft.item_id for f in feedback],
            languages=[f.language for f in feedback],
            sentiments=[int(f.sentiment.label) if f.sentiment else 0 for f in feedback],
            details=[json.dumps(f.sentiment.to_json(), ensure_ascii=False) if f.sentiment else None for f in feedback],
            sources=[f.draft.source for f in feedback],
            feedback_times=[f.draft.feedback_time for f in feedback],
            received_times=[f.received_time for f in feedback],
        )
        return {row.feedback_id for row in rows}

    async def find(self, feedback_id: str) -> Kept | None:
        """Return one piece, None when there is none."""
        row = await self._tx.row(f"SELECT {_COLUMNS} WHERE feedback_id = :id", id=feedback_id)
        return _kept(row) if row else None

    async def find_by_request(self, request_id: str) -> Kept | None:
        """Return what was kept for a request id, None when nothing was."""
        row = await self._tx.row(f"SELECT {_COLUMNS} WHERE request_id = :id", id=request_id)
        return _kept(row) if row else None

    async def get_by_request(self, request_id: str) -> Kept:
        """Return what was kept for a request id; raises `NotFound`."""
        found = await self.find_by_request(request_id)
        if found is None:
            raise NotFound("no feedback of this request id")
        return found

    async def of_requests(self, request_ids: Sequence[str]) -> list[Kept]:
        """Return what was kept for some request ids."""
        sql = f"SELECT {_COLUMNS} WHERE request_id = ANY (CAST(:ids AS text[])) ORDER BY request_id"
        return [_kept(row) for row in await self._tx.rows(sql, ids=list(request_ids))]

    async def page(self, choice: Choice, limit: int) -> Sequence[Kept]:
        """Return up to `limit` pieces, newest first."""
        rows = await self._tx.rows(_PAGE, limit=limit, **vars(choice))
        return [_kept(row) for row in rows]

    async def summary(self, item_id: str, start_time: datetime | None, end_time: datetime | None) -> Summary:
        """Count."""
        row = await self._tx.row(_SUMMARY, item_id=item_id, start_time=start_time, end_time=end_time)
        return Summary(**row._mapping) if row else Summary(0, 0, 0, 0, 0, 0, 0, 0, 0)


def _kept(row: Row[Any]) -> Kept:
    draft = Draft(
        kind=Kind(row.kind),
        fragment_id=row.fragment_id,
        rating=row.rating,
        text=row.text,
        item_id=row.item_id,
        feedback_time=row.feedback_time,
        source=row.source,
        request_id=row.request_id or "",
    )
    sentiment = Sentiment.from_json(row.sentiment_details) if row.sentiment_details else None
    feedback = Feedback(row.feedback_id, draft, row.language, sentiment, row.received_time)
    return feedback, row.profile_id
