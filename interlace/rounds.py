"""Progressive pruning: drop some layers, measure the smaller model again, and go on.

Each round's table is kept under a key of all it depends on, so that an interrupted chain, or a
longer one with the same beginning, goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import interlace
from interlace.chat import open_processor
from interlace.families import bypass
from interlace.hidden_states import collect, provenance_of
from interlace.outputs import link_or_copy, remove, whole
from interlace.params import Collect, RoundsParams
from interlace.plan import Plan, read_decision, select
from interlace.scores import score
from interlace.sources import Pinned, model_folder, open_model


def measure_rounds(
    pinned: Pinned,
    table: Path,
    samples: Sequence[Path],
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
        samples: folders of rows to measure on.
        out: folder for `scores-002.parquet` and so on, one table per further round.
        params: the method, the ratio, the rounds, and how to measure.
        decision: file with what a budget decided.
        cache: folder that remembers tables by their key.

    Returns:
        The plan that the rounds add up to.
    """

    def measured(dropped: list[int]) -> pa.Table:
        key = _key(pinned, samples, params.collect, dropped)
        known = cache / f"{key}.parquet"
        if not known.is_file():
            scores = measure_without(pinned, samples, dropped, params.collect, cache / key)
            with whole(known) as partial:
                pq.write_table(scores, partial)
        number = len(list(out.glob("*.parquet"))) + 2
        link_or_copy(known, out / f"scores-{number:03d}.parquet")
        return pq.read_table(known)

    return select(
        table,
        method=params.method,
        ratio=params.ratio,
        seed=params.seed,
        decision=read_decision(decision),
        later=measured,
        **params.select.asked(),
    )


def measure_without(
    pinned: Pinned, samples: Sequence[Path], dropped: list[int], params: Collect, scratch: Path
) -> pa.Table:
    """Scores of the model with some layers bypassed, by position in the layers that are left.

    Args:
        pinned: the dense model's source.
        samples: folders of rows to measure on.
        dropped: layers of the dense decoder that are gone.
        params: how to measure.
        scratch: folder for unfinished work; removed when done.

    Returns:
        A table as `scores.score` makes it; its metadata's `kept` names the dense layers.
    """
    folder, trust = model_folder(pinned), bool(pinned["trust_remote_code"])
    model = open_model(folder, dtype=params.dtype, trust_remote_code=trust)
    bypass(model, dropped)
    kept = [i for i in range(pinned["n_layers"]) if i not in dropped]
    about = {"n_layers": str(len(kept)), "kept": " ".join(map(str, kept))}
    states = scratch / "hidden_states"
    collect(
        model,
        open_processor(folder, max_pixels=params.max_pixels, trust_remote_code=trust),
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


def _key(pinned: Pinned, samples: Sequence[Path], params: Collect, dropped: list[int]) -> str:
    """A hash of all that a round's table depends on."""
    digest = hashlib.sha256(params.model_dump_json().encode())
    digest.update(json.dumps([pinned, dropped], sort_keys=True).encode())
    code = sorted(Path(interlace.__file__).parent.rglob("*.py"))
    for path in (*code, *(path for folder in samples for path in sorted(folder.glob("*.parquet")))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
