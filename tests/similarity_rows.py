"""Made-up measurements, laid out as `collect` lays them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from interlace.measurements.tables import SIMILARITY
from interlace.scores.per_sample import SampleCosines
from interlace.scores.table import NATIVE, Scores

PROBES = {"math": ("solve", "answer"), "nonmath": ("caption",)}


def rows(
    samples: int = 6,
    layers: int = 8,
    longest: int = 4,
    domains: tuple[str, ...] = ("native",),
    noise: float = 0.02,
) -> pd.DataFrame:
    """As many samples of every task of each domain; layers differ by the same draw each time."""
    spans = [(f, s) for s in range(1, longest + 1) for f in range(layers - s + 1)]
    first, span = np.array(spans).T
    base = np.random.default_rng(0).uniform(0.6, 0.97, len(spans))
    rng, frames = np.random.default_rng(1), []
    for domain in domains:
        for task in PROBES.get(domain, ("native",)):
            for number in range(samples):
                vision = 16 * (number % 3)
                cosines = np.clip(base + rng.normal(0, noise, (4, len(spans))), -1, 1)
                frame = pd.DataFrame({"first": first, "span": span})
                frame = frame.assign(
                    sample_id=f"{domain}-{task}-{number:04d}", domain=domain, task=task,
                    source=f"source_{number % 2}", n_tokens=30 + vision, n_vision_tokens=vision,
                    cosine=cosines[0], cosine_vision=cosines[1] if vision else None,
                    cosine_text=cosines[2], cosine_last=cosines[3],
                )  # fmt: skip
                frames.append(frame)
    return pd.concat(frames)[SIMILARITY.names]


def stored(folder: Path, frame: pd.DataFrame, parts: int = 1, **metadata: str) -> Path:
    """Write rows as Parquet files, dealt out one by one."""
    folder.mkdir(parents=True)
    layers = (frame["first"] + frame["span"]).max()
    metadata = {"n_layers": str(layers), "deepstack_layers": "0", "model": "made-up"} | metadata
    for number in range(parts):
        table = pa.Table.from_pandas(frame.iloc[number::parts], SIMILARITY, preserve_index=False)
        table = table.replace_schema_metadata(metadata)
        pq.write_table(table, folder / f"part-{number:05d}.parquet")
    return folder


LAYERS = 12
SPANS = tuple((first, span) for span in (1, 2, 3) for first in range(LAYERS - span + 1))


def sample_cosines(
    samples: int = 40, noise: float = 0.0, tasks: tuple[int, ...] = ()
) -> SampleCosines:
    """Samples that agree but for noise; cosines are multiples of 2^-31, as they are read."""
    base = np.random.default_rng(3).uniform(0.6, 0.97, len(SPANS))
    spread = np.random.default_rng(4).normal(0, noise, (samples, len(SPANS)))
    return SampleCosines(SPANS, np.rint((base + spread) * 2**31) / 2**31, tasks or (samples,))


def mean_scores(samples: SampleCosines, *criteria: str) -> Scores:
    """The table of scores that these samples average to, the same for all criteria."""
    means = samples.cosines.sum(axis=0) / len(samples.cosines)
    values = {
        (criterion, first, span): float(mean)
        for criterion in criteria or (NATIVE,)
        for (first, span), mean in zip(samples.spans, means, strict=True)
    }
    return Scores(LAYERS, 0, values, {})
