# SPDX-License-Identifier: Apache-2.0
"""What the clock starts."""

from datetime import timedelta

from chassis.database import Database
from chassis.encryption.columns import Columns
from chassis.encryption.vault import Vault
from chassis.jobs import Job

from chassis import clock
from svc_profile.settings import Settings
from svc_profile.usecases.advancing import Advancing
from svc_profile.usecases.collecting import forget_keys
from svc_profile.usecases.expiring import announce_some, expire_some
from svc_profile.usecases.exporting import forget_exports
from svc_profile.usecases.holding import destroy_some
from svc_profile.usecases.importing import forget_imports
from svc_profile.usecases.indexing import seal_index
from svc_profile.usecases.personal_traits import announce_names_again
from svc_profile.usecases.rejected import forget_rejected
from svc_profile.usecases.retention import announce_again
from svc_profile.usecases.webhooks import forget_deliveries


class Forgetting:
    """Retention: each step is a transaction of its own, so that nobody waits long for one."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def forget_keys(self) -> None:
        """Forget events that no repetition can bring back any more, and the repetitions themselves."""
        more = True
        while more:
            async with self._database.transaction() as tx:
                more = await forget_keys(tx, self._settings.seen_days)

    async def forget_rejected(self) -> None:
        """Forget rejected events that are past their time."""
        before = clock.to_us(clock.now() - timedelta(days=self._settings.rejected_days))
        more = True
        while more:
            async with self._database.transaction() as tx:
                more = await forget_rejected(tx, before)

    async def seal_index(self) -> None:
        """Seal what customers are found by."""
        async with self._database.transaction() as tx:
            await seal_index(tx)

    async def destroy_held(self) -> None:
        """Destroy what no law demands any more."""
        more = True
        while more:
            async with self._database.transaction() as tx:
                more = await destroy_some(tx)

    async def forget_imports(self) -> None:
        """End uploads that were abandoned, and forget imports that are past their time."""
        now_us = clock.to_us(clock.now())
        days = self._settings.upload_days, self._settings.transfer_days
        async with self._database.transaction() as tx:
            await forget_imports(tx, now_us=now_us, upload_days=days[0], kept_days=days[1])

    async def forget_exports(self) -> None:
        """Delete files of exports whose time is over."""
        now_us = clock.to_us(clock.now())
        async with self._database.transaction() as tx:
            await forget_exports(tx, now_us=now_us, kept_days=self._settings.transfer_days)

    async def forget_webhooks(self) -> None:
        """Forget webhooks that are past their time."""
        before_us = clock.to_us(clock.now() - timedelta(days=self._settings.webhook_days))
        more = True
        while more:
            async with self._database.transaction() as tx:
                more = await forget_deliveries(tx, before_us=before_us)


class Expiring:
    """Consent that has to be given again: each step is a transaction of its own."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._notice = timedelta(days=settings.consent_notice_days)

    async def run(self) -> None:
        """Let grants end that are too old, then say which will end soon."""
        now, more = clock.now(), True
        while more:
            async with self._database.transaction() as tx:
                more = await expire_some(tx, clock.to_us(now))
        more = True
        while more:
            async with self._database.transaction() as tx:
                more = await announce_some(tx, clock.to_us(now), clock.to_us(now + self._notice))


class Announcing:
    """What every service has to know, said again for those that are new."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Announce the rules of retention, and which traits are personal."""
        async with self._database.transaction() as tx:
            await announce_again(tx)
        async with self._database.transaction() as tx:
            await announce_names_again(tx)


def jobs(
    database: Database, settings: Settings, advancing: Advancing, vault: Vault, columns: Columns
) -> tuple[Job, ...]:
    """Return the jobs of the service."""
    forgetting = Forgetting(database, settings)
    return (
        Job("expire-consents", timedelta(hours=1), Expiring(database, settings).run),
        Job("forget-event-keys", timedelta(hours=1), forgetting.forget_keys),
        Job("forget-rejected-events", timedelta(hours=1), forgetting.forget_rejected),
        Job("destroy-held-records", timedelta(hours=1), forgetting.destroy_held),
        Job("wrap-data-keys", timedelta(minutes=1), vault.rewrap),
        Job("seal-search-index", timedelta(minutes=1), forgetting.seal_index),
        Job("seal-columns", timedelta(minutes=1), columns.seal_all),
        Job("forget-imports", timedelta(hours=1), forgetting.forget_imports),
        Job("forget-exports", timedelta(minutes=10), forgetting.forget_exports),
        Job("forget-webhooks", timedelta(hours=1), forgetting.forget_webhooks),
        Job("announce-retention-rules", timedelta(days=1), Announcing(database).run),
        Job("data-requests", timedelta(seconds=0.5), advancing.run),
        Job("watch-data-requests", timedelta(minutes=5), advancing.watch),
        Job("forget-data-exports", timedelta(hours=1), advancing.expire),
    )
