"""A hub to upload to: as much of its interface as the real client needs, in memory.

Repositories are models; a branch is a mapping of paths to bytes. `Hub.answers` replaces the answer
to requests whose path contains a text, for errors.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from local_server import serving

WRITER, READER = "hf_writer", "hf_reader"
ID = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    """A model: its branches, and what was committed to them in turn."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[tuple[str, str]] = field(default_factory=list)  # branch, message

    def commit_of(self, branch: str) -> str:
        """The hash of a branch's contents."""
        files = sorted(self.branches[branch].items())
        return hashlib.sha1(repr([branch, files]).encode()).hexdigest()

    def branch_of(self, revision: str) -> str:
        """The branch that a revision, a branch's name or hash, stands for."""
        hashes = {self.commit_of(branch): branch for branch in self.branches}
        return hashes.get(revision, revision)


@dataclass
class Hub:
    """What the server holds, and what it was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files by sha256
    requests: list[str] = field(default_factory=list)
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)


class Refusal(Exception):
    """An answer other than 200: status, and the code by which the client tells errors apart."""

    def __init__(self, status: int, code: str, message: str, **also: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}
        self.content = json.dumps({"error": message} | also).encode()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self.read_chunks()
        try:
            for part, (status, headers) in self.hub.answers.items():
                if part in path:
                    return self.reply(status, b"{}", headers)
            for method, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, path)
                if method == self.command and match:
                    return self.answer(answer(self, **match.groupdict()))
            raise Refusal(404, "EntryNotFound", f"no {path}")
        except Refusal as refusal:
            return self.reply(refusal.status, refusal.content, refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def read_chunks(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, made: Any) -> None:
        if isinstance(made, tuple):
            content, headers = made
            return self.reply(200, content, headers)
        self.reply(200, json.dumps(made).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def token(self) -> str:
        return str(self.headers.get("Authorization", "")).removeprefix("Bearer ")

    def needs_writer(self) -> None:
        if self.token() == READER:
            raise Refusal(403, "", "you may only read")
        if self.token() != WRITER:
            raise Refusal(401, "", "Invalid credentials in Authorization header")

    def opened(self, repo: str, revision: str = "main") -> tuple[Repository, str]:
        """A repository, and the branch that a revision stands for."""
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and self.token() not in (READER, WRITER)):
            raise Refusal(404, "RepoNotFound", "Repository not found")
        branch = found.branch_of(revision)
        if branch not in found.branches:
            raise Refusal(404, "RevisionNotFound", f"no revision {revision}")
        return found, branch


def create(on: Handler) -> Any:
    on.needs_writer()
    asked = json.loads(on.body)
    repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
    url = f"{on.hub.url}/{repo}"
    if repo in on.hub.repositories:
        raise Refusal(409, "", "You already created this model repo", url=url)
    on.hub.repositories[repo] = Repository(private=asked.get("visibility") == "private")
    return {"url": url, "name": repo}


def about(on: Handler, repo: str, revision: str = "main") -> Any:
    found, branch = on.opened(repo, revision)
    siblings = [{"rfilename": path} for path in sorted(found.branches[branch])]
    known = {"id": repo, "private": found.private, "sha": found.commit_of(branch)}
    return known | {"siblings": siblings}


def tree(on: Handler, repo: str, revision: str) -> Any:
    found, branch = on.opened(repo, revision)
    return [
        {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for path, data in sorted(found.branches[branch].items())
    ]


def make_branch(on: Handler, repo: str, branch: str) -> Any:
    on.needs_writer()
    branches = on.opened(repo)[0].branches
    if branch in branches:
        raise Refusal(409, "", "Reference already exists")
    branches[branch] = dict(branches["main"])
    return {}


def preupload(on: Handler, repo: str, revision: str) -> Any:
    on.needs_writer()
    on.opened(repo, revision)
    return {
        "files": [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(on.body)["files"]
        ]
    }


def batch(on: Handler, repo: str) -> Any:
    on.needs_writer()
    on.opened(repo)
    objects = []
    for asked in json.loads(on.body)["objects"]:
        known = asked["oid"] in on.hub.objects
        upload = {"href": f"{on.hub.url}/lfs/{asked['oid']}", "header": {}}
        objects.append(asked | ({} if known else {"actions": {"upload": upload}}))
    return {"transfer": "basic", "objects": objects}


def store(on: Handler, oid: str) -> Any:
    if hashlib.sha256(on.body).hexdigest() != oid:
        raise Refusal(400, "", "the contents have another hash")
    on.hub.objects[oid] = on.body
    return {}


def commit(on: Handler, repo: str, revision: str) -> Any:
    on.needs_writer()
    found, branch = on.opened(repo, revision)
    files = found.branches[branch]
    for line in on.body.splitlines():
        entry = json.loads(line)
        kind, value = entry["key"], entry["value"]
        if kind == "header":
            found.commits.append((branch, value["summary"]))
        elif kind == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif kind == "lfsFile":
            files[value["path"]] = on.hub.objects[value["oid"]]
        elif kind == "deletedFile":
            del files[value["path"]]
    oid = found.commit_of(branch)
    return {"success": True, "commitOid": oid, "commitUrl": f"{on.hub.url}/{repo}/commit/{oid}"}


def resolve(on: Handler, repo: str, revision: str, path: str) -> Any:
    found, branch = on.opened(repo, revision)
    files = found.branches[branch]
    if path not in files:
        raise Refusal(404, "EntryNotFound", f"no {path}")
    etag = hashlib.sha256(files[path]).hexdigest()
    return files[path], {"ETag": f'"{etag}"', "X-Repo-Commit": found.commit_of(branch)}


ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("POST", r"/api/repos/create", create),
    ("POST", r"/api/validate-yaml", lambda on: {}),
    ("GET", rf"/api/models/{ID}", about),
    ("GET", rf"/api/models/{ID}/revision/(?P<revision>.+)", about),
    ("GET", rf"/api/models/{ID}/tree/(?P<revision>[^/]+)", tree),
    ("POST", rf"/api/models/{ID}/branch/(?P<branch>.+)", make_branch),
    ("POST", rf"/api/models/{ID}/preupload/(?P<revision>.+)", preupload),
    ("POST", rf"/api/models/{ID}/commit/(?P<revision>.+)", commit),
    ("POST", rf"/{ID}\.git/info/lfs/objects/batch", batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", store),
    ("GET", rf"/{ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
    ("HEAD", rf"/{ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
]


@contextmanager
def running() -> Iterator[Hub]:
    """Serve an empty hub on a free port while the block runs."""
    hub = Hub()
    with serving(type("Bound", (Handler,), {"hub": hub})) as hub.url:
        yield hub


def point_client(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the real client, which reads its environment when it is imported, talk to this hub."""
    at = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + at)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
