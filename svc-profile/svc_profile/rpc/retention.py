# SPDX-License-Identifier: Apache-2.0
"""Rules of retention."""

from chassis.clock import now, to_us
from chassis.database import Database
from chassis.ids import new_id
from dangol.profile.v1 import retention_pb2 as pb
from dangol.profile.v1.retention_pb2_grpc import RetentionServiceServicer
from grpc.aio import ServicerContext

from svc_profile.usecases import retention
from svc_profile.wire.retention import rule_from_proto, rule_to_proto, update_of


class RetentionRpc(RetentionServiceServicer):
    """Keeps the rules of retention."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def CreateRetentionRule(
        self, request: pb.CreateRetentionRuleRequest, context: ServicerContext
    ) -> pb.CreateRetentionRuleResponse:
        """Add a rule."""
        given = rule_from_proto(request.retention_rule, new_id("ret"), to_us(now()))
        async with self._database.transaction() as tx:
            rule = await retention.create_rule(tx, given)
        return pb.CreateRetentionRuleResponse(retention_rule=rule_to_proto(rule))

    async def GetRetentionRule(
        self, request: pb.GetRetentionRuleRequest, context: ServicerContext
    ) -> pb.GetRetentionRuleResponse:
        """Return one rule."""
        async with self._database.snapshot() as tx:
            rule = await retention.get_rule(tx, request.rule_id)
        return pb.GetRetentionRuleResponse(retention_rule=rule_to_proto(rule))

    async def ListRetentionRules(
        self, request: pb.ListRetentionRulesRequest, context: ServicerContext
    ) -> pb.ListRetentionRulesResponse:
        """Return all rules."""
        async with self._database.snapshot() as tx:
            rules = await retention.list_rules(tx)
        return pb.ListRetentionRulesResponse(retention_rules=[rule_to_proto(rule) for rule in rules])

    async def UpdateRetentionRule(
        self, request: pb.UpdateRetentionRuleRequest, context: ServicerContext
    ) -> pb.UpdateRetentionRuleResponse:
        """Change a rule."""
        now_us, fields = to_us(now()), update_of(request)
        given = rule_from_proto(request.retention_rule, request.retention_rule.rule_id, now_us)
        async with self._database.transaction() as tx:
            rule = await retention.update_rule(tx, given, fields, now_us)
        return pb.UpdateRetentionRuleResponse(retention_rule=rule_to_proto(rule))

    async def DeleteRetentionRule(
        self, request: pb.DeleteRetentionRuleRequest, context: ServicerContext
    ) -> pb.DeleteRetentionRuleResponse:
        """Remove a rule."""
        async with self._database.transaction() as tx:
            await retention.delete_rule(tx, request.rule_id)
        return pb.DeleteRetentionRuleResponse()
