# SPDX-License-Identifier: Apache-2.0
"""How data at rest are encrypted."""

from chassis.database import Database
from chassis.encryption.columns import Columns
from chassis.encryption.vault import Vault
from dangol.profile.v1 import encryption_pb2 as pb
from dangol.profile.v1.encryption_pb2_grpc import EncryptionServiceServicer
from grpc.aio import ServicerContext


class EncryptionRpc(EncryptionServiceServicer):
    """Tells which keys are in use and how far rotation and sealing are."""

    def __init__(self, database: Database, vault: Vault, columns: Columns) -> None:
        self._database = database
        self._vault = vault
        self._columns = columns

    async def GetEncryptionStatus(
        self, request: pb.GetEncryptionStatusRequest, context: ServicerContext
    ) -> pb.GetEncryptionStatusResponse:
        """Answer with names and numbers only."""
        keys = self._vault.keys
        async with self._database.snapshot() as tx:
            counts = await self._vault.counts(tx)
            progress = await self._columns.progress(tx)
        return pb.GetEncryptionStatusResponse(
            enabled=bool(keys.current),
            current_key=keys.current,
            keys=[pb.EncryptionKey(name=name, data_key_count=counts.get(name, 0)) for name in keys.names],
            columns=[
                pb.EncryptedColumn(column=each.column, sealed_count=each.sealed_count, done=each.done)
                for each in progress
            ],
        )
