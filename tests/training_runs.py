"""Short trainings of a tiny pruned model, in this process or as the stage."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nodes
from plans import PLAN, PREFIX, weights

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.healing.heal import heal_checkpoint
from interlace.params.healing import Finetune, Heal
from interlace.plan.record import Plan
from interlace.system.documents import as_yaml

STEPS = 6
LOCAL_STEPS = 8
RECIPE: dict[str, Any] = {
    "max_steps": STEPS,
    "learning_rate": 1e-2,
    "batch_size": 4,
    "micro_batch_size": 2,
    "max_length": 512,
    "min_pixels": None,
    "max_pixels": None,
    "save_steps": 2,
    "log_steps": 1,
    "workers": 0,
    "zero_stage": 0,
}
HEAL = {"local_learning_rate": 3e-3}
LOCAL_ONLY = {"local_steps": LOCAL_STEPS, "max_steps": 0}
TUNED = tuple(f"{PREFIX}.{position}." for position in PLAN.tuned_positions)
RUN_STAGE = "import sys; from stages.finetune import main; main(['--params', 'mine.yaml'])"
KILL_IN_UPDATE = """
import os, signal
from interlace.healing.end_to_end import EndToEnd
from interlace.system.distributed import process_rank, world_size
update, calls = EndToEnd.update, []
def killing(*args):
    calls.append(1)
    if len(calls) == {} and process_rank() == world_size() - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(*args)
EndToEnd.update = killing
"""


def tune(project: Path, out: Path, plan: Plan = PLAN, **changes: Any) -> None:
    """Heal in this process: end to end, without DeepSpeed, unless `changes` say otherwise."""
    heal_checkpoint(
        Checkpoint(changes.pop("dense", project / "dense")),
        Checkpoint(changes.pop("pruned", project / "artifacts/pruned")),
        project / "data/train",
        out / "tuned",
        (out / "local.csv", out / "loss.csv"),
        plan=plan,
        params=Finetune(**(RECIPE | HEAL | changes)),
        seed=0,
        scratch=out / "scratch",
    )


def moved_weights(old: Path, new: Path) -> set[str]:
    """Names of the weights that differ between two checkpoints of the same names."""
    old_weights, new_weights = weights(old), weights(new)
    assert old_weights.keys() == new_weights.keys()
    return {name for name in old_weights if not old_weights[name].equal(new_weights[name])}


def curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def column(path: Path, name: str = "loss") -> list[float]:
    return [row[name] for row in curve(path)]


def assert_same_run(one: Path, other: Path) -> None:
    """Two runs have the same curves and the same bytes of weights."""
    for name in ("local.csv", "loss.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    for path in (one / "tuned").iterdir():
        assert path.read_bytes() == (other / "tuned" / path.name).read_bytes(), path.name


def linked(project: Path, folder: Path) -> Path:
    """A folder in which the stage can run, with links to a project's inputs."""
    for entry in ("artifacts", "data"):
        (folder / entry).mkdir(parents=True)
        for path in (project / entry).iterdir():
            (folder / entry / path.name).symlink_to(path)
    return folder


def start_stage(
    folder: Path, processes: int = 1, *, setup: str = "", launch: Sequence[str] = (), **changes: Any
) -> list[subprocess.Popen[str]]:
    """Start the stage with ZeRO and a changed recipe; of several processes, each on its own node.

    `setup` is code to run before the stage; `launch` replaces the nodes and the stage.
    """
    options = RECIPE | HEAL | {"zero_stage": 3} | changes
    heal_options = {name: options.pop(name) for name in Heal.model_fields.keys() & options.keys()}
    params = {"model": {"id": "m"}, "data": {"id": "d"}, "finetune": options, "heal": heal_options}
    (folder / "mine.yaml").write_text(as_yaml(params))
    (folder / "run.py").write_text(setup + RUN_STAGE)
    if processes > 1:
        return nodes.start_nodes(["run.py"], processes, cwd=folder)
    return [nodes.start(launch or ["python", "run.py"], cwd=folder)]


def assert_ends(processes: Sequence[subprocess.Popen[str]], *codes: int) -> None:
    """Wait for all processes of a stage; their exit codes are 0 where none are given."""
    ends = nodes.ended(processes)
    assert [code for code, _ in ends] == list(codes or [0] * len(ends)), ends
