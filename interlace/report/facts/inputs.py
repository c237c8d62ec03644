"""The files that a report was made of, by hash: what is shown with it must be of the same run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from interlace.system.documents import read_record

RECORD = "inputs.json"  # in the report's folder
_LATER = (  # what a run writes after its plan, in that order
    *("artifacts/pruned", "artifacts/tuned", "artifacts/evaluation/dense.json"),
    *("artifacts/evaluation/pruned.json", "artifacts/evaluation/tuned.json"),
    *("metrics/ttft.json", "metrics/summary.json", f"artifacts/report/{RECORD}"),
)
_READ = (  # small files that `report` reads or writes; folders with all that is in them
    *("artifacts/dense.json", "artifacts/params.json", "artifacts/scores.parquet"),
    *("artifacts/plan.json", "artifacts/removals.json", "artifacts/reference_plan.json"),
    *("artifacts/candidates", "artifacts/export.json", "artifacts/evaluation"),
    *("data/answers/answers.json", "data/datasheet.json"),
    *("metrics/local_loss.csv", "metrics/loss.csv", "metrics/ttft.json", "metrics/summary.json"),
    *("metrics/calibration_size.csv", "metrics/probes.csv"),
)


class Workspace(NamedTuple):
    """The three folders of a run."""

    artifacts: Path = Path("artifacts")
    metrics: Path = Path("metrics")
    data: Path = Path("data")

    def at(self, name: str) -> Path:
        """Return the place of `artifacts/plan.json` and the like."""
        folder, _, rest = name.partition("/")
        return Path(getattr(self, folder)) / rest


def input_hashes(workspace: Workspace) -> dict[str, str]:
    """Return the SHA-256 of each file in `_READ` that is there, by its name."""
    hashes = {}
    for name in _READ:
        path = workspace.at(name)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and not file.name.startswith("."):
                key = f"{name}/{file.relative_to(path).as_posix()}" if file != path else name
                hashes[key] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashes


def other_run(workspace: Workspace) -> str:
    """Say why the report is not of the files that are there; empty where it is.

    Raises:
        InputError: the record of the report's files is damaged.
    """
    record = workspace.at(f"artifacts/report/{RECORD}")
    if record.exists():
        return changed_since_report(workspace)
    missing = [name for name in _LATER if not workspace.at(name).exists()] or [_LATER[-1]]
    return f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not there yet"


def changed_since_report(workspace: Workspace) -> str:
    """Name a file that is not what the report was made of; empty without one or a report.

    Raises:
        InputError: the record of the report's files is damaged.
    """
    path = workspace.at(f"artifacts/report/{RECORD}")
    if not path.exists():
        return ""
    recorded: dict[str, str] = read_record(path, dict[str, str])
    present = input_hashes(workspace)
    for name in {**recorded, **present}:
        if name not in present:
            return f"{name} is not there, but the last report was made of it"
        if recorded.get(name) != present[name]:
            return f"{name} has changed since the last report"
    return ""
