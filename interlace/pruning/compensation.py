"""Make up for dropped layers by least squares, folded into weights that stay.

From the layer before the first dropped one on, each kept layer's MLP ends in a linear layer that is
fitted anew, in depth order: the states after it come as near as possible to those that the dense
model has before the next kept layer. So nothing is added to the model. The idea is ReplaceMe's
(arXiv 2505.02819), which fits one linear map in place of one run of layers; here the weight itself
is fitted, and the layers after a run make up for what the layers before it could not.

Each token counts by its error relative to the length of its target. The dense model's states are
its true inputs of the next kept layer. They are compared with the input of the same layer in the
pruned model, all earlier layers fitted. Both hold the visual features that enter on the way.

A weight that fits the calibration samples can still harm the answers, above all in early layers,
whose errors the rest of the decoder amplifies. So the strength of the ridge is the one with the
least error on held-out samples, and each new weight is judged by the cross-entropy of answers on
them, and kept only where it lowers that of the current model: earlier layers decided, later ones
dropped or as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn
from tqdm import tqdm

from interlace.errors import ContractError, InputError, way_to_finite
from interlace.model.bypass import bypassed
from interlace.model.decoder import decoder_layers
from interlace.pruning.least_squares import Solution, Sums, best_of
from interlace.pruning.mlp import (
    check_added_as_it_is,
    ends_in_linear,
    last_linear,
    residual_multiplier,
)
from interlace.pruning.new_values import Fit, Store
from interlace.pruning.passage import Passage
from interlace.pruning.report import CutReport
from interlace.samples.answered_rows import AnsweredRows

RIDGES = (0.01, 0.1, 1.0, 10.0)  # lambda, times the mean diagonal of A'A
HELD_OUT = 4  # every n-th sample is held out of the fit, to judge it

Weights = Mapping[nn.Parameter, Tensor]


@dataclass(frozen=True)
class Cut:
    """A kept layer, and the dropped ones between it and the next kept one.

    Attributes:
        layer: the kept layer; `None` where dropped layers begin the decoder.
        dropped: in order; may be none.
    """

    layer: int | None
    dropped: tuple[int, ...]

    @property
    def end(self) -> int:
        """The next kept layer, or the count of layers."""
        return 1 + (self.dropped[-1] if self.dropped else self.layer or 0)


def cuts_of(drop: Sequence[int], n_layers: int, healed: Sequence[int] = ()) -> list[Cut]:
    """Return the kept layers from the one before the first dropped or healed one on, by depth."""
    begin = max(min([*drop, *(layer + 1 for layer in healed)], default=n_layers) - 1, 0)
    cuts: list[Cut] = []
    for layer in range(begin, n_layers):
        if layer not in drop:
            cuts.append(Cut(layer, ()))
        elif cuts:
            cuts[-1] = Cut(cuts[-1].layer, (*cuts[-1].dropped, layer))
        else:
            cuts.append(Cut(None, (layer,)))
    return cuts


@dataclass(frozen=True)
class Compensated:
    """The weights that make up for dropped layers.

    Attributes:
        weights: new values by the dense model's parameter, in its dtype.
        reports: on each cut, in depth order.
        heldout_before: cross-entropy per answer token of the held-out samples without the dropped
            layers, nats.
        heldout_after: the same with the new weights.
    """

    weights: dict[nn.Parameter, Tensor]
    reports: list[CutReport]
    heldout_before: float
    heldout_after: float


def compensate(
    model: nn.Module,
    drop: Sequence[int],
    rows: AnsweredRows,
    store: Store | None = None,
    healed: Weights = MappingProxyType({}),
) -> Compensated:
    """Make up for dropped layers in memory; no checkpoint is written.

    While `pruned(model, drop, result.weights)` runs, the model is the compensated one.

    Args:
        model: the dense model; unchanged on return.
        drop: dropped layers of the dense decoder; at least one.
        rows: calibration samples with answers; every fourth is held out of the fit.
        store: the stored values of weights, and the fits so far; `None`: the model's own, and none.
        healed: values that kept layers have in the pruned model, in place of the dense ones.

    Raises:
        InputError: too few samples, or a layer whose MLP's output cannot be fitted.
        ContractError: a state or a loss is not finite.
    """
    store = store or Store()
    cuts = cuts_of(drop, len(decoder_layers(model)), layers_with(model, healed))
    fitted, heldout = rows.split(HELD_OUT)
    if not heldout.paths:
        raise InputError(
            f"export.compensate = lstsq: {len(rows.paths)} calibration samples with answers are too"
            f" few, since every {HELD_OUT}th is held out; raise data.calibration_fraction or"
            " export.compensate_samples"
        )
    fits = [store.load(cut.end) for cut in cuts]
    if None in fits:
        layers = [cut.layer for cut in cuts if cut.layer is not None and fits_at(model, cut)]
        check_added_as_it_is(model, layers, fitted.batch(0, next(model.parameters()).device))
        fitting, judging = (
            Passage(model, drop, half, begin=cuts[0].layer or 0) for half in (fitted, heldout)
        )
        fits = Repair(model, store, fitting, judging, healed).fit_all(cuts, fits)
    complete = [fit for fit in fits if fit is not None]
    reports = [fit.report for fit in complete]
    weights = dict(healed)
    for cut, fit in zip(cuts, complete, strict=True):
        weights |= _by_parameter(model, cut, fit.tensors)
    return Compensated(weights, reports, reports[0].heldout_before, reports[-1].heldout_loss)


def layers_with(model: nn.Module, weights: Weights) -> list[int]:
    """Return the decoder layers that some parameters belong to."""
    return [
        number
        for number, layer in enumerate(decoder_layers(model))
        if not weights.keys().isdisjoint(layer.parameters())
    ]


def fits_at(model: nn.Module, cut: Cut) -> bool:
    """Return True if a cut's kept layer is to be fitted.

    Raises:
        InputError: layers were dropped after it, and its MLP does not end in a linear layer.
    """
    if cut.layer is None:
        return False
    if cut.dropped:
        last_linear(model, cut.layer)
    return ends_in_linear(model, cut.layer)


def _by_parameter(
    model: nn.Module, cut: Cut, tensors: Mapping[str, Tensor]
) -> dict[nn.Parameter, Tensor]:
    """Return values by the model's parameter, in its dtype and on its device."""
    values: dict[nn.Parameter, Tensor] = {}
    if cut.layer is None:
        return values
    for name, value in tensors.items():
        parameter = decoder_layers(model)[cut.layer].get_parameter(name)
        values[parameter] = value.to(parameter.device, parameter.dtype)
    return values


@dataclass(frozen=True)
class Repair:
    """The fits of all layers, in depth order.

    Attributes:
        model: the dense model; while layers are fitted it has the new weights so far.
        store: of stored values and of fits.
        fitted: the samples that layers are fitted on.
        heldout: the samples that judge.
        healed: values of kept layers that the fits start from.
    """

    sums_type: ClassVar[type[Sums]] = Sums
    model: nn.Module
    store: Store
    fitted: Passage
    heldout: Passage
    healed: Weights

    def fit_all(self, cuts: Sequence[Cut], fits: Sequence[Fit | None]) -> list[Fit | None]:
        """Fit the layers that are not fitted yet."""
        results: list[Fit | None] = []
        loss: float | None = None
        dense = {parameter: parameter.data for parameter in self.healed}
        with substituting() as put, tqdm(total=len(cuts), unit="layer", desc="compensate") as bar:
            put(self.healed)
            for cut, fit in zip(cuts, fits, strict=True):
                with substituting() as put_dense:
                    put_dense(dense)
                    for passage in (self.fitted, self.heldout):
                        passage.advance_dense(cut.end)
                if fit is None:
                    loss = self.loss() if loss is None else loss
                    fit = self.fit(cut, loss, put)
                    self.store.save(cut.end, fit)
                put(_by_parameter(self.model, cut, fit.tensors))
                if cut.layer is not None:
                    for passage in (self.fitted, self.heldout):
                        passage.advance_pruned()
                loss = fit.report.heldout_loss
                results.append(fit)
                bar.update()
        return results

    def fit(self, cut: Cut, loss: float, put: Callable[[Weights], None]) -> Fit:
        """Fit a layer, judge its new weights, and return them where they lower the loss."""
        report = CutReport(
            cut=list(cut.dropped), folded_into=cut.layer, heldout_before=loss, kept=False
        )
        if cut.layer is None:
            return refused(
                report, f"layer {cut.dropped[0]} is the first: no kept layer stands before it"
            )
        if not fits_at(self.model, cut):
            return refused(report, "its MLP does not end in one linear layer")
        try:
            solution = self.solution(cut.layer)
        except ContractError as error:
            raise ContractError(
                f"compensation, layer {cut.layer}: {error}; {self.remedy()}"
            ) from None
        tensors = self.changed(cut.layer, solution.change)
        old = {parameter: parameter.data for parameter in _by_parameter(self.model, cut, tensors)}
        put(_by_parameter(self.model, cut, tensors))
        new_loss = self.loss()
        put(old)
        report = report.model_copy(
            update={
                "ridge": solution.ridge,
                "residual_before": solution.residual_before,
                "residual_after": solution.residual_after,
                "heldout_after": new_loss,
                "kept": new_loss < loss,
            }
        )
        if report.kept:
            return Fit(report, tensors)
        return refused(report, "answers of held-out samples get no likelier")

    def solution(self, layer: int) -> Solution:
        """Fit the last linear layer of a kept layer's MLP."""
        return best_of(self.sums(layer, self.fitted), self.sums(layer, self.heldout), RIDGES)

    def sums(self, layer: int, passage: Passage) -> Sums:
        """Add up the sums of all valid tokens of some samples."""
        scale = residual_multiplier(self.model)
        linear = last_linear(self.model, layer)[1]
        device = linear.weight.device
        sums = self.sums_type.of_size(linear.in_features, linear.out_features, device)
        for signal, state, target in passage.signals(linear):
            sums.add(signal * scale, state, target)
        return sums

    def changed(self, layer: int, change: Tensor) -> dict[str, Tensor]:
        """Return the linear layer's new weight in its stored dtype, `W + D'`, by name."""
        name, linear = last_linear(self.model, layer)
        value = self.store.value(layer, f"{name}.weight", linear.weight)
        return {f"{name}.weight": (value.double() + change.T.to(value.device)).to(value.dtype)}

    def loss(self) -> float:
        """Return the pruned model's cross-entropy per held-out answer token, nats."""
        loss = self.heldout.loss()
        if not math.isfinite(loss):
            raise ContractError(f"compensation: the loss on answers is not finite; {self.remedy()}")
        return loss

    def remedy(self) -> str:
        """Say what to change where a number is not finite."""
        dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        return way_to_finite(dtype, "dtype")


def refused(report: CutReport, reason: str) -> Fit:
    """Return a fit without new weights, and its reason."""
    return Fit(report.model_copy(update={"reason": reason}), {})


@contextmanager
def substituting() -> Iterator[Callable[[Weights], None]]:
    """Yield a function that puts new values into parameters until the block ends."""
    old_values: dict[nn.Parameter, Tensor] = {}

    def put(weights: Weights) -> None:
        for parameter, value in weights.items():
            old_values.setdefault(parameter, parameter.data)
            parameter.data = value

    try:
        yield put
    finally:
        for parameter, value in old_values.items():
            parameter.data = value


@contextmanager
def pruned(model: nn.Module, drop: Sequence[int], weights: Weights) -> Iterator[None]:
    """Take layers out of a dense model and put new weights in while the block runs."""
    with substituting() as put, bypassed(model, drop):
        put(weights)
        yield
