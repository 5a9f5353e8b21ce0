# SPDX-License-Identifier: Apache-2.0
"""Settings, and what start-up does with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from gateway.settings import SERVICES, Settings
from gateway.transcode import contract
from gateway.transcode.calls import Services, service_config
from pydantic import ValidationError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_development_keys_are_for_loopback(host: str) -> None:
    assert Settings(local=True, host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "gateway.example", ""])
def test_development_keys_never_leave_the_machine(host: str) -> None:
    with pytest.raises(ValidationError, match="loopback"):
        Settings(local=True, host=host)


def test_without_development_keys_any_address_will_do() -> None:
    assert Settings(local=False, host="0.0.0.0").host == "0.0.0.0"


_READ = """
import json
from gateway.settings import SERVICES, Settings
s = Settings()
addresses = [s.address_of(name) for name in ("profile", "metrics", "recommend")]
print(json.dumps([s.port, s.event_shards, *addresses]))
"""


def test_settings_come_from_the_environment() -> None:
    environment = os.environ | {
        "DANGOL_GATEWAY_PORT": "8181",
        "DANGOL_PROFILE_PORT": "9999",
        "DANGOL_METRICS_ADDRESS": "dns:///metrics.dangol:9105",
        "DANGOL_EVENT_SHARDS": "16",
    }
    result = subprocess.run([sys.executable, "-c", _READ], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [8181, 16, "127.0.0.1:9999", "dns:///metrics.dangol:9105", "127.0.0.1:9103"]


def test_every_service_of_the_contract_has_an_address() -> None:
    methods = contract.load().methods
    assert all(Settings().address_of(name) for method in methods for name in method.served_by(SERVICES))
    Services(Settings(token_key="x" * 32), methods)


def test_only_what_may_be_called_twice_is_retried() -> None:
    methods = contract.load().methods
    (retried,) = json.loads(service_config(methods))["methodConfig"]
    names = {name["method"] for name in retried["name"]}
    assert {"GetProfile", "RecommendItems", "QueryKpis"} <= names
    assert not names & {"CreateSegment", "SubmitFeedback", "BatchUpsertItems", "DeleteSegment", "ReplayDeadLetters"}


def test_importing_opens_nothing_and_loads_no_database() -> None:
    script = (
        "import asyncio, pkgutil, socket, sys, threading\n"
        "socket.socket.connect = None\n"
        "import gateway\n"
        "for module in pkgutil.walk_packages(gateway.__path__, 'gateway.'):\n"
        "    if module.name != 'gateway.__main__':\n"
        "        __import__(module.name)\n"
        "assert threading.active_count() == 1\n"
        "assert 'sqlalchemy' not in sys.modules, 'the gateway has no database'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
