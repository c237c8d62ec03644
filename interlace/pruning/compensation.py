"""Make up for dropped layers by least squares, folded into weights that stay.

A kept layer a stands before each run of dropped ones. What its MLP adds to the state, M, is mapped
linearly, so that the state behind the run comes as near as it can to the dense model's; the map T
goes into the MLP's last linear layer, `W <- T'W`, and nothing is added to the model. The idea is
ReplaceMe's (arXiv 2505.02819), taken to layers dropped here and there.

The state that is wanted is the true input of what follows the run, in the dense model; the state
that is had is the same module's input in the pruned model with all earlier runs made up for.
Visual features that enter on the way are in both as each model adds them, wherever it does.

A map that fits the calibration samples can still harm what the model says, above all in early
layers, whose errors the rest of the decoder amplifies. So each run's map is judged by what a user
cares for: the cross-entropy of answers on samples that it was not fitted on. It stays only where it
lowers that of the model as it then is: earlier runs decided on, later ones dropped and not made up
for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from interlace.checkpoint.layers import StoredLayers
from interlace.checkpoint.replace import write_weights
from interlace.checkpoint.safetensors import stored_tensors
from interlace.errors import ContractError, InputError, way_to_finite
from interlace.model.answer_loss import answer_loss
from interlace.model.bypass import bypassed
from interlace.model.chat import Inputs
from interlace.model.decoder import following, norm_and_head
from interlace.model.states import hooked, state_before
from interlace.outputs import write_json
from interlace.pruning.least_squares import Sums, solve
from interlace.pruning.mlp import check_added_as_it_is, last_linear, residual_multiplier
from interlace.samples.answered_rows import AnsweredRows, answer_tokens

RIDGE = 1e-2  # lambda, times the mean diagonal of M'M
HELD_OUT = 4  # every n-th sample judges, the others fit

Weights = Mapping[nn.Parameter, Tensor]
Report = dict[str, Any]


@dataclass(frozen=True)
class Cut:
    """A run of dropped layers.

    Attributes:
        layers: the run, in order; a kept layer, or the decoder's end, on either side.
    """

    layers: tuple[int, ...]

    @property
    def folded_into(self) -> int | None:
        """The kept layer before the run; none where it begins the decoder."""
        return self.layers[0] - 1 if self.layers[0] else None


def cuts_of(drop: Sequence[int]) -> list[Cut]:
    """The runs that dropped layers make, in depth order."""
    runs: list[list[int]] = []
    for layer in sorted(drop):
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [Cut(tuple(run)) for run in runs]


def compensate(
    model: nn.Module, stored: StoredLayers, drop: Sequence[int], rows: AnsweredRows, scratch: Path
) -> tuple[dict[str, Path], list[Report]]:
    """Make up for the dropped layers, run by run in depth order.

    Args:
        model: the dense model; it is as it was afterwards.
        stored: its checkpoint's weights, which are folded in their stored dtype.
        drop: layers of the dense decoder that go.
        rows: calibration samples with answers; each fourth is held out of the fit.
        scratch: folder for each run's weights and report; runs that are in it are not done again.

    Returns:
        The file of each new weight by stored name, and by run what came of it: `cut` (layers),
        `folded_into` (layer), `residual_before` and `residual_after` (squared error of the state
        behind the run as a share of the dense state's square, on the fitted samples),
        `heldout_before` and `heldout_after` (cross-entropy per answer token, nats, on the others),
        `kept`, and `reason` where it is not.

    Raises:
        InputError: too few samples, or a layer whose MLP's output cannot be mapped.
        ContractError: a state or a loss is not finite.
    """
    cuts = cuts_of(drop)
    fitted, held = rows.split(HELD_OUT)
    if not held.paths:
        raise InputError(
            f"export.compensate = lstsq: {len(rows.paths)} calibration samples with answers are too"
            f" few, since every {HELD_OUT}th is held out; raise data.calibration_fraction or"
            " export.compensate_samples"
        )
    layers = [cut.folded_into for cut in cuts if cut.folded_into is not None]
    check_added_as_it_is(model, layers, fitted.batch(0, next(model.parameters()).device))
    replaced: dict[str, Path] = {}
    weights: dict[nn.Parameter, Tensor] = {}
    reports: list[Report] = []
    with tqdm(total=len(cuts), unit="run", desc="compensate") as progress:
        for cut in cuts:
            place = scratch / f"run-{cut.layers[0]:03d}"
            report, new = place.with_suffix(".json"), place.with_suffix(".safetensors")
            if not report.is_file():
                repair = _Repair(model, stored, tuple(drop), fitted, held, weights)
                write_json(report, repair.made(cut, _loss_so_far(reports), new))
            reports.append(json.loads(report.read_text(encoding="utf-8")))
            if reports[-1]["kept"]:
                weights |= stored.new_values(model, new)
                replaced |= dict.fromkeys(stored_tensors(new), new)
            progress.update()
    return replaced, reports


def _loss_so_far(reports: Sequence[Report]) -> float | None:
    """The held-out loss of the model as the last run left it; none before the first."""
    judged = [report for report in reports if report["heldout_after"] is not None]
    if not judged:
        return None
    loss: float = judged[-1]["heldout_after" if judged[-1]["kept"] else "heldout_before"]
    return loss


@dataclass(frozen=True)
class _Repair:
    """One run's repair, on the model as the earlier ones left it."""

    model: nn.Module
    stored: StoredLayers
    drop: tuple[int, ...]
    fitted: AnsweredRows
    held: AnsweredRows
    weights: Weights

    def made(self, cut: Cut, before: float | None, file: Path) -> Report:
        """Fit a run's map, judge it, and write its weights where they help."""
        layer = cut.folded_into
        report: Report = {"cut": list(cut.layers), "folded_into": layer}
        names = ("residual_before", "residual_after", "heldout_before", "heldout_after")
        if layer is None:
            report |= dict.fromkeys(names)
            return report | {
                "kept": False,
                "reason": f"layer {cut.layers[0]} is the first: no kept layer stands before it",
            }
        sums = self.sums(cut, layer)
        try:
            transform = solve(sums, RIDGE)
        except ContractError as error:
            raise ContractError(f"compensation, layer {layer}: {error}; {self.way()}") from None
        before = self.loss(self.weights) if before is None else before
        write_weights(self.folded(layer, transform), file)
        after = self.loss({**self.weights, **self.stored.new_values(self.model, file)})
        values = (sums.residual(), sums.residual(transform), before, after)
        report |= dict(zip(names, values, strict=True)) | {"kept": after < before}
        if not report["kept"]:
            file.unlink()
            report["reason"] = "answers of held-out samples get no likelier"
        return report

    def sums(self, cut: Cut, layer: int) -> Sums:
        """Sums over all valid tokens of the fitted samples."""
        scale = residual_multiplier(self.model)
        follower = following(self.model, cut.layers[-1])
        linear = last_linear(self.model, layer)[1]
        sums = Sums.of_width(linear.out_features, linear.weight.device)
        signals: dict[None, Tensor] = {}
        for batch in _batches(self.model, self.fitted, f"fit layer {layer}"):
            valid = batch["attention_mask"].bool()  # [B, T]
            with torch.inference_mode():
                wanted = state_before(self.model, batch, follower)
                with (
                    pruned(self.model, self.drop, self.weights),
                    hooked({None: linear}, on_return=signals.__setitem__),
                ):
                    state = state_before(self.model, batch, follower)
                signal = signals[None] * scale
            sums.add(*(part[valid] for part in (signal, state, wanted)))  # [B, T, d] -> [N, d]
        return sums

    def folded(self, layer: int, transform: Tensor) -> dict[str, Tensor]:
        """The linear layer's stored tensors behind the map: `W <- T'W`, `b <- T'b`."""
        name, linear = last_linear(self.model, layer)
        tensors = {}
        for part, parameter in linear.named_parameters():
            value = self.stored.read(layer, f"{name}.{part}", parameter.shape)
            mapped = transform.T @ value.double()  # [d, d] @ [d, ff] or [d]
            tensors[self.stored.name(layer, f"{name}.{part}")] = mapped.to(value.dtype)
        return tensors

    def loss(self, weights: Weights) -> float:
        """Cross-entropy per answer token of the pruned model on the held-out samples, nats."""
        total, tokens = 0.0, 0
        norm = norm_and_head(self.model)[0]
        with pruned(self.model, self.drop, weights), torch.inference_mode():
            for batch in _batches(self.model, self.held, "judge"):
                state = state_before(self.model, batch, norm)
                total += answer_loss(self.model, state, batch["labels"])
                tokens += answer_tokens(batch["labels"])
        if not math.isfinite(total):
            raise ContractError(f"compensation: the loss on answers is not finite; {self.way()}")
        return total / tokens

    def way(self) -> str:
        """What to do where a number is not finite."""
        dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        return way_to_finite(dtype, "dtype")


@contextmanager
def pruned(model: nn.Module, drop: Sequence[int], weights: Weights) -> Iterator[None]:
    """Take layers out of a dense model and put new weights in while the block runs."""
    before = {parameter: parameter.data for parameter in weights}
    try:
        for parameter, value in weights.items():
            parameter.data = value
        with bypassed(model, drop):
            yield
    finally:
        for parameter, value in before.items():
            parameter.data = value


def _batches(model: nn.Module, rows: AnsweredRows, what: str) -> Iterator[Inputs]:
    device = next(model.parameters()).device
    for number in tqdm(range(len(rows.groups)), unit="batch", desc=what, leave=False):
        yield rows.batch(number, device)
