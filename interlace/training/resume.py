"""Resume points: the state of the tuned layers after an update, to resume an interrupted run from.

A point is a folder `point-STEP`: safetensors files with the tuned layers' weights and moments,
gathered from all processes, so that a run can resume with another number of them; and `point.json`,
with all updates so far and the digest of each file. It holds no pickle. Frozen
weights, random states and the position in the data are not stored: they follow from the step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor

from interlace.errors import InputError
from interlace.system.outputs import remove, whole

MAX_POINTS = 2  # on disk: the newest, and the one before in case the newest is damaged
RECORD, RECORD_DIGEST = "point.json", "point.sha256"


class Update(BaseModel):
    """The record of one update.

    Attributes:
        step: its number, from 1.
        learning_rate: its learning rate.
        tokens: tokens seen so far, without padding, over all processes.
        values: what was measured on it, by name: the loss, a norm, an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    learning_rate: float
    tokens: int
    values: dict[str, float]


class _Record(BaseModel):
    """The content of `point.json`; `files` maps the tensor files to their sha256 digests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    updates: tuple[Update, ...]
    files: dict[str, str]


@dataclass(frozen=True)
class Point:
    """A state to resume from.

    Attributes:
        folder: its folder.
        updates: all updates so far.
        files: names of its tensor files.
    """

    folder: Path
    updates: tuple[Update, ...]
    files: tuple[str, ...]

    @property
    def step(self) -> int:
        """The number of updates so far."""
        return len(self.updates)

    @classmethod
    def read(cls, folder: Path, *, verify: bool) -> Point:
        """Open a point.

        Args:
            folder: its folder.
            verify: compare the digests of all files.

        Raises:
            OSError: a file is missing.
            ValueError: a file is damaged.
        """
        if verify and _digest(folder / RECORD) != (folder / RECORD_DIGEST).read_text("utf-8"):
            raise ValueError(f"{RECORD} differs from what was written")
        text = (folder / RECORD).read_text(encoding="utf-8")
        record = _Record.model_validate(json.loads(text))
        for name, digest in record.files.items() if verify else ():
            if _digest(folder / name) != digest:
                raise ValueError(f"{name} differs from what was written")
        return cls(folder, record.updates, tuple(record.files))

    def tensors(self) -> Iterator[dict[str, Tensor]]:
        """Yield the state, one file at a time."""
        for name in self.files:
            yield load_file(self.folder / name)


def point_folder(scratch: Path, step: int) -> Path:
    """Return the folder of the point after an update."""
    return scratch / f"point-{step}"


def write_point(
    scratch: Path, states: Iterable[Mapping[str, Tensor]], updates: Sequence[Update]
) -> None:
    """Write a point beside the others, then delete the oldest ones.

    Args:
        scratch: folder of all points.
        states: tensors of each file; only one file's are in memory at a time.
        updates: all updates so far.

    Raises:
        InputError: it could not be written. Earlier points stay as they were.
    """
    folder = point_folder(scratch, len(updates))
    with whole(folder) as partial:
        try:
            _write(partial, states, updates)
        except Exception as error:  # safetensors raises its own kind for a full disk
            if not _concerns_files(error):
                raise
            raise InputError(
                f"{folder}: cannot be written ({error}); free disk space and run the stage again,"
                f" it resumes from {_last(scratch)}"
            ) from None
    for outdated in sorted_points(scratch)[MAX_POINTS:]:
        remove(outdated)


def _write(folder: Path, states: Iterable[Mapping[str, Tensor]], updates: Sequence[Update]) -> None:
    folder.mkdir()
    digests = {}
    for number, tensors in enumerate(states):
        path = folder / f"layer-{number}.safetensors"
        save_file(dict(tensors), path)
        digests[path.name] = _digest(path)
    record = _Record(updates=tuple(updates), files=digests)
    (folder / RECORD).write_text(json.dumps(record.model_dump()), encoding="utf-8")
    (folder / RECORD_DIGEST).write_text(_digest(folder / RECORD), encoding="utf-8")


def newest_point(scratch: Path) -> tuple[Point | None, list[str]]:
    """Return the newest undamaged point, and a message for each damaged one after it."""
    damages: list[str] = []
    for folder in sorted_points(scratch):
        try:
            return Point.read(folder, verify=True), damages
        except (OSError, ValueError) as error:
            damages.append(f"{folder}: damaged ({error!r}); resuming from the one before it")
    return None, damages


def sorted_points(scratch: Path) -> list[Path]:
    """Return the folders of all points, the newest first."""
    folders = (path for path in scratch.glob("point-*") if path.name[6:].isdecimal())
    return sorted(folders, key=lambda path: -int(path.name[6:]))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _concerns_files(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__name__ == "SafetensorError"


def _last(scratch: Path) -> str:
    points = sorted_points(scratch)
    return points[0].name if points else "the start"
