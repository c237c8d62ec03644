"""Time `export` and measure its memory, against `cp` and against the obvious way.

    make bench-export

Needs about 30 GB of free disk under /tmp, or under BENCH_DIR, while it runs.

The checkpoints have the shapes of real Qwen3-VL models, cut to fewer layers, and random weights.
A quarter of the layers is dropped. The ways take turns, each in a separate process. Only the work
is timed, not the start of Python and its imports. Memory is the peak resident size of the process.
Before each run its source is removed from the page cache and all writes are flushed.

`cp` copies a folder of the same size as the pruned checkpoint. The obvious way is
`from_pretrained`, deleting the layers, `save_pretrained`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
from tqdm import tqdm

from benchmarks.peak_memory import status_bytes
from interlace.checkpoint.safetensors import Stored, stored_tensors, write_tensors
from interlace.model.families import text_config
from interlace.model.files import INDEX
from interlace.plan.record import Plan
from interlace.pruning.export import export_checkpoint
from interlace.scores.table import Scores
from interlace.selection.select import select

DEMO = Path("data/demo/model")  # its processor and the frame of its configuration
VOCABULARY, SHARD = 151_936, 2**30
SHAPES = {
    "small": {"hidden_size": 1024, "intermediate_size": 3072, "heads": 8, "vision": (3, 256, 512)},
    "2B": {"hidden_size": 2048, "intermediate_size": 6144, "heads": 16, "vision": (24, 1024, 4096)},
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "heads": 32,
        "vision": (27, 1152, 4304),
    },
}
HEAD = """# Speed and memory of `export`

`make bench-export` writes this page. Checkpoints have the shapes of Qwen3-VL models, cut to fewer
layers, random bfloat16 weights and files of 1 GiB; a quarter of the layers is dropped. `cp` copies
the pruned checkpoint, and ends while up to a fifth of the memory is not yet on the disk. `export`
ends when all bytes are there, so "cp, sync" is the same work: `cp`, then `sync`. The obvious way is
`from_pretrained`, deleting the layers, `save_pretrained`. The ways take turns, each in a separate
process. Times are medians of the work alone, without the
start of Python and its imports. Before each run its source is removed from the page cache. Memory
is the peak resident size of a process, less that of a bare Python. The stage's comparison with the
dense model is not included.

No way can be much faster than the disk: where `cp` itself is less than three times as fast as the
obvious way, `export` cannot be three times as fast either.
"""
WAYS = ("cp", "synced", "export", "obvious")
COPIES = WAYS[:2]  # of the pruned checkpoint


@dataclass(frozen=True)
class Run:
    """Time and memory of one process.

    Attributes:
        seconds: of the work alone.
        peak: resident size, MB over a bare Python.
    """

    seconds: float
    peak: float


def configuration(shape: str, layers: int) -> dict[str, object]:
    """Build a Qwen3-VL's config.json with the shapes of a real model and fewer layers."""
    config = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))
    sizes = SHAPES[shape]
    depth, width, inner = sizes["vision"]
    tied = shape != "8B"
    text = {
        "hidden_size": sizes["hidden_size"],
        "intermediate_size": sizes["intermediate_size"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": tied,
    }
    config["text_config"] |= text
    config["text_config"]["rope_parameters"]["mrope_section"] = [24, 20, 20]
    config["vision_config"] |= {
        "depth": depth,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_heads": 16,
        "out_hidden_size": sizes["hidden_size"],
    }
    return config | {"tie_word_embeddings": tied, "dtype": "bfloat16"}


def random_checkpoint(folder: Path, shape: str, layers: int) -> None:
    """Write random bfloat16 weights in files of at most 1 GiB, or of one tensor."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder.mkdir()
    for path in DEMO.iterdir():
        if path.suffix in (".json", ".jinja") and path.name != "config.json":
            shutil.copyfile(path, folder / path.name)
    (folder / "config.json").write_text(json.dumps(configuration(shape, layers)), encoding="utf-8")
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    shapes = {n: tuple(w.shape) for n, w in model.named_parameters() if n not in tied}
    largest = max(2 * torch.Size(s).numel() for s in shapes.values())
    torch.manual_seed(0)
    noise = folder.with_name("noise.safetensors")
    save_file({"noise": torch.randn(largest // 2, dtype=torch.bfloat16) * 0.02}, noise)
    begin = stored_tensors(noise)["noise"].begin
    shards: list[dict[str, Stored]] = [{}]
    for name, size in shapes.items():
        tensor = Stored(noise, "BF16", size, begin, 2 * torch.Size(size).numel())
        if sum(other.size for other in shards[-1].values()) + tensor.size > SHARD and shards[-1]:
            shards.append({})
        shards[-1][name] = tensor
    weight_map = {}
    for number, shard in enumerate(tqdm(shards, unit="file", desc=f"{shape}, {layers} layers")):
        write_tensors(folder / f"{number}.safetensors", shard)
        weight_map |= dict.fromkeys(shard, f"{number}.safetensors")
    (folder / INDEX).write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8"
    )
    noise.unlink()


def quarter(n_layers: int) -> Plan:
    """Plan to drop every fourth layer and tune the one before it."""
    drop = list(range(3, n_layers, 4))
    tune = [layer - 1 for layer in drop]
    unscored = Scores(n_layers, 0, {}, {})
    return select(unscored, method="manual", drop=drop, tune=tune, protect_first=0)


def run_export(dense: Path, out: Path) -> float:
    """Export with Interlace; return the seconds."""
    config = json.loads((dense / "config.json").read_text(encoding="utf-8"))
    plan = quarter(text_config(config)["num_hidden_layers"])
    begin = time.perf_counter()
    export_checkpoint(dense, plan, out, max_shard_mb=SHARD >> 20)
    return time.perf_counter() - begin


def run_obvious(dense: Path, out: Path) -> float:
    """Export the obvious way; return the seconds."""
    from torch import nn
    from transformers import AutoModelForImageTextToText

    begin = time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(dense, dtype="auto")
    decoder, text = model.model.language_model, model.config.text_config
    keep = quarter(text.num_hidden_layers).keep
    decoder.layers = nn.ModuleList([decoder.layers[layer] for layer in keep])
    text.num_hidden_layers = len(keep)
    model.save_pretrained(out, max_shard_size="1GB")
    return time.perf_counter() - begin


def run_cp(pruned: Path, out: Path) -> float:
    """Copy the pruned checkpoint; return the seconds."""
    begin = time.perf_counter()
    subprocess.run(["cp", "-r", str(pruned), str(out)], check=True)
    return time.perf_counter() - begin


def run_synced(pruned: Path, out: Path) -> float:
    """Copy the pruned checkpoint and wait until it is on the disk; return the seconds."""
    begin = time.perf_counter()
    run_cp(pruned, out)
    os.sync()
    return time.perf_counter() - begin


def peak_now() -> float:
    """Return the peak resident size of this process so far, MB."""
    return status_bytes("VmHWM") / 1e6


def in_process(way: str, source: Path, out: Path) -> Run:
    """Run one way in a separate process, from files that are not in the page cache."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    for path in source.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    code = (
        f"from pathlib import Path; from benchmarks.export import peak_now, run_{way};"
        f"print(run_{way}(Path({str(source)!r}), Path({str(out)!r})), peak_now())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=None, check=True
    )
    seconds, peak = map(float, done.stdout.split()[-2:])
    return Run(seconds, peak - bare_python())


def bare_python() -> float:
    """Return the peak resident size of a Python that does nothing, MB."""
    code = "print(open('/proc/self/status').read())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def table_row(folder: Path, shape: str, layers: int, pairs: int) -> list[str]:
    """Measure all ways on one case; return a row of the table."""
    dense, pruned = folder / "dense", folder / "kept"
    random_checkpoint(dense, shape, layers)
    in_process("export", dense, pruned)  # what cp copies; a warm-up of Python too
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    for number in tqdm(range(pairs), unit="round", desc=f"{shape}, {layers} layers"):
        for way in WAYS if number % 2 else WAYS[::-1]:
            source = pruned if way in COPIES else dense
            runs[way].append(in_process(way, source, folder / "out"))
    seconds_by_way = {way: median(run.seconds for run in runs[way]) for way in WAYS}
    peak = {way: max(run.peak for run in runs[way]) for way in WAYS}
    sizes = [
        sum(p.stat().st_size for p in folder_of_files.iterdir()) / 1e9
        for folder_of_files in (dense, pruned)
    ]
    return [
        f"{shape}, {layers} layers",
        f"{sizes[0]:.1f} → {sizes[1]:.1f}",
        *(f"{seconds_by_way[way]:.2f}" for way in WAYS),
        *(f"{seconds_by_way['export'] / seconds_by_way[way]:.2f}" for way in COPIES),
        f"{seconds_by_way['obvious'] / seconds_by_way['export']:.1f}",
        *(f"{peak[way]:,.0f}" for way in WAYS[2:]),
        f"{peak['obvious'] / peak['export']:.0f}",
    ]


def table(cases: tuple[str, ...], pairs: int) -> Iterator[str]:
    """Yield the lines of the table."""
    yield (
        "| shapes | GB | cp, s | cp, sync, s | export, s | obvious, s | export / cp"
        " | export / cp, sync | obvious / export | export, MB | obvious, MB | obvious / export |"
    )
    yield "|---|---|" + "---:|" * 10
    yield "| target | | | | | | at most 1.2 | | at least 3 | at most 500 | | at least 10 |"
    for case in cases:
        shape, _, layers = case.partition(":")
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
            yield f"| {' | '.join(table_row(Path(name), shape, int(layers), pairs))} |"


@click.command()
@click.option(
    "--case",
    "cases",
    multiple=True,
    default=("2B:8", "2B:28", "8B:12"),
    show_default=True,
    help="SHAPES:LAYERS; shapes are small, 2B or 8B. Repeatable.",
)
@click.option("--pairs", default=5, show_default=True, help="Rounds of all ways.")
def main(cases: tuple[str, ...], pairs: int) -> None:
    """Measure, print and write docs/bench-export.md."""
    import torch
    import transformers

    lines = list(table(cases, pairs))
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, {pairs} rounds"
    text = f"{HEAD}\n{versions}, {os.cpu_count()} cores.\n\n" + "\n".join(lines) + "\n"
    Path("docs/bench-export.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
