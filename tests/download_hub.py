"""A hub to download from: data sets and models by range, revision and token, and its failures."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import local_server

_API = re.compile(
    r"^/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?$"
)
_FILE = re.compile(r"^/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


@dataclass
class Repository:
    """Files by name, as in the commit that `main` names; earlier commits are kept."""

    files: dict[str, bytes]
    gated: bool = False
    past: list[Repository] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def commit(self, files: dict[str, bytes]) -> None:
        """Put other files in the place of all, as the next commit."""
        self.past.append(Repository(self.files, self.gated))
        self.files = files

    def at(self, revision: str | None) -> Repository | None:
        """The repository as of a commit, if it has that."""
        if revision in (None, "main", self.sha):
            return self
        return next((commit for commit in self.past if commit.sha == revision), None)


@dataclass
class Hub:
    """What the server holds, what it has to do wrong, and what it was asked."""

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    faults: list[list[Any]] = field(default_factory=list)  # [part of the path, fault, times]
    requests: list[tuple[str, str]] = field(default_factory=list)  # method, path
    bytes_sent: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def dataset(self, name: str, files: dict[str, bytes], gated: bool = False) -> Repository:
        self.repositories["datasets", name] = Repository(files, gated)
        return self.repositories["datasets", name]

    def model(self, name: str, files: dict[str, bytes], gated: bool = False) -> Repository:
        self.repositories["models", name] = Repository(files, gated)
        return self.repositories["models", name]

    def fail(self, part: str, fault: str, times: int = 1) -> None:
        """Answer the next requests for paths with a part in it by "429", "500" or "drop"."""
        self.faults.append([part, fault, times])

    def fault_for(self, path: str) -> str | None:
        with self.lock:
            for fault in self.faults:
                if fault[0] in path and fault[2] > 0:
                    fault[2] -= 1
                    return str(fault[1])
        return None


class _Handler(local_server.Handler):
    hub: Hub

    def answer(self, path: str) -> None:
        self.hub.requests.append((self.command, path))
        fault = self.hub.fault_for(path)
        if fault == "429":
            limits = {"RateLimit": '"resolvers";r=0;t=3', "RateLimit-Policy": '"w";"r";q=5;w=300'}
            self.reply(b"slow down", 429, limits)
        elif fault == "500":
            self.reply(b"oops", 500)
        elif found := _API.match(path):
            self._api(*found.groups())
        elif found := _FILE.match(path):
            self._file(*found.groups(), dropped=fault == "drop")
        else:
            self._error(404, "RepoNotFound")

    def _repository(self, kind: str, name: str, revision: str | None) -> Repository | None:
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            self._error(401 if not self._token else 404, "RepoNotFound")
            return None
        found = repository.at(revision)
        if found is None:
            self._error(404, "RevisionNotFound")
        return found

    @property
    def _token(self) -> str | None:
        return self.headers.get("Authorization")

    def _api(self, kind: str, name: str, what: str | None, revision: str, below: str) -> None:
        repository = self._repository(kind, name, revision)
        if repository is None:
            return
        if what in (None, "revision"):
            listed = [{"rfilename": file} for file in sorted(repository.files)]
            state = {"gated": "auto" if repository.gated else False, "private": False}
            tags = {"tags": [], "downloads": 0, "likes": 0, "createdAt": "2024-01-01T00:00:00.000Z"}
            known = {"_id": "0", "id": name, "sha": repository.sha, "siblings": listed}
            self.reply(known | state | tags)
        elif what == "tree":
            inside = {file: file.startswith(f"{below}/") for file in repository.files}
            if below and not any(inside.values()):
                self._error(404, "EntryNotFound")
                return
            files = [file for file in repository.files if not below or inside[file]]
            folders = {
                file.rsplit("/", n)[0] for file in files for n in range(1, file.count("/") + 1)
            }
            entries = [
                self._entry(repository, path) for path in sorted({*files, *folders} - {below})
            ]
            if "recursive=true" not in self.path.lower():
                depth = below.count("/") + 1 if below else 0
                entries = [entry for entry in entries if entry["path"].count("/") == depth]
            self.reply(entries)
        else:
            asked = json.loads(self.body)["paths"]
            folders = {path.rsplit("/", n)[0] for path in repository.files
                       for n in range(1, path.count("/") + 1)}  # fmt: skip
            known = [path for path in asked if path in repository.files or path in folders]
            entries = [self._entry(repository, path) for path in known]
            self.reply(entries)

    def _entry(self, repository: Repository, path: str) -> dict[str, Any]:
        if path not in repository.files:
            return {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
        data = repository.files[path]
        oid = hashlib.sha1(data).hexdigest()
        return {"type": "file", "oid": oid, "size": len(data), "path": path}

    def _file(self, kind: str | None, name: str, revision: str, path: str, dropped: bool) -> None:
        repository = self._repository("datasets" if kind else "models", name, revision)
        if repository is None:
            return
        if repository.gated and not self._token:
            self._error(401, "GatedRepo")
            return
        if path not in repository.files:
            self._error(404, "EntryNotFound", {"X-Repo-Commit": repository.sha})
            return
        data = repository.files[path]
        etag = hashlib.sha1(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repository.sha, "Accept-Ranges": "bytes"}
        status = 200
        if asked := re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range") or ""):
            begin, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            status, data = 206, data[begin : end + 1]
        self.close_connection = dropped
        if self.command != "HEAD":
            self.hub.bytes_sent += len(data)
        self.reply(data, status, headers, limit=len(data) // 2 if dropped else None)

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        codes = {"X-Error-Code": code, "X-Error-Message": code}
        self.reply(b"", status, codes | (headers or {}))


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at an address of its own on this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with local_server.serving(handler) as hub.url:
        yield hub
