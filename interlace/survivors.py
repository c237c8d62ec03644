"""The tuned layers of local healing: opened, kept as resume points, named as they are stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from interlace.dense_targets import Task, tasks
from interlace.families import FAMILIES, decoder_layers
from interlace.outputs import remove, whole
from interlace.params import Finetune
from interlace.plan import Plan


@dataclass
class Survivor:
    """A tuned layer in float32, and its optimizer."""

    task: Task
    layer: nn.Module
    optimizer: torch.optim.AdamW


def open_survivors(
    pruned: Path, model: Any, plan: Plan, params: Finetune, trust_remote_code: bool
) -> list[Survivor]:
    """The survivors with the weights of the checkpoint to start from, in float32."""
    from transformers import AutoModelForImageTextToText

    by_position = not FAMILIES[model.config.model_type].entries
    start = AutoModelForImageTextToText.from_pretrained(
        pruned,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        attn_implementation=model.config._attn_implementation,  # masks are recorded for it
    )  # its other weights go again when this function returns
    device = next(model.parameters()).device
    found = []
    for job in tasks(plan, by_position):
        layer = decoder_layers(start)[job.position].to(device).eval().requires_grad_(True)
        optimizer = torch.optim.AdamW(
            layer.parameters(),
            lr=params.local_learning_rate,
            weight_decay=params.weight_decay,
            foreach=False,
        )
        found.append(Survivor(job, layer, optimizer))
    return found


def stored_weights(survivors: Sequence[Survivor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Weights by the names they are stored under."""
    for survivor in survivors:
        for name, weight in survivor.layer.named_parameters():
            stored = f"{prefix}.{survivor.task.position}.{name}"
            yield stored, weight.detach().cpu()


def save(
    survivors: Sequence[Survivor], step: int, history: Sequence[Mapping[str, float]], scratch: Path
) -> None:
    """Write a resume point: weights and moments as safetensors, the curve as JSON."""
    tensors = {}
    for survivor in survivors:
        for name, weight in survivor.layer.named_parameters():
            stored = {"weight": weight} | survivor.optimizer.state.get(weight, {})
            for kind, value in stored.items():
                key = f"{survivor.task.segment.survivor}/{name}/{kind}"
                tensors[key] = value.detach().cpu().contiguous()
    point = scratch / f"step-{step:08d}"
    with whole(point) as partial:
        partial.mkdir(parents=True)
        save_file(tensors, partial / "survivors.safetensors")
        state = json.dumps({"step": step, "history": list(history)})
        (partial / "state.json").write_text(state, encoding="utf-8")
    for old in sorted(scratch.glob("step-*"))[:-2]:
        remove(old)


def resume(survivors: Sequence[Survivor], scratch: Path) -> tuple[int, list[dict[str, float]]]:
    """Take up the newest resume point that can be read; returns its step and the curve so far."""
    for point in sorted(scratch.glob("step-*"), reverse=True):
        try:
            state = json.loads((point / "state.json").read_text(encoding="utf-8"))
            tensors = load_file(point / "survivors.safetensors")
        except (OSError, ValueError, SafetensorError):
            continue  # damaged: the one before it will do
        for survivor in survivors:
            _restore(survivor, tensors)
        return int(state["step"]), list(state["history"])
    return 0, []


def _restore(survivor: Survivor, tensors: Mapping[str, Tensor]) -> None:
    for name, weight in survivor.layer.named_parameters():
        prefix = f"{survivor.task.segment.survivor}/{name}/"
        stored = {
            key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)
        }
        with torch.no_grad():
            weight.copy_(stored.pop("weight"))
        if stored:
            moved = {k: v if k == "step" else v.to(weight.device) for k, v in stored.items()}
            survivor.optimizer.state[weight] = moved
