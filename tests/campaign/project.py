"""The projects that the campaign breaks: a tiny untrained model, a few rows, all stages at work."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {  # every stage has work: own answers, a budget, two rounds, a reference
    "ratio": "auto",
    "method": "interlace",
    "reference": "dense-ft",
    "model": {"id": "source/model"},
    "data": {"id": "source/train.parquet", "workers": 2, "calibration_fraction": 0.5},
    "probes": {"per_task": 2, "math_sources": ["source_0"], "nonmath_sources": ["source_1"]},
    "answers": {"source": "dense", "max_new_tokens": 3, "batch_tokens": 128, "max_empty": 0.9},
    "budget": {"params": 0.88},
    "select": {"protect_first": 0, "rounds": 2},
    "measure": {"batch_tokens": 512},
    "sensitivity": {"samples": 4},
    "finetune": {
        **{"max_steps": 4, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3},
        **{"zero_stage": 0, "save_steps": 1, "log_steps": 1, "workers": 0},
    },
    "heal": {"local_steps": 3},
    "evaluate": {"heldout": "source/test.parquet", "batch_size": 4, "max_new_tokens": 2},
    "ttft": {"requests": 1, "repeats": 2, "warmup": 0, "new_tokens": 1, "max_interval": 100},
}
LAUNCHED = ("answers", "collect", "finetune", "reference", "evaluate@tuned")  # by torchrun, too


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml.

    Attributes:
        name: as dvc says it.
        command: as a user types it.
        outputs: the files and folders that it writes.
    """

    name: str
    command: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def module(self) -> str:
        """The module that runs."""
        return next(word for word in self.command if word.startswith("stages."))

    def workers(self, count: int) -> tuple[str, ...]:
        """The command with several processes."""
        begin = self.command.index("-m")
        return ("torchrun", f"--nproc-per-node={count}", "--standalone", *self.command[begin:])


def stages() -> dict[str, Stage]:
    """All stages by name, in the order in which they run."""
    found: dict[str, Stage] = {}
    for name, fields in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        if "outs" not in fields.get("do", fields):  # `wait` writes nothing
            continue
        for key in fields.get("foreach", [None]):
            text = json.dumps(fields.get("do", fields)).replace("${launch}", "python -m")
            values = json.loads(text.replace("${key}", key or ""))
            written = [*values["outs"], *values.get("plots", ()), *values.get("metrics", ())]
            paths = tuple(out if isinstance(out, str) else next(iter(out)) for out in written)
            label = f"{name}@{key}" if key else name
            found[label] = Stage(label, tuple(values["cmd"].split()), paths)
    return found


STAGES = stages()
CHAIN = tuple(STAGES)


def build(folder: Path, changes: dict[str, Any] | None = None, layers: int = 8) -> None:
    """Lay out a project without any output: the pipeline, the parameters, a model and rows."""
    import models
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    for name in ("dvc.yaml", "data/probes.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    models.tiny_qwen3_vl(folder / "source/model", layers=layers)
    rows = [models.row(i, images=i // 2 % 2, source=f"source_{i % 2}") for i in range(24)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "source/train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:4]), folder / "source/test.parquet")
    write_params(folder, small(changes or {}))


def small(changes: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a project."""
    params: dict[str, Any] = {"seed": 0, "dtype": "float32", "launch": "python -m"} | SMALL
    for name, value in changes.items():
        params[name] = value
    if params["ratio"] != "auto":
        params.pop("budget", None)
    return params


def write_params(folder: Path, params: dict[str, Any]) -> None:
    """Write params.yaml."""
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def copied(source: Path, target: Path) -> Path:
    """Copy a project; links stay links."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return target


def outputs_of(folder: Path, names: tuple[str, ...] | list[str]) -> dict[str, str]:
    """Digests of all files that some stages wrote, by path."""
    paths = [folder / path for name in names for path in STAGES[name].outputs]
    return {
        file.relative_to(folder).as_posix(): _digest(file)
        for path in paths
        for file in _files(path)
    }


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if not file.is_dir())
    elif path.exists():
        yield path


def _digest(path: Path) -> str:
    """Digest what a file means: of times, only what is measured, not how much."""
    if path.name == "ttft.json":
        return ",".join(sorted(json.loads(path.read_text())))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def remove_outputs(folder: Path, name: str) -> None:
    """Delete what a stage wrote, as dvc does before it runs the stage."""
    for path in (folder / output for output in STAGES[name].outputs):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def litter(folder: Path) -> list[str]:
    """Unfinished files that lie about in a project."""
    patterns = ("*.partial*", ".*.old", ".*.old.*", "*.tmp")
    paths = {path for pattern in patterns for path in folder.rglob(pattern)}
    return sorted(path.relative_to(folder).as_posix() for path in paths)
