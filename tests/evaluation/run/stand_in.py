"""A stand-in for `vllm serve`: MODE CHECKPOINT --host HOST --port PORT."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

mode, checkpoint, _, host, _, port = sys.argv[1:]


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        models = {"data": [{"id": checkpoint}], "version": "0.0.1"}
        self.send({"version": "1.2.3"} if self.path == "/version" else models)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if mode == "ends":
            say("out of memory")
            os._exit(9)
        self.send({"choices": [{"message": {"content": "42"}, "finish_reason": "stop"}]})

    def send(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


say(f"loading {checkpoint} {'RANK' in os.environ}")
if mode == "dies":
    say("ValueError: no such architecture\n\nsee above")
    sys.exit(3)
if mode == "busy":
    HTTPServer((host, 0), Handler)
    raise OSError(98, "Address already in use")
if mode == "never":
    time.sleep(60)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}")
HTTPServer((host, int(port)), Handler).serve_forever()
