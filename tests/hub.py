"""A hub on this machine: as much of its interface as the real clients need, in memory.

A branch is a mapping of paths to bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import local_server
import pytest
from huggingface_hub import constants

WRITER, READER = "hf_writer", "hf_reader"
Files = dict[str, bytes]
DEMO = Path(__file__).parents[1] / "data/demo/model"
MODEL = {path.name: path.read_bytes() for path in DEMO.iterdir()}


class Refusal(Exception):
    """An answer other than 200; the client tells some errors apart by their code."""

    def __init__(self, status: int, message: str, code: str = "", **content: str) -> None:
        self.status, self.content = status, {"error": message} | content
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


def commit_id(files: Files) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@dataclass
class Repository:
    """A model or a data set: its branches, earlier files of `main`, and uploads in turn."""

    branches: dict[str, Files] = field(default_factory=lambda: {"main": {}})
    gated: bool = False
    private: bool = False
    past: list[Files] = field(default_factory=list)
    uploads: list[tuple[str, str]] = field(default_factory=list)  # branch, message

    def commit(self, files: Files) -> None:
        """Replace all files by others, as the next commit to `main`."""
        self.past.append(self.branches["main"])
        self.branches["main"] = files

    def at(self, revision: str) -> Files:
        """The files of a branch or as of a commit."""
        commits = {commit_id(files): files for files in (*self.past, self.branches["main"])}
        try:
            return (commits | self.branches)[revision]
        except KeyError:
            raise Refusal(404, "no such revision", "RevisionNotFound") from None


@dataclass
class Hub:
    """All repositories, failures to come, and requests so far; data sets are `datasets/ID`."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: Files = field(default_factory=dict)  # large files by sha256
    requests: list[str] = field(default_factory=list)  # method and path
    failures: dict[str, list[int]] = field(default_factory=dict)
    bytes_sent: int = 0

    def add(self, name: str, files: Files, gated: bool = False) -> Repository:
        self.repositories[name] = Repository({"main": files}, gated)
        return self.repositories[name]

    def fail(self, text: str, status: int, times: int = 10**6) -> None:
        """Answer the next requests for paths that contain a text by a status."""
        self.failures[text] = [status] * times

    def files_requested(self) -> list[str]:
        return [request for request in self.requests if "/resolve/" in request]


class Handler(local_server.Handler):
    hub: Hub

    def answer(self, path: str) -> None:
        self.hub.requests.append(f"{self.command} {path}")
        for text, statuses in self.hub.failures.items():
            if text in path and statuses:
                return self.reply({}, statuses.pop())
        try:
            for methods, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, path)
                if self.command in methods and match:
                    return answer(self, **match.groupdict())
            raise Refusal(404, f"no {path}", "RepoNotFound")
        except Refusal as refusal:
            self.reply(refusal.content, refusal.status, refusal.headers)

    def check_token(self) -> None:
        token = self.headers.get("Authorization")
        if token == f"Bearer {READER}":
            raise Refusal(403, "you may only read")
        if token != f"Bearer {WRITER}":
            raise Refusal(401, "Invalid credentials in Authorization header")

    def repository(self, repo: str) -> Repository:
        if repo not in self.hub.repositories:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return self.hub.repositories[repo]


def create(on: Handler) -> None:
    on.check_token()
    settings = json.loads(on.body)
    repo = f"{settings['organization']}/{settings['name']}"
    url = f"{on.hub.url}/{repo}"
    if repo in on.hub.repositories:
        raise Refusal(409, "You already created this model repo", url=url)
    on.hub.repositories[repo] = Repository(private=settings.get("visibility") == "private")
    on.reply({"url": url, "name": repo})


def about(on: Handler, repo: str, revision: str | None = None) -> None:
    repository = on.repository(repo)
    files = repository.at(revision or "main")
    siblings = [{"rfilename": path} for path in files]
    facts = {"id": repo, "private": repository.private, "gated": repository.gated}
    on.reply(facts | {"sha": commit_id(files), "siblings": siblings})


def tree(on: Handler, repo: str, revision: str) -> None:
    files = on.repository(repo).at(revision)
    entry = {"type": "file", "oid": ""}
    on.reply([entry | {"path": path, "size": len(data)} for path, data in files.items()])


def download(on: Handler, repo: str, revision: str, path: str) -> None:
    repository = on.repository(repo)
    if repository.gated:
        raise Refusal(401, "ask for access", "GatedRepo")
    files = repository.at(revision)
    status, data = 200, files[path]
    headers = {"X-Repo-Commit": commit_id(files), "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
    if match := re.match(r"bytes=(\d+)-(\d*)$", on.headers.get("Range") or ""):
        begin, end = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
        status, data = 206, data[begin : end + 1]
    if on.command != "HEAD":
        on.hub.bytes_sent += len(data)
    on.reply(data, status, headers)


def make_branch(on: Handler, repo: str, revision: str) -> None:
    branches = on.repository(repo).branches
    if revision in branches:
        raise Refusal(409, "Reference already exists")
    branches[revision] = dict(branches["main"])
    on.reply({})


def preupload(on: Handler, repo: str, revision: str) -> None:
    files = json.loads(on.body)["files"]
    for file in files:
        large = file["path"].endswith(".safetensors")
        file |= {"uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
    on.reply({"files": files})


def batch(on: Handler, repo: str) -> None:
    objects = json.loads(on.body)["objects"]
    for item in objects:
        if item["oid"] not in on.hub.objects:
            item["actions"] = {"upload": {"href": f"{on.hub.url}/lfs/{item['oid']}", "header": {}}}
    on.reply({"transfer": "basic", "objects": objects})


def store(on: Handler, oid: str) -> None:
    assert hashlib.sha256(on.body).hexdigest() == oid
    on.hub.objects[oid] = on.body
    on.reply({})


def upload(on: Handler, repo: str, revision: str) -> None:
    repository = on.repository(repo)
    files = repository.branches[revision]
    for line in on.body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header":
            repository.uploads.append((revision, value["summary"]))
        elif entry["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            files[value["path"]] = on.hub.objects[value["oid"]]
        else:
            del files[value["path"]]
    oid = f"{len(repository.uploads):040}"
    url = f"{on.hub.url}/{repo}/commit/{oid}"
    on.reply({"success": True, "commitOid": oid, "commitUrl": url})


REPO, REVISION = r"(?P<repo>(datasets/)?[\w.-]+/[\w.-]+)", "(?P<revision>[^/]+)"
API = f"/api/(models/)?{REPO}"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", lambda on: on.reply({})),
    ("GET", f"{API}(/revision/{REVISION})?", about),
    ("GET", f"{API}/tree/{REVISION}", tree),
    ("HEAD GET", f"/{REPO}/resolve/{REVISION}/(?P<path>.+)", download),
    ("POST", f"{API}/branch/{REVISION}", make_branch),
    ("POST", f"{API}/preupload/{REVISION}", preupload),
    ("POST", f"{API}/commit/{REVISION}", upload),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", store),
]


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """Serve an empty hub to the real clients, which have an empty cache and no token in a file."""
    hub = Hub()
    with local_server.serving(type("Bound", (Handler,), {"hub": hub})) as hub.url:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
