"""Write train.parquet and test.parquet: English texts of this installation, to be continued.

    python build_rows.py

The same Python and packages give the same bytes.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
from pieces import TEST, TRAIN, Lengths, pieces, split
from prose import paragraphs
from repeats import Repeats
from texts import PYTHON, manuals, package_texts
from tqdm import tqdm

from interlace.system.outputs import whole

INSTRUCTION = "Continue this text."
LARGE = 40_000  # words of prose; packages with more are for training
HELDOUT = 0.4  # share of the smaller packages that is held out
TEST_ROWS = 140  # held-out rows of each kind at most, so that no kind outweighs the others
SCHEMA = pa.schema(  # FineVision's, with the package
    [
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("texts", pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))),
        ("source", pa.string()),
        ("package", pa.string()),
    ]
)
Prose = tuple[str, str, list[str]]  # kind, package, paragraphs


def content_key(text: str) -> bytes:
    """Return a key that sorts texts in an order that is stable and looks random."""
    return sha256(text.encode()).digest()


def package_prose(package: str) -> list[Prose]:
    """Return the prose of each text of a package that has any."""
    texts = manuals() if package == PYTHON else package_texts(package)
    prose = ((text.kind, package, paragraphs(text.content)) for text in texts)
    return [item for item in prose if item[2]]


def heldout_packages(texts: Iterable[Prose]) -> set[str]:
    """Return the packages that training does not see: Python itself, and some of the small ones."""
    words: Counter[str] = Counter()
    for _, package, found in texts:
        words[package] += sum(len(paragraph.split()) for paragraph in found)
    small = {package for package, count in words.items() if count <= LARGE}
    return {name for name in small if content_key(name)[0] < HELDOUT * 256} | {PYTHON}


def rows_of(texts: Iterable[Prose], repeats: Repeats, lengths: Lengths) -> Iterator[dict]:
    """Yield the rows of texts, without paragraphs that were in a text before."""
    ordered = sorted(texts, key=lambda text: content_key("\n".join(text[2])))
    for kind, package, found in tqdm(ordered, desc="texts", unit="text"):
        unseen = [paragraph for paragraph in found if repeats.is_new(paragraph)]
        for piece in pieces(unseen, lengths):
            if parts := split(piece, lengths.beginning):
                yield {
                    "images": [],
                    "texts": [{"user": f"{INSTRUCTION}\n\n{parts[0]}", "assistant": parts[1]}],
                    "source": kind,
                    "package": package,
                }


def shuffled(rows: Iterable[dict], most_per_kind: int | None = None) -> list[dict]:
    """Order rows by a hash of their content; keep the first of each kind."""
    counts: Counter[str] = Counter()
    kept = []
    for row in sorted(rows, key=lambda row: content_key(row["texts"][0]["assistant"])):
        counts[row["source"]] += 1
        if most_per_kind is None or counts[row["source"]] <= most_per_kind:
            kept.append(row)
    return kept


def build_splits(texts: list[Prose]) -> dict[str, list[dict]]:
    """Return the rows for training, and those of other packages, which repeat none of them."""
    heldout, repeats = heldout_packages(texts), Repeats()
    train = [text for text in texts if text[1] not in heldout]
    test = [text for text in texts if text[1] in heldout]
    return {
        "train": shuffled(rows_of(train, repeats, TRAIN)),
        "test": shuffled(rows_of(test, repeats, TEST), most_per_kind=TEST_ROWS),
    }


def main() -> None:
    """Read the packages that `installed.py` listed, and write both splits."""
    packages = [PYTHON, *json.loads(Path("installed.json").read_text(encoding="utf-8"))["packages"]]
    with ProcessPoolExecutor() as pool:
        prose = pool.map(package_prose, packages)
        listed = list(tqdm(prose, desc="packages", total=len(packages), unit="package"))
    for name, rows in build_splits([text for texts in listed for text in texts]).items():
        with whole(Path(f"{name}.parquet")) as partial:
            table = pa.Table.from_pylist(rows, schema=SCHEMA)
            pq.write_table(table, partial, compression="zstd", row_group_size=512)
        click.echo(f"{name}.parquet: {len(rows)} rows, {Counter(row['source'] for row in rows)}")


if __name__ == "__main__":
    main()
