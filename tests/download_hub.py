"""A hub to download from: data sets and models by range, revision and token, and its failures."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import local_server

_API = re.compile(r"^/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?$")
_FILE = re.compile(r"^/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")
_LIMITS = {"RateLimit": '"resolvers";r=0;t=3', "RateLimit-Policy": '"w";"r";q=5;w=300'}


@dataclass
class Repository:
    """Files by name, as in the commit that `main` names, and earlier commits."""

    files: dict[str, bytes]
    gated: bool = False
    past: list[Repository] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def commit(self, files: dict[str, bytes]) -> None:
        """Replace all files by others, as the next commit."""
        self.past.append(Repository(self.files, self.gated))
        self.files = files

    def at(self, revision: str | None) -> Repository | None:
        """The repository as of a commit, if it has that."""
        if revision in (None, "main", self.sha):
            return self
        return next((commit for commit in self.past if commit.sha == revision), None)

    def facts(self) -> dict[str, Any]:
        """What the API says about it."""
        return {
            "_id": "0",
            "sha": self.sha,
            "siblings": [{"rfilename": path} for path in self.files],
            "gated": "auto" if self.gated else False,
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "createdAt": "2024-01-01T00:00:00.000Z",
        }

    def tree(self) -> list[dict[str, Any]]:
        """All folders and files."""
        folders = {path.rpartition("/")[0] for path in self.files} - {""}
        entries = {path: {"type": "directory", "oid": "0" * 40, "size": 0} for path in folders}
        for path, data in self.files.items():
            oid = hashlib.sha1(data).hexdigest()
            entries[path] = {"type": "file", "oid": oid, "size": len(data)}
        return [entry | {"path": path} for path, entry in entries.items()]


@dataclass
class Hub:
    """The contents of the server, the failures to come, and the requests so far."""

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    faults: list[list[Any]] = field(default_factory=list)  # [part of the path, fault, times]
    requests: list[tuple[str, str]] = field(default_factory=list)  # method, path
    bytes_sent: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def dataset(self, name: str, files: dict[str, bytes], gated: bool = False) -> Repository:
        return self.repositories.setdefault(("datasets", name), Repository(files, gated))

    def model(self, name: str, files: dict[str, bytes], gated: bool = False) -> Repository:
        return self.repositories.setdefault(("models", name), Repository(files, gated))

    def files_requested(self) -> list[str]:
        """The paths of requests for files, in order."""
        return [path for _, path in self.requests if "/resolve/" in path]

    def fail(self, part: str, fault: str, times: int = 1) -> None:
        """Answer the next requests for paths with a part in it by "429", "500" or "drop"."""
        self.faults.append([part, fault, times])

    def fault_for(self, method: str, path: str) -> str | None:
        """The failure of a request; an answer without a body cannot be dropped."""
        with self.lock:
            for fault in self.faults:
                part, name, times = fault
                if part in path and times > 0 and (name, method) != ("drop", "HEAD"):
                    fault[2] -= 1
                    return str(name)
        return None


class _RefusalError(Exception):
    """The hub answers with an error: status, code, other headers."""


class _Handler(local_server.Handler):
    hub: Hub

    def answer(self, path: str) -> None:
        self.hub.requests.append((self.command, path))
        fault = self.hub.fault_for(self.command, path)
        if fault == "429":
            self.reply(b"slow down", 429, _LIMITS)
        elif fault == "500":
            self.reply(b"oops", 500)
        else:
            try:
                self._answer(path, dropped=fault == "drop")
            except _RefusalError as refusal:
                status, code, headers = refusal.args
                self.reply(b"", status, {"X-Error-Code": code, "X-Error-Message": code} | headers)

    def _answer(self, path: str, dropped: bool) -> None:
        if match := _API.match(path):
            kind, name, listing, revision = match.groups()
            repository = self._repository(kind, name, revision)
            facts = repository.facts() | {"id": name}
            self.reply(repository.tree() if listing == "tree" else facts)
        elif match := _FILE.match(path):
            kind, name, revision, file = match.groups()
            repository = self._repository("datasets" if kind else "models", name, revision)
            self._file(repository, file, dropped)
        else:
            raise _RefusalError(404, "RepoNotFound", {})

    def _repository(self, kind: str, name: str, revision: str | None) -> Repository:
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            raise _RefusalError(404 if self._token else 401, "RepoNotFound", {})
        commit = repository.at(revision)
        if commit is None:
            raise _RefusalError(404, "RevisionNotFound", {})
        return commit

    @property
    def _token(self) -> str | None:
        return self.headers.get("Authorization")

    def _file(self, repository: Repository, path: str, dropped: bool) -> None:
        headers = {"X-Repo-Commit": repository.sha, "Accept-Ranges": "bytes"}
        if repository.gated and not self._token:
            raise _RefusalError(401, "GatedRepo", {})
        if path not in repository.files:
            raise _RefusalError(404, "EntryNotFound", headers)
        status, data = 200, repository.files[path]
        headers["ETag"] = f'"{hashlib.sha1(data).hexdigest()}"'
        if match := re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range") or ""):
            begin, end = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            status, data = 206, data[begin : end + 1]
        self.close_connection = dropped
        if self.command != "HEAD":
            self.hub.bytes_sent += len(data)
        self.reply(data, status, headers, limit=len(data) // 2 if dropped else None)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at an address of its own on this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with local_server.serving(handler) as hub.url:
        yield hub
