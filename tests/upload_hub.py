"""A hub to upload to: as much of its interface as the real client needs, in memory.

Repositories are models; a branch is a mapping of paths to bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import local_server
import pytest
from huggingface_hub import constants

WRITER, READER = "hf_writer", "hf_reader"
Files = dict[str, bytes]


@dataclass
class Repository:
    """A model: its branches, and the branch and message of each commit in turn."""

    private: bool = False
    branches: dict[str, Files] = field(default_factory=lambda: {"main": {}})
    commits: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Hub:
    """All repositories and requests; `statuses` replaces answers to paths that contain a text."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: Files = field(default_factory=dict)  # large files by sha256
    requests: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)


class Refusal(Exception):
    """An answer other than 200; the client tells some errors apart by their code."""

    def __init__(self, status: int, message: str, code: str = "", **content: str) -> None:
        self.status, self.content = status, {"error": message} | content
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


class Handler(local_server.Handler):
    hub: Hub

    def answer(self, path: str) -> None:
        self.hub.requests.append(f"{self.command} {path}")
        for text, status in self.hub.statuses.items():
            if text in path:
                return self.reply({}, status)
        try:
            for method, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, path)
                if method == self.command and match:
                    return self.reply(answer(self, **match.groupdict()))
            raise Refusal(404, f"no {path}", "EntryNotFound")
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


def create(on: Handler) -> Any:
    on.check_token()
    settings = json.loads(on.body)
    repo = f"{settings['organization']}/{settings['name']}"
    url = f"{on.hub.url}/{repo}"
    if repo in on.hub.repositories:
        raise Refusal(409, "You already created this model repo", url=url)
    on.hub.repositories[repo] = Repository(private=settings.get("visibility") == "private")
    return {"url": url, "name": repo}


def about(on: Handler, repo: str) -> Any:
    return {"id": repo, "private": on.repository(repo).private, "siblings": []}


def tree(on: Handler, repo: str, branch: str) -> Any:
    files = on.repository(repo).branches[branch]
    return [{"type": "file", "path": path, "size": 1, "oid": ""} for path in files]


def make_branch(on: Handler, repo: str, branch: str) -> Any:
    branches = on.repository(repo).branches
    if branch in branches:
        raise Refusal(409, "Reference already exists")
    branches[branch] = dict(branches["main"])
    return {}


def preupload(on: Handler, repo: str, branch: str) -> Any:
    files = json.loads(on.body)["files"]
    for file in files:
        large = file["path"].endswith(".safetensors")
        file |= {"uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
    return {"files": files}


def batch(on: Handler, repo: str) -> Any:
    objects = json.loads(on.body)["objects"]
    for item in objects:
        if item["oid"] not in on.hub.objects:
            item["actions"] = {"upload": {"href": f"{on.hub.url}/lfs/{item['oid']}", "header": {}}}
    return {"transfer": "basic", "objects": objects}


def store(on: Handler, oid: str) -> Any:
    assert hashlib.sha256(on.body).hexdigest() == oid
    on.hub.objects[oid] = on.body
    return {}


def commit(on: Handler, repo: str, branch: str) -> Any:
    repository = on.repository(repo)
    files = repository.branches[branch]
    for line in on.body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header":
            repository.commits.append((branch, value["summary"]))
        elif entry["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            files[value["path"]] = on.hub.objects[value["oid"]]
        else:
            del files[value["path"]]
    oid = f"{len(repository.commits):040}"
    return {"success": True, "commitOid": oid, "commitUrl": f"{on.hub.url}/{repo}/commit/{oid}"}


REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
MODEL, BRANCH = f"/api/models/{REPO}", "(?P<branch>[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", lambda on: {}),
    ("GET", MODEL, about),
    ("GET", f"{MODEL}/tree/{BRANCH}", tree),
    ("POST", f"{MODEL}/branch/{BRANCH}", make_branch),
    ("POST", f"{MODEL}/preupload/{BRANCH}", preupload),
    ("POST", f"{MODEL}/commit/{BRANCH}", commit),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", store),
]


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve an empty hub to the real client, which reads its environment when it is imported."""
    hub = Hub()
    with local_server.serving(type("Bound", (Handler,), {"hub": hub})) as hub.url:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub
