"""Pin and open what comes from outside: the model and the data.

A source is a hub id or a local path. Pinning turns it into a small record, a hub revision or the
sizes and hashes of local files, that changes exactly when the contents do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
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
from interlace.safetensors_files import check_weights, checkpoint_tensors

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


def read_config(path: Path) -> dict[str, Any]:
    """Read a model's config.json.

    Raises:
        InputError: it is missing or not readable.
    """
    if not path.is_file():
        raise InputError(f"{path.parent}: no config.json; is this a model folder?")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable configuration: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a configuration: expected keys and values")
    return config


def identity(pinned: Pinned) -> dict[str, str]:
    """Which model it is: its id, and its revision or, of a local folder, a hash of its files'."""
    files = json.dumps(pinned.get("files"), sort_keys=True)
    revision = pinned.get("revision") or hashlib.sha256(files.encode()).hexdigest()[:16]
    return {"model": pinned["id"], "revision": revision}


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
    """The local folder of a pinned model, fetched from the hub if it has to be.

    Raises:
        InputError: the hub cannot be reached, or what it holds lacks weights.
    """
    if "files" in pinned:
        return Path(pinned["id"])
    folder = _hub_snapshot(pinned["id"], pinned["revision"], "model", None)
    checkpoint_tensors(folder)
    return folder


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


def open_model(
    folder: Path | str,
    *,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    device_map: str = "none",
    attn_implementation: str | None = None,
) -> Any:
    """Open a checkpoint for inference, on this process's GPU or, where there is none, the CPU.

    Args:
        folder: a stock Hugging Face checkpoint.
        dtype: float32, bfloat16 or float16; auto: bfloat16 on a GPU, float32 on a CPU.
        trust_remote_code: let the model's own code run.
        device_map: none: on one device; auto: over all GPUs, for a model that one cannot hold.
        attn_implementation: as transformers names it; auto: see `attention`; none: the model's own.

    Raises:
        InputError: the checkpoint lacks weights, which transformers would draw at random; several
            processes would each spread the model; or attention is asked for that this machine does
            not have.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    on_gpu = torch.cuda.is_available()
    if dtype == "auto":
        dtype = "bfloat16" if on_gpu else "float32"
    check_device_map(device_map)
    model, loading = AutoModelForImageTextToText.from_pretrained(
        str(folder),
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        device_map=None if device_map == "none" else device_map,
        attn_implementation=attention(attn_implementation, dtype, on_gpu=on_gpu),
        output_loading_info=True,
    )
    if missing := sorted(loading["missing_keys"]):
        raise InputError(
            f"{folder}: the weights lack {missing[0]}, {len(missing)} in all; copy them again"
        )
    if device_map == "none":
        model = model.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu")
    return model.eval()


def check_device_map(device_map: str) -> None:
    """Refuse to spread a model over all GPUs more than once, or without accelerate.

    Raises:
        InputError: names the parameters to change.
    """
    if device_map == "none":
        return
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise InputError(
            f"device_map = {device_map}: each of {processes} processes would take all GPUs; set"
            " launch to python -m, or device_map to none"
        )
    if importlib.util.find_spec("accelerate") is None:
        raise InputError(f"device_map = {device_map}: needs the package accelerate; install it")


def attention(asked: str | None, dtype: str, *, on_gpu: bool) -> str | None:
    """Which attention to open a model with.

    Args:
        asked: as transformers names it; auto: flash_attention_2 where it can be had, else the
            model's own choice, which is sdpa wherever the family has it.
        dtype: of the weights.
        on_gpu: whether they lie on a GPU.

    Raises:
        InputError: flash_attention_2 is asked for and cannot be had.
    """
    installed = importlib.util.find_spec("flash_attn") is not None
    usable = on_gpu and installed and dtype in ("bfloat16", "float16")
    if asked == "flash_attention_2" and not usable:
        raise InputError(
            f"attn_implementation = flash_attention_2 with dtype = {dtype}: needs a GPU,"
            " the package flash-attn, and bfloat16 or float16; set attn_implementation to auto"
        )
    if asked == "auto":
        return "flash_attention_2" if usable else None
    return asked


def input_device(model: Any) -> Any:
    """Where a model takes its inputs: the device of its first weights."""
    return next(device for p in model.parameters() if (device := p.device).type != "meta")


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
