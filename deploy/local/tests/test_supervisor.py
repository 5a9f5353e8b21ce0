# SPDX-License-Identifier: Apache-2.0
"""The supervisor starts a platform, keeps it running, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from chassis.engines import FolderBusy, free_ports, require_free_port

from deploy.local import status
from deploy.local.process import StartFailed
from deploy.local.settings import LocalSettings
from deploy.local.supervisor import StopRequested, Supervisor
from deploy.local.tests.fake_platform import program


def settings_on(folder: Path) -> LocalSettings:
    return LocalSettings(
        home=folder / "단골 data",
        postgres_url="postgresql://postgres@database.example",
        nats_url="nats://broker.example",
        environment=dict(os.environ) | {"DANGOL_IDENTITY_KEY": ""},
    )


def with_engines(settings: LocalSettings) -> LocalSettings:
    postgres_port, nats_port = free_ports(2)
    return dataclasses.replace(
        settings,
        postgres_url=None,
        nats_url=None,
        postgres_port=postgres_port,
        nats_port=nats_port,
        throwaway=True,
    )


@pytest.fixture
def settings(tmp_path: Path) -> LocalSettings:
    """A platform without embedded engines, for what does not need them."""
    return settings_on(tmp_path)


@pytest.fixture(scope="module")
def remarks() -> list[str]:
    """What a supervisor says to the terminal."""
    return []


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, remarks: list[str]) -> Iterator[Supervisor]:
    """A running platform: two engines, a service that migrates, and a gateway."""
    programs = [program("profile", migrates=True), program("gateway", "http")]
    settings = with_engines(settings_on(tmp_path_factory.mktemp("platform")))
    supervisor = Supervisor(settings, programs, remarks.append)
    supervisor.start()
    yield supervisor
    supervisor.stop()


def history(settings: LocalSettings) -> list[str]:
    return (settings.home / "history").read_text().splitlines()


def environments(settings: LocalSettings) -> list[dict[str, str]]:
    return [json.loads(line) for line in (settings.home / "environment").read_text().splitlines()]


def log_lines(settings: LocalSettings, file: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (settings.home / "logs" / file).read_text().splitlines()]


def test_a_killed_process_comes_back_by_itself(full: Supervisor, remarks: list[str]) -> None:
    """Whichever it is; the others stay as they are."""
    before = full.pids
    assert set(before) == {"postgres", "nats", "profile", "gateway"}
    for name in before:
        full.kill(name)
        full.wait_until_healthy()
        assert f"{name} was ended by SIGKILL: starting it again" in remarks
    after = full.pids
    assert all(after[name] not in (None, before[name]) for name in before)
    assert history(full.settings).count("migrate profile") == 1


async def test_an_engine_can_be_away_for_a_while(full: Supervisor) -> None:
    """The data are there when it is back, and so is the address."""
    connection = await asyncpg.connect(f"{full.postgres_url}/postgres")
    await connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    await connection.close()
    services = {name: pid for name, pid in full.pids.items() if name in ("profile", "gateway")}
    full.halt("postgres")
    assert full.pids["postgres"] is None
    require_free_port(full.settings.postgres_port, "the port")
    full.resume("postgres")
    connection = await asyncpg.connect(f"{full.postgres_url}/postgres")
    assert await connection.fetchval("SELECT one FROM kept") == 1
    await connection.close()
    assert {name: full.pids[name] for name in services} == services


def test_status_shows_every_process(full: Supervisor) -> None:
    """As another terminal sees it."""
    rows = status.rows(full.settings.home)
    assert {row.process.name: row.process.pid for row in rows} == full.pids | {"supervisor": os.getpid()}
    assert all(row.is_healthy and row.resident_bytes > 2**20 for row in rows)
    table = status.table(rows)
    assert "profile" in table
    assert "not healthy" not in table


def test_nothing_is_left_after_stop(full: Supervisor) -> None:
    """No process, no taken port, no lock, and a state file that says so."""
    processes = [psutil.Process(pid) for pid in full.pids.values()]
    family = [*processes, *(child for process in processes for child in process.children(recursive=True))]
    full.stop()
    assert not [process for process in family if process.is_running()]
    for each in full.programs:
        require_free_port(each.port, each.setting)
    assert status.rows(full.settings.home) == []
    full.start()
    assert full.is_healthy


def test_the_entrance_stops_first_and_migrations_run_first(settings: LocalSettings) -> None:
    """Nothing new comes in while services drain; no service meets an old schema."""
    programs = [program("profile", migrates=True), program("gateway", "http"), program("metrics")]
    supervisor = Supervisor(settings, programs)
    supervisor.start()
    supervisor.stop()
    events = history(settings)
    assert events.index("migrate profile") < events.index("grpc profile")
    assert events.index("end gateway") < min(events.index("end profile"), events.index("end metrics"))


def test_settings_reach_every_process_through_its_environment(settings: LocalSettings) -> None:
    """Addresses, ports, and secrets that were drawn once."""
    programs = [program("profile"), program("gateway", "http")]
    for _ in range(2):
        supervisor = Supervisor(settings, programs)
        supervisor.start()
        supervisor.stop()
    seen = environments(settings)
    profile = next(e for e in seen if e["DANGOL_PROMETHEUS_PORT"] == str(programs[0].prometheus_port))
    assert profile["DANGOL_LOCAL"] == "1"
    assert profile["DANGOL_HOME"] == str(settings.home)
    assert profile["DANGOL_POSTGRES_URL"] == "postgresql://postgres@database.example"
    assert profile["DANGOL_NATS_URL"] == "nats://broker.example"
    assert profile["DANGOL_GATEWAY_PORT"] == str(programs[1].port)
    assert profile["DANGOL_EVENT_SHARDS"] == "1"
    assert len(bytes.fromhex(profile["DANGOL_IDENTITY_KEY"])) == 32
    assert len({e["DANGOL_IDENTITY_KEY"] for e in seen}) == 1
    assert len({e["DANGOL_TOKEN_KEY"] for e in seen}) == 1
    for name in ("identity-key", "token-key"):
        assert (settings.home / "secrets" / name).stat().st_mode & 0o777 == 0o600
    assert settings.home.stat().st_mode & 0o777 == 0o700


def test_secrets_that_are_given_are_used(settings: LocalSettings) -> None:
    """Somebody who brings a key knows why."""
    given = dict(settings.environment) | {"DANGOL_IDENTITY_KEY": "ab" * 32, "DANGOL_EVENT_SHARDS": "4"}
    supervisor = Supervisor(dataclasses.replace(settings, environment=given), [program("profile")])
    supervisor.start()
    supervisor.stop()
    assert environments(settings)[0]["DANGOL_IDENTITY_KEY"] == "ab" * 32
    assert environments(settings)[0]["DANGOL_EVENT_SHARDS"] == "4"


def test_logs_are_json_lines_and_start_anew(settings: LocalSettings) -> None:
    """Plain words are wrapped, JSON stays as it is, and the previous run is kept apart."""
    for _ in range(2):
        supervisor = Supervisor(settings, [program("profile")])
        supervisor.start()
        supervisor.stop()
    for file in ("profile.log", "profile.log.1"):
        lines = log_lines(settings, file)
        assert [line["message"] for line in lines] == ["plain words", "words in JSON"]
        assert lines[0]["service"] == "profile"
        assert lines[1] == {"level": "INFO", "message": "words in JSON"}


def test_a_program_that_cannot_start_stops_everything_and_says_why(settings: LocalSettings) -> None:
    """After a few attempts, with the end of its log."""
    good = program("profile")
    supervisor = Supervisor(settings, [good, program("metrics", "crash")], lambda remark: None)
    with pytest.raises(StartFailed, match="the reason of the crash"):
        supervisor.start()
    assert supervisor.pids == {}
    require_free_port(good.port, good.setting)


def test_a_failing_migration_is_a_failed_start(settings: LocalSettings, remarks: list[str]) -> None:
    """The service never meets the old schema."""
    broken = program("profile")
    broken = dataclasses.replace(broken, migration=tuple(part.replace("grpc", "crash") for part in broken.command))
    with pytest.raises(StartFailed, match="the reason of the crash"):
        Supervisor(settings, [broken], remarks.append).start()
    assert "the migration of profile ended with code 1: starting it again" in remarks
    assert not (settings.home / "history").exists()


def test_a_program_that_never_gets_healthy_is_a_failed_start(settings: LocalSettings) -> None:
    """Somebody has to look at it."""
    impatient = dataclasses.replace(settings, start_seconds=2)
    with pytest.raises(StartFailed, match="profile is not healthy after 2 seconds"):
        Supervisor(impatient, [program("profile", "unhealthy")]).start()


def test_stopping_is_possible_while_the_platform_starts(settings: LocalSettings) -> None:
    """Ctrl-C does not wait for a program that hangs."""
    supervisor = Supervisor(settings, [program("profile", "unhealthy")])
    threading.Timer(0.5, supervisor.request_stop).start()
    with pytest.raises(StopRequested):
        supervisor.start()
    assert supervisor.pids == {}


def test_a_program_that_ignores_the_request_is_ended(settings: LocalSettings) -> None:
    """Once its time to drain is over."""
    supervisor = Supervisor(dataclasses.replace(settings, drain_seconds=-9.5), [program("profile", "stubborn")])
    supervisor.start()
    process = psutil.Process(supervisor.pids["profile"])
    supervisor.stop()
    assert not process.is_running()
    assert "end profile" not in history(settings)


def test_all_taken_ports_are_named_at_once(settings: LocalSettings) -> None:
    """Nobody wants to learn of them one by one."""
    settings, profile = with_engines(settings), program("profile")
    taken = [
        socket.create_server(("127.0.0.1", port))
        for port in (settings.nats_port, profile.port, profile.prometheus_port)
    ]
    with pytest.raises(StartFailed) as caught:
        Supervisor(settings, [profile]).start()
    for server in taken:
        server.close()
    assert [line.split("set ")[1] for line in str(caught.value).splitlines()] == [
        "DANGOL_NATS_PORT to a free port",
        "DANGOL_PROFILE_PORT to a free port",
        "DANGOL_PROFILE_PROMETHEUS_PORT to a free port",
    ]


def test_two_supervisors_do_not_share_a_folder(settings: LocalSettings) -> None:
    """The second one leaves the first alone."""
    first = Supervisor(settings, [program("profile")])
    first.start()
    with pytest.raises(FolderBusy, match=f"process {os.getpid()}"):
        Supervisor(settings, [program("profile")]).start()
    assert first.is_healthy
    first.stop()


def test_a_program_that_outlived_its_supervisor_is_ended(settings: LocalSettings) -> None:
    """Where the system does not end children with their parent, the next start does."""
    profile = program("profile")
    first = Supervisor(settings, [profile])
    first.start()
    orphan = psutil.Process(first.pids["profile"])
    abandon(first)
    second = Supervisor(settings, [profile])
    second.start()
    assert not orphan.is_running()
    assert second.is_healthy
    second.stop()


def abandon(supervisor: Supervisor) -> None:
    """Leave everything as it would be if this process had been killed."""
    assert supervisor._lock is not None
    supervisor._lock.release()
    for unit in supervisor._units.values():
        unit._want(False)
