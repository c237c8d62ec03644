"""A stand-in for `vllm serve`: MODE CHECKPOINT --host HOST --port PORT; serving.py names modes."""

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
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if mode == "ends":
            say("out of memory")
            os._exit(9)
        if "ignore_eos" in request:
            self.send({"error": "no field of OpenAI's"}, 422)
        elif request.get("stream"):
            piece = {"choices": [{"delta": {"content": "42"}, "finish_reason": None}]}
            events = [*[json.dumps(piece)] * request["max_tokens"], "[DONE]"]
            self.send_bytes("".join(f"data: {event}\n\n" for event in events).encode())
        else:
            self.send({"choices": [{"message": {"content": "42"}, "finish_reason": "stop"}]})

    def send(self, value: object, status: int = 200) -> None:
        self.send_bytes(json.dumps(value).encode(), status)

    def send_bytes(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
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
if "PIDS" in os.environ:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}")
HTTPServer((host, int(port)), Handler).serve_forever()
