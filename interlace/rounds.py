"""Progressive pruning: drop some layers, measure the smaller model again, and go on.

With `select.heal_steps` the survivors tuned so far are healed before each measurement, so that
pruning and tuning alternate.

Each round's table is kept under a key of all it depends on, so that an interrupted chain, or a
longer one with the same beginning, goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
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
from interlace.outputs import link_or_copy, remove, whole
from interlace.params.measuring import Collect
from interlace.params.rounds import RoundsParams
from interlace.plan.record import Plan, Shortfall, read_decision
from interlace.plan.segments import segments
from interlace.pruning.dense import Dense
from interlace.pruning.export import export
from interlace.pruning.new_weights import compensated
from interlace.scores.average import score
from interlace.scores.table import read_scores
from interlace.selection.select import resolve_ratio, select_layers
from interlace.sources.pinned import PinnedModel


def measure_rounds(
    pinned: PinnedModel,
    table: Path,
    samples: Sequence[Path],
    train: Path,
    out: Path,
    *,
    params: RoundsParams,
    decision: Path,
    cache: Path,
) -> Plan:
    """Measure the model again after every round but the last.

    Args:
        pinned: the dense model's source.
        table: scores of the dense model.
        samples: folders of rows to measure on, the calibration set first.
        train: folder of rows to heal on, where `select.heal_steps` asks for it.
        out: folder for `scores-002.parquet` and so on, one table per further round.
        params: the method, the ratio, the rounds, how to measure, and whether to compensate.
        decision: file with what a budget decided.
        cache: folder that keeps tables by their key; another one for other code.

    Returns:
        The plan that the rounds add up to.
    """

    def measured(made: Choice) -> pa.Table:
        key = _key(pinned, samples, train, params, made)
        known, dropped = cache / f"{key}.parquet", sorted(made.drop)
        if not known.is_file():
            work = cache / key
            replaced = _new_weights(pinned, samples[0], dropped, params, work)
            healed = None
            if params.select.heal_steps:
                healed = heal_so_far(pinned, made, train, params, work, replaced)
            asked = (pinned, samples, dropped, params.collect_options, work, replaced, healed)
            scores = measure_without(*asked)
            with whole(known) as partial:
                pq.write_table(scores, partial)
        number = len(list(out.glob("*.parquet"))) + 2
        link_or_copy(known, out / f"scores-{number:03d}.parquet")
        return pq.read_table(known)

    return select_layers(
        read_scores(table),
        params.method,
        resolve_ratio(params.ratio, read_decision(decision)),
        params.select,
        seed=params.seed,
        later=measured,
    )


def heal_so_far(
    pinned: PinnedModel,
    made: Choice,
    train: Path,
    params: RoundsParams,
    scratch: Path,
    replaced: Mapping[str, Path] = MappingProxyType({}),
) -> Path:
    """Heal the survivors that the rounds so far tune, one by one, against the dense model.

    An interrupted run goes on where it was.

    Args:
        pinned: the dense model's source.
        made: what the rounds so far chose.
        train: folder of rows to heal on.
        params: `select.heal_steps` updates by the recipe of `finetune`.
        scratch: folder for unfinished work.
        replaced: stored names of weights that healing starts from -> the files that hold these.

    Returns:
        The folder of the healed checkpoint, in `scratch`.
    """
    healed, pruned = scratch / "healed", scratch / "pruned"
    plan = _plan_so_far(pinned, made)
    if not segments(plan):
        raise InputError(
            "select.heal_steps: no tuned layer lies beside a dropped one; set it to 0, or choose a"
            " method that tunes neighbours"
        )
    dense = pinned.checkpoint()
    if not healed.is_dir():
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
    return healed


def _plan_so_far(pinned: PinnedModel, made: Choice) -> Plan:
    n_layers = pinned.n_layers
    drops = len(made.drop)
    return Plan(
        method="in rounds",
        ratio=drops / n_layers,
        n_layers=n_layers,
        drop=sorted(made.drop),
        tune=sorted(made.tune),
        freeze=[i for i in range(n_layers) if i not in made.drop | made.tune],
        groups=list(made.groups),
        protected=[],
        deepstack_layers=pinned.deepstack_layers,
        shortfall=Shortfall(policy="fewer", wanted=drops, triplets=0, pairs=0, missing=0),
        sources={},
    )


def _new_weights(
    pinned: PinnedModel, calibration: Path, dropped: list[int], params: RoundsParams, scratch: Path
) -> Mapping[str, Path]:
    """What the layers that are left get to make up for the dropped ones, if that is asked for."""
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
    """Scores of the model with some layers bypassed, by position in the layers that are left.

    Args:
        pinned: the dense model's source.
        samples: folders of rows to measure on.
        dropped: layers of the dense decoder that are gone.
        params: how to measure.
        scratch: folder for unfinished work; removed when done.
        replaced: stored names of weights that get new values -> the files that hold these.
        healed: a checkpoint without these layers, to measure in place of the dense one.

    Returns:
        A table as `scores.score` makes it; its metadata's `kept` names the dense layers.
    """
    dense = pinned.checkpoint()
    model = dense.at(healed or dense.folder).open_model(**params.opening())
    if healed is None:
        _replace(model, dense.layers, replaced)
        bypass(model, dropped)
    kept = [i for i in range(pinned.n_layers) if i not in dropped]
    about = {"n_layers": str(len(kept)), "kept": " ".join(map(str, kept))}
    states = scratch / "hidden_states"
    collect(
        model,
        dense.open_processor(max_pixels=params.max_pixels),
        samples,
        states,
        params=params,
        scratch=scratch / "parts",
        provenance=provenance_of(pinned) | about,
    )
    pooled = states / "pooled"
    scores = score(states / "similarity", pooled if pooled.is_dir() else None)
    remove(scratch)
    return scores


def _replace(model: Any, stored: StoredLayers, replaced: Mapping[str, Path]) -> None:
    for file in sorted(set(replaced.values())):
        for weight, value in stored.new_values(model, file).items():
            weight.data = value


def _key(
    pinned: PinnedModel, samples: Sequence[Path], train: Path, params: RoundsParams, made: Choice
) -> str:
    """A hash of all that a round's table depends on."""
    folders = [*samples]
    facts: list[Any] = [
        pinned.model_dump(mode="json"),
        sorted(made.drop),
        params.collect_options.model_dump(),
    ]
    if params.export.compensate != "none":
        compensation = {"compensate", "compensate_samples"}
        facts += [params.export.model_dump(include=compensation)]
        facts += [params.answer_options.model_dump()]
    if steps := params.select.heal_steps:
        folders.append(train)
        facts += [steps, params.seed, sorted(made.tune), params.finetune_options.model_dump()]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in (path for folder in folders for path in sorted(folder.glob("*.parquet"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
