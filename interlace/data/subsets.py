"""Subsets of a data set: gather files into them, select some, check their columns.

A subset is a folder of Parquet files, as on the hub, or a file outside of any folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from interlace.data.files import DataFile, data_files, open_parquet
from interlace.errors import InputError, did_you_mean, nearest_name
from interlace.params.inputs import Data
from interlace.samples.parquet import check_footers, readable
from interlace.sources.hub import hub_errors
from interlace.sources.pinned import PinnedData
from interlace.system.resumable import keep_json, read_digests

_SHARD = re.compile(r"(-\d+-of-\d+)?\.parquet$")
_OTHER_SPLITS = re.compile(r"(^|/)(test|val|valid|validation|dev)(/|[-.]|_\d)")


@dataclass(frozen=True)
class Subset:
    """Files that are drawn from together, in the order of their names."""

    name: str
    files: tuple[DataFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def subsets_of(files: Iterable[DataFile]) -> list[Subset]:
    """Gather files into subsets, by name.

    Files of a test or validation split are skipped if the data set has others.
    """
    sorted_files = sorted(files, key=lambda file: file.name)
    training = [file for file in sorted_files if not _OTHER_SPLITS.search(file.name)]
    members: dict[str, list[DataFile]] = {}
    for file in training or sorted_files:
        folder, _, name = file.name.partition("/")
        members.setdefault(folder if name else _SHARD.sub("", file.name), []).append(file)
    return [Subset(name, tuple(members[name])) for name in sorted(members)]


def selected_subsets(files: Iterable[DataFile], data: Data) -> list[Subset]:
    """Return the subsets in `data.subsets`, or all if it is empty.

    Raises:
        InputError: `data.subsets` or `data.weights` names a subset that the data set does not have.
    """
    subsets = {subset.name: subset for subset in subsets_of(files)}
    for field, names in (("subsets", data.subsets), ("weights", tuple(data.weights))):
        for name in names:
            if name not in subsets:
                first = ", ".join(list(subsets)[:8]) + (", ..." if len(subsets) > 8 else "")
                near = did_you_mean(nearest_name(name, subsets))
                hint = near.rstrip() or f"there are {first}"
                raise InputError(f"data.{field}: {data.id} has no subset {name!r}; {hint}")
    return [subsets[name] for name in sorted(data.subsets or subsets)]


def check_subsets(pinned: PinnedData, data: Data, *, checked: Path) -> None:
    """Check the subsets and columns of a pinned data set before any long work.

    All files of a local data set are opened; on the hub, the first file of each subset.

    Args:
        pinned: as `pin_data` returns it.
        data: names the subsets.
        checked: file of the digests that passed earlier.

    Raises:
        InputError: names the subset, or the file and the column.
    """
    local = pinned.files is not None
    digests = read_digests(checked)
    unchecked = [
        file
        for subset in selected_subsets(data_files(pinned), data)
        for file in subset.files[: None if local else 1]
        if file.digest not in digests
    ]
    if local:
        check_footers([Path(file.location) for file in unchecked])
    errors = nullcontext() if local else hub_errors("data.id", pinned.id, pinned.revision)
    with errors, ThreadPoolExecutor(data.workers) as pool:
        list(pool.map(_check, unchecked))
    if unchecked:
        keep_json(checked, sorted(digests | {file.digest for file in unchecked}))


def _check(file: DataFile) -> None:
    with readable(file.location, disk=file.local), open_parquet(file):
        pass
