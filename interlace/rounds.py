"""Progressive pruning: drop some layers, measure the smaller model, and continue.

With `select.heal_steps` the layers tuned so far are healed before each measurement, from the
weights that the round before left, so that pruning and tuning alternate. `export` takes the last
weights.

Each round's table and weights are kept, so that an interrupted chain, or a longer one with the same
beginning, resumes after its last round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import write_tensors
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
from interlace.pruning.export import export_checkpoint
from interlace.pruning.new_weights import compensated, of_file
from interlace.pruning.parity import put_in
from interlace.scores.average import score
from interlace.scores.table import read_scores
from interlace.selection.select import resolve_ratio, select_layers
from interlace.sources.pinned import PinnedModel
from interlace.system.outputs import link_or_copy, remove
from interlace.system.resumable import intact, kept, mark

HEALED = "healed.safetensors"  # the healed layers' weights by stored name
Layers = tuple[list[int], list[int]]  # dropped and tuned by the rounds so far


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
        out: folder for `scores-002.parquet` and so on, one table per further round, and for the
            healed layers' weights.
        params: the method, the ratio, the rounds, and how to measure, compensate and heal.
        decision: file with the decision on the budget.
        scratch: folder that keeps tables, weights and unfinished work; use another for other code,
            inputs or `measuring_options`.

    Returns:
        The plan that the rounds add up to.
    """
    chain = _Chain(pinned, samples, train, out, params, scratch)
    plan = select_layers(
        read_scores(table, by_score=True),
        params.method,
        resolve_ratio(params.ratio, read_decision(decision)),
        params.select,
        seed=params.seed,
        later=chain.table_after,
    )
    if chain.healed:
        link_or_copy(chain.healed, out / HEALED)
    return plan


@dataclass
class _Chain:
    """The rounds so far, and what each is measured with; see `measure_rounds`.

    Attributes:
        history: the choice that each round left.
        healed: file of the healed layers' weights, if layers are healed.
    """

    pinned: PinnedModel
    samples: Sequence[Path]
    train: Path
    out: Path
    params: RoundsParams
    scratch: Path
    history: list[Layers] = field(default_factory=list)
    healed: Path | None = None

    def table_after(self, choice: Choice) -> pa.Table:
        """Return the scores of the model that a choice leaves; write them to `out`."""
        self.history.append((sorted(choice.drop), sorted(choice.tune)))
        name, heals = _name(self.history, self.params), self.params.select.heal_steps
        table, weights = self.scratch / f"{name}.parquet", self.scratch / f"{name}.safetensors"
        if not intact(table) or (heals and not intact(weights)):
            scores = self._measure(choice, self.scratch / name, weights)
            with kept(table) as partial:
                pq.write_table(scores, partial)
        self.healed = weights if heals else None
        link_or_copy(table, self.out / f"scores-{len(self.history) + 1:03d}.parquet")
        return pq.read_table(table)

    def _measure(self, choice: Choice, scratch: Path, weights: Path) -> pa.Table:
        """Compensate for and heal the choice so far as the parameters say, then measure."""
        pinned, params, dropped = self.pinned, self.params, sorted(choice.drop)
        replaced = of_file(self.healed)
        if params.export.compensate != "none":
            dense = Dense(pinned.checkpoint(), self.samples[0], params.answer_options)
            n, folder = params.export.compensate_samples, scratch / "weights"
            replaced, _ = compensated(dense, dropped, n, folder, self.healed)
        if params.select.heal_steps:
            heal_so_far(pinned, choice, self.train, params, scratch, weights, replaced)
            replaced |= of_file(weights)
        options = params.collect_options
        return measure_without(pinned, self.samples, dropped, options, scratch, replaced)


def heal_so_far(
    pinned: PinnedModel,
    choice: Choice,
    train: Path,
    params: RoundsParams,
    scratch: Path,
    out: Path,
    replaced: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Heal the layers tuned by the rounds so far, one by one, against the dense model.

    An interrupted run resumes.

    Args:
        pinned: the dense model's source.
        choice: of the rounds so far.
        train: folder of rows to heal on.
        params: `select.heal_steps` updates by the recipe of `finetune`.
        scratch: folder for unfinished work.
        out: safetensors file for the tuned layers' weights, by the names that the dense checkpoint
            stores them under.
        replaced: stored names of new weights to start from -> their files.

    Raises:
        InputError: no tuned layer lies beside a dropped one.
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
        export_checkpoint(dense.folder, plan, pruned, replaced=replaced, trust_remote_code=trust)
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
    _keep_tuned(dense.at(healed), plan, out)


def _keep_tuned(healed: Checkpoint, plan: Plan, out: Path) -> None:
    """Write the tuned layers of a pruned checkpoint by the names that the dense one stores."""
    layers, tuned = healed.layers, {}
    for name, tensor in layers.tensors.items():
        position, weight = layers.split(name) or (None, "")
        if position in plan.tuned_positions:
            tuned[layers.name(plan.keep[position], weight)] = tensor
    with kept(out) as partial:
        write_tensors(partial, tuned)


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


def measure_without(
    pinned: PinnedModel,
    samples: Sequence[Path],
    dropped: list[int],
    params: Collect,
    scratch: Path,
    replaced: Mapping[str, Path] = MappingProxyType({}),
) -> pa.Table:
    """Score the model with some layers bypassed, by position among the kept layers.

    Args:
        pinned: the dense model's source.
        samples: folders of rows to measure on.
        dropped: layers of the dense decoder to bypass.
        params: of the measurement.
        scratch: folder for unfinished work; removed when done.
        replaced: stored names of new weights -> their files.

    Returns:
        A table as `score` returns it; its metadata's `kept` lists the dense layers.
    """
    dense = pinned.checkpoint()
    model = dense.open_model(**params.opening())
    put_in(model, replaced, dense.layers.prefix)
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


def _name(history: Sequence[Layers], params: RoundsParams) -> str:
    """Name a round's files by what they depend on: with healing, the layers of all rounds."""
    layers = [*history, params.seed] if params.select.heal_steps else [history[-1][0]]
    return hashlib.sha256(repr(layers).encode()).hexdigest()[:16]
