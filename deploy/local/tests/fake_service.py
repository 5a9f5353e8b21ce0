# SPDX-License-Identifier: Apache-2.0
"""A program that behaves, well or badly, as a service of the platform may: `fake_service.py BEHAVIOUR NAME PORT`."""

import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

HOME = Path(os.environ["DANGOL_HOME"])


def main(behaviour: str, name: str, port: int) -> None:
    """Behave as asked."""
    stopping = threading.Event()
    if behaviour != "stubborn":
        signal.signal(signal.SIGTERM, lambda _signal, _frame: stopping.set())
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("environment", json.dumps(dict(os.environ)))
    if behaviour == "crash":
        sys.exit("the reason of the crash")
    note("history", f"{behaviour} {name}")
    if behaviour == "migrate":
        return
    if behaviour == "http":
        serve_http(port, stopping)
    else:
        serve_grpc(port, stopping, is_serving=behaviour != "unhealthy")
    note("history", f"end {name}")


def note(file: str, text: str) -> None:
    """Leave a line for the test."""
    with open(HOME / file, "a", encoding="utf-8") as lines:
        lines.write(text + "\n")


def serve_grpc(port: int, stopping: threading.Event, is_serving: bool) -> None:
    """Answer health checks."""
    status = health_pb2.HealthCheckResponse
    servicer = health.HealthServicer()
    servicer.set("", status.SERVING if is_serving else status.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("plain words", flush=True)
    print(json.dumps({"level": "INFO", "message": "words in JSON"}), flush=True)
    stopping.wait()
    server.stop(None).wait()


def serve_http(port: int, stopping: threading.Event) -> None:
    """Answer `/readyz`."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stopping.wait()
    server.shutdown()


class Ready(BaseHTTPRequestHandler):
    """Says 200 to `/readyz`, 404 to all else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
