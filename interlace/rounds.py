"""Progressive pruning: drop some layers, measure the smaller model, and continue.

With `select.heal_steps` the layers tuned so far are healed before each measurement, so that pruning
and tuning alternate.

Each round's table is kept, so that an interrupted chain, or a longer one with the same beginning,
resumes after its last round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interlace.checkpoint.layers import StoredLayers
from interlace.errors import InputError
from interlace.healing.local import heal_locally
from interlace.measurements.collect import collect, provenance_of
from interlace.methods.choice import Choice
from interlace.model.bypass import bypass
from interlace.params.choosing import Select
from interlace.params.exporting import Export
from interlace.params.measuring import Collect
from interlace.params.rounds import RoundsParams
from interlace.params.section import Section
from interlace.plan.record import Plan, Shortfall, read_decision
from interlace.plan.segments import segments
from interlace.pruning.dense import Dense
from interlace.pruning.export import export
from interlace.pruning.new_weights import compensated
from interlace.scores.average import score
from interlace.scores.table import read_scores
from interlace.selection.select import resolve_ratio, select_layers
from interlace.sources.pinned import PinnedModel
from interlace.system.outputs import link_or_copy, remove
from interlace.system.resumable import intact, kept, mark


def measuring_options(params: RoundsParams) -> list[Section]:
    """Return the options that a round's table depends on, besides the choice of layers.

    Chains that differ in other options alone, such as the ratio, share the tables of equal rounds.
    """
    options: list[Section] = [params.collect_options]
    if params.export.compensate != "none":
        fields = {"compensate", "compensate_samples"}
        options += [Export(**params.export.model_dump(include=fields)), params.answer_options]
    if params.select.heal_steps:
        options += [Select(heal_steps=params.select.heal_steps), params.finetune_options]
    return options


def measure_rounds(
    pinned: PinnedModel,
    table: Path,
    samples: Sequence[Path],
    train: Path,
    out: Path,
    *,
    params: RoundsParams,
    decision: Path,
    scratch: Path,
) -> Plan:
    """Measure the model again after every round but the last.

    Args:
        pinned: the dense model's source.
        table: scores of the dense model.
        samples: folders of rows to measure on, the calibration set first.
        train: folder of rows to heal on, read if `select.heal_steps` is set.
        out: folder for `scores-002.parquet` and so on, one table per further round.
        params: the method, the ratio, the rounds, and how to measure, compensate and heal.
        decision: file with the decision on the budget.
        scratch: folder that keeps tables and unfinished work; use another for other code, inputs or
            `measuring_options`.

    Returns:
        The plan that the rounds add up to.
    """

    def table_after(choice: Choice) -> pa.Table:
        name = _name(choice, params)
        file, dropped = scratch / f"{name}.parquet", sorted(choice.drop)
        if not intact(file):
            work = scratch / name
            replaced = _new_weights(pinned, samples[0], dropped, params, work)
            healed = None
            if params.select.heal_steps:
                healed = heal_so_far(pinned, choice, train, params, work, replaced)
            scores = measure_without(
                pinned, samples, dropped, params.collect_options, work, replaced, healed
            )
            with kept(file) as partial:
                pq.write_table(scores, partial)
        number = len(list(out.glob("*.parquet"))) + 2
        link_or_copy(file, out / f"scores-{number:03d}.parquet")
        return pq.read_table(file)

    return select_layers(
        read_scores(table, by_score=True),
        params.method,
        resolve_ratio(params.ratio, read_decision(decision)),
        params.select,
        seed=params.seed,
        later=table_after,
    )


def heal_so_far(
    pinned: PinnedModel,
    choice: Choice,
    train: Path,
    params: RoundsParams,
    scratch: Path,
    replaced: Mapping[str, Path] = MappingProxyType({}),
) -> Path:
    """Heal the layers tuned by the rounds so far, one by one, against the dense model.

    An interrupted run resumes.

    Args:
        pinned: the dense model's source.
        choice: of the rounds so far.
        train: folder of rows to heal on.
        params: `select.heal_steps` updates by the recipe of `finetune`.
        scratch: folder for unfinished work.
        replaced: stored names of new weights to start from -> their files.

    Returns:
        The folder of the healed checkpoint, in `scratch`.
    """
    healed, pruned = scratch / "healed", scratch / "pruned"
    plan = _plan_so_far(pinned, choice)
    if not segments(plan):
        raise InputError(
            "select.heal_steps: no tuned layer lies beside a dropped one; set it to 0, or choose a"
            " method that tunes neighbours"
        )
    dense = pinned.checkpoint()
    if not intact(healed):
        remove(pruned)
        trust = dense.trust_remote_code
        export(dense.folder, plan, pruned, replaced=replaced, trust_remote_code=trust)
        options = params.finetune_options
        heal_locally(
            dense,
            dense.at(pruned),
            train,
            healed,
            scratch / "local.csv",
            plan=plan,
            params=options.model_copy(update={"local_steps": params.select.heal_steps}),
            seed=params.seed,
            scratch=scratch / "local",
        )
        mark(healed)
    return healed


def _plan_so_far(pinned: PinnedModel, choice: Choice) -> Plan:
    n_layers = pinned.n_layers
    drops = len(choice.drop)
    return Plan(
        method="in rounds",
        ratio=drops / n_layers,
        n_layers=n_layers,
        drop=sorted(choice.drop),
        tune=sorted(choice.tune),
        freeze=[i for i in range(n_layers) if i not in choice.drop | choice.tune],
        groups=list(choice.groups),
        protected=[],
        deepstack_layers=pinned.deepstack_layers,
        shortfall=Shortfall(policy="fewer", wanted=drops, triplets=0, pairs=0, missing=0),
        sources={},
    )


def _new_weights(
    pinned: PinnedModel, calibration: Path, dropped: list[int], params: RoundsParams, scratch: Path
) -> Mapping[str, Path]:
    """Compute the weights that compensate for the dropped layers, if `export.compensate` is set."""
    if params.export.compensate == "none":
        return {}
    dense = Dense(pinned.checkpoint(), calibration, params.answer_options)
    return compensated(dense, dropped, params.export.compensate_samples, scratch / "weights")[0]


def measure_without(
    pinned: PinnedModel,
    samples: Sequence[Path],
    dropped: list[int],
    params: Collect,
    scratch: Path,
    replaced: Mapping[str, Path] = MappingProxyType({}),
    healed: Path | None = None,
) -> pa.Table:
    """Score the model with some layers bypassed, by position among the kept layers.

    Args:
        pinned: the dense model's source.
        samples: folders of rows to measure on.
        dropped: layers of the dense decoder to bypass.
        params: of the measurement.
        scratch: folder for unfinished work; removed when done.
        replaced: stored names of new weights -> their files.
        healed: a checkpoint without these layers, to measure in place of the dense one.

    Returns:
        A table as `score` returns it; its metadata's `kept` lists the dense layers.
    """
    dense = pinned.checkpoint()
    model = dense.at(healed or dense.folder).open_model(**params.opening())
    if healed is None:
        _replace(model, dense.layers, replaced)
        bypass(model, dropped)
    kept_layers = [i for i in range(pinned.n_layers) if i not in dropped]
    layers = {"n_layers": str(len(kept_layers)), "kept": " ".join(map(str, kept_layers))}
    states = scratch / "hidden_states"
    collect(
        model,
        dense.open_processor(max_pixels=params.max_pixels),
        samples,
        states,
        params=params,
        scratch=scratch / "parts",
        provenance=provenance_of(pinned) | layers,
    )
    pooled = states / "pooled"
    scores = score(
        states / "similarity", pooled if pooled.is_dir() else None, sinks=states / "sinks"
    )
    remove(scratch)
    return scores


def _replace(model: Any, stored: StoredLayers, replaced: Mapping[str, Path]) -> None:
    for file in sorted(set(replaced.values())):
        for weight, value in stored.new_values(model, file).items():
            weight.data = value


def _name(choice: Choice, params: RoundsParams) -> str:
    """Name the table of a round by the layers that it depends on."""
    layers: list[object] = [sorted(choice.drop)]
    if params.select.heal_steps:
        layers += [sorted(choice.tune), params.seed]
    return hashlib.sha256(repr(layers).encode()).hexdigest()[:16]
