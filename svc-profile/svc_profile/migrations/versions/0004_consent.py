# SPDX-License-Identifier: Apache-2.0
"""Purposes, notices and the consent ledger."""

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Kinds are numbers of dangol.options.v1.Purpose, legal bases of dangol.profile.v1.LegalBasis. Advertising needs
# explicit consent, to be given again every two years, and one of its own for the night (Korea's Network Act, Art. 50).
_PURPOSES = """
INSERT INTO purposes (
    purpose_id, display_name, kind, legal_basis, granted_by_default, expiry_months, minimum_age, revision
) VALUES
    ('analytics', 'Analytics', 1, 4, true, 0, 0, 0),
    ('personalization', 'Personalisation', 2, 4, true, 0, 0, 0),
    ('marketing_email', 'Advertising by e-mail', 3, 1, false, 24, 14, 0),
    ('marketing_sms', 'Advertising by SMS', 3, 1, false, 24, 14, 0),
    ('marketing_push', 'Advertising by push message', 3, 1, false, 24, 14, 0),
    ('marketing_kakao', 'Advertising by KakaoTalk', 3, 1, false, 24, 14, 0),
    ('night_marketing', 'Advertising between 21:00 and 08:00', 0, 1, false, 24, 14, 0),
    ('third_party', 'Passing data on to third parties', 0, 1, false, 0, 14, 0)
"""

# The chain shows every other change; this keeps anybody from making one by mistake.
_APPEND_ONLY = """
CREATE FUNCTION keep_consent_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.redaction_request_id <> '' AND NEW.salt IS NULL AND NEW.fragment_id IS NULL
        AND (NEW.sequence, NEW.recorded_us, NEW.row_hash, NEW.hash)
            = (OLD.sequence, OLD.recorded_us, OLD.row_hash, OLD.hash)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'rows of the consent ledger are never changed, only erased by request';
END
$$
"""
_GUARD = """
CREATE TRIGGER keep_consent_ledger BEFORE UPDATE OR DELETE ON consent_ledger
FOR EACH ROW EXECUTE FUNCTION keep_consent_ledger()
"""

_KOREAN = {
    "analytics": ("서비스 이용 분석", "서비스 개선을 위해 이용 기록을 분석합니다."),
    "personalization": ("맞춤 서비스", "이용 기록을 바탕으로 상품과 콘텐츠를 추천합니다."),
    "marketing_email": ("이메일 광고 수신 동의 (선택)", "혜택과 새 상품 소식을 이메일로 보내 드립니다."),
    "marketing_sms": ("문자 광고 수신 동의 (선택)", "혜택과 새 상품 소식을 문자로 보내 드립니다."),
    "marketing_push": ("앱 푸시 광고 수신 동의 (선택)", "혜택과 새 상품 소식을 앱 푸시로 보내 드립니다."),
    "marketing_kakao": ("카카오톡 광고 수신 동의 (선택)", "혜택과 새 상품 소식을 카카오톡으로 보내 드립니다."),
    "night_marketing": ("야간 광고 수신 동의 (선택)", "오후 9시부터 다음 날 오전 8시 사이에도 광고를 보내 드립니다."),
    "third_party": ("개인정보 제3자 제공 동의 (선택)", "개인정보를 제휴사에 제공합니다."),
}
_ENGLISH = {
    "analytics": "We analyse how our service is used in order to improve it.",
    "personalization": "We recommend products and content based on what you did here.",
    "marketing_email": "We send you offers and news by e-mail.",
    "marketing_sms": "We send you offers and news by SMS.",
    "marketing_push": "We send you offers and news as push messages.",
    "marketing_kakao": "We send you offers and news on KakaoTalk.",
    "night_marketing": "We also send advertising between 21:00 and 08:00.",
    "third_party": "We pass your personal data on to our partners.",
}
_KOREAN_RIGHT = {
    False: " 동의 후 2년간 보유·이용합니다. 동의하지 않아도 서비스를 이용할 수 있습니다.",
    True: " 언제든지 거부할 수 있습니다.",
}
_ENGLISH_RIGHT = {
    False: " We keep this for two years. You may refuse and still use the service.",
    True: " You may object at any time.",
}

_NOTICE = """
INSERT INTO purpose_notices (purpose_id, version, locale, title, body, effective_us)
SELECT purpose_id, 1, CAST(:locale AS text), coalesce(:title, display_name), CAST(:body AS text), 0
FROM purposes WHERE purpose_id = :purpose_id
"""


def upgrade() -> None:
    """Create the tables, and the purposes that everybody begins with."""
    op.execute("CREATE SEQUENCE consent_revisions")
    op.execute(
        """
        CREATE TABLE purposes (
            purpose_id text PRIMARY KEY,
            display_name text NOT NULL,
            kind smallint NOT NULL,
            legal_basis smallint NOT NULL,
            granted_by_default boolean NOT NULL,
            default_since_us bigint NOT NULL DEFAULT 0,
            expiry_months integer NOT NULL,
            minimum_age integer NOT NULL,
            categories text[] NOT NULL DEFAULT '{}',
            updated_time timestamptz NOT NULL DEFAULT now(),
            revision bigint NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE purpose_notices (
            purpose_id text NOT NULL REFERENCES purposes,
            version integer NOT NULL,
            locale text NOT NULL,
            title text NOT NULL,
            body text NOT NULL,
            effective_us bigint NOT NULL,
            PRIMARY KEY (purpose_id, version, locale)
        )
        """
    )
    op.execute(_PURPOSES)
    _write_notices()
    # A row whose content was erased has its hashes, the time of writing and the request that asked for it, and no more.
    op.execute(
        """
        CREATE TABLE consent_ledger (
            sequence bigint PRIMARY KEY,
            fragment_id uuid,
            purpose_id text,
            answer text,
            time_us bigint,
            received_time_us bigint,
            event_key uuid,
            device_id uuid,
            notice_version integer,
            locale text,
            channel text,
            actor text,
            source text,
            message_id text,
            reason text,
            recorded_us bigint NOT NULL,
            salt bytea,
            row_hash bytea NOT NULL,
            hash bytea NOT NULL,
            redaction_request_id text NOT NULL DEFAULT ''
        )
        """
    )
    op.execute(_APPEND_ONLY)
    op.execute(_GUARD)
    op.execute("CREATE UNIQUE INDEX consent_ledger_event ON consent_ledger (event_key, purpose_id)")
    op.execute("CREATE INDEX consent_ledger_fragment ON consent_ledger (fragment_id, sequence DESC)")
    op.execute(
        """
        CREATE TABLE consent_reports (
            fragment_id uuid NOT NULL,
            device_id uuid NOT NULL,
            purpose_id text NOT NULL,
            granted_us bigint[],
            refused_us bigint[],
            PRIMARY KEY (fragment_id, device_id, purpose_id)
        )
        """
    )
    # Whose state has to be worked out again. Only ever inserted into and deleted from, so that nobody waits for it.
    op.execute(
        """
        CREATE TABLE consent_due (
            due_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            fragment_id uuid NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE consent_expiries (
            fragment_id uuid NOT NULL,
            purpose_id text NOT NULL,
            expires_us bigint NOT NULL,
            announced boolean NOT NULL DEFAULT false,
            PRIMARY KEY (fragment_id, purpose_id)
        )
        """
    )
    op.execute("CREATE INDEX consent_expiries_expires ON consent_expiries (expires_us)")


def _write_notices() -> None:
    connection = op.get_bind()
    for purpose_id, (title, body) in _KOREAN.items():
        may_object = purpose_id in ("analytics", "personalization")
        for locale, heading, words in (
            ("ko", title, body + _KOREAN_RIGHT[may_object]),
            ("en", None, _ENGLISH[purpose_id] + _ENGLISH_RIGHT[may_object]),
        ):
            values = {"purpose_id": purpose_id, "locale": locale, "title": heading, "body": words}
            connection.execute(text(_NOTICE), values)


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE purpose_notices, purposes, consent_ledger, consent_reports, consent_due, consent_expiries")
    op.execute("DROP FUNCTION keep_consent_ledger")
    op.execute("DROP SEQUENCE consent_revisions")
