# SPDX-License-Identifier: Apache-2.0
"""The embedded engines start on whatever a crash has left behind, and keep what they had stored."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import asyncpg
import nats
import psutil
import pytest
from chassis.engines import (
    EngineError,
    FolderBusy,
    NatsEngine,
    PortTaken,
    PostgresEngine,
    free_ports,
    require_free_port,
)
from chassis.engines.postgres import disk_settings, memory_settings
from chassis.engines.processes import Account, Launch, spawn

Engine = PostgresEngine | NatsEngine

SUPERVISOR = """
import signal, sys
from pathlib import Path
from chassis.engines import NatsEngine, PostgresEngine

folder, ports = Path(sys.argv[1]), [int(port) for port in sys.argv[2:]]
postgres = PostgresEngine(folder / "postgres", ports[0], throwaway=True)
nats = NatsEngine(folder / "nats", ports[1])
postgres.start()
nats.start()
print(postgres.pid, nats.pid, flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have them: with a space, in Korean, and too long for the path of a socket."""
    return tmp_path_factory.mktemp("engines") / "단골 가게 데이터" / ("long " * 20).strip()


@pytest.fixture(scope="module")
def postgres(folder: Path) -> Iterator[PostgresEngine]:
    with PostgresEngine(folder / "postgres", free_ports(1)[0], throwaway=True) as engine:
        yield engine


@pytest.fixture(scope="module")
def nats_server(folder: Path) -> Iterator[NatsEngine]:
    with NatsEngine(folder / "nats", free_ports(1)[0]) as engine:
        yield engine


@pytest.fixture(params=["postgres", "nats_server"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn, running."""
    engine: Engine = request.getfixturevalue(request.param)
    engine.start()
    return engine


async def remember(engine: Engine, word: str) -> None:
    if isinstance(engine, PostgresEngine):
        connection = await asyncpg.connect(f"{engine.url}/postgres")
        await connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        await connection.execute("INSERT INTO words VALUES ($1)", word)
        await connection.close()
    else:
        client = await nats.connect(engine.url)
        await client.jetstream().add_stream(name="WORDS", subjects=["words"])
        await client.jetstream().publish("words", word.encode())
        await client.close()


async def recall(engine: Engine) -> str:
    if isinstance(engine, PostgresEngine):
        connection = await asyncpg.connect(f"{engine.url}/postgres")
        word = await connection.fetchval("SELECT word FROM words ORDER BY ctid DESC LIMIT 1")
        await connection.close()
        return str(word)
    client = await nats.connect(engine.url)
    message = await client.jetstream().get_last_msg("WORDS", "words")
    await client.close()
    return (message.data or b"").decode()


def twin(engine: Engine) -> Engine:
    """Another object on the same folder and port, as the next process would make it."""
    if isinstance(engine, PostgresEngine):
        return PostgresEngine(engine.folder, engine.port, throwaway=True)
    return NatsEngine(engine.folder, engine.port)


async def test_what_was_stored_survives_a_crash_of_the_server(engine: Engine) -> None:
    """The server comes back on the same port with the same address."""
    await remember(engine, "before the crash")
    address = engine.url
    engine.kill()
    assert engine.pid is None
    engine.start()
    assert engine.url == address
    assert await recall(engine) == "before the crash"


async def test_a_server_stops_and_starts_as_often_as_one_likes(engine: Engine) -> None:
    """Nothing of it is left running in between, and nothing is lost."""
    await remember(engine, "before the stop")
    for _ in range(2):
        process = psutil.Process(engine.pid)
        engine.stop()
        assert not process.is_running()
        require_free_port(engine.port, engine.setting)
        engine.start()
    assert await recall(engine) == "before the stop"


async def test_a_server_that_outlived_its_supervisor_is_replaced(engine: Engine) -> None:
    """The next start finds the orphan by its folder and ends it cleanly."""
    await remember(engine, "by the orphan")
    orphan = psutil.Process(engine.pid)
    engine.release()
    with twin(engine) as successor:
        assert not orphan.is_running()
        assert await recall(successor) == "by the orphan"


async def test_children_of_a_killed_server_do_not_stop_the_next_start(postgres: PostgresEngine) -> None:
    """A stopped backend cannot notice that its server died; the next start ends it."""
    postgres.start()
    backend = psutil.Process(postgres.pid).children()[0]
    backend.suspend()
    postgres.kill()
    postgres.start()
    assert not backend.is_running()
    await remember(postgres, "after all")


def servers_of_a_killed_supervisor(folder: Path, ports: list[int]) -> list[psutil.Process]:
    command = [sys.executable, "-c", SUPERVISOR, str(folder), *map(str, ports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=python_environment()) as supervisor:
        assert supervisor.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in supervisor.stdout.readline().split()]
        supervisor.kill()
    return servers


def python_environment() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_servers_end_with_a_killed_supervisor_and_the_next_one_carries_on(tmp_path: Path) -> None:
    """Nobody has to clean up after `kill -9`."""
    ports = free_ports(2)
    servers = servers_of_a_killed_supervisor(tmp_path, ports)
    assert len(servers) == 2
    assert psutil.wait_procs(servers, timeout=30)[1] == []
    successors: list[Engine] = [
        PostgresEngine(tmp_path / "postgres", ports[0], throwaway=True),
        NatsEngine(tmp_path / "nats", ports[1]),
    ]
    for successor in successors:
        with successor:
            await remember(successor, "by the successor")
            assert await recall(successor) == "by the successor"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties children to a thread")
async def test_a_server_outlives_the_thread_that_started_it(engine: Engine) -> None:
    """Linux would end a child with the thread that made it."""
    engine.stop()
    thread = threading.Thread(target=engine.start)
    thread.start()
    thread.join()
    await remember(engine, "from another thread")
    assert engine.running


async def test_a_stale_lock_file_with_a_living_process_number_is_no_obstacle(
    postgres: PostgresEngine,
) -> None:
    """Numbers of processes come again; PostgreSQL would take this process for itself and give up."""
    postgres.stop()
    stale = postgres.folder / "data" / "postmaster.pid"
    stale.write_text(f"{os.getppid()}\n{stale.parent}\n1700000000\n5432\n\n\n 1 2\nready\n")
    postgres.start()
    await remember(postgres, "despite the file")


async def test_an_unfinished_creation_is_started_anew(tmp_path: Path) -> None:
    """A process that was killed during `initdb` leaves a folder that is no database."""
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("18\n")
    with PostgresEngine(tmp_path, free_ports(1)[0], throwaway=True) as engine:
        await remember(engine, "from the start")
        assert not (tmp_path / "data.new").exists()


async def test_a_lost_password_file_is_replaced(postgres: PostgresEngine) -> None:
    """The data are not lost with the file."""
    await remember(postgres, "still here")
    postgres.stop()
    (postgres.folder / "password").unlink()
    postgres.start()
    assert await recall(postgres) == "still here"


def test_a_taken_port_is_named_with_its_setting_and_its_owner(engine: Engine) -> None:
    """The reader knows what to stop, or what to change."""
    engine.stop()
    with socket.create_server(("127.0.0.1", engine.port)):
        with pytest.raises(PortTaken) as caught:
            engine.start()
        assert str(engine.port) in str(caught.value)
        assert engine.setting in str(caught.value)
        assert f"process {os.getpid()}" in str(caught.value)
    engine.start()


def test_a_folder_serves_one_process_at_a_time(engine: Engine) -> None:
    """Two servers on one folder would destroy it."""
    with pytest.raises(FolderBusy, match=f"process {os.getpid()}"):
        twin(engine).start()
    assert engine.running


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The server's own last words are part of the message, and the folder is free again."""
    engine = PostgresEngine(tmp_path, free_ports(1)[0], throwaway=True)
    engine.start()
    engine.stop()
    control = tmp_path / "data" / "global" / "pg_control"
    control.rename(control.with_suffix(".away"))
    with pytest.raises(EngineError, match="could not find the database system"):
        engine.start()
    control.with_suffix(".away").rename(control)
    twin(engine).start()


def test_a_folder_of_another_version_is_left_alone(tmp_path: Path) -> None:
    """Data of an older PostgreSQL need a person's decision."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EngineError, match="made by PostgreSQL 16"):
        PostgresEngine(tmp_path, free_ports(1)[0]).start()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Such as one below a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be used"):
        NatsEngine(tmp_path / "file" / "nats", free_ports(1)[0]).start()


def test_only_the_owner_can_read_the_folder(engine: Engine) -> None:
    """Customers' data and the password lie in it."""
    assert engine.folder.stat().st_mode & 0o777 == 0o700
    assert (engine.folder / "password").stat().st_mode & 0o777 == 0o600


async def test_nobody_reaches_postgres_without_the_password(postgres: PostgresEngine) -> None:
    """Every program on the machine reaches the loopback address."""
    postgres.start()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://postgres:wrong@127.0.0.1:{postgres.port}/postgres")


def test_nobody_reaches_nats_without_the_password(nats_server: NatsEngine) -> None:
    """Every program on the machine reaches the loopback address."""
    nats_server.start()
    with (
        socket.create_connection(("127.0.0.1", nats_server.port)) as client,
        client.makefile("rwb") as stream,
    ):
        assert stream.readline().startswith(b"INFO")
        stream.write(b'CONNECT {"verbose": false}\r\nPING\r\n')
        stream.flush()
        assert b"Authorization Violation" in stream.readline()


async def test_nats_takes_messages_of_eight_megabytes(nats_server: NatsEngine) -> None:
    """A batch of 500 large events fits into one message."""
    nats_server.start()
    client = await nats.connect(nats_server.url)
    assert client.max_payload == 8 * 1024 * 1024
    await client.close()


async def test_a_commit_waits_for_the_disk_unless_the_folder_is_thrown_away(
    postgres: PostgresEngine, tmp_path: Path
) -> None:
    """Only tests may trade durability for speed."""
    postgres.start()
    with PostgresEngine(tmp_path, free_ports(1)[0]) as durable:
        for engine, expected in ((durable, "on"), (postgres, "off")):
            connection = await asyncpg.connect(f"{engine.url}/postgres")
            assert await connection.fetchval("SHOW fsync") == expected
            assert await connection.fetchval("SHOW synchronous_commit") == "on"
            await connection.close()


async def test_vectors_and_korean_letters_are_understood(postgres: PostgresEngine) -> None:
    """Whatever the locale of the machine is."""
    postgres.start()
    connection = await asyncpg.connect(f"{postgres.url}/postgres")
    await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    assert await connection.fetchval("SELECT '[1,2]'::vector <-> '[1,5]'::vector") == 3
    assert await connection.fetchval("SELECT lower('ÄÖ가나')") == "äö가나"
    await connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_postgres_has_no_root_rights_when_root_starts_it(postgres: PostgresEngine) -> None:
    """PostgreSQL refuses root, and root's own closed folders stay closed."""
    postgres.start()
    server = psutil.Process(postgres.pid)
    assert 0 not in (server.uids().real, server.uids().effective, server.uids().saved)
    assert server.gids().effective != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_normal_user_needs_no_rights(tmp_path: Path) -> None:
    """The same supervisor under an ordinary account."""
    account = Account.unprivileged()
    os.chown(tmp_path, account.uid, account.gid)
    command = (sys.executable, "-c", SUPERVISOR, str(tmp_path), *map(str, free_ports(2)))
    launch = Launch(command, python_environment(), tmp_path, account, signal.SIGKILL)
    with TemporaryFile() as output:
        supervisor = spawn(launch, output.fileno())
        try:
            pids = wait_for_line(output.fileno(), supervisor).split()
            assert {psutil.Process(int(pid)).uids().real for pid in pids} == {account.uid}
        finally:
            supervisor.kill()
            supervisor.wait()


def wait_for_line(descriptor: int, process: subprocess.Popen[bytes]) -> str:
    """What a process has written once it has written a line, or everything when it ended."""
    while process.poll() is None:
        text = os.pread(descriptor, 100_000, 0).decode()
        if text.endswith("\n"):
            return text
        threading.Event().wait(0.02)
    return os.pread(descriptor, 100_000, 0).decode()


def test_free_ports_stay_free_while_a_server_restarts() -> None:
    """They are distinct, and the system gives none of them to an outgoing connection."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    with socket.socket() as outgoing:
        outgoing.bind(("127.0.0.1", 0))
        assert max(ports) < outgoing.getsockname()[1] or sys.platform != "linux"


@pytest.mark.parametrize(
    ("gib", "buffers", "log"),
    [(0.25, "128MB", "1024MB"), (24, "6144MB", "1024MB"), (128, "8192MB", "4096MB"), (1024, "8192MB", "8192MB")],
)
def test_postgres_takes_its_share_of_memory_and_disk_within_limits(gib: float, buffers: str, log: str) -> None:
    size = int(gib * 2**30)
    assert memory_settings(size)["shared_buffers"] == buffers
    assert disk_settings(size) == {"max_wal_size": log}
