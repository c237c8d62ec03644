"""The exchange search for sets of layers to drop, on the loss of a model's calibration answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from interlace.measurements.set_losses import set_losses
from interlace.methods.exchange import SETS_PER_ROUND, ExchangeSearch, check_passes, passes_of
from interlace.model.decoder import decoder_layers
from interlace.model.paths import Layers, survivors
from interlace.samples.answered_rows import AnsweredRows

CANDIDATES = pa.schema(
    [
        ("round", pa.int32()),
        ("drop", pa.list_(pa.int32())),
        ("rows", pa.string()),  # screening: every n-th; all
        ("loss", pa.float64()),
        ("n_tokens", pa.int64()),
        ("exchanged", pa.int32()),  # layers that the best set of its size before the round has not
        ("accepted", pa.bool_()),
    ]
)
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} passes [{elapsed}<{remaining}]"
Bests = dict[int, tuple[Layers, float]]


def search_sets(
    model: Any,
    rows: AnsweredRows,
    protected: Sequence[int],
    largest: int,
    passes: int,
    scratch: Path,
) -> tuple[Bests, pa.Table]:
    """Search for the sets of 1 to `largest` layers without which the loss on answers is lowest.

    Args:
        model: the dense model; it is unchanged afterwards.
        rows: the loss is measured on these; sets are screened on a share of them.
        protected: layers that stay.
        largest: K of the largest sets.
        passes: budget, forward passes over all rows.
        scratch: folder for the losses of sets by batch; finished ones are not measured again.

    Returns:
        By size, the best set and its loss; and a table of `CANDIDATES`, all sets measured.

    Raises:
        InputError: the budget allows no exchange.
        ContractError: a loss is not finite.
    """
    n_layers = len(decoder_layers(model))
    free = survivors(n_layers, protected)
    with tqdm(total=passes, desc="search", bar_format=_BAR) as progress:
        losses = _Losses(model, rows, scratch, progress)
        check_passes(passes, n_layers, free, largest, losses.share)
        run = ExchangeSearch(n_layers, free, largest, passes, losses.share, losses)
        bests = run.run()
        progress.total = round(run.spent, 1)  # it ends early where nothing better is in sight
        progress.update(run.spent - progress.n)
    trials = [
        {
            "round": trial.round,
            "drop": trial.drop,
            "rows": "screening" if trial.screened else "all",
            "loss": trial.loss,
            "n_tokens": losses.tokens[trial.screened],
            "exchanged": trial.exchanged,
            "accepted": trial.accepted,
        }
        for trial in run.trials
    ]
    return bests, pa.Table.from_pylist(trials, schema=CANDIDATES)


@dataclass
class _Losses:
    """Mean losses without sets of layers, on the screened rows or on all of them.

    All rows are the screened ones and the others, so a set that was screened runs on these alone.
    """

    model: Any
    rows: AnsweredRows
    scratch: Path
    progress: Any
    sums: dict[Layers, float] = field(default_factory=dict)  # on the screened rows
    tokens: dict[bool, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.others, self.screened = self.rows.screening()

    @property
    def share(self) -> float:
        """The share of the tokens that are screened."""
        return sum(self.screened.lengths) / sum(self.rows.lengths)

    def __call__(self, drops: Sequence[Layers], screened: bool) -> list[float]:
        rows = self.screened if screened else self.others
        sums, tokens = self._sums(drops, rows)
        if screened:
            self.sums.update(sums)
        elif self.sums:
            sums = {drop: total + self.sums[drop] for drop, total in sums.items()}
            tokens += self.tokens[True]
        self.tokens[screened] = tokens
        return [sums[drop] / tokens for drop in drops]

    def _sums(self, drops: Sequence[Layers], rows: AnsweredRows) -> tuple[dict[Layers, float], int]:
        sums: dict[Layers, float] = {}
        n_layers, tokens = len(decoder_layers(self.model)), 0
        order = sorted(drops, key=lambda drop: survivors(n_layers, drop))
        share = sum(rows.lengths) / sum(self.rows.lengths)
        for begin in range(0, len(order), SETS_PER_ROUND):
            chunk = order[begin : begin + SETS_PER_ROUND]
            cost = passes_of(n_layers, chunk, share) / len(rows.groups)
            digest = hashlib.sha256(f"{[path.name for path in rows.paths]}{chunk}".encode())
            folder = self.scratch / digest.hexdigest()[:16]
            advance = partial(self.progress.update, cost)
            losses, tokens = set_losses(self.model, rows, chunk, folder, advance)
            sums |= dict(zip(chunk, losses, strict=True))
        return sums, tokens
