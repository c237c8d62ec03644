"""Pin the model and the data: ids, revisions, file hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

from interlace.checkpoint.safetensors import check_weights, checkpoint_tensors
from interlace.errors import InputError
from interlace.model.families import architecture, read_config
from interlace.outputs import write_json
from interlace.sources.hub import _hub_snapshot, hub_errors
from interlace.sources.pinned import Pinned


def looks_local(source: str) -> bool:
    """Whether a source names a place on this machine rather than a repository on the hub."""
    path = Path(source)
    return path.exists() or path.is_absolute() or source.startswith(".") or source.count("/") != 1


def pin_model(
    source: str, revision: str | None, *, hashes: Path, trust_remote_code: bool = False
) -> Pinned:
    """Pin a checkpoint.

    Args:
        source: hub id or local folder.
        revision: hub revision; a local folder has none.
        hashes: file that remembers hashes of unchanged local files.
        trust_remote_code: whether the model's own code may run later on.

    Returns:
        id, revision or files (name -> size and sha256), and the decoder's architecture.

    Raises:
        InputError: not to be found, not a supported vision-language model, or weights that are
            pickled or not all there.
    """
    pinned: Pinned = {"id": source, "trust_remote_code": trust_remote_code}
    local = looks_local(source)
    if local and not Path(source).is_dir():
        raise InputError(f"model.id = {source}: no such folder")
    only_config = ["config.json"]
    folder = Path(source) if local else _hub_snapshot(source, revision, "model", only_config)
    config = folder / "config.json"
    arch = architecture(read_config(config), str(config))
    if local:
        pinned["files"] = _hashed(_model_files(folder), folder, hashes)
    else:
        pinned["revision"] = folder.name
        _check_hub_weights(source, folder.name)
    return pinned | {
        "model_type": arch.model_type,
        "n_layers": arch.n_layers,
        "deepstack_layers": arch.deepstack_layers,
    }


def _model_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    checkpoint_tensors(folder)
    if not {path.name for path in files} & {"processor_config.json", "preprocessor_config.json"}:
        raise InputError(
            f"{folder}: no processor_config.json; copy the processor's files there too"
        )
    return files


def _check_hub_weights(source: str, revision: str) -> None:
    """Refuse a repository without safetensors weights before anything large is fetched."""
    from huggingface_hub import HfApi, errors

    try:
        listed = HfApi().model_info(source, revision=revision).siblings or ()
    except (errors.HTTPError, OSError):  # type: ignore[attr-defined]
        return  # the hub's cache serves; `model_folder` looks at what is in it
    check_weights(f"model.id = {source}", [file.rfilename for file in listed])


def pin_data(source: str, revision: str | None, *, field: str, hashes: Path) -> Pinned:
    """Pin a data set in Parquet.

    Args:
        source: hub id, or local file or folder.
        revision: hub revision; a local path has none.
        field: the parameter it was given by, for messages.
        hashes: file that remembers hashes of unchanged local files.

    Raises:
        InputError: not to be found, or no Parquet file in it.
    """
    if looks_local(source):
        path = Path(source)
        if not path.exists():
            raise InputError(f"{field} = {source}: no such file or folder")
        files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
        if not files:
            raise InputError(f"{field} = {source}: no .parquet file in this folder")
        root = path.parent if path.is_file() else path
        return {"id": source, "files": _hashed(files, root, hashes)}
    from huggingface_hub import HfApi

    with hub_errors(field, source, revision):
        return {"id": source, "revision": HfApi().dataset_info(source, revision=revision).sha}


def _hashed(files: list[Path], root: Path, remembered: Path) -> dict[str, dict[str, Any]]:
    """Sizes and sha256 of files by name; unchanged ones (size, time) are not read again."""
    try:
        known: dict[str, str] = json.loads(remembered.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    found = {}
    for path in files:
        stat = path.stat()
        key = f"{os.path.realpath(path)}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in known:
            with path.open("rb") as file:
                known[key] = _sha256(file)
        name = path.relative_to(root).as_posix()
        found[name] = {"size": stat.st_size, "sha256": known[key]}
    write_json(remembered, known)
    return found


def _sha256(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
