"""Kills: of a stage alone, of its process group, of dvc alone, of one of two workers."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from campaign.bench import TARGETS, Bench, Target, ended
from campaign.faults import Fault
from campaign.outcomes import MISSED, Evidence, Run, Try
from campaign.project import CHAIN, LAUNCHED, STAGES, remove_outputs

KINDS = ("kill",)
BY_HAND = (  # victim, signal, moment: an event counted in percent of all, or a time
    *(("stage", "KILL", "event"), ("stage", "KILL", "event"), ("stage", "KILL", "event")),
    *(("group", "KILL", "time"), ("stage", "TERM", "event"), ("group", "INT", "event")),
    ("group", "INT", "time"),
)
UNDER_DVC = (
    *(("dvc", "KILL", "event"), ("dvc", "TERM", "event")),
    *(("all", "KILL", "event"), ("all", "INT", "event")),
)


def tries(kind: str, seed: int) -> list[Try]:
    """All kills: each stage in turn, at moments spread over its run."""
    listed, rng = [], random.Random(f"{seed} {kind}")
    for name, target in TARGETS.items():
        ways = [*BY_HAND, *(UNDER_DVC if target.project == "full" else ())]
        for number, (victim, number_of, moment) in enumerate(ways):
            percent = rng.randrange(100 * number // len(ways), 100 * (number + 1) // len(ways))
            percent = {0: 0, 1: 100}.get(number, percent)
            listed.append(Try(kind, name, f"{victim} {number_of} {moment} {percent}"))
    for name in LAUNCHED:
        for number in ("KILL", "TERM", "KILL"):
            listed.append(Try(kind, name, f"worker {number} time {rng.randrange(5, 95)}"))
    return listed


def perform(bench: Bench, one: Try) -> Evidence:
    """Kill, run again, compare."""
    victim, name, moment, percent = one.detail.split()
    target, number = TARGETS[one.target], signal.Signals[f"SIG{name}"]
    if victim in ("dvc", "all"):
        return _under_dvc(bench, target, victim, number, int(percent))
    with bench.workspace(target.project) as folder:
        if int(percent) % 2:
            remove_outputs(folder, target.stage)
        if victim == "worker":
            run = _worker(bench, target, folder, number, int(percent))
        elif moment == "event":
            at = max(1, round(bench.events(target)["events"] * int(percent) / 100))
            fields = {"action": "signal", "at": at, "number": number}
            victims = {"stage": "self", "group": "group"}
            module = STAGES[target.stage].module
            fault = Fault(stage=module, victim=victims[victim], **fields)
            run = bench.stage(folder, target.stage, fault=fault)
        else:
            program = bench.start(folder, STAGES[target.stage].command)
            time.sleep(bench.events(target)["seconds"] * int(percent) / 100)
            program.kill(number, group=True)
            run = ended(program, STAGES[target.stage])
        again = bench.stage(folder, target.stage)
        same = bench.is_same(folder, target)
        note = "" if run.code else MISSED
        runs = [_tolerated(run, victim)]
        return Evidence(harmed=runs, after=[again], same=same, killed=True, note=note)


def _worker(bench: Bench, target: Target, folder: Path, number: int, percent: int) -> Run:
    """Run a stage by torchrun with two workers, and kill the second one."""
    stage = STAGES[target.stage]
    seconds = 2 * bench.events(target)["seconds"]
    at = round(1000 * seconds * percent / 100)
    fault = Fault(stage=stage.module, action="later", at=at, number=number, rank="1")
    return bench.run(folder, stage.workers(2), fault=fault, limit=120)


def _tolerated(run: Run, victim: str) -> Run:
    """Take torchrun's own report of a dead worker out of the output; it ends in a traceback."""
    if victim != "worker":
        return run
    begin = run.output.find("torch/distributed/elastic/multiprocessing/api.py")
    report = run.output.rfind("Traceback (most recent call last)")
    if begin >= 0 and "ChildFailedError" in run.output[report:]:
        return Run(run.label, run.code, run.output[:report])
    return run


def _under_dvc(bench: Bench, target: Target, victim: str, number: int, percent: int) -> Evidence:
    """Let dvc run a stage; kill dvc alone, or all; run `dvc repro` at once."""
    command = ["dvc", "repro", "--force", "--single-item", target.stage]
    with bench.workspace(target.project, dvc=True) as folder:
        at = max(1, round(bench.events(target)["events"] * percent / 100))
        fields = {"action": "signal", "at": at, "number": number}
        module = STAGES[target.stage].module
        fault = Fault(stage=module, victim="dvc" if victim == "dvc" else "session", **fields)
        killed = bench.run(folder, command, fault=fault, limit=120)
        again = bench.run(folder, ["dvc", "repro"], limit=240)
        names = [name for name in CHAIN if name != "report" or target.stage == "report"]
        same = bench.is_same(folder, target, names)
        note = "" if killed.code else MISSED
        runs = [_by_dvc(killed)]
        return Evidence(harmed=runs, after=[again], same=same, killed=True, note=note)


def _by_dvc(run: Run) -> Run:
    """Take dvc's own traceback of an interrupt out of the output."""
    own = "KeyboardInterrupt" in run.traceback and "/dvc/" in run.output
    begin = run.output.rfind("Traceback (most recent call last)")
    if own and "interlace/" not in run.output[begin:] and "stages/" not in run.output[begin:]:
        return Run(run.label, run.code, run.output[:begin])
    return run
