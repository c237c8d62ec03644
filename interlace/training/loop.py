"""The training loop: updates one after another, resume points between them.

The state behind an update is that of the tuned layers alone. All else follows from the step: which
rows come next, the learning rate, the random numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from interlace import distributed as processes
from interlace.model.chat import IGNORED
from interlace.model.decoder import decoder_layers
from interlace.params.healing import Recipe
from interlace.training.checkpointing import affordable_tokens, free_bytes, graph_layers, recompute
from interlace.training.engines import Engine, gathered, tuned_parameters
from interlace.training.resume import Point, newest_point, write_point
from interlace.training.rows import (
    Collate,
    NotFiniteError,
    Pass,
    Schedule,
    TrainingRows,
    passes,
    stopped,
    updates,
)


class Update(NamedTuple):
    """What is known of an update.

    Attributes:
        step: its number, from 1.
        loss: mean over its answer tokens, nats; with distillation, its terms included.
        learning_rate: it was made with.
        grad_norm: of the gradient before clipping.
        tokens: seen so far, padding left out.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int


def learning_rate(params: Recipe, step: int, steps: int) -> float:
    """Linear warm-up from 0, then half a cosine down to 0.

    Args:
        params: peak, and the share of steps to warm up over.
        step: updates done.
        steps: of the whole run.
    """
    warmup = math.ceil(params.warmup_ratio * steps)
    if step < warmup:
        return params.learning_rate * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return params.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: nn.Module,
    engine: Engine,
    rows: TrainingRows,
    shares: Schedule,
    made: Collate,
    *,
    tuned: Sequence[int],
    params: Recipe,
    scratch: Path,
) -> list[Update]:
    """Make all updates, those of an interrupted run included.

    Args:
        model: with only the planned layers unfrozen.
        engine: updates them.
        rows: of the training set.
        shares: which rows each pass sees.
        made: makes a pass of rows.
        tuned: positions of the planned layers.
        params: the recipe.
        scratch: folder for resume points.

    Raises:
        InputError: a row cannot be used, or a resume point cannot be written.
        ContractError: the loss is not finite.
    """
    steps = updates(params, len(rows))
    done = resume(engine, scratch)
    layers = layer_names(engine.module, model)
    budget = Recomputation(model, tuned, params)
    ahead = passes(
        rows, shares, made,
        steps=range(len(done), steps), process=processes.process_rank(), workers=params.workers,
    )  # fmt: skip
    for loaded in _progress(ahead, done, steps):
        step = len(done)
        torch.manual_seed(
            ((shares.seed << 24) + step) * shares.processes + processes.process_rank()
        )
        rate = learning_rate(params, step, steps)
        try:
            loss, norm, tokens = update(engine, loaded, rate, budget)
        except NotFiniteError as error:
            raise stopped(error, rows, shares, step, scratch) from None
        seen = done[-1].tokens if done else 0
        done.append(Update(step + 1, loss, rate, norm, seen + tokens))
        if len(done) % params.save_steps == 0 or len(done) == steps:
            save(engine, layers, done, scratch)
    return done


class Recomputation:
    """Whether a pass recomputes its activations on the way back, and on which layers."""

    def __init__(self, model: nn.Module, tuned: Sequence[int], params: Recipe) -> None:
        self.layers = graph_layers(model, tuned)
        self.wanted = params.gradient_checkpointing
        mine = torch.tensor(affordable_tokens(model, self.layers, free_bytes()))
        self.affordable = int(gathered(mine.to(processes.device())).min())

    def set(self, tokens: int) -> None:
        """Set it for a pass of so many tokens, padding included, in the largest process."""
        on = tokens > self.affordable if self.wanted == "auto" else self.wanted
        recompute(self.layers, bool(on))


def update(
    engine: Engine, loaded: Sequence[Pass], rate: float, budget: Recomputation
) -> tuple[float, float, int]:
    """One update from the passes of all processes.

    Args:
        engine: makes it.
        loaded: passes of this process.
        rate: learning rate.
        budget: decides what is recomputed.

    Returns:
        Mean loss of its answer tokens, norm of the gradient, tokens.

    Raises:
        NotFiniteError: a loss or the gradient is not finite.
    """
    device = processes.device()
    mine = [[_answers(one.labels), one.labels.numel(), one.tokens] for one in loaded]
    counts = gathered(torch.tensor(mine, device=device))  # [processes, passes, 3]
    answers = max(1, int(counts[..., 0].sum()))
    losses = []
    for number, one in enumerate(loaded):
        budget.set(int(counts[:, number, 1].max()))
        inputs = {name: value.to(device, non_blocking=True) for name, value in one.inputs.items()}
        loss = engine.loss(inputs, one.labels.to(device))
        engine.backward(loss / answers, last=number == len(loaded) - 1)
        losses.append(loss.detach())
    sums = gathered(torch.stack(losses))  # [processes, passes]
    if places := [(int(p), int(n)) for p, n in (~sums.isfinite()).nonzero()]:
        raise NotFiniteError(places)
    norm = engine.step(rate)
    if not math.isfinite(norm):
        raise NotFiniteError([(p, n) for p in range(len(sums)) for n in range(len(loaded))])
    return float(sums.double().sum()) / answers, norm, int(counts[..., 2].sum())


def _answers(labels: Tensor) -> int:
    return int((labels[:, 1:] != IGNORED).sum())


def layer_names(module: nn.Module, model: nn.Module) -> list[list[str]]:
    """Names of tuned parameters, layer by layer."""
    tuned = tuned_parameters(module)
    names = {id(parameter): name for name, parameter in tuned.items()}
    layers = [
        [names[id(parameter)] for parameter in layer.parameters() if id(parameter) in names]
        for layer in decoder_layers(model)
    ]
    return [layer for layer in layers if layer]


def save(engine: Engine, layers: list[list[str]], done: list[Update], scratch: Path) -> None:
    """Write a resume point; all processes hand over their part, the first one writes."""
    states = (engine.state(names) for names in layers)
    if processes.process_rank() == 0:
        write_point(scratch, len(done), states, updates=done)
        return
    for _ in states:
        pass


def resume(engine: Engine, scratch: Path) -> list[Update]:
    """Take over the newest resume point that is whole; returns the updates it stands behind.

    The first process chooses it; all read it, so that `scratch` must be one folder for all.
    """
    step = torch.zeros((), dtype=torch.int64, device=processes.device())
    if processes.process_rank() == 0:
        point, damages = newest_point(scratch)
        for damage in damages:
            tqdm.write(f"finetune: {damage}")
        step += point.step if point else 0
    step = gathered(step)[0]
    if not step:
        return []
    point = Point.read(scratch, int(step))
    for tensors in point.tensors():
        engine.restore(tensors, point.step)
    return [Update(*values) for values in point.updates]


def _progress(ahead: Iterator[list[Pass]], done: list[Update], steps: int) -> Iterator[list[Pass]]:
    """Show loss, speed and time left while updates are made."""
    begin, before = time.perf_counter(), done[-1].tokens if done else 0
    quiet = processes.process_rank() > 0
    with tqdm(total=steps, initial=len(done), unit="step", desc="finetune", disable=quiet) as bar:
        for loaded in ahead:
            yield loaded
            last = done[-1]
            speed = (last.tokens - before) / (time.perf_counter() - begin)
            bar.set_postfix_str(f"loss {last.loss:.4f}, {speed:,.0f} tokens/s", refresh=False)
            bar.update()
