# SPDX-License-Identifier: Apache-2.0
"""What is known of customers: definitions of traits, their history, computed traits."""

from collections.abc import Sequence
from typing import Any

from chassis.clock import now, to_timestamp, to_us
from chassis.database import Database, Transaction
from chassis.identity import IdentityKey
from dangol.profile.v1 import traits_pb2 as pb
from dangol.profile.v1.traits_pb2_grpc import TraitServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.domain.events import FragmentKey
from svc_profile.usecases import computed, trait_definitions
from svc_profile.usecases.deriving import derivation_progress
from svc_profile.usecases.profiles import fragments_of
from svc_profile.usecases.trait_statements import trait_history
from svc_profile.wire import traits as wire
from svc_profile.wire.values import fill_struct


class TraitRpc(TraitServiceServicer):
    """Keeps definitions of traits and computed traits, and tells how traits came to their values."""

    def __init__(self, database: Database, key: IdentityKey) -> None:
        self._database = database
        self._key = key

    async def CreateTraitDefinition(
        self, request: pb.CreateTraitDefinitionRequest, context: ServicerContext
    ) -> pb.CreateTraitDefinitionResponse:
        """Define a trait."""
        wanted = wire.definition_from_proto(request.trait_definition)
        async with self._database.transaction() as tx:
            saved = await trait_definitions.create_definition(tx, wanted, to_us(now()))
        return pb.CreateTraitDefinitionResponse(trait_definition=wire.definition_to_proto(saved))

    async def GetTraitDefinition(
        self, request: pb.GetTraitDefinitionRequest, context: ServicerContext
    ) -> pb.GetTraitDefinitionResponse:
        """Return one definition."""
        async with self._database.snapshot() as tx:
            schema = await trait_definitions.read_schema(tx)
        definition = trait_definitions.definition_of(schema, request.name)
        return pb.GetTraitDefinitionResponse(trait_definition=wire.definition_to_proto(definition))

    async def ListTraitDefinitions(
        self, request: pb.ListTraitDefinitionsRequest, context: ServicerContext
    ) -> pb.ListTraitDefinitionsResponse:
        """Return definitions by name."""
        after = wire.name_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            schema = await trait_definitions.read_schema(tx)
        names, more = wire.page_after(list(schema.definitions), after, pages.page_size(request.page_size))
        return pb.ListTraitDefinitionsResponse(
            trait_definitions=[wire.definition_to_proto(schema.definitions[name]) for name in names],
            next_page_token=pages.encode_token({"name": names[-1]}) if more else "",
        )

    async def UpdateTraitDefinition(
        self, request: pb.UpdateTraitDefinitionRequest, context: ServicerContext
    ) -> pb.UpdateTraitDefinitionResponse:
        """Change a definition."""
        change = wire.changing_definition(request)
        async with self._database.transaction() as tx:
            saved = await trait_definitions.update_definition(tx, request.trait_definition.name, change, to_us(now()))
        return pb.UpdateTraitDefinitionResponse(trait_definition=wire.definition_to_proto(saved))

    async def DeleteTraitDefinition(
        self, request: pb.DeleteTraitDefinitionRequest, context: ServicerContext
    ) -> pb.DeleteTraitDefinitionResponse:
        """Forget a definition."""
        async with self._database.transaction() as tx:
            await trait_definitions.delete_definition(tx, request.name)
        return pb.DeleteTraitDefinitionResponse()

    async def GetTraitDerivation(
        self, request: pb.GetTraitDerivationRequest, context: ServicerContext
    ) -> pb.GetTraitDerivationResponse:
        """Tell how far traits have been derived again."""
        async with self._database.snapshot() as tx:
            progress = await derivation_progress(tx)
        return pb.GetTraitDerivationResponse(
            running=progress.running,
            done_count=progress.done,
            total_count=progress.total,
            started_time=to_timestamp(progress.started_time) if progress.started_time else None,
            finished_time=to_timestamp(progress.finished_time) if progress.finished_time else None,
        )

    async def ListTraitHistory(
        self, request: pb.ListTraitHistoryRequest, context: ServicerContext
    ) -> pb.ListTraitHistoryResponse:
        """Tell how one customer's traits came to their values."""
        size = pages.page_size(request.page_size)
        before = wire.change_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            changes = await trait_history(tx, await self._fragments(tx, request.profile), request.trait)
        left = changes if before is None else [change for change in changes if change.position < before]
        page = left[:size]
        return pb.ListTraitHistoryResponse(
            changes=[wire.change_to_proto(change) for change in page],
            next_page_token=pages.encode_token(wire.position_of_change(page[-1])) if len(left) > size else "",
        )

    async def CreateComputedTrait(
        self, request: pb.CreateComputedTraitRequest, context: ServicerContext
    ) -> pb.CreateComputedTraitResponse:
        """Declare a computed trait."""
        wanted = wire.computed_from_proto(request.computed_trait)
        async with self._database.transaction() as tx:
            saved = await trait_definitions.create_computed(tx, wanted, to_us(now()))
        return pb.CreateComputedTraitResponse(computed_trait=wire.computed_to_proto(saved))

    async def GetComputedTrait(
        self, request: pb.GetComputedTraitRequest, context: ServicerContext
    ) -> pb.GetComputedTraitResponse:
        """Return one declaration."""
        async with self._database.snapshot() as tx:
            schema = await trait_definitions.read_schema(tx)
        trait = trait_definitions.computed_of(schema, request.name)
        return pb.GetComputedTraitResponse(computed_trait=wire.computed_to_proto(trait))

    async def ListComputedTraits(
        self, request: pb.ListComputedTraitsRequest, context: ServicerContext
    ) -> pb.ListComputedTraitsResponse:
        """Return declarations by name."""
        after = wire.name_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            schema = await trait_definitions.read_schema(tx)
        by_name = {trait.name: trait for trait in schema.computed}
        names, more = wire.page_after(list(by_name), after, pages.page_size(request.page_size))
        return pb.ListComputedTraitsResponse(
            computed_traits=[wire.computed_to_proto(by_name[name]) for name in names],
            next_page_token=pages.encode_token({"name": names[-1]}) if more else "",
        )

    async def UpdateComputedTrait(
        self, request: pb.UpdateComputedTraitRequest, context: ServicerContext
    ) -> pb.UpdateComputedTraitResponse:
        """Change a declaration."""
        change = wire.changing_computed(request)
        async with self._database.transaction() as tx:
            saved = await trait_definitions.update_computed(tx, request.computed_trait.name, change, to_us(now()))
        return pb.UpdateComputedTraitResponse(computed_trait=wire.computed_to_proto(saved))

    async def DeleteComputedTrait(
        self, request: pb.DeleteComputedTraitRequest, context: ServicerContext
    ) -> pb.DeleteComputedTraitResponse:
        """Forget a declaration."""
        async with self._database.transaction() as tx:
            await trait_definitions.delete_computed(tx, request.name)
        return pb.DeleteComputedTraitResponse()

    async def GetProfileComputedTraits(
        self, request: pb.GetProfileComputedTraitsRequest, context: ServicerContext
    ) -> pb.GetProfileComputedTraitsResponse:
        """Return the computed traits of one customer."""
        async with self._database.snapshot() as tx:
            fragments = await self._fragments(tx, request.profile)
            values = await computed.computed_traits(tx, fragments, to_us(now()))
        answer = pb.GetProfileComputedTraitsResponse()
        fill_struct(answer.computed_traits, values)
        return answer

    async def PreviewComputedTrait(
        self, request: pb.PreviewComputedTraitRequest, context: ServicerContext
    ) -> pb.PreviewComputedTraitResponse:
        """Return what a computed trait would be for one customer."""
        trait = wire.computed_from_proto(request.computed_trait)
        trait.check()
        async with self._database.snapshot() as tx:
            fragments = await self._fragments(tx, request.profile)
            values: dict[str, Any] = await computed.compute(tx, fragments, [trait], to_us(now()))
        value = values.get(trait.name)
        return pb.PreviewComputedTraitResponse(value=None if value is None else wire.value_to_proto(value))

    async def _fragments(self, tx: Transaction, profile: str) -> Sequence[FragmentKey]:
        return await fragments_of(tx, self._key.resolve(profile).bytes)
