"""A plan and a checkpoint -> a smaller checkpoint that loads anywhere.

Weights go from file to file, tensor by tensor, without building the model. The layers that will be
tuned lie in files of their own, so that a tuned checkpoint shares all others byte for byte.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from interlace.errors import ContractError, InputError
from interlace.families import architecture, decoder_layers, decoder_prefix, pruned_config
from interlace.outputs import link_or_copy, whole
from interlace.plan import Plan
from interlace.sources import tensor_offsets, tensor_shapes

INDEX = "model.safetensors.index.json"
_COMPANIONS = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"}  # tokenizer, processor, ...
_LICENCES = re.compile(r"(LICEN[CS]E|NOTICE)", re.IGNORECASE)


def tensor_files(folder: Path) -> dict[str, Path]:
    """Where each tensor of a checkpoint is stored.

    Raises:
        InputError: no safetensors weights, or an index that names files that are not there.
    """
    index = folder / INDEX
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {name: folder / file for name, file in named.items()}
        for path in sorted(set(files.values())):
            if not path.is_file():
                raise InputError(f"{index}: names {path.name}, which is not there; copy it again")
        return files
    single = folder / "model.safetensors"
    if not single.is_file():
        raise InputError(f"{folder}: neither model.safetensors nor {INDEX}")
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single)


def layers_prefix(folder: Path, names: Mapping[str, Path], trust_remote_code: bool = False) -> str:
    """What the decoder's layers are called in a checkpoint.

    Files may name, split and join tensors otherwise than the model does (experts lie one by one or
    all in one), and a vision tower may have as many layers. So the name is the one whose layers
    hold as many numbers each as the model's decoder layers. Layers numbered behind the decoder's
    last (multi-token prediction) are not the decoder's.

    Raises:
        InputError: none, or more than one, fits.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=trust_remote_code)
    wanted = {
        i: sum(weight.numel() for weight in layer.state_dict().values())
        for i, layer in enumerate(decoder_layers(model))
    }
    found: dict[str, dict[int, int]] = {}
    for name, shape in _shapes(names).items():
        match = re.fullmatch(r"(.+?)\.(\d+)\..+", name)
        if match and int(match[2]) in wanted:
            sizes = found.setdefault(match[1], dict.fromkeys(wanted, 0))
            sizes[int(match[2])] += math.prod(shape)
    fitting = [prefix for prefix, sizes in found.items() if sizes == wanted]
    if len(fitting) != 1:
        raise InputError(
            f"{folder}: the weights hold {len(fitting)} stacks of layers like"
            f" {decoder_prefix(model)}, not one; load it with transformers and save_pretrained it"
        )
    return fitting[0]


def _shapes(names: Mapping[str, Path]) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for path in sorted(set(names.values())):
        shapes |= tensor_shapes(path)
    return shapes


def export(
    model_dir: Path | str,
    plan: Plan,
    out_dir: Path | str,
    *,
    replaced: Mapping[str, Path] = MappingProxyType({}),
    max_shard_mb: int = 4096,
    trust_remote_code: bool = False,
) -> None:
    """Write the checkpoint that a plan leaves: dropped layers gone, the others renumbered.

    Args:
        model_dir: the dense checkpoint.
        plan: which layers go.
        out_dir: folder to write; replaced when the new one is whole.
        replaced: stored names of tensors that get new values -> safetensors files that hold them
            under the same names, of the same shape and dtype.
        max_shard_mb: largest weight file, MiB.
        trust_remote_code: let the model's own code define its architecture.

    Raises:
        InputError: the plan is for another model, the checkpoint cannot be read, or `out_dir` holds
            something other than a checkpoint.
        ContractError: a new value is for no stored tensor, or has another shape.
    """
    source, out = Path(model_dir), Path(out_dir)
    check_target(source, out)
    config_path = source / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    layers = architecture(config, str(config_path)).n_layers
    if layers != plan.n_layers:
        raise InputError(f"{source} has {layers} decoder layers, the plan is for {plan.n_layers}")
    pruned = pruned_config(config, plan.keep, str(config_path))
    files = tensor_files(source)
    prefix = layers_prefix(source, files, trust_remote_code)
    _check_replaced(files, replaced)
    renamed = _renamed(files, prefix, plan)
    files |= replaced
    tuned = tuple(f"{prefix}.{position}." for position in plan.tuned_positions)
    shards = list(_shards(files, renamed, tuned, max_shard_mb * 2**20))
    with whole(out) as partial:
        partial.mkdir()
        for path in sorted(source.iterdir()):
            if _is_companion(path):
                (partial / path.name).write_bytes(path.read_bytes())
        _write_json(partial / "config.json", pruned)
        _write_shards(partial, shards, files, renamed)


def _check_replaced(files: Mapping[str, Path], replaced: Mapping[str, Path]) -> None:
    for name, path in replaced.items():
        if name not in files:
            raise ContractError(f"{path}: {name} is no tensor of the checkpoint")
        new, stored = (tensor_shapes(file)[name] for file in (path, files[name]))
        if new != stored:
            raise ContractError(f"{path}: {name} has shape {new}, in the checkpoint {stored}")


def check_target(source: Path, out: Path) -> None:
    """Refuse to write over the source, or over a folder that holds no checkpoint.

    Raises:
        InputError: names the folder.
    """
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: the output is the model itself; choose another folder")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_checkpoint(out))):
        raise InputError(f"{out}: exists and is no checkpoint; choose another folder")


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _is_companion(path: Path) -> bool:
    written = path.name in ("config.json", INDEX) or path.name.startswith(".")
    kept = path.suffix in _COMPANIONS or _LICENCES.match(path.name) is not None
    return path.is_file() and kept and not written


def _renamed(files: Mapping[str, Path], prefix: str, plan: Plan) -> dict[str, str]:
    """New names of the tensors that stay -> their old names."""
    positions = {layer: position for position, layer in enumerate(plan.keep)}
    renamed = {}
    for name in files:
        match = re.fullmatch(rf"{re.escape(prefix)}\.(\d+)\.(.+)", name)
        if not match:
            renamed[name] = name
        elif int(match[1]) in positions:
            renamed[f"{prefix}.{positions[int(match[1])]}.{match[2]}"] = name
    return renamed


def _shards(
    files: Mapping[str, Path], renamed: Mapping[str, str], tuned: tuple[str, ...], most: int
) -> Iterator[list[str]]:
    """Group new names into files of at most `most` bytes: kept tensors first, then tuned ones."""
    sizes = _sizes(files)
    for is_tuned in (False, True):
        shard: list[str] = []
        used = 0
        for name in sorted(renamed):
            if name.startswith(tuned or ("\0",)) is not is_tuned:
                continue
            size = sizes[renamed[name]]
            if shard and used + size > most:
                yield shard
                shard, used = [], 0
            shard.append(name)
            used += size
        if shard:
            yield shard


def _sizes(files: Mapping[str, Path]) -> dict[str, int]:
    sizes = {}
    for path in sorted(set(files.values())):
        for name, (begin, end) in tensor_offsets(path).items():
            sizes[name] = end - begin
    return sizes


def _write_shards(
    folder: Path,
    shards: list[list[str]],
    files: Mapping[str, Path],
    renamed: Mapping[str, str],
) -> None:
    weight_map, total = {}, 0
    with tqdm(total=len(renamed), unit="tensor", desc="export") as progress:
        for number, names in enumerate(shards, start=1):
            file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            tensors = {}
            for name in names:
                with safe_open(files[renamed[name]], framework="pt") as file:
                    tensors[name] = file.get_tensor(renamed[name])
                weight_map[name] = file_name
                progress.update()
            total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
            _save(tensors, folder / file_name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(folder / INDEX, index)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file(dict(tensors), path, metadata={"format": "pt"})
    path.chmod(0o644)  # as the files beside it; safetensors leaves it to the owner alone


def read_tensors(folder: Path, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Stored tensors of a checkpoint by name."""
    files = tensor_files(folder)
    for name in names:
        with safe_open(files[name], framework="pt") as file:
            yield name, file.get_tensor(name)


def with_tensors(pruned: Path, changed: Mapping[str, torch.Tensor], out: Path) -> None:
    """Write a checkpoint that differs from another in some tensors only.

    Files without a changed tensor are the same bytes (hard links where possible); changed tensors
    keep the stored dtype.

    Args:
        pruned: the checkpoint to start from.
        changed: new values by stored name.
        out: folder to write.

    Raises:
        ContractError: a changed tensor is not in the checkpoint, or has another shape.
    """
    files = tensor_files(pruned)
    if strangers := sorted(set(changed) - set(files)):
        raise ContractError(f"{pruned} holds no tensor {strangers[0]}")
    rewritten = {files[name] for name in changed}
    with whole(out) as partial:
        partial.mkdir()
        for path in sorted(pruned.iterdir()):
            if path not in rewritten:
                link_or_copy(path, partial / path.name)
                continue
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for name in changed.keys() & tensors.keys():
                if changed[name].shape != tensors[name].shape:
                    raise ContractError(f"{name}: shape {tuple(changed[name].shape)} differs")
                tensors[name] = changed[name].to(tensors[name].dtype).contiguous()
            _save(tensors, partial / path.name)
