"""A repository with the pipeline, a tiny untrained model and a few rows, to drive dvc on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import forked_programs
import models
import pyarrow as pa
import pyarrow.parquet as pq

from interlace.system.documents import as_yaml, read_yaml

ROOT = Path(__file__).parents[2]
COPIED = (
    *("stages", "interlace", "dvc.yaml", "params.yaml", "data/probes.yaml"),
    *(".dvcignore", ".gitignore"),
    *(
        f"data/{model}/{name}"
        for model in ("smollm2", "smolvlm")
        for name in ("dvc.yaml", ".gitignore", ".dvc/config")
    ),
)
SMALL = {
    "model": {"id": "source/model"},
    "data": {"id": "source/train.parquet"},
    "probes": {"per_task": 2, "math_sources": ["source_0"], "nonmath_sources": ["source_1"]},
    "sensitivity": {"samples": 3},
    "select": {"protect_first": 0},
    "finetune": {
        "max_steps": 2,
        "batch_size": 4,
        "micro_batch_size": 4,
        "zero_stage": 0,
        "log_steps": 1,
    },
    "evaluate": {"heldout": "source/test.parquet", "max_new_tokens": 2},
    "ttft": {"requests": 1, "repeats": 2, "warmup": 0, "max_interval": 100},
}


@dataclass
class Project:
    """A repository to type commands in."""

    folder: Path

    def run(
        self, *command: str, check: bool = True, variables: Mapping[str, str] | None = None
    ) -> str:
        """Run a command as a user would; returns its output.

        `python` and `dvc` are forks of the shared server, unless `variables` name other programs.
        """
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=forked_programs.environment() if variables is None else os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
            )
        return done.stdout

    def ran(self, output: str) -> list[str]:
        """The stages that a dvc command really ran, after `wait`."""
        words = "Running stage '"
        names = [
            line.split("'")[1].split(":")[-1]
            for line in output.splitlines()
            if line.startswith(words)
        ]
        return [name for name in names if name != "wait"]


def start_project(folder: Path) -> Project:
    """Lay out the repository, commit it, run the pipeline once and commit what it wrote."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        ignore = shutil.ignore_patterns("__pycache__", "demo")
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    (folder / "source").mkdir()
    models.tiny_qwen3_vl(folder / "source/model", layers=10)
    rows = [models.row(i, images=i // 2 % 2, source=f"source_{i % 2}") for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "source/train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:4]), folder / "source/test.parquet")
    params = read_yaml(folder / "params.yaml")
    for section, values in SMALL.items():
        params[section] = (params.get(section) or {}) | values
    del params["budget"]  # a section that is not there has its defaults
    (folder / "params.yaml").write_text(as_yaml(params))
    made = Project(folder)
    made.run("git", "init", "--quiet")
    made.run("git", "config", "user.name", "Test")
    made.run("git", "config", "user.email", "test@example.org")
    made.run("dvc", "init", "--quiet")
    made.run("dvc", "config", "core.analytics", "false")
    made.run("git", "add", ".")
    made.run("git", "commit", "--quiet", "--message", "Start")
    made.run("dvc", "repro")
    made.run("git", "add", ".")
    made.run("git", "commit", "--quiet", "--message", "Run")
    return made
