"""Train weights in processes of one core each, with a progress bar, and resume to the bit.

A step's rows depend on its number alone, so that a resumed run sees the same ones. Weights that
need no gradient are neither trained nor saved.
"""

import hashlib
import json
import math
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from interlace.system.outputs import whole

Settings = Mapping[str, Any]


class Share(NamedTuple):
    """The rank of a process, and the number of processes."""

    rank: int
    of: int


Backward = Callable[
    [int, Share], float
]  # adds a share of a step's gradient, returns that of its loss


def learning_rate(step: int, phase: Settings) -> float:
    """One cycle: linear warm-up to the peak, then a half cosine to zero."""
    warmup = phase["warmup_share"] * phase["steps"]
    if step < warmup:
        return phase["peak_lr"] * (step + 1) / warmup
    done = (step - warmup) / (phase["steps"] - warmup)
    return phase["peak_lr"] * (1 + math.cos(math.pi * done)) / 2


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """Return the weights that need a gradient, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def build_optimizer(model: Any, phase: Settings) -> torch.optim.AdamW:
    """AdamW that decays matrices but neither norms nor biases.

    A module that `slower` names learns at that share of the rate.
    """
    slower = {"": 1.0} | dict(phase.get("slower", {}))
    groups = [
        {"params": [], "share": share, "weight_decay": decay}
        for share in slower.values()
        for decay in (phase["weight_decay"], 0.0)
    ]
    for name, weight in trained(model).items():
        place = max(number for number, module in enumerate(slower) if module in name)
        groups[2 * place + (weight.dim() <= 1)]["params"].append(weight)
    return torch.optim.AdamW(groups, lr=phase["peak_lr"], betas=(0.9, 0.99), foreach=True)


def save_checkpoint(folder: Path, step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Write weights, optimizer state and step, whole or not at all."""
    moments = {
        f"{number}.{name}": value
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    with whole(folder) as partial:
        partial.mkdir()
        weights = {name: value.detach() for name, value in trained(model).items()}
        save_file(weights, partial / "weights.safetensors")
        save_file(moments, partial / "optimizer.safetensors")
        (partial / "step.json").write_text(json.dumps(step))


def load_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_checkpoint` wrote; return the steps done, 0 without a checkpoint."""
    if not (folder / "step.json").exists():
        return 0
    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        number, name = key.split(".")
        states.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
    return int(json.loads((folder / "step.json").read_text()))


def flat_gradients(model: Any) -> torch.Tensor:
    """Make every gradient a view of one vector, so that one call adds it up over processes."""
    weights = list(trained(model).values())
    flat = torch.zeros(sum(weight.numel() for weight in weights))
    views = flat.split([weight.numel() for weight in weights])
    for weight, view in zip(weights, views, strict=True):
        weight.grad = view.view_as(weight)
    return flat


def fit(
    model: Any, backward: Backward, score: Callable[[], str], phase: Settings, at: Path, title: str
) -> None:
    """Run all steps of a phase, with a progress bar, checkpoints and a look at held-out rows.

    Every process works through its share of each batch; the sum of their gradients is the gradient
    of the batch's loss, so all take the same step.

    Args:
        model: trained in place.
        backward: adds this process's share of a step's gradient.
        score: says how good the model is at a checkpoint.
        phase: steps, peak_lr, warmup_share, weight_decay, checkpoint_every in steps, and maybe
            `slower`, the share of the rate for some modules.
        at: the folder of checkpoints.
        title: of the progress bar.
    """
    share = Share(dist.get_rank(), dist.get_world_size())
    optimizer = build_optimizer(model, phase)
    gradients = flat_gradients(model)
    done, average = load_checkpoint(at, model, optimizer), math.nan
    count = phase["steps"]
    steps = tqdm(range(done, count), title, count, initial=done, disable=share.rank > 0)
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(step, phase)
        gradients.zero_()
        loss = backward(step, share) * share.of
        dist.all_reduce(gradients)
        gradients.mul_(min(1.0, 1.0 / (gradients.norm().item() + 1e-6)))
        optimizer.step()
        average = loss if math.isnan(average) else average + 0.05 * (loss - average)
        steps.set_postfix(loss=f"{average:.3f}")
        last = step + 1 == count
        if share.rank == 0 and (last or (step + 1) % phase["checkpoint_every"] == 0):
            save_checkpoint(at, step + 1, model, optimizer)
            steps.write(f"step {step + 1}: loss {average:.3f}, {score()}")


def run_key(settings: Any, *files: Path) -> str:
    """Return a name for what a checkpoint belongs to: the parameters and the inputs."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def run_process(share: Share, meeting: str, train: Callable[[Share], None]) -> None:
    """Run one of the training processes, on one core."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=share.rank, world_size=share.of
    )
    train(share)
    dist.destroy_process_group()


def in_parallel(train: Callable[[Share], None], processes: int) -> None:
    """Fork the training processes, which thus share what is in memory, and wait for them.

    Raises:
        ClickException: one of them failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("fork")
        started = [
            context.Process(
                target=run_process, args=(Share(rank, processes), f"{folder}/meeting", train)
            )
            for rank in range(processes)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
    if any(process.exitcode for process in started):
        raise click.ClickException("training failed; run again to go on from the last checkpoint")
