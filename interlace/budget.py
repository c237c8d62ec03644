"""Turn a budget into the number of layers that `ratio: auto` drops.

The budget bounds parameters, time to first token, or the accuracy that is retained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.model import chat
from interlace.model.bypass import without
from interlace.model.decoder import decoder_layers
from interlace.model.states import normed_state
from interlace.params.budget import BudgetParams
from interlace.params.timing import Ttft
from interlace.plan.record import Decision, Plan
from interlace.samples.answered_rows import AnsweredRows, answered_rows
from interlace.scores.table import read_scores
from interlace.selection.select import select_layers
from interlace.sources.pinned import PinnedModel
from interlace.speed.compare import compare_models
from interlace.speed.requests import timed_rows

Plans = Callable[[int], Plan]  # K -> the plan that drops K layers


def resolve_budget(
    pinned: PinnedModel, table: Path, calibration: Path, params: BudgetParams
) -> Decision:
    """Turn the budget into a number of layers.

    Args:
        pinned: the dense model's source.
        table: the scores.
        calibration: folder that `sample` wrote.
        params: the budget, the method and the options of the measurement.

    Raises:
        InputError: the budget cannot be reached.
    """
    budget, target = params.budget.target()
    dense = pinned.checkpoint()
    scores, options = (
        read_scores(table, by_score=True),
        params.select.model_copy(update={"rounds": 1}),
    )

    def plans(drops: int) -> Plan:
        return select_layers(scores, params.method, drops, options, seed=params.seed)

    if budget == "params":
        shares = parameter_shares(dense, plans)
        return decide(budget, target, shares, "counted")
    ttft, answers = params.ttft, params.sensitivity_options
    model = dense.open_model(dtype=params.dtype)
    if budget == "ttft_speedup":
        processor = dense.open_processor()
        with_images = dense.architecture.takes_images
        rows = timed_rows(calibration, ttft.requests, with_images=with_images)
        return decide(
            budget, target, *speedups(model, processor, rows, plans, params=ttft, seed=params.seed)
        )
    processor = dense.open_processor(max_pixels=answers.max_pixels)
    with TemporaryDirectory() as encoded:
        answered = answered_rows(processor, calibration, Path(encoded), answers)
        return decide(budget, target, *retention_by_drops(model, answered, plans, target))


def decide(budget: str, target: float, values: Mapping[int, float], how: str) -> Decision:
    """Choose K, the number of layers to drop, from the value of each K.

    For parameters and speedup K is the smallest that reaches the target; for retention, the largest
    such that neither it nor a smaller one falls below.

    Args:
        budget: params, ttft_speedup or retention.
        target: the value to reach or keep.
        values: by K, from 0 on without gaps.
        how: origin of the values, for messages.

    Raises:
        InputError: no K reaches the target; names the nearest.
    """
    if budget == "retention":
        retained = [k for k in values if all(values[i] >= target for i in range(1, k + 1))]
        drops, aim = max(retained), "the most layers that keep"
    else:
        reached = [
            k for k, v in values.items() if (v <= target if budget == "params" else v >= target)
        ]
        drops, aim = min(reached, default=0), "the fewest layers that reach"
    if not drops:
        last = 1 if budget == "retention" else max(values)
        raise InputError(
            f"budget.{budget} = {target:g} cannot be reached: with {last} of the layers"
            f" dropped it is {values[last]:.4g} ({how}); ease the target, or protect fewer layers"
        )
    reason = f"{drops} layers: {aim} budget.{budget} = {target:g}, at {values[drops]:.4g} ({how})"
    return Decision(
        budget=budget, target=target, drops=drops, values=dict(values), how=how, reason=reason
    )


def feasible_plans(plans: Plans, n_layers: int) -> Iterator[tuple[int, Plan]]:
    """Yield the plans for K = 1, 2, ... up to the most that the method can drop."""
    for drops in range(1, n_layers):
        try:
            plan = plans(drops)
        except InputError:
            return
        if len(plan.drop) < drops:  # the shortfall policy is `fewer`
            return
        yield drops, plan


def parameter_shares(dense: Checkpoint, plans: Plans) -> dict[int, float]:
    """Compute the share of the dense model's parameters that remains, by K, from file headers."""
    sizes, total = dense.layers.parameters(), dense.parameters
    shares = {0: 1.0}
    for drops, plan in feasible_plans(plans, dense.architecture.n_layers):
        shares[drops] = (total - sum(sizes[i] for i in plan.drop)) / total
    return shares


def speedups(
    model: nn.Module,
    processor: Any,
    rows: list[dict[str, Any]],
    plans: Plans,
    *,
    params: Ttft,
    seed: int,
) -> tuple[dict[int, float], str]:
    """Estimate the speedup of the first token by K from one timing.

    All layers of a decoder take the same time, so the time falls linearly with K; it is timed with
    about half of the layers dropped.

    Returns:
        Speedups by K, and their origin.
    """
    n_layers = len(decoder_layers(model))
    feasible = dict(feasible_plans(plans, n_layers))
    if not feasible:
        raise InputError("ratio = auto: no layer can be dropped; protect fewer layers")
    half = min(max(1, n_layers // 2), max(feasible))
    first_only = params.model_copy(update={"batch_sizes": (), "new_tokens": 1})
    models = (model, without(model, feasible[half].drop))
    metrics = compare_models(models, processor, rows, params=first_only, seed=seed)
    if metrics["ttft_speedup"] is None:
        raise InputError(f"budget.ttft_speedup: {metrics['ttft_speedup_refused']}")
    saved = (1 - 1 / float(metrics["ttft_speedup"])) / half  # share of the time, per layer
    values = {0: 1.0} | {k: 1 / (1 - k * saved) for k in feasible}
    return values, f"timed with {half} of {n_layers} layers gone, by a line for the others"


def answer_accuracy(model: nn.Module, rows: AnsweredRows) -> float:
    """Compute the share of answer tokens that the model ranks first, given the tokens before them.

    Args:
        model: with a language modelling head.
        rows: calibration rows with answers.
    """
    device = next(model.parameters()).device
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    right = total = 0
    for number in range(len(rows.groups)):
        batch = rows.batch(number, device)
        labels = batch["labels"][:, 1:]  # [B, T-1]
        answers = labels != chat.IGNORED
        with torch.inference_mode():
            states = normed_state(model, batch)[:, :-1]  # [B, T-1, d]
            tokens = head(states[answers]).argmax(-1)  # [answer tokens]
        right += int((tokens == labels[answers]).sum())
        total += int(answers.sum())
    return right / total


def retention_by_drops(
    model: nn.Module, rows: AnsweredRows, plans: Plans, target: float
) -> tuple[dict[int, float], str]:
    """Measure accuracy on calibration answers by K, in percent of the dense model's.

    Returns:
        Retention by K, up to the first K that falls below the target, and its origin.
    """
    dense = answer_accuracy(model, rows)
    if not dense:
        raise InputError("budget.retention: the dense model gets no calibration answer token right")
    values = {0: 100.0}
    n_layers = len(decoder_layers(model))
    for drops, plan in tqdm(
        feasible_plans(plans, n_layers), total=n_layers - 1, desc="budget", unit="layer"
    ):
        values[drops] = 100 * answer_accuracy(without(model, plan.drop), rows) / dense
        if values[drops] < target:
            break
    how = f"answer tokens ranked first on {len(rows.paths)} calibration rows, before tuning"
    return values, how
