"""Where an interrupted training goes on: the state of the tuned layers after some update.

A point is a folder `point-STEP`: one safetensors file per tuned layer, gathered from all processes,
so that a run can go on with another number of them; and `point.json`, written last, with the
record of every update and the digest of every file. Nothing in it is a pickle. Frozen weights are
not in it, and neither are random states and the place in the data: both follow from the step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from interlace.errors import InputError
from interlace.outputs import remove, whole

KEPT = 2  # points on disk: the newest, and the one before it in case the newest is damaged
RECORD = "point.json"


@dataclass(frozen=True)
class Point:
    """A state to go on from.

    Attributes:
        folder: where it lies.
        step: updates done.
        updates: what is known of each update so far.
        files: names of its tensor files.
    """

    folder: Path
    step: int
    updates: list[list[Any]]
    files: list[str]

    @classmethod
    def read(cls, scratch: Path, step: int) -> Point:
        """Open a point that was found whole."""
        folder = scratch / f"point-{step}"
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return cls(folder, record["step"], record["updates"], list(record["files"]))

    def tensors(self) -> Iterable[dict[str, Tensor]]:
        """The state, a layer at a time."""
        for name in self.files:
            yield load_file(self.folder / name)


def write_point(
    scratch: Path,
    step: int,
    layers: Iterable[Mapping[str, Tensor]],
    *,
    updates: Sequence[Sequence[Any]],
) -> None:
    """Write a point beside the others, then delete those that are too old.

    Args:
        scratch: folder of all points.
        step: updates done.
        layers: state of each tuned layer by name; only one is held at a time.
        updates: what is known of each update so far, as plain values.

    Raises:
        InputError: it could not be written. Earlier points are as they were.
    """
    folder = scratch / f"point-{step}"
    with whole(folder) as partial:
        try:
            _write(partial, step, layers, updates)
        except Exception as error:  # safetensors raises its own kind for a full disk
            if not _is_about_files(error):
                raise
            raise InputError(
                f"{folder}: cannot be written ({error}); make room and run the stage again, it goes"
                f" on from {_last(scratch)}"
            ) from None
    for old in sorted_points(scratch)[KEPT:]:
        remove(old)


def _write(
    folder: Path,
    step: int,
    layers: Iterable[Mapping[str, Tensor]],
    updates: Sequence[Sequence[Any]],
) -> None:
    folder.mkdir()
    digests = {}
    for number, tensors in enumerate(layers):
        path = folder / f"layer-{number}.safetensors"
        save_file(dict(tensors), path)
        digests[path.name] = _digest(path)
    record = {"step": step, "updates": [list(u) for u in updates], "files": digests}
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")


def newest_point(scratch: Path) -> tuple[Point | None, list[str]]:
    """The newest point that is whole, and what is wrong with those after it."""
    damages: list[str] = []
    for folder in sorted_points(scratch):
        try:
            return _checked(folder), damages
        except (OSError, ValueError, KeyError, TypeError) as error:
            damages.append(f"{folder}: damaged ({error!r}); going on from the one before it")
    return None, damages


def sorted_points(scratch: Path) -> list[Path]:
    """Folders of points, the newest first."""
    return sorted(scratch.glob("point-*"), key=lambda path: -int(path.name.split("-")[1]))


def _checked(folder: Path) -> Point:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    for name, digest in record["files"].items():
        if _digest(folder / name) != digest:
            raise ValueError(f"{name} is not what was written")
    return Point.read(folder.parent, record["step"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_about_files(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__name__ == "SafetensorError"


def _last(scratch: Path) -> str:
    points = sorted_points(scratch)
    return points[0].name if points else "the start"
