"""The files that a report was made of, by hash: what is shown with it must be of the same run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from interlace.errors import InputError
from interlace.system.documents import read_record
from interlace.system.resumable import content_digest

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


_MADE_OF = (  # a file, the key in it of a digest, what that digests, and the stage that wrote it
    ("artifacts/export.json", "plan", "artifacts/plan.json", "export"),
    ("artifacts/evaluation/pruned.json", "weights", "artifacts/pruned", "evaluate --model pruned"),
    ("artifacts/evaluation/tuned.json", "weights", "artifacts/tuned", "evaluate --model tuned"),
    ("metrics/ttft.json", "weights", "artifacts/tuned", "ttft"),
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


def remedy() -> str:
    """Say how to bring a report up to date: by DVC, or by hand where there is no pipeline."""
    if Path("dvc.yaml").exists():
        return "run: dvc repro"
    return "run the stages that follow, `report` last"


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


def check_same_run(workspace: Workspace) -> None:
    """Refuse results of one run beside the plan or the weights of another.

    Raises:
        InputError: names the file, what has changed since, and the stage to run again.
    """
    digests: dict[str, str] = {}
    for name, key, source, stage in _MADE_OF:
        file, path = workspace.at(name), workspace.at(source)
        if not file.exists() or not path.exists():
            continue  # the report says so
        recorded = read_record(file, dict[str, Any]).get(key)
        if source not in digests:
            digests[source] = content_digest(path)
        if recorded not in (None, digests[source]):
            raise InputError(
                f"{file}: of another run, as {path} has changed since; run the stage `{stage}`"
                " again, and those that follow"
            )


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
