"""The files that make a checkpoint: the weights as transformers chooses them, and links."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from interlace.errors import InputError

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_ADAPTER = "adapter_config.json"


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file of a checkpoint that holds keys and values.

    Raises:
        InputError: it is not there, is no file, or holds something else.
    """
    check_file(path.parent, path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable JSON: {error}; copy it again") from None
    except RecursionError:
        raise InputError(f"{path}: not readable JSON: nested too deeply; copy it again") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: not keys and values, but a {type(content).__name__}; copy it again"
        )
    return content


def check_file(folder: Path, path: Path) -> None:
    """Refuse what is not a file of a checkpoint's folder, of the hub's cache or of DVC's.

    Args:
        folder: the checkpoint.
        path: the file in it, or a link to one.

    Raises:
        InputError: nothing is there, a folder or a pipe is, the file may not be read, or the path
            leads elsewhere.
    """
    try:
        target = path.resolve(strict=True)
        root = folder.resolve()
    except FileNotFoundError:
        fault = "links to a file that is not there" if path.is_symlink() else "no such file"
        raise InputError(f"{path}: {fault}; copy it again") from None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be reached ({reason}); copy it again") from None
    if not target.is_file():
        raise InputError(f"{path}: not a file, but a folder, a pipe or a device; copy it again")
    if not (target.is_relative_to(root) or _in_cache(target)):
        raise InputError(
            f"{path}: leads out of the folder, to {target}; copy that file into the folder"
        )
    if not os.access(target, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions")


def _in_cache(target: Path) -> bool:
    """Return true for a file in a cache by content: the hub's blobs, DVC's files by MD5."""
    folder = target.parent
    hub = folder.name == "blobs" and folder.parent.name.startswith(("models--", "datasets--"))
    return hub or (folder.parent.name == "md5" and folder.parent.parent.name == "files")


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights that transformers opens in a folder, in the order it does.

    It takes model.safetensors where that is there, else the files that the index names.

    Raises:
        InputError: no safetensors weights, an index that transformers cannot read, files elsewhere,
            or more than one model in the folder.
    """
    names = sorted(path.name for path in folder.iterdir())
    _refuse_other_weights(folder, names)
    for name in {SINGLE, INDEX} & set(names):
        check_file(folder, folder / name)
    if SINGLE in names:
        return [folder / SINGLE]
    check_weights(str(folder), names)
    return [folder / name for name in sorted(set(read_index(folder).values()))]


def _refuse_other_weights(folder: Path, names: Iterable[str]) -> None:
    """Refuse what transformers would read beside or in place of the usual files."""
    for name in names:
        if name == _ADAPTER:
            raise InputError(
                f"{folder / name}: transformers would add this adapter to the weights; merge it"
                " into them, or move its files elsewhere"
            )
        if _DISTRIBUTED.fullmatch(name):
            raise InputError(
                f"{folder / name}: transformers would read this part of a distributed checkpoint;"
                " load the model with transformers and save_pretrained it"
            )
    if CONFIG in names and (
        weights_name := read_object(folder / CONFIG).get("transformers_weights")
    ):
        raise InputError(
            f"{folder / CONFIG}: transformers_weights = {weights_name!r} names other weights than"
            f" {SINGLE}; rename the file, and remove the key"
        )


def read_index(folder: Path) -> dict[str, str]:
    """Read the index of a checkpoint in several files: the file of each tensor.

    Raises:
        InputError: transformers cannot read it, or it names a file that cannot be used.
    """
    index = folder / INDEX
    content = read_object(index)
    if not isinstance(content.get("metadata"), dict):
        raise InputError(
            f"{index}: not a readable index: no metadata, which transformers needs; add"
            ' "metadata": {}, or copy it again'
        )
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: not a readable index: weight_map is empty; copy it again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            raise InputError(
                f"{index}: not a readable index: {name} lies in {file!r}, which is no .safetensors"
                " file; copy it again"
            )
    for file in sorted(set(weight_map.values())):
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise InputError(f"{index}: names {file}, no path below the folder; copy it there")
        try:
            check_file(folder, folder / file)
        except InputError as error:
            raise InputError(f"{index}: names {file}: {error}") from None
    return weight_map


def check_weights(checkpoint: str, files: Iterable[str]) -> None:
    """Refuse a checkpoint without readable weights, by the names of its files.

    Args:
        checkpoint: its folder or parameter, for the message.
        files: names of the files in its folder.

    Raises:
        InputError: names the weights that are there instead, and the way out.
    """
    names = set(files)
    if names & {SINGLE, INDEX}:
        return
    pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")))
    if shards := sorted(name for name in names if name.endswith(".safetensors")):
        fault = f"{shards[0]} is there, but neither {SINGLE} nor {INDEX}, which says what is where"
        remedy = "; copy the missing file"
    elif pickled:
        fault = f"no .safetensors weights: {pickled[0]} is pickled and is not read"
        remedy = "; load it where you trust it, and save_pretrained writes .safetensors"
    else:
        fault, remedy = (
            "no .safetensors weights",
            ": copy the checkpoint's .safetensors files there",
        )
    raise InputError(f"{checkpoint}: {fault}{remedy}")
