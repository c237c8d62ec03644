"""Our own files, harmed: artifacts that a stage reads by hand, scratch, and all under dvc."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from campaign.bench import TARGETS, Bench
from campaign.damage import BYTES, HALVES, harm, harm_json, made_writable
from campaign.faults import Fault
from campaign.outcomes import Evidence, Try
from campaign.project import CHAIN, STAGES, outputs_of
from campaign.tables import harm_table

KINDS = ("artifacts", "scratch", "under dvc")
READERS: dict[str, tuple[str, ...]] = {  # a file that a stage wrote, and stages that read it
    "artifacts/sources.json": ("sample", "collect", "evaluate@dense"),
    "artifacts/dense.json": ("collect", "export"),
    "artifacts/params.json": ("sensitivity", "report"),
    "artifacts/hidden_states/similarity/*.parquet": ("score",),
    "artifacts/hidden_states/pooled/*.parquet": ("score",),
    "artifacts/tokens.json": ("report",),
    "artifacts/sensitivity/scores.parquet": ("score",),
    "artifacts/scores.parquet": ("select", "budget", "rounds", "report"),
    "artifacts/replicates.parquet": ("select",),
    "artifacts/budget.json": ("select", "rounds", "reference_plan"),
    "artifacts/rounds/*.parquet": ("select",),
    "artifacts/candidates/*": ("select",),
    "artifacts/plan.json": ("export", "finetune", "report"),
    "artifacts/removals.json": ("report",),
    "artifacts/pruned/config.json": ("finetune", "evaluate@pruned"),
    "artifacts/pruned/*.safetensors*": ("finetune", "evaluate@pruned"),
    "artifacts/export.json": ("report",),
    "artifacts/tuned/*": ("evaluate@tuned", "ttft"),
    "artifacts/reference_plan.json": ("reference", "report"),
    "artifacts/evaluation/*.json": ("report",),
    "artifacts/evaluation/answers/*.parquet": ("report",),
    "metrics/*.csv": ("report",),
    "metrics/ttft.json": ("report",),
    "data/datasheet.json": ("report",),
    "data/answers/answers.json": ("finetune", "reference", "report"),
    "data/answers/rows/*": ("finetune", "reference"),
    "data/train/*": ("answers", "collect", "report"),
    "data/calibration/*": ("collect", "export", "ttft"),
    "data/probes/*": ("collect",),
    "data/probes.yaml": ("pin", "sample"),
}
WITH_SCRATCH = (
    *("sample", "collect", "sensitivity", "rounds", "export", "finetune", "local healing"),
    *("reference", "evaluate@dense", "pin", "answers"),
)


def tries(kind: str, seed: int) -> list[Try]:
    """All harm of one kind; each number is a random draw of its own."""
    numbers = {"artifacts": 5, "scratch": 8, "under dvc": 1}[kind]
    targets = {
        "artifacts": tuple(READERS),
        "scratch": WITH_SCRATCH,
        "under dvc": ("dvc.lock", "dvc.lock half", *list(READERS)[:24]),
    }[kind]
    return [
        Try(kind, target, str(1000 * seed + number))
        for target in targets
        for number in range(numbers)
    ]


def perform(bench: Bench, one: Try) -> Evidence:
    """Harm one file, run its reader."""
    rng = random.Random(one.name)
    ways = {"artifacts": _artifact, "scratch": _scratch, "under dvc": _under_dvc}
    return ways[one.kind](bench, one.target, rng)


def _harm(path: Path, rng: random.Random) -> tuple[str, bool]:
    """Harm a file by its kind; return what was done, and True if no user can mean it."""
    edits: dict[str, Any] = {".json": harm_json, ".parquet": harm_table}
    if path.suffix in edits and rng.random() < 0.6:
        return edits[path.suffix](path, rng), False
    how = rng.choice([*sorted(BYTES), "missing"])
    harm(path, how, rng)
    return how, how in HALVES


def _artifact(bench: Bench, pattern: str, rng: random.Random) -> Evidence:
    with bench.workspace("full") as folder:
        path = rng.choice(sorted(file for file in folder.glob(pattern) if file.is_file()))
        how, damage = _harm(path, rng)
        reader = rng.choice(READERS[pattern])
        run = bench.stage(folder, reader)
        same = None if run.code else bench.is_same(folder, TARGETS[reader])
        file = path.relative_to(folder).as_posix()
        names = (file, path.name, str(Path(file).parent))
        seen = Evidence(harmed=[run], same=same, damage=damage, names=names)
        seen.recorded, seen.note = True, f"{file}: {how}"  # an edit is the user's
        return seen


def _scratch(bench: Bench, name: str, rng: random.Random) -> Evidence:
    """Kill a stage, harm a file of its unfinished work, run it again."""
    target = TARGETS[name]
    with bench.workspace(target.project) as folder:
        at = max(1, round(bench.events(target)["events"] * rng.uniform(0.4, 1)))
        module = STAGES[target.stage].module
        fault = Fault(stage=module, action="signal", at=at, number=9)
        killed = bench.stage(folder, target.stage, fault=fault)
        found = sorted(file for file in folder.glob(".scratch/**/*") if file.is_file())
        files = [file for file in found if "lock" not in f"{file.parent.name}{file.suffix}"]
        note = "no scratch"
        if files:
            path, how = rng.choice(files), rng.choice([*sorted(BYTES), "missing"])
            made_writable(folder / ".scratch")
            harm(path, how, rng)
            note = f"{path.relative_to(folder)}: {how}"
        again = bench.stage(folder, target.stage)
        same = bench.is_same(folder, target)
        return Evidence(harmed=[killed], after=[again], same=same, killed=True, note=note)


def _under_dvc(bench: Bench, pattern: str, rng: random.Random) -> Evidence:
    """Harm dvc.lock or an artifact, then let dvc mend it."""
    with bench.workspace("full", dvc=True) as folder:
        if pattern.startswith("dvc.lock"):
            path, how = folder / "dvc.lock", "half" if "half" in pattern else "tail lost"
            harm(path, how, rng)
        else:
            path = rng.choice(sorted(file for file in folder.glob(pattern) if file.is_file()))
            how, _ = _harm(path, rng)
        run = bench.run(folder, ["dvc", "repro"], limit=240)
        names = [name for name in CHAIN if name != "report"]
        base = bench.base("full")
        same = None if run.code else outputs_of(folder, names) == outputs_of(base, names)
        note = f"{path.relative_to(folder)}: {how}"
        return Evidence(harmed=[run], same=same, damage=True, note=note, names=("dvc.lock",))
