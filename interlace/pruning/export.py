"""A plan and a checkpoint -> a smaller checkpoint that loads anywhere.

Weights go from file to file, tensor by tensor, without building the model. Layers to be tuned lie
in files of their own, so that a tuned checkpoint shares all other files byte for byte.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.companions import TOKENIZERS, companions
from interlace.checkpoint.config import pruned_config, with_dtype
from interlace.checkpoint.layers import StoredLayers
from interlace.checkpoint.safetensors import (
    Stored,
    stored_tensors,
    write_tensors,
)
from interlace.checkpoint.spelling import older_tokenizer
from interlace.errors import ContractError, InputError
from interlace.model.files import INDEX, read_object
from interlace.plan.record import Plan
from interlace.sources.pinned import PinnedModel
from interlace.system.outputs import whole

Dtype = Literal["keep", "bfloat16", "float16", "float32"]
Tensors = dict[str, Stored]  # by name
STORED_AS = {"keep": None, "bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def export_checkpoint(
    model_dir: Path | str,
    plan: Plan,
    out_dir: Path | str,
    *,
    max_shard_mb: int = 4096,
    dtype: Dtype = "keep",
    replaced: Mapping[str, Path] = {},
    check: Callable[[Path], Any] = lambda written: {},
    trust_remote_code: bool = False,
) -> Any:
    """Write a checkpoint without the dropped layers of a plan; the others are renumbered.

    Memory does not depend on the size of the model.

    Args:
        model_dir: the dense checkpoint.
        plan: names the dropped layers.
        out_dir: folder to write; an old checkpoint is replaced once the new one is complete.
        max_shard_mb: largest weight file, MiB.
        dtype: the stored type of floating-point weights; keep: each keeps its own.
        replaced: safetensors files with new values of tensors, by the name that the dense
            checkpoint stores them under; each has the stored shape and type.
        check: called with the written folder before it takes its place; may raise.
        trust_remote_code: let the model's own code define its architecture.

    Returns:
        The result of `check`.

    Raises:
        InputError: the plan is for another model, the checkpoint cannot be read, `out_dir` is no
            checkpoint, or the disk is full.
        ContractError: a replaced tensor does not fit.
    """
    dense, out = Checkpoint(Path(model_dir), trust_remote_code), Path(out_dir)
    check_target(dense.folder, out)
    _check_layers(dense, plan)
    if plan.heal_steps and not replaced:
        raise InputError(
            f"the plan's layers were healed between {plan.rounds} rounds, and no healed weights are"
            " given; pass the file that the stage `rounds` wrote as healed"
        )
    config = with_dtype(pruned_config(dense.config, plan.keep, str(dense.config_file)), dtype)
    tensors = _kept(dense.layers, plan, _replacements(dense.tensors, replaced))
    tuned = tuple(f"{dense.layers.prefix}.{position}." for position in plan.tuned_positions)
    shards = list(_shards(tensors, tuned, max_shard_mb * 2**20, STORED_AS[dtype]))
    files = companions(dense.folder, trust_remote_code=trust_remote_code)
    _check_space(out, tensors, files, STORED_AS[dtype])
    with whole(out) as partial:
        partial.mkdir()
        for path in files:
            copy = partial / path.relative_to(dense.folder)
            copy.parent.mkdir(exist_ok=True)
            _copy(path, copy)
        _write_json(partial / "config.json", config)
        _write_shards(partial, shards, STORED_AS[dtype])
        return check(partial)


def check_made_for(plan: Plan, model: PinnedModel) -> None:
    """Refuse a plan from measurements of another model.

    Args:
        plan: its `sources` name the measured model; missing fields are not compared.
        model: the model to prune.

    Raises:
        InputError: another id, revision or files, or another number of layers.
    """
    identity = model.identity() | {"n_layers": str(model.n_layers)}
    measured_model = {"n_layers": str(plan.n_layers)} | plan.sources
    words = {"model": "model", "revision": "revision or files", "n_layers": "number of layers"}
    for key, word in words.items():
        if key in measured_model and measured_model[key] != identity[key]:
            raise InputError(
                f"artifacts/plan.json: made for {word} {measured_model[key]}, but the model is"
                f" {model.id} with {identity[key]}; select again"
            )


def _check_layers(dense: Checkpoint, plan: Plan) -> None:
    layers = dense.architecture.n_layers
    if layers != plan.n_layers:
        raise InputError(
            f"{dense.folder} has {layers} decoder layers, the plan is for {plan.n_layers}"
        )
    dense.check()


def check_target(source: Path, out: Path) -> None:
    """Refuse to write over the source, or over a folder that holds no checkpoint.

    Raises:
        InputError: names the folder.
    """
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: the output is the model itself; choose another folder")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_checkpoint(out))):
        raise InputError(f"{out}: exists and is no checkpoint; choose another folder")


def check_new(source: Path, out: Path, *, overwrite: bool) -> None:
    """Refuse to replace a checkpoint that nobody said may go; see also `check_target`.

    Raises:
        InputError: names the folder.
    """
    check_target(source, out)
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"{out}: holds a checkpoint already; name another folder, or say overwrite"
        )


def _check_space(out: Path, tensors: Tensors, files: list[Path], dtype: str | None) -> None:
    """Refuse to begin where the disk has too little room."""
    disk = next(folder for folder in out.resolve().parents if folder.is_dir())
    size = sum(tensor.size_as(dtype) for tensor in tensors.values())
    size += sum(path.stat().st_size for path in files)
    free = shutil.disk_usage(disk).free
    if size > free:
        raise InputError(
            f"{out}: takes {size / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB of the disk are"
            " free; free some or choose another folder"
        )


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _replacements(tensors: Mapping[str, Stored], replaced: Mapping[str, Path]) -> Tensors:
    """Look up the new values by stored name."""
    replacements = {}
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
        replacements[name] = new
    return replacements


def _kept(layers: StoredLayers, plan: Plan, replacements: Tensors) -> Tensors:
    """Return the tensors that stay, by their new names."""
    positions = {layer: position for position, layer in enumerate(plan.keep)}
    kept_tensors, unused = {}, set(replacements)
    for name, tensor in layers.tensors.items():
        new_name = name
        if (layer_and_weight := layers.split(name)) is not None:
            layer, weight = layer_and_weight
            if layer not in positions:
                continue
            new_name = layers.name(positions[layer], weight)
        kept_tensors[new_name] = replacements.get(name, tensor)
        unused.discard(name)
    if unused:
        raise ContractError(f"{min(unused)} is to be replaced, and its layer is dropped")
    return kept_tensors


def _shards(
    tensors: Tensors, tuned: tuple[str, ...], limit: int, dtype: str | None
) -> Iterator[Tensors]:
    """Group tensors into files of at most `limit` bytes, tuned ones last and apart."""
    for is_tuned in (False, True):
        shard: Tensors = {}
        used = 0
        for name in sorted(tensors):
            if name.startswith(tuned or ("\0",)) is not is_tuned:
                continue
            size = tensors[name].size_as(dtype)
            if shard and used + size > limit:
                yield shard
                shard, used = {}, 0
            shard[name] = tensors[name]
            used += size
        if shard:
            yield shard


def _write_shards(folder: Path, shards: list[Tensors], dtype: str | None) -> None:
    weight_map: dict[str, str] = {}
    total = sum(tensor.size_as(dtype) for shard in shards for tensor in shard.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="export") as progress:
        for number, shard in enumerate(shards, start=1):
            file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            write_tensors(folder / file_name, shard, dtype=dtype, copied=progress.update)
            weight_map |= dict.fromkeys(shard, file_name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(folder / INDEX, index)


def _copy(path: Path, copy: Path) -> None:
    """Copy a file; a tokenizer's fields that transformers 4 cannot read are spelt as both do."""
    if path.name in TOKENIZERS:
        fields = read_object(path)
        if (older := older_tokenizer(fields)) is not fields:
            return _write_json(copy, older)
    shutil.copyfile(path, copy)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
