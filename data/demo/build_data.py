"""Write the demo's train.parquet and test.parquet in FineVision's schema.

    python build_data.py --params params.yaml

The same seed gives the same bytes. Train and test share no handwritten image.
"""

from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, List, Value
from drawing import Handwriting
from questions import DIALOGUES, PRACTICE, SOURCES
from tqdm import tqdm

from interlace.system.documents import read_yaml

RATINGS = ("relevance", "image_correspondence", "visual_dependency", "formatting")
FEATURES = Features(
    {
        "images": List(Image()),
        "texts": List({"user": Value("string"), "assistant": Value("string")}),
        "source": Value("string"),
        **{f"{rating}_ratings": List(Value("int64")) for rating in RATINGS},
        **{f"{rating}_min": Value("int64") for rating in RATINGS},
    }
)


def rows_per_source(total: int) -> dict[str, int]:
    """Split `total` rows over the sources by their shares."""
    whole = sum(share for _, share in SOURCES.values())
    return {name: round(total * share / whole) for name, (_, share) in SOURCES.items()}


def build_row(source: str, rng: np.random.Generator, hand: Handwriting, split: str) -> dict:
    """One row; ratings are None because nobody rated these rows."""
    drawings, turns = SOURCES[source][0](rng, hand)
    if split == "test" and source not in DIALOGUES:
        turns = turns[:1]
    return {
        "images": [{"bytes": drawing.png, "path": None} for drawing in drawings],
        "texts": [{"user": user, "assistant": assistant} for user, assistant in turns],
        "source": source,
        **{f"{rating}_ratings": None for rating in RATINGS},
        **{f"{rating}_min": None for rating in RATINGS},
    }


def build_split(split: str, counts: dict[str, int], seed: int) -> Dataset:
    """All rows of one split in shuffled order; each source has a random stream of its own."""
    hand, rows = Handwriting(split, seed), []
    for source in tqdm(counts, desc=f"{split} rows", unit="source"):
        stream = [seed, split == "test", *source.encode()]
        rng = np.random.default_rng(np.random.SeedSequence(stream))
        rows += [build_row(source, rng, hand, split) for _ in range(counts[source])]
    order = np.random.default_rng(seed).permutation(len(rows))
    table = pa.Table.from_pylist([rows[i] for i in order], schema=FEATURES.arrow_schema)
    return Dataset(table)


@click.command()
@click.option("--params", "params_path", default="params.yaml", show_default=True)
@click.option("--out", default=".", show_default=True, help="Folder to write to.")
def main(params_path: str, out: str) -> None:
    """Build both splits."""
    params = read_yaml(Path(params_path))
    counts = {
        "train": rows_per_source(params["data"]["train_rows"]),
        "test": {
            source: params["data"]["test_rows_per_source"]
            for source in SOURCES
            if source not in PRACTICE
        },
    }
    for split, per_source in counts.items():
        dataset = build_split(split, per_source, params["seed"])
        path = Path(out) / f"{split}.parquet"
        pq.write_table(dataset.data.table, path, compression="zstd", row_group_size=4096)
        click.echo(f"{path}: {len(dataset)} rows, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
