"""Pin the model and the data: ids, revisions, file hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import IO

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.companions import files_read
from interlace.errors import InputError
from interlace.model.files import CONFIG, check_weights
from interlace.model.kinds import layer_kinds
from interlace.sources.files import checked_file, parquet_files
from interlace.sources.hub import hub_errors, hub_snapshot
from interlace.sources.pinned import Files, PinnedData, PinnedFile, PinnedModel
from interlace.system.resumable import intact, keep_json


def looks_local(source: str) -> bool:
    """Return true for a path on this machine, false for the id of a repository on the hub."""
    path = Path(source)
    return (
        os.path.lexists(path)
        or path.is_absolute()
        or source.startswith(".")
        or source.count("/") != 1
    )


def open_checkpoint(
    source: Path | str, revision: str | None = None, *, trust_remote_code: bool = False
) -> Checkpoint:
    """Return a checkpoint, fetched from the hub if it has to be.

    Args:
        source: hub id or local folder.
        revision: hub revision; `None`: the newest.
        trust_remote_code: let the model's own code run.

    Raises:
        InputError: no such folder or repository, or weights that cannot be pruned.
    """
    if isinstance(source, Path) or looks_local(source):
        if not os.path.isdir(source):
            raise InputError(f"model = {source}: no such folder")
        return Checkpoint(Path(source), trust_remote_code)
    checkpoint = Checkpoint(hub_snapshot(source, revision, "model", None), trust_remote_code)
    checkpoint.check()
    return checkpoint


def pin_model(
    source: str, revision: str | None, *, hashes: Path, trust_remote_code: bool = False
) -> PinnedModel:
    """Pin a checkpoint.

    Args:
        source: hub id or local folder.
        revision: hub revision; a local folder has none.
        hashes: file that remembers hashes of unchanged local files.
        trust_remote_code: let the model's own code run in later stages.

    Raises:
        InputError: no such folder or repository, not a supported model, or weights
            that are pickled or incomplete.
    """
    local = looks_local(source)
    if local and not (os.path.isdir(source) and os.access(source, os.R_OK | os.X_OK)):
        raise InputError(f"model.id = {source}: no such folder")
    folder = Path(source) if local else hub_snapshot(source, revision, "model", [CONFIG])
    checkpoint = Checkpoint(folder, trust_remote_code)
    architecture = checkpoint.architecture
    if not local:
        _check_hub_weights(source, folder.name)
    return PinnedModel(
        id=source,
        trust_remote_code=trust_remote_code,
        files=_hashed(_model_files(checkpoint), folder, hashes) if local else None,
        revision=None if local else folder.name,
        model_type=architecture.model_type,
        n_layers=architecture.n_layers,
        deepstack_layers=architecture.deepstack_layers,
        layer_kinds=layer_kinds(
            checkpoint.config, architecture.n_layers, str(checkpoint.config_file)
        ),
    )


def pin_checkpoint(checkpoint: Checkpoint, root: Path) -> PinnedModel:
    """Pin a checkpoint on this machine; `root` is the folder that remembers hashes.

    Raises:
        InputError: see `pin_model`.
    """
    return pin_model(
        str(checkpoint.folder),
        None,
        hashes=root / "hashes.json",
        trust_remote_code=checkpoint.trust_remote_code,
    )


def _model_files(checkpoint: Checkpoint) -> list[Path]:
    """Return all files that matter, and refuse weights that are not all there."""
    weights = sorted({tensor.path for tensor in checkpoint.tensors.values()})
    return files_read(
        checkpoint.folder,
        weights,
        with_images=checkpoint.architecture.takes_images,
        trust_remote_code=checkpoint.trust_remote_code,
    )


def _check_hub_weights(source: str, revision: str) -> None:
    """Refuse a repository without safetensors weights before anything large is fetched."""
    from huggingface_hub import HfApi, errors

    try:
        listed = HfApi().model_info(source, revision=revision).siblings or ()
    except (errors.HTTPError, OSError):  # type: ignore[attr-defined]
        return  # the hub's cache serves; `PinnedModel.checkpoint` looks at what is in it
    check_weights(f"model.id = {source}", [file.rfilename for file in listed])


def pin_data(source: str, revision: str | None, *, field: str, hashes: Path) -> PinnedData:
    """Pin a data set in Parquet.

    Args:
        source: hub id, or local file or folder.
        revision: hub revision; a local path has none.
        field: the parameter that names it, for messages.
        hashes: file that remembers hashes of unchanged local files.

    Raises:
        InputError: no such path or repository, or no Parquet file in it.
    """
    if looks_local(source):
        path = Path(source)
        if not os.path.lexists(path):
            raise InputError(f"{field} = {source}: no such file or folder")
        files = parquet_files(path) if path.is_dir() else [checked_file(path)]
        if not files:
            raise InputError(f"{field} = {source}: no .parquet file in this folder")
        root = path.parent if path.is_file() else path
        return PinnedData(id=source, files=_hashed(files, root, hashes))
    from huggingface_hub import HfApi

    with hub_errors(field, source, revision):
        commit = HfApi().dataset_info(source, revision=revision).sha
        return PinnedData(id=source, revision=commit)


def _hashed(files: list[Path], root: Path, remembered: Path) -> Files:
    """Hash files; those of unchanged size and time are not read again."""
    hashes: dict[str, str] = json.loads(remembered.read_bytes()) if intact(remembered) else {}
    records = {}
    for path in files:
        stat = path.stat()
        key = f"{os.path.realpath(path)}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in hashes:
            with path.open("rb") as file:
                hashes[key] = _sha256(file)
        name = path.relative_to(root).as_posix()
        records[name] = PinnedFile(size=stat.st_size, sha256=hashes[key])
    keep_json(remembered, hashes)
    return records


def _sha256(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
