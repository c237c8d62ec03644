"""Pin and open what comes from outside: the model and the data.

A source is a hub id or a local path. Pinning turns it into a small record, a hub revision or the
sizes and hashes of local files, that changes exactly when the contents do.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

from interlace.errors import InputError
from interlace.families import architecture
from interlace.outputs import write_json

Pinned = dict[str, Any]


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
        InputError: not to be found, not a supported vision-language model, or pickled weights.
    """
    pinned: Pinned = {"id": source, "trust_remote_code": trust_remote_code}
    local = looks_local(source)
    if local and not Path(source).is_dir():
        raise InputError(f"model.id = {source}: no such folder")
    only_config = ["config.json"]
    folder = Path(source) if local else _hub_snapshot(source, revision, "model", only_config)
    config = folder / "config.json"
    arch = architecture(_read_config(config), str(config))
    if local:
        pinned["files"] = _hashed(_model_files(folder), folder, hashes)
    else:
        pinned["revision"] = folder.name
    return pinned | {
        "model_type": arch.model_type,
        "n_layers": arch.n_layers,
        "deepstack_layers": arch.deepstack_layers,
    }


def _model_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        pickled = next(
            (path.name for path in files if path.suffix in (".bin", ".pt", ".pth")), None
        )
        way = (
            f"{pickled} is pickled and is not read; load it where you trust it and"
            " save_pretrained(safe_serialization=True)"
            if pickled
            else "copy the checkpoint's .safetensors files there"
        )
        raise InputError(f"{folder}: no .safetensors weights: {way}")
    if not {path.name for path in files} & {"processor_config.json", "preprocessor_config.json"}:
        raise InputError(
            f"{folder}: no processor_config.json; copy the processor's files there too"
        )
    for path in files:
        if path.suffix == ".safetensors":
            tensor_offsets(path)
    return files


def tensor_offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor lies in a safetensors file: begin and end, bytes, by name.

    Raises:
        InputError: the file is damaged or cut short.
    """
    return {name: tuple(entry["data_offsets"]) for name, entry in _header(path).items()}


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Shapes of the tensors in a safetensors file, by name; no weight is read.

    Raises:
        InputError: the file is damaged or cut short.
    """
    return {name: entry["shape"] for name, entry in _header(path).items()}


def _header(path: Path) -> dict[str, Any]:
    """What a safetensors file says about its tensors, checked against its size."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        found = {k: v for k, v in header.items() if k != "__metadata__"}
        last = max((entry["data_offsets"][1] for entry in found.values()), default=0)
        if last + 8 + length != path.stat().st_size:
            raise ValueError("the file is cut short")
        for entry in found.values():
            math.prod(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); copy it again") from None
    return found


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path.parent}: no config.json; is this a model folder?")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable configuration: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a configuration: expected keys and values")
    return config


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


def model_folder(pinned: Pinned) -> Path:
    """The local folder of a pinned model, fetched from the hub if it has to be."""
    if "files" in pinned:
        return Path(pinned["id"])
    return _hub_snapshot(pinned["id"], pinned["revision"], "model", None)


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a pinned data set; bytes are fetched when they are read.

    Attributes:
        name: path below the data set's root, with forward slashes.
        place: where it is, for messages.
        size: bytes.
        digest: changes when the contents do.
        open: opens it for reading, unbuffered: nothing is read but what is asked for.
    """

    name: str
    place: str
    size: int
    digest: str
    open: Callable[[], BinaryIO]


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
                     partial((root / name).open, "rb", 0))
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


def open_model(folder: Path | str, *, dtype: str = "auto", trust_remote_code: bool = False) -> Any:
    """Open a checkpoint for inference, on this process's GPU or, where there is none, the CPU.

    Args:
        folder: a stock Hugging Face checkpoint.
        dtype: float32, bfloat16 or float16; auto: bfloat16 on a GPU, float32 on a CPU.
        trust_remote_code: let the model's own code run.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    on_gpu = torch.cuda.is_available()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu"
    auto = "bfloat16" if on_gpu else "float32"
    model = AutoModelForImageTextToText.from_pretrained(
        str(folder),
        dtype=getattr(torch, auto if dtype == "auto" else dtype),
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )
    return model.to(device).eval()


def _hub_snapshot(source: str, revision: str | None, field: str, patterns: Any) -> Path:
    from huggingface_hub import snapshot_download

    ignored = ["*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.onnx"]
    with hub_errors(f"{field}.id", source, revision):
        return Path(
            snapshot_download(
                source, revision=revision, allow_patterns=patterns, ignore_patterns=ignored
            )
        )


@contextmanager
def hub_errors(field: str, source: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's clients raise into one line.

    Args:
        field: the parameter that named the source.
        source: hub id.
        revision: as it was asked for.

    Raises:
        InputError: what is wrong, and the way out.
    """
    from huggingface_hub import errors

    where = f"{field} = {source}" + (f" (revision {revision})" if revision else "")
    try:
        yield
    except errors.GatedRepoError:
        raise InputError(
            f"{where}: access is restricted; ask for it on the hub, then run `hf auth login`"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise InputError(f"{where}: no such repository, and no such local path") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{where}: the repository has no such revision") from None
    except errors.HfHubHTTPError as error:
        raise InputError(
            f"{where}: the hub answered {error.response.status_code}; try again later, and log in"
            " with `hf auth login` where it asks for that or limits your rate"
        ) from None
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise InputError(
            f"{where}: not a local path, and the hub cannot be reached ({type(error).__name__});"
            " connect, or point the parameter at a local copy"
        ) from None


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
