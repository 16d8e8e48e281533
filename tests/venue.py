"""A small HTTP server that answers as it is told and keeps what it was asked: venue, monitor or proxy."""

from __future__ import annotations

import select
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[str], tuple[int, str]]
"""Returns status and body for a path."""


class HttpServer:
    """Its address, and the requests that came so far: ``GET /path``."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base's name
        """Say nothing."""

    def respond(self, status: int, body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def http_server(answer: Answer) -> Iterator[HttpServer]:
    """Serve ``answer`` on a free port until the block ends."""

    class Handler(_Quiet):
        def do_GET(self) -> None:
            served.asked.append(f"GET {self.path}")
            status, body = answer(self.path)
            self.respond(status, body.encode())

    served = HttpServer()
    with _running(Handler, served):
        yield served


@contextmanager
def proxy_server() -> Iterator[HttpServer]:
    """Serve as an HTTP proxy: whole addresses are fetched, CONNECT is a tunnel."""

    class Handler(_Quiet):
        def do_GET(self) -> None:
            served.asked.append(f"GET {self.path}")
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(self.path, timeout=10) as response:
                self.respond(response.status, response.read())

        def do_CONNECT(self) -> None:
            served.asked.append(f"CONNECT {self.path}")
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10) as far:
                self.send_response(200)
                self.end_headers()
                _join(self.connection, far)
            self.close_connection = True

    served = HttpServer()
    with _running(Handler, served):
        yield served


def _join(near: socket.socket, far: socket.socket) -> None:
    """Pass bytes both ways until one side ends."""
    while True:
        for ready in select.select([near, far], [], [])[0]:
            try:
                chunk = ready.recv(1 << 16)
                (far if ready is near else near).sendall(chunk)
            except OSError:
                return
            if not chunk:
                return


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler], served: HttpServer) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            served.url = f"http://127.0.0.1:{server.server_port}"
            yield
        finally:
            server.shutdown()
            thread.join()
