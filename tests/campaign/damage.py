"""Ways to harm a file: as bytes, as JSON."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def _flip(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data)) if data else 0
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _zeros(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(max(1, len(data)))
    size = min(len(data) - place, rng.randrange(1, 200))
    return data[:place] + bytes(size) + data[place + size :]


HALVES: dict[str, Callable[[bytes, random.Random], bytes]] = {  # no user means these
    "empty": lambda data, rng: b"",
    "half": lambda data, rng: data[: len(data) // 2],
    "tail lost": lambda data, rng: data[: -rng.randrange(1, 1 + min(64, max(1, len(data) - 1)))],
    "garbage": lambda data, rng: rng.randbytes(len(data)),
    "pointer": lambda data, rng: POINTER,
}
BYTES = HALVES | {
    "flip": _flip,
    "zeros": _zeros,
    "appended": lambda data, rng: data + rng.randbytes(rng.randrange(1, 50)),
}
PLACES = ("missing", "folder", "dangling link")  # instead of the file

VALUES: tuple[Any, ...] = (
    *(None, "", "abc", "7", -1, 0, 1, 2, 3, 1.5, -0.5, True, False, [], {}, [1], [None]),
    *({"a": 1}, 2**40, 1e300, float("nan"), float("inf"), "[b]x[/b]", "x" * 300, ["a", "b"]),
)


def harm(path: Path, how: str, rng: random.Random) -> None:
    """Harm a file in one of the ways of `BYTES` or `PLACES`."""
    data = path.read_bytes()
    path.unlink()
    if how in BYTES:
        path.write_bytes(BYTES[how](data, rng))
    elif how == "folder":
        path.mkdir()
    elif how == "dangling link":
        path.symlink_to("nowhere")


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in JSON, sections included."""
    if place:
        yield place
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = list(enumerate(value))[:3]
    for key, child in items:
        yield from leaves(child, (*place, key))


def harm_json(path: Path, rng: random.Random) -> str:
    """Change one value of a JSON file, or delete or rename its key; return what was done."""
    values = json.loads(path.read_text())
    places = list(leaves(values))
    how = rng.choice(["set", "set", "set", "set", "delete", "rename"])
    place = rng.choice(places) if places else ()
    words = ".".join(map(str, place))
    if not place:
        values, text = (changed := rng.choice(VALUES)), f"all = {json.dumps(changed)[:40]}"
    else:
        parent = values
        for key in place[:-1]:
            parent = parent[key]
        if how == "set":
            parent[place[-1]] = changed = rng.choice(VALUES)
            text = f"{words} = {json.dumps(changed)[:40]}"
        else:
            child = parent.pop(place[-1])
            if how == "rename" and isinstance(parent, dict):
                parent[f"{place[-1]}x"] = child
            text = f"{how} {words}"
    path.unlink()
    path.write_text(json.dumps(values, indent=2))
    return text


def made_writable(folder: Path) -> None:
    """Let all files of a project be written; dvc's are links to its cache, read-only."""
    for path in [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]:
        path.chmod(path.stat().st_mode | 0o200)


def replaced(path: Path, source: Path) -> None:
    """Put a copy of another file or folder at a path."""
    if path.is_dir():
        shutil.rmtree(path)
    shutil.copyfile(source, path)
