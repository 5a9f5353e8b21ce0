# SPDX-License-Identifier: Apache-2.0
"""ClickHouse's HTTP interface, answered by the embedded engine: as much of it as clickhouse-connect speaks to.

A real server has not been run against; this double proves the client's side of the way over HTTP (addresses,
parameters, settings, inserts, errors, a server that goes and comes back), not a server's behaviour.
"""

import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb
from chdb.session import Session

_NO_SETTINGS = ("query", "database", "user", "password", "session_id", "query_id", "compress", "role",
                "client_protocol_version", "wait_end_of_query", "cancel_http_readonly_queries_on_client_close",
                "send_progress_in_http_headers", "http_headers_progress_interval_ms")  # fmt: skip


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[int]:
    """Serve the databases of a folder, which this process may have open already; yields the port."""

    class Handler(_Handler):
        path_of_data = folder

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    path_of_data: Path

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self._body()
        try:
            answer, status, extra = self._run(parameters, body), 200, {}
        except chdb.ChdbError as error:
            code = re.search(r"Code: (\d+)", str(error))
            answer, status = str(error).encode(), 500
            extra = {"X-ClickHouse-Exception-Code": code[1] if code else "0"}
        self.send_response(status)
        for name, value in extra.items():
            self.send_header(name, value)
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _run(self, parameters: dict[str, str], body: bytes) -> bytes:
        make_session: Any = Session
        with make_session(str(self.path_of_data)) as session:
            if database := parameters.get("database"):
                session.query(f"USE `{database}`")
            settings = {k: v for k, v in parameters.items() if k not in _NO_SETTINGS and not k.startswith("param_")}
            # As on a server, where what the request brings is allowed or not before any of it holds.
            for name in sorted(settings, key="readonly".__eq__):
                session.query(f"SET {name} = '{settings[name]}'")
            bound = {k.removeprefix("param_"): v for k, v in parameters.items() if k.startswith("param_")}
            if query := parameters.get("query"):
                return self._insert(session, query, body) if body else bytes(session.query(query, params=bound).bytes())
            return bytes(session.query(body.decode(), "TabSeparated", params=bound).bytes())

    def _insert(self, session: Any, query: str, body: bytes) -> bytes:
        statement, _, format_name = query.strip().rpartition(" FORMAT ")
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            session.query(f"{statement} FROM INFILE '{file.name}' FORMAT {format_name}")
        return b""
