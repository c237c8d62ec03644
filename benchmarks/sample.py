"""Measure the cost and the fairness of drawing, on a generated data set.

python -m benchmarks.sample            # about 2 GB, writes docs/bench-sample.md
python -m benchmarks.sample --gigabytes 0.2
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from benchmarks.peak_memory import peak_mib
from interlace.data.files import data_files
from interlace.data.sets import DrawCounts, sample
from interlace.data.systematic import rows_in_group, rows_per_group, rows_to_draw
from interlace.params.inputs import Data
from interlace.samples.order import shuffle_key
from interlace.samples.rows import SCHEMA
from interlace.sources.pin import pin_data
from interlace.sources.pinned import PinnedData

SUBSETS = 8
ROW_GROUP = 100  # rows; as image data sets on the hub are assumed to be stored
FILE_ROWS = 2000
COLUMNS = pa.schema([SCHEMA.field(name) for name in ("images", "texts", "source")])
DRAWS = 200  # of each kind, for the bias
DEMO = Path("data/demo/train.parquet")
HEAD = """# Cost and fairness of `sample`

`make bench-sample` writes this page. The data set is generated: noise as PNG images, row groups of
100 rows, eight subsets, the largest with eight times the rows of the smallest. A tenth of the rows
has no image. Bytes are those of Parquet files; bytes read include footers. Each draw runs in a
separate process, which opens the data set and writes both sets.
"""
FAIRNESS = """
## Fairness of a draw by row groups

{draws} draws of 1% by groups of {group} rows are compared with rows drawn one by one. The made-up
data have 50,000 rows; the demo has {rows:,}, whose {groups} row groups are regrouped here. The bias
is the mean of the estimates less the true mean, in standard errors: a fair draw stays between -3
and 3. The design effect is the variance of the estimate over that of rows drawn one by one: 4 means
that the draw is worth a quarter of its rows. In *sorted* data a value rises over the subset. In
*clustered* data each run of 20 rows shares a value, as questions about one image may. Both have
noise of the same size. In *shuffled* data the value does not depend on the position. The demo's
value is the length of a row's text.
"""


def picture(seed: int, side: int) -> bytes:
    """Encode noise, which does not compress, as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def rows_of(subset: int, begin: int, end: int) -> Iterator[dict[str, object]]:
    """Yield rows of about 30 kB; one in ten has no image."""
    for number in range(begin, end):
        image = {"bytes": picture(number * SUBSETS + subset, 64 + number % 70), "path": None}
        turns = [{"user": f"{subset} {number}: what is it?", "assistant": "Noise."}]
        images = [] if number % 10 == 9 else [image]
        yield {"images": images, "texts": turns, "source": f"subset_{subset}"}


def write_data_set(folder: Path, gigabytes: float) -> None:
    """Write a data set of a size: subset k has k + 1 shares of the rows."""
    share = gigabytes * 1e9 / 29_000 / sum(range(1, SUBSETS + 1))  # 29 kB is a row's mean
    for subset in tqdm(range(SUBSETS), desc="make", unit="subset"):
        rows = int(share * (subset + 1))
        for number, begin in enumerate(range(0, rows, FILE_ROWS)):
            path = folder / f"subset_{subset}" / f"train-{number:05}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(path, COLUMNS) as writer:
                for first in range(begin, min(begin + FILE_ROWS, rows), ROW_GROUP):
                    group = list(rows_of(subset, first, min(first + ROW_GROUP, rows)))
                    writer.write_table(pa.Table.from_pylist(group, schema=COLUMNS))


def pinned_data(data: Path) -> PinnedData:
    """Pin the data set; its files are hashed once."""
    return pin_data(str(data), None, field="data", hashes=data.parent / "hashes.json")


def run(data: Path, out: Path, fraction: float, workers: int) -> DrawCounts:
    """Draw once, as the stage does."""
    pinned = pinned_data(data)
    return sample(
        data_files(pinned),
        out / "train",
        out / "calibration",
        data=Data(id="x", fraction=fraction, workers=workers),
        seed=0,
        scratch=out / "scratch",
        outlines=out / "outlines",
    )


def print_draw(data: str, out: str, fraction: str, workers: str) -> None:
    """Draw once in this process; print seconds, peak MiB, rows, bytes read and kept."""
    begin = time.perf_counter()
    counts = run(Path(data), Path(out), float(fraction), int(workers))
    figures = (
        time.perf_counter() - begin,
        peak_mib(),
        counts.rows,
        counts.bytes_read,
        counts.bytes_kept,
    )
    click.echo(" ".join(map(str, figures)))


def process(data: Path, out: Path, fraction: float, workers: int) -> subprocess.Popen[str]:
    """Start a draw in a separate process."""
    arguments = ", ".join(map(repr, map(str, (data, out, fraction, workers))))
    command = [
        sys.executable,
        "-c",
        f"from benchmarks.sample import print_draw; print_draw({arguments})",
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    )


def measure(data: Path, out: Path, fraction: float, workers: int) -> list[float]:
    """Return seconds, peak MiB, rows, bytes read and bytes kept of a draw."""
    output, _ = process(data, out, fraction, workers).communicate()
    return [float(value) for value in output.split()]


def digest(out: Path) -> str:
    """Hash the files of both sets."""
    content_hash = sha256()
    for path in sorted((out / "train").iterdir()) + sorted((out / "calibration").iterdir()):
        content_hash.update(path.read_bytes())
    return content_hash.hexdigest()


def kill_draw(data: Path, out: Path, fraction: float, workers: int) -> int:
    """Start a draw and kill it after some chunks; return their number."""
    draw = process(data, out, fraction, workers)
    while draw.poll() is None and len(list(out.glob("scratch/*/0*"))) < 3:
        time.sleep(0.01)
    draw.send_signal(signal.SIGKILL)
    draw.wait()
    return len(list(out.glob("scratch/*/0*")))


def costs(data: Path, folder: Path) -> Iterator[str]:
    """Yield the table of costs."""
    yield "| drawn | workers | bytes read / kept | rows | rows per second | peak memory |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for fraction, workers in ((0.01, 4), (0.1, 1), (0.1, 4), (0.5, 4)):
        out = folder / "out"
        seconds, peak, rows, read, kept = measure(data, out, fraction, workers)
        speed = f"{rows / seconds:.0f}"
        yield (
            f"| {fraction:.0%} | {workers} | {read / 1e6:.0f} MB / {kept / 1e6:.0f} MB ="
            f" {read / kept:.2f} | {rows:.0f} | {speed} | {peak:.0f} MiB |"
        )
        shutil.rmtree(out)


def sameness(data: Path, folder: Path) -> Iterator[str]:
    """Compare the bytes of draws by one worker, by four, and killed and resumed."""
    outs = [folder / name for name in ("one", "four", "killed")]
    measure(data, outs[0], 0.1, 1)
    measure(data, outs[1], 0.1, 4)
    n_chunks = kill_draw(data, outs[2], 0.1, 4)
    measure(data, outs[2], 0.1, 4)
    digests = [digest(out) for out in outs]
    yield f"One worker and four write {'the same' if digests[0] == digests[1] else 'OTHER'} bytes."
    same = "the same" if digests[0] == digests[2] else "OTHER"
    yield f"A draw killed after {n_chunks} chunks resumes to {same} bytes."
    for out in outs:
        shutil.rmtree(out)


def estimates(values: NDArray[np.float64], share: float | None, seed: int) -> float:
    """Average a value over a draw of 1%, by row groups; share None: one by one."""
    n_rows = rows_to_draw(len(values), 0.01)
    if share is None:
        return float(np.random.default_rng(seed).choice(values, n_rows, replace=False).mean())
    sizes = [min(ROW_GROUP, len(values) - i) for i in range(0, len(values), ROW_GROUP)]
    start = int.from_bytes(shuffle_key(seed, "start")[:8])
    draws_by_group = [
        values[group * ROW_GROUP + np.array(rows_in_group(sizes[group], take, seed, group))]
        for group, take in rows_per_group(sizes, n_rows, share=share, start=start).items()
    ]
    return float(np.concatenate(draws_by_group).mean())


def _fairness_text() -> str:
    demo = pq.read_metadata(DEMO)
    return FAIRNESS.format(
        draws=DRAWS, group=ROW_GROUP, rows=demo.num_rows, groups=demo.num_row_groups
    )


def fairness() -> Iterator[str]:
    """Yield the table of bias and design effect."""
    rng, n = np.random.default_rng(0), 50_000
    noise = rng.normal(size=n)
    texts = pq.read_table(DEMO, columns=["texts"])["texts"].to_pylist()
    lengths = [sum(len(t["user"]) + len(t["assistant"]) for t in row) for row in texts]
    kinds = {
        "sorted": np.linspace(-1.73, 1.73, n) + noise,
        "clustered": np.repeat(rng.normal(size=n // 20), 20) + noise,
        "shuffled": noise,
        "the demo": np.array(lengths, dtype=np.float64),
    }
    yield "| data | group_share | row groups in a draw | bias | design effect |"
    yield "|---|---:|---:|---:|---:|"
    for name, values in tqdm(kinds.items(), desc="fairness", unit="kind"):
        plain = np.array([estimates(values, None, seed) for seed in range(DRAWS)])
        for share in (0.1, 0.6, 1.0):
            means = np.array([estimates(values, share, seed) for seed in range(DRAWS)])
            error = means.std(ddof=1) / DRAWS**0.5
            groups = -(-rows_to_draw(len(values), 0.01) // int(share * ROW_GROUP))
            yield (
                f"| {name} | {share} | {groups} | {(means.mean() - values.mean()) / error:+.1f} |"
                f" {means.var(ddof=1) / plain.var(ddof=1):.1f} |"
            )


@click.command()
@click.option(
    "--gigabytes", default=2.2, show_default=True, help="Approximate size of the data set."
)
def main(gigabytes: float) -> None:
    """Measure, print and write docs/bench-sample.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data_set(folder / "data", gigabytes)
        pinned_data(folder / "data")
        size = sum(path.stat().st_size for path in (folder / "data").rglob("*.parquet"))
        lines = [HEAD, f"{size / 1e9:.2f} GB, {os.cpu_count()} cores.\n"]
        lines += [*costs(folder / "data", folder), "", *sameness(folder / "data", folder)]
    lines += [_fairness_text(), *fairness()]
    text = "\n".join(lines) + "\n"
    Path("docs/bench-sample.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
