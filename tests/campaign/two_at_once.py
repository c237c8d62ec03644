"""Two runs at once: in one folder, in two folders with one scratch folder, one of them killed."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from campaign.bench import TARGETS, Bench, ended
from campaign.faults import Fault
from campaign.outcomes import Evidence, Try
from campaign.project import STAGES, copied

KINDS = ("two at once",)


def tries(kind: str, seed: int) -> list[Try]:
    """Each stage in each way; the second starts after some share of the first one's time."""
    rng = random.Random(f"{seed} {kind}")
    ways = ("one folder", "two folders", "one killed")
    listed = [
        Try(kind, name, f"{way} {rng.choice([0, rng.randrange(0, 90)])}")
        for name in TARGETS
        for way in ways
    ]
    return [*listed, *(Try(kind, name, f"one folder {rng.randrange(90)}") for name in TARGETS)]


def perform(bench: Bench, one: Try) -> Evidence:
    """Run a stage twice at once, then once more."""
    target, words = TARGETS[one.target], one.detail.split()
    percent, stage = int(words[2]), STAGES[target.stage]
    counts = bench.events(target)
    with bench.workspace(target.project) as first:
        apart = words[1] == "folders" or words[1] == "killed"
        second = copied(first, first.parent / "second") if apart else first
        shared = {"DVC_ROOT": str(first.parent / "shared")} if apart else {}
        Path(first.parent / "shared").mkdir()
        fault = None
        if words[1] == "killed":
            at = max(1, counts["events"] * (100 - percent) // 100)
            number = signal.SIGKILL
            fault = Fault(stage=stage.module, action="signal", at=at, number=number)
        earlier = bench.start(first, stage.command, fault=fault, **shared)
        time.sleep(counts["seconds"] * percent / 100)
        later = bench.start(second, stage.command, **shared)
        runs = [ended(earlier, stage, 120), ended(later, stage, 120)]
        same = fault is not None or bench.is_same(first, target)
        same = same and bench.is_same(second, target)
        again = bench.run(first, stage.command, **shared)
        same = same and bench.is_same(first, target)
        harmed = [run for run in runs if run.code]  # in one folder, one may refuse to
        if fault:
            harmed = [runs[1]] if runs[1].code else []
        return Evidence(harmed=harmed, after=[again], same=same, names=("running", "another"))
