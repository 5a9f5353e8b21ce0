# SPDX-License-Identifier: Apache-2.0
"""The command line of a service: `python -m svc_x <role>`."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import uvloop
from pydantic import ValidationError

from chassis import dead_letters, telemetry
from chassis.bus import Bus
from chassis.garbage import collect_less
from chassis.migrations import migrate
from chassis.service import ROLES, Runner, Service
from chassis.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)

log = logging.getLogger(__name__)


def main(settings_class: type[S], build: Callable[[S], Service]) -> None:
    """Read the settings, build the service and run the role that the command line names."""
    arguments = _parser(settings_class.service).parse_args()
    try:
        settings = settings_class()
        service = build(settings)
    except (ValidationError, ValueError) as error:
        sys.exit(f"{settings_class.service}: the settings are not usable\n{error}")
    port = settings.prometheus_port if arguments.role in (*ROLES, "all") else 0
    telemetry.configure(service.name, settings.log_level, port)
    if arguments.role == "migrate":
        uvloop.run(_migrate(service))
    elif arguments.role == "dead-letters":
        uvloop.run(_dead_letters(service, arguments))
    else:
        roles = ROLES if arguments.role == "all" else (arguments.role,)
        uvloop.run(_serve(service, roles))


def _parser(service: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m svc_{service}")
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("all", help="rpc, consumers and jobs in one process")
    roles.add_parser("rpc", help="answer gRPC calls")
    roles.add_parser("consumers", help="handle what the streams bring")
    roles.add_parser("jobs", help="run what the clock starts")
    roles.add_parser("migrate", help="bring the database to the newest schema, then end")
    letters = roles.add_parser("dead-letters", help="list or replay what consumers gave up on")
    actions = letters.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list")
    listing.add_argument("--consumer", default="")
    listing.add_argument("--after", type=int, default=0)
    listing.add_argument("--limit", type=int, default=100)
    actions.add_parser("replay").add_argument("ids", type=int, nargs="+")
    return parser


async def _serve(service: Service, roles: tuple[str, ...]) -> None:
    collect_less()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    runner = Runner(service, roles)
    starting = asyncio.create_task(runner.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        log.info("started: %s", ", ".join(roles))
        await stopping
    else:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    log.info("stopping")
    await runner.stop()


async def _migrate(service: Service) -> None:
    try:
        await migrate(service.database, service.migrations)
    finally:
        await service.database.close()


async def _dead_letters(service: Service, arguments: argparse.Namespace) -> None:
    bus: Bus = service.bus
    await bus.open()
    try:
        if arguments.action == "replay":
            count = await dead_letters.replay(bus, arguments.ids)
            sys.stdout.write(f"replayed {count}\n")
            return
        for letter in await dead_letters.list_dead_letters(
            bus, consumer=arguments.consumer, after=arguments.after, limit=arguments.limit
        ):
            sys.stdout.write(
                f"{letter.dead_letter_id}\t{letter.consumer}\t{letter.subject}\t{letter.message_id}\t"
                f"{letter.deliveries}\t{letter.buried_time.isoformat()}\t{letter.error}\n"
            )
    finally:
        await bus.close()
