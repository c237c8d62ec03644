"""The files of a data set, local or on the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from interlace.errors import InputError
from interlace.sources.hub import hub_errors
from interlace.sources.pinned import Pinned


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a pinned data set; bytes are fetched when they are read.

    Attributes:
        name: path below the data set's root, with forward slashes.
        place: where it is, for messages.
        size: bytes.
        digest: changes when the contents do.
        open: opens it for reading, unbuffered: nothing is read but what is asked for.
        local: whether it lies on this machine, or on a disk that looks like it.
    """

    name: str
    place: str
    size: int
    digest: str
    open: Callable[[], BinaryIO]
    local: bool = False


def data_files(pinned: Pinned, field: str = "data.id") -> list[DataFile]:
    """The Parquet files of a pinned data set, by name.

    Args:
        pinned: what `pin_data` returned.
        field: the parameter it was given by, for messages.

    Raises:
        InputError: the hub cannot be reached, or the repository holds no Parquet file.
    """
    if "files" in pinned:
        path = Path(pinned["id"])
        root = path.parent if path.is_file() else path
        return [
            DataFile(name, str(root / name), found["size"], found["sha256"],
                     partial((root / name).open, "rb", 0), local=True)
            for name, found in sorted(pinned["files"].items())
        ]  # fmt: skip
    from huggingface_hub import HfFileSystem

    hub, source, revision = HfFileSystem(), pinned["id"], pinned["revision"]
    root_name = f"datasets/{source}@{revision}"
    with hub_errors(field, source, revision):
        listed: Any = hub.find(root_name, detail=True)
    files = [
        DataFile(name.removeprefix(f"{root_name}/"), name.removeprefix("datasets/"), info["size"],
                 info["blob_id"], partial(hub.open, name, "rb", cache_type="none"))
        for name, info in sorted(listed.items())
        if name.endswith(".parquet")
    ]  # fmt: skip
    if not files:
        raise InputError(f"{field} = {source}: no .parquet file in this repository")
    return files
