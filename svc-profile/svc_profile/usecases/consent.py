# SPDX-License-Identifier: Apache-2.0
"""Write down what customers say, tell what it means, and prove it."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from chassis.database import Transaction
from chassis.errors import FailedPrecondition, Invalid, NotFound

from svc_profile.domain.consent import RESTRICTION, Answer, Join
from svc_profile.domain.events import FragmentKey, Name
from svc_profile.domain.fragments import Fragment
from svc_profile.domain.ledger import FIRST_HASH, Record, Row, Verdict, verify
from svc_profile.domain.profiles import KnownAs
from svc_profile.domain.purposes import (
    AGE_TRAITS,
    MINIMUM_AGE,
    Consent,
    Purpose,
    is_restricted,
    is_too_young,
    judge_all,
)
from svc_profile.store.consents import ConsentStore
from svc_profile.store.folding import FoldStore
from svc_profile.store.ledger import LedgerStore
from svc_profile.store.members import find_members
from svc_profile.store.search import SearchStore
from svc_profile.store.suppressions import SuppressionStore
from svc_profile.usecases.settling import lock_customers, settle
from svc_profile.usecases.situations import Situation, read_situation

_VERIFIED_AT_ONCE = 5_000


@dataclass(frozen=True)
class Decision:
    """What was said about one purpose."""

    purpose_id: str
    answer: Answer
    notice_version: int = 0
    locale: str = ""


@dataclass(frozen=True)
class Call:
    """Who says that a customer said something, where and when."""

    caller: str
    request_id: str
    channel: str
    actor: str
    time_us: int
    now_us: int

    @property
    def event_key(self) -> bytes:
        """Name the call, so that it writes once."""
        if not self.request_id:
            return os.urandom(16)
        return blake2b(f"consent\x00{self.caller}\x00{self.request_id}".encode(), digest_size=16).digest()


@dataclass(frozen=True)
class CustomerConsents:
    """What one customer consents to, and what that rests on."""

    profile: FragmentKey
    consents: Sequence[Consent]
    restricted: bool
    rows: Mapping[int, Row]
    """The rows that decide, by place."""
    known_as: Mapping[FragmentKey, KnownAs]
    """The names under which it was said."""


async def record_consent(
    tx: Transaction, fragment: FragmentKey, name: Name | None, decisions: Sequence[Decision], call: Call
) -> tuple[list[Row], CustomerConsents]:
    """Write what a customer said into the ledger; it holds when this returns.

    Somebody nobody has heard of becomes known by the `name`.
    """
    await _make_known(tx, fragment, name, call.now_us)
    customers = await lock_customers(tx, [fragment])
    (profile,) = customers
    situation = await read_situation(tx, customers)
    records = _records(fragment, decisions, call, situation, profile)
    ledger = LedgerStore(tx)
    written = await ledger.append(records, call.now_us)
    _check_repeated(written, decisions, customers[profile])
    situation = await settle(tx, customers, call.now_us)
    rows = await ledger.with_hashes([record.sequence for record in written])
    consents = await _told(tx, situation, profile, call.now_us)
    return [rows[record.sequence] for record in written], consents


async def _make_known(tx: Transaction, fragment: FragmentKey, name: Name | None, now_us: int) -> None:
    if await find_members(tx, fragment) is not None:
        return
    if name is None:
        raise NotFound("nobody is known by this reference")
    if await SuppressionStore(tx).suppressed([fragment]):
        raise FailedPrecondition("the customer was erased and has not come back", reason="SUPPRESSED")
    await FoldStore(tx).fold({fragment: Fragment(name, now_us, now_us)})
    await SearchStore(tx).queue([(fragment, None)])


def _records(
    fragment: FragmentKey, decisions: Sequence[Decision], call: Call, situation: Situation, profile: FragmentKey
) -> list[Record]:
    purposes = {purpose.purpose_id: purpose for purpose in situation.purposes}
    _check(decisions, purposes)
    born, key = situation.born(profile), call.event_key
    records = []
    for decision in decisions:
        is_young = decision.answer is Answer.GRANTED and is_too_young(purposes[decision.purpose_id], born, call.time_us)
        records.append(
            Record(
                fragment=fragment,
                purpose_id=decision.purpose_id,
                answer=Answer.DENIED if is_young else decision.answer,
                time_us=call.time_us,
                received_time_us=call.now_us,
                event_key=key,
                notice_version=decision.notice_version,
                locale=decision.locale,
                channel=call.channel,
                actor=call.actor,
                source=call.caller,
                message_id=call.request_id,
                reason=MINIMUM_AGE if is_young else "",
            )
        )
    return records


def _check(decisions: Sequence[Decision], purposes: Mapping[str, Purpose]) -> None:
    seen = set()
    for place, decision in enumerate(decisions):
        field, purpose = f"decisions[{place}]", purposes.get(decision.purpose_id)
        if purpose is None:
            raise Invalid.field(f"{field}.purpose_id", "names no purpose of the catalogue")
        if decision.purpose_id in seen:
            raise Invalid.field(f"{field}.purpose_id", "a purpose may come once")
        seen.add(decision.purpose_id)
        notices = [notice for notice in purpose.notices if notice.version == decision.notice_version]
        if decision.notice_version and not notices:
            raise Invalid.field(f"{field}.notice_version", "names no notice of the purpose")
        if decision.notice_version and decision.locale and decision.locale not in {each.locale for each in notices}:
            raise Invalid.field(f"{field}.locale", "names no language of the notice")


def _check_repeated(
    written: Sequence[Record], decisions: Sequence[Decision], fragments: Collection[FragmentKey]
) -> None:
    """Raise `Invalid` when a row of an earlier call says something else, or is about somebody else."""
    for record, decision in zip(written, decisions, strict=True):
        said = Answer.GRANTED if record.reason == MINIMUM_AGE else record.answer
        if record.fragment not in fragments or said is not decision.answer:
            raise Invalid.field("request_id", "was used for another answer, or another customer")


async def get_consents(tx: Transaction, fragment: FragmentKey, now_us: int) -> CustomerConsents:
    """Say what a customer consents to now, and why."""
    members = await find_members(tx, fragment)
    if members is None:
        raise NotFound("nobody is known by this reference")
    situation = await read_situation(tx, {members.profile: members.fragments})
    return await _told(tx, situation, members.profile, now_us)


async def _told(tx: Transaction, situation: Situation, profile: FragmentKey, now_us: int) -> CustomerConsents:
    answers = situation.answers()[profile]
    consents = judge_all(situation.purposes, answers, situation.born(profile), now_us)
    entries = [consent.entry for consent in consents if consent.entry is not None]
    return CustomerConsents(
        profile=profile,
        consents=consents,
        restricted=is_restricted(answers),
        rows=await LedgerStore(tx).with_hashes({entry.sequence for entry in entries}),
        known_as=await ConsentStore(tx).names({entry.fragment for entry in entries}),
    )


async def list_records(
    tx: Transaction, fragment: FragmentKey, *, purpose_id: str, before: int | None, most: int
) -> tuple[list[Row], Mapping[FragmentKey, KnownAs]]:
    """Return what a customer said, newest row first, and the names under which it was said."""
    members = await find_members(tx, fragment)
    if members is None:
        raise NotFound("nobody is known by this reference")
    rows = await LedgerStore(tx).page(members.fragments, purpose_id=purpose_id, before=before, most=most)
    names = {row.record.fragment for row in rows if row.record is not None}
    return rows, await ConsentStore(tx).names(names)


async def verify_ledger(tx: Transaction, after: int) -> Verdict:
    """Recompute the chain after a row, page by page, until its end or the first row that does not fit."""
    ledger = LedgerStore(tx)
    start = await ledger.hash_at(after) if after else FIRST_HASH
    if start is None:
        raise NotFound("there is no such record", metadata={"sequence": str(after)})
    verdict, sequence = Verdict(True, 0, 0, start), after
    while rows := await ledger.next_rows(sequence, _VERIFIED_AT_ONCE):
        verdict = verify(rows, verdict, sequence + 1)
        if not verdict.valid:
            break
        sequence = rows[-1].sequence
    return verdict


async def consents_of(tx: Transaction, fragments: Sequence[Fragment], now_us: int) -> list[Consent]:
    """Say what a customer consents to now, given all of its fragments."""
    ages = {each.name.fragment: {n: each.traits[n] for n in AGE_TRAITS if n in each.traits} for each in fragments}
    customer = fragments[0].name.fragment
    situation = await read_situation(tx, {customer: list(ages)}, ages=ages)
    return judge_all(situation.purposes, situation.answers()[customer], situation.born(customer), now_us)


async def consents_if_one(
    tx: Transaction, fragments: Sequence[FragmentKey], now_us: int, *, joined_us: int | None = None
) -> list[Consent]:
    """Say what would hold if some fragments made up one customer, joined at a time where nothing joins them yet.

    For a dry run: of a merge with `joined_us`, of one side of a split without.
    """
    situation = await read_situation(tx, {fragments[0]: fragments})
    if joined_us is not None:
        joins = [Join(fragments[0], fragment, joined_us) for fragment in fragments[1:]]
        situation = Situation(
            situation.customers, situation.purposes, [*situation.joins, *joins], situation.entries, situation.ages
        )
    answers = situation.answers()[fragments[0]]
    return judge_all(situation.purposes, answers, situation.born(fragments[0]), now_us)


async def restrict(tx: Transaction, fragment: FragmentKey, *, is_restricted: bool, call: Call) -> None:
    """Restrict the processing of a customer's data to what serves the customer, or lift that."""
    customers = await lock_customers(tx, [fragment])
    record = Record(
        fragment=fragment,
        purpose_id=RESTRICTION,
        answer=Answer.WITHDRAWN if is_restricted else Answer.GRANTED,
        time_us=call.time_us,
        received_time_us=call.now_us,
        event_key=call.event_key,
        channel=call.channel,
        actor=call.actor,
        source=call.caller,
        message_id=call.request_id,
    )
    await LedgerStore(tx).append([record], call.now_us)
    await settle(tx, customers, call.now_us)
