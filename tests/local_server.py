"""A web server of its own on this machine, while a test runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Handler(BaseHTTPRequestHandler):
    """Reads the body of every request; `answer` replies to it."""

    protocol_version = "HTTP/1.1"

    def answer(self, path: str) -> None:
        raise NotImplementedError

    def read_and_answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b"".join(self._chunks())
        self.answer(unquote(urlsplit(self.path).path))

    do_GET = do_HEAD = do_POST = do_PUT = read_and_answer

    def _chunks(self) -> Iterator[bytes]:
        while self.headers.get("Transfer-Encoding") == "chunked":
            size = int(self.rfile.readline(), 16)
            yield self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return

    def reply(
        self,
        content: Any,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send bytes as they are; anything else as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port while the block runs; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
