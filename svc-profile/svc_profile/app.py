# SPDX-License-Identifier: Apache-2.0
"""The one place where svc-profile is put together."""

from datetime import timedelta
from pathlib import Path

from chassis.bus import Bus
from chassis.database import Database
from chassis.encryption.columns import Columns
from chassis.encryption.vault import Vault
from chassis.keys import Keyring
from chassis.rpc import Servicer
from chassis.service import Service, Worker
from dangol.profile.v1.agent_pb2_grpc import add_AgentServiceServicer_to_server
from dangol.profile.v1.consent_pb2_grpc import add_ConsentServiceServicer_to_server
from dangol.profile.v1.encryption_pb2_grpc import add_EncryptionServiceServicer_to_server
from dangol.profile.v1.groups_pb2_grpc import add_GroupServiceServicer_to_server
from dangol.profile.v1.identity_pb2_grpc import add_IdentityServiceServicer_to_server
from dangol.profile.v1.ingest_pb2_grpc import add_IngestServiceServicer_to_server
from dangol.profile.v1.legal_hold_pb2_grpc import add_LegalHoldServiceServicer_to_server
from dangol.profile.v1.privacy_pb2_grpc import add_PrivacyServiceServicer_to_server
from dangol.profile.v1.profile_pb2_grpc import add_ProfileServiceServicer_to_server
from dangol.profile.v1.retention_pb2_grpc import add_RetentionServiceServicer_to_server
from dangol.profile.v1.traits_pb2_grpc import add_TraitServiceServicer_to_server
from dangol.profile.v1.transfer_pb2_grpc import add_ExportServiceServicer_to_server, add_ImportServiceServicer_to_server
from dangol.profile.v1.webhooks_pb2_grpc import add_WebhookServiceServicer_to_server

from svc_profile.clients import WebhookClient
from svc_profile.consumers import Collecting, subscriptions
from svc_profile.domain.certificates import Signer
from svc_profile.domain.data_requests import Regime
from svc_profile.domain.events import Namer
from svc_profile.jobs import jobs
from svc_profile.rpc.agent import AgentRpc
from svc_profile.rpc.consent import ConsentRpc
from svc_profile.rpc.encryption import EncryptionRpc
from svc_profile.rpc.exports import ExportRpc
from svc_profile.rpc.groups import GroupRpc
from svc_profile.rpc.identity import IdentityRpc
from svc_profile.rpc.imports import ImportRpc
from svc_profile.rpc.ingest import IngestRpc
from svc_profile.rpc.legal_hold import LegalHoldRpc
from svc_profile.rpc.privacy import PrivacyRpc
from svc_profile.rpc.profiles import ProfileRpc
from svc_profile.rpc.retention import RetentionRpc
from svc_profile.rpc.tracing import ProfileTrace
from svc_profile.rpc.traits import TraitRpc
from svc_profile.rpc.webhooks import WebhookRpc
from svc_profile.settings import Settings
from svc_profile.store.personal import personal_tables
from svc_profile.store.personal_apart import Bodies, Purposes
from svc_profile.store.sealed import COLUMNS
from svc_profile.usecases.advancing import Advancing
from svc_profile.usecases.erasing import Surroundings
from svc_profile.usecases.holding import HeldEvents
from svc_profile.usecases.personal_traits import DefinedPersonalTraits
from svc_profile.usecases.retaining import RetainedEvents
from svc_profile.usecases.schemas import SchemaBook
from svc_profile.workers.delivering import DeliveryWorker
from svc_profile.workers.deriving import DerivingWorker
from svc_profile.workers.exporting import ExportWorker
from svc_profile.workers.importing import ImportWorker
from svc_profile.workers.indexing import IndexingWorker
from svc_profile.workers.settling import Settler


def build(settings: Settings) -> Service:
    """Put the service together; nothing is opened yet."""
    database = Database(settings)
    vault, columns = Vault(database, settings.keys_at_rest()), Columns(database, COLUMNS)
    bus = Bus(settings, "svc-profile")
    key = settings.identity()
    namer = Namer(key)
    book = SchemaBook(database)
    collecting = Collecting(namer, book, settings.counted_properties)
    personal_traits = DefinedPersonalTraits(database)
    keys = Keyring.from_settings(settings.api_keys, local=settings.local)
    webhook_key, nets = settings.webhook_key(), settings.webhook_nets()
    client = WebhookClient(timeout_seconds=settings.webhook_timeout_seconds, allowed=nets)
    signer, services = Signer(settings.signing_key_bytes()), settings.personal_services
    surroundings = Surroundings(database, bus, key, signer, services)
    return Service(
        settings=settings,
        bus=bus,
        database=database,
        migrations=Path(__file__).parent / "migrations",
        servicers=[
            Servicer(
                "dangol.profile.v1.AgentService",
                add_AgentServiceServicer_to_server,
                AgentRpc(database, key),
            ),
            Servicer(
                "dangol.profile.v1.ProfileService",
                add_ProfileServiceServicer_to_server,
                ProfileRpc(database, key),
            ),
            Servicer(
                "dangol.profile.v1.ConsentService",
                add_ConsentServiceServicer_to_server,
                ConsentRpc(database, key),
            ),
            Servicer(
                "dangol.profile.v1.IdentityService",
                add_IdentityServiceServicer_to_server,
                IdentityRpc(database, key, settings.max_merge_fragments),
            ),
            Servicer(
                "dangol.profile.v1.PrivacyService",
                add_PrivacyServiceServicer_to_server,
                PrivacyRpc(database, key, signer, services, Regime[settings.privacy_regime]),
            ),
            Servicer(
                "dangol.profile.v1.RetentionService",
                add_RetentionServiceServicer_to_server,
                RetentionRpc(database),
            ),
            Servicer(
                "dangol.profile.v1.EncryptionService",
                add_EncryptionServiceServicer_to_server,
                EncryptionRpc(database, vault, columns),
            ),
            Servicer(
                "dangol.profile.v1.LegalHoldService",
                add_LegalHoldServiceServicer_to_server,
                LegalHoldRpc(database),
            ),
            Servicer(
                "dangol.profile.v1.IngestService",
                add_IngestServiceServicer_to_server,
                IngestRpc(database, book),
            ),
            Servicer(
                "dangol.profile.v1.ImportService",
                add_ImportServiceServicer_to_server,
                ImportRpc(database),
            ),
            Servicer(
                "dangol.profile.v1.GroupService",
                add_GroupServiceServicer_to_server,
                GroupRpc(database, key),
            ),
            Servicer(
                "dangol.profile.v1.TraitService",
                add_TraitServiceServicer_to_server,
                TraitRpc(database, key),
            ),
            Servicer(
                "dangol.profile.v1.ExportService",
                add_ExportServiceServicer_to_server,
                ExportRpc(database, key, timedelta(hours=settings.export_hours)),
            ),
            Servicer(
                "dangol.profile.v1.WebhookService",
                add_WebhookServiceServicer_to_server,
                WebhookRpc(database, webhook_key, nets),
            ),
        ],
        subscriptions=subscriptions(collecting, settings.batch_messages),
        jobs=jobs(database, settings, Advancing(surroundings, settings.export_days), vault, columns),
        workers=[
            Worker("event-schemas", book.run),
            Worker("personal-traits", personal_traits.run, role="rpc"),
            Worker("trait-derivation", DerivingWorker(database).run, role="jobs"),
            Worker("imports", ImportWorker(database, bus, collecting.learn, settings, namer).run, role="jobs"),
            Worker("consents", Settler(database, namer, settings.counted_properties).run),
            Worker("search-index", IndexingWorker(database).run),
            Worker("exports", ExportWorker(database, settings, key.types).run, role="jobs"),
            Worker("webhooks", DeliveryWorker(database, client, webhook_key, settings.webhook_retry_seconds).run),
        ],
        resources=[vault, book, personal_traits],
        personal_traits=personal_traits.names,
        personal=[Bodies(), HeldEvents(settings.holds()), personal_tables(), columns, Purposes()],
        retained=[RetainedEvents(settings.anonymous_properties, settings.holds())],
        trace=ProfileTrace(database, namer, {each.id for each in keys.keys}),
    )
