"""A full disk in each stage: a limit on the size of files, and writes that are refused."""

from __future__ import annotations

import random

from campaign.bench import TARGETS, Bench
from campaign.faults import Fault
from campaign.outcomes import Evidence, Try
from campaign.project import STAGES

KINDS = ("disk full",)
SIZES = (0, 300, 5_000, 60_000)  # bytes, of the largest file that can be written


def tries(kind: str, seed: int) -> list[Try]:
    """Each stage: with small files only, and refused from some write on."""
    listed, rng = [], random.Random(f"{seed} {kind}")
    for name in TARGETS:
        listed += [Try(kind, name, f"files of {size} bytes") for size in SIZES]
        percents = [0, rng.randrange(10, 60), rng.randrange(60, 99)]
        listed += [Try(kind, name, f"no space from {percent} percent") for percent in percents]
    return listed


def perform(bench: Bench, one: Try) -> Evidence:
    """Run a stage on a full disk over earlier outputs, look at those, run it again."""
    target, words = TARGETS[one.target], one.detail.split()
    module = STAGES[target.stage].module
    if words[0] == "files":
        fault = Fault(stage=module, action="small", at=int(words[2]))
    else:
        at = max(1, round(bench.events(target)["growth"] * int(words[3]) / 100))
        fault = Fault(stage=module, action="full", at=at)
    with bench.workspace(target.project) as folder:
        full = bench.stage(folder, target.stage, fault=fault)
        kept = bench.is_same(folder, target)
        again = bench.stage(folder, target.stage)
        same = bench.is_same(folder, target)
        names = ("space", "large", "big", "full")
        return Evidence(harmed=[full], after=[again], same=same, kept=kept, names=names)
