"""A plan and a checkpoint -> a smaller checkpoint that loads anywhere.

Weights go from file to file, tensor by tensor, without building the model. The layers that will be
tuned lie in files of their own, so that a tuned checkpoint shares all others byte for byte.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.config import pruned_config, with_dtype
from interlace.checkpoint.layers import StoredLayers
from interlace.checkpoint.safetensors import (
    INDEX,
    Stored,
    stored_tensors,
    write_tensors,
)
from interlace.errors import ContractError, InputError
from interlace.outputs import whole
from interlace.plan.record import Plan
from interlace.sources.pinned import PinnedModel

Dtype = Literal["keep", "bfloat16", "float16", "float32"]
Kept = dict[str, Stored]  # new names -> where the values are
STORED_AS = {"keep": None, "bfloat16": "BF16", "float16": "F16", "float32": "F32"}


_COMPANIONS = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"}  # tokenizer, processor, ...
_LICENCES = re.compile(r"(LICEN[CS]E|NOTICE)", re.IGNORECASE)


def export(
    model_dir: Path | str,
    plan: Plan,
    out_dir: Path | str,
    *,
    max_shard_mb: int = 4096,
    dtype: Dtype = "keep",
    replaced: Mapping[str, Path] = {},
    check: Callable[[Path], dict[str, Any]] = lambda written: {},
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Write the checkpoint that a plan leaves: dropped layers gone, the others renumbered.

    Memory does not depend on the size of the model.

    Args:
        model_dir: the dense checkpoint.
        plan: which layers go.
        out_dir: folder to write; replaced when the new one is whole.
        max_shard_mb: largest weight file, MiB.
        dtype: what floating-point weights are stored as; keep: each as it is.
        replaced: safetensors files with new values of tensors, by the name that the dense
            checkpoint stores them under; each has the stored shape and type.
        check: told the folder that was written before it takes its place; may refuse it.
        trust_remote_code: let the model's own code define its architecture.

    Returns:
        What `check` returned.

    Raises:
        InputError: the plan is for another model, the checkpoint cannot be read, `out_dir` holds
            something other than a checkpoint, or the disk is full.
        ContractError: a replaced tensor does not fit.
    """
    dense, out = Checkpoint(Path(model_dir), trust_remote_code), Path(out_dir)
    check_target(dense.folder, out)
    _check_layers(dense, plan)
    config = with_dtype(pruned_config(dense.config, plan.keep, str(dense.config_file)), dtype)
    kept = _kept(dense.layers, plan, _replacements(dense.tensors, replaced))
    tuned = tuple(f"{dense.layers.prefix}.{position}." for position in plan.tuned_positions)
    shards = list(_shards(kept, tuned, max_shard_mb * 2**20, STORED_AS[dtype]))
    companions = [path for path in sorted(dense.folder.iterdir()) if _is_companion(path)]
    _check_space(out, kept, companions, STORED_AS[dtype])
    with whole(out) as partial:
        partial.mkdir()
        for path in companions:
            shutil.copyfile(path, partial / path.name)
        _write_json(partial / "config.json", config)
        _write_shards(partial, shards, STORED_AS[dtype])
        return check(partial)


def check_made_for(plan: Plan, model: PinnedModel) -> None:
    """Refuse a plan that was made from measurements of another model.

    Args:
        plan: its `sources` say what it was made for; what they do not say is not compared.
        model: the pinned record of the model it is to be used on.

    Raises:
        InputError: another id, revision or files, or another number of layers.
    """
    known = model.identity() | {"n_layers": str(model.n_layers)}
    said = {"n_layers": str(plan.n_layers)} | plan.sources
    words = {"model": "model", "revision": "revision or files", "n_layers": "number of layers"}
    for key, word in words.items():
        if key in said and said[key] != known[key]:
            raise InputError(
                f"artifacts/plan.json: made for {word} {said[key]}, but the model is"
                f" {model.id} with {known[key]}; run `dvc repro select`"
            )


def _check_layers(dense: Checkpoint, plan: Plan) -> None:
    layers = dense.architecture.n_layers
    if layers != plan.n_layers:
        raise InputError(
            f"{dense.folder} has {layers} decoder layers, the plan is for {plan.n_layers}"
        )
    if dense.config.get("quantization_config"):
        raise InputError(
            f"{dense.config_file}: quantization_config: quantised weights are not supported;"
            " export the model as it was before, and quantise the result"
        )


def check_target(source: Path, out: Path) -> None:
    """Refuse to write over the source, or over a folder that holds no checkpoint.

    Raises:
        InputError: names the folder.
    """
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: the output is the model itself; choose another folder")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_checkpoint(out))):
        raise InputError(f"{out}: exists and is no checkpoint; choose another folder")


def _check_space(out: Path, kept: Kept, companions: list[Path], dtype: str | None) -> None:
    """Refuse to begin what the disk has no room for."""
    place = next(folder for folder in out.resolve().parents if folder.is_dir())
    wanted = sum(tensor.size_as(dtype) for tensor in kept.values())
    wanted += sum(path.stat().st_size for path in companions)
    free = shutil.disk_usage(place).free
    if wanted > free:
        raise InputError(
            f"{out}: takes {wanted / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB of the disk are"
            " free; free some or choose another folder"
        )


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _is_companion(path: Path) -> bool:
    written = path.name in ("config.json", INDEX) or path.name.startswith(".")
    kept = path.suffix in _COMPANIONS or _LICENCES.match(path.name) is not None
    return path.is_file() and kept and not written


def _replacements(tensors: Mapping[str, Stored], replaced: Mapping[str, Path]) -> Kept:
    """Where the new values are, by stored name."""
    found = {}
    for name, path in replaced.items():
        new = stored_tensors(path).get(name)
        if new is None or name not in tensors:
            where = path if new is None else "the model"
            raise ContractError(f"{where} holds no tensor {name}, which is to be replaced")
        if (new.dtype, new.shape) != (tensors[name].dtype, tensors[name].shape):
            raise ContractError(
                f"{path}: {name} is {new.dtype} {list(new.shape)}, and the model's is"
                f" {tensors[name].dtype} {list(tensors[name].shape)}"
            )
        found[name] = new
    return found


def _kept(layers: StoredLayers, plan: Plan, replacements: Kept) -> Kept:
    """Return the tensors that stay, by their new names."""
    positions = {layer: position for position, layer in enumerate(plan.keep)}
    kept, gone = {}, set(replacements)
    for name, tensor in layers.tensors.items():
        new_name = name
        if (layer_and_weight := layers.split(name)) is not None:
            layer, weight = layer_and_weight
            if layer not in positions:
                continue
            new_name = layers.name(positions[layer], weight)
        kept[new_name] = replacements.get(name, tensor)
        gone.discard(name)
    if gone:
        raise ContractError(f"{min(gone)} is to be replaced, and its layer is dropped")
    return kept


def _shards(kept: Kept, tuned: tuple[str, ...], most: int, dtype: str | None) -> Iterator[Kept]:
    """Group tensors into files of at most `most` bytes: those that stay first, then tuned ones."""
    for is_tuned in (False, True):
        shard: Kept = {}
        used = 0
        for name in sorted(kept):
            if name.startswith(tuned or ("\0",)) is not is_tuned:
                continue
            size = kept[name].size_as(dtype)
            if shard and used + size > most:
                yield shard
                shard, used = {}, 0
            shard[name] = kept[name]
            used += size
        if shard:
            yield shard


def _write_shards(folder: Path, shards: list[Kept], dtype: str | None) -> None:
    weight_map: dict[str, str] = {}
    total = sum(tensor.size_as(dtype) for shard in shards for tensor in shard.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="export") as progress:
        for number, shard in enumerate(shards, start=1):
            file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            write_tensors(folder / file_name, shard, dtype=dtype, copied=progress.update)
            weight_map |= dict.fromkeys(shard, file_name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(folder / INDEX, index)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
