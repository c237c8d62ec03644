"""The tuned layers of local healing: opened, kept as resume points, named as they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from interlace import distributed as processes
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.layers import StoredLayers
from interlace.healing.local_targets import Task, tasks
from interlace.model.decoder import decoder_layers
from interlace.model.families import FAMILIES
from interlace.params.healing import Finetune
from interlace.plan.record import Plan
from interlace.training.resume import newest_point, write_point


@dataclass
class Repair:
    """The tuned layers of a segment in float32, in depth order, and their optimizer."""

    task: Task
    layers: nn.ModuleList
    optimizer: torch.optim.AdamW


def open_survivors(pruned: Checkpoint, model: Any, plan: Plan, params: Finetune) -> list[Repair]:
    """The survivors of each segment, from the checkpoint to start from, in float32."""
    from transformers import AutoModelForImageTextToText

    by_position = not FAMILIES[model.config.model_type].entries
    start = AutoModelForImageTextToText.from_pretrained(
        pruned.folder,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=pruned.trust_remote_code,
        attn_implementation=model.config._attn_implementation,  # masks are recorded for it
    )  # its other weights go again when this function returns
    device = next(model.parameters()).device
    found = []
    for job in tasks(plan, by_position):
        layers = nn.ModuleList(decoder_layers(start)[position] for position in job.positions)
        layers.to(device).eval().requires_grad_(True)
        optimizer = torch.optim.AdamW(
            layers.parameters(),
            lr=params.local_learning_rate,
            weight_decay=params.weight_decay,
            foreach=False,
        )
        found.append(Repair(job, layers, optimizer))
    return found


def stored_weights(repairs: Sequence[Repair], stored: StoredLayers) -> Iterator[tuple[str, Tensor]]:
    """Weights by the names they are stored under."""
    for repair in repairs:
        for position, layer in zip(repair.task.positions, repair.layers, strict=True):
            for name, weight in layer.named_parameters():
                yield stored.name(position, name), weight.detach().cpu()


def save(
    repairs: Sequence[Repair], step: int, history: Sequence[Mapping[str, float]], scratch: Path
) -> None:
    """Write a resume point: each segment's weights and moments, and the curve so far."""
    states = (_state(repair) for repair in repairs)
    write_point(scratch, step, states, updates=[list(point.items()) for point in history])


def _state(repair: Repair) -> dict[str, Tensor]:
    return {
        f"{name}/{kind}": value.detach().cpu().contiguous()
        for name, weight in repair.layers.named_parameters()
        for kind, value in ({"weight": weight} | repair.optimizer.state.get(weight, {})).items()
    }


def resume(repairs: Sequence[Repair], scratch: Path) -> tuple[int, list[dict[str, float]]]:
    """Take up the newest resume point that is whole; returns its step and the curve so far."""
    point, damages = newest_point(scratch)
    for damage in damages if processes.process_rank() == 0 else ():
        tqdm.write(f"local healing: {damage}")
    if point is None:
        return 0, []
    for repair, tensors in zip(repairs, point.tensors(), strict=True):
        _restore(repair, tensors)
    return point.step, [dict(pairs) for pairs in point.updates]


def _restore(repair: Repair, tensors: Mapping[str, Tensor]) -> None:
    for name, weight in repair.layers.named_parameters():
        prefix = f"{name}/"
        stored = {
            key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)
        }
        with torch.no_grad():
            weight.copy_(stored.pop("weight"))
        if stored:
            moved = {k: v if k == "step" else v.to(weight.device) for k, v in stored.items()}
            repair.optimizer.state[weight] = moved
