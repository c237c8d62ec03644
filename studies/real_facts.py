"""What the page of the study on real weights says beside its rows, from the study's files."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pyarrow.parquet as pq
import torch

from interlace.scores.sinks import sink_layers
from interlace.scores.table import FIRST_COSINE, FIRST_GROWTH, NATIVE
from studies.real_bench import PASSES, SIMILARITY, Inputs, measured, seconds
from studies.real_choices import NOT_SERVED, score_table, single_losses
from studies.real_losses import HeldoutLosses
from studies.real_rows import Facts, Layer, Variant
from studies.real_rules import RULES


def facts(inputs: Inputs, losses: Mapping[Variant, HeldoutLosses]) -> Facts:
    """Gather the sizes of all sets, the dense model's loss, the costs and the machine."""
    dense = losses[Variant()]
    timed = {name: measured(inputs, name) for name in (SIMILARITY, "taylor", "sleb", "search")}
    costs = {name: cost for name, path in timed.items() if (cost := seconds(path)) is not None}
    if (cost := seconds(inputs.losses_file(Variant()))) is not None:
        costs["held-out loss of the dense model"] = cost
    rows = sum(pq.read_metadata(path).num_rows for path in inputs.calibration.glob("*.parquet"))
    return Facts(
        n_layers=inputs.n_layers,
        heldout=(len(dense.loss), int(dense.n_tokens.sum())),
        prompts=rows,
        loss_rows=inputs.loss_rows,
        search_rows=inputs.search_rows,
        passes=PASSES,
        fitted_rows=inputs.fitted_rows,
        dense_loss=dense.mean,
        seconds=costs,
        not_served=NOT_SERVED,
        rules=RULES,
        machine=f"{os.cpu_count()} CPU cores, torch {torch.__version__}, float32",
    )


def layer_rows(inputs: Inputs) -> list[Layer]:
    """Return all layers' measurements; none before SLEB's first step is there."""
    sleb = measured(inputs, "sleb")
    if not sleb.is_dir():
        return []
    scores = score_table(measured(inputs, SIMILARITY), {})
    criteria = (NATIVE, FIRST_COSINE, FIRST_GROWTH)
    cosines, first, growth = (scores.of_span(1, name) for name in criteria)
    sinks = sink_layers(scores)
    return [
        Layer(
            i, cosines[i], first[i], 10 ** growth[i], loss, sinks is not None and i in sinks.layers
        )
        for i, loss in single_losses(sleb).items()
    ]
