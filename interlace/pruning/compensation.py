"""Make up for dropped layers by least squares, folded into weights that stay.

A kept layer stands before each run of dropped ones. A linear map T of what its MLP adds to the
state, M, brings the state after the run as near as possible to the dense model's. T is folded into
the MLP's last linear layer, `W <- T'W`, so nothing is added to the model. The idea is ReplaceMe's
(arXiv 2505.02819), applied to runs of layers anywhere in the decoder.

The target is the dense model's true input of the module that follows the run. It is compared with
the input of the same module in the pruned model, all earlier runs compensated. Both hold the visual
features that enter on the way.

A map that fits the calibration samples can still harm the answers, above all in early layers, whose
errors the rest of the decoder amplifies. So each map is judged by the cross-entropy of answers on
held-out samples, and kept only where it lowers that of the current model: earlier runs decided,
later runs dropped and not compensated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from interlace.pruning.least_squares import Sums, solve
from interlace.pruning.mlp import check_added_as_it_is, last_linear, residual_multiplier
from interlace.pruning.report import CutReport
from interlace.samples.answered_rows import AnsweredRows, answer_tokens
from interlace.system.resumable import intact, keep_json

RIDGE = 1e-2  # lambda, times the mean diagonal of M'M
HELD_OUT = 4  # every n-th sample is held out of the fit, to judge it

Weights = Mapping[nn.Parameter, Tensor]


@dataclass(frozen=True)
class Cut:
    """A run of dropped layers.

    Attributes:
        layers: the run, in order; a kept layer, or the decoder's end, on either side.
    """

    layers: tuple[int, ...]

    @property
    def folded_into(self) -> int | None:
        """The kept layer before the run; `None` where it begins the decoder."""
        return self.layers[0] - 1 if self.layers[0] else None


def cuts_of(drop: Sequence[int]) -> list[Cut]:
    """Group dropped layers into runs of neighbours, in depth order."""
    runs: list[list[int]] = []
    for layer in sorted(drop):
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [Cut(tuple(run)) for run in runs]


def compensate(
    model: nn.Module, stored: StoredLayers, drop: Sequence[int], rows: AnsweredRows, scratch: Path
) -> tuple[dict[str, Path], list[CutReport]]:
    """Make up for the dropped layers, run by run in depth order.

    Args:
        model: the dense model; unchanged on return.
        stored: its checkpoint's weights, which are folded in their stored dtype.
        drop: dropped layers of the dense decoder.
        rows: calibration samples with answers; every fourth is held out of the fit.
        scratch: folder for each run's weights and report; runs that are in it are not done again.

    Returns:
        The file of each new weight by stored name, and a report on each run.

    Raises:
        InputError: too few samples, or a layer whose MLP's output cannot be mapped.
        ContractError: a state or a loss is not finite.
    """
    cuts = cuts_of(drop)
    fitted, heldout = rows.split(HELD_OUT)
    if not heldout.paths:
        raise InputError(
            f"export.compensate = lstsq: {len(rows.paths)} calibration samples with answers are too"
            f" few, since every {HELD_OUT}th is held out; raise data.calibration_fraction or"
            " export.compensate_samples"
        )
    layers = [cut.folded_into for cut in cuts if cut.folded_into is not None]
    check_added_as_it_is(model, layers, fitted.batch(0, next(model.parameters()).device))
    replaced: dict[str, Path] = {}
    weights: dict[nn.Parameter, Tensor] = {}
    reports: list[CutReport] = []
    with tqdm(total=len(cuts), unit="run", desc="compensate") as progress:
        for cut in cuts:
            report_file = scratch / f"run-{cut.layers[0]:03d}.json"
            weights_file = report_file.with_suffix(".safetensors")
            if not (intact(report_file) and _has_weights(report_file, weights_file)):
                repair = _Repair(model, stored, tuple(drop), fitted, heldout, weights)
                report = repair.fit(cut, _loss_so_far(reports), weights_file)
                keep_json(report_file, report.as_json())
            reports.append(_read_report(report_file))
            if reports[-1].kept:
                weights |= stored.new_values(model, weights_file)
                replaced |= dict.fromkeys(stored_tensors(weights_file), weights_file)
            progress.update()
    return replaced, reports


def _read_report(file: Path) -> CutReport:
    return CutReport.model_validate_json(file.read_text(encoding="utf-8"))


def _has_weights(report_file: Path, weights_file: Path) -> bool:
    """Return True if the weights that a report names are there and undamaged."""
    return not _read_report(report_file).kept or intact(weights_file)


def _loss_so_far(reports: Sequence[CutReport]) -> float | None:
    """Return the held-out loss after the last run; `None` before the first."""
    judged = [report for report in reports if report.heldout_after is not None]
    if not judged:
        return None
    return judged[-1].heldout_after if judged[-1].kept else judged[-1].heldout_before


@dataclass(frozen=True)
class _Repair:
    """One run's repair, on the model that the earlier ones left."""

    model: nn.Module
    stored: StoredLayers
    drop: tuple[int, ...]
    fitted: AnsweredRows
    heldout: AnsweredRows
    weights: Weights

    def fit(self, cut: Cut, loss: float | None, file: Path) -> CutReport:
        """Fit a run's map, judge it, and write its weights where they lower the loss.

        Args:
            cut: the run.
            loss: of the model without the map; `None`: not known yet.
            file: for the weights.
        """
        layer, cut_layers = cut.folded_into, list(cut.layers)
        if layer is None:
            return CutReport(
                cut=cut_layers,
                folded_into=None,
                residual_before=None,
                residual_after=None,
                heldout_before=None,
                heldout_after=None,
                kept=False,
                reason=f"layer {cut.layers[0]} is the first: no kept layer stands before it",
            )
        sums = self.sums(cut, layer)
        try:
            transform = solve(sums, RIDGE)
        except ContractError as error:
            raise ContractError(f"compensation, layer {layer}: {error}; {self.remedy()}") from None
        loss = self.loss(self.weights) if loss is None else loss
        write_weights(self.folded(layer, transform), file)
        new_loss = self.loss({**self.weights, **self.stored.new_values(self.model, file)})
        report = CutReport(
            cut=cut_layers,
            folded_into=layer,
            residual_before=sums.residual(),
            residual_after=sums.residual(transform),
            heldout_before=loss,
            heldout_after=new_loss,
            kept=new_loss < loss,
        )
        if report.kept:
            return report
        file.unlink()
        return report.model_copy(update={"reason": "answers of held-out samples get no likelier"})

    def sums(self, cut: Cut, layer: int) -> Sums:
        """Add up the sums of all valid tokens of the fitted samples."""
        scale = residual_multiplier(self.model)
        follower = following(self.model, cut.layers[-1])
        linear = last_linear(self.model, layer)[1]
        sums = Sums.of_width(linear.out_features, linear.weight.device)
        signals: dict[None, Tensor] = {}
        for batch in _batches(self.model, self.fitted, f"fit layer {layer}"):
            valid = batch["attention_mask"].bool()  # [B, T]
            with torch.inference_mode():
                target = state_before(self.model, batch, follower)
                with (
                    pruned(self.model, self.drop, self.weights),
                    hooked({None: linear}, on_return=signals.__setitem__),
                ):
                    state = state_before(self.model, batch, follower)
                signal = signals[None] * scale
            sums.add(*(states[valid] for states in (signal, state, target)))  # [B, T, d] -> [N, d]
        return sums

    def folded(self, layer: int, transform: Tensor) -> dict[str, Tensor]:
        """Fold the map into the linear layer's stored tensors: `W <- T'W`, `b <- T'b`."""
        name, linear = last_linear(self.model, layer)
        tensors = {}
        for suffix, parameter in linear.named_parameters():  # weight, bias
            value = self.stored.read(layer, f"{name}.{suffix}", parameter.shape)
            mapped = transform.T @ value.double()  # [d, d] @ [d, ff] or [d]
            tensors[self.stored.name(layer, f"{name}.{suffix}")] = mapped.to(value.dtype)
        return tensors

    def loss(self, weights: Weights) -> float:
        """Return the pruned model's cross-entropy per held-out answer token, nats."""
        total, tokens = 0.0, 0
        norm = norm_and_head(self.model)[0]
        with pruned(self.model, self.drop, weights), torch.inference_mode():
            for batch in _batches(self.model, self.heldout, "judge"):
                state = state_before(self.model, batch, norm)
                total += answer_loss(self.model, state, batch["labels"])
                tokens += answer_tokens(batch["labels"])
        if not math.isfinite(total):
            raise ContractError(f"compensation: the loss on answers is not finite; {self.remedy()}")
        return total / tokens

    def remedy(self) -> str:
        """Say what to change where a number is not finite."""
        dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        return way_to_finite(dtype, "dtype")


@contextmanager
def pruned(model: nn.Module, drop: Sequence[int], weights: Weights) -> Iterator[None]:
    """Take layers out of a dense model and put new weights in while the block runs."""
    old_values = {parameter: parameter.data for parameter in weights}
    try:
        for parameter, value in weights.items():
            parameter.data = value
        with bypassed(model, drop):
            yield
    finally:
        for parameter, value in old_values.items():
            parameter.data = value


def _batches(model: nn.Module, rows: AnsweredRows, description: str) -> Iterator[Inputs]:
    device = next(model.parameters()).device
    for number in tqdm(range(len(rows.groups)), unit="batch", desc=description, leave=False):
        yield rows.batch(number, device)
