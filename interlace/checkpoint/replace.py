"""Write new values of some tensors: to a file of their own, or into a copy of a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import checkpoint_tensors
from interlace.errors import ContractError, InputError
from interlace.system.outputs import link_or_copy, whole
from interlace.system.resumable import kept

if TYPE_CHECKING:
    from torch import Tensor

_TORCH = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def write_weights(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors by stored name to a safetensors file, to resume from."""
    from safetensors.torch import save_file

    with kept(file) as partial:
        on_cpu = {name: value.cpu().contiguous() for name, value in tensors.items()}
        save_file(on_cpu, partial, metadata={"format": "pt"})


def as_stored(
    checkpoint: Checkpoint, model: Any, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return weights of a model as the files of its checkpoint name, split and join them.

    Args:
        checkpoint: the files.
        model: opened from them: transformers notes how it renamed, split and joined the tensors.
        weights: by the model's names; of a tensor that the files split, all that is joined in it.

    Raises:
        InputError: the files do not hold a weight in the form that transformers saves.
    """
    from transformers.core_model_loading import revert_weight_conversion

    prefix, tensors = f"{model.base_model_prefix}.", {}
    for name, value in revert_weight_conversion(model, dict(weights)).items():
        names = (name, name.removeprefix(prefix), prefix + name)  # files of the base model lack it
        stored = next((n for n in names if n in checkpoint.tensors), None)
        if stored is None or checkpoint.tensors[stored].shape != tuple(value.shape):
            raise InputError(
                f"{checkpoint.folder}: {name}: not stored as the model has it,"
                f" {tuple(value.shape)}; load the checkpoint with transformers and save_pretrained"
                " it"
            )
        tensors[stored] = value
    return tensors


def with_tensors(pruned: Path, changed: Mapping[str, Tensor], out: Path) -> None:
    """Write a copy of a checkpoint with new values of some tensors.

    Files without a changed tensor are hard links where possible. Changed tensors keep the stored
    type and their place in the file.

    Args:
        pruned: the checkpoint to start from.
        changed: new values by stored name.
        out: folder to write.

    Raises:
        ContractError: a changed tensor is not in the checkpoint, or has another shape.
    """
    tensors = checkpoint_tensors(pruned)
    for name, value in changed.items():
        if name not in tensors:
            raise ContractError(f"{pruned} holds no tensor {name}")
        if tuple(value.shape) != tensors[name].shape:
            raise ContractError(f"{name}: shape {tuple(value.shape)} differs")
    rewritten = {tensors[name].path for name in changed}
    with whole(out) as partial:
        partial.mkdir()
        for path in sorted(path for path in pruned.rglob("*") if path.is_file()):
            copy = partial / path.relative_to(pruned)
            copy.parent.mkdir(exist_ok=True)
            (shutil.copyfile if path in rewritten else link_or_copy)(path, copy)
        for name, value in changed.items():
            with (partial / tensors[name].path.name).open("r+b") as file:
                file.seek(tensors[name].begin)
                file.write(_bytes_of(value, tensors[name].dtype))


def _bytes_of(value: Tensor, dtype: str) -> bytes:
    """Return the bytes of a tensor in a type of the format."""
    import torch

    stored = value.detach().cpu().to(getattr(torch, _TORCH[dtype])).contiguous()
    return stored.reshape(-1).view(torch.uint8).numpy().tobytes()
